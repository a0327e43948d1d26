"""Published risk models from the clinic, as baselines: Brock (PanCan) and Mayo.

Both want facts that no image holds. What is not given takes a stated default and is named in the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

from spicula.core.errors import InputError
from spicula.measure.size import Density


@dataclass(frozen=True, slots=True)
class RiskEstimate:
    """The probability that a nodule is cancer, by a published model.

    Args:
        model: Which one.
        probability: 0 to 1.
        given: The facts it rests on.
        lacking: The facts that were missing, each with the default that stood in for it.
    """

    model: str
    probability: float
    given: tuple[str, ...]
    lacking: tuple[str, ...]


T = TypeVar("T")

_BROCK_DENSITY = {"solid": 0.0, "part-solid": 0.3770, "ground-glass": -0.1276}


def brock(
    size_mm: float,
    *,
    density: Density | None = None,
    spiculation: bool | None = None,
    upper_lobe: bool | None = None,
    nodule_count: int | None = None,
    age_years: float | None = None,
    female: bool | None = None,
    family_history: bool | None = None,
    emphysema: bool | None = None,
) -> RiskEstimate:
    """Brock (PanCan) model, full, with spiculation.

    Defaults of what is missing: solid, no spiculation, not in an upper lobe, 4 nodules and 62 years (the values that
    the model is centered on), male, no family history, no emphysema.

    Args:
        size_mm: Longest diameter.
        density: Nodule type.
        spiculation: The nodule is spiculated.
        upper_lobe: It lies in an upper lobe.
        nodule_count: Nodules in the scan, this one included.
        age_years: Age.
        female: Sex.
        family_history: Of lung cancer.
        emphysema: Seen on the scan.

    Returns:
        The probability, and what was given and lacking.

    Raises:
        InputError: The size is not positive, or the age or count makes no sense.

    References:
        McWilliams et al. 2013, doi:10.1056/NEJMoa1214726 (model 2b).

    Example:
        >>> estimate = brock(10.0, density="solid", age_years=62, female=False)
        >>> round(estimate.probability, 4), len(estimate.lacking)
        (0.0251, 5)
    """
    facts = _Facts()
    size = _positive("size", size_mm)
    facts.given.append(f"size {size:g} mm")
    kind = facts.take("density", density, "solid")
    x = -6.7892 - 5.3854 * ((size / 10) ** -0.5 - 1.58113883) + _BROCK_DENSITY[kind]
    x += 0.7729 * facts.take("spiculation", spiculation, False)
    x += 0.6581 * facts.take("upper lobe", upper_lobe, False)
    x -= 0.0824 * (_positive("nodule count", facts.take("nodule count", nodule_count, 4)) - 4)
    x += 0.0287 * (_positive("age", facts.take("age", age_years, 62.0)) - 62)
    x += 0.6011 * facts.take("female", female, False)
    x += 0.2961 * facts.take("family history of lung cancer", family_history, False)
    x += 0.2953 * facts.take("emphysema", emphysema, False)
    return facts.estimate("Brock (PanCan), full with spiculation", x)


def mayo(
    diameter_mm: float,
    *,
    spiculation: bool | None = None,
    upper_lobe: bool | None = None,
    age_years: float | None = None,
    ever_smoker: bool | None = None,
    extrathoracic_cancer: bool | None = None,
) -> RiskEstimate:
    """Mayo model for solitary nodules.

    Defaults of what is missing: no spiculation, not in an upper lobe, 62 years, never smoked, no earlier cancer. It was
    made on nodules of 4 to 30 mm without a cancer in the last five years.

    Args:
        diameter_mm: Diameter.
        spiculation: The nodule is spiculated.
        upper_lobe: It lies in an upper lobe.
        age_years: Age.
        ever_smoker: Smokes or has smoked.
        extrathoracic_cancer: Had one, more than five years ago.

    Returns:
        The probability, and what was given and lacking.

    Raises:
        InputError: The diameter or age is not positive.

    References:
        Swensen et al. 1997, doi:10.1001/archinte.1997.00440290031002.
    """
    facts = _Facts()
    diameter = _positive("diameter", diameter_mm)
    facts.given.append(f"diameter {diameter:g} mm")
    x = -6.8272 + 0.1274 * diameter
    x += 1.0407 * facts.take("spiculation", spiculation, False)
    x += 0.7838 * facts.take("upper lobe", upper_lobe, False)
    x += 0.0391 * _positive("age", facts.take("age", age_years, 62.0))
    x += 0.7917 * facts.take("ever smoker", ever_smoker, False)
    x += 1.3388 * facts.take("earlier extrathoracic cancer", extrathoracic_cancer, False)
    return facts.estimate("Mayo", x)


class _Facts:
    """Collects what was given and what stood in for what was not."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.lacking: list[str] = []

    def take(self, name: str, value: T | None, default: T) -> T:
        used = default if value is None else value
        shown = {True: "yes", False: "no"}[used] if isinstance(used, bool) else f"{used}"
        if value is None:
            self.lacking.append(f"{name} (taken as {shown})")
        else:
            self.given.append(f"{name} {shown}")
        return used

    def estimate(self, model: str, x: float) -> RiskEstimate:
        return RiskEstimate(model, 1 / (1 + math.exp(-x)), tuple(self.given), tuple(self.lacking))


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise InputError(name, got=value, expected="a positive number")
    return float(value)
