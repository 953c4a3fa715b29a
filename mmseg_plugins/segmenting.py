"""Images one after the other through a trained model: label maps, pictures, scores where a reference is known."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.config import Config
from torch import nn

from .datasets.images import Image
from .datasets.intensity import channel_statistics, doubt_modality
from .datasets.volumes import Volume, read_volume, write_label
from .errors import UserError
from .evaluation.metrics import choose_metrics
from .evaluation.scores import ScoredCase, Scores, collect_scores, compare, score_case
from .faults import is_out_of_memory
from .files import write_json
from .inference import predict_volume
from .progress import Progress
from .untrusted import OTHERS, find_fault, read_json

LEDGER = 'prediction.json'  # in a folder of label maps: what made each


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
        facts: of the dataset that is scored: `nominal_spacing`, `nsd_tolerance`.
        scored: filled with each image that has a reference.
    """
    model: nn.Module
    cfg: Config
    index: dict
    facts: dict
    scored: dict[str, ScoredCase] = field(default_factory=dict)

    def __post_init__(self):
        self.metrics = choose_metrics(None, self.facts['nominal_spacing'])

    def segment(self, job: Job, progress: Callable[[int, int, str], None], say: Callable[[str], None],
                done: bool = False) -> tuple[np.ndarray, Volume] | None:
        """Write a job's label map and picture, and compare with its reference.

        Args:
            progress: called with (slices done, slices, '').
            say: called with a line of what is doubtful.
            done: the label map is there, and is taken as it is.

        Returns:
            The label map (D, H, W) and the image; None where nothing was left to do.

        Raises:
            UserError: the image cannot be read, is not the model's, or is too large for the device.
        """
        kept = done and not job.image.labelled  # else its picture may lack the reference
        drawn = not job.overlay or kept and job.overlay.exists()
        if kept and drawn:
            return None
        volume = job.image.read()
        if done:
            label = read_volume(job.label).image[:, 0]
        else:
            self._doubt(job.image, volume, say)
            try:
                label = predict_volume(self.model, volume, self.cfg, self.index, progress=progress)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise UserError(f'{job.image.name}: {" x ".join(map(str, volume.image.shape))} voxels do not fit '
                                'into memory; choose another --device, or crop the image') from None
            write_label(job.label, label, volume)
        if volume.label is not None:
            pair = compare(volume.label, label, len(self.index['labels']), volume.spacing,
                           self.facts['nsd_tolerance'])
            self.scored[job.image.name] = score_case(pair, self.metrics)
        if not drawn:
            from .datasets.pictures import draw_overlay

            draw_overlay(job.overlay, volume, label, self.index)
        return label, volume

    def segment_all(self, jobs: Sequence[Job], ledger: 'Ledger', progress: Progress) -> list[str]:
        """All jobs that are not done; one that cannot be is said, left out, and named."""
        count, slices, failed = progress.counter('cases'), progress.counter('slices'), []
        for number, job in enumerate(jobs):
            count(number, len(jobs), job.image.name)
            try:
                done = ledger.holds(job)
                if not done or job.overlay and not ledger.drew(job):
                    ledger.begin(job)
                self.segment(job, slices, progress.say, done)
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


class Ledger:
    """What made each label map of a folder: `prediction.json` in it.

    A label map counts as done where the same call made it of the same image. One that another call made, or
    nobody knows what, is not written over unless that is asked for.

    Args:
        folder: of the label maps.
        made_by: what determines a label map beside its image, in plain words.
    """

    def __init__(self, folder: Path, made_by: dict):
        self.path, self.made_by = folder / LEDGER, made_by
        try:
            found = read_json(self.path, '')
        except (FileNotFoundError, UserError):
            found = None
        fits = not find_fault(found, {str: dict(image=[[int]], by=OTHERS, overlays=([str], ...))})
        self.entries: dict[str, dict] = found if fits else {}

    def holds(self, job: Job) -> bool:
        """Whether a job's label map is done."""
        entry = self.entries.get(job.label.name, {})
        return job.label.exists() and {key: entry.get(key) for key in ('image', 'by')} == self._entry(job)

    def drew(self, job: Job) -> bool:
        """Whether a job's picture is of that label map."""
        place = self._place(job.overlay)
        return self.holds(job) and place in self.entries[job.label.name].get('overlays', [place])

    def check(self, jobs: Sequence[Job], others: Sequence[Path], overwrite: bool) -> None:
        """Refuse to write over files that this call has not made, or take them away.

        Args:
            others: files that will be written beside the label maps.

        Raises:
            UserError: names the first.
        """
        mine = {name for name, entry in self.entries.items() if entry['by'] == self.made_by}
        there = [job.label for job in jobs if overwrite or job.label.name not in mine]
        there += [job.overlay for job in jobs if job.overlay and (overwrite or not self.drew(job))]
        there = [file for file in there if file.exists()]
        there += [file for file in others if file.exists() and (overwrite or not mine)]
        if there and not overwrite:
            whose = ('another call' if there[0].name in self.entries else
                     'something else, or of another image' if there[0] in [job.overlay for job in jobs] else
                     'something else')
            raise UserError(f'{there[0]}: is there, made by {whose}; name another folder, or give --overwrite')
        for file in there:
            file.unlink()

    def begin(self, job: Job) -> None:
        """Note a label map and a picture before they are written: a kill leaves what is noted and not there."""
        drawn = []
        if self.holds(job):
            drawn = self.entries[job.label.name].get('overlays', [])  # which earlier versions did not note
        else:
            job.label.unlink(missing_ok=True)
        places = [*drawn, *([self._place(job.overlay)] if job.overlay else [])]
        self.entries[job.label.name] = self._entry(job) | dict(overlays=places)
        write_json(self.path, self.entries)

    def _entry(self, job: Job) -> dict:
        return dict(image=job.image.fingerprint, by=self.made_by)

    def _place(self, picture: Path | None) -> str | None:
        return picture and os.path.relpath(picture, self.path.parent)  # so that all may be moved together
