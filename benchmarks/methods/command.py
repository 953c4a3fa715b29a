"""A method that is no config: a shell command that leaves label maps, which are scored like any run's.

In a grid file, under `configs`:

    nnunet: {command: 'my_method.sh {cases} {split} {out} {seed}'}

`{cases}` is a folder that holds split.json, images/<case>.nii.gz of every case, and labels/<case>.nii.gz of those
outside the split that is evaluated, whose name is `{split}`; where that is a fold or another part of a split,
split.json has it and `train`, all cases that have labels. Of this split's cases the command leaves
`{out}`/<case>.nii.gz. It is called in the folder that the grid was called in.
"""

import os
import shlex
import shutil
import signal
import string
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmseg_plugins.datasets import read_index
from mmseg_plugins.datasets.nifti import write_nifti
from mmseg_plugins.datasets.splits import split_cases
from mmseg_plugins.datasets.store import Store, read_meta
from mmseg_plugins.datasets.volumes import from_slices
from mmseg_plugins.errors import UserError, nearest
from mmseg_plugins.evaluation.folder import ScoredFolder, score_folder
from mmseg_plugins.files import write_json

PLACES = ('cases', 'split', 'out', 'seed')


def check_command(command: str, where: str) -> None:
    """Raise a UserError, which begins with `where`, for a command that cannot be filled in or leaves nothing."""
    try:
        names = [name for _, name, *_ in string.Formatter().parse(command) if name is not None]
    except ValueError as error:
        raise UserError(f'{where}: {error}; write a brace of the shell\'s own twice') from None
    for name in names:
        if name not in PLACES:
            raise UserError(f'{where}: nothing to put for {{{name}}}{nearest(name, PLACES)}; write a brace of the '
                            'shell\'s own twice')
    if 'out' not in names:
        raise UserError(f'{where}: does not say {{out}}, the folder that its label maps go to')


def run_command(command: str, seed: int, prepared: Path, split: str, work_dir: Path,
                report: Callable[[int, int], None]) -> tuple[ScoredFolder, Path]:
    """Give a method its cases, run it, and score the folder of label maps that it leaves; returns both.

    Raises:
        UserError: it ended with an error, or left no label map that could be scored.
    """
    cases, out, log = (work_dir / name for name in ('cases', 'label_maps', 'command/command.log'))
    shutil.rmtree(out, ignore_errors=True)  # what an earlier attempt left is not this one's
    for folder in (out, log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    write_cases(prepared, cases, split)
    places = dict(cases=cases.absolute(), split=split, out=out.absolute(), seed=seed)
    line = command.format(**{name: shlex.quote(str(value)) for name, value in places.items()})
    with open(log, 'ab') as file:
        process = subprocess.Popen(line, shell=True, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while process.poll() is None:
                report(0, 1)
                time.sleep(0.2)
        finally:  # a signal to this process, or its controller's end, is the command's too
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
    if process.returncode:
        raise UserError(f'the command ended with status {process.returncode}; {log} has what it said')
    found = score_folder(out, prepared, split)
    shutil.rmtree(cases)
    report(1, 1)
    return found, out


def write_cases(prepared: Path, folder: Path, evaluated: str) -> None:
    """A prepared dataset as NIfTI files, without the labels of the evaluated split; files that are there stay."""
    index, store = read_index(prepared), Store(prepared)
    hidden = split_cases(index, evaluated)
    for case, entry in index['cases'].items():
        slices, meta = list(range(entry['shape'][0])), read_meta(prepared, case)
        if meta is None:
            raise UserError(f'{prepared}: case {case!r} is not wholly there; prepare the dataset again')
        depth, channels, *plane = entry['shape']
        image = np.asarray(store.window(case, slices)).reshape(channels, depth, *plane).transpose(1, 2, 3, 0)
        parts = {'images': image[..., 0] if channels == 1 else image}
        if case not in hidden:
            parts['labels'] = np.asarray(store.label(case, slices))
        for part, array in parts.items():
            if not (path := folder / part / f'{case}.nii.gz').exists():
                write_nifti(path, from_slices(array, meta['axes'], meta['flips']), np.array(meta['affine']))
    whole = index['split'] if evaluated in index['split'] else dict(
        train=[case for case in index['cases'] if case not in hidden])
    write_json(folder / 'split.json', whole | {evaluated: hidden})
