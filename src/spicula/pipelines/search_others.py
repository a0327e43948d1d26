"""Embeddings of the other models, to stand beside those of the lesion search in one protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.classifiers.semantic import load_semantic, see
from spicula.core.bundle import load_bundle
from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.core.finding import Case
from spicula.pipelines.models import SEMANTIC, SSM
from spicula.pipelines.risk_fit import KernelRecipe, fit_kernel
from spicula.pipelines.risk_table import Outlines, Table
from spicula.pipelines.run_folder import RUN
from spicula.pipelines.search_nodules import Pieces, mean_of_slices, unit
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


def run_vectors(
    runs: Sequence[Path], cases: Sequence[Case], pieces: Pieces, *, outlines: Outlines, folds: int
) -> Vectors:  # fmt: skip
    """Embeddings by the networks of other runs that have not learned from each fold's patients.

    Args:
        runs: Run folders of ``train ssm`` (the class token over the slices, seen near the outline) or
            ``train semantic`` (what its networks of images and words make of the nodule's planes).
        cases: The nodules.
        pieces: Slices of the same.
        outlines: By networks that have not learned from the nodule's patient.
        folds: Of the runs.

    Returns:
        ``[folds, n, d]`` by the run's task.

    Raises:
        InputError: A folder is no such run, or not done.
    """
    found: Vectors = {}
    for run in runs:
        _require_same_folds(run, folds)
        if (run / SEMANTIC).is_dir():
            found[SEMANTIC] = _of_semantic(run / SEMANTIC, cases, outlines, folds=folds)
        elif (run / "backbones").is_dir():
            found[SSM] = np.stack([_of_backbone(run / "backbones" / str(fold), pieces) for fold in range(folds)])
        else:
            expected = "a run of 'train ssm' or 'train semantic'"
            raise InputError(f"{run}: run to compare with", got="no finished one", expected=expected)
    return found


def _require_same_folds(run: Path, folds: int) -> None:
    """A run dealt otherwise would have learned from the patients that it is judged on."""
    told = json.loads((run / RUN).read_text(encoding="utf-8"))["arguments"] if (run / RUN).is_file() else {}
    if told.get("folds") != folds or told.get("limit") is not None:
        got = f"{told.get('folds')} folds" + (", a trial" if told.get("limit") else "")
        raise InputError(f"{run}: run to compare with", got=got, expected=f"all patients in {folds} folds")


def _of_semantic(
    folder: Path, cases: Sequence[Case], outlines: Outlines, *, folds: int
) -> NDArray[np.floating]:  # fmt: skip
    """``[folds, n, d]``: the embeddings of each fold's members, one after another."""
    model = load_semantic(load_bundle(folder), threads=1)
    members = np.asarray(model.folds)
    seen = []
    for case in cases:
        volume, center = case.load_volume(), case.findings[0].center_xyz_mm
        seen.append(see(volume, center, outlines(case, volume, center), model=model).embedding)
    whole = np.stack(seen)
    return np.stack([whole[:, members == fold].reshape(len(cases), -1) for fold in range(folds)])


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
    return unit(mean_of_slices(np.concatenate(tokens), pieces))
