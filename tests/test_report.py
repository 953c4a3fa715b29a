"""The page in a browser, the figures, the index and the comparison of two folders, on made-up records."""

import copy
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import children
import numpy as np
import pandas as pd
import pytest
from conftest import REPO
from made_records import failed, record, write
from PIL import Image

from benchmarks.grid.axes import Cell
from benchmarks.grid.reader import load_grid
from benchmarks.grid.tables import Contrast
from benchmarks.rendering import figures
from benchmarks.rendering.contrasts import compare_results, judge_page
from benchmarks.rendering.findings import main_findings
from benchmarks.rendering.frame import Measured
from benchmarks.rendering.page import repeat_command, shown_table
from benchmarks.rendering.prediction_figure import paint
from benchmarks.rendering.tables import Rendered
from benchmarks.report import check, draw_index, render
from benchmarks.runs.records import predictions_path, read_records, seal, write_arrays
from mmseg_plugins.datasets.catalogue import BCV_EIGHT, BCV_LABELS
from mmseg_plugins.datasets.pictures import COLOURS
from mmseg_plugins.errors import UserError

BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)

PHANTOM = dict(
    dataset='phantom', modality='CT', labels=BCV_LABELS, headline=BCV_EIGHT, split_hash='abcd', size=[64, 64, 20],
    cases=dict(train=9, val=8), voxels=[1000] * 14, slices=[50] * 14, variation=[99.0, *range(60, 86, 2)],
    mean_variation=70.0)


def run_of(cell, seed: int, mean: float, labels=BCV_LABELS, headline=BCV_EIGHT, cases: int = 8, contrasts=()
           ) -> dict:
    """Depth gains more of some organs than of others; the second case is far below the others."""
    rng = np.random.default_rng([seed, *map(ord, str(cell))])
    tilt = np.linspace(-0.1, 0.1, len(labels) - 1)
    organs = [99.0, *(mean + cell.slices * tilt + rng.normal(0, 0.4, len(labels) - 1))]
    per_case = [[value - 40 * (case == 1) + rng.normal(0, 1) for value in organs] for case in range(cases)]
    return record(cell, seed, organs, labels, headline, per_case, contrasts=contrasts)


def write_results(folder: Path, name: str, records: list[dict], summaries=()) -> None:
    (folder / 'datasets').mkdir(parents=True)
    shutil.copy(REPO / f'benchmarks/grids/{name}.yaml', folder / 'grid.yaml')
    for each in records:
        write(folder, each)
    for summary in summaries:
        (folder / 'datasets' / f'{summary["dataset"]}.json').write_text(json.dumps(summary))


@pytest.fixture(scope='module')
def results(tmp_path_factory) -> Path:
    """results/ of two grids: the phantom's with all that a page can show, and one over several datasets."""
    root = tmp_path_factory.mktemp('results')
    grid = load_grid('phantom')
    means = {cell: 40 + 2 * number for number, cell in enumerate(grid.cells())}
    records = [run_of(cell, seed, mean, contrasts=grid.contrast_keys(cell))
               for cell, mean in means.items() for seed in grid.seeds]
    write_results(root / 'phantom', 'phantom', records, [PHANTOM])
    label = np.zeros((5, 16, 12), np.uint8)
    label[:, 4:8, 3:9], label[:, 10:12, 3:9] = 8, 4
    write_arrays(predictions_path(root / 'phantom', 'phantom'), image=label * 20 + 50, label=label,
                 case='case_0001', slices=np.arange(5), spacing=[5.0, 1.0, 1.0])
    for each in records:
        if each['cell'] == vars(grid.tables['2a'].rows['Ours']):
            write_arrays(predictions_path(root / 'phantom', each['run']), prediction=label)
    several = load_grid('generalization', datasets=['heart', 'spleen'])
    write_results(root / 'generalization', 'generalization', [
        run_of(cell, 1, 60 + cell.slices, ['background', 'organ'], [1])
        for cell in several.cells() if cell.encoder == 'beit'])
    for folder in root.iterdir():
        render(folder)
    render(root, draw_index)
    return root


