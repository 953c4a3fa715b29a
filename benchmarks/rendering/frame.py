"""Records as one tidy frame, and what tables and figures read of it: a cell's figure, by seed or by case.

DSC is pooled (sums over all voxels of all volumes) unless a column says `case` (mean of per-volume values); both
in percent.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import get_args

import numpy as np
import pandas as pd

from mmseg_plugins.datasets.catalogue import NSD_TOLERANCE
from mmseg_plugins.evaluation.metrics import METRICS, Metric

from ..grid.axes import AXES, Cell
from .folds import merge_folds

FRACTIONS = [name for name, axis in AXES.items() if float in get_args(axis.kind)]
COLUMNS = ('run', 'dataset', *AXES, 'seed', 'label_id', 'label', 'headline', 'case')
Labels = Sequence[int] | str  # ids, `headline` (the dataset's reported organs) or `all` (background included)


def tidy_records(records: list[dict]) -> pd.DataFrame:
    """One row per finished run, label and case; the folds of a seed are one run.

    Returns:
        Columns: `run`, the cell's axes (`dataset`, `encoder`, `source`, `inflation`, `slices`, `stride`,
        `target`, `lr`, `steps`, ...), `seed`, `label_id`, `label`, `headline` (whether it counts in the tables'
        mean), `case`, and one of every metric that is registered or in the records: `dsc`, `nsd` and
        `dsc_pooled` (percent), `hd95` (mm), others. What is of all cases together, as `dsc_pooled`, is the same
        for each. NaN where a label has no figure. Without rows where all runs failed.
    """
    rows, metrics = [], dict.fromkeys(METRICS)
    for record in merge_folds(records):
        if record['state'] != 'done':
            continue
        scores, cell = record['scores'], asdict(Cell(**record['cell']))
        figures = {name: values if isinstance(values[0], list) else [values] * len(scores['cases'])
                   for name, values in scores['figures'].items()}
        metrics |= dict.fromkeys(figures)
        rows += [dict(run=record['run'], **cell, seed=record['seed'], label_id=i, label=label,
                      headline=i in scores['headline'], case=case,
                      **{name: values[k][i] for name, values in figures.items()})
                 for i, label in enumerate(scores['labels']) for k, case in enumerate(scores['cases'])]
    kinds = dict.fromkeys((*metrics, *FRACTIONS), float) | dict(headline=bool)
    return pd.DataFrame(rows, columns=[*COLUMNS, *metrics]).astype(kinds)


@dataclass
class Value:
    """A measured figure: one number per seed."""
    seeds: dict[int, float] = field(default_factory=dict)
    failed: int = 0
    finished: int = 0  # runs that have no such figure among them: an organ that is nowhere
    unfinished: int = 0  # seeds of which some folds are missing
    folds: int | None = None  # that each seed's figure is put together of

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.seeds.values()))) if self.seeds else np.nan

    @property
    def std(self) -> float:
        """Sample standard deviation over seeds; NaN for fewer than two."""
        return float(np.std(list(self.seeds.values()), ddof=1)) if len(self.seeds) > 1 else np.nan

    def __str__(self) -> str:
        if not self.seeds:
            return ('—' if self.finished else 'failed' if self.failed else 'not all folds' if self.unfinished else
                    'not run')
        asides = [f'{self.failed} failed'] * bool(self.failed)
        if len(self.seeds) < self.finished:
            asides.append(f'{len(self.seeds)} of {self.finished} runs')
        return (f'{self.mean:.2f}' + (f' ± {self.std:.2f}' if len(self.seeds) > 1 else '')
                + (f' ({", ".join(asides)})' if asides else ''))

    @property
    def runs(self) -> str:
        """How many it is made of."""
        return f'{len(self.seeds)}' + (f' x {self.folds} folds' if self.folds and self.seeds else '')


class Measured:
    """Runs by cell, and the data they were on. The folds of a cell and seed are one run (folds.py).

    Args:
        records: of one grid; as they are, in `records`.
        data: dataset -> its summary (mmseg_plugins/datasets/statistics.py).
    """

    def __init__(self, records: list[dict], data: dict[str, dict] | None = None):
        self.records, self.data = records, data or {}
        self.frame = tidy_records(records)
        self._by_cell: dict[Cell, list[dict]] = {}
        for record in merge_folds(records):
            self._by_cell.setdefault(Cell(**record['cell']), []).append(record)
        self._values: dict[tuple, Value] = {}

    @cached_property
    def _by_run(self) -> dict[str, pd.DataFrame]:
        return dict(list(self.frame.groupby('run')))

    def cells(self) -> list[Cell]:
        return list(self._by_cell)

    def runs(self, cell: Cell) -> list[dict]:
        return self._by_cell.get(cell, [])

    def done(self, cell: Cell | None = None) -> list[dict]:
        """Finished runs, of one cell or of all."""
        cells = self._by_cell if cell is None else [cell]
        return [record for each in cells for record in self.runs(each) if record['state'] == 'done']

    def finished_runs(self) -> list[dict]:
        """Finished runs, each of one fold where there are folds."""
        return [record for record in self.records if record['state'] == 'done']

    def unfinished(self) -> list[dict]:
        """Runs that have no figures because not all of their folds are done, with `reason`."""
        return [record for cell in self._by_cell for record in self.runs(cell)
                if record['state'] != 'done' and 'folds' in record]

    def folds(self) -> list[int]:
        """Into how many folds the data of finished runs was divided; none where it is as it was split."""
        return sorted({len(record['folds']) for record in self.done() if 'folds' in record})

    def failed(self) -> list[dict]:
        return [record for record in self.records if record['state'] == 'failed']

    def scores(self, dataset: str) -> dict | None:
        """Of a finished run on a dataset, whose labels are all its runs'."""
        return next((record['scores'] for record in self.done() if record['cell']['dataset'] == dataset), None)

    def cases(self, cell: Cell) -> set[str]:
        """Those that finished runs of a cell were evaluated on."""
        return {case for record in self.done(cell) for case in record['scores']['cases']}

    def metrics(self) -> list[Metric]:
        """Both kinds of DSC and what else finished runs have figures of, in the order of registration.

        Titles tell at which tolerance figures are.
        """
        held = {'dsc_pooled', 'dsc', *self.frame.columns[self.frame.notna().any()]}
        every = [mm for tolerance in self.tolerances().values() for mm in tolerance] or [NSD_TOLERANCE]
        return [metric.titled((min(every), max(every))) for metric in METRICS.values() if metric.name in held]

    def without_spacing(self) -> list[str]:
        """Datasets of finished runs whose voxel sizes are nominal, so that they have no figure in mm."""
        return list(dict.fromkeys(record['cell']['dataset'] for record in self.done()
                                  if (record.get('data') or {}).get('nominal_spacing')))

    def tolerances(self) -> dict[str, tuple[float, float]]:
        """Dataset -> the least and the most mm by which surfaces may differ in finished runs' figures."""
        found: dict[str, list[float]] = {}
        for record in self.done():
            data = record.get('data') or {}
            told = [] if data.get('nominal_spacing') else data.get('nsd_tolerance') or [NSD_TOLERANCE]
            found.setdefault(record['cell']['dataset'], []).extend(told)
        return {dataset: (min(told), max(told)) for dataset, told in found.items() if told}

    def rows(self, cell: Cell, labels: Labels = 'headline') -> pd.DataFrame:
        """The frame's rows of a cell and of these labels."""
        parts = [self._by_run[record['run']] for record in self.done(cell)]
        rows = pd.concat(parts) if parts else self.frame[:0]
        return (rows if labels == 'all' else rows[rows['headline']] if labels == 'headline' else
                rows[rows['label_id'].isin(labels)])

    def value(self, cell: Cell, metric: str = 'dsc_pooled', labels: Labels = 'headline') -> Value:
        """Mean figure of a cell over labels, and over cases where the metric is per case.

        A seed has none where the metric has no best figure and none of a label that is there: a mean over other
        labels than another row's would not compare.

        Args:
            metric: its name (mmseg_plugins/evaluation/metrics.py).
        """
        key = (cell, metric, labels if isinstance(labels, str) else tuple(labels))
        if key not in self._values:
            rows, done = self.rows(cell, labels), self.done(cell)
            states = Counter(record['state'] for record in self.runs(cell))
            by_label = rows.groupby(['seed', 'label_id'], sort=False)[[*{metric, 'dsc_pooled'}]].mean()
            if METRICS[metric].best is None:
                there = by_label[by_label['dsc_pooled'].notna()]
                by_label = there[there[metric].notna().groupby('seed').transform('all')]
            seeds = by_label.groupby('seed', sort=False)[metric].mean().dropna().to_dict()
            self._values[key] = Value(seeds, states['failed'], len(done), states['unfinished'],
                                      len(done[0]['folds']) if done and 'folds' in done[0] else None)
        return self._values[key]

    def per_case(self, cell: Cell, labels: Labels = 'headline', metric: str = 'dsc') -> pd.DataFrame:
        """A figure by seed and case (seeds x cases): its mean over labels; NaN where a case has none of them."""
        return _by_seed_and_case(self.rows(cell, labels), metric)

    def per_patient(self, cell: Cell, labels: Labels = 'headline') -> pd.DataFrame:
        """DSC by seed and patient: the means of each one's cases, which are not drawn independently."""
        return self._by_patient(self.per_case(cell, labels, 'dsc'), cell.dataset)

    def pair_patients(self, first: Cell, second: Cell, labels: Labels = 'headline', metric: str = 'dsc'
                      ) -> list[pd.DataFrame]:
        """Two cells' figures by seed and patient, made comparable: means over the same labels of the same cases.

        A label that a case lacks counts where any run of either cell predicts it there, if the metric has a best
        figure: a DSC of 0, against 100 for leaving it out. Without one, it counts where all runs have a figure.
        """
        best = METRICS[metric].best
        sides = [self.rows(cell, labels) for cell in (first, second)]
        both = pd.concat(sides, keys=(0, 1), names=['side']).reset_index('side')
        both = both[both['case'].isin(set(sides[0]['case']) & set(sides[1]['case']))]
        has_figure = both[metric].notna().groupby([both['case'], both['label_id']])
        counted = both[has_figure.transform('all' if best is None else 'any')]
        if best is not None:
            counted = counted.fillna({metric: best})
        return [self._by_patient(_by_seed_and_case(counted[counted['side'] == side], metric), cell.dataset)
                for side, cell in enumerate((first, second))]

    def _by_patient(self, figures: pd.DataFrame, dataset: str) -> pd.DataFrame:
        """Columns are `patient` where the dataset has some with several cases, else `case` as they were."""
        patients = self.data.get(dataset, {}).get('patients')
        if not patients:
            return figures
        of = figures.columns.map(lambda case: patients.get(case, case)).rename('patient')
        return figures.T.groupby(of, sort=False).mean().T


def _by_seed_and_case(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    return rows.groupby(['seed', 'case'], sort=False)[metric].mean().unstack('case')
