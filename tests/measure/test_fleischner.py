"""One test for each cell of the table (Fleischner 2017), boundaries exact."""

from __future__ import annotations

import pytest

from spicula.core.errors import InputError
from spicula.measure.fleischner import fleischner

SURE = {"age_years": 60, "known_cancer": False, "immunosuppressed": False}
SMALL, MIDDLE, LARGE = 5.0, 7.0, 9.0


@pytest.mark.parametrize(
    ("several", "mm", "low", "high"),
    [
        (False, SMALL, "No routine follow-up", "Optional CT at 12 months"),
        (
            False,
            MIDDLE,
            "CT at 6-12 months, then consider CT at 18-24 months",
            "CT at 6-12 months, then CT at 18-24 months",
        ),
        (
            False,
            LARGE,
            "Consider CT at 3 months, PET/CT or tissue sampling",
            "Consider CT at 3 months, PET/CT or tissue sampling",
        ),
        (True, SMALL, "No routine follow-up", "Optional CT at 12 months"),
        (
            True,
            MIDDLE,
            "CT at 3-6 months, then consider CT at 18-24 months",
            "CT at 3-6 months, then CT at 18-24 months",
        ),
        (
            True,
            LARGE,
            "CT at 3-6 months, then consider CT at 18-24 months",
            "CT at 3-6 months, then CT at 18-24 months",
        ),
    ],
)
def test_solid(several: bool, mm: float, low: str, high: str) -> None:
    def advice(high_risk: bool | None) -> str:
        return fleischner(density="solid", mean_diameter_mm=mm, several=several, high_risk=high_risk, **SURE).management

    assert advice(False) == low
    assert advice(True) == high
    assert advice(None) == (low if low == high else f"Low risk: {low}. High risk: {high}")


@pytest.mark.parametrize(
    ("mm", "mm3", "band"),
    [
        (5.49, 99.4, "< 6 mm"),
        (5.5, 99.5, "6 to 8 mm"),  # rounded to 6 mm and 100 mm3
        (6.0, 100, "6 to 8 mm"),
        (8.0, 250, "6 to 8 mm"),
        (8.49, 250.4, "6 to 8 mm"),
        (8.5, 250.5, "> 8 mm"),
    ],
)
def test_bands(mm: float, mm3: float, band: str) -> None:
    assert fleischner(density="solid", mean_diameter_mm=mm).category == f"solid, single, {band}"
    assert fleischner(density="solid", volume_mm3=mm3).category == f"solid, single, {band}"


@pytest.mark.parametrize(
    ("density", "several", "mm", "category", "says"),
    [
        ("ground-glass", False, 5.4, "ground-glass, single, < 6 mm", "No routine follow-up"),
        (
            "ground-glass",
            False,
            5.5,
            "ground-glass, single, >= 6 mm",
            "CT at 6-12 months, then CT every 2 years until 5",
        ),
        (
            "ground-glass",
            False,
            20,
            "ground-glass, single, >= 6 mm",
            "CT at 6-12 months, then CT every 2 years until 5",
        ),
        ("part-solid", False, 5.4, "part-solid, single, < 6 mm", "No routine follow-up"),
        ("part-solid", False, 6.0, "part-solid, single, >= 6 mm", "CT at 3-6 months; if unchanged and the solid part"),
        ("ground-glass", True, 5.0, "subsolid, several, < 6 mm", "CT at 3-6 months; if stable, consider CT at 2 and 4"),
        ("part-solid", True, 9.0, "subsolid, several, >= 6 mm", "CT at 3-6 months, then by the most suspicious"),
    ],
)
def test_subsolid(density: str, several: bool, mm: float, category: str, says: str) -> None:
    result = fleischner(density=density, mean_diameter_mm=mm, several=several, **SURE)  # type: ignore[arg-type]
    assert result.category == category
    assert result.management.startswith(says)
    assert "risk factors" not in result.lacking


def test_solid_part_of_6_mm() -> None:
    below = fleischner(density="part-solid", mean_diameter_mm=12, solid_diameter_mm=5.4, **SURE)
    from_6 = fleischner(density="part-solid", mean_diameter_mm=12, solid_diameter_mm=5.5, **SURE)
    assert "yearly CT for 5 years" in below.management
    assert "suspicious" not in below.management
    assert "suspicious" in from_6.management
    assert fleischner(density="part-solid", mean_diameter_mm=12, **SURE).lacking == ("size of the solid part",)


@pytest.mark.parametrize("fact", [{"age_years": 34}, {"known_cancer": True}, {"immunosuppressed": True}])
def test_where_it_does_not_apply(fact: dict) -> None:
    result = fleischner(density="solid", mean_diameter_mm=7, **{**SURE, **fact})
    assert result.category == "not applicable"
    assert fleischner(density="solid", mean_diameter_mm=7, **{**SURE, "age_years": 35}).category != "not applicable"


def test_it_says_what_it_lacked() -> None:
    result = fleischner(density="solid", mean_diameter_mm=7.2)
    assert result.lacking == ("age", "known cancer", "immunosuppression", "risk factors")
    assert result.given == ("solid", "mean diameter 7 mm", "single")
    known = fleischner(density="solid", mean_diameter_mm=7.2, high_risk=True, **SURE)
    assert known.lacking == ()
    assert known.given[-1] == "high risk"


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="nodule size"):
        fleischner(density="solid")
    with pytest.raises(InputError, match="diameter"):
        fleischner(density="solid", mean_diameter_mm=-2)
