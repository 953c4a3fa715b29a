"""Records -> the paper's tables: measured beside published, every cell with the number of runs behind it.

DSC is pooled (sums over all voxels of all volumes) unless a column says `case` (mean of per-volume
values); both in percent.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from mmseg_plugins.datasets.catalogue import BCV_EIGHT, BCV_LABELS

from .cells import AXES, Cell, Grid

PAPER = Path(__file__).parent / 'paper'
CAPTIONS = {
    '2a': 'Table 2(a). Transfer (T) and depth (D): mean DSC over {headline}.',
    '2b': 'Table 2(b). Source and objective of pre-training (centering, 5 slices): mean DSC over {headline}.',
    '3': 'Table 3. The rows of Table 2(a) by organ, pooled DSC.',
    '4a': 'Table 4(a). Prediction target (average inflation, 5 slices, stride 2): mean DSC over {all}.',
    '4b': 'Table 4(b). Inflation (5 slices, stride 2): mean DSC over {all}.',
    '4c': 'Table 4(c). Input stride (centering, 5 slices): mean DSC over {all}.',
    '4d': 'Table 4(d). Input slices (centering, stride 1): mean DSC over {all}.',
}
AXIS = {'4a': 'target', '4b': 'inflation', '4c': 'stride', '4d': 'slices'}
BCV_ORGANS = ('bcv', 'phantom')
PER_CASE_IN_PAPER = ('TransUNet', 'SwinUNet')  # their own papers' per-case means, not pooled


@dataclass
class Value:
    """A measured figure: one number per seed."""
    seeds: dict[int, float] = field(default_factory=dict)
    failed: int = 0

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.seeds.values()))) if self.seeds else np.nan

    @property
    def std(self) -> float:
        """Sample standard deviation over seeds; NaN for fewer than two."""
        return float(np.std(list(self.seeds.values()), ddof=1)) if len(self.seeds) > 1 else np.nan

    def __str__(self) -> str:
        if not self.seeds:
            return 'failed' if self.failed else 'not run'
        return f'{self.mean:.2f}' + (f' ± {self.std:.2f}' if len(self.seeds) > 1 else '')


class Measured:
    """Finished runs by cell.

    Args:
        records: of one grid.
    """

    def __init__(self, records: list[dict]):
        self._by_cell: dict[Cell, list[dict]] = {}
        for record in records:
            self._by_cell.setdefault(Cell(**record['cell']), []).append(record)

    def runs(self, cell: Cell) -> list[dict]:
        return self._by_cell.get(cell, [])

    def value(self, cell: Cell, kind: str, labels: list[int] | str = 'headline') -> Value:
        """Mean DSC of a cell over labels.

        Args:
            kind: `pooled` or `case`.
            labels: ids, `headline` (the dataset's reported organs) or `all` (background included).
        """
        value = Value()
        for record in self.runs(cell):
            if record['state'] != 'done':
                value.failed += 1
                continue
            scores = record['scores']
            ids = (range(len(scores['labels'])) if labels == 'all' else
                   scores['headline'] if labels == 'headline' else labels)
            figures = [scores[kind][i] for i in ids if scores[kind][i] is not None]
            if figures:
                value.seeds[record['seed']] = float(np.mean(figures))
        return value

    def cells(self) -> list[Cell]:
        return list(self._by_cell)

    def done(self) -> list[dict]:
        return [record for runs in self._by_cell.values() for record in runs if record['state'] == 'done']


def published(table: str, grid: Grid) -> dict[str, float]:
    """The paper's figure by row label of a table: BCV's for BCV's organs, else the dataset's of Table 5."""
    if grid.dataset not in BCV_ORGANS:
        column = pd.read_csv(PAPER / 'table5_generalization.csv').set_index('method')
        return column[grid.dataset].dropna().to_dict() if table == '2a' and grid.dataset in column else {}
    if table == '2a':
        return pd.read_csv(PAPER / 'table2a_main.csv').set_index('method')['dsc8'].to_dict()
    if table == '2b':
        return pd.read_csv(PAPER / 'table2b_source.csv').set_index('encoder')['dsc8'].to_dict()
    if table in AXIS:
        rows = pd.read_csv(PAPER / 'table4_best_practice.csv', dtype={'value': str})
        axis = 'initialization' if table == '4b' else AXIS[table]  # the paper's word for inflation
        return rows[rows['axis'] == axis].set_index('value')['dsc14'].to_dict()
    return {}


def paper_column(grid: Grid) -> str:
    """Heading of the published figures: they are of this dataset only where it is one of the paper's."""
    return 'paper (BCV)' if grid.dataset in BCV_ORGANS else 'paper (Table 5)'


def published_organs(grid: Grid) -> pd.DataFrame | None:
    """Table 3's figures with label ids as columns, where the grid has BCV's organs."""
    if grid.dataset not in BCV_ORGANS:
        return None
    rows = pd.read_csv(PAPER / 'table3_organs.csv').set_index('method')
    names = {BCV_LABELS[i].replace(' ', '_'): i for i in BCV_EIGHT}
    return rows.rename(columns=names)[list(names.values())]


def _scope(measured: Measured) -> dict[str, str]:
    done = measured.done()
    if not done:
        return dict(headline='the reported organs', all='all labels, background included')
    scores = done[0]['scores']
    return dict(headline=f'{len(scores["headline"])} organs',
                all=f'all {len(scores["labels"])} labels, background included')


def caption(table: str, measured: Measured, grid: Grid) -> str:
    return CAPTIONS[table].format(**_scope(measured))


def build_table(table: str, measured: Measured, grid: Grid, committed: Measured | None = None) -> pd.DataFrame:
    """A table as text cells, ready to write.

    Args:
        committed: the committed results' figures, to be shown beside a newcomer's own.
    """
    if table == '3':
        return _organ_table(measured, grid, committed)
    labels = 'headline' if table in ('2a', '2b') else 'all'
    paper, column = dict(published(table, grid)), paper_column(grid)
    in_paper = any(label in paper for label in grid.tables[table])
    noise = seed_noise(committed, grid) if committed else None
    rows = []
    for label, cell in grid.tables[table].items():
        value = measured.value(cell, 'pooled', labels)
        row = {AXIS.get(table, 'Method'): label}
        if table == '2a':
            row |= {'T': '✓' if cell.source != 'none' else '✗', 'D': '✓' if cell.slices > 1 else '✗'}
        if table == '2b':
            source = grid.sources.get(cell.source)
            row |= {'source': source.data if source else '—', 'objective': source.objective if source else '—'}
        row |= {'DSC pooled': str(value), 'DSC case': str(measured.value(cell, 'case', labels)),
                'runs': str(len(value.seeds))}
        if committed:
            other = committed.value(cell, 'pooled', labels)
            row |= {'committed': str(other), 'agrees': agreement(value, other, noise)}
        if in_paper:
            row[column] = f'{paper.pop(label):.2f}' if label in paper else '—'
        rows.append(row)
    others = []
    if table == '2a':  # methods that only the paper ran
        for label, figure in paper.items():
            note = ' (per case)' if label in PER_CASE_IN_PAPER else ''
            others.append({'Method': label, column: f'{figure:.2f}{note}'})
    return pd.DataFrame(others + rows, columns=list(rows[0])).fillna('—')


def _organ_table(measured: Measured, grid: Grid, committed: Measured | None) -> pd.DataFrame:
    done = measured.done()
    if not done:
        return pd.DataFrame([{'Method': row} for row in grid.tables['3']])
    scores, paper = done[0]['scores'], published_organs(grid)
    rows = []
    for label, cell in grid.tables['3'].items():
        for name, figures in {'measured': measured, 'committed': committed}.items():
            if figures:
                row = {'Method': label, 'figures': name}
                rows.append(row | {scores['labels'][i]: str(figures.value(cell, 'pooled', [i]))
                                   for i in scores['headline']})
        if paper is not None and label in paper.index:
            row = {'Method': label, 'figures': paper_column(grid)}
            rows.append(row | {scores['labels'][i]: f'{paper.loc[label, i]:.2f}' for i in scores['headline']})
    return pd.DataFrame(rows)


def free_cells(measured: Measured, grid: Grid) -> list[Cell]:
    """Cells that no table names: the grid's free axes, and whatever else was run into its folder."""
    named = set(grid.in_tables())
    return [cell for cell in dict.fromkeys([*grid.free, *measured.cells()]) if cell not in named]


def varying_axes(cells: list[Cell]) -> list[str]:
    """The axes along which these cells differ, in Cell's order."""
    return [axis for axis in AXES if len({getattr(cell, axis) for cell in cells}) > 1]


def build_free_table(measured: Measured, grid: Grid) -> pd.DataFrame:
    """One row per cell that no table names; what all of them share is in the caption."""
    cells = free_cells(measured, grid)
    rows = []
    for cell in cells:
        value = measured.value(cell, 'pooled')
        rows.append({axis: str(getattr(cell, axis)) for axis in varying_axes(cells)}
                    | {'DSC pooled': str(value), 'DSC case': str(measured.value(cell, 'case')),
                       'runs': str(len(value.seeds))})
    return pd.DataFrame(rows)


def free_caption(measured: Measured, grid: Grid) -> str:
    cells = free_cells(measured, grid)
    shared = [f'{axis} {getattr(cells[0], axis)}' for axis in AXES
              if axis not in varying_axes(cells) and getattr(cells[0], axis) is not None]
    return f'Free axes ({", ".join(shared)}): mean DSC over {_scope(measured)["headline"]}.'


def seed_noise(measured: Measured, grid: Grid) -> dict[str, float]:
    """Standard deviation between seeds, from all cells that have several together, and its freedom."""
    squares, freedom = 0.0, 0
    for cell in grid.cells():
        value = measured.value(cell, 'pooled')
        if len(value.seeds) > 1:
            squares += value.std ** 2 * (len(value.seeds) - 1)
            freedom += len(value.seeds) - 1
    return dict(std=float(np.sqrt(squares / freedom)) if freedom else np.nan, freedom=freedom)


def agreement(value: Value, other: Value, noise: dict[str, float]) -> str:
    """Whether two means differ by no more than seeds do (95 %, t with that deviation)."""
    if not value.seeds or not other.seeds or not noise['freedom']:
        return 'cannot tell'
    spread = noise['std'] * np.sqrt(1 / len(value.seeds) + 1 / len(other.seeds))
    return 'yes' if abs(value.mean - other.mean) <= stats.t.ppf(0.975, noise['freedom']) * spread else 'no'


def to_markdown(table: pd.DataFrame) -> str:
    """GitHub's table syntax."""
    rows = [list(table.columns), ['---'] * len(table.columns), *table.astype(str).values.tolist()]
    return '\n'.join(f'| {" | ".join(cell.replace("|", "/") for cell in row)} |' for row in rows) + '\n'


def to_latex(table: pd.DataFrame, text: str) -> str:
    """A booktabs table."""
    def escape(cell: str) -> str:
        for plain, tex in (('&', r'\&'), ('%', r'\%'), ('_', r'\_'), ('±', r'$\pm$'), ('✓', r'$\checkmark$'),
                           ('✗', r'$\times$'), ('—', '--')):
            cell = cell.replace(plain, tex)
        return cell

    lines = [r'\begin{table}', r'\centering', rf'\caption{{{escape(text)}}}',
             rf'\begin{{tabular}}{{{"l" * len(table.columns)}}}', r'\toprule']
    body = [list(table.columns), *table.astype(str).values.tolist()]
    lines += [' & '.join(map(escape, row)) + r' \\' + (r' \midrule' if i == 0 else '')
              for i, row in enumerate(body)]
    return '\n'.join([*lines, r'\bottomrule', r'\end{tabular}', r'\end{table}']) + '\n'


def cell_label(cell: Cell) -> str:
    return ', '.join(f'{axis} {value}' for axis, value in asdict(cell).items() if value is not None)
