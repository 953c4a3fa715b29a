"""A trained model as a folder to give away: python tools/export.py CHECKPOINT FOLDER [--scores scores.json]"""

import argparse

from mmseg_plugins.errors import UserError, run_main
from mmseg_plugins.export import CARD, CONFIG, WEIGHTS, export_model
from mmseg_plugins.files import check_output
from mmseg_plugins.options import path
from mmseg_plugins.safe_load import load_trained


def main() -> None:
    parser = argparse.ArgumentParser(description='Write weights as safetensors, a config and a model card, in the '
                                                 'layout that model hubs expect; merges what was trained beside '
                                                 'the weights, as LoRA.')
    parser.add_argument('checkpoint', type=path)
    parser.add_argument('folder', type=path)
    parser.add_argument('--scores', type=path, metavar='JSON',
                        help='figures for the card: what tools/test.py --out or tools/predict.py has written')
    parser.add_argument('--imports', nargs='+', default=[], metavar='MODULE',
                        help='modules that the checkpoint was trained with')
    parser.add_argument('--overwrite', action='store_true', help='the files may be there already')
    args = parser.parse_args()
    if args.folder.exists() and not args.folder.is_dir():
        raise UserError(f'{args.folder}: is there, and no folder; name another')
    inputs = [file for file in (args.checkpoint, args.scores) if file]
    for name in (WEIGHTS, CONFIG, CARD):
        check_output(args.folder / name, 'the exported model', inputs, args.overwrite)
    export_model(load_trained(args.checkpoint), args.checkpoint, args.folder, tuple(args.imports), args.scores)
    print(args.folder / CARD)


if __name__ == '__main__':
    run_main(main)
