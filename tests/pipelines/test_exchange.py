"""Studies come from a real Orthanc and results go there, in every way, once, whatever fails in between."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid

from spicula.core.errors import InputError, OfflineError
from spicula.dicom.deidentify import deidentified_uid
from spicula.dicom.inbox import facts_of
from spicula.dicom.pacs import Pacs
from spicula.dicom.web import DicomWeb
from spicula.pipelines import exchange
from spicula.pipelines.archives import archive_named, opened
from spicula.pipelines.current_outputs import RESULTS_FOLDER
from spicula.pipelines.exchange import (
    PULL,
    PULLS_FOLDER,
    SEND,
    ask_pull,
    ask_send,
    echo,
    find_studies,
    results_of,
    send,
)
from spicula.pipelines.ingest import ingest
from spicula.pipelines.worker import ANALYZE, work
from spicula.pipelines.workplace import Workplace, open_workplace

from ..orthanc_server import Orthanc
from .exchange_tiny import SECRET, SLICES, in_orthanc, outputs_again, tiny_handlers, write_archives, write_ct


@pytest.fixture
def empty(orthanc: Orthanc) -> Orthanc:
    orthanc.clear()
    return orthanc


@pytest.fixture
def place(empty: Orthanc, tmp_path: Path) -> Iterator[Workplace]:
    write_archives(tmp_path / "store", empty)
    with open_workplace(tmp_path / "store") as place:
        yield place


@pytest.fixture
def there(empty: Orthanc, tmp_path: Path) -> str:
    """A study in the archive."""
    files = write_ct(tmp_path / "ct")
    DicomWeb(empty.web).store(files)
    return facts_of(files[0]).study_uid


@pytest.fixture
def here(place: Workplace, tmp_path: Path) -> str:
    """An analyzed study in the store."""
    (study_uid,) = ingest(write_ct(tmp_path / "own", "own")[0].parent, place.studies, origin="upload").studies
    place.queue.ask(ANALYZE, study_uid, {"study_uid": study_uid}, by="ada")
    assert work(place, once=True, handlers=tiny_handlers()) == 1
    return study_uid


def failed(place: Workplace, job_id: str) -> str:
    """The reason of a job's failed try."""
    job = place.queue.get(job_id)
    assert job.state == "queued"
    assert SECRET not in job.message
    return job.message


def test_archives_answer_and_studies_are_found(place: Workplace, there: str) -> None:
    for name in ("web", "dimse"):
        archive = archive_named(place.folder, name)
        echo(archive)
        (found,) = find_studies(archive, {"PatientID": "P1", "StudyDate": "20200101-"}, 10)
        assert (found.study_uid, found.modalities, found.instance_count) == (there, ("CT",), SLICES)
        assert find_studies(archive, {"PatientID": "P2"}, 10) == ()
    with pytest.raises(InputError, match="DICOM keyword"):
        find_studies(archive, {"Patient": "P1"}, 10)


def test_more_matches_than_wanted_are_refused(place: Workplace, there: str, empty: Orthanc, tmp_path: Path) -> None:
    DicomWeb(empty.web).store(write_ct(tmp_path / "second", "second"))
    for name in ("web", "dimse"):
        archive = archive_named(place.folder, name)
        assert len(find_studies(archive, {}, 2)) == 2
        with pytest.raises(InputError, match="more than 1 matches"):
            find_studies(archive, {}, 1)


@pytest.mark.parametrize("way", ["web", "dimse", "move"])
def test_a_study_is_brought_in_and_analyzed_once(place: Workplace, there: str, way: str) -> None:
    job = ask_pull(place, way, there, by="ada")
    assert ask_pull(place, way, there, by="bob").id == job.id
    assert work(place, once=True, handlers=tiny_handlers()) == 2
    told = place.queue.get(job.id).result
    assert told is not None
    assert (told["added"], told["known"], told["refused"], told["studies"]) == (SLICES, 0, [], [there])
    assert place.studies.get(there)["origin"] == ("dicomweb" if way == "web" else "dimse")
    assert list(place.studies.damaged()) == []
    (analysis,) = told["analyses"]
    assert (place.queue.get(analysis).state, place.queue.get(analysis).created_by) == ("done", "ada")
    assert len(place.findings.of_study(there)) == 1
    again = ask_pull(place, way, there, by="ada")
    assert again.id != job.id
    assert work(place, once=True, handlers=tiny_handlers()) == 1
    told = place.queue.get(again.id).result
    assert told is not None
    assert (told["added"], told["known"], told["analyses"]) == (0, SLICES, [analysis])
    assert list((place.folder / PULLS_FOLDER).glob("*")) == []


