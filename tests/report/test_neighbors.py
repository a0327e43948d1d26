"""What past cases say of a finding: phrases, shared words, the record, and both in the report of a scan."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

import jsonschema
import pytest

from spicula.core.analysis import Analysis
from spicula.core.embedding import Facts, Match
from spicula.core.neighbors import UNLIKE, Neighborhood, Share, SharedTrait
from spicula.explain.neighbors import background_of, neighborhood
from spicula.report.html import render_html
from spicula.report.matches import sentences
from spicula.report.neighbors import (
    TOLD,
    facts_record,
    neighbors_record,
    outcome,
    percent,
    phrase,
    place_of,
    scan_of,
    shared_words,
)
from spicula.report.record import report_schema, to_record

from .test_html import Page

Make = Callable[..., Analysis]

NETWORK = "nodule-search@0123456789abcdef"


def match(pid: str, distance: float, **facts: str | float) -> Match:
    return Match(f"{pid}/1", distance, {"pid": pid, "nodule_id": "1", **facts})


MATCHES = tuple(
    match(f"P{number}", 0.1 + 0.05 * number, malignant=float(number < 6), diameter_mm=7.25 + number, type="lung",
          spiculation_present=1.0, texture_solid=float(number % 2), diagnosis="primary lung cancer" if number == 0 else
          "unknown", series_uid="1.2.3", x_mm=1.0, y_mm=-2.5, z_mm=3.0, readers=4.0, ward="north")
    for number in range(8)
)  # fmt: skip


@pytest.fixture
def found() -> Neighborhood:
    """Eight neighbors, as the search gives them, in an index where few are spiculated."""
    usual: list[Facts] = [{"spiculation_present": float(n < 2), "texture_solid": 0.5, "age": 60.0} for n in range(20)]
    background = background_of([0.01 * n for n in range(40)], usual)
    return neighborhood("1", MATCHES, background=background, fingerprint=NETWORK)


@pytest.fixture
def near(make_analysis: Make, found: Neighborhood) -> Make:
    """``near(**changes)`` is the full analysis whose first finding has neighbors, changed so."""

    def make(**changes: object) -> Analysis:
        return replace(make_analysis(), neighbors=(replace(found, **changes),))

    return make


def share(value: float, *, patients: int = 4, low: float = 0.0, high: float = 1.0) -> Share:
    return Share(value, (low, high), patients)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"matches": ()}, "No past case of another patient is at hand."),
        (
            {"malignant": share(0.75, patients=8, low=0.408, high=0.944)},
            "Of 8 similar past nodules of 8 patients, 75 % (41 to 94 %) were malignant.",
        ),
        (
            {"matches": MATCHES[:1], "malignant": share(1.0, patients=1, low=0.147)},
            "Of 1 similar past nodule of 1 patient, 100 % (15 to 100 %) were malignant.",
        ),
        ({"malignant": None}, "Of 8 similar past nodules, no outcome is known."),
        (
            {"matches": (), "where": "malignant = 1"},
            "No past case of another patient was found that meets the condition malignant = 1.",
        ),
        (
            {"matches": (), "malignant": None, "farther_than": 1.0},
            "No past case of another patient is at hand. And this finding is unlike anything in the index.",
        ),
        (
            {"malignant": None, "where": "age > 3", "farther_than": UNLIKE},
            "Of 8 similar past nodules, no outcome is known. Only cases that meet the condition age > 3 were looked "
            "at. But this finding is unlike anything in the index: they say little of it.",
        ),
        (
            {"matches": (match("Q", 0.1, malignant="yes"), match("R", 0.1, malignant=3.0)), "malignant": None},
            "Of 2 similar past nodules, no outcome is known. The outcome of 2 of them does not count: it is no number "
            "from 0 to 1 (Q/1, R/1).",
        ),
        (
            {"matches": tuple(match(pid, 0.1, malignant=2.0) for pid in "QRST"), "malignant": None},
            "Of 4 similar past nodules, no outcome is known. The outcome of 4 of them does not count: it is no number "
            "from 0 to 1 (Q/1, R/1, S/1 ...).",
        ),
        (
            {"malignant": None, "farther_than": UNLIKE},
            "Of 8 similar past nodules, no outcome is known. But this finding is unlike anything in the index: they "
            "say little of it.",
        ),
    ],
)
def test_the_phrase(found: Neighborhood, changes: dict[str, object], said: str) -> None:
    assert phrase(replace(found, **changes)) == said


def test_the_phrase_of_what_the_search_gives(found: Neighborhood) -> None:
    assert phrase(found) == "Of 8 similar past nodules of 8 patients, 75 % (41 to 94 %) were malignant."
    assert not found.is_unlike_all
    assert "unlike" not in phrase(replace(found, farther_than=UNLIKE - 0.01))
    assert "unlike" not in phrase(replace(found, farther_than=None))


def test_shared_words_are_those_beyond_chance_in_either_direction(found: Neighborhood) -> None:
    assert shared_words(found) == ("spiculated (100 %; in the index 10 %)",)
    traits = (
        SharedTrait("calcification_present", share(0.1, low=0.02, high=0.3), 0.6),
        SharedTrait("margin_sharp", share(0.8, low=0.5, high=0.95), 0.7),
        SharedTrait("rating_of_a_ward", share(1.0, low=0.7), 0.1),
        SharedTrait("texture_solid", share(0.9, low=0.71, high=0.98), 0.7),
    )
    assert shared_words(replace(found, traits=traits)) == (
        "not calcified (90 %; in the index 40 %)",
        "solid (90 %; in the index 70 %)",
    )
    assert sentences(replace(found, traits=traits))[1] == (
        "They have in common: not calcified (90 %; in the index 40 %), solid (90 %; in the index 70 %)."
    )
    assert len(sentences(replace(found, traits=()))) == 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.0, "malignant"),
        (0.5, "malignant"),
        (0.49, "benign"),
        (0.0, "benign"),
        ("yes", ""),
        (None, ""),
        (3.0, ""),
        (-1.0, ""),
        (float("nan"), ""),
    ],
)
def test_an_outcome_in_a_word(value: str | float | None, said: str) -> None:
    facts = {} if value is None else {"malignant": value}
    assert outcome(match("a", 0.1, **facts)) == said


def test_where_a_match_can_be_seen_and_all_that_is_known_of_it() -> None:
    one = match("a", 0.1, x_mm=1.0, y_mm=-2.55, z_mm=3.0, series_uid="1.2", ward="n\x00orth", age=float("nan"))
    assert (scan_of(one), place_of(one)) == ("series 1.2", "1.0, -2.5, 3.0")
    assert facts_record(one) == {
        "pid": "a", "nodule_id": "1", "x_mm": 1.0, "y_mm": -2.55, "z_mm": 3.0, "series_uid": "1.2", "ward": "n orth",
        "age": None,
    }  # fmt: skip
    assert scan_of(match("a", 0.1, series_uid="1.2", image_path="/x/y.nii.gz")) == "/x/y.nii.gz"
    assert (scan_of(match("a", 0.1)), place_of(match("a", 0.1, x_mm=1.0, y_mm="left", z_mm=3.0))) == ("", "")


def test_a_share_with_its_interval() -> None:
    assert percent(Share(0.0, (0.0, 0.3085), 7)) == "0 % (0 to 31 %)"


def test_the_record_is_plain_and_holds_what_is_passed_on(found: Neighborhood) -> None:
    record = neighbors_record(found)
    assert record == json.loads(json.dumps(record, allow_nan=False))
    assert (record["fingerprint"], record["phrase"], record["unlike_all"]) == (NETWORK, phrase(found), False)
    assert record["malignant"] == {"share": 0.75, "interval": [0.4084, 0.944], "patients": 8}
    assert record["farther_than"] == found.farther_than == 0.25
    spiculated, solid = record["traits"]
    assert (spiculated["trait"], spiculated["share"], spiculated["everywhere"]) == ("spiculation_present", 1.0, 0.1)
    assert (spiculated["shared"], solid["shared"]) == (True, False)
    first = record["matches"][0]
    assert first == {
        "distance": 0.1, "pid": "P0", "nodule_id": "1", "type": "lung", "diameter_mm": 7.25, "malignant": 1.0,
        "diagnosis": "primary lung cancer", "series_uid": "1.2.3", "x_mm": 1.0, "y_mm": -2.5, "z_mm": 3.0,
    }  # fmt: skip
    assert set(first) - {"distance"} <= set(TOLD)
    assert len(record["matches"]) == 8


def test_the_record_has_no_nan_and_no_broken_text(found: Neighborhood) -> None:
    nan = float("nan")
    odd = replace(
        found,
        matches=(match("a\x00\x1b[31m\udcff", nan, diameter_mm=nan, diagnosis="b\x07", x_mm=float("inf")),),
        malignant=Share(nan, (nan, 1.0), 1),
        farther_than=nan,
        traits=(SharedTrait("texture_solid", Share(nan, (0.0, nan), 1), nan),),
    )
    record = neighbors_record(odd)
    json.dumps(record, allow_nan=False).encode("utf-8")
    (only,) = record["matches"]
    assert (only["pid"], only["diagnosis"]) == ("a  [31m?", "b")
    assert (only["distance"], only["diameter_mm"], only["x_mm"]) == (None, None, None)
    assert record["malignant"]["interval"] == [None, 1.0]


def check(record: object) -> None:
    validator = jsonschema.Draft202012Validator(report_schema(), format_checker=jsonschema.FormatChecker())
    validator.validate(record)


def test_neighbors_are_in_the_record_of_a_scan_and_keep_to_its_schema(near: Make) -> None:
    nan = float("nan")
    record = to_record(near())
    check(record)
    first, second = record["findings"]
    assert "neighbors" not in second
    assert first["neighbors"]["matches"][0]["pid"] == "P0"
    odd = [
        {"matches": ()},
        {"malignant": None},
        {"farther_than": 1.0, "traits": ()},
        {"malignant": Share(nan, (nan, nan), 1), "farther_than": nan},
        {"matches": (match("a", nan, malignant="yes", diameter_mm="6 mm", type=1.0, study_date=2020.0),)},
        {"matches": (match("a", 2.0000001, diagnosis_by="biopsy", image_path="/x/y.nii.gz"),)},
    ]
    for changes in odd:
        check(json.loads(json.dumps(to_record(near(**changes)), allow_nan=False)))
    broken = json.loads(json.dumps(record))
    broken["findings"][0]["neighbors"]["matches"][0]["pixels"] = "none of ours"
    with pytest.raises(jsonschema.ValidationError, match="pixels"):
        check(broken)


def test_the_report_shows_the_past_cases(near: Make) -> None:
    page = Page(render_html(near()))
    assert page.open == []
    for words in (
        "Similar past cases",
        "Of 8 similar past nodules of 8 patients, 75 % (41 to 94 %) were malignant.",
        "They have in common: spiculated (100 %; in the index 10 %).",
        "P0",
        "7.2",
        "malignant",
        "benign",
        "primary lung cancer",
        "0.100",
    ):
        assert words in page.text, words
    assert "north" not in page.text


def test_the_report_without_neighbors_has_no_trace_of_them(make_analysis: Make, near: Make) -> None:
    assert "Similar past cases" not in Page(render_html(make_analysis())).text
    nobody = Page(render_html(near(matches=(), malignant=None, farther_than=None, traits=()))).text
    assert "No past case of another patient is at hand." in nobody
    assert "were malignant" not in nobody


def test_the_report_warns_where_a_finding_is_unlike_all(near: Make) -> None:
    text = render_html(near(farther_than=1.0))
    assert "unlike anything in the index" in Page(text).text
    assert re.search(r'<p class="differs">Of 8 similar', text)
    assert not re.search(r'<p class="differs">Of 8 similar', render_html(near()))


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a\x00\x1b\udcffb"])
def test_text_of_an_index_is_escaped_in_the_report(near: Make, evil: str) -> None:
    hostile = (match(evil, 0.1, diagnosis=evil, diameter_mm=evil, malignant=evil),)
    hostile = (replace(hostile[0], facts={**hostile[0].facts, "nodule_id": evil}),)
    text = render_html(near(matches=hostile, fingerprint=evil))
    page = Page(text)
    assert page.open == []
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    text.encode("utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    if evil.isprintable():
        assert evil in page.text
