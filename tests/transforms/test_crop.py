import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

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


@given(
    st.tuples(*[st.floats(-60, 60)] * 3),
    st.sampled_from([np.eye(3), np.eye(3)[:, [1, 2, 0]], Rotation.from_euler("xyz", (0.3, -0.5, 0.9)).as_matrix()]),
    st.sampled_from([None, -1000.0]),
)
@settings(max_examples=60, deadline=None)
def test_only_what_is_needed_is_looked_at_and_nothing_changes(
    offset: tuple[float, float, float], axes: np.ndarray, outside: float | None
) -> None:
    volume = ramp(axes)
    center = np.add(volume.geometry.center_xyz_mm, offset)
    grid = box_geometry(center.tolist(), shape_zyx=(5, 6, 7), spacing_zyx_mm=(3.0, 2.0, 1.0))
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape_zyx), indexing="ij"))
    places = volume.geometry.world_to_index(np.moveaxis(grid.index_to_world(np.moveaxis(index, 0, -1)), -1, -1))
    mode = "nearest" if outside is None else "constant"
    whole = map_coordinates(volume.array_zyx, np.moveaxis(places, -1, 0), order=1, mode=mode, cval=outside or 0.0)
    np.testing.assert_allclose(sample(volume, grid, outside=outside), whole, rtol=1e-4, atol=0.05)


def test_a_mask_is_sampled_between_zero_and_one() -> None:
    mask = Mask(np.ones((4, 4, 4), bool), Geometry.from_axes((4, 4, 4), (1, 1, 1)))
    values = sample(mask, box_geometry((1.5, 1.5, 3), shape_zyx=(6, 2, 2), spacing_zyx_mm=(1, 1, 1)), outside=0.0)
    assert values.max() == 1.0
    assert values.min() == 0.0
