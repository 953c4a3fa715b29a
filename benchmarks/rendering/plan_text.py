"""What a grid will take, printed: a row per class of runs, how far the estimate was off, sums, disk and memory."""

import math
from collections.abc import Sequence
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from mmseg_plugins.work_dir import KEPT

from ..devices import Device, Measurement
from ..estimate import STATE, WEIGHT_BYTES, Estimate, GridWork, Work, estimate, schedule

DEVICES = (1, 8, 64)
FAR = 30  # times the FLOPs, or a part of them, beyond which scaling tells nothing
BUSY = 0.9  # share of its cores that a worker on a quiet CPU has, at least
RECORD_BYTES = 50_000  # a record of BCV with its figures, and a prediction of five slices


def show_plan(works: Sequence[GridWork], device: Device, console: Console | None = None) -> None:
    """Print what the grids take on a device."""
    console = console or Console(soft_wrap=False, highlight=False)
    if not console.is_terminal:
        console = Console(width=124, highlight=False, file=console.file)

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    say(f'device {device.name}: {device.origin}')
    shares = [entry.busy for one in works for digest, entry in device.classes.items()
              if digest in one.costs and entry.busy]
    if shares and median(shares) < BUSY:
        say(f'calibrated while something else was at work, or loading held steps up: workers had '
            f'{median(shares):.0%} of their cores; on a quiet machine all takes down to x {median(shares):.2f}')
    everything: dict[str, Estimate] = {}
    unknown: list[Work] = []
    for one in works:
        say(f'\n{one.grid.title}: {one.plan.counts}'
            + (f', {len(one.plan.sources)} sources to make' if one.plan.sources else ''))
        found = {work.name: estimate(work, device) for work in one.to_do}
        unknown += [work for work in one.to_do if found[work.name] is None]
        estimates = [entry for entry in found.values() if entry]
        if estimates:
            console.print(_class_table(estimates, device))
        for what in sorted({entry.scaled.what for entry in estimates if entry.scaled}):
            far = any(not 1 / FAR < entry.measurement.step / entry.scaled.step < FAR for entry in estimates
                      if entry.scaled and entry.scaled.what == what)
            say(f'scaled: not calibrated, but by FLOPs from: {what}'
                + ('; too far from it to tell, as small steps take more than their FLOPs' if far else ''))
        _say_error(one, device, say)
        everything |= {entry.work.name: entry for entry in estimates}
    for what in dict.fromkeys(work.cost.what for work in unknown):
        say(f'! {what}: not calibrated here, and cannot be scaled: left out of all sums')
    _say_sums(works, list(everything.values()), device, console, say)


