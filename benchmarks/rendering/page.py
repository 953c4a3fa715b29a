"""The page of a grid and the index of all: what the templates show, put together from records alone."""

import base64
import re
import shlex
import struct
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from ..grid.axes import Cell
from ..grid.grid import Grid
from ..grid.reader import GRIDS, load_grid
from .contrasts import main_contrasts, shown_contrasts
from .figures import Drawn
from .folds import split_merged
from .frame import Measured
from .markup import to_markdown
from .tables import Rendered, caption, cell_label, cell_names, untuned

LEADING = ('contrasts', 'datasets')  # figures that answer the page's question: under its findings
ABSENT = ('—', 'not run', 'not all folds', 'not prepared', 'failed', 'not enough data')
NUMBER = re.compile(r'(< )?[-+]?[\d,]*\.?\d+(?![\d.]*[x:])')  # with what may follow, as ± 0.41; 48x64 is text


def fill(template: str, **values) -> str:
    """A template of this folder as text."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent / 'templates'),
                                     autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters['code'] = lambda text: Markup(re.sub('`([^`]+)`', r'<code>\1</code>', str(escape(text))))
    return environment.get_template(template).render(**values)


def fill_page(grid: Grid, measured: Measured, left_out: dict[str, str], findings: list[str],
              tables: list[Rendered], drawn: list[Drawn], compared: bool) -> str:
    """The page of a grid.

    Args:
        left_out: file name -> why it is no record.
        findings: sentences.
        compared: whether tables show the committed figures as well.
    """
    done, finished = measured.done(), measured.finished_runs()
    built, names = {table.name for table in tables}, cell_names(measured, grid)
    shown = {claims: [shown_table(table) for table in tables if (table.name == 'claims') == claims]
             for claims in (True, False)}
    return fill(
        'report.html.j2', grid=grid, measured=measured, done=len(finished), left_out=left_out,
        compared=compared, folds=measured.folds(), parts=split_merged,
        unfinished=[(names[Cell(**record['cell'])], record) for record in measured.unfinished()],
        lost=sorted({name for record in done for name in record['scores'].get('lost', ())}),
        names=names, label=cell_label, seeds=sorted({record['seed'] for record in finished}),
        cells=len({Cell(**record['cell']) for record in finished}), failed=measured.failed(),
        datasets=finished_datasets(measured, grid) or grid.datasets, data=describe_data(done),
        findings=findings, registered=any(each.registered for each in shown_contrasts(measured, grid)),
        untuned=untuned(measured, grid),
        hardware=describe_hardware(measured), code=describe_code(measured),
        command=repeat_command(grid, measured), tables=shown[False], claims=shown[True],
        absent=[caption(table, measured, grid).split('.')[0] for name, table in grid.tables.items()
                if name not in built],
        lead=[shown_figure(figure) for figure in drawn if figure.path.stem in LEADING],
        figures=[shown_figure(figure) for figure in drawn if figure.path.stem not in LEADING])


def fill_index(grids: Sequence[tuple[Grid, Measured]], tables: Sequence[Rendered], drawn: Sequence[Drawn]
               ) -> dict[str, str]:
    """The index of all grids, a line for each, by file name: a page, and the same for GitHub.

    Args:
        grids: each with what was measured, in a folder of its name.
        tables, drawn: what stands above it, of several grids.
    """
    headings = ('Grid', 'Datasets', 'Runs', 'Main contrast', 'Hardware', 'Files')
    rows = [dict(name=grid.name, title=grid.title, cells=index_cells(measured, grid)) for grid, measured in grids]
    table = pd.DataFrame([[f'[{row["title"]}]({row["name"]}/report.html)', *row['cells'],
                           f'[page]({row["name"]}/report.html), [records]({row["name"]}/records)']
                          for row in rows], columns=headings)
    text = ''.join([
        '# Results\n\n', *(f'![{each.title}](figures/{each.path.name})\n\n{each.caption}\n\n' for each in drawn),
        *(f'{to_markdown(each.frame, each.notes)}\n' for each in tables),
        'Mean DSC in percent, pooled, over the reported labels, ± the sample deviation over seeds. Pages open '
        'from a file: [index.html](index.html).\n\n', to_markdown(table)])
    return {'index.html': fill('index.html.j2', headings=headings, rows=rows, absent=ABSENT,
                               tables=[*map(shown_table, tables)], figures=[*map(shown_figure, drawn)]),
            'README.md': text}


def index_cells(measured: Measured, grid: Grid) -> list[str]:
    """Of a grid's line, all but its links; where it has several datasets, averages over those with both rows."""
    failed = f', {len(measured.failed())} failed' if measured.failed() else ''
    contrasts, main = main_contrasts(measured, grid), '—'
    if contrasts:
        rows, labels = (contrasts[0].first, contrasts[0].second), contrasts[0].labels
        values = [[measured.value(contrast.cells[side], labels=labels) for contrast in contrasts]
                  for side in (0, 1)]
        if len(grid.datasets) == 1:
            shown, over = [str(each[0]) for each in values], ''
        else:
            shown = [f'{sum(value.mean for value in each) / len(each):.2f}' for each in values]
            over = f' (average of {len(contrasts)})'
        main = ', '.join(f'{row} {figure}' for row, figure in zip(rows, shown, strict=True)) + over
        main += ' (all labels)' if labels == 'all' else ''
    folds = f' in {" or ".join(map(str, measured.folds()))} folds' if measured.folds() else ''
    return [', '.join(finished_datasets(measured, grid)) or '—',
            f'{len(measured.finished_runs())}{folds}{failed}', main,
            '; '.join(describe_hardware(measured)) or '—']


