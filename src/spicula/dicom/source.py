"""The source instances behind a volume, for the objects that are derived from them (SR, SEG)."""

from __future__ import annotations

import math
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import ArrayLike, NDArray
from pydicom.valuerep import DA, TM

from spicula.core.analysis import Analysis
from spicula.core.errors import GeometryError, InputError, SpiculaWarning
from spicula.core.finding import Finding
from spicula.core.volume import Instance, Mask, Volume
from spicula.dicom.archive import open_dataset

OFF_GRID_VOXELS = 0.05
"""How far a mask's voxel centers may lie from the volume's, in voxels."""

BLANKS = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""Attributes of type 2: they must be there and may be empty."""

FACTS = (
    *BLANKS, "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "PositionReferenceIndicator", "Modality", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod", "IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod",
    "StudyDescription", "PatientAge", "ClinicalTrialSponsorName", "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSubjectID", "ClinicalTrialTimePointID",
)  # fmt: skip
"""All that is taken over from a source header; what else is broken in it does not matter."""

NAMESPACE = uuid.UUID("5a1c7f0e-5b0b-5c1d-9d6e-3f6f0d0c5a11")


def derived_uid(*facts: object) -> str:
    """A UID (under 2.25) that is the same for the same facts."""
    return f"2.25.{uuid.uuid5(NAMESPACE, '|'.join(map(str, facts))).int}"


def tracking_uid(analysis: Analysis, finding: Finding) -> str:
    """Tracking UID of a finding: the same in the SR and the SEG, and when the same analysis is made again."""
    place = ",".join(f"{value:.2f}" for value in finding.center_xyz_mm)
    return derived_uid(analysis.volume.series_uid, *analysis.fingerprints, finding.id, place)


def tracking_id(finding: Finding) -> str:
    """Human readable tracking identifier of a finding."""
    return f"Nodule {finding.id}"


@dataclass(frozen=True, slots=True, eq=False)
class SourcePlane:
    """One slice's instance with its header and where its pixels are.

    Args:
        index: Index of the slice along the array's first axis.
        instance: Which object (and frame).
        header: The object's dataset without pixels; text is decoded.
        origin: LPS position in mm of the center of the first pixel.
        per_row: Step in mm from one row to the next.
        per_column: Step in mm from one column to the next.
    """

    index: int
    instance: Instance
    header: pydicom.Dataset
    origin: NDArray[np.float64]
    per_row: NDArray[np.float64]
    per_column: NDArray[np.float64]

    def pixels(self, world_xyz_mm: ArrayLike) -> NDArray[np.float64]:
        """Project LPS points ``[n, 3]`` onto the plane: ``[n, 2]`` (row, column), 0 at the first pixel's center."""
        offset = np.asarray(world_xyz_mm, dtype=np.float64) - self.origin
        rows = offset @ self.per_row / (self.per_row @ self.per_row)
        columns = offset @ self.per_column / (self.per_column @ self.per_column)
        return np.stack([rows, columns], axis=-1)

    def image_coordinates(self, world_xyz_mm: ArrayLike) -> NDArray[np.float64]:
        """Project LPS points ``[n, 3]`` to SCOORD ``[n, 2]`` (column, row), 0 at the first pixel's outer corner."""
        return self.pixels(world_xyz_mm)[:, ::-1] + 0.5


