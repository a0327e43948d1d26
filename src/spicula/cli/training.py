"""``train``: the models again, from data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Train the models again from data (needs the extra 'train').")

DataOption = Annotated[Path, typer.Option("--data", help="Folder with lidc_nodules, lidc_xml and scans.")]
RunOption = Annotated[Path, typer.Option("--out", help="Run folder; the same command goes on where it stopped.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads.")]


@app.command("outline")
def train_outline_command(
    data: DataOption,
    out: RunOption,
    background: Annotated[
        Path | None, typer.Option(help="A CT without marked nodules, whose lung then surrounds some of them.")
    ] = None,
    threads: ThreadsOption = 1,
) -> None:
    """The network that outlines a nodule from its center."""
    from spicula.formats import read_volume
    from spicula.pipelines.train_outline import train_outline

    surroundings = read_volume(background) if background else None
    _print_bundle(train_outline(data / "lidc_nodules", out, background=surroundings, threads=threads), out)


@app.command("detection")
def train_detection_command(data: DataOption, out: RunOption, threads: ThreadsOption = 1) -> None:
    """The filter of the nodule detector."""
    from spicula.pipelines.train_detection import train_detection

    _print_bundle(train_detection(data, out, workers=threads), out)


@app.command("risk")
def train_risk_command(
    data: DataOption,
    out: RunOption,
    outline_run: Annotated[
        Path | None, typer.Option(help="Run folder of 'train outline'; that training runs first if omitted.")
    ] = None,
    threads: ThreadsOption = 1,
) -> None:
    """Malignancy and traits, in patient folds, calibrated inside them."""
    from spicula.pipelines.train_risk import train_risk

    _print_bundle(train_risk(data, out, outline_run=outline_run, threads=threads), out)


def _print_bundle(bundle: Any, out: Path) -> None:
    typer.echo(f"{bundle.fingerprint}\nRun: {out}\n\nNext: spicula bundle show {bundle.folder}")
