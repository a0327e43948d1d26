"""The index in PostgreSQL, against a real server: what it finds, what it refuses, what is left when things break."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing, suppress

import numpy as np
import psycopg
import pytest

from spicula.core.embedding import Embeddings
from spicula.core.errors import InputError
from spicula.retrieval.pgvector import PgvectorIndex

NET = "net@0"


def unit(vectors):
    vectors = np.asarray(vectors, dtype=np.float64)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def findings(n, d=8, *, seed=0, first=0):
    """Vectors, and facts: four findings a patient, every third without a diameter."""
    vectors = unit(np.random.default_rng(seed).normal(size=(n, d)))
    numbers = range(first, first + n)
    ids = tuple(f"P{number // 4}/{number}" for number in numbers)
    facts = [
        {"pid": f"P{number // 4}", "nodule_id": f"{number}", "type": ("lung", "liver")[number % 2]}
        | ({"diameter_mm": float(number)} if number % 3 else {})
        for number in numbers
    ]
    return Embeddings(vectors, ids, NET), facts


def make(url, name="nodules", d=8, **more):
    return PgvectorIndex.create(url, name, fingerprint=NET, dimensions=d, **more)


def nearest(embeddings, query, k, allowed):
    """Brute force: ids and distances of those that are allowed."""
    distance = np.sqrt(((embeddings.vectors.astype(np.float64) - query.astype(np.float64)) ** 2).sum(axis=1))
    pairs = sorted((away, name) for away, name, ok in zip(distance, embeddings.finding_ids, allowed, strict=True) if ok)
    return [(name, away) for away, name in pairs[:k]]


def found(matches):
    return [(match.finding_id, match.distance) for match in matches]


def rows(url, sql, *values):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql, values)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def filled(postgres_url):
    embeddings, facts = findings(60)
    with make(postgres_url) as index:
        index.add(embeddings, facts)
        yield index, embeddings, facts


def test_it_imports_without_its_packages():
    blocked = "import sys; sys.modules['psycopg'] = sys.modules['pgvector'] = None\n"
    code = f"{blocked}from spicula.retrieval.pgvector import PgvectorIndex as P\nP.open('postgresql://a@b/c', 'x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MissingExtraError" in done.stderr
    assert "pip install 'spicula[postgres]'" in done.stderr


def test_what_was_put_in_comes_out(filled, postgres_url):
    index, embeddings, facts = filled
    assert len(index) == 60
    assert "P0/1" in index
    assert not {"P0/99", "x\0"} & {name for name in ("P0/99", "x\0") if name in index}
    assert 7 not in index
    order = ("P3/12", "P0/0", "P14/59")
    got, known = index.get(order)
    places = [embeddings.finding_ids.index(name) for name in order]
    np.testing.assert_array_equal(got.vectors, embeddings.vectors[places])
    assert [dict(one) for one in known] == [facts[place] for place in places]
    assert (got.finding_ids, got.fingerprint) == (order, NET)
    assert dict(index.fields) == {"pid": "text", "nodule_id": "text", "type": "text", "diameter_mm": "number"}
    assert index.ids() == tuple(sorted(embeddings.finding_ids))
    assert index.ids("diameter_mm > 56 and type = 'lung'") == ("P14/58",)
    assert index.get(())[0].vectors.shape == (0, 8)
    stats = index.stats()
    assert (stats.backend, stats.findings, stats.patients, stats.dimensions) == ("pgvector", 60, 15, 8)
    assert stats.bytes_on_disk > 60 * 8 * 4
    assert list(index.check()) == []
    with PgvectorIndex.open(postgres_url, "nodules") as again:
        assert (again.fingerprint, again.dimensions, len(again)) == (NET, 8, 60)


def test_update_and_remove_are_whole_or_nothing(filled):
    index, embeddings, facts = filled
    other = Embeddings(embeddings.vectors[[1, 0]], embeddings.finding_ids[:2], NET)
    index.update(other, [{"pid": "new", "nodule_id": "1", "size": 3}, facts[1]])
    assert [dict(one) for one in index.get(embeddings.finding_ids[:2])[1]] == [
        {"pid": "new", "nodule_id": "1", "size": 3.0}, facts[1],
    ]  # fmt: skip
    np.testing.assert_array_equal(index.get(["P0/0"])[0].vectors[0], embeddings.vectors[1])
    absent = Embeddings(embeddings.vectors[:2], ("P0/0", "absent"), NET)
    with pytest.raises(InputError, match="no finding absent"):
        index.update(absent, [facts[2], {"pid": "a", "nodule_id": "b", "fresh": 1}])
    with pytest.raises(InputError, match="no finding absent"):
        index.remove(["P0/0", "absent"])
    with pytest.raises(InputError, match="no finding absent"):
        index.get(["P0/0", "absent"])
    with pytest.raises(InputError, match="P0/0: got there already"):
        index.add(Embeddings(embeddings.vectors[:2], ("brand new", "P0/0"), NET), facts[:2])
    assert "fresh" not in index.fields
    assert (len(index), "brand new" in index) == (60, False)
    index.remove(["P0/0", "P0/1", "P0/0"])
    assert (len(index), "P0/0" in index) == (58, False)


def test_what_cannot_be_put_in(filled):
    index, embeddings, _ = filled
    new, fact = Embeddings(embeddings.vectors[:1], ("new",), NET), {"pid": "p", "nodule_id": "n"}
    with pytest.raises(InputError, match=r"fingerprint of the embeddings.*'other'.*net@0"):
        index.add(Embeddings(new.vectors, new.finding_ids, "other"), [fact])
    with pytest.raises(InputError, match="got 3, expected 8"):
        index.add(Embeddings(unit([[1, 0, 0]]), ("new",), NET), [fact])
    for wrong in ({"pid": "p"}, fact | {"diameter_mm": "large"}, fact | {"type": 3}, fact | {"x": float("nan")}):
        with pytest.raises(InputError):
            index.add(new, [wrong])
    with pytest.raises(InputError):
        index.add(new, [])
    assert len(index) == 60
    assert list(index.fields) == ["pid", "nodule_id", "type", "diameter_mm"]


@pytest.mark.parametrize("where", [None, "diameter_mm > 20 and not type = 'liver'", "diameter_mm is missing"])
def test_search_finds_what_brute_force_finds(filled, where):
    index, embeddings, facts = filled
    meets = {
        None: lambda fact: True,
        "diameter_mm is missing": lambda fact: "diameter_mm" not in fact,
    }.get(where, lambda fact: fact.get("diameter_mm", 0) > 20 and fact["type"] == "lung")
    queries = findings(5, seed=3)[0].vectors
    for scope in ("all", "same-patient", "cross-patient"):
        pids, own = [f"P{number}" for number in (0, 0, 7, 14, 99)], ["P0/1", None, "P7/29", "P14/58", "nobody"]
        answers = index.search(queries, 9, where=where, scope=scope, pids=pids, own=own, fingerprint=NET)
        for query, pid, itself, matches in zip(queries, pids, own, answers, strict=True):
            allowed = [
                meets(fact) and name != itself and (scope == "all" or (fact["pid"] == pid) == (scope == "same-patient"))
                for name, fact in zip(embeddings.finding_ids, facts, strict=True)
            ]
            assert found(matches) == nearest(embeddings, query, 9, allowed)
            for match in matches:
                assert match.facts == facts[embeddings.finding_ids.index(match.finding_id)]


def test_many_dimensions_and_near_ties_are_ranked_in_float64(postgres_url):
    rng, d = np.random.default_rng(1), 384
    base = rng.normal(size=d)
    near = unit(base + 1e-6 * rng.normal(size=(200, d)))
    embeddings = Embeddings(near, tuple(f"n{number:03}" for number in range(200)), NET)
    with make(postgres_url, d=d) as index:
        index.add(embeddings, [{"pid": "p", "nodule_id": name} for name in embeddings.finding_ids])
        query = unit([base + rng.normal(size=d)])
        for k in (1, 10, 200):
            assert found(index.search(query, k, fingerprint=NET)[0]) == nearest(embeddings, query[0], k, [True] * 200)


def test_equally_near_findings_come_by_id_as_python_orders_them(postgres_url):
    ids = ("b", "B", "a/10", "a/9", "ä", "\U0001f600", "z", "\uffff")
    one = unit([[1, 2, 3]])
    with make(postgres_url, d=3) as index:
        index.add(Embeddings(np.repeat(one, 8, axis=0), ids, NET), [{"pid": "p", "nodule_id": name} for name in ids])
        for k in range(1, 9):
            assert [match.finding_id for match in index.search(one, k, fingerprint=NET)[0]] == sorted(ids)[:k]
        assert index.search(one, 1, fingerprint=NET)[0][0].distance == 0.0
        assert index.ids() == tuple(sorted(ids))


def test_what_cannot_be_searched(filled, postgres_url):
    index, embeddings, _ = filled
    query = embeddings.vectors[:1]
    for k in (0, -1, 61, True, 2.0):
        with pytest.raises(InputError, match=r"k: got .*expected 1 to 60"):
            index.search(query, k, fingerprint=NET)
    with pytest.raises(InputError, match="fingerprint of the queries"):
        index.search(query, 1, fingerprint="other")
    with pytest.raises(InputError, match=r"expected float32 \[q, 8\]"):
        index.search(query[:, :3], 1, fingerprint=NET)
    with pytest.raises(InputError, match="length 2"):
        index.search(query * 2, 1, fingerprint=NET)
    with pytest.raises(InputError, match="patients for the scope"):
        index.search(query, 1, scope="same-patient", fingerprint=NET)
    with pytest.raises(InputError, match="own ids"):
        index.search(query, 1, own=[], fingerprint=NET)
    with pytest.raises(InputError, match="one of pid, nodule_id, type, diameter_mm"):
        index.search(query, 1, where="age > 3", fingerprint=NET)
    with make(postgres_url, "empty") as empty, pytest.raises(InputError, match="empty index"):
        empty.search(query, 1, fingerprint=NET)
    index.close()
    with pytest.raises(InputError, match="closed already"):
        len(index)


def test_two_indexes_in_a_database_know_nothing_of_each_other(filled, postgres_url):
    index, _, _ = filled
    with make(postgres_url, "others", d=3) as other:
        other.add(Embeddings(unit([[1, 0, 0]]), ("P0/0",), NET), [{"pid": "x", "nodule_id": "y", "type": 3}])
        assert (len(index), len(other)) == (60, 1)
        assert (index.fields["type"], other.fields["type"]) == ("text", "number")
    with pytest.raises(InputError, match=r"got one that exists, expected a new name. Hint: open it"):
        make(postgres_url, "others")
    with pytest.raises(InputError, match="expected one of those there: nodules, others"):
        PgvectorIndex.open(postgres_url, "lost")
    rows(postgres_url, "UPDATE spicula_others.meta SET format = 7")
    with pytest.raises(InputError, match="format of index others: got 7, expected 1"):
        PgvectorIndex.open(postgres_url, "others")


NASTY = ('quote"d', "so 'called'", "100 % %s", "xmin", "ctid", "finding_id", "embedding", "; DROP TABLE", "größe", "?")


def test_names_and_values_are_never_sql(postgres_url):
    for name in ("", "a b", "A", "1a", 'a"; DROP SCHEMA public', "a" * 41, "a\n", "ä", None):
        with pytest.raises(InputError, match="name of an index"):
            make(postgres_url, name)
    value = "'; DROP TABLE spicula_nodules.findings; -- %s %(x)s \" \\"
    with make(postgres_url, d=3) as index:
        fact = {"pid": value, "nodule_id": value} | dict.fromkeys(NASTY, value)
        index.add(Embeddings(unit(np.eye(3)[:2]), (value, "plain"), NET), [fact, {"pid": "p", "nodule_id": "n"}])
        assert [dict(one) for one in index.get([value])[1]] == [fact]
        written = value.replace("'", "''")
        for name in ("pid", *NASTY):
            field = '"' + name.replace('"', '""') + '"'
            assert index.ids(f"{field} = '{written}'") == (value,)
            for where in (f"{field} in ('{written}')", f"not {field} is missing and ({field} >= '')"):
                matches = index.search(
                    unit([[1, 0, 0]]), 2, where=where, scope="same-patient", pids=[value], fingerprint=NET
                )
                assert [match.finding_id for match in matches[0]] == [value] or name == "pid"
        with pytest.raises(InputError, match="condition"):
            index.ids("pid = 'p'; DROP TABLE findings")
        assert len(index) == 2
        assert list(index.check()) == []
        index.remove([value])


def test_a_field_that_another_process_makes_is_seen(filled, postgres_url):
    index, _, _ = filled
    query, pids = findings(1)[0].vectors, ["P0"]
    for _ in range(8):  # often enough for psycopg to prepare the statements
        index.search(query, 2, where="type = 'lung'", scope="cross-patient", pids=pids, fingerprint=NET)
        index.get(["P0/0"])
    with PgvectorIndex.open(postgres_url, "nodules") as other:
        embeddings, facts = findings(1, first=100)
        other.add(embeddings, [facts[0] | {"age": 61}])
    assert list(index.fields)[-1] == "age"
    assert index.get(embeddings.finding_ids)[1][0]["age"] == 61.0
    assert index.ids("age > 60") == embeddings.finding_ids
    assert found(index.search(embeddings.vectors, 1, where="age = 61", fingerprint=NET)[0])[0][0] == "P25/100"


def test_writers_in_threads_lose_nothing(postgres_url):
    make(postgres_url).close()
    refused = []

    def write(writer):
        with PgvectorIndex.open(postgres_url, "nodules") as index:
            for part in range(6):
                embeddings, facts = findings(5, seed=part, first=(part * 2 + writer) * 5)
                index.add(embeddings, [one | {f"f{part}": 1.0} for one in facts])
                try:
                    index.add(Embeddings(embeddings.vectors[:1], (f"both {part}",), NET), facts[:1])
                except InputError as error:
                    refused.append(str(error))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with PgvectorIndex.open(postgres_url, "nodules") as index:
        assert len(index) == 66
        assert set(index.fields) == {"pid", "nodule_id", "type", "diameter_mm", *(f"f{part}" for part in range(6))}
        assert list(index.check()) == []
    assert len(refused) == 6
    assert all("there already" in text for text in refused)


class Fuse(dict):
    """Facts that have the connection cut as they are written."""

    def __init__(self, facts, cut):
        super().__init__(facts)
        self.cut = cut

    def get(self, name, default=None):
        self.cut()
        return super().get(name, default)


CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'spicula'"


def test_a_connection_that_is_cut_in_the_middle_leaves_nothing_half(filled, postgres_url, monkeypatch):
    index, embeddings, facts = filled
    more, more_facts = findings(3000, first=100, seed=5)
    more_facts = [one | {"fresh": 1.0} for one in more_facts]
    table = index._table
    plain = type(table).copy

    def copy(cursor, embeddings, kept):
        last = Fuse(kept[-1], lambda: rows(postgres_url, CUT))
        plain(table, cursor, embeddings, [*kept[:-1], last])

    monkeypatch.setattr(table, "copy", copy)
    with pytest.raises(InputError, match=r"connection lost: .*Hint: a change that was under way is there"):
        index.add(more, more_facts)
    with pytest.raises(InputError, match="connection lost"):
        index.update(embeddings, [one | {"fresh": 1.0} for one in facts])
    monkeypatch.undo()
    assert len(index) == 60
    assert [dict(one) for one in index.get(embeddings.finding_ids)[1]] == facts
    assert "fresh" not in index.fields
    assert list(index.check()) == []
    index.add(more, more_facts)
    assert len(index) == 3060


def test_what_was_acknowledged_is_there_whatever_is_cut(postgres_url):
    make(postgres_url).close()
    acknowledged, stop = [], threading.Event()

    def opened():
        for _ in range(1000):  # the opening may be cut too
            with suppress(InputError):
                return PgvectorIndex.open(postgres_url, "nodules")
        raise AssertionError("never opened")

    def write():
        try:
            with opened() as index:
                for part in range(60):
                    with suppress(InputError):
                        index.add(*findings(20, first=part * 20))
                        acknowledged.append(part)
        finally:
            stop.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not stop.wait(0.05):
        rows(postgres_url, CUT)
    thread.join()
    with PgvectorIndex.open(postgres_url, "nodules") as index:
        there = {int(name.split("/")[1]) for name in index.ids()}
        whole = {number // 20 for number in there}
        assert len(there) == 20 * len(whole)
        assert set(acknowledged) <= whole
        assert list(index.check()) == []
    assert len(acknowledged) > 0


@pytest.fixture
def clustered(postgres_url):
    rng, d = np.random.default_rng(0), 32
    centers = rng.normal(size=(30, d))
    vectors = unit(centers[rng.integers(30, size=3000)] + 0.4 * rng.normal(size=(3000, d)))
    embeddings = Embeddings(vectors, tuple(f"n{number:04}" for number in range(3000)), NET)
    facts = [{"pid": f"P{n // 3}", "nodule_id": f"{n}", "rare": float(n % 100 == 0)} for n in range(3000)]
    with make(postgres_url, d=d, ef_search=60) as index:
        index.add(embeddings, facts)
        yield index, embeddings


def test_the_graph_finds_nearly_all(clustered, postgres_url):
    index, embeddings = clustered
    queries = unit(embeddings.vectors[:50] + 0.02)
    with pytest.raises(InputError, match=r"no graph that is whole. Hint: build\(\)"):
        index.search(queries, 10, fingerprint=NET)
    assert len(list(index.check())) == 1
    index.build(m=8, ef_construction=64)
    index.build(m=12, ef_construction=64, memory_mb=32)
    assert list(index.check()) == []
    assert len(rows(postgres_url, "SELECT 1 FROM pg_indexes WHERE indexdef LIKE '%%hnsw%%'")) == 1
    with PgvectorIndex.open(postgres_url, "nodules") as exact:
        for where in (None, "rare = 1"):
            truth = exact.search(queries, 10, where=where, fingerprint=NET)
            got = index.search(queries, 10, where=where, fingerprint=NET)
            assert [len(matches) for matches in got] == [10] * 50
            same = [len(set(found(one)) & set(found(other))) for one, other in zip(got, truth, strict=True)]
            assert np.mean(same) / 10 > 0.95
        few = "rare = 1 and pid < 'P2'"
        assert index.search(queries[:3], 30, where=few, fingerprint=NET) == exact.search(
            queries[:3], 30, where=few, fingerprint=NET
        )
        assert index.search(queries[:1], 3000, fingerprint=NET) == exact.search(queries[:1], 3000, fingerprint=NET)
    used = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname LIKE '%%embedding%%'"
    index.close()
    assert rows(postgres_url, used)[0][0] >= 50


def test_an_index_is_searched_by_what_was_built_for_it(clustered, postgres_url, monkeypatch):
    index, embeddings = clustered
    queries = unit(embeddings.vectors[:20] + 0.02)
    used = "SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_indexes WHERE indexrelname LIKE '%%embedding%%'"

    def told(**options):
        """What it says it is searched by, what it found, and whether the graph was looked at."""
        before = rows(postgres_url, used)[0][0]
        with PgvectorIndex.open(postgres_url, "nodules", **options) as opened:
            answers = opened.search(queries, 10, fingerprint=NET)
            backend = opened.stats().backend
            assert list(opened.check()) == []
        return backend, answers, rows(postgres_url, used)[0][0] > before

    backend, right, _ = told()
    assert backend == "pgvector"
    assert told(as_built=True) == ("pgvector", right, False)
    index.build(m=12, ef_construction=64)
    assert told(as_built=True) == ("pgvector-hnsw", right, False), "so few are measured one by one"
    monkeypatch.setattr("spicula.retrieval.pgvector.FEW", 2999)
    backend, answers, looked = told(as_built=True)
    same = [len(set(found(one)) & set(found(other))) for one, other in zip(answers, right, strict=True)]
    assert (backend, looked, np.mean(same) / 10 > 0.95) == ("pgvector-hnsw", True, True)
    assert told() == ("pgvector", right, False)
    with PgvectorIndex.open(postgres_url, "nodules", as_built=True) as opened:
        for (name,) in rows(
            postgres_url, "SELECT indexrelname FROM pg_stat_user_indexes WHERE indexrelname LIKE '%%emb%%'"
        ):
            rows(postgres_url, f"DROP INDEX spicula_nodules.{name}")
        assert opened.search(queries, 10, fingerprint=NET) == right
        assert opened.stats().backend == "pgvector"


def test_a_graph_that_is_not_whole_is_told_and_not_used(clustered, postgres_url):
    index, embeddings = clustered
    index.build(m=4, ef_construction=16)
    rows(
        postgres_url,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = "
        "(SELECT indexrelid FROM pg_stat_user_indexes WHERE indexrelname LIKE '%%embedding%%')",
    )
    assert [text for text in index.check() if "is not whole" in text]
    with pytest.raises(InputError, match="no graph that is whole"):
        index.search(embeddings.vectors[:1], 1, fingerprint=NET)
    for wrong in ({"m": 1}, {"m": 101}, {"ef_construction": 31}, {"memory_mb": 0}, {"m": True}):
        with pytest.raises(InputError, match="expected"):
            index.build(**wrong)
    with make(postgres_url, "long", d=2001) as long, pytest.raises(InputError, match="expected 1 to 2000"):
        long.build()


def test_check_tells_what_is_wrong(filled, postgres_url):
    index, _, _ = filled
    table = "spicula_nodules.findings"
    rows(postgres_url, f"UPDATE {table} SET _embedding = '[2,0,0,0,0,0,0,0]' WHERE _finding_id = 'P0/1'")
    rows(postgres_url, f"UPDATE {table} SET pid = '' WHERE _finding_id = 'P0/2'")
    assert list(index.check()) == [
        "finding P0/1: 8 dimensions, length 2, expected 8 and 1",
        "finding P0/2: no pid",
    ]
    rows(postgres_url, "UPDATE spicula_nodules.meta SET fingerprint = 'other'")
    assert "someone made it anew" in next(index.check())
    with pytest.raises(InputError, match="someone made it anew"):
        index.add(*findings(1, first=100))
    rows(postgres_url, "DROP SCHEMA spicula_nodules CASCADE")
    assert "no such index" in next(index.check())
    with pytest.raises(InputError, match="no such index"):
        len(index)


def test_a_database_without_the_extension_says_who_brings_it(postgres_url):
    rows(postgres_url, "DROP EXTENSION vector")
    with pytest.raises(InputError, match=r"no extension vector. Hint: a superuser .* CREATE EXTENSION vector"):
        make(postgres_url)


def test_the_extension_may_live_in_any_schema(postgres_url):
    rows(postgres_url, 'CREATE SCHEMA "My Extensions"')
    rows(postgres_url, 'ALTER EXTENSION vector SET SCHEMA "My Extensions"')
    embeddings, facts = findings(9)
    with make(postgres_url) as index:
        index.add(embeddings, facts)
        index.build()
        assert found(index.search(embeddings.vectors[:1], 1, fingerprint=NET)[0]) == [("P0/0", 0.0)]
        assert list(index.check()) == []


def test_rights_are_asked_for_in_plain_words(filled, postgres_url):
    _, embeddings, _ = filled
    rows(postgres_url, "CREATE ROLE reader LOGIN")
    reader = postgres_url.replace("//postgres:", "//reader:")
    try:
        with pytest.raises(InputError, match=r"permission denied.*Hint: ask the owner"):
            PgvectorIndex.open(reader, "nodules")
        rows(postgres_url, "GRANT USAGE ON SCHEMA spicula_nodules TO reader")
        rows(postgres_url, "GRANT SELECT ON ALL TABLES IN SCHEMA spicula_nodules TO reader")
        with PgvectorIndex.open(reader, "nodules") as mine:
            assert found(mine.search(embeddings.vectors[:1], 1, fingerprint=NET)[0]) == [("P0/0", 0.0)]
            with pytest.raises(InputError, match=r"permission denied.*Hint: ask the owner"):
                mine.add(*findings(1, first=100))
    finally:
        rows(postgres_url, "DROP OWNED BY reader")
        rows(postgres_url, "DROP ROLE reader")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@127.0.0.1:1/db",
        "postgresql://me@127.0.0.1:1/db?password=s3cret",
        "postgresql://me:s3cret/x@127.0.0.1:1/db",
        "postgresql://me:1/s3cret@127.0.0.1:1/db",
        "postgresql://me:a@s3cret@127.0.0.1:1/db",
        "postgresql://me:1?s3cret@127.0.0.1:1/db",
        "postgresql://me:%ZZs3cret@127.0.0.1:1/db",
        "postgresql://me@127.0.0.1:1/db?s3cret=s3cret",
        "host=127.0.0.1 port=1 password=s3cret",
    ],
)
def test_a_password_is_never_told(url):
    with pytest.raises(InputError) as told:
        PgvectorIndex.open(url, "nodules")
    shown, error = [], told.value
    while error is not None:
        shown.append(f"{error} {error!r}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert "s3cret" not in " ".join(shown)
    assert "Hint" in shown[0] or "expected postgresql://user@host/database" in shown[0]


def test_a_server_that_cannot_be_reached_is_named():
    with pytest.raises(InputError, match=r"server postgresql://me@127.0.0.1:1/db: got .*refused.*Hint: see that the"):
        PgvectorIndex.open("postgresql://me:pw@127.0.0.1:1/db", "nodules")


def test_threads_may_share_an_index(filled):
    index, embeddings, _ = filled
    answers = {}

    def ask(number):
        answers[number] = index.search(embeddings.vectors[number : number + 1], 3, fingerprint=NET)[0][0].finding_id

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[number] for number in range(8)] == list(embeddings.finding_ids[:8])
    with closing(index):
        assert "postgres" in repr(index)
