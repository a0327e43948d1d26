"""Evaluations as pages for people: tables, and figures with bootstrap bands."""

from __future__ import annotations

from dataclasses import asdict

from spicula import __version__
from spicula.core.bundle import sha256_of
from spicula.metrics.patients import patient_maximum
from spicula.pipelines.evaluate_classification import (
    RATES,
    Classification,
    Comparison,
    Discrimination,
    between,
    or_dash,
)
from spicula.pipelines.evaluate_froc import FrocEvaluation
from spicula.pipelines.evaluate_paper import PaperEvaluation, cells
from spicula.pipelines.evaluation_figures import BAND_RESAMPLES, Scored, froc_figure, score_figures
from spicula.pipelines.predictions_table import Predictions
from spicula.report.evaluation import EvaluationPage, PageFigure, PageTable


def classification_page(
    result: Classification, predictions: Predictions, *, other: Predictions | None = None
) -> EvaluationPage:
    """The page of ``spicula evaluate classification``.

    Args:
        result: From :func:`spicula.pipelines.evaluate_classification.evaluate_predictions`.
        predictions: What it was made from.
        other: The other model, if one was compared.

    Returns:
        ROC, precision-recall and reliability figures with bands, and all numbers.

    Raises:
        MissingExtraError: The extra ``evaluate`` is not installed.
    """
    parts = [("nodules", result.nodule), *([("patients", result.patient)] if result.patient else [])]
    tables = [_numbers(parts), *(_at_recalls(name, part) for name, part in parts)]
    if result.folds:
        tables.append(_folds(result))
    if result.comparison:
        tables.append(_comparison(result.comparison))
    area = result.nodule.auroc
    return EvaluationPage(
        title=f"Risk of {result.nodule.rows:,} nodules",
        lead=f"AUROC {between(area)} over {result.nodule.patients:,} patients; "
        f"{result.nodule.positives:,} nodules are malignant.",
        tables=tuple(tables),
        figures=score_figures(_sets(result, predictions, other), seed=result.seed),
        warnings=result.warnings,
        facts=(
            ("Spicula", __version__),
            ("Predictions", f"{predictions.path} (SHA-256 {sha256_of(predictions.path)})"),
            ("Columns", f"score {predictions.columns[0]}, label {predictions.columns[1]}"),
            ("Splits' hash", result.split_hash),
            ("Seed", str(result.seed)),
            ("Resamples", f"{area.resamples:,} of whole patients (bands {BAND_RESAMPLES:,}), {area.level:.0%}"),
        ),
    )


def froc_page(found: FrocEvaluation) -> EvaluationPage:
    """The page of ``spicula evaluate froc``.

    Args:
        found: The evaluation.

    Returns:
        The curve with its band, the seven sensitivities, what became of all marks, and the files.

    Raises:
        MissingExtraError: The extra ``evaluate`` is not installed.
    """
    pairs = found.sensitivity_interval or (None,) * len(found.rates)
    rates = tuple(
        (f"{rate:g}", f"{value:.4f}", _ends(pair))
        for rate, value, pair in zip(found.rates, found.sensitivity, pairs, strict=True)
    )
    counts = tuple((name.replace("_", " "), f"{value:,}") for name, value in asdict(found.counts).items())
    tables = [
        PageTable("Sensitivity", ("false positives a scan", "sensitivity", f"{found.level:.0%} interval"), rates),
        PageTable("What became of the marks", ("", "count"), counts, "The scans are the divisor of the rates."),
    ]
    if found.variants:
        columns = ("", *(f"{rate:g}" for rate in found.rates), "mean")
        rows = tuple(
            (
                v.name if v.official else f"mistake: {v.name}",
                *(f"{value:.4f}" for value in v.sensitivity), f"{v.mean:.4f}",
            )
            for v in found.variants
        )  # fmt: skip
        tables.append(PageTable("The official score and those reported by mistake for it", columns, rows))
    drawn = f"{found.resamples:,} of {found.drawn}, seed {found.seed}" if found.resamples else "none"
    return EvaluationPage(
        title="Free-response score",
        lead=f"CPM {found.cpm:.4f} {_ends(found.interval)} over {found.counts.scans:,} scans, {found.protocol}.",
        tables=tuple(tables),
        figures=(PageFigure("FROC", froc_figure(found), "Band: pointwise over resamples." if found.resamples else ""),),
        warnings=found.notes,
        facts=(
            ("Spicula", __version__),
            *((name, f"{f.name}, {f.rows:,} rows (SHA-256 {f.sha256})") for name, f in found.files.items()),
            ("Bootstrap", drawn),
        ),
    )


def _ends(pair: tuple[float, float] | None) -> str:
    return f"[{pair[0]:.4f}, {pair[1]:.4f}]" if pair else ""


