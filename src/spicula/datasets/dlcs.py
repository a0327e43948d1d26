"""The Duke Lung Cancer Screening data set 2024: low-dose screening CTs with boxes around nodules and their diagnosis.

Coordinates are taken as LPS mm, as ITK gives them for the NIfTI files: the set's authors turn them into voxels by
``TransformPhysicalPointToIndex`` of SimpleITK, without a change of sign, and so do others who have used the set.
NIfTI itself counts in RAS, so that a point must be negated in x and y before it is used with a NIfTI affine. No file
of the set was at hand to measure it; ``verify(root, deep=True)`` counts the points that lie in tissue either way, and
says so where the other sign fits better.

References:
    Wang et al., Radiology: Artificial Intelligence 7 (2025) e240248, doi:10.1148/ryai.240248;
    data doi:10.5281/zenodo.13799069. Conversion: the authors' point-driven segmentation, doi:10.5281/zenodo.17171571.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from spicula.core.errors import InputError
from spicula.core.finding import Case, Finding, Point
from spicula.core.volume import Volume
from spicula.datasets.catalog import Check, Description
from spicula.datasets.places import Tally, place_checks, tally_checks
from spicula.datasets.verification import count_check, parsed_rows, require_folder, table_or_check
from spicula.formats import read_volume
from spicula.formats.table import Row, read_table

DESCRIPTION = Description(
    name="dlcs",
    title="Duke Lung Cancer Screening data set 2024 (DLCS24)",
    contents="1,613 low-dose screening chest CTs of as many patients (2015 to 2021) with 2,487 nodules: a box around "
    "each, found by a detector and accepted by the report or drawn by hand, and whether it was lung cancer.",
    licence="CC BY-NC 4.0 (read the page of the version you fetch)",
    size="roughly 150 GB (our estimate)",
    url="https://doi.org/10.5281/zenodo.13799069",
    citation="Wang et al., The Duke Lung Cancer Screening (DLCS) dataset: a reference dataset of annotated low-dose "
    "screening thoracic CT, Radiology: Artificial Intelligence 7 (2025) e240248, doi:10.1148/ryai.240248",
    layout=(
        "DLCSD24_Annotations.csv   2,487 boxes (or in one folder below)",
        "**/DLCS_0001.nii.gz ...   the scans, at any depth (subset_01/ ...)",
    ),
    patients=1613,
    scans=1613,
    findings=2487,
)

TABLE = "DLCSD24_Annotations.csv"

_COLUMNS = ("patient-id", "nodule_id", "ct_nifti_file", "coordX", "coordY", "coordZ", "w", "h", "d")
_LABEL, _SPLIT = "Malignant_lbl", "benchmark_split"
_ALIASES = {"malignant_lbl": _LABEL, "benchmark_split": _SPLIT, "patient_id": "patient-id"}


@dataclass(frozen=True, slots=True)
class Box:
    """One row of the table.

    Args:
        patient: Patient, ``DLCS_0001``.
        nodule: Nodule, ``DLCS_0001_01``.
        image: File of the scan, as written.
        center_xyz_mm: Middle of the box, LPS mm.
        size_xyz_mm: Its sides.
        malignant: None where the table does not say.
        split: Part of the authors' benchmark, empty if none.
        line: Line of the table.
    """

    patient: str
    nodule: str
    image: str
    center_xyz_mm: Point
    size_xyz_mm: Point
    malignant: bool | None
    split: str
    line: int


def load_cases(root: str | Path) -> Iterator[Case]:
    """Give the scans that have boxes, one after the other.

    Args:
        root: Folder as :attr:`DESCRIPTION.layout` lists it.

    Returns:
        Cases in the order of the table; ``case_id`` is the scan's file without its ending, ``split`` the authors'
        benchmark. ``diameter_mm`` is the mean of the box's sides in the axial plane, no measured diameter; the
        sides are attributes ``box_x_mm``, ``box_y_mm``, ``box_z_mm``; ``truth["label"]`` is 1 for lung cancer. A scan
        whose file is not there still is a Case; only its ``load_volume`` fails.

    Raises:
        InputError: There is no table, or a row of it cannot be used.
    """
    root = require_folder(root)
    path = _table(root)
    boxes = [_box(row) for row in read_table(path, required=_COLUMNS, aliases=_ALIASES)]
    files = _files(root)
    return (_case(image, rows, files) for image, rows in _by_image(path, boxes).items())


def verify(root: str | Path, *, deep: bool = False) -> Iterator[Check]:
    """Check the counts, every row, every scan's header, and that the boxes' middles lie inside.

    Args:
        root: As for :func:`load_cases`.
        deep: Read the pixels too, look for tissue at each place, and tell whether RAS would fit better (hours).

    Returns:
        One Check after the other; a broken file is one of them.

    Raises:
        InputError: There is no such folder.
    """
    return _checks(require_folder(root), deep=deep)


def _table(root: Path) -> Path:
    found = [path for path in (root / TABLE, *sorted(root.glob(f"*/{TABLE}"))) if path.is_file()]
    if not found:
        raise InputError(f"{root}: no {TABLE}", expected="it there or in one folder below")
    return found[0]


def _box(row: Row) -> Box:
    sides = row.number("w"), row.number("h"), row.number("d")
    if min(sides) <= 0:
        raise InputError(f"{row.where}: w, h, d", got=sides, expected="three lengths in mm")
    label = row.cells.get(_LABEL, "").lower()
    if label not in ("", "nan", "0", "1", "0.0", "1.0"):
        raise InputError(f"{row.where}: {_LABEL}", got=repr(label), expected="0, 1 or nothing")
    return Box(
        row.text("patient-id"),
        row.text("nodule_id"),
        row.text("ct_nifti_file"),
        (row.number("coordX"), row.number("coordY"), row.number("coordZ")),
        sides,
        None if label in ("", "nan") else float(label) == 1,
        row.cells.get(_SPLIT, ""),
        row.line,
    )


def _by_image(
    path: Path, boxes: Sequence[Box], *, refused: list[tuple[int, str]] | None = None
) -> dict[str, list[Box]]:
    """Boxes of each image; one that clashes with another is an error, or left out with its line and why."""
    images: dict[str, list[Box]] = defaultdict(list)
    for box in boxes:
        rows, problem = images[box.image], None
        where = f"{path}, line {box.line}"
        if any(other.nodule == box.nodule for other in rows):
            problem = InputError(f"{where}: nodule {box.nodule} is there twice")
        elif rows and (rows[0].patient, rows[0].split) != (box.patient, box.split):
            problem = InputError(f"{where}: {box.image}", got="two patients or splits", expected="one of each a scan")
        if problem is None:
            rows.append(box)
        elif refused is None:
            raise problem
        else:
            refused.append((box.line, str(problem)))
    return dict(images)


def _files(root: Path) -> dict[str, Path]:
    """The NIfTI files under a folder by their names."""
    found: dict[str, Path] = {}
    for folder, names, files in os.walk(root):
        names.sort()
        for name in sorted(files):
            if name.endswith((".nii.gz", ".nii")) and not name.startswith("."):
                found.setdefault(name, Path(folder, name))
    return found


def _case(image: str, rows: Sequence[Box], files: Mapping[str, Path]) -> Case:
    name = PurePosixPath(image.replace("\\", "/")).name
    path = files.get(name)
    load = partial(read_volume, path) if path else partial(_no_scan, name)
    findings = tuple(_finding(box) for box in rows)
    stem = name.removesuffix(".gz").removesuffix(".nii")
    return Case(rows[0].patient, load, findings, stem, rows[0].split)


def _no_scan(name: str) -> Volume:
    raise InputError(f"{name} is not there", hint="docs/how-to/get-dlcs.md says where the scans are")


def _finding(box: Box) -> Finding:
    x, y, z = box.size_xyz_mm
    truth = {} if box.malignant is None else {"label": float(box.malignant)}
    return Finding(
        box.nodule, box.center_xyz_mm, (x + y) / 2,
        attributes=MappingProxyType({"box_x_mm": x, "box_y_mm": y, "box_z_mm": z}), truth=MappingProxyType(truth),
    )  # fmt: skip


def _checks(root: Path, *, deep: bool) -> Iterator[Check]:
    try:
        path = _table(root)
    except InputError as error:
        yield Check("missing", TABLE, str(error), root)
        return
    boxes: list[Box] = []
    table, problems = table_or_check(path, name=TABLE, required=_COLUMNS, aliases=_ALIASES)
    yield from problems
    yield from parsed_rows(table, _box, what=TABLE, found=boxes)
    if table is None:
        return
    for column in (_LABEL, _SPLIT):
        if column not in table.columns:
            yield Check("warning", TABLE, f"no column {column}", path)
    yield count_check("nodules", len(boxes), 2487, path=path)
    yield count_check("patients", len({box.patient for box in boxes}), 1613, path=path)
    refused: list[tuple[int, str]] = []
    images = _by_image(path, boxes, refused=refused)
    for line, problem in refused:
        yield Check("broken", TABLE, problem, path, line)
    yield from _split_checks(path, boxes)
    yield from _image_checks(root, images, deep=deep)


def _split_checks(path: Path, boxes: Sequence[Box]) -> Iterator[Check]:
    splits: dict[str, set[str]] = defaultdict(set)
    for box in boxes:
        splits[box.patient].add(box.split)
    torn = sorted(patient for patient, parts in splits.items() if len(parts) > 1)
    if torn:
        yield Check("broken", "split", f"{len(torn)} patients are in two parts, the first {torn[0]}", path)


def _image_checks(root: Path, images: Mapping[str, Sequence[Box]], *, deep: bool) -> Iterator[Check]:
    files, tally, absent = _files(root), Tally(), []
    named = set()
    for image, rows in images.items():
        case = _case(image, rows, files)
        name = PurePosixPath(image.replace("\\", "/")).name
        named.add(name)
        if name not in files:
            absent.append(name)
            continue
        yield from place_checks(case, files[name], deep=deep, tally=tally)
    if absent:
        yield Check("missing", "scans", f"{len(absent)} of {len(images)} are not there, the first {absent[0]}", root)
    strange = sorted(set(files) - named)
    if strange:
        yield Check("warning", "scans", f"the table names no nodule in {len(strange)}, the first {strange[0]}", root)
    yield from tally_checks(tally, convention="LPS")
