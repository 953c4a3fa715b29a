"""What a checkpoint carries beside its weights, so that it is enough to predict with: its config and data's index.

It is read as data. No module is imported because a checkpoint names it, and no class is built that is not one of
this project's, OpenMMLab's or an imported module's.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from .datasets.store import INDEX
from .errors import UserError, nearest, some
from .experiment import import_extensions, places
from .keys import check_experiment, decided_by
from .sources import describe_weights
from .untrusted import OTHERS, find_fault

# Of a prepared dataset's index: what a prediction needs, and what its user wants to know.
DATA = {key: INDEX[key] for key in ('dataset', 'labels', 'headline', 'channels', 'intensity', 'nominal_spacing',
                                    'citation', 'evaluate')}
DATA |= dict(channel_names=([str], ...), modality=(str, ...), nsd_tolerance=float, input_size=(int, ...),
             steps=(int, ...))
CARRIED = dict(config=dict(model=OTHERS, experiment=OTHERS, pipeline=[OTHERS]), imports=[str], data=DATA,
               source=(OTHERS, None))
# Keys of `experiment` by which a prediction differs though the weights fit.
PREDICTED_BY = ('slices', 'stride', 'target', 'img_size', 'crop', 'spacing', 'protocol')


def carry(cfg: Config, index: dict) -> dict:
    """What to keep in a checkpoint of a training, in plain containers.

    Args:
        cfg: carried through by `load_config`.
        index: the prepared dataset's.
    """
    imports, loader = cfg.get('custom_imports') or {}, cfg.get('test_dataloader') or cfg.train_dataloader
    named, source = imports.get('imports') or (), cfg.experiment.source
    named = [named] if isinstance(named, str) else named
    model, experiment = _plain(cfg.model), _plain(cfg.experiment)
    for part in ('backbone', 'network'):
        model.get(part, {}).pop('source', None)
    for key in ('data_root', 'source'):  # where things lie is nobody else's business
        experiment[key] = experiment.get(key) and Path(experiment[key]).name
    return dict(
        config=dict(model=model, experiment=experiment, pipeline=_plain(list(loader.dataset.pipeline))),
        imports=[name for name in named if name != __package__],
        data=_plain({key: index[key] for key in DATA if key in index}),
        source=_plain(describe_weights(Path(source))) if source and Path(source).is_file() else None)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, str | int | float) else str(value)


def read_carried(checkpoint: Any, path: Path, imports: tuple[str, ...] = ()) -> tuple[Config, dict]:
    """The config and the index that a checkpoint carries, as `load_config` and `read_index` give them.

    Of the config there are `model`, `experiment` and the pipeline of `test_dataloader`.

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
    if foreign := [name for name in carried['imports'] if name not in imports]:
        raise UserError(f'{path}: was trained with modules of its own, {some(foreign)}; if you have and trust '
                        f'them, give --imports {" ".join(carried["imports"])}')
    config, data = carried['config'], carried['data']
    check_experiment(config['experiment'], str(path))
    _check_types(config['model'], path)
    if not {'decode_head', 'network'} & set(config['model']):
        raise UserError(f'{path}: was trained without labels, so it segments nothing; start a training from it')
    cfg = Config(dict(model=config['model'], experiment=config['experiment'],
                      test_dataloader=dict(dataset=dict(pipeline=config['pipeline']))),
                 cfg_text=str(path), filename=str(path))  # mmengine reads the file where it is given no text
    return cfg, data


def carried_data(checkpoint: Any) -> dict | None:
    """The index that a checkpoint carries; None: none."""
    carried = _find(checkpoint)
    return carried and carried['data']


def _find(checkpoint: Any) -> dict | None:
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    carried = meta.get('carried') if isinstance(meta, dict) else None
    return None if find_fault(carried, CARRIED) else carried


def _check_types(model: dict, path: Path) -> None:
    """mmengine would import whatever a dotted name leads to, and call it."""
    init_default_scope('mmseg')
    known: set[str] = set()
    registry = MODELS
    while registry is not None:
        registry.import_from_location()
        known |= set(registry.module_dict)
        registry = registry.parent
    for name in _types(model):
        if not isinstance(name, str) or name not in known:
            raise UserError(f'{path}: its model names {str(name)[:60]!r}, which is not registered'
                            f'{nearest(name, known) if isinstance(name, str) and "." not in name else ""}; '
                            'name its config before it')


def _types(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        if 'type' in value:
            yield value['type']
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from _types(entry)


def find_differences(cfg: Config, index: dict, checkpoint: Any) -> list[str]:
    """Where a config is not the one that a checkpoint carries: a line each, the config's value first.

    Empty where the checkpoint carries none.
    """
    carried = _find(checkpoint)
    if carried is None:
        return []
    theirs, mine = carried['config'], _plain(dict(model=cfg.model, experiment=cfg.experiment))
    mine['model'].get('backbone', mine['model'].get('network', {})).pop('source', None)

    def settings(config: dict, data: dict) -> dict[str, Any]:
        found = {f'experiment.{key}': config['experiment'].get(key) for key in PREDICTED_BY}
        found |= {f'model.{place}': value for place, value in places(config['model'])
                  if not decided_by(f'model.{place}')}
        return found | {f'data: {key}': data.get(key) for key in ('labels', 'channel_names', 'intensity')}

    before, now = settings(theirs, carried['data']), settings(mine, _plain(index))
    return [f'{key} is {now.get(key)!r}, the checkpoint was trained with {before.get(key)!r}'
            for key in now | before if now.get(key) != before.get(key)]
