"""The axes of an experiment, set once at the top of a config and carried into its parts.

A config of this project is mmengine's with one more section:

    experiment = dict(
        data_root='data/prepared/bcv',   # a prepared dataset; gives classes, channels, ranges
        source='weights/....pth',        # 2D checkpoint, `timm` for the encoder's own, or None for random weights
        inflation='centering', slices=5, stride=1, target='center',
        lifting='kernel',                # how depth enters the blocks (mmseg_plugins/lifting)
        tuning='full',                   # which of the source's weights are trained (mmseg_plugins/tuning.py)
        img_size=512, steps=25000,       # left out or None: the dataset's
        batch=16, accumulate=1, lr=3e-5, warmup=20, seed=1234,
        split='train', evaluate=None, val_interval=None, checkpoint_interval=1000,
        train_percent=100,               # of the patients of `split`; 25 are among 50 (datasets/splits.py)
        power=1,                         # of the rate's decay to 0: 1 is linear; or 'cosine' (schedule.py)
        neighbour_lr=1,                  # factor of the rate of the kernel's neighbour slices (schedule.py)
        protocol='sound',                # intensity rule: `sound` or `paper` (datasets/intensity.py)
        encoder=None)                    # or any timm model with a patch embedding, in the config's place: as an
                                         # option it starts at random, unless a source is given with it

A network that takes volumes (models/volume_segmentor.py) has in the place of inflation, slices, stride, target,
img_size and encoder

        crop=(64, 128, 128),             # voxels that it takes at a time: slices, height, width
        spacing=(2.0, 1.5, 1.5))         # mm of a voxel that volumes are resampled to; None: as they are

and how it is computed (acceleration.py): `precision`, `inference_precision`, `activation_checkpointing`,
`compile`, `channels_last`, so that `--cfg-options experiment.slices=11` is one edit, not six. `load_config` fills
the parts in; what it fills in cannot be set otherwise (keys.py).
"""

import copy
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from . import compat
from .acceleration import prepare_acceleration
from .arguments import check_arguments, check_options
from .checkpoints import check_source_file
from .commands import REPO
from .datasets import layout_images, photographs
from .datasets.catalogue import CATALOGUE, DatasetInfo
from .datasets.splits import name_share, split_cases
from .datasets.store import read_index
from .errors import UserError, nearest
from .inflation import trained_form
from .keys import PLACEHOLDERS, check_experiment, check_place, decided_by, sides, unusual
from .models.encoders import is_inflated, timm_encoder
from .models.volume_segmentor import fill_network
from .progress import Progress
from .sources import OWN, TIMM, fetch_source, name_own_weights

MISSING = object()
LAUNCH = 3600  # seconds for another process of the same launch, which fetches a source


def load_config(path: str | Path, options: dict | None = None, world_size: int = 1, index: dict | None = None
                ) -> Config:
    """Read a config, apply `--cfg-options`, and carry its experiment into model, data and schedule.

    Args:
        index: of the dataset, where that is not prepared here (carried.py); None: it is read.

    Raises:
        UserError: file missing, misspelt experiment key, dataset not prepared, batch not divisible.
    """
    cfg = read_config(path, options, index)
    experiment, written = cfg.experiment, dict(places(cfg))
    index = index or read_index(experiment.data_root)
    _carry_into_model(cfg, experiment, index)
    _carry_into_data(cfg, experiment, index, world_size)
    _carry_into_schedule(cfg, experiment)
    _check_kept(written, dict(places(cfg)), options or {}, path)
    return cfg


def load_model_config(path: str | Path, options: dict | None = None) -> tuple[Config, dict]:
    """A config whose model can be built without data or weights, and its dataset's index.

    Of a dataset that is not prepared the index has `labels`, `channels` and `evaluate` alone. `origin` says where
    these are from.
    """
    cfg = read_config(path, options)
    try:
        index = read_index(cfg.experiment.data_root) | dict(origin='of the prepared data')
    except UserError:
        index = _expect_index(Path(cfg.experiment.data_root).name)
    _carry_into_model(cfg, cfg.experiment, index)
    leave_source_out(cfg)
    return cfg, index


