"""The sources and which of them are here: python tools/sources.py [--weights-root weights] [--check]"""

import argparse
import logging
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmseg_plugins.certificate import build_encoder
from mmseg_plugins.errors import UserError, run_main
from mmseg_plugins.sources import SOURCES, Source, file_sha256


def main() -> int:
    parser = argparse.ArgumentParser(description='List the source checkpoints, find and check them.')
    parser.add_argument('--weights-root', type=Path, default=Path('weights'))
    parser.add_argument('--check', action='store_true',
                        help='hash every file that is here and load it, every key accounted for')
    args = parser.parse_args()
    logging.disable(logging.INFO)  # the table says it better
    table = Table(box=None, header_style='bold')
    for column in ('source', 'encoder', 'objective', 'data', 'file', 'here', 'from', 'licence', 'citation'):
        table.add_column(column, overflow='fold')
    for name, source in SOURCES.items():
        here = (args.weights_root / source.file).is_file()
        table.add_row(name, source.encoder, source.objective, source.data, source.file, 'yes' if here else 'no',
                      source.origin, source.licence, source.citation)
    console = Console(width=None if Console().is_terminal else 200, highlight=False)
    console.print(table)
    found = [(name, source) for name, source in SOURCES.items() if (args.weights_root / source.file).is_file()]
    print(f'{len(found)} of {len(SOURCES)} under {args.weights_root}')
    return max([check(name, source, args.weights_root) for name, source in found], default=0) if args.check else 0


def check(name: str, source: Source, weights_root: Path) -> int:
    """Print a file's hash and load report; returns the exit status that it deserves."""
    path = weights_root / source.file
    digest = file_sha256(path)
    known = '' if source.sha256 is None else ', as published' if digest == source.sha256 else ', not as published'
    print(f'{name}: sha256 {digest}{known}')
    try:
        print(f'  {build_encoder(path, source.encoder, 5, 1, "centering", 224).load_report}')
    except UserError as error:
        print(f'  error: {error}')
        return 2
    return 0 if source.sha256 in (None, digest) else 2


if __name__ == '__main__':
    run_main(main)
