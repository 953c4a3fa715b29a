"""Run a grid: python benchmarks/run_grid.py [--grid phantom|hippocampus|bcv|FILE.yaml]

Cells -> runs -> records -> tables. Finished runs are skipped, interrupted ones go on from their last
checkpoint, failed ones are recorded with their reason while the rest goes on.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from benchmarks.executors.base import Executor, choose_executor, execute  # noqa: E402
from benchmarks.executors.local import DebugExecutor, LocalExecutor  # noqa: E402
from benchmarks.executors.slurm import add_arguments  # noqa: E402
from benchmarks.executors.watch import WORK  # noqa: E402
from benchmarks.grid.axes import AXES, Cell  # noqa: E402
from benchmarks.grid.grid import GIVEN, Grid  # noqa: E402
from benchmarks.grid.reader import check_distinct, is_file_name, load_grid  # noqa: E402
from mmseg_plugins.commands import command  # noqa: E402
from mmseg_plugins.errors import UserError, run_main  # noqa: E402
from mmseg_plugins.experiment import import_extensions  # noqa: E402

STEPS = 'steps.json'  # in the folder of a grid of equal seconds: of each cell, as they were counted first


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Run a grid of cells and render its tables.')
    parser.add_argument('--grid', nargs='+', default=['phantom'],
                        help='name in benchmarks/grids, or a YAML file; with --plan also several')
    parser.add_argument('--tables', nargs='+', help='only these tables, e.g. 2a 4d')
    axes = parser.add_argument_group('free axes (their product replaces the tables)')
    for axis in AXES.values():
        axes.add_argument(axis.flag, nargs='+', type=axis.parse)
    parser.add_argument('--dataset', nargs='+', metavar='NAME',
                        help='of a grid over several datasets, only these; of a grid that has one, another in its '
                             'place: the results get a folder of their own')
    parser.add_argument('--seeds', nargs='+', type=int)
    parser.add_argument('--folds', type=int, metavar='N',
                        help='cross-validate: a run of each seed for each of N folds of all cases (1: as the data '
                             'is split); the results get a folder of their own')
    parser.add_argument('--data-root', type=Path, default=Path('data'),
                        help='folder that holds the archives (default: data)')
    parser.add_argument('--weights-root', type=Path, default=Path('weights'),
                        help='folder that holds the source checkpoints (default: weights)')
    parser.add_argument('--out', type=Path, help='records, tables, page (default: work_dirs/grids/<grid>)')
    parser.add_argument('--max-iters', type=int, help='steps of every run, for trying out')
    parser.add_argument('--executor', default='local', metavar='NAME',
                        help='local (the default): worker processes here; slurm: a cluster; debug: this process, '
                             'one run after another; or one of your own (--imports)')
    parser.add_argument('--imports', nargs='+', default=[], metavar='MODULE',
                        help='your own modules that register an executor; those of runs stand in the grid file')
    parser.add_argument('--workers', type=int, help='of --executor local (default: one per GPU, or per core)')
    parser.add_argument('--dry-run', action='store_true', help='list the cells and their commands')
    parser.add_argument('--search', action='store_true',
                        help='of a grid with `tune`: only choose the settings, and not by the committed search')
    parser.add_argument('--retry-failed', action='store_true', help='from their last good checkpoint')
    parser.add_argument('--halve-on-oom', action='store_true',
                        help='try a step that does not fit into memory once more, in passes of half the size')
    add_arguments(parser)
    planning = parser.add_argument_group('how long it will take (nothing is run)')
    planning.add_argument('--plan', action='store_true', help='estimate time, disk and memory of what is to do')
    planning.add_argument('--device', metavar='NAME', help='as calibrated on this device (default: the one here)')
    planning.add_argument('--calibrate', action='store_true', help='first measure a few steps of every kind here')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if any(number is not None and number < 1 for number in (args.workers, args.max_iters)):
        raise UserError('--workers and --max-iters must be at least 1')
    for option, values in vars(args).items():
        if isinstance(values, list):
            check_distinct(values, f'--{option.replace("_", "-")}')
    import_extensions(args.imports, '--imports')
    free = {name: getattr(args, axis.dest) for name, axis in AXES.items()}
    grids = [load_grid(name, args.tables, args.seeds, args.dataset, args.folds, **free) for name in args.grid]
    for grid in grids:
        if args.search and not grid.tune:
            raise UserError(f'--search: grid {grid.name} has no `tune`, which says what to choose from')
    if args.plan:
        for option in ('dry_run', 'halve_on_oom'):
            if getattr(args, option):
                raise UserError(f'--{option.replace("_", "-")} and --plan exclude each other; leave one out')
        return estimate_grids(grids, args)
    if len(grids) > 1:
        raise UserError('--grid: one grid at a time; only --plan takes several')
    [grid] = grids
    if args.calibrate or args.device and grid.equal == 'steps':
        raise UserError('--calibrate and --device go with --plan')
    out = output_folder(grid, args)
    if args.max_iters and (kept := out / 'grid.yaml').is_file() and not load_grid(str(kept)).given('--max-iters'):
        raise UserError(f'--out {out}: has the runs of the grid itself; name another folder for --max-iters')
    from benchmarks.runs.agenda import Agenda, list_runs, make_agenda, prepare_sources
    from benchmarks.runs.inputs import PREPARED, find_archives, prepare_inputs
    from benchmarks.runs.search import choose, describe_choice, each_once, list_search

    archives = find_archives(grid, args.data_root)
    leave_absent_out(grid, args)
    executor = choose_executor(args)
    if args.dry_run:
        make_equal(grid, args, executor)
        return list_cells(grid, args)
    from benchmarks.runs.records import (
        bring_back,
        read_object,
        renew_search,
        set_superseded_aside,
        write_summary,
    )
    from benchmarks.runs.run import Run
    from mmseg_plugins.datasets import read_index
    from mmseg_plugins.datasets.statistics import summarize_dataset
    from mmseg_plugins.files import only_writer, write_atomic, write_json
    from mmseg_plugins.progress import Progress

    work = work_folder(grid, args)
    with ExitStack() as locks, Progress(shown=not isinstance(executor, DebugExecutor)) as progress:
        for folder in dict.fromkeys([work.resolve(), out.resolve()]):
            locks.enter_context(only_writer(folder))

        def carry_out(agenda: Agenda, into: Path, work: Path, others: Sequence[Run] = ()) -> bool:
            """Whether there is nothing more to do. Of `others`, too, no earlier config's record stays."""
            prepare_sources(agenda)
            if moved := set_superseded_aside(into, [*agenda.runs, *others]):
                progress.say(f'{moved} records of an earlier config or data set aside in {into / "superseded"}')
            print(f'{agenda.title}: {agenda.counts} with {executor}')
            failed, lost = execute(agenda, executor, work, into, progress, args.halve_on_oom)
            if failed:
                print(f'{failed} runs failed; their records under {into / "records"} say why '
                      '(--retry-failed runs them again)', file=sys.stderr)
            if lost:
                print(f'{lost} runs ended without a record, for the reasons above; call again to run these',
                      file=sys.stderr)
            return not (failed or lost or agenda.failed)

        print(f'into {out}; to follow it from elsewhere: {command("benchmarks/report.py", out, "--watch")}')
        prepare_inputs(grid, archives, args.data_root, args.weights_root, progress)
        make_equal(grid, args, executor)
        if grid.steps:
            counted = {name: grid.steps[cell] for cell, name in name_steps(grid.steps).items()}
            write_json(out / STEPS, (read_object(out / STEPS) or {}) | counted)
        write_atomic(out / 'grid.yaml', f'# {given_command(args)}\n{re.sub(GIVEN, "", grid.text, count=1)}')
        for dataset in grid.datasets:
            write_summary(out, dataset, summarize_dataset(read_index(PREPARED / dataset), grid.folds,
                                                          grid.options.get('experiment.evaluate')))
        search, folders = list_search(grid, args.weights_root, args.max_iters), search_folders(grid, out, args)
        complete = True
        if search:
            bring_back(folders[0], each_once(search))
            agenda = make_agenda(grid, each_once(search), args.weights_root, folders, args.retry_failed,
                                 f', search (read from {", else from ".join(map(str, folders))})')
            carry_out(agenda, folders[0], work / 'search')  # a setting that fails is one that is not chosen
            if executor.detach and agenda.todo:
                print('call again for the runs, once their search has ended')
                return 0
        choices = choose(grid, search, folders)
        for searched, choice in choices.items():
            print(describe_choice(searched, choice))
        for cell, _ in search.keys() - choices.keys():
            complete = False
            print(f'{cell}: left out, as not all of its search has ended, or none of it well', file=sys.stderr)
        if args.search:
            return 0 if complete else 1

        def decided(seeds: Sequence[int]) -> list[Run]:
            return [run for run in list_runs(replace(grid, seeds=tuple(seeds)), args.weights_root, args.max_iters,
                                             choices) if (run.cell, run.fold) not in search or run.search]

        seeds = {record.get('seed') for folder in ('records', 'superseded') for record in
                 map(read_object, (out / folder).glob('*.json')) if record} - {*grid.seeds, None}
        runs, others = decided(grid.seeds), decided(sorted(seeds)) if seeds else []
        if back := bring_back(out, [*runs, *others]):
            progress.say(f'{back} records that had been set aside are of this config and data, and back')
        renew_search(out, runs)
        agenda = make_agenda(grid, runs, args.weights_root, [out], args.retry_failed)
        complete &= carry_out(agenda, out, work, others)
    if executor.detach:
        return 0
    from benchmarks.report import render

    if any((out / 'records').glob('*.json')):  # jobs may have left none
        print(render(out))
    return 0 if complete else 1


