"""LUNGx, the SPIE-AAPM Lung CT Challenge: 83 nodules of 70 scans with diagnosis, 10 of them to calibrate with.

The spreadsheets place a nodule by pixel and image: x and y from 1, where (1, 1) is the upper left pixel, and the
number of the image. That number is the DICOM Instance Number (0020,0013); it is no index into slices sorted by place,
for the published scans are numbered from the head downwards. The millimetres follow from the header of that slice.

References:
    Armato et al., LUNGx Challenge for computerized lung nodule classification, J. Med. Imaging 3 (2016) 044506,
    doi:10.1117/1.JMI.3.4.044506; data doi:10.7937/K9/TCIA.2015.UZLSU3FL.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from spicula.core.errors import InputError
from spicula.core.finding import Case, Finding, Point
from spicula.core.volume import Volume
from spicula.datasets.catalog import Check, Description
from spicula.datasets.places import NOWHERE, Tally, place_checks, tally_checks
from spicula.datasets.verification import count_check, require_folder
from spicula.dicom.archive import open_dataset
from spicula.dicom.gaps import Gaps
from spicula.dicom.header import Slice
from spicula.dicom.reader import Tilt
from spicula.dicom.series import Series, find_series, select_series
from spicula.formats import read_volume
from spicula.formats.spreadsheet import read_sheet
from spicula.formats.table import Row

DESCRIPTION = Description(
    name="lungx",
    title="LUNGx (SPIE-AAPM-NCI Lung Nodule Classification Challenge)",
    contents="70 diagnostic chest CTs of 70 patients with 83 nodules and their diagnosis: 10 scans with one nodule "
    "each to calibrate with (5 malignant), 60 with 73 nodules to test on (36 malignant, two of them suspected only).",
    licence="CC BY 3.0",
    size="12.1 GB",
    url="https://www.cancerimagingarchive.net/collection/spie-aapm-lung-ct-challenge",
    citation="Armato et al., LUNGx Challenge for computerized lung nodule classification, J. Med. Imaging 3 (2016) "
    "044506, doi:10.1117/1.JMI.3.4.044506; data doi:10.7937/K9/TCIA.2015.UZLSU3FL",
    layout=(
        "CalibrationSet_NoduleData.xlsx                  10 nodules (or .xls)",
        "TestSet_NoduleData_PublicRelease_wTruth.xlsx    73 nodules (or .xls)",
        "**/CT-Training-LC001/ ... **/LUNGx-CT060/       optional: the DICOM files of each patient, at any depth",
    ),
    patients=70,
    scans=70,
    findings=83,
)

SPLITS = ("calibration", "test")

_SHEETS = {"calibration": "CalibrationSet_NoduleData", "test": "TestSet_NoduleData"}
_SCAN, _NUMBER, _PLACE, _IMAGE = "Scan Number", "Nodule Number", "Nodule Center x,y Position*", "Nodule Center Image"
_DIAGNOSIS = {"calibration": "Diagnosis", "test": "Final Diagnosis"}
_PATIENT = re.compile(r"(CT-Training-(?:lc|be)|LUNGx-CT)\d{3}", re.IGNORECASE)
_PUBLISHED = {"calibration": (10, 10, 5), "test": (60, 73, 36)}
_DIAGNOSES = {
    "malignant": (1, 0), "primary lung cancer": (1, 0), "suspicious malignant nodule": (1, 1),
    "benign": (0, 0), "benign nodule": (0, 0),
}  # fmt: skip
_INSTANCE_NUMBER = "InstanceNumber"


@dataclass(frozen=True, slots=True)
class Marked:
    """One row of a spreadsheet.

    Args:
        scan: Scan number, which is the patient.
        number: Nodule within the scan, from 1.
        pixel_xy: Column and row, from 1 as written.
        image: Number of the image, from 1.
        malignant: As the challenge scored it.
        suspected: Malignancy was suspected, not confirmed.
        split: ``calibration`` or ``test``.
        line: Row in the sheet.
        path: The sheet.
    """

    scan: str
    number: int
    pixel_xy: tuple[int, int]
    image: int
    malignant: bool
    suspected: bool
    split: str
    line: int
    path: Path


def load_cases(root: str | Path, *, gaps: Gaps = "error", tilt: Tilt = "error") -> Iterator[Case]:
    """Give the 70 scans one after the other.

    Args:
        root: Folder as :attr:`DESCRIPTION.layout` lists it.
        gaps: As for :func:`spicula.formats.read_volume`.
        tilt: The same.

    Returns:
        Cases in the order of the spreadsheets, calibration first; ``case_id`` is the scan number, findings have
        ``truth`` ``label`` (1 malignant, 0 benign, as scored) and ``suspected`` (1 where it was not confirmed), and
        the attributes ``column_px`` and ``row_px`` (from 0, the center of the first pixel) and ``image_number``.
        No diameter is given. Where there are no DICOM files of a patient the place is NaN and ``load_volume`` fails.

    Raises:
        InputError: A spreadsheet is missing or broken; while iterating: the DICOM files of a patient cannot be used
            or do not have the image.
        MissingExtraError: The extra ``evaluate`` is not installed.
    """
    root = require_folder(root)
    nodules = [nodule for split in SPLITS for nodule in _read(_sheet(root, split), split)]
    folders = _folders(root)
    read = partial(read_volume, gaps=gaps, tilt=tilt)
    return (_case(scan, rows, folders.get(scan.lower()), read) for scan, rows in _by_scan(nodules).items())


def verify(root: str | Path, *, deep: bool = False) -> Iterator[Check]:
    """Check both spreadsheets, the counts, and the place of each nodule in the headers of its slices.

    Args:
        root: As for :func:`load_cases`.
        deep: Read the pixels too, and look for tissue at each place.

    Returns:
        One Check after the other; a broken scan is one of them.

    Raises:
        InputError: There is no such folder.
    """
    return _checks(require_folder(root), deep=deep)


def _sheet(root: Path, split: str) -> Path:
    found = [path for path in sorted(root.rglob(f"{_SHEETS[split]}*.xls*")) if not path.name.startswith((".", "~"))]
    with_truth = [path for path in found if "wtruth" in path.name.lower()]
    if not found:
        raise InputError(
            f"{root}: no {_SHEETS[split]}*.xlsx", hint="it is on the page of the collection, beside the images"
        )
    return (with_truth or found)[0]


def _read(path: Path, split: str) -> Iterator[Marked]:
    for row in _rows(path, split):
        yield _marked(row, split)


def _rows(path: Path, split: str) -> list[Row]:
    """The rows of nodules; footnotes, which fill the first cell alone, are passed over."""
    required = (_SCAN, _PLACE, _IMAGE, _DIAGNOSIS[split], *((_NUMBER,) if split == "test" else ()))
    table = read_sheet(path, required=required, aliases={"nodule center x,y position": _PLACE})
    return [row for row in table if any(row[name] for name in (_PLACE, _IMAGE, _DIAGNOSIS[split]))]


def _marked(row: Row, split: str) -> Marked:
    scan = row.text(_SCAN)
    if not _PATIENT.fullmatch(scan):
        raise InputError(f"{row.where}: {_SCAN}", got=repr(scan), expected="CT-Training-lc001, LUNGx-CT001 or the like")
    words = " ".join(row.text(_DIAGNOSIS[split]).lower().split())
    if words not in _DIAGNOSES:
        raise InputError(
            f"{row.where}: {_DIAGNOSIS[split]}", got=repr(words), expected=f"one of {', '.join(_DIAGNOSES)}"
        )
    malignant, suspected = _DIAGNOSES[words]
    number = row.whole(_NUMBER) if split == "test" else 1
    image = row.whole(_IMAGE)
    if image < 1:
        raise InputError(f"{row.where}: {_IMAGE}", got=image, expected="a number from 1")
    return Marked(
        scan, number, _pixel(row), image, bool(malignant), bool(suspected), split, row.line, row.path
    )  # fmt: skip


def _pixel(row: Row) -> tuple[int, int]:
    """Column and row; ``120, 325``, which Excel also keeps as the number 120325."""
    written = row.text(_PLACE)
    parts = re.fullmatch(r"(\d{1,3})\s*[,;]\s*(\d{1,3})", written) or re.fullmatch(r"(\d{1,3})(\d{3})", written)
    if parts is None or not all(1 <= int(part) <= 512 for part in parts.groups()):
        raise InputError(f"{row.where}: {_PLACE}", got=repr(written), expected="x, y from 1 to 512")
    return int(parts[1]), int(parts[2])


def _by_scan(nodules: Sequence[Marked]) -> dict[str, list[Marked]]:
    scans: dict[str, list[Marked]] = defaultdict(list)
    for nodule in nodules:
        if any(other.number == nodule.number for other in scans[nodule.scan]):
            raise InputError(
                f"{nodule.path}, line {nodule.line}: nodule {nodule.number} of {nodule.scan} is there twice"
            )
        scans[nodule.scan].append(nodule)
    return dict(scans)


def _folders(root: Path) -> dict[str, Path]:
    """Folder of each patient by its name in lower case: the archive writes LC001 where the sheet has lc001."""
    found: dict[str, Path] = {}
    for folder, names, _ in os.walk(root):
        for name in sorted(names):
            if _PATIENT.fullmatch(name):
                found.setdefault(name.lower(), Path(folder, name))
        names[:] = sorted(name for name in names if not _PATIENT.fullmatch(name))
    return found


def _case(scan: str, rows: Sequence[Marked], folder: Path | None, read: Callable[..., Volume] = read_volume) -> Case:
    if folder is None:
        places: Sequence[Point] = [NOWHERE] * len(rows)
        load = partial(_no_images, scan)
    else:
        series, slices = _series_with(folder, rows)
        places = [_place(slices[row.image], row, folder) for row in rows]
        load = partial(read, folder, series_uid=series.series_uid)
    findings = tuple(_finding(row, place) for row, place in zip(rows, places, strict=True))
    return Case(scan, load, findings, scan, rows[0].split)


def _no_images(scan: str) -> Volume:
    raise InputError(f"{scan}: there are no DICOM files of this patient", hint="docs/how-to/get-lungx.md says where")


def _finding(row: Marked, place: Point) -> Finding:
    x, y = row.pixel_xy
    attributes = {"column_px": x - 1.0, "row_px": y - 1.0, "image_number": float(row.image)}
    truth = {"label": float(row.malignant), "suspected": float(row.suspected)}
    return Finding(
        str(row.number), place, attributes=MappingProxyType(attributes), truth=MappingProxyType(truth)
    )  # fmt: skip


def _series_with(folder: Path, rows: Sequence[Marked]) -> tuple[Series, Mapping[int, Slice]]:
    """The series that has all images of the rows, the most suitable one first, with its slices by instance number."""
    found = find_series(folder)
    best = select_series(found)
    usable = [series for series in found if not series.refusal and series.instances != best.instances]
    wanted = {row.image for row in rows}
    for series in (best, *usable):
        slices = _by_instance_number(series)
        if wanted <= set(slices):
            return series, slices
    numbers = _by_instance_number(best)
    span = f"{min(numbers)} to {max(numbers)}" if numbers else "none"
    raise InputError(
        f"{folder}: image {', '.join(str(n) for n in sorted(wanted - set(numbers)))}", got=f"instance numbers {span}",
        expected="the images that the spreadsheet names", hint="fetch the series anew; files may be missing",
    )  # fmt: skip


def _by_instance_number(series: Series) -> dict[int, Slice]:
    """Slices by Instance Number; none where a number is missing or there twice."""
    slices: dict[int, Slice] = {}
    for item in series.slices:
        try:
            number = int(open_dataset(item.instance.path, pixels=False).get(_INSTANCE_NUMBER))
        except (TypeError, ValueError):
            return {}
        if number in slices:
            return {}
        slices[number] = item
    return slices


def _place(item: Slice, row: Marked, folder: Path) -> Point:
    """The pixel's center in LPS mm."""
    x, y = row.pixel_xy
    if x > item.kind.cols or y > item.kind.rows:
        raise InputError(
            f"{folder}: nodule {row.number} at pixel ({x}, {y})", got=f"images of {item.kind.cols} x {item.kind.rows}"
        )
    along, down = np.asarray(item.kind.orientation[:3]), np.asarray(item.kind.orientation[3:])
    row_mm, column_mm = item.kind.spacing_yx_mm
    place = np.asarray(item.position_xyz_mm) + along * column_mm * (x - 1) + down * row_mm * (y - 1)
    return float(place[0]), float(place[1]), float(place[2])


