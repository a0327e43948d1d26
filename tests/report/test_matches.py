"""What a search found: the record, the table for the terminal, and the page."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from spicula.core.embedding import Match
from spicula.core.finding import Finding
from spicula.core.geometry import Geometry
from spicula.core.neighbors import Neighborhood, Share, SharedTrait
from spicula.core.volume import Volume
from spicula.pipelines.search import Answer, Query
from spicula.pipelines.search_job import Told
from spicula.report.matches import SCHEMA, cells, matches_record, matches_table, write_matches_page
from spicula.report.pictures import Picture, plane_pictures
from spicula.report.text import DISCLAIMER

from .test_html import Page

EVIL = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}{% raw %}", "a\x00\x1b[31m\udcffb"]


def match(pid: str, distance: float, **facts: str | float) -> Match:
    return Match(f"{pid}/1", distance, {"pid": pid, "nodule_id": "1", **facts})


def told(
    *matches: Match, pid: str = "007", nodule_id: str = "01", pictures: tuple[Picture | None, ...] = (),
    picture: Picture | None = None, **evidence: object,
) -> Told:  # fmt: skip
    query = Query(pid, nodule_id, np.array([1.0, 0.0], np.float32))
    said = Neighborhood(nodule_id, "net@0", matches, **evidence)
    return Told(Answer(query, matches), said, picture, pictures)


MATCHES = (
    match("A", 0.12346, malignant=1.0, diameter_mm=12.04, diagnosis="primary lung cancer", ward="north"),
    match("B", 0.5, malignant=0.0, diameter_mm=6.0),
    match("C", 1.25),
)
FULL = told(
    *MATCHES,
    malignant=Share(0.5, (0.1, 0.9), 2),
    farther_than=0.4,
    traits=(SharedTrait("spiculation_present", Share(0.9, (0.7, 0.98), 5), 0.2),),
)


@pytest.fixture(scope="module")
def picture() -> Picture:
    array = np.full((5, 40, 40), -850, np.int16)
    array[:, 18:22, 18:22] = 40
    volume = Volume(array, Geometry.from_axes(array.shape, (2.0, 1.0, 1.0), origin_xyz_mm=(-19.5, -19.5, -4.0)))
    return plane_pictures(volume, Finding("", (0.0, 0.0, 0.0), 4.0))[0]


def shown(one: Told, *, width: int = 100) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False, color_system=None).print(matches_table(one))
    return stream.getvalue()


class MatchesPage(Page):
    """With images of HTML, which have no end tag."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.handle_startendtag(tag, attrs)
        else:
            super().handle_starttag(tag, attrs)


def page_of(path: Path, *answers: Told, index: str = "cases") -> tuple[str, Page]:
    write_matches_page(path, answers, index=index)
    text = path.read_text(encoding="utf-8")
    return text, MatchesPage(text)


def test_the_record_holds_every_query_in_order() -> None:
    record = matches_record([FULL, told(pid="", nodule_id="1.0,2.0,3.0")], index="postgresql://x/y#z")
    assert record == json.loads(json.dumps(record, allow_nan=False))
    assert (record["schema"], record["program"], record["index"]) == (SCHEMA, "spicula", "postgresql://x/y#z")
    assert record["disclaimer"] == DISCLAIMER
    first, second = record["queries"]
    assert (first["pid"], first["nodule_id"]) == ("007", "01")
    assert [(one["rank"], one["pid"], one["distance"]) for one in first["matches"]] == [
        (1, "A", 0.1235), (2, "B", 0.5), (3, "C", 1.25),
    ]  # fmt: skip
    assert first["matches"][0]["diagnosis"] == "primary lung cancer"
    assert first["matches"][0]["facts"] == {
        "pid": "A", "nodule_id": "1", "malignant": 1.0, "diameter_mm": 12.04, "diagnosis": "primary lung cancer",
        "ward": "north",
    }  # fmt: skip
    assert "ward" not in first["matches"][0]
    assert first["evidence"]["malignant"] == {"share": 0.5, "interval": [0.1, 0.9], "patients": 2}
    assert first["evidence"]["matches"] == [
        {k: v for k, v in one.items() if k not in ("rank", "facts")} for one in first["matches"]
    ]
    assert (second["pid"], second["matches"]) == ("", [])
    assert second["evidence"]["phrase"] == "No past case of another patient is at hand."


