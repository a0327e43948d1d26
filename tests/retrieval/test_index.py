"""What tells that an index was changed, in folders and in PostgreSQL alike."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from spicula.core.embedding import Embeddings
from spicula.core.errors import InputError
from spicula.retrieval.exact import ExactIndex
from spicula.retrieval.opening import create_index
from spicula.retrieval.pgvector import PgvectorIndex
from spicula.retrieval.store import DATABASE

NETWORK = "network@1"


def finding(name, turn=0, **more):
    """One finding of a name; another vector for each turn."""
    vector = np.eye(8, dtype=np.float32)[turn : turn + 1]
    pid, nodule = name.split("/")
    return Embeddings(vector, (name,), NETWORK), [{"pid": pid, "nodule_id": nodule, "turn": turn} | more]


@pytest.fixture(params=["folder", "database"])
def opened(request, tmp_path):
    """What opens one index, as often as it is asked."""
    if request.param == "folder":
        create_index(tmp_path / "index", fingerprint=NETWORK, dimensions=8)
        return lambda: ExactIndex(tmp_path / "index")
    url = request.getfixturevalue("postgres_url")
    PgvectorIndex.create(url, "findings", fingerprint=NETWORK, dimensions=8).close()
    return lambda: PgvectorIndex.open(url, "findings")


def test_every_change_gives_another_generation_and_nothing_else_does(opened):
    seen = []
    with opened() as writer, opened() as reader:

        def look():
            assert reader.generation == writer.generation == reader.generation
            seen.append(reader.generation)

        look()
        for change in (
            lambda: writer.add(*finding("a/1")),
            lambda: writer.add(*finding("b/1", fresh="field")),
            lambda: writer.update(*finding("a/1", 1)),
            lambda: writer.remove(["a/1"]),
            lambda: writer.add(*finding("a/1")),
            lambda: writer.update(*finding("a/1")),
        ):
            change()
            look()
        assert len(set(seen)) == len(seen) == 7
        for refused in (
            lambda: writer.add(*finding("a/1", other="field")),
            lambda: writer.update(*finding("c/1")),
            lambda: writer.remove(["c/1"]),
        ):
            with suppress(InputError):
                refused()
        reader.search(finding("a/1")[0].vectors, 1, where="turn = 0", fingerprint=NETWORK)
        reader.get(reader.ids())
        assert list(reader.check()) == []
        assert reader.stats().findings == 2
        assert reader.generation == seen[-1]
    with opened() as again:
        assert again.generation == seen[-1]


def test_an_index_that_was_put_in_the_place_of_another_is_another(tmp_path):
    """It holds as many findings and was changed as often."""
    folder, kept = tmp_path / "index", tmp_path / "kept"
    create_index(folder, fingerprint=NETWORK, dimensions=8)
    with ExactIndex(folder) as index:
        index.add(*finding("a/1"))
        before = index.generation
    shutil.copytree(folder, kept)
    with ExactIndex(folder) as index:
        index.add(*finding("b/1"))
        one = index.generation
    shutil.rmtree(folder)
    kept.rename(folder)
    with ExactIndex(folder) as index:
        assert index.generation == before
        index.add(*finding("b/1", 1))
        assert len({before, one, index.generation}) == 3


def test_an_index_of_before_there_were_generations_has_one_too(tmp_path):
    """A folder whose data base was never marked."""
    create_index(tmp_path, fingerprint=NETWORK, dimensions=8)
    with sqlite3.connect(tmp_path / DATABASE) as old:
        old.execute("PRAGMA user_version = 0")
    old.close()
    with ExactIndex(Path(tmp_path)) as index:
        before = index.generation
        assert list(index.check()) == []
        index.add(*finding("a/1"))
        assert index.generation != before
        assert list(index.check()) == []


def test_a_database_made_anew_under_the_same_name_is_another(postgres_url):
    seen = set()
    for _ in range(2):
        with PgvectorIndex.create(postgres_url, "findings", fingerprint=NETWORK, dimensions=8) as index:
            index.add(*finding("a/1"))
            seen.add(index.generation)
        PgvectorIndex.drop(postgres_url, "findings")
    assert len(seen) == 2


def test_who_may_only_read_sees_the_generation_and_who_may_change_needs_no_more(postgres_url):
    import psycopg

    def run(sql):
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(sql)

    PgvectorIndex.create(postgres_url, "findings", fingerprint=NETWORK, dimensions=8).close()
    with PgvectorIndex.open(postgres_url, "findings") as owner:
        owner.add(*finding("a/1"))
        seen = owner.generation
    run("CREATE ROLE curator LOGIN")
    try:
        run("GRANT USAGE ON SCHEMA spicula_findings TO curator")
        run("GRANT SELECT ON ALL TABLES IN SCHEMA spicula_findings TO curator")
        with PgvectorIndex.open(postgres_url.replace("//postgres:", "//curator:"), "findings") as mine:
            assert mine.generation == seen
            run("GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA spicula_findings TO curator")
            mine.add(*finding("b/1"))
            assert mine.generation != seen
    finally:
        run("DROP OWNED BY curator")
        run("DROP ROLE curator")
