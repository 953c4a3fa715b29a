"""What a grid's runs start from: prepared datasets and source checkpoints."""

from collections.abc import Sequence
from pathlib import Path

from mmseg_plugins.commands import REPO
from mmseg_plugins.datasets import photographs
from mmseg_plugins.datasets.catalogue import CATALOGUE, dataset_info
from mmseg_plugins.datasets.layouts import find_cases
from mmseg_plugins.datasets.phantom import write_phantom
from mmseg_plugins.datasets.prepare import prepare_dataset
from mmseg_plugins.datasets.store import write_folds
from mmseg_plugins.errors import UserError
from mmseg_plugins.experiment import read_config
from mmseg_plugins.files import file_sha256
from mmseg_plugins.sources import TIMM, Source, fetch_source, find_source, read_note

from ..grid.grid import Grid

PREPARED = Path('data/prepared')


def find_archives(grid: Grid, data_root: Path) -> dict[str, Path | None]:
    """Each dataset's archive, there or not; None for one outside the catalogue that has been prepared.

    Raises:
        UserError: a dataset is neither in the catalogue nor prepared.
    """
    archives = {}
    for name in grid.datasets:
        if name not in CATALOGUE and is_prepared(name):
            archives[name] = None
        else:
            try:
                archives[name] = (PREPARED.parent if name == 'phantom' else data_root) / dataset_info(name).folder
            except UserError as error:
                raise UserError(f'grid {grid.name}: {error}') from None
    return archives


def find_absent(grid: Grid, data_root: Path) -> dict[str, str]:
    """Sources of the grid that lack photographs and commands that lack what they need, and which file it is."""
    needs = {name: Path(config['needs']) for name, config in grid.configs.items()
             if isinstance(config, dict) and 'needs' in config}
    absent = {name: f'{path}: not found, so rows of {name} are left out, whose command needs it'
              for name, path in needs.items() if not path.exists()}
    archive, names = data_root / photographs.ARCHIVE, _made_of_photographs(grid)
    if not (is_prepared('photographs') or archive.exists()):
        absent |= dict.fromkeys(names, f'{archive}: not found, so rows that start from {", ".join(names)} are '
                                       f'left out; get {photographs.ORIGIN}')
    return absent


def _made_of_photographs(grid: Grid) -> list[str]:
    return [name for name, source in _sources_of(grid).items() if made_on(source) == 'photographs']


def made_on(source: Source) -> str | None:
    """The prepared dataset that a grid makes a source on; None: it makes it of another source, or not at all."""
    return Path(read_config(REPO / source.made_by).experiment.data_root).name if source.made_by else None


def is_prepared(name: str) -> bool:
    return (PREPARED / name / 'index.json').is_file()


def prepare_inputs(grid: Grid, archives: dict[str, Path | None], data_root: Path, weights_root: Path,
                   progress) -> None:
    """Prepare the grid's datasets and photographs where that is still to do, and check that its sources are there.

    The folds of a cross-validated grid are written beside each dataset.

    Raises:
        UserError: an archive or a checkpoint is missing: what to fetch and where to put it.
    """
    if 'phantom' in archives:
        write_phantom(archives['phantom'], progress=progress.counter('drawing the phantom'))
    fresh = [name for name in archives if not is_prepared(name)]
    missing = [name for name in fresh if not archives[name].is_dir()]
    if missing and len(archives) > 1:
        where = ', '.join(f'{name} ({archives[name]})' for name in missing)
        others = ' '.join(name for name in archives if name not in missing)
        raise UserError(f'neither prepared nor on disk (docs/datasets.md): {where}; run '
                        + (f'the others with --dataset {others}' if others else 'one with --dataset NAME'))
    for name in fresh:
        find_cases(dataset_info(name), archives[name])
    wanted = _sources_of(grid)
    for source in wanted.values() if grid.folds else ():
        for data in grid.datasets:
            if any(seen.partition(':')[0] == data for seen in _seen_by(source, weights_root)):
                raise UserError(f'{source.file} is pre-trained on cases of {data}, all of which folds report; '
                                'leave that source or folds out')
    published = {name: source for name, source in wanted.items() if not (source.made_by or source.permuted)}
    missing = {name: source for name, source in published.items()
               if not name.startswith(TIMM) and not source.path(weights_root).is_file()}
    if missing:
        fetched = [name for name, source in missing.items() if source.places]
        get = (f'call tools/sources.py --get {" ".join(fetched)}' if fetched else
               'download them from their authors and put them there')
        where = ', '.join(str(source.path(weights_root)) for source in missing.values())
        raise UserError(f'source checkpoints not found: {where}; {get} (docs/sources.md)')
    for name in published:
        if name.startswith(TIMM):  # here, once: the runs may be where there is no network
            fetch_source(name, weights_root, progress)
    for source in published.values():
        path = source.path(weights_root)
        if source.sha256 and file_sha256(path) != source.sha256:
            raise UserError(f'{path}: its sha256 is {file_sha256(path)}, the source says {source.sha256}; fetch '
                            'it again, or correct the grid file')
    faulty = [name for name, raw in archives.items() if raw and raw.is_dir() and not _prepare(name, raw, progress)]
    if faulty:
        raise UserError(f'faults in {", ".join(faulty)} (above); mend them, or call again to go on with the good '
                        'cases')
    for name in grid.datasets if grid.folds else ():
        write_folds(PREPARED / name, grid.folds)
    archive = data_root / photographs.ARCHIVE
    if _made_of_photographs(grid) and archive.exists():
        for fault in photographs.prepare_photographs(archive, PREPARED / 'photographs',
                                                     progress=progress.counter('preparing photographs')):
            progress.say(fault)


def _sources_of(grid: Grid) -> dict[str, Source]:
    """Those of its cells by name, and those that these are made of."""
    waiting, found = sorted({cell.source for cell in grid.cells()} - {'none', None}), {}
    for name in waiting:
        found[name] = find_source(name, grid.sources)
        waiting += [needed for needed in [found[name].needs] if needed and needed not in waiting]
    return found


def _seen_by(source: Source, weights_root: Path) -> Sequence[str]:
    """Datasets of which pre-training saw cases: what stands beside the file, else in its entry or its config."""
    of_config = made_on(source)
    return read_note(source.path(weights_root)).get('saw') or source.saw or ([of_config] if of_config else [])


def _prepare(name: str, raw: Path, progress) -> bool:
    """Bring a prepared dataset up to date; False where it is new and has faults."""
    index = PREPARED / name / 'index.json'
    before = index.read_bytes() if index.is_file() else None
    result = prepare_dataset(name, raw, index.parent, progress.counter(f'preparing {name}'))
    # a fault is told as long as it lasts, a warning when the data is new
    for line in result.faults + [f'warning: {line}' for line in result.warnings if index.read_bytes() != before]:
        progress.say(line)
    return before is not None or not result.faults
