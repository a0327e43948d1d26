"""Lesion search whole: encoders pretrained without labels, tuning on pairs, a head that ships, one protocol for all.

References:
    arXiv 2311.11014 (SimCLR with Frangi's response and GeM pooling against a VAE; contrastive tuning of pairs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.datasets import lidc_nodules
from spicula.networks.checkpoint import WEIGHTS
from spicula.pipelines.pretrain_dinov2 import nearest_neighbors_probe
from spicula.pipelines.pretrain_regions import load_encoder, pretrain_regions
from spicula.pipelines.pretraining_data import read_slices
from spicula.pipelines.retrieval_protocol import Queries, judge_retrieval
from spicula.pipelines.retrieval_table import TABLE, write_table
from spicula.pipelines.retrieval_tuning import TuningRecipe, tune
from spicula.pipelines.risk_table import Outlines, Table, make_table
from spicula.pipelines.run_folder import as_json, open_run, write_json
from spicula.pipelines.search_arms import (
    ARMS,
    HEAD_ALONE,
    MAIN,
    ON_PAIRS,
    WITH_HEAD,
    SearchRecipe,
    middle_of,
    pretraining_of,
    shape_of,
)
from spicula.pipelines.search_bundle import INDEX, index_lidc, ship
from spicula.pipelines.search_head_fit import HeadRecipe, fit_head, vectors_of
from spicula.pipelines.search_nodules import (
    Pieces,
    as_in_use,
    cut_pieces,
    features_of_pieces,
    features_of_regions,
    unit,
)
from spicula.pipelines.search_others import measured_vectors, run_vectors
from spicula.pipelines.slice_table import SliceTable
from spicula.pipelines.train_risk import outlines_of_run

EVALUATION, ENCODERS, TUNED = "evaluation.json", "encoders", "tuned"
ALL = "all"
"""Name of the pretraining that leaves nobody out: what ships."""

VARIANTS = 4
"""Of each nodule's measured numbers, as for ``train risk``."""

AGAINST = ("diameter", "vae", MAIN)
"""What every embedding is compared with, query by query."""

Report = Callable[[str], None]
Vectors = dict[str, NDArray[np.floating]]


def train_retrieval(
    data: Path,
    out: Path,
    *,
    recipe: SearchRecipe | None = None,
    head: HeadRecipe | None = None,
    tuning: TuningRecipe | None = None,
    outline_run: Path | None = None,
    outlines: Outlines | None = None,
    arms: Sequence[str] = (),
    compare: Sequence[Path] = (),
    only: Sequence[str] = (),
    folds: int = 5,
    threads: int = 1,
    limit: int | None = None,
    report: Report = print,
) -> dict[str, Any] | None:
    """Pretrain, tune and judge in patient folds, then ship a bundle. Resumes after a kill.

    Args:
        data: Development data with ``lidc_crops``, ``lidc_nodules`` and ``lidc_xml``.
        out: The run folder: ``slices/``, ``pieces/``, ``table/``, ``encoders/<arm>/<fold or all>/``, ``tuned/<fold>/``,
            ``evaluation.json`` and ``retrieval.csv``, the bundle ``nodule-search/``, ``lidc-index/``.
        recipe: Of the pretrainings.
        head: Of the head that ships.
        tuning: Of the published tuning on pairs.
        outline_run: Run folder of ``train outline``, whose networks outline the nodules they did not learn from.
        outlines: Of the small volumes by other means, for a trial.
        arms: Names in :data:`spicula.pipelines.search_arms.ARMS` to pretrain and judge; all if empty. The main one is
            always among them.
        compare: Runs of ``train ssm`` and ``train semantic`` in the same folds, whose features stand beside.
        only: Of ``"0"`` ... and ``"all"``: pretrainings to do now; all if empty. Several commands may share them.
        folds: Number of patient folds.
        threads: Of torch.
        limit: Only the first crops and nodules, for a trial.
        report: Takes one line of progress.

    Returns:
        What ``evaluation.json`` holds; None while pretrainings are lacking.

    Raises:
        InputError: ``out`` is a run with other arguments, an unknown arm or fold, or what the pretraining raises.
    """
    recipe, head, tuning = recipe or SearchRecipe(), head or HeadRecipe(), tuning or TuningRecipe()
    names = [*map(str, range(folds)), ALL]
    _require_known("only", only, names)
    _require_known("arms", arms, list(ARMS))
    open_run(out, "train retrieval", arguments_of(recipe, head, tuning, folds=folds, limit=limit))
    table = as_in_use(
        read_slices(data, out / "slices", outline_run=outline_run, folds=folds, limit=limit, report=report)
    )
    cases = lidc_nodules.load_cases(data / "lidc_nodules")
    fold_of = lidc_nodules.patient_folds(cases, folds=folds)[:limit]
    cases = cases[:limit]
    chosen = [MAIN, *(arm for arm in arms or ARMS if arm != MAIN)]
    held_out = {
        str(fold): [c.patient_id for c, f in zip(cases, fold_of, strict=True) if f == fold] for fold in range(folds)
    }
    todo = [(arm, name) for arm in chosen for name in names if arm == MAIN or name != ALL]
    for arm, name in todo:
        if not only or name in only:
            _pretrain(table, data, out, arm, name, held_out.get(name, []), recipe, threads=threads, report=report)
    lacking = [f"{arm} {name}" for arm, name in todo if not (encoder_folder(out, arm, name) / WEIGHTS).is_file()]
    if lacking:
        report(f"not yet there: {', '.join(lacking)}")
        return None
    identity = "given"
    if outlines is None:
        outlines, identity = outlines_of_run(data, outline_run or out / "outline", cases, folds=folds, threads=threads)
    pieces = cut_pieces(cases, out / "pieces", outlines=outlines, identity=identity, report=report)
    known = make_table(
        data, out / "table", outlines=outlines, identity=identity, variants=VARIANTS, seed=0, limit=limit
    )
    vectors = _vectors(out, chosen, known, pieces, fold_of, recipe, head, tuning, report=report)
    vectors |= measured_vectors(known, fold_of) | run_vectors(compare, cases, pieces, outlines=outlines, folds=folds)
    result = judge_retrieval(vectors, queries_of(known, fold_of), against=[one for one in AGAINST if one in vectors])
    told = {"nodules": len(cases), "patients": len(set(known.patients.tolist())), "embeddings": result}
    write_json(out / EVALUATION, told, finite=True)
    write_table(out / TABLE, result)
    bundle = ship(out, encoder_folder(out, MAIN, ALL), known, pieces, told, recipe=recipe, head=head)
    index_lidc(data, out / INDEX, tuple(cases), bundle=bundle, outlines=outlines, report=report)
    return told


