"""The folds of a cross-validated cell as one result: a record of all its out-of-fold cases for each seed."""

from statistics import median

import numpy as np

from mmseg_plugins.errors import UserError
from mmseg_plugins.evaluation.metrics import METRICS, Pair

from ..grid.axes import Cell


def merge_folds(records: list[dict]) -> list[dict]:
    """Records of folds put together by cell and seed, each in the place of its first; others stay as they are.

    What all folds have together is a finished record with `folds`, the records that it is made of. Its figures are
    those of one evaluation of all their cases, its learning curve is their mean, and its cost is that of one
    training, by their median seconds. `lost` of its scores names metrics of all cases together that are not
    registered here, so that they could not be formed anew. While folds are missing or failed, `state` is
    `unfinished` or `failed`, with the reason, and there are no figures.
    """
    together: dict[tuple, list[dict]] = {}
    for record in records:
        fold = record.get('fold')
        together.setdefault((Cell(**record['cell']), record['seed'], fold and fold[1]), []).append(record)
    return [_merge(str(cell), sorted(parts, key=lambda record: record['fold'])) if folds else parts[0]
            for (cell, _, folds), parts in together.items()]


def split_merged(*records: dict) -> list[dict]:
    """The records that these are made of, each one that is of no folds itself."""
    return [part for record in records for part in record.get('folds', [record])]


def _merge(cell: str, parts: list[dict]) -> dict:
    first, folds = parts[0], parts[0]['fold'][1]
    merged = {key: first[key] for key in ('cell', 'seed')} | dict(
        run=f'{cell}-seed{first["seed"]}-{folds}folds', folds=parts)
    done = [record for record in parts if record['state'] == 'done']
    if len(done) < folds:
        state = 'failed' if len(done) < len(parts) else 'unfinished'
        return merged | dict(state=state, reason=f'{len(done)} of {folds} folds done')
    try:
        scores = _merge_scores([record['scores'] for record in parts])
    except UserError as error:
        return merged | dict(state='failed', reason=str(error))
    merged = first | merged | dict(scores=scores)
    if all(record.get('data') for record in parts):
        merged['data'] = first['data'] | dict(evaluated=f'out-of-fold, {folds} folds')
    if 'training' in first:
        curves = [record['training'] for record in parts]
        merged['training'] = first['training'] | {
            key: np.mean([curve[key] for curve in curves], 0).round(5).tolist() for key in ('last_loss', 'curve')}
    if all(record.get('cost') for record in parts):
        costs = [record['cost'] for record in parts]
        whole = [cost for cost in costs if not cost.get('resumed_from')] or costs
        merged['cost'] = whole[0] | dict(seconds=round(median(cost['seconds'] for cost in whole), 1))
    return merged


def _merge_scores(parts: list[dict]) -> dict:
    """Figures of cases stand one below the other; what is of all cases together is made anew of summed voxels.

    Raises:
        UserError: they are not of one data set, or have a case twice.
    """
    labels, cases = parts[0]['labels'], [case for scores in parts for case in scores['cases']]
    if any((scores['labels'], scores['headline']) != (labels, parts[0]['headline']) for scores in parts):
        raise UserError('its folds have different labels; run them again')
    if len(set(cases)) < len(cases):
        raise UserError('a case is in two of its folds; run them again')
    size = max(len(scores['confusion']) for scores in parts)
    confusion = sum(np.pad(np.array(scores['confusion'], np.int64), (0, size - len(scores['confusion'])))
                    for scores in parts)
    order, figures = np.argsort(cases), {}
    for name in parts[0]['figures']:
        each = [scores['figures'].get(name, ()) for scores in parts]
        if all(values and isinstance(values[0], list) for values in each):
            rows = sum(each, [])
            figures[name] = [rows[place] for place in order]
        elif name in METRICS and not METRICS[name].per_case:
            values = METRICS[name](Pair(confusion))[:len(labels)]
            figures[name] = [None if np.isnan(value) else round(float(value), 4) for value in values]
    return dict(parts[0], cases=[cases[place] for place in order], figures=figures, confusion=confusion.tolist(),
                lost=sorted({name for scores in parts for name in scores['figures']} - set(figures)))