def test_columns_of_an_index_do_not_take_the_place_of_rank_and_distance() -> None:
    odd = told(Match("A/1", 0.25, {"pid": "A", "nodule_id": "1", "rank": 7.0, "distance": 9.0}))
    (found,) = matches_record([odd], index="x")["queries"][0]["matches"]
    assert (found["rank"], found["distance"]) == (1, 0.25)
    assert (found["facts"]["rank"], found["facts"]["distance"]) == (7.0, 9.0)


def test_warnings_and_the_condition_are_in_the_record_and_on_the_page(tmp_path: Path) -> None:
    one = replace(FULL, evidence=replace(FULL.evidence, where="ward = '<b>'"))
    record = matches_record([one], index="x", warnings=["two slices are\x00 <missing>"])
    assert record["warnings"] == ["two slices are  <missing>"]
    assert record["queries"][0]["evidence"]["where"] == "ward = '<b>'"
    assert matches_record([FULL], index="x")["warnings"] == []
    write_matches_page(tmp_path / "page.html", [one], index="x", warnings=["two slices are <missing>"])
    page = MatchesPage((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "two slices are <missing>" in page.text
    assert "Only cases that meet the condition ward = '<b>' were looked at." in page.text


SEEN = match("A", 0.1, x_mm=1.0, y_mm=-2.0, z_mm=3.5, image_path="/scans/a.nii.gz")


def test_it_is_told_where_a_match_can_be_seen(tmp_path: Path) -> None:
    other = match("B", 0.2, x_mm=4.0, y_mm=5.0, z_mm=6.0, series_uid="1.2.3")
    text = shown(told(SEEN, other), width=140)
    for words in ("x, y, z (mm LPS)", "1.0, -2.0, 3.5", "/scans/a.nii.gz", "4.0, 5.0, 6.0", "series 1.2.3"):
        assert words in text, words
    _, page = page_of(tmp_path / "page.html", told(SEEN, other))
    for words in ("at 1.0, -2.0, 3.5 mm LPS", "/scans/a.nii.gz", "series 1.2.3"):
        assert words in page.text, words
    assert "LPS" not in shown(FULL)
    assert "LPS" not in page_of(tmp_path / "page.html", FULL)[1].text


def test_a_long_path_is_folded_and_not_cut(tmp_path: Path) -> None:
    path = "/" + "/".join(f"folder-{number}" for number in range(30)) + "/a.nii.gz"
    text = shown(told(match("A", 0.1, image_path=path)), width=120)
    folded = "".join(line.split("│")[-2].strip() for line in text.splitlines() if line.count("│") > 2)
    assert folded.endswith(path)


def test_the_record_has_no_nan_and_no_broken_text() -> None:
    nan, evil = float("nan"), EVIL[-1]
    odd = told(
        match(evil, nan, malignant=nan, diameter_mm=nan, diagnosis=evil), pid=evil, nodule_id=evil, farther_than=nan,
        malignant=Share(nan, (nan, nan), 1),
    )  # fmt: skip
    text = json.dumps(matches_record([odd], index=evil), allow_nan=False, ensure_ascii=False)
    text.encode("utf-8")
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", json.loads(text)["queries"][0]["pid"])
    assert "\\u0000" not in text
    assert "\\u001b" not in text


def test_what_is_shown_of_a_match() -> None:
    assert cells(MATCHES[0]) == {
        "distance": "0.123", "pid": "A", "nodule": "1", "size": "12.0", "outcome": "malignant",
        "diagnosis": "primary lung cancer", "place": "", "scan": "", "whole_scan": "",
    }  # fmt: skip
    assert cells(MATCHES[2]) == {
        "distance": "1.250", "pid": "C", "nodule": "1", "size": "", "outcome": "", "diagnosis": "", "place": "",
        "scan": "", "whole_scan": "",
    }  # fmt: skip
    assert cells(match("D", 0.1, malignant=3.0))["outcome"] == ""
    assert cells(match("D", 0.1, diameter_mm="6 mm", malignant="yes", diagnosis=3.0))["size"] == ""


def test_the_table_for_the_terminal() -> None:
    text = shown(FULL)
    title, *lines = text.splitlines()
    assert title.strip() == "01 of 007"
    for number, words in enumerate((("0.123", "A", "12.0", "malignant", "primary lung cancer"), ("0.500", "benign"))):
        row = next(line for line in lines if line.startswith(f"│{number + 1:5} "))
        assert all(word in row for word in words)
    said = " ".join(text.split())
    assert "Of 3 similar past nodules of 2 patients, 50 % (10 to 90 %) were malignant." in said
    assert "They have in common: spiculated (90 %; in the index 20 %)." in said
    assert shown(told(*MATCHES, pid="")).splitlines()[0].strip() == "01"


def test_text_of_an_index_does_not_steer_the_terminal() -> None:
    marked = "[bold]x[/bold][/] \\"
    text = shown(told(match(marked, 0.1, diagnosis=marked), pid=marked, nodule_id=marked), width=160)
    assert text.count("[bold]x[/bold][/]") == 4
    evil = EVIL[-1]
    text = shown(told(match(evil, 0.1, diagnosis=evil), pid=evil, nodule_id=evil), width=160)
    text.encode("utf-8")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_the_page_says_all_and_fetches_nothing(tmp_path: Path, picture: Picture) -> None:
    one = replace(FULL, picture=picture, pictures=(picture, None, picture))
    text, page = page_of(tmp_path / "page.html", one, told(pid="", nodule_id="slice 3", malignant=None))
    assert page.open == []
    for words in (
        "Similar past cases", "01", "Patient 007", "1. A, nodule 1", "malignant", "12.0 mm, distance 0.123",
        "primary lung cancer", "2. B, nodule 1", "benign", "3. C, nodule 1", "distance 1.250",
        "Of 3 similar past nodules of 2 patients, 50 % (10 to 90 %) were malignant.", "spiculated (90 %",
        "slice 3", "No past case of another patient is at hand.", "Index: cases.", DISCLAIMER,
    ):  # fmt: skip
        assert words in page.text, words
    assert page.text.count("no picture: its scan is not at hand") == 1
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 3
    assert all((image["src"] or "").startswith("data:image/png;base64,iVBOR") for image in images)
    assert all(image["alt"] for image in images)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
    assert not re.search(r"https?://|url\(|@import", text)
    assert "default-src 'none'" in text


def test_a_page_without_pictures_has_no_frames_for_them(tmp_path: Path) -> None:
    for pictures in ((), (None, None, None)):
        _, page = page_of(tmp_path / "page.html", replace(FULL, pictures=pictures))
        assert "img" not in {tag for tag, _ in page.tags}
        assert "no picture" not in page.text
        assert "3. C, nodule 1" in page.text


def test_the_page_warns_where_a_query_is_unlike_all(tmp_path: Path) -> None:
    for farther, count in ((1.0, 1), (0.5, 0), (None, 0)):
        text, page = page_of(tmp_path / "page.html", told(*MATCHES, farther_than=farther))
        assert text.count('class="notice"') == count
        assert ("unlike anything in the index" in page.text) == bool(count)


@pytest.mark.parametrize("evil", EVIL)
def test_hostile_text_is_escaped_on_the_page(tmp_path: Path, picture: Picture, evil: str) -> None:
    hostile = Match("x", 0.1, {"pid": evil, "nodule_id": evil, "diagnosis": evil, "malignant": evil, "type": evil})
    text, page = page_of(
        tmp_path / "page.html",
        told(hostile, pid=evil, nodule_id=evil, picture=picture, pictures=(picture,)),
        index=evil,
    )
    assert page.open == []
    assert "script" not in {tag for tag, _ in page.tags}
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 2
    assert all(set(image) == {"src", "alt"} for image in images)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    assert "49" not in page.text.split("Index: ")[1].split(".")[0]
    if evil.isprintable():
        assert page.text.count(evil) == 6, "patient and name of query and match, diagnosis, index"


def test_a_failed_write_leaves_the_older_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    write_matches_page(path, [FULL], index="cases")
    before = path.read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_matches_page(path, [told(*MATCHES)], index="others")
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_a_long_series_is_shown_by_its_end_and_kept_whole() -> None:
    uid = "1.3.6.1.4.1.14519.5.2.1.6279.6001.511347030803753100045216493273"
    shown = cells(match("a", 0.1, series_uid=uid))
    assert (shown["scan"], shown["whole_scan"]) == ("series ...216493273", f"series {uid}")
