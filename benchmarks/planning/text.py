"""An estimate as text: a row per kind of run, how far estimates were off, sums, disk and memory."""

import math
from collections.abc import Iterator, Sequence
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from mmseg_plugins.work_dir import KEPT

from .estimate import PUBLISHED, Device, Estimate, device_name, estimate, schedule
from .work import Kind, Works

DEVICES = (1, 8, 64)
FAR = 30  # times the FLOPs, or a part of them, beyond which scaling tells nothing
QUIET = 0.9  # of its threads' time that a run on a quiet CPU has, at least
RECORD_BYTES = 50_000  # a record of BCV with its figures, and a prediction of five slices
SECONDS = ((120, 's', 1), (7200, 'min', 60), (172800, 'h', 3600), (math.inf, 'days', 86400))
BYTES = ((2**30, 'MiB', 2**20), (2**40, 'GiB', 2**30), (math.inf, 'TiB', 2**40))


def show_estimate(works: Works, device: Device, console: Console | None = None) -> None:
    """Print what grids take on a device."""
    console = console or Console(width=None if Console().is_terminal else 124, highlight=False)
    for part in _describe(works, device):
        console.print(part, markup=False, soft_wrap=isinstance(part, str))


def _describe(works: Works, device: Device) -> Iterator[str | Table]:
    yield f'device {device.name}: {device.origin}'
    if device.calibrated and (share := median(pace.cpu_share for pace in device.calibrated)) < QUIET:
        yield (f'calibrated while something else was at work, or loading held steps up: runs had {share:.0%} of '
               f'their cores; on a quiet machine all takes down to x {share:.2f}')
    phases = []
    for agenda, kinds in works:
        made = f', {len(agenda.sources)} sources to make' if agenda.sources else ''
        yield f'\n{agenda.title}: {agenda.counts}{made}'
        found = {kind: device.estimate(kind) for kind in kinds if kind.to_do}
        far = {kind: one for kind, one in found.items() if one and device.name != PUBLISHED and _is_far(one)}
        estimates = [one for kind, one in found.items() if one and kind not in far]
        if estimates:
            yield from _describe_kinds(estimates)
        for kind in (kind for kind, one in found.items() if not one):
            yield f'! {kind.what}: its FLOPs cannot be counted, so its time cannot be told: left out of all sums'
        for kind, one in far.items():
            yield (f'! {kind.what}: the nearest that was timed here differs x {one.ratio:.3g} in FLOPs, so its '
                   'time cannot be told: left out of all sums; --calibrate measures it')
        yield from _describe_error(kinds, device)
        phases.append(estimates)
    yield from _describe_sums(phases, device)
    if everything := [one for estimates in phases for one in estimates]:
        yield from _describe_memory(everything, device)
        yield from _describe_disk(everything, device, sum(len(agenda.todo) for agenda, _ in works))


def _is_far(one: Estimate) -> bool:
    return not 1 / FAR < one.ratio < FAR


def _describe_kinds(estimates: list[Estimate]) -> Iterator[str | Table]:
    """A row per kind, and what those that are scaled are scaled from."""
    yield _table('kind', 'runs', 'steps', 'step', 'scaled', 'one run', 'all', 'memory', rows=[
        (one.kind.what, f'{len(one.kind.to_do)}', f'{one.kind.steps:,}', f'{one.step:.3g} s',
         f'x {one.ratio:.3g}' * one.scaled, in_units(one.seconds, SECONDS),
         in_units(one.seconds * len(one.kind.to_do), SECONDS),
         f'> {one.least / 1024:.1f} GiB' if one.memory is None else f'{one.memory / 1024:.1f} GiB')
        for one in estimates])
    for what in sorted({one.pace.kind for one in estimates if one.scaled}):
        far = any(_is_far(one) for one in estimates if one.scaled and one.pace.kind == what)
        yield (f'scaled: not recorded there, but by FLOPs from: {what}'
               + '; too far from it to tell, as small steps take more than their FLOPs' * far)