def _class_table(estimates: list[Estimate], device: Device) -> Table:
    """A row per class, dataset and number of steps."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ('class', 'runs', 'steps', 'step', 'scaled', 'one run', 'all', 'memory'):
        table.add_column(column, justify='left' if column == 'class' else 'right')
    rows: dict[tuple, list[Estimate]] = {}
    for entry in estimates:
        cost = entry.work.cost
        rows.setdefault((cost.folder, cost.digest, entry.work.steps), []).append(entry)
    for (_, _, steps), group in rows.items():
        first, entry = group[0], group[0].measurement
        ratio = f'x {entry.step / first.scaled.step:.3g}' if first.scaled else ''
        table.add_row(first.work.cost.what, f'{len(group)}', f'{steps:,}', f'{entry.step:.3g} s', ratio,
                      duration(first.seconds), duration(sum(one.seconds for one in group)),
                      _memory(entry, device))
    return table


def _memory(entry: Measurement, device: Device) -> str:
    if entry.peak is not None:
        return f'{(entry.peak + device.process) / 1024:.1f} GiB'
    return f'> {STATE * WEIGHT_BYTES * entry.parameters / 2**30:.1f} GiB'


def _say_error(one: GridWork, device: Device, say) -> None:
    """What the estimate says of the runs that are finished, beside what they took."""
    errors, recorded, guessed, elsewhere, unusable = {}, 0.0, 0.0, {}, 0
    for work, record in one.finished:
        cost = record.get('cost', {})
        if record['state'] != 'done' or cost.get('resumed_from') != 0:
            unusable += 1
        elif not device.recorded(record['hardware']):
            hardware = record['hardware']
            name = hardware.get('gpu') or f'{hardware["cpu"]}, {hardware["threads"]} of {hardware["cores"]} cores'
            elsewhere[name] = elsewhere.get(name, 0) + 1
        elif entry := estimate(work, device):
            recorded, guessed = recorded + cost['seconds'], guessed + entry.seconds
            errors[work.name] = (entry.seconds / cost['seconds'] - 1) * 100
    if errors:
        worst = max(errors, key=lambda name: abs(errors[name]))
        say(f'{len(errors)} finished runs: recorded {duration(recorded)} of work, estimated {duration(guessed)} '
            f'({(guessed / recorded - 1) * 100:+.0f} %); a run is off by '
            f'{median(map(abs, errors.values())):.0f} % (median), at most {errors[worst]:+.0f} % ({worst})')
    for name, number in elsewhere.items():
        say(f'{number} finished runs left out of that comparison: recorded on {name}')
    if unusable:
        say(f'{unusable} finished runs left out of that comparison: failed, or resumed on the way')


def _say_sums(works: Sequence[GridWork], estimates: list[Estimate], device: Device, console: Console, say) -> None:
    seconds = {entry.work.name: entry.seconds for entry in estimates}
    needs = {entry.work.name: entry.work.needs for entry in estimates}
    unit = device.unit
    total = sum(seconds.values()) / device.workers
    say(f'\n{len(estimates)} trainings to do: {total / 3600:,.1f} {unit}-hours' if total >= 360 else
        f'\n{len(estimates)} trainings to do: {total / 60:.1f} {unit}-minutes')
    if not estimates:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in (f'{unit}s', 'until all is done'):
        table.add_column(column, justify='right')
    for number in DEVICES:
        table.add_row(f'{number}', duration(schedule(seconds, needs, number * device.workers) + device.load))
    console.print(table)
    shared = f'a {unit} runs {device.workers} at a time' if device.workers > 1 else f'one run per {unit}'
    say(f'{shared}, longest first, sources before what needs them; more than '
        f'{math.ceil(len(seconds) / device.workers)} {unit}s do not help, unless a run is spread over several '
        '(tools/dist_train.sh)')
    _say_disk(works, estimates, say)
    fullest = max((entry for entry in estimates if entry.measurement.peak is not None), default=None,
                  key=lambda entry: entry.measurement.peak)
    if fullest is None:
        say('memory: not published; the least it can be is weights, gradients and AdamW\'s two moments')
    else:
        peak = (fullest.measurement.peak + device.process) * device.workers
        kind = (f'torch\'s peak on the {unit}' if device.is_gpu else
                f'resident memory of {device.workers} workers, libraries included')
        of = f' of {device.memory / 1024:.1f}' if device.memory else ''
        say(f'memory: {peak / 1024:.1f}{of} GiB ({kind}) at most: {fullest.work.cost.what}')
        if device.memory and peak > device.memory:
            say('warning: more than the device has; split each step: experiment.accumulate=2 under the grid\'s '
                '`options`' + (', or fewer --workers' if device.workers > 1 else ''))
    assumed = {(work.cost.folder.name, work.cost.data.assumed) for one in works for work in one.to_do}
    for source in sorted({source for _, source in assumed} - {''}):
        names = ', '.join(sorted(name for name, where in assumed if where == source))
        say(f'not prepared yet, so cases, slices and store are assumed, {source}: {names}')


def _say_disk(works: Sequence[GridWork], estimates: list[Estimate], say) -> None:
    """Checkpoints are known by their bytes, or as weights and two moments."""
    checkpoints = sum(KEPT * (entry.measurement.checkpoint or 3 * WEIGHT_BYTES * entry.measurement.parameters)
                      for entry in estimates)
    folders = {work.cost.folder: work.cost.data for one in works for work in one.to_do}
    stores = sum(data.stored for data in folders.values())
    guessed = ' (estimated)' if any(data.assumed for data in folders.values()) else ''
    records = RECORD_BYTES * sum(len(one.plan.todo) for one in works)
    say(f'disk: {file_size(checkpoints)} of checkpoints ({KEPT} per training), {file_size(stores)} of prepared '
        f'data{guessed}, {file_size(records)} of records and predictions')


def duration(seconds: float) -> str:
    for limit, unit, length in ((120, 's', 1), (7200, 'min', 60), (48 * 3600, 'h', 3600)):
        if seconds < limit:
            return f'{seconds / length:.1f} {unit}'
    return f'{seconds / 86400:,.1f} days'


def file_size(number: float) -> str:
    for limit, unit in ((2**30, 'MiB'), (2**40, 'GiB')):
        if number < limit:
            return f'{number / limit * 1024:.1f} {unit}'
    return f'{number / 2**40:.2f} TiB'
