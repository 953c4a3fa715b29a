"""Grid files -> cells: which points of the grid exist, and which row of which table each one fills."""

import itertools
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from mmseg_plugins.errors import UserError, nearest
from mmseg_plugins.experiment import import_extensions
from mmseg_plugins.inflation import parse_inflation
from mmseg_plugins.keys import KEYS, decided_by
from mmseg_plugins.sources import SOURCES, Source
from mmseg_plugins.untrusted import check_name, find_fault

from .axes import AXES, Cell, method_cell
from .methods.command import check_command
from .yaml_file import read_yaml

GRIDS = Path(__file__).parent / 'grids'

# What of a run's config the grid itself sets, so that `options` cannot, and by which of its keys.
SET_BY = {'experiment.data_root': 'dataset', 'experiment.seed': 'seeds', 'load_from': 'source',
          'custom_imports': 'imports',
          **dict.fromkeys(('experiment_name', 'work_dir', 'resume', 'launcher'), 'name'),
          **{f'experiment.{name}': f'axis {name}' for name, axis in AXES.items() if axis.neutral is not None}}

# The rows of the paper's tables as changes to its best practice (BEiT, centering, 5 slices, stride 1,
# centre target). Table 4(a) and 4(b) vary the target and the inflation at stride 2: the values they share
# with 4(c) say so.
TABLES: dict[str, dict[str, dict[str, Any]]] = {
    '2a': {'Ours w/o T&D': dict(source='none', slices=1), 'Ours w/o T': dict(source='none'),
           'Ours w/o D': dict(slices=1), 'Ours': {}},
    '2b': {'BEiT-Random': dict(source='none'), 'CT-DINO': dict(encoder='dino', source='ct_dino'),
           'BEiT-SSL': dict(source='beit_ssl'), 'DINO': dict(encoder='dino', source='dino'),
           'SwinT': dict(encoder='swin', source='swin'),
           'VideoSwinT': dict(encoder='videoswin', source='videoswin'), 'BEiT': {}},
    '4a': {'all': dict(inflation='average', stride=2, target='all'),
           'center': dict(inflation='average', stride=2)},
    '4b': {method: dict(inflation=method, stride=2) for method in ('random', 'average', 'centering')},
    '4c': {str(stride): dict(stride=stride) for stride in (1, 2, 3)},
    '4d': {str(slices): dict(slices=slices) for slices in (1, 5, 11, 21)},
}
TABLES['3'] = TABLES['2a']
TABLES['5'] = {'Ours w/o D': dict(slices=1), 'Ours': {}}
SOURCES_OF = {'videoswin': 'swin'}  # takes a 2D Swin's weights too, by inflating kernel and tables
TIMM = 'timm/'


@dataclass
class Grid:
    """A grid file: what to run, how to build it, and what to show.

    Args:
        name: of the grid and of its folders.
        title: heading of its page.
        datasets: names of the catalogue or of prepared datasets.
        configs: encoder -> config file that cells of that encoder start from, with `{dataset}` for the dataset's
            name. The first is of cells that name no encoder, and what one named `timm/<model>` starts from.
            `{command: ...}` is a method that is no config (methods.py), `{label_maps: FOLDER}` one whose label
            maps tools/score.py scored.
        sources: source name -> where its weights are; the catalogue's and the file's own.
        tables: table name -> row -> cell on the first dataset.
        free: cells of free axes, a product, on the first dataset.
        seeds: one run each.
        notes: sentences shown on the page.
        options: extra `--cfg-options` for every run of this grid.
        text: the file itself, kept beside the records.
    """
    name: str
    datasets: Sequence[str]
    configs: dict[str, str | dict[str, str]]
    sources: dict[str, Source] = field(default_factory=dict)
    tables: dict[str, dict[str, Cell]] = field(default_factory=dict)
    free: list[Cell] = field(default_factory=list)
    seeds: Sequence[int] = (1234,)
    title: str = ''
    notes: Sequence[str] = ()
    options: dict[str, Any] = field(default_factory=dict)
    text: str = ''

    @property
    def dataset(self) -> str:
        """The dataset of a grid that has one: all tables but the fifth are of one."""
        [dataset] = self.datasets
        return dataset

    def on_each(self, cells: Iterable[Cell]) -> list[Cell]:
        """Cells of the first dataset on every dataset in turn."""
        cells = list(cells)
        return [replace(cell, dataset=dataset) for dataset in self.datasets for cell in cells]

    def in_tables(self) -> list[Cell]:
        return self.on_each(cell for rows in self.tables.values() for cell in rows.values())

    def cells(self) -> list[Cell]:
        """Every cell once, dataset by dataset in the tables' order."""
        return list(dict.fromkeys([*self.in_tables(), *self.on_each(self.free)]))

    def config(self, cell: Cell) -> str:
        configs = [config for config in self.configs.values() if isinstance(config, str)]
        config = self.configs.get(cell.encoder) or configs[0]
        return config.replace('{dataset}', cell.dataset)


