"""Evaluate a checkpoint: python tools/test.py CONFIG CHECKPOINT [--out metrics.json]"""

import argparse
from pathlib import Path

from mmseg_plugins.building import build_runner
from mmseg_plugins.carried import find_differences
from mmseg_plugins.collective import unwrapped
from mmseg_plugins.compat import leave_processes
from mmseg_plugins.datasets import read_index
from mmseg_plugins.errors import UserError, run_main, some
from mmseg_plugins.evaluation import CaseMetric
from mmseg_plugins.evaluation.score_files import write_scores
from mmseg_plugins.experiment import (
    check_splits,
    find_trained,
    leave_source_out,
    load_config,
    prepare_for_device,
)
from mmseg_plugins.faults import explain, is_out_of_memory, lack_of_memory
from mmseg_plugins.files import check_output, write_json
from mmseg_plugins.inference import load_weights
from mmseg_plugins.launch import add_launcher, check_launcher
from mmseg_plugins.options import add_config_options, path
from mmseg_plugins.safe_load import load_trained
from mmseg_plugins.work_dir import keep_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint at native resolution.')
    parser.add_argument('config', type=path)
    parser.add_argument('checkpoint', type=path)
    parser.add_argument('--work-dir', type=path, help='where its log goes (default: work_dirs/<config name>/test)')
    parser.add_argument('--out', type=path,
                        help='write figures by case and label to this file (.json), and a .csv beside it')
    parser.add_argument('--overwrite', action='store_true', help='OUT may be there already')
    add_config_options(parser, 'experiment.evaluate=val')
    add_launcher(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not args.checkpoint.is_file():
        raise UserError(f'{args.checkpoint}: checkpoint not found; train first (tools/train.py)')
    # not the training's, whose resolved config would give way to this one's
    work_dir = args.work_dir or Path('work_dirs') / args.config.stem / 'test'
    check_launcher(args.launcher, args.local_rank)
    cfg = load_config(args.config, args.cfg_options)
    if not cfg.test_dataloader:
        raise UserError(f'{args.config}: trains without labels, so there is nothing to evaluate')
    if cfg.load_from:
        raise UserError(f'load_from={cfg.load_from}: the weights are those of CHECKPOINT; leave it out')
    check_splits(cfg, read_index(cfg.experiment.data_root))
    if args.out:
        if args.out.suffix != '.json':
            raise UserError(f'{args.out}: --out must be named .json')
        for file in (args.out, args.out.with_suffix('.csv')):
            check_output(file, '--out', [args.config, args.checkpoint], args.overwrite, [cfg.experiment.data_root])
    keep_config(work_dir, args.config)
    prepare_for_device(cfg, args.launcher, train=False)
    leave_source_out(cfg)
    cfg.work_dir = str(work_dir)

    from mmengine.dist import is_main_process
    runner = build_runner(cfg, train=False)
    # not mmengine's `load_from`, which evaluates whatever weights fit and leaves the others random
    checkpoint = load_trained(args.checkpoint)
    load_weights(unwrapped(runner.model), checkpoint, args.checkpoint)
    index = read_index(cfg.experiment.data_root)
    warnings = [f'{difference}; the config counts' for difference in find_differences(cfg, index, checkpoint)]
    if seen := find_trained(cfg.experiment, index):
        warnings.append(f'{len(seen)} of the evaluated cases are trained on: {some(seen)}')
    for warning in warnings if is_main_process() else ():
        print(f'warning: {args.config.name}: {warning}')
    try:
        metrics = runner.test()
    except Exception as error:
        if is_out_of_memory(error):
            raise lack_of_memory('in the evaluation', 'test_dataloader') from error
        raise explain(error, [runner.test_dataloader]) from None
    if args.out and is_main_process():
        metric = runner.test_evaluator.metrics[0]
        if isinstance(metric, CaseMetric):
            index = runner.test_dataloader.dataset.index
            print(write_scores(args.out, metric.scores, index['labels'], index['headline']))
        else:
            write_json(args.out, dict(mean=metrics))
        print(args.out)
    leave_processes()


if __name__ == '__main__':
    run_main(main)
