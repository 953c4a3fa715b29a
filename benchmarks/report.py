"""Render records: python benchmarks/report.py [FOLDER ...]   (default: all under results/, and the index)

Tables (CSV, Markdown, LaTeX), figures (PNG, PDF) and one self-contained page, from records alone: the same
records give the same bytes.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from benchmarks.executors.watch import watch  # noqa: E402
from benchmarks.grid.grid import Grid  # noqa: E402
from benchmarks.grid.reader import load_grid  # noqa: E402
from benchmarks.paper.claims import (  # noqa: E402
    CAPTION,
    NOT_RUN,
    Claim,
    check_claims,
    claim_findings,
    claim_table,
)
from benchmarks.paper.published import published_data, published_flops, published_settings  # noqa: E402
from benchmarks.rendering import contrasts, tables  # noqa: E402
from benchmarks.rendering.figures import Drawn, draw_all  # noqa: E402
from benchmarks.rendering.findings import main_findings  # noqa: E402
from benchmarks.rendering.frame import Measured  # noqa: E402
from benchmarks.rendering.markup import to_latex, to_markdown  # noqa: E402
from benchmarks.rendering.overview import CAPTION as OVERVIEW  # noqa: E402
from benchmarks.rendering.overview import TITLE, draw_overview, find_parts, overview_table  # noqa: E402
from benchmarks.rendering.page import fill_index, fill_page  # noqa: E402
from benchmarks.rendering.plotting import save  # noqa: E402
from benchmarks.runs.records import read_records, read_summaries  # noqa: E402
from mmseg_plugins.errors import UserError, run_main  # noqa: E402
from mmseg_plugins.files import write_atomic  # noqa: E402

RESULTS = REPO / 'results'
PAGE, INDEX = 'report.html', 'index.html'


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
    if args.against and len(args.folders) > 1:
        raise UserError('--against compares one folder with OLD; name one')
    if (args.compare or args.watch) and len(args.folders) != 1:
        raise UserError(f'{"--compare" if args.compare else "--watch"} is of one folder; name it')
    if args.against:
        new = args.folders[0] if args.folders else RESULTS / args.against.resolve().name
        print(describe_changes(new, args.against))
    elif args.compare:
        grid = load_folder(args.folders[0])
        print(contrasts.compare(read_folder(args.folders[0])[0], grid, *args.compare))
    elif args.watch:
        watch(load_folder(args.folders[0]), args.folders[0])
    else:  # without a folder all of them, and the index
        jobs = [(folder, draw_page) for folder in args.folders or find_folders(RESULTS)]
        jobs += [] if args.folders else [(RESULTS, draw_index)]
        if args.check:
            return 1 if sum([check(folder, draw) for folder, draw in jobs]) else 0
        for folder, draw in jobs:
            print(render(folder, draw))
    return 0


def find_folders(root: Path) -> list[Path]:
    """Every result folder below `root` that has a run, by name; of a grid that has only begun its search none."""
    folders = sorted({path.parents[1] for path in root.glob('*/records/*.json')})
    if not folders:
        raise UserError(f'{root}: no results yet; run benchmarks/run_grid.py')
    return folders


def load_folder(folder: Path) -> Grid:
    """The grid that a result folder was run from."""
    if not (folder / 'grid.yaml').is_file():
        raise UserError(f'{folder / "grid.yaml"}: file not found; name a folder that run_grid.py wrote')
    return load_grid(str(folder / 'grid.yaml'))


def read_folder(folder: Path) -> tuple[Measured, dict[str, str]]:
    """What counts of a result folder, and which of its records do not, with the reason; what does not is said."""
    (records, left_out), (summaries, unread) = read_records(folder), read_summaries(folder)
    for place, faults in ((folder / 'records', left_out), (folder / 'datasets', unread)):
        for name, reason in faults.items():
            print(f'{place / name}: {reason}; left out', file=sys.stderr)
    return Measured(records, summaries), left_out


def rendered_files(folder: Path) -> set[Path]:
    """The tables and figures that a folder's page or index names; all else there is a user's."""
    pages = [folder / name for name in (PAGE, INDEX) if (folder / name).is_file()]
    links = re.findall(r'href="((?:tables|figures)/[^"/]+)"', ''.join(page.read_text() for page in pages))
    return {path for path in map(Path, links) if (folder / path).is_file()}


def draw_page(folder: Path, into: Path) -> str:
    """Write tables, figures and page of a result folder into an empty one; returns the page's name.

    Args:
        folder: holds grid.yaml, records/, datasets/ and predictions/.
    """
    grid, (measured, left_out) = load_folder(folder), read_folder(folder)
    if not measured.records:
        raise UserError(f'{folder / "records"}: no record that counts; nothing was rendered')
    committed, judged = read_committed(folder, grid), contrasts.judge_page(measured, grid)
    claims = check_claims(judged, measured, grid)
    built = collect_tables(judged, claims, measured, grid, committed)
    for table in built:
        write_table(table, into)
    drawn = draw_all(judged, measured, grid, folder, into / 'figures')
    findings = main_findings(judged, measured, grid) + claim_findings(claims)
    write_atomic(into / PAGE, fill_page(grid, measured, left_out, findings, built, drawn, committed is not None))
    return PAGE


def write_table(table: tables.Rendered, into: Path) -> None:
    """A table as CSV, Markdown and LaTeX."""
    name, frame, caption, notes = table
    for suffix, text in dict(csv=frame.to_csv(index=False), md=to_markdown(frame, notes),
                             tex=to_latex(frame, caption, notes)).items():
        write_atomic(into / 'tables' / f'table_{name}.{suffix}', text)


def read_committed(folder: Path, grid: Grid) -> Measured | None:
    """The committed records of the same grid, for a folder that is not the committed one."""
    if folder.resolve().is_relative_to(RESULTS) or grid.given('--max-iters'):  # a trial
        return None
    records, _ = read_records(RESULTS / folder.resolve().name)
    return Measured(records) if records else None


def collect_tables(judged: list[contrasts.Judged], claims: list[Claim], measured: Measured, grid: Grid,
                   committed: Measured | None) -> list[tables.Rendered]:
    """Every table that the records allow, in the page's order; the claims have a section of their own.

    Args:
        judged: the page's contrasts.
        claims: the paper's, checked.
        committed: the committed results' figures, to be shown beside a newcomer's own.
    """
    collected: list[tables.Rendered] = []
    main, alone = tables.main_table(measured, grid), len(grid.datasets) == 1

    def add(name: str, frame: pd.DataFrame, caption: str, *notes: str) -> None:
        text = frame.to_csv()
        seen = [f'{sign} {note}' for sign, note in tables.SEEN.items() if sign in text]
        collected.append(tables.Rendered(name, frame, caption, (*notes, *seen)))

    if measured.data:
        add('1', tables.data_table(measured, grid, published_data()),
            'Table 1. The data: mean raw size and network input (columns x rows x slices), labels without '
            f'background, cases {"in folds" if grid.folds else "by split"} (patients where one has several '
            'cases).')
    free = [('free', *tables.free_table(measured, grid))] if tables.free_cells(measured, grid) else []
    if grid.free:  # what was asked for comes before what else its folder could show
        add(*free.pop())
    for table in grid.tables.values():
        if any(measured.runs(cell) for cell in grid.on_each(table.rows.values())):
            add(table.name, tables.build_table(table, measured, grid, committed),
                tables.caption(table, measured, grid))
    for table in free:
        add(*table)
    if len(search := tables.search_table(measured, grid)):
        without = tables.untuned(measured, grid)
        add('search', search, 'Search. Each cell runs with the setting of the highest DSC (mean of cases, over '
            'the reported labels) on cases that are not reported, with one seed; seconds are of all settings. '
            'Beside the lowest or highest that was tried a better one may lie.',
            *([f'Without a search: {"; ".join(without)}.'] if without else []))
    if judged:
        add('contrasts', contrasts.contrast_table(judged, measured, grid),
            'Contrasts. One row minus another, over the labels that their tables are of: first those that the '
            'grid file registered before anything ran, then those that were looked up afterwards.',
            contrasts.NOTE, contrasts.FAMILIES, *[contrasts.OUT_OF_FOLD] * bool(measured.folds()))
    for contrast in contrasts.main_contrasts(measured, grid) if alone else ():
        add('organs', contrasts.organ_table(judged, contrast, measured),
            f'{contrast} by organ. {contrast.first} minus {contrast.second}; looked up afterwards.',
            contrasts.NOTE, contrasts.FAMILIES)
    if main and main.against and alone and any(len(measured.value(cell, labels=main.labels).seeds) > 1
                              for cell in main.rows.values()):
        add('seeds', tables.seed_table(main, measured, grid),
            "Seed study. DSC pooled of every seed; ± is the sample deviation, the paper's the population's (ddof "
            '0). The paired t-test is the paper\'s own: it holds cases fixed, and tells nothing of others.')
    if measured.done():
        cost = tables.cost_table(measured, grid, published_flops())
        memory = (" Peak MiB are of training: torch's on a GPU, else all that the process holds, with libraries; "
                  'the highest of the runs that tell.')
        add('cost', cost,
            'Cost. FLOPs (2 x multiply-accumulate) of one window; seconds are of the whole run, with evaluation, '
            f'medians over {"seeds and folds" if measured.folds() else "seeds"}.'
            + memory * bool((cost['peak MiB'] != '—').any()))
    if any('settings' in record for record in measured.done()):
        add('6', tables.settings_table(measured, published_settings()),
            'Table 6. Settings, read from the configs of the runs.')
    if any(claim.here != NOT_RUN for claim in claims):
        add('claims', claim_table(claims), CAPTION, *(claim.note for claim in claims if claim.note))
    return collected


def draw_index(root: Path, into: Path) -> str:
    """Write the index of all result folders below `root` into an empty folder; returns its name."""
    grids = [(load_folder(folder), Measured(read_records(folder)[0], read_summaries(folder)[0]))
             for folder in find_folders(root)]
    parts, shown, drawn = find_parts(grids), [], []
    if parts:
        shown = [tables.Rendered('overview', overview_table(parts), 'In numbers. The same: rows, then contrasts.')]
        drawn = [Drawn(TITLE, OVERVIEW, save(draw_overview(parts), into / 'figures/overview.png'))]
        write_table(shown[0], into)
    for name, content in fill_index(grids, shown, drawn).items():
        write_atomic(into / name, content)
    return INDEX


def draw_aside(folder: Path, draw: Callable[[Path, Path], str]) -> tuple[dict[Path, bytes], str]:
    """What `draw` writes for a folder, by place, and the page's name; the folder stays as it is."""
    with tempfile.TemporaryDirectory() as temporary:
        page = draw(folder, Path(temporary))
        return {path.relative_to(temporary): path.read_bytes()
                for path in sorted(Path(temporary).rglob('*')) if path.is_file()}, page