def test_grids_that_say_so_stand_side_by_side_above_the_index(results, tmp_path):
    root = tmp_path / 'results'
    shutil.copytree(results, root)
    assert not (root / 'figures').exists() and 'overview' not in (root / 'README.md').read_text()
    shutil.copytree(root / 'phantom', root / 'twin')
    shutil.copytree(root / 'phantom', root / 'begun/search')
    shutil.copy(root / 'phantom/grid.yaml', root / 'begun')  # nothing but its search has run
    for name in ('phantom', 'twin'):
        with open(root / name / 'grid.yaml', 'a') as file:
            file.write(f'overview: CT of {name}\n')
    twin = PHANTOM | dict(patients={f'case_{i:04d}': f'patient_{max(i - 1, 0)}' for i in range(8)})
    (root / 'twin/datasets/phantom.json').write_text(json.dumps(twin))
    page, told = render(root, draw_index).read_text(), (root / 'README.md').read_text()
    grid, records = load_grid(str(root / 'twin/grid.yaml')), read_records(root / 'twin')[0]
    measured = Measured(records, dict(phantom=twin))
    ours = measured.value(grid.tables['2a'].rows['Ours'], 'dsc').mean
    assert '| DSC case | CT of phantom | CT of twin |' in told and told.count(f'| Ours | {ours:.2f} [') == 1
    assert 'begun' not in told
    assert told.index('figures/overview.png') < told.index('| DSC case |') < told.index('| Grid |')
    assert 'id="figure-overview"' in page and (root / 'tables/table_overview.csv').is_file()
    effect = next(line for line in told.splitlines() if line.startswith('| Depth with transfer |'))
    [shown] = [each for each in judge_page(measured, grid) if str(each.contrast) == 'Depth with transfer']
    found = shown.estimate
    assert shown.contrast.registered and found.over == '3 seeds, 7 patients'
    assert f'{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]' in effect.split(' | ')[-1]
    assert effect.count(', beyond noise') == 2 * shown.beyond_noise
    for name in ('phantom', 'twin'):  # of one name both stay
        file = root / name / 'grid.yaml'
        file.write_text(file.read_text().replace(f'overview: CT of {name}', 'overview: CT'))
    render(root, draw_index)
    assert '| DSC case | CT, phantom | CT, twin |' in (root / 'README.md').read_text()
    spec = (root / 'generalization/grid.yaml').read_text() + '\noverview: all\n'
    (root / 'generalization/grid.yaml').write_text(spec)  # of an earlier version
    render(root, draw_index)
    assert '| DSC case | CT, phantom | CT, twin |' in (root / 'README.md').read_text()
    (root / 'several.yaml').write_text(spec)
    with pytest.raises(UserError, match='overview has a column for each grid of one dataset'):
        load_grid(str(root / 'several.yaml'))


