"""Embeddings of the other models, to stand beside those of the lesion search in one protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.pipelines.risk_fit import KernelRecipe, fit_kernel
from spicula.pipelines.risk_table import Table
from spicula.pipelines.search_nodules import Pieces
from spicula.transforms.nodule_slices import PATCHES, PIXELS

Rows = NDArray[np.intp]
Vectors = dict[str, NDArray[np.floating]]


def measured_vectors(known: Table, fold_of: Rows) -> Vectors:
    """The measured numbers as they are, and what nodule-risk's kernel machine makes of them (malignancy and traits).

    Args:
        known: Measured numbers and labels of all nodules.
        fold_of: ``[n]``.

    Returns:
        ``[folds, n, d]`` each, standardized by what the fold has learned from.
    """
    learned = [np.flatnonzero(fold_of != fold) for fold in range(int(fold_of.max()) + 1)]
    scores = fit_kernel(known, learned, KernelRecipe())(known.features[:, 0])
    raw = [_standardized(known.features[:, 0], rows) for rows in learned]
    told = [_standardized(scores[:, fold], rows) for fold, rows in enumerate(learned)]
    return {"measured numbers": np.stack(raw), "nodule-risk": np.stack(told)}


def _standardized(values: NDArray[np.floating], rows: Rows) -> NDArray[np.floating]:
    center, scale = values[rows].mean(axis=0), np.maximum(values[rows].std(axis=0), 1e-6)
    return np.asarray(np.clip((values - center) / scale, -4.0, 4.0))


def run_vectors(runs: Sequence[Path], pieces: Pieces, *, folds: int) -> Vectors:
    """Embeddings by the networks of other runs that have not learned from each fold's patients.

    Args:
        runs: Run folders of ``train ssm``: the class token over the slices, seen near the outline.
        pieces: Slices of the nodules.
        folds: Of the runs.

    Returns:
        ``[folds, n, d]`` by the run's task.

    Raises:
        InputError: A folder is no such run, or not done.
    """
    found: Vectors = {}
    for run in runs:
        if not (run / "backbones").is_dir():
            raise InputError(f"{run}: run to compare with", got="no backbones", expected="a run of 'train ssm'")
        found["nodule-ssm"] = np.stack([_of_backbone(run / "backbones" / str(fold), pieces) for fold in range(folds)])
    return found


def _of_backbone(folder: Path, pieces: Pieces, *, batch: int = 64) -> NDArray[np.floating]:
    from spicula.pipelines.pretrain_dinov2 import load_backbone
    from spicula.pretraining.ct_views import undisturbed

    torch = require("torch", extra="train")
    backbone: Any = load_backbone(folder)
    side = PATCHES * backbone.shape.patch
    first = (PIXELS - side) // 2
    tokens = []
    with torch.inference_mode():
        for at in range(0, len(pieces.hu), batch):
            some = np.asarray(pieces.hu[at : at + batch, first : first + side, first : first + side], dtype=np.float32)
            tokens.append(backbone(undisturbed(torch.from_numpy(some))).cls.float().numpy())
    return by_nodule(np.concatenate(tokens), pieces)


def by_nodule(values: NDArray[np.floating], pieces: Pieces) -> NDArray[np.floating]:
    """Mean over each nodule's slices at length 1, ``[n, d]``."""
    count = int(pieces.of_nodule.max()) + 1
    mean = np.stack([values[pieces.of_nodule == row].mean(axis=0) for row in range(count)])
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))
