"""Studies from archives into the store, results of the store to archives, as jobs that may be killed at any moment.

What is to be sent is made once for each state of a study's findings and kept: sent again after a kill, or to another
archive, it is the same object with the same UID, and an archive that shows it already is not sent it again.
Errors and messages name UIDs and archives, never a patient.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from spicula.core.errors import InputError
from spicula.core.files import ASIDE, to_disk
from spicula.dicom.inbox import Arrived, readable
from spicula.dicom.listener import Listener
from spicula.dicom.pacs import Pacs
from spicula.dicom.remote import RemoteStudy, checked_uid, safe_name
from spicula.dicom.web import DicomWeb
from spicula.pipelines.archives import Archive, Permission, archive_named, opened
from spicula.pipelines.ingest import Ingested, ingest
from spicula.pipelines.worker import ANALYZE, Handler, Tell, ask_analysis
from spicula.pipelines.worker import HANDLERS as STORE_HANDLERS
from spicula.pipelines.workplace import Workplace
from spicula.store.jobs import TRIES, Job

PULL: Final = "pull"
SEND: Final = "send"
"""Kinds of jobs."""

PULLS_FOLDER, RESULTS_FOLDER = "pulls", "results"
"""What is being fetched, a folder a job; what was or will be sent, a folder a study and state of its findings."""

WHAT = ("sr", "seg")
"""What can be sent: the report and the outlines."""

ARRIVAL_S = 60.0
"""How long an instance that an archive says it sent may take to come into the store by ``spicula listen``."""

CONFIRM_S = 20.0
"""How long an archive may take to show what it acknowledged."""

Outputs: TypeAlias = Callable[[Workplace, str, Path], object]
"""Writes ``sr.dcm`` and ``seg.dcm`` of a study, those that make sense, as its findings stand, into a folder; other
files are not kept."""

Client: TypeAlias = DicomWeb | Pacs


def echo(archive: Archive) -> None:
    """Ask whether an archive is there and talks to us; an error says why not."""
    with opened(archive) as client:
        if isinstance(client, Pacs):
            client.echo()
        else:
            client.find_studies(StudyInstanceUID="1.2.3.4.5.6.7.8.9")


def find_studies(archive: Archive, filters: Mapping[str, str], limit: int) -> tuple[RemoteStudy, ...]:
    """Find studies of an archive, the newest first.

    Args:
        archive: Which.
        filters: By DICOM keyword, for example ``{"PatientID": "P1", "StudyDate": "20240101-"}``.
        limit: More matches than this are refused.

    Raises:
        InputError: A filter makes no sense, there are too many matches, or the archive refuses.
        OfflineError: It cannot be reached.
    """
    with opened(archive, max_results=limit) as client:
        found = client.find_studies(**filters)
    return tuple(sorted(found, key=lambda study: (study.study_date, study.study_uid), reverse=True))


def ask_pull(
    place: Workplace, archive_name: str, study_uid: str, *, by: str, analyze: bool = True, archives: Path | None = None
) -> Job:
    """Ask for a study to be brought in from an archive; the same job while one is open.

    Args:
        place: The store.
        archive_name: The archive, which must allow it.
        study_uid: The study.
        by: User.
        analyze: Whether to ask for its analysis then, if it has CT.
        archives: File of the archives; that of the store if None.

    Raises:
        InputError: There is no such archive, it does not allow it, or the UID is none.
    """
    archive_named(archives or place.folder, archive_name, may=PULL)
    checked_uid(study_uid, "study UID")
    task = {"archive": archive_name, "study_uid": study_uid, "analyze": analyze, **_named(archives)}
    return place.queue.ask(PULL, f"{study_uid} {archive_name}{'' if analyze else ' as it is'}", task, by=by)


def ask_send(
    place: Workplace, study_uid: str, archive_name: str, what: Sequence[str] = WHAT, *, by: str, once: bool = False,
    archives: Path | None = None,
) -> Job:  # fmt: skip
    """Ask for results of a study to be sent to an archive; the same job while one is open.

    Args:
        place: The store.
        study_uid: The study.
        archive_name: The archive, which must allow it.
        what: ``"sr"``, ``"seg"`` or both.
        by: User.
        once: The same job also where it was done.
        archives: File of the archives; that of the store if None.

    Raises:
        InputError: There is no such study or archive, it does not allow it, or there is nothing of that name to send.
    """
    archive_named(archives or place.folder, archive_name, may=SEND)
    place.studies.get(study_uid)
    chosen = [name for name in WHAT if name in what]
    if not chosen or set(what) - set(WHAT):
        raise InputError("what to send", got=", ".join(what)[:80] or "nothing", expected=f"some of {', '.join(WHAT)}")
    task = {"archive": archive_name, "study_uid": study_uid, "what": chosen, **_named(archives)}
    return place.queue.ask(SEND, send_key(study_uid, archive_name, chosen), task, by=by, once=once)


def send_key(study_uid: str, archive_name: str, what: Sequence[str] = WHAT) -> str:
    """The key of a job that sends."""
    return f"{study_uid} {archive_name} {' '.join(what)}"


def _named(archives: Path | None) -> dict[str, str]:
    return {} if archives is None else {"archives": str(archives.resolve())}


def _archive_of(place: Workplace, job: Job, may: Permission) -> Archive:
    return archive_named(Path(job.task.get("archives") or place.folder), str(job.task["archive"]), may=may)


# --- pull


def pull(place: Workplace, job: Job, tell: Tell) -> Mapping[str, Any]:
    """Bring a study in, a series at a time; what is in the store already is not fetched again.

    A series that is no CT and that cannot be had is left out and told.
    """
    archive, study_uid = _archive_of(place, job, PULL), str(job.task["study_uid"])
    _forget_ended(place)
    folder = place.folder / PULLS_FOLDER / job.id
    came: list[Ingested] = []
    refused: list[str] = []
    try:
        with opened(archive) as client:
            series = client.find_series(study_uid)
            if not series:
                what, hint = f"{archive.name}: study {study_uid}", f"spicula pacs find {archive.name}"
                raise InputError(what, got="no series", expected="one that it has", hint=hint)
            for number, one in enumerate(series):
                tell(number / len(series), f"series {number + 1} of {len(series)}")
                try:
                    came.append(_pull_series(place, archive, client, study_uid, one.series_uid, folder))
                except InputError as error:
                    if one.modality in ("CT", "") or len(series) == 1:
                        raise
                    refused.append(f"series {one.series_uid}: {error}")
    except Exception:
        if job.tries >= TRIES:  # else the next try goes on from here
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    added = sum(one.added for one in came)
    studies = list(dict.fromkeys(uid for one in came for uid in one.studies))
    asked = [name for uid in studies for name in _follow_up(place, job, uid, changed=added > 0)]
    known = sum(one.known for one in came)
    return {"added": added, "known": known, "refused": refused, "studies": studies, "analyses": asked}


def _pull_series(
    place: Workplace, archive: Archive, client: Client, study_uid: str, series_uid: str, folder: Path
) -> Ingested:
    """Bring a series in, whole."""
    held = _held(place, series_uid)
    offered = {instance.sop_instance_uid for instance in client.find_instances(study_uid, series_uid)}
    if offered <= held:
        return Ingested(0, len(offered), (study_uid,), 0, (), 0)
    if isinstance(client, Pacs) and archive.move_aet and not archive.move_port:
        if place.deidentify:
            what, hint = f"{archive.name}: studies get other UIDs in this store", f"set move_port of {archive.name}"
            raise InputError(what, hint=hint)
        client.move_series(study_uid, series_uid, destination=archive.move_aet)
        _wait_for(place, archive, series_uid, offered)
        return Ingested(len(offered - held), len(offered & held), (study_uid,), 0, (), 0)
    target = folder / safe_name(series_uid)
    _fetch(archive, client, study_uid, series_uid, target)
    for path in target.rglob("*.dcm"):
        if path.stem in held:  # it may have come another way, with other words of a file of itself
            path.unlink()
    came = ingest(target, place.studies, origin=archive.way, deidentify=place.secret)
    came = replace(came, known=came.known + len(offered & held))
    lacking = len(offered) - came.added - came.known
    if lacking > 0:
        why = came.refused[0] if came.refused else "it gave less than it tells"
        raise InputError(f"{archive.name}: series {series_uid}: {lacking} of {len(offered)} instances not kept ({why})")
    shutil.rmtree(target, ignore_errors=True)
    return came


def _held(place: Workplace, series_uid: str) -> set[str]:
    return {str(row["sop_instance_uid"]) for row in place.studies.instances(series_uid)}


def _fetch(archive: Archive, client: Client, study_uid: str, series_uid: str, folder: Path) -> None:
    """WADO, C-GET, or C-MOVE to a port that is opened meanwhile."""
    if not (isinstance(client, Pacs) and archive.move_aet):
        client.fetch_series(study_uid, series_uid, folder)
        return
    with Listener(
        folder, archive.move_port, ae_title=archive.move_aet, host=archive.move_host, allowed=[archive.called_aet]
    ):
        client.move_series(study_uid, series_uid, destination=archive.move_aet)


def _wait_for(place: Workplace, archive: Archive, series_uid: str, wanted: set[str]) -> None:
    """Wait until ``spicula listen`` has brought a series in; as long as something comes, more may."""
    left, stop = len(wanted), time.monotonic() + ARRIVAL_S
    while True:
        missing = wanted - _held(place, series_uid)
        if not missing:
            return
        if len(missing) < left:
            left, stop = len(missing), time.monotonic() + ARRIVAL_S
        if time.monotonic() > stop:
            hint = f"is 'spicula listen --aet {archive.move_aet}' running on this store? or set move_port"
            raise InputError(
                f"{archive.name}: series {series_uid}", got=f"{left} of {len(wanted)} instances missing", hint=hint
            )
        time.sleep(0.2)


def _follow_up(place: Workplace, job: Job, study_uid: str, *, changed: bool) -> list[str]:
    """Take in reports of others, and ask for the analysis of a CT.

    It is asked for once a pull: not for what an earlier one had brought, nor twice if this one is begun twice.
    """
    from spicula.pipelines.read_reports import take_in_reports

    modalities = {row["modality"] for row in place.studies.series(study_uid)}
    if {"CT", "SR"} <= modalities:
        take_in_reports(place, study_uid)
    if not job.task.get("analyze") or "CT" not in modalities:
        return []
    last = place.queue.latest(ANALYZE, [study_uid]).get(study_uid)
    done_before = last is not None and last.state == "done" and last.created_at < job.created_at
    if last is not None and (last.created_at >= job.created_at or (done_before and not changed and job.tries == 1)):
        return [last.id]
    return [ask_analysis(place, study_uid, by=job.created_by).id]


def _forget_ended(place: Workplace) -> None:
    """Remove what cancelled and failed pulls had fetched, and results of studies that are not in the store any more."""
    for folder in (place.folder / PULLS_FOLDER).glob("*"):
        with suppress(InputError):
            if place.queue.get(folder.name).is_open:
                continue
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (place.folder / RESULTS_FOLDER).glob("*"):
        try:
            place.studies.get(folder.name)
        except InputError:
            shutil.rmtree(folder, ignore_errors=True)


# --- send


def study_outputs(place: Workplace, study_uid: str, folder: Path) -> object:
    """Write the results of a study as its findings stand."""
    from spicula.pipelines.study_outputs import write_study_outputs

    return write_study_outputs(place, study_uid, folder)


def send(place: Workplace, job: Job, tell: Tell, *, outputs: Outputs = study_outputs) -> Mapping[str, Any]:
    """Send results of a study, each object that the archive does not show, and wait until it shows them.

    Returns:
        SOP Instance UIDs that were ``sent`` and that were ``there``, and which of what was asked the study ``lacks``.
    """
    archive, study_uid, what = _archive_of(place, job, SEND), str(job.task["study_uid"]), tuple(job.task["what"])
    _forget_ended(place)
    tell(0.1, "writing the results")
    files = results_of(place, study_uid, outputs=outputs)
    chosen = [readable(files[name]) for name in what if name in files]
    if not chosen:
        raise InputError(f"study {study_uid}", got=f"no {' or '.join(what)}", expected="results that can be sent")
    with opened(archive) as client:
        tell(0.3, f"asking what {archive.name} has")
        there = _shown(client, chosen)
        new = [one for one in chosen if one.sop_instance_uid not in there]
        if new:
            tell(0.5, f"sending {len(new)} to {archive.name}")
            client.store([one.path for one in new])
            _confirm(archive, client, new)
    lacks = [name for name in what if name not in files]
    return {
        "archive": archive.name, "sent": [one.sop_instance_uid for one in new], "there": sorted(there), "lacks": lacks
    }  # fmt: skip


def results_of(place: Workplace, study_uid: str, *, outputs: Outputs = study_outputs) -> dict[str, Path]:
    """The results of a study as its findings stand, written when they are first asked for.

    Returns:
        Files by name, ``"sr"`` and ``"seg"``; the same files until a finding changes.

    Raises:
        InputError: There is no such study, it has neither analysis nor findings, or it is changed all the time.
    """
    place.studies.get(study_uid)
    base = place.folder / RESULTS_FOLDER / safe_name(study_uid)
    for _ in range(3):
        state = _state(place, study_uid)
        folder = base / state
        aside = base / f"{ASIDE}{state}-{os.getpid()}"
        if not folder.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            try:
                outputs(place, study_uid, aside)
                if _state(place, study_uid) != state:
                    continue  # a finding was changed meanwhile
                for name in {path.name for path in aside.iterdir()} - {f"{one}.dcm" for one in WHAT}:
                    (aside / name).unlink()
                _move_whole(aside, folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        return {path.stem: path for path in sorted(folder.glob("*.dcm"))}
    raise InputError(f"study {study_uid}", got="findings that change all the time", hint="send it later")


def _state(place: Workplace, study_uid: str) -> str:
    """Changes with every analysis of a study and every change to its findings."""
    analyses = [row["id"] for row in place.findings.analyses(study_uid)]
    findings = [(one.id, one.version) for one in place.findings.of_study(study_uid)]
    if not analyses and not findings:
        raise InputError(f"study {study_uid}", got="no results", expected="an analyzed study", hint="analyze it first")
    return hashlib.sha256(json.dumps([analyses, findings]).encode()).hexdigest()[:24]


def _move_whole(aside: Path, folder: Path) -> None:
    """Bring a folder's files to the disk and it to its place; another that was faster stays."""
    for path in (*aside.iterdir(), aside):
        to_disk(path)
    try:
        os.rename(aside, folder)
    except OSError:
        if not folder.is_dir():
            raise


