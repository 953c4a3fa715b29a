"""What a record must hold, how it is sealed against edits, and how older ones are brought to this version."""

import hashlib
import json

from mmseg_plugins.errors import UserError
from mmseg_plugins.untrusted import NUMBER, each_once, find_fault, find_unknown

from ..axes import check_cell

VERSION = 3

# What each key holds, as find_fault has it.
FIGURES = [(int, float, None)]  # None: of nothing, as where a label is absent
ALWAYS = dict(
    version=int, run=str, identity=str, seed=int, command=str, config=str, state=str,
    cell=dict,  # see axes.py
    code=dict(revision=(str, None), modified=bool), packages=dict,
    hardware=dict(cpu=str, cores=(int, None), threads=int, gpu=(str, None)))
OF_STATE = dict(
    failed=dict(reason=str),
    done=dict(
        # by metric, of every label: a list for each case, or one list for all cases together
        scores=dict(labels=[str], headline=[int], cases=[str],
                    figures=dict(dsc=[FIGURES], dsc_pooled=FIGURES)),
        training=dict(steps=int, last_loss=NUMBER, curve=[NUMBER]),
        cost=dict(parameters=NUMBER, encoder_flops=NUMBER, flops=NUMBER, seconds=NUMBER, peak_memory_mib=NUMBER)))
LATER = dict(  # what version 1 did not have from its first day
    settings=dict, data=dict(dataset=str, split_hash=str, cases=dict, evaluated=str, protocol=str,
                             input_size=[int]))
# Of a method that is no config: a cell without axes, `method` instead of what tells of a config; hardware and cost
# where they are known.
METHOD = dict(
    method=dict(label_maps=str, made_by=(str, None), missing=[str], notes=[str]),
    data=dict(dataset=str, split_hash=str, cases=dict, evaluated=str), cost=dict(seconds=NUMBER))
OF_CONFIGS = ('config', 'training', 'settings')
# What figures were called until version 2.
NAMES_2 = dict(dsc='per_case', hd95='hd95_per_case', nsd='nsd_per_case', dsc_pooled='pooled')
# What some records hold beside these: from where a run went on, what became of its source's keys.
OTHERS = dict(checksum=str, python=str, load=(dict, None), attempts=[dict])
OTHERS_OF_STATE = dict(
    failed=dict(checkpoint=(str, None), out_of_memory=dict),
    done=dict(cost=dict(encoder_parameters=NUMBER, resumed_from=int, memory_of=str, processes=int, kind=str,
                        **dict.fromkeys(('start_seconds', 'step_seconds', 'window_seconds', 'checkpoint_seconds',
                                         'cpu_share'), NUMBER))))
SUMMARY = dict(  # what tables read of a dataset's, see mmseg_plugins/datasets/statistics.py
    modality=(str, None), labels=[str], headline=[int], split_hash=(str, None), size=[NUMBER], cases=dict,
    voxels=[int], slices=[int], variation=FIGURES, mean_variation=(int, float, None))


def seal(record: dict) -> dict:
    """The record with the checksum of its content; whoever edits it by hand breaks it."""
    content = {key: value for key, value in record.items() if key != 'checksum'}
    canonical = json.dumps(content, sort_keys=True)
    return content | dict(checksum=hashlib.sha256(canonical.encode()).hexdigest()[:16])


def open_record(text: str) -> dict:
    """A record from its file's text, of this version and checked.

    Raises:
        UserError: why it is no record.
    """
    try:
        record = json.loads(text, parse_constant=_refuse, object_pairs_hook=each_once)
    except (ValueError, RecursionError) as error:
        raise UserError(f'not whole ({error})') from None
    if not isinstance(record, dict):
        raise UserError('not a record')
    version = record.get('version')
    if type(version) is not int or not 1 <= version <= VERSION:
        raise UserError(f'of version {version!r}, this code knows 1 to {VERSION}')
    if version == 1 and 'checksum' in record:
        raise UserError('edited since it was written (version 1 had no checksum)')
    if version > 1 and record.get('checksum') != seal(record)['checksum']:
        raise UserError('edited since it was written (its checksum differs)')
    record = migrate(record)
    _require(record, _fit(ALWAYS, record))
    check_cell(record['cell'])
    if record['state'] not in OF_STATE:
        raise UserError(f"its state is {record['state']!r}, not done or failed")
    _require(record, _fit(OF_STATE[record['state']] | _present(LATER, record), record))
    others = OTHERS | OTHERS_OF_STATE[record['state']]
    _require(record, {key: kind for key, kind in others.items() if key in record and not isinstance(kind, dict)})
    if record['state'] == 'done':
        _check_scores(record['scores'])
        cost = record.get('cost', {})  # a method's is not always known
        _require(cost, _present(OTHERS_OF_STATE['done']['cost'], cost), 'cost')
    if unknown := find_unknown(record, _known(record)):
        raise UserError(f'{unknown}; it was written by a newer version, or by hand')
    return record


def _fit(wanted: dict, record: dict) -> dict:
    """What is wanted of a config's run; or, where the record is of a method, what is of that."""
    if 'config' in record:
        return wanted
    done = dict.fromkeys(('method', 'data')) if 'scores' in wanted else {}
    return {key: METHOD.get(key, kind) for key, kind in (wanted | done).items()
            if key not in OF_CONFIGS and (key in record or key not in ('hardware', 'cost'))}


def _known(record: dict) -> dict:
    """Every key that a record of this kind and state may have."""
    state = record['state']
    known = ALWAYS | LATER | OTHERS | OF_STATE[state] | OTHERS_OF_STATE[state]
    if state == 'done':
        done = OF_STATE['done']
        known |= dict(scores=done['scores'] | dict(figures=dict),
                      cost=done['cost'] | OTHERS_OF_STATE['done']['cost'])
    if 'config' not in record:
        known = {key: kind for key, kind in known.items() if key not in OF_CONFIGS} | METHOD
    return known


def _refuse(constant: str) -> None:
    raise UserError(f'holds {constant}')


def migrate(record: dict) -> dict:
    """Version 1 had no checksum; until 2, each figure had a key of its own, and the mean of cases stood beside."""
    if record['version'] == VERSION:
        return record
    if isinstance(scores := record.get('scores'), dict):
        old = {name: key for name, key in NAMES_2.items() if scores.get(key) is not None}
        others = {key: value for key, value in scores.items() if key not in (*NAMES_2.values(), 'case')}
        record = record | dict(scores=others | dict(figures={name: scores[key] for name, key in old.items()}))
    return seal(record | dict(version=VERSION))


def _require(found: dict, wanted: dict, where: str = '') -> None:
    if fault := find_fault(found, wanted, where):
        raise UserError(fault)


def _present(wanted: dict, found: dict) -> dict:
    return {key: kind for key, kind in wanted.items() if found.get(key) is not None}


def _check_scores(scores: dict) -> None:
    """Every list as long as the labels or cases that it is about."""
    labels, cases = len(scores['labels']), len(scores['cases'])
    for name, figures in scores['figures'].items():
        per_case = isinstance(figures, list) and any(isinstance(row, list) for row in figures)
        if fault := find_fault(figures, [FIGURES] if per_case else FIGURES, f'scores.figures.{name}'):
            raise UserError(fault)
        rows = figures if per_case else [figures]
        if per_case and len(rows) != cases or any(len(row) != labels for row in rows):
            raise UserError(f'scores.figures.{name} is not of {f"{cases} cases x " * per_case}{labels} labels')
    if not set(scores['headline']) <= set(range(labels)):
        raise UserError('the headline names labels that are not there')
