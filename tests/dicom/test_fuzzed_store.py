"""Noise over both ways in: a listener and STOW live through it, keep what is sound, and leave nothing half-written.

The mutations are the same each time: they come from seeds.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from spicula.core.errors import InputError
from spicula.dicom.inbox import INCOMING, facts_of
from spicula.dicom.listener import Listener
from spicula.dicom.pacs import Pacs
from spicula.pipelines import dicomweb
from spicula.store.database import open_database
from spicula.store.studies import Studies

SIZE = 24  # rows and columns
OURS = "SPICULA"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from .conftest import stored_block, write_ct

    return write_ct(tmp_path_factory.mktemp("good"), stored_block((3, SIZE, SIZE)))


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes with one to a few things wrong: flipped, cut, doubled, filled with zeros, lengths that lie."""
    wrong = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(max(1, len(wrong)))
        match rng.randrange(7):
            case 0:
                wrong[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del wrong[at:]
            case 2:
                wrong[at:at] = wrong[at : at + rng.randrange(1, 64)]
            case 3:
                wrong[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80"))
            case 4:
                del wrong[at : at + rng.randrange(1, 64)]
            case 5:
                wrong[at : at + 8] = rng.randbytes(8)
            case _:
                wrong[at:at] = rng.randbytes(rng.randrange(1, 40))
    return bytes(wrong)


# --- C-STORE


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with Listener(tmp_path / "in", 0, timeout_s=1.0, reserve_bytes=0) as opened:
        yield opened


def conversation(good: list[Path], tmp_path: Path) -> list[bytes]:
    """What a sender says to a listener while it stores: its PDUs, taken from a real association."""
    said: list[bytes] = []
    with Listener(tmp_path / "recorded", 0, timeout_s=5.0, reserve_bytes=0) as listener:
        relay = socket.create_server(("127.0.0.1", 0))
        recording = threading.Thread(target=record, args=(relay, listener.port, said))
        recording.start()
        way = Pacs("127.0.0.1", relay.getsockname()[1], OURS, calling_ae_title="SENDER", answer_timeout_s=10.0)
        way.store(good[:1])
        relay.close()
        recording.join(10)
    data, pdus = b"".join(said), []
    while data:
        length = 6 + int.from_bytes(data[2:6], "big")
        pdus.append(data[:length])
        data = data[length:]
    return pdus


def record(relay: socket.socket, port: int, said: list[bytes]) -> None:
    near, _ = relay.accept()
    with near, socket.create_connection(("127.0.0.1", port)) as far:

        def back() -> None:
            while data := far.recv(2**16):
                near.sendall(data)

        answering = threading.Thread(target=back)
        answering.start()
        while data := near.recv(2**16):
            said.append(data)
            far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        answering.join(10)


def spoken(port: int, pdus: list[bytes]) -> None:
    """Say PDUs to a listener, each after its answer or a moment."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(0.02)
        for number, pdu in enumerate(pdus):
            try:
                connection.sendall(pdu)
                if number == 0 or number == len(pdus) - 2:
                    connection.settimeout(0.1)
                    connection.recv(2**16)
                    connection.settimeout(0.02)
            except TimeoutError:
                continue
            except OSError:
                return


def sound(folder: Path) -> dict[str, pydicom.Dataset]:
    """What lies in an inbox: every file whole, under its own name, nothing beside."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name != INCOMING:
            arrived = facts_of(path)  # raises for one that is not whole
            assert path.suffix == ".dcm"
            assert path.parent.parent == folder
            found[arrived.sop_instance_uid] = pydicom.dcmread(path)
    return found


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of pynetdicom's threads
def test_mutated_associations_leave_nothing_half(good: list[Path], listener: Listener, tmp_path: Path) -> None:
    pdus = conversation(good, tmp_path)
    threads = threading.active_count()
    assert [pdu[0] for pdu in pdus[:2]] == [1, 4]  # an association is asked for, then data come
    rng = random.Random(1)
    for number in range(60):
        wrong = list(pdus)
        at = rng.randrange(len(wrong))
        wrong[at] = mutated(wrong[at], rng)
        if number % 3:  # with a length that is true again, so that what lies within is looked at
            wrong[at] = wrong[at][:2] + struct.pack(">I", max(0, len(wrong[at]) - 6)) + wrong[at][6:]
        if number % 10 == 9:
            rng.shuffle(wrong)
        spoken(listener.port, wrong)
    stop = time.monotonic() + 20
    while threading.active_count() > threads and time.monotonic() < stop:
        time.sleep(0.05)
    assert threading.active_count() <= threads  # no association goes on without its sender
    way = Pacs("127.0.0.1", listener.port, OURS, calling_ae_title="SENDER", answer_timeout_s=10.0)
    assert len(way.store(good)) == len(good)
    kept = sound(listener.folder)
    for path in good:
        dataset = pydicom.dcmread(path)
        assert kept[dataset.SOPInstanceUID] == dataset
    listener.close()
    assert not (listener.folder / INCOMING).exists()


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_mutated_data_sets_are_kept_whole_or_refused(good: list[Path], listener: Listener) -> None:
    """Sound associations, unsound instances: pynetdicom itself sends them."""
    from spicula.dicom.dimse import pynetdicom

    library = pynetdicom()
    entity = library.AE(ae_title="SENDER")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    assoc = entity.associate("127.0.0.1", listener.port, ae_title=OURS)
    assert assoc.is_established
    rng, statuses = random.Random(2), set()
    content = whole_data_set(good[0])
    for number in range(150):
        if not assoc.is_established:
            assoc = entity.associate("127.0.0.1", listener.port, ae_title=OURS)
        statuses.add(sent(library, assoc, mutated(content, rng), f"1.2.3.4.{1000 + number}"))
    assoc.release()
    assert statuses <= {0x0000, 0xA700, 0xA900, 0xC000, 0x0110, None}
    assert statuses & {0xA900, 0xC000}
    way = Pacs("127.0.0.1", listener.port, OURS, calling_ae_title="SENDER", answer_timeout_s=10.0)
    assert len(way.store(good)) == len(good)
    kept = sound(listener.folder)
    assert {str(pydicom.dcmread(path).SOPInstanceUID) for path in good} <= set(kept)


def whole_data_set(path: Path) -> bytes:
    """The bytes of a file behind its meta information."""
    data = path.read_bytes()
    return data[144 + int.from_bytes(data[140:144], "little") :]


def sent(library: Any, assoc: Any, content: bytes, uid: str) -> int | None:
    """The status of a C-STORE of raw bytes; None where there was no answer."""
    from io import BytesIO

    request = library.dimse_primitives.C_STORE()
    request.MessageID, request.Priority = 1, 0
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
    request.DataSet = BytesIO(content + b"\0" * (len(content) % 2))
    assoc._reactor_checkpoint.clear()
    assoc.dimse.send_msg(request, assoc.accepted_contexts[0].context_id)
    _, answer = assoc.dimse.get_msg(block=True)
    assoc._reactor_checkpoint.set()
    return None if answer is None else int(answer.Status)


# --- STOW


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_mutated_stow_bodies_leave_nothing_half(good: list[Path], tmp_path: Path) -> None:
    kind = 'multipart/related; type="application/dicom"; boundary=cut'
    parts = [b"--cut\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\r\n" for path in good]
    whole = b"".join(parts) + b"--cut--"
    engine = open_database(tmp_path / "store", None)
    studies = Studies(engine, tmp_path / "store")
    body, rng, refused = tmp_path / "body", random.Random(3), 0
    before = {path.name for path in studies.folder.iterdir()}
    options = {"most_bytes": 2**20, "retrieve_url": lambda uid: f"http://x/{uid}"}
    try:
        for number in range(200):
            body.write_bytes(mutated(whole, rng))
            odd = mutated(kind.encode(), rng).decode("latin-1") if number % 8 == 7 else kind
            try:
                answer, _ = dicomweb.store(studies, body, odd, **options)
                assert set(answer) <= {"00081190", "00081198", "00081199"}
            except InputError:
                refused += 1
            assert {path.name for path in studies.folder.iterdir()} - before <= {"instances"}
        assert 0 < refused < 200
        assert list(studies.damaged()) == []
        assert studies.sweep(older_than_s=-1.0) == 0  # no file without a row
        body.write_bytes(whole)
        stored, _ = dicomweb.store(studies, body, kind, **options)
        uids = {str(pydicom.dcmread(path).SOPInstanceUID) for path in good}
        named = [item for name in ("00081199", "00081198") for item in stored.get(name, {"Value": ()})["Value"]]
        assert {item["00081155"]["Value"][0] for item in named} == uids
        for row in studies.list(limit=500).rows:
            for series in studies.series(row["study_uid"]):
                for instance in studies.instances(series["series_uid"]):
                    assert facts_of(studies.path(instance)).sop_instance_uid == instance["sop_instance_uid"]
    finally:
        engine.dispose()
