"""The folder of an index survives kills, full disks and other writers, and tells when it was damaged."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from spicula.core.embedding import Embeddings
from spicula.core.errors import InputError
from spicula.retrieval import verification
from spicula.retrieval.exact import ExactIndex
from spicula.retrieval.opening import create_index, open_index
from spicula.retrieval.store import DATABASE
from spicula.retrieval.where import parse_condition

DIMENSIONS, NETWORK = 16, "network@1"


def findings(first, number, change=0):
    """Vectors and facts that follow from the number of a finding and how often it was changed."""
    numbers = np.arange(first, first + number)
    vectors = np.stack([np.random.default_rng([n, change]).standard_normal(DIMENSIONS) for n in numbers])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    ids = tuple(f"P-{n // 4}/{n}" for n in numbers)
    facts = [{"pid": f"P-{n // 4}", "nodule_id": str(n), "change": change, "note": f"note {n}"} for n in numbers]
    return Embeddings(vectors, ids, NETWORK), facts


def contents(index):
    ids = index.ids()
    embeddings, facts = index.get(ids)
    return ids, embeddings.vectors.tobytes(), [dict(one) for one in facts]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """An index with gaps; to be copied."""
    folder = tmp_path_factory.mktemp("sound") / "index"
    create_index(folder, fingerprint=NETWORK, dimensions=DIMENSIONS)
    with ExactIndex(folder) as index:
        index.add(*findings(0, 200))
        index.update(*findings(10, 10, change=1))
        index.remove([f"P-{n // 4}/{n}" for n in range(100, 110)])
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "index"))


@pytest.mark.parametrize(("files", "hint"), [(["a"], "Hint: take another"), ([DATABASE], "`spicula index add`")])
def test_an_index_is_not_made_over_something(tmp_path, files, hint):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"taken.*{hint}"):
        create_index(tmp_path, fingerprint=NETWORK, dimensions=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_what_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be made|taken"):
        create_index(tmp_path / "file" / "index", fingerprint=NETWORK, dimensions=3)
    with pytest.raises(InputError, match="1 or more"):
        create_index(tmp_path / "index", fingerprint=NETWORK, dimensions=0)
    with pytest.raises(InputError, match="what makes the vectors"):
        create_index(tmp_path / "index", fingerprint="", dimensions=1)
    with pytest.raises(InputError, match="no such folder"):
        open_index(tmp_path / "absent")
    with pytest.raises(InputError, match="no index"):
        open_index(tmp_path)


def test_an_unknown_backend_is_answered_with_the_known_ones(folder):
    with pytest.raises(InputError, match="one of exact, faiss-flat"):
        open_index(folder, backend="annoy")


def test_compacting_keeps_everything_and_gives_room_back(folder):
    with ExactIndex(folder) as index, ExactIndex(folder) as reader:
        before, size = contents(index), index.stats().bytes_on_disk
        assert contents(reader) == before
        index.compact()
        assert contents(index) == contents(reader) == before
        assert index.stats().bytes_on_disk < size
        assert sorted(path.name for path in folder.iterdir()) == [DATABASE, "vectors-2.f32"]
        assert (folder / "vectors-2.f32").stat().st_size == len(index) * DIMENSIONS * 4
        index.add(*findings(300, 3))
        assert len(reader) == len(before[0]) + 3
        index.remove(index.ids())
        index.compact()
        assert len(reader) == 0
        reader.add(*findings(0, 3))
        assert list(index.check()) == []


def test_compacting_ends_what_a_kill_left_and_leaves_whole_vectors_as_they_are(folder):
    with ExactIndex(folder) as index:
        index.compact()
        before = contents(index)
        (folder / "vectors-1.f32").write_bytes(b"of removed findings")
        index.compact()
        assert sorted(path.name for path in folder.iterdir()) == [DATABASE, "vectors-2.f32"]
        with open(folder / "vectors-2.f32", "ab") as file:
            file.write(b"half of a vector of somebody")
        index.compact()
        assert sorted(path.name for path in folder.iterdir()) == [DATABASE, "vectors-3.f32"]
        assert b"somebody" not in (folder / "vectors-3.f32").read_bytes()
        assert contents(index) == before
        assert list(index.check()) == []


def test_a_tail_that_was_never_acknowledged_is_written_over(folder):
    with open(folder / "vectors-1.f32", "ab") as file:
        file.write(b"half of a vector")
    (folder / "vectors-2.f32").write_bytes(b"half of a compaction")
    with ExactIndex(folder) as index:
        assert list(index.check()) == []
        index.add(*findings(300, 3))
        assert list(index.check()) == []
        assert np.array_equal(index.get(["P-75/300"])[0].vectors, findings(300, 1)[0].vectors)
    assert not (folder / "vectors-2.f32").exists()


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_store import ExactIndex, findings
with ExactIndex(Path(sys.argv[1])) as index:
    print("open", flush=True)
    for n in range(int(sys.argv[2]), 1000000):
        index.add(*findings(10 * n, 10))
        print("add", n, flush=True)
        index.update(*findings(10 * n, 3, change=n))
        print("update", n, flush=True)
        index.remove([f"P-{{m // 4}}/{{m}}" for m in (10 * n + 8, 10 * n + 9)])
        print("remove", n, flush=True)
        if n % 3 == 0:
            index.compact()
            print("compact", n, flush=True)
"""


