"""Find nodules slice by slice with a dense head on a vision transformer's tokens, and link the slices to findings.

Slices keep their own distance; in the plane they are brought to a fixed pixel. A field of fixed size around the lungs
is shown to the network, two or more fields that overlap where the lungs are larger. What the network is made of, torch
or OpenVINO, is not known here: it is a callable on images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, maximum_filter

from spicula.core.bundle import Bundle
from spicula.core.errors import InputError
from spicula.core.finding import Finding
from spicula.core.volume import Mask, Volume
from spicula.measure.lungs import lung_hulls, segment_lungs
from spicula.runtime.openvino import load_network
from spicula.transforms.imagenet import MEAN, STD
from spicula.transforms.nodule_cube import WINDOW_HU, window
from spicula.transforms.resample import average_blocks, resample, to_lps_axes

TASK = "dino-detection"
"""Task of the bundles."""

LEAST_SCORE, MOST_PEAKS = 0.02, 40
"""Peaks below this score, and beyond this many in a slice, are not looked at."""

LEAST_REACH_MM = 3.0
"""Peaks of neighboring slices belong together within this distance or half the diameter."""

APART_MM = 5.0
"""A finding lies farther than this, and than a radius, from a better one."""

MOST_SLICES = 3
"""The score of a finding is the mean over its best slices, at most this many."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Heads = Callable[[Floats], tuple[Floats, ...]]
"""Images ``[n, 3, height, width]`` to arrays whose first axis is the image."""


