"""How long work takes on a device: what its nearest record took, scaled by FLOPs."""

import heapq
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mmseg_plugins.errors import UserError

from ..grid.axes import Cell
from ..grid.reader import load_grid
from ..paper.published import published_settings
from ..runs.agenda import make_run
from ..runs.records import open_record
from .work import Kind, Works

CALIBRATIONS = Path(__file__).parents[1] / 'speed' / 'calibrations'
PUBLISHED = 'titan-rtx-paper'


@dataclass(frozen=True)
class Pace:
    """How long a record's kind takes: what its cost says, `batch` windows a step, and `steps` that were timed.

    None: not known. `dsc_alone`: its windows were evaluated by that alone, as a search has it.
    """
    kind: str
    parameters: int
    flops: int
    batch: int
    step_seconds: float
    start_seconds: float = 0.0
    checkpoint_seconds: float = 0.0
    window_seconds: float = 0.0
    peak_memory_mib: float | None = None
    cpu_share: float = 1.0
    steps: int = 0
    dsc_alone: bool = False


def read_pace(record: dict, kind: str = '') -> Pace | None:
    """Of a record, or None where it does not tell.

    Args:
        kind: of a record from before records said it. Without seconds of a step it counts by its seconds in all.
    """
    cost = record.get('cost', {})
    if not record.get('settings') or cost.get('processes', 1) > 1:
        return None
    steps = record['training']['steps']
    if 'step_seconds' not in cost:
        if cost.get('resumed_from') != 0:
            return None
        cost = cost | dict(kind=kind, step_seconds=cost['seconds'] / steps)
    known = {name: cost[name] for name in Pace.__dataclass_fields__ if name in cost}
    return Pace(**known, batch=int(record['settings']['batch_size']), steps=steps,
                dsc_alone={*record['scores']['figures']} == {'dsc', 'dsc_pooled'})


class Estimate:
    """What a run of a kind takes, by a pace: steps and windows scaled by FLOPs, checkpoints by parameters.

    Attributes:
        ratio: FLOPs of its step as those of the pace's; `scaled`: whether the pace is of another kind.
        step: seconds of one; `seconds` of all.
        memory: MiB at most; None: not known of this kind. `least`: MiB that are held for sure.
    """

    def __init__(self, kind: Kind, pace: Pace):
        self.kind, self.pace = kind, pace
        parameters, flops = kind.counts
        self.ratio = flops * kind.batch / (pace.flops * pace.batch)
        self.scaled = (self.ratio, pace.kind) != (1, kind.what)
        self.step = pace.step_seconds * self.ratio
        self.seconds = (pace.start_seconds + kind.steps * self.step
                        + kind.windows * pace.window_seconds * flops / pace.flops
                        + kind.checkpoints * pace.checkpoint_seconds * parameters / pace.parameters)
        self.memory = None if self.scaled else pace.peak_memory_mib
        self.least = 4 * 4 * parameters / 2**20  # float32 weights, gradients and AdamW's two moments