def _shown(client: Client, instances: Sequence[Arrived]) -> set[str]:
    """Which of some instances an archive shows; asked from above, as some answer 404 for what is below nothing."""
    shown: set[str] = set()
    wanted = {one.sop_instance_uid for one in instances}
    for study_uid in sorted({one.study_uid for one in instances}):
        if not client.find_studies(StudyInstanceUID=study_uid):
            continue
        there = {one.series_uid for one in client.find_series(study_uid)}
        for series_uid in sorted({one.series_uid for one in instances if one.study_uid == study_uid} & there):
            shown |= {one.sop_instance_uid for one in client.find_instances(study_uid, series_uid)}
    return shown & wanted


def _confirm(archive: Archive, client: Client, instances: Sequence[Arrived]) -> None:
    """Wait until an archive shows what it acknowledged; DICOMweb's client has done so itself."""
    if not isinstance(client, Pacs):
        return
    stop = time.monotonic() + CONFIRM_S
    while len(_shown(client, instances)) < len({one.sop_instance_uid for one in instances}):
        if time.monotonic() > stop:
            hint = "is its disk full? does it keep this kind of object?"
            raise InputError(f"{archive.name}: acknowledged instances and does not show them", hint=hint)
        time.sleep(0.5)


HANDLERS: Mapping[str, Handler] = {PULL: pull, SEND: send}
"""What does the jobs of each kind here."""

ALL_HANDLERS: Mapping[str, Handler] = {**STORE_HANDLERS, **HANDLERS}
"""What does every job of a store."""
