"""The content tree of any structured report as plain items, bounded in depth and number, whatever a file holds.

References:
    DICOM PS3.3, C.17.3 (SR Document Content Module), C.18 (content macros).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from spicula.core.errors import InputError

DEEPEST = 48
"""Levels of a tree; reports of real programs have ten."""

MOST_ITEMS = 200_000

FARTHEST = 1e6
"""No coordinate, in mm or pixels, is larger."""

Code = tuple[str, str]
"""Value and scheme of a coded concept."""

SAME_SCHEME = {"SNM3": "SRT", "99SDM": "SRT", "": "DCM"}
"""Other designators of the same scheme."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What was drawn.

    Args:
        kind: Graphic type: ``POINT``, ``POLYLINE`` ...
        points: ``[n, 2]`` (column, row) in pixels, 0 at the first pixel's center, or ``[n, 3]`` LPS mm.
        frame_of_reference_uid: Of LPS points.
    """

    kind: str
    points: NDArray[np.float64]
    frame_of_reference_uid: str = ""

    @property
    def in_space(self) -> bool:
        """Whether its points are LPS mm."""
        return bool(self.points.shape[1] == 3)

    @property
    def is_closed(self) -> bool:
        """Whether it is a line around an area."""
        return len(self.points) > 3 and np.array_equal(self.points[0], self.points[-1])

    @property
    def center(self) -> NDArray[np.float64]:
        """Its middle: of a circle, ellipse or ellipsoid that of the figure, of a closed line that of the area."""
        if self.kind == "CIRCLE":
            return np.asarray(self.points[0])
        if self.is_closed:
            corner, areas = self._triangles()
            if abs(areas.sum()) > 1e-9:
                thirds = (self.points[:-1] + self.points[1:] + corner) / 3
                return np.asarray(areas @ thirds / areas.sum())
            return np.asarray(self.points[:-1].mean(axis=0))
        return np.asarray(self.points.mean(axis=0))

    @property
    def diameter(self) -> float | None:
        """Width in the unit of its points: of a closed line that of the circle of its area; None where it has none."""
        points = self.points
        if self.kind == "CIRCLE":
            return float(2 * np.linalg.norm(points[1] - points[0]))
        if self.kind in ("ELLIPSE", "ELLIPSOID"):
            return float(np.linalg.norm(points[1::2] - points[::2], axis=1).mean())
        if self.is_closed:
            return float(2 * math.sqrt(abs(self._triangles()[1].sum()) / math.pi))
        return float(np.linalg.norm(points[1] - points[0])) if self.kind == "POLYLINE" and len(points) == 2 else None

    def _triangles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A corner and the signed areas of the triangles from it to each side, in the plane of the line."""
        corner = self.points.mean(axis=0)
        sides = np.zeros((len(self.points), 3))
        sides[:, : self.points.shape[1]] = self.points - corner
        across = np.cross(sides[:-1], sides[1:]) / 2
        whole = across.sum(axis=0)
        length = float(np.linalg.norm(whole))
        return corner, across @ (whole / length) if length > 0 else np.zeros(len(across))


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One content item.

    Args:
        place: Its identifier in the document, ``(1, 2, 1)``.
        kind: Value type; empty for a reference to another item.
        name: Code of the concept that it is about.
        meaning: That concept in words.
        code: Value of a CODE.
        text: Value in words: of a TEXT, PNAME, UIDREF, and meaning of a CODE.
        number: Value of a NUM in ``unit``; None where it has none.
        unit: UCUM code.
        shape: Of a SCOORD or SCOORD3D.
        instance: UID and frame of an IMAGE.
        uid: Observation UID.
        target: Identifier of the item that a reference means.
        children: Items below it.
    """

    place: tuple[int, ...]
    kind: str
    name: Code = ("", "")
    meaning: str = ""
    code: Code = ("", "")
    text: str = ""
    number: float | None = None
    unit: str = ""
    shape: Shape | None = None
    instance: tuple[str, int | None] | None = None
    uid: str = ""
    target: tuple[int, ...] = ()
    children: tuple[Item, ...] = field(default=(), repr=False)

    def below(self) -> Iterator[Item]:
        """Itself and all items below it."""
        yield self
        for child in self.children:
            yield from child.below()


def content_tree(dataset: pydicom.Dataset) -> Item:
    """The items of a report.

    Args:
        dataset: A whole SR document.

    Returns:
        The root.

    Raises:
        InputError: The tree is too deep or large, or a drawing in it is none.
        Exception: Whatever pydicom raises for a broken element.
    """
    return _item(dataset, (1,), [0])


def code_of(dataset: pydicom.Dataset, keyword: str) -> tuple[Code, str]:
    """Code and meaning of a coded entry; empty where there is none."""
    items = dataset.get(keyword)
    if not items:
        return ("", ""), ""
    first = items[0]
    value = next((text_of(first, name) for name in ("CodeValue", "LongCodeValue", "URNCodeValue") if name in first), "")
    scheme = text_of(first, "CodingSchemeDesignator").upper()
    return (value, SAME_SCHEME.get(scheme, scheme)), text_of(first, "CodeMeaning")


def text_of(dataset: pydicom.Dataset, keyword: str) -> str:
    """A value as one line of text without control characters; empty where there is none."""
    value = dataset.get(keyword)
    text = "" if value is None else str(value).encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(" " if ord(c) < 32 or 127 <= ord(c) < 160 else c for c in text).split())


def _item(dataset: pydicom.Dataset, place: tuple[int, ...], count: list[int]) -> Item:
    count[0] += 1
    if len(place) > DEEPEST or count[0] > MOST_ITEMS:
        got = f"more than {DEEPEST} levels" if len(place) > DEEPEST else f"more than {MOST_ITEMS} items"
        raise InputError("content of the report", got=got, expected="a structured report of a sane size")
    kind = text_of(dataset, "ValueType").upper()
    target = dataset.get("ReferencedContentItemIdentifier")
    if not kind and target is not None:
        several = target if hasattr(target, "__iter__") else [target]
        return Item(place, "", target=tuple(int(number) for number in several))
    name, meaning = code_of(dataset, "ConceptNameCodeSequence")
    children = dataset.get("ContentSequence") or ()
    return Item(
        place,
        kind,
        name,
        meaning,
        uid=text_of(dataset, "ObservationUID"),
        children=tuple(_item(child, (*place, n), count) for n, child in enumerate(children, start=1)),
        **_value(dataset, kind),
    )


def _value(dataset: pydicom.Dataset, kind: str) -> dict[str, Any]:
    if kind == "CODE":
        code, meaning = code_of(dataset, "ConceptCodeSequence")
        return {"code": code, "text": meaning}
    if kind in ("TEXT", "PNAME", "UIDREF"):
        return {"text": text_of(dataset, {"TEXT": "TextValue", "PNAME": "PersonName", "UIDREF": "UID"}[kind])}
    if kind == "NUM":
        measured = dataset.get("MeasuredValueSequence")
        return _measured(measured[0]) if measured else {}
    if kind in ("SCOORD", "SCOORD3D"):
        return {"shape": _shape(dataset, sides=3 if kind == "SCOORD3D" else 2)}
    if kind == "IMAGE":
        return {"instance": _instance(dataset)}
    return {}


def _measured(value: pydicom.Dataset) -> dict[str, Any]:
    held = value.get("FloatingPointValue")
    number = float(value.get("NumericValue") if held is None else held)
    (unit, _), _ = code_of(value, "MeasurementUnitsCodeSequence")
    return {"number": number if math.isfinite(number) else None, "unit": unit}


def _instance(dataset: pydicom.Dataset) -> tuple[str, int | None] | None:
    references = dataset.get("ReferencedSOPSequence")
    if not references:
        return None
    frame = references[0].get("ReferencedFrameNumber")
    if hasattr(frame, "__iter__") and not isinstance(frame, str):
        frame = frame[0] if len(frame) else None
    return text_of(references[0], "ReferencedSOPInstanceUID"), None if frame in (None, "") else int(frame)


FEWEST = {"POINT": 1, "MULTIPOINT": 1, "POLYLINE": 2, "POLYGON": 3, "CIRCLE": 2, "ELLIPSE": 4, "ELLIPSOID": 6}
"""Points of each graphic type; of circles, ellipses and ellipsoids it has just so many."""


def _shape(dataset: pydicom.Dataset, *, sides: int) -> Shape | None:
    """What was drawn; None for a graphic type that nobody knows."""
    kind = text_of(dataset, "GraphicType").upper()
    if kind not in FEWEST:
        return None
    data = dataset.get("GraphicData")
    values = np.asarray([] if data is None else data, dtype=np.float64).ravel()
    count = len(values) // sides
    odd = len(values) % sides or count < FEWEST[kind]
    if odd or (kind in ("CIRCLE", "ELLIPSE", "ELLIPSOID") and count != FEWEST[kind]):
        raise InputError(f"Graphic Data (0070,0022) of a {kind}", got=f"{len(values)} numbers")
    if not np.isfinite(values).all() or np.abs(values).max() > FARTHEST:
        raise InputError(f"Graphic Data (0070,0022) of a {kind}", got="numbers that are no places")
    points = values.reshape(-1, sides)
    frame = text_of(dataset, "ReferencedFrameOfReferenceUID") if sides == 3 else ""
    return Shape(kind, points if sides == 3 else points - 0.5, frame)
