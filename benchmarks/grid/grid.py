"""A grid: its cells, the rows they fill, and how each is run."""

import itertools
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmseg_plugins.datasets.splits import Fold
from mmseg_plugins.sources import Source

from .axes import Cell
from .tables import Contrast, Table

GIVEN = r'\A# (python \S*run_grid\.py.*)\n'  # the first line of a folder's grid.yaml: how it was called


@dataclass
class Grid:
    """What to run, how to build it, and what to show.

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
        search_steps: at most so many steps has a run of the search, in proportion where a cell has more than its
            config; None: as many as the run it is for.
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
