"""Grid files -> cells: which points of the grid exist, and which row of which table each one fills."""

import itertools
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config

from mmseg_plugins.commands import REPO
from mmseg_plugins.datasets.splits import Fold
from mmseg_plugins.errors import UserError, nearest
from mmseg_plugins.experiment import import_extensions, read_config
from mmseg_plugins.keys import KEYS, decided_by
from mmseg_plugins.sources import OWN, PERMUTED, SOURCES, TIMM, Source, find_source, name_own_weights, timm_model
from mmseg_plugins.untrusted import check_name, find_fault, find_twins

from ..methods.command import check_command
from .axes import AXES, Cell, cell_without_config
from .tables import TABLES, Contrast, Table, check_table
from .yaml_file import read_yaml

GRIDS = Path(__file__).parents[1] / 'grids'
GIVEN = r'\A# (python \S*run_grid\.py.*)\n'  # the first line of a folder's grid.yaml: how it was called

# What of a run's config the grid itself sets, so that `options` cannot, and by which of its keys.
SET_BY = {'experiment.data_root': 'dataset', 'experiment.seed': 'seeds', 'load_from': 'source',
          'custom_imports': 'imports',
          **dict.fromkeys(('experiment_name', 'work_dir', 'resume', 'launcher'), 'name'),
          **{f'experiment.{name}': f'axis {name}' for name, axis in AXES.items() if axis.neutral is not None}}
SOURCES_OF = {'videoswin': 'swin'}  # takes a 2D Swin's weights too, by inflating kernel and tables
# Keys that decide how long a step takes.
PACING = {f'experiment.{key}' for key in ('batch', 'accumulate', 'img_size', 'crop', 'spacing', 'encoder',
                                          'precision', 'inference_precision', 'compile', 'channels_last',
                                          'activation_checkpointing')}


