"""Small runs in child processes that start within a second: a server imports everything once and forks."""

import multiprocessing
import os
import socket
from pathlib import Path

REPO = Path(__file__).parents[2]
CONFIG = REPO / 'configs' / 'mini_beit_centering_hippocampus.py'

context = multiprocessing.get_context('forkserver')
context.set_forkserver_preload(['children', 'mmseg_plugins', 'benchmarks.runner', 'mmseg.models', 'monai.losses'])


def options(data_root: Path, **experiment) -> dict:
    values = dict(data_root=str(data_root), source=None, steps=12, warmup=2, batch=8, slices=3, evaluate='train',
                  checkpoint_interval=100) | experiment
    return {f'experiment.{key}': value for key, value in values.items()} | {
        # as in the paper, over samples: what a process's share of a batch decides cannot be compared
        'model.decode_head.loss_decode.present_only': False, 'model.decode_head.loss_decode.class_weight': None}


def train(work_dir: Path, options: dict, launcher: str = 'none', hooks=()) -> None:
    """Train a config, quietly; the losses and final metrics are in its log."""
    import torch
    from mmengine.runner import Runner

    from mmseg_plugins.errors import run_main
    from mmseg_plugins.experiment import load_config, prepare_for_device, world_size

    torch.set_num_threads(1)
    log = os.open(work_dir.with_suffix('.log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)

    def main() -> None:
        cfg = load_config(CONFIG, options, world_size() if launcher != 'none' else 1)
        prepare_for_device(cfg, launcher)
        cfg.work_dir, cfg.resume, cfg.default_hooks.logger.interval = str(work_dir), True, 1
        runner = Runner.from_cfg(cfg)
        for hook in hooks:
            runner.register_hook(hook)
        runner.train()

    run_main(main)


def start(target, *args, **kwargs) -> multiprocessing.Process:
    process = context.Process(target=target, args=args, kwargs=kwargs)
    process.start()
    return process


def start_ranks(count: int, target, *args, **kwargs) -> list[multiprocessing.Process]:
    """One process per rank, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    common = dict(WORLD_SIZE=str(count), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    return [start(_as_rank, dict(common, RANK=str(rank), LOCAL_RANK=str(rank)), target, args, kwargs)
            for rank in range(count)]


def _as_rank(environment: dict, target, args, kwargs) -> None:
    os.environ.update(environment)
    target(*args, **kwargs)
