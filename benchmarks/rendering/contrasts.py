"""Rows against each other, overall and by organ, and two folders of one grid against each other."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from mmseg_plugins.errors import UserError, nearest
from mmseg_plugins.evaluation.metrics import METRICS

from ..grid.axes import Cell
from ..grid.grid import Grid
from ..grid.tables import Contrast
from .folds import split_merged
from .frame import Measured, Value
from .markup import to_markdown
from .statistics import (
    LEAST_CASES,
    LEAST_SEEDS,
    TOO_FEW,
    Estimate,
    estimate_difference,
    format_p,
    holm,
    seed_reach,
)
from .tables import cell_label, cell_names, free_names, marked

NOTE = ('DSC case: mean over labels, cases and seeds, a label that the case lacks counting 100 where one run '
        'leaves it out and another does not (0). 95 %: Student\'s t for new seeds and new cases (two-way random '
        'effects, Satterthwaite; of a patient with several cases their mean counts as one); below '
        f'{LEAST_SEEDS} common seeds for new cases alone ("these seeds": it tells nothing of others). p: of the '
        'same t, two-sided. Beyond noise: Holm\'s p is below 0.05, and then the interval leaves zero out. '
        f'"{TOO_FEW}": fewer than {LEAST_CASES} common cases, or no difference in any.')
FAMILIES = ('Holm\'s correction is over all contrasts that the grid file registered, run or not yet ("yes"), and '
            'by itself over those that were looked up afterwards ("no"), those by organ among them.')

OUT_OF_FOLD = ('Out-of-fold cases of one seed share networks within a fold, and folds share most of what they are '
               'trained on; the interval takes cases as independent, so that it may be too narrow.')


@dataclass(frozen=True)
class Judged:
    """A contrast on its dataset, and what came of it.

    Args:
        contrast: that it is of.
        estimate: of the first minus the second; None: not enough data.
        holm: its p by Holm's correction over its family.
    """
    contrast: Contrast
    estimate: Estimate | None
    holm: float | None

    @property
    def beyond_noise(self) -> bool:
        return self.holm is not None and self.holm < 0.05


def shown_contrasts(measured: Measured, grid: Grid) -> list[Contrast]:
    """Those that the grid registers, then its tables', on every dataset where both cells have a figure.

    What its file registers, and a run's record does not have from before it ran, was looked up all the same.
    """
    found: dict[tuple, Contrast] = {}  # once, however often a pair of cells stands in tables
    for contrast in [*grid.contrasts, *(each for table in grid.tables.values() for each in table.contrasts())]:
        for placed in map(contrast.on, grid.datasets):
            if all(measured.value(cell, labels=placed.labels).seeds for cell in placed.cells):
                runs = [run for cell in placed.cells for run in split_merged(*measured.done(cell))]
                before = placed.registered and all(placed.key in run.get('contrasts', ()) for run in runs)
                found.setdefault((frozenset(placed.cells), placed.labels), replace(placed, registered=before))
    return sorted(found.values(), key=lambda contrast: not contrast.registered)


def main_contrasts(measured: Measured, grid: Grid) -> list[Contrast]:
    """The first of them, on every dataset."""
    shown = shown_contrasts(measured, grid)
    return [contrast for contrast in shown if contrast.key == shown[0].on(contrast.cells[0].dataset).key]


def by_organ(contrast: Contrast, measured: Measured) -> list[Contrast]:
    """The same of each reported organ."""
    scores = measured.scores(contrast.cells[0].dataset)
    return [replace(contrast, name=scores['labels'][i], labels=(i,), registered=False) for i in scores['headline']]


def judge_together(contrasts: Iterable[Contrast], measured: Measured, metric: str = 'dsc', planned: int = 0
                   ) -> list[Judged]:
    """All of a family, by a metric; see `holm`."""
    contrasts = list(contrasts)
    found = [estimate_difference(*measured.pair_patients(*contrast.cells, contrast.labels, metric))
             if METRICS[metric].per_case else None for contrast in contrasts]
    corrected = holm([one and one.p for one in found], planned)
    return [Judged(*each) for each in zip(contrasts, found, corrected, strict=True)]


def judge_page(measured: Measured, grid: Grid) -> list[Judged]:
    """Every contrast that the page shows: the registered family, and the one that was looked up afterwards.

    What was registered and has not run yet is of its family: a first look at a part is no easier to pass.
    """
    shown = shown_contrasts(measured, grid)
    organs = by_organ(shown[0], measured) if shown and len(grid.datasets) == 1 else []
    registered = judge_together([contrast for contrast in shown if contrast.registered], measured,
                                planned=len(grid.registered) * len(grid.datasets))
    return registered + judge_together([*(each for each in shown if not each.registered), *organs], measured)


def means(contrast: Contrast, measured: Measured, metric: str = 'dsc_pooled') -> list[float]:
    """A metric's mean of both cells, over their common seeds where the estimate is of these; NaN: none."""
    found = [measured.value(cell, metric, contrast.labels).seeds for cell in contrast.cells]
    if len(common := found[0].keys() & found[1].keys()) >= LEAST_SEEDS:
        found = [{seed: value for seed, value in seeds.items() if seed in common} for seeds in found]
    return [Value(seeds).mean for seeds in found]


def difference(judged: Judged, measured: Measured, metric: str = 'dsc') -> float:
    """What came of a contrast by a metric, also where there is too little to say how sure; NaN: nothing."""
    if judged.estimate:
        return judged.estimate.value
    if not METRICS[metric].per_case:
        first, second = means(judged.contrast, measured, metric)
        return first - second
    pair = measured.pair_patients(*judged.contrast.cells, judged.contrast.labels, metric)
    return float((pair[0].mean() - pair[1].mean()).mean())


