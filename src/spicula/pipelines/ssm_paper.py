"""LungNodule-SSM's checks on a finished ``train ssm``, beside its printed numbers.

Each check is kept in the run folder as it is done, so that a killed evaluation goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from spicula.core.bundle import sha256_of
from spicula.core.errors import InputError
from spicula.metrics.classification import auroc
from spicula.networks.checkpoint import WEIGHTS
from spicula.networks.vit import VitShape
from spicula.papers import Paper
from spicula.pipelines import ssm_checks as checks
from spicula.pipelines.paper_rows import Compared, Ours, Ran
from spicula.pipelines.pretrain_dinov2 import load_backbone, pretrain_dinov2
from spicula.pipelines.risk_evaluation import fold_mean
from spicula.pipelines.run_folder import RUN, write_json
from spicula.pipelines.slice_table import SliceTable, load_slice_table
from spicula.pipelines.ssm_evaluation import ALL, SHARES, counts_at_half, drawn, judged
from spicula.pipelines.ssm_features import Features, features_of, pooled, slices_of
from spicula.pipelines.ssm_finetune import tuning_recipe
from spicula.pipelines.ssm_heads import HEADS, out_of_fold
from spicula.pipelines.ssm_nodules import Nodules, nodules_of
from spicula.pipelines.ssm_pooling import attention_pooled_scores
from spicula.pipelines.ssm_volumes import read_volumes
from spicula.pipelines.train_ssm import BACKBONES, EVALUATION
from spicula.pretraining.dinov2 import compact_recipe

CHECKS = "checks"

LOSSES: Mapping[str, tuple[float, float, float]] = {
    "DINO, iBOT and KoLeo": (1.0, 1.0, 0.1), "without iBOT": (1.0, 0.0, 0.1), "without DINO": (0.0, 1.0, 0.1),
    "without KoLeo": (1.0, 1.0, 0.0), "iBOT a third": (1.0, 0.33, 0.1),
}  # fmt: skip
"""Coefficients of the pretraining's losses that are tried; each pretraining is short."""

LOSS_EPOCHS, LOSS_FOLD = 5, 0
FEW_STEPS, ALL_STEPS, DRAWS = 150, 800, 3
"""Of tuning with few labels and with all; and how often the few are drawn."""

TUNED = {"tuned end to end": False, "supervised from scratch": True}
"""Whether it begins with random weights."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is judged.

    Args:
        run: Folder of ``train ssm``.
        data: Development data.
        table: Its slices.
        nodules: Theirs.
        features: Class tokens ``[folds, slices, f]``, each fold's of the pretraining that has not seen its patients.
        mean: Their mean over each nodule's slices, ``[folds, n, f]``.
        outline_run: Run of ``train outline``, for the small volumes.
    """

    run: Path
    data: Path
    table: SliceTable
    nodules: Nodules
    features: Features
    mean: Features
    outline_run: Path | None


Check: TypeAlias = Callable[[Subject], dict[str, Any]]


def noreen_rows(
    paper: Paper, data: Path, run: Path, *, outline_run: Path | None = None, facts: Path | None = None,
    report: Report = print,
) -> Ran:  # fmt: skip
    """Run the checks.

    Args:
        paper: ``noreen2025``.
        data: Development data.
        run: Folder of a finished ``train ssm``.
        outline_run: Run of ``train outline``, for small volumes outlined by networks that have not seen the patient.
        facts: CSV of facts of patients, for late fusion.
        report: Takes one line of progress.

    Raises:
        InputError: The run is not finished, or the facts cannot be read.
    """
    subject = _subject(data, run, outline_run)
    evaluation = json.loads((run / EVALUATION).read_text(encoding="utf-8"))
    found: dict[str, Any] = {"evaluation": evaluation}
    for name, check in _CHECKS.items():
        kept = run / CHECKS / f"{name}.json"
        if not kept.is_file():
            report(f"{name} ...")
            kept.parent.mkdir(exist_ok=True)
            write_json(kept, check(subject), finite=True)
        found[name] = json.loads(kept.read_text(encoding="utf-8"))
    names = [*map(str, _folds(subject)), ALL]
    inputs = {f"{BACKBONES}/{name}": sha256_of(run / BACKBONES / name / WEIGHTS) for name in names}
    missing: tuple[str, ...] = ()
    if facts is None:
        missing = ("late fusion with clinical facts: name a CSV with a column patient_id with --facts",)
    else:
        found["facts"] = checks.with_facts(subject.mean, subject.nodules, facts)
    rows = tuple(_rows(paper, found))
    return Ran(
        rows=rows,
        notes=(
            "the label is whether readers take the nodule for malignant; the paper tells slices with a nodule from "
            "slices without, on other scans",
            "patients apart: heads and pretraining have not seen the patients that they are tested on",
        ),
        inputs=inputs,
        facts=found,
        missing=missing,
    )  # fmt: skip


