"""nnU-Net as a method of a grid: nnunetv2's own commands, in an environment of their own.

In a grid file, under `configs`:

    nnunet_2d: {command: 'python tools/nnunet.py 2d {cases} {split} {out} {seed} --work {work}'}
    nnunet_3d: {command: 'python tools/nnunet.py 3d_fullres {cases} {split} {out} {seed} --work {work}'}

Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, Nature
Methods 2021. Only its prediction is given the evaluated cases: fingerprint, planner and training never see them.
It is trained on the split `train`. A split `val` that is not evaluated is nnU-Net's validation, and where there is
none the training cases are, as in its own fold `all`; nothing is chosen by it, as the last checkpoint predicts.
Called again after an interruption it goes on after what is done: preprocessing, the last checkpoint, predicted
cases.
"""

import argparse
import os
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from mmseg_plugins.commands import REPO
from mmseg_plugins.datasets.nifti import read_array, write_nifti
from mmseg_plugins.errors import UserError, nearest, run_main
from mmseg_plugins.files import write_atomic, write_json
from mmseg_plugins.untrusted import read_json

VERSION = '2.8.1'  # that tests/test_nnunet.py has been run with
ENVIRONMENT = REPO / '.venv-nnunet'
TRAINERS = REPO / 'tools/nnunet_trainer'
BASE, TRAINER, PLANS, DATASET = 'nnUNetTrainer', 'nnUNetTrainerSeeded', 'nnUNetPlans', 'Dataset001_cases'
# of label maps: a work folder that was begun with others is refused
DETERMINANTS = ('configuration', 'split', 'seed', 'epochs', 'iterations', 'planner', 'gpu_memory', 'trainer',
                'mirroring')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train nnU-Net on cases of a grid, and predict the others.')
    parser.add_argument('configuration', choices=['2d', '3d_fullres', '3d_lowres'])
    parser.add_argument('cases', type=Path, help='a grid\'s {cases}')
    parser.add_argument('split', help='its {split}: what is evaluated')
    parser.add_argument('out', type=Path, help='its {out}: where the label maps go')
    parser.add_argument('seed', type=int)
    parser.add_argument('--work', type=Path, required=True, help='its {work}: plans, checkpoints, logs')
    parser.add_argument('--env', type=Path, metavar='FOLDER', default=os.environ.get('NNUNET_ENV', ENVIRONMENT),
                        help='virtual environment of nnunetv2 (default: NNUNET_ENV, or .venv-nnunet here)')
    parser.add_argument('--epochs', type=int, default=1000, help='nnU-Net\'s own: 1000')
    parser.add_argument('--iterations', type=int, default=250, help='of an epoch (nnU-Net\'s own: 250)')
    parser.add_argument('--planner', default='ExperimentPlanner', metavar='CLASS',
                        help='one of nnunetv2\'s (default: ExperimentPlanner; newer ones: nnUNetPlannerResEncM, '
                             '...L, ...XL)')
    parser.add_argument('--gpu-memory', type=float, metavar='GB',
                        help='that the planner fills with a batch (nnU-Net\'s own: 8); less makes batches and, at '
                             'last, crops smaller')
    parser.add_argument('--trainer', default=BASE, metavar='CLASS',
                        help=f'one of nnunetv2\'s (default: {BASE}; Primus: nnUNet_Primus_S_Trainer, '
                             '...M..., ...L...)')
    parser.add_argument('--no-mirroring', dest='mirroring', action='store_false',
                        help='predict each crop once; nnU-Net\'s own: the mean over its mirrored copies, four in '
                             '2D and eight in 3D')
    parser.add_argument('--device', choices=['cpu', 'cuda', 'mps'],
                        default='cuda' if torch.cuda.is_available() else 'cpu',
                        help='default: a GPU where there is one')
    parser.add_argument('--workers', type=int, metavar='N',
                        help='processes that preprocess and augment; 0: none, and the same seed gives the same '
                             'bits (default: 0 on a CPU, nnU-Net\'s own numbers on a GPU)')
    args = parser.parse_args()
    for name in ('epochs', 'iterations', 'workers', 'seed'):
        least = int(name in ('epochs', 'iterations'))
        if (value := getattr(args, name)) is not None and value < least:
            parser.error(f'{name} {value}: must be at least {least}')
    if args.gpu_memory is not None and not args.gpu_memory > 0:
        parser.error(f'--gpu-memory {args.gpu_memory}: must be above 0')
    if args.workers is None and args.device == 'cpu':
        args.workers = 0
    return args


