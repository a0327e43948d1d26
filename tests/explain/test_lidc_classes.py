"""Both cuts agree with those that the rest of the house uses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.core.prediction import TRAITS
from spicula.datasets.lidc_nodules import load_cases
from spicula.datasets.lidc_to_nlst import nlst_features
from spicula.explain.lidc_classes import LIDC_CUTS, QUESTION_OF_TRAIT, lidc_class, lidc_features, lidc_traits
from spicula.explain.prompts import PROMPTS
from spicula.explain.report_text import cut_at_sentence, training_text, write_report
from spicula.explain.zero_shot_auroc import answers_of
from spicula.pipelines.risk_table import RULES

RATINGS = {"internal_structure": 4, "calcification": 6}
HALVES = np.arange(1, 6.5, 0.5)


@pytest.mark.parametrize("trait", TRAITS)
def test_the_cut_of_score_is_that_of_the_default_model(trait):
    question, name = QUESTION_OF_TRAIT[trait]
    rating, rule = RULES[trait]
    for value in HALVES[RATINGS.get(rating, 5) >= HALVES]:
        said = lidc_class(question, {rating: value}, cut="score")
        assert (said == name) == bool(rule(np.array(value)))
        assert lidc_traits({rating: value})[trait] == bool(rule(np.array(value)))


@pytest.mark.parametrize("question", LIDC_CUTS["nlst"])
def test_the_cut_of_nlst_is_that_of_its_mapping(question):
    rating = LIDC_CUTS["nlst"][question].rating
    for value in HALVES[RATINGS.get(rating, 5) >= HALVES]:
        said = lidc_class(question, {rating: value}, cut="nlst")
        assert (said,) == answers_of(nlst_features({rating: value}), question)


@given(
    st.dictionaries(
        st.sampled_from(["calcification", "sphericity", "margin", "lobulation", "spiculation", "texture"]),
        st.sampled_from([1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, None, float("nan")]),
    )
)
def test_the_record_of_a_cut_gives_the_answers_of_that_cut(medians):
    assert lidc_features(medians, cut="nlst") == nlst_features(medians)
    ours = lidc_features(medians, cut="score")
    for question in LIDC_CUTS["score"]:
        if question not in ("calcification", "subtlety"):
            answer = lidc_class(question, medians, cut="score")
            assert answers_of(ours, question) == (None if answer is None else (answer,))
    text = str(write_report(ours, seed=0, traits=lidc_traits(medians)))
    for word in ("round", "spherical", "solid", "sharp"):
        assert f"not {word}" not in text
    assert ours.eccentric_calcification is None


def test_every_class_has_prompts_and_missing_ratings_have_no_class():
    for cuts in LIDC_CUTS.values():
        for question, cut in cuts.items():
            assert set(cut.classes) <= set(PROMPTS[question])
    assert lidc_class("shape", {}, cut="score") is None
    assert lidc_class("shape", {"sphericity": float("nan")}, cut="nlst") is None
    assert lidc_class("shape", {"sphericity": None}, cut="nlst") is None
    assert lidc_traits({}) == {}


def test_what_lidc_cannot_answer_is_refused():
    with pytest.raises(InputError, match="question cut as nlst: got 'subtlety'"):
        lidc_class("subtlety", {}, cut="nlst")
    with pytest.raises(InputError, match="cut of the classes"):
        lidc_class("shape", {}, cut="other")


@pytest.mark.shared
def test_every_real_nodule_has_texts_of_its_own_under_both_cuts(shared):
    medians = [case.findings[0].truth for case in load_cases(shared / "lidc_nodules")]
    assert len(medians) > 500
    rng = np.random.default_rng(0)
    for cut in ("score", "nlst"):
        texts = []
        for row in medians:
            features, traits = lidc_features(row, cut=cut), lidc_traits(row) if cut == "score" else None
            text = training_text(features, rng=rng, traits=traits)
            texts.append(cut_at_sentence(text, lambda words: len(words.split()) + 2)[0])
            whole = write_report(features, seed=0, traits=traits)
            consistency = lidc_class("consistency", row, cut=cut)
            assert consistency is None or consistency.lower() in whole.impression
        assert len(set(texts)) > 0.9 * len(texts)
    answers = {question: {lidc_class(question, row, cut="score") for row in medians} for question in LIDC_CUTS["score"]}
    assert all(len(said - {None}) >= 2 for said in answers.values())
