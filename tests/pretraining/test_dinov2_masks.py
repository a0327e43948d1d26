"""Masks of blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicula.pretraining.dinov2_masks import batch_masks, block_mask


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(3, 16), columns=st.integers(3, 16), share=st.floats(0.0, 0.6), seed=st.integers(0, 999))
def test_never_more_than_asked_for(rows, columns, share, seed):
    count = int(rows * columns * share)
    mask = block_mask((rows, columns), count, np.random.default_rng(seed))
    assert mask.shape == (rows, columns)
    assert mask.sum() <= count


def test_masks_are_blocks_not_scattered_patches():
    masks = [block_mask((16, 16), 64, np.random.default_rng(seed)) for seed in range(50)]
    neighbors = np.mean([(m[1:] & m[:-1]).sum() / max(1, m.sum()) for m in masks])
    scattered = 64 / 256
    assert neighbors > 2 * scattered
    assert np.mean([m.sum() for m in masks]) > 60


def test_half_the_images_are_masked_by_ratios_spread_from_least_to_most():
    masks = batch_masks(64, (16, 16), np.random.default_rng(0))
    share = np.sort(masks.mean(axis=1))
    assert (share[:32] == 0).all()
    assert share[32] == pytest.approx(0.1, abs=0.03)
    assert share[-1] == pytest.approx(0.5, abs=0.05)
    assert np.diff(share[32:]).max() < 0.06
