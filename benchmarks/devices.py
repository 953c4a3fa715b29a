"""What runs take on a device: calibrations, which benchmarks/calibrate.py measures, and the paper's own time."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from mmseg_plugins.errors import UserError
from mmseg_plugins.files import write_json

from .rendering.published import PAPER

CALIBRATIONS = Path(__file__).parent / 'speed' / 'calibrations'
PUBLISHED = 'titan-rtx-paper'
VERSION = 1


@dataclass(frozen=True)
class Measurement:
    """What a class of runs takes on a device; None where it is not known.

    Args:
        what: the class in words.
        windows: of an optimizer step.
        forward: of these, in one forward pass.
        step: seconds per optimizer step, loading included.
        measured_windows: of a step as it was measured; fewer than `windows` were scaled up.
        flops: of one window forward; activations: elements (mmseg_plugins/flops.py).
        window: seconds to evaluate a window.
        surface: seconds of metrics per million voxels of a case.
        start: seconds from reading the config to steady steps; save: of writing a checkpoint.
        checkpoint: bytes of one.
        busy: of a CPU, the share of its cores that a worker had during its steps; where nothing else runs, and
            nothing waits for loading, nearly 1.
        peak: MiB: of a GPU what torch allocated; else what the process grew by over its libraries.
    """
    what: str
    windows: int
    forward: int
    step: float
    parameters: int | None = None
    flops: int | None = None
    activations: int | None = None
    measured_windows: int | None = None
    data: str = ''
    window: float = 0.0
    surface: float = 0.0
    start: float = 0.0
    save: float = 0.0
    checkpoint: int | None = None
    busy: float | None = None
    peak: float | None = None


@dataclass
class Device:
    """A kind of machine, and what classes of runs take on it.

    Args:
        name: of the GPU, or of the CPU with how its cores are shared out.
        origin: how its times became known, for the reader.
        workers: runs at a time on one such device.
        memory: MiB of it; None: not known.
        process: MiB that a process takes before its first run, where that counts as the device's memory.
        load: seconds that a worker takes to import its libraries.
        hardware: as records name it.
        classes: digest of a CostClass -> what was measured.
    """
    name: str
    origin: str
    workers: int = 1
    memory: float | None = None
    process: float = 0.0
    load: float = 0.0
    hardware: dict = field(default_factory=dict)
    packages: dict = field(default_factory=dict)
    classes: dict[str, Measurement] = field(default_factory=dict)

    @property
    def is_gpu(self) -> bool:
        return self.hardware.get('gpu') is not None

    @property
    def unit(self) -> str:
        return 'machine' if self.hardware and not self.is_gpu else 'GPU'

    def recorded(self, hardware: dict) -> bool:
        """Whether a record comes from such a device."""
        keys = ('gpu',) if self.is_gpu else ('gpu', 'cpu', 'cores', 'threads')
        return bool(self.hardware) and all(hardware.get(key) == self.hardware.get(key) for key in keys)


def slug(name: str) -> str:
    return re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')


def calibration_path(name: str, folder: Path | None = None) -> Path:
    return (folder or CALIBRATIONS) / f'{slug(name)}.json'


def write_device(device: Device, folder: Path | None = None) -> Path:
    """Write a calibration, atomically; the same figures give the same bytes."""
    path = calibration_path(device.name, folder)
    content = dict(version=VERSION) | asdict(device)
    content['classes'] = {digest: content['classes'][digest] for digest in sorted(content['classes'])}
    write_json(path, content)
    return path


def read_device(name: str, calibrate: str, folder: Path | None = None) -> Device:
    """Read a calibration.

    Args:
        name: of the device, or of its file without `.json`.
        calibrate: the command that makes a calibration, for who has none.
        folder: of the calibrations; None: the repository's.

    Raises:
        UserError: there is none of that name, or it is damaged.
    """
    path = calibration_path(name, folder)
    try:
        content = json.loads(path.read_text())
        if content.pop('version') != VERSION:
            raise ValueError('another version')
        content['classes'] = {digest: Measurement(**entry) for digest, entry in content['classes'].items()}
        device = Device(**content)
        if any(entry.step <= 0 for entry in device.classes.values()):
            raise ValueError('a step that takes no time')
        return device
    except FileNotFoundError:
        known = sorted(path.stem for path in (folder or CALIBRATIONS).glob('*.json'))
        raise UserError(f'no calibration of {name!r}; known: {", ".join([*known, PUBLISHED])} (--device NAME); '
                        f'to make one, on that machine: {calibrate}') from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f'{path}: not a calibration ({error}); delete it and run: {calibrate}') from error


def published_device(digest: str, what: str, counts: Sequence[int]) -> Device:
    """The one published time, as a device: Table 6's GPUs and hours for a training of its steps and batch.

    Args:
        digest, what: of the class of the paper's best practice on BCV, `Ours`, which that time is of.
        counts: its parameters, FLOPs and activations.
    """
    settings = pd.read_csv(PAPER / 'table6_settings.csv').set_index('setting')['value']
    gpus, hours, steps, batch = (int(re.match(r'\d+', settings[key])[0])
                                 for key in ('gpus', 'time', 'steps', 'batch_size'))
    origin = (f'published, not measured here: Table 6 of the paper, {settings["gpus"]} for {settings["time"]} '
              f'({gpus * hours} GPU-hours) for {steps:,} steps of {batch}; all else by FLOPs')
    step = gpus * hours * 3600 / steps
    return Device(PUBLISHED, origin, classes={
        digest: Measurement(what, batch, batch // gpus, step, *counts)})
