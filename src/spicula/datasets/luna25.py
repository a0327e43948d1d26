"""LUNA25: 6,163 nodules of the National Lung Screening Trial with proven outcome, and the challenge's own JSON.

The public part is a table and a folder of scans; the patient of a Case is the participant of NLST, who has up to
three yearly scans: split by patient, never by scan. The blocks around each nodule that are published beside the scans
are pickled and are not read.

The challenge hands an algorithm one scan at a time as a folder (:func:`load_job`) and takes its answer as JSON, whose
file name is misspelled by the challenge (:func:`write_likelihoods`).

References:
    https://luna25.grand-challenge.org; Peeters et al., LUNA25 public training and development set,
    doi:10.5281/zenodo.14223624 (images), doi:10.5281/zenodo.14673658 (table).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from spicula.core.errors import InputError
from spicula.core.finding import Case, Finding, Point
from spicula.core.prediction import Prediction
from spicula.core.volume import Volume
from spicula.datasets.catalog import Check, Description
from spicula.datasets.places import Tally, place_checks, tally_checks
from spicula.datasets.verification import count_check, parsed_rows, require_folder, table_or_check
from spicula.formats import metaimage
from spicula.formats.grand_challenge import read_json, read_points, write_points
from spicula.formats.pixels import check_plausible
from spicula.formats.table import Row, read_table

DESCRIPTION = Description(
    name="luna25",
    title="LUNA25, public training and development set",
    contents="4,069 low-dose chest CT scans of 2,120 participants of NLST with 6,163 marked nodules, 555 malignant: "
    "3,762 nodules seen once or in several years, 348 of them malignant.",
    licence="CC BY 4.0",
    size="about 230 GB",
    url="https://luna25.grand-challenge.org",
    citation="Peeters et al., The LUNA25 Challenge: Public Training and Development set, Zenodo (2025), "
    "doi:10.5281/zenodo.14223624",
    layout=(
        "LUNA25_Public_Training_Development_Data.csv  6,163 nodules",
        "luna25_images/SERIESUID.mha                  4,069 scans (also images/chest-ct/)",
    ),
    patients=2120,
    scans=4069,
    findings=6163,
)

MALIGNANT, NODULES, MALIGNANT_NODULES = 555, 3762, 348
"""Published: malignant marks; nodules over the years; malignant ones of these."""

COLUMNS = (
    "PatientID", "SeriesInstanceUID", "StudyDate", "CoordX", "CoordY", "CoordZ", "LesionID", "AnnotationID", "NoduleID",
    "label", "Age_at_StudyDate", "Gender",
)  # fmt: skip

TABLE = "LUNA25_Public_Training_Development_Data.csv"
LOCATIONS = "nodule-locations.json"
CLINICAL = "clinical-information-lung-ct.json"
LIKELIHOODS = "lung-nodule-malginancy-likelihoods.json"
"""The challenge's own spelling."""

