"""``listen``, ``watch`` and ``pacs``: studies from archives into the store, results back to them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spicula.cli.store_options import DEFAULT_STORE, DatabaseOption, StoreOption

if TYPE_CHECKING:
    from spicula.pipelines.watch import Rule
    from spicula.pipelines.workplace import Workplace
    from spicula.store.jobs import Job

app = typer.Typer()
pacs_app = typer.Typer(no_args_is_help=True, help="Archives (PACS): find, bring in, send results.")

ArchiveArgument = Annotated[str, typer.Argument(metavar="ARCHIVE", help="As archives.toml names it.")]
StudyArgument = Annotated[str, typer.Argument(metavar="STUDY_UID", help="Study Instance UID.")]
ArchivesOption = Annotated[
    Path | None,
    typer.Option("--archives", envvar="SPICULA_ARCHIVES", help="archives.toml; that in the store if omitted."),
]
QueueOption = Annotated[bool, typer.Option("--queue", help="Only ask; a worker does it.")]


@app.command()
def listen(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="TCP port; 0 takes a free one.")] = 11112,
    aet: Annotated[str, typer.Option("--aet", help="Our AE title.")] = "SPICULA",
    allow: Annotated[
        list[str] | None, typer.Option("--allow", metavar="AET", help="Who may send; may be repeated; all if omitted.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    quota_gb: Annotated[float | None, typer.Option("--quota-gb", min=0.001, help="What the store may hold.")] = None,
    store: StoreOption = DEFAULT_STORE,
    database: DatabaseOption = None,
) -> None:
    """Receive studies by C-STORE into the store."""
    from spicula.pipelines.listen import Moved
    from spicula.pipelines.listen import listen as receive

    def started(taken: int) -> None:
        who = ", ".join(allow) if allow else "anyone who reaches the port"
        typer.echo(f"{aet} listens on {host}:{taken}; {who} may send\n\nNext: spicula watch --store {store}")

    def came(moved: Moved) -> None:
        aside = f", {moved.set_aside} set aside" if moved.set_aside else ""
        typer.echo(f"{moved.added} instances, {moved.known} were there{aside}  {' '.join(moved.studies)}".rstrip())

    quota = None if quota_gb is None else int(quota_gb * 1e9)
    with _opened(store, database, quota_bytes=quota) as place, _until_told() as stop:
        receive(
            place, port=port, aet=aet, allowed_aets=allow or (), host=host, stop=stop, started=started, came=came
        )  # fmt: skip


@app.command()
def watch(
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="ARCHIVE", help="Where results go; may be repeated.")
    ] = None,
    rules: Annotated[Path | None, typer.Option("--rules", help="TOML file; instead of the options below.")] = None,
    modality: Annotated[str, typer.Option("--modality", help="Of a series.")] = "CT",
    body_part: Annotated[
        list[str] | None, typer.Option("--body-part", help="Of the study; may be repeated; any if omitted.")
    ] = None,
    thickness: Annotated[float | None, typer.Option("--thickness", metavar="MM", help="Of slices, at most.")] = None,
    contains: Annotated[
        list[str] | None, typer.Option("--contains", metavar="TEXT", help="In the series description; one of them.")
    ] = None,
    lacks: Annotated[
        list[str] | None, typer.Option("--lacks", metavar="TEXT", help="Not in the series description; none of them.")
    ] = None,
    images: Annotated[int, typer.Option("--images", min=1, help="Of a series, at least.")] = 1,
    settled: Annotated[
        float, typer.Option("--settled", min=0, metavar="SECONDS", help="Nothing new for so long: complete.")
    ] = 60.0,
    since: Annotated[
        str | None, typer.Option("--since", metavar="YYYY-MM-DD", help="Received since; the first start if omitted.")
    ] = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Only ask; workers run elsewhere.")] = False,
    archives: ArchivesOption = None,
    store: StoreOption = DEFAULT_STORE,
    database: DatabaseOption = None,
) -> None:
    """Analyze what arrives by rules and send the results, each study once."""
    from spicula.pipelines.watch import Rule, load_rules
    from spicula.pipelines.watch import watch as keep_watch

    given = Rule(
        modality=modality, body_part=tuple(body_part or ()), slice_thickness_mm_max=thickness,
        description_contains=tuple(contains or ()), description_lacks=tuple(lacks or ()), images_min=images,
    )  # fmt: skip
    with _opened(store, database) as place, _until_told() as stop, _worker(place, stop, none=no_worker):
        _check_alone(rules, given)
        typer.echo(f"Watching {store}; Ctrl-C stops after the job at hand")
        keep_watch(
            place, [given] if rules is None else load_rules(rules), destinations=to or (), stop=stop,
            settled_s=settled, since=_checked_date(since), archives=archives, idle_s=min(5.0, max(settled, 0.5)),
            say=typer.echo,
        )  # fmt: skip


@pacs_app.command("list")
def list_archives(archives: ArchivesOption = None, store: StoreOption = DEFAULT_STORE) -> None:
    """The archives that are known."""
    from spicula.pipelines.archives import archives_file, load_archives

    known = load_archives(archives or store)
    for name, one in known.items():
        may = " and ".join(what for what in ("pull", "send") if getattr(one, what)) or "find only"
        typer.echo(f"{name:16} {one.way:9} {one.address}  ({may})")
    if known:
        typer.echo(f"\nNext: spicula pacs echo {next(iter(known))}")
    else:
        typer.echo(
            f"none; write [NAME] with url, or host, port and called_aet, into {archives_file(archives or store)}"
        )


@pacs_app.command("echo")
def echo(archive: ArchiveArgument, archives: ArchivesOption = None, store: StoreOption = DEFAULT_STORE) -> None:
    """Ask whether an archive is there and talks to us."""
    from spicula.pipelines.archives import archive_named
    from spicula.pipelines.exchange import echo as ask

    known = archive_named(archives or store, archive)
    ask(known)
    typer.echo(f"{archive}: {known.address} answers\n\nNext: spicula pacs find {archive}")


@pacs_app.command("find")
def find(
    archive: ArchiveArgument,
    patient: Annotated[str | None, typer.Option("--patient", help="Patient ID; * and ? are wildcards.")] = None,
    accession: Annotated[str | None, typer.Option("--accession", help="Accession number.")] = None,
    date: Annotated[
        str | None, typer.Option("--date", metavar="DATE", help="YYYYMMDD, or YYYYMMDD-YYYYMMDD, one of them open.")
    ] = None,
    modality: Annotated[str, typer.Option("--modality", help="In the study; '' for any.")] = "CT",
    limit: Annotated[int, typer.Option("--limit", min=1, help="More matches than this are refused.")] = 200,
    patients: Annotated[bool, typer.Option("--show-patients", help="Also print patient IDs.")] = False,
    archives: ArchivesOption = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Find studies in an archive."""
    from spicula.pipelines.archives import archive_named
    from spicula.pipelines.exchange import find_studies

    filters = {"PatientID": patient, "AccessionNumber": accession, "StudyDate": date, "ModalitiesInStudy": modality}
    given = {keyword: value for keyword, value in filters.items() if value}
    found = find_studies(archive_named(archives or store, archive), given, limit)
    for one in found:
        count = "?" if one.instance_count is None else one.instance_count
        who = f"{one.patient_id:16} " if patients else ""
        typer.echo(f"{one.study_date or '?':8} {who}{'/'.join(one.modalities):8} {count:>5} images  {one.study_uid}")
    typer.echo(f"{len(found)} studies")
    if found:
        typer.echo(f"\nNext: spicula pacs pull {archive} {found[0].study_uid}")


