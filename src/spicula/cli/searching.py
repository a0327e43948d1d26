"""``search`` and ``index``: past cases that look like one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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


BackendOption = Annotated[
    Backend, typer.Option(help="What a folder shall be searched by; faiss needs the extra 'search'.")
]
BuiltOption = Annotated[
    Backend | None, typer.Option("--backend", help="How a folder is searched; what was built last if omitted.")
]


SLICE_HELP = "Slice of the box, from 0 along the scan: of DICOM the lowest first, the reverse of many viewers."
PIPED_COLUMNS = 160
"""Width of tables that go into a file or a pipe."""


@app.command()
def search(
    query: Annotated[
        Path, typer.Argument(metavar="QUERY", help="A CSV of nodules, or a scan with --at or --box and --slice.")
    ],
    index: Annotated[
        str | None, typer.Option("--index", help="As for 'spicula index'; LIDC's nodules, as shipped, if omitted.")
    ] = None,
    k: Annotated[
        int | None, typer.Option("--k", min=1, help="Matches of each query; 10, or all of a smaller index, if omitted.")
    ] = None,
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
    slice_index: Annotated[int | None, typer.Option("--slice", min=0, help=SLICE_HELP)] = None,
    pid: Annotated[str | None, typer.Option(help="Patient of the scan, where its header does not tell.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="CSV file of the matches.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="JSON file of matches and evidence.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Page with pictures of query and matches.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the indexed scans, such as LIDC-IDRI, for the pictures.")
    ] = None,
    backend: BuiltOption = None,
    ef_search: Annotated[
        int | None, typer.Option("--ef-search", min=1, help="Candidates that a graph keeps: more, and it misses less.")
    ] = None,
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
        box=None if box is None else _numbers("--box", box, 4), slice_index=slice_index, pid=pid,
        backend=None if backend is None else backend.value, ef_search=ef_search, bundle=bundle, images=images,
        coords=coords.value, gaps=gaps.value, tilt=tilt.value, pictures=html is not None,
    )  # fmt: skip
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_COLUMNS)
    for one in found.answers:
        console.print(matches_table(one))
    for warning in found.warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)
    typer.echo(DISCLAIMER)
    if out is not None:
        from spicula.pipelines.search import write_matches

        write_matches(out, [one.answer for one in found.answers])
        typer.echo(f"Matches: {out.resolve()}")
    if json is not None:
        write_json(json, matches_record(found.answers, index=found.index, warnings=found.warnings))
        typer.echo(f"Evidence: {json.resolve()}")
    if html is not None:
        write_matches_page(html, found.answers, index=found.index, warnings=found.warnings)
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

    with _kept(out, nodules):
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
    bundle: BundleOption = None,
    coords: CoordsOption = Coords.lps,
    gaps: GapsOption = Gaps.error,
    tilt: TiltOption = Tilt.error,
) -> None:
    """Add the nodules of a table; those that are there already are passed over, before their images are read."""
    from spicula.pipelines.index import add_nodules

    with _kept(index, nodules):
        told = add_nodules(
            nodules, index, replace=replace, bundle=bundle, coords=coords.value, gaps=gaps.value, tilt=tilt.value,
            progress=_progress,
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
    """Take nodules out; 'compact' takes what a folder kept of them off the disk."""
    from spicula.pipelines.index import remove_nodules

    typer.echo(f"{remove_nodules(index, finding or (), where=where)} removed")


@index_app.command("compact")
def compact(index: IndexArgument) -> None:
    """Take off the disk what a folder kept of removed and replaced nodules, in all its files."""
    from spicula.pipelines.index import compact_place

    with _notes():
        before, after = compact_place(index)
    typer.echo(f"{index}: {before} bytes before, {after} now")


@index_app.command("rebuild")
def rebuild(
    index: IndexArgument,
    backend: Annotated[
        Backend | None, typer.Option(help="What a folder shall be searched by; as before or faiss-hnsw if omitted.")
    ] = None,
) -> None:
    """Make what faiss or PostgreSQL searches by anew, from the vectors; searches use it from then on."""
    from spicula.pipelines.index import rebuild_index

    rebuild_index(index, backend=None if backend is None else backend.value)
    typer.echo(f"{index}: built")


@index_app.command("stats")
def stats(index: IndexArgument, backend: BuiltOption = None) -> None:
    """What an index holds, and what it is searched by."""
    from spicula.pipelines.index import open_place

    with _notes(), open_place(index, backend=None if backend is None else backend.value) as opened:
        told = opened.stats()
    for name in ("backend", "findings", "patients", "dimensions", "fingerprint", "bytes_on_disk", "unindexed"):
        typer.echo(f"{name:14} {getattr(told, name)}")
    typer.echo("fields         " + ", ".join(f"{name} ({kind})" for name, kind in told.fields.items()))


@index_app.command("check")
def check(index: IndexArgument, backend: BuiltOption = None) -> None:
    """Read everything again, what faiss made included, and say what is wrong."""
    from spicula.pipelines.index import check_place

    wrong = check_place(index, backend=None if backend is None else backend.value)
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


@contextmanager
def _kept(index: str, nodules: Path) -> Iterator[None]:
    """Where the block breaks off: say what is in the index by then, and how to go on."""
    from spicula.core.errors import InputError

    before = _held(index)
    try:
        yield
    except BaseException as error:
        generation, number = _held(index)
        if not number or (generation, number) == before:
            raise
        left = f"{number} nodule{'' if number == 1 else 's'} in {index}"
        way = f"go on with `spicula index add {index} {nodules}` and the same options"
        if isinstance(error, KeyboardInterrupt):
            raise InputError("interrupted", got=left, hint=way) from None
        typer.echo(f"{left}; {way}", err=True)
        raise


def _held(index: str) -> tuple[str, int]:
    """Generation and number of findings; nothing of what is no index."""
    from spicula.core.errors import SpiculaError
    from spicula.pipelines.index import open_place

    try:
        with open_place(index, backend="exact") as opened:
            return opened.generation, len(opened)
    except SpiculaError:
        return "", 0


@contextmanager
def _notes() -> Iterator[None]:
    """Say what is odd in a line each, and not as Python does."""
    from spicula.core.errors import SpiculaWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SpiculaWarning)
        yield
    for one in caught:
        typer.echo(f"warning: {one.message}", err=True)


def _progress(done: int, failed: int) -> None:
    if done % 50 == 0:
        typer.echo(f"{done} nodules{f', {failed} failed' if failed else ''}", err=True)


def _fail_if(failed: Any) -> None:
    if failed:
        typer.echo("\n".join([f"{len(failed)} row{'' if len(failed) == 1 else 's'} failed", *failed]), err=True)
        raise typer.Exit(1)
