"""Segment volumes with a trained checkpoint; a label map has its image's geometry.

    python tools/predict.py CHECKPOINT in.nii.gz out.nii.gz              # or a file per channel before out.nii.gz
    python tools/predict.py CHECKPOINT --input FOLDER --output FOLDER
    python tools/predict.py CHECKPOINT --dataset hippocampus --split test --output FOLDER

CHECKPOINT carries its config. A config that is named before it (CONFIG.py CHECKPOINT ...) counts in its place.
"""

import argparse
import hashlib
import json
import math
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from mmseg_plugins.carried import carried_data, find_differences, prediction_settings, read_carried
from mmseg_plugins.datasets import read_index
from mmseg_plugins.datasets.images import Image, find_images, stored_images
from mmseg_plugins.datasets.volumes import Volume, read_volume
from mmseg_plugins.errors import UserError, run_main, some
from mmseg_plugins.evaluation.score_files import summarize, write_scores
from mmseg_plugins.experiment import find_trained, load_config, read_config
from mmseg_plugins.files import check_output, file_sha256, is_same_file, only_writer
from mmseg_plugins.inference import check_device, load_model
from mmseg_plugins.options import add_config_options, path
from mmseg_plugins.progress import Progress
from mmseg_plugins.safe_load import load_trained
from mmseg_plugins.segmenting import Job, Ledger, Segmenter


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0],
                                     usage='%(prog)s [CONFIG.py] CHECKPOINT (IMAGE ... LABEL | --input FOLDER '
                                           '--output FOLDER | --dataset NAME --output FOLDER) [options]')
    parser.add_argument('files', type=path, nargs='+', metavar='FILE',
                        help='the checkpoint, a config before it where that is to count; then an image, or one '
                             'per channel, and the label map to write (.nii or .nii.gz)')
    parser.add_argument('--input', type=path, metavar='FOLDER',
                        help='segment all its images: CASE.nii.gz, or CASE_0000.nii.gz, ... a file per channel')
    parser.add_argument('--dataset', metavar='NAME', help='segment cases of a prepared dataset, and score them')
    parser.add_argument('--split', help='of --dataset (default: the one that it is evaluated on)')
    parser.add_argument('--output', type=path, metavar='FOLDER',
                        help='for CASE.nii.gz of each; what is there already is not done again')
    parser.add_argument('--overlay', type=path, metavar='PNG',
                        help='also draw slices with the label\'s outlines; for --output a folder')
    parser.add_argument('--truth', type=path, metavar='LABEL',
                        help='reference to score against, drawn in the overlay too; for --input a folder')
    parser.add_argument('--dry-run', action='store_true', help='check all but the images, and leave')
    parser.add_argument('--overwrite', action='store_true', help='label maps and overlays may be there already')
    parser.add_argument('--imports', nargs='+', default=[], metavar='MODULE',
                        help='modules that the checkpoint was trained with')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    add_config_options(parser, 'experiment.target=all')
    args = parser.parse_args()
    args.config = args.files.pop(0) if args.files[0].suffix == '.py' else None
    if not args.files:
        parser.error('name a checkpoint')
    args.checkpoint, *args.files = args.files
    args.dataset_folder = args.dataset and Path('data/prepared') / args.dataset
    return args


def check_call(args: argparse.Namespace) -> None:
    """What can be said of the call before any file is read.

    Raises:
        UserError: the first thing that is missing, or that excludes another.
    """
    if not args.checkpoint.is_file():
        raise UserError(f'{args.checkpoint}: checkpoint not found; train first (tools/train.py)')
    several = '--input' if args.input else '--dataset' if args.dataset else None
    if args.cfg_options and not args.config:
        raise UserError('--cfg-options: are of a config; name it before the checkpoint')
    if args.input and args.dataset:
        raise UserError('--input and --dataset exclude each other; leave one out')
    if args.split and not args.dataset:
        raise UserError(f'--split {args.split}: is of --dataset; name that too')
    if several and args.files:
        raise UserError(f'{args.files[0]}: a file beside {several}; leave one of the two out')
    if several and not args.output:
        raise UserError(f'{several}: name the folder for the label maps with --output')
    if args.output and not several:
        raise UserError(f'--output {args.output}: goes with --input or --dataset; of one image name the label map')
    if args.dataset and args.truth:
        raise UserError('--truth: the prepared dataset has its own; leave it out')
    if not several and len(args.files) < 2:
        raise UserError('name an image and the label map to write, or --input and --output')
    if args.output and args.output.exists() and not args.output.is_dir():
        raise UserError(f'--output {args.output}: is there, and no folder; name another')