GRID_KEYS = {'title', 'dataset', 'datasets', 'configs', 'sources', 'source', 'tables', 'rows', 'axes', 'seeds',
             'notes', 'options', 'imports'}


def _check_shapes(spec: dict, path: Path) -> None:
    """YAML's shapes: a list where several values go, a mapping where names do."""
    def need(value, kind: type, where: str, example: str) -> None:
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise UserError(f'{path}: {where} is {reprlib.repr(value)}; write it as {example}')

    need(spec.get('dataset'), str, 'dataset', 'dataset: name, or datasets: [first, second]')
    for key in ('datasets', 'tables', 'seeds', 'notes', 'imports'):
        need(spec.get(key), list, key, f'{key}: [first, second]')
    for key in ('configs', 'sources', 'rows', 'axes', 'options'):
        need(spec.get(key), dict, key, f'{key}: {{name: value}}')
    for key, kind, example in (('datasets', str, 'a name'), ('imports', str, 'a name'),
                               ('notes', str, 'a sentence'), ('seeds', int, 'a whole number'),
                               ('tables', str | int, 'a name')):
        for value in spec.get(key) or ():
            need('' if value is None else value, kind, f'one of {key}', example)
    for key in ('title', 'source'):
        need(spec.get(key), str, key, f'{key}: text')
    for encoder, config in (spec.get('configs') or {}).items():
        if isinstance(config, dict) and len(config) == 1 and {*config} <= {'command', 'label_maps'}:
            [(kind, text)] = config.items()
            need(text or {}, str, f'{kind} of {encoder!r}', f'{encoder}: {{{kind}: text}}')
            if kind == 'command':
                check_command(text, f'{path}: the command of {encoder!r}')
        else:
            need(config or {}, str, f'the config of {encoder!r}', f'{encoder}: a file, or {{command: text}}')
    for key in ('configs', 'sources', 'rows', 'axes', 'options'):
        for name in spec.get(key) or ():
            need(name or {}, str | int if key == 'rows' else str, f'a name in {key}', 'text')
    for axis, values in (spec.get('axes') or {}).items():
        need('nothing' if values is None else values, list, f'axis {axis!r}', f'{axis}: [first, second]')
    lists = {key: spec.get(key) for key in ('datasets', 'tables', 'seeds', 'imports')} | {
        f'axis {axis!r}': values for axis, values in (spec.get('axes') or {}).items()}
    for where, values in lists.items():
        if values == []:
            raise UserError(f'{path}: {where} is empty; name at least one, or leave it out')
        check_distinct(values or (), f'{path}: {where}')
    for table, rows in (spec.get('rows') or {}).items():
        need(rows, dict, f'rows of table {table}', '{row: {axis: value}}')
        for row, changes in (rows or {}).items():
            need(row, str, f'a row of table {table}', 'text')
            need(changes, dict, f'row {row!r}', '{axis: value}')


def check_distinct(values: Iterable, where: str) -> None:
    """A value that is given twice would count as two.

    Raises:
        UserError: begins with `where`.
    """
    seen = []
    for value in values:
        if any(value == other and type(value) is type(other) for other in seen):
            raise UserError(f'{where} has {value!r} twice; leave one out')
        seen.append(value)


