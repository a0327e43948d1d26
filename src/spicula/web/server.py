"""The server as a process: who may reach it, its workers beside it, its end."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.web.access import Access

LOG = logging.getLogger("spicula.server")

WORKER_OF = "SPICULA_WORKER_OF"
"""Tells a worker the process that started it, and that it ends with."""

GRACE_S = 5.0
"""So long requests and workers may take to end."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens, and how it is reached.

    Args:
        host: Address to listen on.
        port: Port; 0 for any that is free.
        certificate: PEM file; then it speaks TLS.
        key: PEM file of its key.
        behind_proxy: Whether a proxy of yours stands in front, speaks TLS and tells who asks.
        names: Under which it is asked, beside the loopback ones.
    """

    host: str = "127.0.0.1"
    port: int = 8050
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False
    names: Sequence[str] = ()

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_secure(self) -> bool:
        """Whether it is reached by https."""
        return self.certificate is not None or self.behind_proxy


def require_safe(address: Address, *, users: bool) -> None:
    """Refuse to be open to others without logins and encryption.

    Raises:
        InputError: Says what is lacking.
    """
    if (address.certificate is None) != (address.key is None):
        raise InputError("TLS", got="a certificate or a key alone", expected="--tls-cert and --tls-key")
    for what, path in (("certificate", address.certificate), ("key", address.key)):
        if path is not None and not path.is_file():
            raise InputError(f"{what} {path}", got="no such file", expected="a PEM file")
    if address.is_local and not address.behind_proxy:
        return
    if not users:
        hint = "make one with 'spicula users add NAME --role admin', then start with --users"
        raise InputError(f"server at {address.host}", got="open to others without users", hint=hint)
    if not address.is_secure:
        hint = "name --tls-cert and --tls-key, or --behind-proxy where a proxy of yours speaks TLS"
        raise InputError(f"server at {address.host}", got="open to others without TLS", hint=hint)


def serve(app: Any, address: Address) -> None:
    """Serve an application until it is told to stop (SIGINT, SIGTERM).

    Args:
        app: Of :func:`spicula.web.app.make_app`.
        address: Where.

    Raises:
        InputError: The port is taken.
    """
    uvicorn = require("uvicorn", extra="serve")

    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
        def handle_exit(self, sig: int, frame: Any) -> None:
            app.state.stopping.set()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app, host=address.host, port=address.port, log_level="warning", access_log=False, lifespan="off", ws="none",
        server_header=False, timeout_graceful_shutdown=int(GRACE_S), timeout_keep_alive=30,
        proxy_headers=address.behind_proxy, forwarded_allow_ips="127.0.0.1,::1" if address.behind_proxy else None,
        ssl_certfile=None if address.certificate is None else str(address.certificate),
        ssl_keyfile=None if address.key is None else str(address.key), h11_max_incomplete_event_size=64 * 1024,
    )  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again at its end: workers must still be ended
    try:
        Server(config).run()
    except KeyboardInterrupt:
        return
    except SystemExit as error:
        if error.code:
            raise InputError(
                f"server at {address.host}:{address.port}", got="an address that cannot be had",
                hint="is another one running there? name another with --port",
            ) from None  # fmt: skip


def access_of(address: Address, *, users: bool) -> Access:
    """Who may ask a server at an address."""
    names = tuple(address.names) if address.is_local else (*address.names, address.host)
    return Access(users=users, hosts=names, secure=address.is_secure)


@contextmanager
def workers(count: int, store: Path, url: str | None) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run worker processes beside the server; one that dies is started anew.

    Args:
        count: How many.
        store: Folder of the store.
        url: Of its database; None for the file in the folder.
    """
    ended = threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        environment = {**os.environ, "SPICULA_STORE": str(store), WORKER_OF: str(os.getpid())}
        if url is not None:
            environment["SPICULA_DATABASE"] = url  # not among the arguments, which every user of the machine sees
        return subprocess.Popen([sys.executable, "-m", "spicula.cli", "work"], env=environment, start_new_session=True)

    def watch() -> None:
        while not ended.wait(1.0):
            for place, one in enumerate(running):
                if one.poll() is not None and not ended.is_set():
                    LOG.warning("a worker ended with status %s and is started anew", one.returncode)
                    running[place] = begin()

    running += [begin() for _ in range(count)]
    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield running
    finally:
        ended.set()
        watching.join()
        for one in running:
            one.send_signal(signal.SIGTERM)
        for one in running:
            try:
                one.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                one.kill()  # its job is taken up again by whoever runs next
                one.wait()
