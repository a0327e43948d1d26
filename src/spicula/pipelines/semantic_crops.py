"""The 8-bit crops as the image tower sees planes: HU about the nodule, faded away from it, and its outline.

HU and pixel are exact where a small volume lies on a crop, see :mod:`spicula.datasets.lidc_crop_scales`, else guessed.

The outline network knows volumes only. So each crop is turned about its middle into a volume of which it is the middle
slice: a voxel above or below takes the value that the crop has in its direction at its distance from the middle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_crops, lidc_nodules
from spicula.datasets.lidc_crop_scales import CropScale, scales_of
from spicula.datasets.lidc_crops import Crop
from spicula.datasets.lidc_nodules import TRAITS
from spicula.transforms.crop import box_geometry, sample
from spicula.transforms.fade import faded
from spicula.transforms.planes import BACKGROUND_HU

PIXELS, PLANE_MM = 64, 0.8
"""Rows and columns of a kept plane, and its pixel: 51 mm, so that it can be turned and shifted."""

REACH = 40
"""Rows and columns of the crop on each side of its middle that are turned into a volume."""

OutlineCrop = Callable[[Crop, Volume, Sequence[float]], Mask]
"""Outlines the nodule at a point (LPS mm) of a volume by a network that has not learned from the crop's patient."""


@dataclass(frozen=True, slots=True, eq=False)
class CropTable:
    """All crops, ready to learn from.

    Args:
        crops: In the order of the rows.
        planes: float16 ``[n, 2, 64, 64]``: HU and the outline, 0 to 1; memory-mapped.
        ratings: float32 ``[n, traits]`` medians.
    """

    crops: tuple[Crop, ...]
    planes: NDArray[np.float16]
    ratings: NDArray[np.float32]

    @property
    def patients(self) -> NDArray[np.str_]:
        """Patient of each row."""
        return np.array([crop.patient_id for crop in self.crops])

    @property
    def nodules(self) -> NDArray[np.str_]:
        """Nodule of each row: several crops show the same."""
        return np.array([crop.nodule_id for crop in self.crops])


def make_crop_table(
    data: Path, folder: Path, *, outline: OutlineCrop, identity: str, limit: int | None = None
) -> CropTable:
    """Outline and cut all crops, or go on with what an earlier run with the same arguments has made.

    Args:
        data: Development data with ``lidc_crops``, and ``lidc_nodules`` where HU and pixel are to be exact.
        folder: Where the arrays are kept.
        outline: See :data:`OutlineCrop`.
        identity: Of the outlines; others make a new table.
        limit: Only the first crops, for a trial.

    Returns:
        The table; patient LIDC-IDRI-0001 is not in it.

    Raises:
        InputError: The folder is not there or an image cannot be read.
    """
    crops = lidc_crops.load_crops(data / "lidc_crops")[:limit]
    names = hashlib.sha256("\n".join(crop.path.name for crop in crops).encode()).hexdigest()[:16]
    small = lidc_nodules.load_cases(data / "lidc_nodules") if (data / "lidc_nodules").is_dir() else []
    facts = {"crops": names, "outlines": identity, "pixels": PIXELS, "pixel_mm": PLANE_MM, "small_volumes": len(small)}
    progress = folder / "crops.json"
    stored = json.loads(progress.read_text(encoding="utf-8")) if progress.is_file() else {}
    first = int(stored.get("done", 0)) if stored.get("facts") == facts else 0
    folder.mkdir(parents=True, exist_ok=True)
    scales: Mapping[str, CropScale] = {} if first == len(crops) else scales_of(crops, small, folder / "scales.json")
    planes = np.lib.format.open_memmap(
        folder / "planes.npy", mode="r+" if first else "w+", dtype=np.float16, shape=(len(crops), 2, PIXELS, PIXELS)
    )
    for row in range(first, len(crops)):
        planes[row] = plane_of(crops[row], outline, scale=scales[crops[row].path.name])
        if row % 200 == 199 or row == len(crops) - 1:
            planes.flush()
            progress.write_text(json.dumps({"facts": facts, "done": row + 1}), encoding="utf-8")
    ratings = np.array([[crop.medians[name] for name in TRAITS] for crop in crops], dtype=np.float32)
    return CropTable(tuple(crops), np.load(folder / "planes.npy", mmap_mode="r"), ratings)


