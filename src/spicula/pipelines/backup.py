"""A whole store in one file and back: every row and every file of one moment, while the server runs and writes.

A backup is a zip that any tool can open: ``tables/NAME.jsonl`` (a row a line), the instances and analyses as they lie
in the store, ``manifest.json``, and ``SHA256SUMS`` over all of it. Rows are plain JSON: what was backed up from SQLite
is restored into PostgreSQL and the other way round. Names and images of patients are in it: only its owner may read it.

Rows are read in one transaction that sees one moment. Files never change once they are there; those of that moment are
linked aside at once, so that a study that is removed meanwhile is still whole in the backup.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy import JSON, Connection, Engine, Text, cast, select

from spicula import __version__
from spicula.core.errors import InputError
from spicula.core.files import ASIDE, to_disk
from spicula.dicom.deidentify import KEY_FILE
from spicula.pipelines.archives import FILE as ARCHIVES_FILE
from spicula.pipelines.workplace import Workplace
from spicula.store.clock import now
from spicula.store.tables import ANALYSES, INSTANCES, METADATA

FORMAT = 1
MANIFEST, SUMS, TABLES_FOLDER = "manifest.json", "SHA256SUMS", "tables"

BACKUP_ASIDE = f"{ASIDE}backup-"

LEFT_S = 60.0
"""What lies aside for longer, and no process holds, was left by one that was killed."""

TRIES = 5
"""So often the rows are read anew where a study is removed while its files are linked."""

Progress = Callable[[int, int], None]

_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds.

    Args:
        format: Of the archive.
        made_at: UTC, ISO 8601.
        version: Of Spicula.
        revision: Of the tables.
        rows: How many, by table.
        files: How many, of instances and analyses; 0 where these were not asked for.
        bytes: Of these files.
        key: Whether the secret of de-identification is in it.
    """

    format: int
    made_at: str
    version: str
    revision: str
    rows: Mapping[str, int]
    files: int
    bytes: int
    key: bool