@dataclass(frozen=True, slots=True)
class View:
    """How slices are shown to a network; part of a bundle's preprocessing.

    Args:
        pixel_mm: Side of a pixel.
        rows: Patches of a field from front to back.
        columns: Patches of a field from right to left.
        patch: Side of a patch in pixels.
        neighbors: The three channels are the slices below, at and above; if False the slice three times.
        low_hu: Shown as 0 ...
        high_hu: ... and as 1, before the mean and deviation of ImageNet.
        least_slice_mm: Slices are averaged as long as their distance stays at or below this.
        hull_margin_mm: Findings may lie this far outside the lungs' convex hull.
    """

    pixel_mm: float = 0.7
    rows: int = 24
    columns: int = 32
    patch: int = 14
    neighbors: bool = True
    low_hu: float = WINDOW_HU[0]
    high_hu: float = WINDOW_HU[1]
    least_slice_mm: float = 1.25
    hull_margin_mm: float = 6.0

    def __post_init__(self) -> None:
        sizes = (self.pixel_mm, self.rows, self.columns, self.patch, self.high_hu - self.low_hu)
        if not min(sizes) > 0:
            raise InputError("view", got=f"{self}", expected="positive sizes and a window from low to high")

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of a field: height (front to back) and width (right to left)."""
        return self.rows * self.patch, self.columns * self.patch

    def windowed(self, hu: Floats) -> Floats:
        """HU within the window to 0 and 1."""
        return window(hu, self.low_hu, self.high_hu)


@dataclass(frozen=True, slots=True, eq=False)
class Slices:
    """A scan on fixed pixels, axes closest to head, back and left.

    ``hull``, on a grid of its own, is where findings may lie; ``shown`` the slices with lung; ``corners`` the row and
    column of the first pixel of each field, perhaps outside.
    """

    volume: Volume
    hull: Mask
    shown: NDArray[np.intp]
    corners: tuple[tuple[int, int], ...]
    view: View

    def field(self, z: int, corner: tuple[int, int]) -> Floats:
        """HU of a field, ``[channels, height, width]``: below, at and above slice ``z``, or that slice alone."""
        array = self.volume.array_zyx
        layers = np.clip([z - 1, z, z + 1] if self.view.neighbors else [z], 0, len(array) - 1)
        hu = np.full((len(layers), *self.view.shape), self.view.low_hu, dtype=np.float32)
        sides = list(zip(corner, self.view.shape, array.shape[1:], strict=True))
        rows, columns = (slice(max(o, 0), max(min(o + n, size), o, 0)) for o, n, size in sides)
        top, left = max(-corner[0], 0), max(-corner[1], 0)
        part = array[layers, rows, columns]
        hu[:, top : top + part.shape[1], left : left + part.shape[2]] = part
        return hu

    def images(self, z: Iterable[int], corner: tuple[int, int]) -> Floats:
        """Fields of several slices as the network sees them, ``[n, 3, height, width]``."""
        return as_images(self.view.windowed(np.stack([self.field(int(n), corner) for n in z])))


def as_images(unit: Floats) -> Floats:
    """Values 0 to 1, ``[n, 1 or 3, height, width]``, to three channels with the mean and deviation of ImageNet."""
    mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (MEAN, STD))
    return np.asarray((unit - mean) / std, dtype=np.float32)


def fixed_pixels(volume: Volume, view: View) -> Volume:
    """A scan on the pixels of a view: axes closest to head, back and left, thin slices averaged."""
    ordered = to_lps_axes(volume)
    step = ordered.geometry.spacing_zyx_mm[0]
    many = max(1, min(math.floor(view.least_slice_mm / step + 1e-6), ordered.array_zyx.shape[0]))
    if many > 1:
        thicker = average_blocks(ordered, (many, 1, 1))
        ordered = replace(thicker, array_zyx=np.rint(thicker.array_zyx).astype(np.int16))
    return resample(ordered, (ordered.geometry.spacing_zyx_mm[0], view.pixel_mm, view.pixel_mm))


def cut_slices(volume: Volume, view: View, *, lungs: Mask | None = None) -> Slices:
    """Bring a scan to fixed pixels and lay the fields around its lungs.

    Args:
        volume: Chest CT in HU; any axis order, any direction.
        view: How it is shown.
        lungs: From :func:`spicula.measure.lungs.segment_lungs`; segmented here if None.

    Returns:
        The slices.

    Raises:
        InputError: There are no lungs.
    """
    found = lungs or segment_lungs(volume)
    if not found.array_zyx.any():
        raise InputError(f"{volume.name}: lungs", got="an empty mask", expected="the lungs of a chest CT")
    hull = lung_hulls(found)
    far = distance_transform_edt(~hull.array_zyx, sampling=hull.geometry.spacing_zyx_mm)
    hull = Mask(np.asarray(far <= view.hull_margin_mm), hull.geometry)
    fixed = fixed_pixels(volume, view)
    index = fixed.geometry.world_to_index(hull.geometry.index_to_world(np.argwhere(hull.array_zyx)))
    low, high = index.min(axis=0), index.max(axis=0)
    shown = np.arange(max(0, math.ceil(low[0])), min(fixed.array_zyx.shape[0] - 1, math.floor(high[0])) + 1)
    axes = [_starts(low[axis], high[axis], size) for axis, size in zip((1, 2), view.shape, strict=True)]
    corners = tuple((row, column) for row in axes[0] for column in axes[1])
    return Slices(fixed, hull, shown, corners, view)


def _starts(low: float, high: float, size: int) -> list[int]:
    """First pixels of the fields that cover a range: one in its middle, or several evenly apart."""
    if high - low < size:
        return [round((low + high - size + 1) / 2)]
    count = math.ceil(((high - low + 1) / size - 0.25) / 0.75)
    return [round(start) for start in np.linspace(low, high + 1 - size, max(count, 2))]


def detect(
    volume: Volume | Slices,
    heads: Heads,
    *,
    view: View,
    lungs: Mask | None = None,
    limit: int = 20,
    least_score: float = 0.0,
    calibration: Mapping[str, float] | None = None,
    batch: int = 4,
) -> list[Finding]:
    """Find nodules with a dense head.

    Args:
        volume: Chest CT in HU; any axis order, any direction. Or what :func:`cut_slices` made of it.
        heads: Images ``[n, 3, height, width]`` to heat (logits) and size (log mm), ``[n, rows, columns]``, and offset
            ``[n, 2, rows, columns]`` from the lowest row and column of the cell, in cells; what follows is not used.
        view: How slices are shown to it.
        lungs: From :func:`spicula.measure.lungs.segment_lungs`; segmented here if None.
        limit: Most findings.
        least_score: Weaker findings are left out.
        calibration: ``slope`` and ``intercept`` on the logit of the score; None leaves it as it is.
        batch: Images at a time.

    Returns:
        Findings by falling score. ``diameter_mm`` is the network's estimate of what it was trained on (LUNA16's
        diameter, no measurement); ``attributes`` holds ``slices``, in how many it was seen, and ``raw_score``.

    Raises:
        InputError: There are no lungs, or the outputs are not those of a dense head.
    """
    slices = volume if isinstance(volume, Slices) else cut_slices(volume, view, lungs=lungs)
    peaks = _asked(slices, heads, partial(_dense_peaks, view=view), batch=batch)
    return _findings(slices, peaks, calibration, limit, least_score)


def one_box_a_slice(
    volume: Volume | Slices, heads: Heads, *, view: View, lungs: Mask | None = None, limit: int = 20
) -> list[Finding]:
    """Find nodules with the published head, which says one class and one box a slice; boxes are linked likewise.

    Args:
        volume: As for :func:`detect`.
        heads: Images to logits ``[n, 2]`` (no nodule, nodule) and boxes ``[n, 4]``: lowest x and y, width and height,
            as shares of the image.
        view: How slices are shown to it.
        lungs: See there.
        limit: See there.

    Returns:
        As :func:`detect`, wherever the boxes lie; the diameter is the mean of the box's sides.

    Raises:
        InputError: There are no lungs, or the outputs are not those of the published head.
    """
    slices = volume if isinstance(volume, Slices) else cut_slices(volume, view, lungs=lungs)
    peaks = _asked(slices, heads, partial(_box_peaks, view=view), batch=4, anywhere=True)
    return _findings(slices, peaks, None, limit, 0.0)


def load_detector(bundle: Bundle, *, threads: int | None = None) -> Callable[..., list[Finding]]:
    """Compile a bundle's network for :func:`detect`, through OpenVINO.

    Args:
        bundle: Of the task :data:`TASK`.
        threads: Of the inference; OpenVINO chooses if None.

    Returns:
        :func:`detect` with ``heads``, ``view``, ``calibration`` and ``least_score`` (the bundle's operating point)
        filled in: call it with a volume, and with what else shall be different.

    Raises:
        InputError: The bundle has another task.
        BundleError: The bundle is damaged.
    """
    if bundle.task != TASK:
        raise InputError(f"bundle {bundle.name}: task", got=bundle.task, expected=TASK, hint="spicula bundle list")
    network = load_network(bundle, threads=threads)
    least = bundle.manifest["outputs"].get("operating_point", {}).get("least_score", 0.0)
    return partial(
        detect, heads=lambda images: split_channels(network(images)[0]), view=View(**bundle.preprocessing["view"]),
        calibration=bundle.preprocessing.get("calibration"), least_score=float(least),
    )  # fmt: skip


def split_channels(output: Floats) -> tuple[Floats, ...]:
    """Channels ``[n, 4 + k * k, rows, columns]`` to heat, size, offset and, where there are more, outline."""
    n, channels, rows, columns = output.shape
    k = math.isqrt(channels - 4)
    maps = (output[:, 0], output[:, 1], output[:, 2:4])
    if not k:
        return maps
    cells = output[:, 4:].reshape(n, k, k, rows, columns).transpose(0, 3, 1, 4, 2)
    return (*maps, cells.reshape(n, rows * k, columns * k))


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Places in slices: ``[n, 3]`` slice, row and column; ``[n]`` diameter of the nodule and ``[n]`` score, 0 to 1."""

    place: Doubles
    diameter_mm: Doubles
    score: Doubles


def _asked(
    slices: Slices, heads: Heads, peaks_of: Callable[..., Doubles], *, batch: int, anywhere: bool = False
) -> Peaks:
    """Peaks of all slices and fields; if not ``anywhere`` those within the hull of the lungs."""
    rows = [np.zeros((0, 5))]
    for corner in slices.corners:
        for start in range(0, len(slices.shown), batch):
            chosen = slices.shown[start : start + batch]
            table = peaks_of(heads(slices.images(chosen, corner)))
            table[:, 0] = chosen[table[:, 0].astype(np.intp)]
            table[:, 1:3] += corner
            rows.append(table)
    table = np.concatenate(rows)
    grid = slices.hull.geometry
    index = np.rint(grid.world_to_index(slices.volume.geometry.index_to_world(table[:, :3]))).astype(np.intp)
    near = np.clip(index, 0, np.asarray(grid.shape_zyx) - 1)
    inside = slices.hull.array_zyx[tuple(near.T)] & (near == index).all(axis=1)
    table = table if anywhere else table[inside]
    return Peaks(table[:, :3], table[:, 3], table[:, 4])


def _dense_peaks(maps: tuple[Floats, ...], *, view: View) -> Doubles:
    """Local maxima of heat maps, the best of each slice: image, row, column, diameter and score, ``[n, 5]``."""
    shapes = [tuple(each.shape) for each in maps]
    if len(maps) < 3 or len(shapes[0]) != 3 or shapes[1:3] != [shapes[0], (shapes[0][0], 2, *shapes[0][1:])]:
        raise InputError("heads", got=shapes, expected="heat and size [n, rows, columns], offset [n, 2, rows, columns]")
    heat, size, offset = maps[:3]
    cell = np.divide(view.shape, heat.shape[1:])
    rows = [np.zeros((0, 5))]
    tops = (heat == maximum_filter(heat, size=(1, 3, 3))) & (heat >= math.log(LEAST_SCORE / (1 - LEAST_SCORE)))
    for n, top in enumerate(tops):
        r, c = np.nonzero(top)
        best = np.argsort(-heat[n, r, c], kind="stable")[:MOST_PEAKS]
        r, c = r[best], c[best]
        place = (np.stack([r, c], 1) + offset[n][:, r, c].T) * cell - 0.5
        score = 1 / (1 + np.exp(-heat[n, r, c].astype(np.float64)))
        diameter = np.exp(np.clip(size[n, r, c].astype(np.float64), -2.0, 5.0))
        rows.append(np.column_stack([np.full(len(r), n), place, diameter, score]))
    return np.concatenate(rows)


def _box_peaks(maps: tuple[Floats, ...], *, view: View) -> Doubles:
    """The middle of each slice's box: image, row, column, diameter and score, ``[n, 5]``."""
    shapes = [tuple(each.shape) for each in maps]
    if len(maps) != 2 or shapes != [(len(maps[0]), 2), (len(maps[0]), 4)]:
        raise InputError("heads", got=shapes, expected="logits [n, 2] and boxes [n, 4]")
    classes, (x, y, width, height) = maps[0].astype(np.float64), maps[1].astype(np.float64).T
    score = 1 / (1 + np.exp(np.clip(classes[:, 0] - classes[:, 1], -500, 500)))
    row, column = (y + height / 2) * view.shape[0] - 0.5, (x + width / 2) * view.shape[1] - 0.5
    diameter = np.maximum((height * view.shape[0] + width * view.shape[1]) / 2 * view.pixel_mm, 1.0)
    return np.column_stack([np.arange(len(score)), row, column, diameter, score])[score >= LEAST_SCORE]


def link_peaks(peaks: Peaks, *, step_mm: float, pixel_mm: float) -> list[NDArray[np.intp]]:
    """Join peaks of neighboring slices to findings, the best peak first.

    From its best peak a finding grows slice by slice in both directions, over one slice without a peak where slices
    are thin, to the peak nearest in the plane, as far as its diameter goes. Peaks that are left near it are dropped.

    Returns:
        For each finding the indices of its peaks, the best one first; a slice comes once.
    """
    where = peaks.place * [step_mm, pixel_mm, pixel_mm]
    free = np.ones(len(where), dtype=bool)
    found: list[NDArray[np.intp]] = []
    for seed in np.lexsort((np.arange(len(where)), -peaks.score)):
        if free[seed]:
            chain = [int(seed)]
            for way in (1, -1):
                chain += _grown(peaks, where, free, int(seed), way * step_mm)
            gaps = np.linalg.norm(where[:, None] - where[chain], axis=2).min(axis=1)
            free &= gaps > max(APART_MM, peaks.diameter_mm[seed] / 2)
            found.append(np.array(chain, dtype=np.intp))
    return found


def _grown(peaks: Peaks, where: Doubles, free: NDArray[np.bool_], seed: int, way_mm: float) -> list[int]:
    """Free peaks that go on from a seed, slice after slice one way."""
    step, diameter = abs(way_mm), peaks.diameter_mm[seed]
    reach, farthest = max(LEAST_REACH_MM, diameter / 2), max(step, 0.75 * diameter)
    leap = 2 if 2 * step <= LEAST_REACH_MM else 1
    chain, last, gap = [], seed, 1
    while gap <= leap:
        z = where[last, 0] + gap * way_mm
        if abs(z - where[seed, 0]) > farthest + 1e-6:
            break
        rows = np.flatnonzero(free & (np.abs(where[:, 0] - z) < step / 2))
        far = np.linalg.norm(where[rows, 1:] - where[last, 1:], axis=1)
        if len(rows) and far.min() <= reach:
            last, gap = int(rows[np.argmin(far)]), 1
            chain.append(last)
        else:
            gap += 1
    return chain


def _findings(
    slices: Slices, peaks: Peaks, calibration: Mapping[str, float] | None, limit: int, least_score: float
) -> list[Finding]:
    """Findings from peaks, by falling score."""
    grid = slices.volume.geometry
    step = grid.spacing_zyx_mm[0]
    chains = link_peaks(peaks, step_mm=step, pixel_mm=slices.view.pixel_mm)
    ranked = sorted(((_score(peaks, chain, step), chain) for chain in chains), key=lambda pair: -pair[0])
    slope, intercept = (calibration["slope"], calibration["intercept"]) if calibration else (1.0, 0.0)
    findings: list[Finding] = []
    for raw, chain in ranked[:limit]:
        kept = min(max(raw, 1e-9), 1 - 1e-9)
        score = 1 / (1 + math.exp(-slope * math.log(kept / (1 - kept)) - intercept)) if calibration else raw
        if score < least_score:
            continue
        weight = peaks.score[chain] / peaks.score[chain].sum()
        x, y, z = (float(v) for v in grid.index_to_world(weight @ peaks.place[chain]))
        diameter = float(np.exp(weight @ np.log(peaks.diameter_mm[chain])))
        facts = {"slices": float(len(chain)), "raw_score": raw}
        findings.append(Finding(str(len(findings) + 1), (x, y, z), diameter, score, facts))
    return findings


def _score(peaks: Peaks, chain: NDArray[np.intp], step_mm: float) -> float:
    """Mean over the best slices, as many as half the diameter spans; those that are missing count as 0."""
    many = int(np.clip(round(peaks.diameter_mm[chain[0]] / (2 * step_mm)), 1, MOST_SLICES))
    return float(np.sort(peaks.score[chain])[::-1][:many].sum() / many)
