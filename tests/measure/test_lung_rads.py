"""One test for each row of the table (Lung-RADS 2022), boundaries exact."""

from __future__ import annotations

import pytest

from spicula.core.analysis import Assessment
from spicula.core.errors import InputError
from spicula.measure.lung_rads import (
    change_between,
    lung_rads,
    lung_rads_airway,
    lung_rads_cyst,
    lung_rads_exam,
    mean_diameter_for_lung_rads,
)


def _of(density: str, mm: float | None = None, solid: float | None = None, **more) -> str:
    return lung_rads(density=density, mean_diameter_mm=mm, solid_diameter_mm=solid, **more).category  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mm", "mm3", "change", "category"),
    [
        (5.9, 112, "baseline", "2"),
        (6.0, 113, "baseline", "3"),
        (7.9, 267, "baseline", "3"),
        (8.0, 268, "baseline", "4A"),
        (14.9, 1766, "baseline", "4A"),
        (15.0, 1767, "baseline", "4B"),
        (3.9, 33, "new", "2"),
        (4.0, 34, "new", "3"),
        (5.9, 112, "new", "3"),
        (6.0, 113, "new", "4A"),
        (7.9, 267, "new", "4A"),
        (8.0, 268, "new", "4B"),
        (5.0, 65, "growing", "4A"),
        (7.9, 267, "growing", "4A"),
        (8.0, 268, "growing", "4B"),
        (9.0, 382, "slowly growing", "4B"),
        (5.94, 112.4, "baseline", "2"),  # rounded to 5.9 mm and 112 mm3
        (5.95, 112.5, "baseline", "3"),  # rounded to 6.0 mm and 113 mm3
    ],
)
def test_solid(mm: float, mm3: float, change: str, category: str) -> None:
    assert _of("solid", mm, change=change) == category
    assert _of("solid", volume_mm3=mm3, change=change) == category


@pytest.mark.parametrize(
    ("mm", "solid", "change", "category"),
    [
        (5.9, 3.0, "baseline", "2"),
        (6.0, 5.9, "baseline", "3"),
        (12.0, 0.0, "baseline", "3"),
        (8.0, 6.0, "baseline", "4A"),
        (12.0, 7.9, "baseline", "4A"),
        (12.0, 8.0, "baseline", "4B"),
        (5.9, 2.0, "new", "3"),
        (6.0, 3.9, "new", "4A"),
        (6.0, 4.0, "new", "4B"),
        (9.0, 3.9, "growing", "4A"),
        (9.0, 4.0, "growing", "4B"),
        (5.0, 3.0, "growing", "4A"),
        (9.0, 3.0, "slowly growing", "4B"),
    ],
)
def test_part_solid(mm: float, solid: float, change: str, category: str) -> None:
    assert _of("part-solid", mm, solid, change=change) == category


@pytest.mark.parametrize(
    ("mm3", "solid_mm3", "change", "category"),
    [
        (112, 20, "baseline", "2"),
        (113, 112, "baseline", "3"),
        (900, 113, "baseline", "4A"),
        (900, 267, "baseline", "4A"),
        (900, 268, "baseline", "4B"),
        (112, 20, "new", "3"),
        (900, 33, "growing", "4A"),
        (900, 34, "growing", "4B"),
    ],
)
def test_part_solid_by_volume(mm3: float, solid_mm3: float, change: str, category: str) -> None:
    assert _of("part-solid", volume_mm3=mm3, solid_volume_mm3=solid_mm3, change=change) == category


@pytest.mark.parametrize(
    ("mm", "mm3", "change", "category"),
    [
        (29.9, 14136, "baseline", "2"),
        (29.9, 14136, "new", "2"),
        (29.9, 14136, "growing", "2"),
        (30.0, 14137, "baseline", "3"),
        (30.0, 14137, "new", "3"),
        (30.0, 14137, "stable", "2"),
        (30.0, 14137, "slowly growing", "2"),
        (30.0, 14137, "growing", "3"),
    ],
)
def test_ground_glass(mm: float, mm3: float, change: str, category: str) -> None:
    assert _of("ground-glass", mm, change=change) == category
    assert _of("ground-glass", volume_mm3=mm3, change=change) == category


