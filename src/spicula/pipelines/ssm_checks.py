"""The paper's own checks and open questions on the features of a finished ``train ssm``.

References:
    Noreen and Shaukat 2025, arXiv 2505.15120: its first experiments, next checks and open questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.extras import require
from spicula.core.slice_reading import share_inside
from spicula.metrics.classification import auroc
from spicula.pipelines.pretrain_dinov2 import load_backbone
from spicula.pipelines.risk_evaluation import fold_mean
from spicula.pipelines.semantic_table import SemanticTable
from spicula.pipelines.slice_table import SliceTable
from spicula.pipelines.ssm_evaluation import judged, untrained
from spicula.pipelines.ssm_facts import read_facts
from spicula.pipelines.ssm_features import Features, Rows, features_of, middle_slices, pooled, slices_of
from spicula.pipelines.ssm_finetune import TuningRecipe, tuned_scores
from spicula.pipelines.ssm_heads import SEED, beside, of_diameter, out_of_fold
from spicula.pipelines.ssm_nodules import Nodules
from spicula.pipelines.ssm_pooling import attention_pooled_scores
from spicula.pipelines.ssm_volumes import VARIANTS, volume_features
from spicula.pipelines.train_ssm import BACKBONES
from spicula.transforms.nodule_slices import PATCHES

SIZES_MM = ((0.0, 6.0), (6.0, 10.0), (10.0, np.inf))
"""Diameters that are told apart."""

TREES, DEPTHS, LEAVES, SHARES = (10, 30, 100, 300, 1000), (3, 5, 10), (5, 20), ("log2", 0.3)
"""Of the forest, one changed at a time: trees, deepest, fewest nodules of a leaf, features of a split."""

NEAR_HU = 128
"""Of 255: from here on a pixel of ``near`` is counted as the nodule."""

Array = NDArray[np.float64]


def backbones_of(run: Path, nodules: Nodules) -> Iterator[tuple[int, Any]]:
    """Each fold, and the transformer that has not seen its patients."""
    for fold in np.unique(nodules.fold_of).tolist():
        yield fold, load_backbone(run / BACKBONES / str(fold))


def rows_of(volumes: SemanticTable, nodules: Nodules) -> list[int]:
    """The row of each nodule in a table of small volumes."""
    place = {case.case_id: row for row, case in enumerate(volumes.cases)}
    return [place[name] for name in nodules.ids.tolist()]


def learned_features(run: Path, table: SliceTable, nodules: Nodules) -> Features:
    """Class tokens ``[folds, slices, f]``, each fold's of the pretraining that has not seen its patients."""
    return np.stack([features_of(backbone, table, nodules.rows)["cls"] for _, backbone in backbones_of(run, nodules)])


def forest_sensitivity(features: Features, nodules: Nodules) -> list[dict[str, Any]]:
    """The forest's AUROC by its number of trees, depth and leaves, one changed at a time, over three seeds."""
    ensemble = require("sklearn.ensemble", extra="train")
    settings: list[dict[str, Any]] = [{"n_estimators": trees} for trees in TREES]
    settings += [{"max_depth": depth} for depth in DEPTHS]
    settings += [{"min_samples_leaf": leaf} for leaf in LEAVES]
    settings += [{"max_features": share} for share in SHARES]
    found = []
    for setting in settings:
        areas = []
        for seed in range(3):

            def head(seed: int = seed, setting: Mapping[str, Any] = setting) -> Any:
                return ensemble.RandomForestClassifier(**{"n_estimators": 100, **setting}, random_state=SEED + seed)

            score = out_of_fold(features, nodules.label, nodules.fold_of, head=head)
            areas.append(fold_mean(nodules.label.astype(np.float64), score, nodules.fold_of))
        found.append(
            {**setting, "mean_of_folds": round(float(np.mean(areas)), 4), "sd": round(float(np.std(areas)), 4)}
        )
    return found


def by_diameter(run: Path, table: SliceTable, nodules: Nodules, features: Features) -> list[dict[str, Any]]:
    """Of small, middle and large nodules: sensitivity and specificity of the forest at 0.5, and where it looks."""
    torch = require("torch", extra="train")
    from spicula.pretraining.ct_views import undisturbed

    score = out_of_fold(features, nodules.label, nodules.fold_of)
    middle = [int(some[0]) for some in slices_of(table, nodules.rows, nodules.ids)]
    on_nodule, of_area = np.zeros(len(nodules.ids)), np.zeros(len(nodules.ids))
    for fold, backbone in backbones_of(run, nodules):
        side = PATCHES * backbone.shape.patch
        of_fold = np.flatnonzero(nodules.fold_of == fold)
        rows = nodules.rows[[middle[n] for n in of_fold]]
        hu = torch.from_numpy(middle_slices(table, rows, side=side))
        with torch.inference_mode():
            shares = backbone(undisturbed(hu), attention=True).attention.mean(dim=1).numpy()
        first = (table.near.shape[1] - side) // 2
        inside = table.near[rows][:, first : first + side, first : first + side] >= NEAR_HU
        for n, share, where in zip(of_fold, shares, inside, strict=True):
            on_nodule[n], of_area[n] = share_inside(share.reshape(PATCHES, PATCHES), where)
    found = []
    for low, high in SIZES_MM:
        some = (nodules.diameter_mm >= low) & (nodules.diameter_mm < high)
        positive, negative = some & nodules.label, some & ~nodules.label
        found.append({
            "from_mm": low, "to_mm": None if np.isinf(high) else high, "nodules": int(some.sum()),
            "malignant": int(positive.sum()),
            "sensitivity": round(float((score[positive] >= 0.5).mean()), 4) if positive.any() else None,
            "specificity": round(float((score[negative] < 0.5).mean()), 4) if negative.any() else None,
            "auroc": round(float(auroc(nodules.label[some], score[some])), 4)
            if positive.any() and negative.any() else None,
            "attention_on_nodule": round(float(np.median(on_nodule[some])), 4),
            "area_of_nodule": round(float(np.median(of_area[some])), 4),
        })  # fmt: skip
    return found