def estimate(kind: Kind, paces: Iterable[Pace]) -> Estimate | None:
    """By the nearest pace in FLOPs.

    Of several as near those of like evaluations count, of these the longest timed, of these the middle one.
    None: there is no pace, or the kind's FLOPs cannot be counted.
    """
    def distance(one: Estimate) -> tuple:
        return abs(math.log(one.ratio)), one.scaled, one.pace.dsc_alone != kind.dsc_alone, -one.pace.steps

    found = [Estimate(kind, pace) for pace in paces] if kind.counts else []
    nearest = min(map(distance, found), default=None)
    same = sorted((one for one in found if distance(one) == nearest), key=lambda one: one.step)
    return same[len(same) // 2] if same else None


@dataclass
class Device:
    """A GPU, or a CPU shared out over workers, and the paces that are known of it.

    Args:
        calibrated: from calibrations; `finished`: by run, from the grids' own records.
        unit: what it is called; `workers`: runs at a time on one.
        memory: MiB that it has; None: not known.
    """
    name: str
    origin: str
    calibrated: list[Pace]
    finished: dict[str, Pace] = field(default_factory=dict)
    unit: str = 'GPU'
    workers: int = 1
    memory: float | None = None

    def estimate(self, kind: Kind) -> Estimate | None:
        return estimate(kind, [*self.calibrated, *self.finished.values()])


def device_name(hardware: dict) -> str:
    return hardware['gpu'] or f'{hardware["cpu"]}, {hardware["cores"]} cores, {hardware["threads"]} per run'


def device_folder(name: str) -> Path:
    """Of a device's calibrations."""
    return CALIBRATIONS / file_name(name)


def file_name(words: str) -> str:
    return re.sub(r'[^a-z0-9]+', '-', words.lower()).strip('-')


def choose_device(name: str, works: Works, to_calibrate: str) -> Device:
    """What is known of a device: its calibrations, and those of the grids' finished runs that were recorded on it.

    Args:
        name: of the device, or of its folder.
        to_calibrate: the command that calibrates a device, for who has none.

    Raises:
        UserError: nothing is known of it, or a calibration is damaged.
    """
    if name == PUBLISHED:
        return _published_device()
    folder, records, finished = device_folder(name), [], {}
    for path in sorted(folder.glob('*.json')):
        try:
            records.append(open_record(path.read_text()))
        except (UserError, UnicodeDecodeError) as error:
            raise UserError(f'{path}: not a calibration ({error}); delete it and run: {to_calibrate}') from None
    calibrated = [pace for record in records if (pace := read_pace(record))]
    for kind in (kind for _, kinds in works for kind in kinds):
        for run, record in kind.finished.items():
            if device_folder(device_name(record['hardware'])) == folder and (pace := read_pace(record, kind.what)):
                records.append(record)
                finished[run] = pace
    if not calibrated and not finished:
        known = sorted(path.name for path in CALIBRATIONS.glob('*/'))
        raise UserError(f'no calibration of {name!r}; known: {", ".join([*known, PUBLISHED])} (--device NAME); '
                        f'to make one, on that machine: {to_calibrate}')
    hardware = records[0]['hardware']
    device = Device(device_name(hardware), f'by {len(calibrated)} calibrations and {len(finished)} finished runs',
                    calibrated, finished)
    if hardware['gpu'] is None:
        device.unit, device.workers = 'machine', max((hardware['cores'] or 1) // hardware['threads'], 1)
    return device


def _published_device() -> Device:
    """The one published time: Table 6's GPUs and hours for the steps and batch of the paper's best row on BCV."""
    settings = published_settings()
    gpus, hours, steps, batch = (int(re.match(r'\d+', settings[key])[0])
                                 for key in ('gpus', 'time', 'steps', 'batch_size'))
    run = make_run(load_grid('bcv'), Cell('bcv'), 0, Path('weights'), None)
    kind = Kind(run.config, run.options, run.title)
    origin = (f'published, not measured here: Table 6 of the paper, {settings["gpus"]} for {settings["time"]} '
              f'({gpus * hours} GPU-hours) for {steps:,} steps of {batch}; all else by FLOPs')
    published = Pace(kind.what, *kind.counts, batch, gpus * hours * 3600 / steps)
    return Device(PUBLISHED, origin, [published])


def schedule(seconds: dict[str, float], needs: dict[str, str | None], slots: int) -> float:
    """Seconds until all is done on `slots` workers, each free one taking the longest work that can start.

    What others need goes first, as the grid's runner has it.

    Args:
        seconds: by name.
        needs: the name that must be done before; one without seconds is taken to be there.
    """
    waiting = sorted(seconds, key=lambda name: (name not in needs.values(), -seconds[name]))
    running, done, now = [], set(), 0.0
    while waiting or running:
        ready = [name for name in waiting if needs.get(name) not in seconds or needs[name] in done]
        for name in ready[:slots - len(running)]:
            waiting.remove(name)
            heapq.heappush(running, (now + seconds[name], name))
        now, name = heapq.heappop(running)
        done.add(name)
    return now
