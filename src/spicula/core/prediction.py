"""What a model says of a finding, with the identity of what made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a prediction is what it is.

    Args:
        kind: ``"traits"`` (a value per named trait), later ``"map"`` or ``"neighbors"``.
        values: The named values.
    """

    kind: str
    values: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Prediction:
    """A probability for one target of one finding.

    Args:
        finding_id: Which finding.
        target: ``"malignancy"`` or the name of a trait, for example ``"spiculation_present"``.
        probability: 0 to 1.
        interval: Lower and upper bound of its 90 % interval; None where none is given.
        fingerprint: Identity of network, weights and preprocessing that made it.
        explanation: Why, if the model says.
    """

    finding_id: str
    target: str
    probability: float
    interval: tuple[float, float] | None
    fingerprint: str
    explanation: Explanation | None = None


TRAITS = (
    "subtlety_obvious",
    "calcification_present",
    "sphericity_round",
    "margin_sharp",
    "lobulation_present",
    "spiculation_present",
    "texture_solid",
)
"""Targets of the default model beside ``"malignancy"``, in the order of every table and report."""
