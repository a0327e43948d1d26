"""``evaluate``: numbers that can be believed, and what is wrong with those that cannot."""

from __future__ import annotations

import json as jsons
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from spicula.cli.optional_value import STDOUT, OptionalValues
from spicula.cli.outputs import check_outputs

app = typer.Typer(no_args_is_help=True, help="Numbers that can be believed, and what is wrong with those that cannot.")

JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="[FILE]", help="Write the record as JSON; print it if no FILE is named.")
]
HtmlOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="[FILE]", help="Write a page with figures (needs the extra 'evaluate')."),
]
DetectionsOption = Annotated[
    Path, typer.Option("--detections", help="CSV with seriesuid,coordX,coordY,coordZ,probability; world mm.")
]
AnnotationsOption = Annotated[
    Path, typer.Option("--annotations", help="CSV with seriesuid,coordX,coordY,coordZ,diameter_mm.")
]
SeriesOption = Annotated[Path, typer.Option("--series", help="List of all scans; their number is the divisor.")]
ExcludedOption = Annotated[
    Path | None, typer.Option("--excluded", help="Findings that count neither way; the official score needs them.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")]


class WorldCoords(StrEnum):
    """What the coordinates of detections are."""

    lps = "lps"
    ras = "ras"


@app.command("froc", cls=OptionalValues)
def froc_command(
    detections: DetectionsOption,
    annotations: AnnotationsOption,
    series: SeriesOption,
    excluded: ExcludedOption = None,
    json: JsonOption = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="[FILE]", help="Draw the curve (.png, .svg or .pdf).")
    ] = None,
    html: HtmlOption = None,
    variants: Annotated[
        bool, typer.Option("--variants", help="Also the scores that are reported by mistake for the official one.")
    ] = False,
    coords: Annotated[WorldCoords, typer.Option(help="What the detections' coordinates are.")] = WorldCoords.lps,
    pad_ids: Annotated[int, typer.Option(min=0, help="Fill ids with leading zeros up to this length.")] = 0,
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="Count rows of scans that are not in the list, do not refuse them.")
    ] = False,
    groups: Annotated[
        Path | None, typer.Option("--groups", help="CSV with seriesuid,patient_id: patients are drawn, not scans.")
    ] = None,
    max_marks: Annotated[int, typer.Option(min=0, help="Marks a scan that count; 0 for all.")] = 100,
    resamples: Annotated[
        int | None, typer.Option(min=0, help="Of the bootstrap; 1000 if there are ten scans or more.")
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """LUNA16's official score of detections: sensitivity at seven rates, their mean (CPM), bootstrap over scans."""
    from spicula.pipelines.evaluate_froc import evaluate_froc, summary_lines, to_record
    from spicula.pipelines.evaluation_figures import froc_figure
    from spicula.pipelines.evaluation_pages import froc_page

    check_outputs({"--json": json, "--plot": plot, "--html": html}, [detections, annotations, series, excluded, groups])
    found = evaluate_froc(
        detections, annotations, series, excluded=excluded, groups=groups, coords=coords.value, pad_ids=pad_ids,
        ignore_unknown=ignore_unknown, max_marks=max_marks or None, resamples=resamples, seed=seed, variants=variants,
    )  # fmt: skip
    if plot:
        from spicula.report.figures import save

        save(froc_figure(found), plot)
    if html:
        from spicula.report.evaluation import write_evaluation

        write_evaluation(html, froc_page(found))
    _show(json, to_record(found), summary_lines(found), {"Figure": plot, "Page": html})
    if json != STDOUT:
        typer.echo("\nNext: spicula evaluate doctor with the same files says whether the score can be believed")


@app.command("classification", cls=OptionalValues)
def classification_command(
    predictions: Annotated[
        Path, typer.Option("--predictions", help="CSV with pid,nodule_id and a probability, as 'spicula score' writes.")
    ],
    truth: Annotated[
        Path | None, typer.Option("--truth", help="CSV with pid,nodule_id,label, if the labels are elsewhere.")
    ] = None,
    other: Annotated[
        Path | None, typer.Option("--other", help="Another model's predictions of the same nodules, to compare.")
    ] = None,
    score: Annotated[str | None, typer.Option("--score", help="Column with the score.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Column with the label, 0 or 1.")] = None,
    threshold: Annotated[float, typer.Option(help="A score of at least this calls a nodule malignant.")] = 0.5,
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="Leave out rows without a score, and count them.")
    ] = False,
    json: JsonOption = None,
    html: HtmlOption = None,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap over patients.")] = 10_000,
    seed: SeedOption = 0,
) -> None:
    """AUROC, AUPRC, calibration and rates of predicted risks, by nodule and by patient, with intervals."""
    from spicula.pipelines.evaluate_classification import evaluate_predictions, summary_lines, to_json
    from spicula.pipelines.predictions_table import read_predictions

    check_outputs({"--json": json, "--html": html}, [predictions, truth, other])
    own = read_predictions(predictions, score=score, label=label, truth=truth, allow_failed=allow_failed)
    against = (
        read_predictions(other, score=score, label=label, truth=truth, allow_failed=allow_failed) if other else None
    )
    found = evaluate_predictions(own, other=against, threshold=threshold, resamples=resamples, seed=seed)
    if html:
        from spicula.pipelines.evaluation_pages import classification_page
        from spicula.report.evaluation import write_evaluation

        write_evaluation(html, classification_page(found, own, other=against))
    read = f"column {own.columns[0]!r} against {own.columns[1]!r} of {truth or predictions}"
    _show(json, to_json(found, own), [read, *summary_lines(found)], {"Page": html})
    if json != STDOUT:
        typer.echo(f"\nNext: spicula evaluate doctor --predictions {predictions}")