class SourceImages:
    """The instances of a volume that was read from DICOM; each header is read once, when it is needed.

    Args:
        volume: A volume whose ``acquisition.instances`` are filled.

    Raises:
        InputError: The volume does not come from DICOM.
    """

    def __init__(self, volume: Volume) -> None:
        instances = volume.acquisition.instances
        if not any(instances) or len(instances) != volume.geometry.shape_zyx[0]:
            raise InputError(
                f"{volume.acquisition.source or 'volume'}: its slices have no DICOM instances",
                got=f"{sum(i is not None for i in instances)} instances for {volume.geometry.shape_zyx[0]} slices",
                expected="a volume read from DICOM",
                hint="SR and SEG refer to their source images; analyze the DICOM series itself",
            )
        self.volume = volume
        self.instances = instances
        self._headers: dict[str, pydicom.Dataset] = {}
        self._spoiled: set[str] = set()

    @property
    def first(self) -> pydicom.Dataset:
        """Header of the first instance, with every blank that derived objects copy."""
        return self.header(next(instance for instance in self.instances if instance is not None))

    @property
    def frame_of_reference_uid(self) -> str:
        """One Frame of Reference UID for the whole series; empty where there is none.

        Some de-identified series (LIDC-IDRI among them) give each slice a UID of its own, although all slices share
        one frame; then it is the volume's or the first slice's.
        """
        return self.volume.geometry.frame_of_reference_uid or str(self.first.get("FrameOfReferenceUID", "") or "")

    def header(self, instance: Instance) -> pydicom.Dataset:
        """Header of one instance, without pixels."""
        if instance.path not in self._headers:
            header, spoiled = _facts(open_dataset(instance.path, pixels=False))
            for keyword in sorted(spoiled - self._spoiled):
                message = f"{instance.path}: {keyword} is not valid DICOM and is left empty in derived objects"
                warnings.warn(message, SpiculaWarning, stacklevel=2)
            self._spoiled |= spoiled
            self._headers[instance.path] = header
        return self._headers[instance.path]

    def evidence(self) -> list[pydicom.Dataset]:
        """One small dataset for each distinct instance; the first is the first instance's whole header."""
        first = self.first
        missing = [name for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID") if not first.get(name)]
        if missing:
            where = self.volume.acquisition.source
            raise InputError(f"{where}: {', '.join(missing)} missing", expected="UIDs that an SR or SEG can refer to")
        datasets = {str(first.SOPInstanceUID): first}
        for instance in self.instances:
            if instance is None or instance.sop_instance_uid in datasets:
                continue
            reference = pydicom.Dataset()
            reference.SOPClassUID = instance.sop_class_uid
            reference.SOPInstanceUID = instance.sop_instance_uid
            reference.StudyInstanceUID = first.StudyInstanceUID
            reference.SeriesInstanceUID = first.SeriesInstanceUID
            datasets[instance.sop_instance_uid] = reference
        return list(datasets.values())

    def nearest(self, index: float) -> int:
        """Index of the slice with an instance that is nearest to a fractional slice index."""
        present = [i for i, instance in enumerate(self.instances) if instance is not None]
        return min(present, key=lambda i: abs(i - index))

    def plane(self, index: int) -> SourcePlane | None:
        """The plane of one slice; None where the slice was interpolated."""
        instance = self.instances[index]
        if instance is None:
            return None
        header = self.header(instance)
        position, orientation, spacing = _place(header, instance)
        plane = SourcePlane(
            index,
            instance,
            header,
            position,
            per_row=orientation[1] * spacing[0],
            per_column=orientation[0] * spacing[1],
        )
        self._check(plane)
        return plane

    def _check(self, plane: SourcePlane) -> None:
        middle = [plane.index, *((n - 1) / 2 for n in self.volume.geometry.shape_zyx[1:])]
        offset = self.volume.geometry.index_to_world(middle) - plane.origin
        normal = np.cross(plane.per_row, plane.per_column)
        distance = abs(float(offset @ normal) / float(np.linalg.norm(normal)))
        if distance > self.volume.geometry.spacing_zyx_mm[0] / 2:
            raise GeometryError(
                f"slice {plane.index} and its instance {plane.instance.sop_instance_uid}",
                got=f"{distance:.2f} mm apart",
                expected="the same plane",
                hint="the volume was resampled or its instances are in another order",
            )


def _facts(source: pydicom.Dataset) -> tuple[pydicom.Dataset, set[str]]:
    """The facts that derived objects need, as text in UTF-8, and the keywords that could not be taken over."""
    facts = pydicom.Dataset()
    spoiled = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword in FACTS:
            try:
                if keyword in source:
                    element = source[keyword]
                    value = _valid(keyword, str(element.value) if element.VR == "PN" else element.value)
                    facts.add_new(element.tag, element.VR, value)
            except (ValueError, TypeError, LookupError, OverflowError):
                spoiled.add(keyword)
        for keyword in BLANKS:
            if keyword not in facts:
                setattr(facts, keyword, "")
    facts.SpecificCharacterSet = "ISO_IR 192"
    return facts, spoiled


def _valid(keyword: str, value: Any) -> Any:
    """The value, if it is one that DICOM allows where highdicom would stumble over another.

    Raises:
        ValueError: It is not.
    """
    if keyword.endswith("Date"):
        DA(value)
    elif keyword.endswith("Time"):
        TM(value)
    elif keyword == "PatientSex" and value not in ("M", "F", "O", "", None):
        raise ValueError(f"sex {value!r}")
    return value


def _place(
    header: pydicom.Dataset, instance: Instance
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Position ``[3]``, orientation ``[2, 3]`` and spacing ``[2]`` (between rows, between columns) of one plane."""
    groups = [header]
    if instance.frame is not None and "PerFrameFunctionalGroupsSequence" in header:
        groups = [header.PerFrameFunctionalGroupsSequence[instance.frame - 1], header.SharedFunctionalGroupsSequence[0]]

    def find(sequence: str, keyword: str) -> NDArray[np.float64]:
        for group in groups:
            holder = group[sequence].value[0] if group is not header and group.get(sequence) else group
            if holder.get(keyword) is not None:
                return np.array(holder.get(keyword), dtype=np.float64)
        raise InputError(f"{instance.path}: no {keyword}", hint="the source instance changed since it was read")

    return (
        find("PlanePositionSequence", "ImagePositionPatient"),
        find("PlaneOrientationSequence", "ImageOrientationPatient").reshape(2, 3),
        find("PixelMeasuresSequence", "PixelSpacing"),
    )


def place_mask(mask: Mask, volume: Volume, *, name: str) -> tuple[int, int, int]:
    """Find the index in the volume of a mask's first voxel; the mask is a box of the volume's grid.

    Args:
        mask: Outline on its own grid.
        volume: The scan.
        name: What to call it in an error.

    Returns:
        Index (z, y, x) of the mask's voxel (0, 0, 0), negative where the box begins before the volume.

    Raises:
        GeometryError: The mask's grid is not a box of the volume's, or the region leaves the volume.
    """
    corners = np.array([[0, 0, 0], *np.diag(np.array(mask.geometry.shape_zyx) - 1)])
    found = volume.geometry.world_to_index(mask.geometry.index_to_world(corners))
    start = np.rint(found[0]).astype(int)
    off = float(np.abs(found - (corners + start)).max())
    if off > OFF_GRID_VOXELS:
        raise GeometryError(
            f"outline of {name}",
            got=f"a grid up to {off:.2f} voxels off the volume's",
            expected="a box of the volume's own grid",
            hint="resample the outline to the volume first",
        )
    inside = np.argwhere(mask.array_zyx) + start
    if inside.size and (inside.min() < 0 or (inside >= volume.geometry.shape_zyx).any()):
        raise GeometryError(f"outline of {name}", got="voxels outside the volume", expected="a region inside it")
    return int(start[0]), int(start[1]), int(start[2])


def outlined(analysis: Analysis) -> Iterator[tuple[Finding, Mask]]:
    """The findings that have an outline of at least one voxel, with it."""
    for finding in analysis.findings:
        if finding.mask is not None and finding.mask.array_zyx.any():
            yield finding, finding.mask


@contextmanager
def plain_names() -> Iterator[None]:
    """Keep highdicom from warning about patient names of one component, which are common and copied as they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*unlikely to represent the intended person name.*")
        yield


def finite(value: float | None) -> bool:
    """True for a number that can be reported."""
    return value is not None and math.isfinite(value)
