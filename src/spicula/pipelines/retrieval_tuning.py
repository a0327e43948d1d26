"""Tune an encoder on pairs of nodules, as the lesion search does for retrieval (needs torch).

References:
    arXiv 2311.11014: SGD, contrastive loss with margin 0.8 on the cosine distance; triplets as in its code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.networks.checkpoint import append_log, finished_weights, resume_checkpoint, save_checkpoint, save_weights
from spicula.pipelines.pretrain_regions import filter_of, load_encoder
from spicula.pipelines.pretraining_loop import SHAPE, device_of_training
from spicula.pipelines.search_nodules import Pieces, slices_of

Loss: TypeAlias = Literal["contrastive", "triplet", "supervised"]
Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class TuningRecipe:
    """How an encoder is tuned.

    Args:
        loss: ``"contrastive"`` as published, ``"triplet"`` as in its code, or ``"supervised"`` (all pairs of a batch).
        margin: Of the first two.
        epochs: Over the pairs that each epoch draws.
        pairs: Most positive pairs of an epoch.
        per_class: Nodules of each class that an epoch draws.
        negatives: Nodules of other classes beside each positive pair.
        batch: Positive pairs of a step.
        rate: Learning rate of SGD at the start of a cosine.
        decay: Weight decay.
        seed: Of all chance.
    """

    loss: Loss = "contrastive"
    margin: float = 0.8
    epochs: int = 10
    pairs: int = 512
    per_class: int = 100
    negatives: int = 4
    batch: int = 16
    rate: float = 0.01
    decay: float = 5e-4
    seed: int = 0


def tuning_of(loss: Loss, margin: float | None = None) -> TuningRecipe:
    """The tuning by a loss, with the margin that goes with it if none is named: 0.8 as published, 1 of triplets."""
    usual = 1.0 if loss == "triplet" else 0.8
    return TuningRecipe(loss=loss, margin=usual if margin is None else margin)


def tune(
    pretrained: Path, out: Path, pieces: Pieces, label: Rows, patients: NDArray[np.str_], rows: Rows,
    recipe: TuningRecipe, *, middle: float,
) -> Any:  # fmt: skip
    """Tune an encoder on pairs of nodules, going on from its checkpoint if there is one.

    Args:
        pretrained: Folder of the encoder's pretraining.
        out: Where checkpoint, weights, shape and log go.
        pieces: Slices of the nodules.
        label: ``[n]`` class of each nodule.
        patients: ``[n]``.
        rows: Nodules to learn from.
        recipe: How.
        middle: What of a piece is seen in use.

    Returns:
        The encoder, ready for use.

    Raises:
        InputError: There is no finished pretraining, or one class alone.
    """
    if finished_weights(out) is None:
        if len(np.unique(label[rows])) < 2:
            raise InputError("classes of the nodules", got="one", expected="two or more")
        torch = require("torch", extra="train")
        encoder = load_encoder(pretrained).to(device_of_training())
        out.mkdir(parents=True, exist_ok=True)
        (out / SHAPE).write_text(json.dumps(asdict(encoder.shape), indent=1), encoding="utf-8")
        optimizer = torch.optim.SGD(encoder.parameters(), lr=recipe.rate, momentum=0.9, weight_decay=recipe.decay)
        first = resume_checkpoint(out, encoder, optimizer, {})
        for epoch in range(first, recipe.epochs):
            facts = _epoch(encoder, optimizer, pieces, label, patients, rows, recipe, middle=middle, epoch=epoch)
            append_log(out, {"epoch": epoch, **facts})
            save_checkpoint(out, epoch + 1, encoder, optimizer, {})
        save_weights(out, {name: value.cpu() for name, value in encoder.state_dict().items()})
    return load_encoder(out)


def _epoch(
    encoder: Any, optimizer: Any, pieces: Pieces, label: Rows, patients: NDArray[np.str_], rows: Rows,
    recipe: TuningRecipe, *, middle: float, epoch: int,
) -> Mapping[str, float]:  # fmt: skip
    from spicula.pretraining.pair_losses import sample_pairs

    torch = require("torch", extra="train")
    rng = np.random.default_rng((recipe.seed, epoch))
    torch.manual_seed(int(rng.integers(2**31)))
    drawn = sample_pairs(label[rows], patients[rows], rng, per_class=recipe.per_class, negatives=recipe.negatives)
    order = rng.permutation(len(drawn))[: recipe.pairs]
    steps = max(1, len(order) // recipe.batch)
    for group in optimizer.param_groups:
        group["lr"] = 0.5 * recipe.rate * (1 + np.cos(np.pi * epoch / recipe.epochs))
    of_nodule, device = slices_of(pieces), next(encoder.parameters()).device
    encoder.train()
    total = 0.0
    for step in range(steps):
        some = order[step * recipe.batch : (step + 1) * recipe.batch]
        nodules = np.stack([rows[drawn.queries[some]], rows[drawn.positives[some]]], axis=1)
        nodules = np.concatenate([nodules, rows[drawn.negatives[some]]], axis=1)
        shown = np.array([rng.choice(of_nodule[row]) for row in nodules.ravel()])
        vectors = _seen(encoder, pieces.hu[shown], rng, middle=middle)
        loss = _loss(vectors.reshape(*nodules.shape, -1), torch.from_numpy(label[nodules]).to(device), recipe)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) / steps
    encoder.eval()
    return {"loss": round(total, 5)}


def _seen(encoder: Any, hu: NDArray[np.int16], rng: np.random.Generator, *, middle: float) -> Any:
    """Vectors of one view of each piece."""
    from spicula.pretraining.region_views import compact_views, region_views

    torch = require("torch", extra="train")
    regions = torch.from_numpy(np.asarray(hu, dtype=np.float32)).to(next(encoder.parameters()).device)
    views = region_views(regions, compact_views(middle=middle), rng, filter_of=filter_of(encoder.shape))
    return encoder(views[0])


def _loss(vectors: Any, label: Any, recipe: TuningRecipe) -> Any:
    """Of vectors ``[pairs, 2 + negatives, d]``: query, one of its class, others of other classes."""
    from spicula.pretraining import pair_losses

    torch = require("torch", extra="train")
    if recipe.loss == "supervised":
        return pair_losses.supervised_contrastive_loss(vectors.flatten(0, 1), label.flatten())
    others = vectors.shape[1] - 1
    query = vectors[:, :1].expand(-1, others, -1)
    if recipe.loss == "triplet":
        positive = vectors[:, 1:2].expand(-1, others - 1, -1)
        parts = (query[:, 1:], positive, vectors[:, 2:])
        return pair_losses.triplet_loss(*(part.flatten(0, 1) for part in parts), margin=recipe.margin)
    same = torch.zeros(vectors.shape[0], others, dtype=torch.bool, device=vectors.device)
    same[:, 0] = True
    return pair_losses.contrastive_loss(
        query.flatten(0, 1), vectors[:, 1:].flatten(0, 1), same.flatten(), margin=recipe.margin
    )