def work_folder(grid: Grid, args: argparse.Namespace) -> Path:
    """Where runs work; a shortened trial neither is taken for the grid itself nor waits for it."""
    trial = f'-{args.max_iters}-steps' if args.max_iters else ''
    return WORK / f'{grid.name}{trial}'


def output_folder(grid: Grid, args: argparse.Namespace) -> Path:
    return args.out or work_folder(grid, args)


def asked(args: argparse.Namespace) -> list[str]:
    """What of a grid is asked for, as options."""
    said = {'--tables': args.tables, **{axis.flag: getattr(args, axis.dest) for axis in AXES.values()},
            '--dataset': args.dataset, '--folds': args.folds and [args.folds]}
    return [str(word) for option, values in said.items() if values for word in (option, *values)]


def given_command(args: argparse.Namespace) -> str:
    """The command that this is, as far as it says what is run, to be told on the page."""
    names = [Path(name).name if Path(name).is_absolute() else name for name in args.grid]
    return shlex.join(['python', 'benchmarks/run_grid.py', '--grid', *names, *asked(args),
                       *(['--seeds', *map(str, args.seeds)] if args.seeds else []),
                       *(['--max-iters', str(args.max_iters)] if args.max_iters else [])])


def device_here(executor: Executor) -> str:
    from benchmarks.planning.estimate import device_name
    from benchmarks.runs.provenance import provenance

    return device_name(provenance()['hardware'] | dict(threads=getattr(executor, 'threads', 1)))


