"""CT series built in code: known pixels at known places, in any orientation, flavor and transfer syntax."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

Change = Callable[[Dataset, int], None]


def stored_block(shape: tuple[int, int, int] = (6, 9, 11), *, seed: int = 0) -> NDArray[np.int16]:
    """Stored values that differ everywhere, smooth enough to compress, within 12 bits."""
    n, rows, cols = shape
    z, y, x = np.meshgrid(np.arange(n), np.arange(rows), np.arange(cols), indexing="ij")
    noise = np.random.default_rng(seed).integers(0, 30, shape)
    return (200 + 300 * z + 40 * y + 7 * x + noise).astype(np.int16) % 4096


@dataclass(frozen=True)
class Layout:
    """Where slices lie; ``normal`` times ``step_mm`` leads from one to the next, ``shear`` moves them along columns."""

    orientation: tuple[float, ...] = AXIAL
    spacing_yx_mm: tuple[float, float] = (0.7, 0.6)
    step_mm: float = 2.0
    origin_xyz_mm: tuple[float, float, float] = (-100.0, -90.0, 50.0)
    shear: float = 0.0

    def position(self, place: float) -> list[float]:
        row, col = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        step = np.cross(row, col) * self.step_mm + col * self.shear * self.step_mm
        return [round(float(v), 6) for v in np.array(self.origin_xyz_mm) + place * step]


def ct_slice(
    stored: NDArray[Any], layout: Layout, *, place: float, number: int, series_uid: str = "1.2.3.4"
) -> Dataset:
    """One CT Image Storage object."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = f"{series_uid}.{number}"
    dataset.StudyDate, dataset.Modality, dataset.Manufacturer = "20200102", "CT", "ACME"
    dataset.SeriesDescription, dataset.PatientName, dataset.PatientID = "Chest", "A^B", "P1"
    dataset.SliceThickness, dataset.ConvolutionKernel = 2.5, "B31f"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "1.2.3", series_uid, "1.2.9"
    dataset.AcquisitionNumber, dataset.InstanceNumber = 1, number
    dataset.ImagePositionPatient = layout.position(place)
    dataset.ImageOrientationPatient = list(layout.orientation)
    dataset.PixelSpacing = list(layout.spacing_yx_mm)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
    dataset.PixelData = np.ascontiguousarray(stored).tobytes()
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_ct(
    folder: Path,
    stored: NDArray[Any] | None = None,
    *,
    layout: Layout | None = None,
    places: list[float] | None = None,
    series_uid: str = "1.2.3.4",
    change: Change | None = None,
) -> list[Path]:
    """Write a series under shuffled names and instance numbers; slice ``i`` lies at ``places[i]`` steps."""
    stored = stored_block() if stored is None else stored
    layout = layout or Layout()
    places = places or list(range(len(stored)))
    numbers = np.random.default_rng(1).permutation(len(stored)) + 1
    paths = []
    for index, (pixels, place) in enumerate(zip(stored, places, strict=True)):
        dataset = ct_slice(pixels, layout, place=place, number=int(numbers[index]), series_uid=series_uid)
        if change is not None:
            change(dataset, index)
        paths.append(save(dataset, folder / f"IM{numbers[index]:04d}"))
    return paths


def enhanced_ct(stored: NDArray[Any], layout: Layout, *, places: list[float] | None = None) -> Dataset:
    """The same as one Enhanced CT object; odd frames carry their own rescale intercept."""
    dataset = ct_slice(stored[0], layout, place=0, number=1)
    per_frame = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"]
    for name in [*per_frame, "RescaleIntercept", "RescaleSlope", "ConvolutionKernel", "AcquisitionNumber"]:
        delattr(dataset, name)
    dataset.SOPClassUID = f"{CT}.1"
    dataset.NumberOfFrames = len(stored)
    dataset.PixelData = np.ascontiguousarray(stored).tobytes()
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=list(layout.spacing_yx_mm), SliceThickness=2.5)]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=list(layout.orientation))]
    shared.CTReconstructionSequence = [_item(ConvolutionKernel="B31f")]
    shared.CTImageFrameTypeSequence = [_item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for index, place in enumerate(places or range(len(stored))):
        frame = Dataset()
        frame.PlanePositionSequence = [_item(ImagePositionPatient=layout.position(place))]
        frame.PixelValueTransformationSequence = [
            _item(RescaleIntercept=-1024 - index % 2, RescaleSlope=1, RescaleType="HU")
        ]
        frame.FrameContentSequence = [_item(FrameAcquisitionNumber=1, StackID="1", InStackPositionNumber=index + 1)]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    return dataset


def _item(**values: Any) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


@pytest.fixture
def ct() -> Any:
    """The builders of this file, as a name space."""
    from types import SimpleNamespace

    names = {"Layout": Layout, "slice": ct_slice, "save": save, "write": write_ct, "enhanced": enhanced_ct}
    return SimpleNamespace(stored=stored_block, generate_uid=generate_uid, **names)


@pytest.fixture(scope="session")
def tcga(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 files of single CT slices from many scanners."""
    folder = tmp_path_factory.mktemp("tcga")
    with tarfile.open(shared / "scans" / "TCGA-lung-slices.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder
