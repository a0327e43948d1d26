"""A volume as a DICOM series: one CT Image Storage object for each slice.

References:
    DICOM PS3.3 A.3 (CT Image IOD), C.7.6.2 (Image Plane), C.8.2.1 (CT Image).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from spicula.core.errors import GeometryError, InputError
from spicula.core.files import folder_written_aside
from spicula.core.volume import Volume

IMPLEMENTATION = "SPICULA"
_INT16 = np.iinfo(np.int16)


def write_series(
    folder: Path,
    volume: Volume,
    *,
    patient_id: str,
    description: str,
    seed: str = "",
    patient_name: str = "",
    study_date: str = "",
    kernel: str = "",
    series_number: int = 1,
    slice_thickness_mm: float | None = None,
    allow_rounding: bool = False,
) -> list[Path]:
    """Write a volume as a CT series in explicit VR little endian, whole or not at all.

    The slices are those of the array's first axis, numbered from 1 in its order; positions, orientation and spacing
    are the volume's own, also where it is permuted, flipped or oblique. Unique identifiers depend on nothing but
    ``seed``, ``patient_id``, ``description`` and the volume's own series UID, so that a second run writes the same
    files; study and frame of reference of the volume are kept, the series is a new one.

    Args:
        folder: Where the files ``slice-0001.dcm`` ... go; slices of the same names are replaced,
            other files left alone.
        volume: HU; not sheared.
        patient_id: Patient ID.
        description: Series Description.
        seed: Makes the identifiers differ between volumes of the same patient and description.
        patient_name: Patient's Name; the patient ID if empty.
        study_date: ``YYYYMMDD``, or empty.
        kernel: Convolution Kernel, or empty.
        series_number: Series Number.
        slice_thickness_mm: Nominal thickness; the distance between the slices if None.
        allow_rounding: Accept that float values are rounded, by half a step of at most 1 HU; otherwise they must be
            exact in 16 bits.

    Returns:
        The files, in the order of the slices.

    Raises:
        GeometryError: The volume is sheared.
        InputError: The values do not fit 16 bits without loss, or the folder holds slices of a longer series.
    """
    geometry = volume.geometry
    if geometry.is_sheared:
        raise GeometryError(
            "volume", got="axes that are not perpendicular", expected="a grid without shear",
            hint="resample it to perpendicular axes first",
        )  # fmt: skip
    stored, slope, intercept = _stored(volume, allow_rounding=allow_rounding)
    common = _common(
        volume,
        entropy=[seed, patient_id, description, volume.series_uid],
        patient_id=patient_id,
        patient_name=patient_name or patient_id,
        study_date=study_date,
    )
    common.SeriesDescription = description
    common.SeriesNumber = series_number
    common.ConvolutionKernel = kernel
    thickness = geometry.spacing_zyx_mm[0] if slice_thickness_mm is None else slice_thickness_mm
    common.SliceThickness = _ds(thickness)
    common.RescaleSlope, common.RescaleIntercept = _ds(slope), _ds(intercept)
    common.PixelRepresentation = 1 if stored.dtype == np.int16 else 0
    names = [f"slice-{number:04d}.dcm" for number in range(1, stored.shape[0] + 1)]
    stale = sorted({path.name for path in Path(folder).glob("slice-*.dcm")} - set(names))
    if stale:
        raise InputError(
            f"{folder}: holds {len(stale)} slices of a longer series, the first {stale[0]}", hint="empty it first"
        )
    with folder_written_aside(Path(folder)) as aside:
        for index, name in enumerate(names):
            _slice(common, volume, stored[index], index=index).save_as(
                aside / name, enforce_file_format=True, little_endian=True, implicit_vr=False
            )
    return [Path(folder) / name for name in names]


def _stored(volume: Volume, *, allow_rounding: bool) -> tuple[NDArray[np.int16] | NDArray[np.uint16], float, float]:
    """16-bit numbers, slope and intercept that give the volume's HU back."""
    array = volume.array_zyx
    if array.dtype == np.int16:
        return array.astype(np.int16, copy=False), 1.0, 0.0
    if not np.isfinite(array).all():
        raise InputError("volume", got="NaN or infinite voxels", expected="finite Hounsfield units")
    low, high = float(array.min()), float(array.max())
    if np.array_equal(array, np.rint(array)):
        if low >= _INT16.min and high <= _INT16.max:
            return array.astype(np.int16), 1.0, 0.0
        if high - low <= 65535:
            return (array.astype(np.float64) - low).astype(np.uint16), 1.0, low
    for denominator in (2, 4, 5, 8, 10, 16, 20):
        scaled = array.astype(np.float64) * denominator
        fits = scaled.min() >= _INT16.min and scaled.max() <= _INT16.max
        whole = np.rint(scaled)
        if fits and np.array_equal((whole / denominator).astype(np.float32), array):
            return whole.astype(np.int16), 1.0 / denominator, 0.0
    step = max((high - low) / 65535, 2.0**-7) if high > low else 1.0
    if not allow_rounding or step > 1:
        raise InputError(
            f"volume of float values from {low:g} to {high:g}",
            expected="values that are exact in 16 bits with a rescale slope and intercept",
            hint=f"allow_rounding=True rounds them, by up to {step / 2:.4g} HU" if step <= 1 else "clip them first",
        )
    steps = np.clip(np.rint((array.astype(np.float64) - low) / float(_ds(step))), 0, 65535)
    return steps.astype(np.uint16), float(_ds(step)), low


def _ds(value: float) -> DSfloat:
    """A decimal string of at most 16 characters, as near to the value as that allows."""
    return DSfloat(float(value), auto_format=True)


def _common(volume: Volume, *, entropy: Sequence[str], patient_id: str, patient_name: str, study_date: str) -> Dataset:
    """What all slices share: patient, study, series, frame of reference, equipment, pixel format."""
    geometry, facts = volume.geometry, volume.acquisition
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.StudyDate, ds.StudyTime = study_date or facts.study_date, ""
    ds.AccessionNumber, ds.ReferringPhysicianName, ds.StudyID = "", "", ""
    ds.Modality = "CT"
    ds.Manufacturer = facts.manufacturer
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = patient_name, patient_id, "", ""
    ds.StudyInstanceUID = facts.study_uid or _uid("study", *entropy)
    ds.SeriesInstanceUID = _uid("series", *entropy)
    ds.FrameOfReferenceUID = geometry.frame_of_reference_uid or _uid("frame", *entropy)
    ds.PositionReferenceIndicator = ""
    ds.AcquisitionNumber = 1
    ds.KVP = None
    ds.SpacingBetweenSlices = _ds(geometry.spacing_zyx_mm[0])
    directions = geometry.direction_xyz
    ds.ImageOrientationPatient = [_ds(x) for x in (*directions[:, 0], *directions[:, 1])]
    ds.PixelSpacing = [_ds(geometry.spacing_zyx_mm[1]), _ds(geometry.spacing_zyx_mm[2])]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = geometry.shape_zyx[1], geometry.shape_zyx[2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.RescaleType = "HU"
    ds.WindowCenter, ds.WindowWidth = "-600", "1500"
    ds.PatientPosition = ""
    return ds


def _slice(common: Dataset, volume: Volume, pixels: NDArray[np.generic], *, index: int) -> Dataset:
    ds = Dataset()
    ds.update(common)
    ds.SOPInstanceUID = _uid("instance", ds.SeriesInstanceUID, str(index))
    ds.InstanceNumber = index + 1
    position = volume.geometry.index_to_world((index, 0, 0))
    normal = np.cross(volume.geometry.direction_xyz[:, 0], volume.geometry.direction_xyz[:, 1])
    ds.ImagePositionPatient = [_ds(x) for x in position]
    ds.SliceLocation = _ds(float(position @ normal))
    ds.PixelData = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).tobytes()
    ds["PixelData"].VR = "OW"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationVersionName = IMPLEMENTATION
    ds.file_meta = meta
    return ds


def _uid(kind: str, *entropy: str) -> str:
    return str(generate_uid(entropy_srcs=["spicula", kind, *entropy]))
