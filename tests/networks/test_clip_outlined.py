"""The compact tower for outlined nodules, and measures beside it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from spicula.core.errors import InputError


@pytest.fixture
def network(torch_seeded: Any) -> Any:
    from spicula.networks.clip_compact import CompactText
    from spicula.networks.clip_outlined import OutlinedVision, SemanticNetwork
    from spicula.networks.nodule_clip import NoduleClip

    text = CompactText(vocabulary=50, end_token=49, context=12, width=16, layers=1, heads=2, output_dim=24)
    clip = NoduleClip(OutlinedVision(width=4, output_dim=24), text, width=16)
    return SemanticNetwork(clip, measures=5, outputs=7).eval()


def planes(torch: Any) -> Any:
    both = torch.randn(3, 9, 2, 24, 24)
    both[:, :, 0] = both[:, :, 0] * 300 - 400
    both[:, :, 1] = (both[:, :, 1] > 0).float()
    return both


def test_without_measures_it_is_the_nodule_clip(network: Any, torch_seeded: Any) -> None:
    from spicula.networks.clip_outlined import SemanticNetwork

    network = SemanticNetwork(network.clip, measures=0, outputs=7).eval()
    seen, other = planes(torch_seeded), network.clip.image_side
    side, traits = network.image_side(seen, torch_seeded.zeros(3, 5))
    assert torch_seeded.allclose(side.embedding, other(seen).embedding, atol=1e-6)
    assert torch_seeded.allclose(side.logits, other(seen).logits, atol=1e-6)
    assert traits.shape == (3, 7)


def test_a_steps_gradient_agrees_with_float64(network: Any, torch_seeded: Any, words: Any) -> None:
    from spicula.networks.statement_losses import fitting_contrastive_loss, soft_cross_entropy

    seen, numbers, tokens = planes(torch_seeded), torch_seeded.randn(3, 5), words(3)
    double = copy.deepcopy(network).double()
    for each, kind in ((network, torch_seeded.float32), (double, torch_seeded.float64)):
        found = each(seen.to(kind), numbers.to(kind), tokens)
        own = torch_seeded.eye(3, dtype=torch_seeded.bool)
        loss = (
            fitting_contrastive_loss(found.image.embedding, found.text.embedding, each.clip.logit_scale, fits=own)
            + found.traits.square().mean()
        )
        share, weights = torch_seeded.tensor([0.0, 0.5, 1.0]), torch_seeded.tensor([1.0, 2.0])
        (loss + soft_cross_entropy(found.image.logits, share, weights=weights)).backward()
    grads = [
        torch_seeded.cat([p.grad.double().ravel() for p in each.parameters() if p.grad is not None])
        for each in (network, double)
    ]
    assert float((grads[0] - grads[1]).norm() / grads[1].norm()) < 1e-4


def test_odd_measures_are_held(network: Any, torch_seeded: Any) -> None:
    seen = planes(torch_seeded)
    network.measures.standardize_by(torch_seeded.zeros(5), torch_seeded.ones(5))
    far, farther = (network.image_side(seen, torch_seeded.full((3, 5), x))[0].embedding for x in (4.0, 1e6))
    assert torch_seeded.equal(far, farther)


def test_one_input_says_the_same(network: Any, torch_seeded: Any) -> None:
    from spicula.networks.clip_outlined import SemanticExport

    seen, numbers = planes(torch_seeded), torch_seeded.randn(3, 5)
    channel = torch_seeded.zeros(3, 9, 1, 24, 24)
    channel[:, 0, 0, 0, :5] = numbers
    packed = SemanticExport(network, 5)(torch_seeded.cat([seen, channel], dim=2)).detach().numpy()
    side, traits = network.image_side(seen, numbers)
    assert packed.shape == (3, 16 + 2 + 9 + 7)
    assert np.allclose(packed[:, :16], side.embedding.detach().numpy(), atol=1e-6)
    assert np.allclose(packed[:, -7:], traits.detach().numpy(), atol=1e-6)


def test_planes_without_an_outline_are_refused(network: Any, torch_seeded: Any) -> None:
    with pytest.raises(InputError, match="outline"):
        network.clip.vision_model(torch_seeded.zeros(2, 1, 24, 24))
