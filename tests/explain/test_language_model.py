"""Reports by a language model, asked of a real server on this machine that speaks the chat completions contract."""

from __future__ import annotations

import email.utils
import json
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from spicula.core.errors import InputError, OfflineError
from spicula.core.semantics import SemanticFeatures
from spicula.explain.chat import MOST_BYTES, Endpoint, post_chat
from spicula.explain.language_model import Written, cost_line, parse_report, report_by_model, request_body
from spicula.explain.report_text import ReportText, plain_text

KEY = "sk-very-secret-0123456789"
FEATURES = SemanticFeatures(
    longest_diameter_mm=12.25, margins={"Smooth": False, "Spiculated": True}, consistency="Part-solid", necrosis=False
)
ANSWER = "**Findings:**\n* Part-solid.\n* Spiculated/serrated margin.\n\n**Impression:**\nA part-solid nodule.\n"
BODY = {"model": "m", "messages": []}


def completion(text: object = ANSWER, **more: object) -> bytes:
    usage = {"prompt_tokens": 310, "completion_tokens": 42, "total_tokens": 352}
    return json.dumps(
        {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage} | more
    ).encode()


class Server(ThreadingHTTPServer):
    """Answers with what it was told to, one after the other; the last again and again."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, bytes, dict[str, str]] | Callable[[Handler], None]] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def says(self, *answers: object) -> None:
        self.answers = [(200, a, {}) if isinstance(a, bytes) else a for a in answers]  # type: ignore[misc]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        answer = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        if callable(answer):
            answer(self)
            return
        status, content, headers = answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    running = Server()
    running.says(completion())
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.stopping.set()
    running.shutdown()
    running.server_close()
    thread.join()


def endpoint(server: Server, **more: object) -> Endpoint:
    return Endpoint(**({"url": server.url, "model": "m", "key": KEY, "timeout_s": 5.0, "wait_s": 0.0} | more))


def failure(status: int, message: str = "busy", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    return status, json.dumps({"error": {"message": message}}).encode(), headers


def test_a_report_is_asked_with_what_was_read_alone(server):
    written = report_by_model(FEATURES, endpoint=endpoint(server), cache=None)
    assert written.report == ReportText("- Part-solid.\n- Spiculated/serrated margin.", "A part-solid nodule.")
    assert plain_text(written.report.findings) == "Part solid. Spiculated, serrated margin."
    assert (written.from_cache, written.tokens_in, written.tokens_out) == (False, 310, 42)
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    asked = json.loads(body)
    assert (asked["model"], asked["temperature"]) == ("m", 0.0)
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert json.loads(asked["messages"][1]["content"]) == {
        "longest axial diameter (mm)": 12.2,
        "nodule margin": ["Spiculated"],
        "nodule consistency": "Part-solid",
        "necrosis": "Absent",
    }


def test_the_order_of_the_features_follows_from_the_seed():
    bodies = [request_body(FEATURES, model="m", temperature=0, seed=seed % 10) for seed in range(20)]
    assert bodies[:10] == bodies[10:]
    assert len({body["messages"][1]["content"] for body in bodies}) > 4


def test_a_question_is_paid_for_once(server, tmp_path):
    first = report_by_model(FEATURES, endpoint=endpoint(server), cache=tmp_path / "answers")
    again = report_by_model(FEATURES, endpoint=endpoint(server, key=""), cache=tmp_path / "answers")
    assert (again.report, again.from_cache, again.tokens_in, len(server.requests)) == (first.report, True, 0, 1)
    for other in (endpoint(server, model="n"), endpoint(server, temperature=0.5)):
        assert not report_by_model(FEATURES, endpoint=other, cache=tmp_path / "answers").from_cache
    assert not report_by_model(FEATURES, endpoint=endpoint(server), cache=tmp_path / "answers", seed=5).from_cache
    other_nodule = SemanticFeatures(shape="Round")
    assert not report_by_model(other_nodule, endpoint=endpoint(server), cache=tmp_path / "answers").from_cache
    assert len(list((tmp_path / "answers").iterdir())) == 5


@pytest.mark.parametrize("content", ["", "{", "[]", '{"text": 3}', '{"text": "nothing"}', "\x00", "null"])
def test_a_damaged_cache_entry_is_asked_anew_and_mended(server, tmp_path, content):
    report_by_model(FEATURES, endpoint=endpoint(server), cache=tmp_path)
    (entry,) = tmp_path.iterdir()
    whole = entry.read_text(encoding="utf-8")
    entry.write_text(content, encoding="utf-8")
    assert not report_by_model(FEATURES, endpoint=endpoint(server), cache=tmp_path).from_cache
    assert entry.read_text(encoding="utf-8") == whole


def test_the_key_is_nowhere_but_in_the_request(server, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    here = endpoint(server, tries=2)
    server.says(failure(429, f"key {KEY} is busy"), completion())
    written = report_by_model(FEATURES, endpoint=here, cache=tmp_path)
    server.says(failure(401, f"Incorrect API key provided: {KEY}."))
    with pytest.raises(InputError, match=r"status 401 .*\[key\].* Hint: check the key") as refused:
        post_chat(BODY, endpoint=here)
    server.says(failure(500, f"{'x' * 190} {KEY}"))
    with pytest.raises(OfflineError) as broken:
        post_chat(BODY, endpoint=here)
    said = "".join(str(thing) for thing in (written, here, repr(here), refused.value, broken.value, caplog.text))
    said += "".join(capfd.readouterr()) + "".join(path.read_text() + path.name for path in tmp_path.iterdir())
    assert KEY[:10] not in said
    assert all(KEY not in body.decode() for _, _, body in server.requests)


def test_a_password_of_netrc_does_not_take_the_place_of_the_key(server, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    post_chat(BODY, endpoint=endpoint(server))
    post_chat(BODY, endpoint=endpoint(server, key=""))
    assert server.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    assert "Authorization" not in server.requests[1][1]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_or_broken_server_is_asked_again_after_growing_waits(server, status):
    waits: list[float] = []
    server.says(failure(status), failure(status), failure(status), completion())
    assert post_chat(BODY, endpoint=endpoint(server, wait_s=0.5), sleep=waits.append).tokens_out == 42
    assert waits == [0.5, 1.0, 2.0]


def test_the_server_may_name_the_wait(server):
    waits: list[float] = []
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    named = ["7", date, "soon", "9999", "-3", "nan"]
    server.says(*[failure(429, **{"Retry-After": text}) for text in named], completion())
    post_chat(BODY, endpoint=endpoint(server, tries=7, wait_s=0.25), sleep=waits.append)
    assert waits[0] == 7
    assert 20 < waits[1] <= 30
    assert waits[2:] == [1.0, 60.0, 0.0, 8.0]


def test_a_server_that_stays_broken_is_given_up(server):
    server.says(failure(503, "overloaded"))
    with pytest.raises(OfflineError, match=r"asked 3 times: got status 503 \(overloaded\)"):
        post_chat(BODY, endpoint=endpoint(server, tries=3))
    assert len(server.requests) == 3


def silent(handler: Handler) -> None:
    handler.server.stopping.wait(10)


def dripping(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    with suppress(OSError):
        for _ in range(200):
            handler.wfile.write(b" ")
            if handler.server.stopping.wait(0.05):
                return


def hanging_up(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices"')
    handler.close_connection = True


def in_pieces(handler: Handler) -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    content = completion()
    for part in (content[:7], content[7:], b""):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (silent, r"no whole answer within 0\.2 s"),
        (dripping, r"no whole answer within 0\.2 s"),
        (hanging_up, "no connection that lasts|no chat completion|something else"),
    ],
)
def test_silence_dripping_and_hanging_up_end(server, answer, message):
    server.says(answer)
    with pytest.raises((OfflineError, InputError), match=message):
        post_chat(BODY, endpoint=endpoint(server, tries=2, timeout_s=0.2))
    assert len(server.requests) == 2
    server.says(answer, completion())
    assert post_chat(BODY, endpoint=endpoint(server, tries=2, timeout_s=0.2)).text == ANSWER


def test_an_answer_in_pieces_is_whole(server):
    server.says(in_pieces)
    assert post_chat(BODY, endpoint=endpoint(server)).text == ANSWER


def test_nobody_there(server):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    here = Endpoint(f"http://127.0.0.1:{port}/v1", "m", tries=2, wait_s=0.0, timeout_s=1.0)
    with pytest.raises(OfflineError, match=r"asked 2 times: got no connection that lasts .* Hint: try later"):
        post_chat(BODY, endpoint=here)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>hello</html>",
        b"{",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"message": {"content": " "}}]}',
        b'{"choices": [{"message": {"content": 3}}]}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_something_that_is_no_chat_completion_is_told(server, content):
    server.says(content)
    with pytest.raises(InputError, match=r"asked 2 times: got .*, expected a chat completion. Hint: is the address"):
        post_chat(BODY, endpoint=endpoint(server, tries=2))
    server.says(content, completion())
    assert post_chat(BODY, endpoint=endpoint(server, tries=2)).text == ANSWER


def test_an_endless_answer_is_refused(server):
    server.says(completion("x" * (MOST_BYTES + 1)))
    with pytest.raises(InputError, match="more than 4000000 bytes"):
        post_chat(BODY, endpoint=endpoint(server))


@pytest.mark.parametrize(("status", "hint"), [(400, ""), (401, "check the key"), (403, "rights"), (404, "address")])
def test_a_refusal_is_not_repeated(server, status, hint):
    server.says(failure(status, "no such model"))
    with pytest.raises(InputError, match=rf"status {status} \(no such model\), expected status 200.*{hint}"):
        post_chat(BODY, endpoint=endpoint(server))
    assert len(server.requests) == 1


def test_the_key_is_not_sent_on_to_another_address(server):
    server.says((302, b"", {"Location": server.url + "/elsewhere"}))
    with pytest.raises(InputError, match=r"status 302.*name the address it redirects to"):
        post_chat(BODY, endpoint=endpoint(server))
    assert len(server.requests) == 1


@pytest.mark.parametrize("usage", [None, [], {}, {"prompt_tokens": "many"}, {"completion_tokens": -1}])
def test_an_endpoint_need_not_tell_its_usage(server, usage):
    server.says(completion(usage=usage))
    reply = post_chat(BODY, endpoint=endpoint(server))
    assert (reply.tokens_in, reply.tokens_out) == (0, 0)


@pytest.mark.parametrize(
    "more",
    [
        {"url": "host/v1"},
        {"url": "ftp://host"},
        {"url": "http://[::1"},
        {"url": "https://"},
        {"url": f"https://me:{KEY}@host/v1"},
        {"url": f"https://host/v1?key={KEY}"},
        {"model": " "},
        {"key": KEY + "\n"},
        {"key": "schlüssel"},
        {"timeout_s": 0},
        {"timeout_s": float("inf")},
        {"tries": 0},
        {"wait_s": -1},
    ],
)
def test_an_endpoint_that_cannot_be_asked_is_refused_without_its_secret(more):
    with pytest.raises(InputError) as caught:
        Endpoint(**({"url": "https://host/v1", "model": "m"} | more))
    assert KEY not in str(caught.value)


def test_an_address_may_be_given_whole_or_as_a_base():
    for url in ("https://host/v1", "https://host/v1/", "https://host/v1/chat/completions"):
        assert Endpoint(url, "m").address == "https://host/v1/chat/completions"


@pytest.mark.parametrize(
    "text",
    [
        "Findings:\n- A.\n- B.\nImpression: C d.",
        "## FINDINGS\n\n* A.\n* B.\n\n## IMPRESSION\n* C\n* d.",
        "Here you are.\n\n**Findings**:\n1. A.\n2. B.\n\n**Impression:** C d.",
        "Impression:\nC d.\n\nFindings:\n• A.\n• **B.**",
    ],
)
def test_the_two_parts_are_found_however_they_are_marked(text):
    assert parse_report(text, model="m") == ReportText("- A.\n- B.", "C d.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("I cannot do that.", "no part Findings"),
        ("Findings:\n- A.", "no part Impression"),
        ("Impression: A.", "no part Findings"),
        ("Findings:\nImpression: A.", "nothing under Findings"),
        ("Findings:\n- A.\nImpression:\n", "nothing under Impression"),
    ],
)
def test_an_answer_that_lacks_a_part_is_refused_and_not_kept(server, tmp_path, text, message):
    server.says(completion(text))
    with pytest.raises(InputError, match=f"answer of m: got {re.escape(message)}"):
        report_by_model(FEATURES, endpoint=endpoint(server), cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_nodule_of_which_nothing_was_read_is_not_asked_about(server):
    with pytest.raises(InputError, match="features of the nodule"):
        report_by_model(SemanticFeatures(), endpoint=endpoint(server), cache=None)
    assert not server.requests


def test_the_cost_line_counts_what_was_paid():
    report = ReportText("- a", "b")
    written = [Written(report, "m", False, 1000, 500), Written(report, "m", True), Written(report, "n", False, 10, 5)]
    line = "3 reports by m, n: 2 asked, 1 from the cache; 1010 tokens in, 505 out"
    assert cost_line(written) == line
    assert cost_line(written, dollars_per_million=(1000, 2000)) == f"{line}; 2.0200 USD"
    assert cost_line([]) == "0 reports by no model: 0 asked, 0 from the cache; 0 tokens in, 0 out"


def test_the_other_ways_with_words_load_no_network_code():
    modules = ", ".join(
        f"spicula.explain.{path.stem}" for path in SOURCES if path.stem not in ("chat", "language_model")
    )
    program = (
        f"import {modules}, sys; print({{'requests', 'urllib3', 'torch', 'spicula.explain.chat'}} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


SOURCES = [p for p in (Path(__file__).parents[2] / "src" / "spicula" / "explain").glob("*.py") if p.stem != "__init__"]
