"""What arrives is analyzed by rules and its results reach a real Orthanc once, whenever the watch is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, update
from sqlalchemy.exc import OperationalError

from spicula.core.errors import InputError
from spicula.dicom.inbox import facts_of
from spicula.dicom.pacs import Pacs
from spicula.dicom.web import DicomWeb
from spicula.pipelines import watch as watch_module
from spicula.pipelines.exchange import ALL_HANDLERS, SEND, ask_pull
from spicula.pipelines.ingest import ingest
from spicula.pipelines.watch import Rule, Watcher, first_start, load_rules, watch
from spicula.pipelines.worker import ANALYZE, ask_analysis, work
from spicula.pipelines.workplace import Workplace, open_workplace
from spicula.store.clock import later
from spicula.store.studies import INSTANCES_FOLDER
from spicula.store.tables import INSTANCES, JOBS, STUDIES
from spicula.store.tables import SERIES as SERIES_ROWS

from ..orthanc_server import Orthanc, free_port
from .exchange_tiny import SECRET, SLICES, in_orthanc, tiny_handlers, write_archives, write_ct

STUDY = {"body_part": "CHEST"}
SERIES = {"modality": "CT", "description": "Lung 1.0 B60f", "slice_thickness_mm": 1.0, "instances": 300}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with open_workplace(tmp_path / "store") as place:
        yield place


@pytest.fixture
def orthanc_place(orthanc: Orthanc, place: Workplace) -> Workplace:
    orthanc.clear()
    write_archives(place.folder, orthanc)
    return place


def brought(place: Workplace, folder: Path, seed: str = "", **options: Any) -> str:
    """A new study of the store."""
    (study_uid,) = ingest(write_ct(folder / f"ct-{seed}", seed, **options)[0].parent, place.studies, origin="x").studies
    return study_uid


RULES = [
    (Rule(), {}, True),
    (Rule(), {"modality": "MR"}, False),
    (Rule("mr"), {"modality": "MR"}, True),
    (Rule(body_part=("chest", "THORAX")), {}, True),
    (Rule(body_part=("HEAD",)), {}, False),
    (Rule(slice_thickness_mm_max=1.0), {}, True),
    (Rule(slice_thickness_mm_max=0.9), {}, False),
    (Rule(slice_thickness_mm_max=3), {"slice_thickness_mm": None}, False),
    (Rule(description_contains=("LUNG", "thorax")), {}, True),
    (Rule(description_contains=("thorax",)), {}, False),
    (Rule(description_lacks=("scout",)), {}, True),
    (Rule(description_lacks=("scout", "b60")), {}, False),
    (Rule(images_min=300), {}, True),
    (Rule(images_min=301), {}, False),
]


@pytest.mark.parametrize(("rule", "change", "expected"), RULES, ids=[str(n) for n in range(len(RULES))])
def test_a_rule_matches_what_it_says(rule: Rule, change: dict[str, Any], expected: bool) -> None:
    assert rule.matches(STUDY, {**SERIES, **change}) is expected


def test_a_body_part_that_is_not_told_matches_only_where_that_is_wanted() -> None:
    assert not Rule(body_part=("CHEST",)).matches({"body_part": ""}, SERIES)
    assert Rule(body_part=("CHEST", "")).matches({"body_part": ""}, SERIES)


def test_rules_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(
        '[[rule]]\nbody_part = ["CHEST", ""]\nslice_thickness_mm_max = 3\nimages_min = 40\n'
        '[[rule]]\nmodality = "CT"\ndescription_contains = "lung"\ndescription_lacks = ["scout"]\n'
    )
    assert load_rules(file) == (
        Rule(body_part=("CHEST", ""), slice_thickness_mm_max=3, images_min=40),
        Rule(description_contains=("lung",), description_lacks=("scout",)),
    )


WRONG = {
    "no TOML": ("[[rule]", "TOML"),
    "no rule": ("", r"got nothing, expected tables \[\[rule\]\] alone"),
    "a table": ('[rule]\nmodality = "CT"', r"tables \[\[rule\]\] alone"),
    "more": ("other = 1\n[[rule]]\n", "got other, rule"),
    "key": ("[[rule]]\nthickness = 1", "rule 1: key 'thickness': got none that is known, expected modality"),
    "text": ('[[rule]]\nslice_thickness_mm_max = "1"', "got a str, expected a number of mm"),
    "number": ("[[rule]]\nmodality = 1", "got a int, expected a text"),
    "numbers": ("[[rule]]\nbody_part = [1]", "body_part: got a list, expected texts"),
    "negative": ("[[rule]]\nslice_thickness_mm_max = -1", "rule 1: slice_thickness_mm_max: got -1"),
    "none": ("[[rule]]\nimages_min = 0", "images_min: got 0"),
    "float": ("[[rule]]\nimages_min = 1.5", "expected a whole number"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_rules_that_make_no_sense_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_rules(tmp_path / "rules.toml")
    with pytest.raises(InputError, match="No such file"):
        load_rules(tmp_path / "none.toml")


def test_a_watch_needs_rules_and_archives_that_take(orthanc_place: Workplace) -> None:
    with pytest.raises(InputError, match="rules: got none"):
        Watcher(orthanc_place, [])
    with pytest.raises(InputError, match="does not allow to send"):
        Watcher(orthanc_place, [Rule()], destinations=["closed"])
    assert orthanc_place.queue.list() == ()


def test_a_study_is_asked_for_when_it_is_complete_and_once(place: Workplace, tmp_path: Path) -> None:
    said: list[str] = []
    patient = Watcher(place, [Rule()], settled_s=3600, say=said.append)
    hasty = Watcher(place, [Rule()], settled_s=0, say=said.append)
    study = brought(place, tmp_path)
    assert patient.look() == 0
    assert hasty.look() == 1
    assert said == [f"study {study}: matches, to be analyzed"]
    assert hasty.look() == 0
    work(place, once=True, handlers=tiny_handlers())
    assert (hasty.look(), patient.look(), Watcher(place, [Rule()], settled_s=0).look()) == (0, 0, 0)
    assert [job.kind for job in place.queue.list()].count(ANALYZE) == 1


def test_what_is_complete_is_told_by_the_database_and_not_by_files(place: Workplace, tmp_path: Path) -> None:
    watcher = Watcher(place, [Rule()], settled_s=5.0)
    study = brought(place, tmp_path)
    assert watcher.look() == 0
    with place.engine.begin() as connection:
        connection.execute(update(STUDIES).values(newest_at=later(-6)))
    for path in (place.folder / INSTANCES_FOLDER).rglob("*.dcm"):
        os.utime(path)  # as a restored copy has it
    assert watcher.look() == 1
    assert [job.key for job in place.queue.list() if job.kind == ANALYZE] == [study]


def test_every_instance_that_comes_makes_its_study_wait_anew(place: Workplace, tmp_path: Path) -> None:
    files, times = write_ct(tmp_path / "ct"), list[str]()
    for file in files:
        ingest(file, place.studies, origin="x")
        times.append(str(place.studies.get(facts_of(file).study_uid)["newest_at"]))
    assert times == sorted(set(times))
    row = place.studies.get(facts_of(files[0]).study_uid)
    assert row["received_at"] < times[0]
    ingest(files[0], place.studies, origin="x")  # it is there
    assert place.studies.get(str(row["study_uid"]))["newest_at"] == times[-1]


def kind_of(number: int) -> str:
    few = ("new", "other", "waits", "failed", "analyzed", "sent", "in vain", "sending")
    return few[number % 8] if number < 80 else ("other", "waits", "failed", "sent", "sending")[number % 5]


def fill(place: Workplace, count: int, *, at: str, first: int = 0) -> None:
    """Studies of every kind at once, the first ones such that there is something to ask for, too."""
    numbers = range(first, first + count)
    uids = [f"1.2.{number}" for number in numbers]
    kinds = dict(zip(numbers, map(kind_of, numbers), strict=True))
    jobs = []
    for number, uid in zip(numbers, uids, strict=True):
        kind = kinds[number]
        if kind not in ("new", "other"):
            state = {"waits": "queued", "failed": "failed"}.get(kind, "done")
            jobs.append({"kind": ANALYZE, "key": uid, "state": state, "task": {"study_uid": uid}})
        if kind in ("sent", "in vain", "sending"):
            state = {"sent": "done", "in vain": "failed", "sending": "running"}[kind]
            jobs.append({"kind": SEND, "key": f"{uid} web sr seg", "state": state, "task": {"study_uid": uid}})
    studies = [{"study_uid": uid, "patient_id": uid, "origin": "x", "received_at": at, "newest_at": at} for uid in uids]
    modality = {number: "MR" if kind == "other" else "CT" for number, kind in kinds.items()}
    series = [
        {"series_uid": f"{uid}.{one}", "study_uid": uid, "modality": modality[number]}
        for number, uid in zip(numbers, uids, strict=True)
        for one in range(2)
    ]
    about = {"sop_class_uid": "1.2", "transfer_syntax_uid": "1.2.1", "bytes": 1, "sha256": ""}
    instances = [
        {**about, "sop_instance_uid": f"{one['series_uid']}.{n}", "series_uid": one["series_uid"],
         "file": f"{one['series_uid']}.{n}"}
        for one in series
        for n in range(2)
    ]  # fmt: skip
    ended = {"created_at": at, "created_by": "x", "not_before": at}
    rows = [
        {**ended, **one, "id": f"{first}-{n}", "ended_at": at if one["state"] in ("done", "failed") else None,
         "alive_until": later(3600) if one["state"] == "running" else None}
        for n, one in enumerate(jobs)
    ]  # fmt: skip
    with place.engine.begin() as connection:
        for table, values in ((STUDIES, studies), (SERIES_ROWS, series), (INSTANCES, instances), (JOBS, rows)):
            if values:
                connection.execute(insert(table), values)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workplace]:
    """A store with an archive that is never spoken to, in both kinds of database."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with open_workplace(tmp_path / "store", url=url) as place:
        (place.folder / "archives.toml").write_text('[web]\nurl = "http://127.0.0.1:9/dicom-web"\nsend = true\n')
        yield place


