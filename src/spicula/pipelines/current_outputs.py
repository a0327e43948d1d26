"""The files of a study as its findings stand: written once for each state of them, for whoever asks, in any process.

What is exported and what is sent are the same files: SR and SEG of one state have the same UIDs and bytes wherever they
go, also where a later version would write others. A state is complete as soon as its folder is there; who writes holds
the study's lock, which ends with the process that holds it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from spicula.core.errors import InputError, SpiculaError
from spicula.core.files import ASIDE, to_disk
from spicula.dicom.remote import safe_name
from spicula.pipelines.workplace import Workplace

PAGE, REPORT, TABLE, SR, SEG = "report.html", "report.json", "findings.csv", "sr.dcm", "seg.dcm"
OUTPUTS = (PAGE, REPORT, TABLE, SR, SEG)
"""Names of the files."""

RESULTS_FOLDER = "results"
"""In the store: a folder a study, in it one for each state of its findings that is still needed."""

KEPT_S = 3600.0
"""Files of an earlier state go so long after they were last asked for: somebody may be fetching them."""

WAIT_S = 120.0
"""So long one waits for another who writes the same study's files."""

_LOCK = ".lock"
_LOOK_S = 0.05
_TRIES = 3
_STATE, _STATE_BEFORE = 32, 24
"""Letters of a state in the name of its folder; earlier versions took fewer, and kept SR and SEG alone."""

Write: TypeAlias = Callable[[Workplace, str, Path], object]
"""Writes the files of a study, those that make sense, as its findings stand, into a folder; others are not kept."""


class Busy(SpiculaError):
    """Others do the same just now; asked again later it can be done."""


def current_outputs(
    place: Workplace, study_uid: str, *, write: Write | None = None, wait_s: float = WAIT_S
) -> Path:  # fmt: skip
    """The folder of a study's files for the present state of its findings, written where it is not there yet.

    Args:
        place: The store.
        study_uid: The study.
        write: What writes them; :func:`spicula.pipelines.study_outputs.write_study_outputs` if None.
        wait_s: How long to wait for another who writes them.

    Returns:
        The folder, whole, with some of :data:`OUTPUTS`; it stays for :data:`KEPT_S` at least.

    Raises:
        InputError: There is no such study, it has neither analysis nor findings, its findings change all the time, or
            its series cannot be read.
        Busy: Another has been writing them for too long.
    """
    place.studies.get(study_uid)
    _state(place, study_uid)
    base = _folder_of(place, study_uid)
    try:
        with _alone(base, wait_s, study_uid):
            for _ in range(_TRIES):
                state = _state(place, study_uid)
                folder = base / state[:_STATE]
                if folder.is_dir() or _written(place, study_uid, base, state, write or _write_all):
                    return _handed_out(place, study_uid, folder)
    except (InputError, OSError):
        _require_there(place, study_uid)
        raise
    raise InputError(f"study {study_uid}", got="findings that change all the time", hint="ask for it later")


def outputs_there(place: Workplace, study_uid: str) -> Path | None:
    """What :func:`current_outputs` gives where it need neither write nor wait; None else.

    Raises:
        InputError: There is no such study, or it has neither analysis nor findings.
    """
    place.studies.get(study_uid)
    base = _folder_of(place, study_uid)
    folder = base / _state(place, study_uid)[:_STATE]
    if not folder.is_dir():
        return None
    try:
        with _alone(base, 0.0, study_uid):
            return _handed_out(place, study_uid, folder) if folder.is_dir() else None
    except Busy:
        return None


def older_outputs(place: Workplace, study_uid: str) -> Iterator[Path]:
    """Folders of earlier states of a study that nobody needs any more."""
    folders = [path for path in _folder_of(place, study_uid).glob("[!.]*") if path.is_dir()]
    if len(folders) > 1:
        current = _state(place, study_uid)[:_STATE]
        yield from (path for path in folders if path.name != current and _is_old(path))


def _folder_of(place: Workplace, study_uid: str) -> Path:
    return place.folder / RESULTS_FOLDER / safe_name(study_uid)


def _state(place: Workplace, study_uid: str) -> str:
    """Changes with every analysis of a study and every change to its findings."""
    analyses, findings = place.findings.versions(study_uid)
    if not analyses and not findings:
        raise InputError(f"study {study_uid}", got="no results", expected="an analyzed study", hint="analyze it first")
    return hashlib.sha256(json.dumps([analyses, findings]).encode()).hexdigest()


@contextmanager
def _alone(base: Path, wait_s: float, study_uid: str) -> Iterator[None]:
    """Hold the lock of a study, beside every other thread and process; a process that is killed lets it go."""
    until = time.monotonic() + wait_s
    while (handle := _locked(base)) is None:
        if time.monotonic() >= until:
            got = f"its files being written by another for more than {wait_s:g} s"
            raise Busy(f"study {study_uid}", got=got, hint="ask again in a while")
        time.sleep(_LOOK_S)
    try:
        yield
    finally:
        os.close(handle)


def _locked(base: Path) -> int | None:
    """The lock of a study, if nobody else has it; not that of a folder which was removed meanwhile."""
    base.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(base / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), os.stat(base / _LOCK)):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(handle)
    return None


def _written(place: Workplace, study_uid: str, base: Path, state: str, write: Write) -> bool:
    """Write the files of a state, whole or not at all; not where a finding was changed meanwhile."""
    folder, before, aside = base / state[:_STATE], base / state[:_STATE_BEFORE], base / f"{ASIDE}{state[:_STATE]}"
    for left in base.glob(f"{ASIDE}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir()
    try:
        write(place, study_uid, aside)
        if _state(place, study_uid) != state:
            return False
        for name in {path.name for path in aside.iterdir()} - set(OUTPUTS):
            (aside / name).unlink()
        for name in (SR, SEG):
            if (before / name).is_file():  # it was sent so
                shutil.copyfile(before / name, aside / name)
        for path in (*aside.iterdir(), aside):
            to_disk(path)
        os.rename(aside, folder)
        to_disk(base)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return True


def _write_all(place: Workplace, study_uid: str, folder: Path) -> object:
    from spicula.pipelines.study_outputs import write_study_outputs

    return write_study_outputs(place, study_uid, folder)


def _handed_out(place: Workplace, study_uid: str, folder: Path) -> Path:
    """A state that is asked for stays for a while; who holds the lock removes what nobody asked for any more."""
    os.utime(folder)
    for path in folder.parent.glob("[!.]*"):
        if path != folder and _is_old(path):
            shutil.rmtree(path, ignore_errors=True)
    _require_there(place, study_uid)
    return folder


def _require_there(place: Workplace, study_uid: str) -> None:
    """Leave nothing of a study that was removed while its files were written."""
    try:
        place.studies.get(study_uid)
    except InputError:
        shutil.rmtree(_folder_of(place, study_uid), ignore_errors=True)
        raise


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > KEPT_S
    except FileNotFoundError:
        return False