def render(folder: Path, draw: Callable[[Path, Path], str] = draw_page) -> Path:
    """Renew a folder's tables, figures and page, all of which are drawn before anything is replaced.

    Returns:
        The page's path.
    """
    fresh, page = draw_aside(folder, draw)
    for path in rendered_files(folder) - set(fresh):  # what the records no longer give must not stay behind
        (folder / path).unlink()
    for path in sorted(fresh, key=lambda path: path.name == page):  # the page last
        write_atomic(folder / path, fresh[path])
    return folder / page


def check(folder: Path, draw: Callable[[Path, Path], str] = draw_page) -> int:
    """How many files of a folder differ from what `draw` writes; it names them."""
    fresh, _ = draw_aside(folder, draw)
    here = {*fresh, *rendered_files(folder)}
    stale = [path for path in sorted(here) if not (folder / path).is_file()
             or (folder / path).read_bytes() != fresh.get(path)]
    for path in stale:
        print(f'{folder / path}: differs from what its records render to')
    print(f'{folder}: {len(fresh.keys() - stale)} of {len(fresh)} files are what the records render to')
    return len(stale)


def describe_changes(new: Path, old: Path) -> str:
    """A Markdown table of what moved between two result folders of one grid."""
    grid, earlier = load_folder(new), load_folder(old)
    now, before = (read_folder(folder)[0] for folder in (new, old))
    if not set(grid.cells()) & set(earlier.cells()):
        raise UserError(f'{old}: has no cell in common with {new}; name two folders of the same grid')
    table = contrasts.compare_results(now, before, grid)
    moved = (table['beyond noise'] == 'yes').sum()
    compared = table['beyond noise'].isin(['yes', 'no']).sum()
    return (f'{new} against {old}: DSC pooled over the reported labels\n\n{to_markdown(table)}\n'
            f'{moved} of {compared} cells moved beyond noise; by chance alone {compared * 0.05:.1f} would.')


if __name__ == '__main__':
    run_main(main)
