"""What is usual in an index is worked out once, and again when the index has changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spicula.core.embedding import Embeddings
from spicula.pipelines import usual as module
from spicula.pipelines.index import open_place
from spicula.pipelines.usual import KEPT, usual, usual_in
from spicula.retrieval.index import Index
from spicula.retrieval.opening import create_index

FINDINGS = 60


def embeddings(names: list[str], *, seed: int) -> Embeddings:
    vectors = np.random.default_rng(seed).normal(size=(len(names), 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Embeddings(vectors.astype(np.float32), tuple(names), "net@0")


def facts(names: list[str], malignant: float) -> list[dict[str, str | float]]:
    parts = (name.split("/") for name in names)
    return [{"pid": pid, "nodule_id": nodule, "malignant": malignant} for pid, nodule in parts]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder, names = tmp_path / "index", [f"{number // 2}/{number % 2}" for number in range(FINDINGS)]
    create_index(folder, fingerprint="net@0", dimensions=8)
    with open_place(folder) as index:
        index.add(embeddings(names, seed=0), facts(names, 0.0))
    return folder


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever it is worked out."""
    calls: list[int] = []

    def counting(index: Index) -> object:
        calls.append(len(index))
        return usual(index)

    monkeypatch.setattr(module, "usual", counting)
    return calls


def replace_one(place: Path) -> None:
    with open_place(place) as index:
        index.update(embeddings(["3/1"], seed=9), facts(["3/1"], 1.0))


def test_it_is_worked_out_once_until_the_index_changes(place: Path, counted: list[int]) -> None:
    for _ in range(3):
        with open_place(place) as index:
            first = usual_in(str(place), index)
    assert (len(counted), first.means["malignant"]) == (1, 0.0)
    replace_one(place)
    with open_place(place) as index:
        assert len(index) == FINDINGS, "as many as before"
        second = usual_in(str(place), index)
        assert second == usual(index)
    assert (len(counted), second.means["malignant"] > 0) == (2, True)
    assert not (place / KEPT).exists(), "a small index keeps nothing"


def test_a_large_index_keeps_it_beside_its_vectors(
    place: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGE", FINDINGS)

    def asked_anew() -> object:
        module._known.clear()  # as in another process
        with open_place(place) as index:
            found = usual_in(str(place), index)
            assert found == usual(index)
            assert list(index.check()) == []
        return found

    assert asked_anew() == asked_anew()
    assert len(counted) == 1
    replace_one(place)
    asked_anew()
    assert len(counted) == 2
    record = json.loads((place / KEPT).read_text())
    for broken in ("", "[]", "{", json.dumps({**record, "nearest": ["near"]}), json.dumps({**record, "nearest": [-1]}),
                   json.dumps({**record, "means": 3}), json.dumps({**record, "fingerprint": "net@1"})):  # fmt: skip
        (place / KEPT).write_text(broken)
        before = len(counted)
        asked_anew()
        assert len(counted) == before + 1, broken
    assert asked_anew() == asked_anew()


def test_a_folder_that_cannot_be_written_keeps_nothing(
    place: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGE", FINDINGS)
    monkeypatch.setattr(module, "KEPT", f"{'x' * 300}.json")  # no file system takes such a name
    for _ in range(2):
        module._known.clear()
        with open_place(place) as index:
            assert usual_in(str(place), index) == usual(index)
    assert len(counted) == 2


def test_few_indexes_are_remembered(tmp_path: Path, place: Path, counted: list[int]) -> None:
    with open_place(place) as index:
        for number in range(20):
            usual_in(f"place {number}", index)
    assert len(counted) == 20
    assert len(module._known) <= 8