def backup(
    place: Workplace, out: Path, *, files: bool = True, key: bool = False, progress: Progress | None = None
) -> Manifest:
    """Write a store into one file; it appears whole or not at all.

    Args:
        place: The store; it may be in use.
        out: A file that is not there yet, outside the store.
        files: Whether the files of instances and analyses are in it, or the rows alone.
        key: Whether the secret of de-identification is in it: with it and a patient's id the pseudonym can be told.
        progress: Called with how many files are done and how many there are.

    Returns:
        What it holds.

    Raises:
        InputError: ``out`` is there or within the store, the disk has no room, or a file of the store is missing or
            damaged.
    """
    out = out.absolute()
    if out.exists():
        raise InputError(str(out), got="something that is there", expected="a new name")
    if out.resolve().is_relative_to(place.folder.resolve()):
        raise InputError(str(out), got="a place within the store", expected="another folder, best another disk")
    out.parent.mkdir(parents=True, exist_ok=True)
    with held_aside(out.parent, BACKUP_ASIDE) as aside, held_aside(place.folder, BACKUP_ASIDE) as linked:
        archive_path = aside / "archive.zip"
        with (
            os.fdopen(os.open(archive_path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "w+b") as stream,
            zipfile.ZipFile(stream, "w") as archive,
            _moment(place.engine) as connection,
        ):
            known = _linked(place, connection, linked) if files else {}
            require_room(out.parent, sum(path.stat().st_size for path, _ in known.values()))
            made = _written(place, connection, archive, known, key=key, progress=progress)
        to_disk(archive_path)
        os.replace(archive_path, out)
        to_disk(out.parent)
    return made


def _written(
    place: Workplace, connection: Connection, archive: zipfile.ZipFile, known: Mapping[str, tuple[Path, str | None]],
    *, key: bool, progress: Progress | None,
) -> Manifest:  # fmt: skip
    from alembic.runtime.migration import MigrationContext

    sums: dict[str, str] = {}
    revision = str(MigrationContext.configure(connection).get_current_revision())
    rows = {table.name: _dump(connection, table, archive, sums) for table in METADATA.sorted_tables}
    connection.rollback()  # the moment has been read: nobody has to keep it for us
    size = 0
    for number, (name, (path, sha256)) in enumerate(known.items(), start=1):
        with path.open("rb") as source:
            size += _put(archive, name, source, sums)
        if sha256 is not None and sums[name] != sha256:
            hint = "see 'spicula store check'; an earlier backup may have it whole, or remove its study"
            raise InputError(f"{name} of the store", got="other bytes than it came with", hint=hint)
        if progress is not None:
            progress(number, len(known))
    extra = [ARCHIVES_FILE, *([KEY_FILE] if key else [])]
    there = [name for name in extra if (place.folder / name).is_file()]
    for name in there:
        with (place.folder / name).open("rb") as source:
            _put(archive, name, source, sums)
    made = Manifest(FORMAT, now(), __version__, revision, rows, len(known), size, KEY_FILE in there)
    _put(archive, MANIFEST, [json.dumps(asdict(made), indent=2).encode() + b"\n"], sums)
    _put(archive, SUMS, [f"{digest}  {name}\n".encode() for name, digest in sums.items()], {})
    return made


@contextmanager
def _moment(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one moment, whatever is written meanwhile."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        yield connection  # SQLite's transactions see the moment of their first look anyhow


def _linked(place: Workplace, connection: Connection, aside: Path) -> dict[str, tuple[Path, str | None]]:
    """Where the files of this moment lie, by name, with their SHA-256 where a row tells it."""
    for _ in range(TRIES):
        connection.rollback()
        wanted: dict[str, tuple[Path, str | None]] = {
            str(row.file): (place.folder / row.file, str(row.sha256))
            for row in connection.execute(select(INSTANCES.c.file, INSTANCES.c.sha256).order_by(INSTANCES.c.file))
        }
        for folder in connection.execute(select(ANALYSES.c.folder).order_by(ANALYSES.c.folder)).scalars():
            for path in sorted((place.folder / folder).rglob("*")):
                if path.is_file() and not path.is_symlink():
                    wanted[path.relative_to(place.folder).as_posix()] = (path, None)
        try:
            return {name: (_link(path, aside / name), sha256) for name, (path, sha256) in wanted.items()}
        except FileNotFoundError as error:
            missing = str(error.filename)
            time.sleep(0.1)  # its study is being removed: the rows go first
    name = Path(missing).relative_to(place.folder).as_posix()
    raise InputError(f"{name} of the store", got="a missing file", hint="see 'spicula store check'")


def _link(path: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except FileExistsError:
        return target
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links: it is read where it lies
        return path
    return target


def _dump(connection: Connection, table: Any, archive: zipfile.ZipFile, sums: dict[str, str]) -> int:
    """Write a table, a row a line: what is NULL is left out, so that a JSON null is told from it."""
    columns = [cast(c, Text).label(c.name) if isinstance(c.type, JSON) else c for c in table.columns]
    documents = {c.name for c in table.columns if isinstance(c.type, JSON)}
    count = 0

    def lines() -> Iterator[bytes]:
        nonlocal count
        query = select(*columns).order_by(*table.primary_key.columns)
        for row in connection.execution_options(yield_per=1000).execute(query).mappings():
            values = {name: value for name, value in row.items() if value is not None}
            plain = {name: json.loads(value) if name in documents else value for name, value in values.items()}
            count += 1
            yield json.dumps(plain, ensure_ascii=False).encode() + b"\n"

    _put(archive, f"{TABLES_FOLDER}/{table.name}.jsonl", lines(), sums, packed=True)
    return count


def _put(
    archive: zipfile.ZipFile, name: str, source: IO[bytes] | Iterable[bytes], sums: dict[str, str], *,
    packed: bool = False,
) -> int:  # fmt: skip
    """Write one member; its size."""
    info = zipfile.ZipInfo(name, time.gmtime()[:6])
    info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    info.external_attr = 0o600 << 16
    digest, size = hashlib.sha256(), 0
    chunks = iter(lambda: source.read(_CHUNK), b"") if hasattr(source, "read") else source
    with archive.open(info, "w", force_zip64=True) as target:
        for chunk in chunks:
            target.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    sums[name] = digest.hexdigest()
    return size


@contextmanager
def held_aside(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder of our own to write in, removed at the end; one that a killed process left is removed first.

    Args:
        parent: Where.
        prefix: How its name begins.
    """
    for left in parent.glob(f"{prefix}*"):
        remove_left(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def remove_left(folder: Path) -> bool:
    """Remove a folder aside that no process holds.

    Returns:
        Whether it was one.
    """
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if time.time() - folder.stat().st_mtime > LEFT_S:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                return True
        finally:
            os.close(handle)
    return False


def require_room(folder: Path, size: int) -> None:
    """Refuse what a disk has no space for.

    Raises:
        InputError: It has less than so many bytes.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        got, expected = f"{free / 1e9:.2f} GB free", f"{size / 1e9:.2f} GB"
        raise InputError(str(folder), got=got, expected=expected, hint="choose another disk")