PROBE = """<script>
const channels = color => {
  const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
  return {rgb: [r, g, b], a};
};
const linear = each => each <= 10.31475 ? each / 3294.6 : ((each / 255 + .055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
const over = (top, below) => top.rgb.map((each, place) => each * top.a + below[place] * (1 - top.a));
const ground = element => {
  if (!element) return [255, 255, 255];
  const here = channels(getComputedStyle(element).backgroundColor);
  return here.a === 1 ? here.rgb : over(here, ground(element.parentElement));
};
const opacity = element => element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1;
const contrast = element => {  // as WCAG 2 has it
  const below = ground(element), ink = channels(getComputedStyle(element).color);
  const both = [below, over({rgb: ink.rgb, a: ink.a * opacity(element)}, below)].map(luminance);
  return (Math.max(...both) + .05) / (Math.min(...both) + .05);
};
const told = element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
const hides = element => element.clientWidth && element.scrollWidth > element.clientWidth + 1
  && ['hidden', 'clip'].includes(getComputedStyle(element).overflowX);
addEventListener('load', () => {
  const heads = [...document.querySelectorAll('th button')], found = {
    width: innerWidth, overflow: document.documentElement.scrollWidth - innerWidth,
    outside: [...document.querySelectorAll('h1, h2, p, dd, li, img, code, summary, .scroll')]
      .filter(each => each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML),
    faint: [...document.querySelectorAll('body, body *')].filter(each => told(each) && contrast(each) < 4.5)
      .map(each => `${contrast(each).toFixed(2)} ${each.outerHTML}`),
    clipped: [...document.querySelectorAll('body *')].filter(hides).map(each => each.outerHTML),
    wide: [...document.querySelectorAll('.scroll')].filter(each => each.scrollWidth > each.clientWidth + 1)
      .map(each => [each.ariaLabel, getComputedStyle(each).overflowX]),
    images: document.images.length, missing: [...document.images].filter(image => !image.naturalWidth).length};
  const column = (table, place) => [...table.tBodies[0].rows].map(row => row.cells[place].textContent);
  const table = document.querySelector('#table-2a table');
  if (table) {
    const place = [...table.tHead.rows[0].cells].findIndex(head => head.textContent === 'DSC pooled');
    found.given = column(table, place);
    const click = () => { table.tHead.rows[0].cells[place].querySelector('button').click();
                          return column(table, place); };
    Object.assign(found, {up: click(), down: click(), again: click()});
    document.querySelector('.enlarge').click();
    found.large = document.querySelector('dialog').open && document.querySelector('dialog img').naturalWidth;
    document.querySelector('dialog').click();
    found.closed = !document.querySelector('dialog').open;
  }
  parent.postMessage(found, '*');
});
</script>"""


FRAME = """<!doctype html><body><script>
addEventListener('message', event => document.body.append(new Comment(`found ${JSON.stringify(event.data)} end`)));
</script><iframe src="probed.html" style="width: %dpx; height: 900px; border: 0"></iframe>"""


def browse(page: Path, width: int, tmp_path: Path) -> dict:
    """What the page is like at this width, in a frame as windows have a least width; fails on console output."""
    (tmp_path / 'probed.html').write_text(page.read_text() + PROBE)
    frame = tmp_path / 'frame.html'
    frame.write_text(FRAME % width)
    result = subprocess.run(
        [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--window-size=1600,1000', '--dump-dom',
         '--enable-logging=stderr', '--v=0', f'--user-data-dir={tmp_path / "profile"}', '--disable-sync',
         '--virtual-time-budget=3000', '--disable-background-networking', '--disable-component-update',
         frame.as_uri()],
        capture_output=True, text=True, timeout=120)
    assert 'CONSOLE' not in result.stderr, result.stderr
    found = re.search(r'<!--found (.*) end-->', result.stdout)
    assert found, result.stderr[-2000:]
    return json.loads(found[1])


@pytest.mark.skipif(BROWSER is None, reason='no chromium, chromium-browser or google-chrome here')
@pytest.mark.parametrize('width', [1400, 400])
@pytest.mark.parametrize('page', ['phantom/report.html', 'generalization/report.html', 'index.html'])
def test_a_page_in_a_browser(results, tmp_path, page, width):
    found = browse(results / page, width, tmp_path)
    assert found['width'] == width and found['overflow'] <= 0 and not found['outside'] and not found['missing']
    assert not found['faint'] and not found['clipped']
    # a table wider than a phone is scrolled, one wider than a desk would hide what it is about
    assert not found['wide'] if width > 1000 else all(scrolls == 'auto' for _, scrolls in found['wide'])
    if page != 'phantom/report.html':
        return
    assert found['images'] == 11
    *measured, _, _, _ = found['up']  # the last are of methods that only the paper ran
    numbers = [float(text.split(' ±')[0]) for text in measured]
    assert numbers == sorted(numbers)
    assert all(text.startswith('not run in this table: ') for text in found['up'][-3:])
    assert found['down'] == [*reversed(measured), *found['up'][-3:]] and found['again'] == found['given']
    assert found['large'] > 500 and found['closed']


