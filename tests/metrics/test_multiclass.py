from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from spicula.core.errors import InputError
from spicula.metrics.bootstrap import bootstrap_interval
from spicula.metrics.classification import auroc
from spicula.metrics.multiclass import confusion, one_versus_rest


def _data(seed: int, n: int = 120, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.append(rng.choice(k, n - k, p=np.arange(1, k + 1) / (k * (k + 1) / 2)), np.arange(k))
    logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[y]
    return y, (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).round(2)


@pytest.mark.parametrize("seed", range(5))
def test_areas_match_scikit_learn(seed: int) -> None:
    y, p = _data(seed)
    found = one_versus_rest(y, p)
    for name in ("weighted", "macro"):
        parts = oracle.roc_auc_score(np.eye(4)[y], p, average=name)  # rounded rows do not add up to 1
        assert getattr(found, name) == pytest.approx(parts)
    exact = p + (1 - p.sum(axis=1, keepdims=True)) / 4
    assert one_versus_rest(y, exact).weighted == pytest.approx(
        oracle.roc_auc_score(y, exact, multi_class="ovr", average="weighted")
    )


def test_an_absent_class_is_named_and_in_no_mean() -> None:
    y, p = _data(1)
    kept = y != 2
    found = one_versus_rest(y[kept], p[kept])
    assert found.absent == (2,)
    assert np.isnan(found.auroc[2])
    there = [0, 1, 3]
    areas = [auroc(y[kept] == j, p[kept, j]) for j in there]
    assert found.macro == pytest.approx(np.mean(areas))
    assert found.weighted == pytest.approx(np.average(areas, weights=[(y[kept] == j).sum() for j in there]))


def test_names_and_laws() -> None:
    y, p = _data(2)
    names = np.array(["smooth", "lobulated", "spiculated", "other"])
    assert one_versus_rest(names[y], p, classes=names.tolist()).weighted == one_versus_rest(y, p).weighted
    turn = [2, 0, 3, 1]
    assert one_versus_rest(names[y], p[:, turn], classes=names[turn].tolist()).macro == pytest.approx(
        one_versus_rest(y, p).macro
    )
    assert one_versus_rest(y, np.exp(3 * p)).weighted == one_versus_rest(y, p).weighted
    two = one_versus_rest(y > 1, np.stack([1 - p[:, 3], p[:, 3]], axis=1))
    assert [two.weighted, two.macro] == pytest.approx([auroc(y > 1, p[:, 3])] * 2)
    interval = bootstrap_interval(lambda a, b: one_versus_rest(a, b).weighted, (y, p), resamples=50)
    assert interval.low < interval.value < interval.high


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore")  # of scikit-learn, on classes that were never called
def test_confusion_matches_scikit_learn(rows: list[tuple[int, int]]) -> None:
    y, called = np.array(rows).T
    found = confusion(y, called)
    assert found.counts.tolist() == np.atleast_2d(oracle.confusion_matrix(y, called)).tolist()
    assert found.accuracy == pytest.approx(oracle.accuracy_score(y, called))
    assert found.macro_f1 == pytest.approx(oracle.f1_score(y, called, average="macro"))
    assert found.weighted_f1 == pytest.approx(oracle.f1_score(y, called, average="weighted"))
    assert found.balanced_accuracy == pytest.approx(oracle.balanced_accuracy_score(y, called))
    assert np.nan_to_num(found.precision) == pytest.approx(
        oracle.precision_score(y, called, average=None, zero_division=0)
    )
    wider = confusion(y, called, classes=range(6))
    assert wider.macro_f1 == pytest.approx(found.macro_f1)
    assert set(wider.absent) == set(range(6)) - set(y.tolist())


def test_bad_input_is_named() -> None:
    y, p = _data(3)
    with pytest.raises(InputError, match=r"label of row 0.*expected one of"):
        one_versus_rest(["x"] * len(y), p)
    with pytest.raises(InputError, match="column for each"):
        one_versus_rest(y, p[:, 0])
    with pytest.raises(InputError, match="rows"):
        one_versus_rest(y[:-1], p)
    with pytest.raises(InputError, match="4 different"):
        one_versus_rest(y, p, classes=[0, 1, 2, 2])
    with pytest.raises(InputError, match="two classes"):
        one_versus_rest(y * 0, p)
    p[7, 2] = np.nan
    with pytest.raises(InputError, match="score of row 7 for class 2"):
        one_versus_rest(y, p)
    with pytest.raises(InputError, match="shapes"):
        confusion([1, 2], [1])
    with pytest.raises(InputError, match="call of row 1"):
        confusion([1, 2], [1, 3], classes=[1, 2])
