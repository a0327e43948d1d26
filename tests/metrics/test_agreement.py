from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa as other_fleiss

from spicula.core.errors import InputError
from spicula.metrics.agreement import cohen_kappa, fleiss_kappa, fleiss_kappa_of_counts, icc
from spicula.metrics.bootstrap import bootstrap_interval

# Shrout, Fleiss 1979, table 2: six subjects, four judges.
JUDGES = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float)

# The worked example of ten subjects, fourteen readers and five categories.
FOURTEEN = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def _readers(seed: int, n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 6, n)
    return tuple(np.clip(truth + rng.integers(-1, 2, n), 1, 5) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize(("weights", "theirs"), [("none", None), ("linear", "linear"), ("quadratic", "quadratic")])
@pytest.mark.parametrize("seed", range(3))
def test_cohen_matches_scikit_learn(seed: int, weights, theirs) -> None:
    a, b = _readers(seed)
    assert cohen_kappa(a, b, weights=weights).value == pytest.approx(cohen_kappa_score(a, b, weights=theirs))
    some = a != 3
    assert cohen_kappa(a[some], b[some], weights=weights, classes=range(1, 6)).value == pytest.approx(
        cohen_kappa_score(a[some], b[some], weights=theirs, labels=[1, 2, 3, 4, 5])
    )


def test_cohen_by_hand_and_laws() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed 0.7, expected 0.5.
    a, b = np.repeat(["y", "y", "n", "n"], [20, 5, 10, 15]), np.repeat(["y", "n", "y", "n"], [20, 5, 10, 15])
    found = cohen_kappa(a, b)
    assert (found.observed, found.expected, found.value) == pytest.approx((0.7, 0.5, 0.4))
    assert cohen_kappa(b, a).value == pytest.approx(0.4)
    assert cohen_kappa(a, a).value == 1
    # With two categories partial credit is no credit.
    assert cohen_kappa(a, b, weights="linear").value == pytest.approx(0.4)
    # Quadratic kappa of readers with the same spread and mean is their correlation.
    x = np.array([1, 2, 3, 4, 5, 5, 4, 3, 2, 1])
    y = np.array([2, 1, 4, 3, 5, 4, 5, 2, 3, 1])
    assert cohen_kappa(x, y, weights="quadratic").value == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_missing_ratings_are_counted() -> None:
    a, b = _readers(5)
    holed = a.astype(float)
    holed[::7] = np.nan
    kept = ~np.isnan(holed)
    found = cohen_kappa(holed, b)
    assert found.value == pytest.approx(cohen_kappa_score(a[kept], b[kept]))
    assert (found.subjects, found.left_out) == (kept.sum(), (~kept).sum())
    assert cohen_kappa(["x", "", None, "z"], ["x", "y", "y", "x"]).left_out == 2


def test_lists_text_and_arrays_are_one() -> None:
    a, b = _readers(8)
    names = np.array(["", "none", "low", "middle", "high", "top"])
    order = names[1:].tolist()
    plain = cohen_kappa(a, b, weights="linear")
    assert cohen_kappa(a.tolist(), b.tolist(), weights="linear") == plain
    assert cohen_kappa(names[a], names[b].tolist(), weights="linear", classes=order) == plain
    holed = np.stack([a, b, a], axis=1).astype(float)
    holed[::3, 1] = np.nan
    listed = [[None if np.isnan(r) else int(r) for r in row] for row in holed]
    assert fleiss_kappa(listed) == fleiss_kappa(holed)
    assert fleiss_kappa([[float("nan"), 1.0, 2.0], [2.0, 2.0, np.nan]]).subjects == 2


def test_the_bootstrap_of_kappa_covers_it() -> None:
    a, b = _readers(6)
    interval = bootstrap_interval(
        lambda p, q: cohen_kappa(p, q, weights="linear", classes=range(1, 6)).value, (a, b), resamples=200
    )
    assert interval.low < interval.value < interval.high
    ratings = np.stack([a, b], axis=1)
    drawn = bootstrap_interval(lambda r: fleiss_kappa(r).value, (ratings,), np.arange(80) // 4, resamples=100)
    assert drawn.low < drawn.value < drawn.high


def test_fleiss_published_example() -> None:
    found = fleiss_kappa_of_counts(FOURTEEN)
    assert (found.observed, found.expected, found.value) == pytest.approx((0.378, 0.213, 0.210), abs=5e-4)
    ratings = [[j for j, count in enumerate(row) for _ in range(count)] for row in FOURTEEN]
    assert fleiss_kappa(ratings).value == pytest.approx(found.value)
    assert found.value == pytest.approx(other_fleiss(np.array(FOURTEEN)))


def test_fleiss_with_unequal_readers_by_pairs() -> None:
    rng = np.random.default_rng(7)
    ratings = rng.integers(1, 4, (40, 4)).astype(float)
    ratings[rng.random((40, 4)) < 0.3] = np.nan
    ratings[0, 1:] = np.nan
    agree, chance = [], []
    for row in ratings:
        there = row[~np.isnan(row)]
        if there.size:
            chance.append([(there == j).mean() for j in (1, 2, 3)])
        if there.size > 1:
            agree.append(np.mean([x == y for x, y in itertools.combinations(there, 2)]))
    expected = (np.mean(chance, axis=0) ** 2).sum()
    found = fleiss_kappa(ratings)
    assert found.value == pytest.approx((np.mean(agree) - expected) / (1 - expected))
    assert (found.subjects, found.left_out) == (len(agree), 40 - len(agree))
    shuffled = rng.permuted(ratings, axis=1)
    assert fleiss_kappa(shuffled).value == pytest.approx(found.value)


def test_fleiss_published_example_with_missing_ratings() -> None:
    """Gwet's twelve units and four raters, as R's irrCAC prints them: 0.76117 from 0.81818 and 0.23872."""
    rows = ["11.1", "2232", "3333", "3333", "2222", "1234", "4444", "1121", "2222", ".555", "..11", "..3."]
    found = fleiss_kappa([[None if r == "." else int(r) for r in row] for row in rows])
    assert (found.observed, found.expected, found.value) == pytest.approx((0.81818, 0.23872, 0.76117), abs=5e-6)
    assert (found.subjects, found.left_out) == (11, 1)


@pytest.mark.parametrize(
    ("form", "value", "low", "high"),
    [
        ("1,1", 0.17, -0.133, 0.72),
        ("2,1", 0.29, 0.019, 0.76),
        ("3,1", 0.71, 0.342, 0.95),
        ("1,k", 0.44, -0.884, 0.91),
        ("2,k", 0.62, 0.071, 0.93),
        ("3,k", 0.91, 0.676, 0.99),
    ],
)
def test_shrout_and_fleiss(form, value: float, low: float, high: float) -> None:
    """Values of the paper; interval ends as R's psych prints them for the same table."""
    found = icc(JUDGES, form=form)
    assert found.value == pytest.approx(value, abs=0.005)
    assert found.low == pytest.approx(low, abs=6e-4)
    assert found.high == pytest.approx(high, abs=0.006)
    assert found.p_value == pytest.approx(0.16477 if form[0] == "1" else 0.00013, abs=5e-6)
    assert (found.subjects, found.readers) == (6, 4)


@pytest.mark.parametrize("form", ["1,1", "2,1", "3,1", "1,k", "2,k", "3,k"])
def test_icc_laws(form) -> None:
    found = icc(JUDGES, form=form)
    moved = icc(3 * JUDGES[::-1, ::-1] - 7, form=form)
    assert (moved.value, moved.low, moved.high) == pytest.approx((found.value, found.low, found.high))
    offset = icc(JUDGES + np.array([0, 5, -3, 1]), form=form).value
    assert (offset == pytest.approx(found.value)) == (form[0] == "3")
    perfect = icc(JUDGES[:, :1] + np.zeros(3), form=form)
    assert (perfect.value, perfect.low, perfect.high) == pytest.approx((1, 1, 1), abs=1e-6)
    if form.endswith("k"):
        single = icc(JUDGES, form=form[0] + ",1")  # type: ignore[arg-type]
        assert found.value == pytest.approx(4 * single.value / (1 + 3 * single.value))


@pytest.mark.parametrize("form", ["1,1", "2,1", "3,1"])
def test_icc_intervals_cover(form) -> None:
    rng = np.random.default_rng(8)
    bias = 0.7 if form == "2,1" else 0.0
    truth = 1 / (1 + 0.5 + bias**2)
    hits = 0
    for _ in range(400):
        table = rng.normal(size=(25, 1)) + bias * rng.normal(size=(1, 6)) + 0.5**0.5 * rng.normal(size=(25, 6))
        found = icc(table, form=form, level=0.9)
        hits += found.low <= truth <= found.high
    assert hits / 400 == pytest.approx(0.9, abs=0.04)


def test_icc_with_missing_readers() -> None:
    rng = np.random.default_rng(9)
    table = rng.normal(size=(3000, 1)) + rng.normal(size=(3000, 4))
    table[rng.random(table.shape) < 0.3] = np.nan
    found = icc(table, form="1,1")
    assert found.value == pytest.approx(0.5, abs=0.03)
    assert found.low < found.value < found.high
    assert found.subjects == np.isfinite(table).any(axis=1).sum()
    # A column that nobody filled, and subjects nobody rated, change nothing.
    padded = np.full((8, 5), np.nan)
    padded[:6, :4] = JUDGES
    assert icc(padded, form="1,1").value == pytest.approx(icc(JUDGES, form="1,1").value)
    with pytest.raises(InputError, match=r"missing.*form 2,1"):
        icc(table)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="one category"):
        cohen_kappa([1, 1], [1, 1])
    with pytest.raises(InputError, match="both readers"):
        cohen_kappa([1, None], [None, 1])
    with pytest.raises(InputError, match="rating 1 of subject 0"):
        cohen_kappa([1], [7], classes=range(1, 6))
    with pytest.raises(InputError, match="two \\[n\\]"):
        cohen_kappa([1], [7, 1])
    with pytest.raises(InputError, match="quadratic"):
        cohen_kappa([1, 2], [1, 2], weights="square")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="two readers"):
        fleiss_kappa([[1, None], [None, 2]])
    with pytest.raises(InputError, match="got none"):
        fleiss_kappa([[None, None], [None, None]])
    with pytest.raises(InputError, match="subjects, readers"):
        fleiss_kappa([[1, 2], [1]])  # ragged
    with pytest.raises(InputError, match="not whole"):
        fleiss_kappa_of_counts([[0.5, 1.5]])
    with pytest.raises(InputError, match="subjects, readers"):
        fleiss_kappa([1, 2])
    with pytest.raises(InputError, match="no variance"):
        icc(np.ones((4, 3)))
    with pytest.raises(InputError, match="two subjects"):
        icc(JUDGES[:, :1])
    with pytest.raises(InputError, match="form"):
        icc(JUDGES, form="4,1")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="level"):
        icc(JUDGES, level=95)
