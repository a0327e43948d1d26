"""The readers' traits of LIDC-IDRI in the words of the NLST readings, so that both can be learned from together.

References:
    arXiv 2504.21344, appendix A.3, table A2. The text at hand lost the thresholds of its cells; they are those of the
    authors' published preprocessing: well marginated from 3, lobulated and spiculated from 3, round above 3, solid
    above 4, pure ground glass below 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from spicula.core.errors import InputError
from spicula.core.semantics import SemanticFeatures

AIR = 4
"""Rating of the internal structure that means air."""

NONCENTRAL = 4
"""Rating of the calcification that means a non-central appearance."""

TRAITS_USED = ("internal_structure", "calcification", "sphericity", "margin", "lobulation", "spiculation", "texture")
"""The traits that have words in NLST; subtlety and malignancy have none."""


def nlst_features(
    medians: Mapping[str, float | None],
    *,
    longest_diameter_mm: float | None = None,
    short_diameter_mm: float | None = None,
) -> SemanticFeatures:
    """Say in NLST words what LIDC readers rated.

    Everything that LIDC does not rate stays missing, the suspicion too: table A2 maps no malignancy rating. Of the
    margins only ``Lobulated`` and ``Spiculated`` are judged; both may hold, and where neither does no other word
    follows: LIDC knows no ``Smooth``.

    Args:
        medians: Median rating of the readers by trait, 1 to 5 (internal structure 1 to 4, calcification 1 to 6;
            halves where an even number of readers differ), as ``Finding.truth`` has them; a trait that is None, NaN or
            not there is missing. Other entries are passed over.
        longest_diameter_mm: Measured, where it is known.
        short_diameter_mm: Measured, where it is known.

    Returns:
        The record.

    Raises:
        InputError: A rating is outside its scale.

    Example:
        >>> found = nlst_features({"texture": 4.5, "lobulation": 3, "spiculation": 2, "margin": 2.5})
        >>> found.consistency, found.margin_words, found.conspicuity, found.shape
        ('Solid', ('Lobulated',), 'Poorly marginated', None)
    """
    rating = {name: _rating(name, medians.get(name)) for name in TRAITS_USED}
    judged = {"Lobulated": rating["lobulation"], "Spiculated": rating["spiculation"]}
    return SemanticFeatures(
        longest_diameter_mm=longest_diameter_mm,
        short_diameter_mm=short_diameter_mm,
        margins=MappingProxyType({word: value >= 3 for word, value in judged.items() if value is not None}),
        consistency=_consistency(rating["texture"]),
        shape=_either(rating["sphericity"], above=3, yes="Round", no="Ovoid"),
        conspicuity=_either(rating["margin"], least=3, yes="Well marginated", no="Poorly marginated"),
        cyst_like_spaces=_is(rating["internal_structure"], AIR),
        eccentric_calcification=_is(rating["calcification"], NONCENTRAL),
    )


def _rating(name: str, value: float | None) -> float | None:
    if value is None or math.isnan(value):
        return None
    highest = {"internal_structure": 4, "calcification": 6}.get(name, 5)
    if not 1 <= value <= highest:
        raise InputError(f"LIDC rating of {name}", got=value, expected=f"1 to {highest}")
    return value


def _is(rating: float | None, wanted: int) -> bool | None:
    return None if rating is None else rating == wanted


def _either(
    rating: float | None, *, yes: str, no: str, least: float = -math.inf, above: float = -math.inf
) -> str | None:
    return None if rating is None else yes if rating >= least and rating > above else no


def _consistency(texture: float | None) -> str | None:
    if texture is None:
        return None
    return "Pure ground glass" if texture < 2 else "Solid" if texture > 4 else "Part-solid"
