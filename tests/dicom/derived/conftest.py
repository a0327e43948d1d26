"""DICOM series built in code, in any orientation, as single frames or one multi-frame object, with two findings."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from spicula.core.analysis import Analysis, Assessment
from spicula.core.finding import Finding, Size
from spicula.core.geometry import Geometry
from spicula.core.prediction import TRAITS, Prediction
from spicula.core.volume import Acquisition, Instance, Mask, Volume

SHAPE = (9, 40, 48)
SPACING = (2.5, 0.8, 0.7)
FRAME = "1.2.3.4.5"


def rotation(degrees: float) -> np.ndarray:
    """An oblique direction: columns are the unit vectors of the x, y and z index axes."""
    a, b = np.deg2rad([degrees, degrees / 2])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return about_z @ about_x


DIRECTIONS = {
    "axial": np.eye(3),
    "head first down": np.diag([1.0, 1.0, -1.0]),
    "prone": np.diag([-1.0, -1.0, 1.0]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]),
    "oblique": rotation(25.0),
}


def geometry_of(name: str) -> Geometry:
    """The grid; ``"tilted"`` is sheared as by a tilted gantry that was not set right."""
    direction = DIRECTIONS["axial" if name == "tilted" else name]
    grid = Geometry.from_axes(
        SHAPE, SPACING, origin_xyz_mm=(-20.5, 14.25, -300.0), direction_xyz=direction, frame_of_reference_uid=FRAME
    )
    affine = grid.affine_lps.copy()
    if name == "tilted":
        affine[1, 0] += 0.75
    return Geometry(SHAPE, affine, FRAME)


def common(sop_class: str) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = generate_uid()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName = "Müller^Jörg"
    ds.PatientID = "P-1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3.1", "1.2.3.2", FRAME
    ds.StudyDate, ds.StudyTime, ds.Modality = "20200102", "101500", "CT"
    ds.PatientBirthDate, ds.AccessionNumber, ds.StudyID, ds.StudyDescription = "19500101", "A1", "7", "Chest"
    ds.Manufacturer = "Maker"
    ds.Rows, ds.Columns = SHAPE[1:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    return ds


def plane_values(geometry: Geometry, index: int) -> dict[str, list[float]]:
    axes = geometry.direction_xyz
    return {
        "position": np.round(geometry.index_to_world([index, 0, 0]), 6).tolist(),
        "orientation": np.round([*axes[:, 0], *axes[:, 1]], 8).tolist(),
        "spacing": [SPACING[1], SPACING[2]],
    }


def write_single(folder: Path, geometry: Geometry, array: np.ndarray) -> list[Instance]:
    instances = []
    for index in range(SHAPE[0]):
        ds = common(CTImageStorage)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        values = plane_values(geometry, index)
        ds.ImagePositionPatient, ds.ImageOrientationPatient = values["position"], values["orientation"]
        ds.PixelSpacing, ds.SliceThickness, ds.InstanceNumber = values["spacing"], SPACING[0], index + 1
        ds.PixelData = array[index].tobytes()
        path = folder / f"{index}.dcm"
        ds.save_as(path, enforce_file_format=True)
        instances.append(Instance(str(path), CTImageStorage, ds.SOPInstanceUID))
    return instances


def write_enhanced(folder: Path, geometry: Geometry, array: np.ndarray) -> list[Instance]:
    """One Enhanced CT whose frames are stored in another order than the array's slices."""
    ds = common(EnhancedCTImageStorage)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    order = list(np.random.default_rng(0).permutation(SHAPE[0]))
    ds.NumberOfFrames = SHAPE[0]
    shared = Dataset()
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [SPACING[1], SPACING[2]], SPACING[0]
    orientation.ImageOrientationPatient = plane_values(geometry, 0)["orientation"]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for index in order:
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = plane_values(geometry, int(index))["position"]
        group.PlanePositionSequence = [position]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    ds.PixelData = array[order].tobytes()
    path = folder / "enhanced.dcm"
    ds.save_as(path, enforce_file_format=True)
    frames = {int(index): frame for frame, index in enumerate(order, start=1)}
    return [Instance(str(path), EnhancedCTImageStorage, ds.SOPInstanceUID, frames[i]) for i in range(SHAPE[0])]


