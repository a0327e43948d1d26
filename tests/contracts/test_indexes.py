"""What every index of embeddings keeps to, wherever it keeps its vectors.

A backend joins by one line in ``BACKENDS``: a function that takes pytest's request and gives a :class:`Place`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

from spicula.core.embedding import Embeddings
from spicula.core.errors import InputError
from spicula.retrieval.exact import ExactIndex
from spicula.retrieval.faiss import FaissIndex
from spicula.retrieval.index import Index
from spicula.retrieval.opening import create_index
from spicula.retrieval.pgvector import PgvectorIndex

DIMENSIONS, NETWORK = 16, "network@1"


@dataclass
class Place:
    """Where an index can be made once and opened often.

    ``create`` takes fingerprint and dimensions; ``build`` brings what is there into an approximate structure.
    """

    create: Callable[..., Index]
    open: Callable[[], Index]
    build: Callable[[Index], None] = lambda index: None


def in_folder(opened, request, *, build=lambda index: None):
    folder = request.getfixturevalue("tmp_path_factory").mktemp("index") / "index"

    def create(*, fingerprint, dimensions):
        create_index(folder, fingerprint=fingerprint, dimensions=dimensions)
        return opened(folder)

    return Place(create, partial(opened, folder), build)


def with_faiss(kind, request):
    """Settings with which an approximate index looks at everything: what it returns must be right then."""
    pytest.importorskip("faiss", reason="pip install 'spicula[search]'")
    opened = partial(
        FaissIndex, kind=kind, ef_search=1000, nprobe=1000, remeasured=1000, exact_below=0, exact_share=0.0, threads=1
    )
    return in_folder(opened, request, build=lambda index: index.build())


def in_postgres(request, ef_search=None) -> Place:
    url = request.getfixturevalue("new_database")()
    create = partial(PgvectorIndex.create, url, "findings", ef_search=ef_search)
    opened = partial(PgvectorIndex.open, url, "findings", ef_search=ef_search)
    return Place(create, opened, lambda index: index.build())


BACKENDS = {
    "exact": partial(in_folder, ExactIndex),
    "faiss-flat": partial(with_faiss, "flat"),
    "faiss-hnsw": partial(with_faiss, "hnsw"),
    "faiss-ivfpq": partial(with_faiss, "ivfpq"),
    "pgvector": in_postgres,
    "pgvector-hnsw": partial(in_postgres, ef_search=1000),
}


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request) -> str:
    return request.param


@pytest.fixture
def place(backend, request) -> Place:
    return BACKENDS[backend](request)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def findings(number, seed=0, first=0):
    """Vectors, ids and facts; each patient has some findings, some facts are missing."""
    random = np.random.default_rng(seed)
    vectors = unit(random.standard_normal((number, DIMENSIONS)))
    ids, facts = [], []
    for n in range(first, first + number):
        pid, nodule = f"P-{n // 5:03d}", f"{n % 5}"
        known = {"pid": pid, "nodule_id": nodule, "diameter_mm": round(float(random.uniform(3, 30)), 1)}
        if n % 3:
            known["type"] = ["lung", "liver"][n % 2]
        if n % 4 == 0:
            known["malignancy"] = float(n % 5 + 1)
        if n % 7:
            known["study_date"] = f"200{n % 9}-0{n % 9 + 1}-01"
        ids.append(f"{pid}/{nodule}")
        facts.append(known)
    return Embeddings(vectors, tuple(ids), NETWORK), facts


EMBEDDINGS, FACTS = findings(300)
QUERIES = unit(np.random.default_rng(99).standard_normal((7, DIMENSIONS)))


def part(start, stop):
    return Embeddings(EMBEDDINGS.vectors[start:stop], EMBEDDINGS.finding_ids[start:stop], NETWORK), FACTS[start:stop]


def filled(place):
    """300 findings, of which the last 80 came after the structure was built."""
    index = place.create(fingerprint=NETWORK, dimensions=DIMENSIONS)
    index.add(*part(0, 220))
    place.build(index)
    index.add(*part(220, 300))
    return index


@pytest.fixture(scope="module")
def index(backend, request):
    """For tests that change nothing."""
    with filled(BACKENDS[backend](request)) as index:
        yield index


@pytest.fixture
def fresh(place):
    """For tests that change it."""
    with filled(place) as index:
        yield index


def brute(queries, k, allowed=lambda query, facts, finding_id: True, embeddings=EMBEDDINGS, facts=FACTS):
    """All distances, sorted; equally near ones by their id."""
    out = []
    for number, query in enumerate(queries):
        apart = embeddings.vectors.astype(np.float64) - query.astype(np.float64)
        distance = np.sqrt((apart**2).sum(axis=1))
        rows = [n for n in range(len(embeddings)) if allowed(number, facts[n], embeddings.finding_ids[n])]
        rows.sort(key=lambda n: (distance[n], embeddings.finding_ids[n]))
        out.append([(embeddings.finding_ids[n], distance[n], facts[n]) for n in rows[:k]])
    return out


def assert_same(matches, expected):
    assert [[one.finding_id for one in each] for each in matches] == [[one[0] for one in each] for each in expected]
    for each, right in zip(matches, expected, strict=True):
        np.testing.assert_allclose([one.distance for one in each], [one[1] for one in right], atol=1e-6)
        assert [dict(one.facts) for one in each] == [one[2] for one in right]


def search(index, queries=QUERIES, k=10, **options):
    return index.search(queries, k, fingerprint=NETWORK, **options)


@pytest.mark.parametrize("k", [1, 10, 300])
def test_it_finds_what_brute_force_finds(index, k):
    assert_same(search(index, k=k), brute(QUERIES, k))


def test_a_finding_is_nearest_to_itself_unless_it_is_its_own(index):
    ids = EMBEDDINGS.finding_ids[215:225]
    found = search(index, EMBEDDINGS.vectors[215:225], 3)
    assert [each[0].finding_id for each in found] == list(ids)
    assert max(each[0].distance for each in found) < 1e-3
    own = [*ids[:-1], None]
    found = search(index, EMBEDDINGS.vectors[215:225], 3, own=own)
    assert_same(found, brute(EMBEDDINGS.vectors[215:225], 3, lambda query, facts, one: one != own[query]))


@pytest.mark.parametrize("scope", ["same-patient", "cross-patient"])
@pytest.mark.parametrize("where", [None, "diameter_mm > 10"])
def test_scopes_by_patient(index, scope, where):
    pids = ["P-000", "P-044", "P-000", "P-059", "P-010", "P-011", "nobody"]

    def allowed(query, facts, finding_id):
        same = facts["pid"] == pids[query]
        return same == (scope == "same-patient") and (where is None or facts["diameter_mm"] > 10)

    assert_same(search(index, scope=scope, pids=pids, where=where), brute(QUERIES, 10, allowed))


def test_own_and_scope_together(index):
    queries, ids = EMBEDDINGS.vectors[:3], EMBEDDINGS.finding_ids[:3]
    found = search(index, queries, 10, scope="same-patient", pids=["P-000"] * 3, own=ids)
    assert_same(found, brute(queries, 10, lambda q, facts, one: facts["pid"] == "P-000" and one != ids[q]))
    assert [len(each) for each in found] == [4, 4, 4]


CONDITIONS = {
    "diameter_mm > 6 and (type = 'lung' or not malignancy >= 4) and study_date < '2005-01-01'": lambda facts: (
        facts["diameter_mm"] > 6
        and (facts.get("type") == "lung" or not facts.get("malignancy", 0) >= 4)
        and facts.get("study_date", "9") < "2005-01-01"
    ),
    "malignancy is missing": lambda facts: "malignancy" not in facts,
    "malignancy is not missing and type != 'lung'": lambda facts: (
        "malignancy" in facts and facts.get("type") == "liver"
    ),
    "not type in ('lung', 'x')": lambda facts: facts.get("type") != "lung",
    "pid in ('P-003', 'P-050') or nodule_id == '4'": lambda facts: (
        facts["pid"] in ("P-003", "P-050") or facts["nodule_id"] == "4"
    ),
    "type = 'none of them'": lambda facts: False,
}


@pytest.mark.parametrize("where", CONDITIONS)
def test_conditions(index, where):
    assert_same(search(index, where=where), brute(QUERIES, 10, lambda query, facts, one: CONDITIONS[where](facts)))
    fitting = [one for one, facts in zip(EMBEDDINGS.finding_ids, FACTS, strict=True) if CONDITIONS[where](facts)]
    assert index.ids(where) == tuple(sorted(fitting))


def test_update_puts_others_in_their_place(fresh, place):
    others, facts = findings(20, seed=5, first=210)
    facts[0] = {"pid": "moved", "nodule_id": "0", "side": "left"}
    fresh.update(others, facts)
    vectors, known = EMBEDDINGS.vectors.copy(), list(FACTS)
    vectors[210:230], known[210:230] = others.vectors, facts
    now = Embeddings(vectors, EMBEDDINGS.finding_ids, NETWORK)
    assert len(fresh) == 300
    assert_same(search(fresh), brute(QUERIES, 10, embeddings=now, facts=known))
    found = search(fresh, where="side = 'left'")
    assert_same(found, brute(QUERIES, 10, lambda q, facts, one: "side" in facts, embeddings=now, facts=known))
    assert dict(fresh.get(["P-042/0"])[1][0]) == facts[0]
    place.build(fresh)
    assert_same(search(fresh), brute(QUERIES, 10, embeddings=now, facts=known))


def test_removed_findings_are_not_found(fresh, place):
    gone = set(EMBEDDINGS.finding_ids[50:250:2])
    fresh.remove(sorted(gone))
    assert len(fresh) == 200
    assert_same(search(fresh), brute(QUERIES, 10, lambda query, facts, one: one not in gone))
    assert_same(search(fresh, k=200), brute(QUERIES, 200, lambda query, facts, one: one not in gone))
    place.build(fresh)
    assert fresh.stats().unindexed == 0
    assert_same(search(fresh), brute(QUERIES, 10, lambda query, facts, one: one not in gone))
    assert not gone & set(fresh.ids())
    fresh.add(*part(50, 51))
    assert EMBEDDINGS.finding_ids[50] in fresh


def test_equally_near_ones_come_by_their_id(place):
    same = unit(np.ones((6, DIMENSIONS)))
    far = unit(np.random.default_rng(3).standard_normal((60, DIMENSIONS)))
    ids = ("d/1", "a/1", "e/1", "c/1", "f/1", "b/1", *(f"far/{n}" for n in range(60)))
    facts = [dict(zip(("pid", "nodule_id"), one.split("/"), strict=True)) for one in ids]
    with place.create(fingerprint=NETWORK, dimensions=DIMENSIONS) as index:
        index.add(Embeddings(np.concatenate([same, far]), ids, NETWORK), facts)
        place.build(index)
        for k in (1, 3, 6):
            found = search(index, same[:1], k)
            assert [one.finding_id for one in found[0]] == [f"{letter}/1" for letter in "abcdef"[:k]]


def test_get_gives_back_what_was_given_in_the_order_asked(index):
    ids = ("P-044/1", "P-000/0", "P-059/4")
    embeddings, facts = index.get(ids)
    rows = [EMBEDDINGS.finding_ids.index(one) for one in ids]
    assert embeddings.finding_ids == ids
    assert embeddings.fingerprint == NETWORK
    assert np.array_equal(embeddings.vectors, EMBEDDINGS.vectors[rows])
    assert [dict(one) for one in facts] == [FACTS[row] for row in rows]


def test_what_is_there_is_there_after_reopening(fresh, place):
    fresh.remove([EMBEDDINGS.finding_ids[0]])
    fresh.close()
    with place.open() as again:
        assert len(again) == 299
        assert (again.fingerprint, again.dimensions) == (NETWORK, DIMENSIONS)
        assert_same(search(again), brute(QUERIES, 10, lambda query, facts, one: one != EMBEDDINGS.finding_ids[0]))
        assert again.ids() == tuple(sorted(EMBEDDINGS.finding_ids[1:]))
        assert list(again.check()) == []


def test_it_says_what_it_holds(index):
    stats = index.stats()
    assert (stats.findings, stats.patients, stats.dimensions, stats.fingerprint) == (300, 60, DIMENSIONS, NETWORK)
    assert list(stats.fields)[:2] == ["pid", "nodule_id"]
    assert dict(stats.fields) == dict(index.fields) == {
        "pid": "text", "nodule_id": "text", "diameter_mm": "number", "type": "text", "malignancy": "number",
        "study_date": "text",
    }  # fmt: skip
    assert stats.bytes_on_disk >= EMBEDDINGS.vectors.nbytes
    assert stats.unindexed == (80 if stats.backend in ("faiss-hnsw", "faiss-ivfpq") else 0)
    assert stats.backend in BACKENDS
    assert len(index) == 300
    assert EMBEDDINGS.finding_ids[3] in index
    assert "nobody/1" not in index
    assert 3 not in index
    assert list(index.check()) == []


def test_an_empty_index(place):
    with place.create(fingerprint=NETWORK, dimensions=DIMENSIONS) as index:
        place.build(index)
        assert len(index) == 0
        assert index.ids() == ()
        assert dict(index.fields) == {"pid": "text", "nodule_id": "text"}
        assert index.stats().patients == 0
        assert list(index.check()) == []
        with pytest.raises(InputError, match="empty index"):
            search(index, k=1)
        index.add(Embeddings(np.empty((0, DIMENSIONS), dtype=np.float32), (), NETWORK), [])
        index.add(*part(0, 1))
        assert_same(search(index, k=1), brute(QUERIES, 1, lambda query, facts, one: one == EMBEDDINGS.finding_ids[0]))


def one_finding(**facts):
    vector = unit(np.ones((1, DIMENSIONS)))
    return Embeddings(vector, ("new/1",), NETWORK), [{"pid": "new", "nodule_id": "1"} | facts]


BAD_FACTS = {
    "no pid": [{"nodule_id": "1"}],
    "no nodule_id": [{"pid": "new"}],
    "empty": [{"pid": "", "nodule_id": "1"}],
    "a text, as before": one_finding(type=3)[1],
    "a number, as before": one_finding(diameter_mm="large")[1],
    "finite": one_finding(diameter_mm=float("nan"))[1],
    "text or a finite number": one_finding(seen=True)[1],
    "leave a missing fact out": one_finding(seen=None)[1],
    "without NUL": one_finding(note="a\0b")[1],
    "written as before": one_finding(Type="lung")[1],
    "does not begin with _": one_finding(_row=1.0)[1],
    "60 bytes": one_finding(**{"x" * 61: 1.0})[1],
    "one for each finding": [],
}


@pytest.mark.parametrize("message", BAD_FACTS)
@pytest.mark.parametrize("change", ["add", "update"])
def test_facts_that_cannot_be_kept_change_nothing(index, message, change):
    embeddings, _ = one_finding()
    if change == "update":
        embeddings = Embeddings(embeddings.vectors, EMBEDDINGS.finding_ids[:1], NETWORK)
    before = index.stats().fields
    with pytest.raises(InputError, match=message):
        getattr(index, change)(embeddings, BAD_FACTS[message])
    assert index.stats().fields == before
    assert len(index) == 300
    assert dict(index.get(EMBEDDINGS.finding_ids[:1])[1][0]) == FACTS[0]


def test_odd_names_and_values_are_kept(fresh):
    odd = {
        'a "name", with % and \'': "it's; DROP TABLE findings; --",
        "größe": -0.0,
        "select": 1e-300,
        "note": "",
        "rowid": 3,
        "finding_id": "é\n\t",
        "count": np.float32(0.5),
    }
    fresh.add(*one_finding(**odd))
    assert dict(fresh.get(["new/1"])[1][0]) == {"pid": "new", "nodule_id": "1"} | odd
    assert fresh.ids("note = ''") == fresh.ids('"a ""name"", with % and \'" is not missing') == ("new/1",)
    assert fresh.ids("größe = 0 and \"select\" > 0 and rowid = 3 and finding_id > 'e'") == ("new/1",)
    assert search(fresh, one_finding()[0].vectors, 1)[0][0].finding_id == "new/1"
    assert list(fresh.check()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.add(*part(3, 5)), "there already"),
        (lambda index: index.update(*one_finding()), "no finding new/1"),
        (lambda index: index.remove(["P-000/0", "new/1"]), "no finding new/1"),
        (lambda index: index.get(["P-000/0", "new/1"]), "no finding new/1"),
        (lambda index: search(index, k=0), "expected 1 to 300"),
        (lambda index: search(index, k=301), "got 301, expected 1 to 300"),
        (lambda index: search(index, where="diamter_mm > 3"), "did you mean diameter_mm"),
        (lambda index: index.ids("side = 'left'"), "one of pid, nodule_id, diameter_mm"),
        (lambda index: search(index, scope="same-patient"), "patients for the scope"),
        (lambda index: search(index, scope="cross-patient", pids=["a"]), "expected 7"),
        (lambda index: search(index, scope="other"), "scope: got 'other'"),
        (lambda index: search(index, own=["a"]), "own ids"),
        (lambda index: search(index, QUERIES[:, :5]), r"float32 \[q, 16\]"),
        (lambda index: search(index, QUERIES.astype(np.float64)), "float32"),
        (lambda index: search(index, QUERIES * 2), "divide by the length"),
        (lambda index: search(index, np.full_like(QUERIES, np.nan)), "divide by the length"),
    ],
)
def test_what_cannot_be_done_is_one_error_and_changes_nothing(index, change, message):
    with pytest.raises(InputError, match=message):
        change(index)
    assert index.ids() == tuple(sorted(EMBEDDINGS.finding_ids))
    assert_same(search(index), brute(QUERIES, 10))


@pytest.mark.parametrize("change", ["add", "update", "search"])
def test_a_foreign_fingerprint_is_refused(index, change):
    other = Embeddings(one_finding()[0].vectors, ("new/1",), "network@2")
    with pytest.raises(InputError, match=r"got 'network@2', expected 'network@1'"):
        if change == "search":
            index.search(QUERIES, 1, fingerprint="network@2")
        else:
            getattr(index, change)(other, one_finding()[1])


def test_another_length_is_refused(index):
    vector = np.ones((1, 1), dtype=np.float32)
    with pytest.raises(InputError, match="expected 16"):
        index.add(Embeddings(vector, ("new/1",), NETWORK), one_finding()[1])


def test_it_is_made_once(place):
    place.create(fingerprint=NETWORK, dimensions=DIMENSIONS).close()
    with pytest.raises(InputError):
        place.create(fingerprint=NETWORK, dimensions=DIMENSIONS)


def test_a_closed_index_says_so(place):
    index = place.create(fingerprint=NETWORK, dimensions=DIMENSIONS)
    index.close()
    index.close()
    with pytest.raises(InputError, match="closed"):
        len(index)


def test_no_query_gives_no_answer(index):
    assert search(index, QUERIES[:0]) == []
    empty, facts = index.get([])
    assert (len(empty), facts) == (0, ())
