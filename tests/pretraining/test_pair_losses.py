"""Losses of pairs by hand, and how pairs are drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402
from spicula.pretraining.pair_losses import (  # noqa: E402
    contrastive_loss,
    sample_pairs,
    supervised_contrastive_loss,
    triplet_loss,
)


def at(*degrees, length=1.0):
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return length * torch.stack([angle.cos(), angle.sin()], dim=1)


def random(n=6, d=4):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_contrastive_by_hand():
    first, second = at(0, 0, 0, 0), at(60, 90, 60, 180, length=3.0)
    same = torch.tensor([True, True, False, False])
    expected = (0.5**2 + 1.0**2 + 0.3**2 + 0.0) / 4
    assert float(contrastive_loss(first, second, same)) == pytest.approx(expected)
    assert float(contrastive_loss(first, second, same, margin=2.5)) == pytest.approx((0.25 + 1 + 4 + 0.25) / 4)


def test_triplets_by_hand():
    query, positive, negative = at(0, 0), at(60, 0, length=2.0), at(180, 60)
    assert float(triplet_loss(query, positive, negative, margin=0.8)) == pytest.approx((0.0 + 0.0) / 2)
    assert float(triplet_loss(query, negative, positive, margin=0.8)) == pytest.approx((1.8 + 1.8) / 2)


def test_triplets_as_torch_has_them():
    query, positive, negative = (torch.nn.functional.normalize(x) for x in random(12).chunk(3))
    expected = torch.nn.TripletMarginLoss(margin=1.0)(query, positive, negative)
    torch.testing.assert_close(triplet_loss(query, positive, negative), expected, atol=1e-5, rtol=0)


def test_equal_vectors_have_gradients():
    x = random().requires_grad_()
    triplet_loss(x, x.detach(), x.detach()).backward()
    assert bool(torch.isfinite(x.grad).all())


def test_supervised_contrastive_is_the_double_loop():
    vectors, labels = random(), torch.tensor([0, 1, 0, 2, 0, 1])
    unit = torch.nn.functional.normalize(vectors).numpy()
    each = []
    for i in range(6):
        below = sum(math.exp(unit[i] @ unit[a] / 0.3) for a in range(6) if a != i)
        mates = [p for p in range(6) if p != i and labels[p] == labels[i]]
        if mates:
            each.append(-sum(math.log(math.exp(unit[i] @ unit[p] / 0.3) / below) for p in mates) / len(mates))
    found = supervised_contrastive_loss(vectors, labels, temperature=0.3)
    assert len(each) == 5
    assert float(found) == pytest.approx(sum(each) / 5)
    assert float(supervised_contrastive_loss(vectors, torch.arange(6))) == 0.0


def test_gradients():
    same = torch.tensor([1, 0, 1, 0, 0, 1])
    labels = torch.tensor([0, 1, 0, 2, 0, 1])
    x, y = random().requires_grad_(), random().flip(0).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: contrastive_loss(a, b, same), (x, y))
    assert torch.autograd.gradcheck(lambda a: supervised_contrastive_loss(a, labels), (x,))


def test_shapes_must_fit():
    x = random()
    with pytest.raises(InputError, match="second vectors"):
        contrastive_loss(x, x[:2], torch.ones(6))
    with pytest.raises(InputError, match="same"):
        contrastive_loss(x, x, torch.ones(5))
    with pytest.raises(InputError, match="negatives"):
        triplet_loss(x, x, x[:2])
    with pytest.raises(InputError, match="labels"):
        supervised_contrastive_loss(x, torch.ones(5))


LABELS = np.repeat([0, 1, 2, -1], [12, 7, 3, 5])
PATIENTS = np.array([f"P{i % 5}" for i in range(len(LABELS))])


def test_as_many_pairs_as_published():
    pairs = sample_pairs(LABELS, PATIENTS, np.random.default_rng(0), per_class=10, negatives=4)
    assert len(pairs) == 10 * 9 + 7 * 6 + 3 * 2
    assert pairs.negatives.shape == (138, 4)
    assert len(np.unique(pairs.queries[LABELS[pairs.queries] == 0])) == 10
    assert len({(a, b) for a, b in zip(pairs.queries.tolist(), pairs.positives.tolist(), strict=True)}) == 138
    assert bool((pairs.queries != pairs.positives).all())
    assert bool((LABELS[pairs.queries] == LABELS[pairs.positives]).all())
    assert bool((LABELS[pairs.negatives] != LABELS[pairs.queries][:, None]).all())
    assert int(LABELS[pairs.negatives].min()) == 0
    assert len(np.unique(LABELS[pairs.queries][:10])) > 1
    published = sample_pairs(np.repeat(np.arange(8), 150), np.arange(1200), np.random.default_rng(0))
    assert published.negatives.shape == (8 * 100 * 99, 16)


def test_negatives_are_of_all_other_classes_alike_and_of_all_their_items():
    pairs = sample_pairs(LABELS, PATIENTS, np.random.default_rng(0), per_class=10, negatives=200)
    found = pairs.negatives[LABELS[pairs.queries] == 0]
    assert float((LABELS[found] == 2).mean()) == pytest.approx(0.5, abs=0.02)
    assert len(np.unique(pairs.negatives)) == 22


def test_scopes_part_all_pairs():
    rng = np.random.default_rng
    whole = sample_pairs(LABELS, PATIENTS, rng(0), per_class=50, negatives=1)
    same = sample_pairs(LABELS, PATIENTS, rng(0), per_class=50, negatives=1, scope="same")
    different = sample_pairs(LABELS, PATIENTS, rng(0), per_class=50, negatives=1, scope="different")
    assert bool((PATIENTS[same.queries] == PATIENTS[same.positives]).all())
    assert bool((PATIENTS[different.queries] != PATIENTS[different.positives]).all())
    assert len(same) + len(different) == len(whole)
    assert len(same) > 0


def test_chance_is_the_generators():
    one, two, three = (sample_pairs(LABELS, PATIENTS, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.negatives, two.negatives)
    assert np.array_equal(one.queries, two.queries)
    assert not np.array_equal(one.negatives, three.negatives)


def test_triplets_and_pairs_of_two():
    pairs = sample_pairs(LABELS, PATIENTS, np.random.default_rng(0), per_class=3, negatives=2)
    triplets = pairs.triplets()
    assert triplets.shape == (2 * len(pairs), 3)
    assert triplets[1].tolist() == [pairs.queries[0], pairs.positives[0], pairs.negatives[0, 1]]
    first, second, same = pairs.two_by_two()
    assert first.shape == second.shape == same.shape == (3 * len(pairs),)
    assert np.array_equal(LABELS[first] == LABELS[second], same)
    assert int(same.sum()) == len(pairs)


def test_nothing_to_pair_is_told():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="1 known classes"):
        sample_pairs([0, 0, -1], ["a", "b", "c"], rng)
    with pytest.raises(InputError, match="same patients"):
        sample_pairs([0, 0, 1], ["a", "b", "c"], rng, scope="same")
    with pytest.raises(InputError, match="patients"):
        sample_pairs([0, 0, 1], ["a", "b"], rng)
    with pytest.raises(InputError, match="scope"):
        sample_pairs([0, 1], ["a", "b"], rng, scope="all")
