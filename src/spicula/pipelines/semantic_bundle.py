"""The bundle of a finished training of images and words: networks, tokenizer, calibration and card."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.classifiers.risk import KERNEL_FILE, TARGETS, Kernel
from spicula.classifiers.semantic import (
    CALIBRATION_FILE,
    IMAGE_FILE,
    KIND,
    PLANES,
    SENTENCES_FILE,
    TASK,
    TEXT_FILE,
    TOKENIZER_FILE,
    SemanticModel,
    load_semantic,
    read,
)
from spicula.core.bundle import Bundle, write_bundle
from spicula.core.extras import require
from spicula.metrics.calibration import BetaCalibration
from spicula.pipelines import semantic_card
from spicula.pipelines.answers import standard_sentences
from spicula.pipelines.risk_table import STEPS
from spicula.pipelines.semantic_card import Provenance
from spicula.pipelines.semantic_recipe import Recipe, Towers
from spicula.pipelines.semantic_table import SemanticTable
from spicula.pipelines.semantic_views import Weights, trained
from spicula.pipelines.train_risk import kernel_bytes
from spicula.transforms.outlined_cube import PIXELS

NAME = "nodule-semantic"

Array = NDArray[np.float64]


def trait_names() -> tuple[str, ...]:
    """Names of the supervised logits: the targets of the risk model, then each further threshold of a rating."""
    return (*TARGETS, *(f"{name}>={step}" for name, steps in STEPS.items() for step in steps))


def write_semantic_bundle(
    folder: Path,
    table: SemanticTable,
    weights: Sequence[Sequence[Weights]],
    recipe: Recipe,
    towers: Towers,
    *,
    calibrations: Sequence[Sequence[BetaCalibration]],
    kernel: Kernel | None,
    evaluation: Mapping[str, Any],
    provenance: Provenance,
) -> Bundle:
    """Write the bundle of a compact training.

    Args:
        folder: Where it goes.
        table: What was learned from.
        weights: Of each fold's networks.
        recipe: How they were trained.
        towers: Of what.
        calibrations: Of each fold: the map that is used, then its bootstrap replicates.
        kernel: The kernel machine, a member a fold; None for none.
        evaluation: What ``evaluation.json`` holds, for the card.
        provenance: Where outlines and crops came from.

    Returns:
        The bundle, verified.
    """
    torch = require("torch", extra="train")
    from spicula.networks.clip_outlined import ImageCommittee, TextCommittee
    from spicula.networks.export import to_onnx

    networks = [trained(table, one, recipe, towers) for fold in weights for one in fold]
    tokens = torch.zeros(2, towers.tokenizer.context)
    tokens[:, 0], tokens[:, 1] = towers.tokenizer.start_token, towers.tokenizer.end_token
    files: dict[str, bytes | Path] = {
        IMAGE_FILE: to_onnx(ImageCommittee(networks, len(table.names)), torch.zeros(2, PLANES, 3, PIXELS, PIXELS)),
        TEXT_FILE: to_onnx(TextCommittee(networks), tokens),
        TOKENIZER_FILE: towers.tokenizer.to_json().encode(),
        CALIBRATION_FILE: _calibration_bytes(table, weights, networks, calibrations, kernel, recipe.kernel_weight),
    }
    if kernel is not None:
        files[KERNEL_FILE] = kernel_bytes(kernel)
    outputs = {
        "kind": KIND,
        "members": len(networks),
        "embedding": recipe.width,
        "image": "of each member: embedding, logits of benign and malignant, attention of nine planes, traits",
        "text": "embedding of each member",
        "traits": list(trait_names()),
        "malignancy": "mean of the folds' calibrated probabilities",
    }
    manifest = {
        "name": NAME,
        "version": "1",
        "task": TASK,
        "preprocessing": semantic_card.preprocessing(table, towers, provenance),
        "outputs": outputs,
        "card": semantic_card.card(table, recipe, evaluation, provenance, members=len(networks)),
    }
    files[SENTENCES_FILE] = _sentences_bytes(load_semantic(write_bundle(folder, manifest, files), threads=1))
    return write_bundle(folder, manifest, files)


def _sentences_bytes(model: SemanticModel) -> bytes:
    """What the compiled text sides make of the sentences that are always asked, read here once and for all."""
    sentences = standard_sentences()
    stream = io.BytesIO()
    embeddings = read(sentences, model=model).astype(np.float32)
    np.savez_compressed(stream, sentences=np.array(sentences), embeddings=embeddings)
    return stream.getvalue()


def _calibration_bytes(
    table: SemanticTable,
    weights: Sequence[Sequence[Weights]],
    networks: Sequence[Any],
    calibrations: Sequence[Sequence[BetaCalibration]],
    kernel: Kernel | None,
    kernel_weight: float,
) -> bytes:
    record: dict[str, Any] = {
        "method": "beta, of each fold on its own held-out patients",
        "folds": [fold for fold, members in enumerate(weights) for _ in members],
        "temperatures": [float(network.clip.logit_scale.detach().neg().exp()) for network in networks],
        "measures": list(table.names),
        "calibrations": [[[round(v, 8) for v in (one.a, one.b, one.c)] for one in maps] for maps in calibrations],
    }
    if kernel is not None:
        record["kernel"] = {"features": list(kernel.features), "gamma": kernel.gamma, "weight": kernel_weight}
    return (json.dumps(record) + "\n").encode()
