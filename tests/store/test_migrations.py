"""A store of an earlier version is brought up to date with everything that is in it, whatever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine
from sqlalchemy.exc import DataError

import spicula.store.database as database
from spicula.store.database import FILE, open_database
from spicula.store.studies import Studies
from spicula.store.tables import METADATA

LARGE = 3 * 2**30
"""More than 32 bits hold: an enhanced CT of a whole body."""

AT = "2026-01-01T00:00:0{}.000000Z"

ROWS: dict[str, list[dict[str, Any]]] = {
    "studies": [
        {"study_uid": f"1.{n}", "patient_id": f"P{n}", "patient_name": "Ævar^Øst", "study_date": "", "description": "",
         "accession_number": "", "body_part": "CHEST", "received_at": AT.format(n), "origin": "upload",
         "deidentified": False}
        for n in range(3)
    ],
    "series": [
        {"series_uid": f"1.{n}.1", "study_uid": f"1.{n}", "modality": "CT", "description": ""} for n in range(3)
    ],
    "instances": [
        {"sop_instance_uid": f"1.{n}.1.{k}", "series_uid": f"1.{n}.1", "sop_class_uid": "1.2",
         "transfer_syntax_uid": "1.2.1", "frames": 1, "file": f"instances/{n}{k}", "bytes": 2**31 - 1, "sha256": "0"}
        for n in range(3)
        for k in range(2)
    ],
    "analyses": [
        {"id": "a", "study_uid": "1.1", "series_uid": "1.1.1", "created_at": AT.format(5), "record": {"findings": []},
         "folder": "analyses/a"}
    ],
    "findings": [
        {"id": "f", "study_uid": "1.1", "series_uid": "1.1.1", "analysis_id": "a", "state": "proposed", "version": 1,
         "content": {"n": 1}, "changed_at": AT.format(5), "changed_by": "spicula"}
    ],
    "finding_changes": [
        {"finding_id": "f", "version": 1, "at": AT.format(5), "by": "spicula", "what": "proposed", "state": "proposed",
         "content": {"n": 1}}
    ],
    "jobs": [
        {"id": f"{n}", "kind": "analyze", "key": f"1.{n}", "task": {"n": n}, "state": state, "tries": 1,
         "created_at": AT.format(n), "created_by": "ada", "not_before": AT.format(n), "progress": 0.5, "message": ""}
        for n, state in enumerate(("done", "queued", "failed"))
    ],
}  # fmt: skip


def made_before(place: tuple[Path, str | None]) -> None:
    """A store as the first version left it, with something in it."""
    folder, url = place
    folder.mkdir(parents=True)
    address = f"sqlite:///{folder / FILE}" if url is None else sa.make_url(url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(address)
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        tables = sa.MetaData()
        tables.reflect(connection)
        for name, rows in ROWS.items():
            connection.execute(sa.insert(tables.tables[name]), rows)
    engine.dispose()


def require_whole(engine: Engine) -> None:
    """Everything that was there is there, and the tables are what this version wants."""
    with engine.connect() as connection:
        for name, rows in ROWS.items():
            table = METADATA.tables[name]
            found = {
                str(row[table.primary_key.columns[0].name]): row
                for row in connection.execute(sa.select(table)).mappings()
            }
            assert len(found) == len(rows), name
            for row in rows:
                there = found[str(row[table.primary_key.columns[0].name])]
                assert {column: there[column] for column in row} == row, name
        newest = connection.execute(sa.text("SELECT newest_at, received_at FROM studies")).all()
        assert [one for one, _ in newest] == [other for _, other in newest]
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_a_store_of_the_first_version_keeps_all_that_is_in_it(place) -> None:
    made_before(place)
    engine = open_database(*place)
    require_whole(engine)
    engine.dispose()
    open_database(*place).dispose()  # nothing is left to do
    studies = Studies(open_database(*place), place[0])
    assert studies.remove("1.1") == 2  # and what refers to it goes with it
    with studies.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM findings")).scalar_one() == 0
    studies.engine.dispose()


def test_a_file_of_gigabytes_is_counted(place) -> None:
    made_before(place)
    row = {**ROWS["instances"][0], "sop_instance_uid": "1.0.1.9", "file": "instances/large", "bytes": LARGE}
    if place[1] is not None:
        before = sa.create_engine(sa.make_url(place[1]).set(drivername="postgresql+psycopg"))
        with pytest.raises(DataError), before.begin() as connection:
            connection.execute(sa.insert(METADATA.tables["instances"]).values(row))
        before.dispose()
    engine = open_database(*place)
    with engine.begin() as connection:
        connection.execute(sa.insert(METADATA.tables["instances"]).values(row))
    studies = Studies(engine, place[0])
    (series,) = studies.series("1.0")
    assert (series["bytes"], type(series["bytes"])) == (LARGE + 2 * (2**31 - 1), int)
    assert studies.bytes_used() == LARGE + 6 * (2**31 - 1)
    assert studies.instance("1.0.1.9")["bytes"] == LARGE
    engine.dispose()


KILLED = """
import sys, time
from pathlib import Path
from alembic import op
from spicula.store.database import open_database
made = op.create_index
def slow(name, *arguments, **options):
    made(name, *arguments, **options)
    if name == "ix_jobs_kind_key_created_at":
        print("half", flush=True)
        time.sleep(600)
op.create_index = slow
open_database(Path(sys.argv[1]), sys.argv[2] or None)
"""


def test_a_kill_in_the_middle_leaves_the_store_as_it_was(place) -> None:
    made_before(place)
    command = [sys.executable, "-c", KILLED, str(place[0]), place[1] or ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        os.kill(process.pid, signal.SIGKILL)
    engine = open_database(*place)
    require_whole(engine)
    engine.dispose()