def to_calibrate(args: argparse.Namespace) -> str:
    """The command that calibrates the device that it is called on."""
    return command(
        'benchmarks/run_grid.py', '--grid', *(Path(name) if is_file_name(name) else name for name in args.grid),
        *asked(args), *(['--imports', *args.imports] if args.imports else []),
        '--data-root', args.data_root, '--plan', '--calibrate',
        *(['--workers', args.workers] if args.workers else []))


def make_equal(grid: Grid, args: argparse.Namespace, executor: Executor) -> None:
    """Give each cell of a grid that asks for it as many steps as take the same time on the device.

    A cell that its folder has counted keeps its steps: measured once more, all would be trained again.
    """
    if grid.equal == 'seconds' and not args.max_iters:
        from benchmarks.planning.equal import equal_steps
        from benchmarks.planning.estimate import choose_device
        from benchmarks.runs.records import read_object

        device = choose_device(args.device or device_here(executor), [], to_calibrate(args))
        steps = equal_steps(grid, args.weights_root, device, to_calibrate(args))
        kept = read_object(output_folder(grid, args) / STEPS) or {}
        grid.steps = {cell: kept.get(name, steps[cell]) for cell, name in name_steps(steps).items()}


def name_steps(steps: dict[Cell, int]) -> dict[Cell, str]:
    """By what the steps of a cell are known: it, its dataset's first, and the steps of that."""
    first = {cell.dataset: f'{cell}, {number}' for cell, number in reversed(steps.items())}
    return {cell: f'{cell} beside {first[cell.dataset]}' for cell in steps}


def leave_absent_out(grid: Grid, args: argparse.Namespace) -> None:
    """Run no cell whose source or method cannot be had here, and say what that needs."""
    from benchmarks.runs.inputs import find_absent

    grid.absent = find_absent(grid, args.data_root)
    if args.max_iters:
        commands = {cell.encoder for cell in grid.cells() if cell.without_config}
        grid.absent |= {name: f'--max-iters: rows of {name} are left out, whose command has no steps to shorten'
                        for name in sorted(commands) if 'command' in grid.configs[name]}
    for line in dict.fromkeys(grid.absent.values()):
        print(line)


def search_folders(grid: Grid, out: Path, args: argparse.Namespace) -> list[Path]:
    """Where records of its search are: a grid's own, then the committed ones."""
    return [out / 'search', *([] if args.search else [REPO / 'results' / grid.name / 'search'])]


def list_all(grid: Grid, args: argparse.Namespace) -> tuple[dict, dict, list]:
    """A grid's search, what it has chosen so far, and the runs; a run that waits for its search has no record."""
    from benchmarks.runs.agenda import list_runs
    from benchmarks.runs.search import choose, list_search

    search = list_search(grid, args.weights_root, args.max_iters)
    choices = choose(grid, search, search_folders(grid, output_folder(grid, args), args))
    undecided = search.keys() - choices.keys()
    runs = [] if args.search else list_runs(grid, args.weights_root, args.max_iters, choices)
    return search, choices, [replace(run, identity='undecided') if (run.cell, run.fold) in undecided else run
                             for run in runs]


