"""A backup back into a store that is not there yet: every byte checked first, whole or not at all."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from spicula.core.errors import InputError, OfflineError
from spicula.core.files import ASIDE
from spicula.dicom.deidentify import KEY_FILE
from spicula.pipelines.archives import FILE as ARCHIVES_FILE
from spicula.pipelines.backup import (
    FORMAT,
    MANIFEST,
    SUMS,
    TABLES_FOLDER,
    Manifest,
    Progress,
    held_aside,
    require_room,
)
from spicula.pipelines.worker import ANALYSES_FOLDER
from spicula.store.database import FILE, open_database
from spicula.store.studies import INSTANCES_FOLDER
from spicula.store.tables import METADATA

RESTORE_ASIDE = f"{ASIDE}restore-"

_CHUNK = 2**20
_MOST_TEXT = 2**28
"""Bytes of the manifest or the sums."""
_BATCH = 500

_PART = r"(?!\.{1,2}(?:/|$))[^/\\\x00-\x1f]+"
_NAME = re.compile(rf"(?:{INSTANCES_FOLDER}|{ANALYSES_FOLDER})(?:/{_PART})+|{TABLES_FOLDER}/[a-z_]+\.jsonl")
_ALONE = (MANIFEST, ARCHIVES_FILE, KEY_FILE)


def restore(archive: Path, folder: Path, url: str | None = None, *, progress: Progress | None = None) -> Manifest:
    """Make a store of a backup.

    Args:
        archive: As :func:`spicula.pipelines.backup.backup` wrote it.
        folder: Of the new store: not there yet, or empty.
        url: Database of the new store, without tables of Spicula; SQLite in the folder if None.
        progress: Called with how many files are done and how many there are.

    Returns:
        What the backup holds.

    Raises:
        InputError: There is a store, the archive is damaged, is no backup, or is of a later version, or the disk has
            no room.
        OfflineError: The database cannot be reached.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(str(folder), got="something that is there", expected="a folder that is new or empty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _opened(archive) as container, held_aside(folder.parent, RESTORE_ASIDE) as aside:
        sums, made = _contents(container, archive)
        require_room(folder.parent, sum(info.file_size for info in container.infolist()))
        store = aside / "store"
        for number, (name, sha256) in enumerate(sums.items(), start=1):
            root = aside if name.startswith(f"{TABLES_FOLDER}/") or name == MANIFEST else store
            _extract(container, name, root / name, sha256, archive)
            if progress is not None:
                progress(number, len(sums))
        store.mkdir(exist_ok=True)
        _check_rows(aside / TABLES_FOLDER, sums, made, archive)
        _fill(store, url, made, aside / TABLES_FOLDER, folder, archive)
    open_database(folder, url).dispose()
    return made


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    if not archive.is_file():
        raise InputError(str(archive), got="no such file", expected="a backup")
    try:
        with zipfile.ZipFile(archive) as container:
            yield container
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, json.JSONDecodeError) as error:
        raise damaged(archive, str(error) or type(error).__name__) from error


def damaged(archive: Path, why: str) -> InputError:
    """The error for an archive that cannot be trusted."""
    return InputError(f"{archive}: a damaged backup", got=why, hint="take another copy or an earlier backup")


def _contents(container: zipfile.ZipFile, archive: Path) -> tuple[dict[str, str], Manifest]:
    """The sums of all members by name, and the manifest; nothing is unpacked before the names are known to be safe."""
    names = container.namelist()
    if not {MANIFEST, SUMS} <= set(names):
        raise InputError(str(archive), got="another file, or one that is cut short", expected="a backup")
    lines = _text(container, SUMS, archive).splitlines()
    sums = {line[66:]: line[:64] for line in lines if re.fullmatch(r"[0-9a-f]{64}  .+", line)}
    if len(sums) != len(lines) or sorted([*sums, SUMS]) != sorted(names):
        raise damaged(archive, f"members that {SUMS} does not name, or lacks")
    unsafe = [name for name in sums if name not in _ALONE and not _NAME.fullmatch(name)]
    if unsafe:
        raise InputError(f"{archive}: member {unsafe[0]!r}", got="a name that no backup has")
    told = _manifest(_text(container, MANIFEST, archive), archive)
    if {f"{TABLES_FOLDER}/{name}.jsonl" for name in told.rows} != {n for n in sums if n.startswith(TABLES_FOLDER)}:
        raise damaged(archive, f"other tables than {MANIFEST} names")
    return sums, told


def _text(container: zipfile.ZipFile, name: str, archive: Path) -> str:
    if container.getinfo(name).file_size > _MOST_TEXT:
        raise damaged(archive, f"{name} without end")
    return container.read(name).decode("utf-8", errors="replace")


