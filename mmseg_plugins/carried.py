"""What a checkpoint carries beside its weights, so that it is enough to predict with: its config and data's index.

It is read as data: plain containers, from which a model is built of this project's classes, torch's and a few of
OpenMMLab's. Constructors of others read files or import modules that a config names. No module is imported because
a checkpoint says so.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from .datasets.store import INDEX, find_class_fault
from .errors import UserError, some
from .experiment import import_extensions, places
from .keys import KEYS, check_experiment, decided_by
from .sources import describe_weights
from .untrusted import OTHERS, find_fault

# Of what `read_index` gives of a dataset: what a prediction needs, and what its user wants to know.
DATA = {key: INDEX[key] for key in ('dataset', 'labels', 'headline', 'channels', 'intensity', 'evaluate')}
DATA |= OTHERS | dict(nominal_spacing=bool, citation=str, channel_names=([str], ...), modality=(str, ...),
                      nsd_tolerance=float, input_size=(int, ...), steps=(int, ...))
PART = OTHERS | dict(type=str)
CARRIED = OTHERS | dict(config=dict(model=PART, experiment=OTHERS, pipeline=[PART]), imports=[str], data=DATA,
                        source=(OTHERS, None))
# Keys of `experiment` by which a prediction differs though the weights fit.
PREDICTED_BY = ('slices', 'stride', 'target', 'img_size', 'crop', 'spacing', 'protocol', 'inference_precision')
# Of OpenMMLab's classes, those that only compute.
OPENMMLAB = {'UPerHead', 'FCNHead', 'SegformerHead', 'PSPHead', 'ASPPHead', 'DepthwiseSeparableASPPHead',
             'SETRUPHead', 'SETRMLAHead', 'FPNHead', 'Feature2Pyramid', 'MultiLevelNeck', 'MLANeck', 'FPN'}
HARMLESS = dict(type='BatchDiceLoss')  # a prediction needs no loss, and some read files


def carry(cfg: Config, index: dict) -> dict:
    """What to keep in a checkpoint of a training, in plain containers.

    Args:
        cfg: carried through by `load_config`.
        index: the prepared dataset's.
    """
    imports = cfg.get('custom_imports') or {}
    named, source = imports.get('imports') or (), cfg.experiment.source
    named = [named] if isinstance(named, str) else named
    experiment = _plain(cfg.experiment)
    for key in ('data_root', 'source'):  # where things lie is nobody else's business
        experiment[key] = experiment.get(key) and Path(experiment[key]).name
    return dict(
        config=dict(model=_plain_model(cfg), experiment=experiment,
                    pipeline=_plain(list(test_pipeline(cfg)))),
        imports=[name for name in named if name != __package__],
        data=_plain({key: index[key] for key in DATA if key in index}),
        source=_plain(describe_weights(Path(source))) if source and Path(source).is_file() else None)


def _plain_model(cfg: Config) -> dict:
    """Without its source, whose weights the checkpoint's have taken the place of."""
    model = _plain(cfg.model)
    for part in ('backbone', 'network'):
        model.get(part, {}).pop('source', None)
    return model


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, str | int | float) else str(value)


def read_carried(checkpoint: Any, path: Path, imports: Sequence[str] = ()) -> tuple[Config, dict]:
    """The config and the index that a checkpoint carries, as `load_config` and `read_index` give them.

    Of the config there are `model`, without its losses, `experiment` and the pipeline of `test_dataloader`.

    Args:
        checkpoint: what `path` holds.
        imports: modules that its user wants imported.

    Raises:
        UserError: it carries none, or one that cannot be built; says what to do.
    """
    import_extensions(imports, '--imports')
    carried = _find(checkpoint)
    if carried is None:
        raise UserError(f'{path}: carries no config, as checkpoints of tools/train.py do; name the config that it '
                        'was trained with before it')
    if fault := _fault(carried):
        raise UserError(f'{path}: what it carries is not as tools/train.py writes it ({fault}); name the config '
                        'that it was trained with before it')
    if foreign := [name for name in carried['imports'] if name not in imports]:
        raise UserError(f'{path}: was trained with modules of its own, {some(foreign)}; if you have and trust '
                        f'them, give --imports {" ".join(carried["imports"])}')
    config = copy.deepcopy(carried['config'])
    check_experiment(config['experiment'], str(path))
    if not {'decode_head', 'network'} & set(config['model']):
        raise UserError(f'{path}: was trained without labels, so it segments nothing; start a training from it')
    _restrict(config['model'], path, {name.split('.')[0] for name in imports})
    cfg = Config(dict(model=config['model'], experiment=config['experiment'],
                      test_dataloader=dict(dataset=dict(pipeline=config['pipeline']))),
                 cfg_text=str(path), filename=str(path))  # mmengine reads the file where it is given no text
    return cfg, carried['data']


