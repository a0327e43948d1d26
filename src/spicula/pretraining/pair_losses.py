"""Losses that draw embeddings of one class together and push others away, and the pairs they learn from (needs torch).

References:
    Hadsell et al. 2006, doi:10.1109/CVPR.2006.100 (contrastive); Schroff et al. 2015, arXiv 1503.03832 (triplets);
    Khosla et al. 2020, arXiv 2004.11362 (supervised contrastive); "Lesion Search with Self-supervised Learning" 2023,
    arXiv 2311.11014: the text has the contrastive loss with margin 0.8, the authors' code triplets with margin 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional

from spicula.core.errors import InputError

Scope: TypeAlias = Literal["any", "same", "different"]
Indices: TypeAlias = NDArray[np.intp]


def contrastive_loss(
    first: torch.Tensor, second: torch.Tensor, same: torch.Tensor, *, margin: float = 0.8
) -> torch.Tensor:
    """Squared distance of pairs of one class, squared lack of distance of other pairs; distance: 1 minus the cosine.

    Args:
        first: ``[n, d]``, of any length.
        second: ``[n, d]``.
        same: ``[n]``, 1 or True where both are of one class.
        margin: Other pairs farther apart than this cost nothing.

    Returns:
        The mean over the pairs.

    Raises:
        InputError: The shapes do not fit.

    References:
        Hadsell et al. 2006, equation 4. Departures: the distance is the cosine's, and there are no factors of one half.
    """
    _require_alike(first, second, "second vectors")
    if same.shape != first.shape[:1]:
        raise InputError("same", got=tuple(same.shape), expected=tuple(first.shape[:1]))
    distance = 1.0 - (_unit(first) * _unit(second)).sum(dim=1)
    alike = same.to(distance.dtype)
    lack = (margin - distance).clamp_min(0.0)
    loss: torch.Tensor = (alike * distance.square() + (1.0 - alike) * lack.square()).mean()
    return loss


def triplet_loss(
    query: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, *, margin: float = 1.0
) -> torch.Tensor:
    """How much the distance to a negative lacks of the distance to a positive and a margin, of unit vectors.

    Args:
        query: ``[n, d]``, of any length.
        positive: ``[n, d]``, of the query's class.
        negative: ``[n, d]``, of another.
        margin: In distances between unit vectors, 0 to 2; 1 in the authors' code.

    Returns:
        The mean over the triplets.

    Raises:
        InputError: The shapes do not fit.

    References:
        Schroff et al. 2015, equation 3. Departure, as in the authors' code: distances are not squared.
    """
    _require_alike(query, positive, "positives")
    _require_alike(query, negative, "negatives")
    near, far = (torch.linalg.vector_norm(_unit(query) - _unit(x), dim=1) for x in (positive, negative))
    return (near - far + margin).clamp_min(0.0).mean()


def supervised_contrastive_loss(
    vectors: torch.Tensor, labels: torch.Tensor, *, temperature: float = 0.1
) -> torch.Tensor:
    """Each vector is to find all others of its class among all others of the batch.

    Args:
        vectors: ``[n, d]``, of any length.
        labels: Integers ``[n]``.
        temperature: Cosines are divided by it.

    Returns:
        The mean over the vectors that have another of their class; 0 where none has.

    Raises:
        InputError: The shapes do not fit.

    References:
        Khosla et al. 2020, equation 2 (the sum outside of the logarithm). Departure: the mean in place of the sum.
    """
    if labels.shape != vectors.shape[:1]:
        raise InputError("labels", got=tuple(labels.shape), expected=tuple(vectors.shape[:1]))
    unit = _unit(vectors)
    oneself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    with torch.autocast(unit.device.type, enabled=False):
        logits = (unit @ unit.T / temperature).masked_fill(oneself, -torch.inf)
    said = logits.log_softmax(dim=1).masked_fill(oneself, 0.0)
    mates = (labels[:, None] == labels[None]) & ~oneself
    count = mates.sum(dim=1)
    each = -(said * mates).sum(dim=1) / count.clamp_min(1)
    loss: torch.Tensor = each.sum() / (count > 0).sum().clamp_min(1)
    return loss


def _unit(x: torch.Tensor) -> torch.Tensor:
    return functional.normalize(x if x.dtype == torch.float64 else x.float(), dim=1)


def _require_alike(first: torch.Tensor, other: torch.Tensor, what: str) -> None:
    if first.ndim != 2 or other.shape != first.shape:
        raise InputError(what, got=tuple(other.shape), expected=f"[n, d] as the first, {tuple(first.shape)}")


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Queries, each with one of its class and some of others; indices of the items they were drawn from.

    Args:
        queries: ``[m]``.
        positives: ``[m]``.
        negatives: ``[m, k]``.
    """

    queries: Indices
    positives: Indices
    negatives: Indices

    def __len__(self) -> int:
        return len(self.queries)

    def triplets(self) -> Indices:
        """Query, positive and negative, ``[m * k, 3]``, for :func:`triplet_loss`; those of a query are neighbors."""
        many = self.negatives.shape[1]
        pairs = np.stack([self.queries, self.positives], axis=1).repeat(many, axis=0)
        return np.concatenate([pairs, self.negatives.reshape(-1, 1)], axis=1)

    def two_by_two(self) -> tuple[Indices, Indices, NDArray[np.bool_]]:
        """First, second and whether they are of one class, each ``[m * (1 + k)]``, for :func:`contrastive_loss`."""
        others = np.concatenate([self.positives[:, None], self.negatives], axis=1)
        same = np.zeros(others.shape, dtype=bool)
        same[:, 0] = True
        return self.queries.repeat(others.shape[1]), others.ravel(), same.ravel()


