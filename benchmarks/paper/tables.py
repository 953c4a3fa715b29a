"""The paper's tables: rows as changes to its best practice (BEiT, centering, 5 slices, stride 1, centre target).

Table 4(a) and 4(b) vary the target and the inflation at stride 2: the values they share with 4(c) say so.
"""

from functools import partial

from ..grid.tables import Table, register_table
from .published import check_mark, published_axis, published_methods, published_sources

MAIN = {'Ours w/o T&D': dict(source='none', slices=1), 'Ours w/o T': dict(source='none'),
        'Ours w/o D': dict(slices=1), 'Ours': {}}
DEPTH = {'depth with transfer': ('Ours', 'Ours w/o D')}


def _of_source(what: str, cell, sources) -> str:
    return getattr(sources[cell.source], what) if cell.source in sources else '—'


PAPERS = (
    Table('2a', MAIN, 'Transfer (T) and depth (D)', 'Table 2(a)', against='Ours', published=published_methods,
          columns={'T': lambda cell, sources: check_mark(cell.source not in ('none', None)),
                   'D': lambda cell, sources: check_mark(not cell.of_windows or cell.slices > 1)},
          effects=DEPTH | {'transfer slice by slice': ('Ours w/o D', 'Ours w/o T&D'),
                           'depth without transfer': ('Ours w/o T', 'Ours w/o T&D')}),
    Table('2b', {'BEiT-Random': dict(source='none'), 'CT-DINO': dict(encoder='dino', source='ct_dino'),
                 'BEiT-SSL': dict(source='beit_ssl'), 'DINO': dict(encoder='dino', source='dino'),
                 'SwinT': dict(encoder='swin', source='swin'),
                 'VideoSwinT': dict(encoder='videoswin', source='videoswin'), 'BEiT': {}},
          'Source and objective of pre-training (centering, 5 slices)', 'Table 2(b)', against='BEiT',
          effects={'self-supervision on natural against medical images': ('DINO', 'CT-DINO'),
                   'supervision after self-supervision': ('BEiT', 'BEiT-SSL')}, published=published_sources,
          columns={'source': partial(_of_source, 'data'), 'objective': partial(_of_source, 'objective')}),
    Table('3', MAIN, 'The rows of Table 2(a)', by='organs', effects=DEPTH, figure='organs',
          published=published_methods),
    Table('4a', {target: dict(inflation='average', stride=2, target=target) for target in ('all', 'center')},
          'Prediction target (average inflation, 5 slices, stride 2)', 'Table 4(a)', 'all', against='center',
          effects={'centre slice against all': ('center', 'all')}, axis='target', figure='target',
          published=partial(published_axis, 'target')),
    Table('4b', {method: dict(inflation=method, stride=2) for method in ('random', 'average', 'centering')},
          'Inflation (5 slices, stride 2)', 'Table 4(b)', 'all', against='centering',
          effects={'centering against average': ('centering', 'average'),
                   'average against random': ('average', 'random')},
          axis='inflation', figure='inflation', published=partial(published_axis, 'initialization')),
    Table('4c', {str(stride): dict(stride=stride) for stride in (1, 2, 3)},
          'Input stride (centering, 5 slices)', 'Table 4(c)', 'all', against='1',
          effects={'stride 1 against 2': ('1', '2'), 'stride 2 against 3': ('2', '3')},
          axis='stride', figure='stride', published=partial(published_axis, 'stride')),
    Table('4d', {str(slices): dict(slices=slices) for slices in (1, 5, 11, 21)},
          'Input slices (centering, stride 1)', 'Table 4(d)', 'all', against='5',
          effects={'5 slices against 21': ('5', '21')}, axis='slices', figure='slices',
          published=partial(published_axis, 'slices')),
    Table('5', {row: MAIN[row] for row in ('Ours w/o D', 'Ours')}, 'Other datasets', against='Ours',
          effects=DEPTH, published=published_methods),
)
for table in PAPERS:
    register_table(table)
