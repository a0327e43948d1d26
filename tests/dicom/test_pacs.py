"""DIMSE: with a real Orthanc as the archive, and our listener under senders of all kinds."""

from __future__ import annotations

import errno
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless

from spicula.core.analysis import Analysis
from spicula.core.errors import InputError, OfflineError
from spicula.core.finding import Finding
from spicula.core.volume import Mask
from spicula.dicom import inbox
from spicula.dicom.dimse import pynetdicom
from spicula.dicom.inbox import INCOMING, facts_of
from spicula.dicom.listener import Arrival, Listener
from spicula.dicom.pacs import Pacs
from spicula.dicom.reader import read_series
from spicula.dicom.seg import write_seg
from spicula.dicom.series import find_series
from spicula.dicom.sr import write_sr
from spicula.dicom.web import DicomWeb

from ..orthanc_server import AE_TITLE, OURS, Orthanc, free_port

STUDY, SERIES = "1.2.3", "1.2.3.4"
SIZE = 60  # rows and columns


@pytest.fixture
def empty(orthanc: Orthanc) -> Orthanc:
    orthanc.clear()
    return orthanc


@pytest.fixture
def pacs(empty: Orthanc) -> Pacs:
    return Pacs("127.0.0.1", empty.dicom_port, AE_TITLE)


@pytest.fixture
def sent(ct: Any, tmp_path: Path) -> list[Path]:
    paths: list[Path] = ct.write(tmp_path / "sent", ct.stored((4, SIZE, SIZE)))
    return paths


def by_uid(paths: Any) -> dict[str, pydicom.Dataset]:
    datasets = [pydicom.dcmread(path) for path in paths]
    return {str(dataset.SOPInstanceUID): dataset for dataset in datasets}


def all_same(sent: Any, came: Any) -> bool:
    """Whether the same elements, pixels and transfer syntaxes came."""
    one, other = by_uid(sent), by_uid(came)
    same_bytes = all(one[uid].PixelData == other[uid].PixelData for uid in one.keys() & other.keys())
    syntaxes = [{d.file_meta.TransferSyntaxUID for d in some.values()} for some in (one, other)]
    return one == other and same_bytes and syntaxes[0] == syntaxes[1]


@contextmanager
def listening(folder: Path, **options: Any) -> Iterator[tuple[Listener, Pacs]]:
    """A listener, and the way to it."""
    with Listener(folder, 0, **{"timeout_s": 5.0, "reserve_bytes": 0, **options}) as listener:
        yield listener, Pacs("127.0.0.1", listener.port, OURS, calling_ae_title="SENDER", answer_timeout_s=10.0)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# --- with Orthanc


def test_sent_found_and_fetched_in_both_ways(empty: Orthanc, pacs: Pacs, sent: list[Path], tmp_path: Path) -> None:
    pacs.echo()
    assert set(pacs.store(sent)) == by_uid(sent).keys()
    assert empty.ask("statistics")["CountInstances"] == 4
    (study,) = pacs.find_studies(PatientName="A^*", StudyDate="20200101-20200103")
    assert (study.study_uid, study.patient_id, study.modalities, study.instance_count) == (STUDY, "P1", ("CT",), 4)
    assert pacs.find_studies(PatientName="Müller*") == ()
    (series,) = pacs.find_series(STUDY)
    assert (series.series_uid, series.modality, series.instance_count) == (SERIES, "CT", 4)
    assert {i.sop_instance_uid for i in pacs.find_instances(STUDY, SERIES)} == by_uid(sent).keys()
    assert all_same(sent, pacs.fetch_series(STUDY, SERIES, tmp_path / "got"))
    assert not (tmp_path / "got" / INCOMING).exists()
    came = pacs.fetch_series_by_move(STUDY, SERIES, tmp_path / "moved", port=empty.move_port)
    assert all_same(sent, came)
    assert {path.parent for path in came} == {tmp_path / "moved" / SERIES}
    assert all_same(sent, DicomWeb(empty.web).fetch_series(STUDY, SERIES, tmp_path / "web"))
    with pytest.raises(InputError, match="more than 3 matches"):
        Pacs("127.0.0.1", empty.dicom_port, AE_TITLE, max_results=3).find_instances(STUDY, SERIES)


def test_compressed_series_go_and_come_as_they_are(pacs: Pacs, sent: list[Path], tmp_path: Path) -> None:
    for path in sent:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    pacs.store(sent)
    assert all_same(sent, pacs.fetch_series(STUDY, SERIES, tmp_path / "got"))


