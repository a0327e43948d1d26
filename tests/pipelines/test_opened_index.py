"""An index is opened once, shows the changes of others, and gives way to one that is put in its place."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from spicula.core.embedding import Embeddings
from spicula.core.errors import InputError
from spicula.pipelines import opened_index
from spicula.pipelines.index import open_place
from spicula.pipelines.opened_index import OpenedIndex
from spicula.retrieval.index import Index
from spicula.retrieval.opening import create_index


def made(folder: Path, *pids: str, fingerprint: str = "net@0") -> Path:
    create_index(folder, fingerprint=fingerprint, dimensions=2)
    add(folder, *pids, fingerprint=fingerprint)
    return folder


def add(folder: Path, *pids: str, fingerprint: str = "net@0") -> None:
    vectors = np.tile(np.array([[1.0, 0.0]], np.float32), (len(pids), 1))
    with open_place(folder) as index:
        index.add(
            Embeddings(vectors, tuple(f"{pid}/1" for pid in pids), fingerprint),
            [{"pid": pid, "nodule_id": "1"} for pid in pids],
        )


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Index]:
    """Every index that was opened."""
    found: list[Index] = []

    def opening(place: str) -> Index:
        found.append(open_place(place))
        return found[-1]

    monkeypatch.setattr(opened_index, "open_place", opening)
    return found


def is_closed(index: Index) -> bool:
    try:
        return len(index) < 0
    except InputError:
        return True


def test_it_is_opened_once_and_shows_what_others_change(tmp_path: Path, opened: list[Index]) -> None:
    place, held = made(tmp_path / "index", "a", "b"), OpenedIndex()
    with held.at(str(place)) as index:
        assert index.ids() == ("a/1", "b/1")
    add(place, "c")
    with held.at(str(place)) as index:
        assert index.ids() == ("a/1", "b/1", "c/1")
    assert len(opened) == 1


def test_another_in_its_place_is_opened_and_the_old_one_let_go(tmp_path: Path, opened: list[Index]) -> None:
    place, held = made(tmp_path / "index", "a"), OpenedIndex()
    with held.at(str(place)) as first:
        shutil.rmtree(place)
        made(place, "b", fingerprint="net@1")
        with held.at(str(place)) as second:
            assert (second.fingerprint, second.ids()) == ("net@1", ("b/1",))
        assert not is_closed(first), "somebody uses it still"
    assert [is_closed(index) for index in opened] == [True, False]
    other = made(tmp_path / "other", "c")
    with held.at(str(other)) as third:
        assert third.ids() == ("c/1",)
    assert [is_closed(index) for index in opened] == [True, True, False]


def test_one_that_is_away_is_told_and_found_when_it_is_back(tmp_path: Path, opened: list[Index]) -> None:
    place, held = made(tmp_path / "index", "a"), OpenedIndex()
    with held.at(str(place)):
        pass
    away = place.rename(tmp_path / "away")
    with pytest.raises(InputError, match="no such folder"), held.at(str(place)):
        pytest.fail("it was opened")
    away.rename(place)
    with held.at(str(place)) as index:
        assert index.ids() == ("a/1",)


def test_threads_share_it(tmp_path: Path, opened: list[Index]) -> None:
    place, held, found = made(tmp_path / "index", "a", "b"), OpenedIndex(), []

    def ask() -> None:
        for _ in range(20):
            with held.at(str(place)) as index:
                found.append(len(index))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, len(opened)) == ([2] * 80, 1)


def test_what_was_built_since_is_used(tmp_path: Path, opened: list[Index]) -> None:
    pytest.importorskip("faiss", reason="pip install 'spicula[search]'")
    from spicula.pipelines.index import rebuild_index

    place, held = made(tmp_path / "index", "a", "b"), OpenedIndex()
    with held.at(str(place)) as index:
        assert index.stats().backend == "exact"
    rebuild_index(str(place), backend="faiss-hnsw")
    with held.at(str(place)) as index:
        assert index.stats().backend == "faiss-hnsw"
