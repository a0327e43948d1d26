"""A nodule by a transformer that learned from slices without labels: features, where it looks, heads; no torch.

Axial slices through the outline go through one network; the features are the mean over them. A forest on the features
tells malignancy, and a linear model on them and the diameter, where the bundle has these.

References:
    Noreen and Shaukat 2025, arXiv 2505.15120 (LungNodule-SSM); Oquab et al. 2023, arXiv 2304.07193 (DINOv2).
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from spicula.classifiers.forest import Forest, forest_of_bytes
from spicula.classifiers.risk import outline_or_ball, sigmoid
from spicula.core.bundle import Bundle
from spicula.core.errors import BundleError
from spicula.core.slice_reading import SliceReading, share_inside
from spicula.core.volume import Mask, Volume
from spicula.runtime.openvino import Network, load_network
from spicula.transforms.nodule_slices import PATCHES, PIXELS, NoduleSlice, as_input, nodule_slices

TASK, KIND = "features", "self_supervised_slices"
NETWORK_FILE, FOREST_FILE, LINEAR_FILE = "network.onnx", "forest.npz", "linear.npz"

View: TypeAlias = Literal["slice", "alone"]
"""The slice with its surroundings, as published; or the nodule alone, faded away from its outline."""

Read: TypeAlias = Literal["cls", "patches", "both"]
"""The class token, as published; the mean of the patches; or one after the other."""

Features: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A logistic model on features and, last, the logarithm of the diameter in mm.

    Args:
        weights: float64 ``[f + 1]``.
        bias: Added.
    """

    weights: NDArray[np.float64]
    bias: float

    def __call__(self, features: Features, diameter_mm: float) -> float:
        """Probability of one nodule.

        Args:
            features: ``[f]``.
            diameter_mm: Mean axial diameter of the outline, as :mod:`spicula.measure.size` measures it; not LUNA16's,
                which is smaller.
        """
        row = np.append(np.asarray(features, dtype=np.float64), math.log(diameter_mm))
        return float(sigmoid(row @ self.weights + self.bias))


@dataclass(frozen=True, slots=True, eq=False)
class SsmModel:
    """A loaded bundle.

    Args:
        fingerprint: Identity of the bundle.
        network: ``[n, 3, side, side]`` to class token, patches and attention of the class token.
        side: Rows and columns in pixels of what it sees.
        view: What of a slice it sees.
        read: What is taken for features.
        slices: Of a nodule, at most; 1 is the slice with most of it.
        forest: Malignancy by the features; None for none.
        linear: Malignancy by the features and the diameter; None for none.
    """

    fingerprint: str
    network: Network
    side: int
    view: View
    read: Read
    slices: int
    forest: Forest | None
    linear: Linear | None


def load_ssm(bundle: Bundle, *, threads: int | None = None) -> SsmModel:
    """Load a bundle.

    Args:
        bundle: Of task ``"features"`` and our own kind.
        threads: Of inference; OpenVINO chooses if None.

    Raises:
        BundleError: It is damaged or was made for another task.
    """
    outputs, seen, files = bundle.manifest["outputs"], bundle.preprocessing, bundle.manifest["files"]
    kind = outputs.get("kind") if isinstance(outputs, dict) else None
    if bundle.task != TASK or kind != KIND:
        raise BundleError(
            f"bundle {bundle.name}: task and kind", got=f"{bundle.task}, {kind}", expected=f"{TASK}, {KIND}"
        )
    view, read = outputs.get("view"), outputs.get("read")
    side, slices = _count(seen.get("side_pixels")), _count(seen.get("slices_at_most"))
    right = view in get_args(View) and read in get_args(Read) and slices > 0
    if not right or not 0 < side <= PIXELS or side % PATCHES:
        raise BundleError(
            f"bundle {bundle.name}: what is seen and read", got=f"{view}, {read}, {slices} slices, {side} pixels",
            expected=f"{' or '.join(get_args(View))}, {', '.join(get_args(Read))}, a number of slices and of pixels",
            hint="install the bundle again, or update Spicula",
        )  # fmt: skip
    forest = forest_of_bytes(bundle.file(FOREST_FILE).read_bytes()) if FOREST_FILE in files else None
    linear = _linear_of_bytes(bundle.file(LINEAR_FILE).read_bytes()) if LINEAR_FILE in files else None
    taught = [*([forest.width] if forest else []), *([len(linear.weights) - 1] if linear else [])]
    if set(taught) - {outputs.get("features")}:
        raise BundleError(f"bundle {bundle.name}: features of its heads", got=taught, expected=outputs.get("features"))
    network = load_network(bundle, NETWORK_FILE, threads=threads)
    return SsmModel(bundle.fingerprint, network, side, view, read, slices, forest, linear)


