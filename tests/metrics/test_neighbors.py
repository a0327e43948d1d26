from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from spicula.core.errors import InputError
from spicula.metrics import neighbors as nb


def _by_sorting(matrix: np.ndarray, own: np.ndarray, k: int) -> list[list[int]]:
    found = []
    for row, mine in zip(matrix, own, strict=True):
        order = sorted((d, i) for i, d in enumerate(row) if i != mine)
        found.append([i for _, i in order[:k]] + [-1] * (k - len(order)))
    return found


@given(st.integers(0, 10_000), st.sampled_from([0.0, 1e3, 1e8]), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_nearest_is_what_sorting_gives_far_from_the_origin_too(seed: int, far: float, k: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(20, 5)) + far
    matrix = np.sqrt(((vectors[:, None] - vectors[None]) ** 2).sum(axis=2))
    found = nb.nearest(nb.distances_between(vectors), k)
    assert found.index.tolist() == _by_sorting(matrix, np.arange(20), k)
    places = found.index >= 0
    rows = np.nonzero(places)[0]
    np.testing.assert_allclose(found.distance[places], matrix[rows, found.index[places]], rtol=1e-14)
    assert np.isinf(found.distance[~places]).all()
    assert (found.candidates == 19).all()


@given(arrays(np.int64, (12, 2), elements=st.integers(-2, 2)), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_ties_go_by_number(points: np.ndarray, k: int) -> None:
    matrix = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=2))
    expected = _by_sorting(matrix, np.arange(12), k)
    assert nb.nearest(nb.distances_between(points), k).index.tolist() == expected
    assert nb.nearest(nb.given_distances(matrix, own=np.arange(12)), k).index.tolist() == expected


@pytest.mark.parametrize("cells", [1, 50, 333])
def test_blocks_do_not_change_the_outcome(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    vectors, items = rng.normal(size=(30, 8)), rng.normal(size=(50, 8))
    whole = nb.nearest(nb.distances_between(vectors, items, metric="cosine"), 7)
    monkeypatch.setattr(nb, "_CELLS", cells)
    parts = nb.nearest(nb.distances_between(vectors, items, metric="cosine"), 7)
    assert np.array_equal(whole.index, parts.index)
    assert np.array_equal(whole.distance, parts.distance)


def test_doubles_and_equal_items() -> None:
    same = np.full((6, 3), 1.1)
    found = nb.nearest(nb.distances_between(same), 3)
    assert found.index.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert not found.distance.any()
    assert nb.nearest(nb.distances_between(same), 2, with_query=True).index.tolist() == [[0, 1]] * 6


def test_cosine_orders_by_angle() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(15, 4)) * rng.uniform(0.01, 100, (15, 1))
    distances = nb.distances_between(vectors, metric="cosine")
    expected = np.sqrt(2 * cdist(vectors, vectors, "cosine"))
    everyone = np.arange(15)
    np.testing.assert_allclose(distances.rows(everyone), expected, atol=1e-7)
    np.testing.assert_allclose(distances.estimate(everyone), expected, atol=1e-7)
    longer = nb.distances_between(vectors * rng.uniform(1, 9, (15, 1)), metric="cosine")
    assert np.array_equal(nb.nearest(distances, 3).index, nb.nearest(longer, 3).index)


def test_queries_among_the_items() -> None:
    items = np.array([[0.0], [1.0], [3.0], [7.0]])
    distances = nb.distances_between(items[[2, 0]], items, own=[2, -1])
    assert not distances.one_set
    assert nb.nearest(distances, 2).index.tolist() == [[1, 0], [0, 1]]
    assert nb.nearest(distances, 2).candidates.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nb.distances_between([[1.0, np.nan], [0.0, 1.0]]), "row 0 of the vectors: got nan"),
        (lambda: nb.distances_between([[1.0], [np.inf]]), "row 1 of the vectors: got inf"),
        (lambda: nb.distances_between([[1.0], [1e200]]), "below 1e150"),
        (lambda: nb.distances_between([[1.0, 2.0]]), "one, which is the query itself"),
        (lambda: nb.distances_between(np.zeros((0, 3))), "not empty"),
        (lambda: nb.distances_between([1.0, 2.0]), r"\[n, d\]"),
        (lambda: nb.distances_between([["a"], ["b"]]), "no table of numbers"),
        (lambda: nb.distances_between([[1.0], [2.0]], [[1.0, 2.0]]), "length 2, expected 1"),
        (lambda: nb.distances_between([[1.0], [0.0]], metric="cosine"), "row 1 of the vectors: got a vector of length"),
        (lambda: nb.distances_between([[1.0], [2.0]], metric="dot"), "metric"),  # type: ignore[arg-type]
        (lambda: nb.distances_between([[1.0], [2.0]], own=[0, 1]), "without index vectors"),
        (lambda: nb.distances_between([[1.0]], [[1.0], [2.0]], own=[5]), "own: got 5 to 5"),
        (lambda: nb.distances_between([[1.0]], [[1.0], [2.0]], own=[0, 1]), "item numbers"),
        (lambda: nb.given_distances([[0.0, 1.0], [np.nan, 0.0]], own=None), "distance of query 1 to item 0: got nan"),
        (lambda: nb.given_distances([[0.0, -1.0]], own=None), "distance of query 0 to item 1: got -1"),
        (lambda: nb.given_distances([1.0], own=None), r"\[q, n\]"),
        (lambda: nb.given_distances([[1.0], [1.0, 2.0]], own=None), "no table"),
        (lambda: nb.nearest(nb.distances_between([[1.0], [2.0]]), 0), "k: got 0"),
        (lambda: nb.nearest(nb.distances_between([[1.0], [2.0]]), 2.0), "k: got 2.0"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_named(call, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()
