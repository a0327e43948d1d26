"""What encoders, and Frangi's response alone, call each lesion: frozen, tuned end to end, and from random weights.

References:
    arXiv 2311.11014 (features of SimCLR and of a VAE, Frangi's parameters).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.networks.checkpoint import cosine_rate, decay_groups, descend
from spicula.pipelines.lesion_regions import Lesions, Rows, pieces_of
from spicula.pipelines.pretrain_regions import filter_of
from spicula.pipelines.pretraining_loop import bfloat16_is_fast, device_of_training
from spicula.pipelines.search_arms import MAIN
from spicula.pipelines.search_nodules import Features, features_of_pieces, slices_of, unit
from spicula.pipelines.ssm_heads import HEADS
from spicula.transforms.frangi import frangi, frangi_of_the_code
from spicula.transforms.regions import region_input

LINEAR, BALANCED, NEIGHBORS = "frozen, linear", "frozen, linear, classes alike", "frozen, 5 neighbors"
TUNED, SCRATCH = "tuned end to end", "from random weights"
ALONE, SHOWN = "statistics, forest", "frozen encoder, linear, classes alike"
"""Ways of telling types: of an arm's encoder, and of a response: its statistics alone, or shown to the encoder.

A linear head whose classes count alike, however rare, is what macro F1 compares encoders by: where one class prevails,
the plain one may call nothing else.
"""


def _balanced() -> Any:
    return HEADS["linear"]().set_params(logisticregression__class_weight="balanced")


def _lines(**given: Any) -> Callable[[Features], NDArray[np.floating]]:
    return partial(frangi, batched=True, **given)


FILTERS: Mapping[str, Callable[[Features], NDArray[np.floating]]] = MappingProxyType({
    "as published (beta 0.6, gamma 0.0444), scales 2, 3": _lines(),
    "beta 0.3": _lines(beta=0.3), "beta 1.2": _lines(beta=1.2), "beta 5": _lines(beta=5.0),
    "gamma 0.0111": _lines(gamma=0.0111), "gamma 0.1776": _lines(gamma=0.1776),
    "gamma half of the largest S": _lines(gamma=None),
    "scale 1": _lines(sigmas=(1.0,)), "scale 2": _lines(sigmas=(2.0,)), "scale 3": _lines(sigmas=(3.0,)),
    "scales 1, 2, 3": _lines(sigmas=(1.0, 2.0, 3.0)), "scales 2, 4, 6": _lines(sigmas=(2.0, 4.0, 6.0)),
    "dark lines": _lines(bright=False),
    "as in the code (dark, beta 5, gamma 2e-8)": partial(frangi_of_the_code, batched=True),
})  # fmt: skip
"""One parameter changed at a time; alpha is of the plate term, which two dimensions do not have."""

GRAY = "no filter: gray values"

Called = dict[str, dict[str, list[int]]]
"""By question and way, the class that each lesion was called; -1 where it was not tested."""


@dataclass(frozen=True, slots=True)
class TeachingRecipe:
    """How a network is taught types end to end.

    Args:
        steps: Batches.
        scratch_steps: Of the supervised network that begins with random weights, which has more to learn.
        batch: Lesions of a batch, one slice of each; two or more.
        rate: Highest learning rate of AdamW.
        decay: Weight decay of matrices.
        seed: Of all chance.
    """

    steps: int = 200
    scratch_steps: int = 600
    batch: int = 32
    rate: float = 1e-3
    decay: float = 0.05
    seed: int = 0


def _rounds(lesions: Lesions) -> Iterator[tuple[int, str, Rows, Rows, Rows]]:
    """Number of each round, each question, its labels, and the rows of known class to learn from and to tell."""
    for number, one in enumerate(lesions.rounds):
        for question, label in lesions.labels.items():
            learn, test = lesions.known(question, one.learn), lesions.known(question, one.test)
            there = len(np.unique(label[learn]))
            if there < 2 or len(test) == 0:
                raise InputError(
                    f"{lesions.data}: {question}", got=f"{there} classes to learn, {len(test)} lesions to tell",
                    expected="two or more, and one or more",
                )  # fmt: skip
            yield number, question, label, learn, test


def _noted(called: Called, lesions: Lesions, question: str, way: str, rows: Rows, calls: NDArray[Any]) -> None:
    whole = called.setdefault(question, {}).setdefault(way, [-1] * len(lesions.patients))
    for row, call in zip(rows.tolist(), calls.tolist(), strict=True):
        whole[row] = int(call)


def calls_of_arm(lesions: Lesions, arm: str, teaching: TeachingRecipe) -> Called:
    """What the encoders of an arm call each lesion, in every way; the main arm's shape from random weights too."""
    from spicula.networks.resnet import RegionEncoder

    called: Called = {}
    encoders = [lesions.encoder(arm, number) for number in range(len(lesions.rounds))]
    features = [features_of_pieces(encoder, lesions.pieces, middle=lesions.middle) for encoder in encoders]
    for number, question, label, learn, test in _rounds(lesions):
        seen, encoder = features[number], encoders[number]
        heads = {LINEAR: (HEADS["linear"], seen), BALANCED: (_balanced, seen), NEIGHBORS: (HEADS["knn"], unit(seen))}
        for way, (make, shown) in heads.items():
            said = make().fit(shown[learn], label[learn]).predict(shown[test])
            _noted(called, lesions, question, way, test, said)
        starts = {TUNED: (encoder, teaching)}
        if arm == MAIN:
            require("torch", extra="train").manual_seed(teaching.seed + number)
            starts[SCRATCH] = (RegionEncoder(encoder.shape), replace(teaching, steps=teaching.scratch_steps))
        for way, (start, how) in starts.items():
            said = taught_calls(start, lesions, question, learn, test, how)
            _noted(called, lesions, question, way, test, said)
    return called


