"""Which slices make a series, which series is chosen, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.dicom.describe import describe
from spicula.dicom.reader import read_series
from spicula.dicom.series import find_series, kernel_sharpness, select_series


def setting(**values: Any) -> Any:
    def change(dataset: Any, index: int) -> None:
        for name, value in values.items():
            setattr(dataset, name, value(index) if callable(value) else value)

    return change


def test_names_and_numbers_play_no_part(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path)
    (series,) = find_series(tmp_path)
    assert list(series.positions_mm) == sorted(series.positions_mm)
    numbers = [int(Path(instance.path).name[2:]) for instance in series.instances]
    assert numbers != sorted(numbers)
    assert (series.plane, series.kernel, series.thickness_mm, series.is_multi_frame) == ("axial", "B31f", 2.5, False)
    assert series.spacing_zyx_mm == pytest.approx((2.0, 0.7, 0.6))
    assert not series.refusal
    assert not series.warnings


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (
            setting(ImageOrientationPatient=lambda z: [1, 0, 0, 0, 1, 0] if z < 3 else [0, 1, 0, 0, 0, -1]),
            "orientation",
        ),
        (
            setting(PixelSpacing=lambda z: [0.7, 0.6] if z < 3 else [0.8, 0.6]),
            "pixel spacing 0.7 x 0.6 mm, 0.8 x 0.6 mm",
        ),
        (setting(ConvolutionKernel=lambda z: "B31f" if z < 3 else "B70f"), "kernel B31f, B70f"),
        (setting(PatientID=lambda z: "P1" if z < 3 else "P2"), "patient P1, P2"),
        (
            setting(ImageType=lambda z: ["ORIGINAL", "PRIMARY", "AXIAL" if z < 3 else "LOCALIZER"]),
            "image type original, localizer",
        ),
    ],
)
def test_mixed_series_is_split_with_the_reason(ct: Any, tmp_path: Path, change: Any, word: str) -> None:
    ct.write(tmp_path, change=change)
    found = find_series(tmp_path)
    assert sorted(len(series.slices) for series in found) == [3, 3]
    for series in found:
        assert word in series.warnings[0]
        assert "2 groups of slices that do not stack" in series.warnings[0]


def test_mixed_sizes_are_split(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path / "a", ct.stored((4, 9, 11)))
    ct.write(tmp_path / "b", ct.stored((3, 8, 8)), change=setting(SOPInstanceUID=lambda z: f"1.2.9.{z + 1}"))
    found = find_series(tmp_path)
    assert [len(series.slices) for series in found] == [4, 3]
    assert "size 9 x 11, 8 x 8" in found[0].warnings[0]


def test_acquisitions_that_overlap_are_split(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path, places=[0, 1, 2, 0, 1, 2], change=setting(AcquisitionNumber=lambda z: 1 + z // 3))
    found = find_series(tmp_path)
    assert [len(series.slices) for series in found] == [3, 3]
    assert all(series.stack and series.stack.is_regular for series in found)


@pytest.mark.parametrize("of", [lambda z: 1 + z // 3, lambda z: z])
def test_acquisitions_that_continue_each_other_stay_together(ct: Any, tmp_path: Path, of: Any) -> None:
    ct.write(tmp_path, change=setting(AcquisitionNumber=of))
    assert [len(series.slices) for series in find_series(tmp_path)] == [6]


def test_frame_of_reference_drawn_for_each_file_is_said(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path, change=setting(FrameOfReferenceUID=lambda z: f"1.2.9.{z}"))
    (series,) = find_series(tmp_path)
    assert "Frame of Reference UID (0020,0052) differs between slices (6 values)" in series.warnings[0]
    assert read_series(series).geometry.frame_of_reference_uid == "1.2.9.0"


def test_frames_of_reference_that_overlap_are_split(ct: Any, tmp_path: Path) -> None:
    change = setting(FrameOfReferenceUID=lambda z: f"1.2.9.{z // 3}")
    ct.write(tmp_path, places=[0, 1, 2, 0.3, 1.3, 2.3], change=change)
    assert [series.frame_of_reference_uid for series in find_series(tmp_path)] == ["1.2.9.0", "1.2.9.1"]


def test_enhanced_stacks_are_split(ct: Any, tmp_path: Path) -> None:
    dataset = ct.enhanced(ct.stored(), ct.Layout(), places=[0, 1, 2, 0, 1, 2])
    for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence[0].StackID = str(index // 3)
    ct.save(dataset, tmp_path / "multi")
    found = find_series(tmp_path)
    assert [len(series.slices) for series in found] == [3, 3]
    assert all(series.is_multi_frame for series in found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "a projection or rendering"),
        ({"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, r"MR Image Storage is not CT"),
        ({"Modality": "MR"}, "modality MR is not CT"),
        ({"Modality": "PT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}, r"Positron Emission Tomography.*is not CT"),
        ({"Modality": "SEG", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "Segmentation Storage.*is not CT"),
        ({"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}, "Comprehensive SR Storage.*is not CT"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "Secondary Capture Image Storage.*is not CT"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "a color image"),
        ({"NumberOfFrames": 4}, "several frames"),
        ({"ImagePositionPatient": [0, 0, 0]}, "all 6 slices lie at the same position"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "two perpendicular unit vectors"),
        ({"PixelSpacing": [0, 0.5]}, "two positive numbers"),
        ({"RescaleSlope": 0}, "a slope other than 0"),
    ],
)
def test_what_is_no_ct_volume_is_refused_with_the_file(
    ct: Any, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    ct.write(tmp_path, change=setting(**changes))
    found = find_series(tmp_path)
    assert all(series.refusal for series in found)
    with pytest.raises(InputError, match=rf"no usable CT series: .*IM000\d.*{message}") as caught:
        select_series(found)
    assert "Hint" in str(caught.value)
    with pytest.raises(InputError, match=message):
        read_series(found[0])


def test_every_refusal_is_named(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path / "scout", series_uid="1.1", change=setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    ct.write(tmp_path / "one", ct.stored((1, 5, 5)), series_uid="1.2")
    with pytest.raises(InputError, match=r"localizer.*single slice"):
        select_series(find_series(tmp_path))


def test_a_localizer_beside_the_scan_is_left_out(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path / "scan")
    ct.write(tmp_path / "scout", series_uid="1.1", change=setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    assert select_series(find_series(tmp_path)).series_uid == "1.2.3.4"


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({}, {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}),
        ({}, {"SliceThickness": 5}),
        ({}, {"ConvolutionKernel": "B70f"}),
        ({"ConvolutionKernel": "STANDARD"}, {"ConvolutionKernel": "LUNG"}),
    ],
)
def test_the_better_series_is_chosen_and_says_why(
    ct: Any, tmp_path: Path, better: dict[str, Any], worse: dict[str, Any]
) -> None:
    ct.write(tmp_path / "a", series_uid="1.1", change=setting(**better))
    ct.write(tmp_path / "b", series_uid="1.2", change=setting(**worse))
    chosen = select_series(find_series(tmp_path))
    assert chosen.series_uid == "1.1"
    assert chosen.reasons[0] == "the best of 2 usable series"
    assert "axial plane" in chosen.reasons


@pytest.mark.parametrize("worse", ["gap", "tilt", "coronal", "short"])
def test_the_better_stack_is_chosen(ct: Any, tmp_path: Path, worse: str) -> None:
    layouts = {
        "tilt": ct.Layout(shear=0.2, step_mm=1.0),
        "coronal": ct.Layout(orientation=(1, 0, 0, 0, 0, -1), step_mm=1.0),
    }
    places = [0, 1, 2, 3, 4, 8] if worse == "gap" else None
    good = ct.stored((40, 4, 4)) if worse == "short" else None
    ct.write(tmp_path / "good", good, series_uid="1.1")
    ct.write(tmp_path / "bad", layout=layouts.get(worse, ct.Layout(step_mm=1.0)), places=places, series_uid="1.2")
    assert select_series(find_series(tmp_path)).series_uid == "1.1"


@pytest.mark.parametrize(
    ("kernel", "sharpness"),
    [
        ("B31f", 0), ("B20s", 0), ("B60f", 2), ("B70f", 2), ("Br40d", 0), ("Bl57d", 2), ("I50f", 2), ("STANDARD", 0),
        ("SOFT", 0), ("LUNG", 2), ("BONE", 2), ("BONEPLUS", 2), ("59 .10.AB50", 1), ("FC13", 0), ("FC51", 2), ("C", 0),
        ("YA", 2), ("", 1),
    ],
)  # fmt: skip
def test_kernels_are_ranked(kernel: str, sharpness: int) -> None:
    assert kernel_sharpness(kernel) == sharpness


def test_description_names_what_a_user_asks_for(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path, places=[0, 1, 2, 4, 5, 6], layout=ct.Layout(shear=0.2))
    rows = dict(describe(select_series(find_series(tmp_path))))
    assert rows["series"] == "1.2.3.4"
    assert rows["slices"] == "6 of 9 x 11 pixels, axial"
    assert rows["spacing"].startswith("2.04 x 0.7 x 0.6 mm")
    assert rows["kernel"] == "B31f"
    assert rows["transfer syntax"] == "Explicit VR Little Endian (1.2.840.10008.1.2.1)"
    assert rows["gaps"] == "1 missing slice position at 56.00 mm"
    assert rows["gantry tilt"] == "11.3 degrees"
    assert "the only usable series" in rows["speaks for or against it"]
    assert "--gaps warn" in rows["refused"]
    assert "--tilt resample" in rows["refused"]


def test_description_of_what_is_no_image(ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path, change=setting(Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"))
    (series,) = find_series(tmp_path)
    rows = dict(describe(series))
    assert "MR Image Storage is not CT" in rows["refused"]
    assert "(and so 5 more files)" in rows["refused"]
    assert "gaps" not in rows


@pytest.mark.shared
def test_single_slices_of_many_scanners_are_recognized(tcga: Path) -> None:
    found = find_series(tcga)
    slices = [item for series in found for item in series.slices]
    copies = [int(word.split()[0]) for series in found for word in series.warnings if "copies" in word]
    assert (len(slices), sum(copies)) == (95, 5)
    assert {series.plane for series in found if series.kind} == {"axial"}
    assert np.isfinite([item.slope * item.intercept for item in slices]).all()
    assert not any(series.refusal and not series.slices for series in found)
