"""``serve`` and ``work``: the reader's page with everything behind it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from spicula.cli.scans import DISCLAIMER
from spicula.cli.store_options import DEFAULT_STORE, DatabaseOption, StoreOption

app = typer.Typer()

NAMES = "Name under which the server is asked, for example ct.hospital.org; may be repeated."


@app.command()
def serve(
    store: StoreOption = DEFAULT_STORE,
    database: DatabaseOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page.")] = 8050,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine need users and TLS.")] = (
        "127.0.0.1"
    ),
    users: Annotated[bool, typer.Option("--users", help="Readers log in; see 'spicula users'.")] = False,
    oidc: Annotated[
        Path | None, typer.Option(help="TOML that names an OpenID Connect provider at which readers log in.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy on this machine speaks TLS and tells who asks.")
    ] = False,
    name: Annotated[list[str] | None, typer.Option("--name", help=NAMES)] = None,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Processes that analyze.")] = 1,
    index: Annotated[str | None, typer.Option(help="Past cases to search; LIDC's nodules if omitted.")] = None,
    search_bundle: Annotated[str | None, typer.Option(help="Bundle that made that index.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the index's scans, to show matches.")] = None,
    ohif: Annotated[Path | None, typer.Option(help="Folder 'dist' of the npm package @ohif/app, for /ohif.")] = None,
    quota_gb: Annotated[float | None, typer.Option(min=0.001, help="What all images may take, GB.")] = None,
    upload_gb: Annotated[float, typer.Option(min=0.001, help="What one upload may take, GB.")] = 4.0,
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Take who the patient is out of all that comes in.")
    ] = False,
) -> None:
    """Open the reading room: a page with studies, images, findings and similar cases."""
    from spicula.pipelines.workplace import open_workplace
    from spicula.web import server
    from spicula.web.app import make_app
    from spicula.web.limits import Limits
    from spicula.web.oidc_file import load_elsewhere
    from spicula.web.services import Services

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it would write values of headers that it cannot read
    address = server.Address(host, port, tls_cert, tls_key, behind_proxy, tuple(name or ()))
    users = users or oidc is not None
    server.require_safe(address, users=users)
    quota = None if quota_gb is None else int(quota_gb * 1e9)
    if quota is not None:
        os.environ["SPICULA_QUOTA_BYTES"] = str(quota)
    with open_workplace(store, url=database, quota_bytes=quota, deidentify=deidentify) as place:
        services = Services(place, index, search_bundle, images)
        access = server.access_of(address, users=users)
        bounds = Limits(upload_bytes=int(upload_gb * 1e9))
        made = make_app(
            place, limits=bounds, access=access, services=services, second_viewer=ohif,
            elsewhere=None if oidc is None else load_elsewhere(oidc),
        )  # fmt: skip
        scheme = "https" if address.certificate else "http"
        typer.echo(f"Spicula at {scheme}://{host}:{port}  (store: {store})\n{DISCLAIMER}\nStop with Ctrl+C.")
        with server.workers(workers, store, database):
            server.serve(made, address)


@app.command()
def work(store: StoreOption = DEFAULT_STORE, database: DatabaseOption = None) -> None:
    """Analyze what waits in a store's queue until stopped; 'serve' starts such processes itself."""
    from spicula.pipelines.exchange import ALL_HANDLERS, PULL
    from spicula.pipelines.upkeep import sweep
    from spicula.pipelines.worker import work as do_work
    from spicula.pipelines.workplace import open_workplace
    from spicula.web.server import WORKER_OF

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    stop = threading.Event()

    def told(*_: Any) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, told)
    parent = os.environ.get(WORKER_OF)
    if parent is not None:
        threading.Thread(target=_end_with, args=(int(parent), stop), daemon=True).start()
    quota = os.environ.get("SPICULA_QUOTA_BYTES")
    with open_workplace(store, url=database, quota_bytes=int(quota) if quota else None) as place:  # fmt: skip
        sweep(place)
        do_work(place, stop=stop, handlers=ALL_HANDLERS, at_most={PULL: 1})


def _end_with(parent: int, stop: threading.Event) -> None:
    """Stop once the process that started this one is gone, however it went."""
    while not stop.wait(1.0):
        if os.getppid() != parent:
            stop.set()