_FOLDERS = ("luna25_images", "images/chest-ct", "images")


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row of the table.

    Args:
        annotation_id: A nodule on one scan: ``"100471_3_20000102"``.
        nodule_id: A nodule over the years: ``"100471_3"``.
        lesion_id: Its number within the patient.
        patient_id: Participant of NLST.
        series_uid: The scan.
        study_date: YYYYMMDD; shifted by the source, but in order within a patient.
        center_xyz_mm: LPS mm.
        malignant: Lung cancer, by the follow-up of the trial.
        age: Years at the scan, None where unknown.
        gender: ``"F"``, ``"M"`` or empty.
        line: Line of the table.
    """

    annotation_id: str
    nodule_id: str
    lesion_id: int
    patient_id: str
    series_uid: str
    study_date: str
    center_xyz_mm: Point
    malignant: bool
    age: float | None
    gender: str
    line: int

    def finding(self) -> Finding:
        """The nodule on this scan as a Finding: ``truth["label"]`` 1 where malignant."""
        attributes = _facts(self.age, self.gender)
        return Finding(
            self.annotation_id, self.center_xyz_mm, attributes=attributes, truth={"label": float(self.malignant)}
        )


@dataclass(frozen=True, slots=True)
class Clinical:
    """What the challenge tells of the patient.

    Args:
        age: Years, None where unknown.
        gender: ``"F"``, ``"M"`` or empty.
        extra: Everything else in the file, as it is.
    """

    age: float | None
    gender: str
    extra: Mapping[str, object]


def load_cases(root: str | Path) -> Iterator[Case]:
    """Give the scans one after the other; pixels are read on demand.

    A scan of the table whose file is missing still is a Case; only its ``load_volume`` fails.

    Args:
        root: Folder as :attr:`DESCRIPTION.layout` lists it.

    Returns:
        Cases in the order of the table: ``case_id`` is the series UID, a finding's id its AnnotationID.

    Raises:
        InputError: There is no table, a row cannot be used, or a scan is said to be of two patients.
    """
    root = require_folder(root)
    scans: dict[str, list[Annotation]] = {}
    for annotation in read_annotations(root):
        group = scans.setdefault(annotation.series_uid, [])
        if group and group[0].patient_id != annotation.patient_id:
            raise InputError(
                f"{root / TABLE}, line {annotation.line}: PatientID", got=annotation.patient_id,
                expected=f"{group[0].patient_id}, the patient of that scan in line {group[0].line}",
            )  # fmt: skip
        group.append(annotation)
    images = _images(root)
    return (_case(images, group) for group in scans.values())


def read_annotations(root: str | Path) -> tuple[Annotation, ...]:
    """Read every row of the table with all its columns.

    Args:
        root: As for :func:`load_cases`.

    Returns:
        In the order of the table.

    Raises:
        InputError: There is no table, a row cannot be used, or an AnnotationID is there twice.
    """
    path = _table(require_folder(root))
    annotations = tuple(_annotation(row) for row in read_table(path, required=COLUMNS))
    seen: dict[str, int] = {}
    for annotation in annotations:
        first = seen.setdefault(annotation.annotation_id, annotation.line)
        if first != annotation.line:
            raise InputError(
                f"{path}, line {annotation.line}: AnnotationID", got=f"{annotation.annotation_id} again",
                expected=f"each once; it is in line {first} too",
            )  # fmt: skip
    return annotations


def load_job(folder: str | Path) -> Case:
    """Read what the challenge hands to an algorithm: one scan, its nodules' places, age and gender.

    Args:
        folder: With ``images/chest-ct/*.mha``, ``nodule-locations.json`` and ``clinical-information-lung-ct.json``.

    Returns:
        A Case of the findings in the order of the file, age and gender among their attributes; ``patient_id`` and
        ``case_id`` are the stem of the scan's file, the only name there is.

    Raises:
        InputError: A file is missing or broken, or there is not exactly one scan.
    """
    folder = require_folder(folder)
    scans = sorted((folder / "images" / "chest-ct").glob("*.mha"))
    if len(scans) != 1:
        raise InputError(f"{folder / 'images' / 'chest-ct'}: scans", got=len(scans), expected="one .mha file")
    clinical = read_clinical(folder / CLINICAL)
    facts = _facts(clinical.age, clinical.gender)
    findings = tuple(replace(finding, attributes=facts) for finding in read_points(folder / LOCATIONS))
    uid = scans[0].stem
    return Case(uid, partial(_load, scans[0], uid, uid, ""), findings, uid)


def read_clinical(path: str | Path) -> Clinical:
    """Read ``clinical-information-lung-ct.json``.

    Args:
        path: The file.

    Returns:
        Age and gender, and what else it holds.

    Raises:
        InputError: It cannot be read, or the age is not a number of years.
    """
    content = dict(read_json(path))
    age, gender = content.pop("age", None), content.pop("gender", None)
    known = isinstance(age, int | float) and not isinstance(age, bool) and 0 <= age <= 130
    if age is not None and not known:
        raise InputError(f"{path}: age", got=repr(age), expected="years, or null")
    return Clinical(None if age is None else float(age), _gender(str(gender or "")), MappingProxyType(content))


def write_likelihoods(path: str | Path, findings: Sequence[Finding], predictions: Iterable[Prediction]) -> None:
    """Write the answer that the challenge expects.

    Args:
        path: The file, or the folder to write :data:`LIKELIHOODS` into.
        findings: The nodules that were asked for, as :func:`load_job` gives them; their order is kept.
        predictions: One of target ``"malignancy"`` for each finding; those of other targets are passed over.

    Raises:
        InputError: A finding has no prediction or two, a prediction is of no finding, or a probability is not a finite
            number from 0 to 1.
    """
    path = Path(path)
    path = path / LIKELIHOODS if path.is_dir() else path
    found: dict[str, float] = {}
    for prediction in predictions:
        if prediction.target != "malignancy":
            continue
        if prediction.finding_id in found:
            raise InputError(f"{path}: finding {prediction.finding_id}", got="two predictions", expected="one")
        found[prediction.finding_id] = prediction.probability
    wanted = [finding.id for finding in findings]
    for name in sorted(set(found) ^ set(wanted)):
        got = "a prediction of a finding that was not asked for" if name in found else "no prediction"
        raise InputError(f"{path}: finding {name}", got=got, expected="one prediction for each finding")
    write_points(path, findings, [found[name] for name in wanted])


def read_likelihoods(path: str | Path) -> tuple[Finding, ...]:
    """Read an answer back; the probability of malignancy is in ``Finding.score``.

    Args:
        path: The file, or the folder that holds :data:`LIKELIHOODS`.

    Returns:
        In the order of the file.

    Raises:
        InputError: As :func:`spicula.formats.grand_challenge.read_points`.
    """
    path = Path(path)
    return read_points(path / LIKELIHOODS if path.is_dir() else path, probabilities=True)


def verify(root: str | Path, *, deep: bool = False) -> Iterator[Check]:
    """Check the counts against the published ones, every row, every scan's header and that nodules lie inside.

    Args:
        root: As for :func:`load_cases`.
        deep: Read all pixels too, and look for tissue at each nodule (some hours on one core).

    Returns:
        One Check after the other; a broken file is one of them.

    Raises:
        InputError: There is no such folder.
    """
    return _checks(require_folder(root), deep=deep)


def _table(root: Path) -> Path:
    gzipped = root / f"{TABLE}.gz"
    return gzipped if gzipped.is_file() else root / TABLE


def _images(root: Path) -> Path:
    """The folder of the scans: the first that holds one, else as published."""
    folders = (root / name for name in _FOLDERS)
    return next((folder for folder in folders if next(folder.glob("*.mha"), None)), root / _FOLDERS[0])


def _annotation(row: Row) -> Annotation:
    label = row.whole("label")
    if label not in (0, 1):
        raise InputError(f"{row.where}: label", got=label, expected="0 (benign) or 1 (malignant)")
    date = row.text("StudyDate").removesuffix(".0")
    if not (len(date) == 8 and date.isdigit()):
        raise InputError(f"{row.where}: StudyDate", got=repr(date), expected="YYYYMMDD")
    return Annotation(
        annotation_id=row.text("AnnotationID"),
        nodule_id=row.text("NoduleID"),
        lesion_id=row.whole("LesionID"),
        patient_id=row.text("PatientID"),
        series_uid=row.text("SeriesInstanceUID"),
        study_date=date,
        center_xyz_mm=(row.number("CoordX"), row.number("CoordY"), row.number("CoordZ")),
        malignant=label == 1,
        age=row.number_or_none("Age_at_StudyDate"),
        gender=_gender(row["Gender"]),
        line=row.line,
    )


def _gender(written: str) -> str:
    return {"F": "F", "M": "M"}.get(written.strip().upper()[:1], "")


def _facts(age: float | None, gender: str) -> dict[str, float]:
    facts = {} if age is None else {"age_years": age}
    return facts | {"female": float(gender == "F")} if gender else facts


def _case(images: Path, group: Sequence[Annotation]) -> Case:
    first = group[0]
    load = partial(_load, images / f"{first.series_uid}.mha", first.series_uid, first.patient_id, first.study_date)
    return Case(first.patient_id, load, tuple(annotation.finding() for annotation in group), first.series_uid)


def _load(path: Path, uid: str, patient: str, date: str) -> Volume:
    volume = metaimage.read(path)
    check_plausible(volume, path=path)
    facts = replace(volume.acquisition, patient_id=patient, study_date=date, modality="CT")
    return replace(volume, series_uid=uid, acquisition=facts)


def _checks(root: Path, *, deep: bool) -> Iterator[Check]:
    path = _table(root)
    table, problems = table_or_check(path, name=TABLE, required=COLUMNS)
    yield from problems
    rows: list[Annotation] = []
    yield from parsed_rows(table, _annotation, what=TABLE, found=rows)
    if table is not None:
        malignant = [row for row in rows if row.malignant]
        for what, values, published in (
            ("nodules on scans", [row.annotation_id for row in rows], 6163),
            ("malignant nodules on scans", [row.annotation_id for row in malignant], MALIGNANT),
            ("nodules", [row.nodule_id for row in rows], NODULES),
            ("malignant nodules", [row.nodule_id for row in malignant], MALIGNANT_NODULES),
            ("scans in the table", [row.series_uid for row in rows], 4069),
            ("patients", [row.patient_id for row in rows], 2120),
        ):
            yield count_check(what, len(set(values)), published, path=path)
        yield from _row_checks(path, rows)
    yield from _scan_checks(_images(root), rows, deep=deep)


def _row_checks(path: Path, rows: Sequence[Annotation]) -> Iterator[Check]:
    """Ids that come twice or do not fit together, labels and patients that contradict each other."""
    seen: dict[str, int] = {}
    labels: dict[str, bool] = {}
    patients: dict[str, str] = {}
    for row in rows:
        if seen.setdefault(row.annotation_id, row.line) != row.line:
            message = f"{row.annotation_id} is in line {seen[row.annotation_id]} too"
            yield Check("broken", "AnnotationID", message, path, row.line)
        if (
            row.nodule_id != f"{row.patient_id}_{row.lesion_id}"
            or row.annotation_id != f"{row.nodule_id}_{row.study_date}"
        ):
            message = f"{row.annotation_id} is not made of patient, lesion and date"
            yield Check("warning", "AnnotationID", message, path, row.line)
        if labels.setdefault(row.nodule_id, row.malignant) != row.malignant:
            yield Check("warning", "label", f"{row.nodule_id} is benign and malignant", path, row.line)
        if patients.setdefault(row.series_uid, row.patient_id) != row.patient_id:
            yield Check("broken", "PatientID", f"scan {row.series_uid} is of two patients", path, row.line)


def _scan_checks(images: Path, rows: Sequence[Annotation], *, deep: bool) -> Iterator[Check]:
    groups: dict[str, list[Annotation]] = {}
    for row in rows:
        groups.setdefault(row.series_uid, []).append(row)
    tally = Tally()
    good, seen = 0, set()
    for path in sorted(images.glob("*.mha")):
        uid = path.stem
        seen.add(uid)
        if rows and uid not in groups:
            yield Check("warning", "image", "the table has no nodule of it", path)
        findings = tuple(row.finding() for row in groups.get(uid, ()))
        case = Case(uid, partial(_load, path, uid, "", ""), findings, uid)
        problems = list(place_checks(case, path, deep=deep, tally=tally))
        good += not any(problem.state == "broken" for problem in problems)
        yield from problems
    yield from tally_checks(tally, convention="LPS")
    missing = sorted(set(groups) - seen)
    if missing:
        message = f"{len(missing)} of {len(groups)} are not there, the first {missing[0]}"
        yield Check("missing", "scans", message, images)
    yield count_check("sound scans" if deep else "scans with a sound header", good, 4069, path=images)
