"""One or many scans to files: reports, SR and SEG written whole, failures kept as rows, done work not redone."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spicula import __version__
from spicula.core.analysis import Analysis
from spicula.core.errors import InputError, SpiculaError
from spicula.core.files import folder_written_aside, written_aside
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


def write_outputs(analysis: Analysis, folder: Path) -> None:
    """Write ``report.json`` and ``report.html`` and, for a DICOM input, ``sr.dcm`` and ``seg.dcm``, all or none.

    Args:
        analysis: The result.
        folder: Where the files go; older ones of the same names are replaced.
    """
    outputs = {"html": "report.html"}
    with folder_written_aside(folder) as aside:
        if any(analysis.volume.acquisition.instances):
            write_sr(aside / "sr.dcm", analysis)
            outputs["sr"] = "sr.dcm"
            if write_seg(aside / "seg.dcm", analysis):
                outputs["seg"] = "seg.dcm"
        write_html(aside / "report.html", analysis)
        write_record(aside / REPORT, analysis, outputs=outputs)


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
        try:
            outcome = _run(job, out / job.scan_id, options, models, resume=True)
        except (SpiculaError, OSError, MemoryError) as error:
            reason = str(error) or type(error).__name__
            outcome = Outcome(job.scan_id, job.path, out / job.scan_id, "failed", reason)
        outcomes.append(outcome)
        write_summary(out / SUMMARY, outcomes)
        if progress:
            progress(number, len(jobs), outcome)
    return outcomes


@dataclass(frozen=True, slots=True)
class _Job:
    """A scan to analyze, or the error that its path gave."""

    scan_id: str
    path: Path
    scan: Scan | SpiculaError


def _jobs(paths: Sequence[Path], *, all_series: bool) -> Iterator[_Job]:
    """One job for each scan; a path given twice counts once, a series found at two paths gets a number."""
    counts: Counter[str] = Counter()
    for path in dict.fromkeys(path.resolve() for path in paths):
        try:
            scans = find_scans(path, all_series=all_series)
        except SpiculaError as error:
            if len(paths) == 1:
                raise
            yield _Job(path.name, path, error)
            continue
        for scan in scans:
            counts[scan.scan_id] += 1
            number = counts[scan.scan_id]
            yield _Job(scan.scan_id + (f"-{number}" if number > 1 else ""), scan.path, scan)


def _run(job: _Job, folder: Path, options: Mapping[str, Any], models: Models, *, resume: bool) -> Outcome:
    if isinstance(job.scan, SpiculaError):
        raise job.scan
    if resume and _is_done(folder, models):
        return Outcome(job.scan_id, job.path, folder, "kept")
    volume = job.scan.load(gaps=options["gaps"], tilt=options["tilt"])
    analysis = analyze(volume, models=models, limit=options["limit"])
    write_outputs(analysis, folder)
    return Outcome(job.scan_id, job.path, folder, "done", analysis=analysis)


def _is_done(folder: Path, models: Models) -> bool:
    """True where an earlier run of this version and these bundles left a whole report."""
    try:
        record = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return record["version"] == __version__ and sorted(record["bundles"]) == sorted(models.fingerprints)
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
