"""DINOv2's losses: laws, and the same numbers written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from spicula.pretraining.dinov2_losses import (  # noqa: E402
    Center,
    cross_entropy,
    dino_loss,
    entropy,
    ibot_loss,
    koleo_loss,
    sinkhorn_knopp,
)


def published_sinkhorn(logits, temperature, iterations=3):
    """As the paper's appendix writes it, in float64 numpy."""
    q = np.exp(np.asarray(logits, dtype=np.float64) / temperature).T
    prototypes, images = q.shape
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(axis=1, keepdims=True)
        q /= prototypes
        q /= q.sum(axis=0, keepdims=True)
        q /= images
    return (q * images).T


def test_sinkhorn_is_the_published_iteration():
    logits = torch.rand(16, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ours = sinkhorn_knopp(logits, 0.05)
    np.testing.assert_allclose(ours.numpy(), published_sinkhorn(logits.numpy(), 0.05), rtol=1e-4, atol=1e-6)


def test_sinkhorn_uses_all_prototypes_alike_where_the_softmax_uses_one():
    logits = torch.randn(64, 8, generator=torch.Generator().manual_seed(1)) * 0.05
    logits[:, 0] += 0.5
    targets = sinkhorn_knopp(logits, 0.1, iterations=20)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(64))
    torch.testing.assert_close(targets.mean(dim=0), torch.full((8,), 1 / 8), atol=1e-3, rtol=0)
    assert torch.softmax(logits / 0.1, dim=1)[:, 0].mean() > 0.9


def test_two_processes_share_one_assignment():
    logits = torch.rand(10, 6, generator=torch.Generator().manual_seed(2))
    whole = sinkhorn_knopp(logits, 0.1)
    parts = [logits[:4], logits[4:]]
    said = [[], []]

    def run(other):
        calls = iter(said[1 - other]) if said[1 - other] else None

        def reduce(x):
            said[other].append(x.clone())
            return x + next(calls) if calls is not None else x

        return sinkhorn_knopp(parts[other], 0.1, iterations=0, reduce=reduce)

    run(0)
    said[1] = []
    second = run(1)
    q = torch.exp((logits - 1) / 0.1)
    torch.testing.assert_close(second, q[4:] / q.sum() * 10, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.sum(dim=1), torch.ones(10))


def test_centering_subtracts_the_running_mean():
    value = torch.zeros(1, 3)
    center = Center(value, momentum=0.5)
    logits = torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    torch.testing.assert_close(center(logits, 1.0), torch.softmax(logits, dim=1))
    torch.testing.assert_close(value, torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(center(logits, 1.0), torch.softmax(logits - torch.tensor([1.0, 0, 0]), dim=1))


def test_the_dino_loss_is_the_mean_over_the_18_published_pairs():
    generator = torch.Generator().manual_seed(3)
    targets = [torch.softmax(torch.randn(4, 5, generator=generator), dim=1) for _ in range(2)]
    views = [torch.randn(4, 5, generator=generator) for _ in range(10)]
    pairs = [(t, v) for t in range(2) for v in range(10) if t != v]
    assert len(pairs) == 18
    by_hand = sum(cross_entropy(targets[t], views[v], 0.1).mean() for t, v in pairs) / 18
    torch.testing.assert_close(dino_loss(targets, views[:2], views[2:]), by_hand)


def test_a_view_is_never_compared_with_itself():
    sure = torch.tensor([[1.0, 0.0]])
    agrees, differs = torch.tensor([[9.0, -9.0]]), torch.tensor([[-9.0, 9.0]])
    assert float(dino_loss([sure, sure], [agrees, agrees], [])) < 1e-6
    assert float(dino_loss([sure, 1 - sure], [differs, agrees], [])) < 1e-6


def test_the_ibot_loss_weighs_images_alike_whatever_their_masks():
    targets = torch.full((5, 4), 0.25)
    logits = torch.zeros(5, 4)
    weights = torch.tensor([1.0, 0.25, 0.25, 0.25, 0.25])  # one image with one masked patch, one with four
    assert float(ibot_loss(targets, logits, weights, images=4)) == pytest.approx(2 * math.log(4) / 4)


def test_koleo_by_hand():
    tokens = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    eps = 1e-8
    first, others = math.sqrt(2.0), eps * math.sqrt(2)
    expected = -(math.log(first + eps) + 2 * math.log(others + eps)) / 3
    assert float(koleo_loss(tokens, eps=eps)) == pytest.approx(expected, rel=1e-3)


def test_koleo_never_takes_a_token_for_its_own_neighbor():
    assert float(koleo_loss(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))) == pytest.approx(-math.log(2.0), abs=1e-6)


def test_entropy():
    assert float(entropy(torch.full((3, 8), 1 / 8))) == pytest.approx(math.log(8), rel=1e-6)
    assert float(entropy(torch.eye(4))) == pytest.approx(0.0, abs=1e-6)


def test_a_very_sharp_teacher_gives_finite_targets_of_full_rows():
    logits = torch.tensor([[0.9, -0.9, 0.1], [0.2, 0.1, -0.5], [-1.0, -0.99, -0.98]])
    targets = sinkhorn_knopp(logits, 0.005)
    assert torch.isfinite(targets).all()
    assert torch.allclose(targets.sum(dim=1), torch.ones(3))


def test_the_gradient_of_the_cross_entropy_is_that_of_its_definition():
    torch.manual_seed(0)
    targets = 2 * torch.softmax(torch.randn(5, 7), dim=-1)
    logits = torch.randn(5, 7, dtype=torch.float64).float().requires_grad_()
    weights = torch.rand(5)
    plain = -(targets * torch.log_softmax(logits / 0.3, dim=-1)).sum(dim=-1)
    (expected,) = torch.autograd.grad((plain * weights).sum(), logits)
    loss = cross_entropy(targets, logits, 0.3)
    (found,) = torch.autograd.grad((loss * weights).sum(), logits)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(found, expected)
