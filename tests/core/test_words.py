"""When trait and words clearly say the opposite."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.core.prediction import Prediction
from spicula.core.words import CLEAR, Answer, Words, disagree

SHARE = st.floats(0, 1)


def trait(low: float, high: float) -> Prediction:
    return Prediction("1", "spiculation_present", (low + high) / 2, (low, high), "risk@0")


@given(st.tuples(SHARE, SHARE).map(sorted), st.lists(SHARE, min_size=1, max_size=6))
def test_they_disagree_only_where_both_are_clear(interval: list[float], members: list[float]) -> None:
    low, high = interval
    share, spread = sum(members) / len(members), (min(members), max(members))
    found = disagree(trait(low, high), share, spread)
    if found:
        assert (high < 0.5 and spread[0] > 0.5 and share >= CLEAR) or (
            low > 0.5 and spread[1] < 0.5 and share <= 1 - CLEAR
        )
    if low <= 0.5 <= high or 1 - CLEAR < share < CLEAR or spread[0] <= 0.5 <= spread[1]:
        assert not found
    turned = trait(1 - high, 1 - low)
    if all(value not in (0.5, 0.25, 0.75) for value in (*interval, *spread, share)):
        close = min(abs(share - CLEAR), abs(share - 1 + CLEAR), *(abs(v - 0.5) for v in (*interval, *spread))) < 1e-9
        assert close or disagree(turned, 1 - share, (1 - spread[1], 1 - spread[0])) == found


def test_clear_cases() -> None:
    assert disagree(trait(0.05, 0.3), 0.75, (0.6, 0.9))
    assert disagree(trait(0.7, 0.9), 0.25, (0.1, 0.4))
    assert not disagree(trait(0.05, 0.3), 0.74, (0.6, 0.9)), "not clear in the mean"
    assert not disagree(trait(0.05, 0.3), 0.80, (0.45, 0.99)), "one network is on the trait's side"
    assert not disagree(trait(0.05, 0.51), 0.99, (0.98, 1.0)), "the trait is not sure"
    assert not disagree(Prediction("1", "x", 0.01, None, "risk@0"), 0.99, (0.98, 1.0))


def test_an_answer_names_its_class() -> None:
    answer = Answer("", "shape", "Round", ("Ovoid", "Round"), (0.25, 0.75), (0.1, 0.2), (0.7, 0.8), learned=True)
    asked = Answer("oval", "shape", "Ovoid", ("Ovoid", "Round"), (0.25, 0.75), (0.1, 0.2), (0.2, 0.3), learned=True)
    assert (answer.probability, answer.similarity, asked.probability, asked.similarity) == (0.75, 0.2, 0.25, 0.1)
    words = Words("1", "semantic@0", (answer, asked))
    assert (words.standard, words.requested) == ((answer,), (asked,))
    with pytest.raises(InputError, match="Ovoid, Round"):
        answer.of("Square")
