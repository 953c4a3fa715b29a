"""The axes of an experiment, set once at the top of a config and carried into its parts.

A config of this project is mmengine's with one more section:

    experiment = dict(
        data_root='data/prepared/bcv',   # a prepared dataset; gives classes, channels, ranges
        source='weights/....pth',        # 2D checkpoint, or None for random weights
        inflation='centering', slices=5, stride=1, target='center',
        img_size=512, batch=16, accumulate=1, lr=3e-5, steps=25000, warmup=20, seed=1234,
        split='train', evaluate=None, val_interval=None, checkpoint_interval=1000,
        protocol='sound',                # intensity rule: `sound` or `paper` (datasets/intensity.py)
        encoder=None)                    # or any timm model with a patch embedding, in the config's place

and how it is computed (acceleration.py): `precision`, `activation_checkpointing`, `compile`, `channels_last`,
so that `--cfg-options experiment.slices=11` is one edit, not six. `load_config` fills the parts in.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from . import compat
from .acceleration import SWITCHES, carry_into_model, check_acceleration, prepare_acceleration
from .arguments import check_arguments, check_options
from .checkpoints import check_source_file
from .datasets.catalogue import CATALOGUE
from .datasets.intensity import PROTOCOLS
from .datasets.store import read_index
from .errors import UserError, nearest
from .inflation import parse_inflation
from .models.encoders import timm_encoder

KEYS = {'data_root', 'source', 'inflation', 'slices', 'stride', 'target', 'img_size', 'batch',
        'accumulate', 'lr', 'steps', 'warmup', 'seed', 'split', 'evaluate', 'val_interval',
        'checkpoint_interval', 'encoder', 'protocol', 'precision', *SWITCHES}

OPTIONAL = {'data_root', 'source', 'evaluate', 'val_interval', 'encoder', 'img_size',  # or of the dataset
            'precision', *SWITCHES}

def load_config(path: str | Path, options: dict | None = None, world_size: int = 1) -> Config:
    """Read a config, apply `--cfg-options`, and carry its experiment into model, data and schedule.

    Raises:
        UserError: file missing, misspelt experiment key, dataset not prepared, batch not divisible.
    """
    cfg = read_config(path, options)
    experiment = cfg.experiment
    index = read_index(experiment.data_root)
    _carry_into_model(cfg, experiment, index)
    _carry_into_data(cfg, experiment, index, world_size)
    _carry_into_schedule(cfg, experiment)
    return cfg


def load_model_config(path: str | Path, options: dict | None = None) -> tuple[Config, str]:
    """A config whose model can be built without data or weights, and where its classes were taken from.

    Where the dataset is not prepared, its labels and channels are the catalogue's.
    """
    cfg = read_config(path, options)
    name = Path(cfg.experiment.data_root).name
    try:
        index, origin = read_index(cfg.experiment.data_root), 'of the prepared data'
    except UserError:
        info = CATALOGUE.get(name)
        index = (dict(labels=info.labels, channels=len(info.channels)) if info else
                 dict(labels=('background', 'foreground'), channels=1))
        origin = 'of the catalogue' if info else 'assumed, the data is not prepared'
    _carry_into_model(cfg, cfg.experiment, index)
    cfg.model.backbone.source = None
    return cfg, f'{len(index["labels"])} classes {origin}'


def read_config(path: str | Path, options: dict | None = None) -> Config:
    """Read a config and apply options, leaving its parts as the file has them."""
    if not Path(path).is_file():
        known = sorted(p.name for p in Path(path).absolute().parent.glob('*.py'))
        raise UserError(f'{path}: config not found{nearest(Path(path).name, known)}')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise UserError(f'{path}: not a valid config: {" ".join(str(error).split())}') from error
    if not isinstance(cfg.get('experiment'), dict):
        raise UserError(f'{path}: no `experiment` section; see mmseg_plugins/experiment.py')
    if options:
        check_options(options, cfg, str(path))
        try:
            cfg.merge_from_dict(options)
        except Exception as error:  # mmengine's, by the kind of what stands in the way
            raise UserError(f'{path}: --cfg-options do not fit it: {" ".join(str(error).split())}') from error
        import_extensions(cfg.get('custom_imports', {}).get('imports', ()), path)
    _check_experiment(cfg.experiment, path)
    check_arguments(cfg, str(path))
    return cfg


def _check_experiment(experiment: ConfigDict, path: str | Path) -> None:
    if not isinstance(experiment, dict):
        raise UserError(f'{path}: experiment={experiment!r} must be a mapping of {", ".join(sorted(KEYS))}')
    for key in experiment:
        if key not in KEYS:
            raise UserError(f'{path}: unknown key experiment.{key}{nearest(key, KEYS)}')
    for key in sorted(KEYS - OPTIONAL):
        if key not in experiment:
            raise UserError(f'{path}: experiment.{key} is missing')
    parse_inflation(experiment.inflation)
    if experiment.protocol not in PROTOCOLS:
        raise UserError(f'{path}: unknown protocol {experiment.protocol!r}'
                        f'{nearest(experiment.protocol, PROTOCOLS)}')
    for least, keys in ((1, ('slices', 'stride', 'batch', 'accumulate', 'steps', 'checkpoint_interval')),
                        (0, ('warmup', 'seed'))):
        for key in keys:
            value = experiment[key]
            if type(value) is not int or value < least:
                raise UserError(f'{path}: experiment.{key}={value!r} must be a whole number, at least {least}')
    if type(experiment.lr) not in (int, float) or not 0 < experiment.lr < float('inf'):
        raise UserError(f'{path}: experiment.lr={experiment.lr!r} must be a number above 0')
    check_acceleration(experiment, path)


def import_extensions(modules: Sequence[str], named_by: str | Path) -> None:
    """Import a user's own modules (an inflation method, an encoder); the working directory is searched too.

    Raises:
        UserError: names the file that asked for the module.
    """
    if '' not in sys.path:
        sys.path.append('')
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(f'{named_by}: imports {module!r}: {error}; run from the folder that holds it'
                            ) from error


def check_start(cfg: Config, world_size: int) -> str:
    """Check what a training run needs before any process is started; says what will be trained.

    Raises:
        UserError: the source checkpoint is not there.
    """
    experiment, train = cfg.experiment, cfg.train_dataloader
    if experiment.source:
        check_source_file(experiment.source)
    index = read_index(experiment.data_root)
    counts = {split: len(cases) for split, cases in index['split'].items()}
    for split in filter(None, (experiment.split, cfg.val_dataloader and cfg.val_dataloader.dataset.split)):
        if not counts.get(split):
            raise UserError(f'{experiment.data_root}: split {split!r} has no cases'
                            f'{nearest(split, counts) if split not in counts else "; prepare more of them"}')
    evaluated = (f', evaluated on {counts[cfg.val_dataloader.dataset.split]}' if cfg.val_dataloader
                 else ', without labels')
    return (f'{experiment.steps} steps of {experiment.batch} windows ({world_size} processes x '
            f'{train.batch_size // experiment.accumulate} windows x {experiment.accumulate} accumulated) on '
            f'{counts[experiment.split]} cases of {index["dataset"]}{evaluated}; '
            f'{experiment.slices} slices, stride {experiment.stride}, '
            f'source {experiment.source or "none (random weights)"}, inflation {experiment.inflation}')


def _carry_into_model(cfg: Config, experiment: ConfigDict, index: dict) -> None:
    model, slices = cfg.model, experiment.slices
    model.data_preprocessor.slices = slices
    if 'decode_head' in model:
        if experiment.get('encoder'):
            for part, settings in timm_encoder(experiment.encoder, experiment.img_size, model).items():
                model[part] = settings  # mmengine's own `update` would merge the config's sizes in
        model.slices, model.target = slices, experiment.target
        model.decode_head.num_classes = len(index['labels'])
    elif experiment.get('encoder'):
        raise UserError('experiment.encoder is for segmentors; for pre-training without labels set '
                        'model.backbone.model')
    else:  # a pre-training objective without labels, whose own schedules span the steps
        model.steps, model.accumulate = experiment.steps, experiment.accumulate
    model.backbone.update(slices=slices, channels=index['channels'], inflation=experiment.inflation,
                          source=experiment.source, img_size=experiment.img_size)
    carry_into_model(experiment, model)


def _carry_into_data(cfg: Config, experiment: ConfigDict, index: dict, world_size: int) -> None:
    if experiment.batch % (world_size * experiment.accumulate):
        raise UserError(f'batch {experiment.batch} does not divide over {world_size} processes x '
                        f'{experiment.accumulate} accumulated steps; choose others')
    cfg.train_dataloader.batch_size = experiment.batch // world_size
    evaluate = experiment.get('evaluate') or index['evaluate']
    for name, split in (('train', experiment.split), ('val', evaluate), ('test', evaluate)):
        if cfg[f'{name}_dataloader'] is None:  # nothing to evaluate without labels
            continue
        dataset = cfg[f'{name}_dataloader'].dataset
        dataset.update(data_root=experiment.data_root, split=split, slices=experiment.slices,
                       stride=experiment.stride, target=experiment.target, protocol=experiment.protocol)
        size = experiment.img_size
        for transform in dataset.pipeline:
            if transform.type in ('ResizeWindow', 'RandomZoomCrop'):
                transform.size = (size, size) if isinstance(size, int) else tuple(size)
        cfg[f'{name}_dataloader'].persistent_workers = cfg[f'{name}_dataloader'].num_workers > 0
    for evaluator in filter(None, (cfg.val_evaluator, cfg.test_evaluator)):
        evaluator.headline = index['headline']


def _carry_into_schedule(cfg: Config, experiment: ConfigDict) -> None:
    steps = experiment.steps
    warmup = min(experiment.warmup, steps - 1)
    cfg.optim_wrapper.optimizer.lr = experiment.lr
    cfg.optim_wrapper.accumulative_counts = experiment.accumulate
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=1 / (warmup + 1), begin=0, end=warmup, by_epoch=False)
    ] * (warmup > 0) + [
        dict(type='PolyLR', power=1.0, eta_min=0.0, begin=warmup, end=steps, by_epoch=False)
    ]
    cfg.train_cfg.update(max_iters=steps, val_interval=experiment.get('val_interval') or steps,
                         accumulate=experiment.accumulate)
    cfg.default_hooks.checkpoint.interval = experiment.checkpoint_interval
    cfg.randomness.seed = experiment.seed


def world_size() -> int:
    """Number of processes of a torchrun, mpi or Slurm launch (1 without one)."""
    names = ('WORLD_SIZE', 'SLURM_NTASKS', 'OMPI_COMM_WORLD_SIZE', 'PMI_SIZE')
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), 1)


def process_rank() -> int:
    """This process's number in such a launch, before it has joined the others (0 without one)."""
    names = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK', 'PMI_RANK')
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), 0)


def was_restarted() -> bool:
    """Whether torchrun (--max-restarts) or Slurm (a requeued job) has started this run before."""
    return any(int(os.environ.get(name) or 0) for name in ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT'))


def prepare_for_device(cfg: Config, launcher: str, train: bool = True) -> None:
    """Backend, norms and precision, as far as they follow from where the run happens.

    Args:
        cfg: carried through by `load_config`.
        launcher: mmengine's name of it.
        train: whether it is for training; evaluation needs less of the device.

    Raises:
        UserError: the device cannot do what the config says.
    """
    cfg.launcher = launcher
    if launcher != 'none':
        cfg.sync_bn = 'torch'
        if not torch.cuda.is_available():
            compat.join_cpu_processes(cfg, launcher)
    prepare_acceleration(cfg, train)
