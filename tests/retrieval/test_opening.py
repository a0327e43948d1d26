"""Which way an index is opened, and what is done to a folder as a whole: compacting and replacing, kills included."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from spicula.core.embedding import Embeddings
from spicula.core.errors import InputError, SpiculaWarning
from spicula.retrieval.exact import ExactIndex
from spicula.retrieval.faiss_file import read_built, remove_built
from spicula.retrieval.opening import (
    backend_built,
    compact_index,
    create_index,
    open_index,
    rebuild_structure,
    replace_index,
)
from spicula.retrieval.store import DATABASE

from .test_faiss import DIMENSIONS, KINDS, NETWORK, NUMBER, clustered, damage, faiss, findings, opened, recall, search


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An index with both structures; to be copied."""
    folder = numbered(tmp_path_factory.mktemp("whole") / "index", NUMBER)
    for kind in KINDS:
        rebuild_structure(folder, backend=f"faiss-{kind}")
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "index"))


def numbered(folder, number):
    """An index of so many findings."""
    create_index(folder, fingerprint=NETWORK, dimensions=DIMENSIONS)
    with ExactIndex(folder) as index:
        index.add(*findings(clustered(number, number)))
    return folder


def contents(index):
    ids = index.ids()
    embeddings, facts = index.get(ids)
    return ids, embeddings.vectors.tobytes(), [dict(one) for one in facts]


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_opened_with_what_was_built_last(folder, kind):
    for other in KINDS:
        remove_built(folder, other)
    assert backend_built(folder) is None
    with open_index(folder) as index:
        assert (index.backend, index.uses_structure) == ("exact", False)
    for other in (*KINDS, kind):
        rebuild_structure(folder, backend=f"faiss-{other}")
    assert backend_built(folder) == f"faiss-{kind}"
    with open_index(folder) as index, open_index(folder, backend="exact") as exact:
        assert (index.backend, index.uses_structure) == (f"faiss-{kind}", True)
        assert (exact.backend, exact.uses_structure) == ("exact", False)
        assert search(index) == search(exact), "so few are looked at one by one"


@pytest.mark.parametrize("how", ["absent", "short", "flipped", "no json"])
def test_where_what_was_built_cannot_be_used_it_is_said_and_all_are_looked_at(folder, how):
    remove_built(folder, "ivfpq")
    damage(folder, "hnsw", how)
    with pytest.warns(SpiculaWarning, match=r"one by one, not by faiss-hnsw: .*damaged.*`spicula index rebuild`"):
        index = open_index(folder)
    with index, ExactIndex(folder) as exact:
        assert index.backend == "exact"
        assert search(index) == search(exact)


def test_a_structure_of_before_a_compaction_is_said_to_be_stale(folder):
    remove_built(folder, "ivfpq")
    with ExactIndex(folder) as exact:
        exact.remove(["P-0/0"])
        exact.compact()
    with pytest.warns(SpiculaWarning, match=r"not by faiss-hnsw: .* anew since: `spicula index rebuild`"):
        index = open_index(folder)
    with index, ExactIndex(folder) as exact:
        assert not index.uses_structure
        assert search(index) == search(exact)
        exact.remove(exact.ids())
    with open_index(folder) as empty:
        assert len(empty) == 0


