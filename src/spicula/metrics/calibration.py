"""Whether a probability means what it says, and how to mend one that does not (beta calibration)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from spicula.core.errors import InputError
from spicula.metrics.classification import FloatArray, checked

Form = Literal["abm", "am", "ab"]
Mass = Literal["equal", "by_width"]


@dataclass(frozen=True, slots=True)
class Reliability:
    """Predicted against observed in bins of the prediction; empty bins are left out.

    Args:
        predicted: float64 ``[k]`` mean probability of each bin.
        observed: float64 ``[k]`` share of positives in it.
        count: Rows in it.
    """

    predicted: FloatArray
    observed: FloatArray
    count: NDArray[np.intp]

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance of predicted and observed, bins weighted by their rows."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.count))

    @property
    def maximum_calibration_error(self) -> float:
        """Distance of predicted and observed in the worst bin."""
        return float(np.abs(self.predicted - self.observed).max())

    def band(self, *, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Wilson's interval of each bin's observed share; rows are taken for independent.

        Args:
            level: Coverage of the interval.

        Returns:
            float64 ``[k]`` low and high.

        References:
            Wilson 1927, doi:10.1080/01621459.1927.10502953.
        """
        z = float(norm.ppf((1 + level) / 2))
        middle = (self.observed + z**2 / (2 * self.count)) / (1 + z**2 / self.count)
        spread = self.observed * (1 - self.observed) / self.count + z**2 / (4 * self.count**2)
        reach = z * np.sqrt(spread) / (1 + z**2 / self.count)
        return np.asarray(np.maximum(middle - reach, 0)), np.asarray(np.minimum(middle + reach, 1))


def reliability(y: ArrayLike, p: ArrayLike, *, bins: int = 10, mass: Mass = "equal") -> Reliability:
    """Compare predicted and observed risk in bins.

    Args:
        y: ``[n]`` labels, 0 or 1.
        p: ``[n]`` probabilities.
        bins: How many.
        mass: ``"equal"`` puts equally many rows in each bin (rows of equal p share their mean label, so that the
            order of the rows does not matter); ``"by_width"`` makes bins of equal width on 0 to 1.

    Returns:
        The reliability diagram's points, by rising p.

    Raises:
        InputError: Bad labels, a probability outside 0 to 1, or no bins.
    """
    positive, probability = checked_probabilities(y, p)
    if bins < 1:
        raise InputError("bins", got=bins, expected="1 or more")
    inverse = np.unique(probability, return_inverse=True)[1]
    if mass == "equal":
        shared = np.bincount(inverse, weights=positive) / np.bincount(inverse)
        rank = np.argsort(probability, kind="stable")
        values, labels = probability[rank], shared[inverse][rank]
        start = np.linspace(0, values.size, min(bins, values.size) + 1).round().astype(np.intp)[:-1]
        count = np.diff(np.append(start, values.size))
        return Reliability(np.add.reduceat(values, start) / count, np.add.reduceat(labels, start) / count, count)
    place = np.minimum((probability * bins).astype(np.intp), bins - 1)
    count = np.bincount(place, minlength=bins)
    full = count > 0
    predicted = np.bincount(place, weights=probability, minlength=bins)[full] / count[full]
    observed = np.bincount(place, weights=positive, minlength=bins)[full] / count[full]
    return Reliability(predicted, observed, count[full])


def expected_calibration_error(y: ArrayLike, p: ArrayLike, *, bins: int = 10, mass: Mass = "equal") -> float:
    """Mean distance between predicted and observed risk over bins.

    Args:
        y: ``[n]`` labels, 0 or 1.
        p: ``[n]`` probabilities.
        bins: How many.
        mass: ``"equal"`` (equally many rows) or ``"by_width"``; as in :func:`reliability`.

    Returns:
        0 (calibrated) to 1. A finite sample of a calibrated model is above 0.

    Raises:
        InputError: As :func:`reliability`.

    References:
        Naeini, Cooper, Hauskrecht 2015 (AAAI), doi:10.1609/aaai.v29i1.9602.

    Example:
        >>> expected_calibration_error([0, 0, 1, 1], [0.25, 0.25, 0.75, 0.75], bins=2)
        0.25
    """
    return reliability(y, p, bins=bins, mass=mass).expected_calibration_error


