"""Gray values and pixels of crops, found by laying small volumes over them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from spicula.core.finding import Finding
from spicula.core.volume import Volume
from spicula.datasets import lidc_crops, lidc_nodules
from spicula.datasets.lidc_crop_scales import CropScale, laid_over, scales_of
from spicula.transforms.crop import box_geometry


def made(folder, patient, slope, intercept, spacing=0.6):
    """A crop and a small volume of the same slice; the crop shows more of it."""
    rng = np.random.default_rng(len(patient))
    hu = np.round(rng.normal(-400, 200, (128, 128)))
    hu[50:78, 50:78] = 30 + rng.normal(0, 20, (28, 28))
    gray = np.clip(np.round((hu - intercept) / slope), 0, 255).astype(np.uint8)
    path = folder / f"{patient}_0_01.png"
    Image.fromarray(gray).save(path)
    part = (gray.astype(np.float32) * slope + intercept)[None, 34:94, 34:94]
    grid = box_geometry((0.0, 0.0, 0.0), shape_zyx=part.shape, spacing_zyx_mm=(2.0, spacing, spacing))
    volume = Volume(part, grid)
    finding = Finding(id=f"{patient}_1", center_xyz_mm=(0.0, 0.0, 0.0), diameter_mm=10.0)
    case = SimpleNamespace(case_id=f"{patient}_1", patient_id=patient, findings=(finding,), load_volume=lambda: volume)
    crop = lidc_crops.Crop(path, patient, "0", 4, {})
    return crop, case


def test_line_pixel_and_nodule_come_back(tmp_path):
    crop, case = made(tmp_path, "P1", 8.5, -1024.0)
    scale = scales_of([crop], [case])[crop.path.name]
    assert scale.slope == pytest.approx(8.5, rel=1e-5)
    assert scale.intercept == pytest.approx(-1024.0, abs=0.01)
    assert (scale.pixel_mm, scale.case_id) == (pytest.approx(0.6), "P1_1")
    gray = lidc_crops.read_gray(crop)
    np.testing.assert_allclose(scale.hu(gray), np.clip(gray * 8.5 - 1024, -1024, 1500), atol=0.05)


def test_other_crops_of_the_patient_share_the_pixel_not_the_line(tmp_path):
    crop, case = made(tmp_path, "P1", 8.5, -1024.0)
    stranger, _ = made(tmp_path, "P22", 9.0, -1000.0)
    other = lidc_crops.Crop(stranger.path, "P1", "1", 4, {})
    scale = scales_of([crop, other], [case])[other.path.name]
    assert (scale.slope, scale.case_id, scale.pixel_mm) == (None, None, pytest.approx(0.6))


def test_a_crop_of_another_patient_is_not_laid_over(tmp_path):
    crop, case = made(tmp_path, "P1", 8.5, -1024.0)
    stranger = lidc_crops.Crop(crop.path, "P2", "0", 4, {})
    assert scales_of([stranger], [case])[crop.path.name] == CropScale()


def test_kept_and_read_again(tmp_path):
    crop, case = made(tmp_path, "P1", 8.5, -1024.0)
    first = scales_of([crop], [case], tmp_path / "kept" / "scales.json")
    case.load_volume = None
    assert scales_of([crop], [case], tmp_path / "kept" / "scales.json") == first


def test_a_piece_larger_than_the_image_lies_nowhere():
    assert laid_over(np.zeros((5, 5), dtype=np.uint8), np.zeros((9, 3), dtype=np.float32))[0] == -1.0


@pytest.mark.shared
def test_real_crops_lie_on_real_volumes():
    data = Path(os.environ.get("SPICULA_SHARED", "../shared")) / "data"
    patients = {"LIDC-IDRI-0003", "LIDC-IDRI-0081"}
    crops = [c for c in lidc_crops.load_crops(data / "lidc_crops") if c.patient_id in patients]
    cases = [c for c in lidc_nodules.load_cases(data / "lidc_nodules") if c.patient_id in patients]
    scales = scales_of(crops, cases)
    exact = [crop for crop in crops if scales[crop.path.name].case_id]
    assert len(exact) >= 6
    for crop in exact:  # the table numbers nodules from 1, the crops from 0
        assert scales[crop.path.name].case_id == f"{crop.patient_id}_{int(crop.nodule) + 1}"
