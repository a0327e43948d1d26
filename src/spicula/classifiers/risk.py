"""Malignancy and traits of a nodule from its image and its automatic outline; no torch.

Two judges that were trained apart look at the nodule: a kernel machine at numbers measured in axial planes
(:mod:`spicula.measure.radiomics`), and a small network at axial planes themselves
(:mod:`spicula.transforms.planes`). Each exists in several members, trained on other patients. Their logits are weighed
and beta-calibrated on predictions for patients that neither had seen.

Nothing above or below the outline is looked at, and nothing farther beside it than some millimeters: where a volume
ends does not matter as long as it holds the nodule.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from spicula.core.bundle import Bundle
from spicula.core.errors import BundleError
from spicula.core.prediction import TRAITS, Explanation, Prediction
from spicula.core.volume import Mask, Volume
from spicula.measure.radiomics import describe, feature_vector
from spicula.metrics.calibration import BetaCalibration
from spicula.runtime.openvino import Network, load_network
from spicula.transforms.crop import box_geometry
from spicula.transforms.planes import axial_planes

TARGETS = ("malignancy", *TRAITS)
"""What is predicted, in order."""

TASK = "risk"
KERNEL_FILE, NETWORK_FILE, CALIBRATION_FILE = "kernel.npz", "network.onnx", "calibration.json"
CLIP = 4.0
"""Standardized features are held within plus and minus this, so that an odd image cannot leave what was learned."""

FALLBACK_RADIUS_MM = 2.5
"""A finding without an outline is looked at in a ball of this radius."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """Kernel ridge regression on standardized features, several members on one set of support rows.

    Args:
        features: Names of the features, in order.
        center: ``[members, f]`` subtracted.
        scale: ``[members, f]`` divided by.
        support: ``[n, f]`` training rows.
        dual: ``[n, members, targets]`` weights of the rows.
        offset: ``[members, targets]``.
        gamma: Of the kernel ``exp(-gamma |a - b|^2)``.
    """

    features: tuple[str, ...]
    center: Array
    scale: Array
    support: Array
    dual: Array
    offset: Array
    gamma: float

    def __call__(self, features: Array) -> Array:
        """Score rows ``[k, f]`` of raw features: ``[k, members, targets]``, about 0 to 1."""
        members = []
        for center, scale, dual, offset in zip(
            self.center, self.scale, self.dual.swapaxes(0, 1), self.offset, strict=True
        ):
            rows, support = standardize(features, center, scale), standardize(self.support, center, scale)
            members.append(gaussian_kernel(rows, support, self.gamma) @ dual + offset)
        return np.stack(members, axis=1)


@dataclass(frozen=True, slots=True)
class Combination:
    """How the judges' logits become a probability for one target.

    Args:
        weights: Of the kernel's and the network's logit.
        bias: Added to them.
        calibrators: The map that is used, then its bootstrap replicates.
    """

    weights: tuple[float, float]
    bias: float
    calibrators: tuple[BetaCalibration, ...]

    def mix(self, logits: Array) -> Array:
        """Uncalibrated probability of logits ``[..., 2]``."""
        return sigmoid(logits @ np.asarray(self.weights) + self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class RiskModel:
    """A loaded bundle of task ``"risk"``.

    Args:
        fingerprint: Identity of the bundle.
        kernel: The judge of measured numbers.
        network: The judge of planes, ``[1, planes, rows, columns]`` HU to logits ``[1, members * targets]``; None
            if the bundle has none.
        combinations: By target.
    """

    fingerprint: str
    kernel: Kernel
    network: Network | None
    combinations: Mapping[str, Combination]


def load_risk(bundle: Bundle) -> RiskModel:
    """Load a bundle.

    Raises:
        BundleError: It is damaged or was made for another task.
    """
    if bundle.task != TASK:
        raise BundleError(f"bundle {bundle.name}: task", got=bundle.task, expected=TASK)
    record = bundle.read_json(CALIBRATION_FILE)
    kernel = load_kernel(bundle, record["features"], gamma=float(record["gamma"]))
    combinations = {
        target: Combination(
            (float(part["weights"][0]), float(part["weights"][1])),
            float(part["bias"]),
            tuple(BetaCalibration(*map(float, row)) for row in part["calibrators"]),
        )
        for target, part in record["targets"].items()
    }
    network = load_network(bundle, NETWORK_FILE, threads=1) if NETWORK_FILE in bundle.manifest["files"] else None
    return RiskModel(bundle.fingerprint, kernel, network, MappingProxyType(combinations))


def load_kernel(bundle: Bundle, features: Sequence[str], *, gamma: float) -> Kernel:
    """The kernel machine of a bundle's :data:`KERNEL_FILE`.

    Args:
        bundle: The bundle.
        features: Names of its features.
        gamma: Of its kernel.

    Raises:
        BundleError: The file is missing or damaged.
    """
    with np.load(io.BytesIO(bundle.file(KERNEL_FILE).read_bytes()), allow_pickle=False) as stored:
        arrays = {name: stored[name].astype(np.float64) for name in ("center", "scale", "support", "dual", "offset")}
    return Kernel(tuple(features), **arrays, gamma=gamma)


def predict(
    volume: Volume,
    center_xyz_mm: Sequence[float],
    mask: Mask | None,
    *,
    model: RiskModel,
    finding_id: str,
    numbers: Mapping[str, float] | None = None,
) -> list[Prediction]:
    """Predict malignancy and traits of one nodule.

    Args:
        volume: A scan, or a small volume around the nodule, in HU.
        center_xyz_mm: Its center, LPS mm; only used where there is no outline.
        mask: Its automatic outline; None where it has none.
        model: From :func:`load_risk`.
        finding_id: Which finding.
        numbers: What :func:`spicula.measure.radiomics.describe` says of it, where that is known; else it is measured.

    Returns:
        One Prediction for each of :data:`TARGETS`, in that order, each with a 90 % interval: the 5th to the 95th
        percentile over the members, each calibrated by every bootstrap replicate of the calibration, widened to hold
        the probability itself.
    """
    outline = outline_or_ball(center_xyz_mm, mask)
    features = describe(volume, outline) if numbers is None else numbers
    logits = member_logits(volume, outline, features, model=model)
    traits: dict[str, float] = {}
    predictions = []
    for index, target in reversed(list(enumerate(TARGETS))):
        probability, interval = _combine(logits[:, index], model.combinations[target])
        why = (
            Explanation("traits", MappingProxyType(dict(reversed(traits.items())))) if target == "malignancy" else None
        )
        traits[target] = probability
        predictions.append(Prediction(finding_id, target, probability, interval, model.fingerprint, why))
    return predictions[::-1]


def member_logits(volume: Volume, mask: Mask, features: Mapping[str, float], *, model: RiskModel) -> Array:
    """Logits of all members and judges, ``[members, targets, 2]`` (kernel, network; 0 where there is no network)."""
    row = feature_vector(features, model.kernel.features)[None].astype(np.float64)
    kernel = score_to_logit(model.kernel(row)[0])
    network = np.zeros_like(kernel)
    if model.network is not None:
        planes = axial_planes(volume, mask)
        network = model.network(planes[None])[0].reshape(kernel.shape).astype(np.float64)
    return np.stack([kernel, network], axis=-1)


def _combine(logits: Array, combination: Combination) -> tuple[float, tuple[float, float]]:
    """Probability and interval from the members' logits ``[members, 2]``."""
    probability = float(combination.calibrators[0](combination.mix(logits.mean(axis=0))))
    members = combination.mix(logits)
    spread = np.concatenate([calibrator(members) for calibrator in combination.calibrators])
    return probability, interval_of(spread, probability)


