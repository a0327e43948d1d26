"""Cubes of outlined nodules do not tell where a volume ends."""

from __future__ import annotations

import numpy as np

from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.pipelines.semantic_table import measured
from spicula.transforms.outlined_cube import SIDE, outlined_cube


def nodule() -> tuple[Volume, Mask]:
    rng = np.random.default_rng(0)
    grid = Geometry.from_axes((14, 60, 60), (2.0, 0.7, 0.7), origin_xyz_mm=(-20.0, 30.0, -5.0))
    inside = np.zeros(grid.shape_zyx, dtype=np.bool_)
    inside[5:9, 24:36, 26:34] = True
    hu = np.where(inside, 30.0, -800.0) + rng.normal(0, 30, grid.shape_zyx)
    return Volume(hu.astype(np.float32), grid), Mask(inside, grid)


def test_a_cut_volume_gives_the_same_cube_and_measures() -> None:
    volume, mask = nodule()
    part = (slice(4, 10), slice(17, 43), slice(19, 41))
    grid = volume.geometry.crop([one.start for one in part], [one.stop for one in part])
    cut, cut_mask = Volume(volume.array_zyx[part], grid), Mask(mask.array_zyx[part], grid)
    assert np.allclose(outlined_cube(volume, mask), outlined_cube(cut, cut_mask), atol=1e-3)
    whole, other = measured(volume, mask), measured(cut, cut_mask)
    assert whole.keys() == other.keys()
    assert not any(name.startswith(("size_volume", "size_height")) for name in whole)


def test_the_cube_lies_about_the_outlines_middle() -> None:
    hu, part = outlined_cube(*nodule())
    assert hu.shape == (SIDE, SIDE, SIDE)
    place = np.argwhere(part > 0.5).mean(axis=0)
    assert np.allclose(place, (SIDE - 1) / 2, atol=0.2)
    assert abs(float(np.median(hu[part > 0.99])) - 30) < 20
