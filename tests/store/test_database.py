"""The database: made, brought up to date, refused when it is of a later version."""

from __future__ import annotations

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from spicula.core.errors import InputError, OfflineError
from spicula.store.database import alone, open_database
from spicula.store.tables import METADATA, STUDIES


def test_migrations_make_exactly_the_tables(engine) -> None:
    with engine.connect() as connection:
        found = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(found, METADATA) == []


def test_opening_again_keeps_what_is_there(place) -> None:
    engine = open_database(*place)
    row = {"study_uid": "1.2.3", "patient_id": "P", "received_at": "2026-01-01T00:00:00.000000Z", "origin": "upload"}
    with engine.begin() as connection:
        connection.execute(insert(STUDIES).values(row))
    engine.dispose()
    engine = open_database(*place)
    with engine.connect() as connection:
        assert connection.execute(select(STUDIES.c.patient_id)).scalars().all() == ["P"]
    engine.dispose()


def test_a_database_of_a_later_version_is_refused_and_left_alone(place) -> None:
    engine = open_database(*place)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(InputError, match="later version"):
        open_database(*place)


def test_two_that_open_a_new_store_at_once_make_it_once(place) -> None:
    failed: list[BaseException] = []

    def opened() -> None:
        try:
            open_database(*place).dispose()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=opened) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_who_must_be_alone_waits_for_the_other(engine) -> None:
    order: list[str] = []
    inside = threading.Event()

    def first() -> None:
        with alone(engine):
            inside.set()
            order.append("first in")
            threading.Event().wait(0.2)
            order.append("first out")

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait()
    with alone(engine):
        order.append("second")
    thread.join()
    assert order == ["first in", "first out", "second"]


def test_a_server_that_is_not_there_is_named_without_the_password(tmp_path) -> None:
    with pytest.raises(OfflineError, match=r"127\.0\.0\.1:1/none") as caught:
        open_database(tmp_path, "postgresql://me:s3cret@127.0.0.1:1/none")
    assert "s3cret" not in str(caught.value)
    with pytest.raises(InputError, match="postgresql://USER@HOST/DB"):
        open_database(tmp_path, "mysql://me@host/db")


def test_errors_of_the_database_hold_no_parameters(engine) -> None:
    row = {"study_uid": "1.2", "patient_id": "P1", "patient_name": "Doe^Jane", "origin": "upload", "received_at": None}
    with pytest.raises(IntegrityError) as caught, engine.begin() as connection:
        connection.execute(insert(STUDIES).values(row))
    assert "parameters hidden" in str(caught.value)
