"""Segment a volume: python tools/predict.py CONFIG CHECKPOINT in.nii.gz ... out.nii.gz [--overlay out.png]"""

import argparse
from itertools import combinations

import numpy as np
import torch

from mmseg_plugins.datasets import read_index
from mmseg_plugins.datasets.intensity import channel_statistics, doubt_modality
from mmseg_plugins.datasets.volumes import read_volume, write_label
from mmseg_plugins.errors import UserError, run_main
from mmseg_plugins.experiment import load_config
from mmseg_plugins.files import check_output, is_same_file
from mmseg_plugins.inference import load_model, predict_volume
from mmseg_plugins.options import add_config_options, path
from mmseg_plugins.progress import counting


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Segment a whole volume; the label map keeps its geometry.')
    parser.add_argument('config', type=path)
    parser.add_argument('checkpoint', type=path)
    parser.add_argument('image', type=path, nargs='+', help='one file, or one per channel')
    parser.add_argument('label', type=path, help='label map to write (.nii or .nii.gz)')
    parser.add_argument('--overlay', type=path, help='also draw slices with the label\'s outlines (.png)')
    parser.add_argument('--truth', type=path, help='a reference label map, drawn beside in the overlay')
    parser.add_argument('--overwrite', action='store_true', help='LABEL and the overlay may be there already')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    add_config_options(parser, 'experiment.target=all')
    return parser.parse_args()


def check_files(args: argparse.Namespace) -> None:
    """What can be said of the files before any of them is read.

    Raises:
        UserError: the first that is missing, or that must not or cannot be written.
    """
    if not args.checkpoint.is_file():
        raise UserError(f'{args.checkpoint}: checkpoint not found; train first (tools/train.py)')
    if args.truth and not args.overlay:
        raise UserError(f'--truth {args.truth}: is drawn in the overlay alone; name one with --overlay')
    for first, second in combinations(args.image, 2):
        if is_same_file(first, second):
            raise UserError(f'{second}: named twice; name one file per channel')
    inputs = [args.config, args.checkpoint, *args.image, *([args.truth] if args.truth else [])]
    for output, what, ends in ((args.label, 'the label map (the last of the files named)', ('.nii', '.nii.gz')),
                               (args.overlay, 'the overlay', ('.png',))):
        if output:
            if not output.name.endswith(ends):
                raise UserError(f'{output}: {what} must be named {" or ".join(ends)}')
            check_output(output, what, inputs, args.overwrite)


def main() -> None:
    args = parse_args()
    check_files(args)
    cfg = load_config(args.config, args.cfg_options)
    index = read_index(cfg.experiment.data_root)
    if len(args.image) not in (1, index['channels']):
        raise UserError(f'{args.image[1]}: one of {len(args.image)} images, but {index["dataset"]} has '
                        f'{index["channels"]} channel{"s" * (index["channels"] > 1)}; name the image of one '
                        'patient, or a file per channel, then the label map')
    volume = read_volume(args.image, args.truth, index['channels'], len(index['labels']))
    for note in volume.notes:
        print(f'warning: {args.image[0]}: {note}')
    for doubt in doubt_modality({str(args.image[0]): channel_statistics(volume.image)}, index.get('modality'),
                                index.get('channel_names', ())):
        print(f'warning: {doubt}')
    model = load_model(cfg, args.checkpoint, args.device)
    with counting('slices') as count:
        label = predict_volume(model, volume, cfg, index, progress=count)
    write_label(args.label, label, volume)
    for number, name in enumerate(index['labels'][1:], 1):
        voxels = np.count_nonzero(label == number)
        print(f'{name}: ' + (f'{voxels:,} voxels' if index['nominal_spacing'] else
                             f'{voxels * np.prod(volume.spacing) / 1000:.2f} ml'))
    if index['nominal_spacing']:
        print(f'(voxel sizes of {index["dataset"]} are nominal, so volumes are in voxels)')
    print(args.label)
    if args.overlay:
        from mmseg_plugins.datasets.pictures import draw_overlay

        draw_overlay(args.overlay, volume, label, index)
        print(args.overlay)


if __name__ == '__main__':
    run_main(main)