def test_reports_and_outlines_go_by_store_and_are_shown(
    empty: Orthanc, pacs: Pacs, sent: list[Path], tmp_path: Path
) -> None:
    volume = read_series(find_series(sent[0].parent)[0])
    mask = Mask(np.ones((1, 3, 3), dtype=bool), volume.geometry.crop((2, 3, 4), (3, 6, 7)))
    center = tuple(float(v) for v in volume.geometry.index_to_world((2, 4, 5)))
    analysis = Analysis(volume, (Finding("1", center, 2.0, 0.9, mask=mask),), (), {}, (), ())
    write_sr(tmp_path / "sr.dcm", analysis)
    assert write_seg(tmp_path / "seg.dcm", analysis)
    files = [tmp_path / "sr.dcm", tmp_path / "seg.dcm"]
    assert len(pacs.store(files)) == 2
    DicomWeb(empty.web).confirm(files)
    assert {series.modality for series in pacs.find_series(STUDY)} == {"SR", "SEG"}
    for path, series in ((path, facts_of(path).series_uid) for path in files):
        (came,) = pacs.fetch_series(STUDY, series, tmp_path / path.stem)
        assert pydicom.dcmread(came) == pydicom.dcmread(path)
    with pytest.raises(InputError, match="does not show 1 of them"):
        DicomWeb(empty.web, confirm_s=0.1).confirm(sent[:1])


@pytest.mark.parametrize("encoding", ["ISO_IR 100", "ISO_IR 192"])
def test_names_come_in_their_own_letters(
    empty: Orthanc, pacs: Pacs, sent: list[Path], tmp_path: Path, encoding: str
) -> None:
    dataset = pydicom.dcmread(sent[0])
    dataset.SpecificCharacterSet, dataset.PatientName, dataset.PatientID = encoding, "Müller^Jörg", "P2"
    dataset.save_as(tmp_path / "named.dcm")
    pacs.store([tmp_path / "named.dcm"])
    for studies in (pacs.find_studies(PatientName="Müller*"), DicomWeb(empty.web).find_studies(PatientID="P2")):
        assert [study.patient_name for study in studies] == ["Müller^Jörg"]


def test_refusals_say_what_to_do(empty: Orthanc, pacs: Pacs, sent: list[Path], tmp_path: Path) -> None:
    pacs.store(sent)
    with pytest.raises(InputError, match=r"WRONG at 127.*called ae title not recognised\. Hint: do both sides know"):
        Pacs("127.0.0.1", empty.dicom_port, "WRONG").echo()
    with pytest.raises(InputError, match=r"C-MOVE: .*Hint: does it know the destination"):
        pacs.move_series(STUDY, SERIES, destination="NOBODY")
    with pytest.raises(InputError, match=r"C-MOVE: .*can it reach it"):
        pacs.move_series(STUDY, SERIES, destination=OURS)
    with pytest.raises(InputError, match=r"series 1\.2\.9: got no instance"):
        pacs.fetch_series(STUDY, "1.2.9", tmp_path / "none")
    with pytest.raises(OfflineError, match=r"cannot be reached \(Connection refused\)"):
        Pacs("127.0.0.1", free_port(), AE_TITLE).echo()
    with pytest.raises(OfflineError, match="is it a DICOM port"):
        Pacs("127.0.0.1", empty.http_port, AE_TITLE, timeout_s=2.0).echo()
    with pytest.raises(OfflineError, match="cannot be reached"):
        Pacs("no.such.host.invalid", 104, AE_TITLE).find_studies(PatientName="Secret^Name")
    for title in ("", "X" * 17, "A\\B", "Ä"):
        with pytest.raises(InputError, match="AE title"):
            Pacs("localhost", 104, title)
    with pytest.raises(InputError, match="DICOM keyword"):
        pacs.find_studies(NoSuchKeyword="x")
    with pytest.raises(InputError, match="a UID"):
        pacs.find_series("../x")


