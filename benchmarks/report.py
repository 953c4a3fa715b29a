"""Render records: python benchmarks/report.py [FOLDER ...]   (default: every folder under results/)

Tables (CSV, Markdown, LaTeX), figures and one self-contained page, from records alone: the same records
give the same bytes.
"""

import argparse
import base64
import shutil
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

import jinja2  # noqa: E402

from benchmarks import figures  # noqa: E402
from benchmarks.cells import Cell, Grid, load_grid  # noqa: E402
from benchmarks.records import read_records, read_summaries  # noqa: E402
from benchmarks.tables import (  # noqa: E402
    Measured,
    build_free_table,
    build_table,
    caption,
    cell_label,
    free_caption,
    free_cells,
    to_latex,
    to_markdown,
)
from mmseg_plugins.errors import UserError, run_main  # noqa: E402
from mmseg_plugins.files import write_atomic  # noqa: E402

RESULTS = REPO / 'results'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folders', nargs='*', type=Path, help='folders with records/ and grid.yaml')
    parser.add_argument('--check', action='store_true',
                        help='render elsewhere and name every file that differs from the one here')
    args = parser.parse_args()
    folders = args.folders or sorted(path.parent for path in RESULTS.glob('*/grid.yaml'))
    if not folders:
        raise UserError(f'{RESULTS}: no results yet; run benchmarks/run_grid.py')
    stale = 0
    for folder in folders:
        if args.check:
            stale += check(folder)
        else:
            print(render(folder))
    return 1 if stale else 0


def load_folder(folder: Path) -> Grid:
    """The grid that a result folder was run from."""
    if not (folder / 'grid.yaml').is_file():
        raise UserError(f'{folder / "grid.yaml"}: file not found; name a folder that run_grid.py wrote')
    return load_grid(str(folder / 'grid.yaml'))


def render(folder: Path, into: Path | None = None) -> Path:
    """Write tables, figures and page of the records in `folder`; returns the page's path.

    Args:
        folder: holds grid.yaml, records/ and datasets/.
        into: where to write instead of `folder`.
    """
    grid, into = load_folder(folder), into or folder
    records, torn = read_records(folder)
    for path in torn:
        print(f'{path}: not a whole record; left out', file=sys.stderr)
    measured, committed = Measured(records, read_summaries(folder)), _committed(folder)
    names = ['1'] * bool(measured.data)
    names += [name for name, rows in grid.tables.items()
              if any(measured.runs(cell) for cell in grid.on_each(rows.values()))]
    built = {name: (build_table(name, measured, grid, committed), caption(name, measured, grid)) for name in names}
    if free_cells(measured, grid):
        built['free'] = build_free_table(measured, grid), free_caption(measured, grid)
    tables = []
    for name, (table, text) in built.items():
        stem = into / 'tables' / f'table_{name}'
        write_atomic(stem.with_suffix('.csv'), table.to_csv(index=False))
        write_atomic(stem.with_suffix('.md'), to_markdown(table))
        write_atomic(stem.with_suffix('.tex'), to_latex(table, text))
        tables.append(dict(caption=text, columns=list(table.columns), rows=table.values.tolist()))
    drawn = figures.draw_all(measured, grid, into / 'figures')
    page = into / 'report.html'
    absent = [caption(name, measured, grid).split('.')[0] for name in grid.tables if name not in built]
    write_atomic(page, _page(grid, records, torn, tables, absent, drawn, committed is not None))
    return page


def _committed(folder: Path) -> Measured | None:
    """The committed records of the same grid, for a folder that is not the committed one."""
    if folder.resolve().is_relative_to(RESULTS):
        return None
    records, _ = read_records(RESULTS / folder.resolve().name)
    return Measured(records) if records else None


def _page(grid: Grid, records: list[dict], torn: list[Path], tables: list[dict], absent: list[str],
          drawn: dict[str, Path], compared: bool) -> str:
    template = (Path(__file__).parent / 'templates' / 'report.html.j2').read_text()
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pictures = [(title, base64.b64encode(path.read_bytes()).decode()) for title, path in drawn.items()]
    failed = [record for record in records if record['state'] == 'failed']
    hardware = sorted({f"{r['hardware']['gpu'] or r['hardware']['cpu']}, {r['hardware']['threads']} thread(s) each"
                       for r in records if 'hardware' in r})
    runs = [dict(record, label=cell_label(Cell(**record['cell']))) for record in records]
    finished = {record['cell']['dataset'] for record in records if record['state'] == 'done'}
    datasets = [dataset for dataset in grid.datasets if dataset in finished] or grid.datasets
    return environment.from_string(template).render(
        grid=grid, runs=runs, failed=failed, torn=[path.name for path in torn], tables=tables, absent=absent,
        pictures=pictures, compared=compared, hardware=hardware, datasets=datasets,
        done=len(records) - len(failed))


def check(folder: Path) -> int:
    """Render into a temporary folder; returns how many files differ, and names them."""
    with tempfile.TemporaryDirectory() as temporary:
        into = Path(temporary) / folder.resolve().name
        shutil.copytree(folder, into, ignore=shutil.ignore_patterns('tables', 'figures', 'report.html'))
        render(folder, into)
        fresh = {p.relative_to(into) for p in into.rglob('*') if p.is_file()}
        here = {p.relative_to(folder) for p in folder.rglob('*') if p.is_file()}
        stale = sorted(path for path in fresh | here if path not in fresh or path not in here
                       or (into / path).read_bytes() != (folder / path).read_bytes())
    for path in stale:
        print(f'{folder / path}: differs from what its records render to')
    print(f'{folder}: {len(fresh) - len(stale)} of {len(fresh)} files are what the records render to')
    return len(stale)


if __name__ == '__main__':
    run_main(main)