def _numbers(parts: list[tuple[str, Discrimination]]) -> PageTable:
    rows = [
        ("rows (malignant)", *(f"{part.rows:,} ({part.positives:,})" for _, part in parts)),
        ("AUROC", *(between(part.auroc) for _, part in parts)),
        ("AUPRC, step-wise", *(between(part.auprc) for _, part in parts)),
    ]
    for name in RATES:
        at = f" at {parts[0][1].at_threshold.threshold:g}"
        title = {"f1": "F1", "sensitivity": "recall (sensitivity)"}.get(name, name)
        rows.append((title + at, *(or_dash(getattr(part.at_threshold, name)) for _, part in parts)))
    for name, title in (
        ("brier", "Brier score"), ("ece_equal_mass", "ECE, bins of equal mass"),
        ("ece_equal_width", "ECE, bins of equal width"), ("slope", "calibration slope"),
        ("intercept", "calibration intercept"), ("in_the_large", "calibration in the large"),
    ):  # fmt: skip
        values = [getattr(part.calibration, name) if part.calibration else None for _, part in parts]
        rows.append((title, *map(or_dash, values)))
    note = "A patient has the highest score of the nodules. Intervals draw whole patients."
    return PageTable("Numbers", ("", *(name for name, _ in parts)), tuple(rows), note)


def _at_recalls(name: str, part: Discrimination) -> PageTable:
    rows = tuple(
        (
            f"{row.target:g}", f"{row.counts.sensitivity:.3f}", f"{row.counts.false_positive_rate:.3f}",
            f"{row.counts.precision:.3f}", f"{row.loose_precision:.3f}", f"{row.counts.threshold:.3g}",
        )
        for row in part.at_recalls
    )  # fmt: skip
    note = (
        "At the threshold of the nearest recall with the fewest false calls. 'Precision, loosest' is at the same "
        "recall with the most false calls; papers that read it off a precision-recall curve print that one."
    )
    columns = ("recall asked", "recall", "false positive rate", "precision", "precision, loosest", "threshold")
    return PageTable(f"At given recalls, {name}", columns, rows, note)


def _folds(result: Classification) -> PageTable:
    note = ""
    if result.over_folds:
        mean = f"{result.over_folds.mean:.3f} [{result.over_folds.low:.3f}, {result.over_folds.high:.3f}]"
        note = f"Mean {mean} by the t-distribution, which is too narrow for folds that share training rows."
    return PageTable("Folds", ("fold", "AUROC"), tuple((n, f"{v:.3f}") for n, v in result.folds.items()), note)


def _comparison(found: Comparison) -> PageTable:
    rows = tuple(
        (title, f"{one.a:.3f}", f"{one.b:.3f}", between(one.difference), f"{one.p_value:.3g}")
        for title, one in (("AUROC", found.auroc), ("AUPRC", found.auprc))
    )
    test = f"DeLong's test, which takes nodules for independent: p = {found.delong.p_value:.3g}."
    note = f"Whole patients were drawn, the same for both. {test}"
    return PageTable(f"Against {found.path.name}", ("", "this", "other", "difference", "p"), rows, note)


def paper_page(found: PaperEvaluation) -> EvaluationPage:
    """The page of ``spicula evaluate paper``.

    Args:
        found: The comparison.

    Returns:
        Ours beside the published numbers, the curves of what was run, and what was not run.

    Raises:
        MissingExtraError: The extra ``evaluate`` is not installed.
    """
    ran, about = found.ran, found.paper
    columns = ("", "metric", "ours", "published", "difference")
    tables = [
        PageTable(part, columns, tuple(cells(row) for row in ran.rows if row.part == part))
        for part in dict.fromkeys(row.part for row in ran.rows)
    ]
    if found.not_run:
        missing = tuple(
            (f"{one.model or 'the data'}, {one.dataset}", f"{one.numbers}", one.reason) for one in found.not_run
        )
        tables.append(PageTable("Not run", ("", "numbers", "why"), missing))
    pictures = list(score_figures(ran.scored, seed=found.seed)) if ran.scored else []
    if ran.response:
        pictures.append(PageFigure("FROC", froc_figure(ran.response), "Band: pointwise over resamples of scans."))
    run = sum(row.published is not None for row in ran.rows)
    return EvaluationPage(
        title=about.title,
        lead=f"{run} of our numbers beside those of {about.key}; {sum(one.numbers for one in found.not_run)} not run.",
        tables=tuple(tables),
        figures=tuple(pictures),
        warnings=(*ran.notes, *ran.missing),
        facts=(
            ("Spicula", f"{__version__}, commit {found.versions['commit']}"),
            *((name, f"SHA-256 {digest}") for name, digest in ran.inputs.items()),
            *((f"Split: {name}", digest) for name, digest in ran.splits.items()),
            ("Seed", str(found.seed)),
            ("Resamples", f"{found.resamples:,} of whole patients (bands {BAND_RESAMPLES:,})"),
        ),
    )


def _sets(result: Classification, predictions: Predictions, other: Predictions | None) -> list[Scored]:
    sets = [Scored("nodules", predictions.label, predictions.score, predictions.patient)]
    if result.patient:
        by = patient_maximum(predictions.patient, predictions.label, predictions.score)
        sets.append(Scored("patients", by.label, by.score, by.patient))
    if other:
        sets.append(Scored(f"nodules, {other.path.stem}", other.label, other.score, other.patient))
    return sets
