"""DeepLesion: 32,735 lesions of all organs, measured on a key slice, with the slices around it as 16-bit PNG.

**Places.** The PNG files have lost where the patient lay in the scanner. Each series has a frame of its own: x and y
are counted from the center of the first pixel, to the right and down the image (to the patient's left and back in an
image shown as usual), z from a slice numbered 0, slice numbers growing towards the feet (so z = -number times
spacing). Millimetres are true, the origin is not; places of two series cannot be compared, those of two stacks of one
series can where both have one slice distance. That slice numbers grow towards the feet is how the authors write their
NIfTI files, and it agrees with ``Normalized_lesion_location`` in 99.9 % of the pairs of lesions of one series in the
test part.

**Rows to be careful with.** ``Possibly_noisy`` is the authors' own flag (``truth["possibly_noisy"]``). Nine further
rows are skipped by the published lesion search because their images could not be read: see
:func:`lesion_search_skips`.

References:
    Yan et al., Journal of Medical Imaging 5 (2018) 036501, doi:10.1117/1.JMI.5.3.036501.
    Lesion search: arXiv 2311.11014.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.finding import Case
from spicula.core.geometry import Geometry
from spicula.core.volume import Acquisition, Volume
from spicula.datasets.catalog import Check, Description
from spicula.datasets.deeplesion_table import COLUMNS, Lesion, LesionParser
from spicula.datasets.verification import count_check, parsed_rows, require_folder, table_or_check
from spicula.formats import png16
from spicula.formats.table import read_table

DESCRIPTION = Description(
    name="deeplesion",
    title="DeepLesion",
    contents="32,735 lesions in 32,120 axial CT images of 10,594 studies of 4,427 patients, each with its long and "
    "short axis and the slices around it (928,020 in all); eight coarse types in the validation and test parts.",
    licence="NIH Clinical Center: free use, acknowledge the NIH Clinical Center and cite the paper",
    size="about 220 GB",
    url="https://nihcc.app.box.com/v/DeepLesion",
    citation="Yan et al., DeepLesion: automated mining of large-scale lesion annotations and universal lesion "
    "detection with deep learning, Journal of Medical Imaging 5 (2018) 036501, doi:10.1117/1.JMI.5.3.036501",
    layout=(
        "DL_info.csv                      32,735 lesions",
        "Images_png/000001_01_01/109.png  slices with HU = value - 32768, a folder for each series",
    ),
    patients=4427,
    findings=32735,
)

STUDIES, IMAGES = 10594, 32120
SPLIT_COUNTS = {"train": 22919, "validation": 4889, "test": 4927}
"""Published number of lesions in each part."""

SKIPPED_ROWS = (660, 6679, 6680, 9943, 11078, 11338, 18692, 19957, 22403)
"""Rows of the whole table, the first being 0, that the lesion search (arXiv 2311.11014) skips; none is a test row."""

_TABLES = ("DL_info.csv", "DL_info.csv.gz", "DL_info_test_split.csv", "DL_info_test_split.csv.gz")
_FOLDERS = ("Images_png", "images_png", "images", "Images")


def load_cases(
    root: str | Path, *, splits: Collection[str] | None = None, without: Collection[str] = ()
) -> Iterator[Case]:
    """Give the stacks of slices around the lesions one after the other; pixels are read on demand.

    Lesions that share a series and a slice range are findings of one Case. A stack whose files are missing still is a
    Case; only its ``load_volume`` fails.

    Args:
        root: Folder as :attr:`DESCRIPTION.layout` lists it.
        splits: Only these of ``"train"``, ``"validation"``, ``"test"``; all if None.
        without: Ids of lesions to leave out, for example ``lesion_search_skips(root)``.

    Returns:
        Cases in the order of the table: ``case_id`` is the stack (``"000001_01_01_103-115"``), ``patient_id``
        ``"000001"``; a finding has its ``truth["lesion_type"]`` (1 to 8, absent where unlabeled) and both axes in its
        attributes.

    Raises:
        InputError: There is no table, a row cannot be used, or a part or lesion is named that is not there.
    """
    root = require_folder(root)
    lesions = read_lesions(root)
    unknown = set(splits or ()) - set(SPLIT_COUNTS)
    if unknown:
        raise InputError("splits", got=", ".join(sorted(unknown)), expected=", ".join(SPLIT_COUNTS))
    strange = set(without) - {lesion.id for lesion in lesions}
    if strange:
        raise InputError(f"without: lesion {min(strange)}", expected="the id of a lesion in the table")
    stacks: dict[str, list[Lesion]] = {}
    for lesion in lesions:
        if lesion.id not in without and (splits is None or lesion.split in splits):
            stacks.setdefault(lesion.stack, []).append(lesion)
    images = _images(root)
    return (_case(images, stack) for stack in stacks.values())


def read_lesions(root: str | Path) -> tuple[Lesion, ...]:
    """Read every row of the table with all its columns.

    Args:
        root: As for :func:`load_cases`.

    Returns:
        In the order of the table.

    Raises:
        InputError: There is no table, or a row cannot be used.
    """
    root = require_folder(root)
    path = _table(root)
    if path is None:
        raise InputError(f"{root}: no DL_info.csv")
    parse = LesionParser()
    return tuple(parse(row) for row in read_table(path, required=COLUMNS))


def read_key_slice(root: str | Path, lesion: Lesion) -> NDArray[np.int16]:
    """Read the slice that a lesion was measured on, without those around it.

    Args:
        root: As for :func:`load_cases`.
        lesion: A row of :func:`read_lesions`.

    Returns:
        int16 ``[rows, columns]`` in HU.

    Raises:
        InputError: The file is not there, no 16-bit gray PNG, or damaged.
    """
    return png16.read_slice(_images(Path(root)) / f"{lesion.folder}/{lesion.key_slice:03d}.png")


def lesion_search_skips(root: str | Path) -> tuple[str, ...]:
    """Name the nine lesions that the published lesion search leaves out, by :data:`SKIPPED_ROWS`.

    Args:
        root: As for :func:`load_cases`.

    Returns:
        Ids of lesions.

    Raises:
        InputError: The table is not the whole published one, so that row numbers mean nothing.
    """
    lesions = read_lesions(root)
    if len(lesions) != DESCRIPTION.findings:
        raise InputError(
            f"{root}: DL_info.csv", got=f"{len(lesions)} rows", expected=f"all {DESCRIPTION.findings}",
            hint="the nine rows are known by their number in the whole table; none of them is in the test part",
        )  # fmt: skip
    return tuple(lesions[number].id for number in SKIPPED_ROWS)


def verify(root: str | Path, *, deep: bool = False) -> Iterator[Check]:
    """Check the counts against the published ones, every row, and every key slice's file.

    Args:
        root: As for :func:`load_cases`.
        deep: Read the pixels of all slices (some hours on one core).

    Returns:
        One Check after the other; a broken file is one of them.

    Raises:
        InputError: There is no such folder.
    """
    return _checks(require_folder(root), deep=deep)


def _table(root: Path) -> Path | None:
    return next((root / name for name in _TABLES if (root / name).is_file()), None)


def _images(root: Path) -> Path:
    """The folder of the slices: the first that exists, else as published."""
    return next((root / name for name in _FOLDERS if (root / name).is_dir()), root / _FOLDERS[0])


def _case(images: Path, stack: Sequence[Lesion]) -> Case:
    first = stack[0]
    findings = tuple(lesion.finding() for lesion in stack)
    return Case(f"{first.patient:06d}", partial(_load, images, first), findings, first.stack, first.split)


def _load(images: Path, lesion: Lesion) -> Volume:
    """The stack around a lesion, from the head to the feet."""
    paths = [images / name for name in lesion.slices]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"{missing[0]}: no such file", got=f"{len(missing)} of {len(paths)} slices of {lesion.stack} missing",
            expected="all slices of the range", hint="unpack all zip files of Images_png into one folder",
        )  # fmt: skip
    array = png16.read_stack(paths)
    acquisition = Acquisition(
        source=str(paths[0].parent), format="PNG", modality="CT", patient_id=f"{lesion.patient:06d}"
    )
    note = f"{lesion.stack}: PNG files have no place in the scanner; millimetres are counted in the series' own frame."
    return Volume(array, stack_geometry(lesion, array.shape), acquisition=acquisition, warnings=(note,))


def stack_geometry(lesion: Lesion, shape_zyx: Sequence[int]) -> Geometry:
    """The grid of the stack around a lesion, in the series' own frame.

    Args:
        lesion: Any lesion of the stack.
        shape_zyx: Of its voxels.

    Returns:
        The grid: z falls from slice to slice.
    """
    x, y, z = lesion.spacing_xyz_mm
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[0, 2], affine[1, 1], affine[2, 0] = x, y, -z
    affine[2, 3] = -z * lesion.slice_range[0]
    return Geometry((shape_zyx[0], shape_zyx[1], shape_zyx[2]), affine)


def _checks(root: Path, *, deep: bool) -> Iterator[Check]:
    path = _table(root)
    table, problems = table_or_check(path, name="DL_info.csv", required=COLUMNS)
    yield from problems
    lesions: list[Lesion] = []
    yield from parsed_rows(table, LesionParser(), what="DL_info.csv", found=lesions)
    if table is None or path is None:
        return
    parts = Counter(lesion.split for lesion in lesions)
    if len(parts) > 1 or len(lesions) != SPLIT_COUNTS.get(next(iter(parts), ""), 0):
        yield count_check("lesions", len(lesions), DESCRIPTION.findings or 0, path=path)
        yield count_check("images", len({lesion.file_name for lesion in lesions}), IMAGES, path=path)
        yield count_check("studies", len({(lesion.patient, lesion.study) for lesion in lesions}), STUDIES, path=path)
        yield count_check("patients", len({lesion.patient for lesion in lesions}), DESCRIPTION.patients or 0, path=path)
    for split, count in parts.items():
        yield count_check(f"lesions of the {split} part", count, SPLIT_COUNTS[split], path=path)
    yield from _row_checks(path, lesions)
    yield from _image_checks(_images(root), lesions, deep=deep)


def _row_checks(path: Path, lesions: Sequence[Lesion]) -> Iterator[Check]:
    for lesion in lesions:
        for oddity in lesion.oddities():
            yield Check("warning", "lesion", f"{lesion.id}: {oddity}", path, lesion.line)
    splits: dict[int, set[str]] = {}
    for lesion in lesions:
        splits.setdefault(lesion.patient, set()).add(lesion.split)
    mixed = sorted(patient for patient, names in splits.items() if len(names) > 1)
    if mixed:
        yield Check("broken", "split", f"{len(mixed)} patients are in two parts, the first {mixed[0]:06d}", path)
    noisy = sum(lesion.possibly_noisy for lesion in lesions)
    yield Check("ok", "noisy", f"{noisy} lesions are flagged as possibly noisy", path)
    if len(lesions) == DESCRIPTION.findings:
        names = ", ".join(lesions[number].file_name for number in SKIPPED_ROWS)
        yield Check("ok", "noisy", f"the nine that the lesion search skips are of {names}", path)


def _image_checks(images: Path, lesions: Sequence[Lesion], *, deep: bool) -> Iterator[Check]:
    """A Check for each broken slice and for each series without its slices; one count where whole folders miss."""
    if not images.is_dir():
        yield Check("warning", "slices", "only the table is here: there is no Images_png", images)
        return
    by_folder: dict[str, list[Lesion]] = {}
    for lesion in lesions:
        by_folder.setdefault(lesion.folder, []).append(lesion)
    absent = []
    good = 0
    for folder, group in by_folder.items():
        try:
            there = {entry.name for entry in os.scandir(images / folder)}
        except OSError:
            absent.append(folder)
            continue
        names = {name for lesion in group for name in lesion.slices}
        missing = sorted(name for name in names if name.rpartition("/")[2] not in there)
        if missing:
            message = f"{len(missing)} of {len(names)} slices are missing, the first {missing[0]}"
            yield Check("missing", "slices", message, images / folder)
        keys = {f"{folder}/{lesion.key_slice:03d}.png" for lesion in group}
        size = group[0].image_size
        for name in sorted((names if deep else keys) - set(missing)):
            problem = _slice_problem(images / name, size, deep=deep)
            good += problem is None
            if problem is not None:
                yield problem
    if absent:
        message = f"{len(absent)} of {len(by_folder)} series have no folder, the first {absent[0]}"
        yield Check("missing", "slices", message, images)
    yield Check(
        "ok" if good else "warning", "slices", f"{good:,} {'slices' if deep else 'key slices'} are sound", images
    )


def _slice_problem(path: Path, size: tuple[int, int], *, deep: bool) -> Check | None:
    try:
        shape = png16.read_slice(path).shape if deep else png16.look(path)
    except InputError as error:
        return Check("broken", "slice", str(error), path)
    if sorted(shape) != sorted(size):
        message = f"{shape[0]} x {shape[1]} pixels, Image_size says {size[0]} x {size[1]}"
        return Check("broken", "slice", message, path)
    return None
