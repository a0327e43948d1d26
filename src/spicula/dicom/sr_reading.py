"""Structured reports of other programs read as findings: where they are, how wide, what and who says so.

Taken are measurement groups (TID 1500 with 1410, 1411, 1501), single measurements on drawings (TID 1400), findings of a
Chest CAD report (TID 4100) and anything else that is drawn. What only points to a segmentation, or to an image as a
whole, has no place here and is left out.

References:
    DICOM PS3.16, TID 300, 1400, 1410, 1411, 1500, 4100 to 4104; PS3.3 C.18.6 and C.18.9 (SCOORD and SCOORD3D).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pydicom

from spicula.core.errors import InputError
from spicula.core.finding import Point
from spicula.dicom.archive import open_dataset, unreadable
from spicula.dicom.header import Slice
from spicula.dicom.sr import SCHEME
from spicula.dicom.sr_tree import Code, Item, Shape, content_tree, text_of

SR_CLASSES = "1.2.840.10008.5.1.4.1.1.88."
"""How the SOP Class UIDs of structured reports begin."""

GROUP: Code = ("125007", "DCM")
TRACKING_UID: Code = ("112040", "DCM")
TRACKING_ID: Code = ("112039", "DCM")
CENTER: Code = ("111010", "DCM")
CAD_FINDINGS: tuple[Code, ...] = (("111015", "DCM"), ("111059", "DCM"))
"""Composite feature and single image finding of a CAD report."""
RENDERING: Code = ("111056", "DCM")
NOT_SHOWN: Code = ("111152", "DCM")
PROGRAMS: tuple[Code, ...] = (("111001", "DCM"), ("121013", "DCM"), ("121015", "DCM"))
"""Names of an algorithm, a device and its model."""
PERSON: Code = ("121008", "DCM")
SOURCE_SERIES: Code = ("121232", "DCM")
DERIVATION: Code = ("121401", "DCM")
MEANS: tuple[Code, ...] = (("373098007", "SCT"), ("R-00317", "SRT"))
LABELS: tuple[Code, ...] = (("121071", "DCM"), ("363698007", "SCT"), ("G-C0E3", "SRT"), TRACKING_ID)
"""Finding, its site, and what people call it."""

DIAMETERS: tuple[Code, ...] = (("81827009", "SCT"), ("M-02550", "SRT"))
LONG_AXES: tuple[Code, ...] = (("103339001", "SCT"), ("G-A185", "SRT"), ("131187009", "SCT"), ("G-A193", "SRT"))
SHORT_AXES: tuple[Code, ...] = (("103340004", "SCT"), ("G-A186", "SRT"), ("131188004", "SCT"), ("G-A194", "SRT"))
LENGTHS: tuple[Code, ...] = (
    ("410668003", "SCT"), ("G-D7FE", "SRT"), ("131192006", "SCT"), ("L0JK", "IBSI"),
)  # fmt: skip
"""What may stand for a diameter where there is no other."""
VOLUMES: tuple[Code, ...] = (
    ("118565006", "SCT"), ("G-D705", "SRT"), ("RNU0", "IBSI"), ("YEKZ", "IBSI"), ("121216", "DCM"),
    ("121217", "DCM"), ("121218", "DCM"), ("121221", "DCM"), ("121222", "DCM"),
)  # fmt: skip

MM = {"mm": 1.0, "cm": 10.0, "dm": 100.0, "m": 1000.0, "um": 1e-3, "[in_i]": 25.4}
MM3 = {"mm3": 1.0, "cm3": 1e3, "ml": 1e3, "dm3": 1e6, "l": 1e6, "ul": 1.0, "um3": 1e-9, "m3": 1e9}
"""UCUM units (those of volume in small letters) in mm and mm3."""

WIDEST_MM = 500.0


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """A place on an image.

    Args:
        sop_instance_uid: The image.
        column: In pixels, 0 at the first pixel's center.
        row: Likewise.
        frame: From 1, of an image of several.
        diameter_pixels: Width of what was drawn; None where it has none.
    """

    sop_instance_uid: str
    column: float
    row: float
    frame: int | None = None
    diameter_pixels: float | None = None


@dataclass(frozen=True, slots=True)
class ReportedFinding:
    """A finding of a report; it has a place in space or one on an image, or both.

    Args:
        uid: Its tracking UID; else that of the report and the place of the item in it.
        label: What the report says it is, in words; empty where it does not.
        made_by: The program that the report or the finding is by.
        observer: The person, where one is named.
        center_xyz_mm: LPS mm; None where the report only tells where it is on an image.
        frame_of_reference_uid: Of ``center_xyz_mm``.
        image_place: The largest drawing of it on an image of the report's own study.
        diameter_mm: As measured, the mean of both axes if both are; else the width of what was drawn in space.
        volume_mm3: As measured.
        series_uid: Of the images that it refers to; empty where that cannot be told.
    """

    uid: str
    label: str
    made_by: str
    observer: str = ""
    center_xyz_mm: Point | None = None
    frame_of_reference_uid: str = ""
    image_place: ImagePlace | None = None
    diameter_mm: float | None = None
    volume_mm3: float | None = None
    series_uid: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Document:
    """A report with what all its findings share."""

    uid: str
    root: Item
    program: str
    observer: str
    series_of: dict[str, str]
    own: frozenset[str]
    items: dict[tuple[int, ...], Item] = field(repr=False)


def read_sr(path: str | Path) -> tuple[ReportedFinding, ...]:
    """Read the findings of a structured report.

    Args:
        path: A DICOM file.

    Returns:
        In the order of the report; each once, by its tracking UID. Those that are not to be shown are left out.

    Raises:
        InputError: The file is broken or no structured report, or a drawing in it is none.
    """
    dataset = _report(path)
    try:
        with warnings.catch_warnings():  # of odd text and numbers
            warnings.simplefilter("ignore")
            document = _document(dataset)
            found = [one for item in _findings(document.root) if (one := _reported(item, document)) is not None]
    except InputError as error:
        raise InputError(f"{Path(path).name}: {error}") from error
    except Exception as error:  # pydicom raises whatever a broken file makes it stumble over
        raise unreadable(Path(path).name, error) from error
    merged: dict[str, ReportedFinding] = {}
    for one in found:
        merged[one.uid] = _joined(merged[one.uid], one) if one.uid in merged else one
    return tuple(merged.values())


def is_own_sr(path: str | Path) -> bool:
    """Whether a report was made by Spicula: by its maker, or by the private codes that it uses.

    Raises:
        InputError: The file is broken or no structured report.
    """
    dataset = _report(path)
    try:
        schemes = [
            text_of(item, "CodingSchemeDesignator") for item in dataset.get("CodingSchemeIdentificationSequence") or ()
        ]
        return SCHEME in schemes or text_of(dataset, "Manufacturer") == "Spicula"
    except Exception as error:  # as above
        raise unreadable(Path(path).name, error) from error


def in_space(place: ImagePlace, slices: Iterable[Slice]) -> tuple[Point, float | None]:
    """Where a place on an image is in the patient.

    Args:
        place: On an image.
        slices: Headers of the images that it may be on.

    Returns:
        LPS mm, and the width of what was drawn there in mm.

    Raises:
        InputError: The image is not among them, or has several frames and none is named.
    """
    same = [one for one in slices if one.instance.sop_instance_uid == place.sop_instance_uid]
    frames = [one for one in same if one.instance.frame == place.frame or None in (one.instance.frame, place.frame)]
    if len(frames) != 1:
        got = "nothing" if not same else "several frames" if frames else f"no frame {place.frame}"
        raise InputError(f"image {place.sop_instance_uid[:70]}", got=got, expected="a slice of the study")
    (one,) = frames
    axes = np.array(one.kind.orientation).reshape(2, 3)
    down, along = one.kind.spacing_yx_mm
    x, y, z = np.array(one.position_xyz_mm) + axes[0] * place.column * along + axes[1] * place.row * down
    width = None if place.diameter_pixels is None else place.diameter_pixels * math.sqrt(down * along)
    return (float(x), float(y), float(z)), width


def _report(path: str | Path) -> pydicom.Dataset:
    dataset = open_dataset(str(path), pixels=False)
    try:
        sop_class, modality = text_of(dataset, "SOPClassUID"), text_of(dataset, "Modality")
    except Exception as error:  # as above
        raise unreadable(Path(path).name, error) from error
    if not sop_class.startswith(SR_CLASSES) and modality != "SR":
        raise InputError(Path(path).name, got=modality or sop_class or "no class", expected="a structured report (SR)")
    return dataset


def _document(dataset: pydicom.Dataset) -> _Document:
    root = content_tree(dataset)
    series_of: dict[str, str] = {}
    own: set[str] = set()
    for keyword in ("PertinentOtherEvidenceSequence", "CurrentRequestedProcedureEvidenceSequence"):
        for study in dataset.get(keyword) or ():
            for series in study.get("ReferencedSeriesSequence") or ():
                uid = text_of(series, "SeriesInstanceUID")
                named = {
                    text_of(one, "ReferencedSOPInstanceUID"): uid for one in series.get("ReferencedSOPSequence") or ()
                }
                series_of |= named
                own |= set(named) if keyword.startswith("Current") else set()
    program = _first(root.children, PROGRAMS[1:]) or _first(root.children, PROGRAMS[:1])
    program = program or text_of(dataset, "ManufacturerModelName") or text_of(dataset, "Manufacturer")
    items = {item.place: item for item in root.below()}
    uid = text_of(dataset, "SOPInstanceUID")
    return _Document(uid, root, program, _first(root.children, (PERSON,)), series_of, frozenset(own), items)


def _findings(item: Item) -> Iterator[Item]:
    """The topmost items that each are one finding."""
    if _is_one(item):
        if not any(child.name == RENDERING and child.code == NOT_SHOWN for child in item.children):
            yield item
        return
    for child in item.children:
        yield from _findings(child)


def _is_one(item: Item) -> bool:
    if item.shape is not None or item.name in (GROUP, *CAD_FINDINGS):
        return True
    if item.kind == "CONTAINER":
        return any(child.name in (TRACKING_UID, TRACKING_ID) for child in item.children)
    return any(child.shape is not None for child in item.children)


def _parts(item: Item, document: _Document) -> list[Item]:
    """An item, those below it, and those that they refer to with their children; a reference there ends."""
    parts = list(item.below())
    known = {part.place for part in parts}
    for part in [part for part in parts if part.target]:
        target = document.items.get(part.target)
        if target is not None and target.place not in known:
            known.add(target.place)
            parts += [target, *(child for child in target.children if child.place not in known)]
    return parts


def _reported(item: Item, document: _Document) -> ReportedFinding | None:
    """One finding; None where no place of it is told."""
    parts = _parts(item, document)
    drawn = [(part, part.shape) for part in parts if part.shape is not None]
    center, frame, width = _center([(part.name, shape) for part, shape in drawn if shape.in_space])
    place = _image_place([(part, shape) for part, shape in drawn if not shape.in_space], document)
    if center is None and place is None:
        return None
    diameter = _diameter_mm(parts, single=item.kind == "NUM")
    volumes = [_in_unit(part, MM3) for part in parts if part.name in VOLUMES]
    return ReportedFinding(
        uid=_first(parts, (TRACKING_UID,)) or item.uid or f"{document.uid}#{'.'.join(map(str, item.place))}",
        label=_label(item, parts),
        made_by=_first(parts, PROGRAMS) or document.program,
        observer=_first(parts, (PERSON,)) or document.observer,
        center_xyz_mm=center,
        frame_of_reference_uid=frame,
        image_place=place,
        diameter_mm=width if diameter is None else diameter,
        volume_mm3=next((volume for volume in volumes if volume is not None), None),
        series_uid=_series(parts, place, document),
    )


def _first(items: Sequence[Item], names: Sequence[Code]) -> str:
    """Text of the first item of the first name that has any."""
    return next((item.text for name in names for item in items if item.name == name and item.text), "")


def _label(item: Item, parts: Sequence[Item]) -> str:
    said = [item.text if item.kind in ("CODE", "TEXT") else "", *(_first(parts, (name,)) for name in LABELS)]
    words = list(dict.fromkeys(word for word in said if word))
    return ", ".join(words) or item.meaning


def _center(drawn: Sequence[tuple[Code, Shape]]) -> tuple[Point | None, str, float | None]:
    """Place in space, its frame of reference, and the width of the largest drawing."""
    if not drawn:
        return None, "", None
    shapes = [shape for _, shape in drawn]
    largest = max(shapes, key=lambda shape: (shape.is_closed, shape.diameter or 0.0))
    named = next((shape for name, shape in drawn if name == CENTER), largest)
    x, y, z = named.center
    return (float(x), float(y), float(z)), named.frame_of_reference_uid, _sane(largest.diameter)


def _image_place(drawn: Sequence[tuple[Item, Shape]], document: _Document) -> ImagePlace | None:
    """The center that is named so, else of the largest drawing; one on an image of the report's study first."""
    found = []
    for part, shape in drawn:
        images = [_target(child, document) for child in part.children]
        image = next((one.instance for one in images if one is not None and one.instance and one.instance[0]), None)
        if image is not None:
            own = image[0] in document.own
            found.append(((own, part.name == CENTER, shape.is_closed, shape.diameter or 0.0), image, shape))
    if not found:
        return None
    _, (uid, frame), shape = max(found, key=lambda one: one[0])
    widths = [other.diameter for _, image, other in found if image == (uid, frame) and other.diameter]
    column, row = shape.center
    return ImagePlace(uid, float(column), float(row), frame, max(widths, default=None))