def _describe_error(kinds: list[Kind], device: Device) -> Iterator[str]:
    """Recorded seconds beside what calibrations say, or without any what the other finished runs do."""
    compared, left_out = {}, []
    for kind in kinds:
        for run, record in kind.finished.items():
            name, own = device_name(record['hardware']), device.finished.get(run)
            others = device.calibrated or [pace for pace in device.finished.values() if pace is not own]
            if name != device.name:
                left_out.append(f'recorded on {name}')
            elif not own or record['cost'].get('resumed_from'):
                left_out.append('failed, resumed on the way, or of several processes')
            elif one := estimate(kind, others):
                compared[run] = record['cost']['seconds'], one.seconds
    if compared:
        recorded, guessed = map(sum, zip(*compared.values(), strict=True))
        errors = {run: 100 * (guess / truth - 1) for run, (truth, guess) in compared.items()}
        worst = max(errors, key=lambda run: abs(errors[run]))
        yield (f'{len(errors)} finished runs: recorded {in_units(recorded, SECONDS)} of work, by '
               f'{"the calibrations" if device.calibrated else "each other"} {in_units(guessed, SECONDS)} '
               f'({round(100 * (guessed / recorded - 1)):+} %); a run is off by '
               f'{median(map(abs, errors.values())):.0f} % (median), at most {round(errors[worst]):+} % ({worst})')
    for why in dict.fromkeys(left_out):
        yield f'{left_out.count(why)} finished runs left out of that comparison: {why}'


def _describe_sums(phases: list[list[Estimate]], device: Device) -> Iterator[str | Table]:
    """Of what comes one after another: a grid's search, its runs, and those of the next grid."""
    works = [({name: one.seconds for one in estimates for name in one.kind.to_do},
              {name: before for one in estimates for name, before in one.kind.to_do.items()})
             for estimates in phases if estimates]
    unit, workers = device.unit, device.workers
    total = sum(sum(seconds.values()) for seconds, _ in works) / workers
    yield (f'\n{sum(len(seconds) for seconds, _ in works)} trainings to do: '
           + (f'{total / 3600:,.1f} {unit}-hours' if total >= 360 else f'{total / 60:.1f} {unit}-minutes'))
    if works:
        yield _table(f'{unit}s', 'until all is done', rows=[
            (f'{number}', in_units(sum(schedule(*work, number * workers) for work in works), SECONDS))
            for number in DEVICES])
        shared = f'a {unit} runs {workers} at a time' if workers > 1 else f'one run per {unit}'
        most = math.ceil(max(len(seconds) for seconds, _ in works) / workers)
        order = ', searches before runs, and one grid after another' * (len(works) > 1)
        yield (f'{shared}, longest first, sources before what needs them{order}; more than {most} {unit}s do not '
               'help, unless a run is spread over several (tools/dist_train.sh)')


def _describe_memory(estimates: list[Estimate], device: Device) -> Iterator[str]:
    known = [one for one in estimates if one.memory is not None]
    if known:
        fullest = max(known, key=lambda one: one.memory)
        of = (f'resident memory of {device.workers} workers, libraries included' if device.unit == 'machine' else
              'torch\'s peak on the GPU')
        yield f'memory: {fullest.memory * device.workers / 1024:.1f} GiB ({of}) at most: {fullest.kind.what}'
    if len(known) < len(estimates):
        known_by = 'published' if device.name == PUBLISHED else 'recorded there'
        yield f'memory: not {known_by} of all kinds; the least (>) is weights, gradients and AdamW\'s two moments'
    if device.memory and device.workers * max(one.memory or one.least for one in estimates) > device.memory:
        yield (f'warning: that is more than the {device.memory / 1024:.1f} GiB there are; divide each step, with '
               'options: {experiment.accumulate: 2} in the grid file, or take fewer --workers')


def _describe_disk(estimates: list[Estimate], device: Device, runs: int) -> Iterator[str]:
    # finished runs and sources keep their weights, those of a search nothing; a checkpoint holds no gradients
    kept = sum(len(one.kind.to_do) * one.least for one in estimates if not (one.kind.run and one.kind.run.setting))
    at_work = device.workers * max(one.least for one in estimates)
    weights, checkpoints = kept / 4 * 2**20, KEPT * at_work * 3 / 4 * 2**20
    datasets = {one.kind.folder: one.kind for one in estimates}.values()
    assumed = {kind.assumed: None for kind in datasets if kind.assumed}
    yield (f'disk: {in_units(weights, BYTES)} of trained weights, {in_units(checkpoints, BYTES)} of '
           f'checkpoints ({KEPT} per training at work), '
           f'{in_units(sum(kind.stored for kind in datasets), BYTES)} of prepared data'
           f'{" (estimated)" * bool(assumed)}, {in_units(RECORD_BYTES * runs, BYTES)} of records and predictions')
    for who in assumed:
        names = ', '.join(sorted(kind.folder.name for kind in datasets if kind.assumed == who))
        yield f'not prepared yet, so cases, slices and store are assumed, {who}: {names}'


def _table(*columns: str, rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify='left' if column == 'kind' else 'right')
    for row in rows:
        table.add_row(*row)
    return table


def in_units(number: float, units: Sequence[tuple[float, str, int]]) -> str:
    """In the first of `units`, (limit, name, size), that is large enough."""
    return next(f'{number / size:,.1f} {name}' for limit, name, size in units if number < limit)
