import numpy as np
import pytest

from spicula.core.errors import GeometryError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume

GRID = Geometry.from_axes((2, 3, 4), (2.0, 0.5, 0.5))


def test_pixels_must_fit_the_grid_and_be_hounsfield_numbers() -> None:
    Volume(np.zeros((2, 3, 4), np.int16), GRID)
    with pytest.raises(GeometryError, match=r"array_zyx: got \(4, 3, 2\), expected \(2, 3, 4\)"):
        Volume(np.zeros((4, 3, 2), np.int16), GRID)
    with pytest.raises(GeometryError, match="uint8"):
        Volume(np.zeros((2, 3, 4), np.uint8), GRID)  # type: ignore[arg-type]
    with pytest.raises(GeometryError, match="mask"):
        Mask(np.zeros((4, 3, 2), bool), GRID)


def test_the_volume_of_a_mask_is_counted_in_mm3() -> None:
    array = np.zeros((2, 3, 4), bool)
    array[0, :2, :2] = True
    assert Mask(array, GRID).volume_mm3 == pytest.approx(4 * 0.5)
