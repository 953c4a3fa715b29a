"""Train one config: python tools/train.py CONFIG [--work-dir DIR] [--resume] [--cfg-options k=v ...]"""

import argparse
import os
from pathlib import Path

from mmseg_plugins.building import build_runner, check_model
from mmseg_plugins.compat import leave_processes
from mmseg_plugins.errors import run_main
from mmseg_plugins.experiment import check_start, load_config, prepare_for_device
from mmseg_plugins.launch import add_launcher, check_launcher, was_restarted, world_size
from mmseg_plugins.options import add_amp, add_config_options, path
from mmseg_plugins.work_dir import PATIENCE, check_work_dir, hold_work_dir


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train one config.')
    parser.add_argument('config', type=path)
    parser.add_argument('--work-dir', type=path, help='default: work_dirs/<config name>')
    parser.add_argument('--resume', action='store_true',
                        help='go on from the last checkpoint in the work dir')
    add_config_options(parser, 'experiment.slices=11')
    add_amp(parser)
    parser.add_argument('--dry-run', action='store_true',
                        help='check config, data, model and source, say what would be trained, and leave')
    add_launcher(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not args.dry_run:
        check_launcher(args.launcher, args.local_rank)
    processes = world_size(args.launcher)
    cfg = load_config(args.config, args.cfg_options, processes)
    plan = check_start(cfg, processes)
    work_dir = args.work_dir or Path('work_dirs') / args.config.stem
    restarted = was_restarted()
    check_work_dir(work_dir, args.config, args.resume or restarted)
    if args.dry_run:
        check_model(cfg)
        print(f'{args.config}: {plan}')
        return
    prepare_for_device(cfg, args.launcher)
    cfg.work_dir, cfg.resume = str(work_dir), args.resume or restarted

    from mmengine.dist import is_main_process
    with hold_work_dir(work_dir, PATIENCE if restarted else 0, args.launcher):
        build_runner(cfg).train()
    if is_main_process():
        print(os.path.abspath(cfg.work_dir))
    leave_processes()


if __name__ == '__main__':
    run_main(main)
