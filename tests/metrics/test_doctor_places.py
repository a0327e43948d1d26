from __future__ import annotations

import itertools

import numpy as np
import pytest

from spicula.core.geometry import Geometry
from spicula.metrics.doctor import places
from spicula.metrics.doctor.places import Reading, place_check, reread
from spicula.metrics.hits import Points, match

DIRECTIONS = [np.diag([1.0, 1.0, 1.0]), np.diag([-1.0, -1.0, 1.0])]


def some_grids(n: int, seed: int = 0, *, direction: bool = True) -> dict[str, Geometry]:
    rng = np.random.default_rng(seed)
    grids = {}
    for number in range(n):
        spacing = (float(rng.uniform(1, 2.5)), *[float(rng.uniform(0.55, 0.9))] * 2)
        shape = (int(rng.integers(120, 300)), 512, 512)
        axes = DIRECTIONS[number % 2] if direction else DIRECTIONS[0]
        middle = np.array([rng.uniform(-15, 15), rng.uniform(-40, 40), rng.uniform(-300, 300)])
        extent = axes @ (np.array(spacing[::-1]) * (np.array(shape[::-1]) - 1))
        grids[f"s{number}"] = Geometry.from_axes(
            shape, spacing, origin_xyz_mm=tuple(middle - extent / 2), direction_xyz=axes
        )
    return grids


