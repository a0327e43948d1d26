"""Receive by C-STORE into the store: what was acknowledged is in the store, also after a kill.

An instance is acknowledged when it lies on the disk in the listener's folder. From there it is moved into the store
as it comes; what a kill left there is moved at the next start. What the store does not take is set aside with the
reason, not lost; while the store is full, nothing is taken in.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import OperationalError

from spicula.core.errors import SpiculaError
from spicula.core.files import written_aside
from spicula.dicom.dimse import MAX_OBJECT_BYTES
from spicula.dicom.listener import Listener
from spicula.pipelines.ingest import Ingested, ingest
from spicula.pipelines.workplace import Workplace

ARRIVED, MOVING, SET_ASIDE = "listen/arrived", "listen/moving", "listen/set-aside"
"""Folders of the store: where the listener writes, what is being moved, what the store does not take."""

ORIGIN = "dimse"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Moved:
    """What a look through the listener's folder gave.

    Args:
        added: Instances that are new in the store.
        known: Instances that were there.
        set_aside: Instances that the store does not take.
        waiting: Instances for which the store has no room now.
        studies: Studies of the new ones.
    """

    added: int = 0
    known: int = 0
    set_aside: int = 0
    waiting: int = 0
    studies: tuple[str, ...] = ()


def listen(
    place: Workplace, *, port: int, aet: str = "SPICULA", allowed_aets: Sequence[str] = (), host: str = "127.0.0.1",
    stop: threading.Event | None = None, idle_s: float = 0.5, max_object_bytes: int = MAX_OBJECT_BYTES,
    max_associations: int = 8, reserve_bytes: int = 256 * 2**20, timeout_s: float = 60.0,
    started: Callable[[int], None] | None = None, came: Callable[[Moved], None] | None = None,
) -> None:  # fmt: skip
    """Receive until told to stop; one listener a store.

    Args:
        place: The store.
        port: TCP port; 0 takes a free one.
        aet: Our AE title.
        allowed_aets: AE titles that may call; all if empty.
        host: The address to listen on; ``0.0.0.0`` for all of this machine.
        stop: Set from elsewhere.
        idle_s: How long to wait between two looks at what arrived.
        max_object_bytes: The connection of who sends a larger instance is closed.
        max_associations: More at a time are refused.
        reserve_bytes: Space to leave on the disk.
        timeout_s: How long a connection may be silent.
        started: Called with the port.
        came: Called after each look that found something.

    Raises:
        InputError: The port is taken, another listener uses the store, or an AE title is none.
    """
    stop = stop or threading.Event()
    listener = Listener(
        place.folder / ARRIVED, port, ae_title=aet, host=host, allowed=allowed_aets, max_object_bytes=max_object_bytes,
        max_associations=max_associations, reserve_bytes=reserve_bytes, timeout_s=timeout_s,
    )  # fmt: skip
    listener.start()
    open_ = True
    try:
        if started is not None:
            started(listener.port)
        while True:
            told = _patiently(place)
            if came is not None and (told.added or told.known or told.set_aside):
                came(told)
            if open_ and told.waiting:
                _LOG.error("the store is full: nothing is received until it has room")
                listener.close()
                open_ = False
            elif not open_ and not told.waiting:
                listener.start()
                open_ = True
            if stop.wait(idle_s):
                return
    finally:
        listener.close()
        _patiently(place)


def _patiently(place: Workplace) -> Moved:
    try:
        return move_in(place)
    except OperationalError:  # what arrived waits in the folder
        _LOG.error("the store's database cannot be reached: what arrives waits")
        return Moved()


def move_in(place: Workplace) -> Moved:
    """Move what has arrived into the store, instance by instance.

    A file is renamed out of the listener's folder before it is read: the same instance may be sent again meanwhile.
    """
    moving = place.folder / MOVING
    moving.mkdir(parents=True, exist_ok=True)
    added, known, aside = 0, 0, 0
    studies: dict[str, None] = {}
    for series in sorted((place.folder / ARRIVED).glob("[!.]*")):
        for path in sorted(series.glob("*.dcm")):
            os.replace(path, _free(moving / f"{series.name}~{path.name}"))
    files = sorted(moving.glob("*.dcm"))
    for number, file in enumerate(files):
        try:
            told, reason = _tried(place, file)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            told, reason = None, ""
        if told is not None:
            file.unlink()
            added, known = added + told.added, known + told.known
            studies.update(dict.fromkeys(told.studies if told.added else ()))
        elif reason:
            _set_aside(place, file, reason)
            aside += 1
        else:
            return Moved(added, known, aside, len(files) - number, tuple(studies))
    return Moved(added, known, aside, 0, tuple(studies))


def _tried(place: Workplace, file: Path) -> tuple[Ingested | None, str]:
    """Bring one instance in; else why not, or no reason where the store has no room now.

    It is tried twice: what was full at the first try may have room as that is looked into.
    """
    reason = ""
    for _ in range(2):
        try:
            return ingest(file, place.studies, origin=ORIGIN, deidentify=place.secret), ""
        except SpiculaError as error:
            reason = str(error)
            if _is_full(place, file):
                return None, ""
    return None, reason


def _is_full(place: Workplace, file: Path) -> bool:
    quota = place.studies.quota_bytes
    return quota is not None and place.studies.bytes_used() + file.stat().st_size > quota


def _set_aside(place: Workplace, file: Path, reason: str) -> None:
    target = _free(place.folder / SET_ASIDE / file.name)
    with written_aside(target.with_suffix(".txt")) as text:
        text.write_text(reason + "\n", encoding="utf-8")
    os.replace(file, target)
    _LOG.error("an instance was not taken into the store and is kept as %s: %s", target, reason)


def _free(path: Path) -> Path:
    """A name that no file has: one instance may come twice with other bytes."""
    names = (path.with_name(f"{path.stem}{end}{path.suffix}") for end in ("", *(f"-{n}" for n in range(1, 10**6))))
    return next(name for name in names if not name.exists())


def set_aside_files(place: Workplace) -> tuple[Path, ...]:
    """Instances that the store did not take, each with a ``.txt`` beside it that says why."""
    return tuple(sorted((place.folder / SET_ASIDE).glob("*.dcm")))