@pacs_app.command("pull")
def pull(
    archive: ArchiveArgument,
    study_uid: StudyArgument,
    no_analyze: Annotated[bool, typer.Option("--no-analyze", help="Only bring it in.")] = False,
    queue: QueueOption = False,
    archives: ArchivesOption = None,
    store: StoreOption = DEFAULT_STORE,
    database: DatabaseOption = None,
) -> None:
    """Bring a study into the store and analyze it."""
    from spicula.pipelines.exchange import PULL, ask_pull
    from spicula.pipelines.worker import ANALYZE

    with _opened(store, database) as place:
        job = ask_pull(place, archive, study_uid, by=_user(), analyze=not no_analyze, archives=archives)
        if queue:
            typer.echo(f"asked, job {job.id}\n\nNext: spicula work")
            return
        told = _done_here(place, job, PULL)
        typer.echo(f"{told['added']} instances, {told['known']} were there")
        for reason in told["refused"]:
            typer.echo(f"left out: {reason}", err=True)
        for name in told["analyses"]:
            typer.echo("analyzing ...")
            typer.echo(f"{_done_here(place, place.queue.get(name), ANALYZE)['findings']} findings")
            typer.echo(f"\nNext: spicula pacs send {told['studies'][0]} {archive}")


@pacs_app.command("send")
def send(
    study_uid: StudyArgument,
    archive: ArchiveArgument,
    what: Annotated[
        list[str] | None, typer.Option("--what", metavar="sr|seg", help="May be repeated; both if omitted.")
    ] = None,
    queue: QueueOption = False,
    archives: ArchivesOption = None,
    store: StoreOption = DEFAULT_STORE,
    database: DatabaseOption = None,
) -> None:
    """Send the report (SR) and the outlines (SEG) of a study to an archive; what it has is not sent again."""
    from spicula.pipelines.exchange import SEND, WHAT, ask_send

    with _opened(store, database) as place:
        job = ask_send(place, study_uid, archive, what or WHAT, by=_user(), archives=archives)
        if queue:
            typer.echo(f"asked, job {job.id}\n\nNext: spicula work")
            return
        told = _done_here(place, job, SEND)
    typer.echo(f"{len(told['sent'])} sent, {len(told['there'])} were there; {archive} shows them")
    if told["lacks"]:
        typer.echo(f"the study has no {' and no '.join(told['lacks'])}")
    typer.echo(f"\nNext: spicula watch --to {archive} --store {store}")