@pytest.mark.skipif(BROWSER is None, reason='no chromium, chromium-browser or google-chrome here')
def test_a_browser_sees_what_cannot_be_read(tmp_path):
    page = tmp_path / 'page.html'
    page.write_text("""<!doctype html><body style="background: #fff">
<p style="color: #777">grey <b style="color: #888">faint</b> <i style="opacity: 0.5">as #bbb</i></p>
<div style="width: 90px; overflow: hidden; white-space: nowrap"><span>a table that ends too early</span></div>
<div class="scroll" aria-label="T" style="overflow: auto"><p style="width: 2000px">wide</p></div>""")
    found = browse(page, 1400, tmp_path)
    assert [text.split()[0] for text in found['faint']] == ['4.48', '3.54', '1.92']
    assert len(found['clipped']) == 1 and found['wide'] == [['T', 'auto']] and len(found['outside']) == 1


def test_a_page_is_whole_and_names_no_machine(results):
    page = (results / 'phantom/report.html').read_text()
    assert len(page) < 3e6 and str(results) not in page and 'http' not in page.replace('http-equiv', '')
    assert 'python benchmarks/run_grid.py --grid phantom' in page and page.count('python tools/train.py') == 33
    assert page.count('<td class="number absent">not run in this table: configs/') == 3  # table 2a
    assert '33 finished runs on phantom' in page and '<li>Depth with transfer: ' in page
    for link in re.findall(r'href="((?:tables|figures|records)/[^"]+)"', page):
        assert (results / 'phantom' / link).is_file(), link
    page = (results / 'generalization/report.html').read_text()
    assert f'4 finished runs on heart, spleen (of {len(load_grid("generalization").datasets)} datasets)' in page


def test_figures_are_drawn_and_carry_nothing_that_changes(results):
    drawn, several = ({path.stem for path in (results / name / 'figures').iterdir()}
                      for name in ('phantom', 'generalization'))
    assert drawn == {'contrasts', 'organs', 'slices', 'stride', 'inflation', 'target', 'variation', 'cost',
                     'curves', 'cases', 'predictions'}
    assert several == {'datasets', 'curves', 'cases'}
    for name in drawn:
        document = (results / f'phantom/figures/{name}.pdf').read_bytes()
        assert not re.search(rb'CreationDate|Producer|/Type3', document)
        assert 'Software' not in Image.open(results / f'phantom/figures/{name}.png').info
    assert check(results / 'phantom') == 0


def test_liftings_are_drawn_against_cost_and_against_slice_variation(tmp_path, monkeypatch):
    """A panel for each comparison with the kernel; each front names what is better than all that cost no more."""
    file = tmp_path / 'own.yaml'  # with a contrast of the same row that is of no lifting
    file.write_text((REPO / 'benchmarks/grids/phantom-lifting.yaml').read_text().replace(
        '  joint against kernel:', "  frozen kernel: ['kernel, frozen', 'kernel, full']\n  joint against kernel:",
        1))
    grid, records, named = load_grid(str(file)), [], []
    rows = grid.tables['lifting'].rows | grid.tables['tuning'].rows
    for number, (row, cell) in enumerate(rows.items()):
        cost = dict(flops=10**8 * (1 + number), trained_parameters=1000 if 'frozen' in row else 600_000,
                    step_seconds=1 / (1 + number))
        made = [run_of(cell, seed, 50 + number % 5, contrasts=grid.contrast_keys(cell)) for seed in grid.seeds]
        records += [seal(each | dict(cost=each['cost'] | cost)) for each in made]
    write_results(tmp_path, 'phantom-lifting', records, [PHANTOM])
    shutil.copy(file, tmp_path / 'grid.yaml')
    monkeypatch.setattr(figures, 'place_texts', lambda axes, points, texts, dots=(): named.append(texts))
    page = render(tmp_path).read_text()
    *organs, flops, seconds, parameters, _ = named  # the last are cases
    assert flops == ['one slice', 'divided', 'adapter_conv', 'adapter_conv_pair']
    assert seconds == ['1', '2', '3', 'adapter_conv_pair'] and parameters == ['2', 'adapter_conv_pair']
    figure = figures.cost_plot(grid.tables['lifting'].rows, Measured(records), grid)
    numbered = [text.get_text() for text in figure.legends[0].get_texts() if text.get_text().endswith(')')]
    assert numbered == ['tuning adapter_conv, lora (1)', 'tuning adapter_conv, frozen (2)',
                        'tuning kernel, layer_decay (3)']  # the dearer, the earlier
    assert len(organs) == 8 and all(len(texts) == 8 for texts in organs) and 'Differences, against slice' in page


