"""The bundle of a transformer that learned from slices without labels: network, heads and card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spicula.classifiers.forest import forest_of_sklearn
from spicula.classifiers.ssm import (
    FOREST_FILE,
    KIND,
    LINEAR_FILE,
    NETWORK_FILE,
    TASK,
    Linear,
    Read,
    View,
    linear_to_bytes,
    load_ssm,
)
from spicula.core.bundle import Bundle, write_bundle
from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.pipelines import ssm_card
from spicula.pipelines.ssm_card import Pretraining
from spicula.transforms.nodule_slices import MOST, PATCHES

NAME = "nodule-ssm"


def make_bundle(
    out: Path,
    backbone: Any,
    forest: Any | None = None,
    linear: Any | None = None,
    *,
    evaluation: Mapping[str, Any],
    pretraining: Pretraining,
    view: View = "slice",
    read: Read = "cls",
    slices: int = MOST,
) -> Bundle:
    """Write the bundle.

    Args:
        out: Folder of the bundle; an older one there is replaced.
        backbone: A :class:`spicula.networks.vit.VisionTransformer`.
        forest: A fitted random forest of scikit-learn on the features of nodules; None for none.
        linear: A fitted pipeline of a ``StandardScaler`` and a ``LogisticRegression`` on the features and, last, the
            logarithm of the mean axial diameter in mm; None for none.
        evaluation: What ``evaluation.json`` holds, for the card.
        pretraining: What the backbone learned from, see :func:`spicula.pipelines.ssm_card.pretraining_of`.
        view: What the heads were taught on.
        read: What they were taught on.
        slices: Of a nodule, at most; 1 where they were taught on the middle one.

    Returns:
        The bundle, verified and opened once.

    Raises:
        InputError: A head is of other features, or the evaluation has no probes of what ships.
        MissingExtraError: A package of the extra ``train`` is not installed.
    """
    require("torch", extra="train")
    from spicula.networks.vit_export import vit_to_onnx

    width = backbone.shape.width * (2 if read == "both" else 1)
    side = PATCHES * backbone.shape.patch
    files: dict[str, bytes | Path] = {}
    heads = {}
    if forest is not None:
        arrays = forest_of_sklearn(forest)
        _require_width("forest", arrays.width, width)
        files[FOREST_FILE] = arrays.to_bytes()
        heads["forest"] = f"{len(arrays.starts)} trees: malignancy"
    if linear is not None:
        weights = linear_of_sklearn(linear)
        _require_width("linear model", len(weights.weights), width + 1)
        files[LINEAR_FILE] = linear_to_bytes(weights)
        heads["linear"] = "logistic, with the logarithm of the mean axial diameter: malignancy"
    manifest = {
        "name": NAME,
        "version": "1",
        "task": TASK,
        "preprocessing": ssm_card.preprocessing(side, slices, pretraining),
        "outputs": {
            "kind": KIND,
            "view": view,
            "read": read,
            "features": width,
            "network": "class token, patches, attention of the class token in the last block by head",
            "heads": heads,
        },
        "card": ssm_card.card(
            evaluation, pretraining, view=view, read=read, slices=slices, side=side, heads=list(heads)
        ),
    }
    bundle = write_bundle(out, manifest, {NETWORK_FILE: vit_to_onnx(backbone, side), **files})
    load_ssm(bundle, threads=1)
    return bundle


def linear_of_sklearn(pipeline: Any) -> Linear:
    """Take over a fitted pipeline of a ``StandardScaler`` and a ``LogisticRegression`` of two classes.

    Raises:
        InputError: It is something else.
    """
    parts = [part for _, part in getattr(pipeline, "steps", ())]
    scaler, model = parts if len(parts) == 2 else (None, None)
    scale, rows = getattr(scaler, "scale_", None), getattr(model, "coef_", None)
    if scaler is None or model is None or scale is None or rows is None or np.shape(rows) != (1, len(scale)):
        raise InputError(
            "linear model", got=type(pipeline).__name__, expected="a fitted StandardScaler and LogisticRegression"
        )
    weights = np.asarray(rows[0] / scale, dtype=np.float64)
    return Linear(weights, float(model.intercept_[0] - scaler.mean_ @ weights))


def _require_width(what: str, got: int, expected: int) -> None:
    if got != expected:
        raise InputError(f"features of the {what}", got=got, expected=expected)
