"""A config's names against those that its parts take, before anything is built.

mmengine ignores what it does not know at a config's top, and gives the rest to constructors, whose TypeError
comes late and as a traceback.
"""

import ast
import difflib
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import LogProcessor, Runner
from mmseg import registry
from torch.utils.data import DataLoader

from .errors import UserError, nearest
from .keys import decided_by


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters) - {'self'}


# What mmengine's runner and its helpers take from a config's top, and what this project does.
READ = _parameters(Runner.__init__) - {'cfg'} | {
    'experiment', 'custom_imports', 'model_wrapper_cfg', 'sync_bn', 'find_unused_parameters'}
ALLOWED = READ | {'vis_backends', 'tta_model', 'tta_pipeline'}
FLAGS = {'work_dir': '--work-dir', 'resume': '--resume', 'launcher': '--launcher'}  # of the tools, which set these
CLOSE = 0.87  # of names that are one with a slip; less, and helpers as `test_pipeline` would be taken for one

# Parts without a `type`.
PLAIN = {re.compile(pattern): known for pattern, known in {
    '(train|val|test)_dataloader': _parameters(DataLoader.__init__) | {'num_batch_per_epoch'},
    'randomness': _parameters(Runner.set_randomness), 'custom_imports': {'imports', 'allow_failed_imports'},
    'log_processor': _parameters(LogProcessor.__init__) | {'type'},
    r'model\.test_cfg': {'mode', 'crop_size', 'stride'},
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'}}.items()}
PARAMWISE = {'custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult',
             'dwconv_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate'}
KNOWN_CONSTRUCTORS = (None, 'RatesBesideDecay')  # which take that; another's may be any
# Where a part stands in a config, and the registry that its `type` is from. A number is a place in a list.
PARTS = {pattern: found for found, patterns in {
    registry.MODELS: r'model(|(\.\w+)*\.(backbone|network|neck|decode_head|auxiliary_head|loss_decode'
                     r'|data_preprocessor))',
    registry.DATASETS: r'\w+_dataloader\.dataset', registry.DATA_SAMPLERS: r'\w+_dataloader\.(batch_)?sampler',
    registry.TRANSFORMS: r'\w+_dataloader\.dataset(\.\w+)*\.(pipeline|transforms)\.\d+',
    registry.OPTIM_WRAPPERS: 'optim_wrapper', registry.OPTIMIZERS: r'optim_wrapper\.optimizer',
    registry.PARAM_SCHEDULERS: r'param_scheduler(\.\d+)?', registry.LOOPS: '(train|val|test)_cfg',
    registry.HOOKS: r'default_hooks\.\w+|custom_hooks\.\d+', registry.METRICS: r'(val|test)_evaluator(\.\d+)?',
    registry.VISUALIZERS: 'visualizer', registry.VISBACKENDS: r'(visualizer\.)?vis_backends\.\d+',
    }.items() for pattern in [re.compile(patterns)]}
# Parts without which nothing can be trained, and those that may be None or several.
NEEDED = ('model', 'model.data_preprocessor', 'train_dataloader', 'train_dataloader.dataset',
          'optim_wrapper', 'optim_wrapper.optimizer', 'train_cfg', 'default_hooks', 'default_hooks.checkpoint',
          'randomness')
OPTIONAL = re.compile(r'(val|test)_(dataloader|cfg|evaluator)|model\.(neck|auxiliary_head)|visualizer'
                      r'|default_hooks\.\w+|\w+_dataloader\.batch_sampler|param_scheduler')
SEVERAL = re.compile(r'(val|test)_evaluator|model\.(\w+\.)?(auxiliary_head|loss_decode)|param_scheduler')
BUILT = (registry.MODELS, registry.DATASETS, registry.TRANSFORMS)  # which have no usual class
ALSO = {registry.OPTIM_WRAPPERS: {'optimizer', 'constructor', 'paramwise_cfg'}}


def check_options(options: Iterable[str], cfg: Config, where: str) -> None:
    """Refuse `--cfg-options` that would change nothing, which mmengine would take silently.

    Raises:
        UserError: names the option, and what to set instead.
    """
    for option in options:
        name = option.split('.')[0]
        if key := decided_by(option):
            fault = f'experiment.{key} decides it; set that instead'
        elif name in FLAGS:
            fault = f'use {FLAGS[name]}'
        elif name in READ:
            continue
        elif name in cfg:
            places = [f'{place}.{name}' for place, part in _walk(cfg.to_dict(), '') if name in part]
            fault = f'read by nothing but the file itself; set {", ".join(places) or "the parts"} instead'
        else:
            fault = f'a config has no {name!r}{nearest(name, {*cfg, *READ})}'
        raise UserError(f'{where}: --cfg-options {option}: {fault}')


def check_arguments(cfg: Config, where: str) -> None:
    """Refuse names that the parts of a config do not take.

    A constructor that gives its `**kwargs` to what is not its base class may take any.

    Raises:
        UserError: names the place and the nearest right name.
    """
    for name in cfg:
        if name not in ALLOWED and (close := difflib.get_close_matches(name, READ, 1, CLOSE)):
            raise UserError(f'{where}: {name} is read by nothing; did you mean {close[0]!r}?')
    parts = dict(_walk(cfg.to_dict(), ''))
    for place in (*NEEDED, 'model.backbone' if 'model.network' not in parts else 'model.network'):
        if place not in parts:
            raise UserError(f'{where}: {place} is missing or no dict(...); see configs/_base_')
    for place, part in {'': cfg, **parts}.items():
        for key, value in part.items():
            _check_kind(f'{place}.{key}'.lstrip('.'), value, where)
    for place in ('model', 'model.backbone', 'model.network'):
        for key in ('init_cfg', 'pretrained'):
            if parts.get(place, {}).get(key) is not None:
                raise UserError(f'{where}: {place}.{key}: weights are loaded by experiment.source (an encoder\'s) '
                                'or load_from (a whole model\'s); set that instead')
    for place, part in parts.items():
        for pattern, known in PLAIN.items():
            if pattern.fullmatch(place):
                _check(part, known, where, place)
        if place == 'optim_wrapper.paramwise_cfg' and cfg.optim_wrapper.get('constructor') in KNOWN_CONSTRUCTORS:
            _check(part, PARAMWISE, where, place)
        known = next((known for pattern, known in PARTS.items() if pattern.fullmatch(place)), None)
        if known in BUILT and 'type' not in part:
            raise UserError(f'{where}: {place} has no type; name its class')
        if known is None or 'type' not in part:
            continue
        kind = part['type'] if callable(part['type']) else _find(known, part['type'], where, place)
        accepted = kind and _accepted(kind)
        if accepted is not None:
            _check(part, accepted | ALSO.get(known, set()) | {'type', '_scope_'}, where, place)


def _check_kind(place: str, value: Any, where: str) -> None:
    if isinstance(value, dict) or not any(pattern.fullmatch(place) for pattern in (*PLAIN, *PARTS)):
        return
    several = isinstance(value, list | tuple) and all(isinstance(one, dict) for one in value)
    if not (value is None and OPTIONAL.fullmatch(place) or several and SEVERAL.fullmatch(place)):
        raise UserError(f'{where}: {place}={value!r} must be a dict(...)')


def _walk(value: Any, place: str) -> Iterator[tuple[str, dict]]:
    """Every mapping of a config and where it stands."""
    if isinstance(value, dict):
        if place:
            yield place, value
        entries = value.items()
    else:
        entries = enumerate(value) if isinstance(value, list | tuple) else ()
    for key, entry in entries:
        yield from _walk(entry, f'{place}.{key}'.lstrip('.'))


def _check(part: dict, known: set[str], where: str, place: str) -> None:
    for key in part:
        if key not in known:
            raise UserError(f'{where}: {place}.{key}: {part.get("type", place)} takes no such setting'
                            f'{nearest(key, known - {"type", "_scope_"})}')


def _find(known: Registry, name: str, where: str, place: str) -> Any:
    """The class of a name; None where another package's is asked for."""
    if not isinstance(name, str):
        raise UserError(f'{where}: {place}.type={name!r} must be the name of a class')
    if '.' in name:
        return None
    kind = known.get(name)
    if kind is None:
        names = {*known.module_dict, *(known.parent.module_dict if known.parent else ())}
        raise UserError(f'{where}: {place}.type: nothing is called {name!r}{nearest(name, names)}'[:300])
    return kind


@cache
def _accepted(kind: Any) -> frozenset[str] | None:
    """The names that a class or function takes, its base classes' too where it gives them on; None: any."""
    if not inspect.isclass(kind):
        parameters = inspect.signature(kind).parameters
        return None if _rest(parameters) else frozenset(parameters)
    names = set()
    for base in kind.__mro__:
        if '__init__' in vars(base):
            try:
                parameters = inspect.signature(base.__init__).parameters
            except (TypeError, ValueError):
                return None
            names |= set(parameters) - {'self'}
            rest = _rest(parameters)
            if not rest:
                return frozenset(names)
            if not _gives_on(base, rest):
                return None
    return None


def _rest(parameters: dict) -> str | None:
    return next((name for name, p in parameters.items() if p.kind is p.VAR_KEYWORD), None)


def _gives_on(kind: type, rest: str) -> bool:
    """Whether a constructor gives its `**kwargs` to its base class's and nowhere else."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind.__init__)))
    except (OSError, TypeError, SyntaxError):
        return False
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == rest]
    given = [call for call in ast.walk(tree) if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(
        'super().__init__') and any(k.arg is None and ast.unparse(k.value) == rest for k in call.keywords)]
    return len(uses) == len(given) == 1