def test_costs_are_drawn_of_what_tells_of_them(tmp_path):
    """Of one cell, of cells that cost the same and were resumed, and of one without a figure."""
    grid = load_grid('phantom')
    rows = {row: grid.tables['2a'].rows[row] for row in ('Ours', 'Ours w/o T', 'Ours w/o D')}

    def panels(*records):
        figure = figures.cost_plot(rows, Measured(list(records)), grid)
        return figure and [axes.get_xlabel() for axes in figure.axes]

    ours, random, flat = (run_of(cell, 1, 50) for cell in rows.values())
    alone, nothing = (copy.deepcopy(ours) for _ in range(2))
    for each in (alone, random):
        each['cost']['resumed_from'] = 50
    nothing['scores']['figures'] = {name: [[None] * 14] * 8 if name == 'dsc' else [None] * 14
                                    for name in ('dsc', 'dsc_pooled')}
    same = ['MFLOPs per window, whole model', 'trained parameters (millions)']
    assert panels(alone) == panels(alone, random) == same
    assert panels(ours) == [same[0], 'time of training (s)', same[1]]
    assert panels(ours, flat) == same[:1] and panels(nothing) is None
    flat['cost']['step_seconds'] = 2.0  # another kind of time: it is not drawn beside a whole run's
    assert panels(ours, flat) == same[:1]
    ours['cost']['step_seconds'] = 3.0
    assert panels(ours, flat) == [same[0], 'time of training (s)']
    longer = run_of(replace(rows['Ours'], slices=3, steps=999), 1, 90)  # cheap by the window alone
    longer['cost']['step_seconds'], longer['training']['steps'] = 1.0, 999
    figure = figures.cost_plot(rows, Measured([ours, flat, longer]), grid)
    assert [axes.get_xlabel() for axes in figure.axes] == [same[0], 'time of training (s)']
    assert [len(axes.containers) for axes in figure.axes] == [2, 3]


def test_a_front_is_better_than_all_that_costs_no_more():
    points = dict(cheap=(1, 50.0), worse=(1, 40.0), dear=(9, 60.0), dearer=(10, 60.0), between=(5, 49.0))
    assert figures.pareto_front(points) == ['cheap', 'dear']


def test_what_answers_the_pages_question_stands_first(results, tmp_path):
    """Under the findings, the paper's claims among them, the contrasts' figure; of free axes their table."""
    for name, lead in (('phantom', 'contrasts'), ('generalization', 'datasets')):
        page = (results / name / 'report.html').read_text()
        order = [page.index(mark) for mark in ('id="summary"', f'id="figure-{lead}"', 'id="tables"', 'id="runs"')]
        assert order == sorted(order) and page.count(f'id="figure-{lead}"') == 1
    page = (results / 'phantom/report.html').read_text()
    told = re.search(r'<li>Of (\d+) claims of .* tested here, (\d+) holds?, (\d+) do(?:es)? not', page)
    assert int(told[1]) >= int(told[2]) + int(told[3]) > 0
    assert 'python benchmarks/run_grid.py --grid phantom</code>' in page
    asked = load_grid('phantom', slices=[1, 3])
    given = '# python benchmarks/run_grid.py --grid phantom --slices 1 3\n'
    (tmp_path / 'grid.yaml').write_text(given + asked.text.replace('notes:\n', 'notes:\n- as `a < b` says\n'))
    for cell in asked.cells():
        write(tmp_path, run_of(cell, asked.seeds[0], 50))
    page = render(tmp_path).read_text()
    assert 'run_grid.py --grid phantom --slices 1 3</code>' in page and 'as <code>a &lt; b</code> says</p>' in page
    for cell in load_grid('phantom').tables['2a'].rows.values():  # of an earlier call
        write(tmp_path, run_of(cell, 1, 50))
    page = render(tmp_path).read_text()
    assert '--slices 1 3</code>' not in page  # which does not repeat them
    assert page.index('id="table-free"') < page.index('id="table-2a"')


