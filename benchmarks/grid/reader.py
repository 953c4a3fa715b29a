"""Grid files -> grids: what a file may say, and where it is refused."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from mmseg_plugins.errors import UserError, nearest
from mmseg_plugins.experiment import import_extensions
from mmseg_plugins.keys import KEYS, decided_by
from mmseg_plugins.sources import SOURCES, Source
from mmseg_plugins.untrusted import check_name, find_fault, find_twins

from ..methods.command import check_command
from .axes import AXES
from .cells import CellMaker, check_known
from .grid import Grid
from .tables import TABLES, Contrast, Table, check_table
from .yaml_file import read_yaml

GRIDS = Path(__file__).parents[1] / 'grids'

# What of a run's config the grid itself sets, so that `options` cannot, and by which of its keys.
SET_BY = {'experiment.data_root': 'dataset', 'experiment.seed': 'seeds', 'load_from': 'source',
          'custom_imports': 'imports',
          **dict.fromkeys(('experiment_name', 'work_dir', 'resume', 'launcher'), 'name'),
          **{f'experiment.{name}': f'axis {name}' for name, axis in AXES.items() if axis.neutral is not None}}
# Keys that decide how long a step takes.
PACING = {f'experiment.{key}' for key in ('batch', 'accumulate', 'img_size', 'crop', 'spacing', 'encoder',
                                          'precision', 'compile', 'channels_last', 'activation_checkpointing')}

AXES_OF_ROWS = {str: ({str: object}, None)}
OWN_TABLE = {'rows': AXES_OF_ROWS, 'against': (str, int, ...),
             **dict.fromkeys(('labels', 'caption', 'by', 'axis'), (str, ...))}
OWN_SOURCE = {**dict.fromkeys(('objective', 'data', 'origin', 'licence', 'citation', 'sha256', 'made_by', 'needs'),
                              (str, None, ...)), 'saw': ([str], ...), 'file': str, 'encoder': str}
# What each key of a grid file holds, in the words of find_fault, how it is written, and what it is.
GRID_KEYS = {
    'title': (str, 'text', 'heading of the page'),
    'dataset': (str, 'name, or datasets: [first, second]', 'what is trained on and evaluated'),
    'datasets': ([str], '[first, second]', 'in its place where there are several; configs then say {dataset}'),
    'configs': ({str: (str, {'command': (str, ...), 'needs': (str, ...), 'label_maps': (str, ...),
                             'file': (str, ...), 'options': ({str: object}, ...)})}, '{name: file}',
                'the values of the axis encoder: a config, one with options of its own, a command, or label maps'),
    'sources': ({str: OWN_SOURCE}, '{name: {file: text, encoder: text}}',
                'source checkpoints beside those of docs/sources.md'),
    'source': (str, 'text', 'where rows start that name none'),
    'tables': (([(str, int)], {str: (OWN_TABLE, None)}), '[first, second], or {name: {rows: {row: {}}}}',
               "the paper's tables by name, or new ones"),
    'rows': ({str: (AXES_OF_ROWS, None)}, '{table: {row: {axis: value}}}',
             'rows to add to these tables or to change; null takes one away'),
    'axes': ({str: [object]}, '{axis: [first, second]}', 'cells beside the tables: all combinations of values'),
    'seeds': ([int], '[first, second]', 'of every cell; 1234 if left out, and a search has the first'),
    'folds': (int, '10', 'cross-validation'),
    'contrasts': ({str: [(str, int)]}, '{effect: [row, another row]}',
                  'what is compared, as was decided before any run'),
    'notes': ([str], '[a sentence]', 'sentences of the page'),
    'overview': (str, 'text', 'heading of its column in the overview of results/'),
    'options': ({str: object}, '{key: value}', 'of all runs, as `--cfg-options` of one'),
    'tune': ({str: [object]}, '{lr: [first, second]}', 'what each row is given the best of (docs/fair_tuning.md)'),
    'search_steps': (int, '100', 'after which a run of that search ends'),
    'search_percent': (int, '25', 'of the patients that decide in it'),
    'equal': (str, 'seconds', 'what rows have alike: steps (if left out) or seconds'),
    'imports': ([str], '[first, second]', 'modules of your own'),
}


def _check_shapes(spec: dict, path: Path) -> None:
    """YAML's shapes: a list where several values go, a mapping where names do."""
    for key, value in spec.items():
        check_known(key, GRID_KEYS, 'key', f'{path}')
        shape, example, _ = GRID_KEYS[key]
        if fault := value is not None and find_fault({key: value}, {key: shape}):
            raise UserError(f'{path}: {fault}; write it as {key}: {example}')
    for key in ('configs', 'sources', 'axes', 'options', 'tune', 'contrasts'):
        for name in spec.get(key) or ():
            if not isinstance(name, str):
                raise UserError(f'{path}: {name!r} in {key} is no name; put it in quotes')
    for name, config in (spec.get('configs') or {}).items():
        if isinstance(config, dict) and set(config) not in ({'command'}, {'command', 'needs'}, {'label_maps'},
                                                            {'file', 'options'}):
            raise UserError(f'{path}: configs.{name} needs a file, file and options, a command, or label_maps')
        if isinstance(config, dict) and 'command' in config:
            check_command(config['command'], f'{path}: the command of {name!r}')
    lists = {key: spec.get(key) for key in ('datasets', 'tables', 'seeds', 'imports')} | {
        f'{what} {name!r}': values for what, key in (('axis', 'axes'), ('tune', 'tune'))
        for name, values in (spec.get(key) or {}).items()}
    for where, values in lists.items():
        if values is not None and not values:
            raise UserError(f'{path}: {where} is empty; name at least one, or leave it out')
        check_distinct(values or (), f'{path}: {where}')


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


