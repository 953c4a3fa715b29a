"""A real Slurm of two nodes on this machine, for as long as a test needs it."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import wait_for


class Cluster:
    """Its daemons work in `folder`, with ports of their own; `environment` is what commands need to reach it."""

    def __init__(self, folder: Path):
        self.folder, self.nodes = folder, {}
        # the nodes' names are for Slurm alone
        self.environment = os.environ | {'SLURM_CONF': str(folder / 'slurm.conf'), 'MASTER_ADDR': '127.0.0.1'}
        (folder / 'state').mkdir()
        with ExitStack() as open_sockets:
            ports = []
            for _ in range(3):
                free = open_sockets.enter_context(socket.socket())
                free.bind(('127.0.0.1', 0))
                ports.append(free.getsockname()[1])
        values = dict(zip(('CONTROLLER_PORT', 'N1_PORT', 'N2_PORT'), ports, strict=True),
                      DIR=folder, HOST=socket.gethostname())
        template = (Path(__file__).parent / 'slurm.conf.in').read_text()
        (folder / 'slurm.conf').write_text(re.sub('@([A-Z0-9_]+)@', lambda found: str(values[found[1]]), template))

    def start(self) -> None:
        key = self.folder / 'munge.key'
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.folder.chmod(0o755)
        self.begin('munged', '--foreground', '--force', f'--socket={self.folder}/munge.socket',
                    f'--key-file={key}', f'--seed-file={self.folder}/munge.seed',
                    f'--pid-file={self.folder}/munge.pid',
                    f'--log-file={self.folder}/munge.log')
        wait_for((self.folder / 'munge.socket').exists, 10, 'the start of munged')
        self.begin('slurmctld', '-D')
        for node in ('n1', 'n2'):
            self.start_node(node)
        wait_for(lambda: self.ask('sinfo', '-h', '-o', '%T %D') == ['idle 2'], 30, 'the start of the nodes')

    def begin(self, *command: str, **environment: str) -> subprocess.Popen:
        """Start a command that may last."""
        return subprocess.Popen(command, env=self.environment | environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start_node(self, node: str) -> None:
        self.begin('slurmd', '-D', '-N', node, SLURMD_NODENAME=node)

    def kill_node(self, node: str) -> None:
        """As if its power had gone: daemon and jobs at once."""
        self._kill(f'SLURMD_NODENAME={node}')

    def ask(self, *command: str) -> list[str]:
        """The lines that a command of Slurm's prints."""
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return result.stdout.splitlines()

    def stop(self) -> None:
        self._kill(f'SLURM_CONF={self.folder}/slurm.conf')

    def _kill(self, variable: str) -> None:
        """All processes of this cluster that have such an environment."""
        ours = {f'SLURM_CONF={self.folder}/slurm.conf'.encode(), variable.encode()}
        for environ in Path('/proc').glob('[0-9]*/environ'):
            try:
                if ours <= set(environ.read_bytes().split(b'\0')):
                    os.kill(int(environ.parent.name), signal.SIGKILL)
            except OSError:  # it has ended
                continue


def run_cluster(folder: Path) -> Iterator[Cluster]:
    missing = [name for name in ('slurmctld', 'slurmd', 'munged', 'sbatch') if not shutil.which(name)]
    if missing or os.geteuid():
        pytest.skip(f'a Slurm of its own needs {", ".join(missing) or "root"}')
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