def _checks(root: Path, *, deep: bool) -> Iterator[Check]:
    nodules: list[Marked] = []
    for split in SPLITS:
        found: list[Marked] = []
        try:
            path = _sheet(root, split)
        except InputError as error:
            yield Check("missing", f"{split} sheet", str(error), root)
            continue
        yield from _sheet_checks(path, split, found)
        nodules += found
    try:
        scans = _by_scan(nodules)
    except InputError as error:
        yield Check("broken", "spreadsheets", str(error))
        return
    folders = _folders(root)
    absent = [scan for scan in scans if scan.lower() not in folders]
    if absent and not folders:
        message = f"only the spreadsheets are here: none of {len(scans)} scans has DICOM files, so no place is known"
        yield Check("warning", "scans", message, root)
    elif absent:
        message = f"{len(absent)} of {len(scans)} are not there, the first {absent[0]}: their places stay unknown"
        yield Check("missing", "scans", message, root)
    for name in sorted(set(folders) - {scan.lower() for scan in scans}):
        yield Check("warning", "scan", "no spreadsheet names this patient", folders[name])
    yield from _scan_checks({scan: rows for scan, rows in scans.items() if scan not in absent}, folders, deep=deep)


def _scan_checks(scans: Mapping[str, Sequence[Marked]], folders: Mapping[str, Path], *, deep: bool) -> Iterator[Check]:
    tally, placed = Tally(), 0
    for scan, rows in scans.items():
        folder = folders[scan.lower()]
        try:
            case = _case(scan, rows, folder)
        except InputError as error:
            yield Check("broken", "scan", str(error), folder)
            continue
        placed += len(rows)
        if deep:
            yield from place_checks(case, folder, deep=True, tally=tally)
    if placed:
        yield Check("ok", "places", f"{placed} nodules are placed by the header of their slice")
    yield from tally_checks(tally, convention="LPS")


def _sheet_checks(path: Path, split: str, found: list[Marked]) -> Iterator[Check]:
    try:
        rows = _rows(path, split)
    except InputError as error:
        yield Check("broken", f"{split} sheet", str(error), path)
        return
    for row in rows:
        try:
            found.append(_marked(row, split))
        except InputError as error:
            yield Check("broken", f"{split} sheet", str(error), path, row.line)
    scans, nodules, malignant = _PUBLISHED[split]
    yield count_check(f"{split} scans", len(Counter(nodule.scan for nodule in found)), scans, path=path)
    yield count_check(f"{split} nodules", len(found), nodules, path=path)
    yield count_check(f"{split} malignant", sum(nodule.malignant for nodule in found), malignant, path=path)
