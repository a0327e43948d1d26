"""Whether scores can rank: inverted, in no order, tied, cut off by a threshold; logits and percent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from spicula.metrics.classification import auroc
from spicula.metrics.doctor.complaint import Complaint, Severity
from spicula.metrics.froc import LUNA16_RATES, free_response_curve, sensitivity_at
from spicula.metrics.hits import FreeResponse

FloatArray: TypeAlias = NDArray[np.float64]

_FEW_HITS = 10
_FAR = 3.5  # standard errors below one half that chance does not explain
_UNORDERED = 0.58  # AUROC of hits against false positives: less says nothing
_TOP_IS_FALSE = 0.4  # of the final sensitivity: a lower mean has false positives at the top


def value_complaints(score: FloatArray) -> tuple[Complaint, ...]:
    """What the scores of detections look like by themselves.

    Args:
        score: ``[n]`` finite.

    Returns:
        Constant scores; scores in percent; scores outside 0..1 (a note: a free-response curve needs the order only).
    """
    if score.size == 0:
        return ()
    low, high = float(score.min()), float(score.max())
    evidence = {"low": low, "high": high}
    if low == high and score.size > 1:
        return (Complaint(
            "scores.constant", "error", f"all {score.size:,} detections have the score {low:g}: nothing can be ranked",
            "write the detector's probability for each detection, not its label", evidence,
        ),)  # fmt: skip
    if low >= 0 and 1 < high <= 100:
        return (Complaint(
            "scores.percent", "note",
            f"the scores go from {low:g} to {high:g}: percent or another unit; the curve needs their order only",
            "divide by 100 before they are used as probabilities", evidence,
        ),)  # fmt: skip
    if low < 0 or high > 1:
        return (Complaint(
            "scores.logits", "note",
            f"the scores go from {low:g} to {high:g}: logits, not probabilities; the curve needs their order only",
            "take 1 / (1 + exp(-score)) before they are used as probabilities", evidence,
        ),)  # fmt: skip
    return ()


def order_complaints(
    response: FreeResponse, *, turned: Callable[[], FreeResponse] | None = None
) -> tuple[Complaint, ...]:
    """Whether the scores put hits before false positives.

    Args:
        response: Matched detections.
        turned: Match them again with the sign of the scores turned, for what the score would be.

    Returns:
        Inverted scores; scores in no order; a top that is false; many at one score.
    """
    n_hit = int(response.hit.sum())
    n_false = response.hit.size - n_hit
    if response.hit.size and np.ptp(response.score) == 0:
        return ()
    ties = _tied(response)
    if n_hit < _FEW_HITS or n_false < _FEW_HITS:
        return ties
    area = auroc(response.hit, response.score)
    error = float(np.sqrt((n_hit + n_false + 1) / (12 * n_hit * n_false)))
    mean, final = float(sensitivity_at(response).mean()), n_hit / int(response.findings.sum())
    evidence = {"auroc": round(area, 4), "cpm": round(mean, 4), "final_sensitivity": round(final, 4)}
    scores = f"in the end {final:.2f} of the findings are found but the mean of the seven sensitivities is {mean:.2f}"
    if area < 0.5 - _FAR * error:
        return (_inverted(area, scores, evidence, turned=turned),)
    if area < _UNORDERED:
        return (Complaint(
            "scores.unordered", "error",
            f"the scores do not tell hits from false positives (AUROC {area:.2f}): {scores}",
            "check that each score stands in the row of its own detection (sorted or filtered apart from it?) and that "
            "the column is the detector's probability", evidence,
        ), *ties)  # fmt: skip
    if mean < _TOP_IS_FALSE * final and not ties:
        return (Complaint(
            "scores.top-is-false", "warning",
            f"the surest detections are false: {scores}, although hits score higher on the whole (AUROC {area:.2f})",
            "look at the highest false positives: is the excluded list missing, are the scores cut at a ceiling, does "
            "the detector need a second stage?", evidence,
        ),)  # fmt: skip
    return ties


def _inverted(
    area: float, scores: str, evidence: Mapping[str, float], *, turned: Callable[[], FreeResponse] | None
) -> Complaint:
    other = float(sensitivity_at(turned()).mean()) if turned is not None else None
    would = f"; with the sign of the scores turned it would be {other:.2f}" if other is not None else ""
    after = {} if other is None else {"cpm_turned": round(other, 4)}
    return Complaint(
        "scores.inverted", "error",
        f"a false positive scores higher than a hit (AUROC of hits {area:.2f}): {scores}{would}",
        "write 1 - score (or -score): higher must mean surer", {**evidence, **after},
    )  # fmt: skip


def _tied(response: FreeResponse) -> tuple[Complaint, ...]:
    """Rates that fall into a long step of the curve: many false positives there have one score."""
    rate, _ = free_response_curve(response)
    distinct = np.unique(response.score)[::-1]
    end = np.searchsorted(rate, LUNA16_RATES, side="left")
    inside = [(r, int(k)) for r, k in zip(LUNA16_RATES, end, strict=True) if 0 < k < rate.size and rate[k] > r]
    least = 2 / response.findings.size
    lost = [(r, k) for r, k in inside if rate[k] - rate[k - 1] > max(r / 2, least)]
    if not lost:
        return ()
    widest = max((k for _, k in lost), key=lambda k: float(rate[k] - rate[k - 1]))
    jump, at = float(rate[widest] - rate[widest - 1]), float(distinct[widest - 1])
    severity: Severity = "error" if len(lost) > 2 else "warning"
    rates = [f"{r:g}" for r, _ in lost]
    return (Complaint(
        "scores.tied", severity,
        f"{jump:.2f} false positives a scan share the score {at:g} (there are {distinct.size:,} different scores), so "
        f"that the sensitivity at {', '.join(rates)} a scan is drawn on a straight line between two points",
        "write the scores with all their digits, as logits where they reach 1.0",
        {"distinct": int(distinct.size), "score": at, "false_positives_a_scan": round(jump, 4), "rates": rates},
    ),)  # fmt: skip


def curve_complaints(response: FreeResponse) -> tuple[Complaint, ...]:
    """Whether the curve reaches all rates at which it is read.

    Args:
        response: Matched detections.

    Returns:
        A curve that stops before 8 false positives a scan.
    """
    rate, sensitivity = free_response_curve(response)
    end = float(rate[-1])
    if not response.score.size or end >= LUNA16_RATES[-1]:
        return ()
    beyond = [f"{r:g}" for r in LUNA16_RATES if r > end]
    return (Complaint(
        "curve.stops", "warning",
        f"the curve stops at {end:.2f} false positives a scan: at {', '.join(beyond)} the last sensitivity "
        f"({float(sensitivity[-1]):.3f}) is repeated; the lowest score is {float(response.score.min()):g}",
        "detect with a lower threshold, so that there are more than 8 false positives a scan",
        {"end": round(end, 4), "sensitivity": round(float(sensitivity[-1]), 4), "rates": beyond},
    ),)  # fmt: skip
