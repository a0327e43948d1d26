"""Lung-RADS 2022 for screening CT, as pure functions.

One function for each kind of finding (:func:`lung_rads` for nodules, :func:`lung_rads_airway`, :func:`lung_rads_cyst`)
and :func:`lung_rads_exam` for the whole examination (categories 0 and 1, modifier S).

References:
    American College of Radiology, Lung-RADS 2022; Christensen et al. 2024, doi:10.1016/j.jacr.2023.09.009.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from spicula.core.analysis import Assessment
from spicula.core.errors import InputError
from spicula.measure.rounding import checked_size, half_up
from spicula.measure.size import Density

SYSTEM = "Lung-RADS 2022"

Change = Literal["baseline", "new", "stable", "smaller", "growing", "slowly growing", "resolved"]
Category = Literal["0", "1", "2", "3", "4A", "4B", "4X"]
Benign = Literal[
    "complete calcification", "central calcification", "popcorn calcification", "concentric-ring calcification", "fat"
]
CystChange = Literal[
    "baseline",
    "stable",
    "cystic component growing",
    "wall growing",
    "became multilocular",
    "multilocular growing",
    "more loculation or opacity",
]

ORDER: tuple[Category, ...] = get_args(Category)

_VOLUMES_MM3 = {4.0: 34.0, 6.0: 113.0, 8.0: 268.0, 10.0: 524.0, 15.0: 1767.0, 30.0: 14137.0}
_MANAGEMENT = {
    "0": "Comparison with the prior CT, additional CT, or LDCT in 1-3 months, as the cause asks for",
    "1": "12-month screening LDCT",
    "2": "12-month screening LDCT",
    "3": "6-month LDCT",
    "4A": "3-month LDCT",
    "4B": "Work-up: diagnostic chest CT, PET/CT where the solid part is 8 mm or more, tissue sampling, or referral",
    "4X": "Work-up: diagnostic chest CT, PET/CT where the solid part is 8 mm or more, tissue sampling, or referral",
}
_STEPS_DOWN: dict[Category, tuple[float, Category]] = {"3": (6.0, "2"), "4A": (3.0, "3")}
_NO_PRIOR = "prior scan (taken as a baseline)"


def mean_diameter_for_lung_rads(long_axis_mm: float, short_axis_mm: float) -> float:
    """Mean diameter by Lung-RADS: each axis to one decimal of a millimeter, then their mean to one decimal.

    Example:
        >>> mean_diameter_for_lung_rads(6.44, 5.56)
        6.0
    """
    axes = half_up(long_axis_mm, decimals=1), half_up(short_axis_mm, decimals=1)
    return half_up(round(sum(axes) / 2, 6), decimals=1)


def change_between(before_mm: float, after_mm: float, *, days: float) -> Change:
    """Name the change of a nodule between two scans by its mean diameter.

    Growth is more than 1.5 mm within 12 months; over a longer time the rate is counted, and more than 1.5 mm in all at
    a lesser rate is slow growth (which the guideline wants seen on several scans).

    Args:
        before_mm: Mean diameter on the earlier scan (rounded to one decimal here).
        after_mm: On the later scan.
        days: Between the two.

    Returns:
        ``"growing"``, ``"slowly growing"``, ``"stable"`` or ``"smaller"`` (by more than 1.5 mm).

    Raises:
        InputError: A size or the time is not a positive number.
    """
    checked_size("diameter before", before_mm)
    checked_size("diameter after", after_mm)
    checked_size("days", days)
    if days == 0:
        raise InputError("days", got=0, expected="more than 0")
    rise = round(half_up(after_mm, decimals=1) - half_up(before_mm, decimals=1), 1)
    if rise > 1.5:
        return "growing" if rise * min(1.0, 365 / days) > 1.5 else "slowly growing"
    return "smaller" if rise < -1.5 else "stable"


def lung_rads(
    *,
    density: Density,
    mean_diameter_mm: float | None = None,
    volume_mm3: float | None = None,
    solid_diameter_mm: float | None = None,
    solid_volume_mm3: float | None = None,
    change: Change | None = None,
    previous_category: Category | None = None,
    months_since_prior: float | None = None,
    juxtapleural: bool = False,
    benign: Benign | None = None,
    proven_benign: bool = False,
    suspicious_features: Sequence[str] = (),
) -> Assessment:
    """Categorize one nodule.

    Sizes are taken from the diameters where given (rounded to 0.1 mm), else from the volumes (rounded to 1 mm3).
    Cases that the table leaves open: a new part-solid nodule under 6 mm is 3 whatever its solid part; a growing
    ground-glass nodule of 30 mm or more is 3; a stable nodule of unknown earlier category is categorized by its size.

    Args:
        density: Solid, part-solid or ground-glass.
        mean_diameter_mm: Of the whole nodule.
        volume_mm3: Of the whole nodule.
        solid_diameter_mm: Mean diameter of a part-solid nodule's solid part.
        solid_volume_mm3: Its volume.
        change: Since the prior scan; ``"growing"`` of a part-solid nodule means its solid part. None: no prior scan is
            known, a baseline is assumed and the assessment says so.
        previous_category: On the prior scan, for steps down.
        months_since_prior: Likewise.
        juxtapleural: At the pleura, smooth, and oval, lentiform or triangular.
        benign: A calcification pattern or fat that settles it.
        proven_benign: By work-up.
        suspicious_features: Spiculation, lymphadenopathy and the like, that raise 3 and 4 to 4X.

    Returns:
        Category, management, what it rests on and what it lacked.

    Raises:
        InputError: No size, a part-solid nodule without its solid part, or a size that is not a number.
    """
    size, solid = _size(mean_diameter_mm, volume_mm3), _size(solid_diameter_mm, solid_volume_mm3)
    given = [density, *_facts(mean_diameter_mm, volume_mm3, "")]
    if density == "part-solid":
        given += _facts(solid_diameter_mm, solid_volume_mm3, "solid part ")
    given.append(change or "taken as baseline")
    lacking = [_NO_PRIOR] if change is None else []
    if benign:
        return _assessment("1", [*given, benign], [])
    if proven_benign or change == "resolved":
        return _assessment("2", [*given, *(["proven benign"] if proven_benign else [])], [])
    if size is None:
        raise InputError("nodule size", got="nothing", expected="a mean diameter in mm or a volume in mm3")
    if density == "part-solid" and solid is None:
        raise InputError("solid part", got="nothing", expected="its diameter in mm or volume in mm3 (0 if none)")
    state: Change = change or "baseline"
    if juxtapleural and density == "solid" and state in ("baseline", "new") and size < 10:
        given.append("juxtapleural, smooth, of benign shape")
        category: Category = "2"
    else:
        category = _by_size(density, size, solid or 0.0, state)
        category = _stepped_down(category, state, previous_category, months_since_prior, lacking)
    category = _raised(category, suspicious_features, given)
    return _assessment(category, given, lacking, solid_mm=size if density == "solid" else solid or 0.0)


def lung_rads_airway(
    *,
    proximal: bool,
    change: Change | None = None,
    suspicious_features: Sequence[str] = (),
) -> Assessment:
    """Categorize a nodule in an airway.

    A new one is treated as at baseline (the table does not name it).

    Args:
        proximal: Segmental or more proximal; False for subsegmental.
        change: Since the prior scan; None: a baseline is assumed and the assessment says so.
        suspicious_features: That raise 4 to 4X.

    Returns:
        Category, management, what it rests on and what it lacked.
    """
    given = [
        "airway nodule",
        "segmental or more proximal" if proximal else "subsegmental",
        change or "taken as baseline",
    ]
    lacking = [_NO_PRIOR] if change is None and proximal else []
    category: Category = "2"
    if proximal and change != "resolved":
        category = "4B" if change in ("stable", "growing", "slowly growing") else "4A"
    return _assessment(_raised(category, suspicious_features, given), given, lacking)


def lung_rads_cyst(
    *,
    kind: Literal["thick-walled", "multilocular"],
    change: CystChange | None = None,
    previous_category: Category | None = None,
    months_since_prior: float | None = None,
    suspicious_features: Sequence[str] = (),
) -> Assessment:
    """Categorize an atypical cyst. (Thin-walled cysts of one chamber are not categorized.)

    Args:
        kind: As it is now.
        change: Since the prior scan; None: a baseline is assumed and the assessment says so.
        previous_category: On the prior scan, for steps down of a stable one.
        months_since_prior: Likewise.
        suspicious_features: That raise 3 and 4 to 4X.

    Returns:
        Category, management, what it rests on and what it lacked.
    """
    given = [f"{kind} cyst", change or "taken as baseline"]
    lacking = [_NO_PRIOR] if change is None else []
    category: Category = "4A"
    if change == "cystic component growing":
        category = "3" if kind == "thick-walled" else "4B"
    elif change in ("wall growing", "multilocular growing", "more loculation or opacity"):
        category = "4B"
    elif change == "stable":
        category = _stepped_down(category, "stable", previous_category, months_since_prior, lacking)
    return _assessment(_raised(category, suspicious_features, given), given, lacking)


def lung_rads_exam(
    findings: Sequence[Assessment],
    *,
    prior_being_located: bool = False,
    lungs_evaluable: bool = True,
    likely_inflammatory: bool = False,
    other_significant_finding: bool = False,
) -> Assessment:
    """Categorize the whole examination: its highest finding, or 0 where it cannot be completed, or 1 without a nodule.

    Args:
        findings: The findings' own assessments.
        prior_being_located: A prior CT is being fetched for comparison.
        lungs_evaluable: All of both lungs can be judged.
        likely_inflammatory: The findings look like infection or inflammation.
        other_significant_finding: Adds the modifier S.

    Returns:
        The examination's category; S follows it, as in ``"2S"``.

    Raises:
        InputError: An assessment is not of Lung-RADS.
    """
    for finding in findings:
        if finding.system != SYSTEM or finding.category not in ORDER:
            raise InputError("finding", got=f"{finding.system} {finding.category}", expected=SYSTEM)
    reasons = [
        reason
        for reason, holds in (
            ("prior CT being located", prior_being_located),
            ("lungs not wholly evaluable", not lungs_evaluable),
            ("likely inflammatory or infectious", likely_inflammatory),
        )
        if holds
    ]
    worst = max(findings, key=lambda f: ORDER.index(f.category), default=None)
    if reasons:
        base = _assessment("0", reasons, [])
    elif worst is None:
        base = _assessment("1", ["no nodule"], [])
    else:
        base = worst
    if not other_significant_finding:
        return base
    return Assessment(
        SYSTEM,
        base.category + "S",
        base.management + "; and as the other significant finding asks for",
        (*base.given, "other significant finding"),
        base.lacking,
    )


def _size(diameter_mm: float | None, volume_mm3: float | None) -> float | None:
    """Diameter to 0.1 mm; of a volume, a diameter on the same side of every limit of the table."""
    checked_size("diameter", diameter_mm)
    checked_size("volume", volume_mm3)
    if diameter_mm is not None:
        return half_up(diameter_mm, decimals=1)
    if volume_mm3 is None:
        return None
    volume = half_up(volume_mm3, decimals=0)
    return max((mm for mm, mm3 in _VOLUMES_MM3.items() if volume >= mm3), default=0.0)


def _facts(diameter_mm: float | None, volume_mm3: float | None, part: str) -> list[str]:
    if diameter_mm is not None:
        return [f"{part}mean diameter {half_up(diameter_mm, decimals=1):.1f} mm"]
    return [] if volume_mm3 is None else [f"{part}volume {half_up(volume_mm3, decimals=0):.0f} mm3"]


def _by_size(density: Density, size: float, solid: float, change: Change) -> Category:
    """The table's rows for nodules."""
    if density == "ground-glass":
        return "2" if size < 30 or change in ("stable", "smaller", "slowly growing") else "3"
    if change == "slowly growing":
        return "4B"
    if density == "solid":
        limits = {"new": (4.0, 6.0, 8.0), "growing": (0.0, 0.0, 8.0)}.get(change, (6.0, 8.0, 15.0))
        return ("2", "3", "4A", "4B")[sum(size >= limit for limit in limits)]
    if change == "growing" or (change == "new" and size >= 6):
        return "4A" if solid < 4 else "4B"
    if size < 6:
        return "3" if change == "new" else "2"
    return ("3", "4A", "4B")[(solid >= 6) + (solid >= 8)]


def _stepped_down(
    category: Category, change: Change, previous: Category | None, months: float | None, lacking: list[str]
) -> Category:
    """Steps down of what is stable or smaller: 3 to 2 after 6 months, 4A to 3 after 3 months; 2 stays 2."""
    if change not in ("stable", "smaller") or category == "2":
        return category
    if previous is None:
        lacking.append("category on the prior scan")
        return category
    reached: Category = category
    if previous == "2":
        reached = "2"
    elif previous in ("3", "4A"):
        after, lower = _STEPS_DOWN[previous]
        if months is None:
            lacking.append("time since the prior scan")
        reached = lower if months is not None and months >= after else previous
    return min(category, reached, key=ORDER.index)


def _raised(category: Category, features: Sequence[str], given: list[str]) -> Category:
    given.extend(features)
    return "4X" if features and category in ("3", "4A", "4B") else category


def _assessment(
    category: Category, given: Sequence[str], lacking: Sequence[str], *, solid_mm: float = 0.0
) -> Assessment:
    management = _MANAGEMENT[category]
    if category == "4A" and solid_mm >= 8:
        management += "; PET/CT may be considered (solid part of 8 mm or more)"
    return Assessment(SYSTEM, category, management, tuple(given), tuple(lacking))
