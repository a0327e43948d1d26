"""Teach the search head: nodules that turned out alike, and look alike to readers, are drawn together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.extras import require

Rows = NDArray[np.intp]
Array = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """How the head is taught.

    Args:
        members: Networks side by side.
        hidden: Features between.
        dimensions: Of each network's vector.
        epochs: Over all nodules.
        batch: Nodules of a step.
        rate: Learning rate at the start of a cosine.
        decay: Weight decay.
        temperature: Cosines are divided by it.
        traits: What of a pair's closeness depends on the traits that both have; the rest on the outcome alone.
        seed: Of all chance.
    """

    members: int = 4
    hidden: int = 128
    dimensions: int = 24
    epochs: int = 100
    batch: int = 128
    rate: float = 2e-3
    decay: float = 0.2
    temperature: float = 0.2
    traits: float = 0.7
    seed: int = 0


def fit_head(features: Array, measured: Array, outcomes: Array, rows: Rows, recipe: HeadRecipe) -> Any:
    """Fit the head on some nodules.

    Pairs of one outcome attract each other, the more the more traits they share; all others repel.

    Args:
        features: ``[n, f]`` of regions.
        measured: ``[n, variants, m]`` numbers of the outline; the first variant is the nodule as it is.
        outcomes: ``[n, 1 + traits]`` 0 or 1: how it turned out, then the traits.
        rows: Nodules to learn from.
        recipe: How.

    Returns:
        A :class:`spicula.networks.search_head.SearchHead` in evaluation mode.

    References:
        Khosla et al. 2020, arXiv 2004.11362, equation 2, with weighted positives.
    """
    torch = require("torch", extra="train")
    from spicula.networks.search_head import SearchHead

    whole = inputs_of(features, measured)
    known = whole[rows, 0]
    torch.manual_seed(recipe.seed)
    head = SearchHead(
        torch.from_numpy(known.mean(axis=0)), torch.from_numpy(np.maximum(known.std(axis=0), 1e-6)),
        members=recipe.members, hidden=recipe.hidden, dimensions=recipe.dimensions,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    told = torch.from_numpy(np.asarray(outcomes, dtype=np.float32))
    rng = np.random.default_rng(recipe.seed)
    size = min(recipe.batch, len(rows))
    steps = len(rows) // size
    head.train()
    for epoch in range(recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * recipe.rate * (1 + np.cos(np.pi * epoch / recipe.epochs))
        order = rng.permutation(rows)
        for step in range(steps):
            some = order[step * size : (step + 1) * size]
            seen = torch.from_numpy(whole[some, rng.integers(whole.shape[1], size=len(some))])
            close = closeness(told[torch.from_numpy(some)], traits=recipe.traits)
            losses = [contrast(vectors, close, temperature=recipe.temperature) for vectors in head.apart(seen)]
            optimizer.zero_grad(set_to_none=True)
            torch.stack(losses).sum().backward()
            optimizer.step()
    return head.eval()


def inputs_of(features: Array, measured: Array) -> NDArray[np.float32]:
    """What the head sees: features and each variant's numbers, float32 ``[n, variants, f + m]``."""
    variants = measured.shape[1]
    repeated = np.repeat(features[:, None], variants, axis=1)
    return np.concatenate([repeated, measured], axis=2).astype(np.float32)


def vectors_of(head: Any, features: Array, measured: Array) -> NDArray[np.float32]:
    """Vectors ``[n, d]`` of nodules as they are."""
    torch = require("torch", extra="train")
    with torch.inference_mode():
        return np.asarray(head(torch.from_numpy(inputs_of(features, measured[:, :1])[:, 0])).numpy())


def closeness(outcomes: Any, *, traits: float) -> Any:
    """How much each pair ``[n, n]`` is drawn together: 0 for different outcomes, up to 1 for all traits alike."""
    alike = (outcomes[:, None] == outcomes[None]).float()
    return alike[..., 0] * (1 - traits + traits * alike[..., 1:].mean(dim=-1))


def contrast(vectors: Any, close: Any, *, temperature: float) -> Any:
    """Cross-entropy of finding the close ones among all others, each as often as it is close.

    Args:
        vectors: Unit vectors ``[n, d]``.
        close: ``[n, n]``, 0 or more; what stands on the diagonal does not count.
        temperature: Cosines are divided by it.
    """
    torch = require("torch", extra="train")
    itself = torch.eye(len(vectors), dtype=torch.bool)
    logits = (vectors @ vectors.T / temperature).masked_fill(itself, -torch.inf)
    share = close.masked_fill(itself, 0.0)
    found = (share * logits.log_softmax(dim=1).masked_fill(itself, 0.0)).sum(dim=1)
    return -(found / share.sum(dim=1).clamp_min(1e-6)).mean()