@dataclass
class Grid:
    """A grid file: what to run, how to build it, and what to show.

    Args:
        name: of the grid and of its folders.
        title: heading of its page.
        datasets: names of the catalogue or of prepared datasets.
        configs: encoder -> config file that cells of that encoder start from, with `{dataset}` for the dataset's
            name. The first is of cells that name no encoder, and what one named `timm/<model>` starts from.
            `{command: ..., needs: FILE}` is a method that is no config (methods/command.py), which is left out
            where there is no such file or folder, `{label_maps: FOLDER}` one whose label maps tools/score.py
            scored. `{file: ..., options: ...}` in the file is a config with options of its own, which starts from
            what its file's other encoders do.
        sources: source name -> where its weights are; the catalogue's and the file's own.
        tables: by name, with the cells of their rows on the first dataset.
        free: cells of free axes, a product, on the first dataset.
        seeds: one run each, or one for each fold.
        folds: of all cases of each dataset, for cross-validation; None: as the datasets are split.
        notes: sentences shown on the page.
        overview: what its data is called in the overview of the results, where it has a place there.
        options: extra `--cfg-options` for every run of this grid.
        tune: option -> the values of which a search chooses one for each cell, on cases that are not reported.
        config_options: encoder -> those of its runs alone, which count before the others.
        search_seed: the file's first seed, which a search runs with whatever others are asked for.
        search_steps: at most so many steps has a run of the search; None: as many as the run it is for.
        search_percent: of the patients that a search could be evaluated on (search.py), those that it is.
        equal: `steps`, or `seconds`: what all runs have alike.
        steps: cell -> its steps, where runs have seconds alike (planning/equal.py).
        text: the file itself, kept beside the records.
        contrasts: that the file registers, in its order, and whose rows were asked for; all others that a page
            shows were looked up afterwards.
        registered: these, and those of rows that were not asked for: records and Holm's correction have them too.
        absent: source, or method that is a command -> why it cannot be had here; no cell of it is run.
    """
    name: str
    datasets: Sequence[str]
    configs: dict[str, str | dict[str, str]]
    sources: dict[str, Source] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    free: list[Cell] = field(default_factory=list)
    seeds: Sequence[int] = (1234,)
    folds: int | None = None
    title: str = ''
    notes: Sequence[str] = ()
    overview: str = ''
    options: dict[str, Any] = field(default_factory=dict)
    tune: dict[str, list] = field(default_factory=dict)
    config_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    search_seed: int = 1234
    search_steps: int | None = None
    search_percent: int = 100
    equal: str = 'steps'
    steps: dict[Cell, int] = field(default_factory=dict)
    text: str = ''
    contrasts: Sequence[Contrast] = ()
    registered: Sequence[Contrast] = ()
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        """The dataset of a grid that has one."""
        [dataset] = self.datasets
        return dataset

    @property
    def seeds_and_folds(self) -> list[tuple[int, Fold | None]]:
        """What is run of a cell: each seed, and each fold with it."""
        folds = [(number, self.folds) for number in range(self.folds)] if self.folds else [None]
        return [(seed, fold) for seed in self.seeds for fold in folds]

    def on_each(self, cells: Iterable[Cell]) -> list[Cell]:
        """Cells of the first dataset on every dataset in turn."""
        cells = list(cells)
        return [replace(cell, dataset=dataset) for dataset in self.datasets for cell in cells]

    def in_tables(self) -> list[Cell]:
        return self.on_each(cell for table in self.tables.values() for cell in table.rows.values())

    def given(self, option: str = '') -> list[str]:
        """The values of an option as run_grid.py was called into this folder; without one, the whole command."""
        found = re.match(GIVEN, self.text)
        words = shlex.split(found[1]) if found else []
        if not option:
            return words
        behind = words[words.index(option) + 1:] if option in words else []
        return list(itertools.takewhile(lambda word: not word.startswith('--'), behind))

    def cells(self) -> list[Cell]:
        """Every cell once, dataset by dataset in the tables' order."""
        return list(dict.fromkeys([*self.in_tables(), *self.on_each(self.free)]))

    def cells_to_run(self) -> list[Cell]:
        """Without those that lack source or method, or whose label maps others have made (tools/score.py)."""
        return [cell for cell in self.cells() if not self.lacks(cell) and (
            'label_maps' not in (self.configs.get(cell.encoder) or ()) or not cell.without_config)]

    def lacks(self, cell: Cell) -> bool:
        """Whether what a cell needs is absent."""
        return (cell.encoder if cell.without_config else cell.source) in self.absent

    def row_names(self) -> dict[Cell, str]:
        """Every cell -> the rows that it fills, as `depth flat; stride 1`; '' for one of free axes."""
        names: dict[Cell, dict[str, str]] = {cell: {} for cell in self.cells()}
        for table in self.tables.values():
            for row, cell in table.rows.items():
                for same in self.on_each([cell]):  # named once by a row that several tables have
                    dataset = f' ({same.dataset})' if len(self.datasets) > 1 else ''
                    names[same].setdefault(row, f'{table.name} {row}{dataset}')
        return {cell: '; '.join(rows.values()) for cell, rows in names.items()}

    def options_of(self, cell: Cell) -> dict[str, Any]:
        """The options of a cell's runs; its config's own come first."""
        steps = {'experiment.steps': self.steps[cell]} if cell in self.steps else {}
        return self.options | self.config_options.get(cell.encoder, {}) | steps

    def contrast_keys(self, cell: Cell) -> list[str]:
        """Those of the registered contrasts that a cell is in, whether or not the other was asked for."""
        placed = [contrast.on(cell.dataset) for contrast in self.registered]
        return [contrast.key for contrast in placed if cell in contrast.cells]

    def named_rows(self) -> dict[str, tuple[str, str, Cell]]:
        """Table, row and cell by what names them: `<table> <row>`, or a row that is one cell in all tables."""
        rows = [(table.name, row, cell) for table in self.tables.values() for row, cell in table.rows.items()]
        # `1` is a stride in one table and a number of slices in another
        alone = {row: (table, row, cell) for table, row, cell in reversed(rows)
                 if len({other for _, same, other in rows if same == row}) == 1}
        return {f'{table} {row}': (table, row, cell) for table, row, cell in rows} | alone

    def config(self, cell: Cell) -> str:
        configs = [config for config in self.configs.values() if isinstance(config, str)]
        config = self.configs.get(cell.encoder) or configs[0]
        return config.replace('{dataset}', cell.dataset)


AXES_OF_ROWS = {str: ({str: object}, None)}
OWN_TABLE = {'rows': AXES_OF_ROWS, 'against': (str, int, ...),
             **dict.fromkeys(('labels', 'caption', 'by', 'axis'), (str, ...))}
OWN_SOURCE = {**dict.fromkeys(('objective', 'data', 'origin', 'licence', 'citation', 'sha256', 'made_by', 'needs'),
                              (str, None, ...)), 'saw': ([str], ...), 'file': str, 'encoder': str}
