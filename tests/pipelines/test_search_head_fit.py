"""The search head draws nodules together that turned out alike."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from spicula.pipelines.search_head_fit import HeadRecipe, closeness, contrast, fit_head, vectors_of  # noqa: E402


def test_contrast_is_the_weighted_cross_entropy_of_a_double_loop() -> None:
    rng = np.random.default_rng(0)
    vectors = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((6, 4))), dim=1)
    close = torch.from_numpy(rng.random((6, 6)))
    expected = 0.0
    for row in range(6):
        others = [other for other in range(6) if other != row]
        cosine = {other: float(vectors[row] @ vectors[other]) / 0.3 for other in others}
        whole = np.log(sum(np.exp(value) for value in cosine.values()))
        weight = sum(float(close[row, other]) for other in others)
        expected -= sum(float(close[row, other]) * (cosine[other] - whole) for other in others) / weight / 6
    assert float(contrast(vectors, close, temperature=0.3)) == pytest.approx(expected)


def test_pairs_are_close_by_outcome_first_and_by_traits_then() -> None:
    outcomes = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    expected = [[1.0, 0.65, 0.0], [0.65, 1.0, 0.0], [0.0, 0.0, 1.0]]
    np.testing.assert_allclose(closeness(outcomes, traits=0.7), expected, rtol=1e-6)


def test_the_head_learns_what_separates_and_is_the_same_again() -> None:
    rng = np.random.default_rng(0)
    n = 160
    outcome = (np.arange(n) % 2).astype(float)
    features = rng.standard_normal((n, 5)) + 1.5 * outcome[:, None]
    measured = rng.standard_normal((n, 3, 4))
    measured[..., 0] += 3 * outcome[:, None]
    outcomes = np.stack([outcome, (np.arange(n) % 3 == 0).astype(float)], axis=1)
    learn, test = np.arange(120), np.arange(120, n)
    recipe = HeadRecipe(epochs=20, members=2, hidden=16, dimensions=6, batch=60)
    vectors = vectors_of(fit_head(features, measured, outcomes, learn, recipe), features, measured)
    assert vectors.shape == (n, 12)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    nearest = np.argmax(vectors[test] @ vectors[learn].T, axis=1)
    assert (outcome[learn][nearest] == outcome[test]).mean() > 0.85
    again = vectors_of(fit_head(features, measured, outcomes, learn, recipe), features, measured)
    np.testing.assert_array_equal(again, vectors)
