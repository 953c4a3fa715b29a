"""A 2D source task without a trace of CT: procedural RGB images of shapes laid out in a container.

Nine radial contours sit at golden-angle slots inside a larger contour, with distractors between them,
in colours that vary mostly in luminance as photographs do; each pixel's label is its slot. It shares
"objects at positions inside a container" with an abdomen, by design and by nothing else: generic
formula-driven sources (contour classification, masked modelling) showed no transfer at this scale.
"""

from pathlib import Path

import numpy as np

from .intensity import PROTOCOLS
from .statistics import describe_volume
from .store import preparing, read_meta, write_case, write_index
from .volumes import Volume

SLOTS = 9
LABELS = ['background', *(f'slot {k}' for k in range(1, SLOTS + 1))]
CHANNELS = 3
COUNT, SIZE = 1500, 64  # images to train on, and pixels along each of their sides
GOLDEN_ANGLE = np.pi * (3 - 5 ** 0.5)


def layout_images(count: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 3, size, size) uint8 and slot labels (count, size, size) uint8, 0 = none."""
    images = np.empty((count, 3, size, size), np.uint8)
    labels = np.zeros((count, size, size), np.uint8)
    for image, label in zip(images, labels, strict=True):
        canvas = _draw(size, label, rng)
        image[:] = np.clip(canvas * 255, 0, 255)
    return images, labels


def _draw(size: int, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    slot = np.arange(SLOTS)
    angle, distance = slot * GOLDEN_ANGLE, 0.12 + 0.62 * np.sqrt((slot + 0.5) / SLOTS)
    lobes, bumpiness = 2 + slot * 5 % 5, 0.05 + 0.05 * (slot % 4)
    luminance, extent = 0.35 + 0.06 * (slot * 4 % SLOTS), 0.10 + 0.20 * (slot * 7 % SLOTS) / SLOTS

    def colour(level):
        return (level + rng.normal(0, 0.05) + rng.normal(0, 0.07, 3)).astype(np.float32)[:, None, None]

    def put(value, x, y, radius, lobes, bumpiness, aspect, slot=None):
        """Paint a radial contour (and its slot's label) over what is there."""
        columns = slice(*np.searchsorted(axis, [x - 1.6 * radius, x + 1.6 * radius]))
        rows = slice(*np.searchsorted(axis, [y - 1.6 * radius, y + 1.6 * radius]))
        dx, dy = axis[None, columns] - x, axis[rows, None] - y
        turn = rng.uniform(0, 2 * np.pi)
        u = (np.cos(turn) * dx + np.sin(turn) * dy) * aspect
        v = (-np.sin(turn) * dx + np.cos(turn) * dy) / aspect
        theta = np.arctan2(v, u)
        contour = radius * (1 + bumpiness * np.cos(lobes * theta) + bumpiness / 2
                            * np.cos((lobes + 1) * theta + rng.uniform(0, 2 * np.pi)))
        cover = np.clip((contour - np.hypot(u, v)) * size / 2 + 0.5, 0, 1).astype(np.float32)
        patch = canvas[:, rows, columns]
        patch += (value - patch) * cover
        if slot is not None:
            label[rows, columns][cover > 0.5] = slot

    gradient = rng.normal(0, 0.06, (2, 3)).astype(np.float32)[:, :, None, None]
    canvas = colour(rng.uniform(0, 0.2)) + gradient[0] * axis[None, :] + gradient[1] * axis[:, None]
    x, y = rng.normal(0, 0.06, 2)
    radius, aspect, turn = rng.uniform(0.72, 0.95), rng.uniform(0.85, 1.15), rng.normal(0, 0.15)
    put(colour(0.5), x, y, radius, 3, 0.05, aspect)
    put(colour(0.28), x, y, radius * 0.88, 3, 0.04, aspect)

    def at(angle, distance):
        return (x + radius * distance * np.cos(angle) * aspect,
                y + radius * distance * np.sin(angle) / aspect)

    for _ in range(rng.integers(2, 7)):  # distractors
        put(colour(rng.uniform(0.3, 0.9)), *at(rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.7)),
            rng.uniform(0.04, 0.14), rng.integers(2, 6), 0.15, 1.0, 0)
    for k in rng.permutation(SLOTS):
        if rng.random() < 0.25:
            continue
        place = at(angle[k] + turn + rng.normal(0, 0.13), distance[k] + rng.normal(0, 0.05))
        put(colour(luminance[k]), *place, radius * extent[k] * rng.uniform(0.75, 1.3), lobes[k],
            bumpiness[k], rng.uniform(0.75, 1.3), k + 1)
    grain = (rng.standard_normal((1, size, size), np.float32)
             + 0.4 * rng.standard_normal(canvas.shape, np.float32))
    return canvas + rng.uniform(0.3, 1.5) * 0.08 * grain


def prepare_layout(folder: Path, count: int = COUNT, size: int = SIZE, seed: int = 20262) -> None:
    """Store the source task as a prepared dataset: a pile of images is a case of that many slices."""
    with preparing(folder, 'layout'):
        parts = {'train': count, 'val': max(count // 15, 1)}
        made_from = dict(seed=seed, size=size, parts=parts)
        cases = {}
        for number, (part, images_wanted) in enumerate(parts.items()):
            meta = read_meta(folder, part)
            if meta is None or meta['made_from'] != made_from:
                rng = np.random.default_rng((seed, number))
                images, labels = layout_images(images_wanted, size, rng)
                volume = Volume(images, labels, np.eye(4), (2, 1, 0), (False,) * 3)
                facts = describe_volume(volume, SLOTS + 1) | dict(made_from=made_from)
                meta = write_case(folder, part, volume, facts)
            cases[part] = meta
        write_index(folder, dict(
            dataset='layout', labels=LABELS, headline=list(range(1, SLOTS + 1)), channels=CHANNELS,
            intensity=dict.fromkeys(PROTOCOLS, (0, 255)), evaluate='val', nominal_spacing=True,
            split={part: [part] for part in parts}, split_hash=f'layout-{seed}', cases=cases))