def check_files(args: argparse.Namespace) -> None:
    """What must not or cannot be written for one image, before any file is read."""
    *images, label = args.files
    for first, second in combinations(images, 2):
        if is_same_file(first, second):
            raise UserError(f'{second}: named twice; name one file per channel')
    inputs = [file for file in (args.config, args.checkpoint, *images, args.truth) if file]
    for output, what, ends in ((label, 'the label map (the last of the files named)', ('.nii', '.nii.gz')),
                               (args.overlay, 'the overlay', ('.png',))):
        if output:
            if not output.name.endswith(ends):
                raise UserError(f'{output}: {what} must be named {" or ".join(ends)}')
            check_output(output, what, inputs, args.overwrite)


def find_jobs(args: argparse.Namespace, index: dict) -> list[Job]:
    """What is to be segmented.

    Raises:
        UserError: an input is not there, or an output would cost one.
    """
    channels, labels = index['channels'], len(index['labels'])
    if not args.output:
        *images, label = args.files
        if len(images) not in (1, channels):
            raise UserError(f'{images[1]}: one of {len(images)} images, but {index["dataset"]} has {channels} '
                            f'channel{"s" * (channels > 1)}; name the image of one patient, or a file per '
                            'channel, then the label map')
        read = partial(read_volume, images, args.truth, channels, labels)
        return [Job(Image(str(images[0]), read, tuple(images), bool(args.truth)), label, args.overlay)]
    if args.dataset:
        images, notes = stored_images(args.dataset_folder, args.split), []
    else:
        images, notes = find_images(args.input, channels, labels, args.truth)
    for note in notes:
        print(f'warning: {note}')
    for folder in filter(None, (args.input, args.truth)):
        if is_same_file(args.output, folder):
            raise UserError(f'--output {args.output}: label maps would overwrite the files of this folder; name '
                            'another')
    return [Job(image, args.output / f'{image.name}.nii.gz', args.overlay and args.overlay / f'{image.name}.png')
            for image in images]


def find_facts(args: argparse.Namespace, index: dict) -> dict:
    """What scores need of the dataset: of the one that is named, else of the model's own.

    Raises:
        UserError: the dataset has other labels or channels than the model.
    """
    if not args.dataset:
        return index
    there = read_index(args.dataset_folder)
    if there['labels'] != index['labels']:
        raise UserError(f'--dataset {args.dataset}: has the labels {some(there["labels"])}, the checkpoint '
                        f'{some(index["labels"])}; name the dataset it was trained for')
    if there['channels'] != index['channels']:
        raise UserError(f'--dataset {args.dataset}: has {there["channels"]} channel(s), the checkpoint takes '
                        f'{index["channels"]}; name the dataset it was trained for')
    return there


def load(args: argparse.Namespace) -> tuple:
    """The model's config, its data's index, what is to be segmented, and what the checkpoint holds."""
    if not args.config:
        checkpoint = load_trained(args.checkpoint)
        cfg, index = read_carried(checkpoint, args.checkpoint, args.imports)
        return cfg, index, find_jobs(args, index), checkpoint
    checkpoint, index = None, None
    root = read_config(args.config, args.cfg_options).experiment.data_root
    if not (Path(root) / 'index.json').is_file():
        checkpoint = load_trained(args.checkpoint)
        index = carried_data(checkpoint)
    cfg = load_config(args.config, args.cfg_options, index=index)
    index = index or read_index(root)
    jobs, checkpoint = find_jobs(args, index), checkpoint or load_trained(args.checkpoint)
    for difference in find_differences(cfg, index, checkpoint):
        print(f'warning: {args.config.name}: {difference}; the config counts')
    return cfg, index, jobs, checkpoint


