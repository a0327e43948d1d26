"""Studies, series and instances: rows in the database, each instance's bytes in a file of their own.

A file is written aside, brought to the disk and moved into place before its row is written: a kill in between leaves
at most a file without a row, which :meth:`Studies.sweep` finds. Names of files come from hashes, never from what a
header says.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Select, cast, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from spicula.core.errors import InputError
from spicula.core.files import to_disk, written_aside
from spicula.store.clock import now
from spicula.store.tables import BYTES, INSTANCES, SERIES, STUDIES

INSTANCES_FOLDER = "instances"

SUFFIX = ".dcm"

_BYTES = cast(func.coalesce(func.sum(INSTANCES.c.bytes), 0), BYTES)
"""Of all instances of a group; PostgreSQL's own sum would be no whole number."""


@dataclass(frozen=True, slots=True)
class NewInstance:
    """What the store keeps of an instance beside its bytes; as its header says, already made safe to show.

    Args:
        study: Columns of :data:`spicula.store.tables.STUDIES` but ``received_at`` and ``newest_at``.
        series: Columns of ``series`` but ``study_uid``.
        instance: Columns of ``instances`` but ``series_uid``, ``file``, ``bytes`` and ``sha256``.
    """

    study: Mapping[str, Any]
    series: Mapping[str, Any]
    instance: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list.

    Args:
        rows: Each by the names of its columns.
        total: How many there are in all.
    """

    rows: tuple[Mapping[str, Any], ...]
    total: int


class Studies:
    """The studies of a store.

    Args:
        engine: Of its database.
        folder: Of the store.
        quota_bytes: What all instances may take; None for as much as the disk has.
    """

    def __init__(self, engine: Engine, folder: Path, *, quota_bytes: int | None = None) -> None:
        self.engine, self.folder, self.quota_bytes = engine, folder, quota_bytes

    def add(self, source: Path, new: NewInstance) -> bool:
        """Keep an instance; one that is there already stays as it is.

        Args:
            source: Its file, which is copied.
            new: What is known of it.

        Returns:
            Whether it is new.

        Raises:
            InputError: It would go beyond the quota, its series is there in another study, its study with another
                patient, or its UID with other bytes.
        """
        uid = str(new.instance["sop_instance_uid"])
        digest = _sha256(source)
        known = self._known(uid)
        if known is not None:
            _require_same(uid, known["sha256"], digest)
            return False
        size = source.stat().st_size
        self._require_room(size)
        name = hashlib.sha256(f"{uid} {digest}".encode()).hexdigest()
        file = f"{INSTANCES_FOLDER}/{name[:2]}/{name}{SUFFIX}"
        with written_aside(self.folder / file) as aside:
            shutil.copyfile(source, aside)
            to_disk(aside)
        to_disk((self.folder / file).parent)
        return self._insert(new, {"file": file, "bytes": size, "sha256": digest})

    def _known(self, uid: str) -> Mapping[str, Any] | None:
        with self.engine.connect() as connection:
            query = select(INSTANCES).where(INSTANCES.c.sop_instance_uid == uid)
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else dict(row)

    def _require_room(self, size: int) -> None:
        if self.quota_bytes is None:
            return
        used = self.bytes_used()
        if used + size > self.quota_bytes:
            raise InputError(
                "store", got=f"{used / 1e9:.2f} GB, and {size / 1e6:.1f} MB more",
                expected=f"at most {self.quota_bytes / 1e9:.2f} GB", hint="remove studies, or raise the quota",
            )  # fmt: skip

    def _insert(self, new: NewInstance, kept: Mapping[str, Any]) -> bool:
        study_uid, series_uid, came_at = str(new.study["study_uid"]), str(new.series["series_uid"]), now()
        for table, key, row in (
            (STUDIES, study_uid, {**new.study, "received_at": came_at, "newest_at": came_at}),
            (SERIES, series_uid, {**new.series, "study_uid": study_uid}),
        ):
            column = table.primary_key.columns[0]
            with self.engine.connect() as connection:
                there = connection.execute(select(table).where(column == key)).mappings().one_or_none()
            if there is None:
                try:
                    with self.engine.begin() as connection:
                        connection.execute(insert(table).values(row))
                except IntegrityError:  # another brought it in meanwhile
                    pass
            elif table is SERIES and there["study_uid"] != study_uid:
                raise InputError(f"series {series_uid}", got=f"study {study_uid}", expected=str(there["study_uid"]))
            elif table is STUDIES and there["patient_id"] != new.study["patient_id"]:
                raise InputError(f"study {study_uid}", got="another patient", expected="the patient it has")
        try:
            with self.engine.begin() as connection:  # the study first, as whoever removes it does
                connection.execute(update(STUDIES).where(STUDIES.c.study_uid == study_uid).values(newest_at=now()))
                connection.execute(insert(INSTANCES).values({**new.instance, **kept, "series_uid": series_uid}))
        except IntegrityError:  # the same instance came by two ways at once
            uid = str(new.instance["sop_instance_uid"])
            known = self._known(uid)
            if known is None:
                raise
            if known["sha256"] != kept["sha256"]:
                (self.folder / str(kept["file"])).unlink(missing_ok=True)
            _require_same(uid, known["sha256"], kept["sha256"])
            return False
        return True

    def list(
        self, *, patient_id: str | None = None, text: str = "", date_from: str = "", date_to: str = "",
        limit: int = 50, offset: int = 0,
    ) -> Page:  # fmt: skip
        """Studies, the newest received first.

        Args:
            patient_id: Of this patient alone.
            text: In id, name, description or accession number, whatever the case.
            date_from: First study date, ``YYYYMMDD``.
            date_to: Last study date.
            limit: Most rows.
            offset: Rows to pass over.
        """
        counted = (
            select(SERIES.c.study_uid, func.count(func.distinct(SERIES.c.series_uid)).label("series"),
                   func.count(INSTANCES.c.sop_instance_uid).label("instances"))
            .outerjoin(INSTANCES, INSTANCES.c.series_uid == SERIES.c.series_uid).group_by(SERIES.c.study_uid).subquery()
        )  # fmt: skip
        query: Select[Any] = select(STUDIES, counted.c.series, counted.c.instances).outerjoin(
            counted, counted.c.study_uid == STUDIES.c.study_uid
        )
        if patient_id is not None:
            query = query.where(STUDIES.c.patient_id == patient_id)
        if text:
            columns = ("patient_id", "patient_name", "description", "accession_number")
            found = (func.lower(STUDIES.c[name]).contains(text.lower(), autoescape=True) for name in columns)
            query = query.where(or_(*found))
        if date_from:
            query = query.where(STUDIES.c.study_date >= date_from)
        if date_to:
            query = query.where(STUDIES.c.study_date <= date_to)
        order = (STUDIES.c.received_at.desc(), STUDIES.c.study_uid)
        with self.engine.connect() as connection:
            total = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
            rows = connection.execute(query.order_by(*order).limit(limit).offset(offset)).mappings().all()
        return Page(tuple(dict(row) for row in rows), int(total))

    def get(self, study_uid: str) -> Mapping[str, Any]:
        """One study.

        Raises:
            InputError: There is none.
        """
        return self._one(select(STUDIES).where(STUDIES.c.study_uid == study_uid), f"study {study_uid[:70]}")

    def series(self, study_uid: str) -> tuple[Mapping[str, Any], ...]:
        """Series of a study by number, each with how many ``instances`` and ``bytes`` it has."""
        query = (
            select(SERIES, func.count(INSTANCES.c.sop_instance_uid).label("instances"),
                   _BYTES.label("bytes"))
            .outerjoin(INSTANCES, INSTANCES.c.series_uid == SERIES.c.series_uid)
            .where(SERIES.c.study_uid == study_uid).group_by(SERIES.c.series_uid)
            .order_by(SERIES.c.number, SERIES.c.series_uid)
        )  # fmt: skip
        return self._all(query)

    def study_of_series(self, series_uid: str) -> str:
        """The study that a series belongs to.

        Raises:
            InputError: There is no such series.
        """
        query = select(SERIES.c.study_uid).where(SERIES.c.series_uid == series_uid)
        return str(self._one(query, f"series {series_uid[:70]}")["study_uid"])

    def instances(self, series_uid: str) -> tuple[Mapping[str, Any], ...]:
        """Instances of a series by number."""
        query = select(INSTANCES).where(INSTANCES.c.series_uid == series_uid)
        return self._all(query.order_by(INSTANCES.c.number, INSTANCES.c.sop_instance_uid))

    def instance(self, sop_instance_uid: str) -> Mapping[str, Any]:
        """One instance, with its ``study_uid``.

        Raises:
            InputError: There is none.
        """
        query = select(INSTANCES, SERIES.c.study_uid).join(SERIES, SERIES.c.series_uid == INSTANCES.c.series_uid)
        what = f"instance {sop_instance_uid[:70]}"
        return self._one(query.where(INSTANCES.c.sop_instance_uid == sop_instance_uid), what)

    def path(self, instance: Mapping[str, Any]) -> Path:
        """The file of an instance."""
        return self.folder / str(instance["file"])

    def remove(self, study_uid: str) -> int:
        """Take a study out with all that is said of it, and its files.

        Returns:
            How many instances it had.

        Raises:
            InputError: There is none.
        """
        self.get(study_uid)
        files = [self.path(row) for one in self.series(study_uid) for row in self.instances(str(one["series_uid"]))]
        with self.engine.begin() as connection:
            connection.execute(delete(STUDIES).where(STUDIES.c.study_uid == study_uid))
        for file in files:
            file.unlink(missing_ok=True)
        return len(files)

    def bytes_used(self) -> int:
        """By all instances."""
        with self.engine.connect() as connection:
            return int(connection.execute(select(_BYTES)).scalar_one())

    def unknown_files(self, *, older_than_s: float = 3600.0) -> Iterator[Path]:
        """Files that no row knows and that are older than a while: what a kill left."""
        with self.engine.connect() as connection:
            known = set(connection.execute(select(INSTANCES.c.file)).scalars())
        for path in (self.folder / INSTANCES_FOLDER).glob("*/*"):
            if path.relative_to(self.folder).as_posix() in known:
                continue
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > older_than_s:
                    yield path

    def sweep(self, *, older_than_s: float = 3600.0) -> int:
        """Remove what :meth:`unknown_files` finds.

        Returns:
            How many.
        """
        removed = 0
        for path in self.unknown_files(older_than_s=older_than_s):
            path.unlink(missing_ok=True)
            removed += 1
        return removed

    def damaged(self) -> Iterable[str]:
        """Read every file again; a sentence for each that is missing or has other bytes than it came with."""
        with self.engine.connect() as connection:
            rows = connection.execute(select(INSTANCES)).mappings().all()
        for row in rows:
            path = self.folder / str(row["file"])
            if not path.is_file():
                yield f"instance {row['sop_instance_uid']}: its file is missing"
            elif _sha256(path) != row["sha256"]:
                yield f"instance {row['sop_instance_uid']}: its file has other bytes than it came with"

    def _one(self, query: Select[Any], what: str) -> Mapping[str, Any]:
        with self.engine.connect() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise InputError(what, got="none of this UID")
        return dict(row)

    def _all(self, query: Select[Any]) -> tuple[Mapping[str, Any], ...]:
        with self.engine.connect() as connection:
            return tuple(dict(row) for row in connection.execute(query).mappings())


def _require_same(uid: str, there: str, digest: str) -> None:
    if there != digest:
        hint = "remove the study first if the new one is right"
        raise InputError(f"instance {uid}", got="other bytes under a UID that is there", hint=hint)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
