"""A grid's runs and sources as work to be timed: of which kind, how many steps, windows and checkpoints."""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from mmseg_plugins.commands import REPO
from mmseg_plugins.datasets import layout_images, phantom
from mmseg_plugins.datasets.catalogue import CATALOGUE, DatasetInfo
from mmseg_plugins.datasets.splits import split_cases
from mmseg_plugins.experiment import load_model_config
from mmseg_plugins.flops import count_config

from ..paper.published import published_data
from ..runs.agenda import Agenda
from ..runs.records import find_record
from ..runs.run import Run, content_hash, describe_kind

STORED = 0.36  # of a case's bytes, compressed (benchmarks/speed/loader.md)
# What changes nothing of what a run takes.
FREE = {f'experiment.{key}'
        for key in ('seed', 'source', 'inflation', 'stride', 'lr', 'neighbour_lr', 'train_percent')}


class Kind:
    """Runs of a grid that take the same, or the making of a source.

    Attributes:
        what: they train, and on what, in words; `run`: one of them, None of a source.
        to_do: by name, the name of what must be there before; `finished`: by name, the record.
        batch: windows or crops of a step; `steps`, `windows` (of crops, cases) that are evaluated, `checkpoints`:
        of each run. index: of the dataset in `folder`, or what is known of one that is not prepared; `assumed`:
        who says so. size: (H, W) in pixels of such a dataset's slices.
        stored: bytes of the prepared dataset. dsc_alone: whether no other metric is computed, as in a search.
    """

    def __init__(self, config: str, options: dict, title: str, run: Run | None = None):
        self.run, self.to_do, self.finished = run, {}, {}
        self.dsc_alone = bool(run and run.setting)
        self.cfg, self.index = load_model_config(REPO / config, options)
        experiment = self.cfg.experiment
        self.what = describe_kind(title, experiment, len(self.index['labels']))
        self.batch, self.steps, self.folder = experiment.batch, experiment.steps, Path(experiment.data_root)
        self.checkpoints = math.ceil(self.steps / experiment.checkpoint_interval)
        slices, self.windows = self._look_at_data(), 0
        if self.cfg.val_dataloader:
            folds = run.fold[1] if run and run.fold else 1  # as many cases on average
            split = 'all' if folds > 1 else experiment.get('evaluate') or self.index['evaluate']
            cases = split_cases(self.index, split) if slices or ':' not in split else ()
            self.windows = (math.ceil(self.steps / (experiment.get('val_interval') or self.steps))
                            * sum(slices[case] for case in cases) / folds)

    def _look_at_data(self) -> dict[str, int]:
        """Slices by case; of a dataset that is not prepared its split is made up."""
        if 'cases' in self.index:
            self.assumed = ''
            self.stored = sum(path.stat().st_size for path in self.folder.rglob('*') if path.is_file())
            return {case: self._samples(entry['shape'][0]) for case, entry in self.index['cases'].items()}
        cases, (*self.size, depth), self.assumed = _expect(self.folder.name)
        voxel = 2 * self.index['channels'] + 1  # bytes, with its label
        self.stored = sum(cases.values()) * math.prod(self.size) * depth * voxel * STORED
        split = {part: [f'{part}{number}' for number in range(count)]
                 for part, count in ({self.index['evaluate']: 0} | cases).items()}
        self.index |= dict(dataset=self.folder.name, split=split)
        return {case: self._samples(depth) for names in split.values() for case in names}

    def _samples(self, depth: int) -> int:
        """That a case is evaluated in: its windows, or itself as a whole."""
        return 1 if self.cfg.experiment.get('crop') else depth

    @cached_property
    def counts(self) -> tuple[int, int] | None:
        """Parameters, and FLOPs of a window or crop; None for pre-training without labels."""
        if not {'decode_head', 'network'} & set(self.cfg.model):
            return None
        costs = count_config(self.cfg).values()
        return sum(cost.parameters for cost in costs), sum(cost.flops for cost in costs)


def _expect(name: str) -> tuple[dict[str, int], tuple[int, ...], str]:
    """Of a dataset that is not prepared: cases by split, (H, W, D) of one, and who says so."""
    if name == 'layout':
        return dict(train=layout_images.COUNT), (layout_images.SIZE, layout_images.SIZE, 1), 'as it will be made'
    if name == 'phantom':
        cases = {part: len(numbers) for part, numbers in CATALOGUE[name].split.items()}
        return cases, (phantom.SIZE, phantom.SIZE, phantom.DEPTH), 'as it will be made'
    if name in published_data().index:
        row = published_data().loc[name]
        cases = {part: int(row[part]) for part in ('train', 'val', 'test')}
        return cases, tuple(map(int, row['raw size'].split('x'))), "the paper's Table 1"
    size = CATALOGUE.get(name, DatasetInfo).input_size
    return {}, (size, size, 0), 'nothing known of its cases: no evaluation and no store counted'


def list_kinds(agenda: Agenda, folders: Sequence[Path]) -> list[Kind]:
    """The kinds of a grid's sources and runs. Of a method that is no config nothing is known beforehand.

    Args:
        agenda: the grid's runs, and which of them are to do.
        folders: of their records.
    """
    kinds, waiting = {}, {run.name for run in agenda.todo}
    for job in (job for job in agenda.sources if job.config):  # the others take seconds
        name = f'source {job.name}'
        kinds[name] = Kind(job.config, job.options, name)
        kinds[name].to_do[name] = job.needs and f'source {job.needs}'
    for run in agenda.runs:
        if run.cell.without_config or run in agenda.failed:
            continue
        free = FREE | ({'experiment.split', 'experiment.evaluate'} if run.fold else set())
        key = content_hash([run.config, {name: value for name, value in run.options.items() if name not in free}])
        if key not in kinds:
            kinds[key] = Kind(run.config, run.options, run.title, run)
        if run.name in waiting:
            kinds[key].to_do[run.name] = f'source {run.cell.source}'
        else:
            kinds[key].finished[run.name] = find_record(folders, run)
    return list(kinds.values())


Works = Sequence[tuple[Agenda, list[Kind]]]  # of each grid what is to do, and its kinds
