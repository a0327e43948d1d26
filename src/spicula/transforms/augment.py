"""Random changes of a nodule's cube for training: drawn first, applied apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from spicula.core.errors import InputError
from spicula.core.geometry import FloatArray
from spicula.transforms.nodule_cube import Mode, require_mode

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What is done to one cube; the defaults change nothing.

    Args:
        flips_zyx: Axes to flip.
        degrees_zyx: Turns about the axes, counterclockwise seen against the axis of LPS: first y, then x, then z.
        scale_zyx: Enlargement along the axes, after the turn; 1.1 shows everything a tenth larger.
        shift_zyx_mm: How far the content moves, after the turn and the scale (jitter of the exact mode).
        plane_jitter: For each plane, how far its window moves along rows and columns, in pixels (jitter of the compat
            mode, an argument of ``nine_planes``); empty for none.
        noise_std: Standard deviation of Gaussian noise, in units of the windowed cube.
        noise_seed: Seed of that noise.
        log_gamma: Values are raised to the power ``exp(log_gamma)``.
    """

    flips_zyx: tuple[bool, bool, bool] = (False, False, False)
    degrees_zyx: Triple = (0.0, 0.0, 0.0)
    scale_zyx: Triple = (1.0, 1.0, 1.0)
    shift_zyx_mm: Triple = (0.0, 0.0, 0.0)
    plane_jitter: tuple[tuple[int, int], ...] = ()
    noise_std: float = 0.0
    noise_seed: int = 0
    log_gamma: float = 0.0

    @property
    def moves(self) -> bool:
        """True where it turns, scales or shifts, so that voxels are interpolated; flips alone do not."""
        return any(self.degrees_zyx) or any(self.shift_zyx_mm) or self.scale_zyx != (1.0, 1.0, 1.0)


def draw_augmentation(
    rng: np.random.Generator,
    *,
    mode: Mode = "exact",
    flip: float = 0.5,
    degrees: float = 10.0,
    scale: float = 0.1,
    noise_std: float = 0.02,
    log_gamma: float = 0.2,
    jitter_mm: float = 5.0,
) -> Augmentation:
    """Draw what is done to one cube; the defaults are the published ranges.

    Everything is drawn uniformly and each axis by itself. The number of draws does not depend on the ranges.

    Args:
        rng: Source of chance.
        mode: ``"exact"`` moves the content by up to ``jitter_mm`` along each axis; ``"compat"`` moves the window of
            each plane by itself, by a whole number of pixels in ``[-jitter_mm, jitter_mm)`` along rows and columns.
        flip: Probability of a flip along each axis.
        degrees: Largest turn about each axis.
        scale: Largest change of size along each axis.
        noise_std: Largest standard deviation of the noise.
        log_gamma: Largest logarithm of the power.
        jitter_mm: Largest shift.

    Returns:
        The drawn parameters.

    Raises:
        InputError: The mode is unknown, or a range is negative or, for ``flip`` and ``scale``, 1 and more.

    References:
        arXiv 2504.21344, section 3.2; TorchIO 0.20: RandomFlip, RandomAffine (degrees 10, its own scales of 0.1),
        RandomNoise (std 0.02), RandomGamma (0.2).
    """
    require_mode(mode)
    if min(flip, degrees, scale, noise_std, log_gamma, jitter_mm) < 0 or flip > 1 or scale >= 1:
        raise InputError("augmentation", got=(flip, degrees, scale), expected="ranges of 0 and more; scale below 1")
    flips = rng.random(3) < flip
    turn, size = rng.uniform(-1.0, 1.0, 3) * degrees, 1.0 + rng.uniform(-1.0, 1.0, 3) * scale
    std, gamma = rng.random() * noise_std, rng.uniform(-1.0, 1.0) * log_gamma
    seed = int(rng.integers(2**63 - 1))
    shift: FloatArray = np.zeros(3)
    jitter: tuple[tuple[int, int], ...] = ()
    if mode == "exact":
        shift = rng.uniform(-1.0, 1.0, 3) * jitter_mm
    else:
        pixels = np.floor(rng.uniform(-1.0, 1.0, (9, 2)) * round(jitter_mm)).astype(int)
        jitter = tuple((row, column) for row, column in pixels.tolist()) if pixels.any() else ()
    return Augmentation(
        flips_zyx=(bool(flips[0]), bool(flips[1]), bool(flips[2])),
        degrees_zyx=_triple(turn),
        scale_zyx=_triple(size),
        shift_zyx_mm=_triple(shift),
        plane_jitter=jitter,
        noise_std=float(std),
        noise_seed=seed,
        log_gamma=float(gamma),
    )


