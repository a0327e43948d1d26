"""What the reader needs to know of each slice, from single-frame and enhanced multi-frame headers alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID

from spicula.core.errors import InputError
from spicula.core.volume import Instance

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = (f"{CT_IMAGE}.1", f"{CT_IMAGE}.2")
"""Enhanced CT and Legacy Converted Enhanced CT."""

MAX_SIDE = 8192
"""More rows or columns than this are taken for a broken header."""

_REFORMATS = frozenset(
    {"MIP", "MINIP", "MAXIP", "AVERAGEIP", "RAYSUM", "VOLREN", "VOLUME_RENDERED", "RENDERED", "3D", "SSD"}
    | {"SCREENSAVE", "SCREENSHOT", "SCREEN SAVE", "REPORT", "PROTOCOL", "DOSE_INFO"}
)

HEADER_TAGS = [
    0x00080005,  # Specific Character Set
    0x00080008,  # Image Type
    0x00080016,  # SOP Class UID
    0x00080018,  # SOP Instance UID
    0x00080020,  # Study Date
    0x00080060,  # Modality
    0x00080070,  # Manufacturer
    0x0008103E,  # Series Description
    0x00100020,  # Patient ID
    0x00180050,  # Slice Thickness
    0x00181120,  # Gantry/Detector Tilt
    0x00181210,  # Convolution Kernel
    0x0020000D,  # Study Instance UID
    0x0020000E,  # Series Instance UID
    0x00200012,  # Acquisition Number
    0x00200032,  # Image Position (Patient)
    0x00200037,  # Image Orientation (Patient)
    0x00200052,  # Frame of Reference UID
    0x00280002,  # Samples per Pixel
    0x00280004,  # Photometric Interpretation
    0x00280008,  # Number of Frames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280030,  # Pixel Spacing
    0x00280100,  # Bits Allocated
    0x00280101,  # Bits Stored
    0x00280103,  # Pixel Representation
    0x00280120,  # Pixel Padding Value
    0x00280121,  # Pixel Padding Range Limit
    0x00281052,  # Rescale Intercept
    0x00281053,  # Rescale Slope
    0x00281054,  # Rescale Type
    0x52009229,  # Shared Functional Groups Sequence
    0x52009230,  # Per-Frame Functional Groups Sequence
]
"""The elements read from every file; the others are passed over."""


@dataclass(frozen=True, slots=True)
class SliceKind:
    """What slices must share to be stacked into one volume; empty strings and None where a header does not say.

    ``orientation`` holds the unit vectors along a row (increasing column) and along a column; ``flavor`` is
    ``original``, ``derived``, ``localizer`` or ``projection``.
    """

    series_uid: str
    study_uid: str
    patient_id: str
    modality: str
    sop_class_uid: str
    flavor: str
    kernel: str
    stack: str
    rows: int
    cols: int
    spacing_yx_mm: tuple[float, float]
    orientation: tuple[float, float, float, float, float, float]

    def fits(self, other: SliceKind) -> bool:
        """Tell whether two slices may lie in one stack (directions to 0.06 degrees, spacing to 1e-4 mm)."""
        texts = ("series_uid", "study_uid", "patient_id", "modality", "sop_class_uid")
        exact = (*texts, "flavor", "kernel", "stack", "rows", "cols")
        return (
            all(getattr(self, name) == getattr(other, name) for name in exact)
            and all(abs(a - b) <= 1e-4 for a, b in zip(self.spacing_yx_mm, other.spacing_yx_mm, strict=True))
            and all(abs(a - b) <= 1e-3 for a, b in zip(self.orientation, other.orientation, strict=True))
        )

    @property
    def facts(self) -> dict[str, str]:
        """What tells two groups of one series apart, in words."""
        y, x = self.spacing_yx_mm
        return {
            "patient": self.patient_id,
            "study": self.study_uid,
            "class": UID(self.sop_class_uid, validation_mode=0).name,
            "image type": self.flavor,
            "kernel": self.kernel,
            "stack": self.stack,
            "size": f"{self.rows} x {self.cols}",
            "pixel spacing": f"{y:g} x {x:g} mm",
            "orientation": "(" + ", ".join(f"{value:.3g}" for value in self.orientation) + ")",
        }


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice: which object (and frame) holds it, where it lies (LPS mm), and how its stored values become HU."""

    kind: SliceKind
    instance: Instance
    position_xyz_mm: tuple[float, float, float]
    slope: float
    intercept: float
    frame_of_reference_uid: str = ""
    acquisition_number: str = ""
    thickness_mm: float | None = None
    gantry_tilt_degrees: float = 0.0
    padding: tuple[int, int] | None = None
    image_type: tuple[str, ...] = ()
    transfer_syntax_uid: str = ""
    study_date: str = ""
    description: str = ""
    manufacturer: str = ""