def volumetric(run: Path, volumes: SemanticTable, nodules: Nodules) -> dict[str, Any]:
    """The forest on one slice against neighboring slices, three planes and all slices, of nodules alone."""
    rows, backbones = rows_of(volumes, nodules), [backbone for _, backbone in backbones_of(run, nodules)]
    found: dict[str, Any] = {}
    for variant in VARIANTS:
        seen = [volume_features(one, volumes, variant) for one in backbones]
        places = [seen[0][1][row] for row in rows]
        learned = np.stack([features for features, _ in seen])
        mean = np.stack([pooled(features, places) for features in learned])
        random, _ = volume_features(untrained(backbones[0].shape), volumes, variant)
        found[variant] = {
            "forest": judged(nodules, out_of_fold(mean, nodules.label, nodules.fold_of)),
            "forest_untrained": judged(nodules, out_of_fold(pooled(random, places), nodules.label, nodules.fold_of)),
            "linear": judged(nodules, out_of_fold(mean, nodules.label, nodules.fold_of, head="linear")),
        }
        if variant in ("planes", "slices"):
            score = attention_pooled_scores(learned, places, nodules.label, nodules.fold_of)
            found[variant]["attention_pooled"] = judged(nodules, score)
    return found


def other_source(run: Path, table: SliceTable, volumes: SemanticTable, nodules: Nodules) -> dict[str, Any]:
    """A forest taught on the 8-bit crops, tested on slices of the small volumes of other patients, and within each.

    Both show the nodule alone; the crops went through other hands: 8 bits, other slices, other outlines.
    """
    rows = rows_of(volumes, nodules)
    crops: list[Features] = []
    small: list[Features] = []
    some = slices_of(table, nodules.rows, nodules.ids)
    for _, backbone in backbones_of(run, nodules):
        crops.append(pooled(features_of(backbone, table, nodules.rows, view="alone")["cls"], some))
        features, places = volume_features(backbone, volumes, "middle")
        small.append(pooled(features, [places[row] for row in rows]))
    pairs = {"crops to crops": (crops, crops), "crops to volumes": (crops, small), "volumes to volumes": (small, small)}
    found = {}
    for name, (learn, test) in pairs.items():
        score = out_of_fold(np.stack(learn), nodules.label, nodules.fold_of, tested=np.stack(test))
        found[name] = judged(nodules, score)
    return found


def tuned(
    run: Path, table: SliceTable, nodules: Nodules, *, recipe: TuningRecipe, scratch: bool,
    taught: NDArray[np.bool_] | None = None,
) -> Array:  # fmt: skip
    """Logits ``[n]`` out of fold of the transformer tuned end to end, from pretrained or from random weights.

    Args:
        run: Of ``train ssm``.
        table: Slices.
        nodules: Theirs.
        recipe: How it is tuned.
        scratch: From random weights: supervised training from scratch.
        taught: bool ``[n]``, nodules whose labels may be used; all if None.
    """
    label_of = dict(zip(nodules.ids.tolist(), nodules.label.tolist(), strict=True))
    names = table.case_ids[nodules.rows]
    scores = np.empty(len(nodules.ids))
    allowed = set(nodules.ids[taught].tolist()) if taught is not None else set(nodules.ids.tolist())
    for fold, backbone in backbones_of(run, nodules):
        tested = set(nodules.ids[nodules.fold_of == fold].tolist())
        learn: Rows = nodules.rows[[name in allowed and name not in tested for name in names.tolist()]]
        judge: Rows = nodules.rows[[name in tested for name in names.tolist()]]
        start = untrained(backbone.shape, seed=fold) if scratch else backbone
        labels = {int(row): label_of[str(table.case_ids[row])] for row in learn}
        said = tuned_scores(start, table, learn, labels, judge, recipe)
        shown = table.case_ids[judge]
        for n in np.flatnonzero(nodules.fold_of == fold):
            scores[n] = said[shown == nodules.ids[n]].mean()
    return scores


def with_facts(features: Features, nodules: Nodules, path: Path) -> dict[str, Any]:
    """The forest with and without the facts that a user has, and these alone; always beside the diameter too."""
    names, facts = read_facts(path, nodules.patients.tolist())
    diameter = of_diameter(nodules.diameter_mm)
    both = np.concatenate([diameter, facts], axis=1)
    none = np.zeros((len(facts), 0))

    def told(columns: Array, seen: NDArray[np.floating[Any]]) -> dict[str, Any]:
        return judged(nodules, beside(seen, columns, nodules.label, nodules.fold_of))

    return {
        "columns": list(names),
        "features": told(none, features), "features, facts": told(facts, features), "facts": told(facts, none),
        "features, diameter": told(diameter, features), "features, diameter, facts": told(both, features),
        "diameter, facts": told(both, none),
    }  # fmt: skip