def plane_of(crop: Crop, outline: OutlineCrop, *, scale: CropScale | None = None) -> NDArray[np.float32]:
    """One crop as the image tower sees a plane.

    Args:
        crop: The crop.
        outline: What outlines it.
        scale: Its HU and pixel, where they are known.

    Returns:
        float32 ``[2, 64, 64]``: HU faded as :func:`spicula.transforms.fade.faded` does, and the outline.
    """
    flat, mask = outlined_slice(crop, outline, scale=scale)
    grid = slice_grid(mask, pixels=PIXELS, pixel_mm=PLANE_MM)
    hu = sample(faded(flat, mask), grid, outside=BACKGROUND_HU)[0]
    return np.stack([hu, sample(mask, grid, outside=0.0)[0]])


def outlined_slice(crop: Crop, outline: OutlineCrop, *, scale: CropScale | None = None) -> tuple[Volume, Mask]:
    """A crop as a volume of one slice, its middle at the origin, and the nodule's outline in it.

    Args:
        crop: The crop.
        outline: What outlines it; where that fails, a small disk in the middle stands for the nodule.
        scale: Its HU and pixel, where they are known.

    Returns:
        The slice, and the outline on its middle part.
    """
    scale = scale or CropScale()
    hu = scale.hu(lidc_crops.read_gray(crop))
    volume = turned_about_middle(hu, pixel_mm=scale.pixel_mm)
    middle, index = volume.geometry.index_to_world(np.full(3, REACH)), volume.geometry.shape_zyx[0] // 2
    part = volume.geometry.crop((index, 0, 0), (index + 1, *volume.geometry.shape_zyx[1:]))
    try:
        found = outline(crop, volume, middle.tolist())
        inside = sample(found.padded(), part, outside=0.0) >= 0.5
    except InputError:  # the outline wandered out of the crop
        inside = np.zeros(part.shape_zyx, dtype=np.bool_)
    if not inside.any():
        inside = _disk(part, middle)
    spacing = (scale.pixel_mm,) * 3
    whole = box_geometry((0.0, 0.0, 0.0), shape_zyx=(1, *hu.shape), spacing_zyx_mm=spacing)
    return Volume(hu[None], whole), Mask(inside, part)


def slice_grid(mask: Mask, *, pixels: int, pixel_mm: float) -> Geometry:
    """A square of one slice about the middle of an outline in it."""
    about = mask.geometry.index_to_world(np.argwhere(mask.array_zyx)).mean(axis=0)
    return box_geometry(about.tolist(), shape_zyx=(1, pixels, pixels), spacing_zyx_mm=(1.0, pixel_mm, pixel_mm))


def turned_about_middle(hu: NDArray[np.float32], *, pixel_mm: float = lidc_crops.PIXEL_MM) -> Volume:
    """A volume that looks in every direction as a slice does from its middle.

    Args:
        hu: The slice ``[rows, columns]``, the nodule in its middle.
        pixel_mm: Its pixel.

    Returns:
        float32 volume of voxels of that size, whose middle slice is the slice's middle part.
    """
    rows, columns = hu.shape
    cy, cx = (rows - 1) / 2, (columns - 1) / 2
    offset = np.arange(-REACH, REACH + 1, dtype=np.float64)
    z, y, x = np.meshgrid(offset, offset, offset, indexing="ij", sparse=True)
    flat = np.hypot(y, x)
    stretch = np.sqrt(flat**2 + z**2) / np.maximum(flat, 1e-6)
    upright = np.broadcast_to(flat == 0, stretch.shape)
    down = np.where(upright, np.abs(z), y * stretch)
    right = np.where(upright, 0.0, x * stretch)
    array = ndimage.map_coordinates(hu, [cy + down, cx + right], order=1, mode="nearest", output=np.float32)
    side = len(offset)
    spacing = (pixel_mm,) * 3
    return Volume(array, box_geometry((0.0, 0.0, 0.0), shape_zyx=(side,) * 3, spacing_zyx_mm=spacing))


def _disk(grid: Geometry, middle: NDArray[np.float64], *, radius_mm: float = 2.5) -> NDArray[np.bool_]:
    index = np.moveaxis(np.indices(grid.shape_zyx), 0, -1)
    away = grid.index_to_world(index.reshape(-1, 3)) - middle
    return np.asarray((np.linalg.norm(away, axis=1) <= radius_mm).reshape(grid.shape_zyx))