@app.command("doctor", cls=OptionalValues)
def doctor_command(
    detections: Annotated[Path | None, typer.Option("--detections", help="As 'evaluate froc' takes them.")] = None,
    annotations: Annotated[Path | None, typer.Option("--annotations", help="As 'evaluate froc' takes them.")] = None,
    series: Annotated[Path | None, typer.Option("--series", help="As 'evaluate froc' takes them.")] = None,
    excluded: Annotated[Path | None, typer.Option("--excluded", help="As 'evaluate froc' takes them.")] = None,
    folds: Annotated[Path | None, typer.Option("--folds", help="CSV with seriesuid,fold.")] = None,
    scans: Annotated[
        Path | None, typer.Option("--scans", help="Folder of the images: voxel indices can then be told from mm.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="CSV with pid,nodule_id and a probability.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="CSV with pid,nodule_id,label, if the labels are elsewhere.")
    ] = None,
    split: Annotated[Path | None, typer.Option("--split", help="CSV with a column 'split' or 'fold'.")] = None,
    train: Annotated[Path | None, typer.Option("--train", help="CSV of what was trained on, with --test.")] = None,
    test: Annotated[Path | None, typer.Option("--test", help="CSV of what is tested on, with --train.")] = None,
    json: JsonOption = None,
) -> None:
    """What is wrong with predictions before they are scored, and what would mend it; status 1 if they must not be."""
    from spicula.pipelines.evaluate_doctor import examine

    read = [detections, annotations, series, excluded, folds, predictions, truth, split, train, test]
    check_outputs({"--json": json}, read)
    found = examine(
        detections=detections, annotations=annotations, series=series, excluded=excluded, folds=folds, scans=scans,
        predictions=predictions, truth=truth, split=split, train=train, test=test,
    )  # fmt: skip
    _show(json, found.to_json(), found.lines(), {})
    if found.failed:
        raise typer.Exit(1)


@app.command("paper", cls=OptionalValues)
def paper_command(
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="First author and year, for example zhuang2025; all if omitted.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="ROOT", help="Folder with data sets in it.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File for the record; paper-KEY.json if omitted.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the published tables against themselves.")] = False,
    json: JsonOption = None,
    html: HtmlOption = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Finished run: 'train ssm' for noreen2025, 'train retrieval' for qi2023."),
    ] = None,
    deeplesion: Annotated[
        Path | None, typer.Option("--deeplesion", help="DeepLesion as published, for qi2023; encoders go to --run.")
    ] = None,
    outline_run: Annotated[
        Path | None, typer.Option(help="Run of 'train outline', for outlines by networks that have not seen a patient.")
    ] = None,
    facts: Annotated[
        Path | None, typer.Option("--facts", help="CSV with patient_id and facts (age, smoking ...), for late fusion.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap over patients.")] = 10_000,
    seed: SeedOption = 0,
) -> None:
    """Ours beside a paper's numbers, on the data that is there; or whether its numbers can be at all."""
    from spicula.core.errors import InputError
    from spicula.pipelines.evaluate_paper import Trained, report_paper

    if key is None:
        _list_papers()
        return
    check_outputs({"--out": out, "--json": json, "--html": html})
    if deeplesion is not None and run is None:
        raise InputError("--deeplesion", got="no --run", expected="a folder for its encoders", hint="--run RUN")
    trained = Trained(run, outline_run, facts, deeplesion) if run else None
    found = report_paper(key, data, out=out, check=check, seed=seed, resamples=resamples, trained=trained)
    if html and found.evaluation:
        from spicula.pipelines.evaluation_pages import paper_page
        from spicula.report.evaluation import write_evaluation

        write_evaluation(html, paper_page(found.evaluation))
    _show(json, found.record, list(found.lines), {"Record": found.path, "Page": html if found.evaluation else None})
    if json != STDOUT and not check:
        typer.echo(f"\nNext: spicula evaluate paper {key} --check")


def _list_papers() -> None:
    from spicula.papers import paper, paper_keys

    for key in paper_keys():
        about = paper(key)
        typer.echo(f"{key:14} {len(about.numbers):4} numbers  {about.title}")
    typer.echo("\nNext: spicula evaluate paper KEY --data ROOT, or KEY --check")


def _show(json: str | None, record: Mapping[str, Any], lines: list[str], written: Mapping[str, Path | None]) -> None:
    """Print the record, or the lines and where things were written."""
    if json == STDOUT:
        typer.echo(jsons.dumps(record, indent=1, ensure_ascii=False, allow_nan=False))
        return
    typer.echo("\n".join(lines))
    if json:
        from spicula.pipelines.run_folder import write_json

        write_json(Path(json), record, finite=True)
        typer.echo(f"Record: {json}")
    for name, path in written.items():
        if path:
            typer.echo(f"{name}: {path}")
