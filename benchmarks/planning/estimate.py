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
from ..plan import make_run
from ..runs.records import open_record
from .work import GridWork, Kind, Work

CALIBRATIONS = Path(__file__).parents[1] / 'speed' / 'calibrations'
PUBLISHED = 'titan-rtx-paper'


@dataclass(frozen=True)
class Pace:
    """What a record says of the time and memory that its kind takes.

    Args:
        flops: of a window forward; batch: windows of a step.
        step, start, checkpoint, window: seconds; `window` of one that is evaluated, with its share of the metrics.
        steps: that were timed.
        share: of its threads' time that a run on a CPU had.
        memory: MiB at most; None: not known.
    """
    kind: str
    parameters: int
    flops: int
    batch: int
    step: float
    start: float = 0.0
    checkpoint: float = 0.0
    window: float = 0.0
    steps: int = 0
    memory: float | None = None
    share: float = 1.0


def read_pace(record: dict, kind: str = '') -> Pace | None:
    """Of a record, or None where it does not tell.

    Args:
        kind: of a record from before records said it. Without seconds of a step it counts by its seconds in all.
    """
    cost = record.get('cost', {})
    if record['state'] != 'done' or cost.get('processes', 1) > 1 or not record.get('settings'):
        return None
    steps = record['training']['steps']
    if 'step_seconds' in cost:
        seconds = [cost.get(f'{part}_seconds', 0.0) for part in ('step', 'start', 'checkpoint', 'window')]
    elif cost.get('resumed_from') == 0:
        seconds = [cost['seconds'] / steps]
    else:
        return None
    return Pace(cost.get('kind', kind), cost['parameters'], cost['flops'], int(record['settings']['batch_size']),
                *seconds, steps=steps, memory=cost['peak_memory_mib'], share=cost.get('cpu_share', 1.0))


@dataclass(frozen=True)
class Estimate:
    """Of a work, scaled from a pace: times of steps and windows by FLOPs, those of checkpoints by parameters.

    Args:
        ratio: FLOPs of its step as those of the pace's.
        scaled: whether the pace is of another kind.
        step: seconds of one; `seconds` of all.
        memory: MiB at most; None: not known of this kind.
    """
    work: Work
    pace: Pace
    ratio: float
    scaled: bool
    step: float
    seconds: float
    memory: float | None


def estimate(work: Work, paces: Iterable[Pace]) -> Estimate | None:
    """By the pace that is nearest in FLOPs; None: there is none, or the work's FLOPs cannot be counted."""
    if work.kind.counts is None:
        return None
    parameters, flops = work.kind.counts

    def ratio(pace: Pace) -> float:
        return flops * work.kind.experiment.batch / (pace.flops * pace.batch)

    def distance(pace: Pace) -> tuple:  # of those equally near the longest timed
        return abs(math.log(ratio(pace))), pace.kind != work.kind.what, -pace.steps

    ordered = sorted(paces, key=lambda pace: (distance(pace), pace.step))
    if not ordered:
        return None
    same = [pace for pace in ordered if distance(pace) == distance(ordered[0])]
    pace = same[len(same) // 2]
    step, scaled = pace.step * ratio(pace), distance(pace)[:2] != (0, False)
    seconds = (pace.start + work.steps * step + work.windows * pace.window * flops / pace.flops
               + work.checkpoints * pace.checkpoint * parameters / pace.parameters)
    return Estimate(work, pace, ratio(pace), scaled, step, seconds, None if scaled else pace.memory)


@dataclass
class Device:
    """A GPU, or a CPU shared out over workers, and the paces that are known of it.

    Args:
        hardware: as records have it; empty of the paper's.
        calibrated: from calibrations; `finished`: by run, from the grids' own records.
    """
    name: str
    origin: str
    hardware: dict = field(default_factory=dict)
    calibrated: list[Pace] = field(default_factory=list)
    finished: dict[str, Pace] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        return 'machine' if self.hardware and self.hardware['gpu'] is None else 'GPU'

    @property
    def workers(self) -> int:
        """Runs at a time on one."""
        return max((self.hardware['cores'] or 1) // self.hardware['threads'], 1) if self.unit == 'machine' else 1

    def estimate(self, work: Work) -> Estimate | None:
        return estimate(work, [*self.calibrated, *self.finished.values()])


def device_name(hardware: dict) -> str:
    return hardware['gpu'] or f'{hardware["cpu"]}, {hardware["cores"]} cores, {hardware["threads"]} per run'


def device_folder(name: str) -> Path:
    """Of a device's calibrations."""
    return CALIBRATIONS / file_name(name)


def file_name(words: str) -> str:
    return re.sub(r'[^a-z0-9]+', '-', words.lower()).strip('-')


def choose_device(name: str, works: Iterable[GridWork], to_calibrate: str) -> Device:
    """What is known of a device: its calibrations, and those of the grids' finished runs that were recorded on it.

    Args:
        name: of the device, or of its folder.
        to_calibrate: the command that calibrates a device, for who has none.

    Raises:
        UserError: nothing is known of it, or a calibration is damaged.
    """
    if name == PUBLISHED:
        return _published_device()
    records = []
    for path in sorted(device_folder(name).glob('*.json')):
        try:
            records.append(open_record(path.read_text()))
        except (UserError, UnicodeDecodeError) as error:
            raise UserError(f'{path}: not a calibration ({error}); delete it and run: {to_calibrate}') from None
    calibrated, finished = [pace for record in records if (pace := read_pace(record))], {}
    for work, record in (entry for one in works for entry in one.finished):
        if device_folder(device_name(record['hardware'])) == device_folder(name):
            records.append(record)
            if pace := read_pace(record, work.kind.what):
                finished[work.name] = pace
    if not calibrated and not finished:
        known = sorted(path.name for path in CALIBRATIONS.glob('*/'))
        raise UserError(f'no calibration of {name!r}; known: {", ".join([*known, PUBLISHED])} (--device NAME); '
                        f'to make one, on that machine: {to_calibrate}')
    hardware = records[0]['hardware']
    origin = f'by {len(calibrated)} calibrations and {len(finished)} finished runs'
    return Device(device_name(hardware), origin, hardware, calibrated, finished)


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
    return Device(PUBLISHED, origin, calibrated=[published])


def schedule(seconds: dict[str, float], needs: dict[str, str | None], slots: int) -> float:
    """Seconds until all is done on `slots` workers, each free one taking the longest work that can start.

    What others need goes first, as the grid's runner has it.

    Args:
        seconds: by name.
        needs: the name that must be done before; one without seconds is taken to be there.
    """
    needed = set(needs.values())
    waiting = sorted(seconds, key=lambda name: (name not in needed, -seconds[name]))
    running, done, now = [], set(), 0.0
    while waiting or running:
        ready = [name for name in waiting if needs.get(name) not in seconds or needs[name] in done]
        for name in ready[:slots - len(running)]:
            waiting.remove(name)
            heapq.heappush(running, (now + seconds[name], name))
        now, name = heapq.heappop(running)
        done.add(name)
    return now
