"""What past cases say of a finding: the nearest of them, how they turned out, what they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spicula.core.embedding import Fact, Match

UNLIKE = 0.99
"""A finding whose nearest neighbor is farther than that of this share of the index is unlike anything in it."""


def as_share(value: Fact | None) -> float | None:
    """A fact that is a share, 0 to 1; None for text, for any other number, and for what is not known.

    Example:
        >>> as_share(1.0), as_share(3.0), as_share("yes")
        (1.0, None, None)
    """
    return float(value) if isinstance(value, float | int) and 0 <= value <= 1 else None


@dataclass(frozen=True, slots=True)
class Share:
    """A share among neighbors, each patient counted once.

    Args:
        value: 0 to 1.
        interval: Lower and upper bound of its 95 % interval.
        patients: How many patients it rests on.
    """

    value: float
    interval: tuple[float, float]
    patients: int


@dataclass(frozen=True, slots=True)
class SharedTrait:
    """How common a trait is among neighbors, against the whole index.

    Args:
        trait: Name of the fact, 0 to 1, for example ``"spiculation_present"``.
        share: Among the neighbors.
        everywhere: In the index.
    """

    trait: str
    share: Share
    everywhere: float

    @property
    def is_shared(self) -> bool:
        """Whether the neighbors have it more or less often than the index, beyond chance."""
        low, high = self.share.interval
        return not low <= self.everywhere <= high


@dataclass(frozen=True, slots=True)
class Background:
    """What is usual in an index: against this, a query is judged.

    Args:
        nearest: Rising distances of findings of the index to their nearest neighbor of another patient.
        means: Mean of each number that is known of findings.
    """

    nearest: tuple[float, ...]
    means: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Neighborhood:
    """The past cases that look like a finding.

    Args:
        finding_id: Of the finding.
        fingerprint: What made its embedding, and those of the index.
        matches: The nearest first.
        malignant: Share of malignant outcomes; None where no outcome is known.
        farther_than: Share of the index whose own nearest neighbor is nearer than this finding's; None where the index
            is too small to tell.
        traits: Of those that are known, in the order of the index's fields.
        where: The condition that past cases had to meet to be among the matches; empty where all were looked at. The
            distance is judged without it.
    """

    finding_id: str
    fingerprint: str
    matches: tuple[Match, ...]
    malignant: Share | None = None
    farther_than: float | None = None
    traits: tuple[SharedTrait, ...] = ()
    where: str = ""

    @property
    def is_unlike_all(self) -> bool:
        """Whether nothing in the index looks like it, so that the neighbors say little."""
        return self.farther_than is not None and self.farther_than >= UNLIKE
