"""Volumes on grids that are permuted, flipped and oblique, and an independent check of places."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from spicula.core.volume import Volume

Check = Callable[[Volume, NDArray[np.generic], NDArray[np.float64]], None]


@pytest.fixture(scope="session")
def image() -> Callable[..., sitk.Image]:
    """Makes a SimpleITK image of CT-like values on an oblique grid."""

    def make(
        quaternion: Sequence[float] = (0.9, 0.2, -0.3, 0.1),
        axes: Sequence[int] = (0, 1, 2),
        signs: Sequence[int] = (1, 1, 1),
        *,
        spacing: Sequence[float] = (0.7, 0.8, 2.5),
        size: Sequence[int] = (7, 6, 5),
        dtype: type = np.int16,
        seed: int = 0,
    ) -> sitk.Image:
        values = np.random.default_rng(seed).integers(-1024, 1500, tuple(size)[::-1]).astype(dtype)
        result = sitk.GetImageFromArray(values)
        w, x, y, z = np.asarray(quaternion) / np.linalg.norm(quaternion)
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        result.SetDirection((rotation[:, list(axes)] * np.asarray(signs)).ravel().tolist())
        result.SetSpacing(list(spacing))
        result.SetOrigin([-12.25, 33.5, -777.75])
        return result

    return make


@pytest.fixture(scope="session")
def agrees() -> Check:
    """Checks that every voxel of a volume has the value that an oracle has at the same place.

    The oracle is an array with axes x, y, z and its affine, index to LPS mm.
    """

    def check(volume: Volume, array_xyz: NDArray[np.generic], affine_lps: NDArray[np.float64]) -> None:
        index = np.moveaxis(np.indices(volume.geometry.shape_zyx), 0, -1)
        world = volume.geometry.index_to_world(index)
        inverse = np.linalg.inv(affine_lps)
        there = world @ inverse[:3, :3].T + inverse[:3, 3]
        nearest = np.rint(there).astype(int)
        assert np.abs(there - nearest).max() < 1e-3
        np.testing.assert_array_equal(volume.array_zyx, array_xyz[tuple(np.moveaxis(nearest, -1, 0))])

    return check


@pytest.fixture(scope="session")
def agrees_with_itk(agrees: Check) -> Callable[[Volume, sitk.Image], None]:
    """Checks a volume against a SimpleITK image."""

    def check(volume: Volume, image: sitk.Image) -> None:
        affine = np.eye(4)
        affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        affine[:3, 3] = image.GetOrigin()
        agrees(volume, sitk.GetArrayFromImage(image).T, affine)

    return check
