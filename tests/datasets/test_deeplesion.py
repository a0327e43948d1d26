"""DeepLesion in its published layout: columns, parts, 16-bit slices, the frame of a series, what is broken."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from spicula.core.errors import InputError
from spicula.datasets import deeplesion
from spicula.datasets.deeplesion_table import COLUMNS
from spicula.formats import nrrd

ROW = {
    "File_name": "000007_02_01_005.png", "Patient_index": "7", "Study_index": "2", "Series_ID": "1",
    "Key_slice_index": "5", "Measurement_coordinates": "8, 12, 14, 12, 11, 10, 11, 14",
    "Bounding_boxes": "3, 5, 19, 19", "Lesion_diameters_Pixel_": "6, 4",
    "Normalized_lesion_location": "0.4, 0.5, 0.45", "Coarse_lesion_type": "5", "Possibly_noisy": "0",
    "Slice_range": "3, 8", "Spacing_mm_px_": "0.5, 0.5, 5", "Image_size": "24, 24", "DICOM_windows": "-1500, 500",
    "Patient_gender": "M", "Patient_age": "61", "Train_Val_Test": "3",
}  # fmt: skip


def table(root: Path, *rows: dict[str, str]) -> Path:
    path = root / "DL_info.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows([ROW | row for row in rows])
    return path


def put(path: Path, hu: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((hu.astype(np.int32) + 32768).astype(np.uint16)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two lesions in one stack, one unlabeled in another; the slices hold their number times 10."""
    other = {
        "File_name": "000009_01_02_002.png", "Patient_index": "9", "Study_index": "1", "Series_ID": "2",
        "Key_slice_index": "2", "Slice_range": "1, 3", "Coarse_lesion_type": "-1", "Train_Val_Test": "1",
        "Patient_gender": "", "Patient_age": "NaN", "Possibly_noisy": "1", "DICOM_windows": "-175, 275, -1500, 500",
    }  # fmt: skip
    table(tmp_path, {}, {"Coarse_lesion_type": "3"}, other)
    for folder, numbers in (("000007_02_01", range(3, 9)), ("000009_01_02", range(1, 4))):
        for number in numbers:
            put(tmp_path / "Images_png" / folder / f"{number:03d}.png", np.full((24, 24), number * 10))
    return tmp_path


def test_one_case_for_each_stack(root):
    first, second = deeplesion.load_cases(root)
    assert (first.case_id, first.patient_id, first.split) == ("000007_02_01_003-008", "000007", "test")
    assert [f.id for f in first.findings] == ["000007_02_01_005_1", "000007_02_01_005_2"]
    assert [dict(f.truth) for f in first.findings] == [
        {"possibly_noisy": 0, "lesion_type": 5}, {"possibly_noisy": 0, "lesion_type": 3}
    ]  # fmt: skip
    assert (second.case_id, second.split) == ("000009_01_02_001-003", "train")
    assert dict(second.findings[0].truth) == {"possibly_noisy": 1}


def test_sizes_and_places_in_the_frame_of_the_series(root):
    finding = next(deeplesion.load_cases(root)).findings[0]
    assert (finding.attributes["long_axis_mm"], finding.attributes["short_axis_mm"]) == (3.0, 2.0)
    assert finding.diameter_mm == 2.5
    assert finding.center_xyz_mm == (10 * 0.5, 11 * 0.5, -25.0)


def test_slices_are_stacked_towards_the_feet(root):
    case = next(deeplesion.load_cases(root))
    volume = case.load_volume()
    assert volume.array_zyx[:, 0, 0].tolist() == [30, 40, 50, 60, 70, 80]
    assert volume.geometry.spacing_zyx_mm == (5.0, 0.5, 0.5)
    np.testing.assert_allclose(volume.geometry.index_to_world([[0, 0, 0], [5, 2, 3]]), [[0, 0, -15], [1.5, 1, -40]])
    index = volume.geometry.world_to_index(case.findings[0].center_xyz_mm)
    np.testing.assert_allclose(index, [2, 11, 10])
    assert volume.acquisition.patient_id == "000007"
    assert "own frame" in volume.warnings[0]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(8, 15), st.integers(8, 15), st.integers(1, 6), st.sampled_from([0.5, 1.0, 2.5]))
