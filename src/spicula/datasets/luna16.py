"""LUNA16: 888 scans of LIDC-IDRI with the nodules that three of four readers marked, in ten official folds.

The patient of a Case is its series UID, the only name that LUNA16 itself gives, unless the metadata table of
LIDC-IDRI lies beside it: then it is the LIDC patient. That matters where patients are split: the 888 series are of
887 patients, LIDC-IDRI-0332 has two.

References:
    Setio et al., Medical Image Analysis 42 (2017) 1-13, doi:10.1016/j.media.2017.06.015.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from spicula.core.errors import InputError, SpiculaWarning
from spicula.core.finding import Case, Finding, Point
from spicula.core.volume import Volume
from spicula.datasets.catalog import Check, Description
from spicula.datasets.lidc_tables import METADATA, find_metadata, load_series_patients
from spicula.datasets.luna16_candidates import Candidate, read_candidates
from spicula.datasets.places import Tally, place_checks, tally_checks
from spicula.datasets.verification import count_check, parsed_rows, require_folder, table_or_check
from spicula.formats import metaimage
from spicula.formats.pixels import check_plausible
from spicula.formats.table import Row, read_table

DESCRIPTION = Description(
    name="luna16",
    title="LUNA16 (LUng Nodule Analysis 2016)",
    contents="888 CT scans of LIDC-IDRI with slices of 2.5 mm at most; 1,186 nodules of 3 mm and more that at least "
    "three of four readers marked, in 601 of the scans; 35,192 further marks that count neither as hit nor as miss; "
    "ten folds.",
    licence="CC BY 4.0 (the scans: LIDC-IDRI, CC BY 3.0)",
    size="about 67 GB packed, 120 GB unpacked",
    url="https://luna16.grand-challenge.org",
    citation="Setio et al., Validation, comparison, and combination of algorithms for automatic detection of pulmonary "
    "nodules in computed tomography images: the LUNA16 challenge, Medical Image Analysis 42 (2017), "
    "doi:10.1016/j.media.2017.06.015",
    layout=(
        "subset0/ ... subset9/     888 scans, SERIESUID.mhd with SERIESUID.raw or .zraw: the ten folds",
        "annotations.csv           1,186 nodules",
        "annotations_excluded.csv  35,192 marks that are neither (or in evaluationScript/annotations/)",
        "seriesuids.csv            the 888 scans (or in evaluationScript/annotations/)",
        "candidates_V2.csv         optional: 754,975 places for the reduction of false positives",
        "candidates.csv            optional: the older 551,065 places",
        "LIDC-IDRI_MetaData.csv    optional: patient of each series (also metadata.csv of the LIDC-IDRI download)",
    ),
    patients=887,
    scans=888,
    findings=1186,
)

SUBSETS = tuple(f"subset{number}" for number in range(10))
"""The official folds, in their order; what ``Case.split`` holds."""

SCANS_WITH_NODULES = 601
EXCLUDED = 35192
CANDIDATES: Mapping[str, tuple[int, int]] = {"candidates_V2": (754975, 1557), "candidates": (551065, 1351)}
"""Published number of places and of nodules among them."""

_PLACES = ("", "CSVFILES", "evaluationScript/annotations")
_COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")


def load_cases(root: str | Path, *, subsets: Collection[int] | None = None) -> Iterator[Case]:
    """Give the scans one after the other, those without nodules included; pixels are read on demand.

    A scan that ``seriesuids.csv`` lists but that is in no subset folder still is a Case (its findings are known), with
    an empty split; only its ``load_volume`` fails. A file in a subset folder that the list does not name is no Case;
    a ``SpiculaWarning`` says so. Nothing else is left out unless ``subsets`` says so.

    Args:
        root: Folder as :attr:`DESCRIPTION.layout` lists it.
        subsets: Only these folds, 0 to 9; all if None.

    Returns:
        Cases in the order of the folds: ``case_id`` is the series UID, ``split`` ``"subset0"`` to ``"subset9"``,
        ``diameter_mm`` LUNA16's own (smaller than the readers' mean axial diameter), ``patient_id`` the series UID,
        or the LIDC patient where the metadata table of LIDC-IDRI is there.

    Raises:
        InputError: There is no ``annotations.csv``, no scan, a fold that was asked for is missing, a row cannot be
            used or is of a scan that is not listed, or a scan is in two folds.
    """
    root = require_folder(root)
    listed = _listed(root)
    files = _of_list(_files(root), listed)
    wanted = None if subsets is None else {f"subset{number}" for number in subsets}
    for split in sorted((wanted or set()) - {split for split, _ in files.values()}):
        raise InputError(f"{root}: no scan in {split}", expected="subset0 to subset9 with .mhd files")
    scans = listed or tuple(files)
    if not scans:
        raise InputError(f"{root}: neither seriesuids.csv nor a subset folder with .mhd files")
    nodules = _findings(root, "annotations", set(scans))
    patients = _patients(root)
    if patients and not patients.keys() >= set(scans):
        uid = min(set(scans) - patients.keys())
        raise InputError(f"{root}: the metadata table of LIDC-IDRI has no series {uid}", hint="fetch the whole table")
    order = sorted(scans, key=lambda uid: (files.get(uid, ("~", None))[0], uid))
    return (
        _case(root, uid, files.get(uid), nodules.get(uid, ()), patients.get(uid, uid))
        for uid in order
        if wanted is None or files.get(uid, ("", None))[0] in wanted
    )


def excluded_findings(root: str | Path) -> Mapping[str, tuple[Finding, ...]]:
    """Read the marks that the official score counts neither as hits nor as false positives.

    Args:
        root: As for :func:`load_cases`.

    Returns:
        By series UID. Where the file says -1 the diameter is None; the official script takes 10 mm for it.

    Raises:
        InputError: There is no ``annotations_excluded.csv``, or a row cannot be used.
    """
    root = require_folder(root)
    return _findings(root, "annotations_excluded", set(_listed(root)) or None)


def candidates(root: str | Path, *, version: int = 2) -> Iterator[Candidate]:
    """Give the places of the track on the reduction of false positives, row after row.

    Args:
        root: As for :func:`load_cases`.
        version: 2 (``candidates_V2.csv``, to be used) or 1 (``candidates.csv``, the older set).

    Returns:
        The places in the order of the file; the file is not held in memory.

    Raises:
        InputError: There is no such file; while iterating: a row cannot be used.
    """
    name = {1: "candidates", 2: "candidates_V2"}.get(version)
    if name is None:
        raise InputError("version", got=version, expected="1 or 2")
    return read_candidates(_required(require_folder(root), name))


def verify(root: str | Path, *, deep: bool = False) -> Iterator[Check]:
    """Check the counts against the published ones, every row, every scan's header and that nodules lie inside.

    Args:
        root: As for :func:`load_cases`.
        deep: Read all pixels too, and look for tissue at each nodule (about an hour on one core).

    Returns:
        One Check after the other; a broken file is one of them.

    Raises:
        InputError: There is no such folder.
    """
    return _checks(require_folder(root), deep=deep)


def _find(root: Path, name: str) -> Path | None:
    """A table in one of the places where it is unpacked to, gzipped or not."""
    paths = (root / place / f"{name}{ending}" for place in _PLACES for ending in (".csv", ".csv.gz"))
    return next((path for path in paths if path.is_file()), None)


def _required(root: Path, name: str) -> Path:
    path = _find(root, name)
    if path is None:
        raise InputError(f"{root}: no {name}.csv", expected=f"it there or in {', '.join(_PLACES[1:])}")
    return path


def _files(root: Path) -> dict[str, tuple[str, Path]]:
    """Fold and header of each scan that is there, by series UID."""
    found: dict[str, tuple[str, Path]] = {}
    for split, path in _headers(root):
        if path.stem in found:
            raise InputError(f"{path}: also in {found[path.stem][1].parent}", expected="each scan in one fold")
        found[path.stem] = split, path
    return found


def _of_list(files: dict[str, tuple[str, Path]], listed: Sequence[str]) -> dict[str, tuple[str, Path]]:
    """The files of the scans that are listed, all where there is no list; a warning tells of others."""
    strange = sorted(set(files) - set(listed)) if listed else []
    if strange:
        first = files[strange[0]][1]
        words = f"seriesuids.csv does not list {len(strange)} of the scans in the folds: passed over, the first {first}"
        warnings.warn(words, SpiculaWarning, stacklevel=3)
    return {uid: file for uid, file in files.items() if uid not in strange}


def _headers(root: Path) -> Iterator[tuple[str, Path]]:
    """Fold and header of each scan, also where a fold was unpacked into a folder of its own name."""
    for split in SUBSETS:
        for folder in (root / split, root / split / split):
            for path in sorted(folder.glob("*.mhd")):
                if not path.name.startswith("."):
                    yield split, path


def _listed(root: Path) -> tuple[str, ...]:
    """The scans of ``seriesuids.csv``; none where there is no such file."""
    path = _find(root, "seriesuids")
    if path is None:
        return ()
    uids = tuple(row.text("seriesuid") for row in read_table(path, columns=("seriesuid",)))
    if len(set(uids)) < len(uids):
        twice = next(uid for uid in uids if uids.count(uid) > 1)
        raise InputError(f"{path}: series {twice} is listed twice")
    return uids


def _row(row: Row) -> tuple[str, Point, float]:
    """Scan, place and diameter of one row."""
    place = row.number("coordX"), row.number("coordY"), row.number("coordZ")
    return row.text("seriesuid"), place, row.number("diameter_mm")


def _nodule(row: Row) -> tuple[str, Point, float | None]:
    """A row of ``annotations.csv``, whose diameter must be there."""
    uid, place, diameter = _row(row)
    if diameter <= 0:
        raise InputError(f"{row.where}: diameter_mm", got=diameter, expected="millimetres")
    return uid, place, diameter


def _excluded(row: Row) -> tuple[str, Point, float | None]:
    """A row of ``annotations_excluded.csv``; -1 is no diameter."""
    uid, place, diameter = _row(row)
    return uid, place, diameter if diameter > 0 else None


_PARSERS = {"annotations": _nodule, "annotations_excluded": _excluded}


def _findings(root: Path, name: str, known: Collection[str] | None) -> dict[str, tuple[Finding, ...]]:
    found: dict[str, list[Finding]] = defaultdict(list)
    for row in read_table(_required(root, name), required=_COLUMNS):
        uid, place, diameter = _PARSERS[name](row)
        if known is not None and uid not in known:
            raise InputError(f"{row.where}: series {uid}", got="a scan that is not listed", expected="one of LUNA16's")
        found[uid].append(Finding(str(len(found[uid]) + 1), place, diameter))
    return {uid: tuple(findings) for uid, findings in found.items()}


def _patients(root: Path) -> Mapping[str, str]:
    """LIDC patient of each series; none where there is no metadata table."""
    path = find_metadata(root)
    return load_series_patients(path) if path else {}


def _case(root: Path, uid: str, file: tuple[str, Path] | None, findings: tuple[Finding, ...], patient: str) -> Case:
    split, path = file or ("", None)
    load = partial(_absent, root, uid) if path is None else partial(_load, path, uid, patient)
    return Case(patient, load, findings, uid, split)


def _load(path: Path, uid: str, patient: str) -> Volume:
    volume = metaimage.read(path)
    check_plausible(volume, path=path)
    return replace(volume, series_uid=uid, acquisition=replace(volume.acquisition, patient_id=patient, modality="CT"))


def _absent(root: Path, uid: str) -> Volume:
    raise InputError(
        f"{root}: scan {uid} is in no subset folder",
        hint="unpack all ten subsets, or ask for those that are there: load_cases(root, subsets=...)",
    )


def _checks(root: Path, *, deep: bool) -> Iterator[Check]:
    listed: list[str] = []
    path = _find(root, "seriesuids")
    table, problems = table_or_check(path, name="seriesuids.csv", required=(), columns=("seriesuid",))
    yield from problems
    yield from parsed_rows(table, lambda row: row.text("seriesuid"), what="seriesuids.csv", found=listed)
    if table is not None:
        yield count_check("scans listed", len(set(listed)), 888, path=path)
    nodules: list[tuple[str, Point, float | None]] = []
    for name, published, rows in (("annotations", 1186, nodules), ("annotations_excluded", EXCLUDED, [])):
        path = _find(root, name)
        table, problems = table_or_check(path, name=f"{name}.csv", required=_COLUMNS)
        yield from problems
        yield from parsed_rows(table, _PARSERS[name], what=f"{name}.csv", found=rows)
        if table is not None:
            yield count_check("nodules" if rows is nodules else "excluded findings", len(rows), published, path=path)
            strange = sorted({uid for uid, _, _ in rows} - set(listed)) if listed else []
            if strange:
                message = f"{len(strange)} series that seriesuids.csv does not list, the first {strange[0]}"
                yield Check("broken", f"{name}.csv", message, path)
    if nodules:
        yield count_check("scans with nodules", len({uid for uid, _, _ in nodules}), SCANS_WITH_NODULES)
    yield from _candidate_checks(root)
    yield from _patient_checks(root, listed)
    yield from _scan_checks(root, listed, nodules, deep=deep)


def _candidate_checks(root: Path) -> Iterator[Check]:
    for name, (published, positive) in CANDIDATES.items():
        path = _find(root, name)
        if path is None:
            continue
        total = nodules = 0
        try:
            for candidate in read_candidates(path):
                total, nodules = total + 1, nodules + candidate.is_nodule
        except InputError as error:
            yield Check("broken", f"{name}.csv", str(error), path)
            continue
        yield count_check(f"places of {name}.csv", total, published, path=path)
        yield count_check(f"nodules of {name}.csv", nodules, positive, path=path)


def _patient_checks(root: Path, listed: Collection[str]) -> Iterator[Check]:
    try:
        patients = _patients(root)
    except InputError as error:
        yield Check("broken", "patients", str(error))
        return
    if not patients:
        message = f"no {' or '.join(METADATA)}: each series counts as a patient, though LIDC-IDRI-0332 has two"
        yield Check("warning", "patients", message)
        return
    unknown = sorted(set(listed) - set(patients))
    if unknown:
        yield Check("broken", "patients", f"{len(unknown)} series without a patient, the first {unknown[0]}")
    elif listed:
        yield count_check("patients", len({patients[uid] for uid in listed}), 887)


def _scan_checks(
    root: Path, listed: Collection[str], nodules: list[tuple[str, Point, float | None]], *, deep: bool
) -> Iterator[Check]:
    findings: dict[str, list[Finding]] = defaultdict(list)
    for uid, place, diameter in nodules:
        findings[uid].append(Finding(str(len(findings[uid]) + 1), place, diameter))
    known = set(listed)
    seen: dict[str, Path] = {}
    tally = Tally()
    good = 0
    for split, path in _headers(root):
        uid = path.stem
        if uid in seen:
            yield Check("broken", "image", f"also in {seen[uid].parent}", path)
            continue
        seen[uid] = path
        if known and uid not in known:
            yield Check("warning", "image", "not one of the scans that seriesuids.csv lists: passed over", path)
            continue
        case = _case(root, uid, (split, path), tuple(findings[uid]), uid)
        problems = list(place_checks(case, path, deep=deep, tally=tally))
        good += not any(problem.state == "broken" for problem in problems)
        yield from problems
    yield from tally_checks(tally, convention="LPS")
    missing = sorted(known - set(seen))
    if missing and not seen:
        message = f"only the tables are here: none of the {len(known)} scans is in a subset folder"
        yield Check("warning", "scans", message, root)
        return
    if missing:
        yield Check("missing", "scans", f"{len(missing)} of {len(known)} are in no subset folder, first {missing[0]}")
    yield count_check("sound scans" if deep else "scans with a sound header", good, 888)