def leave_source_out(cfg: Config) -> None:
    """Let the model be built without its source: a checkpoint holds all weights, or none are needed."""
    for part in ('backbone', 'network'):
        if part in cfg.model:
            cfg.model[part].pop('source', None)


def _expect_index(name: str) -> dict:
    """What a model needs of a dataset's index before there is one."""
    if name == 'layout':
        return dict(labels=layout_images.LABELS, channels=layout_images.CHANNELS, evaluate='val',
                    origin='as it will be made')
    info = CATALOGUE.get(name, DatasetInfo)  # the class, for its defaults
    channels = photographs.CHANNELS if name == 'photographs' else len(info.channels or '1')
    return dict(labels=info.labels or ('background', 'foreground'), channels=channels,
                evaluate=info.evaluate,
                origin='of the catalogue' if info.labels else 'assumed, the data is not prepared')


def read_config(path: str | Path, options: dict | None = None, index: dict | None = None) -> Config:
    """Read a config and apply options, leaving its parts as the file has them; arguments as of `load_config`."""
    own, here = REPO / 'configs' / Path(path).name, Path('configs').absolute()
    if Path(path).absolute().parent == here and not here.exists() and own.is_file():
        path = own  # this project's, from a folder that has no configs
    if not Path(path).is_file():
        known = sorted(p.name for p in Path(path).absolute().parent.glob('*.py'))
        raise UserError(f'{path}: config not found{nearest(Path(path).name, known)}')
    try:
        cfg = copy.deepcopy(_read_once(Path(path).absolute(), Path(path).stat().st_mtime_ns))
    except Exception as error:
        raise UserError(f'{path}: not a valid config: {" ".join(str(error).split())}') from error
    if not isinstance(cfg.get('experiment'), dict):
        raise UserError(f'{path}: no `experiment` section; see mmseg_plugins/experiment.py')
    _import_named(cfg, path)
    if options:
        check_options(options, cfg, str(path))
        try:
            cfg.merge_from_dict(options)
        except Exception as error:  # mmengine's, by the kind of what stands in the way
            raise UserError(f'{path}: --cfg-options do not fit it: {" ".join(str(error).split())}') from error
        _import_named(cfg, path)
    check_experiment(cfg.experiment, str(path))
    for key in [f'{part}_{kind}' for part in ('val', 'test') for kind in ('dataloader', 'evaluator', 'cfg')]:
        cfg.setdefault(key, None)  # as mmengine has it where a config leaves them out
    cfg.setdefault('load_from', None)
    for key in ('data_root', 'source'):
        cfg.experiment[key] = cfg.experiment.get(key) and os.path.expanduser(cfg.experiment[key])
    if cfg.experiment.get('encoder'):
        cfg.experiment.encoder = cfg.experiment.encoder.removeprefix(TIMM)
        if ('experiment.encoder' in (options or ()) and 'experiment.source' not in options
                and not OWN.fullmatch(cfg.experiment.source or '')):
            cfg.experiment.source = None  # the config's is of its own encoder
    _fill_from_dataset(cfg.experiment, index)
    check_arguments(cfg, str(path))
    for place, value in places(cfg):
        if fault := check_place(place, value):
            raise UserError(f'{path}: {place}={value!r}{fault}')
    return cfg


@cache
def _read_once(path: Path, _written: int) -> Config:
    """A config as its file and those that it builds on have it; a grid of hundreds of runs has a handful."""
    return Config.fromfile(path, import_custom_modules=False)


