"""A study's files are written once for each state of its findings, whoever asks and whatever is killed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest

from spicula.core.errors import InputError
from spicula.dicom.inbox import facts_of
from spicula.pipelines import study_outputs
from spicula.pipelines.current_outputs import (
    OUTPUTS,
    RESULTS_FOLDER,
    Busy,
    Write,
    current_outputs,
    older_outputs,
    outputs_there,
)
from spicula.pipelines.exchange import results_of
from spicula.pipelines.ingest import ingest
from spicula.pipelines.study_sheet import export, export_there, study_sheet
from spicula.pipelines.upkeep import check, remove_study, sweep
from spicula.pipelines.worker import ANALYZE, work
from spicula.pipelines.workplace import Workplace, open_workplace

from .exchange_tiny import outputs_again, tiny_handlers, write_ct
from .test_study_outputs import Kept, kept, source  # noqa: F401

OLD = time.time() - 7200


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with open_workplace(tmp_path / "store") as place:
        yield place


def analyzed(place: Workplace, folder: Path, seed: str = "") -> str:
    """A study of the store with one finding."""
    (study,) = ingest(write_ct(folder / f"ct{seed}", seed)[0].parent, place.studies, origin="upload").studies
    place.queue.ask(ANALYZE, study, {"study_uid": study}, by="ada")
    assert work(place, once=True, handlers=tiny_handlers()) == 1
    return study


def changed(place: Workplace, study: str) -> None:
    (finding,) = place.findings.of_study(study)
    place.findings.change(finding.id, seen=finding.version, by="ada", state="accepted")


def folders(place: Workplace, study: str) -> list[str]:
    return sorted(path.name for path in (place.folder / RESULTS_FOLDER / study).iterdir() if path.is_dir())


def counting(write: Write = outputs_again) -> tuple[Write, list[str]]:
    """What writes, and the studies that it was called for."""
    called: list[str] = []

    def count(place: Workplace, study_uid: str, folder: Path) -> object:
        called.append(study_uid)
        return write(place, study_uid, folder)

    return count, called


def until(reached: Callable[[], bool]) -> None:
    stop = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < stop
        time.sleep(0.01)


def test_what_is_exported_is_what_is_sent_also_by_a_later_version(
    kept: Kept,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, study = kept.place, kept.study
    sent = results_of(place, study)
    before = {name: path.read_bytes() for name, path in sent.items()}
    monkeypatch.setattr(study_outputs, "__version__", "99.0")  # which gives its objects UIDs of its own
    for name in ("sr", "seg"):
        assert export(place, study, f"{name}.dcm").read_bytes() == before[name]
    assert results_of(place, study) == sent
    assert {name: path.read_bytes() for name, path in sent.items()} == before
    assert sorted(path.name for path in sent["sr"].parent.iterdir()) == sorted(OUTPUTS)
    assert study_sheet(place, study)["exports"] == list(OUTPUTS)
    assert not (place.folder / "exports").exists()
    kept.change(1, state="accepted")
    assert export_there(place, study, "sr.dcm") is None
    after = export(place, study, "sr.dcm")
    assert pydicom.dcmread(after).SOPInstanceUID != pydicom.dcmread(sent["sr"]).SOPInstanceUID
    assert export_there(place, study, "sr.dcm") == after


def test_what_an_earlier_version_sent_stays_the_same_object(place: Workplace, tmp_path: Path) -> None:
    study = analyzed(place, tmp_path)
    ids = [row["id"] for row in place.findings.analyses(study)]
    versions = [(one.id, one.version) for one in place.findings.of_study(study)]
    before = (
        place.folder / RESULTS_FOLDER / study / hashlib.sha256(json.dumps([ids, versions]).encode()).hexdigest()[:24]
    )
    before.mkdir(parents=True)
    outputs_again(place, study, before)
    sent = {name: (before / f"{name}.dcm").read_bytes() for name in ("sr", "seg")}
    files = results_of(place, study, outputs=outputs_again)
    assert {name: path.read_bytes() for name, path in files.items()} == sent
    os.utime(before, (OLD, OLD))
    assert results_of(place, study, outputs=outputs_again) == files
    assert folders(place, study) == [files["sr"].parent.name]


def test_many_threads_get_one_folder_written_once(place: Workplace, tmp_path: Path) -> None:
    study = analyzed(place, tmp_path)
    write, called = counting(partial(outputs_again, pause_s=0.1))
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: current_outputs(place, study, write=write), range(16)))
    assert (len(found), called) == (1, [study])
    assert folders(place, study) == [found.pop().name]


ASKING = """
import sys
from hashlib import sha256
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from tests.pipelines.exchange_tiny import outputs_again
from spicula.pipelines.current_outputs import current_outputs
from spicula.pipelines.workplace import open_workplace
store, study, pause_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
def write(place, study_uid, folder):
    with (store / "begun").open("a") as stream:
        stream.write("once\\n")
    outputs_again(place, study_uid, folder, pause_s=pause_s)
with open_workplace(store) as place:
    print(sha256((current_outputs(place, study, write=write) / "sr.dcm").read_bytes()).hexdigest())
"""


def asking(place: Workplace, study: str, pause_s: float) -> subprocess.Popen[str]:
    """Another process that asks for a study's files."""
    arguments = [str(place.folder), study, str(pause_s), str(Path(__file__).parents[2])]
    return subprocess.Popen([sys.executable, "-c", ASKING, *arguments], stdout=subprocess.PIPE, text=True)


def test_many_processes_get_one_folder_written_once(place: Workplace, tmp_path: Path) -> None:
    study = analyzed(place, tmp_path)
    processes = [asking(place, study, 1.0) for _ in range(4)]
    told = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    assert len(told) == 1
    assert (place.folder / "begun").read_text() == "once\n"


