"""The axes of the grid. One of them is a line of `Cell`, named as the key of `experiment` that it sets."""

from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from mmseg_plugins.errors import UserError
from mmseg_plugins.keys import KEYS
from mmseg_plugins.lifting import token_slices
from mmseg_plugins.options import parse_value


def _axis(neutral: Any, part: str = '{}') -> Any:
    """An axis.

    Args:
        neutral: the value where nothing is said of it, as in records from before there was this axis; with None
            it is the config's own, and nothing is set.
        part: its part of a run's name; None has none, nor has what is usual of its key.
    """
    return field(default=neutral, metadata=dict(part=part))


@dataclass(frozen=True)
class Cell:
    """One point of the grid. `source` names an entry of the grid's `sources`, 'none' = random weights.

    Fields that cannot matter are held at one value, so that tables share the cell: a single slice has
    stride 1 and no neighbours, tokens of one slice have nothing to inflate over, random weights have nothing to
    inflate. A network that takes crops of volumes has its name for an encoder and None for all that only windows
    have; a method that is no config has None for all that only a config has (`cell_without_config`).
    """
    dataset: str
    encoder: str = _axis('beit')
    source: str | None = _axis('beit')
    inflation: str | None = _axis('centering')
    slices: int | None = _axis(5, 's{}')
    stride: int | None = _axis(1, 't{}')
    target: str | None = _axis('center')
    lr: float | None = _axis(None, 'lr{}')
    steps: int | None = _axis(None, 'n{}')
    neighbour_lr: float | None = _axis(1, 'r{:g}')
    train_percent: int | None = _axis(100, 'p{}')
    lifting: str | None = _axis('kernel')
    tuning: str | None = _axis('full')

    def __post_init__(self):
        for name in set(AXES) - {'encoder'}:
            if self.without_config or not self.of_windows and KEYS[name].of == 'windows':
                object.__setattr__(self, name, None)
        if self.slices == 1:
            object.__setattr__(self, 'stride', 1)
            object.__setattr__(self, 'target', 'center')
            object.__setattr__(self, 'neighbour_lr', 1)
        if self.of_windows and self.inflation != 'random' and token_slices(self.lifting, self.slices) == 1:
            object.__setattr__(self, 'inflation', 'centering')
        if self.source == 'none' and self.of_windows:
            object.__setattr__(self, 'inflation', 'random')

    @property
    def without_config(self) -> bool:
        """Whether its method is a command, or label maps from elsewhere."""
        return self.source is None

    @property
    def of_windows(self) -> bool:
        """Whether its network takes windows: it is a config, and not one of crops."""
        return self.slices is not None

    @property
    def told(self) -> dict[str, Any]:
        """Its axes by name, without those that it has not, or that have what is usual of their key."""
        return {name: value for name, value in vars(self).items()
                if name in AXES and value not in (None, KEYS[name].usual)}

    def __str__(self) -> str:
        parts = [AXES[name].part.format(value) for name, value in self.told.items()]
        return '-'.join([self.dataset, *parts]).replace('/', '_')


@dataclass(frozen=True)
class Axis:
    """What a line of `Cell` says of an axis; what its values must be, `experiment`'s key of its name says."""
    name: str
    neutral: Any
    part: str
    kind: Any

    @property
    def flag(self) -> str:
        """Of benchmarks/run_grid.py; it takes several values."""
        return f'--{self.name.removesuffix("s").replace("_", "-")}s'

    @property
    def dest(self) -> str:
        """Of the flag, where argparse keeps its values."""
        return self.flag.removeprefix('--').replace('-', '_')

    def parse(self, text: str) -> Any:
        """A value from the command line; `check` tells whether it is one."""
        return parse_value(f'experiment.{self.name}', text)

    def check(self, value: Any, where: str) -> None:
        """Raise a UserError that begins with `where` for what is no value of this axis."""
        if not (KEYS[self.name].fits(value) or value is None is self.neutral):
            raise UserError(f'{where}: {self.name} is {value!r}; it must be {KEYS[self.name].must_be}')


AXES = {line.name: Axis(line.name, line.default, line.metadata['part'], line.type)
        for line in fields(Cell) if line.default is not MISSING}


def cell_without_config(dataset: str, method: str) -> Cell:
    """The cell of a method that is no config: whatever it is, it has no axes here."""
    return Cell(dataset, method, source=None)


def check_cell(found: dict) -> None:
    """Raise a UserError for what is no cell of a record; an axis that it lacks has its neutral value."""
    if not isinstance(found.get('dataset'), str):
        raise UserError("cell has no 'dataset'")
    of_method = 'slices' in found and found['slices'] is None
    for name, value in found.items():
        if name != 'dataset' and name not in AXES:
            raise UserError(f'its cell has an unknown axis, {name!r}')
        if name != 'dataset' and not (of_method and value is None):
            AXES[name].check(value, 'its cell')