@dataclass(frozen=True, slots=True)
class Brier:
    """Mean squared error of a probability and its parts: score = reliability - resolution + uncertainty + within_bins.

    Args:
        score: Mean squared distance of probability and label.
        reliability: Squared distance of predicted and observed over bins (0 is best).
        resolution: How far the bins' observed shares lie from the prevalence (more is better).
        uncertainty: Variance of the label; the score of always saying the prevalence.
        within_bins: What the bins hide (variance less covariance inside them); 0 where a bin holds one probability.
    """

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float


def brier(y: ArrayLike, p: ArrayLike, *, bins: int = 10, mass: Mass = "equal") -> Brier:
    """Brier score with its decomposition.

    Args:
        y: ``[n]`` labels, 0 or 1.
        p: ``[n]`` probabilities.
        bins: Of the decomposition; the score itself does not depend on them.
        mass: As in :func:`reliability`.

    Returns:
        The score and its parts, which add up exactly.

    Raises:
        InputError: As :func:`reliability`.

    References:
        Murphy 1973, doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2; Stephenson, Coelho, Jolliffe 2008,
        doi:10.1175/2007WAF2006116.1 (the parts within bins).
    """
    positive, probability = checked_probabilities(y, p)
    points = reliability(y, p, bins=bins, mass=mass)
    score = float(np.mean((probability - positive) ** 2))
    prevalence = float(positive.mean())
    share = points.count / points.count.sum()
    rel = float(share @ (points.predicted - points.observed) ** 2)
    res = float(share @ (points.observed - prevalence) ** 2)
    unc = prevalence * (1 - prevalence)
    return Brier(score, rel, res, unc, score - (rel - res + unc))


@dataclass(frozen=True, slots=True)
class CalibrationLine:
    """The line logit(observed) = intercept + slope * logit(predicted), and the shift alone.

    Args:
        slope: 1 is right; under 1 the model is too sure of itself.
        intercept: Of the line; 0 is right.
        in_the_large: Intercept with the slope held at 1: above 0 the model says too little on average.
    """

    slope: float
    intercept: float
    in_the_large: float


def calibration_line(y: ArrayLike, p: ArrayLike) -> CalibrationLine:
    """Slope and intercept of calibration by logistic regression on the logit of p.

    Args:
        y: ``[n]`` labels, 0 or 1.
        p: ``[n]`` probabilities.

    Returns:
        Slope, intercept and calibration in the large.

    Raises:
        InputError: Bad labels or one class only, or a probability outside 0 to 1.

    References:
        Cox 1958, doi:10.1093/biomet/45.3-4.562; Van Calster et al. 2016, doi:10.1016/j.jclinepi.2015.12.005.
    """
    positive, probability = checked_probabilities(y, p, both_classes=True)
    low, high = _logs(probability, _epsilon(p))
    logit = low + high
    ones = np.ones(logit.size)
    slope, intercept = _logistic(np.stack([logit, ones], axis=1), positive)
    (shift,) = _logistic(ones[:, None], positive, offset=logit)
    return CalibrationLine(float(slope), float(intercept), float(shift))