def _fill_from_dataset(experiment: ConfigDict, index: dict | None) -> None:
    """Input size and steps, where a config leaves them out: as the data was prepared, else as in the catalogue."""
    of_datasets = {'steps': 'steps'} | ({} if experiment.get('crop') else {'img_size': 'input_size'})
    left_out = [(key, of_data) for key, of_data in of_datasets.items() if experiment.get(key) is None]
    if not left_out:
        return
    try:
        index = index or read_index(experiment.data_root)
    except UserError:  # who needs the data reads it again, and says so
        index = {}
    info = CATALOGUE.get(Path(experiment.data_root).name, DatasetInfo)
    for key, of_data in left_out:
        experiment[key] = index.get(of_data, getattr(info, of_data))


def _import_named(cfg: Config, path: str | Path) -> None:
    own = cfg.get('custom_imports')
    modules = own.get('imports') or () if isinstance(own, dict) else ()
    import_extensions([modules] if isinstance(modules, str) else modules, path)


def import_extensions(modules: Sequence[str], named_by: str | Path) -> None:
    """Import a user's own modules (an inflation method, an encoder); the working directory is searched too.

    Raises:
        UserError: names the file that asked for the module.
    """
    if modules and '' not in sys.path:
        sys.path.append('')
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(f'{named_by}: imports {module!r}: {error}; run from the folder that holds it'
                            ) from error
        except (Exception, SystemExit) as error:  # whatever a user's module does when it is imported
            raise UserError(f'{named_by}: imports {module!r}, which fails: {type(error).__name__}: {error}'
                            ) from error


def check_start(cfg: Config, world_size: int) -> str:
    """Check what a training run needs before any process is started; says what will be trained.

    A source `timm` becomes the file of the encoder's own weights, which is fetched if need be.

    Raises:
        UserError: the source checkpoint is not there, or `timm`'s own cannot be fetched.
    """
    experiment, train = cfg.experiment, cfg.train_dataloader
    if experiment.source:
        start = cfg.model.get('backbone') or cfg.model.network
        encoder = experiment.get('encoder') or start.get('model', 'the config')
        if own := name_own_weights(experiment.source, encoder):
            with Progress(stderr=True) as progress:
                found = fetch_source(own, Path('weights'), progress, patience=LAUNCH)
            experiment.source = start.source = str(found)
        check_source_file(experiment.source)
    index = read_index(experiment.data_root)
    trained, evaluated = check_splits(cfg, index)
    if cfg.val_dataloader:
        seen = find_trained(experiment, index)
        evaluated = f', evaluated on {evaluated}' + (f' ({len(seen)} of which are trained on)' if seen else '')
    else:
        evaluated = ', without labels'
    what, size, inflation = 'crops', describe_crops(experiment), ''
    if not size:
        before, behind = experiment.slices // 2, (experiment.slices - 1) // 2
        uneven = f' ({before} before the centre slice, {behind} behind it)' if before != behind else ''
        what, size = 'windows', f'{experiment.slices} slices{uneven}, stride {experiment.stride}'
        inflation = f'inflation {experiment.inflation}, '
        inflation += ''.join(f'{key} {experiment[key]}, ' for key in ('lifting', 'tuning')
                             if unusual(experiment, key))
    inference = unusual(experiment, 'inference_precision')
    return (f'{experiment.steps} steps of {experiment.batch} {what} ({world_size} processes x '
            f'{train.batch_size // experiment.accumulate} {what} x {experiment.accumulate} accumulated) on '
            f'{trained} cases of {index["dataset"]}{evaluated}; {size}, '
            f'source {experiment.source or "none (random weights)"}, {inflation}'
            f'{experiment.get("precision") or "fp32"}' + (f', inference in {inference}' if inference else ''))


def describe_crops(experiment: ConfigDict) -> str:
    """In words what a network that takes volumes takes at a time; '' for one of windows."""
    crop, spacing = experiment.get('crop'), experiment.get('spacing')
    if not crop:
        return ''
    size = f'crops of {" x ".join(map(str, crop))} voxels'
    return size + (f' of {" x ".join(f"{side:g}" for side in spacing)} mm' if spacing else '')