def within(grids: dict[str, Geometry], names: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """World places at shares of each scan's extent."""
    last = [np.array(grids[str(name)].shape_zyx) - 1 for name in names]
    return np.array([grids[str(n)].index_to_world(s * e) for n, s, e in zip(names, shares, last, strict=True)])


def some_truth(grids: dict[str, Geometry], seed: int = 1) -> Points:
    """Two nodules a scan, inside it."""
    rng = np.random.default_rng(seed)
    names = np.repeat(list(grids), 2)
    shares = rng.uniform(0.2, 0.8, (len(names), 3))
    return Points(names, within(grids, names, shares), rng.uniform(5, 20, len(names)))


def some_marks(grids: dict[str, Geometry], truth: Points, seed: int = 2, *, found: float = 0.9) -> Points:
    """Most nodules to a millimetre, and twenty false marks a scan."""
    rng = np.random.default_rng(seed)
    hit = rng.random(truth.scan.size) < found
    names = np.repeat(list(grids), 20)
    shares = rng.uniform(0.1, 0.9, (len(names), 3))
    false = within(grids, names, shares)
    true = truth.center_xyz_mm[hit] + rng.normal(0, 0.5, (int(hit.sum()), 3))
    return Points(np.append(truth.scan[hit], names), np.vstack([true, false]), rng.random(int(hit.sum()) + len(names)))


@pytest.fixture(scope="module")
def grids() -> dict[str, Geometry]:
    return some_grids(20)


@pytest.fixture(scope="module")
def truth(grids: dict[str, Geometry]) -> Points:
    return some_truth(grids)


@pytest.fixture(scope="module")
def marks(grids: dict[str, Geometry], truth: Points) -> Points:
    return some_marks(grids, truth)


def moved(points: Points, written: np.ndarray) -> Points:
    return Points(points.scan, written, points.value)


def index_xyz(points: Points, grids: dict[str, Geometry]) -> np.ndarray:
    return np.array(
        [grids[str(n)].world_to_index(c)[::-1] for n, c in zip(points.scan, points.center_xyz_mm, strict=True)]
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_each_of_48_is_found_and_undone(marks: Points, truth: Points, order: tuple, signs: tuple) -> None:  # type: ignore[type-arg]
    """The law: whatever was done to the axes, reading them so brings every place back."""
    written = moved(marks, (marks.center_xyz_mm * signs)[:, order])
    check = place_check(written, truth)
    if (order, signs) == ((0, 1, 2), (1, 1, 1)):
        assert check == places.PlaceCheck()
        return
    assert check.reading is not None
    np.testing.assert_allclose(reread(written, check.reading).center_xyz_mm, marks.center_xyz_mm)
    assert [c.severity for c in check.complaints] == ["error"]
    assert (
        check.complaints[0].evidence["hits_after"] == match(marks, truth, np.unique(truth.scan)).counts.true_positives
    )


def test_words_and_mend_name_the_edit(marks: Points, truth: Points) -> None:
    ras = place_check(moved(marks, marks.center_xyz_mm * (-1, -1, 1)), truth).complaints[0]
    assert ras.code == "places.ras"
    assert "RAS in place of LPS" in ras.problem
    assert "--coords ras" in ras.mend
    backwards = place_check(moved(marks, marks.center_xyz_mm[:, ::-1]), truth).complaints[0]
    assert backwards.code == "places.order"
    assert backwards.mend == "write coordX, coordY, coordZ = coordZ, coordY, coordX"
    assert "z, y, x" in backwards.problem


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_voxels_are_found_where_grids_are_known(grids, marks: Points, truth: Points, order) -> None:  # type: ignore[no-untyped-def]
    written = moved(marks, np.round(index_xyz(marks, grids)[:, order]))
    check = place_check(written, truth, geometries=grids)
    assert check.complaints[0].code == "places.voxels"
    assert check.reading == Reading("voxel", tuple(np.argsort(order).tolist()))  # type: ignore[arg-type]
    back = reread(written, check.reading, geometries=grids)
    assert np.abs(back.center_xyz_mm - marks.center_xyz_mm).max() < 1.5
    blind = place_check(written, truth)
    assert [c.code for c in blind.complaints] == ["places.voxels"]
    assert blind.reading is None
    assert "--scans" in blind.complaints[0].mend


def test_a_forgotten_origin_is_found(grids, marks: Points, truth: Points) -> None:  # type: ignore[no-untyped-def]
    spacing = np.array([grids[str(n)].spacing_zyx_mm[::-1] for n in marks.scan])
    written = moved(marks, index_xyz(marks, grids) * spacing)
    check = place_check(written, truth, geometries=grids)
    assert check.complaints[0].code == "places.no-origin"
    back = reread(written, check.reading, geometries=grids)
    np.testing.assert_allclose(back.center_xyz_mm, marks.center_xyz_mm, atol=1e-6)


def test_a_forgotten_spacing_is_found(grids, marks: Points, truth: Points) -> None:  # type: ignore[no-untyped-def]
    origin = np.array([grids[str(n)].origin_xyz_mm for n in marks.scan])
    direction = np.array([np.diag(grids[str(n)].direction_xyz) for n in marks.scan])
    written = moved(marks, origin + direction * index_xyz(marks, grids))
    check = place_check(written, truth, geometries=grids)
    assert check.complaints[0].code == "places.no-spacing"
    back = reread(written, check.reading, geometries=grids)
    np.testing.assert_allclose(back.center_xyz_mm, marks.center_xyz_mm, atol=1e-6)


def test_a_flip_about_the_middle_of_the_volume_is_found(grids, marks: Points, truth: Points) -> None:  # type: ignore[no-untyped-def]
    middle = np.array([grids[str(n)].center_xyz_mm for n in marks.scan])
    flipped = np.where([False, False, True], 2 * middle - marks.center_xyz_mm, marks.center_xyz_mm)
    check = place_check(moved(marks, flipped), truth, geometries=grids)
    assert check.complaints[0].code == "places.flipped"
    assert check.reading == Reading("middle", signs=(1, 1, -1))
    assert "about the volume's middle" in check.complaints[0].problem
    np.testing.assert_allclose(
        reread(moved(marks, flipped), check.reading, geometries=grids).center_xyz_mm, marks.center_xyz_mm
    )


def test_flipped_directions_of_some_scans_are_found(grids, marks: Points, truth: Points) -> None:  # type: ignore[no-untyped-def]
    some = np.isin(marks.scan, [f"s{n}" for n in range(6)])[:, None]
    written = moved(marks, np.where(some, marks.center_xyz_mm * (-1, -1, 1), marks.center_xyz_mm))
    check = place_check(written, truth)
    assert [c.code for c in check.complaints] == ["places.some-scans"]
    assert set(check.complaints[0].evidence["scans"]) <= {f"s{n}" for n in range(6)}  # type: ignore[arg-type]
    assert check.reading is None


@pytest.mark.parametrize("found", [0.0, 0.1, 0.5, 1.0])
def test_no_false_alarm_for_weak_detectors_or_small_sets(found: float) -> None:
    for seed in range(12):
        grids = some_grids(3 + 2 * seed, seed)
        truth = some_truth(grids, seed + 50)
        marks = some_marks(grids, truth, seed + 90, found=found)
        codes = {c.code for c in place_check(marks, truth, geometries=grids).complaints}
        assert codes <= ({"places.no-hit"} if found < 0.2 else set())


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (1, 1, -1), (-1, -1, 1)])
@pytest.mark.parametrize("span", [20.0, 300.0])
def test_scans_moved_each_by_its_own_vector_are_found_without_grids(order, signs, span: float) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(5)
    grids = some_grids(20)
    truth, other = some_truth(grids), some_truth(grids, 7)
    marks = some_marks(grids, truth)
    hits = some_marks(grids, other, 8)
    both = Points(np.append(marks.scan, hits.scan), np.vstack([marks.center_xyz_mm, hits.center_xyz_mm]),
                  np.append(marks.value, hits.value))  # fmt: skip
    names, place = np.unique(both.scan, return_inverse=True)
    shift = rng.uniform(-span, span, (len(names), 3)) + 30
    written = moved(both, (both.center_xyz_mm * signs + shift[place])[:, order])
    check = place_check(written, truth, excluded=other)
    code = "order" if order != (0, 1, 2) else "no-origin" if signs == (1, 1, 1) else "flipped"
    assert [c.code for c in check.complaints] == [f"places.{code}"]
    assert check.reading is None
    evidence = check.complaints[0].evidence
    assert evidence["signs"] == "".join("+-"[sign < 0] for sign in signs)
    assert evidence["order"] == "".join("xyz"[axis] for axis in order)
    assert int(evidence["agreeing"]) > 1.3 * float(evidence["by_chance"])  # type: ignore[call-overload, arg-type]


def test_nothing_near_is_said() -> None:
    grids = some_grids(12)
    truth = some_truth(grids)
    marks = some_marks(grids, truth, found=0.0)
    check = place_check(moved(marks, marks.center_xyz_mm * 0.31 - 500), truth)
    assert [c.code for c in check.complaints] == ["places.no-hit"]
    assert check.complaints[0].severity == "warning"


def test_many_pairs_are_drawn_and_said(marks: Points, truth: Points, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_PAIRS", 500)
    check = place_check(moved(marks, marks.center_xyz_mm[:, ::-1]), truth)
    assert check.complaints[0].code == "places.order"
    assert int(check.complaints[0].evidence["scans_tried"]) < 20  # type: ignore[call-overload]
    assert "scans drawn of 20" in check.complaints[0].problem


def test_other_scans_and_nothing_at_all(truth: Points) -> None:
    assert place_check(Points(np.array(["other"]), np.zeros((1, 3)), np.ones(1)), truth) == places.PlaceCheck()
