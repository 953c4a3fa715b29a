"""Pre-train an encoder on 2D images: python tools/pretrain.py CONFIG --out weights/NAME.pth"""

import argparse
from pathlib import Path

from mmengine.config import DictAction

from mmseg_plugins.errors import run_main
from mmseg_plugins.experiment import load_config, prepare_for_device
from mmseg_plugins.pretraining import pretrain


def main() -> None:
    parser = argparse.ArgumentParser(description='Supervised 2D pre-training; writes a source checkpoint.')
    parser.add_argument('config')
    parser.add_argument('--out', type=Path, required=True, help='the source checkpoint to write')
    parser.add_argument('--work-dir', help='default: work_dirs/<config name>')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    prepare_for_device(cfg, 'none')
    cfg.work_dir = args.work_dir or str(Path('work_dirs') / Path(args.config).stem)
    pretrain(cfg, args.out)
    print(args.out)


if __name__ == '__main__':
    run_main(main)
