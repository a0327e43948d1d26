"""Archives are read from their file, or refused with a sentence that says what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from spicula.core.errors import InputError, SpiculaWarning
from spicula.dicom.pacs import Pacs
from spicula.dicom.web import DicomWeb
from spicula.pipelines.archives import archive_named, load_archives, opened

WHOLE = """
[hospital]
url = "https://pacs.example/dicom-web"
user = "spicula"
password_file = "hospital.password"
pull = true
send = true

[cloud]
url = "https://cloud.example/dicom"
token_env = "CLOUD_TOKEN"

[old-pacs]
host = "10.0.0.5"
port = 104
called_aet = "ARCHIVE"
calling_aet = "SPICULA2"
move_aet = "SPICULA"
move_port = 11112
pull = true
"""


def written(folder: Path, text: str, *, mode: int = 0o600) -> Path:
    file = folder / "archives.toml"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


def test_archives_of_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, WHOLE)
    archives = load_archives(tmp_path)
    assert list(archives) == ["hospital", "cloud", "old-pacs"]
    assert archives == load_archives(file)
    hospital, cloud, old = archives.values()
    assert [one.way for one in archives.values()] == ["dicomweb", "dicomweb", "dimse"]
    assert (hospital.pull, hospital.send, cloud.pull, cloud.send, old.pull, old.send) == (
        *(True, True), *(False, False), *(True, False)
    )  # fmt: skip
    assert (old.address, old.calling_aet, old.move_port) == ("ARCHIVE at 10.0.0.5:104", "SPICULA2", 11112)
    with pytest.raises(InputError, match=r"hospital\.password: got No such file"), opened(hospital):
        pass
    (tmp_path / "hospital.password").write_text("\n")
    with pytest.raises(InputError, match="empty first line"), opened(hospital):
        pass
    (tmp_path / "hospital.password").write_text("opensesame\n")
    (tmp_path / "hospital.password").chmod(0o600)
    with opened(hospital) as client:
        assert isinstance(client, DicomWeb)
        assert client._http._header == "Basic c3BpY3VsYTpvcGVuc2VzYW1l"
    with pytest.raises(InputError, match="environment variable CLOUD_TOKEN: got nothing"), opened(cloud):
        pass
    monkeypatch.setenv("CLOUD_TOKEN", "t0ken")
    with opened(cloud) as client:
        assert isinstance(client, DicomWeb)
        assert client._http._header == "Bearer t0ken"
    with opened(old) as client:
        assert client == Pacs("10.0.0.5", 104, "ARCHIVE", calling_ae_title="SPICULA2")


def test_an_archive_must_be_known_and_allow_what_is_asked(tmp_path: Path) -> None:
    assert load_archives(tmp_path) == {}
    with pytest.raises(InputError, match=r"expected one of \(none yet\). Hint: write it into .*archives.toml"):
        archive_named(tmp_path, "hospital")
    with pytest.raises(InputError, match="nothing there"):
        load_archives(tmp_path / "other.toml")
    written(tmp_path, WHOLE)
    assert archive_named(tmp_path, "old-pacs", may="pull").host == "10.0.0.5"
    with pytest.raises(InputError, match="expected one of hospital, cloud, old-pacs"):
        archive_named(tmp_path, "hopsital")
    with pytest.raises(InputError, match=r"does not allow to send. Hint: write send = true under \[old-pacs\]"):
        archive_named(tmp_path, "old-pacs", may="send")


def test_a_secret_that_others_may_read_is_warned_of_and_never_shown(tmp_path: Path) -> None:
    text = '[a]\nurl = "https://a.example/"\nuser = "u"\npassword = "opensesame"\n'
    written(tmp_path, text)
    assert "opensesame" not in repr(load_archives(tmp_path))
    written(tmp_path, text, mode=0o644)
    with pytest.warns(SpiculaWarning, match="others may read it. Hint: chmod 600"):
        load_archives(tmp_path)
    written(tmp_path, '[a]\nurl = "https://a.example/"\ntoken_file = "t"\n', mode=0o644)
    (tmp_path / "t").write_text("opensesame")
    (tmp_path / "t").chmod(0o640)
    (archive,) = load_archives(tmp_path).values()
    with pytest.warns(SpiculaWarning, match="others may read it"), opened(archive):
        pass


DIMSE = 'host = "h"\nport = 104\ncalled_aet = "A"\n'
WEB = 'url = "https://a.example/"\n'
WRONG = {
    "no TOML": ("[a\n", "TOML"),
    "no text": (b"\xff\xfe", "no UTF-8"),
    "no table": ("a = 1", r"expected a table \[a\]"),
    "name": ('["a b"]\n' + WEB, "at most 32 letters"),
    "unknown key": ("[a]\nulr = 1", "key 'ulr': got none that is known, expected pull, send, url"),
    "text for port": ('[a]\nhost = "h"\nport = "104"\ncalled_aet = "A"', "port: got a str, expected a whole number"),
    "true for port": ('[a]\nhost = "h"\nport = true\ncalled_aet = "A"', "port: got a bool"),
    "text for send": ("[a]\n" + WEB + 'send = "yes"', "send: got a str, expected true or false"),
    "both ways": ("[a]\n" + WEB + DIMSE, "make two archives of it"),
    "neither way": ("[a]\npull = true", "neither url nor host"),
    "port": ("[a]\n" + DIMSE.replace("104", "70000"), "got 70000, expected a number from 1 to 65535"),
    "no port": ('[a]\nhost = "h"\ncalled_aet = "A"', "port: got none"),
    "AE title": ("[a]\n" + DIMSE + 'calling_aet = "ABCDEFGHIJKLMNOPQ"', "calling_aet"),
    "move_port alone": ("[a]\n" + DIMSE + "move_port = 11112", "move_port without move_aet"),
    "address": ('[a]\nurl = "ftp://a.example"', r"\[a\]: url: got another text, expected http"),
    "user in address": ('[a]\nurl = "https://u:opensesame@a.example/"', "got a user in it"),
    "user alone": ("[a]\n" + WEB + 'user = "u"', "one of user and password"),
    "two passwords": ("[a]\n" + WEB + 'user = "u"\npassword_env = "A"\npassword_file = "B"', "password_file and"),
    "two kinds": ("[a]\n" + WEB + 'user = "u"\npassword_env = "A"\ntoken_env = "B"', "a password and a token"),
    "authority": ("[a]\n" + WEB + 'verify = "ca.pem"', "which is no file"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_refused_with_what_would(text: str | bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "archives.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as error:
        load_archives(tmp_path)
    assert "opensesame" not in str(error.value)
    assert "archives.toml" in str(error.value)
