"""What images and words are trained on together: the contrastive loss and two classifiers' cross-entropies.

References:
    van den Oord et al. 2018, arXiv 1807.03748 (InfoNCE); Radford et al. 2021, arXiv 2103.00020 (both directions);
    Zhuang et al. 2025, arXiv 2504.21344, section 3.3. Departures, all off by default: nodules whose texts are equal may
    share the target (in the paper each is the other's negative); label smoothing (the authors' code has 0.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from spicula.core.errors import InputError
from spicula.networks.nodule_clip import ImageSide, TextSide

UNKNOWN = -1
"""Label of a nodule whose malignancy is not known: it is left out of the cross-entropies."""

PAPER_WEIGHTS = (1.0, 1.0, 1.0)
"""Of the contrastive loss and the cross-entropies of image and text: "all with equal weighting"."""

CODE_WEIGHTS = (1.0, 0.5, 0.5)
"""The same in the authors' code."""


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """The parts of one batch's loss, each a scalar.

    Args:
        total: Their weighted sum.
        contrastive: Mean of both directions of InfoNCE.
        image: Cross-entropy of the image's classifier.
        text: Cross-entropy of the text's classifier.
    """

    total: torch.Tensor
    contrastive: torch.Tensor
    image: torch.Tensor
    text: torch.Tensor


def contrastive_loss(
    image: torch.Tensor,
    text: torch.Tensor,
    logit_scale: torch.Tensor,
    *,
    smoothing: float = 0.0,
    targets: torch.Tensor | None = None,
) -> torch.Tensor:
    """Symmetric InfoNCE: the mean of the cross-entropies from images to texts and from texts to images.

    Computed in float32 or wider, also under mixed precision.

    Args:
        image: Embeddings ``[n, d]`` of length 1.
        text: Embeddings of the same nodules.
        logit_scale: Logarithm of the reciprocal temperature.
        smoothing: Share of the target that is spread over all of the batch.
        targets: ``[n, n]``, rows of sum 1 (see :func:`equal_text_targets`); the diagonal if None.

    Returns:
        A scalar; 0 for a batch of one, which has nothing to tell apart.

    Raises:
        InputError: The shapes do not fit.
    """
    count = image.shape[0]
    if image.shape != text.shape:
        raise InputError("text embeddings", got=tuple(text.shape), expected=f"{tuple(image.shape)} as the images'")
    if targets is None:
        targets = torch.eye(count, dtype=image.dtype, device=image.device)
    elif targets.shape != (count, count):
        raise InputError("targets", got=tuple(targets.shape), expected=f"({count}, {count})")
    with torch.autocast(image.device.type, enabled=False):
        similarity = logit_scale.exp() * _wide(image) @ _wide(text).T
    spread = (1.0 - smoothing) * targets.to(similarity.dtype) + smoothing / count
    to_text = -(spread * similarity.log_softmax(dim=1)).sum(dim=1).mean()
    to_image = -(spread.T * similarity.log_softmax(dim=0)).sum(dim=0).mean()
    loss: torch.Tensor = 0.5 * (to_text + to_image)
    return loss


def _wide(x: torch.Tensor) -> torch.Tensor:
    """In float32 at least: losses are not computed in half precision."""
    return x if x.dtype == torch.float64 else x.float()


def equal_text_targets(tokens: torch.Tensor) -> torch.Tensor:
    """Targets for a batch in which texts repeat: each nodule's is spread over all that have its very text.

    Args:
        tokens: Ids ``[n, context]``.

    Returns:
        ``[n, n]`` float32, symmetric, rows of sum 1.
    """
    same = (tokens[:, None] == tokens[None]).all(dim=-1).float()
    return same / same.sum(dim=1, keepdim=True)


