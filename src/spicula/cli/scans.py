"""``sample``, ``analyze``, ``score`` and ``info``: from scans to findings."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

DISCLAIMER = "Research software, not a medical device."

app = typer.Typer()


class Gaps(StrEnum):
    """What to do about missing, duplicate or irregular slices."""

    error = "error"
    warn = "warn"
    interpolate = "interpolate"


class Tilt(StrEnum):
    """What to do about a tilted gantry."""

    error = "error"
    resample = "resample"
    keep = "keep"


class Coords(StrEnum):
    """What the coordinates of a table are."""

    lps = "lps"
    ras = "ras"
    voxel = "voxel"


@app.command()
def sample(
    cache: Annotated[Path | None, typer.Option(help="Folder to keep it in; the user cache if omitted.")] = None,
) -> None:
    """Fetch two real chest CTs and write each as NRRD and as a DICOM series."""
    from spicula.datasets.sample import fetch_sample

    scans = fetch_sample(cache)
    for scan in scans:
        typer.echo(f"{scan.name}\n  NRRD   {scan.nrrd}\n  DICOM  {scan.dicom}")
    typer.echo(f"\nNext: spicula analyze {scans[0].dicom} --out findings")


@app.command()
def analyze(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="DICOM folder or zip, NIfTI, NRRD, MHD or MHA; one or many.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")],
    all_series: Annotated[bool, typer.Option("--all-series", help="Every usable series, not the best one.")] = False,
    gaps: Annotated[Gaps, typer.Option(help="Missing, duplicate or irregular slices.")] = Gaps.error,
    tilt: Annotated[Tilt, typer.Option(help="A tilted gantry.")] = Tilt.error,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Most findings a scan.")] = 10,
    index: Annotated[
        str | None, typer.Option(help="Past cases to look up, see 'spicula index'; LIDC's nodules if omitted.")
    ] = None,
    search_bundle: Annotated[str | None, typer.Option(help="Bundle that made that index.")] = None,
) -> None:
    """Find, outline, measure and rate the nodules of one or many chest CTs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from spicula.pipelines.batch import SUMMARY, Outcome, analyze_paths

    models = _models_with(index, search_bundle)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("analyzing", total=None)

        def report(done: int, total: int, outcome: Outcome) -> None:
            bar.update(task, completed=done, total=total)
            if total > 1:
                line = f"{outcome.status:6}  {outcome.path}  {outcome.reason or outcome.scan_id}"
                console.print(line, markup=False, soft_wrap=True)

        outcomes = analyze_paths(
            paths, out, all_series=all_series, gaps=gaps.value, tilt=tilt.value, limit=limit, models=models,
            progress=report,
        )  # fmt: skip
    if len(outcomes) == 1:
        _print_analysis(outcomes[0].analysis, out, path=paths[0])
        return
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    typer.echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} scans done.\nSummary: {out / SUMMARY}")
    if failed:
        raise typer.Exit(1)


def _models_with(index: str | None, search_bundle: str | None) -> Any:
    """The bundles with an index of past cases that the user named; None where none is, for those that ship."""
    if index is None and search_bundle is None:
        return None
    from spicula.pipelines.models import SEARCH, load_models
    from spicula.pipelines.neighbors import require_index

    models = load_models(index=index, search=search_bundle or SEARCH)
    require_index(models)
    return models


def _print_analysis(analysis: Any, out: Path, *, path: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{len(analysis.findings)} finding{'' if len(analysis.findings) == 1 else 's'}", title_justify="left"
    )
    for column in (
        "",
        "center x, y, z (mm LPS)",
        "diameter mm",
        "volume mm³",
        "score",
        "malignancy (90 %)",
        "Lung-RADS",
    ):
        table.add_column(column, justify="right" if column != "center x, y, z (mm LPS)" else "left")
    for finding in analysis.findings:
        risk = analysis.predictions_of(finding.id).get("malignancy")
        size, assessments = finding.size, analysis.assessments.get(finding.id, ())
        low, high = risk.interval if risk and risk.interval else (None, None)
        table.add_row(
            finding.id,
            ", ".join(f"{value:.1f}" for value in finding.center_xyz_mm),
            f"{finding.diameter_mm:.1f}" if finding.diameter_mm else "",
            f"{size.volume_mm3:.0f}" if size else "",
            f"{finding.score:.2f}" if finding.score is not None else "",
            f"{risk.probability:.2f} ({low:.2f}-{high:.2f})" if risk and low is not None else "",
            assessments[0].category if assessments else "",
        )
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(table)
    for warning in analysis.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False)
    typer.echo(f"{DISCLAIMER}\nReport: {(out / 'report.html').resolve()}")
    if analysis.words:
        typer.echo(f'\nNext: spicula explain {path} --words "part-solid" --words "spiculated"')


@app.command()
def score(
    nodules: Annotated[Path, typer.Argument(help="CSV with pid,nodule_id,image_path,coordX,coordY,coordZ.")],
    out: Annotated[Path, typer.Option("--out", help="CSV to write.")],
    coords: Annotated[Coords, typer.Option(help="What the coordinates are.")] = Coords.lps,
    gaps: Annotated[Gaps, typer.Option(help="Missing, duplicate or irregular slices.")] = Gaps.error,
    tilt: Annotated[Tilt, typer.Option(help="A tilted gantry.")] = Tilt.error,
    compat: Annotated[
        bool, typer.Option("--compat", help="CLIP_nodule's columns, by an imported bundle of it; needs --bundle.")
    ] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle of 'spicula bundle import clip-nodule'; goes with --compat.")
    ] = None,
) -> None:
    """Predict malignancy and traits of known nodules."""
    from rich.progress import Progress

    from spicula.core.errors import InputError
    from spicula.pipelines.score import score_file
    from spicula.pipelines.score_compat import score_compat_file

    if compat != (bundle is not None):
        raise InputError(
            "--compat and --bundle", got="one of both", expected="both or none",
            hint="spicula bundle import clip-nodule CKPT_DIR --out DIR makes such a bundle",
        )  # fmt: skip

    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("scoring", total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        if bundle is not None:
            reasons = score_compat_file(
                nodules, out, bundle=bundle, coords=coords.value, gaps=gaps.value, tilt=tilt.value, progress=report
            )
            failed = "\n".join([f"{len(reasons)} rows failed", *reasons]) if reasons else ""
        else:
            rows = score_file(nodules, out, coords=coords.value, gaps=gaps.value, tilt=tilt.value, progress=report)
            failed = f"{rows} rows failed; the column 'error' says why" if rows else ""
    typer.echo(f"Predictions: {out}")
    if failed:
        typer.echo(failed, err=True)
        raise typer.Exit(1)


@app.command()
def info(path: Annotated[Path, typer.Argument(help="Anything that analyze takes.")]) -> None:
    """Say what is in there, and which series would be analyzed and why."""
    from spicula.pipelines.info import WOULD_REFUSE, describe_path

    lines = describe_path(path)
    typer.echo("\n".join(lines))
    if not any(line.startswith(WOULD_REFUSE) for line in lines):
        typer.echo(f"\nNext: spicula analyze {path} --out findings")