def test_effort_is_for_graphs_alone(folder):
    with open_index(folder, backend="faiss-hnsw", ef_search=11) as index:
        assert index._ef_search == 11
    remove_built(folder, "ivfpq")
    with open_index(folder, ef_search=12) as index:
        assert (index.backend, index._ef_search) == ("faiss-hnsw", 12)
    for options in ({"ef_search": 0}, {"ef_search": -1, "backend": "faiss-hnsw"}):
        with pytest.raises(InputError, match="expected 1 or more"):
            open_index(folder, **options)
    with pytest.raises(InputError, match=r"ef_search: got 5, expected a graph .*leave it out"):
        open_index(folder, backend="exact", ef_search=5)
    remove_built(folder, "hnsw")
    with pytest.raises(InputError, match=r"ef_search: got 5, expected a graph .*`spicula index rebuild`"):
        open_index(folder, ef_search=5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_structure_is_checked_whatever_searches(folder, kind):
    path = damage(folder, kind, "flipped")
    with ExactIndex(folder) as exact, opened(folder, "flat") as flat:
        for index in (exact, flat):
            (sentence,) = index.check()
            assert path.name in sentence
    damage(folder, kind, "no json")
    with ExactIndex(folder) as exact:
        (sentence,) = exact.check()
        assert f"{kind}.json: damaged" in sentence


def traces(folder, vectors, pid):
    """Files of a folder in which a vector or a patient's name is found."""
    parts = [pid.encode(), *(vector.tobytes() for vector in vectors)]
    return sorted(path.name for path in folder.iterdir() if any(part in path.read_bytes() for part in parts))


def codes(folder):
    """What a graph keeps of each vector: as many rows as it was built of."""
    structure = faiss.read_index(str(folder / read_built(folder, "hnsw").file))
    return structure.ntotal


def test_compacting_takes_removed_findings_off_the_disk(folder):
    gone, facts = findings(clustered(3, 77), first=5000, per_patient=10)
    gone = Embeddings(gone.vectors, tuple(f"Removed, R./{n}" for n in range(3)), NETWORK)
    with ExactIndex(folder) as index:
        index.add(gone, [one | {"pid": "Removed, R."} for one in facts])
        right = index.ids("pid != 'Removed, R.'")
    for kind in KINDS:
        rebuild_structure(folder, backend=f"faiss-{kind}")
    (folder / "vectors-7.f32").write_bytes(gone.vectors.tobytes())
    (folder / "hnsw-0123456789abcdef.faiss").write_bytes(gone.vectors.tobytes())
    with ExactIndex(folder) as index:
        index.remove(gone.finding_ids)
    assert traces(folder, gone.vectors, "Removed, R.") != []
    assert codes(folder) == NUMBER + 3
    done = []
    compact_index(folder, progress=lambda number, total: done.append((number, total)))
    assert traces(folder, gone.vectors, "Removed, R.") == []
    assert codes(folder) == NUMBER
    assert done == [(NUMBER, NUMBER)] * 2
    names = {DATABASE, "vectors-2.f32", *(f"{kind}.json" for kind in KINDS)}
    assert {path.name for path in folder.iterdir()} == names | {read_built(folder, kind).file for kind in KINDS}
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.glob("*.f*")}
    compact_index(folder, progress=lambda number, total: done.append((number, total)))
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.glob("*.f*")}
    with ExactIndex(folder) as exact, opened(folder, "hnsw") as index:
        assert exact.ids() == right
        assert index.uses_structure
        assert list(index.check()) == []
        assert recall(search(index), search(exact)) > 0.97


def test_compacting_leaves_no_structure_where_too_little_is_left_or_faiss_is_gone(folder, monkeypatch):
    with ExactIndex(folder) as index:
        index.remove(index.ids("number >= 10"))
    compact_index(folder)
    assert [path.name for path in folder.glob("*.json")] == ["hnsw.json"]
    with ExactIndex(folder) as index:
        index.remove(["P-0/0"])
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.warns(SpiculaWarning, match=r"faiss-hnsw searched by was taken away.*spicula\[search\]"):
        compact_index(folder)
    assert sorted(path.name for path in folder.iterdir()) == [DATABASE, "vectors-3.f32"]
    with ExactIndex(folder) as index:
        index.remove(index.ids())
    compact_index(folder)
    assert (folder / "vectors-4.f32").stat().st_size == 0


@pytest.mark.parametrize("kind", KINDS)
def test_compacting_makes_a_damaged_structure_anew(folder, kind):
    damage(folder, kind, "no json")
    with ExactIndex(folder) as index:
        index.remove(["P-0/0"])
    compact_index(folder)
    with opened(folder, kind) as index:
        assert index.uses_structure
        assert list(index.check()) == []


COMPACTOR = """
import sys
from pathlib import Path
from spicula.retrieval.opening import compact_index
import faiss
faiss.omp_set_num_threads(1)
print("begun", flush=True)
compact_index(Path(sys.argv[1]))
"""

