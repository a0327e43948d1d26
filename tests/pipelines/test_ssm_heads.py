"""Features and facts together: late fusion out of fold."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from spicula.metrics.classification import auroc
from spicula.pipelines.ssm_heads import beside, of_diameter


def made(n=150):
    """A diameter that tells something, and features of which one tells the rest."""
    rng = np.random.default_rng(0)
    diameter = np.exp(rng.normal(2.2, 0.4, n))
    hidden = rng.normal(size=n)
    label = np.log(diameter) - 2.2 + 0.5 * hidden + rng.normal(0, 0.15, n) > 0
    features = rng.normal(size=(n, 12)).astype(np.float32)
    features[:, 3] += 2 * hidden
    return features, diameter, label, np.arange(n) % 3


def test_features_add_to_the_diameter():
    features, diameter, label, fold_of = made()
    alone = auroc(label, diameter)
    together = auroc(label, beside(features, of_diameter(diameter), label, fold_of))
    assert together > alone + 0.05


def test_without_features_the_facts_stay_alone():
    _, diameter, label, fold_of = made()
    score = beside(np.zeros((len(label), 0)), of_diameter(diameter), label, fold_of)
    assert abs(auroc(label, score) - auroc(label, diameter)) < 0.03


def test_the_label_of_a_tested_fold_is_not_used():
    features, diameter, label, fold_of = made()
    other = np.where(fold_of == 1, ~label, label)
    one, two = (beside(features, of_diameter(diameter), truth, fold_of) for truth in (label, other))
    np.testing.assert_array_equal(one[fold_of == 1], two[fold_of == 1])
    assert not np.array_equal(one, two)


def test_each_fold_has_features_of_its_own():
    features, diameter, label, fold_of = made()
    own = np.stack([features, np.random.default_rng(1).normal(size=features.shape), features])
    score = beside(own, of_diameter(diameter), label, fold_of)
    whole = beside(features, of_diameter(diameter), label, fold_of)
    np.testing.assert_array_equal(score[fold_of == 0], whole[fold_of == 0])
    assert not np.array_equal(score[fold_of == 1], whole[fold_of == 1])
