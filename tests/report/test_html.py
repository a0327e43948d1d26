"""The HTML report: self-contained, safe, complete, and honest about what it was not given."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from spicula.core.analysis import Analysis, Assessment
from spicula.core.prediction import Prediction
from spicula.report.html import TRAIT_WORDS, render_html, write_html

Make = Callable[..., Analysis]


class Page(HTMLParser):
    """Collects tags and attributes, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(word for word in self.words if word)


def test_nothing_is_fetched_and_nothing_runs(make_analysis: Make) -> None:
    text = render_html(make_analysis())
    page = Page(text)
    assert page.open == []
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert (value or "").startswith(("data:image/png;base64,", "#")), (tag, name)
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"https?://", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    "evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}{% raw %}", "a\x00\x1b\udcffb"]
)
def test_text_of_the_scan_is_escaped(make_analysis: Make, evil: str) -> None:
    analysis = make_analysis(series_description=evil, manufacturer=evil, kernel=evil, patient_id=evil, study_date=evil)
    finding = replace(analysis.findings[0], id=evil)
    predictions = tuple(replace(p, finding_id=evil) for p in analysis.predictions)
    assessment = Assessment(f"Lung-RADS {evil}", evil, evil, (evil,), (evil,))
    analysis = replace(
        analysis,
        volume=replace(analysis.volume, series_uid=evil),
        findings=(finding,),
        predictions=predictions,
        assessments={evil: (assessment,)},
        fingerprints=(evil,),
        warnings=(evil,),
    )
    text = render_html(analysis)
    page = Page(text)
    assert page.open == []
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    text.encode("utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    if evil.isprintable():
        assert evil in page.text  # shown as it is


def test_what_the_page_says(make_analysis: Make) -> None:
    text = render_html(make_analysis())
    said = Page(text).text
    for words in (
        "2 possible nodules", "Research software, not a medical device.", "Not for diagnosis, treatment or triage",
        "Slices are 3 mm apart.", "P-1", "2020-01-02", "70 × 60 × 30", "1.25 × 1 × 3 mm",
        "14.0 mm", "16.0 × 12.0 mm", "2 145 mm³", "100 HU", "90 %", "80 to 96 %", "Lung-RADS 4A",
        "3-month LDCT", "Not known prior scan", "Rests on solid; mean diameter 14.0 mm",
        "12.0, −30.0, −105.0", "16 of 30", "nodule-risk@0123456789abcdef",
        "No prediction was made for this finding.",
    ):  # fmt: skip
        assert words in said, words
    bold = {
        word for against, favor in TRAIT_WORDS.values() for word in (against, favor) if f'class="yes">{word}<' in text
    }
    assert {"spiculated", "solid", "round"} <= bold
    assert "calcified" not in bold


def test_pictures_for_each_finding(make_analysis: Make) -> None:
    page = Page(render_html(make_analysis()))
    images = [a for tag, a in page.tags if tag == "image"]
    assert len(images) == 2 * 4
    assert all((a["href"] or "").startswith("data:image/png;base64,iVBOR") for a in images)
    outlines = [a for tag, a in page.tags if tag == "path" and a.get("class") == "outline"]
    assert len(outlines) == 3  # one on each plane of the outlined finding
    assert len([1 for tag, a in page.tags if tag == "line" and a.get("class") == "caliper"]) == 2


def test_optional_facts_may_be_absent(make_analysis: Make, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_html(path, make_analysis(full=False))
    page = Page(path.read_text(encoding="utf-8"))
    assert "1 possible nodule " in page.text
    assert not re.search(r"\b(nan|inf)\b", page.text)
    assert "None" not in page.text


def test_numbers_that_are_none_do_not_show(make_analysis: Make) -> None:
    analysis = make_analysis()
    nan = float("nan")
    finding = replace(analysis.findings[0], size=replace(analysis.findings[0].size, mean_hu=nan), score=nan)
    predictions = (
        Prediction("1", "malignancy", nan, None, "x"),
        Prediction("1", "texture_solid", 0.7, (nan, 1.0), "x"),
    )
    said = Page(render_html(replace(analysis, findings=(finding,), predictions=predictions))).text
    assert not re.search(r"\b(nan|inf)\b", said)
    assert "Mean density" not in said


def test_no_findings(make_analysis: Make) -> None:
    said = Page(render_html(replace(make_analysis(), findings=()))).text
    assert "No nodule found in the lungs" in said
    assert "This does not mean that there is none" in said
    assert "not a medical device" in said


def test_the_mean_diameter_is_written_as_lung_rads_counts(make_analysis: Make) -> None:
    analysis = make_analysis()
    finding = analysis.findings[0]
    size = replace(finding.size, long_axis_mm=33.26, short_axis_mm=25.44)  # 33.3 and 25.4: 29.35, and up
    said = Page(render_html(replace(analysis, findings=(replace(finding, size=size),)))).text
    assert "Mean diameter 29.4 mm" in said
    assert "33.3 × 25.4 mm" in said


def test_words_stand_beside_traits_and_say_where_they_disagree(worded: Make) -> None:
    text = render_html(worded())
    page = Page(text)
    said = page.text
    assert page.open == []
    for words in (
        "Trait and words disagree: not spiculated 0.90 by words, spiculated by the trait.",
        "Consistency: solid 0.70, part-solid 0.25, pure ground glass 0.05",
        "Cyst-like spaces: 0.03",
        "Looked at most: axial (40 % of its attention)",
        "Words asked for",
        "part-solid pure ground glass, solid 0.25 0.20 solid 0.82 (0.70 to 0.90)",
        "spiculatd its absence 0.60 −0.30 – not among the words it learned; was “spiculated” meant?",
        "at 0.75 (0.25) or beyond",
        "not calibrated",
    ):
        assert words in said, words
    assert text.count('class="differs"') == 1
    assert len([1 for tag, _ in page.tags if tag == "u"]) == 2 + 2, "a ring for each trait with words and each word"


def test_without_words_the_page_has_no_trace_of_them(make_analysis: Make) -> None:
    text = render_html(make_analysis())
    said = Page(text).text
    assert "zero-shot" not in said
    assert "Words asked for" not in said
    assert 'class="trait worded' not in text
    assert "<u " not in text


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a\x00\x1b\udcffb"])
def test_words_of_a_user_are_escaped(worded: Make, evil: str) -> None:
    text = render_html(worded(asked=evil))
    page = Page(text)
    assert page.open == []
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    text.encode("utf-8")


def test_where_a_network_looks_is_shown_and_told(looked: Make) -> None:
    text = render_html(looked())
    page = Page(text)
    assert page.open == []
    for words in (
        "Where a network without labels looks",
        "Attention on the nodule 45 %",
        "Its share of the area 8.2 % so it draws 5.5 times what an even look would give",
        "It does not explain the risk",
        "Slices looked at 5",
        "A tile that the outline covers in part counts by that part",
    ):
        assert words in page.text, words
    tiles = [a for tag, a in page.tags if tag == "rect" and a.get("class") == "heat"]
    assert len(tiles) == 25
    assert [tile["fill-opacity"] for tile in tiles].count("0.62") == 1
    strongest = next(tile for tile in tiles if tile["fill-opacity"] == "0.62")
    assert (strongest["x"], strongest["y"], strongest["width"]) == ("19.6", "19.6", "9.8")
    assert len([1 for tag, a in page.tags if tag == "path" and a.get("class") == "outline"]) == 4


def test_a_look_without_an_outline_says_so(looked: Make) -> None:
    analysis = looked(slices=1)
    analysis = replace(analysis, findings=(replace(analysis.findings[0], mask=None),))
    said = Page(render_html(analysis)).text
    assert "There is no outline: a ball of 5 mm stands for the nodule." in said
    assert "Slices looked at 1" in said


def test_a_look_that_is_no_number_does_not_show(looked: Make) -> None:
    nan = float("nan")
    assert "without labels looks" not in Page(render_html(looked(share_of_attention=nan))).text
    said = Page(render_html(looked(share_of_area=0.0, share_of_attention=0.0))).text
    assert "Its share of the area 0 % Slices" in said
    assert not re.search(
        r"\b(nan|inf)\b", Page(render_html(looked(attention=looked().slice_readings[0].attention * nan))).text
    )
    assert "without labels looks" not in Page(render_html(replace(looked(), slice_readings=()))).text