@contextmanager
def _opened(store: Path, database: str | None, *, quota_bytes: int | None = None) -> Iterator[Workplace]:
    """A store as ``serve`` was told to keep it: the environment tells its processes."""
    from spicula.core.extras import require

    for module in ("sqlalchemy", "alembic", "pynetdicom"):
        require(module, extra="serve")
    from spicula.pipelines.workplace import open_workplace

    if quota_bytes is None and os.environ.get("SPICULA_QUOTA_BYTES"):
        quota_bytes = int(os.environ["SPICULA_QUOTA_BYTES"])
    with open_workplace(store, url=database, quota_bytes=quota_bytes) as place:
        yield place


@contextmanager
def _until_told() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; the second one interrupts."""
    stop = threading.Event()

    def told(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _worker(place: Workplace, stop: threading.Event, *, none: bool) -> Iterator[None]:
    """A worker beside the watch, in a thread; an error ends both."""
    from spicula.pipelines.exchange import ALL_HANDLERS, PULL
    from spicula.pipelines.worker import work

    failed: list[BaseException] = []

    def run() -> None:
        try:
            work(place, stop=stop, handlers=ALL_HANDLERS, at_most={PULL: 1})
        except BaseException as error:
            failed.append(error)
            stop.set()

    thread = threading.Thread(target=run, name="worker", daemon=True)
    if not none:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if not none:
            thread.join()
    if failed:
        raise failed[0]


def _done_here(place: Workplace, job: Job, kind: str) -> Mapping[str, Any]:
    """Do jobs of a kind until one of them is done; what it gave.

    Raises:
        SpiculaError: It failed; it is not tried again.
    """
    from spicula.core.errors import SpiculaError
    from spicula.pipelines.exchange import ALL_HANDLERS
    from spicula.pipelines.worker import work

    waiting = threading.Event()
    while (now := place.queue.get(job.id)).is_open:
        if now.state == "queued" and now.message:  # a try failed
            place.queue.cancel(job.id)
            raise SpiculaError(now.message)
        if not work(place, once=True, handlers={kind: ALL_HANDLERS[kind]}):
            waiting.wait(0.5)  # another worker has it
    if now.state != "done":
        raise SpiculaError(now.message or now.state)
    return now.result or {}


def _check_alone(rules: Path | None, given: Rule) -> None:
    from spicula.core.errors import InputError
    from spicula.pipelines.watch import Rule

    if rules is not None and given != Rule():
        raise InputError("--rules and other rules as options", expected="one of them")


def _checked_date(text: str | None) -> str | None:
    from datetime import date

    from spicula.core.errors import InputError

    if text is None:
        return None
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise InputError("--since", got=repr(text)[:40], expected="YYYY-MM-DD") from None


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()[:64]
    except (OSError, KeyError):
        return "cli"
