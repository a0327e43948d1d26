"""Train detection on a vision transformer's tokens, judge it on scans and patients it never saw, write its bundle."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.bundle import Bundle, sha256_of, write_bundle
from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.datasets import lidc_nodules
from spicula.detectors import dino
from spicula.measure.lungs import segment_lungs
from spicula.metrics.froc import LUNA16_RATES, sensitivity_at
from spicula.metrics.segmentation import dice
from spicula.networks import checkpoint
from spicula.pipelines import dino_detection_table as tables
from spicula.pipelines import evaluate_detection as judging
from spicula.pipelines import pretrain_dinov2, train_detection
from spicula.pipelines.detection_crops import TEST_SCAN, Host, load_host
from spicula.pipelines.dino_detection_fit import Recipe, detector_of, fit
from spicula.pipelines.dino_detection_table import DetectionTable, Records, Stacked
from spicula.pipelines.run_folder import open_run, write_json
from spicula.pipelines.train_detection import FOLD_OF
from spicula.transforms.imagenet import MEAN, STD

TEST_NODULE = judging.Truth("LIDC-IDRI-0001_1", TEST_SCAN, (56.21, 86.34, -115.87), 23.35, 5.0)
"""The one nodule of the test scan, as LUNA16 has it."""

SIZES = {"under 6 mm": (0.0, 6.0), "6 to 10 mm": (6.0, 10.0), "10 mm and more": (10.0, math.inf)}


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    out: Path
    work: Path
    data: Path
    view: dino.View
    recipe: Recipe
    backbone: Any
    compat: bool
    tested: int
    bf16: bool


def train_dino_detection(
    data: Path,
    out: Path,
    *,
    backbone: Path,
    shape: Any = None,
    frozen: bool = True,
    compat: bool = False,
    view: dino.View | None = None,
    recipe: Recipe | None = None,
    left_out: Sequence[str] = tuple(FOLD_OF),
    tested: int = 80,
    limit: int | None = None,
    work: Path | None = None,
    bf16: bool = False,
    report: Callable[[str], None] = print,
) -> Bundle:
    """Train detection on a backbone and give its bundle.

    For each scan left out a head is trained without it and without a fifth of the patients, and finds their nodules in
    it. That without :data:`TEST_SCAN`, of which nothing is ever learned, is shipped. A run that was cut off goes on.

    Args:
        data: Folder of the development data (``lidc_nodules``, ``scans``).
        out: The run's folder: ``run.json``, tokens, checkpoints, trials, ``evaluation.json`` and the bundle.
        backbone: Weights of a vision transformer, see :func:`open_backbone`.
        shape: A :class:`spicula.networks.vit.VitShape`, where the weights do not tell it.
        frozen: Learn the head alone, on tokens computed once; else the backbone too.
        compat: Train the published head too and judge it beside the dense one; needs ``frozen``.
        view: How slices are shown; the default one, with the backbone's patch, if None.
        recipe: How heads are trained; :class:`Recipe` as it is if None.
        left_out: Scans to test on, one network each; with :data:`TEST_SCAN` alone nothing is calibrated.
        tested: Most nodules of the test patients that are set into each scan left out, drawn at random.
        limit: Most nodules of a fold to learn from, for trials.
        work: Where slices are kept, for runs on several backbones; ``out`` if None.
        bf16: Let the backbone compute in bfloat16, where it is frozen.
        report: Takes one line of progress.

    Raises:
        MissingExtraError: torch, safetensors or onnx is not installed.
        InputError: Data or weights are unfit, ``out`` is another run, or a loss is not finite (checkpoints are kept).
    """
    for module in ("torch", "safetensors", "onnx", "onnxscript"):
        require(module, extra="train")
    recipe, network = recipe or Recipe(), open_backbone(backbone, shape=shape)
    view = view or dino.View(patch=network.shape.patch)
    _check(view, network, left_out, frozen=frozen, compat=compat)
    out.mkdir(parents=True, exist_ok=True)
    file = backbone / "weights.safetensors" if backbone.is_dir() else backbone
    settings = {"frozen": frozen, "compat": compat, "tested": tested, "limit": limit, "bf16": bf16}
    made_of = {"shape": asdict(network.shape), "view": asdict(view), "recipe": asdict(recipe)}
    open_run(out, "train dino detection", {"data": data.name, "backbone": sha256_of(file), **settings, **made_of})
    require("torch", extra="train").set_num_threads(recipe.threads)
    run = _Run(out, work or out, data, view, recipe, network, compat, tested, bf16 and frozen)
    table = tables.load_or_cut(data, run.work, view=view, seed=recipe.seed, limit=limit, report=report)
    made = tables.load_or_make_tokens(table, network, out / "tokens", bf16=bf16, report=report) if frozen else None
    for scan in (scans := [scan for scan in FOLD_OF if scan in {*left_out, TEST_SCAN}]):
        _left_out(run, table, made, scan)
        report(f"tested on {scan}")
    return _ship(run, table, scans)


def open_backbone(path: Path, *, shape: Any = None) -> Any:
    """A vision transformer in evaluation, of a pretraining's folder or of a file of DINOv2's weights, read strictly.

    Where ``shape`` is None a file's weights tell it, see :func:`spicula.networks.vit_weights.shape_of`.
    """
    from spicula.networks import vit, vit_weights

    if path.is_dir():
        return pretrain_dinov2.load_backbone(path)
    if shape is None:
        return vit_weights.network_of(path)
    network = vit.VisionTransformer(shape)
    vit_weights.load_strictly(network, vit_weights.read_dinov2(path), source=str(path))
    return network.eval()


def _check(view: dino.View, network: Any, left_out: Sequence[str], *, frozen: bool, compat: bool) -> None:
    if view.patch != network.shape.patch:
        raise InputError("view's patch", got=view.patch, expected=f"the backbone's {network.shape.patch}")
    if compat and not frozen:
        raise InputError("compat", got="a backbone that is learned", expected="frozen=True", hint="as published")
    if unknown := sorted(set(left_out) - set(FOLD_OF)):
        raise InputError("left_out", got=unknown, expected=f"some of {list(FOLD_OF)}")


def rows_to_learn(table: DetectionTable, scan: str) -> Records:
    """Slices that neither lie in a scan nor show a nodule of its test patients; never any of :data:`TEST_SCAN`."""
    return np.flatnonzero((table.scan != scan) & (table.scan != TEST_SCAN) & (table.fold != FOLD_OF[scan]))


def _left_out(run: _Run, table: DetectionTable, tokens: tuple[Stacked, Any] | None, scan: str) -> None:
    """Train without a scan and without its test patients, then find their nodules in it."""
    from spicula.networks.dino_detection import TorchHeads, train_published

    folder, rows = run.out / f"without-{scan}", rows_to_learn(table, scan)
    weights = fit(table, tokens[0] if tokens else None, rows, folder, run.recipe, backbone=run.backbone)
    if (folder / "tested.json").is_file():
        return
    published = None
    if run.compat and tokens:
        positive, usable, boxes = tables.slice_labels(table)
        some = rows[usable[rows]]
        said, epochs = tokens[1][some], run.recipe.epochs
        published = train_published(said, positive[some], boxes[some], epochs=epochs, seed=run.recipe.seed)
    heads = TorchHeads(detector_of(run.backbone, run.recipe, weights), published, bf16=run.bf16)
    rng = np.random.default_rng(run.recipe.seed)
    cases = tables.some_of_fold(run.data / "lidc_nodules", FOLD_OF[scan], rng, most=run.tested)
    _test(run, load_host(run.data, scan, run.work), cases, heads, folder)


def _look(slices: dino.Slices, heads: Any) -> tuple[dict[str, Any], NDArray[np.float32] | None]:
    """Findings of each head, and the outline logits ``[fields, slices, rows, columns]`` if they were learned."""
    heads.classes, heads.outlines, limit = [], [], judging.MOST_FINDINGS
    found = {"dense": dino.detect(slices, heads.dense, view=slices.view, limit=limit)}
    if heads.published is not None:
        found["published"] = dino.one_box_a_slice(slices, heads.boxes, view=slices.view, limit=limit)
    if not heads.outlines:
        return found, None
    outlines = np.concatenate(heads.outlines)
    return found, outlines.reshape(len(slices.corners), len(slices.shown), *outlines.shape[1:])


def _test(run: _Run, host: Host, cases: Sequence[Any], heads: Any, folder: Path) -> None:
    """Find nodules set into copies of a scan and, in the test scan, its own nodule; write what was found."""
    known = tuple(judging.Truth(k.id, host.name, k.center_xyz_mm, k.diameter_mm or -1.0, 5.0) for k in host.known)
    trials, outlined = dict[str, list[judging.Trial]](), list[dict[str, Any]]()
    root, settings = run.data / "lidc_nodules", {"seed": run.recipe.seed, "per_copy": judging.PER_COPY}
    for each in judging.copies(host, cases, root, **settings):
        slices = dino.cut_slices(each.volume, run.view, lungs=segment_lungs(each.volume))
        found, outlines = _look(slices, heads)
        for name, findings in found.items():
            pairs = tuple((f.center_xyz_mm, float(f.score or 0.0)) for f in findings)
            truths = tuple(truth for truth, _ in each.placed)
            trials.setdefault(name, []).append(judging.Trial(host.name, each.name, truths, known, pairs))
        if outlines is not None:
            outlined += [_outlined(slices, outlines, truth, mask) for truth, mask in each.placed]
    for name, tried in trials.items():
        judging.write_trials(folder / f"trials-{name}.json", tried)
    own = _own_nodule(run, host, heads) if host.name == TEST_SCAN else None
    write_json(folder / "tested.json", {"outlines": outlined, "whole series": own})


def _outlined(slices: dino.Slices, outlines: NDArray[np.float32], truth: judging.Truth, mask: Any) -> dict[str, Any]:
    """Dice of the coarse outline at a nodule."""
    found = tables.outline_at(slices, outlines, truth.center_xyz_mm, truth.diameter_mm)
    return {"nodule": truth.case_id, "diameter_mm": truth.diameter_mm, "dice": round(dice(found, mask), 4)}


def _own_nodule(run: _Run, host: Host, heads: Any) -> dict[str, Any]:
    """The test scan as it is: where its one nodule stands among the findings, and how long it took."""
    started = time.perf_counter()
    slices = dino.cut_slices(host.volume, run.view)
    found, outlines = _look(slices, heads)
    told: dict[str, Any] = {"seconds": round(time.perf_counter() - started, 1), "slices": len(slices.shown)}
    for name, findings in found.items():
        told[name] = {"findings": len(findings), "rank of the nodule": None}
        for n, hit in enumerate(findings, start=1):
            away = math.dist(hit.center_xyz_mm, TEST_NODULE.center_xyz_mm)
            if away < TEST_NODULE.diameter_mm / 2:
                told[name]["rank of the nodule"] = n
                told[name] |= {"score": hit.score, "away_mm": away, "diameter_mm": hit.diameter_mm}
                break
    if outlines is not None:
        mask = lidc_nodules.load_mask(run.data / "lidc_nodules", TEST_NODULE.case_id)
        told["outline"] = _outlined(slices, outlines, TEST_NODULE, mask)
    return told


def _froc(trials: Sequence[judging.Trial]) -> dict[str, Any]:
    """LUNA16's seven sensitivities and their mean, and what :func:`evaluate_detection.summary` tells by size."""
    at = sensitivity_at(judging.matched(trials))
    official = {f"{rate:g}": round(float(value), 4) for rate, value in zip(LUNA16_RATES, at, strict=True)}
    return {"sensitivity at false a scan": official, "cpm": round(float(at.mean()), 4), **judging.summary(trials)}


