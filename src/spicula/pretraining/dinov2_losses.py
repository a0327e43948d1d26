"""The three losses of DINOv2 and what keeps them from collapsing (needs torch).

References:
    Caron et al. 2021, arXiv 2104.14294 (DINO, centering); Zhou et al. 2022, arXiv 2111.07832 (iBOT); Caron et al. 2020,
    arXiv 2006.09882 (Sinkhorn-Knopp); Sablayrolles et al. 2019, arXiv 1806.03198 (KoLeo); Oquab et al. 2023, arXiv
    2304.07193, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

Reduce = Callable[[torch.Tensor], torch.Tensor]
"""Sums a tensor over all processes."""


def alone(values: torch.Tensor) -> torch.Tensor:
    """The sum over one process: the values themselves."""
    return values


@torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
def sinkhorn_knopp(
    logits: torch.Tensor, temperature: float, *, iterations: int = 3, reduce: Reduce = alone
) -> torch.Tensor:
    """Targets such that all prototypes are used alike: rows and columns brought to equal sums in turn.

    Args:
        logits: The teacher's, ``[n, prototypes]``.
        temperature: They are divided by it.
        iterations: Of rows and columns.
        reduce: Sums over processes, which share one assignment.

    Returns:
        float32 ``[n, prototypes]``; every row sums to 1.

    Example:
        >>> targets = sinkhorn_knopp(torch.tensor([[1.0, 0.0], [0.9, 0.0]]), 0.1)
        >>> [round(v, 2) for v in targets.sum(dim=1).tolist()]
        [1.0, 1.0]
    """
    # Not the matrix is rewritten in each iteration, but a factor of each row and each column. Every row's largest
    # value is taken out of it first: those of a sharp teacher would vanish in single precision.
    logits = logits.float()
    highest = logits.max(dim=1).values
    kernel = torch.exp((logits - highest[:, None]) / temperature)
    rows = torch.exp((highest.double() - 1.0) / temperature)  # cosines are at most 1
    rows = (rows / reduce((rows * kernel.sum(dim=1)).sum())).float()
    count = reduce(torch.tensor(float(len(kernel)), device=kernel.device))
    columns = torch.ones_like(kernel[0])
    for _ in range(iterations):
        columns = 1.0 / (reduce(kernel.T @ rows).clamp_min(1e-30) * kernel.shape[1])
        rows = 1.0 / ((kernel @ columns).clamp_min(1e-30) * count)
    return kernel.mul_(columns).mul_((rows * count)[:, None])


class Center:
    """Targets by subtracting a running mean of the teacher's logits (centering) before a sharp softmax.

    Args:
        value: ``[1, prototypes]``, updated in place.
        momentum: Share of the old mean that is kept.
        reduce: Sums over processes.
    """

    def __init__(self, value: torch.Tensor, *, momentum: float = 0.9, reduce: Reduce = alone) -> None:
        self.value, self.momentum, self.reduce = value, momentum, reduce

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def __call__(self, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        """Targets ``[n, prototypes]`` of the teacher's logits; then the mean moves toward theirs."""
        targets = functional.softmax((logits.float() - self.value) / temperature, dim=-1)
        count = self.reduce(torch.tensor(float(len(logits)), device=logits.device))
        mean = self.reduce(logits.float().sum(dim=0, keepdim=True)) / count
        self.value.mul_(self.momentum).add_(mean, alpha=1 - self.momentum)
        return targets


class _CrossEntropy(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """Its way back needs one softmax, and no copies of the targets."""

    @staticmethod
    def forward(ctx: Any, targets: torch.Tensor, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        scaled = logits.float() / temperature
        normalizer = torch.logsumexp(scaled, dim=-1, keepdim=True)
        mass = targets.sum(dim=-1, keepdim=True)
        ctx.save_for_backward(targets, scaled, normalizer, mass)
        ctx.temperature, ctx.dtype = temperature, logits.dtype
        return (normalizer * mass)[..., 0] - (targets * scaled).sum(dim=-1)

    @staticmethod
    def backward(ctx: Any, *above: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        targets, scaled, normalizer, mass = ctx.saved_tensors
        slope = torch.exp(scaled - normalizer).mul_(mass).sub_(targets)
        return None, slope.mul_((above[0] / ctx.temperature)[..., None]).to(ctx.dtype), None


def cross_entropy(targets: torch.Tensor, logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Of each row, ``[n]``: targets ``[n, prototypes]``, no gradient, against the student's logits."""
    told: torch.Tensor = _CrossEntropy.apply(targets, logits, temperature)
    return told


def dino_loss(
    targets: Sequence[torch.Tensor], global_logits: Sequence[torch.Tensor], local_logits: Sequence[torch.Tensor],
    *, temperature: float = 0.1,
) -> torch.Tensor:  # fmt: skip
    """DINO's loss on class tokens: each view is to say of an image what the teacher says of another.

    Args:
        targets: The teacher's of each global view, ``[n, prototypes]``.
        global_logits: The student's of each global view; each is compared with the other views' targets.
        local_logits: The student's of each local view; each is compared with all targets.
        temperature: Of the student.

    Returns:
        The mean over all pairs of views; as published: the sum over pairs divided by their number.
    """
    views = [*global_logits, *local_logits]
    whole = torch.stack(list(targets)).sum(dim=0)
    others = [whole - target for target in targets] + [whole] * (len(views) - len(targets))
    losses = [cross_entropy(target, logits, temperature).mean() for target, logits in zip(others, views, strict=True)]
    return torch.stack(losses).sum() / (len(targets) * (len(views) - 1))


def ibot_loss(
    targets: torch.Tensor, logits: torch.Tensor, weights: torch.Tensor, *, images: int, temperature: float = 0.1
) -> torch.Tensor:
    """iBOT's loss: of each masked patch the student is to say what the teacher, who sees it, says.

    Args:
        targets: The teacher's of all masked patches, ``[m, prototypes]``.
        logits: The student's.
        weights: ``[m]``: one over the number of masked patches in the patch's image.
        images: Number of images, masked or not.
        temperature: Of the student.

    Returns:
        The sum over images of each one's mean, divided by the number of images.
    """
    return (cross_entropy(targets, logits, temperature) * weights).sum() / images


def koleo_loss(tokens: torch.Tensor, *, eps: float = 1e-8) -> torch.Tensor:
    """Spread: the mean of minus the logarithm of each token's distance to its nearest neighbor in the batch.

    Args:
        tokens: Class tokens before the head, ``[n, width]``, n at least 2; of one view of each image.
        eps: Added to a distance.

    Example:
        >>> near = koleo_loss(torch.tensor([[1.0, 0.0], [1.0, 0.01]]))
        >>> far = koleo_loss(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> bool(near > far)
        True
    """
    with torch.autocast(tokens.device.type, enabled=False):
        unit = functional.normalize(tokens.float(), dim=-1, eps=eps)
        cosine = unit.detach() @ unit.detach().T
        cosine.fill_diagonal_(-2.0)  # below the cosine of opposites: nobody is their own neighbor
        neighbor = cosine.argmax(dim=1)
        distance = torch.linalg.vector_norm(unit - unit[neighbor] + eps, dim=-1)
        return -torch.log(distance + eps).mean()


def entropy(targets: torch.Tensor) -> torch.Tensor:
    """Mean entropy of rows of probabilities, in nats."""
    return -(targets * torch.log(targets.clamp_min(1e-12))).sum(dim=-1).mean()