def apply_augmentation(
    volume_zyx: ArrayLike, augmentation: Augmentation, *, spacing_mm: float = 1.0, outside: float | None = None
) -> NDArray[np.float32]:
    """Change a windowed cube: flips, then one turn with scale and shift (trilinear), then noise, then the power.

    The jitter of the planes' windows is not applied here; give ``augmentation.plane_jitter`` to ``nine_planes``.

    Args:
        volume_zyx: Windowed volume (0 to 1).
        augmentation: What to do.
        spacing_mm: Distance between voxels.
        outside: Value that comes in from beyond the volume; its minimum if omitted, as published.

    Returns:
        float32 of the same shape.
    """
    volume = np.asarray(volume_zyx, dtype=np.float32)
    flipped = np.flip(volume, tuple(axis for axis in range(3) if augmentation.flips_zyx[axis]))
    if augmentation.moves:
        matrix, offset = _back(augmentation, (np.asarray(volume.shape) - 1) / 2, spacing_mm)
        value = float(volume.min()) if outside is None else outside
        flipped = ndimage.affine_transform(flipped, matrix, offset, order=1, mode="constant", cval=value)
    return apply_intensity(flipped, augmentation)


def apply_intensity(values: ArrayLike, augmentation: Augmentation) -> NDArray[np.float32]:
    """The part of an augmentation that knows no places: noise, then the power of each value (its sign is kept).

    Args:
        values: Windowed values of any shape, planes for example.
        augmentation: What to do.

    Returns:
        float32 of the same shape.
    """
    result = np.array(values, dtype=np.float32)
    if augmentation.noise_std > 0:
        rng = np.random.default_rng(augmentation.noise_seed)
        result += np.float32(augmentation.noise_std) * rng.standard_normal(result.shape, dtype=np.float32)
    if augmentation.log_gamma != 0:
        result = np.sign(result) * np.abs(result) ** np.float32(np.exp(augmentation.log_gamma))
    return result


def points_before(
    points_zyx: FloatArray, augmentation: Augmentation, *, side: int, spacing_mm: float = 1.0
) -> FloatArray:
    """Where points of a changed cube lie in the unchanged one.

    Sampling the cube there gives the planes of the changed cube without changing it: one interpolation instead of
    two, and only at the planes' pixels. Follow it with :func:`apply_intensity` on the planes.

    Args:
        points_zyx: ``[..., 3]``, voxels of the changed cube, from ``plane_points`` for example.
        augmentation: What was done.
        side: Voxels of the cube's side.
        spacing_mm: Distance between voxels.

    Returns:
        ``[..., 3]``, voxels of the unchanged cube.
    """
    points = np.array(points_zyx, dtype=np.float64)
    if augmentation.moves:
        matrix, offset = _back(augmentation, np.full(3, (side - 1) / 2), spacing_mm)
        points = points @ matrix.T + offset
    for axis, flip in enumerate(augmentation.flips_zyx):
        if flip:
            points[..., axis] = side - 1 - points[..., axis]
    return points


def _back(augmentation: Augmentation, middle: FloatArray, spacing_mm: float) -> tuple[FloatArray, FloatArray]:
    """Matrix and offset from an index after the turn, scale and shift to the index before them."""
    z, y, x = np.radians(augmentation.degrees_zyx)
    turn = _turn(2, z) @ _turn(0, x) @ _turn(1, y)
    turn_zyx = turn[::-1, ::-1]
    matrix = turn_zyx.T / np.asarray(augmentation.scale_zyx)
    return matrix, middle - matrix @ (middle + np.asarray(augmentation.shift_zyx_mm) / spacing_mm)


def _turn(axis: int, radians: float) -> FloatArray:
    """Rotation of (x, y, z) about an axis, by the right hand."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(radians)
    matrix[second, first] = np.sin(radians)
    matrix[first, second] = -np.sin(radians)
    return matrix


def _triple(values: FloatArray) -> Triple:
    z, y, x = (float(value) for value in values)
    return z, y, x
