"""The whole way in a real browser: a real CT in, read, corrected, similar cases found, results in a real archive."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests

from spicula.dicom.web import DicomWeb
from spicula.web.page import PAGE

# fixtures of another folder: pytest finds them by these names, and so do the tests' arguments (F811)
from ..pipelines.conftest import lidc_0001  # noqa: F401
from ..pipelines.search_tiny import Tiny, tiny  # noqa: F401
from .test_server import free_port, wait_for

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'spicula[test]'")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = (
    "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
)  # fmt: skip
LONG = 120_000
"""Milliseconds that anything may take at all, on a busy machine."""

PICTURES = os.environ.get("SPICULA_PICTURES")
"""Where pictures of the page are kept, for the docs; nowhere if not set."""

NODULE = (56.7, 86.2, -115.3)
"""The nodule of LIDC-IDRI-0001, LPS mm."""


def lacking(what: str) -> None:
    if os.environ.get("SPICULA_NO_SKIP"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if BROWSER is None:
        lacking("no Chromium: .ci/system-packages brings it")
    if not (PAGE / "index.html").is_file():
        lacking("the page is not built: make viewer")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=list(OPTIONS))
        yield opened
        opened.close()


@contextmanager
def served(store: Path, *options: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "spicula.cli", "serve", "--store", str(store), "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/healthz", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def new_page(browser, url: str, foreign: list[str], troubles: list[str]):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(LONG)
    page.on("request", lambda one: None if one.url.startswith((url, "data:", "blob:")) else foreign.append(one.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
    return page


def until(page, told: str, given: object = None) -> None:
    """Wait until the page says so; its content policy forbids the browser's own way of waiting."""
    for _ in range(LONG // 200):
        if page.evaluate(told, given):
            return
        page.wait_for_timeout(200)
    raise AssertionError(f"never: {told}")


def picture(page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"))


def marker(page, number: int) -> np.ndarray:
    """Where the marker of a finding is in the axial view, in pixels of its overlay."""
    circle = page.locator(f'[data-testid=overlay-axial] [data-testid=finding-marker][data-number="{number}"]')
    return np.array([float(circle.get_attribute("cx")), float(circle.get_attribute("cy"))])


def seen_at(page, world: tuple[float, float, float]) -> np.ndarray:
    return np.array(page.evaluate("at => window.spicula.worldToCanvas('axial', at)", list(world)))


def pixels(page) -> np.ndarray:
    """What the axial view shows, gray."""
    import io

    from PIL import Image

    page.keyboard.press("o")  # findings out of sight
    data = page.get_by_test_id("viewport-axial").screenshot()
    page.keyboard.press("o")
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"), dtype=float)


@pytest.mark.shared
@pytest.mark.slow
def test_the_whole_way(browser, lidc_0001: Path, tiny: Tiny, new_orthanc, tmp_path) -> None:  # noqa: F811
    store, foreign, troubles = tmp_path / "store", [], []
    orthanc = new_orthanc()  # one of its own: others have the same study
    store.mkdir()
    (store / "archives.toml").write_text(f'[pacs]\nurl = "{orthanc.web}"\nsend = true\npull = true\n')
    options = ("--index", str(tiny.index), "--search-bundle", str(tiny.bundle))
    with served(store, *options) as url:
        page = new_page(browser, url, foreign, troubles)
        page.goto(url)
        page.get_by_test_id("disclaimer").wait_for()
        page.get_by_test_id("upload-folder").set_input_files(str(lidc_0001))
        row = page.get_by_test_id("study-row")
        row.wait_for()
        page.locator("[data-testid=analysis-state]", has_text="done").or_(
            page.locator("[data-testid=study-row]", has_text="4B")
        ).first.wait_for()
        picture(page, "studies")

        row.click()
        until(page, "() => window.spicula.ready.volume !== null")
        page.get_by_test_id("finding-row").first.wait_for()
        until(page, "() => window.spicula.images[0] === window.spicula.images[1]")
        findings = page.evaluate("window.spicula.findings")
        nodule = min(findings, key=lambda one: np.linalg.norm(np.subtract(one["center_xyz_mm"], NODULE)))
        page.get_by_test_id("finding-row").nth(nodule["number"] - 1).click()
        page.wait_for_timeout(500)
        picture(page, "reading")

        at = marker(page, nodule["number"])
        assert np.abs(at - seen_at(page, tuple(nodule["center_xyz_mm"]))).max() < 1
        shown = pixels(page)
        x, y = (int(value) for value in at)
        assert shown[y - 3 : y + 4, x - 3 : x + 4].mean() > 120  # tissue in a lung window, where the lung is dark
        left = seen_at(page, (nodule["center_xyz_mm"][0] + 10, *nodule["center_xyz_mm"][1:]))
        above = seen_at(page, (nodule["center_xyz_mm"][0], nodule["center_xyz_mm"][1] - 10, nodule["center_xyz_mm"][2]))
        assert left[0] > at[0]  # the patient's left is on the right
        assert above[1] < at[1]  # the front is above

        slices = page.evaluate("window.spicula.viewports.axial")
        page.get_by_test_id("viewport-axial").click(position={"x": 12, "y": 200})  # keys are the image's from here on
        page.keyboard.press("Home")
        seen = set()
        for _ in range(slices["of"] + 2):
            seen.add(page.get_by_test_id("slice-label").first.inner_text())
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Home")
        for _ in range(slices["of"] + 2):
            seen.add(page.get_by_test_id("slice-label").first.inner_text())
            page.keyboard.press("ArrowUp")
        assert len(seen) == slices["of"]

        page.get_by_test_id("finding-row").nth(nodule["number"] - 1).click()
        page.wait_for_timeout(500)
        page.keyboard.press("b")
        area = page.get_by_test_id("gestures-axial").bounding_box()
        x, y = marker(page, nodule["number"])
        page.mouse.move(area["x"] + x - 25, area["y"] + y - 25)
        page.mouse.down()
        page.mouse.move(area["x"] + x + 25, area["y"] + y + 25, steps=5)
        page.mouse.up()
        page.get_by_test_id("match-row").first.wait_for()
        assert page.get_by_test_id("match-row").count() == 10
        assert page.locator("[data-testid=match-row] img").count() == 10
        picture(page, "similar")

        page.keyboard.press("Escape")
        page.get_by_test_id("finding-row").first.wait_for() if page.get_by_test_id("finding-row").count() else None
        page.keyboard.press("a")
        until(page, "number => window.spicula.findings[number - 1].state === 'accepted'", nodule["number"])
        page.keyboard.press("d")
        page.get_by_test_id("edit-diameter").fill("27.5")
        page.get_by_test_id("edit-note").fill("measured by hand")
        page.get_by_test_id("edit-save").click()
        until(page, "number => window.spicula.findings[number - 1].diameter_mm === 27.5", nodule["number"])
        page.close()
    assert (foreign, troubles) == ([], [])

    with served(store, *options) as url:  # a restart later
        page = new_page(browser, url, foreign, troubles)
        page.goto(url)
        page.get_by_test_id("study-row").click()
        page.get_by_test_id("finding-row").first.wait_for()
        kept = page.evaluate("window.spicula.findings")[nodule["number"] - 1]
        assert (kept["state"], kept["diameter_mm"], kept["note"]) == ("accepted", 27.5, "measured by hand")
        page.get_by_test_id("exports-button").click()
        page.get_by_test_id("send").first.click()
        study = kept["study_uid"]
        sent = 0
        for _ in range(600):
            jobs = requests.get(f"{url}/api/jobs", timeout=10).json()
            sent = sum(one["kind"] == "send" and one["state"] == "done" for one in jobs)
            assert not any(one["state"] == "failed" for one in jobs), jobs
            if sent:
                break
            page.wait_for_timeout(500)
        assert sent == 1
        page.set_viewport_size({"width": 820, "height": 1180})
        until(page, "() => window.spicula.ready.volume !== null")
        page.wait_for_timeout(1000)
        picture(page, "tablet")
        page.close()
    with DicomWeb(orthanc.web) as archive:
        assert sorted(one.modality for one in archive.find_series(study)) == ["SEG", "SR"]
    assert (foreign, troubles) == ([], [])
