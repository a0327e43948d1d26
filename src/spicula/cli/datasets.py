"""``dataset``: the public data sets of the field, read alike."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spicula.cli.outputs import check_outputs
from spicula.cli.scans import Gaps, Tilt

if TYPE_CHECKING:
    from spicula.datasets.catalog import Check
    from spicula.datasets.export_coco import Bits

app = typer.Typer(no_args_is_help=True, help="Public data sets of the field: what they are, whether yours is whole.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As 'spicula dataset list' names it.")]
RootArgument = Annotated[Path, typer.Argument(metavar="ROOT", help="The data set's folder.")]

SHOWN = 20
"""Checks of one state and subject that are printed; the others are counted (``--out`` keeps all)."""


class Layout(StrEnum):
    """What a data set can be written as."""

    nodule_csv = "nodule-csv"
    coco = "coco"
    nndetection = "nndetection"


@app.command("list")
def list_command() -> None:
    """All data sets with their licence and size."""
    from spicula.datasets.catalog import dataset, dataset_names

    for name in dataset_names():
        about = dataset(name).DESCRIPTION
        typer.echo(f"{name:12} {about.title}\n{'':12} {about.licence}; {about.size}")
    typer.echo("\nNext: spicula dataset describe NAME")


@app.command("describe")
def describe_command(
    name: NameArgument,
    root: Annotated[Path | None, typer.Argument(metavar="[ROOT]", help="The data set's folder, to count in.")] = None,
) -> None:
    """What a data set is and, given its folder, what is in it."""
    from spicula.datasets.catalog import dataset
    from spicula.pipelines.describe_dataset import describe

    about = dataset(name).DESCRIPTION
    typer.echo(f"{about.title}\n{about.contents}\n\nlicence   {about.licence}\nsize      {about.size}")
    typer.echo(f"from      {about.url}\ncite      {about.citation}\n\nROOT/")
    typer.echo("\n".join(f"  {line}" for line in about.layout))
    if root is None:
        typer.echo(f"\nNext: spicula dataset verify {name} ROOT")
        return
    typer.echo(f"\n{root}:")
    typer.echo("\n".join(f"  {line}" for line in describe(name, root).lines()))
    typer.echo(f"\nNext: spicula dataset verify {name} {root}")


@app.command("verify")
def verify_command(
    name: NameArgument,
    root: RootArgument,
    out: Annotated[Path | None, typer.Option("--out", help="CSV file that keeps every check.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read the pixels too, not only headers and tables.")] = False,
) -> None:
    """Look at every file of a data set and compare it with what was published."""
    from collections import deque

    from spicula.pipelines.describe_dataset import verify, write_report

    check_outputs({"--out": out}, [root])
    states: Counter[str] = Counter()
    shown: Counter[tuple[str, str]] = Counter()

    def show(check: Check) -> None:
        states[check.state] += 1
        shown[check.state, check.what] += 1
        if shown[check.state, check.what] <= SHOWN:
            place = f" [{check.path}{f', line {check.line}' if check.line else ''}]" if check.path else ""
            typer.echo(f"{check.state:8} {check.what}: {check.message}{place}")

    if out:
        write_report(out, verify(name, root, deep=deep), seen=show)
    else:
        deque(map(show, verify(name, root, deep=deep)), maxlen=0)
    for (state, what), count in shown.items():
        if count > SHOWN:
            hint = f"in {out}" if out else "with --out FILE"
            typer.echo(f"{state:8} {what}: and {count - SHOWN:,} more ({hint})")
    typer.echo("\n" + ", ".join(f"{count:,} {state}" for state, count in states.items()))
    if states["broken"] or states["missing"]:
        raise typer.Exit(1)
    typer.echo(f"\nNext: spicula dataset describe {name} {root}")


@app.command("export")
def export_command(
    name: NameArgument,
    root: RootArgument,
    to: Annotated[Layout, typer.Option("--to", help="What to write.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    eight_bit: Annotated[
        bool, typer.Option("--eight-bit", help="COCO's images in a lung window of 8 bits; 16 bits keep HU.")
    ] = False,
    gaps: Annotated[Gaps, typer.Option(help="Of DICOM: missing, duplicate or irregular slices.")] = Gaps.error,
    tilt: Annotated[Tilt, typer.Option(help="Of DICOM: a tilted gantry.")] = Tilt.error,
) -> None:
    """Write a data set as a nodule CSV, in COCO's layout or in nnDetection's."""
    from spicula.pipelines.export_dataset import export

    bits: Bits = 8 if eight_bit else 16
    lines = export(name, root, layout=to.value, out=out, bits=bits, gaps=gaps.value, tilt=tilt.value)
    typer.echo("\n".join(lines))