def expected_ids(n, done):
    return {f"P-{m // 4}/{m}" for m in range(10 * n, 10 * n + (8 if "remove" in done else 10))}


def assert_acknowledged(index, n, done):
    """What was acknowledged of the n-th round is there, and nothing but whole changes."""
    there = {one for one in index.ids() if 10 * n <= int(one.split("/")[1]) < 10 * n + 10}
    assert len(there) in (
        {8} if "remove" in done else {10, 8} if "update" in done else {10} if "add" in done else {0, 10}
    )
    if not there:
        return
    updated = index.get([f"P-{10 * n // 4}/{10 * n}"])[1][0]["change"] == n != 0
    assert updated or "update" not in done or n == 0
    for start, number, change in ((10 * n, 3, n if updated else 0), (10 * n + 3, 5, 0)):
        right, facts = findings(start, number, change)
        embeddings, known = index.get(right.finding_ids)
        assert np.array_equal(embeddings.vectors, right.vectors)
        assert [dict(one) for one in known] == facts


def test_a_kill_in_the_middle_loses_nothing_that_was_acknowledged(tmp_path):
    folder, chance = tmp_path / "index", random.Random(7)
    create_index(folder, fingerprint=NETWORK, dimensions=DIMENSIONS)
    program, log = WORKER.format(tests=str(Path(__file__).parent)), tmp_path / "log"
    done: dict[int, set[str]] = {}
    for _ in range(12):
        with open(log, "wb") as file:
            worker = subprocess.Popen([sys.executable, "-c", program, str(folder), str(len(done))], stdout=file)
            while not log.stat().st_size and worker.poll() is None:
                threading.Event().wait(0.01)
            threading.Event().wait(chance.uniform(0.0, 0.3))
            worker.send_signal(signal.SIGKILL)
            assert worker.wait() == -signal.SIGKILL
        lines = log.read_text().splitlines()
        for word, n in (line.split() for line in lines if line != "open" and len(line.split()) == 2):
            done.setdefault(int(n), set()).add(word)
        with ExactIndex(folder) as index:
            assert list(index.check()) == []
            begun = len(done)
            for n in range(begun):
                assert_acknowledged(index, n, done[n])
            assert_acknowledged(index, begun, set())
            index.remove([one for one in index.ids() if int(one.split("/")[1]) >= 10 * begun])
    assert len(done) > 3


@pytest.mark.parametrize("cut", [1, 3000, 12000])
@pytest.mark.parametrize("name", [DATABASE, "vectors-1.f32"])
def test_a_truncated_file_is_refused(folder, name, cut):
    path = folder / name
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - cut)
    with pytest.raises(InputError, match=rf"{name}: damaged: got .* Hint: restore a copy of the folder, or build"):
        ExactIndex(folder)


@pytest.mark.parametrize("name", [DATABASE, "vectors-1.f32"])
def test_an_absent_or_empty_file_is_refused(folder, name):
    (folder / name).write_bytes(b"")
    with pytest.raises(InputError, match="damaged"):
        ExactIndex(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=r"damaged: got no file|no index"):
        ExactIndex(folder)


