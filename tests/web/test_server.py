"""The server as a process: what it refuses, how it starts and ends, that its workers come back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from spicula.core.errors import InputError
from spicula.web.server import Address, access_of, require_safe, workers


@pytest.mark.parametrize(
    ("address", "users", "error"),
    [
        (Address("0.0.0.0"), False, "without users"),
        (Address("192.168.1.5"), True, "without TLS"),
        (Address("::"), True, "without TLS"),
        (Address("ct.hospital.example"), True, "without TLS"),
        (Address("127.0.0.1", behind_proxy=True), False, "without users"),
        (Address("0.0.0.0", certificate=Path("a.pem")), True, "alone"),
        (Address("0.0.0.0", certificate=Path("none.pem"), key=Path("none.pem")), True, "no such file"),
    ],
)
def test_a_server_that_others_reach_needs_users_and_tls(address, users, error) -> None:
    with pytest.raises(InputError, match=error):
        require_safe(address, users=users)


@pytest.mark.parametrize(
    ("address", "users"),
    [(Address(), False), (Address("localhost"), False), (Address("::1"), False),
     (Address("127.0.0.1", behind_proxy=True), True), (Address("0.0.0.0", behind_proxy=True), True)],
)  # fmt: skip
def test_a_server_of_this_machine_does_not(address, users) -> None:
    require_safe(address, users=users)
    assert access_of(address, users=users).secure == address.behind_proxy


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            requests.get(url, timeout=5)
            return
        except requests.ConnectionError:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.1)
    raise AssertionError("it never answered")


def test_it_starts_answers_and_ends_with_its_workers(tmp_path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "spicula.cli", "serve", "--store", str(tmp_path / "store"), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/healthz", process)
        assert requests.get(f"{url}/healthz", timeout=5).json()["status"] == "ok"
        (worker,) = children_of(process.pid)
        listening = requests.get(f"{url}/api/jobs/events", stream=True, timeout=30)  # does not keep it from ending
        taken = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (taken.returncode, "cannot be had" in taken.stderr, "Traceback" in taken.stderr) == (1, True, False)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        listening.close()
        assert not Path(f"/proc/{worker}/cmdline").exists() or not Path(f"/proc/{worker}/cmdline").read_bytes()


def children_of(pid: int) -> list[int]:
    for _ in range(100):
        found = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        found += [
            int(one) for task in Path(f"/proc/{pid}/task").iterdir() if task.name != str(pid)
            for one in (task / "children").read_text().split()
        ]  # fmt: skip
        if found:
            return found
        time.sleep(0.1)
    return []


def test_a_worker_that_dies_is_started_anew(tmp_path) -> None:
    with workers(1, tmp_path / "store", None) as running:
        first = running[0]
        os.kill(first.pid, signal.SIGKILL)
        for _ in range(200):
            if running[0] is not first:
                break
            time.sleep(0.1)
        assert running[0].pid != first.pid
    assert running[0].poll() is not None
