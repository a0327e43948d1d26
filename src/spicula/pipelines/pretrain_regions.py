"""Pretrain encoders of regions without labels, by SimCLR or in a VAE; a killed pretraining goes on exactly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.networks.checkpoint import finished_weights, resume_checkpoint, save_checkpoint, save_weights
from spicula.pipelines.pretraining_loop import (
    SHAPE,
    Probe,
    Report,
    Rows,
    accelerator_of,
    begun,
    chance_of_step,
    others_of,
    run_epochs,
    shuffled,
)
from spicula.pipelines.slice_table import SliceTable
from spicula.transforms.frangi import frangi

Method: TypeAlias = Literal["simclr", "vae"]


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """What differs from method to method.

    Args:
        network: What is trained.
        encoder: The part of it that is kept.
        optimizer: At rest.
        schedule: Sets the rate at a step.
        views: Takes HU of regions and of their mates and a source of chance; gives what the network sees.
        losses: Takes what it sees and the group of each region; gives what is descended and its parts by name.
        check: Takes the mean parts of an epoch and its name; stops where it collapsed.
    """

    network: Any
    encoder: Any
    optimizer: Any
    schedule: Any
    views: Callable[[Any, Any, np.random.Generator], Any]
    losses: Callable[[Any, Any], Any]
    check: Callable[[Mapping[str, float], str], None]


def pretrain_regions(
    table: SliceTable,
    rows: Rows,
    out: Path,
    *,
    method: Method,
    shape: Any,
    recipe: Any,
    probe: Probe | None = None,
    probe_every: int = 5,
    threads: int = 1,
    report: Report = print,
) -> dict[str, Any]:
    """Pretrain an encoder, going on from its checkpoint if there is one.

    Args:
        table: Slices.
        rows: Those to learn from.
        out: For ``checkpoint.safetensors``, ``weights.safetensors`` (the encoder), ``shape.json`` and ``log.jsonl``.
        method: ``"simclr"`` or ``"vae"``.
        shape: A :class:`spicula.networks.resnet.RegionShape`; with two channels, the second is Frangi's response.
        recipe: A :class:`spicula.pretraining.simclr.SimclrRecipe` or :class:`spicula.pretraining.vae.VaeRecipe`.
        probe: Told in the log every few epochs.
        probe_every: Epochs.
        threads: Of torch.
        report: Takes one line of progress.

    Returns:
        Weights of the encoder, by name.

    Raises:
        InputError: Fewer images than a batch, images that show nothing, a loss that is not finite, or features that
            collapsed; the checkpoint holds the last good epoch.
        MissingExtraError: A package of the extra ``train`` is not installed.
    """
    done = begun(table, rows, out, shape=shape, recipe=recipe)
    if done is not None:
        return done
    training = _Training(table, rows, method, shape, recipe, threads)
    first = resume_checkpoint(out, training.parts.network, training.parts.optimizer, {})
    encoder = training.parts.encoder
    run_epochs(
        out, first, epochs=recipe.epochs, epoch=training.epoch, images=training.steps * training.images,
        save=lambda done: save_checkpoint(out, done, training.parts.network, training.parts.optimizer, {}),
        accelerator=training.accelerator, probe=None if probe is None else lambda: probe(encoder),
        probe_every=probe_every, report=report,
    )  # fmt: skip
    weights = {name: value.cpu() for name, value in encoder.state_dict().items()}
    if training.accelerator.is_main_process:
        save_weights(out, weights)
    return weights


def filter_of(shape: Any) -> Callable[[NDArray[np.float32]], NDArray[np.floating]] | None:
    """What makes the second channel of an encoder's regions; None for one channel.

    Raises:
        InputError: The encoder has more than two.
    """
    if shape.channels not in (1, 2):
        raise InputError("channels of the regions", got=shape.channels, expected="1, or 2 with Frangi's response")
    return partial(frangi, batched=True) if shape.channels == 2 else None


class _Training:
    """A pretraining: everything that stays the same from epoch to epoch."""

    def __init__(self, table: SliceTable, rows: Rows, method: Method, shape: Any, recipe: Any, threads: int) -> None:
        self.accelerator = accelerator_of(seed=recipe.seed, threads=threads)
        self.device, self.table, self.rows, self.recipe = self.accelerator.device, table, rows, recipe
        self.images = recipe.batch * self.accelerator.num_processes
        self.steps = max(1, len(rows) // self.images)
        self.parts = _PARTS[method](shape, recipe, self.accelerator, self.steps, self.images)
        self.others = others_of(table, rows)
        self.group_of = {row: number for number, row in enumerate(sorted({int(o[0]) for o in self.others.values()}))}

    def epoch(self, epoch: int) -> dict[str, float]:
        """One pass; the mean of each part of the loss."""
        totals: dict[str, float] = {}
        rng = np.random.default_rng((self.recipe.seed, epoch))
        need = self.steps * self.images
        order = shuffled(self.rows, need, rng)
        self.parts.network.train()
        for step in range(self.steps):
            at = step * self.images + self.accelerator.process_index * self.recipe.batch
            for name, value in self._step(order[at : at + self.recipe.batch], epoch, step).items():
                totals[name] = totals.get(name, 0.0) + float(value) / self.steps
        self.parts.check(totals, f"epoch {epoch}")
        self.parts.network.eval()
        return {name: round(value, 5) for name, value in totals.items()}

    def _step(self, rows: Rows, epoch: int, step: int) -> Mapping[str, Any]:
        from spicula.networks.clip_losses import require_finite

        torch, recipe = require("torch", extra="train"), self.recipe
        rng = chance_of_step(recipe.seed, epoch, step, self.accelerator.process_index)
        share = getattr(recipe, "other_slice", 0.0)
        mates = [rng.choice(self.others[int(row)]) if rng.random() < share else row for row in rows]
        groups = torch.tensor([self.group_of[int(self.others[int(row)][0])] for row in rows], device=self.device)
        self.parts.schedule.apply(self.parts.optimizer, epoch * self.steps + step)
        seen = self.parts.views(self._read(rows), self._read(np.array(mates, dtype=np.intp)), rng)
        with self.accelerator.autocast():
            losses = self.parts.losses(seen, groups)
        require_finite(losses.total, [f"{step} of epoch {epoch}: {self.table.patients[rows[0]]}"])
        self.parts.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(losses.total)
        self.parts.optimizer.step()
        parts: Mapping[str, Any] = losses.parts
        return parts

    def _read(self, rows: Rows) -> Any:
        torch = require("torch", extra="train")
        return torch.from_numpy(self.table.read(rows)[0]).to(self.device)


def _simclr(shape: Any, recipe: Any, accelerator: Any, steps: int, images: int) -> _Parts:
    from spicula.pretraining import simclr
    from spicula.pretraining.region_views import region_views

    torch = require("torch", extra="train")
    network = simclr.SimclrNetwork(shape, recipe).to(accelerator.device, memory_format=torch.channels_last)
    wrapped, response = accelerator.prepare_model(network), filter_of(shape)
    many = accelerator.num_processes > 1
    gather = {"gather": simclr.gathered, "rank": accelerator.process_index} if many else {}

    return _Parts(
        network, network.encoder, simclr.optimizer_of(network, recipe), simclr.Schedule(recipe, steps, images),
        lambda hu, mates, rng: region_views(hu, recipe.views, rng, filter_of=response, mates=mates),
        lambda seen, groups: simclr.losses_of(wrapped, seen, recipe, groups=groups, **gather),
        lambda parts, where: simclr.require_no_collapse(parts, where=where),
    )  # fmt: skip


def _vae(shape: Any, recipe: Any, accelerator: Any, steps: int, images: int) -> _Parts:
    from spicula.pretraining import vae
    from spicula.pretraining.region_views import region_views

    torch = require("torch", extra="train")
    network = vae.Autoencoding(shape, recipe).to(accelerator.device, memory_format=torch.channels_last)
    wrapped, response = accelerator.prepare_model(network), filter_of(shape)
    chance = [np.random.default_rng(recipe.seed)]

    def views(hu: Any, mates: Any, rng: np.random.Generator) -> Any:
        chance[0] = rng  # the draw of each code goes on with it
        return region_views(hu, recipe.views, rng, filter_of=response, mates=mates)[0]

    return _Parts(
        network, network.network, vae.optimizer_of(network), vae.Schedule(recipe, steps), views,
        lambda seen, groups: vae.losses_of(wrapped, seen, recipe, chance[0]),
        lambda parts, where: vae.require_no_collapse(parts, where=where),
    )  # fmt: skip


_PARTS: dict[str, Callable[..., _Parts]] = {"simclr": _simclr, "vae": _vae}


def load_encoder(folder: Path, *, method: Method = "simclr", latent: int = 64) -> Any:
    """The encoder of a finished pretraining, ready for use; its ``features`` are what is compared.

    Args:
        folder: ``out`` of :func:`pretrain_regions`.
        method: As there.
        latent: Numbers of a VAE's code.

    Raises:
        InputError: There are no finished weights.
    """
    from spicula.networks.resnet import RegionEncoder, RegionShape
    from spicula.networks.vae import RegionVae

    weights = finished_weights(folder)
    if weights is None or not (folder / SHAPE).is_file():
        raise InputError(f"{folder}", got="no finished pretraining", hint="run 'spicula train retrieval' to its end")
    shape = RegionShape(**json.loads((folder / SHAPE).read_text(encoding="utf-8")))
    network = RegionEncoder(shape) if method == "simclr" else RegionVae(shape, latent=latent)
    network.load_state_dict(weights)
    return network.eval()
