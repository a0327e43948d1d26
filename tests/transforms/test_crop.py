import numpy as np
import pytest
import SimpleITK as sitk

from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.transforms.crop import box_geometry, crop_box, sample


def ramp(direction: np.ndarray | None = None) -> Volume:
    """A volume whose value is a linear function of the place, so that sampling it is exact."""
    grid = Geometry.from_axes((20, 24, 28), (2.0, 1.5, 1.0), origin_xyz_mm=(5, -6, 7), direction_xyz=direction)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape_zyx), indexing="ij"), axis=-1)
    values = grid.index_to_world(index) @ (1.0, 10.0, 100.0)
    return Volume(values.astype(np.float32), grid)


@pytest.mark.parametrize("axes", [np.eye(3), np.eye(3)[:, [1, 2, 0]], np.diag([-1.0, 1, -1])])
def test_samples_lie_where_the_grid_says(axes: np.ndarray) -> None:
    volume = ramp(axes)
    center = volume.geometry.center_xyz_mm
    box = crop_box(volume, center, size_mm=8, spacing_mm=0.8)
    assert box.shape == (10, 10, 10)
    grid = box_geometry(center, shape_zyx=box.shape, spacing_zyx_mm=(0.8,) * 3)
    np.testing.assert_allclose(box[2, 5, 7], grid.index_to_world((2, 5, 7)) @ (1.0, 10.0, 100.0), rtol=1e-4)
    np.testing.assert_allclose(grid.center_xyz_mm, center)


def test_it_resamples_as_simpleitk_does() -> None:
    rng = np.random.default_rng(0)
    source = ramp()
    noise = Volume(rng.normal(size=source.geometry.shape_zyx).astype(np.float32), source.geometry)
    grid = box_geometry(source.geometry.center_xyz_mm, shape_zyx=(9, 8, 7), spacing_zyx_mm=(1.1, 0.9, 0.7))
    image = sitk.GetImageFromArray(noise.array_zyx)
    image.SetSpacing(noise.geometry.spacing_zyx_mm[::-1])
    image.SetOrigin(noise.geometry.origin_xyz_mm)
    theirs = sitk.Resample(
        image, grid.shape_zyx[::-1], sitk.Transform(), sitk.sitkLinear, grid.origin_xyz_mm, grid.spacing_zyx_mm[::-1]
    )
    np.testing.assert_allclose(sample(noise, grid), sitk.GetArrayFromImage(theirs), atol=1e-5)


def test_outside_is_the_nearest_voxel_or_the_value_given() -> None:
    volume = Volume(np.full((4, 4, 4), 50, np.int16), Geometry.from_axes((4, 4, 4), (1, 1, 1)))
    assert (crop_box(volume, (100, 0, 0), size_mm=3, spacing_mm=1) == 50).all()
    assert (crop_box(volume, (100, 0, 0), size_mm=3, spacing_mm=1, outside=-1000) == -1000).all()


def test_a_mask_is_sampled_between_zero_and_one() -> None:
    mask = Mask(np.ones((4, 4, 4), bool), Geometry.from_axes((4, 4, 4), (1, 1, 1)))
    values = sample(mask, box_geometry((1.5, 1.5, 3), shape_zyx=(6, 2, 2), spacing_zyx_mm=(1, 1, 1)), outside=0.0)
    assert values.max() == 1.0
    assert values.min() == 0.0