def taught_calls(
    start: Any, lesions: Lesions, question: str, learn: Rows, test: Rows, recipe: TeachingRecipe
) -> NDArray[np.intp]:
    """Tune a copy of an encoder with a linear layer on some lesions and tell the class of others.

    Args:
        start: The encoder, pretrained or not; it stays as it is.
        lesions: The lesions.
        question: Whose classes are learned.
        learn: Rows to learn from.
        test: Rows to tell.
        recipe: How.

    Raises:
        InputError: The loss is no longer finite.
    """
    torch = require("torch", extra="train")
    from spicula.networks.clip_losses import require_finite
    from spicula.pretraining.region_views import compact_views, region_views

    torch.manual_seed(recipe.seed)
    label, classes = lesions.labels[question], len(lesions.classes[question])
    head = torch.nn.Linear(getattr(start, "latent", start.shape.embedding), classes)
    torch.nn.init.zeros_(head.weight)
    share = (np.bincount(label[learn], minlength=classes) + 1.0) / (len(learn) + classes)
    head.bias.data = torch.from_numpy(np.log(share)).float()
    device = device_of_training()
    network = torch.nn.ModuleList([copy.deepcopy(start), head]).train().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(decay_groups(network, recipe.decay), lr=0.0)
    rng, slices = np.random.default_rng(recipe.seed), slices_of(lesions.pieces)
    one_view, response = replace(compact_views(middle=lesions.middle), views=1), filter_of(start.shape)
    fast = bfloat16_is_fast()
    order = np.concatenate([rng.permutation(learn) for _ in range(-(-recipe.steps * recipe.batch // len(learn)))])
    for step in range(recipe.steps):
        some = order[step * recipe.batch : (step + 1) * recipe.batch]
        hu = np.stack([lesions.pieces.hu[rng.choice(slices[row])] for row in some]).astype(np.float32)
        views = region_views(torch.from_numpy(hu).to(device), one_view, rng, filter_of=response)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast):
            said = head(network[0].features(views[0]))
        truth = torch.from_numpy(label[some].astype(np.int64)).to(device)
        loss = torch.nn.functional.cross_entropy(said.float(), truth)
        require_finite(loss, [f"step {step}"])
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(step, recipe.steps, rate=recipe.rate)
        descend(loss, network, optimizer)
    network.eval()
    whole = SimpleNamespace(
        shape=start.shape, features=lambda x: head(network[0].features(x)), parameters=network.parameters
    )  # fmt: skip
    logits = features_of_pieces(whole, pieces_of(lesions.pieces, test), middle=lesions.middle)
    return np.asarray(np.argmax(logits, axis=1))


def calls_of_filter(lesions: Lesions, name: str) -> Called:
    """What each lesion's middle slice is called by a filter's response.

    A forest on statistics of the response alone says what the filter tells by itself. A linear head on the main arm's
    frozen features, taught anew with this response as their second channel, says how much the encoder depends on the
    parameters that it was pretrained with: the encoder itself is not pretrained anew.

    Args:
        lesions: The lesions.
        name: In :data:`FILTERS`, or :data:`GRAY` for the gray values' statistics alone.
    """
    middle = np.array([some[len(some) // 2] for some in slices_of(lesions.pieces)])
    hu = np.asarray(lesions.pieces.hu[middle], dtype=np.float32)
    encoders = [lesions.encoder(MAIN, number) for number in range(len(lesions.rounds))]
    gray = region_input(hu, middle=lesions.middle, pixels=encoders[0].shape.pixels)[:, 0]
    response = gray if name == GRAY else np.asarray(FILTERS[name](gray), dtype=np.float32)
    ways: dict[str, tuple[Callable[[], Any], list[NDArray[Any]]]] = {
        ALONE: (HEADS["forest"], [statistics_of(response)] * len(encoders)),
    }
    if name != GRAY:
        ways[SHOWN] = (_balanced, [_features(encoder, np.stack([gray, response], axis=1)) for encoder in encoders])
    called: Called = {}
    for number, question, label, learn, test in _rounds(lesions):
        for way, (make, seen) in ways.items():
            said = make().fit(seen[number][learn], label[learn]).predict(seen[number][test])
            _noted(called, lesions, question, way, test, said)
    return called


def statistics_of(images: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean, deviation, quantiles and means of four rings about the middle of each image: ``[n, 10]``."""
    side = images.shape[-1]
    from_middle = np.hypot(*(np.indices((side, side)) - (side - 1) / 2)) / (side / 2)
    rings = [images[:, (from_middle >= k / 4) & (from_middle < (k + 1) / 4)].mean(axis=1) for k in range(4)]
    flat = images.reshape(len(images), -1)
    some = np.quantile(flat, (0.5, 0.75, 0.9, 0.99), axis=1)
    return np.stack([flat.mean(axis=1), flat.std(axis=1), *some, *rings], axis=1).astype(np.float64)


def _features(encoder: Any, seen: Features, *, batch: int = 128) -> Features:
    torch = require("torch", extra="train")
    with torch.inference_mode():
        parts = [encoder.features(torch.from_numpy(seen[at : at + batch])) for at in range(0, len(seen), batch)]
        return np.asarray(torch.cat(parts).float().numpy())
