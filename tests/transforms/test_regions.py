"""Regions about boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.core.errors import GeometryError, InputError
from spicula.core.geometry import Geometry
from spicula.transforms.frangi import frangi
from spicula.transforms.regions import AIR_HU, box_ellipse, box_region, checked_box, near_outline, region_input

RAMP = np.arange(128 * 160, dtype=np.float32).reshape(128, 160) / 16


def test_a_small_box_is_cut_with_its_own_pixels() -> None:
    region = box_region(RAMP, (60, 50, 70, 60))
    assert region.shape == (64, 64)
    assert np.isin(region, RAMP).all()
    np.testing.assert_array_equal(region, RAMP[24:88, 34:98])


def test_a_large_box_is_drawn_together_to_its_longer_side() -> None:
    region = box_region(RAMP, (10, 20, 136, 60), pixels=64)
    np.testing.assert_allclose(region[31:33].mean(axis=0), np.interp(np.linspace(10, 136, 64), range(160), RAMP[40]))


def test_beyond_the_slice_there_is_air() -> None:
    region = box_region(RAMP + 1, (0, 0, 4, 4))
    assert (region[:29] == AIR_HU).all()
    assert (region[40:, 40:] > 0).all()


@given(st.integers(0, 150), st.integers(0, 118), st.integers(2, 9), st.integers(2, 9))
def test_corners_may_come_in_any_order(x: int, y: int, width: int, height: int) -> None:
    box = (x, y, x + width, y + height)
    assert checked_box((x + width, y, x, y + height), rows=128, columns=160) == box
    np.testing.assert_array_equal(box_region(RAMP, box), box_region(RAMP, (box[2], box[3], box[0], box[1])))


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((-3, 5, 10, 20), "within 160 columns and 128 rows"),
        ((5, 5, 10, 128), "within"),
        ((5, 5, 6.5, 20), "1.5 x 15 pixels"),
        ((5, 5, 5, 5), "2 pixels or more each way. Hint: draw it around the whole nodule"),
    ],
)
def test_a_box_outside_or_too_thin_is_refused(box: tuple[float, ...], said: str) -> None:
    with pytest.raises(GeometryError, match=said):
        box_region(RAMP, box)


def test_what_is_no_box_or_slice_is_refused() -> None:
    with pytest.raises(InputError, match="four finite numbers"):
        box_region(RAMP, (1, 2, 3))
    with pytest.raises(InputError, match="four finite"):
        box_region(RAMP, (1, 2, 3, float("nan")))
    with pytest.raises(InputError, match="rows, columns"):
        box_region(RAMP[None], (1, 2, 30, 40))


def test_the_ellipse_of_a_box_lies_in_it_and_has_its_size() -> None:
    grid = Geometry.from_axes((4, 128, 160), (2.0, 0.5, 0.5), origin_xyz_mm=(7.0, -3.0, 11.0))
    mask = box_ellipse(grid, 2, (20, 30, 60, 50))
    places = grid.world_to_index(mask.geometry.index_to_world(np.argwhere(mask.array_zyx)))
    assert set(np.rint(places[:, 0]).tolist()) == {2.0}
    np.testing.assert_allclose(places.min(axis=0)[1:], (30, 20), atol=1e-6)
    np.testing.assert_allclose(places.max(axis=0)[1:], (50, 60), atol=1e-6)
    assert mask.array_zyx.sum() == pytest.approx(np.pi * 20 * 10, rel=0.02)
    with pytest.raises(GeometryError, match="0 to 3"):
        box_ellipse(grid, 4, (20, 30, 60, 50))


@pytest.mark.parametrize("middle", [0.75, 0.5])
def test_regions_in_use_are_what_training_calls_undisturbed(middle: float) -> None:
    torch = pytest.importorskip("torch")
    from spicula.pretraining.region_views import RegionViewRecipe, undisturbed

    hu = np.random.default_rng(0).uniform(-1200, 700, (3, 112, 112)).astype(np.float32)
    expected = undisturbed(
        torch.from_numpy(hu), RegionViewRecipe(middle=middle), filter_of=lambda gray: frangi(gray, batched=True)
    )
    np.testing.assert_allclose(region_input(hu, middle=middle, with_frangi=True)[:, :1], expected[:, :1], atol=2e-5)
    np.testing.assert_allclose(region_input(hu, middle=middle, with_frangi=True)[:, 1:], expected[:, 1:], atol=2e-3)
    assert region_input(hu, middle=middle).shape == (3, 1, 64, 64)


def test_regions_that_are_not_square_are_refused() -> None:
    with pytest.raises(InputError, match="side, side"):
        region_input(np.zeros((2, 10, 12), dtype=np.float32))


def test_what_is_far_from_the_outline_is_not_seen() -> None:
    near = np.zeros((1, 112, 112), dtype=np.float32)
    near[0, 50:62, 50:62] = 1.0
    hu = np.random.default_rng(0).uniform(-1000, 400, (1, 112, 112)).astype(np.float32)
    seen = near_outline(hu, near)
    np.testing.assert_allclose(seen[0, 44:68, 50:62], hu[0, 44:68, 50:62], atol=1e-3)  # 3 mm beside the margin of 1 mm
    assert (seen[0, :36] == -850.0).all()  # 7 mm and more beside it
    other = hu.copy()
    other[0, :34] = 1000.0
    np.testing.assert_array_equal(near_outline(other, near), seen)
