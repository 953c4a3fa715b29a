"""Tables about the runs themselves: what settings (Table 6), how far apart seeds are, what it cost."""

import numpy as np
import pandas as pd

from ..cells import Grid
from .comparison import compare_seeds
from .contrasts import TOO_FEW, format_p
from .published import PAPER
from .tables import Measured, Value, cell_names

RUN_CAPTIONS = {
    '6': 'Table 6. Settings, read from the configs of the runs.',
    'seeds': 'Seed study. DSC pooled of every seed; ± is the sample deviation, the paper\'s the population\'s '
             '(ddof 0).',
    'cost': 'Cost. FLOPs (2 x multiply-accumulate) of one window; seconds are of the whole run, with evaluation, '
            'medians over seeds.',
}


def settings_table(measured: Measured) -> pd.DataFrame:
    """The paper's Table 6: each setting of all finished runs, beside the published one."""
    paper = pd.read_csv(PAPER / 'table6_settings.csv').set_index('setting')['value']
    found = [record['settings'] | dict(gpus=record['hardware']['gpu'] or 'none')
             for record in measured.done() if 'settings' in record]
    names = list(dict.fromkeys([*(name for settings in found for name in settings), *paper.index]))
    return pd.DataFrame([{
        'Setting': name.replace('_', ' '),
        'these runs': ' / '.join(dict.fromkeys(settings[name] for settings in found if name in settings)) or '—',
        'paper': paper.get(name, '—')} for name in names])


def seed_table(measured: Measured, grid: Grid) -> pd.DataFrame:
    """The rows of Table 2(a) that several seeds have, and the paper's two: paired t-tests of Ours against each."""
    published = pd.read_csv(PAPER / 'seeds.csv')
    lines = {('paper (BCV)', method): Value(rows.set_index('seed')['dsc8'].to_dict())
             for method, rows in published.groupby('method', sort=False)}
    lines |= {('measured', label): measured.value(cell, 'dsc_pooled')
              for label, cell in grid.tables.get('2a', {}).items()}
    rows = []
    for (figures, label), value in lines.items():
        if len(value.seeds) < 2:
            continue
        row = {'Method': label, 'figures': figures,
               'seeds': ', '.join(f'{seed}: {score:.2f}' for seed, score in value.seeds.items()),
               'mean ± std': str(value), 'ddof 0': f'{np.std(list(value.seeds.values())):.2f}',
               'Ours - this': '—', 't': '—', 'p, one-sided': '—', 'p, two-sided': '—'}
        if label != 'Ours' and (figures, 'Ours') in lines:
            test = compare_seeds(lines[figures, 'Ours'].seeds, value.seeds)
            row |= {'Ours - this': TOO_FEW} if test is None else {
                'Ours - this': f'{test.difference:.2f}', 't': f'{test.t:.2f}',
                'p, one-sided': format_p(test.one_sided), 'p, two-sided': format_p(test.two_sided)}
        rows.append(row)
    return pd.DataFrame(rows)


def cost_table(measured: Measured, grid: Grid) -> pd.DataFrame:
    """One line per cell: parameters, FLOPs, time and memory, beside the paper's encoder."""
    rows = []
    for cell, name in cell_names(measured, grid).items():
        costs = [record['cost'] for record in measured.done(cell) if 'cost' in record]
        if not costs:
            continue
        if cell.is_method:
            rows.append({'Runs': name, 'seconds': _median_time(costs)})
            continue
        on_gpu = all(cost.get('memory_of') == 'GPU, training' for cost in costs)
        rows.append({
            'Runs': name, 'slices': str(cell.slices), 'parameters (M)': f'{costs[0]["parameters"] / 1e6:.2f}',
            'encoder GFLOPs': f'{costs[0]["encoder_flops"] / 1e9:#.4g}',
            'GFLOPs': f'{costs[0]["flops"] / 1e9:#.4g}',
            'seconds': _median_time(costs),
            'peak MiB': f'{max(cost["peak_memory_mib"] for cost in costs)}' if on_gpu else '—'})
    for model, flops in pd.read_csv(PAPER / 'cost.csv').set_index('model')['flops'].items():
        rows.append({'Runs': f'paper: {model}', 'encoder GFLOPs': f'{flops / 1e9:#.4g}'})
    columns = ['Runs', 'slices', 'parameters (M)', 'encoder GFLOPs', 'GFLOPs', 'seconds', 'peak MiB']
    return pd.DataFrame(rows, columns=columns).fillna('—')


def _median_time(costs: list[dict]) -> str:
    """Of the runs that were not interrupted: a resumed one counts its last part alone."""
    whole = [cost['seconds'] for cost in costs if not cost.get('resumed_from')]
    return f'{np.median(whole):.0f}' if whole else '—'