def _read_options(written: dict, grid: Grid, where: str) -> dict[str, Any]:
    """Options of runs.

    Raises:
        UserError: begins with `where`, names the option and what to set instead.
    """
    options = {}
    for option, value in _flatten(written):
        if option in options:
            raise UserError(f'{where}: {option} stands twice, once within a mapping; leave one out')
        _check_option(option, grid, where)
        options[option] = value
    return options


def _tuned_option(name: str) -> str:
    return name if '.' in name else f'experiment.{name}'


def _read_tune(written: dict, grid: Grid, where: str) -> dict[str, list]:
    """Options that a search varies, each with its values."""
    tune, taken = {}, {option for options in (grid.options, *grid.config_options.values()) for option in options}
    for name, values in written.items():
        option = _tuned_option(name)
        key = KEYS.get(option.removeprefix('experiment.'))
        if option in tune:
            raise UserError(f'{where}: {option} stands twice; leave one out')
        if option in ('experiment.split', 'experiment.evaluate'):
            raise UserError(f'{where}: {option} is what keeps a search from reported cases; leave it out')
        if key and not key.determines:
            raise UserError(f'{where}: no result depends on {option}; set it under options')
        if grid.equal == 'seconds' and option in PACING:
            raise UserError(f'{where}: {option} changes how long a step takes, and with equal: seconds steps are '
                            'counted before it is chosen; leave one of the two out')
        if option in taken:
            raise UserError(f'{where}: {option} is set by options too; leave one out')
        _check_option(option, grid, where)
        if len(values) < 2:
            raise UserError(f'{where}: {name} has one value; set it under options')
        for value in values:
            if key and not key.fits(value):
                raise UserError(f'{where}: {name} is {value!r}; it must be {key.must_be}')
        tune[option] = values
    return tune


def _check_option(option: str, grid: Grid, where: str) -> None:
    """What the grid sets by itself, seeds and cells and datasets, is not to be set again."""
    part, _, name = option.partition('.')
    if part == 'experiment' and name not in KEYS:
        raise UserError(f'{where}: unknown key {option!r}{nearest(name, KEYS)}')
    set_by = SET_BY | {f'experiment.{axis}': f'axis {axis}' for axis in AXES
                       if any(getattr(cell, axis) is not None for cell in grid.cells())}
    if grid.equal == 'seconds':
        set_by['experiment.steps'] = 'equal'
    if grid.folds:
        set_by |= dict.fromkeys(('experiment.split', 'experiment.evaluate'), 'folds')
    decided = decided_by(option)
    key = f'experiment.{decided}' if decided else option
    by = set_by.get(key) or set_by.get(key.split('.')[0])
    if by or decided:
        setter = f'{by} of the grid' if by else key
        raise UserError(f'{where}: {option} is set by {setter}; set it there')