def carried_data(checkpoint: Any) -> dict | None:
    """The index that a checkpoint carries; None: none."""
    carried = _find(checkpoint)
    return None if _fault(carried) else carried['data']


def test_pipeline(cfg: Config) -> Sequence[dict]:
    """What images of evaluation go through; of a config without it, those of training."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or cfg.train_dataloader
    return loader.dataset.pipeline


def prediction_settings(cfg: Config) -> dict:
    """What of a config determines a prediction, in plain containers."""
    settings = {key: _plain(cfg.experiment.get(key)) for key in PREDICTED_BY}
    if cfg.experiment.get('precision') == 'tf32':  # which predictions are in too
        settings['precision'] = 'tf32'
    return dict(model=_plain_model(cfg), experiment=settings, pipeline=_plain(list(test_pipeline(cfg))))


def _find(checkpoint: Any) -> Any:
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    return meta.get('carried') if isinstance(meta, dict) else None


def _fault(carried: Any) -> str | None:
    """What of it is not as `carry` makes it; None: nothing."""
    if not _is_plain(carried):
        return 'it holds more than plain containers'
    return find_fault(carried, CARRIED) or find_class_fault(carried['data'])


def _is_plain(value: Any) -> bool:
    """As JSON has it: what is looked through is then all that there is."""
    if type(value) is dict:
        return all(type(key) is str for key in value) and all(map(_is_plain, value.values()))
    if type(value) is list:
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


def _restrict(part: Any, path: Path, trusted: set[str]) -> None:
    """Take away what a prediction does not need, and refuse what may do more than compute.

    mmengine would import whatever a dotted name leads to, and call it.
    """
    if isinstance(part, list):
        for entry in part:
            _restrict(entry, path, trusted)
    if not isinstance(part, dict):
        return
    for key in ('init_cfg', 'pretrained'):
        part.pop(key, None)
    if 'loss_decode' in part:
        part['loss_decode'] = dict(HARMLESS)
    if 'type' in part and part != HARMLESS:
        _check_type(part['type'], path, trusted)
    if isinstance(sizes := part.get('sizes'), dict):  # go to timm's constructors, which take files' names too
        if odd := next((key for key, value in sizes.items() if not _are_numbers(value)), None):
            raise UserError(f'{path}: its model has sizes.{odd}={str(sizes[odd])[:40]!r}, no number; name the '
                            'config that it was trained with before it')
    for entry in part.values():
        _restrict(entry, path, trusted)


def _are_numbers(value: Any) -> bool:
    return all(map(_are_numbers, value)) if isinstance(value, list) else isinstance(value, int | float)


def _check_type(name: Any, path: Path, trusted: set[str]) -> None:
    init_default_scope('mmseg')
    registry, known = MODELS, {}
    while registry is not None:
        registry.import_from_location()
        known = dict(registry.module_dict) | known
        registry = registry.parent
    found = known.get(name) if isinstance(name, str) else None
    home = getattr(found, '__module__', '').split('.')[0]
    if not (home in {__package__, 'torch', *trusted} or found and name in OPENMMLAB):
        what = 'which is not registered' if found is None else f'of {home}, which may do more than compute'
        raise UserError(f'{path}: its model names {str(name)[:60]!r}, {what}; name the config that it was trained '
                        'with before it')


def find_differences(cfg: Config, index: dict, checkpoint: Any) -> list[str]:
    """Where a config is not the one that a checkpoint carries: a line each, the config's value first.

    Empty where the checkpoint carries none.
    """
    carried = _find(checkpoint)
    if _fault(carried):
        return []
    theirs, mine = carried['config'], dict(model=_plain_model(cfg), experiment=_plain(cfg.experiment))

    def settings(config: dict, data: dict) -> dict[str, Any]:
        given = {key: config['experiment'].get(key) for key in (*PREDICTED_BY, 'lifting')}
        found = {f'experiment.{key}': KEYS[key].usual if value is None else value for key, value in given.items()}
        found |= {f'model.{place}': value for place, value in places(config['model'])
                  if not decided_by(f'model.{place}')}
        return found | {f'data: {key}': data.get(key) for key in ('labels', 'channel_names', 'intensity')}

    before, now = settings(theirs, carried['data']), settings(mine, _plain(index))
    return [f'{key} is {now.get(key)!r}, the checkpoint was trained with {before.get(key)!r}'
            for key in now | before if now.get(key) != before.get(key)]