@dataclass(frozen=True, slots=True)
class NotASlice:
    """An object that cannot be part of a volume, and why; ``broken`` where it should have been."""

    path: str
    refusal: str
    series_uid: str = ""
    study_uid: str = ""
    patient_id: str = ""
    modality: str = ""
    description: str = ""
    sop_class_uid: str = ""
    broken: bool = False


def slices_of(dataset: Dataset, path: str) -> list[Slice] | NotASlice:
    """Read a header.

    Args:
        dataset: The header, with at least ``HEADER_TAGS``.
        path: Where it was read from.

    Returns:
        One slice, a slice for each frame, or what the object is instead.

    Raises:
        Exception: Whatever pydicom raises for a broken element.
    """
    refusal = _refusal(dataset)
    if refusal:
        unknown = UID(_text(dataset, "SOPClassUID"), validation_mode=0).name in ("", _text(dataset, "SOPClassUID"))
        return not_a_slice(dataset, path, refusal, broken=unknown)
    try:
        if _text(dataset, "SOPClassUID") in ENHANCED_CT:
            return _frames(dataset, path)
        return [_slice(dataset, path, lambda keyword, group="": dataset.get(keyword), frame=None)]
    except InputError as error:
        return not_a_slice(dataset, path, str(error), broken=True)


def not_a_slice(dataset: Dataset, path: str, refusal: str, *, broken: bool = False) -> NotASlice:
    """Say why an object is no slice, with what its header tells of it."""
    return NotASlice(
        path,
        refusal,
        series_uid=_text(dataset, "SeriesInstanceUID"),
        study_uid=_text(dataset, "StudyInstanceUID"),
        patient_id=_text(dataset, "PatientID"),
        modality=_text(dataset, "Modality"),
        description=_text(dataset, "SeriesDescription"),
        sop_class_uid=_text(dataset, "SOPClassUID"),
        broken=broken,
    )


def _refusal(dataset: Dataset) -> str:
    """Why an object is not a CT slice, from its modality and class; empty where it may be one."""
    modality, sop_class = _text(dataset, "Modality"), _text(dataset, "SOPClassUID")
    if not sop_class:
        return "it names no SOP Class UID (0008,0016), so what it is cannot be told"
    if sop_class not in (CT_IMAGE, *ENHANCED_CT):
        name = UID(sop_class, validation_mode=0).name
        kind = f"{name} ({modality})" if modality and modality not in name else name
        return f"{kind} is not CT: Spicula reads CT images only"
    if modality and modality != "CT":
        return f"modality {modality} is not CT: Spicula reads CT images only"
    samples, photometric = dataset.get("SamplesPerPixel", 1), _text(dataset, "PhotometricInterpretation")
    if samples != 1 or (photometric and not photometric.startswith("MONOCHROME")):
        return f"a color image ({photometric}, {samples} samples per pixel) holds no HU"
    if sop_class == CT_IMAGE and int(dataset.get("NumberOfFrames") or 1) > 1:
        return "CT Image Storage with several frames is not DICOM; Enhanced CT is"
    return ""


Lookup = Callable[..., Any]
"""Gives an element's value by keyword, looking in the functional group (a sequence's keyword) where there is one."""