# What each key of a grid file holds, in the words of find_fault, and how it is written.
GRID_KEYS = {
    'title': (str, 'text'),
    'dataset': (str, 'name, or datasets: [first, second]'),
    'datasets': ([str], '[first, second]'),
    'configs': ({str: (str, {'command': (str, ...), 'needs': (str, ...), 'label_maps': (str, ...),
                             'file': (str, ...), 'options': ({str: object}, ...)})}, '{name: file}'),
    'sources': ({str: OWN_SOURCE}, '{name: {file: text, encoder: text}}'),
    'source': (str, 'text'),
    'tables': (([(str, int)], {str: (OWN_TABLE, None)}), '[first, second], or {name: {rows: {row: {}}}}'),
    'rows': ({str: (AXES_OF_ROWS, None)}, '{table: {row: {axis: value}}}'),
    'axes': ({str: [object]}, '{axis: [first, second]}'),
    'seeds': ([int], '[first, second]'),
    'folds': (int, '10'),
    'contrasts': ({str: [(str, int)]}, '{effect: [row, another row]}'),
    'notes': ([str], '[a sentence]'),
    'overview': (str, 'text'),
    'options': ({str: object}, '{key: value}'),
    'tune': ({str: [object]}, '{lr: [first, second]}'),
    'search_steps': (int, '100'),
    'search_percent': (int, '25'),
    'equal': (str, 'seconds'),
    'imports': ([str], '[first, second]'),
}


def _check_shapes(spec: dict, path: Path) -> None:
    """YAML's shapes: a list where several values go, a mapping where names do."""
    for key, value in spec.items():
        _known(key, GRID_KEYS, 'key', f'{path}')
        shape, example = GRID_KEYS[key]
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


def _known(name: Any, known: Iterable, what: str, where: str) -> None:
    if name not in known:
        raise UserError(f'{where}: unknown {what} {name!r}{nearest(name, known)}')


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
        _known(name, known, 'table', f'{path}')
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


