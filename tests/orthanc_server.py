"""A real archive: Orthanc with DICOMweb in a temporary folder, one a process of tests.

A ``conftest.py`` or a test module that wants it imports the fixtures ``orthanc`` and ``new_orthanc``.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BRINGS_IT = "apt-get install -y --no-install-recommends orthanc orthanc-dicomweb"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
AE_TITLE, OURS = "ORTHANC", "SPICULA"


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Orthanc:
    """A server that runs; it knows us as ``OURS``, listening on ``move_port``."""

    http_port: int
    dicom_port: int
    move_port: int
    process: subprocess.Popen[bytes]
    ae_title: str = AE_TITLE

    @property
    def rest(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def web(self) -> str:
        return f"{self.rest}/dicom-web"

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> Any:
        """Orthanc's own REST interface: what is really in it."""
        request = urllib.request.Request(f"{self.rest}/{path}", method=method, data=body)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read() or b"null")

    def clear(self) -> None:
        """Forget all patients."""
        for patient in self.ask("patients"):
            self.ask(f"patients/{patient}", "DELETE")


def configuration(folder: Path, ports: tuple[int, int, int], users: dict[str, str]) -> dict[str, Any]:
    http, dicom, move = ports
    return {
        "Name": "spicula tests", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "Plugins": [str(PLUGIN)], "HttpPort": http, "DicomPort": dicom, "DicomAet": AE_TITLE,
        "DicomCheckCalledAet": True, "DicomCheckModalityHost": False, "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True, "DicomAlwaysAllowFind": True, "DicomAlwaysAllowGet": True,
        "DicomModalities": {OURS: [OURS, "127.0.0.1", move]},
        "AuthenticationEnabled": bool(users), "RegisteredUsers": users, "RemoteAccessAllowed": bool(users),
        "StorageAccessOnFind": "Never", "HttpThreadsCount": 8,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
    }  # fmt: skip


def started(folder: Path, users: dict[str, str]) -> Orthanc:
    ports = (free_port(), free_port(), free_port())
    (folder / "orthanc.json").write_text(json.dumps(configuration(folder, ports, users)))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["Orthanc", "orthanc.json"], cwd=folder, stdout=log, stderr=log, env={**os.environ, "TCP_NODELAY": "1"}
        )
    stop = time.monotonic() + 60
    for port in ports[:2]:
        while process.poll() is None and time.monotonic() < stop:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
    if process.poll() is not None or time.monotonic() > stop:
        process.kill()
        pytest.fail("Orthanc does not start:\n" + (folder / "log").read_text()[-2000:])
    return Orthanc(*ports, process)


@pytest.fixture(scope="session")
def new_orthanc() -> Iterator[Callable[..., Orthanc]]:
    """What starts a server, ``new_orthanc(name="password")`` one that asks for it; all are stopped at the end."""
    if shutil.which("Orthanc") is None or not PLUGIN.exists():
        if os.environ.get("SPICULA_NO_SKIP"):
            pytest.fail(f"no Orthanc: {BRINGS_IT}")
        pytest.skip(BRINGS_IT)
    servers: list[Orthanc] = []
    with tempfile.TemporaryDirectory(prefix="orthanc-", ignore_cleanup_errors=True) as root:

        def start(**users: str) -> Orthanc:
            folder = Path(root) / str(len(servers))
            folder.mkdir()
            servers.append(started(folder, users))
            return servers[-1]

        yield start
        for server in servers:  # nothing in them is to be kept, and an orderly end takes seconds
            server.process.kill()
            server.process.wait(20)


@pytest.fixture(scope="session")
def orthanc(new_orthanc: Callable[..., Orthanc]) -> Orthanc:
    """A server that asks for no password."""
    return new_orthanc()
