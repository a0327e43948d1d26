"""``DL_info.csv`` of DeepLesion, every column of it, one :class:`Lesion` a row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spicula.core.errors import InputError
from spicula.core.finding import Finding, Point
from spicula.formats.table import Row

COLUMNS = (
    "File_name", "Patient_index", "Study_index", "Series_ID", "Key_slice_index", "Measurement_coordinates",
    "Bounding_boxes", "Lesion_diameters_Pixel_", "Normalized_lesion_location", "Coarse_lesion_type", "Possibly_noisy",
    "Slice_range", "Spacing_mm_px_", "Image_size", "DICOM_windows", "Patient_gender", "Patient_age", "Train_Val_Test",
)  # fmt: skip

LESION_TYPES = ("bone", "abdomen", "mediastinum", "liver", "lung", "kidney", "soft tissue", "pelvis")
"""Names of ``Coarse_lesion_type`` 1 to 8; -1 (all of the training part) is unlabeled."""

SPLITS = {1: "train", 2: "validation", 3: "test"}

Pixel = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Lesion:
    """One row.

    Pixels are (x, y), counted from 0 at the center of the first pixel: the file counts from 1, as the authors' own
    loader says, and 1 was taken off.

    Args:
        id: ``File_name`` without its ending, and a number among the lesions of that image: ``"000001_01_01_109_1"``.
        patient: ``Patient_index``.
        study: ``Study_index``.
        series: ``Series_ID``.
        key_slice: Number of the measured slice; its file is ``Images_png/PPPPPP_SS_II/NNN.png``.
        long_axis_ends_px: Ends of the long axis.
        short_axis_ends_px: Ends of the axis across it.
        box_px: ``Bounding_boxes``: x and y of two corners, 5 pixels around the ends.
        diameters_px: Long and short axis.
        location: ``Normalized_lesion_location``: x, y, z in the body, 0 to 1; z grows towards the feet.
        lesion_type: 1 to 8, see :data:`LESION_TYPES`; None where unlabeled.
        possibly_noisy: The authors' own flag of a measurement that may be wrong.
        slice_range: First and last slice that is there.
        spacing_xyz_mm: ``Spacing_mm_px_``.
        image_size: ``Image_size``.
        windows_hu: ``DICOM_windows``: low and high end of each.
        gender: ``"F"``, ``"M"`` or empty.
        age: Years, None where unknown.
        split: ``"train"``, ``"validation"`` or ``"test"``: the official part, by patient.
        line: Line of the table.
    """

    id: str
    patient: int
    study: int
    series: int
    key_slice: int
    long_axis_ends_px: tuple[Pixel, Pixel]
    short_axis_ends_px: tuple[Pixel, Pixel]
    box_px: tuple[float, float, float, float]
    diameters_px: tuple[float, float]
    location: Point
    lesion_type: int | None
    possibly_noisy: bool
    slice_range: tuple[int, int]
    spacing_xyz_mm: Point
    image_size: tuple[int, int]
    windows_hu: tuple[tuple[float, float], ...]
    gender: str
    age: float | None
    split: str
    line: int

    @property
    def file_name(self) -> str:
        """``File_name``."""
        return f"{self.folder}_{self.key_slice:03d}.png"

    @property
    def folder(self) -> str:
        """Folder of the series under ``Images_png``."""
        return f"{self.patient:06d}_{self.study:02d}_{self.series:02d}"

    @property
    def stack(self) -> str:
        """Name of the stack of slices around it, as the authors name it as NIfTI: ``"000001_01_01_103-115"``."""
        return f"{self.folder}_{self.slice_range[0]:03d}-{self.slice_range[1]:03d}"

    @property
    def slices(self) -> Iterator[str]:
        """Files of the stack, relative to ``Images_png``, from the head to the feet."""
        return (f"{self.folder}/{number:03d}.png" for number in range(self.slice_range[0], self.slice_range[1] + 1))

    def place(self, pixel: Pixel) -> Point:
        """Where a pixel of the key slice lies in the series' own frame, see :mod:`spicula.datasets.deeplesion`."""
        x, y, z = self.spacing_xyz_mm
        return pixel[0] * x, pixel[1] * y, -self.key_slice * z

    @property
    def diameters_mm(self) -> tuple[float, float]:
        """Long and short axis in mm."""
        x, y, _ = self.spacing_xyz_mm
        long, short = (math.hypot((a[0] - b[0]) * x, (a[1] - b[1]) * y) for a, b in self._axes)
        return long, short

    @property
    def _axes(self) -> tuple[tuple[Pixel, Pixel], tuple[Pixel, Pixel]]:
        return self.long_axis_ends_px, self.short_axis_ends_px

    def finding(self) -> Finding:
        """The lesion as a Finding: place in the series' own frame, the mean of both axes as its diameter."""
        left, top, right, bottom = self.box_px
        long, short = self.diameters_mm
        attributes = {
            "long_axis_mm": long, "short_axis_mm": short, "key_slice": float(self.key_slice),
            "body_x": self.location[0], "body_y": self.location[1], "body_z": self.location[2],
            "window_low_hu": self.windows_hu[0][0], "window_high_hu": self.windows_hu[0][1],
        }  # fmt: skip
        if self.age is not None:
            attributes["age_years"] = self.age
        if self.gender:
            attributes["female"] = float(self.gender == "F")
        truth = {"possibly_noisy": float(self.possibly_noisy)}
        if self.lesion_type is not None:
            truth["lesion_type"] = float(self.lesion_type)
        center = self.place(((left + right) / 2, (top + bottom) / 2))
        return Finding(self.id, center, (long + short) / 2, attributes=attributes, truth=truth)

    def oddities(self) -> Iterator[str]:
        """What does not fit together within the row."""
        for name, (a, b), said in zip(("long", "short"), self._axes, self.diameters_px, strict=True):
            if abs(math.dist(a, b) - said) > 0.1:
                yield f"the {name} axis measures {math.dist(a, b):.2f} pixels, Lesion_diameters_Pixel_ says {said:g}"
        x, y = zip(*self.long_axis_ends_px, *self.short_axis_ends_px, strict=True)
        ends = min(x) - 5, min(y) - 5, max(x) + 5, max(y) + 5
        if max(abs(a - b) for a, b in zip(ends, self.box_px, strict=True)) > 0.1:
            yield "Bounding_boxes is not 5 pixels around the measured ends"
        if not (self.slice_range[0] <= self.key_slice <= self.slice_range[1]):
            yield f"key slice {self.key_slice} is outside the slice range {self.slice_range}"