@dataclass(frozen=True)
class _Cells:
    """Makes cells of what a grid file says of them, on its first dataset."""
    path: Path
    dataset: str
    configs: Mapping[str, str | dict]
    sources: dict[str, Source]  # gains those that need no entry
    source: str | None
    read_configs: dict[str, Config | None] = field(default_factory=dict)

    def read(self, encoder: str) -> Config | None:
        """Its config; None where there is none, or it cannot be read, which is told of elsewhere."""
        if encoder not in self.read_configs:
            config, cfg = self.configs.get(encoder), None
            if isinstance(config, str):
                with suppress(UserError):
                    cfg = read_config(REPO / config.replace('{dataset}', self.dataset))
            self.read_configs[encoder] = cfg
        return self.read_configs[encoder]

    def takes_crops(self, encoder: str) -> bool:
        """Whether its network takes crops of volumes."""
        return bool((cfg := self.read(encoder)) and cfg.experiment.get('crop'))

    def model(self, encoder: str) -> str | tuple:
        """What its weights are of, whatever its training: encoders of one model can start from the same."""
        if (cfg := self.read(encoder)) is None:
            return str(self.configs.get(encoder, encoder))
        part = cfg.model.get('backbone') or cfg.model.network
        return tuple(str(part.get(key)) for key in ('type', 'model', 'sizes'))

    def fits(self, encoder: str, source: str) -> bool:
        """Whether an encoder can start from a source; one that is not known is told of elsewhere.

        Encoders whose configs have one model are alike, and so are timm's whatever their tag.
        """
        if OWN.fullmatch(source):
            return encoder.startswith(TIMM)
        source = source if source in self.sources else source.removesuffix(PERMUTED)
        if source not in self.sources:
            return True
        if encoder.startswith(TIMM):
            return self.sources[source].encoder.partition('.')[0] == encoder.partition('.')[0]
        same = [name for name in self.configs if self.model(name) == self.model(encoder)]
        return self.sources[source].encoder in (encoder, SOURCES_OF.get(encoder), *same)

    def named(self, encoder: str) -> str:
        """An encoder as cells have it: a config's name, or `timm/<model>` however it is written."""
        model = None if encoder in self.configs else timm_model(encoder)
        return TIMM + model if model else encoder

    def make(self, changes: Mapping, where: str) -> Cell:
        where = f'{self.path}: {where}'
        for axis in changes:
            _known(axis, AXES, 'axis', where)  # the dataset is the grid's
            AXES[axis].check(changes[axis], where)
            if parse := KEYS[axis].parse:
                try:
                    parse(changes[axis])
                except UserError as error:
                    raise UserError(f'{where}: {error}') from None
        changes = dict(changes) | ({'encoder': self.named(changes['encoder'])} if 'encoder' in changes else {})
        encoder = changes.get('encoder', next(iter(self.configs)))
        if isinstance(self.configs.get(encoder), dict):
            if others := set(changes) - {'encoder'}:
                raise UserError(f'{where}: {encoder} is no config, so it has no {", ".join(sorted(others))}; '
                                'leave that out')
            return cell_without_config(self.dataset, encoder)
        windows = {}
        if self.takes_crops(encoder):
            if others := [axis for axis in changes if axis != 'encoder' and KEYS[axis].of == 'windows']:
                raise UserError(f'{where}: {encoder} takes crops of volumes, so it has no {", ".join(others)}; '
                                'leave that out')
            windows['slices'] = None
        # a model that timm does not know is told of elsewhere
        of_timm = encoder.startswith(TIMM) and timm_model(encoder)
        own = encoder if encoder in self.sources else 'timm' if of_timm else 'none'
        source = changes.get('source', self.source or ('timm' if own == 'timm' else 'none'))
        if 'encoder' in changes and 'source' not in changes and not self.fits(encoder, source):
            source = own
        try:
            source = name_own_weights(source, encoder) or source
            name = source
            while name and (found := find_source(name, self.sources)):
                self.sources[name], name = found, found.needs if found.permuted else None
        except UserError as error:
            raise UserError(f'{where}: {error}') from None
        made = Cell(**{'dataset': self.dataset, 'encoder': encoder, **windows, **changes, 'source': source})
        if not made.encoder.startswith(TIMM):
            _known(made.encoder, self.configs, 'encoder', where)
        _known(made.source, {*self.sources, 'none'}, 'source', where)
        if not self.fits(made.encoder, made.source):
            raise UserError(f'{where}: source {made.source!r} is for encoder '
                            f'{self.sources[made.source].encoder!r}, not {made.encoder!r}')
        return made

    def product(self, axes: dict[str, Sequence]) -> list[Cell]:
        """Every point of free axes; those of encoder and source without the pairs that cannot be."""
        points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        both = {'encoder', 'source'} <= set(axes)
        return [self.make(point, 'axes') for point in points if point
                and not (both and not self.fits(self.named(point['encoder']), point['source']))]


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
            _known(row, known, 'row', where)
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
        text = yaml.safe_dump(spec, sort_keys=False)
    if spec.get('folds', 1) < 1:
        raise UserError(f'{path}: {spec["folds"]} folds; give at least 2, or 1 for the datasets as they are split')
    if spec.get('imports'):
        import_extensions(spec['imports'], path)
    given = {axis: values for axis, values in axes.items() if values}
    if given and tables:
        raise UserError(f'{path}: --tables and free axes ({", ".join(given)}) exclude each other')
    asked = dict(axes=(spec.get('axes') or {}) | given) if given else {}
    if seeds:  # the first of the file is its search's
        asked['seeds'] = list(dict.fromkeys([*(spec.get('seeds') or ()), *seeds]))
    if asked != {key: spec.get(key) for key in asked}:  # so that a folder tells what was run into it
        text = yaml.safe_dump(spec | asked, sort_keys=False)
    seeds = seeds or spec.get('seeds') or (1234,)
    for seed in seeds:
        if not KEYS['seed'].fits(seed):
            raise UserError(f'{path}: seed {seed!r} must be {KEYS["seed"].must_be}')
    sources = _read_sources(spec, path)
    configs = {name: config.get('file', config) if isinstance(config, dict) else config
               for name, config in spec['configs'].items()}
    cells = _Cells(path, chosen[0], configs, sources, spec.get('source'))

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
    grid.search_seed = (spec.get('seeds') or seeds)[0]
    grid.equal = spec.get('equal', 'steps')
    _known(grid.equal, ('steps', 'seconds'), 'equal', f'{path}')
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
    tune = {name: values for name, values in spec.get('tune', {}).items()
            if _tuned_option(name).removeprefix('experiment.') not in given}
    grid.tune.update(_read_tune(tune, grid, f'{path}: tune'))
    return replace(grid, **_read_search_sizes(spec, grid, path))
