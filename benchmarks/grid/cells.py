"""What a grid file says of an axis or a row -> a cell, with the source that its encoder can start from."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmseg_plugins.commands import REPO
from mmseg_plugins.errors import UserError, nearest
from mmseg_plugins.experiment import read_config
from mmseg_plugins.keys import KEYS
from mmseg_plugins.sources import OWN, PERMUTED, TIMM, Source, find_source, name_own_weights, timm_model

from .axes import AXES, Cell, cell_without_config

SOURCES_OF = {'videoswin': 'swin'}  # takes a 2D Swin's weights too, by inflating kernel and tables


def check_known(name: Any, known: Iterable, what: str, where: str) -> None:
    """Raise a UserError that begins with `where` and has the nearest name, unless a name is known."""
    if name not in known:
        raise UserError(f'{where}: unknown {what} {name!r}{nearest(name, known)}')


@dataclass(frozen=True)
class CellMaker:
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
            check_known(axis, AXES, 'axis', where)  # the dataset is the grid's
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
            check_known(made.encoder, self.configs, 'encoder', where)
        check_known(made.source, {*self.sources, 'none'}, 'source', where)
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
