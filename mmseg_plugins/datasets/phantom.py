"""A procedural abdominal CT with BCV's 13 organs, written to disk in BCV's layout.

Thick slices, noise and streaks drawn anew for each slice, and an in-plane drift from slice to slice
(as breathing makes) are what give neighbouring slices a value and make averaging them blur. Nothing
is learned or copied from a patient: organs are ellipsoids and tubes at jittered positions.

Coordinates of a volume (D, H, W): x to the patient's left, y to the back, both -1..1; z 0 (head) to 1.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from .catalogue import BCV_LABELS, CATALOGUE
from .nifti import write_nifti

SIZE, DEPTH = 64, 16  # pixels along x and y, slices
SPACING = (5.5, 5.5, 12.0)  # mm along x, y, z
ID = {name: number for number, name in enumerate(BCV_LABELS)}


class _Body:
    """The grid being painted: warped coordinates X, Y, Z and the two arrays `hu` and `label`."""

    def __init__(self, rng: np.random.Generator, depth: int, size: int, warp: float, drift: float):
        self.rng, self.shape = rng, (depth, size, size)
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
        self.x = np.broadcast_to(axis[None, None, :], self.shape)
        self.y = np.broadcast_to(axis[None, :, None], self.shape)
        z = np.broadcast_to(((np.arange(depth, dtype=np.float32) + 0.5) / depth)[:, None, None],
                            self.shape)
        wide, tall = rng.uniform(0.96, 1.10), rng.uniform(1.12, 1.30)
        self.X = 0.98 * (self.x - rng.normal(0, 0.03)) / wide + self.field((5, 5, 5), warp)
        self.Y = (self.y - rng.normal(0, 0.03)) / tall + self.field((5, 5, 5), warp)
        for plane in (self.X, self.Y):
            steps = ndimage.gaussian_filter1d(rng.normal(size=depth + 8), 1.0)[4:-4] * drift
            plane += steps[:, None, None].astype(np.float32)
        self.Z = z - rng.normal(0, 0.04) + self.field((3, 4, 4), 0.03)
        self.texture = self.field((8, 16, 16), 1.0)
        self.hu = np.full(self.shape, -1000, np.float32)
        self.label = np.zeros(self.shape, np.uint8)

    def field(self, grid: tuple[int, int, int], amplitude: float) -> np.ndarray:
        """A smooth random field of the body's shape."""
        knots = self.rng.normal(size=grid).astype(np.float32)
        zoom = [n / k for n, k in zip(self.shape, grid, strict=True)]
        return amplitude * ndimage.zoom(knots, zoom, order=3, mode='nearest', grid_mode=True)

    def disc(self, centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
        """Below 1 inside an elliptic cylinder along z."""
        return ((self.X - centre[0]) / radii[0]) ** 2 + ((self.Y - centre[1]) / radii[1]) ** 2

    def ball(self, centre, radii, angle: float = 0.0) -> np.ndarray:
        """Below 1 inside an ellipsoid turned in-plane by `angle`."""
        dx, dy, dz = self.X - centre[0], self.Y - centre[1], self.Z - centre[2]
        cos, sin = np.cos(angle), np.sin(angle)
        dx, dy = cos * dx + sin * dy, -sin * dx + cos * dy
        return (dx / radii[0]) ** 2 + (dy / radii[1]) ** 2 + (dz / radii[2]) ** 2

    def sweep(self, path: Callable[[float], tuple[float, float, float]], radius: float,
              radius_z: float) -> np.ndarray:
        """Below 1 inside a tube around a curve given for 0..1."""
        return np.minimum.reduce([self.ball(path(t), (radius, radius, radius_z))
                                  for t in np.linspace(0, 1, 14)])

    def paint(self, mask: np.ndarray, hu, organ: str | None = None, texture: float = 6.0) -> None:
        self.hu[mask] = (hu + texture * self.texture)[mask]
        if organ:
            self.label[mask] = ID[organ]

    def density(self, mean: float, spread: float = 1.0) -> float:
        """A tissue's density in HU for this patient."""
        return mean + self.rng.normal(0, 12.0) * spread


def make_phantom(seed, size: int = SIZE, depth: int = DEPTH) -> tuple[np.ndarray, np.ndarray]:
    """One phantom patient.

    Args:
        seed: anything numpy's default_rng takes.
        size: H = W in pixels.
        depth: D, slices from head to feet.

    Returns:
        HU as (D, H, W) int16 and label ids of BCV as (D, H, W) uint8.
    """
    rng = np.random.default_rng(seed)
    body = _Body(rng, depth, size, warp=0.05, drift=0.12)
    cavity = _paint_trunk(body)
    _paint_organs(body, cavity)
    hu = _acquire(body)
    return np.clip(np.round(hu), -1024, 3071).astype(np.int16), body.label


def _paint_trunk(body: _Body) -> np.ndarray:
    """Skin, muscle, fat, spine, ribs, bowel and lung bases; returns the abdominal cavity's mask."""
    U, paint, density = body.rng.uniform, body.paint, body.density
    paint(body.disc((0, 0), (0.92, 0.70)) < 1, -105)
    paint(body.disc((0, 0), (0.82, 0.60)) < 1, density(55))
    cavity = body.disc((0, -0.03), (0.76, 0.52))
    paint(cavity < 1, -85, texture=15)
    paint(((np.abs(body.X) - 0.20) / 0.17) ** 2 + ((body.Y - 0.47) / 0.13) ** 2 < 1, density(55))
    vertebrae = 40 * np.cos(2 * np.pi * body.shape[0] / 5 * body.Z)
    paint(body.disc((0, 0.34), (0.14, 0.12)) < 1, density(220) + vertebrae)
    paint(body.disc((0, 0.50), (0.05, 0.05)) < 1, density(30))
    for rib in range(10):
        angle, level = np.pi * (0.04 + 0.10 * rib), (0.15 * rib + U(-0.05, 0.05)) % 0.5
        ring = body.disc((0.79 * np.cos(angle), -0.56 * np.sin(angle) + 0.05), (0.05, 0.05))
        paint(ring + ((((body.Z - level + 0.25) % 0.5) - 0.25) / 0.12) ** 2 < 1, density(230))
    for _ in range(body.rng.integers(9, 14)):  # bowel loops, unlabelled distractors
        loop = body.ball((U(-0.55, 0.55), U(-0.40, 0.10), U(0.45, 1.05)),
                         (U(0.10, 0.20), U(0.08, 0.16), U(0.06, 0.14)), U(0, np.pi))
        paint(loop < 1, density(60))
        paint(loop < 0.55, density(25, 1.5) if U() < 0.6 else -300)
    for side in (-1, 1):
        paint((body.ball((side * 0.42, 0.15, -0.05), (0.34, 0.38, 0.15)) < 1) & (cavity < 1), -850)
    return cavity


def _paint_organs(body: _Body, cavity: np.ndarray) -> None:
    """The 13 labelled organs, each over what was painted before it."""
    U, N, paint, density = body.rng.uniform, body.rng.normal, body.paint, body.density
    label, inside = body.label, cavity < 1
    liver_hu, spleen_hu, kidney_hu = density(105), density(112), density(140)
    vein_hu, aorta_hu = density(135), density(150)

    liver_x = -0.36 + N(0, 0.03)
    right_lobe = body.ball((liver_x, -0.04 + N(0, 0.03), 0.30 + N(0, 0.03)),
                           (U(0.34, 0.42), U(0.36, 0.44), U(0.36, 0.46)))
    left_lobe = body.ball((-0.06 + N(0, 0.05), -0.24, 0.22),
                          (U(0.26, 0.36), U(0.14, 0.20), U(0.14, 0.22)))
    liver = ((right_lobe < 1) | (left_lobe < 1)) & inside
    paint(liver, liver_hu, 'liver')
    for _ in range(body.rng.integers(1, 5)):  # cysts, labelled liver
        radius = U(0.05, 0.09)
        cyst = body.ball((liver_x + U(-0.22, 0.22), U(-0.25, 0.2), U(0.1, 0.6)),
                         (radius, radius, radius * 0.5))
        paint((cyst < 1) & liver, density(15), 'liver')

    spleen = (body.ball((0.55 + N(0, 0.03), 0.16 + N(0, 0.04), 0.32 + N(0, 0.05)),
                        (U(0.13, 0.18), U(0.20, 0.28), U(0.16, 0.26)), U(-0.4, 0.2)) < 1) & inside
    paint(spleen, spleen_hu, 'spleen')

    fundus = (0.32 + N(0, 0.04), -0.14 + N(0, 0.04), 0.26 + N(0, 0.05))
    antrum = (0.12 + N(0, 0.05), -0.28 + N(0, 0.04), fundus[2] + U(0.10, 0.18))
    stomach = ((body.ball(fundus, (U(0.18, 0.25), U(0.16, 0.22), U(0.12, 0.20))) < 1)
               | (body.ball(antrum, (U(0.18, 0.26), U(0.09, 0.13), U(0.06, 0.10))) < 1))
    stomach &= inside & ~spleen
    paint(stomach, density(62), 'stomach')
    lumen = ndimage.binary_erosion(stomach, np.ones((1, 3, 3)))
    paint(lumen, density(28, 1.5), 'stomach')
    paint(lumen & (body.Y < U(-0.45, -0.15)), -400, 'stomach')  # air above fluid

    for side, name in ((-1, 'right'), (1, 'left')):
        centre = (side * (0.38 + N(0, 0.02)), 0.27 + N(0, 0.03),
                  0.62 + (0.05 if side < 0 else -0.03) + N(0, 0.04))
        radii = (U(0.13, 0.17), U(0.13, 0.17), U(0.18, 0.26))
        kidney = (body.ball(centre, radii, side * U(0.1, 0.5)) < 1) & (cavity < 1.05)
        paint(kidney, kidney_hu, f'{name} kidney')
        sinus = body.ball((centre[0] - side * 0.07, *centre[1:]),
                          (radii[0] * 0.5, radii[1] * 0.45, radii[2] * 0.5))
        paint((sinus < 1) & kidney, -60, 'background')
        above = (centre[0] - side * 0.12, centre[1] - 0.10, centre[2] - radii[2] - 0.02)
        adrenal = np.minimum(body.ball(above, (0.10, 0.025, 0.05), side * 0.9),
                             body.ball(above, (0.09, 0.025, 0.05), -side * 0.2))
        paint((adrenal < 1) & (label != ID['spleen']), density(75), f'{name} adrenal gland')

    def vessel(x, y, radius):
        return ((body.X - x) / (1.2 * radius)) ** 2 + ((body.Y - y) / (1.2 * radius)) ** 2 < 1

    phase = U(0, 2 * np.pi)
    paint(vessel(0.06 + 0.02 * np.sin(5 * body.Z + phase), 0.17, U(0.060, 0.075)), aorta_hu, 'aorta')
    paint(vessel(-0.10 + 0.03 * np.sin(4 * body.Z + phase), 0.16 - 0.10 * np.clip(0.3 - body.Z, 0, 1),
                 U(0.060, 0.085)), vein_hu, 'inferior vena cava')
    hiatus = body.Z < 0.28 + N(0, 0.03)
    paint(vessel(0.06 - 0.1 * (0.3 - body.Z), 0.05 + 0.25 * body.Z, 0.055) & hiatus, density(55),
          'esophagus')

    level, tilt = 0.45 + N(0, 0.03), U(0.05, 0.18)
    splenic_vein = body.sweep(lambda t: (-0.22 + 0.62 * t, 0.10 * np.sin(3 * t) - 0.02,
                                         level - 0.05 - tilt * (t - 0.4)), 0.04, 0.05)
    paint((splenic_vein < 1) & (label != ID['aorta']), vein_hu, 'portal and splenic veins')
    bend = U(0.06, 0.14)
    pancreas = body.sweep(lambda t: (-0.20 + 0.62 * t, -0.06 + 0.10 * t - bend * np.sin(3.1 * t),
                                     level + 0.04 - tilt * 1.3 * (t - 0.4)),
                          U(0.065, 0.085), U(0.055, 0.085))
    kept = [ID[name] for name in ('spleen', 'left kidney', 'aorta', 'inferior vena cava',
                                  'portal and splenic veins')]
    paint((pancreas < 1) & ~np.isin(label, kept), density(88), 'pancreas')
    gallbladder = body.ball((liver_x + 0.14 + N(0, 0.05), -0.16 + N(0, 0.06), 0.56 + N(0, 0.05)),
                            (U(0.09, 0.13), U(0.10, 0.15), U(0.07, 0.12)), U(-0.6, 0.6))
    paint((gallbladder < 1) & (label != ID['pancreas']), density(15), 'gallbladder')


def _acquire(body: _Body, noise: float = 50.0, streak: float = 35.0) -> np.ndarray:
    """What a scanner adds: in-plane blur, noise and streaks, both independent from slice to slice."""
    rng = body.rng
    hu = ndimage.gaussian_filter(body.hu, (0, 0.45, 0.45))
    white = rng.normal(size=hu.shape).astype(np.float32)
    grain = ndimage.gaussian_filter(white, (0, 0.7, 0.7))
    hu += noise * (0.6 * white + 0.8 * grain / grain.std())
    x, y = body.x[0], body.y[0]
    for plane in hu:
        for _ in range(2):
            angle, frequency = rng.uniform(0, np.pi), rng.uniform(6, 16)
            along, across = np.cos(angle) * x + np.sin(angle) * y, np.sin(angle) * x - np.cos(angle) * y
            plane += (streak * rng.normal() * np.cos(frequency * along + rng.uniform(0, 2 * np.pi))
                      * np.exp(-((across - rng.uniform(-0.5, 0.5)) / 0.35) ** 2))
    return hu


def write_phantom(raw: Path, seed: int = 20261, progress: Callable = lambda *_: None) -> None:
    """Write the catalogue's phantom cases as NIfTI in BCV's layout; cases already there are kept."""
    numbers = [number for part in CATALOGUE['phantom'].split.values() for number in part]
    affine = np.diag([-SPACING[0], -SPACING[1], -SPACING[2], 1.0])  # +x left, +y back, +z feet
    for done, number in enumerate(numbers):
        progress(done, len(numbers), f'phantom {number:04d}')
        image, label = (raw / 'RawData' / 'Training' / kind / f'{kind}{number:04d}.nii.gz'
                        for kind in ('img', 'label'))
        if image.exists() and label.exists():
            continue
        for path, array in zip((image, label), make_phantom((seed, number)), strict=True):
            write_nifti(path, array.transpose(2, 1, 0), affine)
    progress(len(numbers), len(numbers), '')
