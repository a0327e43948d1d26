"""The client of DICOMweb with a real Orthanc; servers that misbehave are played where Orthanc will not."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicula.core.analysis import Analysis
from spicula.core.errors import InputError, OfflineError, SpiculaWarning
from spicula.core.finding import Finding
from spicula.core.volume import Mask
from spicula.dicom.inbox import INCOMING
from spicula.dicom.multipart import BrokenTransfer, parts_to_files
from spicula.dicom.reader import read_series
from spicula.dicom.seg import write_seg
from spicula.dicom.series import find_series
from spicula.dicom.sr import write_sr
from spicula.dicom.web import DicomWeb

from ..orthanc_server import Orthanc, free_port

STUDY, SERIES = "1.2.3", "1.2.3.4"


@pytest.fixture
def empty(orthanc: Orthanc) -> Orthanc:
    orthanc.clear()
    return orthanc


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("http", "web"):
        monkeypatch.setattr(f"spicula.dicom.{module}.pause_s", lambda attempt, retry_after="": 0.01)


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same elements, pixels and transfer syntax."""
    a, b = pydicom.dcmread(one), pydicom.dcmread(other)
    return a == b and a.PixelData == b.PixelData and a.file_meta.TransferSyntaxUID == b.file_meta.TransferSyntaxUID


def by_uid(paths: Any) -> dict[str, Path]:
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in paths}


def all_same(sent: Any, came: Any) -> bool:
    one, other = by_uid(sent), by_uid(came)
    return one.keys() == other.keys() and all(same(one[uid], other[uid]) for uid in one)


def reports_of(folder: Path, source: Path) -> list[Path]:
    """SR and SEG by our own writers, of one outlined finding in the series in ``source``."""
    volume = read_series(find_series(source)[0])
    inside = np.zeros((2, 3, 3), dtype=bool)
    inside[:, 1:, 1:] = True
    mask = Mask(inside, volume.geometry.crop((2, 3, 4), (4, 6, 7)))
    center = tuple(float(v) for v in volume.geometry.index_to_world((3, 4.5, 5.5)))
    analysis = Analysis(volume, (Finding("1", center, 2.0, 0.9, mask=mask),), (), {}, (), ())
    write_sr(folder / "sr.dcm", analysis)
    assert write_seg(folder / "seg.dcm", analysis)
    return [folder / "sr.dcm", folder / "seg.dcm"]


# --- with Orthanc


def test_what_is_stored_is_found_and_fetched_as_it_was(empty: Orthanc, ct: Any, tmp_path: Path) -> None:
    sent = ct.write(tmp_path / "sent")
    with DicomWeb(empty.web, page_size=4, batch_bytes=2500) as web:  # several pages and batches
        assert set(web.store(sent)) == by_uid(sent).keys()
        assert empty.ask("statistics")["CountInstances"] == 6
        (study,) = web.find_studies(PatientID="P1")
        assert (study.study_uid, study.study_date, study.modalities) == (STUDY, "20200102", ("CT",))
        assert (study.series_count, study.instance_count, study.patient_name) == (1, 6, "A^B")
        assert "A^B" not in repr(study)
        assert "P1" not in repr(study)
        (series,) = web.find_series(STUDY)
        assert (series.series_uid, series.modality, series.description, series.instance_count) == (
            SERIES,
            "CT",
            "Chest",
            6,
        )
        assert web.find_series(SeriesInstanceUID=SERIES) == (series,)
        assert {i.sop_instance_uid for i in web.find_instances(STUDY, SERIES)} == by_uid(sent).keys()
        assert web.find_studies(PatientID="P2") == ()
        came = web.fetch_series(STUDY, SERIES, tmp_path / "came")
    assert all_same(sent, came)
    assert not (tmp_path / "came" / INCOMING).exists()
    assert read_series(find_series(tmp_path / "came")[0]).array_zyx.shape == (6, 9, 11)


def test_studies_beyond_a_page_are_all_found(empty: Orthanc, ct: Any, tmp_path: Path) -> None:
    stored = ct.stored((1, 4, 4))
    sent = []
    for number in range(23):

        def change(dataset: pydicom.Dataset, index: int, number: int = number) -> None:
            dataset.StudyInstanceUID, dataset.PatientID = f"1.2.3.{number}", f"P{number:02d}"

        sent += ct.write(tmp_path / str(number), stored, series_uid=f"1.2.4.{number}", change=change)
    web = DicomWeb(empty.web, page_size=10)
    web.store(sent)
    assert {study.study_uid for study in web.find_studies()} == {f"1.2.3.{number}" for number in range(23)}
    assert len(web.find_studies(PatientID="P1*")) == 10
    with pytest.raises(InputError, match="more than 15 matches"):
        DicomWeb(empty.web, page_size=10, max_results=15).find_studies()