@pytest.mark.parametrize(
    ("density", "mm", "change", "category"),
    [
        ("solid", 9.9, "baseline", "2"),
        ("solid", 9.9, "new", "2"),
        ("solid", 10.0, "baseline", "4A"),
        ("solid", 9.9, "growing", "4B"),
        ("ground-glass", 31.0, "baseline", "3"),
    ],
)
def test_juxtapleural(density: str, mm: float, change: str, category: str) -> None:
    assert _of(density, mm, change=change, juxtapleural=True) == category


def test_juxtapleural_by_volume() -> None:
    assert _of("solid", volume_mm3=523, change="baseline", juxtapleural=True) == "2"
    assert _of("solid", volume_mm3=524, change="baseline", juxtapleural=True) == "4A"


@pytest.mark.parametrize(
    "benign",
    [
        "complete calcification",
        "central calcification",
        "popcorn calcification",
        "concentric-ring calcification",
        "fat",
    ],
)
def test_benign_features_are_1(benign: str) -> None:
    assert _of("solid", 20.0, benign=benign) == "1"


@pytest.mark.parametrize(
    ("mm", "previous", "months", "change", "category"),
    [
        (7.0, "3", 6, "stable", "2"),
        (7.0, "3", 6, "smaller", "2"),
        (7.0, "3", 5.9, "stable", "3"),
        (9.0, "4A", 3, "stable", "3"),
        (9.0, "4A", 3, "smaller", "3"),
        (9.0, "4A", 2.9, "stable", "4A"),
        (7.0, "2", 12, "stable", "2"),
        (16.0, "4B", 3, "stable", "4B"),
        (5.0, "3", 1, "smaller", "2"),
    ],
)
def test_steps_down(mm: float, previous: str, months: float, change: str, category: str) -> None:
    assert _of("solid", mm, change=change, previous_category=previous, months_since_prior=months) == category


@pytest.mark.parametrize("previous", ["3", "4A"])
def test_resolved_is_2(previous: str) -> None:
    assert lung_rads(density="solid", change="resolved", previous_category=previous).category == "2"  # type: ignore[arg-type]


def test_proven_benign_is_2() -> None:
    assert _of("solid", 18.0, previous_category="4B", proven_benign=True) == "2"


@pytest.mark.parametrize(
    ("mm", "category"), [(5.0, "2"), (7.0, "4X"), (9.0, "4X"), (16.0, "4X")]
)  # fmt: skip
def test_suspicious_features_raise_3_and_4(mm: float, category: str) -> None:
    assert _of("solid", mm, change="baseline", suspicious_features=("spiculation",)) == category


@pytest.mark.parametrize(
    ("proximal", "change", "category"),
    [
        (False, "baseline", "2"),
        (False, "new", "2"),
        (False, "growing", "2"),
        (True, "baseline", "4A"),
        (True, None, "4A"),
        (True, "stable", "4B"),  # no step down for airway nodules
        (True, "growing", "4B"),
        (True, "resolved", "2"),
    ],
)
def test_airway(proximal: bool, change: str | None, category: str) -> None:
    assert lung_rads_airway(proximal=proximal, change=change).category == category  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "change", "category"),
    [
        ("thick-walled", "baseline", "4A"),
        ("multilocular", "baseline", "4A"),
        ("thick-walled", "cystic component growing", "3"),
        ("multilocular", "became multilocular", "4A"),
        ("thick-walled", "wall growing", "4B"),
        ("multilocular", "multilocular growing", "4B"),
        ("multilocular", "more loculation or opacity", "4B"),
    ],
)
def test_cyst(kind: str, change: str, category: str) -> None:
    assert lung_rads_cyst(kind=kind, change=change).category == category  # type: ignore[arg-type]


def test_stable_cyst_steps_down_and_suspicious_is_4x() -> None:
    stable = lung_rads_cyst(kind="thick-walled", change="stable", previous_category="4A", months_since_prior=3)
    assert stable.category == "3"
    assert lung_rads_cyst(kind="thick-walled", suspicious_features=("lymphadenopathy",)).category == "4X"


