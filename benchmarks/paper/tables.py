"""The paper's tables: rows as changes to its best practice (BEiT, centering, 5 slices, stride 1, centre target).

Table 4(a) and 4(b) vary the target and the inflation at stride 2: the values they share with 4(c) say so.
"""

from functools import partial

from ..grid.tables import Difference, Table, register_table
from .published import published_axis, published_methods, published_sources

MAIN = {'Ours w/o T&D': dict(source='none', slices=1), 'Ours w/o T': dict(source='none'),
        'Ours w/o D': dict(slices=1), 'Ours': {}}
DEPTH = Difference('depth', 'Ours', 'Ours w/o D', 'with transfer')


def _check_mark(holds: bool) -> str:
    return '✓' if holds else '✗'


def _of_source(what: str, cell, sources) -> str:
    return getattr(sources[cell.source], what) if cell.source in sources else '—'


PAPERS = (
    Table('2a', MAIN, 'Transfer (T) and depth (D)', 'Table 2(a)', against='Ours', published=published_methods,
          columns={'T': lambda cell, sources: _check_mark(cell.source != 'none'),
                   'D': lambda cell, sources: _check_mark(cell.slices > 1)},
          differences=(DEPTH, Difference('transfer', 'Ours w/o D', 'Ours w/o T&D', 'slice by slice'),
                       Difference('depth', 'Ours w/o T', 'Ours w/o T&D', 'without transfer'))),
    Table('2b', {'BEiT-Random': dict(source='none'), 'CT-DINO': dict(encoder='dino', source='ct_dino'),
                 'BEiT-SSL': dict(source='beit_ssl'), 'DINO': dict(encoder='dino', source='dino'),
                 'SwinT': dict(encoder='swin', source='swin'),
                 'VideoSwinT': dict(encoder='videoswin', source='videoswin'), 'BEiT': {}},
          'Source and objective of pre-training (centering, 5 slices)', 'Table 2(b)', against='BEiT',
          differences=(), ranks='sources', published=published_sources,
          columns={'source': partial(_of_source, 'data'), 'objective': partial(_of_source, 'objective')}),
    Table('3', MAIN, 'The rows of Table 2(a)', by='organs', differences=(DEPTH,), figure='organs',
          published=published_methods),
    Table('4a', {target: dict(inflation='average', stride=2, target=target) for target in ('all', 'center')},
          'Prediction target (average inflation, 5 slices, stride 2)', 'Table 4(a)', 'all', against='center',
          differences=(), axis='target', figure='target', published=partial(published_axis, 'target')),
    Table('4b', {method: dict(inflation=method, stride=2) for method in ('random', 'average', 'centering')},
          'Inflation (5 slices, stride 2)', 'Table 4(b)', 'all', against='centering',
          differences=(Difference('centering instead of average inflation', 'centering', 'average'),),
          axis='inflation', figure='inflation', published=partial(published_axis, 'initialization')),
    Table('4c', {str(stride): dict(stride=stride) for stride in (1, 2, 3)},
          'Input stride (centering, 5 slices)', 'Table 4(c)', 'all', against='1', differences=(),
          axis='stride', figure='stride', published=partial(published_axis, 'stride')),
    Table('4d', {str(slices): dict(slices=slices) for slices in (1, 5, 11, 21)},
          'Input slices (centering, stride 1)', 'Table 4(d)', 'all', against='5', differences=(),
          axis='slices', figure='slices', published=partial(published_axis, 'slices')),
    Table('5', {row: MAIN[row] for row in ('Ours w/o D', 'Ours')}, 'Other datasets', against='Ours',
          differences=(DEPTH,), published=published_methods),
)
for table in PAPERS:
    register_table(table)
