"""Tables: which rows one has, what it reports of them, and which differences and figure it is there to show.

A grid file writes its own under `tables`; a module that it imports may register one for it to name:

    register_table(Table('depth', rows={'flat': {'slices': 1}, 'deep': {}}, against='flat'))
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from mmseg_plugins.errors import UserError, nearest
from mmseg_plugins.untrusted import check_name, find_twins

from .axes import AXES, Cell

# Files of a report beside the grid's own tables.
RESERVED = ('1', '6', 'free', 'search', 'contrasts', 'organs', 'seeds', 'cost', 'claims')


@dataclass(frozen=True)
class Difference:
    """Two rows of a table, and what sets the first apart.

    Args:
        what: it is, as `depth`.
        first, second: rows.
        given: what both rows have, as `with transfer`.
    """
    what: str
    first: str
    second: str
    given: str = ''

    def __str__(self) -> str:
        text = f'{self.what}, {self.given}' if self.given else self.what
        return text[0].upper() + text[1:]


@dataclass(frozen=True)
class Published:
    """What a publication reports on a dataset: DSC in percent; nothing, if nothing is said.

    Args:
        heading: of its column, as `paper (BCV)`.
        rows: row -> mean over the table's labels; NaN where none is reported.
        organs: rows by label ids, and statistics of the labels themselves.
        seeds: row -> seed -> mean, where it tells of several.
        per_case: rows whose figures are means of cases; the others' are pooled.
    """
    heading: str = ''
    rows: Mapping[str, float] = field(default_factory=dict)
    organs: pd.DataFrame = field(default_factory=pd.DataFrame)
    seeds: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    per_case: Collection[str] = ()


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
        differences: those that matter most, which the page's first sentences tell; the first is shown by organ, by
            dataset and against slice variation. None: `against` instead of each other row.
        ranks: what its rows are, as `sources`, where the sentences tell of the highest and the lowest.
        axis: whose values its rows are, where they are of one.
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
    differences: tuple[Difference, ...] | None = None
    ranks: str = ''
    axis: str = ''
    columns: Mapping[str, Callable[[Cell, Mapping], str]] = field(default_factory=dict)
    figure: str = ''
    published: Callable[[str], Published] = lambda dataset: Published()

    @property
    def reference(self) -> str | None:
        """`against`, or the first row where a grid has taken that one away."""
        return self.against if self.against in (None, *self.rows) else next(iter(self.rows), None)

    @property
    def shown_differences(self) -> list[Difference]:
        """Those whose rows are both there."""
        each = self.differences
        if each is None:
            each = [Difference(f'{self.reference} instead of {row}', self.reference, row) for row in self.rows]
        return [one for one in each if one.first != one.second and {one.first, one.second} <= set(self.rows)]


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
