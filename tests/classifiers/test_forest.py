"""The forest without scikit-learn gives scikit-learn's probabilities, and refuses what is no forest."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from spicula.classifiers.forest import Forest, forest_of_bytes, forest_of_sklearn
from spicula.core.errors import BundleError, InputError


def data(n=400, f=12, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, f))
    return x, (x[:, 0] + 0.5 * x[:, 1] ** 2 + rng.normal(0, 0.7, n)) > 0.4


@pytest.fixture(scope="module")
def taught():
    x, y = data()
    return RandomForestClassifier(100, random_state=42).fit(x, y)


@pytest.mark.parametrize("kind", [RandomForestClassifier, ExtraTreesClassifier])
@pytest.mark.parametrize("depth", [None, 1, 4])
@pytest.mark.parametrize("labels", [(False, True), (0, 1), ("benign", "malignant")])
def test_probabilities_are_those_of_scikit_learn(kind, depth, labels):
    x, y = data()
    model = kind(20, max_depth=depth, random_state=1).fit(x, np.where(y, labels[1], labels[0]))
    forest = forest_of_sklearn(model)
    for rows in (x, data(seed=1)[0], x.astype(np.float32), 1e3 * x[:3]):
        np.testing.assert_allclose(forest(rows), model.predict_proba(rows)[:, 1], atol=1e-12)


def test_values_on_and_beside_a_threshold_go_the_same_way(taught):
    forest = forest_of_sklearn(taught)
    nodes = np.flatnonzero(forest.feature >= 0)[:500]
    rows = np.random.default_rng(2).normal(size=(len(nodes), 12))
    rows[np.arange(len(nodes)), forest.feature[nodes]] = forest.threshold[nodes]
    for some in (rows, np.nextafter(rows, -np.inf), np.nextafter(rows.astype(np.float32), np.float32(np.inf))):
        np.testing.assert_allclose(forest(some), taught.predict_proba(some)[:, 1], atol=1e-12)


def test_sample_weights_and_class_weights_are_kept():
    x, y = data()
    model = RandomForestClassifier(10, class_weight="balanced_subsample", min_samples_leaf=7, random_state=0)
    model.fit(x, y, sample_weight=np.linspace(0.1, 2, len(x)))
    np.testing.assert_allclose(forest_of_sklearn(model)(x), model.predict_proba(x)[:, 1], atol=1e-12)


def test_a_file_holds_all_of_it(taught):
    forest = forest_of_sklearn(taught)
    content = forest.to_bytes()
    assert content == forest.to_bytes()
    again = forest_of_bytes(content)
    x, _ = data(seed=3)
    np.testing.assert_array_equal(again(x), forest(x))
    assert again.width == 12
    assert again(np.zeros((0, 12))).shape == (0,)


def test_more_rows_than_are_done_at_once(taught, monkeypatch):
    forest = forest_of_sklearn(taught)
    x, _ = data(n=50)
    whole = forest(x)
    monkeypatch.setattr("spicula.classifiers.forest._ROWS_AT_ONCE", 7)
    np.testing.assert_array_equal(forest(x), whole)


def stump(**changes):
    arrays = {
        "feature": np.array([0, -1, -1]), "threshold": np.array([0.5, 0.0, 0.0]), "left": np.array([1, -1, -1]),
        "right": np.array([2, -1, -1]), "probability": np.array([0.5, 0.0, 1.0]), "starts": np.array([0]), "width": 1,
    }  # fmt: skip
    return Forest(**arrays | changes)


def test_a_tree_by_hand():
    np.testing.assert_array_equal(stump()([[0.5], [0.6]]), [0.0, 1.0])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"left": np.array([0, -1, -1])}, "child"),
        ({"right": np.array([3, -1, -1])}, "child"),
        ({"left": np.array([-1, -1, -1])}, "one child"),
        ({"feature": np.array([1, -1, -1])}, "outside 0 to 0"),
        ({"feature": np.array([-2, -1, -1])}, "outside 0 to 0"),
        ({"threshold": np.array([np.nan, 0, 0])}, "threshold"),
        ({"probability": np.array([0.5, 0, 1.5])}, "probability"),
        ({"probability": np.array([0.5, 0, np.nan])}, "probability"),
        ({"probability": np.array([0.5, 0])}, "probability 2"),
        ({"starts": np.array([1])}, "follow each other"),
        ({"starts": np.array([0, 1])}, "same tree"),
        ({"starts": np.array([], dtype=int)}, "follow each other"),
        ({"feature": np.array([[0, -1, -1]])}, "no rows"),
    ],
)
def test_arrays_that_make_no_forest(changes, told):
    with pytest.raises(BundleError, match=told):
        stump(**changes)


def test_damaged_files(taught):
    content = forest_of_sklearn(taught).to_bytes()
    rng = np.random.default_rng(0)
    for length in (0, 10, len(content) // 2, len(content) - 5):
        with pytest.raises(BundleError, match="forest"):
            forest_of_bytes(content[:length])
    for _ in range(60):
        broken = bytearray(content)
        broken[rng.integers(len(content))] ^= 0xFF
        with suppress(BundleError):  # no other error
            forest_of_bytes(bytes(broken))
    with pytest.raises(BundleError, match="damaged"):
        forest_of_bytes(b"no zip")


@pytest.mark.parametrize(
    "changes", [{"feature": np.zeros(3)}, {"width": np.array([1])}, {"left": None}, {"starts": np.array(["a"])}]
)
def test_files_with_odd_arrays(changes):
    forest = stump()
    names = ("feature", "threshold", "left", "right", "probability", "starts", "width")
    arrays = {name: np.asarray(getattr(forest, name)) for name in names} | changes
    stream = io.BytesIO()
    np.savez(stream, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(BundleError, match="forest"):
        forest_of_bytes(stream.getvalue())


def test_rows_and_models_that_are_refused(taught):
    forest = forest_of_sklearn(taught)
    for rows in (np.zeros((2, 11)), np.zeros(12)):
        with pytest.raises(InputError, match="expected"):
            forest(rows)
    with pytest.raises(InputError, match="not finite"):
        forest(np.full((1, 12), np.nan))
    with pytest.raises(InputError, match="two classes"):
        forest_of_sklearn(RandomForestClassifier(3))
    x, _ = data()
    with pytest.raises(InputError, match="two classes"):
        forest_of_sklearn(RandomForestClassifier(3).fit(x, np.arange(len(x)) % 3))
    assert replace(forest, width=13).width == 13
