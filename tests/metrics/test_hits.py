from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.metrics import froc, hits
from spicula.metrics.hits import Boxes, Points


def _iou(a: tuple[list[float], list[float]], b: tuple[list[float], list[float]]) -> float:
    """Overlap of two boxes, side by side."""
    both = whole_a = whole_b = 1.0
    for low_a, high_a, low_b, high_b in zip(a[0], a[1], b[0], b[1], strict=True):
        both *= max(0.0, min(high_a, high_b) - max(low_a, low_b))
        whole_a *= high_a - low_a
        whole_b *= high_b - low_b
    return both / (whole_a + whole_b - both)


def _random(seed: int) -> tuple[Boxes, Boxes, Boxes, list[str]]:
    """Marks around findings and elsewhere, findings, excluded boxes, scans; every score another."""
    rng = np.random.default_rng(seed)
    scans = [f"s{i}" for i in range(6)]

    def boxes(n: int, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        half = rng.uniform(2, 8, (n, 3))
        return centers - half, centers + half

    n_found, n_aside = 8, 4
    found_scan, aside_scan = rng.choice(scans[:5], n_found), rng.choice(scans, n_aside)
    found_center, aside_center = rng.uniform(0, 40, (n_found, 3)), rng.uniform(0, 40, (n_aside, 3))
    findings = Boxes(found_scan, *boxes(n_found, found_center), np.zeros(n_found))
    excluded = Boxes(aside_scan, *boxes(n_aside, aside_center), np.zeros(n_aside))
    centers = np.concatenate(
        [
            np.repeat(found_center, 3, axis=0) + rng.normal(0, 2, (3 * n_found, 3)),
            aside_center + rng.normal(0, 2, (n_aside, 3)),
            rng.uniform(0, 40, (10, 3)),
        ]
    )
    names = np.concatenate([np.repeat(found_scan, 3), aside_scan, rng.choice(scans, 10)])
    marks = Boxes(names, *boxes(len(names), centers), rng.permutation(len(names)) / len(names))
    return marks, findings, excluded, scans


def _by_hand(
    marks: Boxes, findings: Boxes, excluded: Boxes, scans: list[str], *, iou: float, most: int | None
) -> dict[str, object]:
    """COCO's matching as nested loops."""
    rows, irrelevant, double, looked = [], 0, 0, 0
    for scan in scans:
        mine = sorted(np.flatnonzero(marks.scan == scan), key=lambda i: -marks.value[i])[:most]
        free = list(np.flatnonzero(findings.scan == scan))
        everything = list(free)
        looked += len(mine)
        for i in mine:
            box = (marks.low_xyz_mm[i].tolist(), marks.high_xyz_mm[i].tolist())

            def overlap(j: int, of: Boxes, box=box) -> float:
                return _iou(box, (of.low_xyz_mm[j].tolist(), of.high_xyz_mm[j].tolist()))

            good = [(overlap(j, findings), j) for j in free if overlap(j, findings) >= iou]
            if good:
                free.remove(max(good)[1])
                rows.append((marks.value[i], True))
            elif any(overlap(j, excluded) >= iou for j in np.flatnonzero(excluded.scan == scan)):
                irrelevant += 1
            else:
                double += any(overlap(j, findings) >= iou for j in everything)
                rows.append((marks.value[i], False))
    return {"rows": sorted(rows), "irrelevant": irrelevant, "double": double, "marks": looked}


@pytest.mark.parametrize("iou", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("most", [None, 4])
def test_boxes_are_matched_best_first(iou: float, most: int | None) -> None:
    doubles = 0
    for seed in range(15):
        marks, findings, excluded, scans = _random(seed)
        expected = _by_hand(marks, findings, excluded, scans, iou=iou, most=most)
        found = hits.match_boxes(marks, findings, scans, iou=iou, excluded=excluded, max_marks=most)
        rows = sorted(zip(found.score.tolist(), found.hit.tolist(), strict=True))
        assert rows == expected["rows"]
        counts = found.counts
        assert (counts.irrelevant, counts.double, counts.marks) == (expected["irrelevant"], 0, expected["marks"])
        assert counts.true_positives + counts.false_negatives == findings.scan.size == found.findings.sum()
        assert counts.marks == counts.true_positives + counts.false_positives + counts.irrelevant
        aside = hits.match_boxes(
            marks, findings, scans, iou=iou, excluded=excluded, max_marks=most, repeats_are_false=False
        )
        assert aside.counts.double == expected["double"]
        assert aside.counts.false_positives == counts.false_positives - counts.double - expected["double"]
        doubles += aside.counts.double
    assert doubles > 0 or iou == 0.5


def test_free_response_of_boxes_by_hand() -> None:
    findings = hits.cubes(Points(["a", "b"], [[0, 0, 0], [0, 0, 0]], [10.0, -1.0]))
    assert findings.low_xyz_mm.tolist() == [[-5, -5, -5], [-5, -5, -5]]
    marks = hits.cubes(Points(["a", "a", "b"], [[1, 0, 0], [0, 0, 0], [50, 0, 0]], [0.9, 0.8, 0.7]), [10.0, 10.0, 6.0])
    response = hits.match_boxes(marks, findings, ["a", "b"], iou=0.5)
    assert response.counts == hits.FreeResponseCounts(1, 1, 2, 0, 0, 3, 0, 2)
    assert froc.sensitivity_at(response, [0.0, 0.5, 8.0]).tolist() == [0.5, 0.5, 0.5]
    # By distance the second mark is a repeated hit and not a false positive.
    points = Points(["a", "a", "b"], [[1, 0, 0], [0, 0, 0], [50, 0, 0]], [0.9, 0.8, 0.7])
    near = hits.match(points, Points(["a", "b"], [[0, 0, 0], [0, 0, 0]], [10.0, -1.0]), ["a", "b"])
    assert near.counts == hits.FreeResponseCounts(1, 1, 1, 0, 1, 3, 0, 2)


def test_best_first_leaves_the_second_best_to_the_next() -> None:
    overlap = np.array([[0.6, 0.5], [0.7, 0.0], [0.4, 0.3]])
    assert hits.best_first(overlap, least=0.3).tolist() == [0, -1, 1]
    assert hits.best_first(overlap, least=0.65).tolist() == [-1, 0, -1]
    assert hits.best_first(np.zeros((2, 0)), least=0.1).tolist() == [-1, -1]


@given(st.integers(0, 10_000), st.floats(-50, 50), st.floats(0.5, 3))
@settings(max_examples=30, deadline=None)
def test_iou_laws(seed: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(-20, 20, (5, 3))
    high = low + rng.uniform(0.5, 20, (5, 3))
    iou = hits.box_iou(low, high, low, high)
    assert iou == pytest.approx(iou.T)
    assert np.diag(iou) == pytest.approx(np.ones(5))
    assert iou.min() >= 0
    assert iou.max() <= 1 + 1e-12
    again = hits.box_iou(scale * low + shift, scale * high + shift, scale * low + shift, scale * high + shift)
    assert again == pytest.approx(iou, abs=1e-9)
    for i, j in itertools.product(range(5), range(5)):
        assert iou[i, j] == pytest.approx(
            _iou((low[i].tolist(), high[i].tolist()), (low[j].tolist(), high[j].tolist()))
        )


def test_a_fixed_distance_is_a_criterion() -> None:
    findings = Points(["a"], [[0, 0, 0]], [4.0])
    marks = Points(["a"], [[0, 0, 4.9]], [1.0])
    assert hits.match(marks, findings, ["a"]).counts.true_positives == 0
    assert hits.match(marks, findings, ["a"], within_mm=5.0).counts.true_positives == 1
    assert hits.match(marks, findings, ["a"], within_mm=4.9).counts.true_positives == 0


def test_marks_of_other_scans_are_counted() -> None:
    marks, findings, _, scans = _random(0)
    some = hits.match_boxes(marks, findings, scans[:3])
    assert some.counts.ignored == int(np.isin(marks.scan, scans[3:]).sum())
    assert some.counts.scans == 3


def test_bad_boxes_are_named() -> None:
    with pytest.raises(InputError, match="box 1 of b"):
        Boxes(["a", "b"], np.zeros((2, 3)), [[1, 1, 1], [1, 0, 1]], [0, 0])
    with pytest.raises(InputError, match="not finite"):
        Boxes(["a"], [[0, 0, np.nan]], [[1, 1, 1]], [0])
    with pytest.raises(InputError, match="boxes"):
        Boxes(["a"], [[0, 0, 0]], [[1, 1, 1], [2, 2, 2]], [0])
    box = Boxes(["a"], [[0, 0, 0]], [[1, 1, 1]], [0])
    for iou in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="iou"):
            hits.match_boxes(box, box, ["a"], iou=iou)
    with pytest.raises(InputError, match="diameters"):
        hits.cubes(Points(["a"], [[0, 0, 0]], [1]), [1.0, 2.0])
    with pytest.raises(InputError, match="leading zeros"):
        hits.match_boxes(box, box, ["00a"])


def test_a_place_beyond_any_scanner_is_refused():
    with pytest.raises(InputError, match=r"row 0 of a: got a place at \[1e\+300, 0.0, 0.0\] mm"):
        Points(np.array(["a"]), np.array([[1e300, 0, 0]]), np.array([0.5]))
