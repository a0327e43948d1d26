"""pip's settings are read as pip reads them; a file comes from every kind of place, checked, without leaks."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pypi_simple import PYPI_SIMPLE_ENDPOINT

from spicula.core.errors import OfflineError
from spicula.datasets.package_index import IndexSettings, fetch_file, pip_settings, without_credentials

NAME = "thing-1.0.tar.gz"
CONTENT = b"the file itself" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def fetch(target: Path, **settings: object) -> bytes:
    chosen = IndexSettings(**{"indexes": (), "timeout_s": 5.0, **settings})  # type: ignore[arg-type]
    fetch_file("thing", NAME, target / "got", sha256=SHA256, settings=chosen)
    return (target / "got").read_bytes()


def make_index(root: Path, *, content: bytes = CONTENT, digest: str = SHA256) -> Path:
    (root / "files").mkdir(parents=True)
    (root / "files" / NAME).write_bytes(content)
    (root / "simple" / "thing").mkdir(parents=True)
    fragment = f"#sha256={digest}" if digest else ""
    page = f'<!DOCTYPE html><html><body><a href="../../files/{NAME}{fragment}">{NAME}</a></body></html>'
    (root / "simple" / "thing" / "index.html").write_text(page)
    return root / "simple"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder to whoever names user and password, where they are asked for."""

    def do_GET(self) -> None:
        wanted = self.server.credentials  # type: ignore[attr-defined]
        if wanted and self.headers.get("Authorization") != "Basic " + base64.b64encode(wanted).decode():
            self.send_error(401)
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.ThreadingHTTPServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    make_index(tmp_path / "served")
    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        made.credentials = b""  # type: ignore[attr-defined]
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def test_environment_over_files_over_defaults(tmp_path):
    weak, strong = tmp_path / "weak.conf", tmp_path / "strong.conf"
    weak.write_text("[global]\nindex-url = https://weak/simple\ntimeout = 3\nfind-links =\n  /a\n  /b\n")
    strong.write_text("[global]\nindex_url = https://strong/simple\ntrusted-host = one two\n[install]\ncert = /c.pem\n")
    found = pip_settings({}, config_files=[weak, strong])
    assert found == IndexSettings(
        ("https://strong/simple",), ("/a", "/b"), cert="/c.pem", trusted_hosts=("one", "two"), timeout_s=3.0
    )
    env = {"PIP_INDEX_URL": "https://env/simple", "PIP_EXTRA_INDEX_URL": "file:///x https://y", "PIP_TIMEOUT": "9"}
    found = pip_settings(env, config_files=[weak, strong])
    assert found.indexes == ("https://env/simple", "file:///x", "https://y")
    assert found.timeout_s == 9
    assert pip_settings({}, config_files=[]).indexes == (PYPI_SIMPLE_ENDPOINT,)
    assert pip_settings({"PIP_NO_INDEX": "1", "PIP_EXTRA_INDEX_URL": "https://y"}, config_files=[]).indexes == ()


def test_broken_configuration_is_passed_over(tmp_path):
    (tmp_path / "pip.conf").write_bytes(b"\xff\xfe not a configuration")
    found = pip_settings({"PIP_TIMEOUT": "soon"}, config_files=[tmp_path / "pip.conf", tmp_path / "absent"])
    assert found == IndexSettings((PYPI_SIMPLE_ENDPOINT,))


@pytest.mark.parametrize("named", [False, True])
def test_files_are_those_that_pip_reads(tmp_path, named):
    pytest.importorskip("pip", reason="python -m ensurepip brings pip")
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    (tmp_path / ".config" / "pip" / "pip.conf").write_text("[global]\nextra-index-url = https://user.example/simple\n")
    (tmp_path / "named.conf").write_text("[global]\nproxy = http://proxy.example:3128\n")
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"} | (
        {"PIP_CONFIG_FILE": str(tmp_path / "named.conf")} if named else {}
    )
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    pairs = [line.split("=", 1) for line in listed.splitlines() if not line.startswith(":")]
    values = {name.rpartition(".")[2]: value.strip("'\"").replace("\\n", " ") for name, value in pairs}
    found = pip_settings(env)
    assert found.indexes[0] == values.get("index-url", PYPI_SIMPLE_ENDPOINT)
    assert found.indexes[1:] == tuple(values.get("extra-index-url", "").split())
    assert found.find_links == tuple(values.get("find-links", "").split())
    assert found.cert == values.get("cert", "")
    assert found.proxy == values.get("proxy", "") == ("http://proxy.example:3128" if named else "")
    assert ("https://user.example/simple" in found.indexes) is not named


def test_no_file_at_all_where_pip_is_told_so():
    assert pip_settings({"PIP_CONFIG_FILE": "/dev/null"}) == IndexSettings((PYPI_SIMPLE_ENDPOINT,))


def test_from_a_file_index_and_from_folders(tmp_path):
    simple = make_index(tmp_path / "index")
    assert fetch(tmp_path / "1", indexes=(simple.as_uri(),)) == CONTENT
    assert fetch(tmp_path / "2", indexes=(str(simple) + "/",)) == CONTENT
    files = tmp_path / "index" / "files"
    for number, place in enumerate([str(files), files.as_uri(), str(simple / "thing" / "index.html")]):
        assert fetch(tmp_path / f"f{number}", find_links=(place,)) == CONTENT


def test_from_a_server_with_and_without_credentials(tmp_path, server):
    host = f"127.0.0.1:{server.server_port}"
    assert fetch(tmp_path / "1", indexes=(f"http://{host}/simple",)) == CONTENT
    assert fetch(tmp_path / "2", find_links=(f"http://{host}/simple/thing/",)) == CONTENT
    server.credentials = b"user:s3cret"
    assert fetch(tmp_path / "3", indexes=(f"http://user:s3cret@{host}/simple",)) == CONTENT
    with pytest.raises(OfflineError, match="answered 401") as caught:
        fetch(tmp_path / "4", indexes=(f"http://user:wr0ng@{host}/simple",))
    assert "wr0ng" not in str(caught.value)


def test_credentials_of_netrc(tmp_path, server, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password s3cret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.credentials = b"user:s3cret"
    assert fetch(tmp_path / "1", indexes=(f"http://127.0.0.1:{server.server_port}/simple",)) == CONTENT


def test_places_that_fail_are_passed_over_and_named_when_none_is_left(tmp_path, server):
    good = make_index(tmp_path / "good")
    forged = make_index(tmp_path / "forged", content=b"something else", digest="")
    other = make_index(tmp_path / "other", digest="0" * 64)
    missing = f"http://127.0.0.1:{server.server_port}/nowhere/"
    closed = "http://u:p4ss@127.0.0.1:1/simple"
    bad = (closed, missing, forged.as_uri(), other.as_uri(), (tmp_path / "absent").as_uri())
    assert fetch(tmp_path / "1", indexes=(*bad, good.as_uri())) == CONTENT
    with pytest.raises(OfflineError) as caught:
        fetch(tmp_path / "2", indexes=bad)
    message = str(caught.value)
    for words in ("cannot be reached", "does not have the project", "gave a file", "states sha256 000", "not have it"):
        assert words in message
    assert "p4ss" not in message
    assert list((tmp_path / "2").iterdir()) == []
    with pytest.raises(OfflineError, match="no index and no find-links"):
        fetch(tmp_path / "3")


def test_credentials_are_cut_from_names():
    assert without_credentials("https://u:p@host:8080/simple?x=1") == "https://host:8080/simple?x=1"
    assert without_credentials("/a/folder") == "/a/folder"
