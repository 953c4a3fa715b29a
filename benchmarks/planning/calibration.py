"""Calibrations: short runs of a grid's own cells on the machine that is here, whose records are kept by device."""

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmseg_plugins.datasets.intensity import PROTOCOLS
from mmseg_plugins.datasets.statistics import describe_volume
from mmseg_plugins.datasets.store import write_case, write_index
from mmseg_plugins.datasets.volumes import Volume
from mmseg_plugins.errors import UserError
from mmseg_plugins.files import write_json

from ..executors.base import Executor, execute
from ..runs.agenda import Agenda, make_run
from ..runs.records import open_record, seal
from .estimate import device_folder, device_name, file_name
from .work import Kind, Works

ENOUGH = 1e12  # FLOPs of steps; so many that a CPU's median is steady
STEPS = 10, 100  # at least and at most
CASES = 2  # of each split: the time of an evaluated window is no matter of how many there are


def calibrate(works: Works, executor: Executor, at_once: int, progress, command: str) -> str:
    """Train and evaluate each kind of the grids' runs for a few steps, as a grid would.

    Args:
        at_once: runs at a time. So many are kept busy to the end, as they slow each other down on a CPU.
        progress: mmseg_plugins.progress.Progress.
        command: what called this, for the records to name.

    Returns:
        The device's name.

    Raises:
        UserError: no run came to its end.
    """
    # two models may have the same words
    kinds = list({(kind.what, kind.counts): (agenda.grid, kind) for agenda, found in works for kind in found
                  if kind.run}.values())
    with tempfile.TemporaryDirectory(prefix='calibration-') as folder:
        place, runs = Path(folder), []
        for number in range(math.ceil(len(kinds) / at_once) * at_once):
            grid, kind = kinds[number % len(kinds)]
            data = place / 'data' / kind.folder.name
            if not data.exists():
                _write_excerpt(data, kind)
            # random weights: what is loaded, and how it is inflated, changes no step
            cell = replace(kind.run.cell, source='none', lr=None)
            chosen = {option: kind.run.options[option] for option in grid.tune if option in kind.run.options}
            run = make_run(grid, cell, number // len(kinds), Path(), _steps(kind), chosen=chosen)
            runs.append(replace(run, options=run.options | {'experiment.data_root': str(data)}))
        agenda = Agenda(None, 'calibration', runs, runs, [], [], {})
        execute(agenda, executor, place / 'work', place / 'out', progress, False)
        records = [open_record(path.read_text()) for path in sorted((place / 'out' / 'records').glob('*.json'))]
    records = [record for record in records if record['state'] == 'done']
    if not records:
        raise UserError('nothing could be measured, for the reasons above')
    device = device_name(records[0]['hardware'])
    for record in records:
        # by what a kind is, so that a newer one of it takes its place
        name = file_name(f'{record["cost"]["kind"]}, {record["cost"]["flops"] / 1e6:.0f} MFLOPs')
        write_json(device_folder(device) / f'{name}.json', seal(record | dict(command=command)))
    return device


def _steps(kind: Kind) -> int:
    """Of a calibration: of training, three times the forward pass each."""
    steps = round(ENOUGH / (3 * kind.counts[1] * kind.batch))
    return min(max(steps, STEPS[0]), STEPS[1])


def _write_excerpt(folder: Path, kind: Kind, depth: int = 16) -> None:
    """A few cases of a dataset, or a case of random values in their place where it is not prepared."""
    index = kind.index
    if not kind.assumed:
        folder.mkdir(parents=True)
        (folder / 'cases').symlink_to((kind.folder / 'cases').resolve())
        write_index(folder, index | dict(split={part: cases[:CASES] for part, cases in index['split'].items()}))
        return
    (height, width), labels, rng = kind.size, len(index['labels']), np.random.default_rng(0)
    blocks = rng.integers(0, labels, (8, 8), np.uint8)  # as smooth as organs, which decides surface metrics
    label = blocks[np.arange(height) * 8 // height][:, np.arange(width) * 8 // width]
    image = rng.integers(-1000, 1000, (depth, index['channels'], height, width), np.int16)
    volume = Volume(image, np.stack([label] * depth), np.diag([1.0, 1.0, 3.0, 1.0]), (2, 1, 0), (False,) * 3)
    meta = write_case(folder, 'random', volume, describe_volume(volume, labels))
    write_index(folder, index | dict(
        dataset=folder.name, headline=list(range(1, labels)), intensity=dict.fromkeys(PROTOCOLS, (-1000, 1000)),
        split_hash='none', split=dict.fromkeys(('train', 'val', 'test'), ['random']),
        cases=dict(random=meta)))