def _choose_datasets(spec: dict, wanted: Sequence[str] | None, path: Path) -> list[str]:
    """Those of the file's datasets that are wanted, or what takes the place of its only one."""
    if bool(spec.get('dataset')) == bool(spec.get('datasets')):
        raise UserError(f"{path}: needs 'dataset' or 'datasets', one of the two")
    if 'dataset' in spec:
        if wanted and len(wanted) > 1:
            raise UserError(f"{path}: is of one dataset, not {', '.join(wanted)}; list several under 'datasets'")
        return list(wanted or [spec['dataset']])
    for dataset in wanted or ():
        if dataset not in spec['datasets']:
            raise UserError(f'{path}: no dataset {dataset!r}{nearest(dataset, spec["datasets"])}')
    return [dataset for dataset in spec['datasets'] if not wanted or dataset in wanted]


def _read_sources(spec: dict, path: Path) -> dict[str, Source]:
    """The catalogue's and the file's own."""
    sources = dict(SOURCES)
    for name, entry in (spec.get('sources') or {}).items():
        check_name(name, f'{path}: sources')
        if name == 'none':
            raise UserError(f"{path}: sources: 'none' is the word for random weights; name it otherwise")
        blank = dict.fromkeys(('objective', 'data', 'origin', 'licence', 'citation'), '')
        sources[name] = Source(**{**blank, **entry})
    return sources


def _own_table(name: str, entry: dict, where: str) -> Table:
    """A table that a grid file writes: `rows`, and what else is to be otherwise than usual."""
    rows = {row: changes or {} for row, changes in _rows(entry['rows']).items()}
    against = str(entry.get('against', 'first'))
    if against == 'first' not in rows:
        against = next(iter(rows), None)
    table = Table(**{**entry, 'name': name, 'rows': rows, 'against': against, 'figure': f'table_{name}'})
    check_table(table, where)
    return table


def _rows(written: dict) -> dict[str, dict | None]:
    """Rows by their names as text, as YAML's may be numbers."""
    return {str(row) if isinstance(row, int | float) and not isinstance(row, bool) else row: changes
            for row, changes in written.items()}


def _choose_tables(spec: dict, wanted: Iterable[str] | None, path: Path) -> list[Table]:
    """Those of the file, or what is wanted of them and of the registered ones, with its changes to their rows."""
    listed = spec.get('tables') or ()
    written = {str(name): entry for name, entry in listed.items() if entry} if isinstance(listed, dict) else {}
    known = TABLES | {name: _own_table(name, entry, f'{path}: table {name}') for name, entry in written.items()}
    names = [str(name) for name in wanted or listed]
    if twins := find_twins(names):
        raise UserError(f'{path}: tables {twins[0]!r} and {twins[1]!r} could be one file; name one otherwise')
    for name in names:
        check_known(name, known, 'table', f'{path}')
    changed = {str(name): _rows(changes or {}) for name, changes in (spec.get('rows') or {}).items()}
    for name, changes in changed.items():
        where = f'{path}: rows of table {name!r}'
        if name not in names and not wanted:
            raise UserError(f'{where}, which is not one of its tables{nearest(name, names)}')
        for row, change in changes.items():
            if not isinstance(row, str) or not row.strip() or not row.isprintable():
                raise UserError(f'{where}: {row!r} cannot be a row; name it by text on one line')
            if change is None and name in known and row not in known[name].rows:
                raise UserError(f'{where}: no row {row!r} to take away{nearest(row, known[name].rows)}')
    return [replace(known[name], rows={row: changes for row, changes in
                                       {**known[name].rows, **changed.get(name, {})}.items()
                                       if changes is not None})
            for name in names]


