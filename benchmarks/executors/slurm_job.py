"""What a Slurm job carries out. It imports little, so that signals are heeded from the first second on."""

import os
import pickle
import signal
import time

from submitit.helpers import Checkpointable, TorchDistributedEnvironment

GRACE = 600  # seconds for Slurm to end or requeue a job that it has told to stop


class Task(Checkpointable):
    """One `Job`, by all processes of a Slurm job. Requeued, it is the same: a run goes on from its own checkpoint.

    Args:
        job: pickled, since unpickling it imports everything.
    """

    def __init__(self, job: bytes):
        self.job = job

    def __call__(self) -> None:
        environment = TorchDistributedEnvironment()
        # some networks need another name of the first node than Slurm's
        environment.master_addr = os.environ.get('MASTER_ADDR', environment.master_addr)
        if environment.world_size > 1:
            environment.export(set_cuda_visible_devices=False, overwrite=True)

        from mmseg_plugins.compat import leave_processes
        from mmseg_plugins.errors import Stopped
        from mmseg_plugins.threads import use_threads

        use_threads(int(os.environ.get('SLURM_CPUS_PER_TASK', 1)))
        try:
            reason = pickle.loads(self.job)(lambda step, steps: None)
        except Stopped as stop:
            # The checkpoint is written. Slurm requeues a preempted job only if it has not ended by itself, and
            # submitit's handler, which the first process alone heeds, must not lose that process to another's end.
            print(f'stopped by {signal.Signals(stop.number).name}; waiting for Slurm to end or requeue this job',
                  flush=True)
            time.sleep(GRACE)
            raise
        if reason:  # srun ends the others, which wait for this process, and Slurm cancels what needs this job
            raise SystemExit(reason)
        leave_processes()