def sample_pairs(
    labels: ArrayLike, patients: ArrayLike, rng: np.random.Generator, *, per_class: int = 100, negatives: int = 16,
    scope: Scope = "any",
) -> Pairs:  # fmt: skip
    """The published pairs: all ordered pairs of some items of a class, each with random items of other classes.

    For a negative another class is drawn first, each alike, then any of its items, so that rare classes count as
    common ones do.

    Args:
        labels: Integers ``[n]``; items of negative ones, whose class is not known, are left out.
        patients: ``[n]``, whose each is.
        rng: Source of all chance.
        per_class: Items of a class that are drawn, or all where there are not as many.
        negatives: Of each pair.
        scope: Whether both of a pair are of ``"any"`` patients, of the ``"same"`` or of ``"different"`` ones; negatives
            are of any.

    Returns:
        Shuffled pairs.

    Raises:
        InputError: The lengths differ, the scope is unknown, there is one class alone, or no pair at all.
    """
    label, patient = np.asarray(labels), np.asarray(patients)
    if label.ndim != 1 or patient.shape != label.shape:
        raise InputError("patients", got=patient.shape, expected=f"one of each of the labels, {label.shape}")
    if scope not in ("any", "same", "different"):
        raise InputError("scope", got=repr(scope), expected="'any', 'same' or 'different'")
    classes = [np.flatnonzero(label == value) for value in np.unique(label[label >= 0])]
    if len(classes) < 2:
        raise InputError("labels", got=f"{len(classes)} known classes", expected="at least 2")
    drawn = [rng.permutation(items)[:per_class] for items in classes]
    pairs = [_ordered(items, patient, scope) for items in drawn]
    of_class = np.repeat(np.arange(len(classes)), [len(found) for found in pairs])
    both = np.concatenate(pairs)
    if len(both) == 0:
        raise InputError(
            "labels and patients", got=f"no two items of one class and {scope} patients", expected="at least one pair",
            hint="give more items, or another scope",
        )  # fmt: skip
    others = _negatives(classes, of_class, negatives, rng)
    order = rng.permutation(len(both))
    return Pairs(both[order, 0], both[order, 1], others[order])


def _ordered(items: Indices, patient: NDArray[np.generic], scope: Scope) -> Indices:
    """All ordered pairs of two items that the scope lets through, ``[m, 2]``."""
    first, second = (part.ravel() for part in np.meshgrid(items, items, indexing="ij"))
    kept = first != second
    if scope != "any":
        kept &= (patient[first] == patient[second]) == (scope == "same")
    return np.stack([first[kept], second[kept]], axis=1)


def _negatives(classes: list[Indices], of_class: Indices, count: int, rng: np.random.Generator) -> Indices:
    """Random items of random other classes, ``[m, count]``."""
    shape = (len(of_class), count)
    other = rng.integers(len(classes) - 1, size=shape)
    other += other >= of_class[:, None]
    sizes = np.array([len(items) for items in classes])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    place = starts[other] + rng.integers(sizes[other])
    return np.concatenate(classes)[place]
