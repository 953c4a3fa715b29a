"""What a run was made by and on: the code's revision, the packages' versions, the hardware."""

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from mmseg_plugins.commands import REPO
from mmseg_plugins.parallel import available_cores

PACKAGES = ('torch', 'torchvision', 'timm', 'mmengine', 'mmsegmentation', 'numpy', 'nibabel', 'blosc2', 'monai')
# a calibration that was made here is no change of the code
CODE = ('mmseg_plugins', 'configs', 'tools', 'benchmarks', ':!benchmarks/speed/calibrations')


@cache
def provenance() -> dict:
    """Of this process: `code`, `python`, `packages` and `hardware`, as records have them."""
    return dict(
        code=dict(revision=_git('rev-parse', 'HEAD') or None,
                  modified=bool(_git('status', '--porcelain', '--', *CODE))),
        python=platform.python_version(), packages={package: version(package) for package in PACKAGES},
        hardware=dict(cpu=_cpu_name(), cores=available_cores(), threads=torch.get_num_threads(),
                      gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None))


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(['git', *arguments], cwd=REPO, capture_output=True, text=True, check=False)
    except OSError:  # as on a cluster's nodes it need not be there
        return ''
    return result.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