def test_compressed_series_come_as_they_are_stored(empty: Orthanc, ct: Any, tmp_path: Path) -> None:
    sent = ct.write(tmp_path / "sent", ct.stored((2, 16, 16)))
    for path in sent:
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    web = DicomWeb(empty.web)
    web.store(sent)
    came = web.fetch_series(STUDY, SERIES, tmp_path / "came")
    assert all_same(sent, came)
    assert pydicom.dcmread(came[0]).file_meta.TransferSyntaxUID == pydicom.uid.RLELossless


def test_reports_and_outlines_are_stored_and_confirmed(empty: Orthanc, ct: Any, tmp_path: Path) -> None:
    ct.write(tmp_path / "sent")
    files = reports_of(tmp_path, tmp_path / "sent")
    web = DicomWeb(empty.web)
    assert set(web.store(files)) == by_uid(files).keys()
    assert {series.modality for series in web.find_series(STUDY)} == {"SR", "SEG"}
    web.store(files)  # again: they are there already


def test_what_lies_in_the_folder_is_not_fetched_again(empty: Orthanc, ct: Any, tmp_path: Path) -> None:
    sent = ct.write(tmp_path / "sent")
    web = DicomWeb(empty.web)
    web.store(sent)
    came = web.fetch_series(STUDY, SERIES, tmp_path / "came")
    times = {path: path.stat().st_mtime_ns for path in came[1:]}
    came[0].unlink()
    assert web.fetch_series(STUDY, SERIES, tmp_path / "came") == came
    assert {path: path.stat().st_mtime_ns for path in came[1:]} == times


def test_passwords_are_needed_and_never_shown(new_orthanc: Callable[..., Orthanc], ct: Any, tmp_path: Path) -> None:
    server = new_orthanc(anna="s3cr3t!")
    sent = ct.write(tmp_path / "sent", ct.stored((1, 4, 4)))
    with DicomWeb(server.web, user="anna", password="s3cr3t!") as web:
        web.store(sent)
        assert len(web.find_studies()) == 1
    inside = server.web.replace("://", "://anna:s3cr3t%21@")
    assert len(DicomWeb(inside).find_studies()) == 1
    assert DicomWeb(inside).url == server.web
    for web in (
        DicomWeb(server.web, user="anna", password="wrong-pw"),
        DicomWeb(server.web),
        DicomWeb(server.web, token="wrong-pw"),
    ):
        with pytest.raises(InputError, match=r"answers 401.*Hint: check user and password") as error:
            web.find_studies(PatientName="Secret^Name")
        with pytest.raises(InputError, match="answers 401"):
            web.store(sent)
        for secret in ("wrong-pw", "s3cr3t", "Secret", "Basic"):
            assert secret not in str(error.value)


