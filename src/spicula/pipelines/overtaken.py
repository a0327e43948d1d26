"""Which proposals of a study do not stand any more."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spicula.store.findings import StoredFinding

LEAST_WIDTH_MM = 4.0
"""Findings nearer than half of this are the same, however small."""


def overtaken(stored: Sequence[StoredFinding], latest: str | None) -> frozenset[str]:
    """Proposals that do not stand any more: those of earlier analyses, and those at the place of an accepted finding.

    Args:
        stored: All findings of a study.
        latest: Its latest analysis; None without one.
    """
    accepted = [one for one in stored if one.state == "accepted"]
    return frozenset(one.id for one in stored if one.state == "proposed" and _is_overtaken(one, latest, accepted))


def _is_overtaken(one: StoredFinding, latest: str | None, accepted: Sequence[StoredFinding]) -> bool:
    of_earlier = one.analysis_id is not None and one.analysis_id != latest
    return of_earlier or any(_repeats(one, other) for other in accepted)


def _repeats(one: StoredFinding, other: StoredFinding) -> bool:
    """Whether a proposal is the same nodule as an accepted finding that did not come with it."""
    if one.series_uid != other.series_uid or (one.analysis_id is not None and one.analysis_id == other.analysis_id):
        return False
    centers = [each.content["center_xyz_mm"] for each in (one, other)]
    width = max(float(each.content.get("diameter_mm") or 0.0) for each in (one, other))
    return math.dist(*centers) < max(width, LEAST_WIDTH_MM) / 2