def test_a_flipped_bit_of_a_vector_is_named(folder):
    flip(folder / "vectors-1.f32", 20 * DIMENSIONS * 4 + 7, 3)
    with pytest.raises(InputError, match=r"vectors-1.f32: damaged: got checksum [0-9a-f]{8} of the vector of P-5/20"):
        ExactIndex(folder)


def flip(path, byte, bit):
    with open(path, "r+b") as file:
        file.seek(byte)
        old = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([old ^ (1 << bit)]))


def test_flipped_bits_are_refused_or_change_nothing(sound, tmp_path):
    with ExactIndex(sound) as index:
        right = contents(index)
    chance, refused = random.Random(3), 0
    for number in range(150):
        folder = Path(shutil.copytree(sound, tmp_path / str(number)))
        path = folder / (DATABASE if number % 5 else "vectors-1.f32")
        flip(path, chance.randrange(path.stat().st_size), chance.randrange(8))
        try:
            index = ExactIndex(folder)
        except InputError:
            refused += 1
        else:
            with index:
                assert contents(index) == right
                assert list(index.check()) == []
        shutil.rmtree(folder)
    assert refused > 40


def test_a_large_index_is_sampled_and_checked_where_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(verification, "WHOLE_BYTES", 0)
    flip(folder / "vectors-1.f32", 21 * DIMENSIONS * 4, 0)
    with ExactIndex(folder) as index:
        assert index.get(["P-5/20"])[1][0]["note"] == "note 20"
        with pytest.raises(InputError, match=r"checksum .* of the vector of P-5/21"):
            index.get(["P-5/21"])
        with pytest.raises(InputError, match="P-5/21"):
            index.search(findings(21, 1)[0].vectors, 3, fingerprint=NETWORK)
        assert [sentence.split(" of the ")[1] for sentence in index.check()] == [
            next(iter(index.check())).split(" of the ")[1]
        ]
    flip(folder / "vectors-1.f32", 0, 0)
    with pytest.raises(InputError, match="P-0/0"):
        ExactIndex(folder)


def test_an_index_of_more_findings_than_are_read_at_once_is_sampled(folder, monkeypatch):
    flip(folder / "vectors-1.f32", 21 * DIMENSIONS * 4, 0)
    monkeypatch.setattr(verification, "WHOLE_FINDINGS", 190)
    with pytest.raises(InputError, match="P-5/21"):
        ExactIndex(folder)
    monkeypatch.setattr(verification, "WHOLE_FINDINGS", 189)
    with ExactIndex(folder) as index:
        assert len(index) == 190
        (sentence,) = index.check()
        assert "P-5/21" in sentence


def test_check_finds_what_happened_while_it_was_open(folder):
    with ExactIndex(folder) as index:
        with sqlite3.connect(folder / DATABASE) as other:
            other.execute("UPDATE findings SET note = 'forged' WHERE nodule_id = '50'")
            other.execute("UPDATE meta SET fingerprint = 'forged'")
            other.execute("DELETE FROM gaps WHERE gap = (SELECT MIN(gap) FROM gaps)")
        other.close()
        flip(folder / "vectors-1.f32", 3, 3)
        sentences = list(index.check())
    for part in ("own facts", "facts of P-12/50", "vector of P-0/0"):
        assert any(part in sentence for sentence in sentences), sentences


def test_another_format_is_told_apart_from_damage(folder):
    with sqlite3.connect(folder / DATABASE) as other:
        other.execute("UPDATE meta SET format = 2")
    other.close()
    with pytest.raises(InputError, match=r"format: got 2, expected 1. Hint: it was made by another version"):
        ExactIndex(folder)


def test_one_writes_and_others_read(folder):
    with ExactIndex(folder, wait_s=0.1) as one, ExactIndex(folder, wait_s=0.1) as two:
        before = contents(two)
        with one._store.writing() as change:
            change.connection.execute("DELETE FROM findings")
            assert contents(two) == before
            with pytest.raises(InputError, match=r"in use: got another change for 0.1 s. Hint: try again"):
                two.add(*findings(500, 1))
            change.connection.execute("ROLLBACK")
            change.connection.execute("BEGIN")
        two.add(*findings(500, 1))
        assert len(one) == len(before[0]) + 1
        assert list(one.check()) == []


