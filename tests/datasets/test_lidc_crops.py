"""8-bit crops: which are listed, and the HU that their gray comes to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spicula.core.errors import InputError
from spicula.datasets import lidc_crops
from spicula.datasets.lidc_nodules import TEST_PATIENT
from spicula.datasets.lidc_xml import TRAITS

HEADER = ",".join(("file", "patient_id", "nodule", "slice", "n_slices", "readers", *TRAITS))


def table(root: Path, *rows: str) -> Path:
    (root / "image").mkdir(exist_ok=True)
    (root / "crops.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return root


def row(patient: str, readers: str = "4", rating: str = "3.0", name: str = "a.webp") -> str:
    return ",".join((name, patient, "0", "2", "9", readers, *[rating] * len(TRAITS)))


def test_only_rated_crops_of_other_patients_than_the_test_patient_are_listed(tmp_path: Path) -> None:
    table(tmp_path, row("P1"), row(TEST_PATIENT), row("P2", readers="1"), row("P3", readers="0", rating=""))
    assert [crop.patient_id for crop in lidc_crops.load_crops(tmp_path)] == ["P1", "P2"]
    assert [crop.nodule_id for crop in lidc_crops.load_crops(tmp_path, least_readers=3)] == ["P1_0"]
    assert TEST_PATIENT in {crop.patient_id for crop in lidc_crops.load_crops(tmp_path, with_test_patient=True)}


def test_damage_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"crops\.csv"):
        lidc_crops.load_crops(tmp_path)
    table(tmp_path, row("P1"), row("P2", rating="high"))
    with pytest.raises(InputError, match="line 3"):
        lidc_crops.load_crops(tmp_path)
    table(tmp_path, row("P1", name="gone.webp"))
    with pytest.raises(InputError, match=r"gone\.webp"):
        lidc_crops.read_gray(lidc_crops.load_crops(tmp_path)[0])


def test_gray_is_read_as_it_was_written(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    table(tmp_path, row("P1"))
    Image.fromarray(gray).convert("RGB").save(tmp_path / "image" / "a.webp", lossless=True)
    assert np.array_equal(lidc_crops.read_gray(lidc_crops.load_crops(tmp_path)[0]), gray)


@given(least=st.sampled_from([-1024, -2000]), most=st.integers(600, 2500), lung=st.integers(-900, -800))
def test_hu_come_back_to_a_hundred_whatever_the_slice_was_scaled_from(least: int, most: int, lung: int) -> None:
    rng = np.random.default_rng(0)
    hu = np.where(rng.random((96, 96)) < 0.6, lung, 40) + rng.normal(0, 15, (96, 96))
    hu[0, 0], hu[0, 1] = least, most
    gray = np.clip(np.round((hu - least) / (most - least) * 255), 0, 255).astype(np.uint8)
    found = lidc_crops.hu_of_gray(gray)
    for value in (lung, 40):
        near = np.abs(hu - value) < 40
        assert abs(float(np.median(found[near])) - value) < 100


@pytest.mark.shared
def test_the_real_crops_are_those_of_the_card(shared: Path) -> None:
    crops = lidc_crops.load_crops(shared / "lidc_crops")
    assert (len(crops), len({crop.patient_id for crop in crops})) == (4546, 693)
    hu = lidc_crops.hu_of_gray(lidc_crops.read_gray(crops[0]))
    assert hu.shape == (128, 128)
    assert hu.min() >= -1024
