"""OHIF, as it is published, over our DICOMweb: it lists our SR and SEG and opens the SR on its image."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests

from .analyzed import Analyzed, analyzed, analyzed_once  # noqa: F401
from .test_walk import LONG, browser, lacking, new_page, picture, served  # noqa: F401

dicomweb_client = pytest.importorskip("dicomweb_client", reason="pip install 'spicula[test]'")

PAGES = sorted((Path(__file__).parents[2] / ".cache" / "ohif").glob("*/package/dist/index.html"))


def test_ohif_opens_the_report_on_its_image(browser, analyzed: Analyzed, tmp_path) -> None:  # noqa: F811
    if not PAGES:
        lacking("no OHIF: .ci/second-viewer brings it")
    foreign: list[str] = []
    troubles: list[str] = []
    with served(analyzed.folder, "--workers", "0", "--ohif", str(PAGES[-1].parent)) as url:
        exports = f"{url}/api/studies/{analyzed.study}/exports"
        first, *_ = requests.get(f"{exports}/report.json", timeout=60).json()["findings"]
        client = dicomweb_client.DICOMwebClient(f"{url}/dicom-web")
        for name in ("sr.dcm", "seg.dcm"):
            (tmp_path / name).write_bytes(requests.get(f"{exports}/{name}", timeout=60).content)
            client.store_instances([pydicom.dcmread(tmp_path / name)])
        page = new_page(browser, url, foreign, troubles)
        page.goto(f"{url}/ohif/viewer?StudyInstanceUIDs={analyzed.study}")
        page.get_by_text("Skip all").click()
        page.get_by_text("Confirm and hide").click()
        listed = page.locator("[data-cy=study-browser-thumbnail-no-image]")
        listed.filter(has_text="Spicula outlines").wait_for()
        listed.filter(has_text="Spicula findings").dblclick()
        drawn = page.locator("svg text", has_text="Long axis:").first
        drawn.wait_for(timeout=LONG)
        said = str(drawn.text_content())
        shown = [float(re.search(rf"{name}: ([\d.]+) mm", said)[1]) for name in ("Long axis", "Diameter")]
        picture(page, "ohif")
        page.close()
    assert np.allclose(shown, [first["long_axis_mm"], first["diameter_mm"]], atol=0.006)
    assert foreign == []
    assert troubles == []