def contrast_table(judged: Iterable[Judged], measured: Measured, grid: Grid) -> pd.DataFrame:
    """A line for each contrast of rows."""
    return pd.DataFrame([{
        'Effect': str(each.contrast) if each.contrast.name else '—',
        **({'Data': each.contrast.cells[0].dataset} if len(grid.datasets) > 1 else {}),
        'Contrast': ' - '.join(marked(name, cell, measured, grid) for name, cell in zip(
            (each.contrast.first, each.contrast.second), each.contrast.cells, strict=True)),
        'Table': each.contrast.table or '—',
        'registered': 'yes' if each.contrast.registered else 'no', **_figures(each, measured)}
        for each in judged if isinstance(each.contrast.labels, str)])


def organ_table(judged: Iterable[Judged], overall: Contrast, measured: Measured, metric: str = 'dsc'
                ) -> pd.DataFrame:
    """A line for each organ of a contrast, and one of all of them, which is in no family here."""
    organs = [each for each in judged if not isinstance(each.contrast.labels, str)]
    together = judge_together([replace(overall, name='all of these', labels='headline')], measured, metric)
    return pd.DataFrame([{'Organ': each.contrast.name, **_figures(each, measured, metric)}
                         for each in organs + [replace(each, holm=None) for each in together]])


def _figures(judged: Judged, measured: Measured, metric: str = 'dsc') -> dict[str, str]:
    """What a line tells of a contrast, by a metric; pooled DSC beside that of cases."""
    def text(value: float) -> str:
        return '—' if value != value else f'{value:+.2f}'

    found, title = judged.estimate, METRICS[metric].title
    figures = {title: text(difference(judged, measured, metric))}
    if METRICS[metric].per_case:
        figures |= {'95 %': found.interval, 'p': format_p(found.p), 'p (Holm)': format_p(judged.holm),
                    'beyond noise': ('yes' if judged.beyond_noise else 'no') if judged.holm is not None else '—',
                    'over': found.over} if found else {
                        '95 %': TOO_FEW, **dict.fromkeys(('p', 'p (Holm)', 'beyond noise', 'over'), '—')}
    if metric == 'dsc':
        first, second = means(judged.contrast, measured)
        figures[METRICS['dsc_pooled'].title] = text(first - second)
    return figures


def find_cell(measured: Measured, grid: Grid, name: str) -> Cell:
    """A cell by its row, by table and row (`stride 2`), by its free axes, or by its own name (`phantom-beit-...`).

    Raises:
        UserError: nothing, or no finished run, is called so.
    """
    known = {str(cell): cell for cell in measured.cells()} | free_names(measured, grid)
    known |= {named: cell for named, (*_, cell) in grid.named_rows().items()}
    if name not in known:
        raise UserError(f'{grid.name}: no row {name!r}{nearest(name, known)}')
    if not measured.done(known[name]):
        raise UserError(f'{grid.name}: row {name!r} has no finished run')
    return known[name]


def compare(measured: Measured, grid: Grid, first: str, second: str) -> str:
    """Two rows against each other by every metric, as Markdown."""
    cells = tuple(find_cell(measured, grid, name) for name in (first, second))
    if cells[0] == cells[1]:
        raise UserError(f'--compare: {first!r} and {second!r} are one cell, {cells[0]}; name two')
    lines = [f'{name}: {cell_label(cell)}' for name, cell in zip((first, second), cells, strict=True)]
    contrast = Contrast('', first, second, cells)
    for metric in measured.metrics():
        if metric.name != 'dsc_pooled':  # beside `dsc`, in its table
            better = 'higher' if metric.higher_is_better else 'lower'
            judged = judge_together(by_organ(contrast, measured), measured, metric.name)
            lines += ['', *([] if metric.name == 'dsc' else [f'{metric.title}, {better} is better:', '']),
                      to_markdown(organ_table(judged, contrast, measured, metric.name))]
    return '\n'.join([f'{first} - {second}', *lines, f'{NOTE} Holm\'s correction is over the organs of a table.'])


def compare_results(new: Measured, old: Measured, grid: Grid) -> pd.DataFrame:
    """What moved between two folders of a grid: pooled DSC of every cell of either, new minus old.

    Of the same cases the question is whether other seeds would have given the same: Student's t of two samples of
    seeds, cases held fixed; a cell that has one seed on either side cannot tell.
    """
    rows = []
    for cell, name in (cell_names(old, grid) | cell_names(new, grid)).items():
        if not new.runs(cell) and not old.runs(cell):
            continue
        now, before = new.value(cell), old.value(cell)
        row = {'Cell': name, 'old': str(before).replace('not run', '—'), 'new': str(now).replace('not run', '—'),
               'beyond noise': 'cannot tell'}
        if now.seeds and before.seeds and new.cases(cell) != old.cases(cell):
            row['beyond noise'] = 'other cases'
        elif now.seeds and before.seeds:
            row['difference'] = f'{now.mean - before.mean:+.2f}'
            if (reach := seed_reach(now, before)) is not None:
                row |= {'noise (95 %)': f'± {reach:.2f}',
                        'beyond noise': 'yes' if abs(now.mean - before.mean) > reach else 'no'}
        elif now.seeds or before.seeds:
            row['beyond noise'] = 'only new' if now.seeds else 'only old'
        rows.append(row)
    columns = ['Cell', 'old', 'new', 'difference', 'noise (95 %)', 'beyond noise']
    return pd.DataFrame(rows, columns=columns).fillna('—')