def look(
    volume: Volume,
    center_xyz_mm: Sequence[float],
    mask: Mask | None,
    *,
    model: SsmModel,
    finding_id: str,
    diameter_mm: float | None = None,
) -> SliceReading:
    """Look at one nodule.

    Args:
        volume: A scan, or a small volume around the nodule, in HU.
        center_xyz_mm: Its center, LPS mm; only used where there is no outline.
        mask: Its automatic outline; None where it has none: then a ball stands for it.
        model: From :func:`load_ssm`.
        finding_id: Which finding.
        diameter_mm: Mean axial diameter of the outline, for the linear model; None where it is not known.
    """
    cut, largest = nodule_slices(volume, outline_or_ball(center_xyz_mm, mask), most=model.slices)
    slices = [one.middle(model.side) for one in cut]
    features, attention = features_of_slices(slices, model=model)
    mean = np.asarray(features.mean(axis=0), dtype=np.float32)
    middle = slices[largest]
    on_nodule, of_area = share_inside(attention[largest], middle.inside)
    return SliceReading(
        finding_id,
        model.fingerprint,
        mean,
        len(slices),
        attention[largest],
        seen_of(middle, model.view),
        middle.geometry,
        on_nodule,
        of_area,
        float(model.forest(mean[None])[0]) if model.forest else None,
        _with_diameter(mean, diameter_mm, model.linear),
    )


def _with_diameter(features: Features, diameter_mm: float | None, linear: Linear | None) -> float | None:
    if linear is None or diameter_mm is None or not 0.0 < diameter_mm < math.inf:
        return None
    return linear(features, diameter_mm)


def seen_of(one: NoduleSlice, view: View) -> NDArray[np.float32]:
    """What the network sees of a slice, HU ``[side, side]``."""
    return one.alone if view == "alone" else one.hu


def features_of_slices(slices: Sequence[NoduleSlice], *, model: SsmModel) -> tuple[Features, NDArray[np.float32]]:
    """Features of each slice, and where the class token looks.

    Args:
        slices: Of the model's side.
        model: From :func:`load_ssm`.

    Returns:
        float32 ``[n, f]``; float32 ``[n, rows, columns]``, the mean over the heads.
    """
    images = as_input(np.stack([seen_of(one, model.view) for one in slices]))
    cls, patches, shares = model.network(images)
    mean = patches.mean(axis=1)
    by_read = {"cls": [cls], "patches": [mean], "both": [cls, mean]}
    attention = shares.mean(axis=1).reshape(len(slices), PATCHES, PATCHES)
    return np.concatenate(by_read[model.read], axis=1), attention


def linear_to_bytes(linear: Linear) -> bytes:
    """A ``.npz`` file, as :func:`load_ssm` reads it."""
    stream = io.BytesIO()
    np.savez(stream, weights=linear.weights, bias=np.float64(linear.bias))
    return stream.getvalue()


def _linear_of_bytes(content: bytes) -> Linear:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            weights, bias = stored["weights"].astype(np.float64), float(stored["bias"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(
            "linear model", got=f"a damaged file ({error})", expected="weights and bias",
            hint="install the bundle again",
        ) from error  # fmt: skip
    if weights.ndim != 1 or not np.isfinite([*weights, bias]).all():
        raise BundleError("linear model", got=f"weights {weights.shape}", expected="a row of finite numbers")
    return Linear(weights, bias)


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