def test_contrasts_of_one_name_are_told_apart_by_their_tables():
    """`2` is a stride in one table and a number of slices in another."""
    cells = Cell('a', slices=1), Cell('a', slices=2)
    judged = [SimpleNamespace(contrast=Contrast('', '2', row, cells, table=table))
              for table, row in (('slices', '1'), ('stride', '1'), ('stride', '3'))]
    assert list(figures._name_apart(judged)) == [
        '2 instead of 1 (table slices)', '2 instead of 1 (table stride)', '2 instead of 3']


def test_check_names_what_differs_and_covers_the_index(results, tmp_path, capsys):
    copy = tmp_path / 'results'
    shutil.copytree(results, copy)
    assert check(copy, draw_index) == 0
    grid = load_grid('phantom')
    write(copy / 'phantom', failed(grid.cells()[0], grid.seeds[0], 'torn <b>cable</b>'))
    assert check(copy, draw_index) == 2 and check(copy / 'phantom') > 0
    said = capsys.readouterr().out
    assert all(f'{copy / name}: differs' in said for name in ('index.html', 'README.md', 'phantom/report.html'))
    render(copy / 'phantom')
    page = (copy / 'phantom/report.html').read_text()
    assert '1 failed' in page and 'torn &lt;b&gt;cable' in page
    (copy / 'index.html').unlink()
    assert check(copy, draw_index) == 2


def test_the_index_has_a_line_for_every_grid(results):
    lines = [line for line in (results / 'README.md').read_text().splitlines() if '/report.html)' in line]
    assert len(lines) == 2 and 'heart, spleen | 4 | ' in lines[0] and '(average of 2)' in lines[0]
    assert '| 33 | ' in lines[1] and '(phantom/records)' in lines[1]
    assert 'href="phantom/report.html"' in (results / 'index.html').read_text()


def found_by(measured, grid) -> list[str]:
    return main_findings(judge_page(measured, grid), measured, grid)


def test_findings_are_the_registered_contrasts():
    grid = load_grid('phantom')
    rows = grid.tables['2a'].rows
    measured = Measured([run_of(rows[row], seed, mean, contrasts=grid.contrast_keys(rows[row]))
                         for row, mean in (('Ours', 60), ('Ours w/o D', 57)) for seed in (1, 2, 3)])
    [depth] = [each for each in judge_page(measured, grid) if each.contrast.registered]
    [sentence] = found_by(measured, grid)
    assert depth.estimate.value == pytest.approx(3, abs=0.5) and depth.beyond_noise
    assert sentence.startswith(f'Depth with transfer: {depth.estimate.value:+.2f} points of DSC case, 95 % '
                               f'interval {depth.estimate.interval} (3 seeds, 8 cases), p ')
    assert ', beyond noise (Ours ' in sentence and sentence.endswith(', in the paper +1.95.')
    few = Measured([run_of(rows[row], 1, 60, cases=3) for row in ('Ours', 'Ours w/o D')])
    assert 'not enough data to say how sure' in found_by(few, grid)[0]
    assert found_by(Measured([]), grid) == []


@pytest.mark.parametrize('mean', [61, 59])
def test_findings_begin_with_another_system_that_does_best(mean):
    grid = load_grid('phantom-baselines')
    rows = grid.tables['baselines'].rows
    figures = {'inflated BEiT, random': 50, 'inflated BEiT': 60, 'TransUNet': mean}
    measured = Measured([run_of(rows[row], seed, figure) for seed in (1, 2, 3) for row, figure in figures.items()])
    first = found_by(measured, grid)[0]
    assert first.startswith('The highest mean of all rows is not of this encoder: TransUNet has') == (mean > 60)
    assert ('the best row of this encoder (inflated BEiT) ' in first) == (mean > 60)


