"""Run a grid: python benchmarks/run_grid.py [--grid phantom|hippocampus|bcv|FILE.yaml]

Cells -> runs -> records -> tables. Finished runs are skipped, interrupted ones go on from their last
checkpoint, failed ones are recorded with their reason while the rest goes on.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from benchmarks.cells import Cell, Grid, load_grid  # noqa: E402
from benchmarks.pool import Job, run_jobs  # noqa: E402
from mmseg_plugins.errors import UserError, run_main  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Run a grid of cells and render its tables.')
    parser.add_argument('--grid', nargs='+', default=['phantom'],
                        help='name in benchmarks/grids, or a YAML file; with --plan also several')
    parser.add_argument('--tables', nargs='+', help='only these tables, e.g. 2a 4d')
    axes = parser.add_argument_group('free axes (their product replaces the tables)')
    for axis, kind in (('encoders', str), ('sources', str), ('inflations', str), ('slices', int),
                       ('strides', int), ('targets', str)):
        axes.add_argument(f'--{axis}', nargs='+', type=kind)
    parser.add_argument('--dataset', nargs='+', metavar='NAME',
                        help='of a grid over several datasets, only these; of a grid that has one, another in its '
                             'place: the results get a folder of their own')
    parser.add_argument('--seeds', nargs='+', type=int)
    parser.add_argument('--data-root', type=Path, default=Path('data'),
                        help='folder that holds the archives (default: data)')
    parser.add_argument('--weights-root', type=Path, default=Path('weights'),
                        help='folder that holds the source checkpoints (default: weights)')
    parser.add_argument('--out', type=Path, help='records, tables, page (default: work_dirs/grids/<grid>)')
    parser.add_argument('--max-iters', type=int, help='steps of every run, for trying out')
    parser.add_argument('--workers', type=int, help='processes (default: one per GPU, or per core without one)')
    parser.add_argument('--dry-run', action='store_true', help='list the cells and their commands')
    parser.add_argument('--retry-failed', action='store_true', help='from their last good checkpoint')
    parser.add_argument('--halve-on-oom', action='store_true',
                        help='try a step that does not fit into memory once more, in passes of half the size')
    planning = parser.add_argument_group('how long it will take (nothing is run)')
    planning.add_argument('--plan', action='store_true', help='estimate time, disk and memory of what is to do')
    planning.add_argument('--device', metavar='NAME', help='as calibrated on this device (default: the one here)')
    planning.add_argument('--calibrate', action='store_true', help='first measure a few steps of every kind here')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if (args.workers or 1) < 1 or (args.max_iters or 1) < 1:
        raise UserError('--workers and --max-iters must be at least 1')
    grids = [load_grid(name, args.tables, args.seeds, encoder=args.encoders, source=args.sources,
                       inflation=args.inflations, slices=args.slices, stride=args.strides,
                       target=args.targets, datasets=args.dataset) for name in args.grid]
    if args.plan:
        return show_estimate(grids, args)
    if args.calibrate or args.device:
        raise UserError('--calibrate and --device go with --plan')
    if len(grids) > 1:
        raise UserError('--grid: one grid at a time; only --plan takes several')
    [grid] = grids
    out = output_folder(grid, args)
    from benchmarks.plan import PREPARED, find_archives, plan_runs, prepare_inputs, prepare_sources

    archives = find_archives(grid, args.data_root)
    if args.dry_run:
        return list_cells(grid, args)

    from benchmarks.progress import Progress
    from benchmarks.records import set_superseded_aside, write_summary
    from mmseg_plugins.datasets import read_index
    from mmseg_plugins.datasets.statistics import summarize_dataset
    from mmseg_plugins.files import only_writer, write_atomic

    work = Path('work_dirs/grids') / grid.name
    with ExitStack() as locks, Progress() as progress:
        for folder in dict.fromkeys([work.resolve(), out.resolve()]):
            locks.enter_context(only_writer(folder))
        prepare_inputs(grid, archives, args.weights_root, progress)
        write_atomic(out / 'grid.yaml', grid.text)
        for dataset in grid.datasets:
            write_summary(out, dataset, summarize_dataset(read_index(PREPARED / dataset)))
        plan = plan_runs(grid, args.weights_root, out, args.max_iters, args.retry_failed)
        prepare_sources(plan)
        if moved := set_superseded_aside(out, plan.runs):
            progress.say(f'{moved} records of an earlier config or data set aside in {out / "superseded"}')
        resources = find_resources(args.workers)
        print(f'{grid.title}: {len(plan.runs)} runs, {plan.finished} finished before, '
              f'{len(plan.todo)} to do with {resources}')
        failed = execute(plan, resources, work, out, progress, args.halve_on_oom)
    from benchmarks.report import render

    page = render(out)
    if failed:
        print(f'{failed} runs failed; their records under {out / "records"} say why '
              '(--retry-failed runs them again)', file=sys.stderr)
    print(page)
    return 1 if failed else 0


def output_folder(grid: Grid, args: argparse.Namespace) -> Path:
    # a shortened trial must not be taken for the grid itself
    trial = f'-{args.max_iters}-steps' if args.max_iters else ''
    return args.out or Path('work_dirs/grids') / f'{grid.name}{trial}'


@dataclass(frozen=True)
class Resources:
    """Worker processes, torch threads of each, and the GPUs they share (CUDA's names)."""
    workers: int
    threads: int
    devices: Sequence[str]

    def __str__(self) -> str:
        on = f' on {len(self.devices)} GPU(s)' if self.devices else ''
        return f'{self.workers} workers of {self.threads} thread(s){on}'


def find_resources(workers: int | None) -> Resources:
    """One worker per GPU; without one, one-thread workers share CPU cores best."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    count = torch.cuda.device_count()
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    devices = (visible.split(',') if visible else [str(number) for number in range(count)])[:count]
    workers = workers or count or cores
    return Resources(workers, max(cores // workers, 1), devices)


def list_cells(grid: Grid, args: argparse.Namespace) -> int:
    from benchmarks.plan import make_run

    rows: dict[Cell, list[str]] = {}
    for table, cells in grid.tables.items():
        for row, cell in cells.items():
            for same in grid.on_each([cell]):
                rows.setdefault(same, []).append(f'{table} {row}')
    cells = grid.cells()
    for cell in cells:
        print(f'{cell}    {"; ".join(rows.get(cell, ["free axes"]))}')
        for seed in grid.seeds:
            print(f'    {make_run(grid, cell, seed, args.weights_root, args.max_iters).command}')
    for name in dict.fromkeys(cell.source for cell in cells if cell.source != 'none'):
        source = grid.sources[name]
        path = args.weights_root / source.file
        state = ('found' if path.is_file() else f'made by the grid from {source.made_by}' if source.made_by
                 else f'missing: {source.origin}')
        print(f'source {name}: {path} ({state})')
    print(f'{len(cells)} cells, {len(cells) * len(grid.seeds)} runs')
    return 0


def show_estimate(grids: list[Grid], args: argparse.Namespace) -> int:
    """Print what the grids will take, after measuring their steps here if asked to."""
    from benchmarks.calibrate import calibrate, this_device
    from benchmarks.devices import slug
    from benchmarks.estimate import choose_device, estimate, grid_work, show_plan
    from benchmarks.plan import find_archives, plan_runs
    from benchmarks.progress import Progress
    from mmseg_plugins.terminal import counter

    if args.out and len(grids) > 1:
        raise UserError('--out is of one grid; leave it out, or plan one at a time')
    resources = find_resources(args.workers)
    machine = (resources.workers, resources.threads, resources.devices)
    here = this_device(*machine)
    if args.calibrate and args.device and slug(args.device) != slug(here):
        raise UserError(f'--calibrate measures the device that is here, {here!r}; leave --device out')
    command = f'python benchmarks/run_grid.py --grid {" ".join(args.grid)} --plan --calibrate'
    if args.workers:
        command += f' --workers {args.workers}'
    device = None if args.calibrate else choose_device(args.device or here, command)
    works, count = [], counter('planning')
    for number, grid in enumerate(grids):
        count(number, len(grids), grid.name)
        find_archives(grid, args.data_root)  # knows every dataset, or says which it does not
        out = output_folder(grid, args)
        plan = plan_runs(grid, args.weights_root, out, args.max_iters, args.retry_failed)
        works.append(grid_work(grid, plan, out))
        for work in works[-1].to_do if device else ():
            estimate(work, device)  # counts FLOPs where it needs them
    count(len(grids), len(grids), '')
    if args.calibrate:
        costs = {digest: cost for work in works for digest, cost in work.costs.items()}
        with Progress() as progress:
            path = calibrate(costs, *machine, progress,
                             shlex.join(['python', 'benchmarks/run_grid.py', *sys.argv[1:]]))
        device = choose_device(here, command)
    show_plan(works, device)
    if args.calibrate:
        print(path)
    return 0


def execute(plan, resources: Resources, work: Path, out: Path, progress, halve: bool) -> int:
    """Run what is to do, in `work`; returns how many runs failed."""
    jobs = [Job(('source', source.name), 'benchmarks.runner:execute_pretraining',
                (source.config, source.options, source.out, work / 'sources' / f'{source.name}-{source.digest}',
                 source.digest),
                frozenset({('source', source.needs)} if source.needs else ()))
            for source in plan.sources]
    steps = {job.name: source.steps for job, source in zip(jobs, plan.sources, strict=True)}
    made = {source.name for source in plan.sources}
    runs = {run.name: run for run in plan.todo}
    # runs from random weights need not wait for a source that is still being made
    for run in sorted(plan.todo, key=lambda run: run.cell.source in made):
        needs = frozenset({('source', run.cell.source)} if run.cell.source in made else ())
        jobs.append(Job(run.name, 'benchmarks.runner:execute_run',
                        (run, out, work / 'runs' / run.name), needs, dict(halve=halve)))
        steps[run.name] = run.options.get('experiment.steps') or plan.steps[run.name]
    failed = 0

    def on_event(kind: str, name, value) -> None:
        nonlocal failed
        if kind == 'progress':
            progress.advance(name, *value)
            return
        if name not in runs:
            if kind != 'done':
                progress.say(f'source {name[1]}: {"again" if kind == "again" else "failed"}: {value}')
            if kind != 'again':
                progress.finish(name)
            return
        if kind == 'again':
            progress.say(f'again  {runs[name].cell} seed {runs[name].seed}, from its last checkpoint: {value}')
            return
        reason = value
        if kind != 'done':
            from benchmarks.runner import record_failure

            reason = value if kind == 'dead' else f'its source could not be made ({sorted(value)})'
            record_failure(runs[name], out, work / 'runs' / runs[name].name, reason)
        failed += reason is not None
        label = f'{runs[name].cell} seed {runs[name].seed}'
        progress.finish(name, f'failed  {label}: {reason}' if reason else f'done  {label}')

    progress.begin(steps)
    start = time.monotonic()
    run_jobs(jobs, resources.workers, resources.threads, resources.devices, work / 'logs', on_event)
    if jobs:
        made = f' and {len(plan.sources)} sources' if plan.sources else ''
        progress.say(f'{len(runs)} runs{made} in {(time.monotonic() - start) / 60:.1f} minutes')
    return failed


if __name__ == '__main__':
    run_main(main)
