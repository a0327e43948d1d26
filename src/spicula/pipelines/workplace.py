"""A store opened as a whole: its database, its studies, findings, jobs, users and audit log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from spicula.store.database import open_database
from spicula.store.findings import Findings
from spicula.store.jobs import Queue
from spicula.store.studies import Studies
from spicula.store.users import Audit, Users

DEIDENTIFY = "deidentify"
"""A file of this name in a store says that who the patient is is taken out of all that comes in."""


@dataclass(frozen=True, slots=True, eq=False)
class Workplace:
    """Everything that a server or a worker needs of a store.

    Args:
        folder: Where files lie.
        engine: Of its database.
        studies: Its studies.
        findings: Its findings.
        queue: Its jobs.
        users: Who may log in.
        audit: What they did.
        deidentify: Whether who the patient is is taken out of all that comes in.
    """

    folder: Path
    engine: Engine
    studies: Studies
    findings: Findings
    queue: Queue
    users: Users
    audit: Audit
    deidentify: bool = False

    @property
    def secret(self) -> bytes | None:
        """By which what comes in is de-identified; None where it is kept as it is."""
        from spicula.dicom.deidentify import secret_of

        return secret_of(self.folder) if self.deidentify else None


@contextmanager
def open_workplace(
    folder: Path, *, url: str | None = None, quota_bytes: int | None = None, deidentify: bool = False
) -> Iterator[Workplace]:  # fmt: skip
    """Open a store; it is made where it is not there.

    Args:
        folder: Of its files, and of its database where there is no URL.
        url: ``postgresql://USER@HOST/DB``.
        quota_bytes: What all instances may take.
        deidentify: From now on, who the patient is is taken out of all that comes in, by whatever command; a store
            that was opened so once stays so.

    Raises:
        InputError: The database was made by a later version, or the URL is none.
        OfflineError: The server cannot be reached.
    """
    engine = open_database(folder, url)
    try:
        studies = Studies(engine, folder, quota_bytes=quota_bytes)
        mark = folder / DEIDENTIFY
        if deidentify:
            mark.touch()
        parts = (Findings(engine), Queue(engine), Users(engine), Audit(engine))
        yield Workplace(folder, engine, studies, *parts, mark.exists())
    finally:
        engine.dispose()
