"""``spicula listen``, ``watch`` and ``pacs`` through the commands themselves, with a real Orthanc."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from spicula.cli import main
from spicula.dicom.inbox import facts_of
from spicula.dicom.pacs import Pacs
from spicula.dicom.web import DicomWeb
from spicula.pipelines import exchange
from spicula.pipelines.watch import first_start
from spicula.pipelines.workplace import open_workplace

from ..orthanc_server import Orthanc, free_port
from ..pipelines.exchange_tiny import SECRET, SLICES, in_orthanc, tiny_handlers, write_archives, write_ct

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that knows the archive; analyses are tiny, all else is real."""
    orthanc.clear()
    write_archives(tmp_path / "store", orthanc)
    monkeypatch.setenv("SPICULA_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(exchange, "ALL_HANDLERS", tiny_handlers())
    return tmp_path / "store"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``spicula``; gives its exit status and both of its streams."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["spicula", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert SECRET not in out + err
        return int(end.value.code or 0), out, err

    return call


def interrupt_when(reached: Callable[[], bool]) -> threading.Thread:
    """Ctrl-C in the terminal of this process as soon as something is reached."""

    def wait() -> None:
        until = time.monotonic() + 60
        while not reached() and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_from_the_archive_and_back_by_following_next(
    store: Path, orthanc: Orthanc, run: Run, tmp_path: Path
) -> None:  # fmt: skip
    files = write_ct(tmp_path / "ct")
    DicomWeb(orthanc.web).store(files)
    study = facts_of(files[0]).study_uid
    status, out, _ = run("pacs", "list")
    assert status == 0
    assert re.search(r"^web +dicomweb +http\S+  \(pull and send\)$", out, re.MULTILINE)
    assert re.search(r"^dimse +dimse +ORTHANC at 127.0.0.1:\d+  \(pull and send\)$", out, re.MULTILINE)
    for _ in range(4):  # echo, find, pull, send
        following = re.search(r"^Next: spicula (.+)$", out, re.MULTILINE)
        assert following is not None, out
        status, out, err = run(*following[1].split())
        assert (status, err) == (0, ""), following[1]
    assert out == f"2 sent, 0 were there; web shows them\n\nNext: spicula watch --to web --store {store}\n"
    assert in_orthanc(orthanc, study) == ["CT"] * SLICES + ["SEG", "SR"]
    status, out, _ = run("pacs", "send", study, "dimse", "--what", "sr")
    assert out.startswith("0 sent, 1 were there; dimse shows them\n")


def test_what_is_found_names_no_patient_unless_it_is_asked_to(
    store: Path, orthanc: Orthanc, run: Run, tmp_path: Path
) -> None:  # fmt: skip
    files = write_ct(tmp_path / "ct", patient="PAT-17")
    DicomWeb(orthanc.web).store(files)
    for name in ("web", "dimse"):
        _, out, _ = run("pacs", "find", name, "--patient", "PAT-*", "--date", "20200101-", "--modality", "CT")
        assert out.splitlines()[0].split() == ["20200102", "CT", "4", "images", facts_of(files[0]).study_uid]
        assert "PAT-17" not in out
        _, out, _ = run("pacs", "find", name, "--show-patients")
        assert out.splitlines()[0].split()[1] == "PAT-17"
        assert run("pacs", "find", name, "--patient", "NOBODY")[1] == "0 studies\n"


def test_what_is_only_asked_waits_for_a_worker(store: Path, orthanc: Orthanc, run: Run, tmp_path: Path) -> None:
    files = write_ct(tmp_path / "ct")
    DicomWeb(orthanc.web).store(files)
    study = facts_of(files[0]).study_uid
    status, out, _ = run("pacs", "pull", "web", study, "--queue")
    assert (status, re.sub("[0-9a-f]{32}", "ID", out)) == (0, "asked, job ID\n\nNext: spicula work\n")
    with open_workplace(store) as place:
        assert [(job.kind, job.state) for job in place.queue.list()] == [("pull", "queued")]
    assert run("pacs", "pull", "web", study, "--no-analyze")[0] == 0  # after what was asked before
    with open_workplace(store) as place:
        states = sorted((job.kind, job.state) for job in place.queue.list())
    assert states == [("analyze", "queued"), ("pull", "done"), ("pull", "done")]


def test_errors_are_one_line_and_nothing_is_tried_again_behind_ones_back(
    store: Path, run: Run, tmp_path: Path
) -> None:  # fmt: skip
    status, _, err = run("pacs", "pull", "web", "1.2.3")
    assert status == 1
    assert err == (
        "error: web: study 1.2.3: got no series, expected one that it has. Hint: spicula pacs find web\n"
    )  # fmt: skip
    with open_workplace(store) as place:
        assert place.queue.counts() == {"cancelled": 1}
    for arguments, message in {
        ("echo", "other"): "archive 'other': got none of this name, expected one of web, dimse",
        ("pull", "closed", "1.2.3"): "archive closed: does not allow to pull",
        ("send", "1.2.3", "web"): "study 1.2.3: got none of this UID",
        ("list", "--archives", tmp_path / "none.toml"): "none.toml: got nothing there",
    }.items():
        status, _, err = run("pacs", *arguments)
        assert (status, message in err) == (1, True), err
    (store / "archives.toml").unlink()
    status, out, _ = run("pacs", "list")
    assert (status, "none; write [NAME] with url, or host, port and called_aet" in out) == (0, True)


def test_what_is_received_is_watched_analyzed_and_sent(
    store: Path, orthanc: Orthanc, run: Run, tmp_path: Path
) -> None:  # fmt: skip
    thin = write_ct(tmp_path / "thin", "thin", thickness_mm=1.0)
    thick = write_ct(tmp_path / "thick", "thick", thickness_mm=5.0)
    studies = [facts_of(files[0]).study_uid for files in (thin, thick)]
    port = free_port()
    way = Pacs("127.0.0.1", port, "SPICULA", calling_ae_title="SCANNER", timeout_s=5.0)
    with open_workplace(store) as place:
        for of in ("studies", "to web"):
            first_start(place, of)

        def received() -> bool:
            try:
                way.store([*thin, *thick])
            except Exception:  # not yet there
                return False
            return True

        thread = interrupt_when(received)
        status, out, err = run("listen", "--port", port, "--allow", "SCANNER")
        thread.join()
        assert (status, err) == (0, "")
        assert out.startswith(f"SPICULA listens on 127.0.0.1:{port}; SCANNER may send\n\nNext: spicula watch --store")
        assert place.studies.list().total == 2
        thread = interrupt_when(lambda: in_orthanc(orthanc, studies[0]) == ["SEG", "SR"])
        status, out, err = run("watch", "--to", "web", "--thickness", "1.5", "--settled", "0")
        thread.join()
    assert (status, err) == (0, "")
    assert out.splitlines()[1:] == [
        f"study {studies[0]}: matches, to be analyzed", f"study {studies[0]}: analyzed, to be sent to web"
    ]  # fmt: skip
    assert in_orthanc(orthanc, studies[1]) == []


def test_a_watch_refuses_what_makes_no_sense(store: Path, run: Run, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nmodality = "CT"\n')
    for arguments, message in {
        ("--rules", rules, "--thickness", "1"): "--rules and other rules as options: expected one of them",
        ("--rules", tmp_path / "none.toml"): "none.toml: got No such file or directory",
        ("--to", "closed"): "archive closed: does not allow to send",
        ("--since", "yesterday"): "--since: got 'yesterday', expected YYYY-MM-DD",
        ("--thickness", "0"): "slice_thickness_mm_max: got 0.0, expected more than 0 mm",
    }.items():
        status, _, err = run("watch", *arguments)
        assert (status, message in err) == (1, True), err
