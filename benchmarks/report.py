"""Render records: python benchmarks/report.py [FOLDER ...]   (default: all under results/, and the index)

Tables (CSV, Markdown, LaTeX), figures (PNG, PDF) and one self-contained page, from records alone: the same
records give the same bytes.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from benchmarks.grid.reader import Grid, load_grid  # noqa: E402
from benchmarks.paper.claims import check_claims, claim_table, footnotes  # noqa: E402
from benchmarks.paper.published import published_data, published_flops, published_settings  # noqa: E402
from benchmarks.rendering import figures  # noqa: E402
from benchmarks.rendering.contrasts import (  # noqa: E402
    NOTE,
    compare,
    compare_results,
    contrast_organs,
    contrast_tables,
)
from benchmarks.rendering.findings import main_cells  # noqa: E402
from benchmarks.rendering.frame import Measured  # noqa: E402
from benchmarks.rendering.markup import to_latex, to_markdown  # noqa: E402
from benchmarks.rendering.overview import NAMES, write_overview  # noqa: E402
from benchmarks.rendering.page import fill_page  # noqa: E402
from benchmarks.rendering.tables import (  # noqa: E402
    COST,
    DATA,
    SEEDS,
    SETTINGS,
    Rendered,
    build_table,
    caption,
    cost_table,
    data_table,
    free_cells,
    free_table,
    main_table,
    seed_table,
    settings_table,
)
from benchmarks.runs.records import read_records, read_summaries  # noqa: E402
from benchmarks.watch import watch  # noqa: E402
from mmseg_plugins.errors import UserError, run_main  # noqa: E402
from mmseg_plugins.files import write_atomic  # noqa: E402

RESULTS = REPO / 'results'
CLAIMS = ('What the paper says, its published figures\' arithmetic, and these records\'. A published claim holds '
          'where its number comes out; a measured one where the difference has the claimed sign, whatever its '
          'size: its 95 % interval, in brackets, is above zero (over seeds where cells have several, else over '
          'cases). Datasets are counted by sign alone, as in the paper.')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folders', nargs='*', type=Path, help='folders with records/ and grid.yaml')
    parser.add_argument('--check', action='store_true',
                        help='render elsewhere and name every file that differs from the one here')
    parser.add_argument('--against', type=Path, metavar='OLD',
                        help='print what moved since OLD, another folder of the same grid, and write nothing')
    parser.add_argument('--compare', nargs=2, metavar=('A', 'B'),
                        help='print two rows of one folder against each other, and write nothing')
    parser.add_argument('--watch', action='store_true', help='show the runs of one folder\'s grid while they run')
    args = parser.parse_args()
    if sum(map(bool, (args.against, args.compare, args.check, args.watch))) > 1:
        raise UserError('--against, --compare, --check and --watch exclude each other')
    if args.compare or args.watch:
        if len(args.folders) != 1:
            raise UserError(f'{"--compare" if args.compare else "--watch"} is of one folder; name it')
        [folder] = args.folders
        grid = load_folder(folder)
    if args.compare:
        print(compare(Measured(read_counting(folder)), grid, *args.compare))
        return 0
    if args.watch:
        watch(grid, folder)
        return 0
    if args.against:
        if len(args.folders) > 1:
            raise UserError('--against compares one folder with OLD; name one')
        new = args.folders[0] if args.folders else RESULTS / args.against.resolve().name
        print(describe_changes(new, args.against))
        return 0
    folders = args.folders or find_folders(RESULTS)
    stale = 0
    for folder in folders:
        if args.check:
            stale += check(folder)
        else:
            print(render(folder))
    if not args.folders:  # all of them: the index too
        if args.check:
            stale += check_index(RESULTS)
        else:
            print(render_index(RESULTS))
    return 1 if stale else 0


def find_folders(root: Path) -> list[Path]:
    """Every result folder below `root`, by name."""
    folders = sorted(path.parent for path in root.glob('*/grid.yaml'))
    if not folders:
        raise UserError(f'{root}: no results yet; run benchmarks/run_grid.py')
    return folders


def load_folder(folder: Path) -> Grid:
    """The grid that a result folder was run from."""
    if not (folder / 'grid.yaml').is_file():
        raise UserError(f'{folder / "grid.yaml"}: file not found; name a folder that run_grid.py wrote')
    return load_grid(str(folder / 'grid.yaml'))


def read_counting(folder: Path) -> list[dict]:
    """The records of a folder that count; the others are named."""
    records, left_out = read_records(folder)
    tell(folder / 'records', left_out)
    return records


def tell(folder: Path, left_out: dict[str, str]) -> None:
    for name, reason in left_out.items():
        print(f'{folder / name}: {reason}; left out', file=sys.stderr)


def _rendered(folder: Path) -> list[Path]:
    """The tables and figures of a folder, by the names that rendering gives; a user may keep others there."""
    return [path for pattern in ('tables/table_*.csv', 'tables/table_*.md', 'tables/table_*.tex', 'figures/*.png',
                                 'figures/*.pdf') for path in folder.glob(pattern)]


def render(folder: Path, into: Path | None = None) -> Path:
    """Write tables, figures and page of the records in `folder`; returns the page's path.

    Args:
        folder: holds grid.yaml, records/, datasets/ and predictions/.
        into: where to write instead of `folder`.
    """
    grid, into = load_folder(folder), into or folder
    records, left_out = read_records(folder)
    tell(folder / 'records', left_out)
    if not records:
        raise UserError(f'{folder / "records"}: no record that counts; nothing was rendered')
    summaries, unread = read_summaries(folder)
    tell(folder / 'datasets', unread)
    measured, committed = Measured(records, summaries), _committed(folder)
    tables = collect_tables(measured, grid, committed)
    for path in _rendered(into):  # what the records no longer give must not stay behind
        path.unlink()
    for name, frame, text, notes in tables:
        stem = into / 'tables' / f'table_{name}'
        write_atomic(stem.with_suffix('.csv'), frame.to_csv(index=False))
        write_atomic(stem.with_suffix('.md'), to_markdown(frame, notes))
        write_atomic(stem.with_suffix('.tex'), to_latex(frame, text, notes))
    drawn = figures.draw_all(measured, grid, folder, into / 'figures')
    page, built = into / 'report.html', {table.name for table in tables}
    absent = [caption(table, measured, grid).split('.')[0] for name, table in grid.tables.items()
              if name not in built]
    write_atomic(page, fill_page(grid, measured, records, left_out, tables, absent, drawn, committed is not None))
    return page


def collect_tables(measured: Measured, grid: Grid, committed: Measured | None) -> list[Rendered]:
    """Every table that the records allow, in the page's order; the claims have a section of their own.

    Args:
        committed: the committed results' figures, to be shown beside a newcomer's own.
    """
    tables, done, main = [], measured.done(), main_table(measured, grid)
    if measured.data:
        tables.append(Rendered('1', data_table(measured, grid, published_data()), DATA))
    tables += [Rendered(table.name, build_table(table, measured, grid, committed), caption(table, measured, grid))
               for table in grid.tables.values()
               if any(measured.runs(cell) for cell in grid.on_each(table.rows.values()))]
    if free_cells(measured, grid):
        tables.append(free_table(measured, grid))
    contrasts = contrast_tables(measured, grid)
    if len(contrasts):
        tables.append(Rendered('contrasts', contrasts, 'Rows against each other. One row of a table minus each '
                               'other, over the labels that the table is of.', [NOTE]))
    difference, pairs = main_cells(measured, grid)
    if len(grid.datasets) == 1 and pairs:
        tables.append(Rendered('organs', contrast_organs(measured, *pairs[0]),
                               f'{difference} by organ. {difference.first} minus {difference.second}.', [NOTE]))
    if len(grid.datasets) == 1 and main and any(
            len(measured.value(cell, labels=main.labels).seeds) > 1 for cell in main.rows.values()):
        tables.append(Rendered('seeds', seed_table(main, measured, grid), SEEDS))
    if done:
        tables.append(Rendered('cost', cost_table(measured, grid, published_flops()), COST))
    if any('settings' in record for record in done):
        tables.append(Rendered('6', settings_table(measured, published_settings()), SETTINGS))
    claims = check_claims(measured, grid)
    if any(claim.here.arithmetic != 'not run' for claim in claims):
        tables.append(Rendered('claims', claim_table(claims), 'Claims. ' + CLAIMS, footnotes(claims)))
    return tables


def _committed(folder: Path) -> Measured | None:
    """The committed records of the same grid, for a folder that is not the committed one."""
    if folder.resolve().is_relative_to(RESULTS):
        return None
    records, _ = read_records(RESULTS / folder.resolve().name)
    return Measured(records) if records else None


def render_index(root: Path, into: Path | None = None) -> Path:
    """Write the index of all result folders below `root`; returns its path."""
    into = into or root
    write_overview(into, [(load_folder(folder), read_records(folder)[0]) for folder in find_folders(root)])
    return into / NAMES[0]


def check(folder: Path) -> int:
    """Render into a temporary folder; returns how many files differ, and names them."""
    with tempfile.TemporaryDirectory() as temporary:
        into = Path(temporary) / folder.resolve().name
        render(folder, into)
        rendered = {path.relative_to(into) for path in into.rglob('*') if path.is_file()}
        here = {path.relative_to(folder) for path in (*_rendered(folder), folder / 'report.html')
                if path.is_file()}
        return _compare(into, folder, rendered, here)


def check_index(root: Path) -> int:
    """The same for the index of the folders below `root`."""
    with tempfile.TemporaryDirectory() as temporary:
        render_index(root, Path(temporary))
        names = [Path(name) for name in NAMES]
        return _compare(Path(temporary), root, names, [name for name in names if (root / name).is_file()])


def _compare(into: Path, folder: Path, fresh: Iterable[Path], here: Iterable[Path]) -> int:
    """How many of the files, as rendered into `into` and in `folder`, are not the same in both."""
    fresh, here = set(fresh), set(here)
    stale = sorted(path for path in fresh | here if path not in fresh & here
                   or (into / path).read_bytes() != (folder / path).read_bytes())
    for path in stale:
        print(f'{folder / path}: differs from what its records render to')
    print(f'{folder}: {len(fresh) - len(fresh & set(stale))} of {len(fresh)} files are what the records render to')
    return len(stale)


def describe_changes(new: Path, old: Path) -> str:
    """A Markdown table of what moved between two result folders of one grid."""
    grid, earlier = load_folder(new), load_folder(old)
    now, before = (Measured(read_counting(folder)) for folder in (new, old))
    if not set(grid.cells()) & set(earlier.cells()):
        raise UserError(f'{old}: has no cell in common with {new}; name two folders of the same grid')
    table = compare_results(now, before, grid)
    moved = (table['beyond noise'] == 'yes').sum()
    compared = table['beyond noise'].isin(['yes', 'no']).sum()
    return (f'{new} against {old}: DSC pooled over the reported labels\n\n{to_markdown(table)}\n'
            f'{moved} of {compared} cells moved beyond noise; by chance alone {compared * 0.05:.1f} would.')


if __name__ == '__main__':
    run_main(main)
