"""The keys of a config's `experiment`: what each may be, and which places of the config it decides.

Beside them, what numbers in other places may be, where their constructors take any.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .acceleration import HALVES, PRECISIONS
from .datasets.intensity import PROTOCOLS
from .errors import UserError, nearest
from .inflation import parse_inflation
from .lifting import parse_lifting
from .tuning import parse_tuning

DATASET = r'(train|val|test)_dataloader\.dataset'
MOST_SEED = 2**32 - 1  # numpy's


@dataclass(frozen=True)
class Key:
    """One key of `experiment`.

    Args:
        must_be: what its value must be, to be read behind those words.
        fits: whether a value is that.
        decides: pattern of the places of a config that `load_config` fills in from it.
        optional: it may be left out or be None.
        names: the values there are, where they can be listed.
        text: its value is text, which the command line takes as it is written.
        determines: a result depends on its value; not so on where things lie, how often they are saved, and what
            is computed twice instead of kept.
        usual: what leaving it out means, where that is a value; runs that say so are those that leave it out.
        of: what alone has it, `windows` or `crops`; '': both.
        parse: of a name with a number in brackets; raises a UserError for what is none.
    """
    must_be: str
    fits: Callable[[Any], bool]
    decides: str = ''
    optional: bool = False
    names: Sequence[str] = ()
    text: bool = False
    determines: bool = True
    usual: Any = None
    of: str = ''
    parse: Callable[[str], Any] | None = None


def _whole(least: int, most: float = math.inf, **others) -> Key:
    until = f' and at most {most}' if most < math.inf else ''
    return Key(f'a whole number, at least {least}{until}',
               lambda value: type(value) is int and least <= value <= most, **others)


def _text(decides: str = '', optional: bool = False, **others) -> Key:
    return Key(f'a text{" or None" * optional}', lambda value: isinstance(value, str) and value != '', decides,
               optional, text=True, **others)


def _one_of(names: Sequence[str], decides: str, optional: bool = False, **others) -> Key:
    return Key(f'one of {", ".join(names)}', lambda value: isinstance(value, str) and value in names, decides,
               optional, tuple(names), text=True, **others)


def _switch(decides: str, **others) -> Key:
    return Key('True or False', lambda value: isinstance(value, bool), decides, optional=True, usual=False,
               **others)


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, list | tuple) and len(value) == 2 else [value]
    return all(type(side) is int and side > 0 for side in sides)


def _are_three(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and len(value) == 3 and all(map(fits, value))


def _is_rate(value: Any) -> bool:
    return _is_factor(value) and value > 0


def _is_factor(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


KEYS: dict[str, Key] = {
    'data_root': _text(rf'{DATASET}\.data_root|model\.(decode|auxiliary)_head(\.\d+)?\.num_classes'
                       r'|model\.backbone\.channels|model\.network\.(in|out)_channels'
                       r'|(val|test)_evaluator(\.\d+)?\.headline', determines=False),
    'source': _text(r'model\.(backbone|network)\.source', optional=True, determines=False),
    'inflation': _text(r'model\.backbone\.inflation', of='windows', parse=parse_inflation),
    'lifting': _text(r'model\.backbone\.lifting', optional=True, usual='kernel', of='windows',
                     parse=parse_lifting),
    'tuning': _text(r'model\.backbone\.tuning', optional=True, usual='full', of='windows', parse=parse_tuning),
    'slices': _whole(1, decides=rf'model\.(backbone\.)?slices|{DATASET}\.slices', of='windows'),
    'stride': _whole(0, decides=rf'{DATASET}\.stride', of='windows'),
    'target': _one_of(('center', 'all'), rf'model\.target|{DATASET}\.target', of='windows'),
    'img_size': Key('pixels of height and width, one whole number above 0 or two', _is_size,
                    rf'model\.backbone\.img_size|{DATASET}\.pipeline\.\d+\.size', optional=True, of='windows'),
    'crop': Key('slices, height and width of a crop in voxels, three whole numbers above 0',
                _are_three(lambda side: type(side) is int and side > 0),
                rf'model\.(network\.)?crop|{DATASET}\.crop', optional=True, of='crops'),
    'spacing': Key('mm of a voxel along slices, height and width, three numbers above 0', _are_three(_is_rate),
                   rf'{DATASET}\.spacing', optional=True, of='crops'),
    'batch': _whole(1, decides=r'train_dataloader\.batch_size'),
    'accumulate': _whole(1, decides=r'optim_wrapper\.accumulative_counts|(train_cfg|model)\.accumulate'),
    'lr': Key('a number above 0', _is_rate, r'optim_wrapper\.optimizer\.lr'),
    'neighbour_lr': Key('a number, at least 0', _is_factor, r'default_hooks\.neighbour_rate(\..*)?', optional=True,
                        usual=1, of='windows'),
    'steps': _whole(1, decides=r'train_cfg\.max_iters|model\.steps', optional=True),
    'warmup': _whole(0, decides=r'param_scheduler(\..*)?'),
    'power': Key('a number above 0, or cosine', lambda value: value == 'cosine' or _is_rate(value),
                 r'param_scheduler(\..*)?', optional=True, usual=1),
    'seed': _whole(0, MOST_SEED, decides=r'randomness\.seed|\w+_dataloader\.sampler\.seed'),
    'split': _text(r'train_dataloader\.dataset\.split'),
    'train_percent': _whole(1, 100, decides=r'train_dataloader\.dataset\.split', optional=True, usual=100),
    'evaluate': _text(r'(val|test)_dataloader\.dataset\.split', optional=True),
    'val_interval': _whole(1, decides=r'train_cfg\.val_interval', optional=True),
    'checkpoint_interval': _whole(1, decides=r'default_hooks\.checkpoint\.interval', determines=False),
    'encoder': _text(optional=True, of='windows'),
    'protocol': _one_of(PROTOCOLS, rf'{DATASET}\.protocol'),
    'precision': _one_of(PRECISIONS, r'optim_wrapper\.(type|dtype)', optional=True, usual='fp32'),
    'inference_precision': _one_of(('fp32', *HALVES), r'model\.inference_precision', optional=True, usual='fp32'),
    'activation_checkpointing': _switch(r'model\.backbone\.with_cp', determines=False, of='windows'),
    'compile': _switch(r'(model\.)?compile'),
    'channels_last': _switch(r'model\.channels_last', of='windows'),
}

# Other places of a config whose constructors take numbers that mean nothing.
RANGES: dict[str, Key] = {
    r'optim_wrapper\.clip_grad\.max_norm':
        Key('a number above 0', lambda value: type(value) in (int, float) and value > 0),
    r'optim_wrapper\.optimizer\.weight_decay':
        Key('a number, at least 0', _is_factor),
    r'default_hooks\.\w+\.interval': _whole(1),
    r'model(\.\w+)*\.(drop_rate|drop_path_rate|dropout_ratio)':
        Key('a number, at least 0 and below 1', lambda value: type(value) in (int, float) and 0 <= value < 1),
    r'env_cfg\.cudnn_benchmark': _switch(''),
    r'optim_wrapper\.paramwise_cfg\.custom_keys\..+\.(?!(lr_mult|decay_mult)$)[^.]+':
        Key('left out, lr_mult and decay_mult are known', lambda value: False),
}

# What `_base_` files have in places that a key decides, until it is filled in; a user's file that has just this
# number there is not refused, and the key decides all the same.
PLACEHOLDERS = {'optim_wrapper.optimizer.lr': 3e-5, 'train_cfg.max_iters': 25000, 'train_cfg.val_interval': 25000,
                'randomness.seed': 1234, 'default_hooks.checkpoint.interval': 1000,
                'model.decode_head.num_classes': 2, 'train_dataloader.batch_size': 16}


def decided_by(place: str) -> str | None:
    """The key of `experiment` that decides a place of a config, as `train_cfg.max_iters`; None: no key."""
    return next((name for name, key in KEYS.items() if re.fullmatch(key.decides, place)), None)


def unusual(experiment: Mapping[str, Any], key: str) -> Any:
    """The value of a key; None where that is what leaving it out means."""
    value = experiment.get(key)
    return None if value == KEYS[key].usual else value


def check_size(value: Any) -> int | tuple[int, int]:
    """An encoder's input size in pixels: one side of a square, or (height, width).

    Raises:
        UserError: it is something else.
    """
    if not _is_size(value):
        raise UserError(f'img_size={value!r} must be {KEYS["img_size"].must_be}')
    return value if isinstance(value, int) else tuple(value)


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of an input size."""
    return (size, size) if isinstance(size, int) else tuple(size)


