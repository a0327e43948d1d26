"""What a store holds, whether it is whole, and what is left in it that nobody needs any more."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from spicula.core.errors import InputError
from spicula.core.files import ASIDE
from spicula.dicom.remote import safe_name
from spicula.pipelines.backup import BACKUP_ASIDE, remove_left
from spicula.pipelines.current_outputs import RESULTS_FOLDER, older_outputs
from spicula.pipelines.exchange import PULLS_FOLDER
from spicula.pipelines.upload import UPLOADS_FOLDER
from spicula.pipelines.worker import ANALYSES_FOLDER
from spicula.pipelines.workplace import Workplace
from spicula.store.jobs import OPEN
from spicula.store.tables import ANALYSES, JOBS, METADATA, STUDIES

EXPORTS_FOLDER = "exports"
"""Of earlier versions, which kept what was exported and what was sent apart."""

YOUNG_S = 3600.0
"""A file without a row that is younger may be on its way in."""

LONG_S = 86_400.0
"""No import or analysis takes longer: an older folder aside or upload that no open job wants was left behind."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a store holds.

    Args:
        rows: How many, by table.
        bytes: Of all instances, as the quota counts them.
        free_bytes: Of its disk.
    """

    rows: dict[str, int]
    bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Swept:
    """What was removed.

    Args:
        instances: Files of instances without a row.
        folders: Folders of analyses, results and uploads that nothing names any more, and those left aside by a kill.
    """

    instances: int
    folders: int


def usage(place: Workplace) -> Usage:
    """Count what a store holds."""
    with place.engine.connect() as connection:
        rows = {
            table.name: int(connection.execute(select(func.count()).select_from(table)).scalar_one())
            for table in METADATA.sorted_tables
        }
    return Usage(rows, place.studies.bytes_used(), shutil.disk_usage(place.folder).free)


def check(place: Workplace) -> Iterator[str]:
    """Read everything again; a sentence for each thing that is wrong.

    Instances that are missing or have other bytes, analyses without their folder, and what :func:`sweep` would remove.
    """
    yield from place.studies.damaged()
    with place.engine.connect() as connection:
        kept = list(connection.execute(select(ANALYSES.c.id, ANALYSES.c.folder)))
    for analysis_id, folder in kept:
        if not (place.folder / folder).is_dir():
            yield f"analysis {analysis_id}: its files are missing"
    files = sum(1 for _ in place.studies.unknown_files(older_than_s=YOUNG_S))
    if files:
        yield f"{files} files of instances without a row; 'spicula store sweep' removes them"
    folders = sum(1 for _ in _unknown_folders(place))
    if folders:
        yield f"{folders} folders that nothing names; 'spicula store sweep' removes them"


def sweep(place: Workplace) -> Swept:
    """Remove what a kill or the end of a study left; the server may run meanwhile."""
    folders = sum(remove_left(left) for left in place.folder.glob(f"{BACKUP_ASIDE}*"))
    for folder in list(_unknown_folders(place)):
        folder.unlink(missing_ok=True) if folder.is_file() else shutil.rmtree(folder, ignore_errors=True)
        folders += not folder.exists()
    return Swept(place.studies.sweep(older_than_s=YOUNG_S), folders)


def remove_study(place: Workplace, study_uid: str) -> int:
    """Take a study out with all that is said of it and every file of it: images, analyses, results and exports.

    Returns:
        How many instances it had.

    Raises:
        InputError: There is none.
    """
    with place.engine.connect() as connection:
        query = select(ANALYSES.c.folder).where(ANALYSES.c.study_uid == study_uid)
        folders = [place.folder / folder for folder in connection.execute(query).scalars()]
    count = place.studies.remove(study_uid)
    derived = [place.folder / RESULTS_FOLDER / safe_name(study_uid), place.folder / EXPORTS_FOLDER / _hashed(study_uid)]
    for folder in (*folders, *derived):
        shutil.rmtree(folder, ignore_errors=True)
    return count


def require_store(folder: Path, url: str | None) -> None:
    """Refuse a folder in which there is no store yet.

    Raises:
        InputError: There is none.
    """
    from spicula.store.database import FILE

    if url is None and not (folder / FILE).is_file():
        hint = "name it with --store, or make one with 'spicula store import'"
        raise InputError(f"store {folder}", got="nothing there", hint=hint)


def _hashed(study_uid: str) -> str:
    return hashlib.sha256(study_uid.encode()).hexdigest()[:32]


def _old(path: Path, seconds: float) -> bool:
    try:
        return time.time() - path.stat().st_mtime > seconds
    except FileNotFoundError:
        return False


def _unknown_folders(place: Workplace) -> Iterator[Path]:
    """Folders that are old enough and that neither a row nor an open job names."""
    with place.engine.connect() as connection:
        kept = {Path(folder).name for folder in connection.execute(select(ANALYSES.c.folder)).scalars()}
        named = {safe_name(uid): str(uid) for uid in connection.execute(select(STUDIES.c.study_uid)).scalars()}
        jobs = connection.execute(select(JOBS.c.id, JOBS.c.task).where(JOBS.c.state.in_(OPEN))).all()
    jobs_open = {str(job_id) for job_id, _ in jobs}
    kept |= jobs_open
    wanted = {part for _, task in jobs for part in _paths(task)}
    for parent, known, seconds in (
        (ANALYSES_FOLDER, kept, YOUNG_S),
        (RESULTS_FOLDER, named.keys(), YOUNG_S),
        (EXPORTS_FOLDER, set[str](), YOUNG_S),
        (UPLOADS_FOLDER, wanted, LONG_S),
        (PULLS_FOLDER, kept, YOUNG_S),
    ):
        for path in (place.folder / parent).glob("*"):
            of_job = path.name.partition("-")[0]
            if not {path.name, of_job} & known and path.is_dir() and _old(path, seconds):
                yield path
    for folder in (place.folder / RESULTS_FOLDER).glob("*"):
        if (uid := named.get(folder.name)) is not None:
            with suppress(InputError):  # it was removed meanwhile, or nothing is said of it
                yield from older_outputs(place, uid)
    for path in place.folder.glob(f"{ASIDE}*"):
        of_job = path.name.removeprefix(ASIDE).partition("-")[0]
        if not path.name.startswith(BACKUP_ASIDE) and of_job not in jobs_open and _old(path, LONG_S):
            yield path


def _paths(task: Any) -> set[str]:
    """Names in the paths that a job's task names."""
    return {part for value in dict(task).values() if isinstance(value, str) for part in Path(value).parts}