def class_weights(labels: torch.Tensor) -> torch.Tensor:
    """Weights of benign and malignant that make both count alike: ``n / (2 n_class)``.

    Args:
        labels: Of the whole training set, 0, 1 or :data:`UNKNOWN`.

    Returns:
        ``[2]`` float32.

    Raises:
        InputError: A class is absent.
    """
    counts = torch.stack([(labels == value).sum() for value in (0, 1)]).float()
    if not bool((counts > 0).all()):
        raise InputError(
            "labels of the training set", got=f"{int(counts[0])} benign and {int(counts[1])} malignant nodules",
            expected="both classes", hint="train with other data, or with the contrastive loss alone",
        )  # fmt: skip
    return counts.sum() / (2.0 * counts)


def weighted_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, *, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean of the nodules' cross-entropies, weighted by their class; those of unknown label are left out.

    The weighted sum is divided by the sum of the weights, so that in a batch of one class the weight cancels and the
    loss is the plain mean. A batch without any known label has the loss 0.

    Args:
        logits: ``[n, 2]``.
        labels: ``[n]``, 0, 1 or :data:`UNKNOWN`.
        weights: ``[2]``; equal ones if None.

    Returns:
        A scalar.

    Raises:
        InputError: A label is something else.
    """
    if not bool(((labels >= UNKNOWN) & (labels <= 1)).all()):
        raise InputError("labels", got=labels.unique().tolist(), expected="0, 1 or -1 (unknown)")
    logits = _wide(logits)
    known = (labels >= 0).to(logits.dtype)
    of_class = labels.clamp(min=0).long()
    given = known if weights is None else known * weights.to(logits)[of_class]
    each = -logits.log_softmax(dim=1).gather(1, of_class[:, None])[:, 0]
    loss: torch.Tensor = (given * each).sum() / given.sum().clamp(min=torch.finfo(logits.dtype).tiny)
    return loss


def clip_losses(
    image: ImageSide,
    text: TextSide,
    *,
    labels: torch.Tensor,
    logit_scale: torch.Tensor,
    weights: Sequence[float] = PAPER_WEIGHTS,
    by_class: torch.Tensor | None = None,
    smoothing: float = 0.0,
    targets: torch.Tensor | None = None,
) -> Losses:
    """All that a batch is trained on.

    Args:
        image: What the image says, of ``n`` nodules.
        text: What the words say, of the same.
        labels: ``[n]``, 0 benign, 1 malignant, -1 unknown.
        logit_scale: The network's.
        weights: Of the contrastive loss, the image's and the text's cross-entropy.
        by_class: ``[2]``, as :func:`class_weights` gives them; equal ones if None.
        smoothing: Of the contrastive targets.
        targets: As in :func:`contrastive_loss`.

    Returns:
        The total and its parts.
    """
    contrastive = contrastive_loss(image.embedding, text.embedding, logit_scale, smoothing=smoothing, targets=targets)
    of_image = weighted_cross_entropy(image.logits, labels, weights=by_class)
    of_text = weighted_cross_entropy(text.logits, labels, weights=by_class)
    first, second, third = weights
    return Losses(first * contrastive + second * of_image + third * of_text, contrastive, of_image, of_text)


def require_finite(loss: Losses | torch.Tensor, batch_ids: Sequence[str]) -> None:
    """Stop before a step that would spoil the weights; to be called before ``backward``.

    Args:
        loss: Of the batch.
        batch_ids: Ids of its nodules.

    Raises:
        InputError: The loss is infinite or no number; the message names the parts and the nodules.
    """
    parts = {"total": loss} if isinstance(loss, torch.Tensor) else {
        name: getattr(loss, name) for name in ("total", "contrastive", "image", "text")
    }  # fmt: skip
    values = {name: float(value.detach()) for name, value in parts.items()}
    if all(math.isfinite(value) for value in values.values()):
        return
    raise InputError(
        f"loss of the batch {', '.join(batch_ids)}",
        got=", ".join(f"{name} {value:g}" for name, value in values.items()),
        expected="finite numbers",
        hint="the last good state is kept: look at these nodules, or resume with a lower learning rate",
    )