def training_split(experiment: ConfigDict) -> str:
    """What is trained on: the split, or the share of its patients that `train_percent` says."""
    return name_share(experiment.split, experiment.get('train_percent') or 100)


def find_trained(experiment: ConfigDict, index: dict, split: str | None = None) -> list[str]:
    """The cases of a split, or of what a config is evaluated on, that its training sees.

    Empty where the dataset has no such split as was trained on: then it is another's model.
    """
    try:
        trained = {*split_cases(index, training_split(experiment))}
    except UserError:
        return []
    return [case for case in split_cases(index, split or experiment.get('evaluate') or index['evaluate'])
            if case in trained]


def check_splits(cfg: Config, index: dict) -> tuple[int, int]:
    """How many cases a config trains and is evaluated on (0 where it is not).

    Raises:
        UserError: a split of the prepared dataset that it names is not there, or empty.
    """
    experiment = cfg.experiment
    splits = dict(split=training_split(experiment))
    if cfg.val_dataloader:
        splits['evaluate'] = experiment.get('evaluate') or index['evaluate']
    counts = []
    for key, split in splits.items():
        counts.append(len(split_cases(index, split, f'experiment.{key}')))
        if not counts[-1]:
            raise UserError(f'{experiment.data_root}: split {split!r} (experiment.{key}) has no cases; prepare '
                            'more of them')
    trained, evaluated = (*counts, 0)[:2]
    return trained, evaluated


def places(value: Any, place: str = '') -> Iterator[tuple[str, Any]]:
    """Every value of a config and where it stands, as `train_cfg.max_iters`; a number is a place in a list."""
    inner = value.items() if isinstance(value, dict | Config) else enumerate(value)
    for key, entry in inner:
        at = f'{place}.{key}'.lstrip('.')
        if isinstance(entry, dict) or isinstance(entry, list | tuple) and any(isinstance(e, dict) for e in entry):
            yield from places(entry, at)
        else:
            yield at, entry


def _check_kept(written: dict, filled: dict, options: dict, path: str | Path) -> None:
    """What the user has written, file and options, is what the config holds in the end.

    Raises:
        UserError: `experiment` has put something else in its place.
    """
    for place, value in written.items():
        key = decided_by(place)
        if key and filled.get(place, MISSING) != value and PLACEHOLDERS.get(place, MISSING) != value:
            raise UserError(f'{path}: {place}={value!r}, but experiment.{key} decides it; set that instead')
    for option in options:
        inside = [place for place in written if f'{place}.'.startswith(f'{option}.')]
        if any(filled.get(place, MISSING) != written[place] for place in inside):
            raise UserError(f'{path}: --cfg-options {option}: experiment.encoder puts another model in its place; '
                            'leave one of the two out')


