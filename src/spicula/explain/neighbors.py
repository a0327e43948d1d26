"""Evidence from past cases: how the neighbors of a finding turned out, and what they have in common.

A patient with several nodules among the neighbors counts once, as the mean of these: nodules of a patient are no
independent witnesses. A fact that is no share, such as an outcome of 3 or "yes", is passed over. Intervals are
Jeffreys' (the beta posterior under a Beta(1/2, 1/2) prior).

References:
    Brown, Cai, DasGupta 2001, Interval estimation for a binomial proportion, doi:10.1214/ss/1009213286.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from spicula.core.embedding import Facts, Match
from spicula.core.errors import InputError
from spicula.core.neighbors import Background, Neighborhood, Share, SharedTrait, as_share
from spicula.core.prediction import TRAITS

OUTCOME = "malignant"
"""Name of the fact that says how a case turned out: 1 malignant, 0 benign."""

SHARES = (OUTCOME, *TRAITS)
"""Facts that are from 0 to 1, or nobody can tell what they say."""

LEAST_BACKGROUND = 20
"""From fewer findings than this, nobody can tell whether a distance is unusual."""

COVERAGE = 0.95


def background_of(nearest: ArrayLike, facts: Sequence[Facts]) -> Background:
    """Summarize what is usual in an index.

    Args:
        nearest: ``[n]`` distances of findings of the index to their nearest neighbor of another patient.
        facts: Of the same or other findings of it.

    Raises:
        InputError: A distance that is not finite or is negative.
    """
    distances = np.sort(np.asarray(nearest, dtype=np.float64).ravel())
    if not (np.isfinite(distances) & (distances >= 0)).all():
        raise InputError("distances within the index", got="one that is no distance", expected="finite, 0 or more")
    numbers: dict[str, list[float]] = {}
    for known in facts:
        for name, value in known.items():
            number = as_share(value) if name in SHARES else value
            if number is not None and not isinstance(number, str):
                numbers.setdefault(name, []).append(float(number))
    return Background(tuple(distances.tolist()), {name: float(np.mean(values)) for name, values in numbers.items()})


def neighborhood(
    finding_id: str, matches: Sequence[Match], *, background: Background, fingerprint: str,
    nearest: float | None = None, where: str = "",
) -> Neighborhood:  # fmt: skip
    """What the matches of a finding say.

    Args:
        finding_id: Of the finding.
        matches: The nearest first; none of the finding's own patient, or the share flatters.
        background: Of the index they come from.
        fingerprint: What made the embeddings.
        nearest: Distance to the nearest finding of another patient, whatever condition the matches met; that of the
            first match if None.
        where: The condition; empty for none.

    Returns:
        The share of malignant outcomes, how far the nearest is against the index's own distances, and traits.
    """
    outcomes = share_of(matches, OUTCOME)
    rates = ((trait, share_of(matches, trait)) for trait in TRAITS if trait in background.means)
    traits = tuple(SharedTrait(trait, share, background.means[trait]) for trait, share in rates if share is not None)
    if nearest is None and matches:
        nearest = matches[0].distance
    farther = None if nearest is None else _farther_than(nearest, background)
    return Neighborhood(finding_id, fingerprint, tuple(matches), outcomes, farther, traits, where)


def share_of(matches: Sequence[Match], fact: str) -> Share | None:
    """Mean of a fact from 0 to 1 over the matches, each patient once; None where it is known of none.

    Example:
        >>> known = [{"pid": "a", "malignant": 1.0}, {"pid": "b", "malignant": 0.0}]
        >>> found = [Match(f"{one['pid']}/1", 0.1, one) for one in known]
        >>> share_of(found, "malignant").value
        0.5
    """
    of_patient: dict[str, list[float]] = {}
    for match in matches:
        value = as_share(match.facts.get(fact))
        if value is not None:
            of_patient.setdefault(str(match.facts.get("pid", match.finding_id)), []).append(value)
    if not of_patient:
        return None
    means = [float(np.mean(values)) for values in of_patient.values()]
    return Share(float(np.mean(means)), jeffreys(sum(means), len(means)), len(means))


def jeffreys(hits: float, n: int) -> tuple[float, float]:
    """Jeffreys' 95 % interval of a share; at 0 and 1 its end is 0 and 1.

    Args:
        hits: 0 to n; need not be whole.
        n: 1 or more.

    Example:
        >>> [round(end, 3) for end in jeffreys(5, 10)]
        [0.224, 0.776]
    """
    from scipy.special import betaincinv

    a, b, tail = hits + 0.5, n - hits + 0.5, (1 - COVERAGE) / 2
    low = 0.0 if hits == 0 else float(betaincinv(a, b, tail))
    high = 1.0 if hits == n else float(betaincinv(a, b, 1 - tail))
    return low, high


def _farther_than(distance: float, background: Background) -> float | None:
    if len(background.nearest) < LEAST_BACKGROUND:
        return None
    return float(np.searchsorted(background.nearest, distance, side="left") / len(background.nearest))
