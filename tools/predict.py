"""Segment a volume: python tools/predict.py CONFIG CHECKPOINT in.nii.gz ... out.nii.gz [--overlay out.png]"""

import argparse
from pathlib import Path

import numpy as np
import torch
from mmengine.config import DictAction

from mmseg_plugins.datasets import read_index
from mmseg_plugins.datasets.intensity import channel_statistics, doubt_modality
from mmseg_plugins.datasets.volumes import read_volume, write_label
from mmseg_plugins.errors import UserError, run_main
from mmseg_plugins.experiment import load_config
from mmseg_plugins.inference import load_model, predict_volume
from mmseg_plugins.terminal import counter


def main() -> None:
    parser = argparse.ArgumentParser(description='Segment a whole volume; the label map keeps its geometry.')
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('image', type=Path, nargs='+', help='one file, or one per channel')
    parser.add_argument('label', type=Path, help='label map to write (.nii or .nii.gz)')
    parser.add_argument('--overlay', type=Path, help='also draw slices with the label\'s outlines (.png)')
    parser.add_argument('--truth', type=Path, help='a reference label map, drawn beside in the overlay')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    if not str(args.label).endswith(('.nii', '.nii.gz')):
        raise UserError(f'{args.label}: the label map must be named .nii or .nii.gz')
    if not Path(args.checkpoint).is_file():
        raise UserError(f'{args.checkpoint}: checkpoint not found; train first (tools/train.py)')
    cfg = load_config(args.config, args.cfg_options)
    index = read_index(cfg.experiment.data_root)
    volume = read_volume(args.image, args.truth, index['channels'], len(index['labels']))
    for doubt in doubt_modality({str(args.image[0]): channel_statistics(volume.image)}, index.get('modality'),
                                index.get('channel_names', ())):
        print(f'warning: {doubt}')
    model = load_model(cfg, args.checkpoint, args.device)
    label = predict_volume(model, volume, cfg, index, progress=counter('slices'))
    write_label(args.label, label, volume)
    for number, name in enumerate(index['labels'][1:], 1):
        millilitres = (label == number).sum() * np.prod(volume.spacing) / 1000
        print(f'{name}: {millilitres:.2f} ml')
    print(args.label)
    if args.overlay:
        from mmseg_plugins.datasets.pictures import draw_overlay

        draw_overlay(args.overlay, volume, label, index)
        print(args.overlay)


if __name__ == '__main__':
    run_main(main)
