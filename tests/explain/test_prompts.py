"""Prompts: the paper's sentences to the letter, three or more templates a class, and words that users type."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.core.semantics import FEATURES
from spicula.explain.prompts import NO_FINDINGS, PROMPTS, TABLE_4, prompts_of, prompts_of_words
from spicula.explain.report_text import plain_text
from spicula.papers.zhuang2025 import PAPER


def test_the_features_are_those_of_table_4():
    printed = {number.target.lower() for number in PAPER.at_place("Table 4") if number.metric == "auroc"}
    assert {FEATURES[name].title for name in TABLE_4} == printed
    assert len(TABLE_4) == 16
    assert list(PROMPTS)[:16] == list(TABLE_4)


def test_the_sentences_of_the_paper_to_the_letter():
    assert prompts_of("margins", "compat") == {
        "Smooth": ("This nodule margin is smooth.",),
        "Lobulated": ("This nodule margin is lobulated.",),
        "Spiculated": ("This nodule margin is spiculated.",),
        "Ill-defined": ("This nodule margin is ill-defined.",),
        "Notched": ("This nodule margin is notched.",),
    }
    assert prompts_of("shape", "compat")["Irregular"] == ("This nodule shape is irregular.",)
    assert prompts_of("consistency", "compat")["Pure ground glass"] == (
        "This nodule consistency is pure ground glass.",
    )
    assert prompts_of("conspicuity", "compat")["Well marginated"] == (
        "This nodule margin conspicuity is well marginated.",
    )
    assert prompts_of("pleural_retraction", "compat") == {
        "Present": ("There is pleural retraction.",),
        "Absent": ("No findings",),
    }
    assert prompts_of("cyst_like_spaces", "compat")["Present"] == ("There is cyst-like spaces.",)


@pytest.mark.parametrize("question", PROMPTS)
def test_every_class_has_one_sentence_of_the_paper_and_three_templates_of_its_own(question):
    templates = prompts_of(question)
    assert all(len(set(sentences)) >= 3 for sentences in templates.values())
    every = [sentence for sentences in templates.values() for sentence in sentences]
    assert len(every) == len(set(every))
    assert all(sentence[0].isupper() and sentence.endswith(".") and "  " not in sentence for sentence in every)
    compat = prompts_of(question, "compat")
    assert list(compat) == list(templates)
    assert all(len(sentences) == 1 for sentences in compat.values())
    if question in FEATURES:
        assert set(templates) == set(FEATURES[question].classes)
    assert (NO_FINDINGS,) in compat.values() or "Absent" not in compat


def test_plain_prompts_are_cleaned_as_training_text_is():
    assert "There is a part solid lung nodule." in prompts_of("consistency", plain=True)["Part-solid"]
    for question in PROMPTS:
        for sentences in prompts_of(question, plain=True).values():
            assert all(sentence == plain_text(sentence) for sentence in sentences)


def test_an_unknown_question_or_style_is_refused():
    with pytest.raises(InputError, match="the nearest is 'consistency'"):
        prompts_of("consistancy")
    with pytest.raises(InputError, match="style of prompts"):
        prompts_of("shape", "paper")


@pytest.mark.parametrize(
    ("word", "question", "name"),
    [
        ("part-solid", "consistency", "Part-solid"),
        ("Part solid nodule", "consistency", "Part-solid"),
        ("partly solid", "consistency", "Part-solid"),
        ("GGO", "consistency", "Pure ground glass"),
        ("non-solid", "consistency", "Pure ground glass"),
        ("spiculated", "margins=Spiculated", "Present"),
        ("spiculated margins", "margins=Spiculated", "Present"),
        ("Spiculated/Serrated", "margins=Spiculated", "Present"),
        ("no spiculation", "margins=Spiculated", "Absent"),
        ("non-spiculated", "margins=Spiculated", "Absent"),
        ("without pleural retraction.", "pleural_retraction", "Absent"),
        ("no evidence of cavitation", "cavitation", "Absent"),
        ("an oval nodule", "shape", "Ovoid"),
        ("well circumscribed", "conspicuity", "Well marginated"),
        ("cystic spaces", "cyst_like_spaces", "Present"),
        ("pleural  dimpling", "pleural_retraction", "Present"),
        ("calcified", "calcification", "Present"),
        ("high suspicion", "suspicion", "High"),
    ],
)
def test_words_that_are_known(word, question, name):
    (found,) = prompts_of_words([word])
    assert (found.asked, found.question, found.name, found.nearest) == (word, question, name, None)
    assert found.prompts == prompts_of(question)
    assert set(found.opposites) == set(found.prompts) - {name}
    assert found.opposites


def test_every_class_and_title_of_the_vocabulary_is_known():
    for name in TABLE_4:
        feature = FEATURES[name]
        spoken = [feature.title] if feature.kind == "presence" else [*feature.classes, *feature.aliases]
        for word in prompts_of_words(spoken):
            assert word.question is not None
            assert word.question.partition("=")[0] == name


def test_free_text_stands_against_its_absence_and_a_slip_of_the_pen_is_noticed():
    free, slip = prompts_of_words(["tree-in-bud pattern", "spiculatd"])
    assert (free.question, free.name, free.nearest) == (None, "Present", None)
    assert free.prompts["Present"][0] == "There is a lung nodule with tree-in-bud pattern."
    assert len(free.prompts["Present"]) == len(free.opposites["Absent"]) == 3
    assert (slip.question, slip.nearest) == (None, "spiculated")
    (compat,) = prompts_of_words(["halo sign"], "compat")
    assert compat.prompts == {"Present": ("There is halo sign.",), "Absent": ("No findings",)}
    (plain,) = prompts_of_words(["tree-in-bud"], plain=True)
    assert all("-" not in sentence for sentence in plain.prompts["Present"])


def test_not_asks_for_the_opposite():
    solid, marginated, free = prompts_of_words(["not solid", "not well marginated", "no tree-in-bud"])
    assert (solid.question, solid.name, list(solid.prompts)) == ("consistency", "not Solid", ["Solid", "not Solid"])
    others = [sentence for name, all_of in prompts_of("consistency").items() if name != "Solid" for sentence in all_of]
    assert list(solid.prompts["not Solid"]) == others
    assert list(solid.opposites) == ["Solid"]
    assert (marginated.question, marginated.name) == ("conspicuity", "Poorly marginated")
    assert (free.question, free.name) == (None, "Absent")
    assert free.prompts["Absent"][2] == "No tree-in-bud."
    assert prompts_of_words(["no -"])[0].prompts["Present"][2] == "No -."


@pytest.mark.parametrize("word", ["", "  ", "-", "x" * 201])
def test_no_word_is_refused(word):
    with pytest.raises(InputError, match="word to look for"):
        prompts_of_words([word])


@given(st.text(max_size=40))
def test_any_words_have_prompts_or_are_refused(text):
    try:
        (word,) = prompts_of_words([text])
    except InputError:
        return
    assert word.name in word.prompts
    assert len(word.prompts) >= 2
