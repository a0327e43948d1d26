"""Zero-shot against the formula written out, and its areas against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.core.semantics import SemanticFeatures
from spicula.explain.zero_shot import class_embedding, mean_zero_shot, zero_shot
from spicula.explain.zero_shot_auroc import answers_of, zero_shot_auroc


def texts(rng: np.random.Generator, sizes: tuple[int, ...] = (1, 3, 5), d: int = 7) -> dict[str, np.ndarray]:
    return {name: rng.normal(size=(size, d)) for name, size in zip("abcdef", sizes, strict=False)}


@given(st.integers(0, 2**32), st.floats(0.01, 5))
def test_it_is_the_formula(seed, temperature):
    rng = np.random.default_rng(seed)
    images, words = rng.normal(size=(4, 7)), texts(rng)
    found = zero_shot(images, words, temperature=temperature)
    for row, image in enumerate(images):
        cosines = []
        for vectors in words.values():
            mean = sum(v / np.sqrt(v @ v) for v in vectors) / len(vectors)
            cosines.append(image @ mean / np.sqrt(image @ image) / np.sqrt(mean @ mean))
        powers = np.exp(np.array(cosines) / temperature)
        np.testing.assert_allclose(found.similarity[row], cosines, atol=1e-12)
        np.testing.assert_allclose(found.probability[row], powers / powers.sum(), atol=1e-10)
    assert found.classes == ("a", "b", "c")


@given(st.integers(0, 2**32), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_lengths_do_not_matter(seed, image_scale, text_scale):
    rng = np.random.default_rng(seed)
    images, words = rng.normal(size=(2, 7)), texts(rng)
    one = zero_shot(images, words, temperature=0.07)
    other = zero_shot(images * image_scale, {name: rows * text_scale for name, rows in words.items()}, temperature=0.07)
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-9)


def test_the_scale_of_the_network_is_the_inverse_of_the_temperature():
    from scipy.special import softmax

    rng = np.random.default_rng(1)
    logit_scale = np.log(1 / 0.03)
    found = zero_shot(rng.normal(size=7), texts(rng), temperature=float(np.exp(-logit_scale)))
    assert found.probability.shape == (1, 3)
    np.testing.assert_allclose(found.probability, softmax(np.exp(logit_scale) * found.similarity, axis=1))


def test_results_name_their_classes():
    found = zero_shot([[1, 0], [0, 1]], {"Solid": [2, 0], "Part-solid": [[0, 1], [0, 3]]}, temperature=0.01)
    assert found.best == ("Solid", "Part-solid")
    assert found.of("Solid").tolist() == pytest.approx([1, 0])
    with pytest.raises(InputError, match="class: got 'Smooth'"):
        found.of("Smooth")
    with pytest.raises(AttributeError):
        found.classes = ()


def test_small_temperatures_do_not_overflow():
    found = zero_shot([1.0, 0.1], {"a": [1, 0], "b": [-1, 0]}, temperature=1e-6)
    assert found.probability.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("image", "words", "temperature", "message"),
    [
        ([1, 0], {"a": [1, 0]}, 1, "classes to compare"),
        ([1, 0], {"a": [1, 0], "b": [0, 1]}, 0, "temperature"),
        ([1, 0], {"a": [1, 0], "b": [0, 1]}, float("nan"), "temperature"),
        ([0, 0], {"a": [1, 0], "b": [0, 1]}, 1, "image embedding"),
        ([1, np.nan], {"a": [1, 0], "b": [0, 1]}, 1, "image embedding"),
        ([1, 0], {"a": [1, 0, 0], "b": [0, 1, 0]}, 1, "text embeddings: got length 3"),
        ([1, 0], {"a": [[1, 0], [-1, 0]], "b": [0, 1]}, 1, "text embeddings of a: got vectors that cancel out"),
        ([1, 0], {"a": np.zeros((0, 2)), "b": [0, 1]}, 1, "text embeddings of a"),
        (np.zeros((1, 1, 2)), {"a": [1, 0], "b": [0, 1]}, 1, "image embedding"),
    ],
)
def test_what_makes_no_sense_is_refused(image, words, temperature, message):
    with pytest.raises(InputError, match=message):
        zero_shot(image, words, temperature=temperature)


def test_a_class_is_a_unit_vector():
    assert np.linalg.norm(class_embedding(np.random.default_rng(0).normal(size=(4, 9)))) == pytest.approx(1)


def test_an_ensemble_is_the_mean_of_its_members():
    rng = np.random.default_rng(2)
    members = [zero_shot(rng.normal(size=(3, 7)), texts(rng), temperature=0.1) for _ in range(5)]
    mean = mean_zero_shot(members)
    np.testing.assert_allclose(mean.probability, np.mean([m.probability for m in members], axis=0))
    np.testing.assert_allclose(mean.probability.sum(axis=1), 1)
    with pytest.raises(InputError, match="members of the ensemble"):
        mean_zero_shot([])
    other = zero_shot(rng.normal(size=(2, 7)), texts(rng), temperature=0.1)
    with pytest.raises(InputError, match="2 different questions"):
        mean_zero_shot([members[0], other])


def test_areas_are_those_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(3)
    found = zero_shot(rng.normal(size=(80, 7)), texts(rng), temperature=0.3)
    holds = rng.random((80, 3)) < [0.5, 0.3, 0.1]
    answers = [tuple(name for name, h in zip("abc", row, strict=True) if h) for row in holds]
    area = zero_shot_auroc(found, answers)
    np.testing.assert_allclose(area.auroc, roc_auc_score(holds, found.probability, average=None))
    assert area.published == pytest.approx(roc_auc_score(holds, found.probability, average="weighted"))
    assert area.rows.tolist() == holds.sum(axis=0).tolist()


def test_areas_leave_out_what_was_not_judged_and_classes_that_no_row_has():
    found = zero_shot(
        [[1, 0.1], [1, 0.9], [0, 1], [0.3, 1]], {"Present": [1, 0], "Absent": [0, 1], "Other": [1, 1]}, temperature=1
    )
    area = zero_shot_auroc(found, [("Present",), ("Present",), ("Absent",), None])
    assert area.judged == 3
    assert np.isnan(area.auroc[2])
    assert area.published == pytest.approx((2 * area.auroc[0] + area.auroc[1]) / 3)
    two = zero_shot([[1, 0.1], [0, 1]], {"Present": [1, 0], "Absent": [0, 1]}, temperature=1)
    assert zero_shot_auroc(two, [("Present",), ("Absent",)]).published == 1.0
    assert np.isnan(zero_shot_auroc(two, [None, None]).published)
    with pytest.raises(InputError, match="answers: got 1"):
        zero_shot_auroc(two, [None])
    with pytest.raises(InputError, match="answer: got 'Solid'"):
        zero_shot_auroc(two, [("Solid",), None])


def test_answers_of_a_record():
    features = SemanticFeatures(margins={"Smooth": False, "Spiculated": True}, shape="Round", necrosis=False)
    assert answers_of(features, "margins") == ("Spiculated",)
    assert answers_of(features, "margins=Spiculated") == ("Present",)
    assert answers_of(features, "margins=Smooth") == ("Absent",)
    assert answers_of(features, "margins=Notched") is None
    assert answers_of(features, "shape") == ("Round",)
    assert answers_of(features, "necrosis") == ("Absent",)
    assert answers_of(features, "cavitation") is None
    for question in ("short_diameter_mm", "calcification", "margins=Fuzzy"):
        with pytest.raises(InputError, match="question to the readers"):
            answers_of(features, question)