def ball(geometry: Geometry, index_zyx: tuple[int, int, int], radius_mm: float) -> Mask:
    """A ball with a bite out of it, so that no symmetry hides a flip, in a box of its own."""
    center = geometry.index_to_world(index_zyx)
    grid = np.stack(np.meshgrid(*map(np.arange, geometry.shape_zyx), indexing="ij"), axis=-1)
    inside = np.linalg.norm(geometry.index_to_world(grid) - center, axis=-1) <= radius_mm
    z, y, x = index_zyx
    inside[z:, y:, x + 2 :] = False
    places = np.argwhere(inside)
    start, stop = places.min(axis=0) - 1, places.max(axis=0) + 2
    start, stop = np.maximum(start, 0), np.minimum(stop, geometry.shape_zyx)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return Mask(inside[box], geometry.crop(start.tolist(), stop.tolist()))


def finding_of(geometry: Geometry, id: str, index: tuple[int, int, int], radius_mm: float) -> Finding:
    mask = ball(geometry, index, radius_mm)
    center = tuple(float(v) for v in geometry.index_to_world(index))
    row = [tuple(map(float, geometry.index_to_world([index[0], index[1], index[2] + s]))) for s in (-6, 6)]
    column = [tuple(map(float, geometry.index_to_world([index[0], index[1] + s, index[2]]))) for s in (-4, 4)]
    size = Size(8.4, 6.4, tuple(row), tuple(column), mask.volume_mm3, -12.345678, 5.5, 80.25)
    return Finding(id, center, size.mean_diameter_mm, 0.875, mask=mask, size=size)


@pytest.fixture
def make_analysis(tmp_path: Path) -> Callable[..., Analysis]:
    """Writes a series to disk and returns its analysis with two outlined findings and one that is only a place."""

    def make(direction: str = "axial", *, enhanced: bool = False, reverse: bool = False) -> Analysis:
        geometry = geometry_of(direction)
        array = np.random.default_rng(1).integers(-1000, 200, SHAPE).astype(np.int16)
        folder = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        instances = (write_enhanced if enhanced else write_single)(folder, geometry, array)
        if reverse:  # an array whose slices run against the order of the files
            affine = geometry.affine_lps.copy()
            affine[:3, 3] = geometry.index_to_world([SHAPE[0] - 1, 0, 0])
            affine[:3, 0] *= -1
            geometry = Geometry(SHAPE, affine, FRAME)
            array, instances = array[::-1].copy(), instances[::-1]
        acquisition = Acquisition(source=str(folder), format="DICOM", modality="CT", instances=tuple(instances))
        volume = Volume(array, geometry, "1.2.3.2", acquisition)
        findings = (
            finding_of(geometry, "1", (4, 18, 20), 7.0),
            finding_of(geometry, "2", (3, 24, 30), 6.0),
            Finding("3", tuple(map(float, geometry.index_to_world([6, 10, 8]))), score=0.25),
        )
        made_by = "nodule-risk@0123456789abcdef"
        predictions = [Prediction("1", "malignancy", 0.8125, (0.6, 0.95), made_by)]
        predictions += [Prediction("1", trait, 0.25, (0.125, 0.5), made_by) for trait in TRAITS]
        predictions.append(Prediction("2", "malignancy", 0.1, None, made_by))
        assessments = {
            "1": (
                Assessment("Lung-RADS 2022", "4A", "3-month LDCT", ("solid", "mean diameter 7.4 mm"), ("prior scan",)),
                Assessment("Fleischner 2017", "solid, several, 6 to 8 mm", "CT at 3-6 months", (), ("risk factors",)),
            )
        }
        return Analysis(volume, findings, tuple(predictions), assessments, (made_by,), ("A warning.",))

    return make


@pytest.fixture
def validated() -> Callable[[Path], list[str]]:
    """Runs dciodvfy (Debian's dicom3tools) on a file and returns its errors; skips where it is not installed."""

    def run(path: Path) -> list[str]:
        program = shutil.which("dciodvfy")
        if program is None:
            message = "no dciodvfy: apt-get install dicom3tools"
            if os.environ.get("SPICULA_NO_SKIP"):
                pytest.fail(message)
            pytest.skip(message)
        done = subprocess.run([program, "-new", str(path)], capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        assert any(line.strip() in ("Comprehensive3DSR", "Segmentation") for line in lines)
        return [line for line in lines if line.startswith(("Error", "Abort"))]

    return run