def test_a_grid_without_contrasts_says_that_they_were_looked_up_afterwards(results, tmp_path):
    said = 'No contrast was registered before these runs'
    assert said not in (results / 'phantom/report.html').read_text()
    table = pd.read_csv(results / 'phantom/tables/table_contrasts.csv')
    registered = load_grid('phantom').contrasts
    assert table['registered'].tolist()[:len(registered) + 1] == ['yes'] * len(registered) + ['no']
    assert table['Effect'].str.lower().tolist()[:len(registered)] == [contrast.name for contrast in registered]
    copy = tmp_path / 'phantom'
    shutil.copytree(results / 'phantom', copy)
    for path in (copy / 'records').glob('*.json'):  # the file names them, but did not when these ran
        made = json.loads(path.read_text())
        path.write_text(json.dumps(seal(made | dict(contrasts=[]))))
    page = render(copy).read_text()
    assert said in page and page.count('<li>Depth with transfer: ') == 1
    assert set(pd.read_csv(copy / 'tables/table_contrasts.csv')['registered']) == {'no'}


def test_p_is_nowhere_zero(results):
    for path in (results / 'phantom').rglob('*.csv'):
        assert not re.search(r'p = 0\.0+\b(?!\d)', path.read_text()), path
    for name in ('contrasts', 'organs', 'seeds'):
        table = pd.read_csv(results / f'phantom/tables/table_{name}.csv', dtype=str)
        figures = table[[column for column in table if column.startswith('p')]].stack()
        assert len(figures) and not set(figures) & {'0.0', '0.000', '0.0000'}


def test_what_moved_between_two_folders():
    grid = load_grid('phantom')
    bare, plain, flat, ours = grid.tables['2a'].rows.values()
    old = Measured([run_of(cell, seed, 50) for cell in (ours, flat, bare) for seed in (1, 2, 3)])
    new = Measured([run_of(ours, seed, 55) for seed in (4, 5)] + [run_of(flat, seed, 50) for seed in (1, 2, 3)]
                   + [run_of(plain, 1, 50)])
    table = compare_results(new, old, grid).set_index('Cell')
    assert table['beyond noise'].to_dict() == {'2a Ours w/o T&D': 'only old', '2a Ours w/o T': 'only new',
                                              '2a Ours w/o D; 4d 1': 'no', '2a Ours; 4c 1; 4d 5': 'yes'}
    moved = table.loc['2a Ours; 4c 1; 4d 5']
    assert float(moved['difference']) == pytest.approx(5, abs=0.5) and moved['noise (95 %)'].startswith('± ')
    single = compare_results(Measured([run_of(ours, 9, 55)]), Measured([run_of(ours, 1, 50)]), grid)
    assert single.loc[0, 'beyond noise'] == 'cannot tell' and single.loc[0, 'noise (95 %)'] == '—'


def test_comparisons_print_and_write_nothing(results, tmp_path):
    copy = tmp_path / 'phantom'
    shutil.copytree(results / 'phantom', copy)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob('*')}
    (tmp_path / 'empty').mkdir()
    shutil.copy(copy / 'grid.yaml', tmp_path / 'empty')

    def call(*arguments) -> subprocess.CompletedProcess:
        return children.run([sys.executable, REPO / 'benchmarks/report.py', *arguments])

    result = call(copy, '--against', results / 'phantom')
    assert result.returncode == 0 and '0 of 11 cells moved beyond noise' in result.stdout
    result = call(copy, '--compare', 'Ours', 'Ours w/o D')
    assert result.returncode == 0 and '| pancreas | ' in result.stdout
    assert before == {path: path.stat().st_mtime_ns for path in copy.rglob('*')}
    for arguments in ((copy, '--against', tmp_path / 'none'), (copy, '--against', results / 'generalization'),
                      (copy, copy, '--against', copy), (copy, '--check', '--against', copy),
                      ('--compare', 'Ours', 'Ours w/o D'), (copy, '--compare', 'Ours', 'Our'),
                      (copy, '--compare', 'Ours', 'Ours'), (tmp_path / 'empty',)):
        result = call(*arguments)
        assert result.returncode == 2 and len(result.stderr.splitlines()) == 1


