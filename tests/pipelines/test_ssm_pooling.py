"""Slices pooled by attention: what one slice alone tells is found among others; nothing of the tested fold is used."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from spicula.metrics.classification import auroc  # noqa: E402
from spicula.networks.attention_pooling import AttentionPooling  # noqa: E402
from spicula.pipelines.ssm_pooling import attention_pooled_scores  # noqa: E402


def test_weights_sum_to_one_over_what_is_there():
    pool = AttentionPooling(6, hidden=4)
    there = torch.tensor([[True, True, False], [True, False, False]])
    bags = torch.randn(2, 3, 6)
    logits, weights = pool(bags, there)
    assert logits.shape == (2,)
    assert torch.allclose(weights.sum(dim=1), torch.ones(2))
    assert not weights[~there].any()
    bags[0, 2] = 99.0
    assert torch.allclose(pool(bags, there)[0], logits, atol=1e-6)


def test_a_telling_slice_is_found_and_folds_are_kept_apart():
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    slices, rows, label = [], [], rng.random(120) < 0.5
    for nodule in range(120):
        some = rng.normal(0, 1, (rng.integers(2, 5), 8)).astype(np.float32)
        some[:, 0] = 0.0
        some[0, 0], some[0, 1] = (3.0 if label[nodule] else -3.0), 4.0
        slices.append(np.arange(len(some)) + sum(len(r) for r in rows))
        rows.append(some)
    features, fold_of = np.concatenate(rows), np.arange(120) % 3
    scores = attention_pooled_scores(features, slices, label, fold_of)
    assert auroc(label, scores) > 0.9
    other = np.where(fold_of == 0, ~label, label)
    again = attention_pooled_scores(features, slices, other, fold_of)
    assert np.array_equal(scores[fold_of == 0], again[fold_of == 0])
