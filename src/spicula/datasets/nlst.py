"""NLST, the National Lung Screening Trial: what its readers noted on each CT, and what became of the participants.

The trial's own tables say that a participant's screen had a nodule of this size in that lobe; they hold no
coordinates and do not say which nodule was the cancer. Places come from readings made since: a table of nodules with
image, millimetres and semantic features (the columns of the training table of arXiv 2504.21344). Where such a table
is there the Cases are its images, else they are the screens of the trial's table, with NaN for places.

References:
    National Lung Screening Trial Research Team, N. Engl. J. Med. 365 (2011) 395-409, doi:10.1056/NEJMoa1102873;
    images doi:10.7937/TCIA.HMQ8-J677; semantic features arXiv 2504.21344, table A1.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

from spicula.core.errors import InputError
from spicula.core.finding import Case, Finding
from spicula.core.semantics import FEATURES, SemanticFeatures
from spicula.core.volume import Volume
from spicula.datasets import nodule_csv
from spicula.datasets.catalog import Check, Description
from spicula.datasets.nlst_tables import (
    COLUMNS,
    Abnormality,
    Outcome,
    TableKind,
    find_tables,
    read_abnormality,
    read_outcomes,
    stream,
)  # fmt: skip
from spicula.datasets.places import NOWHERE
from spicula.datasets.verification import require_folder
from spicula.dicom.gaps import Gaps
from spicula.dicom.reader import Tilt
from spicula.formats import read_volume

DESCRIPTION = Description(
    name="nlst",
    title="National Lung Screening Trial (NLST), CT arm",
    contents="73,118 low-dose screening CTs of 26,254 participants in up to three yearly rounds; 177,500 noted "
    "abnormalities without coordinates, about 2,100 lung cancers with days to diagnosis. Readings made since add "
    "places and semantic features (938 CTs, 1,261 nodules in arXiv 2504.21344).",
    licence="images CC BY 4.0; the tables of CDAS on an approved request",
    size="11.3 TB (tables 70 MB)",
    url="https://www.cancerimagingarchive.net/collection/nlst",
    citation="National Lung Screening Trial Research Team, Reduced lung-cancer mortality with low-dose computed "
    "tomographic screening, N. Engl. J. Med. 365 (2011) 395-409, doi:10.1056/NEJMoa1102873; data "
    "doi:10.7937/TCIA.HMQ8-J677",
    layout=(
        "any names; a table is known by its columns, in ROOT or one folder below, .csv or .csv.gz",
        "nodules        optional: pid,nodule_id,image_path,coordX,coordY,coordZ,malignant and semantic features",
        "abnormalities  sct_abnormalities_*.csv or nlst_*_ctab_idc_*.csv: needed where there is no table of nodules",
        "participants   optional: participant_*.csv or nlst_*_prsn_*.csv: days to screens, diagnosis, last contact",
        "cancers        optional: lung_cancer_*.csv or nlst_*_canc_*.csv: checked against the participants",
        "**/PID/*1999*/...  optional: DICOM of participant and round (1999, 2000, 2001 for rounds 0, 1, 2)",
    ),
    patients=26254,
    scans=73118,
    findings=None,
)

Source: TypeAlias = Literal["auto", "nodules", "screens"]

YEARS = ("1999", "2000", "2001")
"""Years of the fictitious study dates of rounds 0, 1 and 2."""


def load_cases(
    root: str | Path, *, source: Source = "auto", gaps: Gaps = "error", tilt: Tilt = "error"
) -> Iterator[Case]:
    """Give images with located nodules, or screens with noted ones.

    Args:
        root: Folder as :attr:`DESCRIPTION.layout` lists it.
        source: ``"nodules"``: the table of nodules; ``"screens"``: the trial's table of abnormalities; ``"auto"``: the
            first of these that is there.
        gaps: As for :func:`spicula.formats.read_volume`.
        tilt: The same.

    Returns:
        Of nodules: Cases as :func:`spicula.datasets.nodule_csv.load_cases` gives them; ``truth`` holds the semantic
        features (:meth:`SemanticFeatures.from_truth` gives the words back) and ``label``, ``diameter_mm`` the mean
        of long and short diameter. Of screens: one Case for each participant and round with a nodule of at least
        4 mm, ``case_id`` ``PID_T0``; places are NaN, ``truth`` has ``margins``, ``attenuation`` and ``location`` as
        codes of :mod:`spicula.datasets.nlst_tables`, and of the *participant*, not the nodule,
        ``participant_cancer_1y`` and ``participant_days_to_cancer``.

    Raises:
        InputError: A table is missing, two are of one kind, or a row cannot be used; a word outside the vocabulary is
            named with its column and line.
    """
    root = require_folder(root)
    tables = find_tables(root)
    wanted: TableKind = (
        "nodules" if source == "nodules" or (source == "auto" and "nodules" in tables) else "abnormalities"
    )
    if wanted not in tables:
        raise InputError(f"{root}: no table of {wanted}", expected=f"a .csv with {', '.join(COLUMNS[wanted])}")
    if wanted == "nodules":
        return _nodule_cases(tables["nodules"], gaps=gaps, tilt=tilt)
    return _screen_cases(root, tables, read=partial(read_volume, gaps=gaps, tilt=tilt))


def load_outcomes(root: str | Path) -> Iterator[Outcome]:
    """Give what became of the participants after each screen, also of those without a nodule.

    Args:
        root: As for :func:`load_cases`.

    Returns:
        Outcomes in the order of the participants' table.

    Raises:
        InputError: There is no table of participants; while iterating: a row cannot be used.
    """
    root = require_folder(root)
    tables = find_tables(root)
    if "participants" not in tables:
        raise InputError(
            f"{root}: no table of participants", expected=f"a .csv with {', '.join(COLUMNS['participants'])}"
        )
    rows = stream(tables["participants"], COLUMNS["participants"])
    return (outcome for row in rows for outcome in read_outcomes(row))


def verify(root: str | Path, *, deep: bool = False) -> Iterator[Check]:
    """Check every row of every table against the dictionary, the tables against each other, and the nodules' places.

    Args:
        root: As for :func:`load_cases`.
        deep: Read the pixels of the images with nodules too, and look for tissue at each place.

    Returns:
        One Check after the other; a broken row is one of them.

    Raises:
        InputError: There is no such folder.
    """
    return _checks(require_folder(root), deep=deep)


def _nodule_cases(path: Path, *, gaps: Gaps, tilt: Tilt) -> Iterator[Case]:
    rows = {(row.pid, row.nodule_id): row for row in nodule_csv.read_nodules(path).rows}
    return (
        replace(case, findings=tuple(_described(f, path, rows[case.patient_id, f.id]) for f in case.findings))
        for case in nodule_csv.load_cases(path, gaps=gaps, tilt=tilt)
    )


def _described(finding: Finding, path: Path, row: nodule_csv.NoduleRow) -> Finding:
    """The finding with the words of its row in place of their raw cells."""
    features = _features(path, row)
    lengths = [mm for mm in (features.longest_diameter_mm, features.short_diameter_mm) if mm is not None]
    own = {column.lower() for feature in FEATURES.values() for column in feature.columns}
    truth = {name: value for name, value in finding.truth.items() if name.lower() not in own}
    diameter = sum(lengths) / 2 if len(lengths) == 2 else finding.diameter_mm
    return replace(finding, diameter_mm=diameter, truth=MappingProxyType(truth | features.as_truth()))


def _features(path: Path, row: nodule_csv.NoduleRow) -> SemanticFeatures:
    try:
        return SemanticFeatures.from_cells(row.extra)
    except InputError as error:
        raise InputError(f"{path}, line {row.line}: {error}") from error


def _screen_cases(root: Path, tables: Mapping[TableKind, Path], *, read: Callable[[Path], Volume]) -> Iterator[Case]:
    outcomes = {(o.pid, o.year): o for o in load_outcomes(root)} if "participants" in tables else {}
    folders = _studies(root)
    found = _abnormalities(tables["abnormalities"])
    for (pid, year), group in groupby(found, key=lambda item: (item.pid, item.year)):
        folder = folders.get((pid, year))
        load = partial(read, folder) if folder else partial(_no_images, pid, year)
        findings = tuple(_finding(item, outcomes.get((pid, year))) for item in group)
        yield Case(pid, load, findings, f"{pid}_T{year}")


def _abnormalities(path: Path) -> list[Abnormality]:
    """All nodules, by participant and round; about 50,000 in the whole trial."""
    found = [item for row in stream(path, COLUMNS["abnormalities"]) if (item := read_abnormality(row)) is not None]
    return sorted(found, key=lambda item: (item.pid, item.year, item.number))


def _finding(item: Abnormality, outcome: Outcome | None) -> Finding:
    truth = {"location": item.location, "margins": item.margins, "attenuation": item.attenuation}
    if outcome is not None:
        within = outcome.cancer_within()
        truth |= {
            "participant_cancer_1y": None if within is None else int(within),
            "participant_days_to_cancer": outcome.days_to_cancer,
        }
    lengths = {"longest_diameter_mm": item.long_mm, "short_diameter_mm": item.perpendicular_mm}
    known = {name: float(value) for name, value in (truth | lengths).items() if value is not None}
    both = None if item.long_mm is None or item.perpendicular_mm is None else (item.long_mm + item.perpendicular_mm) / 2
    attributes = {} if item.slice_number is None else {"slice_number": float(item.slice_number)}
    return Finding(
        str(item.number), NOWHERE, both, attributes=MappingProxyType(attributes), truth=MappingProxyType(known)
    )


def _studies(root: Path) -> dict[tuple[str, int], Path]:
    """Study folder of each participant and round: PID/DATE-... with the fictitious year of the round in its name."""
    found: dict[tuple[str, int], Path] = {}
    for folder, names, _ in os.walk(root):
        if Path(folder).name.isdigit() and len(Path(folder).name) == 6:
            for name in sorted(names):
                years = [year for year, word in enumerate(YEARS) if word in name]
                if len(years) == 1:
                    found.setdefault((Path(folder).name, years[0]), Path(folder, name))
            names.clear()
    return found


def _no_images(pid: str, year: int) -> Volume:
    raise InputError(
        f"participant {pid}, round {year}: there are no DICOM files", hint="docs/how-to/get-nlst.md says where"
    )


def _checks(root: Path, *, deep: bool) -> Iterator[Check]:
    try:
        tables = find_tables(root)
    except InputError as error:
        yield Check("broken", "tables", str(error), root)
        return
    for kind, path in tables.items():
        yield Check("ok", "tables", f"a table of {kind}", path)
    if not {"nodules", "abnormalities"} & set(tables):
        yield Check("missing", "tables", "neither a table of nodules nor one of abnormalities", root)
    if "nodules" in tables:
        yield from _nodule_checks(tables["nodules"], deep=deep)
    diagnosed: dict[str, str] = {}
    if "participants" in tables:
        yield from _participant_checks(tables["participants"], diagnosed)
    if "abnormalities" in tables:
        yield from _abnormality_checks(tables["abnormalities"])
    if {"cancers", "participants"} <= set(tables):
        yield from _cancer_checks(tables["cancers"], diagnosed)
    studies = _studies(root)
    if studies:
        yield Check("ok", "images", f"{len(studies):,} studies of {len({pid for pid, _ in studies}):,} participants")


def _nodule_checks(path: Path, *, deep: bool) -> Iterator[Check]:
    yield from nodule_csv.verify(path, deep=deep)
    try:
        table = nodule_csv.read_nodules(path)
    except InputError:
        return
    counts: Counter[str] = Counter()
    for row in table.rows:
        try:
            features = _features(path, row)
        except InputError as error:
            yield Check("broken", "words", str(error), path, row.line)
            continue
        counts.update(name for name in FEATURES if features.words(name))
    known = ", ".join(f"{name} {count}" for name, count in counts.items())
    yield Check("ok", "words", f"nodules with each feature, of {len(table.rows)}: {known or 'none'}", path)


def _participant_checks(path: Path, diagnosed: dict[str, str]) -> Iterator[Check]:
    seen: Counter[str] = Counter()
    try:
        for row in stream(path, COLUMNS["participants"]):
            try:
                read_outcomes(row)
                seen[row.text("pid")] += 1
                if row["candx_days"]:
                    diagnosed[row["pid"]] = row["candx_days"]
            except InputError as error:
                yield Check("broken", "participants", str(error), path, row.line)
    except InputError as error:
        yield Check("broken", "participants", str(error), path)
    twice = [pid for pid, count in seen.items() if count > 1]
    if twice:
        yield Check("broken", "participants", f"{len(twice)} are there twice, the first {twice[0]}", path)
    yield Check("ok", "participants", f"{len(seen):,}, {len(diagnosed):,} with lung cancer", path)


def _abnormality_checks(path: Path) -> Iterator[Check]:
    rows = nodules = 0
    seen: set[tuple[str, str, str]] = set()
    try:
        for row in stream(path, COLUMNS["abnormalities"]):
            rows += 1
            key = row["pid"], row["study_yr"], row["sct_ab_num"]
            if key in seen:
                yield Check("broken", "abnormalities", f"{row.where}: number {key[2]} of {key[0]} is there twice", path)
            seen.add(key)
            try:
                nodules += read_abnormality(row) is not None
            except InputError as error:
                yield Check("broken", "abnormalities", str(error), path, row.line)
    except InputError as error:
        yield Check("broken", "abnormalities", str(error), path)
    yield Check("ok", "abnormalities", f"{rows:,}, of these {nodules:,} nodules or masses of at least 4 mm", path)


def _cancer_checks(path: Path, diagnosed: Mapping[str, str]) -> Iterator[Check]:
    first: dict[str, str] = {}
    try:
        for row in stream(path, COLUMNS["cancers"]):
            if row["lc_order"] in ("", "1", "1.0"):
                first.setdefault(row["pid"], row["candx_days"])
    except InputError as error:
        yield Check("broken", "cancers", str(error), path)
        return
    apart = sorted(pid for pid in first if first[pid] != diagnosed.get(pid, ""))
    if apart:
        message = f"{len(apart)} participants have another day of diagnosis there than here, the first {apart[0]}"
        yield Check("broken", "cancers", message, path)
    else:
        yield Check("ok", "cancers", f"{len(first):,} participants, as in their table", path)
