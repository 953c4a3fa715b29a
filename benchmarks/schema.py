"""What a record must hold, how it is sealed against edits, and how older ones are brought to this version."""

import hashlib
import json
from dataclasses import fields

from mmseg_plugins.errors import UserError
from mmseg_plugins.untrusted import NUMBER, find_fault, find_unknown

from .cells import Cell

VERSION = 2

# What each key holds, as find_fault has it.
FIGURES = [(int, float, None)]  # None: of nothing, as where a label is absent
ALWAYS = dict(
    version=int, run=str, identity=str, seed=int, command=str, config=str, state=str,
    cell=dict(dataset=str, encoder=str, source=str, inflation=str, slices=int, stride=int, target=str,
              lr=(int, float, None)),
    code=dict(revision=(str, None), modified=bool), packages=dict,
    hardware=dict(cpu=str, cores=(int, None), threads=int, gpu=(str, None)))
OF_STATE = dict(
    failed=dict(reason=str),
    done=dict(
        scores=dict(labels=[str], headline=[int], cases=[str], pooled=FIGURES, case=FIGURES, per_case=[FIGURES]),
        training=dict(steps=int, last_loss=NUMBER, curve=[NUMBER]),
        cost=dict(parameters=NUMBER, encoder_flops=NUMBER, flops=NUMBER, seconds=NUMBER, peak_memory_mib=NUMBER)))
LATER = dict(  # what version 1 did not have from its first day
    settings=dict, data=dict(dataset=str, split_hash=str, cases=dict, evaluated=str, protocol=str,
                             input_size=[int]))
LATER_SCORES = dict(hd95_per_case=[FIGURES], nsd_per_case=[FIGURES])
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
        record = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f'not whole ({error})') from None
    if not isinstance(record, dict):
        raise UserError('not a record')
    version = record.get('version')
    if type(version) is not int or not 1 <= version <= VERSION:
        raise UserError(f'of version {version!r}, this code knows 1 to {VERSION}')
    if version == 1 and 'checksum' in record:
        raise UserError('edited since it was written (version 1 had no checksum)')
    record = migrate(record)
    if record.get('checksum') != seal(record)['checksum']:
        raise UserError('edited since it was written (its checksum differs)')
    _require(record, ALWAYS)
    if unknown := set(record['cell']) - {field.name for field in fields(Cell)}:
        raise UserError(f'its cell has unknown axes ({", ".join(sorted(unknown))})')
    if record['state'] not in OF_STATE:
        raise UserError(f"its state is {record['state']!r}, not done or failed")
    _require(record, OF_STATE[record['state']] | _present(LATER, record))
    others = OTHERS | OTHERS_OF_STATE[record['state']]
    _require(record, {key: kind for key, kind in others.items() if key in record and not isinstance(kind, dict)})
    if record['state'] == 'done':
        _check_scores(record['scores'])
        _require(record['cost'], _present(OTHERS_OF_STATE['done']['cost'], record['cost']), 'cost')
    if unknown := find_unknown(record, _known(record['state'])):
        raise UserError(f'{unknown}; it was written by a newer version, or by hand')
    return record


def _known(state: str) -> dict:
    """Every key that a record of this state may have."""
    known = ALWAYS | LATER | OTHERS | OF_STATE[state] | OTHERS_OF_STATE[state]
    if state == 'done':
        done = OF_STATE['done']
        known |= dict(scores=done['scores'] | LATER_SCORES, cost=done['cost'] | OTHERS_OF_STATE['done']['cost'])
    return known


def _refuse(constant: str) -> None:
    raise UserError(f'holds {constant}')


def migrate(record: dict) -> dict:
    """Version 1 had no checksum; its content is the same."""
    return seal(record | dict(version=VERSION)) if record['version'] == 1 else record


def _require(found: dict, wanted: dict, where: str = '') -> None:
    if fault := find_fault(found, wanted, where):
        raise UserError(fault)


def _present(wanted: dict, found: dict) -> dict:
    return {key: kind for key, kind in wanted.items() if found.get(key) is not None}


def _check_scores(scores: dict) -> None:
    """Every list as long as the labels or cases that it is about."""
    _require(scores, _present(LATER_SCORES, scores), 'scores')
    labels, cases = len(scores['labels']), len(scores['cases'])
    if len(scores['pooled']) != labels or len(scores['case']) != labels:
        raise UserError(f'scores are not of {labels} labels')
    for key in ('per_case', 'hd95_per_case', 'nsd_per_case'):
        table = scores.get(key)
        if table is not None and (len(table) != cases or any(len(row) != labels for row in table)):
            raise UserError(f'scores[{key!r}] is not of {cases} cases x {labels} labels')
    if not set(scores['headline']) <= set(range(labels)):
        raise UserError('the headline names labels that are not there')
