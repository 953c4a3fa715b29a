"""A config's parts as objects. What a constructor makes of a wrong value is the config's mistake, in one line."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS
from torch import nn

from .collective import unwrapped
from .errors import UserError
from .faults import is_out_of_memory


def build_model(cfg: Config) -> nn.Module:
    """The config's model, its weights not yet those of the source.

    Raises:
        UserError: its parts do not fit together.
    """
    init_default_scope('mmseg')
    with _built_from(cfg):
        return MODELS.build(cfg.model)


def check_model(cfg: Config) -> None:
    """Build the config's model, load its source, and leave both: what a training would stumble over.

    Raises:
        UserError: its parts do not fit together, or the source does not fit it.
    """
    model = build_model(cfg)
    _check_custom_keys(cfg, model)
    _check_rates(cfg, model)
    start = getattr(model, 'backbone', None) or getattr(model, 'network', None)
    if getattr(start, 'source', None):
        start.init_weights()


def build_runner(cfg: Config, train: bool = True) -> Runner:
    """mmengine's runner, and all that it would build later: to train, or to evaluate.

    Raises:
        UserError: a part cannot be built.
    """
    if cfg.resume and cfg.load_from:
        raise UserError(f'load_from={cfg.load_from}: a training is resumed from its own checkpoint; leave out '
                        'load_from, or --resume')
    with _built_from(cfg):
        runner = Runner.from_cfg(cfg)
        if train:  # in the order of its own `train`
            runner._train_loop = runner.build_train_loop(runner._train_loop)
            _check_custom_keys(cfg, runner.model)
            _check_rates(cfg, runner.model)
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
            runner._val_loop = runner._val_loop and runner.build_val_loop(runner._val_loop)
        else:
            runner._test_loop = runner.build_test_loop(runner._test_loop)
    return runner


def _check_custom_keys(cfg: Config, model: nn.Module) -> None:
    """Parameters that have a rate of their own must be there; mmengine passes over names that match none.

    Those without weight decay are the configs' own list, which is of several encoders, and not every model has
    all parts.
    """
    parts = ('backbone', 'neck', 'decode_head', 'auxiliary_head')
    paramwise = cfg.optim_wrapper.get('paramwise_cfg') or {}  # None is mmengine's own default
    for name, settings in (paramwise.get('custom_keys') or {}).items():
        there = name in parts or any(name in parameter for parameter, _ in model.named_parameters())
        if 'lr_mult' in settings and not there:
            raise UserError(f'{cfg.filename}: optim_wrapper.paramwise_cfg.custom_keys has {name!r}, which is in '
                            'no parameter\'s name; correct it, or leave it out')


def _check_rates(cfg: Config, model: nn.Module) -> None:
    """Rates of their own that an encoder's parts have must reach the optimizer."""
    encoder = getattr(unwrapped(model), 'backbone', None)
    if getattr(encoder, 'rate_factors', None) and cfg.optim_wrapper.get('constructor') != 'RatesBesideDecay':
        raise UserError(f'{cfg.filename}: the encoder has learning rates of its own, by tuning, lifting or '
                        'inflation, which need optim_wrapper.constructor=RatesBesideDecay; set that')


@contextmanager
def _built_from(cfg: Config) -> Iterator[None]:
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(f'{cfg.filename}: its parts cannot be built: {type(error).__name__}: '
                        f'{" ".join(str(error).split())[:200]} ({Path(place.filename).name}, line {place.lineno})'
                        ) from error
