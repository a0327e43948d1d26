"""A network of images and words, how it sees the nodules of a table, and what a trained one says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.extras import require
from spicula.pipelines.semantic_recipe import Recipe, Towers
from spicula.pipelines.semantic_table import SemanticTable
from spicula.transforms.outlined_cube import MIRRORS_ZYX, PIXEL_MM, PIXELS, SPACING_MM

PUBLISHED_PIXELS = 50
"""Rows and columns of a plane of the published tower, whose pixels are 1 mm."""

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
Weights = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """What a trained network says of nodules, the mean over their mirror images.

    Args:
        embedding: float64 ``[n, width]``, of length 1.
        logit: float64 ``[n]``, of malignancy.
        attention: float64 ``[n, planes]``.
    """

    embedding: Array
    logit: Array
    attention: Array


class Learned:
    """The part of a network that training changes: what is frozen is neither stored nor averaged.

    Args:
        network: A torch module.
        everything: Keep what is frozen as well, for it was learned before and nobody else has it.
    """

    def __init__(self, network: Any, *, everything: bool = False) -> None:
        torch = require("torch", extra="train")
        self.network = network
        state = network.state_dict(keep_vars=True)
        self.names = [
            name
            for name, value in state.items()
            if everything or not isinstance(value, torch.nn.Parameter) or value.requires_grad
        ]

    def state_dict(self) -> Weights:
        """What is learned, by name."""
        state = self.network.state_dict()
        return {name: state[name] for name in self.names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put it back."""
        self.network.load_state_dict({**self.network.state_dict(), **state})


def new_network(
    table: SemanticTable,
    towers: Towers,
    recipe: Recipe,
    *,
    vision_weights: Mapping[str, Any] | None = None,
    text_weights: Mapping[str, Any] | None = None,
) -> Any:
    """An untrained network of the right shape; what the tuning freezes is frozen.

    Args:
        table: The nodules; how many measures and traits they have.
        towers: Of what.
        recipe: How it will be trained.
        vision_weights: Pretrained weights of the image tower.
        text_weights: The same of the text tower.
    """
    torch = require("torch", extra="train")
    from spicula.networks import lora
    from spicula.networks.clip_outlined import SemanticNetwork

    torch.manual_seed(recipe.seed)
    clip = towers.make()
    for tower, pretrained in ((clip.vision_model, vision_weights), (clip.text_model, text_weights)):
        if pretrained is not None:
            tower.load_state_dict(dict(pretrained))
    {"lora": lora.add_lora, "ft": lora.tune_fully, "probe": lora.tune_heads}[recipe.tuning](clip)
    if recipe.modality == "vision":
        for part in (clip.text_model, clip.semantic_projection, clip.classifier_text):
            part.requires_grad_(False)
        clip.logit_scale.requires_grad_(False)
    outputs = table.shares.shape[1] + table.steps.shape[1]
    return SemanticNetwork(clip, measures=len(table.names) if recipe.measures else 0, outputs=outputs)


def planes_of(cubes: Any, changes: Any, *, published: bool = False) -> Any:
    """Nine planes of cubes ``[n, 2, side, side, side]`` as they are changed, in the pixels of a tower."""
    from spicula.networks.cube_planes import plane_grid, sample_planes

    pixels, pixel_mm = (PUBLISHED_PIXELS, 1.0) if published else (PIXELS, PIXEL_MM)
    grid = plane_grid(side=cubes.shape[-1], spacing_mm=SPACING_MM, pixels=pixels, pixel_mm=pixel_mm)
    return sample_planes(cubes, grid, changes, spacing_mm=SPACING_MM)


def as_seen(planes: Any, towers: Towers) -> Any:
    """Planes as the image tower takes them."""
    from spicula.networks.cube_planes import as_clip_planes
    from spicula.transforms.nodule_cube import WINDOW_HU

    if towers.image_size is None:
        return planes
    return as_clip_planes(planes, pixels=towers.image_size, window=WINDOW_HU)


def undisturbed(
    table: SemanticTable, rows: Rows, towers: Towers, device: Any, *, mirrored: bool = False
) -> list[tuple[Any, Any]]:
    """Planes and measures of nodules as they are, once or in each mirror image."""
    torch = require("torch", extra="train")
    from spicula.transforms.augment import Augmentation

    cubes = torch.from_numpy(table.cubes[rows, 0].astype(np.float32)).to(device)
    measures = torch.from_numpy(table.measures[rows, 0]).float().to(device)
    published = towers.image_size is not None
    flips = MIRRORS_ZYX if mirrored else MIRRORS_ZYX[:1]
    return [
        (as_seen(planes_of(cubes, Augmentation(flips_zyx=flip), published=published), towers), measures)
        for flip in flips
    ]


def see(table: SemanticTable, rows: Rows, weights: Weights, recipe: Recipe, towers: Towers) -> Views:
    """What a trained network says of undisturbed nodules, the mean over their mirror images."""
    torch = require("torch", extra="train")
    network = trained(table, weights, recipe, towers)
    parts = []
    with torch.no_grad():
        for some in np.array_split(rows, max(1, len(rows) // 32)):
            sides = [network.image_side(*view)[0] for view in undisturbed(table, some, towers, "cpu", mirrored=True)]
            mean = [sum(getattr(side, name) for side in sides) / len(sides) for name in ("embedding", "logits")]
            parts.append([*mean, sum(side.attention for side in sides) / len(sides)])
    embedding, logits, attention = (torch.cat(column).double().numpy() for column in zip(*parts, strict=True))
    embedding = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    return Views(embedding, logits[:, 1] - logits[:, 0], attention)


class Reader:
    """A trained network's text side.

    Args:
        network: As :func:`trained` gives it.
        towers: Whose tokenizer.
    """

    def __init__(self, network: Any, towers: Towers) -> None:
        self.network, self.towers = network, towers
        self.temperature = float(network.clip.logit_scale.detach().neg().exp())

    def read(self, texts: Sequence[str]) -> Array:
        """Embeddings ``[n, width]`` of texts, of length 1."""
        torch = require("torch", extra="train")
        ids = torch.from_numpy(self.towers.tokenizer.encode(texts).ids)
        with torch.no_grad():
            parts = [self.network.clip.text_side(some).embedding for some in ids.split(64)]
        return np.asarray(torch.cat(parts).double().numpy())


def reader(table: SemanticTable, weights: Weights, recipe: Recipe, towers: Towers) -> Reader:
    """The text side of a trained network."""
    return Reader(trained(table, weights, recipe, towers), towers)


def beside(embeddings: Sequence[Array]) -> Array:
    """Embeddings of several networks as one, whose cosines are the means of theirs, ``[n, networks * width]``."""
    return np.asarray(np.concatenate(embeddings, axis=1) / np.sqrt(len(embeddings)))


def read_beside(readers: Sequence[Reader]) -> Callable[[Sequence[str]], Array]:
    """What reads texts as :func:`beside` has images."""
    return lambda texts: beside([reader.read(texts) for reader in readers])


def trained(table: SemanticTable, weights: Weights, recipe: Recipe, towers: Towers) -> Any:
    """The network with what was learned, in evaluation mode, on the CPU, in float32."""
    torch = require("torch", extra="train")
    torch.set_num_threads(recipe.threads)
    network = new_network(table, towers, recipe)
    Learned(network, everything=recipe.pretrained).load_state_dict(weights)
    return network.eval()
