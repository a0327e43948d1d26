"""LungNodule-SSM whole: DINOv2 pretrained on slices without labels, then heads on its frozen features.

Two protocols stand side by side: ``compat`` deals slices at random, as published, so that a patient is on both sides;
``honest`` deals patients, and even the pretraining has not seen those that are tested.

References:
    Noreen and Shaukat 2025, arXiv 2505.15120.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from spicula.core.bundle import Bundle
from spicula.core.errors import InputError
from spicula.networks.checkpoint import WEIGHTS
from spicula.pipelines.pretrain_dinov2 import load_backbone, nearest_neighbors_probe, pretrain_dinov2
from spicula.pipelines.pretraining_data import read_slices
from spicula.pipelines.run_folder import as_json, open_run, write_json
from spicula.pipelines.semantic_evaluation import read_scores
from spicula.pipelines.slice_table import TABLE, SliceTable
from spicula.pipelines.ssm_bundle import NAME, make_bundle
from spicula.pipelines.ssm_card import pretraining_of
from spicula.pipelines.ssm_evaluation import ALL, judge
from spicula.pipelines.ssm_features import features_of, pooled, slices_of
from spicula.pipelines.ssm_heads import HEADS
from spicula.pipelines.ssm_nodules import Nodules, nodules_of

EVALUATION, BACKBONES = "evaluation.json", "backbones"

Report = Callable[[str], None]


def train_ssm(
    data: Path,
    out: Path,
    *,
    shape: Any,
    recipe: Any,
    scans: Sequence[Path] = (),
    outline_run: Path | None = None,
    compare: Path | None = None,
    only: Sequence[str] = (),
    folds: int = 5,
    threads: int = 1,
    limit: int | None = None,
    report: Report = print,
) -> dict[str, Any] | None:
    """Pretrain without each fold's patients, and once on all; then teach and judge heads. Resumes after a kill.

    Args:
        data: Development data with ``lidc_crops`` and ``lidc_nodules``.
        out: The run folder: ``slices/``, ``backbones/<fold or all>/``, ``evaluation.json``, the
            bundle ``nodule-ssm/``.
        shape: Of the transformer.
        recipe: Of the pretraining.
        scans: Further scans, whose lung is added.
        outline_run: See :func:`spicula.pipelines.pretraining_data.read_slices`.
        compare: ``predictions.csv`` of ``train risk`` on the same folds, to compare with.
        only: Pretrainings to do now (``"0"`` ... or ``"all"``); all if empty. Several commands may share them.
        folds: Number of patient folds.
        threads: Of torch.
        limit: Only the first crops, for a trial.
        report: Takes one line of progress.

    Returns:
        What ``evaluation.json`` holds; None while pretrainings are lacking.

    Raises:
        InputError: ``out`` is a run with other arguments, an unknown name in ``only``, or what the pretraining raises.
    """
    names = [*(str(fold) for fold in range(folds)), ALL]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise InputError("only", got=repr(unknown[0]), expected=f"of {', '.join(names)}")
    arguments = {"shape": asdict(shape), "recipe": as_json(asdict(recipe)), "folds": folds, "limit": limit}
    open_run(out, "train ssm", arguments)
    table = read_slices(
        data, out / "slices", scans=scans, outline_run=outline_run, folds=folds, limit=limit, report=report
    )
    nodules = nodules_of(table, data, folds=folds)
    for name in only or names:
        held_out = [] if name == ALL else nodules.patients[nodules.fold_of == int(name)]
        rows = np.flatnonzero(~np.isin(table.patients, held_out))
        report(f"pretraining {name}: {len(rows)} slices of {len(set(table.patients[rows].tolist()))} patients")
        pretrain_dinov2(
            table, rows, out / BACKBONES / name, shape=shape, recipe=recipe, threads=threads, report=report,
            probe=nearest_neighbors_probe(table, data, rows),
        )  # fmt: skip
    lacking = [name for name in names if not (out / BACKBONES / name / WEIGHTS).is_file()]
    if lacking:
        report(f"not yet there: {', '.join(lacking)}")
        return None
    risk = None if compare is None else read_scores(compare, nodules.ids.tolist(), nodules.fold_of)
    result = judge(table, nodules, out / BACKBONES, risk=risk)
    write_json(out / EVALUATION, result, finite=True)
    ship(out, table, nodules, result, epochs=recipe.epochs)
    return result


def ship(out: Path, table: SliceTable, nodules: Nodules, evaluation: Mapping[str, Any], *, epochs: int) -> Bundle:
    """Write the bundle of the transformer that learned from all patients, with a forest taught on all nodules.

    Args:
        out: The run folder; the bundle goes to ``nodule-ssm`` in it.
        table: Slices.
        nodules: Theirs.
        evaluation: For the card.
        epochs: Of the pretraining.
    """
    backbone = load_backbone(out / BACKBONES / ALL)
    features = features_of(backbone, table, nodules.rows)["cls"]
    slices = slices_of(table, nodules.rows, nodules.ids, depth="all")
    forest = HEADS["forest"]().fit(pooled(features, slices), nodules.label)
    told = out / "slices" / TABLE
    outlines = json.loads(told.read_text(encoding="utf-8"))["facts"]["outlines"] if told.is_file() else ""
    return make_bundle(
        out / NAME, backbone, forest, evaluation=evaluation,
        pretraining=pretraining_of(table, epochs=epochs, outlines=outlines),
    )  # fmt: skip