class LesionParser:
    """Makes Lesions of rows; counts the lesions of each image for their ids."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, row: Row) -> Lesion:
        """Parse one row.

        Raises:
            InputError: A cell cannot be used; names file, line and column.
        """
        ends = [value - 1 for value in _numbers(row, "Measurement_coordinates", 8)]
        left, top, right, bottom = (value - 1 for value in _numbers(row, "Bounding_boxes", 4))
        long, short = _numbers(row, "Lesion_diameters_Pixel_", 2)
        x, y, z = _numbers(row, "Normalized_lesion_location", 3)
        first, last = (int(value) for value in _numbers(row, "Slice_range", 2))
        dx, dy, dz = _numbers(row, "Spacing_mm_px_", 3)
        height, width = (int(value) for value in _numbers(row, "Image_size", 2))
        if not (dx > 0 and dy > 0 and dz != 0):
            raise InputError(f"{row.where}: Spacing_mm_px_", got=row["Spacing_mm_px_"], expected="spacings in mm")
        if not 0 <= first <= last:
            raise InputError(f"{row.where}: Slice_range", got=row["Slice_range"], expected="first and last slice")
        split = row.whole("Train_Val_Test")
        if split not in SPLITS:
            raise InputError(f"{row.where}: Train_Val_Test", got=split, expected="1, 2 or 3")
        kind = row.whole("Coarse_lesion_type")
        if kind != -1 and not 1 <= kind <= len(LESION_TYPES):
            raise InputError(f"{row.where}: Coarse_lesion_type", got=kind, expected="1 to 8, or -1")
        stem = _stem(row)
        self._seen[stem] += 1
        return Lesion(
            id=f"{stem}_{self._seen[stem]}",
            patient=row.whole("Patient_index"),
            study=row.whole("Study_index"),
            series=row.whole("Series_ID"),
            key_slice=row.whole("Key_slice_index"),
            long_axis_ends_px=((ends[0], ends[1]), (ends[2], ends[3])),
            short_axis_ends_px=((ends[4], ends[5]), (ends[6], ends[7])),
            box_px=(left, top, right, bottom),
            diameters_px=(long, short),
            location=(x, y, z),
            lesion_type=None if kind == -1 else kind,
            possibly_noisy=row.whole("Possibly_noisy") > 0,
            slice_range=(first, last),
            spacing_xyz_mm=(dx, dy, dz),
            image_size=(height, width),
            windows_hu=_windows(row),
            gender=row["Patient_gender"].upper()[:1].replace("N", ""),
            age=_age(row),
            split=SPLITS[split],
            line=row.line,
        )


def _stem(row: Row) -> str:
    """``File_name`` without its ending, which must be that of patient, study, series and slice."""
    numbers = (row.whole(name) for name in ("Patient_index", "Study_index", "Series_ID", "Key_slice_index"))
    expected = "{:06d}_{:02d}_{:02d}_{:03d}".format(*numbers)
    if Path(row["File_name"]).stem != expected:
        raise InputError(f"{row.where}: File_name", got=repr(row["File_name"]), expected=f"{expected}.png")
    return expected


def _age(row: Row) -> float | None:
    return None if row["Patient_age"].lower() in ("", "nan") else row.number("Patient_age")


def _windows(row: Row) -> tuple[tuple[float, float], ...]:
    """Pairs of low and high ends; a row may hold several windows."""
    values = _numbers(row, "DICOM_windows", None)
    if len(values) % 2 or not values:
        raise InputError(f"{row.where}: DICOM_windows", got=repr(row["DICOM_windows"]), expected="pairs of numbers")
    return tuple(zip(values[::2], values[1::2], strict=True))


def _numbers(row: Row, column: str, count: int | None) -> Sequence[float]:
    """The numbers of a cell that holds several, separated by commas."""
    try:
        values = [float(word) for word in row[column].replace(";", ",").split(",")]
    except ValueError:
        values = []
    if not all(map(math.isfinite, values)) or not values or (count is not None and len(values) != count):
        expected = f"{count} numbers" if count is not None else "numbers"
        raise InputError(f"{row.where}: {column}", got=repr(row[column]), expected=expected)
    return values