def test_a_bright_pixel_at_a_measurement_is_found_there(tmp_path, x, y, key, dz):
    for number in range(1, 7):
        hu = np.full((24, 24), -800)
        if number == key:
            hu[y, x] = 500
        put(tmp_path / "Images_png" / "000007_02_01" / f"{number:03d}.png", hu)
    ends = f"{x - 1}, {y + 1}, {x + 3}, {y + 1}, {x + 1}, {y}, {x + 1}, {y + 2}"
    row = {
        "File_name": f"000007_02_01_{key:03d}.png", "Key_slice_index": str(key), "Slice_range": "1, 6",
        "Measurement_coordinates": ends, "Bounding_boxes": f"{x - 6}, {y - 5}, {x + 8}, {y + 7}",
        "Lesion_diameters_Pixel_": "4, 2", "Spacing_mm_px_": f"0.7, 0.7, {dz}",
    }  # fmt: skip
    table(tmp_path, row)
    (case,) = deeplesion.load_cases(tmp_path)
    volume = case.load_volume()
    index = tuple(np.rint(volume.geometry.world_to_index(case.findings[0].center_xyz_mm)).astype(int))
    assert volume.array_zyx[index] == 500
    assert not [c for c in deeplesion.verify(tmp_path, deep=True) if c.what == "lesion"]


def test_a_real_ct_cut_into_slices_comes_back(tmp_path, sample_ct):
    ct = sitk.ReadImage(sample_ct[0].nrrd)
    label = nrrd.read(sample_ct[0].label_nrrd)
    array, (z, y, x) = sitk.GetArrayFromImage(ct), np.argwhere(label.array_zyx > 0).mean(axis=0).round().astype(int)
    from_head = array[::-1]  # its slices go from the feet to the head
    assert ct.GetDirection()[8] == 1
    key = len(array) - 1 - z + 1
    first, last = key - 3, key + 3
    for number in range(first, last + 1):
        put(tmp_path / "Images_png" / "000007_02_01" / f"{number:03d}.png", from_head[number - 1])
    dx, dy, dz = ct.GetSpacing()
    ends = f"{x - 4}, {y + 1}, {x + 6}, {y + 1}, {x + 1}, {y - 3}, {x + 1}, {y + 5}"
    row = {
        "File_name": f"000007_02_01_{key:03d}.png", "Key_slice_index": str(key), "Slice_range": f"{first}, {last}",
        "Measurement_coordinates": ends, "Bounding_boxes": f"{x - 9}, {y - 8}, {x + 11}, {y + 10}",
        "Lesion_diameters_Pixel_": "10, 8", "Spacing_mm_px_": f"{dx}, {dy}, {dz}", "Image_size": "512, 512",
    }  # fmt: skip
    table(tmp_path, row)
    (case,) = deeplesion.load_cases(tmp_path)
    volume = case.load_volume()
    iz, iy, ix = np.rint(volume.geometry.world_to_index(case.findings[0].center_xyz_mm)).astype(int)
    assert volume.array_zyx[iz, iy, ix] == array[z, y, x]
    above = volume.geometry.index_to_world((iz - 1, iy, ix))[2] - volume.geometry.index_to_world((iz, iy, ix))[2]
    assert above == pytest.approx(dz)
    assert volume.array_zyx[iz - 1, iy, ix] == array[z + 1, y, x]


def test_parts_and_lesions_that_are_left_out(root):
    assert [case.split for case in deeplesion.load_cases(root, splits=["train"])] == ["train"]
    left = list(deeplesion.load_cases(root, without=["000007_02_01_005_1", "000009_01_02_002_1"]))
    assert [[f.id for f in case.findings] for case in left] == [["000007_02_01_005_2"]]
    with pytest.raises(InputError, match="splits: got val"):
        deeplesion.load_cases(root, splits=["val"])
    with pytest.raises(InputError, match="without: lesion nothing"):
        deeplesion.load_cases(root, without=["nothing"])
    with pytest.raises(InputError, match="all 32735"):
        deeplesion.lesion_search_skips(root)


def test_the_skipped_rows_are_named_where_the_table_is_whole(root, monkeypatch):
    lesions = deeplesion.read_lesions(root) * 10912
    monkeypatch.setattr(deeplesion, "read_lesions", lambda root: lesions[:32735])
    skipped = deeplesion.lesion_search_skips(root)
    assert skipped == tuple(lesions[n].id for n in deeplesion.SKIPPED_ROWS)
    assert len(skipped) == 9


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"File_name": "000007_02_01_006.png"}, "File_name"),
        ({"Measurement_coordinates": "1, 2, 3"}, "expected 8 numbers"),
        ({"Bounding_boxes": "1, 2, nan, 4"}, "expected 4 numbers"),
        ({"Spacing_mm_px_": "0.5, 0.5, 0"}, "Spacing_mm_px_"),
        ({"Slice_range": "8, 3"}, "Slice_range"),
        ({"Train_Val_Test": "4"}, "1, 2 or 3"),
        ({"Coarse_lesion_type": "9"}, "Coarse_lesion_type"),
        ({"DICOM_windows": "1, 2, 3"}, "pairs of numbers"),
        ({"Key_slice_index": "x"}, "Key_slice_index"),
    ],
)
def test_a_bad_row_is_named_and_is_one_check(tmp_path, cells, words):
    path = table(tmp_path, {}, cells)
    with pytest.raises(InputError, match=words) as caught:
        deeplesion.load_cases(tmp_path)
    assert "line 3" in str(caught.value)
    broken = [c for c in deeplesion.verify(tmp_path) if c.state == "broken"]
    assert [(c.path, c.line) for c in broken] == [(path, 3)]


