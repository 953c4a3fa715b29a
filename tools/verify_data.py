"""Check a dataset: python tools/verify_data.py DATASET [--raw FOLDER] | FOLDER --layout msd|nnunet

Every case (readable to its end, as many dimensions as declared, finite, image and label of one geometry, label
values known), and the cases against each other (the same image in two splits, empty labels, outlying
intensities). Leaves report.json, cases.csv and a contact sheet; exit status 2 where something is wrong.
"""

import argparse
import os
import sys
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmseg_plugins.dataset_arguments import add_dataset_arguments, choose_dataset
from mmseg_plugins.datasets.layouts import find_cases
from mmseg_plugins.datasets.pictures import draw_contact_sheet
from mmseg_plugins.datasets.verification import Verification, summary_rows, verify_dataset
from mmseg_plugins.errors import UserError, run_main
from mmseg_plugins.files import write_atomic, write_json
from mmseg_plugins.progress import counting
from mmseg_plugins.untrusted import read_json


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_dataset_arguments(parser)
    parser.add_argument('--out', type=Path, help='default: work_dirs/verify/<dataset>')
    args = parser.parse_args()
    name, info, raw = choose_dataset(args)
    out = args.out or Path('work_dirs/verify') / name
    dataset = find_cases(info, raw)
    check_own(out)
    out.mkdir(parents=True, exist_ok=True)
    with counting('reading') as count:
        found = verify_dataset(dataset, args.workers, count)
    rows = summary_rows(dataset, found)

    console = Console(soft_wrap=True, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column(escape(f'{name} ({info.folder}, {info.modality})'), no_wrap=True)
    table.add_column('found', overflow='fold')
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    for line in found.warnings:
        print(f'warning: {line}')
    for line in found.lines:
        print(f'error: {line}', file=sys.stderr)

    write_json(out / 'report.json', dict(
        dataset=name, raw=str(raw), split=dataset.split, summary=dict(rows), faults=found.faults,
        across=found.across, warnings=found.warnings, cases=found.facts))
    write_atomic(out / 'cases.csv', case_table(found).to_csv(index=False))
    sheet = out / 'cases.png'
    draw_contact_sheet(sheet, {case: found.thumbnails.get(case) for case in dataset.cases})
    print(f'{len(found.lines)} faults, {len(found.warnings)} warnings; {out / "report.json"}, {out / "cases.csv"}')
    print(sheet)
    return 2 if found.lines else 0


def check_own(out: Path) -> None:
    """Raise a UserError where files of these names are not of an earlier call."""
    there = [path for path in (out / 'report.json', out / 'cases.csv', out / 'cases.png') if os.path.lexists(path)]
    try:
        own = {'dataset', 'raw', 'faults', 'across'} <= set(read_json(out / 'report.json', ''))
    except (OSError, UserError, TypeError):
        own = False
    if there and not own:
        raise UserError(f'{there[0]}: is there, and not of an earlier call; name another folder with --out')


def case_table(found: Verification) -> pd.DataFrame:
    """One line per case, the bad ones with their fault."""
    def joined(values):
        return '/'.join(f'{value:g}' for value in values)

    rows = []
    for case, facts in found.facts.items():
        (depth, channels, height, width), (z, y, x) = facts['shape'], facts['spacing']
        rows.append(dict(
            case=case, columns=width, rows=height, slices=depth, channels=channels, spacing_mm=joined((x, y, z)),
            orientation=facts['orientation'], image_dtype=facts['stored'][0], label_dtype=facts['stored'][1],
            minimum=joined(facts['minimum']), median=joined(facts['median']), maximum=joined(facts['maximum']),
            labels=' '.join(str(i) for i, voxels in enumerate(facts['voxels']) if voxels)))
    rows += [dict(case=case, fault=fault) for case, fault in found.faults.items()]
    return pd.DataFrame(rows).convert_dtypes()


if __name__ == '__main__':
    run_main(main)
