"""Planes through a nodule."""

from __future__ import annotations

import numpy as np
import pytest

from spicula.core.errors import GeometryError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.transforms.planes import BACKGROUND_HU, axial_planes


def ball(radius_mm: float, *, side: int = 60) -> tuple[Volume, Mask]:
    grid = Geometry.from_axes((side,) * 3, (1.0, 1.0, 1.0))
    offset = np.arange(side) - (side - 1) / 2
    z, y, x = np.meshgrid(offset, offset, offset, indexing="ij", sparse=True)
    inside = z**2 + y**2 + x**2 <= radius_mm**2
    hu = np.where(inside, 40, -800).astype(np.float32) + np.arange(side, dtype=np.float32)[None, :, None]
    return Volume(hu, grid), Mask(inside, grid)


@pytest.mark.parametrize("radius", [2.0, 8.0, 25.0])
def test_the_whole_outline_is_in_the_middle_plane(radius: float) -> None:
    volume, mask = ball(radius)
    planes = axial_planes(volume, mask)
    assert planes.shape == (6, 48, 48)
    assert planes.dtype == np.float32
    edge = np.concatenate([planes[4, 0], planes[4, -1], planes[4, :, 0], planes[4, :, -1]])
    assert edge.max() == 0
    assert planes[4, 23:25, 23:25].min() == pytest.approx(1)


def test_far_from_the_outline_is_background() -> None:
    volume, mask = ball(4.0)
    planes = axial_planes(volume, mask)
    assert np.all(planes[:3, 0, 0] == BACKGROUND_HU)


def test_rows_run_to_the_back() -> None:
    volume, mask = ball(8.0)
    column = axial_planes(volume, mask)[1, 16:32, 24]
    assert np.all(np.diff(column) > 0)


def test_a_wider_field_has_the_same_middle() -> None:
    volume, mask = ball(6.0)
    wide, narrow = axial_planes(volume, mask, pixels=72), axial_planes(volume, mask)
    np.testing.assert_allclose(wide[:, 12:-12, 12:-12], narrow, atol=1e-2)


def test_a_small_volume_gives_the_same_planes() -> None:
    volume, mask = ball(6.0)
    start, stop = (23, 14, 14), (37, 46, 46)
    region = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    small = Volume(volume.array_zyx[region], volume.geometry.crop(start, stop))
    np.testing.assert_allclose(axial_planes(small, mask), axial_planes(volume, mask), atol=1e-3)


def test_an_empty_outline_is_refused() -> None:
    volume, mask = ball(3.0)
    with pytest.raises(GeometryError, match="empty outline"):
        axial_planes(volume, Mask(np.zeros_like(mask.array_zyx), mask.geometry))