def _frames(dataset: Dataset, path: str) -> list[Slice]:
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared_items = dataset.get("SharedFunctionalGroupsSequence") or []
    shared = shared_items[0] if shared_items else Dataset()
    count = int(dataset.get("NumberOfFrames") or 0)
    if count < 1 or len(per_frame) != count:
        raise InputError(
            f"{path}: Per-Frame Functional Groups Sequence (5200,9230)", got=len(per_frame), expected=f"{count} items"
        )

    def lookup_in(frame: Dataset) -> Lookup:
        def lookup(keyword: str, group: str = "") -> Any:
            for holder in (frame, shared):
                items = holder.get(group) if group else None
                if items and items[0].get(keyword) is not None:
                    return items[0].get(keyword)
            return dataset.get(keyword)

        return lookup

    return [_slice(dataset, path, lookup_in(frame), frame=number) for number, frame in enumerate(per_frame, start=1)]


def _slice(dataset: Dataset, path: str, lookup: Lookup, *, frame: int | None) -> Slice:
    where = path if frame is None else f"{path} frame {frame}"
    image_type = tuple(
        str(word) for word in _several(lookup("FrameType", "CTImageFrameTypeSequence") or dataset.get("ImageType"))
    )
    kind = _kind(dataset, lookup, where, flavor=_flavor(image_type), in_frames=frame is not None)
    position = lookup("ImagePositionPatient", "PlanePositionSequence")
    slope, intercept = _rescale(lookup, where)
    uid = _text(dataset, "SOPInstanceUID") or _text(dataset.file_meta, "MediaStorageSOPInstanceUID")
    if not uid:
        raise InputError(f"{where}: SOP Instance UID (0008,0018)", got="nothing", expected="an identifier")
    acquisition = (
        lookup("FrameAcquisitionNumber", "FrameContentSequence") if frame else dataset.get("AcquisitionNumber")
    )
    return Slice(
        kind,
        Instance(path, kind.sop_class_uid, uid, frame),
        position_xyz_mm=_numbers(position, 3, where, "Image Position (Patient) (0020,0032)"),  # type: ignore[arg-type]
        slope=slope,
        intercept=intercept,
        frame_of_reference_uid=_text(dataset, "FrameOfReferenceUID"),
        acquisition_number="" if acquisition is None else str(acquisition),
        thickness_mm=_optional(lookup("SliceThickness", "PixelMeasuresSequence")),
        gantry_tilt_degrees=_optional(lookup("GantryDetectorTilt", "CTAcquisitionDetailsSequence")) or 0.0,
        padding=_padding(dataset),
        image_type=image_type,
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        study_date=_text(dataset, "StudyDate"),
        description=_text(dataset, "SeriesDescription"),
        manufacturer=_text(dataset, "Manufacturer"),
    )


def _kind(dataset: Dataset, lookup: Lookup, where: str, *, flavor: str, in_frames: bool) -> SliceKind:
    orientation = lookup("ImageOrientationPatient", "PlaneOrientationSequence")
    spacing = _numbers(lookup("PixelSpacing", "PixelMeasuresSequence"), 2, where, "Pixel Spacing (0028,0030)")
    if min(spacing) <= 0:
        raise InputError(f"{where}: Pixel Spacing (0028,0030)", got=spacing, expected="two positive numbers of mm")
    names = ("StackID", "TemporalPositionIndex") if in_frames else ()
    stack = [lookup(name, "FrameContentSequence") for name in names]
    kind = SliceKind(
        series_uid=_text(dataset, "SeriesInstanceUID"),
        study_uid=_text(dataset, "StudyInstanceUID"),
        patient_id=_text(dataset, "PatientID"),
        modality="CT",
        sop_class_uid=_text(dataset, "SOPClassUID"),
        flavor=flavor,
        kernel="/".join(
            str(word).strip() for word in _several(lookup("ConvolutionKernel", "CTReconstructionSequence"))
        ),
        stack=" ".join(str(word) for word in stack if word is not None),
        rows=_side(dataset, "Rows", where),
        cols=_side(dataset, "Columns", where),
        spacing_yx_mm=(spacing[0], spacing[1]),
        orientation=_unit_axes(_numbers(orientation, 6, where, "Image Orientation (Patient) (0020,0037)"), where),
    )
    if not kind.series_uid:
        raise InputError(f"{where}: Series Instance UID (0020,000E)", got="nothing", expected="an identifier")
    return kind


