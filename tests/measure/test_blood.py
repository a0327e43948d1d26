import numpy as np
import pytest

from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets.lidc_nodules import load_cases, load_mask
from spicula.measure.blood import is_enhanced_blood
from spicula.measure.size import measure_size

GRID = Geometry.from_axes((30, 60, 60), (2.0, 1.0, 1.0), origin_xyz_mm=(-30, -30, -30))


def ball(hu: float, around: float = 40) -> tuple[Volume, Mask]:
    index = np.stack(np.meshgrid(*map(np.arange, GRID.shape_zyx), indexing="ij"), axis=-1)
    inside = np.linalg.norm(GRID.index_to_world(index), axis=-1) < 12
    array = np.where(inside, hu, around).astype(np.int16)
    start, stop = (7, 15, 15), (24, 46, 46)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return Volume(array, GRID), Mask(inside[box], GRID.crop(start, stop))


@pytest.mark.parametrize(("hu", "blood"), [(40, False), (110, False), (250, True), (400, True), (900, False)])
def test_the_density_of_enhanced_blood_is_known(hu: float, blood: bool) -> None:
    volume, mask = ball(hu)
    assert is_enhanced_blood(volume, mask, width_mm=24.0) is blood
    assert not is_enhanced_blood(volume, mask, width_mm=14.0)


def test_a_dense_nodule_in_lung_is_no_vessel() -> None:
    volume, mask = ball(300, around=-850)
    assert not is_enhanced_blood(volume, mask, width_mm=24.0)


@pytest.mark.shared
def test_hardly_any_real_nodule_is_taken_for_blood(shared) -> None:  # type: ignore[no-untyped-def]
    root = shared / "lidc_nodules"
    wide, taken = 0, []
    for case in load_cases(root):
        if (case.findings[0].diameter_mm or 0) < 12:
            continue
        volume, mask = case.load_volume(), load_mask(root, case.case_id)
        width = measure_size(volume, mask).mean_diameter_mm
        wide += width >= 15
        if is_enhanced_blood(volume, mask, width_mm=width):
            taken.append(case.case_id)
    assert wide > 100  # enough to mean something
    assert len(taken) <= 0.01 * wide, taken