def test_what_does_not_fit_together_is_a_warning(tmp_path):
    table(tmp_path, {"Lesion_diameters_Pixel_": "9, 4", "Bounding_boxes": "3, 5, 19, 29", "Slice_range": "6, 8"})
    odd = [c for c in deeplesion.verify(tmp_path) if c.what == "lesion"]
    assert [c.line for c in odd] == [2, 2, 2]
    assert {c.state for c in odd} == {"warning"}


def test_a_patient_in_two_parts_is_broken(root):
    table(root, {}, {"Train_Val_Test": "1"})
    assert [c.what for c in deeplesion.verify(root) if c.state == "broken"] == ["split"]


def test_broken_slices_are_rows_of_the_report(root):
    images = root / "Images_png" / "000007_02_01"
    key = images / "005.png"
    key.write_bytes(key.read_bytes()[:-20])
    Image.fromarray(np.zeros((24, 24), np.uint8)).save(images / "004.png")
    (images / "008.png").unlink()
    (root / "Images_png" / "000009_01_02").rename(root / "elsewhere")
    found = [c for c in deeplesion.verify(root) if c.state in ("broken", "missing")]
    assert [(c.state, c.path.name) for c in found if c.path] == [
        ("missing", "000007_02_01"), ("broken", "005.png"), ("missing", "Images_png")
    ]  # fmt: skip
    deep = [c for c in deeplesion.verify(root, deep=True) if c.state == "broken"]
    assert [c.path.name for c in deep if c.path] == ["004.png", "005.png"]
    assert "8-bit gray" in deep[0].message
    first, second = deeplesion.load_cases(root)
    with pytest.raises(InputError, match=r"008\.png: no such file: got 1 of 6 slices"):
        first.load_volume()
    with pytest.raises(InputError, match="3 of 3 slices"):
        second.load_volume()
    put(images / "008.png", np.zeros((24, 24)))
    with pytest.raises(InputError, match=r"004\.png: image: got 8-bit gray"):
        first.load_volume()


def test_a_slice_of_another_size(root):
    put(root / "Images_png" / "000007_02_01" / "005.png", np.zeros((24, 20)))
    (check,) = [c for c in deeplesion.verify(root) if c.state == "broken"]
    assert "24 x 20 pixels, Image_size says 24 x 24" in check.message


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        deeplesion.verify(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no DL_info\.csv"):
        deeplesion.load_cases(tmp_path)
    assert [c.state for c in deeplesion.verify(tmp_path)] == ["missing"]


@pytest.mark.shared
def test_the_published_test_part(shared):
    lesions = deeplesion.read_lesions(shared / "deeplesion")
    assert len(lesions) == 4927
    assert len({lesion.file_name for lesion in lesions}) == 4831
    assert sum(lesion.possibly_noisy for lesion in lesions) == 15
    assert not [oddity for lesion in lesions for oddity in lesion.oddities()]
    checks = list(deeplesion.verify(shared / "deeplesion"))
    assert [c.state for c in checks] == ["ok", "ok", "warning"]  # only the table
    cases = list(deeplesion.load_cases(shared / "deeplesion"))
    assert sum(len(case.findings) for case in cases) == 4927
    assert len({case.case_id for case in cases}) == len(cases)


@pytest.mark.shared
def test_slice_numbers_grow_towards_the_feet(shared):
    by_series: dict[str, list[tuple[int, float]]] = {}
    for lesion in deeplesion.read_lesions(shared / "deeplesion"):
        by_series.setdefault(lesion.folder, []).append((lesion.key_slice, lesion.location[2]))
    signs = [
        np.sign((a[0] - b[0]) * (a[1] - b[1]))
        for group in by_series.values()
        for a in group
        for b in group
        if a[0] > b[0] and abs(a[1] - b[1]) > 0.02
    ]
    assert len(signs) > 5000
    assert np.mean(np.array(signs) > 0) > 0.998
