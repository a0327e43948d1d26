from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from spicula.metrics import froc_variants as ways
from spicula.metrics.froc import LUNA16_RATES, match, sensitivity_at
from spicula.metrics.hits import NO_POINTS, FreeResponse, Points

Set = tuple[Points, Points, Points, list[str]]


def _points(path: Path, *, delimiter: str = ",") -> Points:
    with gzip.open(path, "rt", newline="") as stream:
        rows = list(csv.reader(stream, delimiter=delimiter))[1:]
    numbers = np.array([[float(v) for v in r[1:5]] for r in rows])
    return Points(np.array([r[0].zfill(5) for r in rows]), numbers[:, :3], numbers[:, 3])


@pytest.fixture(scope="module")
def oracle(shared: Path) -> Set:
    root = shared / "luna16" / "oracle"
    with gzip.open(root / "newseriesuids.csv.gz", "rt") as stream:
        scans = [line.strip() for line in stream]
    return (
        _points(root / "dpn26bs32.csv.gz", delimiter="\t"),
        _points(root / "newannotations.csv.gz"),
        _points(root / "newannotations_excluded.csv.gz"),
        scans,
    )


@pytest.mark.shared
def test_golden_numbers_of_all_ways(oracle: Set) -> None:
    results = ways.froc_variants(*oracle)
    assert [round(v.mean, 4) for v in results] == [0.8420, 0.7422, 0.9047, 0.8331, 0.8583, 0.8429, 0.8420]
    assert [v.official for v in results] == [True] + [False] * len(ways.MISTAKES)
    assert len({v.name for v in results}) == len(results)
    excluded = results[1]
    assert [round(v, 4) for v in excluded.sensitivity] == [0.4722, 0.5868, 0.6804, 0.7833, 0.8499, 0.8954, 0.9275]
    assert excluded.counts.false_positives == 46_078 + 5_308
    assert [v.counts.scans for v in results] == [888, 888, 888, 601, 888, 888, 888]
    free = results[-1].counts
    assert (free.false_positives, free.irrelevant, free.double, free.marks) == (48_907, 5_444, 190, 55_677)
    assert round(results[-1].mean, 5) == round(results[0].mean, 5) == 0.84197


def _next_by_hand(response: FreeResponse) -> list[float]:
    """The next corner, from scikit-learn's ROC curve without the points between."""
    detected = int(response.hit.sum())
    fpr, tpr, _ = roc_curve(response.hit, response.score, drop_intermediate=True)
    rates = fpr * (response.hit.size - detected) / response.findings.size
    sensitivity = tpr * detected / response.findings.sum()
    values = []
    for rate in LUNA16_RATES:
        beyond = [i for i, r in enumerate(rates) if r >= rate]
        least = min((rates[i] for i in beyond), default=rates[-1])
        values.append(float(sensitivity[max(i for i, r in enumerate(rates) if r == least)]))
    return values


@pytest.mark.shared
def test_next_point_of_the_oracle(oracle: Set) -> None:
    marks, nodules, excluded, scans = oracle
    response = match(marks, nodules, scans, excluded=excluded, max_marks=100)
    assert ways.next_point(*oracle).sensitivity == pytest.approx(_next_by_hand(response))


def _synthetic(seed: int, *, ties: bool = False) -> Set:
    rng = np.random.default_rng(seed)
    scans = [f"s{i}" for i in range(30)]
    home = rng.choice(scans[:18], 25)
    nodules = Points(home, rng.uniform(-150, 150, (25, 3)), rng.uniform(4, 20, 25))
    excluded = Points(rng.choice(scans, 40), rng.uniform(-150, 150, (40, 3)), np.full(40, -1.0))
    hit = rng.random(25) < 0.8
    centers = np.concatenate(
        [nodules.center_xyz_mm[hit], excluded.center_xyz_mm[:20] + 1, rng.uniform(-150, 150, (300, 3))]
    )
    names = np.concatenate([home[hit], excluded.scan[:20], rng.choice(scans, 300)])
    score = np.concatenate([rng.normal(2, 1, hit.sum()), rng.normal(1, 1, 20), rng.normal(0, 1, 300)])
    return Points(names, centers, score.round(1) if ties else score), nodules, excluded, scans


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_next_point_by_hand(seed: int, ties: bool) -> None:
    marks, nodules, excluded, scans = _synthetic(seed, ties=ties)
    response = match(marks, nodules, scans, excluded=excluded, max_marks=100)
    variant = ways.next_point(marks, nodules, excluded, scans)
    assert variant.sensitivity == pytest.approx(_next_by_hand(response))
    assert all(a >= b - 1e-12 for a, b in zip(variant.sensitivity, sensitivity_at(response), strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_each_way_by_its_own_definition(seed: int) -> None:
    marks, nodules, excluded, scans = _synthetic(seed)
    best = ways.official(marks, nodules, excluded, scans)
    holding = [s for s in scans if s in set(nodules.scan)]
    some = ways.nodule_scans_only(marks, nodules, excluded, scans)
    expected = match(marks, nodules, holding, excluded=excluded, max_marks=100)
    assert some.sensitivity == pytest.approx(sensitivity_at(expected).tolist())
    over_all = ways.nodule_scans_over_all(marks, nodules, excluded, scans)
    stretched = np.array(LUNA16_RATES) * len(scans) / len(holding)
    assert over_all.sensitivity == pytest.approx(sensitivity_at(expected, stretched).tolist())
    false = ways.excluded_as_false(marks, nodules, excluded, scans)
    assert false.counts.false_positives == best.counts.false_positives + best.counts.irrelevant
    assert false.mean <= best.mean
    grid = ways.mean_over_grid(marks, nodules, excluded, scans)
    assert grid.sensitivity == best.sensitivity
    assert grid.mean >= best.mean


def test_no_limit_looks_at_all_marks() -> None:
    marks, nodules, excluded, scans = _synthetic(0)
    assert ways.official(marks, nodules, excluded, scans, max_marks=3).counts.marks < marks.scan.size
    assert ways.no_limit_of_marks(marks, nodules, excluded, scans, max_marks=3).counts.marks == marks.scan.size


def test_a_detector_that_is_silent_where_nodules_are() -> None:
    nodules = Points(["a"], [[0, 0, 0]], [10.0])
    marks = Points(["b"], [[0, 0, 0]], [1.0])
    results = ways.froc_variants(marks, nodules, NO_POINTS, ["a", "b"])
    assert [v.mean for v in results] == [0.0] * 7


def test_every_mistake_says_why() -> None:
    for way in ways.MISTAKES:
        assert way.__doc__ is not None
        assert len(way.__doc__.split("\n\n")) > 1
