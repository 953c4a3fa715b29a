"""Images one after the other through a trained model: label maps, pictures, scores where a reference is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.config import Config
from torch import nn

from .datasets.images import Image
from .datasets.intensity import channel_statistics, doubt_modality
from .datasets.volumes import Volume, read_volume, write_label
from .errors import UserError, some
from .evaluation.metrics import choose_metrics
from .evaluation.scores import ScoredCase, Scores, collect_scores, compare, score_case
from .files import write_json
from .inference import predict_volume
from .progress import Progress
from .untrusted import read_json

NOTE = 'prediction.json'  # in a folder of label maps: what made them


@dataclass(frozen=True)
class Job:
    """An image, and where its label map and its picture go."""
    image: Image
    label: Path
    overlay: Path | None = None


@dataclass
class Segmenter:
    """A model with what must be known of its data.

    Args:
        model: from load_model.
        cfg: its config.
        index: of the dataset that it was trained on.
        scored: filled with each image that has a reference.
        voxels: filled with each image's voxels by label, (K,), and ml of a voxel.
    """
    model: nn.Module
    cfg: Config
    index: dict
    scored: dict[str, ScoredCase] = field(default_factory=dict)
    voxels: dict[str, tuple[np.ndarray, float]] = field(default_factory=dict)

    def __post_init__(self):
        self.metrics = choose_metrics(None, self.index['nominal_spacing'])

    def segment(self, job: Job, again: bool, progress: Callable[[int, int, str], None], say: Callable[[str], None]
                ) -> None:
        """Write a job's label map and picture, and compare with its reference.

        Args:
            again: though they are there; else what is there is taken as done.
            progress: called with (slices done, slices, '').
            say: called with a line of what is doubtful.

        Raises:
            UserError: the image cannot be read, or is not the model's.
        """
        volume = job.image.read()
        if again or not job.label.exists():
            self._doubt(job.image, volume, say)
            label = predict_volume(self.model, volume, self.cfg, self.index, progress=progress)
            write_label(job.label, label, volume)
        else:
            label = read_volume(job.label).image[:, 0]
        labels = len(self.index['labels'])
        if volume.label is not None:
            pair = compare(volume.label, label, labels, volume.spacing, self.index['nsd_tolerance'])
            self.scored[job.image.name] = score_case(pair, self.metrics)
        if job.overlay and (again or not job.overlay.exists()):
            from .datasets.pictures import draw_overlay

            draw_overlay(job.overlay, volume, label, self.index)
        self.voxels[job.image.name] = np.bincount(label.ravel(), minlength=labels), np.prod(volume.spacing) / 1000

    def segment_all(self, jobs: Sequence[Job], progress: Progress) -> list[str]:
        """All jobs that are not done; one that cannot be is said, left out, and named."""
        count, slices, failed = progress.counter('cases'), progress.counter('slices'), []
        for number, job in enumerate(jobs):
            count(number, len(jobs), job.image.name)
            try:
                self.segment(job, False, slices, progress.say)
            except UserError as error:
                progress.say(f'error: {error}')
                failed.append(job.image.name)
        count(len(jobs), len(jobs), '')
        return failed

    def scores(self) -> Scores | None:
        """Of all images that have a reference; None: none has one."""
        return collect_scores(self.scored, self.metrics) if self.scored else None

    def _doubt(self, image: Image, volume: Volume, say: Callable[[str], None]) -> None:
        name = str(image.files[0]) if image.files else image.name
        doubts = doubt_modality({name: channel_statistics(volume.image)}, self.index.get('modality'),
                                self.index.get('channel_names', ()))
        for line in (*(f'{name}: {note}' for note in volume.notes), *doubts):
            say(f'warning: {line}')


def check_folder(folder: Path, jobs: Sequence[Job], made_by: dict, overwrite: bool) -> None:
    """Label maps that are in the folder already must be of the same call, or go.

    Args:
        made_by: what determines them, in plain words; it is noted in the folder.
        overwrite: whether they may go.

    Raises:
        UserError: they are of another call, or of nobody knows what.
    """
    there = [file for job in jobs for file in (job.label, job.overlay) if file and file.exists()]
    try:
        before = read_json(folder / NOTE, '')
    except (FileNotFoundError, UserError):
        before = None
    if there and before != made_by:
        if not overwrite:
            whose = 'another checkpoint or config' if before else 'something else'
            raise UserError(f'{folder}: holds {some([file.name for file in there], 3)}, made by {whose}; name '
                            'another folder, or give --overwrite')
        for file in there:
            file.unlink()
    write_json(folder / NOTE, made_by)
