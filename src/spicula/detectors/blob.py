"""Find nodules: blobs of all sizes in the lungs, and a small network that says which of them are nodules.

The network sees each candidate in two fixed boxes of millimetres, one near and one far, each the same wherever the
scan ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from spicula.core.bundle import Bundle, load_bundle
from spicula.core.finding import Finding, Point
from spicula.core.volume import Mask, Volume
from spicula.measure.blobs import Candidate, find_candidates
from spicula.measure.lungs import segment_lungs
from spicula.runtime.openvino import load_network
from spicula.transforms.crop import box_geometry, sample
from spicula.transforms.resample import coarse, to_lps_axes

BUNDLE = "nodule-detection"
"""Name of the shipped bundle."""

SIDE = 24
"""Voxels along each side of both boxes."""

NEAR_MM, FAR_MM = 1.0, 3.0
"""Spacing of the near and the far box."""

AIR_HU, TISSUE_HU = -1000.0, 400.0
"""Window of the boxes, to 0 and 1."""

MOST_CANDIDATES = 1200
"""Of this many candidates, by strength, the network is asked."""

SECOND_LOOKS = 64
"""This many of the best are looked at again, mirrored."""

MOST_WHOLE = 100
"""Of this many of the best it is asked whether they are parts of a mass."""

MOST_LISTED = 400
"""Of this many of the best it is asked whether they lie within a better one."""

LEAST_BELIEF = 0.3
"""A mass stands for its part if the network, uncalibrated, gives it at least this share of the part's probability."""

BODY_HU = -300.0
"""Tissue, not lung: what joins a part to its mass."""

LEAST_SCORE = 0.01
"""Findings below are left out where a bundle has no operating point."""

BATCH = 64


def detect(
    volume: Volume,
    *,
    bundle: Bundle | None = None,
    lungs: Mask | None = None,
    limit: int = 20,
    least_score: float | None = None,
) -> list[Finding]:
    """Find lung nodules and masses.

    Args:
        volume: Chest CT in HU.
        bundle: The trained filter; the shipped one if None.
        lungs: From :func:`spicula.measure.lungs.segment_lungs`; segmented here if None.
        limit: Most findings.
        least_score: Weaker findings are left out; if None, those below the bundle's operating point.

    Returns:
        Findings by falling score; the score is roughly the chance to be a nodule in a scan with two of them.
        ``attributes`` holds ``blob_diameter_mm`` and ``blob_response`` (0 to 1); ``diameter_mm`` is not measured yet.

    Raises:
        InputError: There are no lungs.
        BundleError: The bundle is damaged.
    """
    bundle = bundle or load_bundle(BUNDLE)
    if least_score is None:
        least_score = operating_point(bundle)
    candidates = strongest(find_candidates(volume, lungs or segment_lungs(volume)))
    if not candidates:
        return []
    logits = _logits(boxes(volume, [c.center_xyz_mm for c in candidates]), bundle)
    order = np.lexsort((np.arange(len(logits)), -logits))
    ranked = [(candidates[i], float(logits[i])) for i in order]
    chosen = _apart(_whole(ranked[:MOST_WHOLE], coarse(volume, 0.8 * FAR_MM)) + ranked[MOST_WHOLE:MOST_LISTED])
    scores = _chances(np.array([logit for _, logit in chosen]), bundle)
    listed = [(candidate, float(score)) for (candidate, _), score in zip(chosen, scores, strict=True)]
    return [_finding(n + 1, *pair) for n, pair in enumerate(listed[:limit]) if pair[1] >= least_score]


def operating_point(bundle: Bundle) -> float:
    """The least score that the bundle's maker chose; :data:`LEAST_SCORE` if none is stored."""
    outputs = bundle.manifest["outputs"]
    point = outputs.get("operating_point", {}) if isinstance(outputs, Mapping) else {}
    return float(point.get("least_score", LEAST_SCORE))


def strongest(candidates: Sequence[Candidate], *, most: int = MOST_CANDIDATES) -> list[Candidate]:
    """All candidates for masses, and of the others those of greatest strength.

    Args:
        candidates: From :func:`spicula.measure.blobs.find_candidates`.
        most: How many to keep.

    Returns:
        By falling strength.
    """
    ranked = sorted(candidates, key=lambda c: (-c.strength, c.center_xyz_mm))
    masses = sum(c.in_hull for c in ranked)
    room = max(most - masses, 0)
    kept, taken = [], 0
    for candidate in ranked:
        if candidate.in_hull or taken < room:
            kept.append(candidate)
            taken += not candidate.in_hull
    return kept


def boxes(volume: Volume, centers_xyz_mm: Sequence[Point], *, side: int = SIDE) -> NDArray[np.float32]:
    """Cut the near and the far box around each center.

    Args:
        volume: HU.
        centers_xyz_mm: LPS mm.
        side: Voxels along each side.

    Returns:
        float32 ``[n, 2, side, side, side]``, 0 (air) to 1 (dense), axes to the head, the back and the left; where a box
        reaches beyond the volume, the outermost voxels are repeated.
    """
    result = np.empty((len(centers_xyz_mm), 2, side, side, side), dtype=np.float32)
    near = _cutter(to_lps_axes(volume), centers_xyz_mm, side, NEAR_MM)
    far = _cutter(coarse(volume, 0.8 * FAR_MM), centers_xyz_mm, side, FAR_MM)

    def cut(n: int) -> None:
        result[n, 0], result[n, 1] = near(n), far(n)

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(cut, range(len(centers_xyz_mm))))
    result -= AIR_HU
    result *= np.float32(1 / (TISSUE_HU - AIR_HU))
    return np.clip(result, 0, 1, out=result)


