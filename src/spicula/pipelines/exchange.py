"""Studies from archives into the store, results of the store to archives, as jobs that may be killed at any moment.

What is to be sent is made once for each state of a study's findings and kept: sent again after a kill, or to another
archive, it is the same object with the same UID, and an archive that shows it already is not sent it again.
Errors and messages name UIDs and archives, never a patient.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from sqlalchemy import select

from spicula.core.errors import InputError
from spicula.dicom.deidentify import kept_uid, takes
from spicula.dicom.inbox import Arrived, readable
from spicula.dicom.listener import Listener
from spicula.dicom.pacs import Pacs
from spicula.dicom.remote import RemoteStudy, checked_uid, safe_name
from spicula.dicom.web import DicomWeb
from spicula.pipelines.archives import Archive, Permission, archive_named, opened
from spicula.pipelines.arrivals import after_arrival
from spicula.pipelines.current_outputs import RESULTS_FOLDER, Write, current_outputs
from spicula.pipelines.ingest import Ingested, ingest
from spicula.pipelines.listen import SET_ASIDE
from spicula.pipelines.worker import HANDLERS as STORE_HANDLERS
from spicula.pipelines.worker import Handler, Tell
from spicula.pipelines.workplace import Workplace
from spicula.store.jobs import TRIES, Job
from spicula.store.tables import STUDIES

PULL: Final = "pull"
SEND: Final = "send"
"""Kinds of jobs."""

PULLS_FOLDER = "pulls"
"""What is being fetched, a folder a job."""

WHAT = ("sr", "seg")
"""What can be sent: the report and the outlines."""

ARRIVAL_S = 60.0
"""How long an instance that an archive says it sent may take to come into the store by ``spicula listen``."""

CONFIRM_S = 20.0
"""How long an archive may take to show what it acknowledged."""

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
    asked: list[str] = []
    for uid in studies:
        anew, analyze = added > 0 or job.tries > 1, bool(job.task.get("analyze"))
        name = after_arrival(place, uid, by=job.created_by, anew=anew, analyze=analyze, since=job.created_at)
        asked += [] if name is None else [name]
    known = sum(one.known for one in came)
    return {"added": added, "known": known, "refused": refused, "studies": studies, "analyses": asked}


@dataclass(frozen=True, slots=True)
class _Offer:
    """A series as an archive offers it, and as the store keeps it: where that de-identifies, under other UIDs.

    Args:
        study_uid: As the archive names it.
        series_uid: Likewise.
        instances: Each by the UID that the store gives it, with the archive's own.
        place: The store.
        secret: By which the store de-identifies; None where it keeps what comes as it is.
    """

    study_uid: str
    series_uid: str
    instances: Mapping[str, str]
    place: Workplace
    secret: bytes | None

    def kept(self, uid: str) -> str:
        """The UID that the store gives what the archive calls so."""
        return kept_uid(uid, secret=self.secret)

    def held(self) -> set[str]:
        """Which of them the store has, by its UIDs."""
        rows = self.place.studies.instances(self.kept(self.series_uid))
        return {str(row["sop_instance_uid"]) for row in rows} & self.instances.keys()


def _pull_series(
    place: Workplace, archive: Archive, client: Client, study_uid: str, series_uid: str, folder: Path
) -> Ingested:
    """Bring a series in, whole; what the store has, under whatever UIDs, is neither fetched nor counted again."""
    found, secret = client.find_instances(study_uid, series_uid), place.secret
    offer = _Offer(study_uid, series_uid, {}, place, secret)
    offer = replace(offer, instances={offer.kept(one.sop_instance_uid): one.sop_instance_uid for one in found})
    held, study = offer.held(), (offer.kept(study_uid),)
    if held == offer.instances.keys():
        return Ingested(0, len(held), study, 0, (), 0)
    classes = {one.sop_class_uid for one in found}
    if secret is not None and all(classes) and not any(map(takes, classes)):
        expected = "images of a scanner or segmentations, as it de-identifies"
        raise InputError(f"{archive.name}: series {series_uid}", got="what this store does not take", expected=expected)
    if isinstance(client, Pacs) and archive.move_aet and not archive.move_port:
        begun_s = time.time()
        client.move_series(study_uid, series_uid, destination=archive.move_aet)
        _wait_for(archive, offer, begun_s)
        return Ingested(len(offer.instances) - len(held), len(held), study, 0, (), 0)
    target = folder / safe_name(series_uid)
    _fetch(archive, client, study_uid, series_uid, target)
    for path in target.rglob("*.dcm"):
        if offer.kept(path.stem) in held:  # it may have come another way, with other words of a file of itself
            path.unlink()
    came = ingest(target, place.studies, origin=archive.way, deidentify=secret)
    came = replace(came, known=came.known + len(held))
    lacking = len(offer.instances) - came.added - came.known
    if lacking > 0:
        why, whole = came.refused[0] if came.refused else "it gave less than it tells", len(offer.instances)
        raise InputError(f"{archive.name}: series {series_uid}: {lacking} of {whole} instances not kept ({why})")
    shutil.rmtree(target, ignore_errors=True)
    return came


def _fetch(archive: Archive, client: Client, study_uid: str, series_uid: str, folder: Path) -> None:
    """WADO, C-GET, or C-MOVE to a port that is opened meanwhile."""
    if not (isinstance(client, Pacs) and archive.move_aet):
        client.fetch_series(study_uid, series_uid, folder)
        return
    with Listener(
        folder, archive.move_port, ae_title=archive.move_aet, host=archive.move_host, allowed=[archive.called_aet]
    ):
        client.move_series(study_uid, series_uid, destination=archive.move_aet)


def _wait_for(archive: Archive, offer: _Offer, begun_s: float) -> None:
    """Wait until ``spicula listen`` has brought a series in; as long as something comes, more may."""
    whole, what = len(offer.instances), f"{archive.name}: series {offer.series_uid}"
    left, stop = whole, time.monotonic() + ARRIVAL_S
    while True:
        missing = offer.instances.keys() - offer.held()
        if not missing:
            return
        if len(missing) < left:
            left, stop = len(missing), time.monotonic() + ARRIVAL_S
        refused = [why for uid in missing if (why := _why_set_aside(offer, offer.instances[uid], begun_s))]
        if len(refused) == len(missing):
            raise InputError(f"{what}: {len(refused)} of {whole} instances not kept ({refused[0]})")
        if time.monotonic() > stop:
            hint = f"is 'spicula listen --aet {archive.move_aet}' running on this store? or set move_port"
            raise InputError(what, got=f"{left} of {whole} instances missing", hint=hint)
        time.sleep(0.2)


def _why_set_aside(offer: _Offer, sop_instance_uid: str, begun_s: float) -> str:
    """Why the listener did not take an instance into the store; empty where it did, or has it no more than begun."""
    name = f"{safe_name(offer.series_uid)}~{safe_name(sop_instance_uid)}"
    for path in sorted((offer.place.folder / SET_ASIDE).glob(f"{name}*.txt")):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime >= begun_s:
                return path.read_text(encoding="utf-8").strip()
    return ""


def _forget_ended(place: Workplace) -> None:
    """Remove what cancelled and failed pulls had fetched, and results of studies that are not in the store any more."""
    for folder in (place.folder / PULLS_FOLDER).glob("*"):
        with suppress(InputError):
            if place.queue.get(folder.name).is_open:
                continue
        shutil.rmtree(folder, ignore_errors=True)
    with place.engine.connect() as connection:
        studies = {safe_name(uid) for uid in connection.execute(select(STUDIES.c.study_uid)).scalars()}
    for folder in (place.folder / RESULTS_FOLDER).glob("*"):
        if folder.name not in studies:
            shutil.rmtree(folder, ignore_errors=True)


# --- send


def send(place: Workplace, job: Job, tell: Tell, *, outputs: Write | None = None) -> Mapping[str, Any]:
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


def results_of(place: Workplace, study_uid: str, *, outputs: Write | None = None) -> dict[str, Path]:
    """The results of a study as its findings stand, written when they are first asked for.

    Returns:
        Files by name, ``"sr"`` and ``"seg"``; the same files until a finding changes.

    Raises:
        InputError: There is no such study, it has neither analysis nor findings, or it is changed all the time.
        Busy: Another has been writing them for too long.
    """
    folder = current_outputs(place, study_uid, write=outputs)
    return {name: folder / f"{name}.dcm" for name in WHAT if (folder / f"{name}.dcm").is_file()}


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