def finished_datasets(measured: Measured, grid: Grid) -> list[str]:
    finished = {record['cell']['dataset'] for record in measured.done()}
    return [dataset for dataset in grid.datasets if dataset in finished]


def describe_data(done: list[dict]) -> list[str]:
    """Per dataset and split: how many cases were trained on and evaluated."""
    facts = {}
    for record in done:
        data = record.get('data') or {}
        fact = f'{record["cell"]["dataset"]}: {len(record["scores"]["cases"])} cases evaluated'
        fact += f' ({data["evaluated"]})' if data else ''
        if 'protocol' in data:
            counts = [part['data']['cases'][part['data'].get('trained', 'train')] for part in split_merged(record)]
            trained = ' to '.join(map(str, sorted({min(counts), max(counts)})))
            fact += (f', {trained} trained on; split {data["split_hash"]}, intensities by protocol '
                     f'{data["protocol"]}')
        facts[fact] = None
    return list(facts)


def describe_hardware(measured: Measured) -> list[str]:
    """Every kind of machine that runs were on."""
    machines = [record['hardware'] for record in measured.records if 'hardware' in record]
    return sorted({f'{each["gpu"] or each["cpu"]}, {each["threads"]} thread(s) each' for each in machines})


def describe_code(measured: Measured) -> list[str]:
    """Every revision of the code that runs were made by."""
    return sorted({f'revision {record["code"]["revision"]}'
                   + ' with uncommitted changes' * record['code']['modified'] for record in measured.records})


def repeat_command(grid: Grid, measured: Measured) -> str | None:
    """What repeats all runs, where they are a grid's that the project has, or what was called covers them.

    It names tables where the runs are those of some, and of no others.
    """
    known = load_grid(grid.name) if (GRIDS / f'{grid.name}.yaml').is_file() else None
    # rows that the file has gained since are run as well
    if known and ({*grid.cells()} <= {*known.cells()} and known.seeds_and_folds == grid.seeds_and_folds
                  and known.options == grid.options and known.equal == grid.equal
                  and known.config_options == grid.config_options and known.tune == grid.tune
                  and (known.search_steps, known.search_percent) == (grid.search_steps, grid.search_percent)
                  and not grid.given('--max-iters')
                  and {*measured.cells()} <= {*known.cells()}
                  and {record['seed'] for record in measured.records} <= {*known.seeds}):
        run = {*measured.cells()}
        needed = {name: {*known.on_each(table.rows.values())} for name, table in known.tables.items()}
        whole = [name for name, cells in needed.items() if cells <= run]
        part = 0 < len(whole) < len(needed) and run == {cell for name in whole for cell in needed[name]}
        return f'python benchmarks/run_grid.py --grid {grid.name}' + part * f' --tables {" ".join(whole)}'
    tables, seeds = grid.given('--tables') or grid.tables, grid.given('--seeds') or map(str, grid.seeds)
    asked = grid.free or [cell for table in tables if table in grid.tables
                          for cell in grid.tables[table].rows.values()]
    datasets = grid.given('--dataset') or grid.datasets
    covered = ({*measured.cells()} <= {*grid.on_each(asked)}
               and {cell.dataset for cell in measured.cells()} <= {*datasets}
               and {str(record['seed']) for record in measured.records} <= {*seeds})
    return shlex.join(grid.given()) if grid.given() and covered else None


def shown_table(table: Rendered) -> dict:
    """With columns of numbers and of long text known as such, and footnotes numbered where cells refer to them."""
    title, _, text = table.caption.partition('. ')
    columns = []
    for name, values in table.frame.astype(str).items():
        present = [value for value in values if not value.startswith(ABSENT)]
        kind = ('number' if present and all(NUMBER.match(value) for value in present) else
                'long' if any(len(value) > 36 for value in present) else '')
        columns.append(dict(name=name, kind=kind))
    rows = table.frame.astype(str).values.tolist()
    numbered = any('[1]' in cell for row in rows for cell in row)  # a cell refers to them
    notes = [f'[{i}] {note}' if numbered else note for i, note in enumerate(table.notes, 1)]
    return dict(name=table.name, title=title, text=text, columns=columns, rows=rows, notes=notes, absent=ABSENT)


def shown_figure(figure: Drawn) -> dict:
    """With the PNG itself, and its width in CSS pixels at 100 to the inch."""
    content = figure.path.read_bytes()
    width, height = struct.unpack('>II', content[16:24])
    return dict(title=figure.title, caption=figure.caption, name=figure.path.stem, width=round(width / 1.5),
                height=round(height / 1.5), data=base64.b64encode(content).decode())