@dataclass(frozen=True, slots=True)
class BetaCalibration:
    """The map p -> 1 / (1 + exp(-(a ln p - b ln(1 - p) + c))); rising wherever a and b are not negative.

    Args:
        a: Weight of ln p, 0 or more.
        b: Weight of -ln(1 - p), 0 or more.
        c: Intercept.

    Raises:
        InputError: A coefficient is not finite, or the map would fall or be flat.

    References:
        Kull, Silva Filho, Flach 2017, doi:10.1214/17-EJS1338SI.

    Example:
        >>> BetaCalibration(1.0, 1.0, 0.0)([0.25, 0.5]).round(6).tolist()
        [0.25, 0.5]
    """

    a: float
    b: float
    c: float

    def __post_init__(self) -> None:
        if not np.isfinite([self.a, self.b, self.c]).all() or min(self.a, self.b) < 0 or max(self.a, self.b) <= 0:
            raise InputError(
                "beta calibration",
                got=f"a = {self.a:.4g}, b = {self.b:.4g}, c = {self.c:.4g}",
                expected="a rising map (a and b not negative, one above 0)",
                hint="are the scores or the labels inverted?",
            )

    @property
    def m(self) -> float | None:
        """The p that is mapped to one half; None where no p between 0 and 1 is."""
        low, high = 1e-12, 1 - 1e-12
        if self._logit(np.array(low)) > 0 or self._logit(np.array(high)) < 0:
            return None
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if self._logit(np.array(middle)) < 0 else (low, middle)
        return (low + high) / 2

    def __call__(self, p: ArrayLike) -> FloatArray:
        """Calibrate probabilities of any shape; float64 of the same shape."""
        probability = np.asarray(p, dtype=np.float64)
        _refuse_outside(probability)
        return np.asarray(1 / (1 + np.exp(-np.clip(self._logit(probability, _epsilon(p)), -700, 700))))

    def _logit(self, probability: FloatArray, epsilon: float = 2.0**-52) -> FloatArray:
        low, high = _logs(probability, epsilon)
        return self.a * low + self.b * high + self.c

    def to_json(self) -> dict[str, float]:
        """The coefficients, ready for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> BetaCalibration:
        """Read what :meth:`to_json` wrote.

        Raises:
            InputError: A coefficient is missing, is no number, or they make no rising map.
        """
        if not isinstance(record, Mapping) or not {"a", "b", "c"} <= set(record):
            raise InputError("beta calibration", got=record, expected="a, b and c")
        numbers = []
        for name in ("a", "b", "c"):
            value = record[name]
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"beta calibration, {name}", got=repr(value), expected="a number")
            numbers.append(float(value))
        return cls(*numbers)


def fit_beta(p: ArrayLike, y: ArrayLike, *, form: Form = "abm", weights: ArrayLike | None = None) -> BetaCalibration:
    """Fit a beta calibration by logistic regression on ln p and -ln(1 - p).

    p is kept its own dtype's epsilon away from 0 and 1. In the forms ``"abm"`` and ``"ab"`` a negative weight is
    dropped and the other refitted; a map that falls all the same (scores or labels are inverted) is refused in every
    form. Perfectly separated data are held finite by a ridge of 1e-9, too weak to be seen otherwise.

    Args:
        p: ``[n]`` probabilities.
        y: ``[n]`` labels, 0 or 1.
        form: ``"abm"`` all three free; ``"am"`` a = b; ``"ab"`` one half stays one half.
        weights: ``[n]`` weight of each row, not negative.

    Returns:
        The map.

    Raises:
        InputError: Bad labels or one class only, a probability outside 0 to 1, probabilities that are all the same,
            bad weights, or data that ask for a falling or flat map.

    References:
        Kull, Silva Filho, Flach 2017, doi:10.1214/17-EJS1338SI. Departure: a map that would fall is refused,
        where betacal's ``abm`` returns it, and the form ``ab`` is refitted too.
    """
    positive, probability = checked_probabilities(y, p, both_classes=True)
    weight = np.ones(probability.size) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.shape != probability.shape or not np.isfinite(weight).all() or weight.min() < 0 or weight.max() == 0:
        raise InputError("weights", expected="one finite weight a row, not negative, not all 0")
    low, high = _logs(probability, _epsilon(p))
    ones = np.ones(low.size)
    if form not in get_args(Form):
        raise InputError("form", got=form, expected="abm, am or ab")
    if np.ptp(probability[weight > 0]) <= 0:
        raise InputError("probabilities", got=f"{probability[0]} only", expected="two different ones or more")
    if form == "am":
        a, c = _logistic(np.stack([low + high, ones], axis=1), positive, weights=weight)
        return BetaCalibration(float(a), float(a), float(c))
    # In the form "ab" both features are 0 at one half, and so is the logit.
    middle = np.log(2) if form == "ab" else 0.0
    rest = [ones] if form == "abm" else []
    a, b, *c = _logistic(np.stack([low + middle, high - middle, *rest], axis=1), positive, weights=weight)
    if a < 0:
        a = 0.0
        b, *c = _logistic(np.stack([high - middle, *rest], axis=1), positive, weights=weight)
    elif b < 0:
        b = 0.0
        a, *c = _logistic(np.stack([low + middle, *rest], axis=1), positive, weights=weight)
    return BetaCalibration(float(a), float(b), float(c[0] if c else (a - b) * np.log(2)))


def _epsilon(p: ArrayLike) -> float:
    """Epsilon of the numbers as they came: a float32 of 1.0 says no more than 1 - 1e-7."""
    dtype = np.asarray(p).dtype
    return float(np.finfo(dtype).eps) if np.issubdtype(dtype, np.floating) else float(np.finfo(np.float64).eps)


def _logs(probability: FloatArray, epsilon: float) -> tuple[FloatArray, FloatArray]:
    """ln p and -ln(1 - p), p kept epsilon away from 0 and 1."""
    clipped = np.clip(probability, epsilon, 1 - epsilon)
    return np.log(clipped), -np.log1p(-clipped)


def _logistic(
    features: FloatArray,
    positive: NDArray[np.bool_],
    *,
    weights: FloatArray | None = None,
    offset: FloatArray | float = 0.0,
    ridge: float = 1e-9,
) -> FloatArray:
    """Coefficients of a logistic regression by damped Newton steps; ``features`` hold their own column of ones."""
    weight = np.ones(len(positive)) if weights is None else weights
    beta = np.zeros(features.shape[1])

    def loss(coefficients: FloatArray) -> float:
        z = features @ coefficients + offset
        return float(weight @ (np.logaddexp(0, z) - positive * z) + ridge / 2 * coefficients @ coefficients)

    current = loss(beta)
    for _ in range(200):
        mean = 1 / (1 + np.exp(-np.clip(features @ beta + offset, -700, 700)))
        gradient = features.T @ (weight * (mean - positive)) + ridge * beta
        curvature = (features * (weight * mean * (1 - mean))[:, None]).T @ features + ridge * np.eye(beta.size)
        step = np.linalg.solve(curvature, gradient)
        scale = 1.0
        while loss(beta - scale * step) > current and scale > 1e-10:
            scale /= 2
        beta = beta - scale * step
        before, current = current, loss(beta)
        if before - current <= 1e-13 * max(1.0, abs(before)) and np.abs(scale * step).max() < 1e-9:
            break
    return beta


def checked_probabilities(
    y: ArrayLike, p: ArrayLike, *, both_classes: bool = False
) -> tuple[NDArray[np.bool_], FloatArray]:
    """As :func:`spicula.metrics.classification.checked`, for scores that must lie between 0 and 1."""
    positive, probability = checked(y, p, both_classes=both_classes)
    _refuse_outside(probability)
    return positive, probability


def _refuse_outside(probability: FloatArray) -> None:
    if not (np.isfinite(probability).all() and (probability >= 0).all() and (probability <= 1).all()):
        raise InputError(
            "probabilities",
            got=f"{np.min(probability)} to {np.max(probability)}",
            expected="0 to 1",
            hint="are these logits?",
        )
