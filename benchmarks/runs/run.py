"""A run: a cell with a seed, by what it is known, the command that repeats it alone, and the kind of its work."""

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmseg_plugins.commands import REPO, command
from mmseg_plugins.datasets.splits import Fold
from mmseg_plugins.flops import input_size
from mmseg_plugins.keys import unusual
from mmseg_plugins.options import format_value
from mmseg_plugins.sources import TIMM

from ..grid.axes import Cell

OURS = {'mmseg_plugins', 'benchmarks'}  # imports of a config that are no user's


@dataclass(frozen=True)
class Run:
    """A cell with a seed, and all that makes it: config (of a method, its command), options, identity, fold.

    `setting` is what a search tries with it, in words; `search` what chose some of the options (search.py);
    `contrasts` are keys of those that the grid registers of its cell; `source_digest` is part of the identity ('':
    nobody has asked).
    """
    cell: Cell
    seed: int
    config: str
    options: dict[str, Any]
    identity: str
    fold: Fold | None = None
    setting: str = ''
    search: dict[str, Any] | None = None
    contrasts: Sequence[str] = ()
    source_digest: str | None = ''

    @property
    def name(self) -> str:
        return f'{name_part(self.cell, self.seed, self.fold)}-{self.identity}'

    @property
    def title(self) -> str:
        """What is trained, and on what, in plans."""
        return f'{self.cell.dataset} {self.cell.encoder}'

    def command(self, portable: bool = False) -> str:
        """What repeats this run alone: from any folder here or, portable, from the repository's root elsewhere."""
        if self.cell.without_config:
            return self.config
        places = {'experiment.data_root', 'experiment.source'}
        own = f'timm:{self.cell.source.partition(".")[2]}' if self.cell.source.startswith(TIMM) else ''
        options = [(key, own if own and key == 'experiment.source' else
                    Path(value) if key in places and value else format_value(key, value))
                   for key, value in self.options.items()]
        return command('tools/train.py', REPO / self.config, '--work-dir', Path('work_dirs') / self.name,
                       '--cfg-options', *options, portable=portable,
                       modules=module_folders(self.options.get('custom_imports.imports', ())))


def name_part(cell: Cell, seed: int, fold: Fold | None) -> str:
    """A run's name, without what it is known by."""
    return f'{cell}-seed{seed}' + (f'-fold{fold[0]}of{fold[1]}' if fold else '')


def module_folders(imports: Iterable[str]) -> list[Path]:
    """Where Python finds the user's own modules among these, which are imported."""
    modules = [sys.modules[name] for name in sorted({name.split('.')[0] for name in imports} - OURS)]
    return [Path([*module.__path__][0] if hasattr(module, '__path__') else module.__file__).parent
            for module in modules]


def content_hash(content: Any) -> str:
    """Eight digits that tell contents apart: of a run's determinants they are its identity."""
    canonical = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def describe_options(options: dict[str, Any]) -> str:
    """In words, as `lr 0.002`."""
    return ', '.join(f'{option.removeprefix("experiment.")} {value}' for option, value in options.items())


def describe_kind(title: str, experiment, labels: int) -> str:
    """The kind of a run in words: steps of one kind and of as many FLOPs cost the same.

    Args:
        title: what is trained, and on what.
        experiment: of its config.
        labels: K with background.
    """
    size, passes = [experiment.get('slices'), *input_size(experiment)][-3:], experiment.accumulate
    target = ' to all' if experiment.get('target') == 'all' else ''
    words = [title, f'{"x".join(map(str, size))}{target}', f'{labels} labels',
             f'batch {experiment.batch}' + (f' in {passes} passes' if passes > 1 else '')]
    words += filter(None, (unusual(experiment, key) for key in ('lifting', 'tuning', 'precision')))
    if inference := unusual(experiment, 'inference_precision'):
        words.append(f'inference in {inference}')
    words += [key.replace('_', ' ') for key in ('activation_checkpointing', 'compile', 'channels_last')
              if experiment.get(key)]
    return ', '.join(words)
