"""Scores by case and label as files: JSON for programs, CSV for spreadsheets."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..files import write_atomic, write_json
from .metrics import METRICS
from .scores import Scores, mean_over_cases


def summarize(scores: Scores, labels: Sequence[str], headline: Sequence[int]) -> dict:
    """Scores as JSON has them, NaN where a label has none.

    Args:
        labels: names, K.
        headline: ids of the labels whose mean is `mean`.

    Returns:
        `metrics` (title, unit), `mean` by metric, `labels` by label and metric, `cases` by case, label and metric.
    """
    figures = {name: scores.by_label(name) for name in scores.figures}
    by_case = {name: table for name, table in scores.figures.items() if table.ndim == 2}
    return dict(
        metrics={name: dict(title=METRICS[name].titled(scores.tolerance).title, unit=METRICS[name].unit)
                 for name in figures},
        mean={name: float(mean_over_cases(figures[name][list(headline), None])[0]) for name in figures},
        labels={label: {name: float(figures[name][i]) for name in figures}
                for i, label in enumerate(labels) if i},
        cases={case: {label: {name: float(table[row, i]) for name, table in by_case.items()}
                      for i, label in enumerate(labels) if i} for row, case in enumerate(scores.cases)})


def write_scores(path: Path, scores: Scores, labels: Sequence[str], headline: Sequence[int]) -> Path:
    """Write `summarize` as JSON, and its cases as CSV beside it, a row per case and label.

    Returns:
        The CSV's path.
    """
    summary = summarize(scores, labels, headline)
    rows = [dict(case=case, label=label) | figures for case, found in summary['cases'].items()
            for label, figures in found.items()]
    table = path.with_suffix('.csv')
    write_atomic(table, pd.DataFrame(rows).to_csv(index=False))
    write_json(path, summary)
    return table
