"""Parameters, FLOPs and activations of a config's model by part: python tools/flops.py CONFIG"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmseg_plugins.errors import UserError, run_main
from mmseg_plugins.experiment import load_model_config
from mmseg_plugins.flops import count_config
from mmseg_plugins.options import add_config_options


def main() -> None:
    parser = argparse.ArgumentParser(description='Count what a model costs for one window; needs no data.')
    parser.add_argument('config')
    add_config_options(parser, 'experiment.slices=1')
    args = parser.parse_args()
    cfg, index = load_model_config(args.config, args.cfg_options)
    if 'decode_head' not in cfg.model:
        raise UserError(f'{args.config}: not a segmentor, so there are no parts to count')
    experiment, size = cfg.experiment, cfg.experiment.img_size
    height, width = (size, size) if isinstance(size, int) else size
    try:
        costs = count_config(cfg)
    except (KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise UserError(f'{args.config}: the parts of `model` do not fit together: {reason}') from error
    total = sum(costs.values(), start=type(next(iter(costs.values())))(0, 0, 0))
    table = Table(box=None, header_style='bold')
    for column in ('part', 'parameters', 'FLOPs', '%', 'activations'):
        table.add_column(column, justify='left' if column == 'part' else 'right')
    encoder = sum((costs[part] for part in ('patch embedding', 'blocks')), start=type(total)(0, 0, 0))
    for part, cost in (costs | {'encoder': encoder, 'total': total}).items():
        table.add_row(part, f'{cost.parameters:,}', f'{cost.flops:,}', f'{100 * cost.flops / total.flops:.2f}',
                      f'{cost.activations:,}', style='bold' if part in ('encoder', 'total') else None)
    print(f'{Path(args.config).name}: one window of {index["channels"]} x {experiment.slices} x {height} x '
          f'{width}, {len(index["labels"])} classes {index["origin"]}; FLOPs are 2 x multiply-accumulates')
    Console(width=110, highlight=False).print(table)


if __name__ == '__main__':
    run_main(main)