def _rescale(lookup: Lookup, where: str) -> tuple[float, float]:
    """Slope and intercept from stored values to HU."""
    group = "PixelValueTransformationSequence"
    slope = _numbers(lookup("RescaleSlope", group), 1, where, "Rescale Slope (0028,1053)")[0]
    intercept = _numbers(lookup("RescaleIntercept", group), 1, where, "Rescale Intercept (0028,1052)")[0]
    if slope == 0 or max(abs(slope), abs(intercept)) > 1e6:
        got, expected = (slope, intercept), "a slope other than 0"
        raise InputError(f"{where}: rescale slope and intercept", got=got, expected=expected)
    unit = str(lookup("RescaleType", group) or "")
    if unit.upper() not in ("", "HU", "US", "HU_MOD"):
        raise InputError(f"{where}: Rescale Type (0028,1054)", got=unit, expected="HU", hint="give the series in HU")
    return slope, intercept


def _flavor(image_type: Iterable[str]) -> str:
    words = {word.strip().upper() for word in image_type}
    if words & {"LOCALIZER", "SCOUT", "TOPOGRAM"}:
        return "localizer"
    if any(word in _REFORMATS or word.startswith("PROJECTION") for word in words):
        return "projection"
    return "derived" if words & {"DERIVED", "SECONDARY"} else "original"


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """The lowest and highest stored value that mean "no image here"; negative ones may be written as unsigned."""
    value = dataset.get("PixelPaddingValue")
    if value is None or isinstance(value, bytes | str):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = []
    for end in (value, value if limit is None else limit):
        bits = int(dataset.get("BitsAllocated") or 16)
        end = int(_several(end)[0]) % 2**bits
        signed = dataset.get("PixelRepresentation") == 1
        ends.append(end - 2**bits if signed and end >= 2 ** (bits - 1) else end)
    return min(ends), max(ends)


def _unit_axes(orientation: tuple[float, ...], where: str) -> tuple[float, float, float, float, float, float]:
    """The directions along a row and a column, made exactly perpendicular and of length 1 (they are rounded)."""
    row, col = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    lengths = np.linalg.norm([row, col], axis=1)
    if np.abs(lengths - 1).max() > 1e-2 or abs(row @ col) > 1e-2:
        raise InputError(
            f"{where}: Image Orientation (Patient) (0020,0037)",
            got=list(orientation),
            expected="two perpendicular unit vectors",
        )
    row = row / lengths[0]
    col = col - row * (row @ col)
    col /= np.linalg.norm(col)
    return tuple(float(value) for value in (*row, *col))  # type: ignore[return-value]


def _side(dataset: Dataset, keyword: str, where: str) -> int:
    value = dataset.get(keyword)
    if not isinstance(value, int) or not 0 < value <= MAX_SIDE:
        raise InputError(
            f"{where}: {keyword}", got="nothing" if value is None else value, expected=f"a number from 1 to {MAX_SIDE}"
        )
    return value


def _numbers(value: Any, count: int, where: str, what: str) -> tuple[float, ...]:
    items = _several(value)
    if len(items) != count:
        got = items if items else "nothing"
        raise InputError(f"{where}: {what}", got=got, expected=f"{count} number{'s' if count > 1 else ''}")
    try:
        numbers = tuple(float(item) for item in items)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {what}", got=items, expected="numbers") from error
    if not all(math.isfinite(number) and abs(number) < 1e6 for number in numbers):
        raise InputError(f"{where}: {what}", got=items, expected="finite numbers")
    return numbers


def _optional(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _several(value: Any) -> list[Any]:
    """A value of any multiplicity as a list."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else list(value)


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()
