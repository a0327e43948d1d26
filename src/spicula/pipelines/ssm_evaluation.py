"""How good heads on the features of finished pretrainings are, in the published protocol and with patients apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.classifiers.ssm import Read, View
from spicula.core.extras import require
from spicula.metrics.bootstrap import bootstrap_difference, bootstrap_interval
from spicula.metrics.classification import auroc, counts_at
from spicula.pipelines.pretrain_dinov2 import load_backbone
from spicula.pipelines.risk_evaluation import difference, fold_mean, rounded
from spicula.pipelines.slice_table import SliceTable
from spicula.pipelines.ssm_features import Depth, Features, Rows, features_of, pooled, slices_of
from spicula.pipelines.ssm_heads import HEADS, SEED, beside, of_diameter, out_of_fold
from spicula.pipelines.ssm_nodules import Array, Nodules

ALL = "all"
"""Name of the pretraining that leaves nobody out: what ships, and what the published protocol uses."""

SHARES = (0.01, 0.1, 1.0)
"""Of the labels, for the curves."""


def judge(table: SliceTable, nodules: Nodules, backbones: Path, *, risk: Array | None = None) -> dict[str, Any]:
    """Heads on the features of finished pretrainings and of the same network untrained, in both protocols.

    Args:
        table: Slices.
        nodules: Theirs.
        backbones: Folder of the pretrainings, by fold and ``all``.
        risk: What nodule-risk says of the nodules out of the same folds, to compare with; None for nothing.
    """
    folds = [str(fold) for fold in np.unique(nodules.fold_of)]
    trained = [load_backbone(backbones / name) for name in folds]
    fresh = untrained(trained[0].shape)
    result: dict[str, Any] = {
        "nodules": len(nodules.ids), "patients": len(set(nodules.patients.tolist())),
        "slices": len(nodules.rows), "diameter_alone": judged(nodules, nodules.diameter_mm), "honest": {},
    }  # fmt: skip
    depths: tuple[Depth, ...] = ("middle", "all")
    slices = {depth: slices_of(table, nodules.rows, nodules.ids, depth=depth) for depth in depths}
    views: tuple[View, ...] = ("slice", "alone")
    whole: dict[str, list[Features]] = {"pretrained": [], "untrained": []}
    for view in views:
        learned = [features_of(one, table, nodules.rows, view=view) for one in trained]
        random = features_of(fresh, table, nodules.rows, view=view)
        result["honest"][view] = _of_view(learned, random, slices, nodules, risk)
        whole["pretrained"].append(np.stack([pooled(one["cls"], slices["all"]) for one in learned]))
        whole["untrained"].append(pooled(random["cls"], slices["all"]))
    beside_each_other = {name: np.concatenate(parts, axis=-1) for name, parts in whole.items()}
    result["honest"]["slice and alone"] = {"cls, all": _of_features(beside_each_other, nodules, risk, every_head=False)}
    result["compat"] = compat(table, nodules, load_backbone(backbones / ALL))
    return result


def _of_view(
    learned: Sequence[Mapping[Read, Features]], random: Mapping[Read, Features],
    slices: Mapping[Depth, Sequence[Rows]], nodules: Nodules, risk: Array | None,
) -> dict[str, Any]:  # fmt: skip
    result: dict[str, Any] = {}
    reads: tuple[Read, ...] = ("cls", "both")
    for read in reads:
        for depth, some in slices.items():
            whole = {
                "pretrained": np.stack([pooled(one[read], some) for one in learned]),
                "untrained": pooled(random[read], some),
            }
            result[f"{read}, {depth}"] = _of_features(whole, nodules, risk, every_head=(read, depth) == ("cls", "all"))
    return result


def _of_features(
    whole: Mapping[str, NDArray[np.float32]], nodules: Nodules, risk: Array | None, *, every_head: bool
) -> dict[str, Any]:
    label, fold_of = nodules.label, nodules.fold_of
    forest = {name: out_of_fold(f, label, fold_of) for name, f in whole.items()}
    diameter = of_diameter(nodules.diameter_mm)
    joined, other = (beside(whole[name], diameter, label, fold_of) for name in ("pretrained", "untrained"))
    found: dict[str, Any] = {
        "forest": {name: judged(nodules, score) for name, score in forest.items()},
        "gain_over_untrained": _gain(nodules, forest["pretrained"], forest["untrained"]),
        "with_diameter": judged(nodules, joined),
        "with_diameter_untrained": judged(nodules, other),
        "with_diameter_over_diameter": _gain(nodules, joined, nodules.diameter_mm),
    }
    if risk is not None:
        found["gain_over_risk"] = _gain(nodules, forest["pretrained"], risk)
        found["with_diameter_over_risk"] = _gain(nodules, joined, risk)
    if every_head:
        found["heads"] = {
            head: judged(nodules, out_of_fold(whole["pretrained"], label, fold_of, head=head)) for head in HEADS
        }
        found["labels"] = label_curves(whole, nodules)
    return found


def label_curves(whole: Mapping[str, NDArray[np.float32]], nodules: Nodules, *, draws: int = 5) -> dict[str, Any]:
    """AUROC of the forest by the share of patients whose labels it may use, mean of several draws."""
    curves: dict[str, Any] = {}
    for share in SHARES:
        of_share: dict[str, list[float]] = {name: [] for name in whole}
        for draw in range(draws if share < 1 else 1):
            taught = drawn(nodules, share, draw)
            for name, features in whole.items():
                score = out_of_fold(features, nodules.label, nodules.fold_of, taught=taught)
                of_share[name].append(fold_mean(nodules.label.astype(np.float64), score, nodules.fold_of))
        curves[f"{share:g}"] = {name: round(float(np.mean(values)), 4) for name, values in of_share.items()}
    return curves


def drawn(nodules: Nodules, share: float, draw: int) -> NDArray[np.bool_]:
    """Which nodules are of a share of the patients, at least four, drawn by chance: bool ``[n]``."""
    patients = np.unique(nodules.patients)
    count = max(4, round(share * len(patients)))
    return np.isin(nodules.patients, np.random.default_rng((SEED, draw)).permutation(patients)[:count])


def counts_at_half(label: NDArray[np.bool_], score: Array) -> dict[str, float]:
    """Accuracy, precision, recall and F1 of probabilities at 0.5."""
    counts = counts_at(label, score)
    found = {
        "accuracy": counts.accuracy, "precision": counts.precision, "recall": counts.sensitivity, "f1": counts.f1,
    }  # fmt: skip
    return {name: round(value, 4) for name, value in found.items()}


def compat(table: SliceTable, nodules: Nodules, backbone: Any) -> dict[str, Any]:
    """The published protocol: slices dealt at random, 70, 15 and 15 percent, the same patients on all sides.

    Returns:
        Accuracy, precision, recall, F1 and AUROC on the last part, for each published head; what it is worth is told
        by ``honest``.
    """
    label_of = dict(zip(nodules.ids.tolist(), nodules.label.tolist(), strict=True))
    label = np.array([label_of[name] for name in table.case_ids[nodules.rows]])
    features = features_of(backbone, table, nodules.rows)["cls"]
    order = np.random.default_rng(SEED).permutation(len(label))
    learn, test = order[: int(0.7 * len(order))], order[int(0.85 * len(order)) :]
    shared = np.isin(table.patients[nodules.rows][test], table.patients[nodules.rows][learn])
    result: dict[str, Any] = {
        "slices": {"train": len(learn), "test": len(test)},
        "test_slices_of_training_patients": round(float(shared.mean()), 3),
    }
    for head in ("forest", "tree", "knn"):
        score = HEADS[head]().fit(features[learn], label[learn]).predict_proba(features[test])[:, 1]
        result[head] = {**counts_at_half(label[test], score), "auroc": round(auroc(label[test], score), 4)}
    return result


def untrained(shape: Any, *, seed: int = 0) -> Any:
    """The same transformer with random weights."""
    torch = require("torch", extra="train")
    from spicula.networks.vit import VisionTransformer

    torch.manual_seed(seed)
    return VisionTransformer(shape).eval()


def judged(nodules: Nodules, score: Array) -> dict[str, Any]:
    """AUROC with its interval over patients, and the mean of the folds."""
    y = nodules.label.astype(np.float64)
    interval = bootstrap_interval(auroc, [y, score], nodules.patients)
    return {"auroc": rounded(interval), "mean_of_folds": round(fold_mean(y, score, nodules.fold_of), 4)}


def _gain(nodules: Nodules, score: Array, other: Array) -> dict[str, Any]:
    y = nodules.label.astype(np.float64)
    return difference(bootstrap_difference(auroc, y, score, other, nodules.patients))