def test_exam() -> None:
    found = [lung_rads(density="solid", mean_diameter_mm=mm, change="baseline") for mm in (5.0, 9.0, 7.0)]
    assert lung_rads_exam(found) == found[1]
    assert lung_rads_exam([]).category == "1"
    assert lung_rads_exam(found, prior_being_located=True).category == "0"
    assert lung_rads_exam(found, lungs_evaluable=False).category == "0"
    assert lung_rads_exam(found, likely_inflammatory=True).category == "0"
    assert lung_rads_exam([], other_significant_finding=True).category == "1S"
    assert lung_rads_exam(found[:1], other_significant_finding=True).category == "2S"
    with pytest.raises(InputError, match="Lung-RADS"):
        lung_rads_exam([Assessment("Fleischner 2017", "x", "y")])


@pytest.mark.parametrize(
    ("category", "says"),
    [
        ("1", "12-month"),
        ("2", "12-month"),
        ("3", "6-month"),
        ("4A", "3-month"),
        ("4B", "Work-up"),
        ("4X", "Work-up"),
    ],
)
def test_management(category: str, says: str) -> None:
    by = {
        "1": lung_rads(density="solid", benign="fat"),
        "2": lung_rads(density="solid", mean_diameter_mm=4.0),
        "3": lung_rads(density="solid", mean_diameter_mm=6.0),
        "4A": lung_rads(density="solid", mean_diameter_mm=7.0, change="growing"),
        "4B": lung_rads(density="solid", mean_diameter_mm=16.0),
        "4X": lung_rads(density="solid", mean_diameter_mm=16.0, suspicious_features=("spiculation",)),
    }[category]
    assert by.category == category
    assert by.management.startswith(says)


def test_pet_ct_where_the_solid_part_is_8_mm() -> None:
    assert "PET/CT" in lung_rads(density="solid", mean_diameter_mm=8.0).management
    assert "PET/CT" not in lung_rads(density="solid", mean_diameter_mm=7.0, change="new").management
    part = lung_rads(density="part-solid", mean_diameter_mm=12, solid_diameter_mm=7)
    assert (part.category, "PET/CT" in part.management) == ("4A", False)


def test_it_says_what_it_lacked() -> None:
    unknown = lung_rads(density="solid", mean_diameter_mm=7.0)
    assert unknown.lacking == ("prior scan (taken as a baseline)",)
    assert unknown.given == ("solid", "mean diameter 7.0 mm", "taken as baseline")
    assert lung_rads(density="solid", mean_diameter_mm=7.0, change="baseline").lacking == ()
    assert lung_rads(density="solid", mean_diameter_mm=7.0, change="stable").lacking == ("category on the prior scan",)
    no_time = lung_rads(density="solid", mean_diameter_mm=7.0, change="stable", previous_category="3")
    assert (no_time.category, no_time.lacking) == ("3", ("time since the prior scan",))
    by_volume = lung_rads(density="part-solid", volume_mm3=500, solid_volume_mm3=50, change="new")
    assert by_volume.given == ("part-solid", "volume 500 mm3", "solid part volume 50 mm3", "new")


def test_mean_diameter_is_rounded_as_the_guideline_says() -> None:
    assert mean_diameter_for_lung_rads(8.04, 3.84) == 5.9  # 8.0 and 3.8
    assert mean_diameter_for_lung_rads(8.05, 3.85) == 6.0  # 8.1 and 3.9
    assert mean_diameter_for_lung_rads(6.0, 5.9) == 6.0  # 5.95


@pytest.mark.parametrize(
    ("before", "after", "days", "change"),
    [
        (6.0, 7.5, 365, "stable"),  # exactly 1.5 mm is no growth
        (6.0, 7.6, 365, "growing"),
        (6.0, 7.6, 90, "growing"),
        (6.0, 7.6, 730, "slowly growing"),
        (6.0, 9.2, 730, "growing"),
        (6.0, 4.5, 365, "stable"),
        (6.0, 4.4, 365, "smaller"),
    ],
)
def test_growth(before: float, after: float, days: float, change: str) -> None:
    assert change_between(before, after, days=days) == change


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="nodule size"):
        lung_rads(density="solid")
    with pytest.raises(InputError, match="solid part"):
        lung_rads(density="part-solid", mean_diameter_mm=9.0)
    with pytest.raises(InputError, match="diameter"):
        lung_rads(density="solid", mean_diameter_mm=float("nan"))
    with pytest.raises(InputError, match="volume"):
        lung_rads(density="solid", volume_mm3=-1)
    with pytest.raises(InputError, match="days"):
        change_between(6, 7, days=0)