def _folds(subject: Subject) -> list[int]:
    return [int(fold) for fold in np.unique(subject.nodules.fold_of)]


def _subject(data: Path, run: Path, outline_run: Path | None) -> Subject:
    if not (run / EVALUATION).is_file():
        raise InputError(f"{run}", got=f"no {EVALUATION}", expected="a finished run of 'spicula train ssm'")
    folds = int(json.loads((run / RUN).read_text(encoding="utf-8"))["arguments"]["folds"])
    table = load_slice_table(run / "slices")
    nodules = nodules_of(table, data, folds=folds)
    features = checks.learned_features(run, table, nodules)
    some = slices_of(table, nodules.rows, nodules.ids, depth="all")
    mean = np.stack([pooled(one, some) for one in features])
    return Subject(run, data, table, nodules, features, mean, outline_run)


def _heads(subject: Subject) -> dict[str, Any]:
    nodules = subject.nodules
    scores = {name: out_of_fold(subject.mean, nodules.label, nodules.fold_of, head=name) for name in HEADS}
    some = slices_of(subject.table, nodules.rows, nodules.ids, depth="all")
    scores["slices pooled by attention"] = attention_pooled_scores(
        subject.features, some, nodules.label, nodules.fold_of
    )
    found: dict[str, Any] = {name: judged(nodules, score) for name, score in scores.items()}
    found["forest at 0.5"] = counts_at_half(nodules.label, scores["forest"])
    return found


def _forest(subject: Subject) -> dict[str, Any]:
    return {"settings": checks.forest_sensitivity(subject.mean, subject.nodules)}


def _diameter(subject: Subject) -> dict[str, Any]:
    return {"sizes": checks.by_diameter(subject.run, subject.table, subject.nodules, subject.mean)}


def _volumetric(subject: Subject) -> dict[str, Any]:
    volumes = read_volumes(
        subject.data, subject.run / "volumes", outline_run=subject.outline_run, folds=len(_folds(subject))
    )
    return {
        "variants": checks.volumetric(subject.run, volumes, subject.nodules),
        "other_source": checks.other_source(subject.run, subject.table, volumes, subject.nodules),
    }


def _tuning(subject: Subject) -> dict[str, Any]:
    nodules, found = subject.nodules, {}
    for name, scratch in TUNED.items():
        recipe = tuning_recipe(ALL_STEPS, scratch=scratch)
        score = checks.tuned(subject.run, subject.table, nodules, recipe=recipe, scratch=scratch)
        found[name] = judged(nodules, score)
    return found


def _labels(subject: Subject) -> dict[str, Any]:
    """AUROC by the share of patients whose labels may be used, mean and deviation of several draws."""
    nodules = subject.nodules
    y = nodules.label.astype(np.float64)
    found: dict[str, Any] = {}
    for share in SHARES[:-1]:
        by_way: dict[str, list[float]] = {}
        for draw in range(DRAWS):
            taught = drawn(nodules, share, draw)
            for head in ("forest", "linear"):
                score = out_of_fold(subject.mean, nodules.label, nodules.fold_of, head=head, taught=taught)
                by_way.setdefault(f"{head} on frozen features", []).append(fold_mean(y, score, nodules.fold_of))
            for name, scratch in TUNED.items():
                recipe = tuning_recipe(FEW_STEPS, scratch=scratch, seed=draw)
                score = checks.tuned(subject.run, subject.table, nodules, recipe=recipe, scratch=scratch, taught=taught)
                by_way.setdefault(name, []).append(fold_mean(y, score, nodules.fold_of))
        found[f"{share:g}"] = {
            name: {"mean": round(float(np.mean(a)), 4), "sd": round(float(np.std(a)), 4)} for name, a in by_way.items()
        }
    return found