def _target(item: Item, document: _Document) -> Item | None:
    return document.items.get(item.target) if item.target else item


def _diameter_mm(parts: Sequence[Item], *, single: bool) -> float | None:
    """The measured diameter: a mean one first, then any, both axes, the long one, a length.

    Args:
        parts: Items of the finding.
        single: Whether the first is a measurement itself, whatever it is called.
    """
    told: dict[int, float] = {}
    for rank, names in enumerate((DIAMETERS, LONG_AXES, SHORT_AXES, LENGTHS), start=1):
        for part in parts:
            length = _in_unit(part, MM) if part.name in names else None
            if length is not None:
                mean = any(child.name == DERIVATION and child.code in MEANS for child in part.children)
                told.setdefault(0 if names is DIAMETERS and mean else rank, length)
    if 0 in told or 1 in told:
        return told.get(0, told.get(1))
    if 2 in told and 3 in told:
        return (told[2] + told[3]) / 2
    if 2 in told or 4 in told:
        return told.get(2, told.get(4))
    return _in_unit(parts[0], MM) if single and parts[0].name not in SHORT_AXES else told.get(3)


def _in_unit(item: Item, units: dict[str, float]) -> float | None:
    """A measurement in mm or mm3; None where it has no value, another unit, or is none of a finding."""
    factor = units.get(item.unit, units.get(item.unit.lower()) if units is MM3 else None)
    if item.number is None or factor is None:
        return None
    value = item.number * factor
    most = WIDEST_MM if units is MM else WIDEST_MM**3
    return value if 0 < value <= most else None


def _sane(width: float | None) -> float | None:
    return width if width is not None and 0 < width <= WIDEST_MM else None


def _series(parts: Sequence[Item], place: ImagePlace | None, document: _Document) -> str:
    """Series of the drawing's image, else of any image of the finding, else the only one of the report."""
    images = [part.instance[0] for part in parts if part.instance is not None]
    named = ([place.sop_instance_uid] if place else []) + images
    found = next((document.series_of[uid] for uid in named if uid in document.series_of), "")
    found = found or _first(parts, (SOURCE_SERIES,))
    several = {document.series_of[uid] for uid in document.own} or set(document.series_of.values())
    return found or (several.pop() if len(several) == 1 else "")


def _joined(one: ReportedFinding, other: ReportedFinding) -> ReportedFinding:
    """Two parts of a report on the same finding: what the first does not tell is taken from the second."""
    names = ("center_xyz_mm", "image_place", "diameter_mm", "volume_mm3")
    told = {name: getattr(other, name) for name in names if getattr(one, name) is None}
    if "center_xyz_mm" in told:
        told["frame_of_reference_uid"] = other.frame_of_reference_uid
    return replace(one, **told)