def test_rendering_takes_away_its_own_files_alone(results, tmp_path):
    copy = tmp_path / 'phantom'
    shutil.copytree(results / 'phantom', copy)
    for path in (copy / 'records').iterdir():
        if '-s5-' in path.name:
            path.unlink()
    mine = [copy / 'tables/table_mine.md', copy / 'figures/drawing.png']
    for path in mine:
        path.write_text('mine')
    assert (copy / 'figures/stride.png').is_file() and (copy / 'tables/table_4c.md').is_file()
    render(copy)
    assert all(path.read_text() == 'mine' for path in mine)
    assert not (copy / 'figures/stride.png').exists() and not (copy / 'tables/table_4c.md').exists()


def test_columns_of_numbers_are_known():
    shown = shown_table(Rendered('x', pd.DataFrame({
        'DSC': ['84.36 (per case)', '—'], 'p': ['< 0.0001', '0.5'], 'size': ['48x64x5', '—'],
        'name': ['5 of', 'a'], 'seeds': ['1: 60.00', '2: 61.00'], 'text': ['a' * 60, 'b [1]']}),
        'Table 1. What it is.', ['why']))
    assert [column['kind'] for column in shown['columns']] == ['number', 'number', '', '', '', 'long']
    assert (shown['title'], shown['text'], shown['notes']) == ('Table 1', 'What it is.', ['[1] why'])


def test_the_command_is_only_of_a_grid_as_the_project_has_it():
    grid = load_grid('phantom')
    done = Measured([run_of(grid.cells()[0], grid.seeds[0], 50)])
    assert repeat_command(grid, done) == 'python benchmarks/run_grid.py --grid phantom'
    some = [run_of(cell, grid.seeds[0], 50) for cell in load_grid('phantom', ['2a', '4d']).cells()]
    assert repeat_command(grid, Measured(some)) == 'python benchmarks/run_grid.py --grid phantom --tables 2a 3 4d'
    trial = replace(grid, text=f'# python benchmarks/run_grid.py --grid phantom --max-iters 50\n{grid.text}')
    assert repeat_command(trial, done).endswith('--grid phantom --max-iters 50')
    own = load_grid('phantom')
    own.name = 'mine'
    for words, covered in (('--tables 2a 4d', True), ('--tables 4d', False), ('--seeds 21', False),
                           ('--seeds 21 22', True), ('--dataset hippocampus', False)):
        own.text = f'# python benchmarks/run_grid.py --grid mine.yaml {words}\n{grid.text}'
        runs = [run_of(cell, seed, 50) for cell in load_grid('phantom', ['2a', '4d']).cells() for seed in (21, 22)]
        assert (repeat_command(own, Measured(runs)) is not None) == covered
    assert repeat_command(load_grid('phantom', seeds=[1]), Measured([])) is None
    assert repeat_command(load_grid('phantom', datasets=['hippocampus']), Measured([])) is None
    for cell, seed in ((grid.cells()[0], 1), (Cell('phantom', slices=7), grid.seeds[0])):  # by flags
        assert repeat_command(grid, Measured([run_of(cell, seed, 50)])) is None


def test_labels_are_painted_in_their_colours():
    label = np.array([[0, 1], [2, 0]])
    painted = paint(np.full((2, 2), 255, np.uint8), label)
    assert painted.shape == (2, 2, 3) and np.allclose(painted[0, 0], 0.7)
    colour = np.array(list(bytes.fromhex(COLOURS[2][1:]))) / 255
    assert np.allclose(painted[1, 0], 0.35 + 0.65 * colour)


def test_findings_about_sources():
    grid = load_grid('phantom-sources')
    rows = grid.tables['2b'].rows
    means = dict(zip(rows, (50, 52, 53, 64, 63, 60, 55, 58, 70, 66, 49, 57, 62), strict=True))
    found = found_by(Measured([run_of(rows[row], seed, mean, contrasts=grid.contrast_keys(rows[row]))
                               for row, mean in means.items() for seed in (1, 2, 3)]), grid)
    assert [sentence.split(':')[0].lower() for sentence in found] == [each.name for each in grid.contrasts]
    assert all('(BEiT, ' in sentence or '(ViT, ' in sentence for sentence in found)
