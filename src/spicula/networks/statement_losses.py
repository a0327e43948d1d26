"""Losses of words that may fit several nodules, and of labels that are shares of readers (needs torch).

References:
    van den Oord et al. 2018, arXiv 1807.03748 (InfoNCE). Departure: the target of an image is spread over all texts of
    the batch that fit it, and that of a text over all images that it fits.
"""

from __future__ import annotations

import torch

from spicula.core.errors import InputError


def fitting_contrastive_loss(
    image: torch.Tensor, text: torch.Tensor, logit_scale: torch.Tensor, *, fits: torch.Tensor
) -> torch.Tensor:
    """Symmetric InfoNCE in which nothing that fits is a negative.

    Where each text fits its own image only, it is :func:`spicula.networks.clip_losses.contrastive_loss`.

    Args:
        image: Embeddings ``[n, d]`` of length 1.
        text: Embeddings of the same nodules.
        logit_scale: Logarithm of the reciprocal temperature.
        fits: bool ``[n, n]``, images by texts; the diagonal is True.

    Returns:
        A scalar, float32 or wider, less the least it can be: 0 where all that fits is equally near and nothing else.

    Raises:
        InputError: The shapes do not fit, or a text does not fit its own image.
    """
    count = image.shape[0]
    if image.shape != text.shape or fits.shape != (count, count):
        got = f"images {tuple(image.shape)}, texts {tuple(text.shape)}, fits {tuple(fits.shape)}"
        raise InputError("embeddings", got=got, expected="[n, d], [n, d] and [n, n]")
    if not bool(fits.diagonal().all()):
        raise InputError("fits", got="a text that does not fit its own image", expected="True on the diagonal")
    wide = torch.float64 if image.dtype == torch.float64 else torch.float32
    with torch.autocast(image.device.type, enabled=False):
        similarity = logit_scale.exp() * image.to(wide) @ text.to(wide).T
    fitting = fits.to(similarity.dtype)
    to_text = fitting / fitting.sum(dim=1, keepdim=True)
    to_image = fitting / fitting.sum(dim=0, keepdim=True)
    least = to_text.mul(to_text.clamp(min=1e-12).log()).sum() + to_image.mul(to_image.clamp(min=1e-12).log()).sum()
    cross = (to_text * similarity.log_softmax(dim=1)).sum() + (to_image * similarity.log_softmax(dim=0)).sum()
    loss: torch.Tensor = 0.5 * (least - cross) / count
    return loss


def soft_cross_entropy(logits: torch.Tensor, share: torch.Tensor, *, weights: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of two classes against shares, each class as heavy as it is told.

    For shares of 0 and 1 it is :func:`spicula.networks.clip_losses.weighted_cross_entropy`.

    Args:
        logits: ``[n, 2]``.
        share: ``[n]``, how far class 1 holds, 0 to 1.
        weights: ``[2]`` of the classes.

    Returns:
        A scalar, float32 or wider.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    goal = torch.stack([1.0 - share, share], dim=1).to(wide.dtype) * weights.to(wide)
    loss: torch.Tensor = -(goal * wide.log_softmax(dim=1)).sum() / goal.sum()
    return loss
