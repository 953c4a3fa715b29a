"""Evaluate a checkpoint: python tools/test.py CONFIG CHECKPOINT [--out metrics.json]"""

import argparse
import json
from pathlib import Path

from mmengine.config import DictAction

from mmseg_plugins.compat import leave_processes
from mmseg_plugins.errors import UserError, run_main
from mmseg_plugins.experiment import load_config, prepare_for_device
from mmseg_plugins.faults import explain
from mmseg_plugins.files import write_atomic
from mmseg_plugins.inference import load_weights


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint at native resolution.')
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--work-dir', help='default: work_dirs/<config name>')
    parser.add_argument('--out', help='write the metrics to this JSON file')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction,
                        help='override settings, e.g. experiment.evaluate=val')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not Path(args.checkpoint).is_file():
        raise UserError(f'{args.checkpoint}: checkpoint not found; train first (tools/train.py)')
    cfg = load_config(args.config, args.cfg_options)
    prepare_for_device(cfg, args.launcher, train=False)
    cfg.model.backbone.source = None  # the checkpoint holds all weights
    cfg.work_dir = args.work_dir or str(Path('work_dirs') / Path(args.config).stem)

    from mmengine.dist import is_main_process
    from mmengine.model import is_model_wrapper
    from mmengine.runner import Runner
    runner = Runner.from_cfg(cfg)
    # not mmengine's `load_from`, which evaluates whatever weights fit and leaves the others random
    load_weights(runner.model.module if is_model_wrapper(runner.model) else runner.model, args.checkpoint)
    try:
        metrics = runner.test()
    except Exception as error:
        raise explain(error, [runner.test_dataloader]) from None
    if args.out and is_main_process():
        write_atomic(args.out, json.dumps(metrics, indent=1))
        print(args.out)
    leave_processes()


if __name__ == '__main__':
    run_main(main)