def _ship(run: _Run, table: DetectionTable, scans: Sequence[str]) -> Bundle:
    """Evaluate all trials, calibrate on those of other scans than the test scan, and write the bundle."""
    from spicula.networks.dino_detection import detector_to_onnx

    folders = {scan: run.out / f"without-{scan}" for scan in scans}
    told = {scan: json.loads((folder / "tested.json").read_text("utf-8")) for scan, folder in folders.items()}
    trials = {
        name: [t for folder in folders.values() for t in judging.read_trials(folder / f"trials-{name}.json")]
        for name in ("dense", "published")[: 1 + run.compat]
    }
    result: dict[str, Any] = {name: _froc(each) for name, each in trials.items()}
    result["test scan as it is"] = told[TEST_SCAN]["whole series"]
    found = np.array([(o["diameter_mm"], o["dice"]) for each in told.values() for o in each["outlines"]]).reshape(-1, 2)
    for name, (low, high) in SIZES.items():
        each = found[(found[:, 0] >= low) & (found[:, 0] < high), 1]
        if len(each):
            facts = {"n": len(each), "mean": round(each.mean(), 4), "median": round(float(np.median(each)), 4)}
            result.setdefault("dice of the outline", {})[name] = facts
    others = [trial for trial in trials["dense"] if trial.scan != TEST_SCAN]
    calibration = judging.calibrate(others) if others else None
    false = train_detection.FALSE_A_SCAN
    point = judging.operating_point(others, calibration, false_a_scan=false) if calibration else {}
    write_json(run.out / "evaluation.json", result)
    detector = detector_of(run.backbone, run.recipe, checkpoint.finished_weights(folders[TEST_SCAN]))
    manifest = {
        "name": dino.TASK, "version": version("spicula"), "task": dino.TASK, "card": _card(result, table),
        "preprocessing": {"view": asdict(run.view), "mean": MEAN, "std": STD, "calibration": calibration},
        "outputs": {"channels": "heat, size, offset row, offset column, outline", "operating_point": point},
    }  # fmt: skip
    return write_bundle(run.out / dino.TASK, manifest, {"network.onnx": detector_to_onnx(detector, *run.view.shape)})


