"""What a record must hold, how it is sealed against edits, and how older ones are brought to this version."""

import hashlib
import json
from dataclasses import fields

from mmseg_plugins.errors import UserError

from .cells import Cell

VERSION = 2
ALWAYS = dict(version=int, run=str, identity=str, cell=dict, seed=int, command=str, config=str, state=str,
              code=dict, packages=dict, hardware=dict)
DONE = dict(scores=dict, training=dict, cost=dict)  # `data` and `settings` came with version 2
SCORES = dict(labels=list, headline=list, cases=list, pooled=list, case=list, per_case=list)


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
        record = json.loads(text)
    except ValueError as error:
        raise UserError(f'not whole ({error})') from None
    if not isinstance(record, dict):
        raise UserError('not a record')
    version = record.get('version')
    if version == VERSION and record.get('checksum') != seal(record)['checksum']:
        raise UserError('edited since it was written (its checksum differs)')
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise UserError(f'of version {version!r}, this code knows 1 to {VERSION}')
    record = migrate(record)
    _require(record, ALWAYS, 'the record')
    if unknown := set(record['cell']) - {field.name for field in fields(Cell)}:
        raise UserError(f'its cell has unknown axes ({", ".join(sorted(unknown))})')
    if record['state'] == 'done':
        _require(record, DONE, 'a finished record')
        _check_scores(record['scores'])
    elif record['state'] != 'failed':
        raise UserError(f"its state is {record['state']!r}, not done or failed")
    return record


def migrate(record: dict) -> dict:
    """Version 1 had no checksum; its content is the same."""
    return seal(record | dict(version=VERSION)) if record['version'] == 1 else record


def _require(found: dict, wanted: dict[str, type], what: str) -> None:
    for key, kind in wanted.items():
        if not isinstance(found.get(key), kind):
            raise UserError(f'{what} has no {key!r} of type {kind.__name__}')


def _check_scores(scores: dict) -> None:
    """Every list as long as the labels or cases that it is about."""
    _require(scores, SCORES, 'scores')
    labels, cases = len(scores['labels']), len(scores['cases'])
    if len(scores['pooled']) != labels or len(scores['case']) != labels:
        raise UserError(f'scores are not of {labels} labels')
    for key in ('per_case', 'hd95_per_case', 'nsd_per_case'):
        table = scores.get(key)
        if table is not None and (len(table) != cases or any(len(row) != labels for row in table)):
            raise UserError(f'scores[{key!r}] is not of {cases} cases x {labels} labels')
    if not set(scores['headline']) <= set(range(labels)):
        raise UserError('the headline names labels that are not there')
