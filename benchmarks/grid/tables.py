"""Tables: which rows one has, what it reports of them, and which contrasts and figure it is there to show.

A grid file writes its own under `tables`; a module that it imports may register one for it to name:

    register_table(Table('depth', rows={'flat': {'slices': 1}, 'deep': {}}, against='flat'))
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pandas as pd

from mmseg_plugins.errors import UserError, nearest
from mmseg_plugins.untrusted import check_name, find_twins

from .axes import AXES, Cell

# Files of a report beside the grid's own tables.
RESERVED = ('1', '6', 'free', 'search', 'contrasts', 'organs', 'seeds', 'cost', 'claims')


@dataclass(frozen=True)
class Contrast:
    """Two rows that are compared, the first minus the second.

    Args:
        name: the effect, as `depth with transfer`; the organ, of one by organ; '' of a table's reference.
        first, second: rows.
        cells: of both.
        labels: whose mean is compared, as of a table; ids of one by organ.
        table: where both rows stand; '' where they stand in two.
        registered: written down in the grid file.
    """
    name: str
    first: str
    second: str
    cells: tuple[Cell, Cell]
    labels: Sequence[int] | str = 'headline'
    table: str = ''
    registered: bool = False

    def __str__(self) -> str:
        name = self.name or f'{self.first} instead of {self.second}'
        return name[0].upper() + name[1:]

    @property
    def key(self) -> str:
        """What records of both cells hold of a contrast that was registered before they ran."""
        return f'{" - ".join(sorted(map(str, self.cells)))}, {self.labels}'

    def on(self, dataset: str) -> 'Contrast':
        return replace(self, cells=tuple(replace(cell, dataset=dataset) for cell in self.cells))


@dataclass(frozen=True)
class Published:
    """What a publication reports on a dataset: DSC in percent; nothing, if nothing is said.

    Args:
        heading: of its column, as `paper (BCV)`.
        rows: row -> mean over the table's labels; NaN where none is reported.
        organs: rows by label ids, and statistics of the labels themselves.
        seeds: row -> seed -> mean, where it tells of several.
        per_case: rows whose figures are means of cases; the others' are pooled.
        columns: heading -> row -> what stands there of a row that a table lacks, beside the table's own `columns`.
        not_run: row -> what stands for its figures in a table that lacks it: `not run`, and why or where it is.
    """
    heading: str = ''
    rows: Mapping[str, float] = field(default_factory=dict)
    organs: pd.DataFrame = field(default_factory=pd.DataFrame)
    seeds: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    per_case: Collection[str] = ()
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    not_run: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        name: by which grid files ask for it, and of its files.
        rows: row -> its cell; before a grid has made cells of them, its changes to the grid's own.
        caption: what its rows are, without a full stop.
        title: at the beginning of the caption; `Table <name>` without one.
        labels: whose mean it reports: `headline` (a dataset's reported organs) or `all` (background included).
        by: what stands in its columns: `metrics`, or `organs` (pooled DSC). Over several datasets these do.
        against: the row that every other is compared with (the first, where a grid has taken that one away); None:
            no comparisons.
        effects: name -> two rows, as `contrasts` of a grid file: those that the page's first sentences tell where
            the grid file registers none.
        axis: whose values its rows are, where they are of one; several may have the same.
        columns: heading -> the text of a cell's config there, before the figures.
        figure: of its rows' DSC: the name of the file, '' without one.
        published: dataset -> what is published of the rows on it.
    """
    name: str
    rows: Mapping[str, Any]
    caption: str = ''
    title: str = ''
    labels: Literal['headline', 'all'] = 'headline'
    by: Literal['metrics', 'organs'] = 'metrics'
    against: str | None = None
    effects: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    axis: str = ''
    columns: Mapping[str, Callable[[Cell, Mapping], str]] = field(default_factory=dict)
    figure: str = ''
    published: Callable[[str], Published] = lambda dataset: Published()

    @property
    def lines(self) -> bool:
        """Whether several rows have the same value of the axis, which its figure then draws as lines."""
        return bool(self.axis) and len({getattr(cell, self.axis) for cell in self.rows.values()}) < len(self.rows)

    @property
    def reference(self) -> str | None:
        """`against`, or the first row where a grid has taken that one away."""
        return self.against if self.against in (None, *self.rows) else next(iter(self.rows), None)

    def contrasts(self) -> list[Contrast]:
        """Its effects whose rows are both there, then its reference against each other row."""
        pairs = {rows: name for name, rows in self.effects.items() if {*rows} <= set(self.rows)}
        if self.against is not None:
            for row in self.rows:
                if row != self.reference and not {(self.reference, row), (row, self.reference)} & set(pairs):
                    pairs[self.reference, row] = ''
        return [Contrast(name, *rows, tuple(self.rows[row] for row in rows), self.labels, self.name)
                for rows, name in pairs.items()]


TABLES: dict[str, Table] = {}


def register_table(table: Table) -> None:
    """Make a table known by its name to all grid files.

    Raises:
        UserError: it contradicts itself, or there is one of its name.
    """
    check_table(table, f'table {table.name}')
    TABLES[table.name] = table


def check_table(table: Table, where: str) -> None:
    """Raise a UserError, which begins with `where`, for a table that could not be shown as it says."""
    check_name(table.name, where)
    if find_twins([*RESERVED, *TABLES, table.name]):
        raise UserError(f"{where}: there is a table of this name; choose another, or change its rows under 'rows'")
    if not table.rows:
        raise UserError(f'{where}: has no rows; write them as rows: {{row: {{axis: value}}}}')
    for row in table.rows:
        if not isinstance(row, str) or not row.strip() or not row.isprintable():
            raise UserError(f'{where}: {row!r} cannot be a row; name it by text on one line')
    for key, choices in (('labels', ('headline', 'all')), ('by', ('metrics', 'organs')), ('axis', ('', *AXES)),
                         ('against', (None, *table.rows))):
        if (value := getattr(table, key)) not in choices:
            raise UserError(f'{where}: unknown {key} {value!r}{nearest(value, filter(None, choices))}')
    if table.by == 'organs' and table.labels == 'all':
        raise UserError(f'{where}: labels: all is for a mean over labels, and by: organs has none; leave one out')
    if table.axis and not any(table.axis in changes for changes in table.rows.values()):
        raise UserError(f'{where}: axis {table.axis!r} is set by none of its rows; leave it out')
