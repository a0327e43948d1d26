"""The page and OHIF's pages as files: what is served, under which policy, and nothing else."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from spicula.core.errors import InputError
from spicula.web import page
from spicula.web.app import make_app

from .test_access import BASE

START = (
    '<html><head><link href="/app.css"><script src="/app-config.js"></script><script>window.PUBLIC_URL="/"</script>'
    '<script defer src="/app.bundle.0f.js"></script></head></html>'
)


@pytest.fixture
def dist(tmp_path):
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "index.html").write_text(START)
    (folder / "app-config.js").write_text("window.config = {theirs: true}")
    (folder / "app.bundle.0f.js").write_text('__webpack_require__.p = "/";\nlet n = "ü";')
    (folder / "app.css").write_text("@font-face {src: url(/a.woff2)}")
    (folder / "a.woff2").write_bytes(b"font")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


def test_without_the_built_page_it_says_how_to_build_it(workplace, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path)
    answer = TestClient(make_app(workplace), base_url=BASE).get("/")
    assert answer.status_code == 200
    assert "make viewer" in answer.text


def test_the_page_is_served_and_nothing_beside_it(workplace, monkeypatch, tmp_path) -> None:
    folder = tmp_path / "page"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<html>Spicula</html>")
    (folder / "assets" / "a.js").write_text("1")
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.setattr(page, "PAGE", folder)
    client = TestClient(make_app(workplace), base_url=BASE)
    assert client.get("/").text == "<html>Spicula</html>"
    assert client.get("/assets/a.js").headers["content-type"].startswith("text/javascript")
    for path in (
        "/../secret.txt",
        "/assets/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/assets/%2e%2e%2f%2e%2e%2fsecret.txt",
    ):
        answer = client.get(path)
        assert (answer.status_code, list(answer.json())) == (404, ["error"])


def test_ohif_is_moved_under_its_own_address(workplace, dist) -> None:
    client = TestClient(make_app(workplace, second_viewer=dist), base_url=BASE)
    start = client.get("/ohif/viewer", params={"StudyInstanceUIDs": "1.2"})
    assert 'src="/ohif/app.bundle.0f.js"' in start.text
    assert 'PUBLIC_URL="/ohif/"' in start.text
    assert "'unsafe-eval'" in start.headers["content-security-policy"]
    assert client.get("/ohif/app.bundle.0f.js").text == '__webpack_require__.p = "/ohif/";\nlet n = "ü";'
    assert client.get("/ohif/app.css").text == "@font-face {src: url(/ohif/a.woff2)}"
    assert client.get("/ohif/a.woff2").content == b"font"
    settings = client.get("/ohif/app-config.js").text
    assert '"wadoRoot": "/dicom-web"' in settings
    assert "theirs" not in settings
    assert client.get("/ohif", follow_redirects=False).headers["location"] == "/ohif/"
    assert client.get("/api/about").json()["second_viewer"] is True


@pytest.mark.parametrize("path", ["../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "assets/../../secret.txt"])
def test_ohif_serves_nothing_beside_its_folder(workplace, dist, path) -> None:
    client = TestClient(make_app(workplace, second_viewer=dist), base_url=BASE)
    assert "secret" not in client.get(f"/ohif/{path}").text


def test_a_folder_without_ohif_is_refused(workplace, tmp_path) -> None:
    with pytest.raises(InputError, match=r"no index\.html"):
        make_app(workplace, second_viewer=tmp_path)
