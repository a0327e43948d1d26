"""Texts say what was read of the nodule, and it is known whom else they fit."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.datasets.lidc_nodules import TRAITS
from spicula.explain.prompts import PROMPTS, prompts_of
from spicula.pipelines.semantic_words import (
    QUESTIONS,
    UNSAID,
    Statement,
    Wording,
    all_codes,
    answer_codes,
    draw_statement,
    fits,
    scarcity,
    whole_text,
    word_tokenizer,
)


def drawn_ratings(count: int) -> list[dict[str, float]]:
    rng = np.random.default_rng(0)
    return [{name: float(rng.integers(1, 6 + (name == "calcification"))) for name in TRAITS} for _ in range(count)]


NONE = np.zeros((1, len(TRAITS)), dtype=np.int8)
PLAIN = Wording(one_reader=0.0, augment=False)


def test_what_is_said_is_true_and_what_is_not_said_is_not_in_the_text() -> None:
    rng = np.random.default_rng(1)
    for ratings in drawn_ratings(60):
        ratings["internal_structure"] = min(ratings["internal_structure"], 4.0)
        one = draw_statement(ratings, NONE, PLAIN, rng)
        codes = answer_codes(ratings, one.cut)
        said = one.said != UNSAID
        assert np.array_equal(one.said[said], codes[said])
        assert one.text
        for question, words in (("margins=Spiculated", ("spicul", "serrated")), ("margins=Lobulated", ("lobul",))):
            if one.said[QUESTIONS.index(question)] == UNSAID:
                assert not any(word in one.text.lower() for word in words), one


def test_a_reader_is_quoted() -> None:
    ratings = drawn_ratings(1)[0] | {"texture": 5.0}
    reading = np.array([[ratings[name] for name in TRAITS]], dtype=np.int8)
    reading[0, TRAITS.index("texture")] = 1
    reading[0, TRAITS.index("internal_structure")] = 1
    wording = Wording(whole=1.0, one_reader=1.0, augment=False)
    one = draw_statement(ratings, reading, wording, np.random.default_rng(0))
    assert tuple(PROMPTS["consistency"])[one.said[1]] == "Pure ground glass"


def test_a_text_fits_all_of_whom_it_is_true() -> None:
    medians = drawn_ratings(8)
    codes = all_codes(medians)
    said = np.full(len(QUESTIONS), UNSAID, dtype=np.int8)
    said[1] = codes["score"][0, 1]
    texts = [Statement("", "score", said), *(Statement("", "nlst", codes["nlst"][i]) for i in range(1, 8))]
    found = fits(texts, codes)
    assert np.array_equal(found[:, 0], codes["score"][:, 1] == codes["score"][0, 1])
    assert found.diagonal().all()
    assert found[:, 1:].sum() < 12  # whole records seldom agree


def test_the_tokenizer_knows_all_prompts_and_no_patient() -> None:
    words, again = word_tokenizer(), word_tokenizer()
    texts = [text for question in PROMPTS for some in prompts_of(question, plain=True).values() for text in some]
    texts += [whole_text(one | {"internal_structure": 1.0}, seed=i) for i, one in enumerate(drawn_ratings(20))]
    ids = words.encode(texts).ids
    assert np.array_equal(ids, again.encode(texts).ids)
    assert not any("[UNK]" in words.words(row) for row in ids)
    assert max(words.length(text) for text in texts) <= 77


def test_scarce_answers_are_said_as_often_as_common_ones() -> None:
    medians = [one | {"internal_structure": 1.0, "calcification": 6.0} for one in drawn_ratings(40)]
    medians[0]["calcification"] = medians[1]["calcification"] = 3.0
    scarce = scarcity(all_codes(medians))
    place = QUESTIONS.index("calcification")
    assert scarce["score"][place, :2].tolist() == [2 / 38, 1.0]
    rng = np.random.default_rng(0)
    wording = Wording(whole=0.0, one_reader=0.0, augment=False, nlst=0.0)
    said = np.array([draw_statement(one, NONE, wording, rng, scarce=scarce).said[place] for one in medians * 50])
    assert (said == 0).sum() < 3 * (said == 1).sum()