def _flatten(options: dict, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """`{experiment: {steps: 5}}` as `experiment.steps`."""
    for key, value in options.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def _check_options(options: dict[str, Any], cells: Iterable[Cell], path: Path) -> None:
    """What the grid sets by itself, seeds and cells and datasets, is not to be set again for all runs.

    Raises:
        UserError: names the option and what to set instead.
    """
    varied = {name for cell in cells for name in AXES if getattr(cell, name) is not None}
    for option in options:
        part, _, name = option.partition('.')
        if part == 'experiment' and name not in KEYS:
            raise UserError(f'{path}: options: unknown key {option!r}{nearest(name, KEYS)}')
        decided = decided_by(option)
        key = f'experiment.{decided}' if decided else option
        by = SET_BY.get(key) or SET_BY.get(key.split('.')[0]) or (f'axis {name}' if name in varied else None)
        if by or decided:
            setter = f'{by} of the grid' if by else key
            raise UserError(f'{path}: options: {option} is set by {setter}; set it there')


def _choose_datasets(spec: dict, wanted: Sequence[str] | None, path: Path) -> list[str]:
    """Those of the file's datasets that are wanted, or what takes the place of its only one."""
    if bool(spec.get('dataset')) == bool(spec.get('datasets')):
        raise UserError(f"{path}: needs 'dataset' or 'datasets', one of the two")
    if 'dataset' in spec:
        if wanted and len(wanted) > 1:
            raise UserError(f"{path}: is of one dataset, not {', '.join(wanted)}; list several under 'datasets'")
        return list(wanted or [spec['dataset']])
    known = list(dict.fromkeys(map(str, spec['datasets'])))
    for dataset in wanted or ():
        if dataset not in known:
            raise UserError(f'{path}: no dataset {dataset!r}{nearest(dataset, known)}')
    return [dataset for dataset in known if not wanted or dataset in wanted]


def _own_source(entry: Any, where: str) -> Source:
    """A grid file's own source: `file` and `encoder`, and what else the catalogue's entries have."""
    known = Source.__dataclass_fields__
    for key in entry if isinstance(entry, dict) else ():
        if key not in known:
            raise UserError(f'{where}: unknown key {key!r}{nearest(key, known)}')
    for key in ('file', 'encoder'):
        if not isinstance(entry, dict) or key not in entry:
            raise UserError(f'{where} has no {key!r}')
    if fault := find_fault(entry, dict.fromkeys(entry, (str, None))):
        raise UserError(f'{where}: {fault}')
    blank = dict.fromkeys(('objective', 'data', 'origin', 'licence', 'citation'), '')
    return Source(**{**blank, **entry})


def is_file_name(name: str) -> bool:
    """Whether what was given to `--grid` is a file's name, not a grid's of `benchmarks/grids`."""
    return name.endswith(('.yaml', '.yml'))


def load_grid(name: str, tables: Iterable[str] | None = None, seeds: Sequence[int] | None = None,
              datasets: Sequence[str] | None = None, **axes: Sequence) -> Grid:
    """Read a grid by name (benchmarks/grids) or path.

    Args:
        name: `phantom`, or the path of a YAML file.
        tables: run only these tables.
        seeds: replace the file's seeds.
        datasets: of a grid over several, only these; the one of a grid that has one it replaces, and the grid is
            then another one, `<name>-<dataset>`.
        axes: free axes (`slices=[1, 3]`): their product replaces the tables.

    Raises:
        UserError: names the file and the key or value that is wrong.
    """
    path = Path(name) if is_file_name(name) else GRIDS / f'{name}.yaml'
    if not path.is_file():
        raise UserError(f'{path}: grid not found{nearest(name, (p.stem for p in GRIDS.glob("*.yaml")))}')
    spec, text = read_yaml(path), path.read_text()
    for key in spec:
        if key not in GRID_KEYS:
            raise UserError(f'{path}: unknown key {key!r}{nearest(key, GRID_KEYS)}')
    spec = {key: value for key, value in spec.items() if value is not None}
    _check_shapes(spec, path)
    if not spec.get('configs'):
        raise UserError(f"{path}: key 'configs' is missing")
    chosen = _choose_datasets(spec, datasets, path)
    for dataset in chosen:
        check_name(dataset, f'{path}: dataset')
    name = path.parent.name if path.name == 'grid.yaml' else path.stem
    if 'dataset' in spec and chosen != [spec['dataset']]:
        [spec['dataset']] = chosen
        name = f'{name}-{chosen[0]}'
        spec['title'], spec['notes'] = f'The cells of {path.stem} on {chosen[0]}', []
        text = yaml.safe_dump(spec, sort_keys=False)
    if spec.get('imports'):
        import_extensions(spec['imports'], path)
    sources = dict(SOURCES)
    for source, entry in (spec.get('sources') or {}).items():
        check_name(source, f'{path}: sources')
        if source == 'none':
            raise UserError(f"{path}: sources: 'none' is the word for random weights; name it otherwise")
        sources[source] = _own_source(entry, f'{path}: source {source!r}')
    base = dict(dataset=chosen[0], encoder=next(iter(spec['configs'])), source=spec.get('source', 'none'))

    def fits(encoder: str, source: str) -> bool:
        if source == 'none' or source not in sources:
            return True
        return sources[source].encoder in (encoder, SOURCES_OF.get(encoder))

    def cell(changes: dict, where: str) -> Cell:
        for axis in changes:
            if axis not in AXES:  # the dataset is the grid's
                raise UserError(f'{path}: {where}: unknown axis {axis!r}{nearest(axis, AXES)}')
            AXES[axis].check(changes[axis], f'{path}: {where}')
        method = {**base, **changes}.get('encoder', Cell.encoder)
        if isinstance(spec['configs'].get(method), dict):
            if others := set(changes) - {'encoder'}:
                raise UserError(f'{path}: {where}: {method} is no config, so it has no '
                                f'{", ".join(sorted(others))}; leave that out')
            return method_cell(chosen[0], method)
        if 'inflation' in changes:
            try:
                parse_inflation(changes['inflation'])
            except UserError as error:
                raise UserError(f'{path}: {where}: {error}') from None
        made = Cell(**{**base, **changes})
        if 'encoder' in changes and 'source' not in changes and not fits(made.encoder, made.source):
            # each encoder has its own
            made = replace(made, source=made.encoder if made.encoder in sources else 'none')
        for value, known, what in ((made.encoder, spec['configs'], 'encoder'),
                                   (made.source, {*sources, 'none'}, 'source')):
            if value not in known and not (what == 'encoder' and value.startswith(TIMM)):
                raise UserError(f'{path}: {where}: unknown {what} {value!r}{nearest(value, known)}')
        if not fits(made.encoder, made.source):
            raise UserError(f'{path}: {where}: source {made.source!r} is for encoder '
                            f'{sources[made.source].encoder!r}, not {made.encoder!r}')
        return made

    wanted = [str(table) for table in (tables or spec.get('tables') or ())]
    for table in wanted:
        if table not in TABLES:
            raise UserError(f'{path}: unknown table {table!r}{nearest(table, TABLES)}')
        if table != '5' and len(spec.get('datasets') or ()) > 1:
            raise UserError(f'{path}: table {table!r} is of one dataset; over several there is table 5')
    extra = {str(table): rows or {} for table, rows in (spec.get('rows') or {}).items()}
    for table, changes in extra.items():
        if table not in wanted and not tables:
            raise UserError(f'{path}: rows of table {table!r}, which is not one of its tables'
                            f'{nearest(table, wanted)}')
        for row, change in changes.items():
            if change is None and row not in TABLES.get(table, ()):
                raise UserError(f'{path}: rows of table {table}: no row {row!r} to take away'
                                f'{nearest(row, TABLES.get(table, ()))}')
    built = {}
    for table in wanted:
        rows = TABLES[table] | extra.get(table, {})
        built[table] = {row: cell(dict(changes), f'table {table}, row {row!r}')
                        for row, changes in rows.items() if changes is not None}
    given = {axis: values for axis, values in axes.items() if values}
    if given and tables:
        raise UserError(f'{path}: --tables and free axes ({", ".join(given)}) exclude each other')
    seeds = seeds or spec.get('seeds') or (1234,)
    for seed in seeds:
        if not KEYS['seed'].fits(seed):
            raise UserError(f'{path}: seed {seed!r} must be {KEYS["seed"].must_be}')
    free_axes = (spec.get('axes') or {}) | given
    points = [dict(zip(free_axes, values, strict=True)) for values in itertools.product(*free_axes.values())]
    if {'encoder', 'source'} <= set(free_axes):  # a product of both holds pairs that do not exist
        points = [point for point in points if fits(point['encoder'], point['source'])]
    free = [cell(point, 'axes') for point in points if point]
    if given:
        built = {}
    options = {}
    for option, value in _flatten(spec.get('options') or {}):
        if option in options:
            raise UserError(f'{path}: options: {option} stands twice, once within a mapping; leave one out')
        options[option] = value
    grid = Grid(name, chosen, spec['configs'], sources, built, free, tuple(seeds), spec.get('title', name),
                tuple(spec.get('notes') or ()), options, text)
    if not grid.cells():
        raise UserError(f'{path}: has no cells; add tables, as tables: [2a], or axes, as axes: {{slices: [1, 5]}}')
    _check_options(options, grid.cells(), path)
    if spec.get('imports'):
        options['custom_imports.imports'] = ['mmseg_plugins', *spec['imports']]
    return grid