MOMENTS = {
    "it begins": lambda folder: True,
    "vectors are written": lambda folder: (folder / "vectors-2.f32").exists(),
    "the data base is changed": lambda folder: (folder / f"{DATABASE}-journal").exists(),
    "the old vectors are gone": lambda folder: not (folder / "vectors-1.f32").exists(),
    "a structure is made": lambda folder: (folder / ".hnsw.faiss").exists(),
    "a structure is written": lambda folder: len([*folder.glob("hnsw-*.faiss")]) != 1,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_while_compacting_leaves_the_index_as_it_was_or_compacted(whole, tmp_path, moment):
    """It is as sound as ever then, and compacting again leaves no trace of what was removed."""
    chance, log = random.Random(5), tmp_path / "log"
    source = Path(shutil.copytree(whole, tmp_path / "source"))
    remove_built(source, "ivfpq")
    gone = [f"P-{n // 5}/{n}" for n in range(0, NUMBER, 40)]
    with ExactIndex(source) as index:
        removed = index.get(gone)[0].vectors
        index.remove(gone)
        right = contents(index)
    assert traces(source, removed, "no such patient")
    for turn in range(2):
        folder = Path(shutil.copytree(source, tmp_path / f"turn-{turn}"))
        with open(log, "wb") as file:
            worker = subprocess.Popen([sys.executable, "-c", COMPACTOR, str(folder)], stdout=file)
            while not (log.stat().st_size and MOMENTS[moment](folder)) and worker.poll() is None:
                threading.Event().wait(0.0002)
            threading.Event().wait(turn * chance.uniform(0.0, 0.02))
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        with ExactIndex(folder) as index:
            assert list(index.check()) == []
            assert contents(index) == right
        with opened(folder, "hnsw") as index, ExactIndex(folder) as exact:
            assert recall(search(index), search(exact)) > 0.97
        compact_index(folder)
        assert traces(folder, removed, "no such patient") == []
        assert codes(folder) == NUMBER - len(gone)
        with opened(folder, "hnsw") as index:
            assert (index.uses_structure, list(index.check())) == (True, [])
            assert contents(index) == right


REPLACER = """
import shutil, sys
from pathlib import Path
from spicula.retrieval.opening import replace_index
made, folder = map(Path, sys.argv[1:3])
print("begun", flush=True)
for turn in range(int(sys.argv[3]), 1000000):
    shutil.copytree(folder.with_name(str(turn % 7)), made)
    replace_index(made, folder)
    print(turn, flush=True)
"""


def test_a_kill_while_an_index_is_replaced_leaves_one_of_both_whole(tmp_path):
    chance, made, place, log = random.Random(3), tmp_path / "made", numbered(tmp_path / "index", 10), tmp_path / "log"
    for number in range(7):
        numbered(tmp_path / str(number), 10 + number)
    turn, last = 1, 0
    for _ in range(10):
        with open(log, "wb") as file:
            worker = subprocess.Popen([sys.executable, "-c", REPLACER, str(made), str(place), str(turn)], stdout=file)
            while not log.stat().st_size and worker.poll() is None:
                threading.Event().wait(0.005)
            threading.Event().wait(chance.uniform(0.0, 0.2))
            worker.send_signal(signal.SIGKILL)
            assert worker.wait() == -signal.SIGKILL
        told = [int(line) for line in log.read_text().splitlines()[1:] if line.isdigit()]
        last = told[-1] if told else last
        there = place if place.exists() else place.with_name("index.old")
        with ExactIndex(there) as index:
            assert len(index) in {10 + last % 7, 10 + (last + 1) % 7}
            assert list(index.check()) == []
        shutil.rmtree(made, ignore_errors=True)
        turn = last + 1
    assert last > 10


@pytest.mark.parametrize("moment", ["between the names", "before the old one is gone"])
def test_what_a_kill_left_while_replacing_is_ended_by_the_next_call(tmp_path, moment):
    place, made = numbered(tmp_path / "index", 4), numbered(tmp_path / "made", 5)
    if moment == "between the names":
        place.rename(tmp_path / "index.old")
    else:
        numbered(tmp_path / "index.old", 3)
    replace_index(made, place)
    with ExactIndex(place) as index:
        assert len(index) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]


def test_an_index_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path):
    place = numbered(tmp_path / "index", 4)
    with pytest.raises(OSError, match="absent"):
        replace_index(tmp_path / "absent", place)
    with ExactIndex(place) as index:
        assert len(index) == 4
    replace_index(numbered(tmp_path / "made", 2), tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "new"]