def _read_contrasts(spec: dict, grid: Grid, path: Path, partly: bool) -> list[Contrast]:
    """Two rows for each effect.

    Args:
        partly: whether only some of the file's tables were asked for; contrasts of the others are left out then.
    """
    known, contrasts, pairs = grid.named_rows(), [], {}
    for name, rows in (spec.get('contrasts') or {}).items():
        where = f'{path}: contrasts: {name}'
        rows = [str(row) for row in rows]
        if len(rows) != 2:
            raise UserError(f'{where}: has {len(rows)} rows; a contrast is of two, as [row, another row]')
        if partly and not set(rows) <= set(known):
            continue
        for row in rows:
            check_known(row, known, 'row', where)
        (table, first, one), (other, second, two) = (known[row] for row in rows)
        if one == two:
            raise UserError(f'{where}: {rows[0]!r} and {rows[1]!r} are one cell, {one}; name two')
        if name != (earlier := pairs.setdefault(frozenset((one, two)), name)):
            raise UserError(f'{where}: is of the same two cells as {earlier!r}; leave one out')
        if grid.tables[table].labels != grid.tables[other].labels:
            raise UserError(f'{where}: tables {table} and {other} are of other labels; name rows of like tables')
        contrasts.append(Contrast(name, first, second, (one, two), grid.tables[table].labels,
                                  table if table == other else '', registered=True))
    return contrasts


SIZES_OF_SEARCH = dict(search_steps='steps', search_percent='train_percent')  # -> the key whose values it may have


def _read_search_sizes(spec: dict, grid: Grid, path: Path) -> dict[str, int]:
    """What a file says that makes its search shorter."""
    sizes = {name: spec[name] for name in SIZES_OF_SEARCH if spec.get(name) is not None}
    for name, size in sizes.items():
        key = KEYS[SIZES_OF_SEARCH[name]]
        if 'tune' not in spec:
            raise UserError(f'{path}: {name}: there is no `tune`, so there is no search; leave it out')
        if not key.fits(size):
            raise UserError(f'{path}: {name} {size} must be {key.must_be}')
    options = [grid.options, grid.tune, *grid.config_options.values()]
    if 'search_steps' in sizes and (
            grid.equal == 'seconds' or any('experiment.steps' in written for written in options)):
        raise UserError(f'{path}: search_steps: the steps of a search are those of equal: seconds, or of '
                        'experiment.steps among options or tune; leave one of the two out')
    return sizes


def is_file_name(name: str) -> bool:
    """Whether what was given to `--grid` is a file's name, not a grid's of `benchmarks/grids`."""
    return name.endswith(('.yaml', '.yml'))


