"""Both cuts agree with those that the rest of the house uses."""

from __future__ import annotations

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.core.prediction import TRAITS
from spicula.datasets.lidc_to_nlst import nlst_features
from spicula.explain.lidc_classes import LIDC_CUTS, QUESTION_OF_TRAIT, lidc_class, lidc_traits
from spicula.explain.prompts import PROMPTS
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
