"""All slices of a nodule pooled by learned attention, on frozen features (needs torch).

References:
    Ilse et al. 2018, arXiv 1802.04712, equation 9 (gated attention).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.extras import require
from spicula.pipelines.ssm_features import Features, Rows


@dataclass(frozen=True, slots=True)
class PoolingRecipe:
    """How the attention is learned.

    Args:
        hidden: Features of the attention.
        steps: Over all nodules at once.
        rate: Learning rate.
        decay: Weight decay.
        drop: Share of the features that are left out in a step.
        seed: Of all chance.
    """

    hidden: int = 32
    steps: int = 150
    rate: float = 3e-3
    decay: float = 0.1
    drop: float = 0.3
    seed: int = 0


def attention_pooled_scores(
    features: Features, slices: Sequence[Rows], label: NDArray[np.bool_], fold_of: NDArray[np.intp],
    recipe: PoolingRecipe | None = None,
) -> NDArray[np.float64]:  # fmt: skip
    """Malignancy out of fold, the slices of each nodule weighed by attention.

    Args:
        features: ``[slices, f]``, or ``[folds, slices, f]`` where each fold has features of its own.
        slices: Of each nodule, places in the features.
        label: ``[n]``.
        fold_of: ``[n]``.
        recipe: How; the default one if None.

    Returns:
        Probabilities ``[n]``.
    """
    recipe = recipe or PoolingRecipe()
    scores = np.full(len(label), 0.5)
    for number, fold in enumerate(np.unique(fold_of)):
        own = features[number] if features.ndim == 3 else features
        learn = fold_of != fold
        seen = np.unique(np.concatenate([slices[n] for n in np.flatnonzero(learn).tolist()]))
        mean, spread = own[seen].mean(axis=0), own[seen].std(axis=0) + 1e-6
        bags, there = _bags((own - mean) / spread, slices)
        pool = _taught(bags[learn], there[learn], label[learn], recipe)
        scores[~learn] = _told(pool, bags[~learn], there[~learn])
    return scores


def _bags(features: Features, slices: Sequence[Rows]) -> tuple[Features, NDArray[np.bool_]]:
    """Features ``[n, most, f]``, filled up with zeros, and which of them are there."""
    most = max(len(some) for some in slices)
    bags = np.zeros((len(slices), most, features.shape[1]), dtype=np.float32)
    there = np.zeros((len(slices), most), dtype=np.bool_)
    for number, some in enumerate(slices):
        bags[number, : len(some)] = features[some]
        there[number, : len(some)] = True
    return bags, there


def _taught(bags: Features, there: NDArray[np.bool_], label: NDArray[np.bool_], recipe: PoolingRecipe) -> Any:
    torch = require("torch", extra="train")
    from spicula.networks.attention_pooling import AttentionPooling

    torch.manual_seed(recipe.seed)
    pool = AttentionPooling(bags.shape[2], hidden=recipe.hidden, drop=recipe.drop).train()
    optimizer = torch.optim.AdamW(pool.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    x, here, y = torch.from_numpy(bags), torch.from_numpy(there), torch.from_numpy(label.astype(np.float32))
    for _ in range(recipe.steps):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(pool(x, here)[0], y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return pool.eval()


def _told(pool: Any, bags: Features, there: NDArray[np.bool_]) -> NDArray[np.float64]:
    torch = require("torch", extra="train")
    with torch.inference_mode():
        logits, _ = pool(torch.from_numpy(bags), torch.from_numpy(there))
    return np.asarray(torch.sigmoid(logits).double().numpy())
