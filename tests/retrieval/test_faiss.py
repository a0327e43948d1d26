"""Structures of faiss: how much they miss, how they grow, and that they are never trusted more than the truth."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spicula.core.embedding import Embeddings
from spicula.core.errors import InputError, MissingExtraError, SpiculaWarning
from spicula.retrieval import faiss_file
from spicula.retrieval.exact import ExactIndex
from spicula.retrieval.faiss import FaissIndex
from spicula.retrieval.faiss_file import building, read_built, remove_built
from spicula.retrieval.opening import create_index, open_index, rebuild_structure

faiss = pytest.importorskip("faiss", reason="pip install 'spicula[search]'")

DIMENSIONS, NETWORK, NUMBER = 32, "network@1", 2000
KINDS = ["hnsw", "ivfpq"]


def clustered(number, seed):
    centers = np.random.default_rng(0).standard_normal((60, DIMENSIONS))
    random = np.random.default_rng(seed)
    vectors = centers[random.integers(0, 60, number)] + random.standard_normal((number, DIMENSIONS))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def findings(vectors, first=0, per_patient=5):
    numbers = range(first, first + len(vectors))
    facts = [{"pid": f"P-{n // per_patient}", "nodule_id": str(n), "number": n} for n in numbers]
    return Embeddings(vectors, tuple(f"{one['pid']}/{one['nodule_id']}" for one in facts), NETWORK), facts


QUERIES = clustered(50, 1)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth") / "index"
    create_index(folder, fingerprint=NETWORK, dimensions=DIMENSIONS)
    with ExactIndex(folder) as index:
        index.add(*findings(clustered(NUMBER, 2)))
    for kind in KINDS:
        with FaissIndex(folder, kind=kind, threads=1) as index:
            index.build()
    return folder


@pytest.fixture
def folder(truth, tmp_path):
    return Path(shutil.copytree(truth, tmp_path / "index"))


def opened(folder, kind, **options):
    return FaissIndex(folder, kind=kind, **({"exact_below": 0, "threads": 1} | options))


def search(index, k=10, **options):
    found = index.search(QUERIES, k, fingerprint=NETWORK, **options)
    return [[(one.finding_id, one.distance) for one in each] for each in found]


def recall(found, right):
    shared = [len(set(one) & set(other)) / len(other) for one, other in zip(found, right, strict=True)]
    return sum(shared) / len(shared)


def only_approximate(monkeypatch):
    def refuse(*args):
        raise AssertionError("searched one by one")

    monkeypatch.setattr(FaissIndex, "_exact", refuse)


OPTIONS = {
    "all": {},
    "condition": {"where": "number < 1000"},
    "other patients": {"scope": "cross-patient", "pids": [f"P-{n}" for n in range(50)]},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_little_is_missed_and_distances_are_exact(truth, kind, options, monkeypatch):
    with ExactIndex(truth) as index:
        right = search(index, **OPTIONS[options])
    only_approximate(monkeypatch)
    with opened(truth, kind) as index:
        assert recall(search(index, **OPTIONS[options]), right) > 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_more_effort_misses_less(truth, kind):
    with ExactIndex(truth) as index:
        right = search(index)
    few, many = ({"ef_search": 10, "nprobe": 1, "remeasured": 1}, {"ef_search": 800, "nprobe": 200, "remeasured": 20})
    with opened(truth, kind, **few) as index:
        low = recall(search(index), right)
    with opened(truth, kind, **many) as index:
        high = recall(search(index), right)
    assert low < high
    assert high > 0.99


@pytest.mark.parametrize("kind", ["flat", *KINDS])
def test_few_allowed_findings_are_searched_one_by_one(truth, kind, monkeypatch):
    def refuse(*args):
        raise AssertionError("asked the structure")

    monkeypatch.setattr(FaissIndex, "_asked", refuse)
    with ExactIndex(truth) as exact, FaissIndex(truth, kind=kind) as index:
        assert search(index) == search(exact)
    with ExactIndex(truth) as exact, opened(truth, kind, exact_share=0.05) as index:
        assert search(index, where="number < 90") == search(exact, where="number < 90")


@pytest.mark.parametrize("kind", ["flat", *KINDS])
def test_patients_with_many_findings_are_left_out(tmp_path, kind):
    create_index(tmp_path, fingerprint=NETWORK, dimensions=DIMENSIONS)
    with ExactIndex(tmp_path) as exact, opened(tmp_path, kind) as index:
        exact.add(*findings(clustered(1000, 2), per_patient=250))
        index.build()
        for condition in (None, "number >= 100"):
            options = {"scope": "cross-patient", "pids": ["P-0", "P-3"] * 25, "where": condition}
            assert recall(search(index, **options), search(exact, **options)) > 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_equal_vectors_that_hide_each_other_are_all_found(tmp_path, kind):
    """A graph of equal vectors falls apart; then all are measured."""
    create_index(tmp_path, fingerprint=NETWORK, dimensions=DIMENSIONS)
    with opened(tmp_path, kind) as index, ExactIndex(tmp_path) as exact:
        index.add(*findings(np.repeat(QUERIES[:1], 400, axis=0)))
        index.build()
        assert [len(each) for each in search(index, 400)] == [400] * 50
        assert search(index, 400) == search(exact, 400)


def test_flat_asks_again_until_nothing_is_in_doubt(tmp_path):
    create_index(tmp_path, fingerprint=NETWORK, dimensions=DIMENSIONS)
    with opened(tmp_path, "flat") as index, ExactIndex(tmp_path) as exact:
        index.add(*findings(np.concatenate([np.repeat(QUERIES[:1], 300, axis=0), clustered(200, 2)])))
        index.remove(["P-0/0", "P-99/499"])
        assert search(index, 5) == search(exact, 5)
        assert search(index, 5)[0][0] == ("P-0/1", 0.0)
        index.build()
        assert index.stats().unindexed == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_structure_grows(folder, kind):
    before = read_built(folder, kind)
    with opened(folder, kind) as index, opened(folder, kind) as other, ExactIndex(folder) as exact:
        index.add(*findings(clustered(500, 3), first=NUMBER))
        index.remove(["P-0/0"])
        assert index.stats().unindexed == 500
        assert recall(search(index), search(exact)) > 0.97
        done = []
        index.build(progress=lambda number, total: done.append((number, total)))
        assert done == [(NUMBER + 500, NUMBER + 500)]
        assert index.stats().unindexed == other.stats().unindexed == 0
        assert recall(search(index), search(exact)) > 0.97
        assert search(index) == search(other)
        assert list(index.check()) == []
    after = read_built(folder, kind)
    assert after.rows == NUMBER + 500
    assert dict(after.settings) == dict(before.settings)
    assert sorted(path.name for path in folder.glob(f"{kind}-*.faiss")) == [after.file]


@pytest.mark.parametrize(("kind", "numbers"), [("hnsw", {"m": 8}), ("ivfpq", {"lists": 7}), ("ivfpq", {"parts": 4})])
def test_other_numbers_build_it_anew(folder, kind, numbers):
    with opened(folder, kind) as index:
        index.build(**numbers)
        assert dict(read_built(folder, kind).settings).items() >= numbers.items()
        file = read_built(folder, kind).file
        index.build(**numbers)
        assert read_built(folder, kind).file == file
        search(index)


def test_codes_are_learned_anew_from_twice_as_many(folder):
    with opened(folder, "ivfpq") as index:
        index.add(*findings(clustered(NUMBER + 1, 3), first=NUMBER))
        index.build()
        assert read_built(folder, "ivfpq").settings["learned_from"] == 2 * NUMBER + 1


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [("hnsw", {"m": 1}), ("hnsw", {"ef_construction": 0}), ("ivfpq", {"parts": 5}), ("ivfpq", {"lists": 0})],
)
def test_numbers_that_do_not_fit_are_refused(folder, kind, numbers):
    with opened(folder, kind) as index, pytest.raises(InputError, match="expected"):
        index.build(**numbers)


@pytest.mark.parametrize(
    "options", [{"ef_search": 0}, {"nprobe": -1}, {"remeasured": 0}, {"threads": 0}, {"kind": "x"}]
)
def test_options_that_do_not_fit_are_refused(folder, options):
    with pytest.raises(InputError, match="expected"):
        FaissIndex(folder, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_structure_of_compacted_vectors_counts_as_none(folder, kind):
    with opened(folder, kind) as index, ExactIndex(folder) as exact:
        exact.remove(["P-0/0", "P-200/1000"])
        exact.compact()
        assert index.stats().unindexed == NUMBER - 2
        assert search(index) == search(exact)
        assert list(index.check()) == []
        index.compact()
        assert index.stats().unindexed == 0
        assert recall(search(index), search(exact)) > 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_a_structure_of_other_vectors_counts_as_none(folder, kind, tmp_path):
    other = tmp_path / "other"
    create_index(other, fingerprint=NETWORK, dimensions=DIMENSIONS)
    with ExactIndex(other) as exact:
        exact.add(*findings(clustered(NUMBER, 8)))
        for path in [*folder.glob(f"{kind}-*"), folder / f"{kind}.json"]:
            shutil.copy(path, other)
        with opened(other, kind) as index:
            assert index.stats().unindexed == NUMBER
            assert search(index) == search(exact)


def damage(folder, kind, how):
    path = folder / read_built(folder, kind).file
    content = bytearray(path.read_bytes())
    if how == "absent":
        path.unlink()
    elif how == "short":
        path.write_bytes(content[:-1])
    elif how == "flipped":
        content[-100] ^= 4
        path.write_bytes(content)
    elif how == "no json":
        (folder / f"{kind}.json").write_text("{")
    elif how == "no facts":
        (folder / f"{kind}.json").write_text("[1]")
    elif how == "elsewhere":
        facts = json.loads((folder / f"{kind}.json").read_text())
        (folder / f"{kind}.json").write_text(json.dumps(facts | {"file": f"../{kind}.faiss"}))
    return path


@pytest.mark.parametrize("how", ["absent", "short", "flipped", "no json", "no facts", "elsewhere"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_structure_is_refused_and_can_be_removed(folder, kind, how):
    damage(folder, kind, how)
    with pytest.raises(InputError, match=rf"{kind}.*: damaged: .* `spicula index rebuild`"):
        opened(folder, kind)
    remove_built(folder, kind)
    assert list(folder.glob(f"{kind}*")) == []
    with opened(folder, kind) as index, ExactIndex(folder) as exact:
        assert index.stats().unindexed == NUMBER
        assert search(index) == search(exact)


@pytest.mark.parametrize("how", ["sound", "short", "no json"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_structure_is_made_anew(folder, kind, how):
    damage(folder, kind, how)
    rebuild_structure(folder, backend=f"faiss-{kind}")
    rebuild_structure(folder, backend="faiss-flat")
    rebuild_structure(folder, backend="exact")
    with opened(folder, kind) as index:
        assert index.stats().unindexed == 0
        assert list(index.check()) == []
    (folder / "index.sqlite").write_bytes(b"")
    with pytest.raises(InputError, match=r"index\.sqlite: damaged"):
        rebuild_structure(folder, backend=f"faiss-{kind}")
    assert read_built(folder, kind) is not None


def test_a_large_damaged_structure_is_found_by_check(folder, monkeypatch):
    monkeypatch.setattr(faiss_file, "WHOLE_BYTES", 0)
    path = damage(folder, "hnsw", "flipped")
    with opened(folder, "hnsw") as index:
        (sentence,) = index.check()
        assert path.name in sentence
        index.add(*findings(clustered(1, 3), first=NUMBER))
        with pytest.raises(InputError, match="damaged"):
            index.build()
        index.build(anew=True)
        assert list(index.check()) == []


def test_a_structure_that_another_process_replaced_is_used(folder):
    with opened(folder, "hnsw") as index, opened(folder, "hnsw") as other:
        before = search(index)
        other.build(m=4, ef_construction=4)
        assert index.stats().unindexed == 0
        assert search(index) == search(other)
        remove_built(folder, "hnsw")
        assert index.stats().unindexed == NUMBER
        assert len(before) == 50


def test_only_one_builds(folder):
    with opened(folder, "hnsw") as index:
        with building(folder, "hnsw"), pytest.raises(InputError, match="being built"):
            index.build(anew=True)
        (folder / ".hnsw.faiss").write_bytes(b"left by a process that was killed")
        index.build(anew=True)
    assert not (folder / ".hnsw.faiss").exists()


FULL = """
import resource, sys
from pathlib import Path
from spicula.core.errors import InputError
from spicula.retrieval.faiss import FaissIndex
with FaissIndex(Path(sys.argv[1]), kind=sys.argv[2], threads=1) as index:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    try:
        index.build(m=4, ef_construction=4, lists=3, anew=True)
    except InputError as error:
        print(error)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_leaves_the_structure_as_it_was(folder, kind):
    before = read_built(folder, kind)
    done = subprocess.run([sys.executable, "-c", FULL, folder, kind], capture_output=True, text=True, check=True)
    assert "no structure could be written" in done.stdout, done.stderr
    assert read_built(folder, kind) == before
    assert not (folder / f".{kind}.faiss").exists()
    with opened(folder, kind) as index:
        assert list(index.check()) == []


def test_too_few_vectors_for_codes_are_searched_one_by_one(tmp_path):
    create_index(tmp_path, fingerprint=NETWORK, dimensions=DIMENSIONS)
    with open_index(tmp_path, backend="faiss-ivfpq") as index:
        index.add(*findings(clustered(15, 2)))
        index.build()
        assert index.stats().unindexed == 15
        assert len(search(index, 15)[0]) == 15


@pytest.mark.parametrize("kind", ["flat", *KINDS])
def test_threads_are_given_back(folder, kind):
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        with opened(folder, kind, threads=1) as index:
            search(index)
            assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)


def test_without_faiss_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"spicula\[search\]"):
        open_index(folder, backend="faiss-hnsw")
    with pytest.warns(SpiculaWarning, match=r"one by one, not by faiss-\w+: .*spicula\[search\]"):
        index = open_index(folder)
    with index:
        assert (len(index), index.backend) == (NUMBER, "exact")