def interval_of(spread: Array, probability: float) -> tuple[float, float]:
    """The 5th to the 95th percentile of probabilities ``[...]``, widened to hold the one that is given."""
    low, high = np.percentile(spread, [5, 95])
    return float(min(low, probability)), float(max(high, probability))


def outline_or_ball(center_xyz_mm: Sequence[float], mask: Mask | None) -> Mask:
    """The outline; where there is none, a ball of :data:`FALLBACK_RADIUS_MM` around the center (LPS mm)."""
    if mask is not None and mask.array_zyx.any():
        return mask
    n = 2 * round(FALLBACK_RADIUS_MM / 0.5) + 3
    grid = box_geometry(center_xyz_mm, shape_zyx=(n, n, n), spacing_zyx_mm=(0.5, 0.5, 0.5))
    offset = (np.arange(n) - n // 2) * 0.5
    z, y, x = np.meshgrid(offset, offset, offset, indexing="ij", sparse=True)
    return Mask(z**2 + y**2 + x**2 <= FALLBACK_RADIUS_MM**2, grid)


def standardize(features: Array, center: Array, scale: Array) -> Array:
    """Center and scale raw features, held within :data:`CLIP`."""
    return np.clip((features - center) / scale, -CLIP, CLIP)


def gaussian_kernel(a: Array, b: Array, gamma: float) -> Array:
    """``exp(-gamma |a_i - b_j|^2)``, ``[len(a), len(b)]``."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return np.asarray(np.exp(-gamma * np.maximum(squares, 0.0)))


def score_to_logit(score: Array) -> Array:
    """Logit of a regression score that is about 0 to 1."""
    held = np.clip(score, 0.005, 0.995)
    return np.asarray(np.log(held / (1 - held)))


def sigmoid(logit: Array) -> Array:
    """Logistic function, safe at large arguments."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -60, 60))))