@pytest.mark.parametrize("way", ["web", "dimse", "move"])
def test_a_store_that_de_identifies_fetches_and_counts_a_study_once(
    empty: Orthanc, there: str, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an archive names by one UID, such a store has under another."""
    fetched: list[str] = []
    fetch = exchange._fetch

    def seen(archive: Any, client: Any, study_uid: str, series_uid: str, folder: Path) -> None:
        fetched.append(series_uid)
        fetch(archive, client, study_uid, series_uid, folder)

    monkeypatch.setattr(exchange, "_fetch", seen)
    write_archives(tmp_path / "hidden", empty)
    with open_workplace(tmp_path / "hidden", deidentify=True) as place:
        told = []
        for _ in range(2):
            job = ask_pull(place, way, there, by="ada")
            work(place, once=True, handlers=tiny_handlers())
            assert place.queue.get(job.id).state == "done", place.queue.get(job.id).message
            told.append(place.queue.get(job.id).result or {})
        study = deidentified_uid(there, secret=place.secret or b"")
        assert [(one["added"], one["known"], one["studies"]) for one in told] == [(4, 0, [study]), (0, 4, [study])]
        assert told[0]["analyses"] == told[1]["analyses"] != []
        assert len(fetched) == 1
        (row,) = place.studies.list().rows
        assert (row["study_uid"], row["deidentified"]) == (study, True)
        extra = pydicom.dcmread(tmp_path / "ct" / "slice-0004.dcm")
        extra.SOPInstanceUID = extra.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        extra.ImagePositionPatient[2] += 2.0
        extra.save_as(tmp_path / "extra.dcm")
        DicomWeb(empty.web).store([tmp_path / "extra.dcm"])
        job = ask_pull(place, way, there, by="ada")
        work(place, once=True, handlers=tiny_handlers())
        last = place.queue.get(job.id).result or {}
        assert (last["added"], last["known"], last["studies"]) == (1, 4, [study])
        assert last["analyses"] != told[0]["analyses"]


def test_a_store_that_de_identifies_does_not_ask_for_what_it_refuses(
    empty: Orthanc, place: Workplace, here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report is free text; the images of its study come, the report is told and never fetched."""
    DicomWeb(empty.web).store(sorted((tmp_path / "own").iterdir()))
    ask_send(place, here, "web", ["sr"], by="ada")
    work(place, once=True, handlers=tiny_handlers())
    assert in_orthanc(empty, here) == ["CT"] * SLICES + ["SR"]
    fetched: list[str] = []
    fetch = exchange._fetch

    def seen(archive: Any, client: Any, study_uid: str, series_uid: str, folder: Path) -> None:
        fetched.append(series_uid)
        fetch(archive, client, study_uid, series_uid, folder)

    monkeypatch.setattr(exchange, "_fetch", seen)
    write_archives(tmp_path / "hidden", empty)
    with open_workplace(tmp_path / "hidden", deidentify=True) as hidden:
        job = ask_pull(hidden, "web", here, by="ada", analyze=False)
        work(hidden, once=True, handlers=tiny_handlers())
        told = hidden.queue.get(job.id).result or {}
    assert (told["added"], len(told["refused"]), len(fetched)) == (SLICES, 1, 1)
    assert "got what this store does not take, expected images of a scanner" in told["refused"][0]


def test_a_pull_goes_on_where_it_was_cut(place: Workplace, there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ask_pull(place, "web", there, by="ada", analyze=False)
    kept = exchange.ingest

    def cut(*args, **options):  # type: ignore[no-untyped-def]
        raise OSError("cut")

    monkeypatch.setattr(exchange, "ingest", cut)
    work(place, once=True, handlers=tiny_handlers())
    assert failed(place, job.id) == "OSError: cut"
    left = sorted((place.folder / PULLS_FOLDER / job.id).rglob("*.dcm"))
    assert len(left) == SLICES
    monkeypatch.setattr(exchange, "ingest", kept)
    before = [path.stat().st_ino for path in left]
    seen: list[int] = []

    def look(source: Path, *args, **options):  # type: ignore[no-untyped-def]
        seen.extend(path.stat().st_ino for path in sorted(source.rglob("*.dcm")))
        return kept(source, *args, **options)

    monkeypatch.setattr(exchange, "ingest", look)
    begun = place.queue.get(job.id)
    told = exchange.pull(place, begun, lambda *_: None)
    assert (told["added"], told["analyses"], seen) == (SLICES, [], before)
    assert list((place.folder / PULLS_FOLDER).glob("*")) == []


def test_what_a_cancelled_pull_fetched_is_removed_by_the_next(place: Workplace, there: str) -> None:
    job = ask_pull(place, "web", there, by="ada")
    place.queue.cancel(job.id)
    (place.folder / PULLS_FOLDER / job.id).mkdir(parents=True)
    (place.folder / RESULTS_FOLDER / "1.2.3" / "state").mkdir(parents=True)
    ask_pull(place, "web", there, by="ada", analyze=False)
    work(place, once=True, handlers=tiny_handlers())
    assert list((place.folder / PULLS_FOLDER).glob("*")) == []
    assert list((place.folder / RESULTS_FOLDER).glob("*")) == []


def test_what_came_in_addition_is_analyzed_too(place: Workplace, there: str, empty: Orthanc, tmp_path: Path) -> None:
    first = ask_pull(place, "web", there, by="ada")
    work(place, once=True, handlers=tiny_handlers())
    extra = pydicom.dcmread(tmp_path / "ct" / "slice-0004.dcm")
    extra.SOPInstanceUID = extra.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    extra.ImagePositionPatient[2] += 2.0
    extra.save_as(tmp_path / "extra.dcm")
    DicomWeb(empty.web).store([tmp_path / "extra.dcm"])
    second = ask_pull(place, "dimse", there, by="ada")
    work(place, once=True, handlers=tiny_handlers())
    told = [place.queue.get(job.id).result or {} for job in (first, second)]
    assert place.queue.get(second.id).state == "done", place.queue.get(second.id).message
    assert (told[1]["added"], told[1]["known"]) == (1, SLICES)
    assert told[0]["analyses"] != told[1]["analyses"]


def test_what_cannot_be_pulled_says_why(place: Workplace, there: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not allow to pull"):
        ask_pull(place, "closed", there, by="ada")
    with pytest.raises(InputError, match="none of this name"):
        ask_pull(place, "other", there, by="ada")
    with pytest.raises(InputError, match="study UID"):
        ask_pull(place, "web", "../../etc", by="ada")
    for way in ("web", "dimse"):
        job = ask_pull(place, way, "1.2.3.4", by="ada")
        work(place, once=True, handlers=tiny_handlers())
        assert "study 1.2.3.4: got no series, expected one that it has. Hint: spicula pacs find" in failed(
            place, job.id
        )
    full = place.studies.quota_bytes = place.studies.bytes_used() + 5000
    job = ask_pull(place, "web", there, by="ada")
    work(place, once=True, handlers=tiny_handlers())
    assert "4 instances not kept" in failed(place, job.id)
    assert place.studies.bytes_used() <= full


def test_a_series_that_no_archive_can_give_does_not_stop_the_ct(
    place: Workplace, there: str, empty: Orthanc, tmp_path: Path
) -> None:
    other = pydicom.dcmread(tmp_path / "ct" / "slice-0001.dcm")
    other.Modality, other.SOPClassUID = "MR", "1.2.840.10008.5.1.4.1.1.4"
    other.SeriesInstanceUID, other.SOPInstanceUID = generate_uid(), generate_uid()
    other.file_meta.MediaStorageSOPInstanceUID, other.file_meta.MediaStorageSOPClassUID = (
        *(other.SOPInstanceUID, other.SOPClassUID),
    )  # fmt: skip
    other.save_as(tmp_path / "mr.dcm")
    DicomWeb(empty.web).store([tmp_path / "mr.dcm"])
    job = ask_pull(place, "dimse", there, by="ada")  # C-GET has no room for every kind of image
    work(place, once=True, handlers=tiny_handlers())
    told = place.queue.get(job.id).result or {}
    assert (told["added"], len(told["analyses"])) == (SLICES, 1)
    (refused,) = told["refused"]
    assert other.SeriesInstanceUID in refused
    job = ask_pull(place, "web", there, by="ada")
    work(place, once=True, handlers=tiny_handlers())
    assert (place.queue.get(job.id).result or {})["added"] == 1


# --- send


@pytest.mark.parametrize("way", ["web", "dimse"])
def test_results_are_sent_and_shown_once(
    place: Workplace, here: str, empty: Orthanc, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    job = ask_send(place, here, way, by="ada")
    assert ask_send(place, here, way, by="bob").id == job.id
    work(place, once=True, handlers=tiny_handlers())
    told = place.queue.get(job.id).result or {}
    assert (len(told["sent"]), told["there"], told["lacks"]) == (2, [], [])
    assert in_orthanc(empty, here) == ["SEG", "SR"]
    again = ask_send(place, here, "dimse" if way == "web" else "web", by="ada")  # the same archive by its other way
    work(place, once=True, handlers=tiny_handlers())
    told = place.queue.get(again.id).result or {}
    assert (told["sent"], len(told["there"])) == ([], 2)
    assert in_orthanc(empty, here) == ["SEG", "SR"]
    assert ask_send(place, here, way, by="ada", once=True).id == job.id
    assert SECRET not in caplog.text
    assert "P1" not in caplog.text


@pytest.mark.parametrize("way", ["web", "dimse"])
def test_results_come_along_with_their_study(place: Workplace, here: str, way: str, tmp_path: Path) -> None:
    with opened(archive_named(place.folder, "web")) as client:
        client.store(sorted((tmp_path / "own").iterdir()))
    ask_send(place, here, "web", by="ada")
    work(place, once=True, handlers=tiny_handlers())
    with open_workplace(tmp_path / "other") as other:
        shutil.copy(place.folder / "archives.toml", other.folder)
        job = ask_pull(other, way, here, by="ada")
        work(other, once=True, handlers=tiny_handlers())
        told = other.queue.get(job.id).result or {}
        assert (told["added"], told["refused"]) == (SLICES + 2, [])
        assert {row["modality"] for row in other.studies.series(here)} == {"CT", "SR", "SEG"}
        assert len(other.findings.of_study(here)) == 1  # of its own analysis: the report is one of ours


def test_a_send_that_died_after_sending_sends_nothing_twice(place: Workplace, here: str, empty: Orthanc) -> None:
    job = ask_send(place, here, "web", by="ada")
    told: list[str] = []

    def dies(progress: float, message: str) -> None:
        told.append(message)
        if message.startswith("sending"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        send(place, job, dies, outputs=outputs_again)
    assert in_orthanc(empty, here) == []
    first = send(place, job, lambda *_: None, outputs=outputs_again)  # killed as it would have said that it is done
    second = send(place, job, lambda *_: None, outputs=outputs_again)
    assert (second["sent"], second["there"]) == ([], sorted(first["sent"]))
    assert in_orthanc(empty, here) == ["SEG", "SR"]


def test_a_changed_finding_is_sent_anew(place: Workplace, here: str, empty: Orthanc) -> None:
    before = results_of(place, here, outputs=outputs_again)
    assert results_of(place, here, outputs=outputs_again) == before
    (finding,) = place.findings.of_study(here)
    place.findings.change(finding.id, seen=1, by="ada", state="accepted")
    after = results_of(place, here, outputs=outputs_again)
    assert after.keys() == before.keys() == {"sr", "seg"}
    assert set(after.values()).isdisjoint(before.values())
    ask_send(place, here, "web", ["sr"], by="ada")
    work(place, once=True, handlers=tiny_handlers())
    assert in_orthanc(empty, here) == ["SR"]


def test_a_finding_that_changes_meanwhile_is_not_sent_as_it_was(place: Workplace, here: str) -> None:
    times: list[int] = []

    def changing(place: Workplace, study_uid: str, folder: Path, *, most: int) -> None:
        outputs_again(place, study_uid, folder)
        (finding,) = place.findings.of_study(study_uid)
        if len(times) < most:
            times.append(finding.version)
            place.findings.change(finding.id, seen=finding.version, by="ada", state="accepted")

    files = results_of(place, here, outputs=partial(changing, most=1))
    assert (len(files), len(times)) == (2, 1)
    times.clear()
    place.findings.change(place.findings.of_study(here)[0].id, seen=2, by="ada", state="rejected")
    with pytest.raises(InputError, match="findings that change all the time"):
        results_of(place, here, outputs=partial(changing, most=9))
    base = place.folder / RESULTS_FOLDER / here
    assert [path.name for path in base.iterdir() if path.is_dir()] == [files["sr"].parent.name]


def test_half_written_results_are_never_taken_for_whole(place: Workplace, here: str) -> None:
    def dies(place: Workplace, study_uid: str, folder: Path) -> None:
        (folder / "sr.dcm").write_bytes(b"half")
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        results_of(place, here, outputs=dies)
    files = results_of(place, here, outputs=outputs_again)
    assert all(facts_of(path).study_uid == here for path in files.values())


def test_what_cannot_be_sent_says_why(place: Workplace, here: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not allow to send"):
        ask_send(place, here, "closed", by="ada")
    with pytest.raises(InputError, match="none of this UID"):
        ask_send(place, "1.2.3", "web", by="ada")
    with pytest.raises(InputError, match="expected some of sr, seg"):
        ask_send(place, here, "web", ["sr", "pdf"], by="ada")
    (other,) = ingest(write_ct(tmp_path / "new", "new")[0].parent, place.studies, origin="upload").studies
    job = ask_send(place, other, "web", by="ada")
    work(place, once=True, handlers=tiny_handlers())
    assert "got no results, expected an analyzed study" in failed(place, job.id)

    def report_alone(place: Workplace, study_uid: str, folder: Path) -> None:
        outputs_again(place, study_uid, folder)
        (folder / "seg.dcm").unlink()

    job = ask_send(place, here, "web", ["seg"], by="ada")
    work(place, once=True, handlers=tiny_handlers(report_alone))
    assert "got no seg" in failed(place, job.id)
    job = ask_send(place, here, "web", by="ada")
    work(place, once=True, handlers=tiny_handlers(report_alone))
    assert (place.queue.get(job.id).result or {})["lacks"] == ["seg"]


def test_an_archive_that_is_away_is_told_without_names(place: Workplace, here: str) -> None:
    (place.folder / "archives.toml").write_text('[web]\nhost = "127.0.0.1"\nport = 1\ncalled_aet = "X"\nsend = true\n')
    with pytest.raises(OfflineError, match="cannot be reached"):
        echo(archive_named(place.folder, "web"))
    job = ask_send(place, here, "web", by="ada")
    work(place, once=True, handlers=tiny_handlers())
    assert "X at 127.0.0.1:1: cannot be reached" in failed(place, job.id)


def test_a_file_of_archives_elsewhere_goes_with_the_job(place: Workplace, there: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.toml"
    shutil.move(place.folder / "archives.toml", elsewhere)
    job = ask_pull(place, "web", there, by="ada", analyze=False, archives=elsewhere)
    work(place, once=True, handlers=tiny_handlers())
    assert place.queue.get(job.id).state == "done"
    assert tuple(exchange.HANDLERS) == (PULL, SEND)


def test_an_archive_that_acknowledges_and_does_not_show_is_told(
    place: Workplace, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "CONFIRM_S", 0.0)
    monkeypatch.setattr(Pacs, "store", lambda _self, files: ())
    with pytest.raises(InputError, match="dimse: acknowledged instances and does not show them"):
        send(place, ask_send(place, here, "dimse", by="ada"), lambda *_: None, outputs=outputs_again)
