"""Score a folder of label maps: python tools/score.py FOLDER --dataset NAME --method NAME --out RESULTS

Whatever made them, they are scored against the prepared dataset as this project's own predictions are, and become
a record, which tables and comparisons of RESULTS read beside all others.
"""

import argparse
import sys
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from benchmarks.grid.axes import cell_without_config  # noqa: E402
from benchmarks.grid.reader import load_grid  # noqa: E402
from benchmarks.runs.agenda import data_digest  # noqa: E402
from benchmarks.runs.inputs import PREPARED  # noqa: E402
from benchmarks.runs.provenance import provenance  # noqa: E402
from benchmarks.runs.records import (  # noqa: E402
    describe_method,
    read_records,
    set_superseded_aside,
    write_record,
    write_summary,
)
from benchmarks.runs.run import Run, content_hash  # noqa: E402
from mmseg_plugins.commands import command  # noqa: E402
from mmseg_plugins.datasets import read_index  # noqa: E402
from mmseg_plugins.datasets.splits import read_fold  # noqa: E402
from mmseg_plugins.datasets.statistics import summarize_dataset  # noqa: E402
from mmseg_plugins.errors import UserError, run_main, some  # noqa: E402
from mmseg_plugins.evaluation.folder import score_folder  # noqa: E402
from mmseg_plugins.evaluation.metrics import format_tolerance  # noqa: E402
from mmseg_plugins.experiment import import_extensions  # noqa: E402
from mmseg_plugins.files import only_writer, write_atomic  # noqa: E402
from mmseg_plugins.progress import counting  # noqa: E402
from mmseg_plugins.untrusted import check_name  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Score a folder of label maps against a prepared dataset.')
    parser.add_argument('folder', type=Path, help='holds <case>.nii.gz, or .nii, of every case of the split')
    parser.add_argument('--dataset', required=True, help=f'name of a prepared dataset (below {PREPARED})')
    parser.add_argument('--split', help='of the dataset (default: the one that it is evaluated on), or a part of '
                                        'one: all:0/5 is fold 0 of 5; a method has figures once all 5 are scored')
    parser.add_argument('--method', required=True, metavar='NAME', help='what the tables call it')
    parser.add_argument('--out', type=Path, required=True,
                        help='a folder of results, a grid\'s or a new one; the record goes to its records/')
    parser.add_argument('--seed', type=int, default=0,
                        help='tells several trainings of a method apart (default: 0)')
    parser.add_argument('--made-by', metavar='TEXT', help='what made the label maps, to be kept in the record')
    parser.add_argument('--imports', nargs='+', default=[], metavar='MODULE', help='your own modules: metrics')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    import_extensions(args.imports, '--imports')
    check_name(args.method, '--method')
    prepared = PREPARED / args.dataset
    index = read_index(prepared)
    check_results(args, args.split or index['evaluate'])
    with counting('scoring') as count:
        found = score_folder(args.folder, prepared, args.split, progress=count)
    for note in found.notes:
        print(f'warning: {note}')
    if found.missing:
        print(f'warning: {len(found.missing)} of {len(found.scores.cases)} cases have no label map and count 0: '
              f'{some(found.missing)}')
    print(f'voxel sizes of {args.dataset} are nominal, so nothing is scored in mm' if index['nominal_spacing'] else
          f'normalized surface Dice at {format_tolerance(found.scores.tolerance)}')
    identity = content_hash([data_digest(index, found.split), found.split, found.digest,
                             sorted(found.scores.figures)])
    run = Run(cell_without_config(args.dataset, args.method), args.seed, own_command(args), {}, identity,
              read_fold(found.split))
    with only_writer(args.out):
        if not (args.out / 'grid.yaml').exists():
            write_atomic(args.out / 'grid.yaml', yaml.safe_dump(dict(
                title=f'{args.method} on {args.dataset}', dataset=args.dataset,
                configs={args.method: dict(label_maps=str(args.folder))},
                axes=dict(encoder=[args.method]), folds=run.fold and run.fold[1], imports=args.imports or None),
                sort_keys=False))
        if not (args.out / 'datasets' / f'{args.dataset}.json').exists():
            write_summary(args.out, args.dataset, summarize_dataset(
                index, run.fold and run.fold[1], found.split))
        set_superseded_aside(args.out, [run])
        # hardware would be that of the scoring, not of the method
        by = {key: value for key, value in provenance().items() if key != 'hardware'}
        print(write_record(args.out, run, describe_method(found, index, args.folder, args.made_by) | by))
    print(f'its tables: {command("benchmarks/report.py", args.out, modules=[Path()] if args.imports else [])}')


def check_results(args: argparse.Namespace, split: str) -> None:
    """That the folder of results, where there is one, is of this dataset and split, before the work of scoring."""
    if (args.out / 'grid.yaml').exists():
        grid = load_grid(str(args.out / 'grid.yaml'))
        if args.dataset not in grid.datasets:
            raise UserError(f'--out {args.out}: has results on {some(grid.datasets)}, not on {args.dataset}; '
                            'name another folder')
        if isinstance(grid.configs.get(args.method), str):
            raise UserError(f'--method {args.method}: is the name of a config in {args.out / "grid.yaml"}; choose '
                            'another')
    fold = read_fold(split)
    others = {record['data']['evaluated'] for record in read_records(args.out)[0] if 'data' in record
              and record['data']['dataset'] == args.dataset} - {split}
    if fold:  # the others of as many are not others
        others = {other for other in others if (read_fold(other) or (0, 0))[1] != fold[1]}
    if others:
        raise UserError(f'--out {args.out}: its records on {args.dataset} are evaluated on '
                        f'{some(sorted(others))}, not on {split}; name another folder, or --split {min(others)}')


def own_command(args: argparse.Namespace) -> str:
    """What repeats the scoring."""
    given = [(f'--{name.replace("_", "-")}', getattr(args, name))
             for name in ('dataset', 'split', 'method', 'out', 'seed', 'made_by')]
    return command('tools/score.py', args.folder,
                   *(part for option, value in given if value is not None for part in (option, value)),
                   *(['--imports', *args.imports] if args.imports else []), portable=True)


if __name__ == '__main__':
    run_main(main)
