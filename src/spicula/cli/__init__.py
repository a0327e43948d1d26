"""The jobs as commands. Each says what it did and which command comes next."""

from __future__ import annotations

import warnings
from typing import Annotated, Any

import typer

from spicula.cli import (
    bundles,
    datasets,
    evaluation,
    exchange,
    explaining,
    pretraining,
    scans,
    searching,
    serving,
    storing,
    training,
    users,
)
from spicula.cli.scans import DISCLAIMER

app = typer.Typer(
    name="spicula",
    help=f"From a chest CT to its lung nodules: found, outlined, measured, rated and explained. {DISCLAIMER}",
    invoke_without_command=True,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(scans.app)
app.add_typer(explaining.app)
app.add_typer(searching.app)
app.add_typer(searching.index_app, name="index")
app.add_typer(serving.app)
app.add_typer(exchange.app)
app.add_typer(exchange.pacs_app, name="pacs")
app.add_typer(storing.app, name="store")
app.add_typer(users.app, name="users")
app.add_typer(bundles.app, name="bundle")
app.add_typer(pretraining.app, name="pretrain")
app.add_typer(training.app, name="train")
app.add_typer(datasets.app, name="dataset")
app.add_typer(evaluation.app, name="evaluate")


@app.callback()
def spicula(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Options before any command."""
    if version:
        from spicula import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run a command; errors that are the input's become one line and exit status 1."""
    from spicula.core.errors import SpiculaError, disk_error

    warnings.showwarning = _said
    try:
        app()
    except SpiculaError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail(_INTERRUPTED, status=130)
    except SystemExit as end:
        if end.code == 130:  # what an interrupt inside a command is turned into
            _fail(_INTERRUPTED, status=130)
        raise
    except Exception as error:
        behind = disk_error(error)
        if behind is None:
            raise
        way = "see that the name is right" if isinstance(behind, FileNotFoundError) else "choose another place"
        hint = f"Hint: nothing half-written was left; {way}"
        _fail(f"{behind.filename or 'output'}: {behind.strerror}. {hint}")


def _said(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """Our own warnings in one line, as our errors; those of libraries as Python says them."""
    from spicula.core.errors import SpiculaWarning

    if issubclass(category, SpiculaWarning):
        typer.echo(f"warning: {message}", err=True)
    else:
        typer.echo(warnings.formatwarning(message, category, filename, lineno), err=True, nl=False)


_INTERRUPTED = "interrupted; nothing half-written was left"


def _fail(message: str, *, status: int = 1) -> None:
    typer.echo(f"error: {message}", err=True)
    raise SystemExit(status)