def test_who_is_killed_while_writing_keeps_nobody_waiting_and_leaves_nothing_half(
    place: Workplace, tmp_path: Path
) -> None:
    study = analyzed(place, tmp_path)
    process = asking(place, study, 600.0)
    base = place.folder / RESULTS_FOLDER / study
    try:
        until(lambda: any(base.glob("*/sr.dcm")) or any(base.glob(".*/sr.dcm")))  # half of it
        assert outputs_there(place, study) is None
        with pytest.raises(Busy, match="ask again in a while"):
            current_outputs(place, study, write=outputs_again, wait_s=0.1)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert folders(place, study) != []  # what it left
    folder = current_outputs(place, study, write=outputs_again, wait_s=0.0)
    assert folders(place, study) == [folder.name]
    assert {facts_of(path).study_uid for path in folder.glob("*.dcm")} == {study}


def test_one_study_does_not_wait_for_another_and_waits_for_itself_so_long(place: Workplace, tmp_path: Path) -> None:
    slow, quick = analyzed(place, tmp_path, "a"), analyzed(place, tmp_path, "b")
    began, go_on = threading.Event(), threading.Event()

    def waits(place: Workplace, study_uid: str, folder: Path) -> None:
        began.set()
        assert go_on.wait(60)
        outputs_again(place, study_uid, folder)

    found: list[Path] = []
    thread = threading.Thread(target=lambda: found.append(current_outputs(place, slow, write=waits)))
    thread.start()
    try:
        assert began.wait(60)
        assert len(results_of(place, quick, outputs=outputs_again)) == 2
        with pytest.raises(Busy, match=f"study {slow}: got its files being written by another for more than 0.1 s"):
            current_outputs(place, slow, write=outputs_again, wait_s=0.1)
    finally:
        go_on.set()
        thread.join()
    assert found == [current_outputs(place, slow, write=outputs_again)]


def test_earlier_states_go_an_hour_after_they_were_last_asked_for(place: Workplace, tmp_path: Path) -> None:
    study = analyzed(place, tmp_path)
    first = current_outputs(place, study, write=outputs_again)
    os.utime(first, (OLD, OLD))
    assert current_outputs(place, study, write=outputs_again) == first  # somebody fetches it from now on
    changed(place, study)
    second = current_outputs(place, study, write=outputs_again)
    assert first.is_dir()
    os.utime(first, (OLD, OLD))
    assert list(older_outputs(place, study)) == [first]
    assert any("1 folders that nothing names" in told for told in check(place))
    assert outputs_there(place, study) == second
    assert folders(place, study) == [second.name]
    changed(place, study)
    os.utime(second, (OLD, OLD))
    third = current_outputs(place, study, write=outputs_again)
    assert folders(place, study) == [third.name]


def test_a_sweep_removes_earlier_states_and_the_exports_of_earlier_versions(place: Workplace, tmp_path: Path) -> None:
    study = analyzed(place, tmp_path)
    first = current_outputs(place, study, write=outputs_again)
    changed(place, study)
    second = current_outputs(place, study, write=outputs_again)
    before = place.folder / "exports" / hashlib.sha256(study.encode()).hexdigest()[:32]
    (before / "state").mkdir(parents=True)
    for path in (first, second, before):
        os.utime(path, (OLD, OLD))
    assert sweep(place).folders == 2
    assert folders(place, study) == [second.name]
    assert not before.exists()


def test_a_study_that_is_removed_meanwhile_leaves_nothing(place: Workplace, tmp_path: Path) -> None:
    for number, when in enumerate(("before", "after")):
        study = analyzed(place, tmp_path, str(number))

        def removing(place: Workplace, study_uid: str, folder: Path, *, when: str = when) -> None:
            if when == "before":
                remove_study(place, study_uid)
            outputs_again(place, study_uid, folder)
            if when == "after":
                remove_study(place, study_uid)

        with pytest.raises(InputError, match=f"study {study}: got none of this UID"):
            current_outputs(place, study, write=removing)
        assert not (place.folder / RESULTS_FOLDER / study).exists()


def test_what_has_no_results_leaves_no_folder(place: Workplace, tmp_path: Path) -> None:
    (study,) = ingest(write_ct(tmp_path / "ct")[0].parent, place.studies, origin="upload").studies
    for ask in (current_outputs, outputs_there):
        with pytest.raises(InputError, match="got no results, expected an analyzed study"):
            ask(place, study)
        with pytest.raises(InputError, match="none of this UID"):
            ask(place, "1.2.3")
    with pytest.raises(InputError, match=r"expected one of report\.html"):
        export(place, study, "../store.sqlite")
    assert not (place.folder / RESULTS_FOLDER).exists()


def test_a_folder_that_is_removed_while_one_waits_is_made_anew(place: Workplace, tmp_path: Path) -> None:
    study = analyzed(place, tmp_path)
    began, go_on = threading.Event(), threading.Event()

    def waits(place: Workplace, study_uid: str, folder: Path) -> None:
        began.set()
        assert go_on.wait(60)
        outputs_again(place, study_uid, folder)

    failed: list[BaseException] = []

    def first() -> None:
        try:
            current_outputs(place, study, write=waits)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert began.wait(60)
    shutil.rmtree(place.folder / RESULTS_FOLDER)
    found: Any = current_outputs(place, study, write=outputs_again, wait_s=0.0)  # it holds another lock
    go_on.set()
    thread.join()
    assert len(failed) == 1
    assert sorted(path.name for path in found.iterdir()) == ["seg.dcm", "sr.dcm"]
