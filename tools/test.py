"""Evaluate a checkpoint: python tools/test.py CONFIG CHECKPOINT [--out metrics.json]"""

import argparse
from pathlib import Path

from mmseg_plugins.building import build_runner
from mmseg_plugins.compat import leave_processes
from mmseg_plugins.datasets import read_index
from mmseg_plugins.errors import UserError, run_main
from mmseg_plugins.experiment import check_splits, load_config, prepare_for_device
from mmseg_plugins.faults import explain
from mmseg_plugins.files import write_json
from mmseg_plugins.inference import load_weights
from mmseg_plugins.launch import add_launcher, check_launcher
from mmseg_plugins.options import add_config_options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint at native resolution.')
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--work-dir', help='where its log goes (default: work_dirs/<config name>/test)')
    parser.add_argument('--out', help='write the metrics to this JSON file')
    add_config_options(parser, 'experiment.evaluate=val')
    add_launcher(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not Path(args.checkpoint).is_file():
        raise UserError(f'{args.checkpoint}: checkpoint not found; train first (tools/train.py)')
    check_launcher(args.launcher, args.local_rank)
    cfg = load_config(args.config, args.cfg_options)
    if not cfg.test_dataloader:
        raise UserError(f'{args.config}: trains without labels, so there is nothing to evaluate')
    if cfg.load_from:
        raise UserError(f'load_from={cfg.load_from}: the weights are those of CHECKPOINT; leave it out')
    check_splits(cfg, read_index(cfg.experiment.data_root))
    prepare_for_device(cfg, args.launcher, train=False)
    cfg.model.backbone.source = None  # the checkpoint holds all weights
    # mmengine leaves the config there too, which must not take the place of the training's
    cfg.work_dir = args.work_dir or str(Path('work_dirs') / Path(args.config).stem / 'test')

    from mmengine.dist import is_main_process
    from mmengine.model import is_model_wrapper
    runner = build_runner(cfg, train=False)
    # not mmengine's `load_from`, which evaluates whatever weights fit and leaves the others random
    load_weights(runner.model.module if is_model_wrapper(runner.model) else runner.model, args.checkpoint)
    try:
        metrics = runner.test()
    except Exception as error:
        raise explain(error, [runner.test_dataloader]) from None
    if args.out and is_main_process():
        write_json(args.out, metrics)
        print(args.out)
    leave_processes()


if __name__ == '__main__':
    run_main(main)
