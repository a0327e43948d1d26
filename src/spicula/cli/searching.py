"""``search`` and ``index``: past cases that look like one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from spicula.cli.outputs import check_outputs, write_json
from spicula.cli.scans import DISCLAIMER, Coords, Gaps, Tilt

app = typer.Typer()
index_app = typer.Typer(no_args_is_help=True, help="Make and keep an index of nodules to search.")

IndexArgument = Annotated[
    str, typer.Argument(metavar="INDEX", help="Folder, or postgresql://USER@HOST/DB#NAME (extra 'postgres').")
]
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", help="Bundle of 'spicula train retrieval'; the shipped one if omitted.")
]
CoordsOption = Annotated[Coords, typer.Option(help="What the coordinates of a CSV are.")]
GapsOption = Annotated[Gaps, typer.Option(help="Missing, duplicate or irregular slices.")]
TiltOption = Annotated[Tilt, typer.Option(help="A tilted gantry.")]


class Scope(StrEnum):
    """Which cases may be found."""

    all = "all"
    same_patient = "same-patient"
    cross_patient = "cross-patient"


class Backend(StrEnum):
    """How a folder is searched."""

    exact = "exact"
    flat = "faiss-flat"
    hnsw = "faiss-hnsw"
    ivfpq = "faiss-ivfpq"


BackendOption = Annotated[Backend, typer.Option(help="How a folder is searched; faiss needs the extra 'search'.")]


@app.command()
def search(
    query: Annotated[
        Path, typer.Argument(metavar="QUERY", help="A CSV of nodules, or a scan with --at or --box and --slice.")
    ],
    index: Annotated[
        str | None, typer.Option("--index", help="As for 'spicula index'; LIDC's nodules, as shipped, if omitted.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Matches of each query.")] = 10,
    scope: Annotated[Scope, typer.Option(help="Whose cases may be found.")] = Scope.all,
    where: Annotated[
        str | None, typer.Option(help="A condition, such as \"diameter_mm > 6 and type = 'lung'\".")
    ] = None,
    at: Annotated[
        list[str] | None, typer.Option("--at", metavar="X,Y,Z", help="A place in the scan, mm LPS; may be repeated.")
    ] = None,
    box: Annotated[
        str | None, typer.Option("--box", metavar="X0,Y0,X1,Y1", help="A box in pixels of --slice, from 0.")
    ] = None,
    slice_index: Annotated[int, typer.Option("--slice", min=0, help="Slice of the box, from 0.")] = 0,
    pid: Annotated[str | None, typer.Option(help="Patient of the scan, where its header does not tell.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="CSV file of the matches.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="JSON file of matches and evidence.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Page with pictures of query and matches.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the indexed scans, such as LIDC-IDRI, for the pictures.")
    ] = None,
    backend: BackendOption = Backend.exact,
    bundle: BundleOption = None,
    coords: CoordsOption = Coords.lps,
    gaps: GapsOption = Gaps.error,
    tilt: TiltOption = Tilt.error,
) -> None:
    """Find the past cases that look like a nodule, and what became of them."""
    from spicula.pipelines.search_job import run_search
    from spicula.report.matches import matches_record, matches_table, write_matches_page

    check_outputs({"--out": out, "--json": json, "--html": html}, [query])
    found = run_search(
        query, index=index, k=k, scope=scope.value, where=where, at=[_numbers("--at", text, 3) for text in at or ()],
        box=None if box is None else _numbers("--box", box, 4), slice_index=slice_index, pid=pid, backend=backend.value,
        bundle=bundle, images=images, coords=coords.value, gaps=gaps.value, tilt=tilt.value, pictures=html is not None,
    )  # fmt: skip
    from rich.console import Console

    console = Console(highlight=False)
    for one in found.answers:
        console.print(matches_table(one))
    typer.echo(DISCLAIMER)
    if out is not None:
        from spicula.pipelines.search import write_matches

        write_matches(out, [one.answer for one in found.answers])
        typer.echo(f"Matches: {out.resolve()}")
    if json is not None:
        write_json(json, matches_record(found.answers, index=found.index))
        typer.echo(f"Evidence: {json.resolve()}")
    if html is not None:
        write_matches_page(html, found.answers, index=found.index)
        typer.echo(f"Page: {html.resolve()}")
    _fail_if(found.failed)


@index_app.command("build")
def build(
    nodules: Annotated[
        Path, typer.Argument(metavar="NODULES.csv", help="pid,nodule_id,image_path,coordX,coordY,coordZ")
    ],
    out: Annotated[str, typer.Option("--out", metavar="INDEX", help="Where: a new folder, or postgresql://...#NAME.")],
    backend: BackendOption = Backend.exact,
    bundle: BundleOption = None,
    coords: CoordsOption = Coords.lps,
    gaps: GapsOption = Gaps.error,
    tilt: TiltOption = Tilt.error,
) -> None:
    """Make an index of the nodules of a table; further columns become fields to search by."""
    from spicula.pipelines.index import build_index

    told = build_index(
        nodules, out, backend=backend.value, bundle=bundle, coords=coords.value, gaps=gaps.value, tilt=tilt.value,
        progress=_progress,
    )  # fmt: skip
    typer.echo(f"{told.added} nodules in {out}\n\nNext: spicula search QUERY --index {out}")
    _fail_if(told.failed)


@index_app.command("add")
def add(
    index: IndexArgument,
    nodules: Annotated[Path, typer.Argument(metavar="NODULES.csv")],
    replace: Annotated[bool, typer.Option("--replace", help="Put them in the place of those that are there.")] = False,
    backend: BackendOption = Backend.exact,
    bundle: BundleOption = None,
    coords: CoordsOption = Coords.lps,
    gaps: GapsOption = Gaps.error,
    tilt: TiltOption = Tilt.error,
) -> None:
    """Add the nodules of a table, an image at a time; those that are there already are passed over."""
    from spicula.pipelines.index import add_nodules

    told = add_nodules(
        nodules, index, replace=replace, backend=backend.value, bundle=bundle, coords=coords.value, gaps=gaps.value,
        tilt=tilt.value, progress=_progress,
    )  # fmt: skip
    typer.echo(f"{told.added} added, {told.kept} were there")
    _fail_if(told.failed)


@index_app.command("remove")
def remove(
    index: IndexArgument,
    finding: Annotated[
        list[str] | None, typer.Option("--id", metavar="PID/NODULE_ID", help="Which; may be repeated.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="All that meet a condition, such as \"pid = 'LIDC-IDRI-0003'\".")
    ] = None,
) -> None:
    """Take nodules out."""
    from spicula.pipelines.index import remove_nodules

    typer.echo(f"{remove_nodules(index, finding or (), where=where)} removed")


@index_app.command("rebuild")
def rebuild(index: IndexArgument, backend: BackendOption = Backend.hnsw) -> None:
    """Make what faiss or PostgreSQL searches by anew, from the vectors."""
    from spicula.pipelines.index import rebuild_index

    rebuild_index(index, backend=backend.value)
    typer.echo(f"{index}: built")


@index_app.command("stats")
def stats(index: IndexArgument, backend: BackendOption = Backend.exact) -> None:
    """What an index holds."""
    from spicula.pipelines.index import open_place

    with open_place(index, backend=backend.value) as opened:
        told = opened.stats()
    for name in ("backend", "findings", "patients", "dimensions", "fingerprint", "bytes_on_disk", "unindexed"):
        typer.echo(f"{name:14} {getattr(told, name)}")
    typer.echo("fields         " + ", ".join(f"{name} ({kind})" for name, kind in told.fields.items()))


@index_app.command("check")
def check(index: IndexArgument, backend: BackendOption = Backend.exact) -> None:
    """Read everything again and say what is wrong."""
    from spicula.pipelines.index import open_place

    with open_place(index, backend=backend.value) as opened:
        wrong = list(opened.check())
    typer.echo("\n".join(wrong) if wrong else f"{index}: sound")
    if wrong:
        raise typer.Exit(1)


def _numbers(option: str, text: str, count: int) -> list[float]:
    from spicula.core.errors import InputError

    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise InputError(f"{option} {text}", expected=f"{count} numbers, with commas between")
    return values


def _progress(done: int, failed: int) -> None:
    if done % 50 == 0:
        typer.echo(f"{done} nodules{f', {failed} failed' if failed else ''}", err=True)


def _fail_if(failed: Any) -> None:
    if failed:
        typer.echo("\n".join([f"{len(failed)} row{'' if len(failed) == 1 else 's'} failed", *failed]), err=True)
        raise typer.Exit(1)
