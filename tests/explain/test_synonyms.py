"""Variation of training text never turns its meaning."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.core.semantics import FEATURES, SemanticFeatures
from spicula.explain.prompts import prompts_of_words
from spicula.explain.report_text import write_report
from spicula.explain.synonyms import GROUPS, KEPT, crop_words, replace_synonyms, varied

SEEDS = st.integers(0, 2**32)
TEXT = "There is a smooth, part-solid nodule.\nNo pleural retraction. An ovoid shape. Size 12.5 x 8 mm."


def words(text: str) -> list[str]:
    return re.findall(r"[\w.-]*\w", text.lower())


def test_there_are_fourteen_groups_of_words_that_are_all_different():
    assert len(GROUPS) == 14
    known = [word for group in GROUPS for word in group]
    assert len(known) == len(set(known))
    assert all(len(group) >= 2 for group in GROUPS)


def test_a_group_never_joins_two_classes():
    for group in GROUPS[:13]:
        found = {(word.question, word.name) for word in prompts_of_words(group)}
        assert len(found) == 1
        assert found.pop()[0] is not None
    names = {word.lower() for feature in FEATURES.values() for word in feature.classes}
    assert all(len(names & set(group)) <= 1 for group in GROUPS)


@given(SEEDS)
def test_at_most_two_words_are_replaced_by_their_like(seed):
    new = replace_synonyms(TEXT, rng=np.random.default_rng(seed))
    assert new != TEXT
    back, count = new, 0
    for group in GROUPS:
        for other in group[1:]:
            for article in ("an", "a"):
                pattern = rf"\b{article} {other}\b"
                first = "an" if group[0][0] in "aeiou" else "a"
                back, n = re.subn(pattern, f"{first} {group[0]}", back, flags=re.IGNORECASE)
                count += n
            back, n = re.subn(rf"\b{other}\b", group[0], back, flags=re.IGNORECASE)
            count += n
    assert 1 <= count <= 2
    assert back.lower() == TEXT.lower()


def test_articles_and_large_letters_stay_right():
    seen = {replace_synonyms("An ovoid nodule.", rng=np.random.default_rng(seed)) for seed in range(20)}
    assert seen == {"An oval nodule.", "An egg-shaped nodule."}
    seen = {replace_synonyms("Smooth margins.", rng=np.random.default_rng(seed)) for seed in range(20)}
    assert seen == {"Even margins."}
    seen = {replace_synonyms("an irregular shape", rng=np.random.default_rng(seed)) for seed in range(20)}
    assert seen == {"a complex shape"}
    assert replace_synonyms("Part solid.", rng=np.random.default_rng(0)) in ("Partly solid.", "Semisolid.")
    assert replace_synonyms("No necrosis.", rng=np.random.default_rng(0)) == "No necrosis."
    assert replace_synonyms(TEXT, rng=np.random.default_rng(0), most=0) == TEXT


@given(SEEDS, st.sampled_from([0.1, 0.3, 0.9]))
def test_a_crop_takes_one_run_and_no_word_that_turns_the_meaning(seed, share):
    new = crop_words(TEXT, rng=np.random.default_rng(seed), share=share)
    before, after = words(TEXT), words(new)
    missing = len(before) - len(after)
    assert 1 <= missing <= 10
    start = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after))
    assert before[:start] + before[start + missing :] == after
    taken = before[start : start + missing]
    assert not any(part in KEPT or part[0].isdigit() for word in taken for part in re.split("-", word))
    assert new.count(".") == TEXT.count(".")


def test_a_crop_leaves_what_is_too_short_alone():
    for text in ("", "Solid.", "No necrosis.", "not without"):
        assert crop_words(text, rng=np.random.default_rng(0)) == text


@given(SEEDS, SEEDS)
def test_no_variation_makes_something_present_that_is_absent(seed, other):
    absent = {name: False for name, feature in FEATURES.items() if feature.kind == "presence"}
    report = write_report(SemanticFeatures(**absent), seed=seed)
    text = varied(report.findings, rng=np.random.default_rng(other), probability=1.0)
    for line in text.splitlines():
        assert re.search(r"\b(no|absent)\b", line, re.IGNORECASE), line


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.5, 120, 180), (1.0, 200, 200)])
def test_each_step_is_taken_with_its_probability(probability, low, high):
    rng = np.random.default_rng(0)
    assert low <= sum(varied(TEXT, rng=rng, probability=probability) != TEXT for _ in range(200)) <= high
