"""Parameters, FLOPs and activations of a config's model by part: python tools/flops.py CONFIG"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmseg_plugins.errors import UserError, run_main
from mmseg_plugins.experiment import load_model_config
from mmseg_plugins.flops import Cost, count_config, input_size
from mmseg_plugins.options import add_config_options


def main() -> None:
    parser = argparse.ArgumentParser(description='Count what a model costs for one window; needs no data.')
    parser.add_argument('config')
    add_config_options(parser, 'experiment.slices=1')
    args = parser.parse_args()
    cfg, index = load_model_config(args.config, args.cfg_options)
    if not {'decode_head', 'network'} & set(cfg.model):
        raise UserError(f'{args.config}: not a segmentor, so there are no parts to count')
    size = [cfg.experiment.get('slices'), *input_size(cfg.experiment)][-3:]
    try:
        costs = count_config(cfg)
    except (KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise UserError(f'{args.config}: the parts of `model` do not fit together: {reason}') from error
    total = sum(costs.values(), Cost())
    table = Table(box=None, header_style='bold')
    for column in ('part', 'parameters', 'FLOPs', '%', 'activations'):
        table.add_column(column, justify='left' if column == 'part' else 'right')
    encoder = [costs[part] for part in ('patch embedding', 'blocks') if part in costs]
    sums = {'encoder': sum(encoder, Cost())} if encoder else {}
    for part, cost in (costs | sums | {'total': total}).items():
        table.add_row(part, f'{cost.parameters:,}', f'{cost.flops:,}', f'{100 * cost.flops / total.flops:.2f}',
                      f'{cost.activations:,}', style='bold' if part in ('encoder', 'total') else None)
    what = 'crop' if cfg.experiment.get('crop') else 'window'
    print(f'{Path(args.config).name}: one {what} of {" x ".join(map(str, (index["channels"], *size)))}, '
          f'{len(index["labels"])} classes {index["origin"]}; FLOPs are 2 x multiply-accumulates')
    Console(width=110, highlight=False).print(table)


if __name__ == '__main__':
    run_main(main)