def _carry_into_model(cfg: Config, experiment: ConfigDict, index: dict) -> None:
    model = cfg.model
    if ('network' in model) != bool(experiment.get('crop')):
        raise UserError(f'{cfg.filename}: model.network takes experiment.crop; a config has both, or neither')
    if 'network' in model:
        model.crop = experiment.crop
        fill_network(model.network, in_channels=index['channels'], out_channels=len(index['labels']),
                     crop=experiment.crop, source=experiment.source)
        _carry_computation(experiment, model)
        return
    slices = experiment.slices
    if 'decode_head' in model:
        beside = model.get('auxiliary_head') or []
        beside = beside if isinstance(beside, list) else [beside]
        if experiment.get('encoder'):
            try:
                parts = timm_encoder(experiment.encoder, experiment.img_size, model)
            except UserError as error:
                raise UserError(f'experiment.encoder: {error}') from None
            for part, settings in parts.items():
                model[part] = settings  # mmengine's own `update` would merge the config's sizes in
            for head in beside:
                _check_widths(head, model.decode_head.in_channels, experiment.encoder)
        model.slices, model.target = slices, experiment.target
        for head in (model.decode_head, *beside):
            head.num_classes = len(index['labels'])
    elif experiment.get('encoder'):
        raise UserError('experiment.encoder is for segmentors; for pre-training without labels set '
                        'model.backbone.model')
    else:  # a pre-training objective without labels, whose own schedules span the steps
        model.steps, model.accumulate = experiment.steps, experiment.accumulate
        form = experiment.inflation if trained_form(experiment.inflation) else None
        for key, value, why in (
                ('tuning', unusual(experiment, 'tuning'), 'trains all weights of its encoder'),
                ('lifting', unusual(experiment, 'lifting'), 'sees one slice'),
                ('inflation', form, 'trains the kernel itself'),
                ('inference_precision', unusual(experiment, 'inference_precision'), 'predicts nothing')):
            if value is not None:
                raise UserError(f'experiment.{key}={value}: an objective without labels {why}; leave it out')
    model.backbone.update(slices=slices, channels=index['channels'], inflation=experiment.inflation,
                          source=experiment.source, img_size=experiment.img_size)
    for key in ('lifting', 'tuning'):
        model.backbone.pop(key, None)
        if (value := unusual(experiment, key)) is not None:
            if not is_inflated(model.backbone):
                raise UserError(f'experiment.{key}={value}: {model.backbone.type} is no encoder that it can be '
                                'given to; leave it out')
            model.backbone[key] = value
    _carry_computation(experiment, model)


def _check_widths(head: ConfigDict, widths: Sequence[int], encoder: str) -> None:
    """Refuse an auxiliary head that was made for other maps than the encoder's, of these widths."""
    taken = head.get('in_index', -1)
    given = [widths[i] for i in taken] if isinstance(taken, list | tuple) else widths[taken]
    if given != head.in_channels:
        raise UserError(f'experiment.encoder={encoder!r} gives model.auxiliary_head {given} channels, and its '
                        f'in_channels is {head.in_channels}; correct that, or leave one of the two out')


def _carry_computation(experiment: ConfigDict, model: ConfigDict) -> None:
    """Hand how it is computed (acceleration.py) to the parts of the model that know of it."""
    if (chosen := experiment.get('activation_checkpointing')) is not None:
        model.backbone.with_cp = chosen
    for key in ('compile', 'channels_last', 'inference_precision'):
        model.pop(key, None)
        if (value := unusual(experiment, key)) is not None:
            model[key] = value


def _carry_into_data(cfg: Config, experiment: ConfigDict, index: dict, world_size: int) -> None:
    if experiment.batch % (world_size * experiment.accumulate):
        raise UserError(f'batch {experiment.batch} does not divide over {world_size} processes x '
                        f'{experiment.accumulate} accumulated steps; choose others')
    cfg.train_dataloader.batch_size = experiment.batch // world_size
    evaluate = experiment.get('evaluate') or index['evaluate']
    for name, split in (('train', training_split(experiment)), ('val', evaluate), ('test', evaluate)):
        if cfg[f'{name}_dataloader'] is None:  # nothing to evaluate without labels
            continue
        dataset = cfg[f'{name}_dataloader'].dataset
        dataset.update(data_root=experiment.data_root, split=split, protocol=experiment.protocol,
                       clip=cfg.model.data_preprocessor.get('clip'))
        if crop := experiment.get('crop'):
            dataset.update(crop=crop, spacing=experiment.get('spacing'))
            size = crop[1:]
        else:
            dataset.update(slices=experiment.slices, stride=experiment.stride, target=experiment.target)
            size = experiment.img_size
        for transform in dataset.pipeline:
            if transform.type in ('ResizeWindow', 'RandomZoomCrop'):
                transform.size = sides(size)
        loader = cfg[f'{name}_dataloader']
        loader.get('sampler', {}).pop('seed', None)  # it is the experiment's
        for key, least in (('num_workers', 0), ('batch_size', 1)):
            value = loader.setdefault(key, least)  # which is torch's own
            if type(value) is not int or value < least:
                raise UserError(f'{name}_dataloader.{key}={value!r} must be a whole number, at least {least}')
        if name != 'train' and experiment.get('crop') and loader.batch_size > 1:
            raise UserError(f'{name}_dataloader.batch_size={loader.batch_size}: volumes have sizes of their own, '
                            'and are predicted one at a time; take 1, and as many crops as fit by model.crops')
        loader.setdefault('persistent_workers', loader.num_workers > 0)
    for name in ('val_evaluator', 'test_evaluator'):
        evaluators = cfg[name] if isinstance(cfg[name], list | tuple) else [cfg[name]]
        for evaluator in filter(None, evaluators[:1]):  # the first is the one that records are made of
            evaluator.headline = index['headline']


