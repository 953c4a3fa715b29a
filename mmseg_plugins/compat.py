"""The one room that knows OpenMMLab's and torch's rough edges.

Importing it makes `import mmseg` work beside mmcv-lite, makes mmengine's checkpoints resumable on
torch >= 2.6 without switching `weights_only` off, and makes mmengine's file writes atomic.
"""

import importlib.util
import sys
import types
import warnings

from .files import write_atomic

for _message, _category in (
    ('.*pkg_resources.*', Warning),  # mmcv and mmengine still import it on some versions
    ('.*torch.cuda.amp.*', FutureWarning),
    ('.*is deprecated.*', DeprecationWarning),
    ('.*pin_memory.*', UserWarning),
    ('.*lr_scheduler.step.*', UserWarning),
    ('.*On January 1, 2023, MMCV will release.*', Warning),
    ('.*`Fp16OptimWrapper`.*', Warning),
    ('.*scheduler.step.*', UserWarning),
    ('.*multi-threaded.*fork.*', DeprecationWarning),
    ('.*torch.searchsorted.*', UserWarning),  # timm's resizing of position tables
    ('.*non-tuple sequence for multidimensional indexing.*', UserWarning),
):
    warnings.filterwarnings('ignore', message=_message, category=_category)


def _import_mmcv_ops() -> None:
    """mmseg imports `mmcv.ops`, which needs compiled operators that nothing here calls.

    With mmcv-lite a stand-in for `mmcv._ext` is present only while `mmcv.ops` is first imported, so
    that `mmcv_full_available()` stays honestly false.
    """
    import mmengine  # noqa: F401  (inspects sys.modules; must be in before the stand-in is)

    if importlib.util.find_spec('mmcv') is None:
        raise ImportError("mmcv is missing: pip install 'mmcv-lite>=2.0,<2.2' "
                          "(or mmcv with its operators), never both")
    import mmcv  # noqa: F401

    if importlib.util.find_spec('mmcv._ext') is not None:
        return
    stand_in = types.ModuleType('mmcv._ext')

    def operator(name: str):
        if name.startswith('__'):
            raise AttributeError(name)
        return lambda *args, **kwargs: None

    stand_in.__getattr__ = operator
    sys.modules['mmcv._ext'] = stand_in
    try:
        import mmcv.ops  # noqa: F401
    finally:
        del sys.modules['mmcv._ext']


def _allow_mmengine_checkpoints() -> None:
    """Allow-list the classes that mmengine 0.10 stores beside tensors, and nothing else."""
    import numpy as np
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer

    core = getattr(np, '_core', None) or np.core
    torch.serialization.add_safe_globals([
        HistoryBuffer, np.ndarray, np.dtype, core.multiarray.scalar, core.multiarray._reconstruct,
        getattr,  # HistoryBuffer's __setstate__ looks its own statistics methods up by name
        *(type(np.dtype(kind)) for kind in ('f4', 'f8', 'i4', 'i8', '?')),
    ])


def _write_mmengine_files_atomically() -> None:
    """mmengine writes checkpoints in place; a kill in the middle would leave a torn file."""
    from mmengine.fileio.backends import LocalBackend

    LocalBackend.put = lambda self, obj, filepath: write_atomic(filepath, obj)


def _skip_environment_dump() -> None:
    """mmengine starts compilers to describe each run's machine: 1 to 2 s that records have no use for."""
    from mmengine.runner import Runner

    def _log_env(self, env_cfg):
        if self.cfg._cfg_dict:
            self.logger.info(f'Config:\n{self.cfg.pretty_text}')

    Runner._log_env = _log_env


_import_mmcv_ops()
_allow_mmengine_checkpoints()
_write_mmengine_files_atomically()
_skip_environment_dump()
