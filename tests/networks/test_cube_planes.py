"""Nine planes of batches of cubes, in torch as in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spicula.transforms.augment import Augmentation, apply_augmentation
from spicula.transforms.nine_planes import clip_normalized, nine_planes, zoom_planes
from spicula.transforms.planes import BACKGROUND_HU


def cube(side: int = 24) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(2, 6, 6, 6))
    whole = np.kron(coarse, np.ones((1, 4, 4, 4))).astype(np.float32) * 200 - 500
    whole[1] = whole[1] > -500
    return whole


@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True)])
def test_planes_are_those_of_numpy(torch_seeded: Any, flips: tuple[bool, bool, bool]) -> None:
    from spicula.networks.cube_planes import plane_grid, sample_planes

    both = cube()
    points = plane_grid(side=24, spacing_mm=0.5, pixels=12, pixel_mm=0.5)
    found = sample_planes(torch_seeded.from_numpy(both)[None], points, Augmentation(flips_zyx=flips), spacing_mm=0.5)
    assert found.shape == (1, 9, 2, 12, 12)
    axes = [axis for axis, flip in enumerate(flips) if flip]
    for channel in range(2):
        expected = nine_planes(np.flip(both[channel], axes), pixels=12, order=1)
        assert np.allclose(found[0, :, channel].numpy(), expected, atol=1e-3)


def test_each_cube_is_turned_by_its_own(torch_seeded: Any) -> None:
    from spicula.networks.cube_planes import plane_grid, sample_planes, turned

    rng = np.random.default_rng(1)
    changes = [turned(rng), turned(rng)]
    zz, yy, xx = np.meshgrid(*(np.arange(24.0),) * 3, indexing="ij")
    smooth = np.stack([zz + 2 * yy - xx, np.zeros_like(zz)]).astype(np.float32)
    points = plane_grid(side=24, spacing_mm=0.7, pixels=6, pixel_mm=0.7)
    found = sample_planes(torch_seeded.from_numpy(np.stack([smooth, smooth])), points, changes, spacing_mm=0.7)
    for one, change in zip(found.numpy(), changes, strict=True):
        expected = nine_planes(apply_augmentation(smooth[0], change, spacing_mm=0.7), pixels=6, order=1)
        assert np.allclose(one[:, 0], expected, atol=0.05)
        assert change.scale_zyx[0] == change.scale_zyx[2]
        assert abs(change.degrees_zyx[1]) <= 15


def test_beyond_the_cube_there_is_background(torch_seeded: Any) -> None:
    from spicula.networks.cube_planes import plane_grid, sample_planes

    points = plane_grid(side=24, spacing_mm=0.7, pixels=60, pixel_mm=1.0)
    found = sample_planes(torch_seeded.ones(1, 2, 24, 24, 24), points, Augmentation(), spacing_mm=0.7)
    assert np.allclose(found[0, 0, 0, 0].numpy(), BACKGROUND_HU)
    assert np.allclose(found[0, 0, 1, 0].numpy(), 0.0)


def test_planes_of_the_published_tower(torch_seeded: Any) -> None:
    from spicula.networks.cube_planes import as_clip_planes

    planes = torch_seeded.from_numpy(np.random.default_rng(0).normal(-300, 500, (1, 9, 2, 10, 10)).astype(np.float32))
    found = as_clip_planes(planes, pixels=32, window=(-1000.0, 500.0))[0].numpy()
    gray = np.clip((planes[0, :, 0].numpy() + 1000) / 1500, 0, 1)
    assert np.allclose(found, clip_normalized(zoom_planes(gray, 32)), atol=1e-5)
