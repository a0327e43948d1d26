"""Axial slices through an outlined nodule, as networks see them that learned from slices without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import GeometryError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.transforms.crop import sample
from spicula.transforms.fade import faded
from spicula.transforms.imagenet import MEAN, STD
from spicula.transforms.nodule_cube import window
from spicula.transforms.planes import BACKGROUND_HU
from spicula.transforms.resample import to_lps_axes

PIXELS, PIXEL_MM = 112, 0.5
"""Rows and columns of a piece of a slice, and its pixel: 56 mm."""

PATCHES = 5
"""Rows and columns of patches in the middle of it that a network sees: 35 mm with patches of 14 pixels."""

MOST = 5
"""Slices of a nodule that are looked at, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class NoduleSlice:
    """A square piece of an axial slice about the middle of a nodule's outline in it.

    Args:
        hu: float32 ``[side, side]``, whole HU; rows run to the back, columns to the patient's left.
        near: float32 ``[side, side]``: 1 within 1 mm of the outline, 0 from 2.5 mm on, in steps of 1/255.
        inside: bool ``[side, side]``, the outline.
        geometry: Its grid, of one slice.
    """

    hu: NDArray[np.float32]
    near: NDArray[np.float32]
    inside: NDArray[np.bool_]
    geometry: Geometry

    @property
    def alone(self) -> NDArray[np.float32]:
        """HU ``[side, side]`` of the nodule alone, faded away from its outline."""
        return np.asarray(BACKGROUND_HU + self.near * (self.hu - BACKGROUND_HU), dtype=np.float32)

    def middle(self, side: int) -> NoduleSlice:
        """Its middle rows and columns.

        Raises:
            GeometryError: The piece is smaller.
        """
        whole = len(self.hu)
        if not 0 < side <= whole:
            raise GeometryError("side in pixels", got=side, expected=f"1 to {whole}")
        first = (whole - side) // 2
        part = (slice(first, first + side),) * 2
        grid = self.geometry.crop((0, first, first), (1, first + side, first + side))
        return NoduleSlice(self.hu[part], self.near[part], self.inside[part], grid)


def nodule_slices(volume: Volume, mask: Mask, *, most: int = MOST) -> tuple[list[NoduleSlice], int]:
    """Cut slices through a nodule.

    Args:
        volume: The scan, or a small volume around the nodule, HU.
        mask: The nodule's outline, on any grid.
        most: Slices at most: evenly spaced among those through the outline, with the one that has most of it in any
            case.

    Returns:
        The slices from the feet to the head, each about the outline's middle in it, and which has most of the nodule.

    Raises:
        GeometryError: The outline is empty, or ``most`` is not positive.
    """
    ordered = to_lps_axes(volume)
    inside, first = _on_slices(ordered, mask)
    area = inside.sum(axis=(1, 2))
    chosen = evenly_chosen(area.tolist(), most)
    rows, columns = ordered.geometry.shape_zyx[1:]
    cut = []
    for index in chosen:
        at = int(first[0]) + index
        flat = Volume(ordered.array_zyx[at : at + 1], ordered.geometry.crop((at, 0, 0), (at + 1, rows, columns)))
        start = (at, int(first[1]), int(first[2]))
        stop = (at + 1, start[1] + inside.shape[1], start[2] + inside.shape[2])
        cut.append(slice_about(flat, Mask(inside[index : index + 1], ordered.geometry.crop(start, stop))))
    return cut, int(np.argmax(area[chosen]))


def slice_about(flat: Volume, mask: Mask) -> NoduleSlice:
    """Cut one slice about the middle of the outline in it, along its own rows and columns.

    Args:
        flat: A volume of one slice, HU; its axes run closest to head, back and left.
        mask: The outline in that slice.
    """
    about = mask.geometry.index_to_world(np.argwhere(mask.array_zyx)).mean(axis=0)
    axes = flat.geometry.affine_lps[:3, :3] / np.asarray(flat.geometry.spacing_zyx_mm)
    affine = np.eye(4)
    affine[:3, :3] = axes * (1.0, PIXEL_MM, PIXEL_MM)
    affine[:3, 3] = about - axes @ (0.0, *((PIXELS - 1) * PIXEL_MM / 2,) * 2)
    grid = Geometry((1, PIXELS, PIXELS), affine, flat.geometry.frame_of_reference_uid)
    ones = Volume(np.ones(flat.geometry.shape_zyx, dtype=np.float32), flat.geometry)
    near = np.clip(sample(faded(ones, mask, background_hu=0.0), grid, outside=0.0)[0], 0.0, 1.0)
    return NoduleSlice(
        np.rint(sample(flat, grid)[0]),
        np.asarray(np.rint(255 * near) / 255, dtype=np.float32),
        sample(mask.padded(), grid, outside=0.0)[0] >= 0.5,
        grid,
    )


def evenly_chosen(area: Sequence[int], most: int) -> list[int]:
    """Which of a row of slices are looked at.

    Args:
        area: Of the outline in each slice; slices without any are never chosen.
        most: Slices at most.

    Returns:
        Rising indices: the middles of ``most`` equal parts of the row, the nearest of them moved to the slice with the
        largest area.

    Raises:
        GeometryError: ``most`` is not positive.

    Example:
        >>> evenly_chosen([1, 2, 9, 8, 7, 6, 5, 4, 3, 2], 3)
        [2, 5, 8]
    """
    if most < 1:
        raise GeometryError("slices at most", got=most, expected="1 or more")
    through = [index for index, size in enumerate(area) if size > 0]
    chosen = sorted({through[int((part + 0.5) * len(through) / most)] for part in range(most)})
    largest = max(through, key=lambda index: area[index])
    if largest not in chosen:
        chosen[min(range(len(chosen)), key=lambda place: abs(chosen[place] - largest))] = largest
    return sorted(chosen)


def as_input(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """Slices in HU ``[n, rows, columns]`` as the network sees them: windowed, ``[n, 3, rows, columns]``."""
    mean, std = (np.array(values, dtype=np.float32).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return np.asarray((window(hu)[:, None] - mean) / std, dtype=np.float32)


def _on_slices(ordered: Volume, mask: Mask) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """The outline on the lattice of a volume's voxels, no farther than it goes, and the index of its first voxel."""
    index = np.argwhere(mask.array_zyx)
    if len(index) == 0:
        raise GeometryError("mask", got="an empty outline", expected="at least one voxel")
    nearest = np.rint(ordered.geometry.world_to_index(mask.geometry.index_to_world(index))).astype(np.intp)
    nearest = np.clip(nearest, 0, np.asarray(ordered.geometry.shape_zyx) - 1)
    first, last = nearest.min(axis=0), nearest.max(axis=0)
    inside = sample(mask.padded(), ordered.geometry.crop(first.tolist(), (last + 1).tolist()), outside=0.0) >= 0.5
    if not inside.any():  # thinner than the volume's voxels
        inside[tuple((nearest - first).T)] = True
    return np.asarray(inside), first