def main() -> int:
    args = parse_args()
    check_call(args)
    if args.files:
        check_files(args)
    check_device(args.device)
    cfg, index, jobs, checkpoint = load(args)
    facts = find_facts(args, index)
    own = args.dataset and facts['dataset'] == index['dataset']
    if own and (seen := find_trained(cfg.experiment, facts, args.split or facts['evaluate'])):
        print(f'warning: {len(seen)} of {len(jobs)} cases were trained on: {some(seen)}')
    segmenter = Segmenter(load_model(cfg, checkpoint, args.checkpoint, args.device), cfg, index, facts)
    table = args.output and args.output / 'scores.json'
    results = table and [table, table.with_suffix('.csv')]
    if args.dry_run:
        if args.output and not args.overwrite:
            Ledger(args.output, describe_call(args, cfg, index)).check(jobs, results, False)
        print(f'{args.checkpoint}: fits, {len(jobs)} image{"s" * (len(jobs) != 1)} to segment')
        return 0
    if not args.output:
        with Progress(stderr=True) as progress:
            label, volume = segmenter.segment(jobs[0], progress.counter('slices'), print)
        tell(segmenter, jobs[0], label, volume)
        return 0
    with only_writer(args.output):
        ledger = Ledger(args.output, describe_call(args, cfg, index))
        ledger.check(jobs, results, args.overwrite)
        done = sum(map(ledger.holds, jobs))
        if done:
            print(f'{done} of {len(jobs)} are done already')
        with Progress(stderr=True) as progress:
            failed = segmenter.segment_all(jobs, ledger, progress)
        if scores := segmenter.scores():
            for name, figures in summarize(scores, index['labels'], index['headline'])['labels'].items():
                print(f'{name}: {show_dsc(figures)}, mean of {len(scores.cases)} cases')
            print(write_scores(table, scores, index['labels'], index['headline']))
    if failed:
        print(f'{len(failed)} of {len(jobs)} could not be segmented: {some(failed)}; call again for these')
    print(args.output)
    return 2 if failed else 0


def describe_call(args: argparse.Namespace, cfg: Config, index: dict) -> dict:
    """What determines a label map beside its image."""
    settings = prediction_settings(cfg)
    if args.config:  # then intensities are those of the prepared data, and not the checkpoint's
        settings |= dict(intensity=index['intensity'])
    settings = json.dumps(settings, sort_keys=True).encode()
    return dict(checkpoint=args.checkpoint.name, sha256=file_sha256(args.checkpoint),
                settings=hashlib.sha256(settings).hexdigest())


def show_dsc(figures: dict[str, float]) -> str:
    return 'no DSC, as it is nowhere' if math.isnan(figures['dsc']) else f'DSC {figures["dsc"]:.2f} %'


def tell(segmenter: Segmenter, job: Job, label: np.ndarray, volume: Volume) -> None:
    """Print what one image came to."""
    index, scores = segmenter.index, segmenter.scores()
    summary = summarize(scores, index['labels'], index['headline']) if scores else dict(labels={}, metrics={})
    others = {name: metric['title'] for name, metric in summary['metrics'].items() if not name.startswith('dsc')}
    for number, name in enumerate(index['labels'][1:], 1):
        voxels = np.count_nonzero(label == number)
        size = (f'{voxels:,} voxels' if index['nominal_spacing'] else
                f'{voxels * abs(np.linalg.det(volume.affine[:3, :3])) / 1000:.2f} ml')
        figures = summary['labels'].get(name, {})
        told = [f'{others[each]} {value:.2f}' for each, value in figures.items()
                if each in others and not math.isnan(value)]
        print(', '.join([f'{name}: {size}', *([show_dsc(figures), *told] if figures else [])]))
    if index['nominal_spacing']:
        print(f'(voxel sizes of {index["dataset"]} are nominal, so volumes are in voxels)')
    print(job.label)
    if job.overlay:
        print(job.overlay)


if __name__ == '__main__':
    run_main(main)
