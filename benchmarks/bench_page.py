"""How fast a study opens in a real browser: ``benchmarks/results/page.json``.

python benchmarks/bench_page.py --scan CT [--pictures FOLDER]

Milliseconds from the click on a study until its first image, its whole stack and all planes are on the screen, with a
server that has not seen the study before; on a quiet machine, which browser and server share.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from bench_workstation import running
from spicula.pipelines.ingest import ingest
from spicula.pipelines.run_folder import write_json
from spicula.pipelines.worker import ask_analysis, work
from spicula.pipelines.workplace import open_workplace

RESULT = Path(__file__).parent / "results" / "page.json"
OPTIONS = (
    "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
)  # fmt: skip


def until(page: Page, told: str) -> None:
    """The page's content policy forbids the browser's own way of waiting."""
    for _ in range(1200):
        if page.evaluate(told):
            return
        page.wait_for_timeout(100)
    raise TimeoutError(told)


def opened(page: Page, url: str) -> dict[str, float]:
    page.goto(url)
    page.get_by_test_id("study-row").wait_for()
    page.wait_for_timeout(1000)
    page.evaluate("""() => document.addEventListener(
        'click', () => { window.clicked = performance.now() }, {capture: true, once: true})""")
    page.get_by_test_id("study-row").click()
    until(page, "() => window.spicula.ready.volume !== null")
    until(page, "() => window.spicula.images[0] === window.spicula.images[1]")
    ready = page.evaluate("() => ({...window.spicula.ready, clicked: window.clicked, all: performance.now()})")
    return {name: ready[name] - ready["clicked"] for name in ("first", "stack", "volume", "all")}


def pictured(page: Page, folder: Path) -> None:
    """Pictures for the docs: a study, read, on a desk and on a tablet."""
    page.get_by_test_id("finding-row").first.click()
    page.wait_for_timeout(1500)
    page.keyboard.press("c")
    page.keyboard.press("t")  # goes to the slice that the network looked at
    page.wait_for_timeout(1000)
    page.screenshot(path=str(folder / "reading-room-attention.png"))
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 820, "height": 1180})
    page.wait_for_timeout(2000)
    page.screenshot(path=str(folder / "reading-room-tablet.png"))
    page.set_viewport_size({"width": 1280, "height": 800})
    page.keyboard.press("g")
    page.get_by_test_id("study-row").wait_for()
    page.wait_for_timeout(500)
    page.screenshot(path=str(folder / "reading-room-studies.png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, required=True, help="DICOM folder of a CT")
    parser.add_argument("--pictures", type=Path, help="where pictures for the docs go; then nothing is timed")
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    times: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        store = Path(name) / "store"
        with open_workplace(store) as place:
            (study,) = ingest(given.scan, place.studies, origin="bench").studies
            slices = sum(int(one["instances"]) for one in place.studies.series(study))
            ask_analysis(place, study, by="bench")
            work(place, once=True)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(OPTIONS))
        for _ in range(1 if given.pictures else given.times):
            with running(store) as (_, port):
                time.sleep(3)
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                times.append(opened(page, f"http://127.0.0.1:{port}"))
                if given.pictures:
                    pictured(page, given.pictures)
                page.close()
        told: dict[str, Any] = {"browser": browser.version, "cores": os.cpu_count(), "slices": slices}
        browser.close()
    for key in ("first", "stack", "volume", "all"):
        values = [one[key] for one in times]
        told[f"{key}_ms"] = {"median": round(float(np.median(values))), "longest": round(max(values))}
    print(told)
    if not given.pictures:
        write_json(RESULT, told, finite=True)


if __name__ == "__main__":
    main()