def _card(metrics: Mapping[str, Any], table: DetectionTable) -> dict[str, Any]:
    learned = int(np.isin(table.nodules[:, 0], rows_to_learn(table, TEST_SCAN)).sum())
    use, host = f"nodules of four fifths of 441 patients, {learned} times; never {TEST_SCAN}", "lung that receives them"
    sources = (
        ("LIDC-IDRI", "CC BY 3.0", "10.7937/K9/TCIA.2015.LO9QL9SX", use),
        ("Lung-Fused-CT-Pathology (LungFCP-01-0001)", "CC BY 3.0", "10.7937/K9/TCIA.2018.SMT36LPN", host),
        ("PyRadiomics sample CTs lung1 and lung2", "BSD-3-Clause", "10.1158/0008-5472.CAN-17-0339", host),
    )
    return {
        "intended_use": "Research: proposes places in a chest CT where a nodule may be. Not a medical device.",
        "data": [dict(zip(("name", "licence", "doi", "use"), source, strict=True)) for source in sources],
        "licence": "Apache-2.0 (weights); the data they were trained on: CC BY 3.0 and BSD-3-Clause, named above",
        "metrics": dict(metrics),
        "limits": ["What is no nodule was learned from three scans: expect more false findings on other scanners.",
                   "Sensitivity was measured with real nodules set into real scans. The outline is coarse."],
    }  # fmt: skip
