"""What grids will take, printed: a row per kind of run, how far the estimate was off, sums, disk and memory."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from mmseg_plugins.work_dir import KEPT

from .estimate import Device, Estimate, device_name, estimate, schedule
from .work import GridWork

DEVICES = (1, 8, 64)
FAR = 30  # times the FLOPs, or a part of them, beyond which scaling tells nothing
QUIET = 0.9  # of its threads' time that a run on a quiet CPU has, at least
RECORD_BYTES = 50_000  # a record of BCV with its figures, and a prediction of five slices


def show_plan(works: Sequence[GridWork], device: Device, console: Console | None = None) -> None:
    """Print what the grids take on a device."""
    console = console or Console(soft_wrap=False, highlight=False)
    if not console.is_terminal:
        console = Console(width=124, highlight=False, file=console.file)

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    say(f'device {device.name}: {device.origin}')
    everything, unknown = [], {}
    if device.calibrated and (share := median(pace.share for pace in device.calibrated)) < QUIET:
        say(f'calibrated while something else was at work, or loading held steps up: runs had {share:.0%} of '
            f'their cores; on a quiet machine all takes down to x {share:.2f}')
    for one in works:
        sources = f', {len(one.plan.sources)} sources to make' if one.plan.sources else ''
        say(f'\n{one.grid.title}: {one.plan.counts}{sources}')
        found = [(work, device.estimate(work)) for work in one.to_do]
        unknown |= {work.kind.what: None for work, entry in found if not entry}
        estimates = [entry for _, entry in found if entry]
        if estimates:
            console.print(_kinds(estimates))
        scaled = [entry for entry in estimates if entry.scaled]
        for kind in sorted({entry.pace.kind for entry in scaled}):
            far = any(not 1 / FAR < entry.ratio < FAR for entry in scaled if entry.pace.kind == kind)
            say(f'scaled: not recorded there, but by FLOPs from: {kind}'
                + ('; too far from it to tell, as small steps take more than their FLOPs' if far else ''))
        _say_error(one, device, say)
        everything += estimates
    for what in unknown:
        say(f'! {what}: its FLOPs cannot be counted, so its time cannot be told: left out of all sums')
    _say_sums(everything, device, console, say)
    if everything:
        _say_disk_and_memory(works, everything, device, say)


def _kinds(estimates: list[Estimate]) -> Table:
    """A row per kind and number of steps."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ('kind', 'runs', 'steps', 'step', 'scaled', 'one run', 'all', 'memory'):
        table.add_column(column, justify='left' if column == 'kind' else 'right')
    rows: dict[tuple, list[Estimate]] = {}
    for entry in estimates:
        rows.setdefault((entry.work.kind.what, entry.work.kind.counts, entry.work.steps), []).append(entry)
    for (what, _, steps), group in rows.items():
        first = group[0]
        memory = f'> {_least(first) / 2**30:.1f}' if first.memory is None else f'{first.memory / 1024:.1f}'
        table.add_row(what, f'{len(group)}', f'{steps:,}', f'{first.step:.3g} s',
                      f'x {first.ratio:.3g}' if first.scaled else '', duration(first.seconds),
                      duration(sum(entry.seconds for entry in group)), f'{memory} GiB')
    return table


def _least(entry: Estimate) -> int:
    """Bytes of float32 weights, gradients and AdamW's two moments."""
    return 4 * 4 * entry.work.kind.counts[0]


