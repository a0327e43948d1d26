"""The encoders that are compared: SimCLR with and without Frangi's response and learned pooling, and the VAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from spicula.pipelines.pretrain_regions import Method

Pool: TypeAlias = Literal["gem", "average", "max"]


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the encoders.

    Args:
        method: How it is pretrained.
        frangi: Whether it sees Frangi's response too.
        pool: How a feature map becomes a vector; a VAE's is always the average.
    """

    method: Method = "simclr"
    frangi: bool = True
    pool: Pool = "gem"


MAIN = "simclr + frangi + gem"
"""What ships, and what the paper proposes."""

ON_PAIRS = f"{MAIN}, tuned"
"""The same, tuned on pairs as the paper does."""

WITH_HEAD = f"{MAIN}, head"
"""The same under the head that ships."""

HEAD_ALONE = "measured numbers, head"
"""That head without what a network sees."""

ARMS: Mapping[str, Arm] = {
    MAIN: Arm(),
    "vae": Arm("vae", frangi=False, pool="average"),
    "simclr": Arm(frangi=False, pool="average"),
    "simclr + frangi": Arm(pool="average"),
    "simclr + gem": Arm(frangi=False),
    "simclr + frangi + max": Arm(pool="max"),
}
"""By name; all but the first are there to be compared with."""


@dataclass(frozen=True, slots=True)
class SearchRecipe:
    """How encoders are pretrained.

    Args:
        width: Of the ResNet: 64 as published, less for a CPU.
        epochs: Of each pretraining.
        published: Whether shape, views and optimizer are the paper's, not those for some thousand nodules on a CPU.
        latent: Numbers of the VAE's code.
        seed: Of all chance.
    """

    width: int = 24
    epochs: int = 30
    published: bool = False
    latent: int = 64
    seed: int = 0


def recipe_of(
    *, published: bool, width: int | None = None, epochs: int | None = None, latent: int | None = None, seed: int = 0
) -> SearchRecipe:  # fmt: skip
    """A recipe whose sizes, where none is named, are the paper's or those for a CPU.

    Args:
        published: Which.
        width: Of the ResNet.
        epochs: Of each pretraining.
        latent: Numbers of the VAE's code.
        seed: Of all chance.
    """
    sizes = (64, 1000, 256) if published else (32, 30, 64)
    given = [usual if one is None else one for one, usual in zip((width, epochs, latent), sizes, strict=True)]
    return SearchRecipe(width=given[0], epochs=given[1], published=published, latent=given[2], seed=seed)


def shape_of(arm: Arm, recipe: SearchRecipe) -> Any:
    """Shape of an arm's encoder."""
    from spicula.networks.resnet import compact_shape, published_shape

    channels = 2 if arm.frangi else 1
    whole = published_shape(channels=channels) if recipe.published else compact_shape(channels=channels)
    return replace(whole, width=recipe.width, pool=arm.pool)


def pretraining_of(arm: Arm, recipe: SearchRecipe) -> Any:
    """How an arm's encoder is pretrained."""
    from spicula.pretraining import simclr, vae

    if arm.method == "vae":
        found = vae.published_recipe() if recipe.published else vae.compact_recipe()
        return replace(found, epochs=recipe.epochs, latent=recipe.latent, seed=recipe.seed, warm=0.1 * recipe.epochs)
    if recipe.published:
        return replace(simclr.published_recipe(), epochs=recipe.epochs, seed=recipe.seed)
    return replace(simclr.compact_recipe(epochs=recipe.epochs), seed=recipe.seed)


def middle_of(recipe: SearchRecipe) -> float:
    """Side of what encoders see in use, as a share of the piece that is cut."""
    return float(pretraining_of(ARMS[MAIN], recipe).views.middle)
