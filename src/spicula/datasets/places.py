"""Whether findings lie where the image is, and where there is something: what ``verify`` asks of places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spicula.core.errors import GeometryError, InputError
from spicula.core.finding import Case, Finding, Point
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.datasets.catalog import Check
from spicula.formats import metaimage, nifti
from spicula.transforms.crop import crop_box

EMPTY_HU = -750.0
"""No voxel within 4 mm of a nodule's center is denser than this where there is no nodule."""

NOWHERE: Point = (math.nan, math.nan, math.nan)
"""Place of a finding whose millimetres are not known."""


@dataclass(slots=True)
class Tally:
    """What was seen of places so far.

    ``flipped`` counts those whose point with x and y negated (RAS) would fit, ``unread`` images whose grid only their
    pixels tell.
    """

    places: int = 0
    inside: int = 0
    tissue: int = 0
    looked: int = 0
    flipped_inside: int = 0
    flipped_tissue: int = 0
    unread: int = 0


def has_place(finding: Finding) -> bool:
    """Tell whether the millimetres of a finding are known."""
    return all(math.isfinite(value) for value in finding.center_xyz_mm)


def grid_of(path: Path) -> Geometry | None:
    """The grid of an image file from its header alone; None for formats whose pixels must be read for it.

    Raises:
        InputError: The file is damaged or cut short.
    """
    name = path.name.lower()
    try:
        if name.endswith((".mhd", ".mha")):
            return metaimage.look(path)
        return nifti.look(path) if name.endswith((".nii", ".nii.gz")) else None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def place_checks(case: Case, path: Path, *, deep: bool, tally: Tally) -> Iterator[Check]:
    """Look at one image and the places in it.

    Args:
        case: Its findings.
        path: Its image.
        deep: Read the pixels, and look for tissue at each place.
        tally: Counted up.

    Yields:
        A Check for each thing that is wrong; nothing where all is well.
    """
    try:
        volume = case.load_volume() if deep else None
        grid = volume.geometry if volume else grid_of(path)
    except InputError as error:
        yield Check("broken", "image", str(error), path)
        return
    if grid is None:
        tally.unread += 1
        return
    for finding in filter(has_place, case.findings):
        yield from _place(finding, path, grid, volume, tally)


def _place(finding: Finding, path: Path, grid: Geometry, volume: Volume | None, tally: Tally) -> Iterator[Check]:
    x, y, z = finding.center_xyz_mm
    tally.places += 1
    flipped_inside = bool(grid.contains((-x, -y, z)))
    tally.flipped_inside += flipped_inside
    if volume is not None:
        tally.looked += 1
        tally.flipped_tissue += flipped_inside and _dense(volume, (-x, -y, z))
    try:
        grid.require_inside((x, y, z), what=f"{path}: finding {finding.id}")
    except GeometryError as error:
        yield Check("broken", "place", str(error), path)
        return
    tally.inside += 1
    if volume is not None:
        if _dense(volume, (x, y, z)):
            tally.tissue += 1
        else:
            message = f"finding {finding.id}: nothing but air or empty lung within 4 mm of its place"
            yield Check("warning", "place", message, path)


def _dense(volume: Volume, center: Sequence[float]) -> bool:
    return float(crop_box(volume, center, size_mm=8.0, spacing_mm=1.0).max()) >= EMPTY_HU


def tally_checks(tally: Tally, *, convention: str) -> Iterator[Check]:
    """What all places together say of the convention of the coordinates.

    Args:
        tally: Of all images that were looked at.
        convention: As it is read now: ``"LPS"``.

    Yields:
        A Check on the grids, one on the tissue where pixels were read, and one on images that were not opened.
    """
    if tally.unread:
        message = f"{tally.unread:,} images (DICOM, NRRD) were not opened; verify(..., deep=True) reads them"
        yield Check("warning", "places", message)
    if not tally.places:
        return
    better = tally.flipped_inside > tally.inside
    words = f"{tally.inside:,} of {tally.places:,} places lie inside their image as {convention}"
    if tally.inside < tally.places or better:
        words += f", {tally.flipped_inside:,} with x and y negated"
    yield Check("broken" if better else "ok" if tally.inside == tally.places else "warning", "places", words)
    if tally.looked:
        better = tally.flipped_tissue > tally.tissue
        words = f"{tally.tissue:,} of {tally.looked:,} places have tissue within 4 mm as {convention}"
        words += f", {tally.flipped_tissue:,} with x and y negated"
        yield Check("broken" if better else "ok" if tally.tissue == tally.looked else "warning", "tissue", words)
