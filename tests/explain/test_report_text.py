"""Reports from templates: all that was read is said, nothing else; absence in the findings alone; a seed, a text."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.core.prediction import TRAITS
from spicula.core.semantics import FEATURES, PRESENCE, SemanticFeatures
from spicula.explain import phrases
from spicula.explain.report_text import (
    ReportText,
    cut_at_sentence,
    plain_text,
    training_text,
    vary_report,
    write_report,
)

NEGATION = re.compile(r"\b(no|not|without|absent|evidence)\b", re.IGNORECASE)


def values(name: str) -> st.SearchStrategy[object]:
    feature = FEATURES[name]
    if feature.kind == "several":
        return st.dictionaries(st.sampled_from(feature.classes), st.booleans())
    if feature.kind == "length":
        return st.none() | st.floats(0.5, 90)
    return st.none() | (st.booleans() if feature.classes == PRESENCE else st.sampled_from(feature.classes))


RECORDS = st.fixed_dictionaries({name: values(name) for name in FEATURES}).map(lambda f: SemanticFeatures(**f))
SEEDS = st.integers(0, 2**32)

WHOLE = SemanticFeatures(
    longest_diameter_mm=12.5,
    short_diameter_mm=8.0,
    margins={word: word in ("Lobulated", "Spiculated") for word in FEATURES["margins"].classes},
    consistency="Part-solid",
    shape="Irregular",
    conspicuity="Poorly marginated",
    suspicion="Moderately High",
    **{name: number % 2 == 0 for number, name in enumerate(n for n, f in FEATURES.items() if f.kind == "presence")},
)


def says(text: str, nouns: tuple[str, ...]) -> bool:
    return any(noun.lower() in text.lower() for noun in nouns)


@given(RECORDS, SEEDS)
def test_the_findings_say_all_that_was_read_and_nothing_that_was_not(features, seed):
    findings = write_report(features, seed=seed).findings
    for name, thing in phrases.THINGS.items():
        if name not in FEATURES:
            continue
        value = getattr(features, name)
        lines = [line for line in findings.splitlines() if says(line, thing.nouns)]
        if name == "necrosis" or value is not None:
            assert bool(lines) == (value is not None)
        if value is not None:
            assert bool(NEGATION.search(lines[0])) is (not value)
    for name in ("consistency", "shape", "conspicuity"):
        spoken = getattr(features, name)
        if spoken:
            assert spoken.lower() in findings.lower()
    for word in FEATURES["margins"].classes:
        assert bool(re.search(rf"\b{word}\b", findings, re.IGNORECASE)) == (word in features.margin_words)
    for word, noun in (("Lobulated", "lobulation"), ("Spiculated", "spiculation")):
        assert (noun in findings.lower()) == (features.margins.get(word) is False)
    assert "suspicion" not in findings


@given(RECORDS, SEEDS)
def test_the_impression_says_what_is_present_then_the_suspicion(features, seed):
    impression = write_report(features, seed=seed).impression
    assert not NEGATION.search(impression)
    for name, thing in phrases.THINGS.items():
        if name in FEATURES and getattr(features, name):
            assert says(impression, thing.nouns)
    for word in features.margin_words:
        assert phrases.ADJECTIVES["margins"][word][0] in impression.lower()
    sentences = re.split(r"(?<=\D\.) ", impression)
    assert len(sentences) == (2 if features.suspicion else 1)
    if features.suspicion:
        assert features.suspicion.lower() in sentences[1].lower()
        assert "suspicion" not in sentences[0]


@given(RECORDS, SEEDS, st.booleans())
def test_a_report_follows_from_its_record_and_seed(features, seed, augment):
    assert write_report(features, seed=seed, augment=augment) == write_report(features, seed=seed, augment=augment)


def test_every_nodule_has_the_text_of_its_own_record():
    small, large = SemanticFeatures(consistency="Solid"), SemanticFeatures(consistency="Pure ground glass")
    for seed in range(20):
        assert "solid" in str(write_report(small, seed=seed))
        assert "solid" not in str(write_report(large, seed=seed))


def test_truth_values_of_numpy_are_truth_values():
    ours = SemanticFeatures(margins={"Lobulated": False, "Spiculated": True}, necrosis=False, cavitation=True)
    theirs = SemanticFeatures(
        margins={"Lobulated": np.False_, "Spiculated": np.True_}, necrosis=np.False_, cavitation=np.True_
    )
    for seed in range(10):
        assert write_report(ours, seed=seed) == write_report(theirs, seed=seed)
    assert theirs.words("necrosis") == ("Absent",)


def test_order_and_phrasing_follow_from_the_seed():
    reports = [write_report(WHOLE, seed=seed) for seed in range(60)]
    assert len({report.findings for report in reports}) == 60
    assert len({report.impression for report in reports}) > 50
    first = {re.sub(r"\W", " ", report.findings.splitlines()[0]) for report in reports}
    assert len(first) > 20
    assert all(len(report.findings.splitlines()) == 17 for report in reports)


def test_margins_are_merged_into_one_line():
    for seed in range(20):
        lines = write_report(WHOLE, seed=seed).findings.splitlines()
        assert sum("lobulated" in line.lower() and "spiculated" in line.lower() for line in lines) == 1


@pytest.mark.parametrize("name", [name for name, feature in FEATURES.items() if feature.kind != "length"])
def test_every_feature_has_several_phrasings_for_every_class(name):
    feature = FEATURES[name]
    for word in feature.classes:
        value = {word: True} if feature.kind == "several" else word == "Present" if name in phrases.THINGS else word
        reports = [write_report(SemanticFeatures(**{name: value}), seed=seed) for seed in range(80)]
        assert len({r.impression if name == "suspicion" else r.findings for r in reports}) >= 3


@pytest.mark.parametrize(
    ("features", "findings", "impression"),
    [
        (SemanticFeatures(longest_diameter_mm=8.04, short_diameter_mm=6.96), "8 x 7 mm", "an 8 x 7 mm"),
        (SemanticFeatures(longest_diameter_mm=11.3), "11.3 mm", "an 11.3 mm"),
        (SemanticFeatures(short_diameter_mm=5), "5 mm", "a "),
        (SemanticFeatures(longest_diameter_mm=0.0, short_diameter_mm=0.0), "", "a "),
    ],
)
def test_sizes(features, findings, impression):
    for seed in range(10):
        report = write_report(features, seed=seed)
        assert findings in report.findings
        assert impression in report.impression.lower()
        assert " 0 mm" not in str(report)


def test_a_record_without_anything_has_no_findings_and_a_plain_impression():
    report = write_report(SemanticFeatures(), seed=1)
    assert report.findings == ""
    assert "nodule" in report.impression
    assert "None read." in str(report)


def test_traits_of_lidc_readers_are_said_beside_the_features():
    features = SemanticFeatures(margins={"Spiculated": True})
    for seed in range(30):
        report = write_report(features, seed=seed, traits=dict.fromkeys(TRAITS, True))
        assert "alcification" in report.findings
        assert "calcified" in report.impression or "alcification" in report.impression
        assert "spiculation" not in str(report)
        assert "obulation" in report.findings
        assert "lobulation" in report.impression
        assert "wholly solid" in report.impression
        assert "nearly spherical" in report.impression
        other = write_report(features, seed=seed, traits=dict.fromkeys(TRAITS, False))
        assert "calcif" not in other.impression
        assert any("alcification" in line and NEGATION.search(line) for line in other.findings.splitlines())
        judged = SemanticFeatures(shape="Ovoid", consistency="Solid", conspicuity="Well marginated")
        other = str(write_report(judged, seed=seed, traits=dict.fromkeys(TRAITS, False)))
        assert not re.search("not (round|spherical|sharp|wholly|solid)", other)
        assert re.search("subtle|faint|inconspicuous", other)
    with pytest.raises(InputError, match="trait: got 'malignancy'"):
        write_report(features, seed=1, traits={"malignancy": True})


@given(RECORDS, SEEDS, st.sampled_from(["findings", "impression", "either"]), st.booleans())
def test_training_text_is_one_plain_line_and_never_empty(features, seed, part, augment):
    text = training_text(features, rng=np.random.default_rng(seed), part=part, augment=augment)
    assert text.strip() == text != ""
    assert not re.search(r"[-#*/\n]", text)
    assert text == plain_text(text)
    assert text == training_text(features, rng=np.random.default_rng(seed), part=part, augment=augment)


def test_training_text_varies_and_draws_both_parts():
    rng = np.random.default_rng(0)
    texts = [training_text(WHOLE, rng=rng) for _ in range(400)]
    assert len(set(texts)) > 395
    share = np.mean(["suspicion" not in text.lower() for text in texts])
    assert 0.4 < share < 0.65
    with pytest.raises(InputError, match="part of a report"):
        training_text(WHOLE, rng=rng, part="summary")


def test_training_text_of_a_given_report_is_that_report():
    report = ReportText("- Smooth margin.\n- Part-solid.", "A part-solid nodule.")
    rng = np.random.default_rng(0)
    assert training_text(WHOLE, rng=rng, part="findings", augment=False, report=report) == "Smooth margin. Part solid."
    assert training_text(WHOLE, rng=rng, part="impression", augment=False, report=report) == "A part solid nodule."
    assert len({vary_report(report, rng=rng).findings for _ in range(30)}) > 2


def count(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text)) + 2


@given(st.lists(st.sampled_from(["solid", "nodule.", "margins,", "2.5", "mm.", "is\n", "smooth;", "no"]), max_size=60))
def test_a_cut_text_fits_is_a_beginning_and_says_so(words):
    text = " ".join(words)
    cut, shortened = cut_at_sentence(text, count, 20)
    assert count(cut) <= 20
    assert text.startswith(cut)
    assert shortened == (cut != text)
    assert shortened == (count(text) > 20)


def test_a_cut_falls_behind_the_last_sentence_that_fits():
    assert cut_at_sentence("A b c. D 2.5 e. F g h.", count, 14) == ("A b c. D 2.5 e.", True)
    assert cut_at_sentence("A b c. D e f. G h i.", count, 10) == ("A b c. D e f.", True)
    assert cut_at_sentence("- A b c.\n- D e f.", count, 9) == ("- A b c.", True)
    assert cut_at_sentence("A b, c d, e f g h.", count, 9) == ("A b, c d", True)
    assert cut_at_sentence("a b c d e f g h", count, 6) == ("a b c d", True)
    assert cut_at_sentence("", count, 5) == ("", False)
    with pytest.raises(InputError, match="whose first word is too long"):
        cut_at_sentence("a-b-c-d-e-f g", count, 6)


def test_a_long_report_is_cut_to_the_limit_of_the_text_tower():
    text = plain_text(write_report(WHOLE, seed=0).findings)
    cut, shortened = cut_at_sentence(text, lambda words: 2 * count(words))
    assert shortened
    assert cut.endswith(".")
    assert 2 * count(cut) <= 77


def test_plain_text_is_what_the_published_code_leaves():
    assert plain_text("## Findings\n* Part-solid\n* Spiculated/Serrated") == "Findings Part solid Spiculated, Serrated"