def test_threads_share_an_index(folder):
    errors = []
    with ExactIndex(folder) as index:
        start = len(index)

        def work(number):
            try:
                for turn in range(3):
                    index.add(*findings(1000 * (number + 1) + 10 * turn, 10))
                    found = index.search(findings(0, 4)[0].vectors, 5, fingerprint=NETWORK)
                    assert [one[0].finding_id for one in found] == [f"P-0/{n}" for n in range(4)]
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(index) == start + 120
        assert list(index.check()) == []


READER = """
import mmap, os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_store import NETWORK, InputError, ExactIndex, findings
query, new = findings(5, 1)[0].vectors, findings(900, 1)
if os.geteuid() == 0:
    os.seteuid(65534)  # root may write anywhere
with ExactIndex(Path(sys.argv[1])) as index:
    print(index.search(query, 1, fingerprint=NETWORK)[0][0].finding_id, len(list(index.check())))
    try:
        index.add(*new)
    except InputError as error:
        print(str(error).split(": ", 1)[1])
"""


def test_a_folder_that_cannot_be_written_is_searched(sound):
    place = Path(tempfile.mkdtemp())
    try:
        place.chmod(0o755)
        folder = Path(shutil.copytree(sound, place / "index"))
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        command = [sys.executable, "-c", READER.format(tests=str(Path(__file__).parent)), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stdout.splitlines()[:1] == ["P-1/5 0"], done.stderr
        assert done.stdout.splitlines()[1].startswith("cannot be written"), done.stdout
        folder.chmod(0o755)
    finally:
        shutil.rmtree(place)


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_store import InputError, ExactIndex, findings
limit = int(sys.argv[2])
with ExactIndex(Path(sys.argv[1])) as index:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        getattr(index, sys.argv[3])(*(findings(1000, 400) if sys.argv[3] == "add" else ()))
    except InputError as error:
        print(error)
"""


@pytest.mark.parametrize("change", ["add", "compact"])
@pytest.mark.parametrize("name", [DATABASE, "vectors-1.f32"])
def test_a_full_disk_changes_nothing(folder, name, change):
    with ExactIndex(folder) as index:
        right = contents(index)
    limit = (folder / name).stat().st_size + 1000 if change == "add" else 2000
    command = [sys.executable, "-c", FULL.format(tests=str(Path(__file__).parent)), str(folder), str(limit), change]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout, done.stderr
    assert "nothing was changed" in done.stdout
    with ExactIndex(folder) as index:
        assert contents(index) == right
        assert list(index.check()) == []
        index.add(*findings(1000, 400))
        assert list(index.check()) == []


def test_more_fields_than_fit_are_refused(folder):
    facts = [{"pid": "a", "nodule_id": "1"} | {f"field {n}": float(n) for n in range(497)}]
    embeddings = Embeddings(findings(900, 1)[0].vectors, ("a/1",), NETWORK)
    with ExactIndex(folder) as index:
        with pytest.raises(InputError, match="at most 500"):
            index.add(embeddings, facts)
        del facts[0]["field 496"]
        index.add(embeddings, facts)
        assert len(index.fields) == 500
        assert dict(index.get(["a/1"])[1][0]) == facts[0]
        assert parse_condition('"field 3" > 2', index.fields)
        assert index.ids('"field 3" > 2') == ("a/1",)


def test_rows_of_a_condition_are_kept_only_until_a_change(folder):
    with ExactIndex(folder) as index:
        queries = findings(0, 1)[0].vectors

        def found(where="change = 1"):
            return {one.finding_id for one in index.search(queries, 100, where=where, fingerprint=NETWORK)[0]}

        assert found() == found() == set(index.ids("change = 1"))
        index.update(*findings(30, 3, change=1))
        assert found() == set(index.ids("change = 1"))
        assert len(found()) == 13
        for number in range(20):
            assert found(f"note = 'note {number}'") == {f"P-{number // 4}/{number}"}