@contextmanager
def counted(place: Workplace) -> Iterator[list[str]]:
    """Every statement that reaches the database meanwhile."""
    told: list[str] = []

    def seen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        told.append(statement)

    event.listen(place.engine, "before_cursor_execute", seen)
    try:
        yield told
    finally:
        event.remove(place.engine, "before_cursor_execute", seen)


def test_a_look_takes_as_many_queries_in_a_small_store_as_in_a_large_one(any_place: Workplace) -> None:
    place, counts = any_place, []
    for first, count in ((0, 40), (40, 4960)):
        fill(place, count, at=later(-8e6), first=first)
        whole = Watcher(place, [Rule()], settled_s=0, destinations=["web"], since=later(-9e6))
        assert whole.look() == 15  # new: to be analyzed; analyzed, and sent in vain: to be sent
        assert whole.look() == 0
        with counted(place) as again:
            assert Watcher(place, [Rule()], settled_s=0, destinations=["web"], since=later(-9e6)).look() == 0
        with counted(place) as next_time:
            assert whole.look() == 0
        counts.append((len(again), len(next_time)))
    assert counts[0] == counts[1]
    assert max(counts[1]) <= 3


def test_what_is_written_late_is_not_missed(
    any_place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Rows that appear after a look with times before it: a clock that is behind, a database that was slow."""
    place = any_place
    watcher = Watcher(place, [Rule()], settled_s=0, since=later(-9e6))
    assert watcher.look() == 0
    fill(place, 1, at=later(-300), first=8)
    assert watcher.look() == 1
    fill(place, 1, at=later(-3000), first=16)
    assert watcher.look() == 0
    monkeypatch.setattr(watch_module, "ALL_S", 0.0)  # the hour is over
    assert watcher.look() == 1
    assert {job.key for job in place.queue.list() if job.kind == ANALYZE} == {"1.2.8", "1.2.16"}


def test_a_look_that_failed_is_made_again_in_full(place: Workplace, tmp_path: Path) -> None:
    watcher = Watcher(place, [Rule()], settled_s=0, since=later(-9e6))
    fill(place, 1, at=later(-8e6), first=8)

    def away(*_: Any) -> None:
        raise OperationalError("select", {}, Exception("away"))

    event.listen(place.engine, "before_cursor_execute", away)
    with pytest.raises(OperationalError):
        watcher.look()
    event.remove(place.engine, "before_cursor_execute", away)
    assert watcher.look() == 1


def test_an_analysis_that_somebody_asks_for_long_after_is_seen(any_place: Workplace) -> None:
    """Of a study of long ago whose first one had failed: its end is what is new."""
    place = any_place
    fill(place, 4, at=later(-8e6))
    watcher = Watcher(place, [Rule()], settled_s=0, destinations=["web"], since=later(-9e6))
    watcher.look()
    assert watcher.look() == 0
    ask_analysis(place, "1.2.3", by="ada")
    while (job := place.queue.take("w", kinds=[ANALYZE])) is not None:
        place.queue.end(job, "w")
    assert watcher.look() == 3
    sent = {job.key for job in place.queue.list() if job.kind == SEND}
    assert sent == {f"{uid} web sr seg" for uid in ("1.2.0", "1.2.2", "1.2.3")}


def test_a_study_that_is_removed_meanwhile_does_not_end_the_watch(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the store and what is asked for."""
    fill(place, 1, at=later(-60))
    found = watch_module.watched_studies

    def removed(*args: Any, **options: Any) -> Any:
        studies = found(*args, **options)
        place.studies.remove("1.2.0")
        return studies

    watcher = Watcher(place, [Rule()], settled_s=0, since=later(-9e6))
    monkeypatch.setattr(watch_module, "watched_studies", removed)
    assert watcher.look() == 0


def test_what_does_not_match_is_looked_at_again_when_more_comes(place: Workplace, tmp_path: Path) -> None:
    watcher = Watcher(place, [Rule(images_min=SLICES)], settled_s=0)
    files = write_ct(tmp_path / "ct")
    for file in files:
        assert watcher.look() == 0
        ingest(file, place.studies, origin="x")
    assert watcher.look() == 1


def test_only_what_came_since_the_first_start_is_looked_at(place: Workplace, tmp_path: Path) -> None:
    old = brought(place, tmp_path, "old")
    assert Watcher(place, [Rule()], settled_s=0).look() == 0
    new = brought(place, tmp_path, "new")  # while no watch runs
    assert Watcher(place, [Rule()], settled_s=0).look() == 1
    asked = [job.key for job in place.queue.list() if job.kind == ANALYZE]
    assert asked == [new]
    assert Watcher(place, [Rule()], settled_s=0, since=later(-3600)).look() == 1
    assert {job.key for job in place.queue.list() if job.kind == ANALYZE} == {old, new}
    assert first_start(place, "studies") == first_start(place, "studies")
    assert place.queue.counts() == {"done": 1, "queued": 2}


def test_a_failed_or_cancelled_analysis_is_told_and_not_asked_again(place: Workplace, tmp_path: Path) -> None:
    said: list[str] = []
    watcher = Watcher(place, [Rule()], settled_s=0, say=said.append)
    study = brought(place, tmp_path)
    assert watcher.look() == 1
    (job,) = place.queue.list(states=["queued"])
    place.queue.cancel(job.id)
    assert (watcher.look(), watcher.look()) == (0, 0)
    assert said[1:] == [f"study {study}: its analysis cancelled: cancelled"]
    assert Watcher(place, [Rule()], settled_s=0).look() == 0


def test_results_go_to_each_archive_once(orthanc_place: Workplace, orthanc: Orthanc, tmp_path: Path) -> None:
    place, said = orthanc_place, list[str]()
    watcher = Watcher(place, [Rule()], settled_s=0, destinations=["web", "dimse"], say=said.append)
    study = brought(place, tmp_path)
    assert watcher.look() == 1
    work(place, once=True, handlers=tiny_handlers())
    assert watcher.look() == 2
    assert Watcher(place, [Rule()], settled_s=0, destinations=["web", "dimse"]).look() == 0
    work(place, once=True, handlers=tiny_handlers())
    assert in_orthanc(orthanc, study) == ["SEG", "SR"]
    assert (watcher.look(), Watcher(place, [Rule()], settled_s=0, destinations=["web"]).look()) == (0, 0)
    assert [job.state for job in place.queue.list() if job.kind == SEND] == ["done"] * 2
    assert SECRET not in "".join(said)
    assert said[1:] == [f"study {study}: analyzed, to be sent to {name}" for name in ("web", "dimse")]


def test_what_an_archive_did_not_take_is_sent_again(
    orthanc_place: Workplace, orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = orthanc_place
    watcher = Watcher(place, [Rule()], settled_s=0, destinations=["web"])
    study = brought(place, tmp_path)
    watcher.look()
    work(place, once=True, handlers=tiny_handlers())
    assert watcher.look() == 1
    job = place.queue.take("w", kinds=[SEND])
    assert job is not None
    place.queue.fail(job, "w", "the archive is away", again=False)
    assert (watcher.look(), watcher.look()) == (0, 0)
    monkeypatch.setattr("spicula.pipelines.watch.AGAIN_S", 0.0)
    assert watcher.look() == 1
    work(place, once=True, handlers=tiny_handlers())
    assert in_orthanc(orthanc, study) == ["SEG", "SR"]
    assert watcher.look() == 0


def test_a_new_archive_gets_what_comes_from_then_on(orthanc_place: Workplace, tmp_path: Path) -> None:
    place = orthanc_place
    Watcher(place, [Rule()], settled_s=0)
    before = brought(place, tmp_path, "before")
    ask_analysis(place, before, by="ada")
    work(place, once=True, handlers=tiny_handlers())
    watcher = Watcher(place, [Rule()], settled_s=0, destinations=["web"])
    after = brought(place, tmp_path, "after")
    ask_analysis(place, after, by="ada")  # whoever asked for it
    work(place, once=True, handlers=tiny_handlers())
    assert watcher.look() == 1
    assert [job.task["study_uid"] for job in place.queue.list() if job.kind == SEND] == [after]


def test_a_watch_and_a_worker_side_by_side(orthanc_place: Workplace, orthanc: Orthanc, tmp_path: Path) -> None:
    place, stop = orthanc_place, threading.Event()
    options: dict[str, Any] = {"settled_s": 0, "idle_s": 0.02, "destinations": ["web"], "stop": stop}
    threads = [
        threading.Thread(target=watch, args=(place, [Rule()]), kwargs=options),
        threading.Thread(
            target=work, args=(place,), kwargs={"stop": stop, "idle_s": 0.02, "handlers": tiny_handlers()}
        ),
    ]  # fmt: skip
    first_start(place, "studies")
    first_start(place, "to web")
    studies = [brought(place, tmp_path, str(number)) for number in range(3)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 60
    while any(in_orthanc(orthanc, study) != ["SEG", "SR"] for study in studies) and time.monotonic() < until:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert [in_orthanc(orthanc, study) for study in studies] == [["SEG", "SR"]] * 3


PROCESS = """
import functools, importlib.util, sys, threading
from pathlib import Path
from spicula.store import jobs
jobs.ALIVE_S = 1.0
jobs.TRIES = 1000
import spicula.pipelines.worker as worker
worker.ALIVE_S = 1.0
sys.path.insert(0, sys.argv[4])
from tests.pipelines.exchange_tiny import outputs_again, tiny_handlers
from spicula.pipelines.listen import listen
from spicula.pipelines.watch import Rule, watch
from spicula.pipelines.workplace import open_workplace
handlers = tiny_handlers(functools.partial(outputs_again, pause_s=0.05))
with open_workplace(Path(sys.argv[1])) as place:
    def run(job, **options):
        threading.Thread(target=job, args=(place,), kwargs=options, daemon=True).start()
    run(listen, port=int(sys.argv[2]), idle_s=0.02, reserve_bytes=0)
    run(worker.work, handlers=handlers, idle_s=0.02)
    watch(place, [Rule(images_min=4)], destinations=["web", "dimse"], settled_s=0.3, idle_s=0.02, since=sys.argv[3])
"""


@pytest.mark.slow
def test_killed_at_any_moment_each_study_is_analyzed_and_sent_once(
    orthanc_place: Workplace, orthanc: Orthanc, tmp_path: Path
) -> None:
    place, chance, port, since = orthanc_place, random.Random(1), free_port(), later(0)
    arguments = [str(place.folder), str(port), since, str(Path(__file__).parents[2])]
    begin = lambda: subprocess.Popen([sys.executable, "-c", PROCESS, *arguments])  # noqa: E731
    way = Pacs("127.0.0.1", port, "SPICULA", timeout_s=5.0, answer_timeout_s=5.0)
    sent = [write_ct(tmp_path / f"{number}", f"{number}") for number in range(6)]
    studies = [facts_of(files[0]).study_uid for files in sent]
    process = begin()

    def send() -> None:
        waiting = list(sent)
        while waiting:
            try:
                way.store(waiting[0])
                waiting.pop(0)
            except Exception:  # killed: what was not acknowledged is sent again
                time.sleep(0.05)

    def ended() -> bool:
        jobs = [job for job in place.queue.list(limit=1000) if job.kind in (ANALYZE, SEND)]
        return len(jobs) == 3 * len(studies) and all(job.state == "done" for job in jobs)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        for _ in range(8):
            done = place.queue.counts().get("done", 0)
            until = time.monotonic() + 20
            while place.queue.counts().get("done", 0) < done + 2 and not ended() and time.monotonic() < until:
                time.sleep(0.02)
            time.sleep(chance.uniform(0.0, 0.4))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            process = begin()
        until = time.monotonic() + 90
        while not ended() and time.monotonic() < until:
            time.sleep(0.1)
        sender.join(10)
    finally:
        process.kill()
        process.wait()
    kinds = sorted((job.kind, job.state) for job in place.queue.list(limit=1000) if job.kind != "watch")
    assert kinds == [(ANALYZE, "done")] * len(studies) + [(SEND, "done")] * 2 * len(studies)
    assert [in_orthanc(orthanc, study) for study in studies] == [["SEG", "SR"]] * len(studies)
    assert [len(place.findings.analyses(study)) for study in studies] == [1] * len(studies)


@pytest.mark.shared
@pytest.mark.slow
def test_a_real_ct_goes_all_the_way(orthanc_place: Workplace, orthanc: Orthanc, lidc_0001: Path) -> None:
    pytest.importorskip("spicula.pipelines.study_outputs")
    place, files = orthanc_place, sorted(path for path in lidc_0001.rglob("*.dcm"))
    watcher = Watcher(place, [Rule(slice_thickness_mm_max=3.0, images_min=100)], settled_s=0, destinations=["dimse"])
    DicomWeb(orthanc.web).store(files)
    study = facts_of(files[0]).study_uid
    ask_pull(place, "web", study, by="ada", analyze=False)
    work(place, once=True, handlers=ALL_HANDLERS)
    assert watcher.look() == 1
    work(place, once=True, handlers=ALL_HANDLERS)
    assert watcher.look() == 1
    work(place, once=True, handlers=ALL_HANDLERS)
    assert in_orthanc(orthanc, study) == ["CT"] * len(files) + ["SEG", "SR"]
    assert watcher.look() == 0