def _losses(subject: Subject) -> dict[str, Any]:
    """Short pretrainings with other coefficients, without one fold's patients; the forest on that fold."""
    nodules, arguments = subject.nodules, json.loads((subject.run / RUN).read_text(encoding="utf-8"))["arguments"]
    shape, recipe = VitShape(**arguments["shape"]), compact_recipe(epochs=LOSS_EPOCHS)
    tested = nodules.fold_of == LOSS_FOLD
    rows = np.flatnonzero(~np.isin(subject.table.patients, nodules.patients[tested]))
    some = slices_of(subject.table, nodules.rows, nodules.ids, depth="all")
    found: dict[str, Any] = {}
    for name, weights in LOSSES.items():
        folder = subject.run / CHECKS / "losses" / name.replace(" ", "-")
        pretrain_dinov2(
            subject.table, rows, folder, shape=shape, recipe=replace(recipe, weights=weights), report=lambda _: None
        )
        features = pooled(features_of(load_backbone(folder), subject.table, nodules.rows)["cls"], some)
        of_fold = HEADS["forest"]().fit(features[~tested], nodules.label[~tested]).predict_proba(features[tested])[:, 1]
        found[name] = {
            "weights": list(weights), "auroc": round(float(auroc(nodules.label[tested], of_fold)), 4),
            "nodules": int(tested.sum()),
        }  # fmt: skip
    return found


_CHECKS: Mapping[str, Check] = {
    "heads": _heads, "forest": _forest, "diameter": _diameter, "volumetric": _volumetric, "labels": _labels,
    "tuning": _tuning, "losses": _losses,
}  # fmt: skip


def _ours(judged: Mapping[str, Any]) -> Ours:
    interval = judged["auroc"]
    return Ours(interval["value"], interval["low"], interval["high"], "bootstrap")


def _rows(paper: Paper, found: Mapping[str, Any]) -> list[Compared]:
    """The checks as rows under the paper's headings."""
    honest = found["evaluation"]["honest"]["slice"]["cls, all"]

    def row(part: str, what: str, ours: Ours, metric: str = "auroc") -> Compared:
        return Compared(part, what, None, metric, ours, same_data=False)

    compat = found["evaluation"]["compat"]["forest"]
    apart = {**found["heads"]["forest at 0.5"], "auroc": honest["forest"]["pretrained"]["auroc"]["value"]}
    part = "As published: slices dealt at random, the same patients on both sides"
    rows = [
        Compared(part, "forest on the class token", number, number.metric, Ours(compat[number.metric]), same_data=False)
        for number in paper.numbers
    ]
    part = "Patients apart, nodules"
    rows += [row(part, "forest on the class token", Ours(apart[name]), name) for name in compat if name in apart]
    part = "Experiment 1: what the features tell, forest"
    rows += [row(part, name, _ours(honest["forest"][name])) for name in ("pretrained", "untrained")]
    both = found["evaluation"]["honest"]["slice and alone"]["cls, all"]
    rows += [row(part, "with the diameter", _ours(both["with_diameter"]))]
    rows += [row(part, "the diameter alone", _ours(found["evaluation"]["diameter_alone"]))]
    part = "Experiment 2: small nodules (patches of 7 mm), AUROC of the forest"
    rows += [
        row(part, f"{s['from_mm']:g} to {s['to_mm'] or '...'} mm, attention {s['attention_on_nodule']:.2f} on "
            f"{s['area_of_nodule']:.2f} of the area", Ours(s["auroc"], n=s["nodules"], n_positive=s["malignant"]))
        for s in found["diameter"]["sizes"] if s["auroc"] is not None
    ]  # fmt: skip
    part = "Experiment 3 and check 3: heads"
    rows += [row(part, name, _ours(one)) for name, one in found["heads"].items() if "auroc" in one]
    rows += [row(part, name, _ours(one)) for name, one in found["tuning"].items()]
    part = "Check 1: another source (the nodule alone)"
    rows += [row(part, name, _ours(one)) for name, one in found["volumetric"]["other_source"].items()]
    part = "Check 2: the forest's parameters, mean of folds"
    for one in found["forest"]["settings"]:
        name = ", ".join(f"{key} {value}" for key, value in one.items() if key not in ("mean_of_folds", "sd"))
        rows.append(row(part, name, Ours(one["mean_of_folds"], sd=one["sd"])))
    part = "Check 2: coefficients of the losses, short pretrainings, one fold"
    rows += [row(part, name, Ours(one["auroc"], n=one["nodules"])) for name, one in found["losses"].items()]
    part = "Question 4: one slice against the volume (the nodule alone), forest"
    for name, one in found["volumetric"]["variants"].items():
        rows += [row(part, f"{name}, {head.replace('_', ' ')}", _ours(judged)) for head, judged in one.items()]
    for share, ways in found["labels"].items():
        part = f"Few labels: {100 * float(share):g} % of the patients"
        rows += [row(part, name, Ours(one["mean"], sd=one["sd"])) for name, one in ways.items()]
    part = "Question 3: with the facts of the patients"
    facts = {name: one for name, one in found.get("facts", {}).items() if name != "columns"}
    rows += [row(part, name, _ours(one)) for name, one in facts.items()]
    return rows
