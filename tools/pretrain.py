"""Pre-train an encoder on 2D images or slices: python tools/pretrain.py CONFIG --out weights/NAME.pth

The config's model is the objective: DINO, a segmentor (supervised), or one of your own
(mmseg_plugins/models/objective.py). Several processes, on GPUs or CPUs:

    torchrun --standalone --nproc_per_node N tools/pretrain.py CONFIG --out weights/NAME.pth --launcher pytorch
"""

import argparse
from pathlib import Path

from mmseg_plugins.building import check_model
from mmseg_plugins.compat import leave_processes
from mmseg_plugins.errors import run_main
from mmseg_plugins.experiment import check_start, load_config, prepare_for_device
from mmseg_plugins.files import check_output
from mmseg_plugins.launch import add_launcher, check_launcher, was_restarted, world_size
from mmseg_plugins.options import add_amp, add_config_options, path
from mmseg_plugins.pretraining import check_pretraining, pretrain
from mmseg_plugins.work_dir import PATIENCE, check_work_dir, hold_work_dir


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='2D pre-training; writes a source checkpoint.')
    parser.add_argument('config', type=path)
    parser.add_argument('--out', type=path, required=True, help='the source checkpoint to write')
    parser.add_argument('--overwrite', action='store_true', help='OUT may be there already')
    parser.add_argument('--work-dir', type=path, help='default: work_dirs/<config name>')
    parser.add_argument('--resume', action='store_true',
                        help='go on from the last checkpoint in the work dir')
    add_config_options(parser, 'experiment.steps=1000')
    add_amp(parser)
    parser.add_argument('--dry-run', action='store_true',
                        help='check config, data, model and source, say what would be trained, and leave')
    add_launcher(parser, ('none', 'pytorch'))
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_launcher(args.launcher, args.local_rank)
    processes = world_size(args.launcher)
    cfg = load_config(args.config, args.cfg_options, processes)
    plan = check_start(cfg, processes)
    work_dir = args.work_dir or Path('work_dirs') / args.config.stem
    restarted = was_restarted()
    resume = args.resume or restarted
    goes_on = check_work_dir(work_dir, args.config, resume)
    for file in (args.out, args.out.with_suffix('.json')):  # the weights, and what they were made of
        check_output(file, '--out', [args.config, cfg.experiment.source or ''], args.overwrite or goes_on)
    check_pretraining(cfg)
    if args.dry_run:
        check_model(cfg)
        print(f'{args.config}: {plan}')
        return
    prepare_for_device(cfg, args.launcher)
    cfg.work_dir, cfg.resume = str(work_dir), resume
    with hold_work_dir(work_dir, PATIENCE if restarted else 0, args.launcher):
        metrics = pretrain(cfg, args.out)

    from mmengine.dist import is_main_process
    if is_main_process():
        print(', '.join(f'{name} {value:.4g}' for name, value in metrics.items() if '/' not in name))
        print(args.out)
    leave_processes()


if __name__ == '__main__':
    run_main(main)