def test_an_archive_that_is_silent(sent: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        way = Pacs("127.0.0.1", server.getsockname()[1], AE_TITLE, timeout_s=0.3)
        with pytest.raises(OfflineError, match="does not answer"):
            way.store(sent)


def test_names_of_patients_are_not_logged(
    pacs: Pacs, sent: list[Path], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(0)
    for name in ("pynetdicom", "pydicom", "spicula", "urllib3"):
        caplog.set_level("DEBUG", logger=name)
    pacs.store(sent)
    assert pacs.find_studies(PatientName="A^B")
    with listening(tmp_path / "in") as (_, way):
        way.store(sent)
    assert "A^B" not in caplog.text


# --- the listener


def test_what_arrives_is_told_once_its_association_ends(sent: list[Path], tmp_path: Path) -> None:
    arrivals: list[Arrival] = []
    with listening(tmp_path / "in", on_arrival=arrivals.append) as (listener, way):
        way.echo()
        way.store(sent)
        way.store(sent[:1])
    assert [len(arrival.instances) for arrival in arrivals] == [4, 1]
    assert arrivals[0].series == ((STUDY, SERIES),)
    assert (arrivals[0].calling_ae_title, arrivals[0].released, arrivals[0].refused) == ("SENDER", True, 0)
    assert all_same(sent, files_in(tmp_path / "in"))
    places = {listener.place_of(SERIES, uid) for uid in by_uid(sent)}
    assert places == {arrived.path for arrived in arrivals[0].instances} == set(files_in(tmp_path / "in"))
    assert not (tmp_path / "in" / INCOMING).exists()


def test_a_listener_restarts_on_its_port_and_its_folder(sent: list[Path], tmp_path: Path) -> None:
    with listening(tmp_path / "in") as (listener, way):
        way.store(sent[:2])
        with pytest.raises(InputError, match="another process receives"):
            Listener(tmp_path / "in", 0).start()
        with pytest.raises(InputError, match=r"port \d+ of 127\.0\.0\.1: got Address already in use"):
            Listener(tmp_path / "other", listener.port).start()
    with pytest.raises(OfflineError):
        way.echo()
    left = tmp_path / "in" / INCOMING / "left"
    left.parent.mkdir()
    left.write_bytes(b"half")
    with Listener(tmp_path / "in", listener.port, timeout_s=5.0, reserve_bytes=0):
        assert not left.exists()
        way.store(sent)
    assert all_same(sent, files_in(tmp_path / "in"))


def test_only_those_allowed_may_call(sent: list[Path], tmp_path: Path) -> None:
    with listening(tmp_path / "in", allowed=["ORTHANC"]) as (listener, way):
        with pytest.raises(InputError, match="refuses us, SENDER: calling ae title not recognised"):
            way.store(sent)
        with pytest.raises(InputError, match="called ae title not recognised"):
            Pacs("127.0.0.1", listener.port, "OTHER", calling_ae_title="ORTHANC").echo()
        Pacs("127.0.0.1", listener.port, OURS, calling_ae_title="ORTHANC").store(sent[:1])
    assert len(files_in(tmp_path / "in")) == 1


def test_a_full_disk_is_answered_as_such(sent: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrivals: list[Arrival] = []
    with (
        listening(tmp_path / "in", on_arrival=arrivals.append, reserve_bytes=2**60) as (_, way),
        pytest.raises(InputError, match=r"refused 4 of 4 instances.*out of resources .*0xA700"),
    ):
        way.store(sent)
    assert (arrivals[0].instances, arrivals[0].refused) == ((), 4)

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with listening(tmp_path / "in") as (_, way):
        with monkeypatch.context() as patch, pytest.raises(InputError, match="0xA700"):
            patch.setattr(inbox, "to_disk", full)
            way.store(sent[:1])
        assert files_in(tmp_path / "in") == []
        way.store(sent[:1])


def test_too_large_an_object_closes_its_connection_only(sent: list[Path], tmp_path: Path) -> None:
    arrivals: list[Arrival] = []
    small = facts_of(sent[0]).path.stat().st_size + 2**16
    large = pydicom.dcmread(sent[0])
    large.Rows = large.Columns = 600
    large.PixelData = bytes(2 * 600 * 600)
    large.save_as(tmp_path / "large.dcm")
    with listening(tmp_path / "in", max_object_bytes=small, on_arrival=arrivals.append) as (_, way):
        with pytest.raises(OfflineError, match=r"after 1 of 2 instances.*the connection broke off"):
            way.store([sent[1], tmp_path / "large.dcm"])
        way.store(sent)
    assert [arrival.released for arrival in arrivals] == [False, True]
    assert all_same(sent, files_in(tmp_path / "in"))


HOSTILE = [
    *("../../../evil", "..", "../", "/etc/passwd", "a/b", "1.2\\..\\x", "1..2", "äöü", "con\tx", "x" * 64),
    *("%2e%2e", "\0.."),
]


def with_uids(path: Path, target: Path, *, series_uid: str, sop_instance_uid: str) -> Path:
    """A copy of an instance with UIDs that no library would write."""
    dataset = pydicom.dcmread(path)
    wanted = [(uid.encode(), digit * len(uid.encode())) for uid, digit in ((series_uid, "8"), (sop_instance_uid, "9"))]
    dataset.SeriesInstanceUID = wanted[0][1]
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = wanted[1][1]
    dataset.save_as(target)
    content = target.read_bytes()
    for uid, digits in wanted:
        content = content.replace(digits.encode(), uid)
    target.write_bytes(content)
    return target


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_no_uid_leads_out_of_the_folder(sent: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "root" / "a" / "b" / "in"
    refused = 0
    with listening(folder) as (_, way):
        for number, uid in enumerate(HOSTILE):
            hostile = with_uids(sent[0], tmp_path / "hostile", series_uid=HOSTILE[-1 - number], sop_instance_uid=uid)
            try:
                way.store([hostile])
            except (InputError, OfflineError):
                refused += 1
        way.store(sent)
    inside = files_in(tmp_path / "root")
    assert len(inside) == 4 + len(HOSTILE) - refused
    assert refused < len(HOSTILE)
    for path in inside:
        series, name = path.relative_to(folder).parts
        assert series == SERIES or series.startswith("uid-")
        assert name.startswith(("uid-", SERIES))
    assert {path.name for path in tmp_path.iterdir()} == {"root", "sent", "hostile"}


def test_data_sets_that_are_cut_short_are_refused(sent: list[Path], tmp_path: Path) -> None:
    whole = sent[0].read_bytes()
    start = len(whole) - len(pydicom.dcmread(sent[0]).PixelData) - 12
    cuts = [*range(400, start, 37), start + 3, start + 12, start + 100, len(whole) - 1]
    library = pynetdicom()
    with listening(tmp_path / "in") as (listener, way):
        entity = library.AE("SENDER")
        entity.add_requested_context(facts_of(sent[0]).sop_class_uid, "1.2.840.10008.1.2.1")
        assoc = entity.associate("127.0.0.1", listener.port, ae_title=OURS)
        for cut in cuts:
            (tmp_path / "cut.dcm").write_bytes(whole[:cut])
            status = assoc.send_c_store(tmp_path / "cut.dcm")
            assert status.get("Status") in (0xA900, 0xC000), cut
        assoc.release()
        assert files_in(tmp_path / "in") == []
        way.store(sent)
        # another instance than the request names
        other = pydicom.dcmread(sent[0])
        other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"
        other.save_as(tmp_path / "cut.dcm")
        with pytest.raises(InputError, match="0xA900"):
            way.store([tmp_path / "cut.dcm"])


def opening(called: str = OURS) -> bytes:
    """An A-ASSOCIATE-RQ of CT, as it should be."""
    library = pynetdicom()
    from pynetdicom.pdu import A_ASSOCIATE_RQ
    from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = "SENDER", called
    context = library.build_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    context.context_id = 1
    request.presentation_context_definition_list = [context]
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 16382, "1.2.3"
    request.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    return bytes(pdu.encode())


def noise(count: int) -> Iterator[list[bytes]]:
    """Messages of all kinds of brokenness; the first of each is answered before the next is sent."""
    rng = random.Random(7)
    good = opening()
    for number in range(count):
        kind = number % 6
        if kind == 0:
            yield [rng.randbytes(rng.randrange(1, 300))]
        elif kind == 1:  # some bytes of an opening changed
            broken = bytearray(good)
            for _ in range(rng.randrange(1, 6)):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            yield [bytes(broken)]
        elif kind == 2:
            yield [good[: rng.randrange(len(good))]]
        elif kind == 3:  # a PDU that says it is huge
            yield [good, struct.pack(">BBL", 4, 0, rng.choice([2**32 - 1, 2**30, 2**25])) + rng.randbytes(100)]
        elif kind == 4:  # a command set that is noise
            value = bytes([1, rng.choice([1, 2, 3])]) + rng.randbytes(rng.randrange(60))
            yield [good, struct.pack(">BBLL", 4, 0, len(value) + 4, len(value)) + value]
        else:
            yield [good, rng.randbytes(200), rng.randbytes(200)]


def test_noise_does_not_end_the_listener(sent: list[Path], tmp_path: Path) -> None:
    threads = threading.active_count()
    with listening(tmp_path / "in", timeout_s=1.0, max_associations=50) as (listener, way):
        for number, messages in enumerate(noise(48)):
            with socket.create_connection(("127.0.0.1", listener.port)) as connection:
                connection.settimeout(0.02)
                try:
                    for message in messages:
                        connection.sendall(message)
                        connection.recv(4096)
                except OSError:
                    pass
            if number % 24 == 0:
                way.store(sent[:1])
        way.store(sent)
    assert all_same(sent, files_in(tmp_path / "in"))
    stop = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < stop:
        time.sleep(0.05)
    assert threading.active_count() == threads


PROGRAM = """
import sys
from pathlib import Path
from spicula.dicom.listener import Listener
listener = Listener(Path(sys.argv[1]), 0, reserve_bytes=0)
listener.start()
print(listener.port, flush=True)
sys.stdin.read()
"""


def test_a_kill_in_the_middle_leaves_no_half_file(ct: Any, tmp_path: Path) -> None:
    sent = ct.write(tmp_path / "sent", ct.stored((40, 128, 128)))
    folder = tmp_path / "in"
    failures: list[Exception] = []

    def send(port: int) -> None:
        try:
            Pacs("127.0.0.1", port, OURS, answer_timeout_s=10.0).store(sent)
        except OfflineError as error:
            failures.append(error)

    command = [sys.executable, "-c", PROGRAM, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        sender = threading.Thread(target=send, args=(int(process.stdout.readline()),))
        sender.start()
        while len(list(folder.glob("*/*.dcm"))) < 5:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        sender.join(30)
    assert failures
    came = list(folder.glob("*/*.dcm"))
    assert 5 <= len(came) < 40
    kept = by_uid(sent)
    for path in came:
        assert pydicom.dcmread(path) == kept[facts_of(path).sop_instance_uid]
    with listening(folder) as (_, way):
        way.store(sent)
    assert all_same(sent, files_in(folder))


def test_many_send_at_once(ct: Any, tmp_path: Path) -> None:
    series = [ct.write(tmp_path / str(n), ct.stored((3, 16, 16)), series_uid=f"1.2.4.{n}") for n in range(4)]
    arrivals: list[Arrival] = []
    with listening(tmp_path / "in", on_arrival=arrivals.append) as (_, way):
        senders = [threading.Thread(target=way.store, args=(paths,)) for paths in series]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(30)
    assert sorted(arrival.series[0][1] for arrival in arrivals) == [f"1.2.4.{n}" for n in range(4)]
    assert all_same([path for paths in series for path in paths], files_in(tmp_path / "in"))


def test_a_callback_that_fails_does_not_end_the_listener(
    sent: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(arrival: Arrival) -> None:
        raise RuntimeError("mine")

    with listening(tmp_path / "in", on_arrival=fails) as (_, way):
        way.store(sent[:1])
        way.store(sent)
    assert "what was to be done with an arrival failed" in caplog.text


def test_a_connection_that_breaks_in_the_middle_is_told(pacs: Pacs, sent: list[Path], tmp_path: Path) -> None:
    """Between us and the archive stands someone who ends each connection after some bytes."""
    pacs.store(sent)
    listener = socket.create_server(("127.0.0.1", 0))
    most = [10**9]
    relay = threading.Thread(target=relayed, args=(listener, pacs.port, most), daemon=True)
    relay.start()
    way = Pacs("127.0.0.1", listener.getsockname()[1], AE_TITLE, answer_timeout_s=5.0)
    assert len(way.fetch_series(STUDY, SERIES, tmp_path / "whole")) == 4
    most[0] = 20_000
    with pytest.raises(OfflineError, match="C-GET: the connection broke off"):
        way.fetch_series(STUDY, SERIES, tmp_path / "got")
    kept = by_uid(sent)
    came = files_in(tmp_path / "got")
    assert 0 < len(came) < 4
    assert all(pydicom.dcmread(path) == kept[facts_of(path).sop_instance_uid] for path in came)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    relay.join(10)


def relayed(listener: socket.socket, port: int, most: list[int]) -> None:
    """Hand on what comes, in both directions, as long as the archive sent fewer bytes than ``most``."""
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            came, ends = 0, {near: far, far: near}
            while came < most[0] and (ready := select.select(list(ends), [], [], 10)[0]):
                data = ready[0].recv(4096)
                came += len(data) if ready[0] is far else 0
                if not data:
                    break
                ends[ready[0]].sendall(data)
