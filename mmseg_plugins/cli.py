"""The scripts as commands of the installed package: `inflate-train` is tools/train.py, and so on (setup.cfg)."""

import os
import runpy
import sys
from collections.abc import Callable

from .commands import REPO

SCRIPTS = {name: f'tools/{file}' for name, file in dict(
    train='train.py', test='test.py', predict='predict.py', export='export.py', verify_data='verify_data.py',
    prepare_data='prepare_data.py', sources='sources.py', pretrain='pretrain.py', weights='inflate.py',
    score='score.py', flops='flops.py', dist_train='dist_train.sh', dist_test='dist_test.sh').items()}
SCRIPTS |= dict(grid='benchmarks/run_grid.py', report='benchmarks/report.py')


def __getattr__(name: str) -> Callable[[], None]:
    if name not in SCRIPTS:
        raise AttributeError(name)
    script = str(REPO / SCRIPTS[name])

    def run() -> None:
        sys.argv[0] = script
        if script.endswith('.sh'):
            os.execvp('bash', ['bash', *sys.argv])
        runpy.run_path(script, run_name='__main__')
    return run