def main() -> None:
    args = parse_args()
    trained, validated, evaluated = read_split(args.cases, args.split)
    version = find_version(args.env, args.trainer)
    check_begun(args)
    raw, preprocessed, results, predicted = (
        args.work.absolute() / name for name in ('raw', 'preprocessed', 'results', 'predicted'))
    model = results / DATASET / f'{TRAINER}__{PLANS}__{args.configuration}'
    variables = dict(nnUNet_raw=raw, nnUNet_preprocessed=preprocessed, nnUNet_results=results,
                     nnUNet_extTrainer=TRAINERS, nnUNet_trainer=args.trainer, nnUNet_seed=args.seed,
                     nnUNet_epochs=args.epochs, nnUNet_iterations=args.iterations, PYTHONUNBUFFERED=1)

    def call(name: str, *arguments: str | Path | float, workers: tuple[str, ...] = (), least: int = 1) -> None:
        """One of nnunetv2's commands; `workers` are options and variables of it that say how many processes."""
        numbers = {} if args.workers is None else dict.fromkeys(workers, max(args.workers, least))
        options = [word for key, number in numbers.items() if key.startswith('-') for word in (key, number)]
        line = [str(word) for word in (args.env / 'bin' / f'nnUNetv2_{name}', *arguments, *options)]
        print('+', *line, flush=True)
        environment = os.environ | {key: str(value) for key, value in (variables | numbers).items()}
        status = subprocess.run(line, env=environment).returncode
        if status:
            raise UserError(f'nnUNetv2_{name} ended with status {status}; what it said stands above')

    if not (model / 'fold_0/checkpoint_final.pth').exists():
        # written when preprocessing has ended
        if not (split := preprocessed / DATASET / 'splits_final.json').exists():
            export_training(args.cases, sorted({*trained, *validated}), raw / DATASET)
            call('plan_and_preprocess', '-d', '1', '-c', args.configuration, '-pl', args.planner,
                 '-overwrite_plans_name', PLANS, '--clean', '--no_pbar',
                 *(['-gpu_memory_target', args.gpu_memory] if args.gpu_memory else []), workers=('-npfp', '-np'))
            write_json(split, [dict(train=trained, val=validated)])
        call('train', DATASET, args.configuration, '0', '-tr', TRAINER, '-p', PLANS, '-device', args.device, '--c',
             workers=('nnUNet_n_proc_DA',), least=0)
    for case in evaluated:
        export_image(args.cases, case, raw / DATASET / 'imagesTs')
        remove_torn(predicted / f'{case}.nii.gz')
    call('predict', '-i', raw / DATASET / 'imagesTs', '-o', predicted, '-d', DATASET, '-c', args.configuration,
         '-f', '0', '-tr', TRAINER, '-p', PLANS, '-device', args.device, '--continue_prediction',
         '--disable_progress_bar', *['--disable_tta'] * (not args.mirroring), workers=('-npp', '-nps'), least=0)
    for case in evaluated:
        (args.out / f'{case}.nii.gz').unlink(missing_ok=True)  # perhaps another model's
        link(predicted / f'{case}.nii.gz', args.out / f'{case}.nii.gz')
    write_json(args.out / 'method.json', describe(args, model, version))
    for folder in (raw, preprocessed):  # the model predicts without them
        shutil.rmtree(folder, ignore_errors=True)


def check_begun(args: argparse.Namespace) -> None:
    """Raise a UserError where the work folder holds what was begun with options that give another model."""
    options, path = {name: str(getattr(args, name)) for name in DETERMINANTS}, args.work / 'options.json'
    begun = read_json(path, 'name another folder (--work)') if path.exists() else options
    begun = dict(mirroring='True') | begun  # versions before had no choice
    if other := [f'{name} {begun.get(name)}' for name in DETERMINANTS if begun.get(name) != options[name]]:
        raise UserError(f'{args.work}: begun with {", ".join(other)}; name another folder (--work)')
    write_json(path, options)


