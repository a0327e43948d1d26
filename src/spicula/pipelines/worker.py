"""A worker: takes jobs from the queue of a store one after the other and does them, whatever they do to it.

A thread tells that the worker is alive while a job runs. A job that was cancelled, or given to another worker because
this one was silent for too long, is left as it is: what it keeps is kept under the job's own id, so that doing it twice
keeps it once. What is wrong with the images themselves does not get better by another try: it is set aside at once.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from spicula.core.errors import InputError, SpiculaError
from spicula.core.files import ASIDE
from spicula.pipelines.ingest import ingest
from spicula.pipelines.workplace import Workplace
from spicula.store.jobs import ALIVE_S, Cancelled, Job

ANALYZE, IMPORT = "analyze", "import"
"""Kinds of jobs."""

ANALYSES_FOLDER = "analyses"

Tell: TypeAlias = Callable[[float, str], None]
"""Takes how far a job is, 0 to 1, and what it is doing; raises :class:`Cancelled` where it is to stop."""

Handler: TypeAlias = Callable[[Workplace, Job, Tell], Mapping[str, Any]]


def worker_name() -> str:
    """A name that no other worker has."""
    return f"{socket.gethostname()[:24]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def work(
    place: Workplace, *, name: str | None = None, stop: threading.Event | None = None, idle_s: float = 1.0,
    once: bool = False, at_most: Mapping[str, int] | None = None, handlers: Mapping[str, Handler] | None = None,
) -> int:  # fmt: skip
    """Do jobs until told to stop.

    Args:
        place: The store.
        name: Of the worker.
        stop: Set from elsewhere to stop; the job at hand is put back at its next word.
        idle_s: How long to wait where nothing is to be done.
        once: Stop where nothing is to be done.
        at_most: How many jobs of a kind may run at a time, over all workers.
        handlers: What does the jobs of each kind; :data:`HANDLERS` if None.

    Returns:
        How many jobs it ended, well or badly.
    """
    name, stop, handlers = name or worker_name(), stop or threading.Event(), handlers or HANDLERS
    done = 0
    while not stop.is_set():
        try:
            job = place.queue.take(name, kinds=tuple(handlers), at_most=at_most)
            if job is not None:
                _do(place, job, name, handlers[job.kind], stop)
                done += 1
                continue
        except OperationalError:  # the database is away: a job at hand is taken up again once it seems dead
            if once:
                raise
            stop.wait(idle_s)
            continue
        if once:
            break
        stop.wait(idle_s)
    return done


class _Stopped(Exception):
    """Raised in a worker that is to stop now."""


def _do(place: Workplace, job: Job, name: str, handler: Handler, stop: threading.Event) -> None:
    ended = threading.Event()
    lost = threading.Event()

    def alive() -> None:
        while not ended.wait(ALIVE_S / 4):
            try:
                place.queue.tell(job, name)
            except Cancelled:
                lost.set()
                return
            except Exception:  # the database is away for a moment: the next time may do
                continue

    def tell(progress: float, message: str) -> None:
        if lost.is_set():
            raise Cancelled(job.id)
        if stop.is_set():
            raise _Stopped
        place.queue.tell(job, name, progress=progress, message=message)

    beating = threading.Thread(target=alive, daemon=True)
    beating.start()
    try:
        result = handler(place, job, tell)
        place.queue.end(job, name, result)
    except Cancelled:
        pass
    except _Stopped:
        with suppress(Cancelled):
            place.queue.give_back(job, name)
    except Exception as error:  # whatever one job does, the worker goes on
        with suppress(Cancelled):
            hopeless = isinstance(error, InputError) and job.kind in (IMPORT, ANALYZE)
            place.queue.fail(job, name, reason_of(error), again=not hopeless)
    finally:
        ended.set()
        beating.join()


def reason_of(error: Exception) -> str:
    """Why a job failed, for people: our own errors as they are, others with their kind.

    What a database says holds the values that it refuses, names of patients too: of that, the kind alone.
    """
    if isinstance(error, SQLAlchemyError):
        return f"the database refused it ({type(error).__name__})"
    return str(error) if isinstance(error, SpiculaError) else f"{type(error).__name__}: {error}"


def ask_analysis(place: Workplace, study_uid: str, *, by: str, once: bool = False) -> Job:
    """Ask for a study to be analyzed; the same job while one is open, or (``once``) was done.

    Raises:
        InputError: There is no such study.
    """
    place.studies.get(study_uid)
    return place.queue.ask(ANALYZE, study_uid, {"study_uid": study_uid}, by=by, once=once)


def ask_import(place: Workplace, source: Path, *, by: str, remove: Path | None = None) -> Job:
    """Ask for a folder, file or zip to be brought into the store and its studies to be analyzed.

    Args:
        place: The store.
        source: What came.
        by: User.
        remove: What is removed once it is in the store; None for nothing.
    """
    task = {"source": str(source), "remove": None if remove is None else str(remove)}
    return place.queue.ask(IMPORT, str(source), task, by=by)


def _import(place: Workplace, job: Job, tell: Tell) -> Mapping[str, Any]:
    from spicula.pipelines.arrivals import after_arrival

    source = Path(job.task["source"])

    def progress(done: int, whole: int) -> None:
        if done % 20 == 0 or done == whole:
            tell(done / whole, f"{done} of {whole} files")

    remove = job.task.get("remove")
    try:
        found = ingest(source, place.studies, origin="upload", progress=progress, deidentify=place.secret)
    except InputError:
        if remove:
            shutil.rmtree(remove, ignore_errors=True)
        raise
    asked = []
    for study_uid in found.studies:
        anew = found.added > 0 or job.tries > 1
        name = after_arrival(place, study_uid, by=job.created_by, anew=anew, since=job.created_at)
        asked += [] if name is None else [name]
    if remove:
        shutil.rmtree(remove, ignore_errors=True)
    return {
        "added": found.added, "known": found.known, "left_out": found.left_out, "failed": found.failed,
        "refused": list(found.refused), "studies": list(found.studies), "analyses": asked,
    }  # fmt: skip


def _analyze(place: Workplace, job: Job, tell: Tell) -> Mapping[str, Any]:
    from spicula.formats import find_scans
    from spicula.pipelines.analyze import analyze
    from spicula.pipelines.batch import write_outputs
    from spicula.pipelines.follow_up import LUNGS, lungs_box
    from spicula.pipelines.stored_content import contents
    from spicula.report.record import to_record

    study_uid = str(job.task["study_uid"])
    for known in place.findings.analyses(study_uid):
        if known["id"] == job.id:  # a worker died between keeping it and saying so
            return _told(place, known)
    name = f"{ANALYSES_FOLDER}/{job.id}-{job.tries}"  # of this try: another worker's files are not touched
    folder, aside = place.folder / name, place.folder / f"{ASIDE}{job.id}-{job.tries}"
    tell(0.02, "reading the series")
    try:
        gathered(place, study_uid, aside)
        scan = find_scans(aside)[0]
        volume = scan.load()
        tell(0.1, "looking for nodules")
        analysis = analyze(volume)
        tell(0.9, "writing the report")
        shutil.rmtree(folder, ignore_errors=True)
        analysis = write_outputs(analysis, folder, job=job.id)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    try:
        tell(0.95, "keeping the findings")
        record = to_record(analysis, job=job.id)
        record = {**record, "findings": contents(analysis, record["findings"]), LUNGS: lungs_box(volume)}
        about = {"study_uid": study_uid, "series_uid": volume.series_uid}
        place.findings.keep_analysis(job.id, **about, record=record, folder=name)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return _told(place, {**about, "id": job.id, "folder": name})


def _told(place: Workplace, analysis: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the job of an analysis gives."""
    from spicula.pipelines.batch import REPORT

    findings = place.findings.of_study(str(analysis["study_uid"]), analysis_id=str(analysis["id"]))
    return {
        "findings": len(findings), "series_uid": analysis["series_uid"], "report": f"{analysis['folder']}/{REPORT}",
    }  # fmt: skip


def gathered(place: Workplace, study_uid: str, folder: Path, *, series_uid: str | None = None) -> None:
    """Lay a study's CT files side by side in a folder, as links that cost no space.

    Args:
        place: The store.
        study_uid: The study.
        folder: Where to; emptied before.
        series_uid: This series alone, whatever its modality; every CT series if None.

    Raises:
        InputError: The study has no CT, or no such series.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    number = 0
    for series in place.studies.series(study_uid):
        if series["modality"] != "CT" if series_uid is None else series["series_uid"] != series_uid:
            continue
        for row in place.studies.instances(str(series["series_uid"])):
            source, number = place.studies.path(row), number + 1
            try:
                os.link(source, folder / f"{number:06d}.dcm")
            except OSError:
                shutil.copyfile(source, folder / f"{number:06d}.dcm")
    if not number:
        raise InputError(f"study {study_uid}", got="no CT series", expected="a chest CT")


HANDLERS: Mapping[str, Handler] = {IMPORT: _import, ANALYZE: _analyze}
"""What does the jobs of each kind."""