def _say_error(one: GridWork, device: Device, say: Callable) -> None:
    """Recorded seconds beside what calibrations say, or without any what the other finished runs do."""
    errors, recorded, guessed, left_out = {}, 0.0, 0.0, Counter()
    for work, record in one.finished:
        own, name = device.finished.get(work.name), device_name(record['hardware'])
        others = device.calibrated or [pace for pace in device.finished.values() if pace is not own]
        if name != device.name:
            left_out[f'recorded on {name}'] += 1
        elif not own or record['cost'].get('resumed_from'):
            left_out['failed, resumed on the way, or of several processes'] += 1
        elif entry := estimate(work, others):
            seconds = record['cost']['seconds']
            recorded, guessed = recorded + seconds, guessed + entry.seconds
            errors[work.name] = (entry.seconds / seconds - 1) * 100
    if errors:
        worst = max(errors, key=lambda name: abs(errors[name]))
        basis = 'the calibrations' if device.calibrated else 'each other'
        say(f'{len(errors)} finished runs: recorded {duration(recorded)} of work, by {basis} {duration(guessed)} '
            f'({(guessed / recorded - 1) * 100:+.0f} %); a run is off by '
            f'{median(map(abs, errors.values())):.0f} % (median), at most {errors[worst]:+.0f} % ({worst})')
    for why, number in left_out.items():
        say(f'{number} finished runs left out of that comparison: {why}')


def _say_sums(estimates: list[Estimate], device: Device, console: Console, say: Callable) -> None:
    seconds = {entry.work.name: entry.seconds for entry in estimates}
    needs = {entry.work.name: entry.work.needs for entry in estimates}
    total, unit, workers = sum(seconds.values()) / device.workers, device.unit, device.workers
    say(f'\n{len(estimates)} trainings to do: '
        + (f'{total / 3600:,.1f} {unit}-hours' if total >= 360 else f'{total / 60:.1f} {unit}-minutes'))
    if not estimates:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in (f'{unit}s', 'until all is done'):
        table.add_column(column, justify='right')
    for number in DEVICES:
        table.add_row(f'{number}', duration(schedule(seconds, needs, number * workers)))
    console.print(table)
    shared = f'a {unit} runs {workers} at a time' if workers > 1 else f'one run per {unit}'
    say(f'{shared}, longest first, sources before what needs them; more than {math.ceil(len(seconds) / workers)} '
        f'{unit}s do not help, unless a run is spread over several (tools/dist_train.sh)')


def _say_disk_and_memory(works: Sequence[GridWork], estimates: list[Estimate], device: Device, say: Callable
                         ) -> None:
    checkpoints = sum(KEPT * _least(entry) * 3 // 4 for entry in estimates)  # no gradients
    data = {entry.work.kind.folder: entry.work.kind.data for entry in estimates}
    guessed = ' (estimated)' if any(facts.assumed for facts in data.values()) else ''
    say(f'disk: {file_size(checkpoints)} of checkpoints ({KEPT} per training), '
        f'{file_size(sum(facts.stored for facts in data.values()))} of prepared data{guessed}, '
        f'{file_size(RECORD_BYTES * sum(len(one.plan.todo) for one in works))} of records and predictions')
    known = [entry for entry in estimates if entry.memory is not None]
    if known:
        fullest = max(known, key=lambda entry: entry.memory)
        of = (f'resident memory of {device.workers} workers, libraries included' if device.unit == 'machine' else
              'torch\'s peak on the GPU')
        say(f'memory: {fullest.memory * device.workers / 1024:.1f} GiB ({of}) at most: {fullest.work.kind.what}')
    if len(known) < len(estimates):
        say(f'memory: not {"recorded there" if device.hardware else "published"} of all kinds; the least (>) is '
            'weights, gradients and AdamW\'s two moments')
    for source in sorted({facts.assumed for facts in data.values()} - {''}):
        names = ', '.join(sorted(folder.name for folder, facts in data.items() if facts.assumed == source))
        say(f'not prepared yet, so cases, slices and store are assumed, {source}: {names}')


def duration(seconds: float) -> str:
    return _in_units(seconds, ((120, 's', 1), (7200, 'min', 60), (172800, 'h', 3600), (math.inf, 'days', 86400)))


def file_size(number: float) -> str:
    return _in_units(number, ((2**30, 'MiB', 2**20), (2**40, 'GiB', 2**30), (math.inf, 'TiB', 2**40)))


def _in_units(number: float, units: Sequence[tuple]) -> str:
    """In the first of `units`, (limit, name, size), that is large enough."""
    return next(f'{number / size:,.1f} {name}' for limit, name, size in units if number < limit)