def test_series_and_addresses_that_are_not_there(empty: Orthanc, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"series 1\.2\.9: got no instance"):
        DicomWeb(empty.web).fetch_series(STUDY, "1.2.9", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(InputError, match=r"answers 404.*DICOMweb root"):
        DicomWeb(empty.rest + "/nowhere").find_studies()
    with pytest.raises(OfflineError, match=r"cannot be reached \(Connection refused\)") as error:
        DicomWeb(f"http://127.0.0.1:{free_port()}/x", attempts=2).find_studies(PatientName="Secret^Name")
    assert "Secret" not in str(error.value)
    with pytest.raises(OfflineError, match="https fails"):
        DicomWeb(empty.web.replace("http:", "https:"), attempts=1).find_studies()


# --- with servers that misbehave


@dataclass
class Played:
    """A server whose answers a test writes; it keeps what it was asked."""

    answer: Callable[[Any], tuple[int, dict[str, str], bytes]]
    port: int = 0
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dw"


@contextmanager
def played(
    answer: Callable[[Any], tuple[int, dict[str, str], bytes]], *, tls: ssl.SSLContext | None = None
) -> Iterator[Played]:
    state = Played(answer)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.asked.append((self.command, self.path, dict(self.headers)))
            status, headers, body = state.answer(self)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def dicom_json(*items: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    tagged = [{f"{pydicom.datadict.tag_for_keyword(k):08X}": {"Value": [v]} for k, v in item.items()} for item in items]
    return 200, {"Content-Type": "application/dicom+json"}, json.dumps(tagged).encode()


def test_a_server_that_answers_200_and_stores_nothing(ct: Any, tmp_path: Path) -> None:
    sent = ct.write(tmp_path / "sent", ct.stored((2, 4, 4)))
    with played(lambda request: (200, {}, b"") if request.command == "POST" else dicom_json()) as server:
        with pytest.raises(InputError, match=r"took 2 instances and does not show 2 of them, the first 1\.2\.3\.4\.\d"):
            DicomWeb(server.url, confirm_s=0.3).store(sent)
        method, path, headers = server.asked[0]
    assert (method, path) == ("POST", "/dw/studies")
    assert int(headers["Content-Length"]) > sum(file.stat().st_size for file in sent)
    assert "Transfer-Encoding" not in headers


def test_refusals_are_told_in_words(ct: Any, tmp_path: Path) -> None:
    sent = ct.write(tmp_path / "sent", ct.stored((1, 4, 4)))
    failure = {"00081155": {"Value": ["1.2.3.4.1"]}, "00081197": {"Value": [0xA700]}}
    answer = json.dumps({"00081198": {"vr": "SQ", "Value": [failure]}}).encode()
    for status in (202, 409):
        with (
            played(lambda request, status=status: (status, {}, answer)) as server,
            pytest.raises(InputError, match=r"refused 1 of 1 instances, the first 1\.2\.3\.4\.1: out of resources"),
        ):
            DicomWeb(server.url).store(sent)
    with played(lambda request: (413, {}, b"")) as server, pytest.raises(InputError, match="batch_bytes"):
        DicomWeb(server.url).store(sent)
    warned = {"00081155": {"Value": ["1.2.3.4.1"]}, "00081196": {"Value": [0xB000]}}
    answer = json.dumps({"00081199": {"vr": "SQ", "Value": [warned]}}).encode()

    def kept(request: Any) -> tuple[int, dict[str, str], bytes]:
        return (200, {}, answer) if request.command == "POST" else dicom_json({"SOPInstanceUID": "1.2.3.4.1"})

    with played(kept) as server, pytest.warns(SpiculaWarning, match="done, with warnings"):
        DicomWeb(server.url, page_size=2).store(sent)


def test_files_that_are_not_dicom_or_cut_short_are_not_sent(ct: Any, tmp_path: Path) -> None:
    (path,) = ct.write(tmp_path / "sent", ct.stored((1, 8, 8)))
    whole = path.read_bytes()
    for content, what in (
        (b"hello", "not DICOM"),
        (whole[:-20], "cut short"),
        (whole[:-140], "without pixels|cut short"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=what):
            DicomWeb("http://localhost:1").store([path])


def pages(request: Any, *, count: int, heeds: str) -> tuple[int, dict[str, str], bytes]:
    """A server of some studies that heeds only some of the parameters of paging."""
    query = parse_qs(urlsplit(request.path).query)
    first = int(query["offset"][0]) if "offset" in heeds else 0
    most = int(query["limit"][0]) if "limit" in heeds else 3 if "cap" in heeds else count
    return dicom_json(*({"StudyInstanceUID": f"1.2.{number}"} for number in range(count)[first : first + most]))


@pytest.mark.parametrize("heeds", ["limit offset", "offset", "cap offset", "neither"])
def test_paging_in_all_ways(heeds: str) -> None:
    with played(lambda request: pages(request, count=11, heeds=heeds)) as server:
        assert len(DicomWeb(server.url, page_size=4).find_studies()) == 11


def test_a_server_that_ignores_the_offset_does_not_hide_matches() -> None:
    with (
        played(lambda request: pages(request, count=11, heeds="limit")) as server,
        pytest.raises(InputError, match="the same 4 matches for every page"),
    ):
        DicomWeb(server.url, page_size=4).find_studies()


def test_busy_servers_are_asked_again() -> None:
    answers = [(503, {"Retry-After": "0"}, b""), (429, {"Retry-After": "0"}, b"")]
    with played(lambda request: answers.pop() if answers else dicom_json()) as server:
        assert DicomWeb(server.url).find_studies() == ()
    with (
        played(lambda request: (503, {"Retry-After": "0"}, b"")) as server,
        pytest.raises(OfflineError, match="answers 503"),
    ):
        DicomWeb(server.url, attempts=2).find_studies()
    assert len(server.asked) == 2


def test_servers_that_are_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(OfflineError, match=r"no answer within 0\.2 s"):
            DicomWeb(url, timeout_s=0.2, attempts=2).find_studies()


def test_nonsense_is_refused() -> None:
    for body in (
        b"<html>",
        b'{"a": 1}',
        b"[1]",
        b'[{"0020000D": 5}]',
        b'[{"0020000D": {"Value": [null]}}]',
        b"[" * 10**5,
    ):
        with played(lambda request, body=body: (200, {}, body)) as server, pytest.raises(InputError, match="got"):
            DicomWeb(server.url).find_studies()
    for filters in ({"NoSuchKeyword": "x"}, {"PatientID": "a\r\nb"}):
        with pytest.raises(InputError, match="filter"):
            DicomWeb("http://localhost:1").find_studies(**filters)
    for uid in ("../secret", "1.2/..", "1.2?x=1", "", "1." * 40 + "1"):
        with pytest.raises(InputError, match="UID"):
            DicomWeb("http://localhost:1").find_instances("1.2", uid)
    for url in ("ftp://host", "host:80", "http://", "http://u:geheim@[bad/", "http://host/x?token=geheim"):
        with pytest.raises(InputError) as error:
            DicomWeb(url)
        assert "geheim" not in str(error.value)


def test_redirects_never_take_credentials_elsewhere() -> None:
    with played(lambda request: dicom_json()) as other:
        with played(lambda request: (302, {"Location": other.url + "/studies"}, b"")) as server:
            with pytest.raises(InputError, match="where the credentials do not belong"):
                DicomWeb(server.url, token="geheim").find_studies()
            assert not other.asked
            assert DicomWeb(server.url).find_studies() == ()
        assert "Authorization" not in other.asked[-1][2]

        def here(request: Any) -> tuple[int, dict[str, str], bytes]:
            return dicom_json() if request.path == "/moved" else (301, {"Location": "/moved"}, b"")

        with played(here) as server:
            assert DicomWeb(server.url, token="geheim").find_studies() == ()
            assert server.asked[-1][2]["Authorization"] == "Bearer geheim"
        with (
            played(lambda request: (302, {"Location": "/again"}, b"")) as server,
            pytest.raises(InputError, match="redirects"),
        ):
            DicomWeb(server.url).find_studies()


def test_certificates_are_checked() -> None:
    import pynetdicom

    certificates = Path(pynetdicom.__file__).parent / "tests" / "cert_files"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    with played(lambda request: dicom_json(), tls=context) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(OfflineError, match=r"its certificate cannot be checked\. Hint: give the file"):
            DicomWeb(url).find_studies()


# --- transfers that break: Orthanc, with someone between who cuts


@dataclass
class Cutter:
    """Hands requests on to Orthanc; cuts the answers to some of them short."""

    server: Orthanc
    cuts: Callable[[str], int | None]

    def __call__(self, request: Any) -> tuple[int, dict[str, str], bytes]:
        headers = {name: value for name, value in request.headers.items() if name in ("Accept", "Content-Type")}
        url = self.server.rest + request.path.replace("/dw", "/dicom-web", 1)
        asked = urllib.request.Request(url, method=request.command, data=request.body or None, headers=headers)
        with urllib.request.urlopen(asked, timeout=30) as response:
            body, kind = response.read(), response.headers["Content-Type"]
        cut = self.cuts(request.path)
        return 200, {"Content-Type": kind, "Content-Length": str(len(body))}, body if cut is None else body[:cut]


@pytest.mark.parametrize("cut", [0, 100, 700, 1500, 4000, -60])
def test_broken_transfers_are_taken_up_again(empty: Orthanc, ct: Any, tmp_path: Path, cut: int) -> None:
    sent = ct.write(tmp_path / "sent")
    DicomWeb(empty.web).store(sent)
    broken: list[str] = []

    def once(path: str) -> int | None:
        if path in broken or "?" in path:
            return None
        broken.append(path)
        return cut

    with played(Cutter(empty, once)) as server:
        came = DicomWeb(server.url).fetch_series(STUDY, SERIES, tmp_path / "came")
    assert len(broken) > 1 or cut == -60
    assert all_same(sent, came)


def test_what_breaks_again_and_again_leaves_no_half_file(empty: Orthanc, ct: Any, tmp_path: Path) -> None:
    sent = ct.write(tmp_path / "sent")
    DicomWeb(empty.web).store(sent)
    with (
        played(Cutter(empty, lambda path: None if "?" in path else 600)) as server,
        pytest.raises(OfflineError, match=r"broke off|ends before"),
    ):
        DicomWeb(server.url, attempts=2).fetch_series(STUDY, SERIES, tmp_path / "came")
    assert list((tmp_path / "came").iterdir()) == []


def test_a_server_that_holds_back_or_mixes_up_is_found_out(empty: Orthanc, ct: Any, tmp_path: Path) -> None:
    sent = ct.write(tmp_path / "sent", ct.stored((2, 4, 4)))
    DicomWeb(empty.web).store(sent)
    told = [{"SOPInstanceUID": f"1.2.3.4.{number}"} for number in (1, 2, 3)]
    whole = Cutter(empty, lambda path: None)

    def more(request: Any) -> tuple[int, dict[str, str], bytes]:
        if "?" in request.path:
            return dicom_json(*told) if "offset=0" in request.path else dicom_json()
        try:
            return whole(request)
        except urllib.error.HTTPError:
            return 404, {}, b""

    with played(more) as server, pytest.raises(InputError, match="answers 404"):
        DicomWeb(server.url).fetch_series(STUDY, SERIES, tmp_path / "came")
    assert len(list((tmp_path / "came").iterdir())) == 2
    told[:] = [{"SOPInstanceUID": "../../evil"}]
    with played(more) as server, pytest.raises(InputError, match="UID"):
        DicomWeb(server.url).fetch_series(STUDY, SERIES, tmp_path / "other")

    def mixed(request: Any) -> tuple[int, dict[str, str], bytes]:
        request.path = request.path.replace("1.2.3.5", SERIES)
        return whole(request)

    with played(mixed) as server, pytest.raises(InputError, match=r"series_uid of an instance: got '1\.2\.3\.4'"):
        DicomWeb(server.url).fetch_series(STUDY, "1.2.3.5", tmp_path / "mixed")
    assert list((tmp_path / "mixed").iterdir()) == []


# --- multipart


@contextmanager
def in_memory(folder: Path) -> Iterator[Path]:
    path = folder / "part"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def parts_of(folder: Path, body: bytes, boundary: str, size: int, **bounds: int) -> list[bytes]:
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    bounds = {"max_part_bytes": 10**6, "max_parts": 100, **bounds}
    kind = f'multipart/related; boundary="{boundary}"'
    return [path.read_bytes() for path in parts_to_files(chunks, kind, aside=lambda: in_memory(folder), **bounds)]


def message(parts: list[bytes], boundary: str, *, lengths: bool = False) -> bytes:
    body = b"ignored"
    for part in parts:
        header = f"Content-Length: {len(part)}\r\n".encode() if lengths else b""
        body += f"\r\n--{boundary}\r\n".encode() + header + b"Content-Type: application/dicom\r\n\r\n" + part
    return body + f"\r\n--{boundary}--\r\nignored too".encode()


pieces = st.lists(
    st.binary(max_size=60) | st.sampled_from([b"\r\n--b", b"\r\n--", b"--bc--", b"\r\n\r\n--b"]), max_size=5
)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(pieces.map(b"".join), max_size=4), size=st.integers(1, 80), lengths=st.booleans())
def test_parts_come_out_as_they_went_in(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], size: int, lengths: bool
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    body = message(parts, "bcd e", lengths=lengths)
    assert parts_of(folder, body, "bcd e", size) == parts
    cut = body.rindex(b"\r\n--bcd e--")
    for end in {0, cut // 2, cut + len(b"\r\n--bcd e-")}:
        with pytest.raises(BrokenTransfer):
            parts_of(folder, body[:end], "bcd e", size)
    assert list(folder.iterdir()) == []


def test_multipart_has_bounds(tmp_path: Path) -> None:
    body = message([b"x" * 1000] * 3, "b")
    with pytest.raises(InputError, match="at most 999"):
        parts_of(tmp_path, body, "b", 64, max_part_bytes=999)
    with pytest.raises(InputError, match="more parts"):
        parts_of(tmp_path, body, "b", 64, max_parts=2)
    with pytest.raises(InputError, match="headers of a part"):
        parts_of(tmp_path, b"--b\r\n" + b"A: b\r\n" * 10**5, "b", 4096)
    with pytest.raises(InputError, match="preamble"):
        parts_of(tmp_path, b"x" * 10**5, "b", 4096)
    with pytest.raises(BrokenTransfer, match="says it has 5"):
        parts_of(tmp_path, b"--b\r\nContent-Length: 5\r\n\r\nabc\r\n--b--", "b", 7)
    for kind in ("application/json", "multipart/related", 'multipart/related; boundary=""', ""):
        with pytest.raises(InputError, match="boundary"):
            list(parts_to_files([], kind, aside=lambda: in_memory(tmp_path), max_part_bytes=1, max_parts=1))