def describe(args: argparse.Namespace, model: Path, version: str) -> dict:
    """What the record tells of a trained model beside its figures."""
    plan = read_json(model / 'plans.json', 'train again')['configurations'][args.configuration]
    settings = dict(
        nnunetv2=version, configuration=args.configuration, planner=args.planner, trainer=args.trainer,
        epochs=args.epochs, iterations_per_epoch=args.iterations, batch_size=plan['batch_size'],
        patch_size=' x '.join(map(str, plan['patch_size'])), mirroring=args.mirroring, device=args.device,
        gpu_memory='as nnU-Net chooses' if args.gpu_memory is None else f'{args.gpu_memory} GB',
        workers='as nnU-Net chooses' if args.workers is None else args.workers)
    return read_json(model / 'fold_0/cost.json', 'train again') | dict(
        settings={name: str(value) for name, value in settings.items()})


def read_split(cases: Path, evaluated: str) -> tuple[list[str], list[str], list[str]]:
    """The cases that are trained on, that training is watched by, and that are evaluated.

    Raises:
        UserError: there is no such split, or none that could be trained on.
    """
    split = read_json(cases / 'split.json', 'give a grid\'s {cases}')
    if evaluated not in split:
        raise UserError(f'{cases / "split.json"}: no split {evaluated!r}{nearest(evaluated, split)}')
    hidden = set(split[evaluated])
    trained, validated = ([case for case in split.get(part, ()) if case not in hidden]
                          for part in ('train', 'val'))
    if not trained:
        raise UserError(f'{cases / "split.json"}: beside {evaluated!r}, which is evaluated, no case is left to '
                        'train on; evaluate another split')
    return trained, validated or trained, split[evaluated]


def find_version(env: Path, trainer: str) -> str:
    """The version of nnunetv2 in a virtual environment.

    Raises:
        UserError: it is not there, with the command that makes it; or it has no such trainer.
    """
    def ask(question: str) -> subprocess.CompletedProcess:
        return subprocess.run([env.absolute() / 'bin/python', '-c', question], capture_output=True, text=True,
                              cwd=TRAINERS, env=os.environ | dict(nnUNet_trainer=trainer))

    found = (env / 'bin/python').exists() and ask(
        'from importlib.metadata import version; print(version("nnunetv2"))')
    if not found or found.returncode:
        raise UserError(f'{env}: no nnunetv2 there; name its environment (--env, or NNUNET_ENV), or make it: '
                        f'python -m venv {env} && {env}/bin/pip install nnunetv2=={VERSION}')
    version = found.stdout.strip()
    if trainer != BASE and (answer := ask(f'import {TRAINER}')).returncode:
        said = (answer.stderr.strip().splitlines() or ['nothing'])[-1]
        raise UserError(f'--trainer {trainer}: not one of nnunetv2 {version} in {env}, whose own are in its '
                        f'folder nnunetv2/training/nnUNetTrainer; it said: {said[:200]}')
    return version


def export_training(cases: Path, names: list[str], dataset: Path) -> None:
    """These cases as an nnU-Net raw dataset with images, labels and dataset.json."""
    told = read_json(cases / 'dataset.json', 'give a grid\'s {cases}')
    channels = told['channel_names']
    if told['modality'] == 'CT':  # by this name nnU-Net chooses how to scale intensities
        channels = dict.fromkeys(channels, 'CT')
    for case in names:
        export_image(cases, case, dataset / 'imagesTr')
        link(cases / f'labels/{case}.nii.gz', dataset / f'labelsTr/{case}.nii.gz')
    write_json(dataset / 'dataset.json', {key: told[key] for key in ('name', 'labels', 'file_ending')} | dict(
        channel_names=channels, numTraining=len(names)))


def export_image(cases: Path, case: str, folder: Path) -> None:
    """A case's image, a file for each channel; one of a single channel is linked."""
    path = cases / f'images/{case}.nii.gz'
    image = nib.load(path)
    if image.ndim == 3:
        link(path, folder / f'{case}_0000.nii.gz')
        return
    for channel in range(image.shape[3]):
        write_nifti(folder / f'{case}_{channel:04d}.nii.gz', np.asarray(image.dataobj[..., channel]), image.affine)


def link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the disk has no hard links; one that is there stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        write_atomic(target, source.read_bytes())


def remove_torn(path: Path) -> None:
    """Remove a label map that an interruption left half written, which nnU-Net would take for done."""
    try:
        read_array(path)
    except UserError:
        path.unlink(missing_ok=True)


if __name__ == '__main__':
    run_main(main)