def list_cells(grid: Grid, args: argparse.Namespace) -> int:
    from benchmarks.runs.inputs import is_prepared
    from benchmarks.runs.search import each_once
    from mmseg_plugins.datasets.splits import describe_fold

    cells, to_run = grid.row_names(), grid.cells_to_run()
    search, choices, runs = list_all(grid, args)
    for cell, rows in cells.items():
        print(f'{cell}    {rows or "free axes"}')
        undecided = [searched for searched in search if searched[0] == cell and searched not in choices]
        for run in sum((search[searched] for searched in undecided), []):
            print(f'    search: {run.command()}')
        for run in runs:
            if run.cell == cell:
                fold = f'seed {run.seed}, {describe_fold(run.fold)}: ' if run.fold else ''
                print(f'    {fold}{run.command()}')
        if cell not in to_run:
            print('    left out' if grid.lacks(cell) else
                  '    label maps from elsewhere; tools/score.py scores them')
        elif undecided:
            print(f'    (with what the search chooses of {", ".join(grid.tune)})')
    for name in dict.fromkeys(cell.source for cell in cells if cell.source not in ('none', None)):
        source = grid.sources[name]
        path = source.path(args.weights_root)
        state = ('found' if path.is_file() else f'made by the grid from {source.made_by or source.needs}'
                 if source.made_by or source.permuted else f'missing: tools/sources.py --get {name}'
                 if source.places else f'missing: {source.origin}')
        print(f'source {name}: {path} ({state})')
    if unprepared := [name for name in grid.datasets if not is_prepared(name)]:
        search_too = ', and no search that was made is found' if search else ''
        print(f'not prepared yet, so that the names of their runs will be others{search_too}: '
              f'{", ".join(unprepared)}')
    searched = len(each_once({each: search[each] for each in search.keys() - choices.keys()}))
    folds = f', {grid.folds} folds of each seed, as data/prepared/DATASET/folds_{grid.folds}.json will have them'
    print(f'{len(cells)} cells, {len(runs)} runs{f", {searched} of their search" * bool(searched)}'
          f'{folds if grid.folds else ""}')
    return 0


def estimate_grids(grids: list[Grid], args: argparse.Namespace) -> int:
    """Print what the grids will take, after short runs of every kind here if asked to."""
    from benchmarks.planning.calibration import calibrate
    from benchmarks.planning.estimate import choose_device, device_folder
    from benchmarks.planning.text import show_estimate
    from benchmarks.planning.work import Works, list_kinds
    from benchmarks.runs.agenda import make_agenda
    from benchmarks.runs.inputs import find_archives
    from benchmarks.runs.search import each_once
    from mmseg_plugins.faults import total_memory
    from mmseg_plugins.progress import Progress, counting

    if args.out and len(grids) > 1:
        raise UserError('--out is of one grid; leave it out, or plan one at a time')
    local = choose_executor(args)
    if not isinstance(local, LocalExecutor):
        raise UserError('--plan is for the device here, or for --device NAME; leave --executor out')
    here = device_here(local)
    if args.calibrate and args.device and device_folder(args.device) != device_folder(here):
        raise UserError(f'--calibrate measures the device that is here, {here!r}; leave --device out')

    for grid in grids:
        leave_absent_out(grid, args)

    def list_works() -> Works:
        works = []
        with counting('planning') as count:
            for number, grid in enumerate(grids):
                count(number, len(grids), grid.name)
                find_archives(grid, args.data_root)  # knows every dataset, or says which it does not
                out = output_folder(grid, args)
                search, _, runs = list_all(grid, args)
                kept = search_folders(grid, out, args)
                for title, listed, folders in ((', search', each_once(search), kept), ('', runs, [out])):
                    if listed:
                        agenda = make_agenda(grid, listed, args.weights_root, folders, args.retry_failed, title)
                        made = {source.name for earlier, _ in works for source in earlier.sources}
                        agenda.sources = [source for source in agenda.sources if source.name not in made]
                        works.append((agenda, list_kinds(agenda, folders)))
        return works

    if args.calibrate:
        with Progress() as progress:
            here = calibrate(list_works(), local, local.workers, progress,
                             shlex.join(['python', 'benchmarks/run_grid.py', *sys.argv[1:]]))
    for grid in grids:
        make_equal(grid, args, local)
    works = list_works()
    device = choose_device(args.device or here, works, to_calibrate(args))
    device.memory = total_memory() / 2**20 if device.name == here else None
    show_estimate(works, device)
    if methods := {run.cell.encoder for agenda, _ in works for run in agenda.todo if run.cell.without_config}:
        print(f'without {", ".join(sorted(methods))}: how long a command takes, it alone knows')
    if args.calibrate:
        print(device_folder(here))
    return 0


if __name__ == '__main__':
    run_main(main)
