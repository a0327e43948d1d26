"""``explain``: any words asked of nodules."""

from __future__ import annotations

import json as jsons
import sys
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from spicula.cli.optional_value import STDOUT, OptionalValues
from spicula.cli.outputs import check_outputs, write_json
from spicula.cli.scans import DISCLAIMER, Coords, Gaps, Tilt

ABOUT = (
    "A share says how much better a word fits than what it is compared with (in brackets: lowest and highest\n"
    f"network); it is not calibrated. {DISCLAIMER}"
)

app = typer.Typer()


class Prompts(StrEnum):
    """Style of the sentences that stand for a word."""

    templates = "templates"
    compat = "compat"


@app.command(cls=OptionalValues)
def explain(
    ct: Annotated[Path, typer.Argument(metavar="CT", help="Anything that analyze takes, or a CSV of known nodules.")],
    words: Annotated[list[str], typer.Option("--words", help="A word or short phrase to look for; may be repeated.")],
    at: Annotated[
        list[str] | None,
        typer.Option("--at", metavar="X,Y,Z", help="Center of a nodule, mm LPS; may be repeated. Else all are found."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the whole report with these words.")] = None,
    json: Annotated[
        str | None,
        typer.Option("--json", metavar="[FILE]", help="Write the answers as JSON; print them if no FILE is named."),
    ] = None,
    prompts: Annotated[
        Prompts, typer.Option(help="Sentences: our templates, or those of arXiv 2504.21344.")
    ] = Prompts.templates,
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle of 'spicula train semantic'; the shipped one if omitted.")
    ] = None,
    coords: Annotated[Coords, typer.Option(help="What the coordinates of a CSV are.")] = Coords.lps,
    gaps: Annotated[Gaps, typer.Option(help="Missing, duplicate or irregular slices.")] = Gaps.error,
    tilt: Annotated[Tilt, typer.Option(help="A tilted gantry.")] = Tilt.error,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Most findings of a scan.")] = 10,
) -> None:
    """Ask any words of the nodules of a chest CT, or of a table of known nodules."""
    from spicula.core.errors import InputError
    from spicula.pipelines.batch import require_folder
    from spicula.pipelines.explain import Explained, explain_table, is_table
    from spicula.pipelines.explain import explain as explain_nodules
    from spicula.pipelines.models import load_models
    from spicula.report.explanations import explanations_record

    check_outputs({"--json": json}, [ct])
    if out is not None:
        require_folder(out)
    policy: dict[str, Any] = {"gaps": gaps.value, "tilt": tilt.value, "prompts": prompts.value}
    policy["models"] = load_models() if bundle is None else load_models(semantic=str(bundle))
    table = is_table(ct)
    if table and at:
        raise InputError("--at", got="a table of nodules", expected="a scan", hint="the table says where they are")
    if table:
        images = explain_table(ct, words, coords=coords.value, **policy)
    else:
        points = [_point(text) for text in at or ()]
        images = iter([Explained(ct, "", explain_nodules(ct, words, at=points, limit=limit, **policy))])
    shown = _shown(images, out, apart=table, tables=json != STDOUT)
    record = explanations_record(shown, words=words, prompts=prompts.value)
    if json == STDOUT:
        typer.echo(jsons.dumps(record, indent=2, ensure_ascii=False))
    else:
        typer.echo(ABOUT)
    if json is not None and json != STDOUT:
        write_json(Path(json), record)
        typer.echo(f"Answers: {Path(json).resolve()}")
    if record["failed"]:
        count = len(record["failed"])
        typer.echo("\n".join([f"{count} row{'' if count == 1 else 's'} failed", *record["failed"]]), err=True)
        raise typer.Exit(1)


def _point(text: str) -> list[float]:
    from spicula.core.errors import InputError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--at {text}", expected="X,Y,Z in mm LPS", hint="--at 56.2,86.3,-115.9") from None


def _shown(images: Iterator[Any], out: Path | None, *, apart: bool, tables: bool) -> Iterator[Any]:
    """Pass images on, each written and printed as it comes; those of a table in folders of their own."""
    from spicula.pipelines.batch import write_outputs

    for image in images:
        if image.analysis is not None:
            page = None
            if out is not None:
                folder = out / image.scan_id if apart else out
                image = replace(image, analysis=write_outputs(image.analysis, folder))
                page = folder / "report.html"
            if tables:
                _print(image, page)
        yield image


def _print(image: Any, page: Path | None) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)
    for finding in image.analysis.findings:
        console.print(_table(image, finding))
        console.print()
    for warning in image.analysis.warnings:
        console.print(f"warning: {warning}", markup=False)
    if page is not None:
        typer.echo(f"Report: {page.resolve()}\n")


def _table(image: Any, finding: Any) -> Any:
    from rich.markup import escape
    from rich.table import Table

    from spicula.report.words import word_rows

    place = ", ".join(f"{value:.1f}" for value in finding.center_xyz_mm)
    size = f", {finding.diameter_mm:.1f} mm" if finding.diameter_mm else ""
    source = f"{image.path.name}, " if image.scan_id else ""
    title = escape(f"{source}finding {finding.id} at ({place}) mm LPS{size}")
    table = Table(title=title, title_justify="left")
    for column in ("word", "compared with", "share", "similarity", "trait beside it", "remark"):
        table.add_column(column, justify="right" if column == "similarity" else "left", overflow="fold")
    analysis = image.analysis
    for row in word_rows(analysis.words_of(finding.id), analysis.predictions_of(finding.id)):
        table.add_row(
            escape(row.word),
            row.against,
            f"{row.probability:.2f} ({row.low:.2f} to {row.high:.2f})",
            f"{row.similarity:.2f}",
            row.trait,
            escape("; ".join(row.remarks)),
        )
    return table
