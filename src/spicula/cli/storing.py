"""``store``: what a store holds, backups and their way back, and what comes in and goes out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spicula.cli.store_options import DEFAULT_STORE, DatabaseOption, StoreOption

if TYPE_CHECKING:
    from spicula.pipelines.ingest import Ingested
    from spicula.pipelines.workplace import Workplace

app = typer.Typer(no_args_is_help=True, help="Keep the store of studies: bring in, back up, restore, check.")

BY = "command line"
"""Who, in the audit log and as who asked for a job."""

ArchiveArgument = Annotated[Path, typer.Argument(metavar="ARCHIVE", help="A zip of 'spicula store backup'.")]


@app.command("info")
def info(store: StoreOption = DEFAULT_STORE, database: DatabaseOption = None) -> None:
    """What a store holds, and how much of the disk it takes."""
    from spicula.pipelines.upkeep import usage

    with _opened(store, database) as place:
        told = usage(place)
        waiting = place.queue.counts()
    shown = {
        "folder": str(store.resolve()),
        "database": "PostgreSQL" if database else "SQLite",
        **{name: told.rows[name] for name in ("studies", "series", "instances", "analyses", "findings", "users")},
        "jobs": ", ".join(f"{count} {state}" for state, count in sorted(waiting.items())) or "none",
        "bytes_used": f"{told.bytes} ({told.bytes / 1e9:.2f} GB)",
        "bytes_free": f"{told.free_bytes} ({told.free_bytes / 1e9:.2f} GB)",
    }
    for name, value in shown.items():
        typer.echo(f"{name:14} {value}")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="PATH", help="DICOM: a folder, a file or a zip.")],
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Keep copies without names, ids and dates (DICOM PS3.15).")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    database: DatabaseOption = None,
) -> None:
    """Bring DICOM into the store and ask for its CTs to be analyzed."""
    from spicula.dicom.deidentify import secret_of
    from spicula.pipelines.arrivals import after_arrival
    from spicula.pipelines.ingest import ingest
    from spicula.pipelines.workplace import open_workplace

    with open_workplace(store, url=database) as place:
        secret = secret_of(place.folder) if deidentify else place.secret
        told = ingest(source, place.studies, origin="command", deidentify=secret, progress=_progress)
        asked = 0
        for study_uid in told.studies:
            place.audit.note(BY, "study.import", object=study_uid)
            asked += after_arrival(place, study_uid, by=BY, anew=False) is not None
    _tell(told, asked, store)


def _tell(told: Ingested, asked: int, store: Path) -> None:
    typer.echo(f"{told.added} instances added, {told.known} were there, of {len(told.studies)} studies")
    if told.left_out:
        typer.echo(f"{told.left_out} files left out: no DICOM instances")
    if told.failed:
        more = [f"... and {told.failed - len(told.refused)} more"] if told.failed > len(told.refused) else []
        typer.echo("\n".join([f"{told.failed} refused", *told.refused, *more]), err=True)
    if asked:
        where = "" if store == DEFAULT_STORE else f" --store {store}"
        typer.echo(f"{asked} to be analyzed\n\nNext: spicula serve{where}")
    if told.failed:
        raise typer.Exit(1)


@app.command("remove")
def remove(
    study_uid: Annotated[str, typer.Argument(metavar="STUDY_UID")],
    store: StoreOption = DEFAULT_STORE,
    database: DatabaseOption = None,
) -> None:
    """Take a study out, with its findings, reports and files; backups keep it."""
    from spicula.pipelines.upkeep import remove_study

    with _opened(store, database) as place:
        count = remove_study(place, study_uid)
        place.audit.note(BY, "study.remove", object=study_uid)
    typer.echo(f"{count} instances removed")


@app.command("backup")
def backup(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Zip to write; it must not be there yet.")],
    files: Annotated[bool, typer.Option("--files/--rows-alone", help="With images and reports, or without.")] = True,
    key: Annotated[bool, typer.Option("--key", help="With the secret of de-identification.")] = False,
    store: StoreOption = DEFAULT_STORE,
    database: DatabaseOption = None,
) -> None:
    """Write the whole store, as it is now, into one file; the server may run meanwhile."""
    from spicula.pipelines.backup import backup as write_backup

    with _opened(store, database) as place:
        made = write_backup(place, out, files=files, key=key, progress=_progress)
        place.audit.note(BY, "store.backup", detail={"rows": sum(made.rows.values()), "files": made.files})
    rows = f"{made.rows['studies']} studies, {sum(made.rows.values())} rows"
    typer.echo(f"{rows}, {made.files} files, {made.bytes / 1e9:.2f} GB: {out.resolve()}")
    typer.echo(f"\nNext: spicula store restore {out} --store NEW_FOLDER")


@app.command("restore")
def restore(
    archive: ArchiveArgument, store: StoreOption = DEFAULT_STORE, database: DatabaseOption = None
) -> None:  # fmt: skip
    """Make a store of a backup, in a folder that is new or empty."""
    from spicula.pipelines.restore import restore as read_backup

    made = read_backup(archive, store, database, progress=_progress)
    with _opened(store, database) as place:
        place.audit.note(BY, "store.restore", detail={"made_at": made.made_at})
    typer.echo(f"{made.rows['studies']} studies, {made.files} files, as of {made.made_at}: {store.resolve()}")
    if not made.files and made.rows["instances"]:
        typer.echo("The backup has no files: bring 'instances' and 'analyses' back by other means")
    typer.echo(f"\nNext: spicula store check --store {store}")


@app.command("check")
def check(store: StoreOption = DEFAULT_STORE, database: DatabaseOption = None) -> None:
    """Read everything again and say what is wrong."""
    from spicula.pipelines.upkeep import check as read_all

    with _opened(store, database) as place:
        wrong = 0
        for told in read_all(place):
            typer.echo(told)
            wrong += 1
    if wrong:
        raise typer.Exit(1)
    typer.echo(f"{store}: sound")


@app.command("sweep")
def sweep(store: StoreOption = DEFAULT_STORE, database: DatabaseOption = None) -> None:
    """Remove what a kill or the end of a study left behind."""
    from spicula.pipelines.upkeep import sweep as remove_left

    with _opened(store, database) as place:
        swept = remove_left(place)
    typer.echo(f"{swept.instances} files and {swept.folders} folders removed")


@contextmanager
def _opened(store: Path, database: str | None) -> Iterator[Workplace]:
    """A store that is there."""
    from spicula.pipelines.upkeep import require_store
    from spicula.pipelines.workplace import open_workplace

    require_store(store, database)
    with open_workplace(store, url=database) as place:
        yield place


def _progress(done: int, whole: int) -> None:
    if done % 1000 == 0:
        typer.echo(f"{done} of {whole} files", err=True)