def arguments_of(
    recipe: SearchRecipe, head: HeadRecipe | None = None, tuning: TuningRecipe | None = None, *, folds: int = 5,
    limit: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What ``run.json`` says of a run of :func:`train_retrieval` with these arguments, as plain JSON values."""
    parts = {"recipe": asdict(recipe), "head": asdict(head or HeadRecipe()), "tuning": asdict(tuning or TuningRecipe())}
    found: dict[str, Any] = as_json({**parts, "folds": folds, "limit": limit})
    return found


def _require_known(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InputError(what, got=repr(unknown[0]), expected=f"of {', '.join(known)}")


def encoder_folder(out: Path, arm: str, name: str) -> Path:
    """Where a run keeps the encoder of an arm that has not seen a fold, or has seen all."""
    return out / ENCODERS / arm.replace(" + ", "-") / name


def _pretrain(
    table: SliceTable, data: Path, out: Path, arm: str, name: str, held_out: Sequence[str], recipe: SearchRecipe, *,
    threads: int, report: Report,
) -> None:  # fmt: skip
    rows = np.flatnonzero(table.marked & ~np.isin(table.patients, held_out))
    report(f"pretraining {arm}, {name}: {len(rows)} slices of {len(set(table.patients[rows].tolist()))} patients")
    pretraining = pretraining_of(ARMS[arm], recipe)

    def features(encoder: Any, some: NDArray[np.intp]) -> NDArray[np.float32]:
        return features_of_regions(encoder, table.hu[some], middle=pretraining.views.middle)

    pretrain_regions(
        table, rows, encoder_folder(out, arm, name), method=ARMS[arm].method, shape=shape_of(ARMS[arm], recipe),
        recipe=pretraining, probe=nearest_neighbors_probe(table, data, rows, features=features), threads=threads,
        report=report,
    )  # fmt: skip


def _vectors(
    out: Path, arms: Sequence[str], known: Table, pieces: Pieces, fold_of: NDArray[np.intp], recipe: SearchRecipe,
    head: HeadRecipe, tuning: TuningRecipe, *, report: Report,
) -> Vectors:  # fmt: skip
    """Vectors ``[folds, n, d]`` of every embedding: each fold's of networks that have not learned from its patients."""
    middle, folds = middle_of(recipe), range(int(fold_of.max()) + 1)
    vectors: Vectors = {"diameter": np.log(known.diameter_mm)[:, None]}
    raw: dict[str, list[NDArray[np.float32]]] = {}
    for arm in arms:
        for fold in folds:
            encoder = load_encoder(encoder_folder(out, arm, str(fold)), method=ARMS[arm].method, latent=recipe.latent)
            raw.setdefault(arm, []).append(features_of_pieces(encoder, pieces, middle=middle))
        vectors[arm] = unit(np.stack(raw[arm]))
    tuned = []
    for fold in folds:
        report(f"tuning without fold {fold}")
        encoder = tune(
            encoder_folder(out, MAIN, str(fold)), out / TUNED / str(fold), pieces, known.labels[:, 0].astype(np.intp),
            known.patients, np.flatnonzero(fold_of != fold), tuning, middle=middle,
        )  # fmt: skip
        tuned.append(features_of_pieces(encoder, pieces, middle=middle))
    vectors[ON_PAIRS] = unit(np.stack(tuned))
    for name, features in ((WITH_HEAD, raw[MAIN]), (HEAD_ALONE, None)):
        report(f"{name} ...")
        found = []
        for fold in folds:
            seen = features[fold] if features is not None else np.zeros((len(fold_of), 0), dtype=np.float32)
            fitted = fit_head(seen, known.features, known.labels, np.flatnonzero(fold_of != fold), head)
            found.append(vectors_of(fitted, seen, known.features))
        vectors[name] = np.stack(found)
    return vectors


def queries_of(known: Table, fold_of: NDArray[np.intp]) -> Queries:
    """What is to agree: malignancy by the readers' votes; solid, part-solid or ground glass; all traits' ratings."""
    truth = [case.findings[0].truth for case in known.cases]
    texture = np.array([texture_of(t) for t in truth])
    ratings = np.array([[t[name] for name in RATED] for t in truth])
    return Queries(
        known.patients, fold_of, {"malignancy": known.labels[:, 0].astype(np.intp), "texture": texture}, ratings
    )


def texture_of(truth: Mapping[str, float]) -> int:
    """0 ground glass, 1 part-solid, 2 solid, by the readers' rounded rating."""
    return 0 if truth["texture"] <= 1 else 2 if truth["texture"] >= 5 else 1


RATED = ("subtlety", "sphericity", "margin", "lobulation", "spiculation", "texture", "malignancy")
"""Ratings from 1 to 5 by which nodules are near to each other."""