def _manifest(told: str, archive: Path) -> Manifest:
    try:
        values = json.loads(told)
        if values["format"] != FORMAT:
            what = f"{archive}: format of the backup"
            raise InputError(what, got=values["format"], expected=FORMAT, hint="update Spicula")
        made = Manifest(**values)
    except (TypeError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise damaged(archive, f"another {MANIFEST} than expected") from error
    if made.revision not in (known := _revisions()):
        raise InputError(
            f"{archive}", got=f"tables of a later version ({made.revision}, Spicula {made.version})",
            expected=f"{known[0]} or older", hint="update Spicula",
        )  # fmt: skip
    return made


def _extract(container: zipfile.ZipFile, name: str, target: Path, sha256: str, archive: Path) -> None:
    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o600 if name in _ALONE else 0o644
    with (
        container.open(name) as source,
        os.fdopen(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as out,
    ):
        while chunk := source.read(_CHUNK):
            out.write(chunk)
            digest.update(chunk)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != sha256:
        raise damaged(archive, f"other bytes of {name} than {SUMS} tells")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as stream:
        for line in stream:
            yield json.loads(line)


def _check_rows(tables: Path, sums: Mapping[str, str], made: Manifest, archive: Path) -> None:
    """Every instance has its file, as its row says."""
    for name, count in made.rows.items():
        if sum(1 for _ in _rows(tables / f"{name}.jsonl")) != count:
            raise damaged(archive, f"another number of rows of {name}")
    if made.files:
        for row in _rows(tables / "instances.jsonl"):
            if sums.get(row.get("file", "")) != row.get("sha256", ""):
                raise damaged(archive, f"no file of instance {row.get('sop_instance_uid')}")


def _fill(store: Path, url: str | None, made: Manifest, tables: Path, folder: Path, archive: Path) -> None:
    """Write the rows and move the files into place: in PostgreSQL the rows are there once the files are."""
    engine = _engine(store, url)
    moved = False
    try:
        with engine.begin() as connection:
            there = set(sa.inspect(connection).get_table_names()) & {*METADATA.tables, "alembic_version"}
            if there:
                hint = "name another database, or drop these tables"
                raise InputError("database", got=f"tables of a store ({', '.join(sorted(there))})", hint=hint)
            _make_tables(connection, made.revision)
            _insert(connection, tables, made, archive)
            if url is not None:
                os.rename(store, folder)
                moved = True
        if url is None:
            engine.dispose()
            os.rename(store, folder)
    except BaseException as error:
        if moved:
            os.rename(folder, store)
        if isinstance(error, SQLAlchemyError):
            raise damaged(archive, f"rows that do not fit together ({type(error).__name__})") from None
        raise
    finally:
        engine.dispose()


def _engine(folder: Path, url: str | None) -> sa.Engine:
    if url is None:
        return sa.create_engine(f"sqlite:///{folder / FILE}", hide_parameters=True)
    try:
        engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), hide_parameters=True)
        engine.connect().close()
    except SQLAlchemyError as error:
        hint = "is it running, and may this user log in (PGPASSWORD, ~/.pgpass)?"
        raise OfflineError("database to restore into", got=type(error).__name__, hint=hint) from None
    return engine


def _scripts() -> tuple[Any, Any]:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    import spicula.store.database as database

    config = Config()
    folder = Path(database.__file__).with_name("migrations")
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config, ScriptDirectory.from_config(config)


def _revisions() -> list[str]:
    """All that this version knows, the newest first."""
    _, scripts = _scripts()
    return [str(script.revision) for script in scripts.walk_revisions()]


def _make_tables(connection: sa.Connection, revision: str) -> None:
    """Make the tables as they were when the backup was made; opening the store brings them up to date."""
    from alembic import command

    config, _ = _scripts()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _insert(connection: sa.Connection, tables: Path, made: Manifest, archive: Path) -> None:
    metadata = sa.MetaData()
    metadata.reflect(connection, only=list(made.rows))
    for table in metadata.sorted_tables:
        rows = _rows(tables / f"{table.name}.jsonl")
        for _, alike in itertools.groupby(rows, key=lambda row: tuple(sorted(row))):  # others are NULL in them
            while batch := list(itertools.islice(alike, _BATCH)):
                connection.execute(sa.insert(table), batch)
        _count_on(connection, table)
    if connection.dialect.name == "sqlite" and connection.execute(sa.text("PRAGMA foreign_key_check")).first():
        raise damaged(archive, "rows that name rows that are not there")


def _count_on(connection: sa.Connection, table: sa.Table) -> None:
    """Let PostgreSQL go on counting behind the ids that came."""
    keys = list(table.primary_key.columns)
    if connection.dialect.name != "postgresql" or len(keys) != 1 or not isinstance(keys[0].type, sa.Integer):
        return
    sequence = sa.func.pg_get_serial_sequence(f'"{table.name}"', keys[0].name)
    last = connection.execute(sa.select(sa.func.max(keys[0]))).scalar_one()
    if last is not None:
        connection.execute(sa.select(sa.func.setval(sequence, last)))