def nearest_multiples(side: int, step: int) -> str:
    """The multiples of `step` around a number that is none, as `224 or 256`."""
    return ' or '.join(map(str, sorted({max(side // step, 1) * step, (side // step + 1) * step})))


def check_place(place: str, value: Any) -> str | None:
    """What is wrong with a value in a place that no key decides, as `max_norm`; None: nothing known here."""
    for pattern, key in RANGES.items():
        if re.fullmatch(pattern, place):
            return None if key.fits(value) else f' must be {key.must_be}'
    numbers = value if isinstance(value, list | tuple) else [value]
    return next((' is no number; set one' for number in numbers if isinstance(number, float)
                 and not math.isfinite(number)), None)


def check_experiment(experiment: Any, where: str) -> None:
    """Every key known, none missing, every value of its kind and range.

    Raises:
        UserError: begins with `where`.
    """
    if not isinstance(experiment, dict):
        raise UserError(f'{where}: experiment={experiment!r} must be a mapping of {", ".join(sorted(KEYS))}')
    for name in experiment:
        if name not in KEYS:
            raise UserError(f'{where}: unknown key experiment.{name}{nearest(name, KEYS)}')
    crops = experiment.get('crop') is not None
    for name, key in KEYS.items():
        value, foreign = experiment.get(name), key.of == ('windows' if crops else 'crops')
        if value is None and (key.optional or foreign):
            continue
        if foreign:
            raise UserError(f'{where}: experiment.{name} is of {key.of}, and ' + (
                'experiment.crop says that the network takes crops; leave one of the two out' if crops else
                'the network takes windows, as experiment.crop is left out; leave it out too'))
        if name not in experiment:
            raise UserError(f'{where}: experiment.{name} is missing')
        if not key.fits(value):
            fault = nearest(value, key.names) if key.names else f' must be {key.must_be}'
            raise UserError(f'{where}: experiment.{name}={value!r}{fault}')
        if key.parse:
            try:
                key.parse(value)
            except UserError as error:
                raise UserError(f'{where}: experiment.{name}: {error}') from None
