"""Losses of words that fit several nodules."""

from __future__ import annotations

from typing import Any

import pytest

from spicula.core.errors import InputError


def embeddings(torch: Any, count: int = 6, width: int = 8) -> tuple[Any, Any, Any]:
    image, text = (torch.nn.functional.normalize(torch.randn(count, width).double(), dim=1) for _ in range(2))
    return image.requires_grad_(), text.requires_grad_(), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)


def test_words_of_one_nodule_alone_give_info_nce(torch_seeded: Any) -> None:
    from spicula.networks.clip_losses import contrastive_loss
    from spicula.networks.statement_losses import fitting_contrastive_loss

    image, text, scale = embeddings(torch_seeded)
    own = torch_seeded.eye(6, dtype=torch_seeded.bool)
    assert torch_seeded.allclose(
        fitting_contrastive_loss(image, text, scale, fits=own), contrastive_loss(image, text, scale)
    )


def test_gradients_are_those_of_finite_differences(torch_seeded: Any) -> None:
    from spicula.networks.statement_losses import fitting_contrastive_loss

    fits = torch_seeded.rand(6, 6) < 0.3
    fits.fill_diagonal_(True)
    assert torch_seeded.autograd.gradcheck(
        lambda *inputs: fitting_contrastive_loss(*inputs, fits=fits), embeddings(torch_seeded)
    )


def test_nothing_is_lost_where_all_that_fits_is_near(torch_seeded: Any) -> None:
    from spicula.networks.statement_losses import fitting_contrastive_loss

    group = torch_seeded.tensor([0, 0, 1, 2])
    vectors = torch_seeded.eye(3)[group]
    fits = group[:, None] == group
    scale = torch_seeded.tensor(4.6)
    assert float(fitting_contrastive_loss(vectors, vectors, scale, fits=fits)) == pytest.approx(0.0, abs=1e-6)
    assert float(fitting_contrastive_loss(vectors, vectors[[2, 3, 0, 1]], scale, fits=fits)) > 10


def test_a_text_that_misses_its_own_image_is_refused(torch_seeded: Any) -> None:
    from spicula.networks.statement_losses import fitting_contrastive_loss

    image, text, scale = embeddings(torch_seeded)
    with pytest.raises(InputError, match="diagonal"):
        fitting_contrastive_loss(image, text, scale, fits=torch_seeded.zeros(6, 6, dtype=torch_seeded.bool))


def test_shares_of_zero_and_one_give_the_weighted_cross_entropy(torch_seeded: Any) -> None:
    from spicula.networks.clip_losses import weighted_cross_entropy
    from spicula.networks.statement_losses import soft_cross_entropy

    logits, labels = torch_seeded.randn(9, 2), torch_seeded.tensor([0, 1, 1, 0, 0, 0, 1, 0, 0])
    weights = torch_seeded.tensor([0.7, 1.9])
    assert torch_seeded.allclose(
        soft_cross_entropy(logits, labels.float(), weights=weights),
        weighted_cross_entropy(logits, labels, weights=weights),
    )
