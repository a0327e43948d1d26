"""Fleischner Society 2017 for nodules found by chance, as a pure function.

References:
    MacMahon et al. 2017, doi:10.1148/radiol.2017161659.
"""

from __future__ import annotations

from typing import Literal

from spicula.core.analysis import Assessment
from spicula.core.errors import InputError
from spicula.measure.rounding import checked_size, half_up
from spicula.measure.size import Density

SYSTEM = "Fleischner 2017"
NOT_APPLICABLE = "not applicable"

Band = Literal["< 6 mm", "6 to 8 mm", "> 8 mm"]

_OVER_8_SINGLE = "Consider CT at 3 months, PET/CT or tissue sampling"
_SOLID: dict[tuple[bool, Band], tuple[str, str]] = {
    (False, "< 6 mm"): ("No routine follow-up", "Optional CT at 12 months"),
    (False, "6 to 8 mm"): (
        "CT at 6-12 months, then consider CT at 18-24 months",
        "CT at 6-12 months, then CT at 18-24 months",
    ),
    (False, "> 8 mm"): (_OVER_8_SINGLE, _OVER_8_SINGLE),
    (True, "< 6 mm"): ("No routine follow-up", "Optional CT at 12 months"),
    (True, "6 to 8 mm"): (
        "CT at 3-6 months, then consider CT at 18-24 months",
        "CT at 3-6 months, then CT at 18-24 months",
    ),
    (True, "> 8 mm"): (
        "CT at 3-6 months, then consider CT at 18-24 months",
        "CT at 3-6 months, then CT at 18-24 months",
    ),
}
"""By (several, band): the advice at low and at high risk."""

_SUBSOLID_SEVERAL = (
    "CT at 3-6 months; if stable, consider CT at 2 and 4 years",
    "CT at 3-6 months, then by the most suspicious nodule",
)
_GROUND_GLASS = ("No routine follow-up", "CT at 6-12 months, then CT every 2 years until 5 years")
_PART_SOLID = (
    "No routine follow-up",
    "CT at 3-6 months; if unchanged and the solid part stays under 6 mm, yearly CT for 5 years",
)
_SOLID_PART_LARGE = "; a solid part of 6 mm or more that persists is highly suspicious"


def fleischner(
    *,
    density: Density,
    mean_diameter_mm: float | None = None,
    volume_mm3: float | None = None,
    solid_diameter_mm: float | None = None,
    several: bool = False,
    high_risk: bool | None = None,
    age_years: float | None = None,
    known_cancer: bool | None = None,
    immunosuppressed: bool | None = None,
) -> Assessment:
    """Give the advice for one nodule, or for the most suspicious of several.

    The size is the mean diameter rounded to the whole millimeter where given (5.5 mm is 6 mm), else the volume: under
    100 mm3, 100 to 250, over 250.

    Args:
        density: Solid, part-solid or ground-glass.
        mean_diameter_mm: Mean of the long axis and its perpendicular.
        volume_mm3: Used where there is no diameter.
        solid_diameter_mm: Of a part-solid nodule's solid part.
        several: More than one nodule; the density is then that of the most suspicious.
        high_risk: The patient's risk factors; None (unknown): the advice for both is given.
        age_years: Under 35 the guideline does not apply.
        known_cancer: With a cancer it does not apply.
        immunosuppressed: Nor in immunosuppression.

    Returns:
        Category such as ``"solid, single, 6 to 8 mm"`` (or ``"not applicable"``), the advice, what it rests on and what
        it lacked.

    Raises:
        InputError: No size, or one that is not a finite number of 0 or more.
    """
    band, fact = _band(mean_diameter_mm, volume_mm3)
    given = [density, fact, "several" if several else "single"]
    excluded = [
        reason
        for reason, holds in (
            ("age under 35", age_years is not None and age_years < 35),
            ("known cancer", bool(known_cancer)),
            ("immunosuppressed", bool(immunosuppressed)),
        )
        if holds
    ]
    unknown = (("age", age_years), ("known cancer", known_cancer), ("immunosuppression", immunosuppressed))
    lacking = [name for name, value in unknown if value is None]
    if excluded:
        text = f"Fleischner 2017 does not apply ({', '.join(excluded)}); manage by the clinical situation"
        return Assessment(SYSTEM, NOT_APPLICABLE, text, (*given, *excluded), ())
    if density == "solid":
        management = _solid_advice(several, band, high_risk)
        if high_risk is None:
            lacking.append("risk factors")
        else:
            given.append("high risk" if high_risk else "low risk")
        category = f"solid, {given[2]}, {band}"
    else:
        checked_size("solid part", solid_diameter_mm)
        management, more_given, more_lacking = _subsolid_advice(density, band != "< 6 mm", several, solid_diameter_mm)
        given += more_given
        lacking += more_lacking
        kind = "subsolid" if several else density
        category = f"{kind}, {given[2]}, {'< 6 mm' if band == '< 6 mm' else '>= 6 mm'}"
    return Assessment(SYSTEM, category, management, tuple(given), tuple(lacking))


def _band(diameter_mm: float | None, volume_mm3: float | None) -> tuple[Band, str]:
    checked_size("diameter", diameter_mm)
    checked_size("volume", volume_mm3)
    if diameter_mm is not None:
        whole = half_up(diameter_mm, decimals=0)
        return _banded(whole < 6, whole > 8), f"mean diameter {whole:.0f} mm"
    if volume_mm3 is None:
        raise InputError("nodule size", got="nothing", expected="a mean diameter in mm or a volume in mm3")
    volume = half_up(volume_mm3, decimals=0)
    return _banded(volume < 100, volume > 250), f"volume {volume:.0f} mm3"


def _banded(small: bool, large: bool) -> Band:
    return "< 6 mm" if small else "> 8 mm" if large else "6 to 8 mm"


def _solid_advice(several: bool, band: Band, high_risk: bool | None) -> str:
    low, high = _SOLID[several, band]
    if high_risk is not None:
        return high if high_risk else low
    return low if low == high else f"Low risk: {low}. High risk: {high}"


def _subsolid_advice(
    density: Density, large: bool, several: bool, solid_mm: float | None
) -> tuple[str, list[str], list[str]]:
    """Advice, and the facts that were given and lacked beyond the size."""
    if several:
        return _SUBSOLID_SEVERAL[large], [], []
    if density == "ground-glass":
        return _GROUND_GLASS[large], [], []
    if not large:
        return _PART_SOLID[0], [], []
    if solid_mm is None:
        return _PART_SOLID[1], [], ["size of the solid part"]
    whole = half_up(solid_mm, decimals=0)
    return _PART_SOLID[1] + (_SOLID_PART_LARGE if whole >= 6 else ""), [f"solid part {whole:.0f} mm"], []
