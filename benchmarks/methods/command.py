"""A method that is no config: a shell command that leaves label maps, which are scored like any run's.

In a grid file, under `configs`:

    mine: {command: 'my_method.sh {cases} {split} {out} {seed}', needs: my_method}

Where the file or folder that `needs` names is not there, its rows are left out, and it says so; it may be omitted.
`{cases}` is a folder that holds images/<case>.nii.gz of every case (channels last where it has several),
labels/<case>.nii.gz of those outside the split that is evaluated, whose name is `{split}`, and two files:

- split.json: names of splits and of their cases, none of which is evaluated but those of `{split}`; where that is
  a fold of all cases, it and `train`, all others;
- dataset.json: `name`, `modality` (null where it is not known), and in nnU-Net's words `channel_names` (number ->
  name), `labels` (name -> id, `background` is 0) and `file_ending`.

Of this split's cases the command leaves `{out}`/<case>.nii.gz. It may leave `{out}`/method.json too, from which
the record takes over `parameters`, `peak_memory_mib` with `memory_of` (tables show `GPU, training` and `training
process`), and `settings`, text by name. `{work}` is a folder of its own, which it finds as it was when an
interrupted run is called again; `{out}` is empty each time. It is called in the folder that the grid was called
in, and `python` is the grid's own.
"""

import os
import shlex
import shutil
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mmseg_plugins.datasets import read_index
from mmseg_plugins.datasets.images import read_stored
from mmseg_plugins.datasets.nifti import write_nifti
from mmseg_plugins.datasets.splits import split_cases
from mmseg_plugins.datasets.store import Store
from mmseg_plugins.datasets.volumes import from_slices
from mmseg_plugins.errors import UserError, nearest
from mmseg_plugins.evaluation.folder import ScoredFolder, score_folder
from mmseg_plugins.files import only_writer, write_json
from mmseg_plugins.untrusted import find_fault, read_json
from mmseg_plugins.work_dir import PATIENCE

PLACES = ('cases', 'split', 'out', 'seed', 'work')
# What method.json may say, in the words of find_fault: `COST` is of the record's cost.
COST = dict(parameters=(float, ...), peak_memory_mib=(float, ...), memory_of=(str, ...))
TOLD = COST | dict(settings=({str: str}, ...))


def check_command(command: str, where: str) -> None:
    """Raise a UserError, which begins with `where`, for a command that cannot be filled in or leaves nothing."""
    try:
        places = [place for place in string.Formatter().parse(command) if place[1] is not None]
    except ValueError as error:
        raise UserError(f'{where}: {error}; write a brace of the shell\'s own twice') from None
    for _, name, spec, conversion in places:
        if name not in PLACES:
            raise UserError(f'{where}: nothing to put for {{{name}}}{nearest(name, PLACES)}; write a brace of the '
                            'shell\'s own twice')
        if spec or conversion:
            raise UserError(f'{where}: {{{name}}} stands for text, which has no format; write it so')
    if 'out' not in [name for _, name, *_ in places]:
        raise UserError(f'{where}: does not say {{out}}, the folder that its label maps go to')


def run_command(command: str, seed: int, prepared: Path, split: str, work_dir: Path,
                report: Callable[[int, int], None]) -> tuple[ScoredFolder, Path, dict]:
    """Give a method its cases, run it, and score what it leaves.

    Returns:
        Its scores, the folder of label maps, and what it tells of itself in method.json, as TOLD has it.

    Raises:
        UserError: it ended with an error, or left no label map that could be scored, or its method.json is wrong.
        Busy: an earlier attempt's command is still running.
    """
    cases, out, log = (work_dir / name for name in ('cases', 'label_maps', 'command/command.log'))
    places = dict(cases=cases.absolute(), split=split, out=out.absolute(), seed=seed, work=log.parent.absolute())
    python = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get('PATH', os.defpath)])
    line = command.format(**{name: shlex.quote(str(value)) for name, value in places.items()})
    # the command holds its folder too: one that outlives a killed worker is not begun a second time
    with only_writer(log.parent, PATIENCE) as lock, open(log, 'ab') as file:
        shutil.rmtree(out, ignore_errors=True)  # what an earlier attempt left is not this one's
        out.mkdir(parents=True, exist_ok=True)
        write_cases(prepared, cases, split)
        process = subprocess.Popen(line, shell=True, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                                   env=os.environ | dict(PATH=python), pass_fds=[lock])
        try:
            while process.poll() is None:
                report(0, 1)
                time.sleep(0.2)
        finally:  # a signal to this process, or its controller's end, is the command's too
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
    if process.returncode:
        *_, last = 'nothing', *filter(str.strip, log.read_text(errors='replace').splitlines())
        raise UserError(f'the command ended with status {process.returncode}; {log} has what it said, at last: '
                        f'{last.strip()[:200]}')
    told = _read_told(out / 'method.json')
    found = score_folder(out, prepared, split)
    shutil.rmtree(cases)
    report(1, 1)
    return found, out, told


def _read_told(path: Path) -> dict:
    """What a method tells of itself; nothing where there is no such file."""
    if not path.exists():
        return {}
    told = read_json(path, 'mend the command')
    if fault := find_fault(told, TOLD, 'method'):
        raise UserError(f'{path}: {fault}; mend the command')
    return told


def write_cases(prepared: Path, folder: Path, evaluated: str) -> None:
    """A prepared dataset as NIfTI files, without the labels of the evaluated split; files that are there stay."""
    index, store = read_index(prepared), Store(prepared)
    hidden = split_cases(index, evaluated)
    for case in index['cases']:
        volume = read_stored(store, index, case)
        image = volume.image.transpose(0, 2, 3, 1)
        parts = {'images': image[..., 0] if image.shape[-1] == 1 else image}
        if case not in hidden:
            parts['labels'] = volume.label
        for part, array in parts.items():
            if not (path := folder / part / f'{case}.nii.gz').exists():
                write_nifti(path, from_slices(array, volume.axes, volume.flips), volume.affine)
    kept = dict(train=index['cases']) if evaluated.partition(':')[0] == 'all' else index['split']
    whole = {part: [case for case in cases if case not in hidden] for part, cases in kept.items()}
    write_json(folder / 'split.json', whole | {evaluated: hidden})
    write_json(folder / 'dataset.json', dict(
        name=index['dataset'], modality=index.get('modality'),
        channel_names={str(number): name for number, name in enumerate(
            index.get('channel_names') or map(str, range(index['channels'])))},
        labels={name: number for number, name in enumerate(['background', *index['labels'][1:]])},
        file_ending='.nii.gz'))
