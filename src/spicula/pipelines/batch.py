"""One or many scans to files: reports, SR and SEG written whole, failures kept as rows, done work not redone."""

from __future__ import annotations

import csv
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spicula import __version__
from spicula.core.analysis import Analysis
from spicula.core.errors import InputError, SpiculaError, SpiculaWarning, disk_error
from spicula.core.files import folder_written_aside, written_aside
from spicula.dicom.archive import SEPARATOR
from spicula.dicom.seg import write_seg
from spicula.dicom.sr import write_sr
from spicula.formats.scans import Scan, find_scans
from spicula.pipelines.analyze import LIMIT, analyze
from spicula.pipelines.models import Models, load_models
from spicula.report.html import write_html
from spicula.report.record import SUMMARY_COLUMNS, summary_row, write_record

REPORT = "report.json"
SUMMARY = "summary.csv"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one scan of a batch.

    Args:
        scan_id: Series Instance UID, or file stem and short hash.
        path: The input.
        folder: Where its files are.
        status: ``"done"``, ``"kept"`` (done by an earlier run) or ``"failed"``.
        reason: Why it failed; empty otherwise.
        analysis: The result; None where it failed or was kept.
    """

    scan_id: str
    path: Path
    folder: Path
    status: str
    reason: str = ""
    analysis: Analysis | None = None


def write_outputs(analysis: Analysis, folder: Path, *, job: str = "") -> Analysis:
    """Write ``report.json`` and ``report.html`` and, for a DICOM input, ``sr.dcm`` and ``seg.dcm``, all or none.

    Args:
        analysis: The result.
        folder: Where the files go; older ones of the same names are removed or replaced.
        job: Identity of input and options, for :func:`analyze_paths`.

    Returns:
        The analysis, with a warning where the source's headers did not allow an SR or SEG.
    """
    outputs = {"html": "report.html"}
    with folder_written_aside(folder, replaces=("seg.dcm", "sr.dcm", "report.html", REPORT)) as aside:
        notes = _write_dicom(analysis, aside, outputs)
        analysis = replace(analysis, warnings=(*analysis.warnings, *notes))
        write_html(aside / "report.html", analysis)
        write_record(aside / REPORT, analysis, outputs=outputs, job=job)
    return analysis


def _write_dicom(analysis: Analysis, folder: Path, outputs: dict[str, str]) -> list[str]:
    """Write SR and SEG where there are source images, add them to ``outputs``; what was odd or left out, in words."""
    acquisition = analysis.volume.acquisition
    if not any(acquisition.instances):
        if acquisition.format == "DICOM":
            return ["The series was resampled: no source slices are left that an SR or SEG could refer to."]
        return []
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SpiculaWarning)
        for kind, write in (("sr", write_sr), ("seg", write_seg)):
            try:
                if write(folder / f"{kind}.dcm", analysis) is not False:
                    outputs[kind] = f"{kind}.dcm"
            except SpiculaError as error:
                notes.append(f"{kind}.dcm was not written: {error}")
    return [*(str(w.message) for w in caught if issubclass(w.category, SpiculaWarning)), *notes]


def analyze_paths(
    paths: Sequence[Path],
    out: Path,
    *,
    all_series: bool = False,
    gaps: str = "error",
    tilt: str = "error",
    limit: int = LIMIT,
    models: Models | None = None,
    progress: Callable[[int, int, Outcome], None] | None = None,
) -> list[Outcome]:
    """Analyze one or many inputs and write their files.

    One scan goes straight into ``out`` and its error is raised. Of several, each goes into ``out/<scan id>``, a
    failure is a row of ``out/summary.csv``, and what an earlier run of the same version and bundles finished is kept.

    Args:
        paths: Anything that ``spicula analyze`` takes.
        out: Folder for the files.
        all_series: Analyze every usable series of a folder, not its best one.
        gaps: What to do about missing or irregular slices: ``"error"``, ``"warn"`` or ``"interpolate"``.
        tilt: What to do about a tilted gantry: ``"error"``, ``"resample"`` or ``"keep"``.
        limit: Most findings a scan.
        models: The bundles in use; the shipped ones if None.
        progress: Called after each scan with how many are through, how many there are and the outcome.

    Returns:
        What became of each scan, in order.

    Raises:
        SpiculaError: The only input failed.
        InputError: There is no input at all.
    """
    if not paths:
        raise InputError("no input", expected="one or more paths")
    require_folder(out)
    models = models or load_models()
    jobs = list(_jobs(paths, all_series=all_series))
    options = {"gaps": gaps, "tilt": tilt, "limit": limit}
    if len(jobs) == 1:
        outcome = _run(jobs[0], out, options, models, resume=False)
        if progress:
            progress(1, 1, outcome)
        return [outcome]
    outcomes = []
    for number, job in enumerate(jobs, start=1):
        folder = out / job.scan_id
        try:
            outcome = _run(job, folder, options, models, resume=True)
        except Exception as error:  # whatever one scan does, the others go on
            outcome = Outcome(job.scan_id, job.path, folder, "failed", _reason(error))
        outcomes.append(outcome)
        write_summary(out / SUMMARY, outcomes)
        if progress:
            progress(number, len(jobs), outcome)
    return outcomes


def _reason(error: Exception) -> str:
    if isinstance(error, SpiculaError):
        return str(error)
    full = disk_error(error)
    if full is not None:
        return f"{full.filename or 'output'}: {full.strerror}"
    return f"unexpected {type(error).__name__}: {error}".splitlines()[0]


def require_folder(out: Path) -> None:
    """Refuse an output folder that cannot be one, before any work is done.

    Raises:
        InputError: A file is in its way.
    """
    blocking = next((place for place in (out, *out.parents) if place.exists()), None)
    if blocking is not None and not blocking.is_dir():
        raise InputError(f"--out {out}", got=f"the file {blocking}", expected="a folder or a new name")


@dataclass(frozen=True, slots=True)
class _Job:
    """A scan to analyze, or the error that its path gave."""

    scan_id: str
    path: Path
    scan: Scan | SpiculaError


def _jobs(paths: Sequence[Path], *, all_series: bool) -> Iterator[_Job]:
    """One job for each scan; a path given twice counts once, a series found at two paths gets a hash of its path."""
    seen: set[str] = set()
    for path in dict.fromkeys(path.resolve() for path in paths):
        try:
            scans = find_scans(path, all_series=all_series)
        except SpiculaError as error:
            if len(paths) == 1:
                raise
            yield _Job(path.name, path, error)
            continue
        for scan in scans:
            name = scan.scan_id
            if name in seen:
                name += "-" + hashlib.sha256(str(path).encode()).hexdigest()[:8]
            seen.add(name)
            yield _Job(name, scan.path, scan)


def _run(job: _Job, folder: Path, options: Mapping[str, Any], models: Models, *, resume: bool) -> Outcome:
    if isinstance(job.scan, SpiculaError):
        raise job.scan
    identity = _identity(job.scan, options, models)
    if resume and _is_done(folder, identity):
        return Outcome(job.scan_id, job.path, folder, "kept")
    volume = job.scan.load(gaps=options["gaps"], tilt=options["tilt"])
    analysis = analyze(volume, models=models, limit=options["limit"])
    analysis = write_outputs(analysis, folder, job=identity)
    return Outcome(job.scan_id, job.path, folder, "done", analysis=analysis)


def _identity(scan: Scan, options: Mapping[str, Any], models: Models) -> str:
    """A hash that changes with the input's place, files and instances, the options, the bundles and the version."""
    made_by = [*sorted(models.fingerprints), models.malignancy_by, *([models.index] if models.index else [])]
    facts: list[Any] = [__version__, made_by, sorted(options.items()), str(scan.path.resolve())]
    if scan.series is None:
        stat = scan.path.stat()
        facts.append([stat.st_size, stat.st_mtime_ns])
    else:
        facts.append([[i.sop_instance_uid, i.frame, _size(i.path)] for i in scan.series.instances])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _size(path: str) -> int:
    """Size of an instance's file; of its archive for a member of a zip."""
    return Path(path.split(SEPARATOR)[0]).stat().st_size


def _is_done(folder: Path, identity: str) -> bool:
    """True where an earlier run left a whole report of the same input, options, bundles and version."""
    try:
        return bool(json.loads((folder / REPORT).read_text(encoding="utf-8"))["job"] == identity)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_summary(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write ``summary.csv``, one row a scan, aside and then into place."""
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=SUMMARY_COLUMNS)
        writer.writeheader()
        for outcome in outcomes:
            writer.writerow(
                summary_row(outcome.folder / REPORT, outcome.scan_id, str(outcome.path), outcome.status, outcome.reason)
            )