def _carry_into_schedule(cfg: Config, experiment: ConfigDict) -> None:
    steps = experiment.steps
    if (kind := cfg.train_cfg.get('type')) != 'StepLoop':
        raise UserError(f'train_cfg.type={kind!r}: training is by StepLoop alone, whose steps are '
                        'experiment.steps')
    if cfg.get('auto_scale_lr'):
        raise UserError('auto_scale_lr: the rate is experiment.lr, whatever the number of processes; leave it out')
    if (kind := cfg.optim_wrapper.get('type')) == 'AmpOptimWrapper' or (
            kind == 'AutocastOptimWrapper' and experiment.get('precision') != 'bf16'):
        raise UserError(f'optim_wrapper.type={kind}: set experiment.precision to bf16 or fp16 instead')
    cfg.optim_wrapper.optimizer.lr = experiment.lr
    cfg.optim_wrapper.accumulative_counts = experiment.accumulate
    cfg.param_scheduler = dict(type='WarmupPolyLR', end=steps, warmup=min(experiment.warmup, steps - 1),
                               power=experiment.get('power') or 1)
    cfg.train_cfg.update(max_iters=steps, val_interval=experiment.get('val_interval') or steps,
                         accumulate=experiment.accumulate)
    cfg.default_hooks.checkpoint.interval = experiment.checkpoint_interval
    cfg.default_hooks.pop('neighbour_rate', None)
    if (factor := unusual(experiment, 'neighbour_lr')) is not None and experiment.slices > 1:
        if lifting := unusual(experiment, 'lifting'):
            raise UserError(f'experiment.neighbour_lr={factor}: is for the lifting `kernel`, and not for '
                            f'{lifting}; leave one of the two out')
        if trained_form(experiment.inflation):
            raise UserError(f'experiment.neighbour_lr={factor}: inflation {experiment.inflation} does not train '
                            'the kernel; leave one of the two out')
        if not is_inflated(cfg.model.backbone):
            raise UserError(f'experiment.neighbour_lr={factor}: the patch embedding of '
                            f'{cfg.model.backbone.type} has no kernel with a centre and neighbours; leave it out')
        cfg.default_hooks.neighbour_rate = dict(type='NeighbourRate', factor=factor)
    cfg.randomness.seed = experiment.seed


def _leaves_norms_unused(model: ConfigDict) -> bool:
    """Whether of a Swin's maps, each with a norm, one alone is taken: processes would fail on the others."""
    head = model.get('decode_head') or dict(type='PooledHead')
    one = head['type'] == 'PooledHead' or type(head.get('in_index', -1)) is int and not head.get('input_transform')
    return (model.get('backbone') or {}).get('type') == 'InflatedSwin' and one


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
        cfg.setdefault('sync_bn', 'torch')
        cfg.setdefault('find_unused_parameters', _leaves_norms_unused(cfg.model))
        if not torch.cuda.is_available():
            compat.join_cpu_processes(cfg, launcher)
    prepare_acceleration(cfg, train)