def judge(images: NDArray[np.float32], bundle: Bundle) -> NDArray[np.float64]:
    """Score boxes with a bundle's network, the best ones again in their mirror images.

    Args:
        images: From :func:`boxes`.
        bundle: The trained filter.

    Returns:
        float64 ``[n]``, 0 to 1, calibrated as the bundle says.
    """
    return _chances(_logits(images, bundle), bundle)


def _logits(images: NDArray[np.float32], bundle: Bundle) -> NDArray[np.float64]:
    """What the network says, uncalibrated."""
    network = load_network(bundle)
    edges = [*range(0, len(images), BATCH), len(images)]
    logits = np.concatenate([network(images[a:b])[0][:, 0] for a, b in pairwise(edges)]).astype(np.float64)
    best = np.argsort(-logits)[:SECOND_LOOKS]
    again = images[best]
    mirrored = [again[..., ::-1], again[..., ::-1, :], again[..., ::-1, :, :]]
    logits[best] = (logits[best] + sum(network(np.ascontiguousarray(m))[0][:, 0] for m in mirrored)) / 4
    return np.asarray(logits)


def _chances(logits: NDArray[np.float64], bundle: Bundle) -> NDArray[np.float64]:
    calibration = bundle.preprocessing["calibration"]
    return np.asarray(1 / (1 + np.exp(-(calibration["slope"] * logits + calibration["intercept"]))))


def _cutter(
    source: Volume, centers: Sequence[Point], side: int, spacing_mm: float
) -> Callable[[int], NDArray[np.float32]]:
    """What cuts the box around the n-th center by linear interpolation: a product an axis if the source is upright."""
    step = source.geometry.inverse_lps[:3, :3] @ (spacing_mm * np.eye(3)[::-1])
    if np.abs(step - np.diag(np.diag(step))).max() * side > 1e-3:
        shape, spacing = (side,) * 3, (spacing_mm,) * 3
        return lambda n: sample(source, box_geometry(centers[n], shape_zyx=shape, spacing_zyx_mm=spacing))
    reach = np.diag(step)[:, None] * (np.arange(side) - (side - 1) / 2)
    size = np.asarray(source.geometry.shape_zyx)
    index = source.geometry.world_to_index(np.asarray(centers))[:, :, None] + reach
    np.clip(index, 0, size[:, None] - 1, out=index)
    low = np.minimum(index.astype(np.intp), np.maximum(size - 2, 0)[:, None])
    start, stop = low.min(axis=2), np.minimum(low.max(axis=2) + 2, size)
    part, low = (index - low).astype(np.float32), low - start[:, :, None]
    rows = np.arange(side)

    def cut(n: int) -> NDArray[np.float32]:
        z, y, x = (np.zeros((side, width), dtype=np.float32) for width in stop[n] - start[n])
        for matrix, below, share in zip((z, y, x), low[n], part[n], strict=True):
            matrix[rows, np.minimum(below + 1, matrix.shape[1] - 1)] = share
            matrix[rows, below] += 1 - share
        (za, ya, xa), (zb, yb, xb) = start[n], stop[n]
        block = source.array_zyx[za:zb, ya:yb, xa:xb].astype(np.float32)
        plane = np.matmul(y, block @ x.T)
        return np.asarray((z @ plane.reshape(len(plane), -1)).reshape(side, side, side))

    return cut


def _whole(ranked: Sequence[tuple[Candidate, float]], volume: Volume) -> list[tuple[Candidate, float]]:
    """Where a finding is part of a mass that the network believes in too, let the mass stand for it.

    Args:
        ranked: Candidates with their logits, falling.
        volume: The scan on a coarse grid.

    Returns:
        The same, logits falling; a mass has the logit of its best part.
    """
    result: list[tuple[Candidate, float]] = []
    beliefs = [1 / (1 + float(np.exp(-logit))) for _, logit in ranked]
    for (part, logit), score in zip(ranked, beliefs, strict=True):
        chosen = part
        for (mass, _), belief in zip(ranked, beliefs, strict=True):
            gap = float(np.linalg.norm(np.subtract(mass.center_xyz_mm, part.center_xyz_mm)))
            larger = mass.radius_mm > max(1.5 * part.radius_mm, chosen.radius_mm) and gap < 1.1 * mass.radius_mm
            if larger and belief > LEAST_BELIEF * score and _one_body(volume, part, mass):
                chosen = mass
        result.append((chosen, logit))
    return result


def _one_body(volume: Volume, part: Candidate, mass: Candidate) -> bool:
    """Whether there is nothing but tissue on the way from one center to the other."""
    way = np.linspace(part.center_xyz_mm, mass.center_xyz_mm, 12)
    index = np.rint(volume.geometry.world_to_index(way)).astype(int)
    z, y, x = np.clip(index, 0, np.asarray(volume.geometry.shape_zyx) - 1).T
    return bool(volume.array_zyx[z, y, x].min() > BODY_HU)


def _apart(ranked: Sequence[tuple[Candidate, float]]) -> list[tuple[Candidate, float]]:
    """Drop what lies within a better finding."""
    kept: list[tuple[Candidate, float]] = []
    for candidate, score in ranked:
        gaps = [
            float(np.linalg.norm(np.subtract(candidate.center_xyz_mm, other.center_xyz_mm)))
            > max(5.0, candidate.radius_mm, other.radius_mm)
            for other, _ in kept
        ]
        if all(gaps):
            kept.append((candidate, score))
    return kept


def _finding(rank: int, candidate: Candidate, score: float) -> Finding:
    facts = {"blob_diameter_mm": 2 * candidate.radius_mm, "blob_response": candidate.response}
    return Finding(str(rank), candidate.center_xyz_mm, score=score, attributes=facts)