def load_grid(name: str, tables: Iterable[str] | None = None, seeds: Sequence[int] | None = None,
              datasets: Sequence[str] | None = None, folds: int | None = None, **axes: Sequence) -> Grid:
    """Read a grid by name (benchmarks/grids) or path.

    Args:
        name: `phantom`, or the path of a YAML file.
        tables: run only these tables.
        seeds: replace the file's seeds.
        datasets: of a grid over several, only these; the one of a grid that has one it replaces, and the grid is
            then another one, `<name>-<dataset>`.
        folds: replace the file's (1: as the datasets are split); the grid is then another one, `<name>-5-folds`.
        axes: free axes (`slices=[1, 3]`): their product replaces the tables, and what the file tunes of them.

    Raises:
        UserError: names the file and the key or value that is wrong.
    """
    path = Path(name) if is_file_name(name) else GRIDS / f'{name}.yaml'
    if not path.is_file():
        raise UserError(f'{path}: grid not found{nearest(name, (p.stem for p in GRIDS.glob("*.yaml")))}')
    spec, text = read_yaml(path), path.read_text(encoding='utf-8-sig')
    _check_shapes(spec, path)
    spec = {key: value for key, value in spec.items() if value is not None}
    if not spec.get('configs'):
        raise UserError(f"{path}: key 'configs' is missing")
    if spec.get('overview') and len(spec.get('datasets') or ()) > 1 and path.name != 'grid.yaml':
        raise UserError(f'{path}: overview has a column for each grid of one dataset; leave it out, or datasets')
    chosen = _choose_datasets(spec, datasets, path)
    for dataset in chosen:
        check_name(dataset, f'{path}: dataset')
    name = path.parent.name if path.name == 'grid.yaml' else path.stem
    if 'dataset' in spec and chosen != [spec['dataset']]:
        [spec['dataset']] = chosen
        name = f'{name}-{chosen[0]}'
        spec['title'], spec['notes'] = f'The cells of {path.stem} on {chosen[0]}', []
        text = yaml.safe_dump(spec, sort_keys=False)
    if folds is not None and folds != spec.get('folds', 1):
        spec['folds'], name = folds, f'{name}-{folds}-folds' if folds > 1 else f'{name}-as-split'
        spec['notes'] = []  # of the split that it was
        text = yaml.safe_dump(spec, sort_keys=False)
    if spec.get('folds', 1) < 1:
        raise UserError(f'{path}: {spec["folds"]} folds; give at least 2, or 1 for the datasets as they are split')
    if spec.get('imports'):
        import_extensions(spec['imports'], path)
    given = {axis: values for axis, values in axes.items() if values}
    if given and tables:
        raise UserError(f'{path}: --tables and free axes ({", ".join(given)}) exclude each other')
    usual_seeds, asked = spec.get('seeds') or [1234], {}
    if given:
        asked['axes'] = (spec.get('axes') or {}) | given
        if 'tune' in spec:
            asked['tune'] = {name: values for name, values in spec['tune'].items()
                             if _tuned_option(name).removeprefix('experiment.') not in given}
    if seeds:  # the first of the file is its search's
        first = usual_seeds if spec.get('seeds') or 'tune' in spec else ()
        asked['seeds'] = list(dict.fromkeys([*first, *seeds]))
    listed = spec.get('tables') or []
    if more := [table for table in tables or () if table not in map(str, listed)]:
        asked['tables'] = listed | dict.fromkeys(more) if isinstance(listed, dict) else [*listed, *more]
    if asked != {key: spec.get(key) for key in asked}:  # so that a folder tells what was run into it
        text = yaml.safe_dump(spec | asked, sort_keys=False)
    seeds = seeds or usual_seeds
    for seed in seeds:
        if not KEYS['seed'].fits(seed):
            raise UserError(f'{path}: seed {seed!r} must be {KEYS["seed"].must_be}')
    sources = _read_sources(spec, path)
    configs = {name: config.get('file', config) if isinstance(config, dict) else config
               for name, config in spec['configs'].items()}
    cells = CellMaker(path, chosen[0], configs, sources, spec.get('source'))

    def fill(wanted: Iterable[str] | None) -> dict[str, Table]:
        return {table.name: replace(table, rows={row: cells.make(changes, f'table {table.name}, row {row!r}')
                                                 for row, changes in table.rows.items()})
                for table in _choose_tables(spec, wanted, path)}

    filled = fill(tables)
    free = cells.product((spec.get('axes') or {}) | given)
    grid = Grid(name, chosen, configs, sources, {} if given else filled, free, tuple(seeds),
                spec['folds'] if spec.get('folds', 1) > 1 else None, spec.get('title', name),
                tuple(spec.get('notes') or ()), spec.get('overview', ''), text=text)
    if not grid.cells():
        raise UserError(f'{path}: has no cells; add tables, as tables: [NAME], or axes, as axes: {{slices: [1]}}')
    grid.search_seed = usual_seeds[0]
    grid.equal = spec.get('equal', 'steps')
    check_known(grid.equal, ('steps', 'seconds'), 'equal', f'{path}')
    if grid.equal == 'seconds' and any(cell.steps for cell in grid.cells()):
        raise UserError(f'{path}: equal: seconds counts the steps of every cell; leave the axis steps out')
    grid.contrasts = grid.registered = _read_contrasts(spec, grid, path, partly=bool(tables or given))
    if tables or given:  # of its own tables, as others may have rows of the same names
        own = replace(grid, tables=fill(spec['tables']) if spec.get('tables') else {})
        every = [*_read_contrasts(spec, own, path, partly=True), *grid.contrasts]
        grid.registered = list({contrast.key: contrast for contrast in every}.values())
    grid.options.update(_read_options(spec.get('options', {}), grid, f'{path}: options'))
    if spec.get('imports'):
        grid.options['custom_imports.imports'] = ['mmseg_plugins', *spec['imports']]
    grid.config_options.update({
        name: _read_options(config['options'], grid, f'{path}: configs.{name}.options')
        for name, config in spec['configs'].items() if isinstance(config, dict) and 'options' in config})
    grid.tune.update(_read_tune((spec | asked).get('tune', {}), grid, f'{path}: tune'))
    return replace(grid, **_read_search_sizes(spec, grid, path))
