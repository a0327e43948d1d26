"""Train one fold's network of images and words, step by step; a killed training goes on exactly."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.metrics.patients import deal_folds
from spicula.networks.checkpoint import (
    append_log,
    cosine_rate,
    decay_groups,
    finished_weights,
    resume_checkpoint,
    save_checkpoint,
    save_weights,
    update_average,
)
from spicula.pipelines.semantic_recipe import Recipe, Towers
from spicula.pipelines.semantic_table import SemanticTable
from spicula.pipelines.semantic_views import Array, Learned, Rows, Weights, as_seen, new_network, planes_of, undisturbed
from spicula.pipelines.semantic_words import Statement, all_codes, draw_statement, fits, rarity, scarcity

VALIDATION_PARTS = 8
"""One of so many parts of the training patients is held back where training stops early."""


def fit(
    table: SemanticTable,
    rows: Rows,
    folder: Path,
    recipe: Recipe,
    towers: Towers,
    *,
    vision_weights: Mapping[str, Any] | None = None,
    text_weights: Mapping[str, Any] | None = None,
) -> Weights:
    """Train one network, going on from its checkpoint if there is one.

    Args:
        table: All nodules.
        rows: Those to learn from (and to stop early by).
        folder: Where ``checkpoint.safetensors``, ``weights.safetensors`` and ``log.jsonl`` go.
        recipe: How.
        towers: Of what.
        vision_weights: Pretrained weights of the image tower, which learned from none of the patients held out.
        text_weights: The same of the text tower.

    Returns:
        What was learned, by name, on the CPU: with a running average, that; with early stopping, the best epoch's.

    Raises:
        InputError: A loss or gradient was not finite; the checkpoint holds the last good epoch.
    """
    torch = require("torch", extra="train")
    done = finished_weights(folder)
    if done is not None:
        return done
    network = new_network(table, towers, recipe, vision_weights=vision_weights, text_weights=text_weights)
    training = _Training(table, rows, recipe, towers, network)
    average = {name: value.detach().clone() for name, value in training.learned.state_dict().items()}
    average |= {"best_loss": torch.tensor(float("inf")), "waited": torch.tensor(0)}
    first = resume_checkpoint(folder, training.learned, training.optimizer, average)
    average = {name: value.to(training.device) for name, value in average.items()}
    for epoch in range(first, recipe.epochs):
        if recipe.patience and int(average["waited"]) >= recipe.patience:
            break
        started = time.perf_counter()
        facts = {"epoch": epoch, **training.epoch(epoch, average)}
        if recipe.patience:
            facts["validation"] = _note_best(training, average)
        if training.accelerator.is_main_process:
            append_log(folder, facts | {"seconds": round(time.perf_counter() - started, 2)})
            save_checkpoint(folder, epoch + 1, training.learned, training.optimizer, average)
    best = "best." if recipe.patience else ""
    weights = {name: average[f"{best}{name}"].cpu() for name in training.learned.names}
    if training.accelerator.is_main_process:
        save_weights(folder, weights)
    return weights


class _Training:
    """A network in training: everything that stays the same from epoch to epoch.

    Args:
        table: All nodules.
        rows: Those to learn from.
        recipe: How.
        towers: Of what.
        network: As :func:`spicula.pipelines.semantic_views.new_network` makes it.
    """

    def __init__(self, table: SemanticTable, rows: Rows, recipe: Recipe, towers: Towers, network: Any) -> None:
        torch = require("torch", extra="train")
        accelerate = require("accelerate", extra="train")
        from spicula.networks.clip_losses import class_weights

        torch.set_num_threads(recipe.threads)
        cuda = torch.cuda.is_available()
        half = torch.cuda.is_bf16_supported() if cuda else torch.backends.cpu.get_cpu_capability() == "AVX512"
        self.accelerator = accelerate.Accelerator(cpu=not cuda, mixed_precision="bf16" if half else "no")
        self.device = self.accelerator.device
        self.table, self.recipe, self.towers = table, recipe, towers
        self.rows, self.validation = _split(table, rows, recipe)
        if network.measures is not None:
            own = table.measures[self.rows].reshape(-1, table.measures.shape[2])
            scale = np.maximum(own.std(axis=0), 1e-6)
            network.measures.standardize_by(torch.from_numpy(own.mean(axis=0)), torch.from_numpy(scale))
        self.learned = Learned(network.to(self.device), everything=recipe.pretrained)
        self.network = self.accelerator.prepare_model(network)
        self.optimizer = torch.optim.AdamW(decay_groups(network, recipe.decay), lr=recipe.rate)
        self.words_of = words_of(table, self.rows, recipe)
        self.codes = {cut: codes[self.words_of] for cut, codes in all_codes(table.medians).items()}
        self.scarce = scarcity({cut: codes[self.rows] for cut, codes in self.codes.items()}) if recipe.spread else None
        self.chance = rarity(self.codes["score"][self.rows], power=recipe.rarity)
        self.by_class = class_weights(torch.from_numpy(table.labels[self.rows, 0])).to(self.device)
        part = recipe.label_part
        self.goal = torch.from_numpy(part * table.labels[:, 0] + (1 - part) * table.shares[:, 0]).float()
        self.shares = torch.from_numpy(np.concatenate([table.shares, table.steps], axis=1)).float()
        self.steps = max(1, len(self.rows) // (recipe.batch * self.accelerator.num_processes))

    def epoch(self, epoch: int, average: Weights) -> dict[str, Any]:
        """One pass; the running average follows. Returns the mean losses."""
        recipe, totals = self.recipe, np.zeros(4)
        per_step = recipe.batch * self.accelerator.num_processes
        rng = np.random.default_rng((recipe.seed, epoch))
        order = rng.choice(self.rows, size=self.steps * per_step, p=self.chance)
        self.network.train()
        for step in range(self.steps):
            at = step * per_step + self.accelerator.process_index * recipe.batch
            totals += self._step(order[at : at + recipe.batch], epoch, step)
            update_average(average, self.learned, step=epoch * self.steps + step, most_kept=recipe.kept)
        names = ("contrastive", "image", "text", "traits")
        return {name: round(value, 5) for name, value in zip(names, (totals / self.steps).tolist(), strict=True)}

    def _step(self, rows: Rows, epoch: int, step: int) -> Array:
        torch, recipe = require("torch", extra="train"), self.recipe
        from spicula.networks.clip_losses import require_finite

        number = epoch * self.steps + step
        if recipe.one_cycle:
            for group in self.optimizer.param_groups:
                group["lr"] = cosine_rate(number, recipe.epochs * self.steps, rate=recipe.rate, warm_part=7)
        key = (recipe.seed, epoch, step, self.accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))  # dropout and noise
        rng = np.random.default_rng((1, *key))
        planes, measures = self._images(rows, rng)
        statements, tokens = self._words(rows, rng)
        seen = self.network(planes, measures, tokens)
        parts = self._losses(seen, rows, statements)
        total = sum(weight * part for weight, part in zip(recipe.weights, parts, strict=True))
        names = [self.table.cases[row].case_id for row in rows]
        where = f"{step} of epoch {epoch}"
        require_finite(total, [f"{where}: {names[0]}", *names[1:]])
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(total)
        norm = torch.nn.utils.clip_grad_norm_(self.learned.network.parameters(), 5.0)
        if not bool(torch.isfinite(norm)):
            raise InputError(
                f"gradient of the batch {where}: {', '.join(names)}", got=f"{float(norm)}", expected="finite numbers",
                hint="the last good state is kept: look at these nodules, or resume with a lower learning rate",
            )  # fmt: skip
        self.optimizer.step()
        self.learned.network.clip.clamp_logit_scale()
        return np.array([float(part.detach()) for part in parts])

    def _images(self, rows: Rows, rng: np.random.Generator) -> tuple[Any, Any]:
        """Planes of random variants, turned, with noise; and the measures of the same."""
        torch = require("torch", extra="train")
        from spicula.networks.cube_planes import turned

        columns = rng.integers(self.table.cubes.shape[1], size=len(rows))
        cubes = torch.from_numpy(self.table.cubes[rows, columns].astype(np.float32))
        published = self.towers.image_size is not None
        planes = planes_of(cubes.to(self.device), [turned(rng) for _ in rows], published=published)
        hu = planes[:, :, 0]
        hu += (torch.randn(len(rows), 1, 1, 1) * 15).to(hu) + torch.randn(hu.shape).to(hu) * 10
        measures = torch.from_numpy(self.table.measures[rows, columns]).float()
        return as_seen(planes, self.towers), measures.to(self.device)

    def _words(self, rows: Rows, rng: np.random.Generator) -> tuple[list[Statement], Any]:
        torch = require("torch", extra="train")
        if self.recipe.modality == "vision":
            return [], None
        owners = self.words_of[rows]
        statements = [
            draw_statement(
                self.table.medians[owner], self.table.readings[owner], self.recipe.wording, rng, scarce=self.scarce
            )
            for owner in owners
        ]
        ids = self.towers.tokenizer.encode([one.text for one in statements]).ids
        return statements, torch.from_numpy(ids).to(self.device)

    def _losses(self, seen: Any, rows: Rows, statements: Sequence[Statement]) -> tuple[Any, Any, Any, Any]:
        """Contrastive, image, text, traits."""
        torch = require("torch", extra="train")
        from spicula.networks.clip_losses import contrastive_loss
        from spicula.networks.statement_losses import fitting_contrastive_loss, soft_cross_entropy

        goal, none = self.goal[rows].to(self.device), torch.zeros((), device=self.device)
        shares = self.shares[rows].to(self.device)
        image = soft_cross_entropy(seen.image.logits, goal, weights=self.by_class)
        traits = torch.nn.functional.binary_cross_entropy_with_logits(seen.traits.float(), shares)
        if seen.text is None:
            return none, image, none, traits
        text = soft_cross_entropy(seen.text.logits, goal, weights=self.by_class)
        scale = self.learned.network.clip.logit_scale
        if not self.recipe.spread:
            return contrastive_loss(seen.image.embedding, seen.text.embedding, scale), image, text, traits
        same = fits(statements, {cut: codes[rows] for cut, codes in self.codes.items()})
        same |= rows[:, None] == rows[None]
        fitting = torch.from_numpy(same).to(self.device)
        contrastive = fitting_contrastive_loss(seen.image.embedding, seen.text.embedding, scale, fits=fitting)
        return contrastive, image, text, traits

    def validate(self, weights: Weights) -> float:
        """The loss that early stopping watches: contrastive and both cross-entropies, undisturbed, all patients."""
        torch = require("torch", extra="train")
        before = {name: value.clone() for name, value in self.learned.state_dict().items()}
        self.learned.load_state_dict({name: weights[name] for name in self.learned.names})
        self.network.eval()
        total, recipe = 0.0, self.recipe
        with torch.no_grad():
            for rows in np.array_split(self.validation, max(1, len(self.validation) // recipe.batch)):
                planes, measures = undisturbed(self.table, rows, self.towers, self.device)[0]
                statements, tokens = self._words(rows, np.random.default_rng((2, recipe.seed)))
                parts = self._losses(self.network(planes, measures, tokens), rows, statements)
                total += len(rows) * sum(w * float(p) for w, p in zip(recipe.weights, parts, strict=True))
        self.learned.load_state_dict(before)
        return total / len(self.validation)


def words_of(table: SemanticTable, rows: Rows, recipe: Recipe) -> Rows:
    """Whose words each nodule is trained with: its own, or with ``shuffle_texts`` those of any other learned from."""
    owners = np.arange(len(table.cases))
    if recipe.shuffle_texts:
        owners[rows] = np.random.default_rng((3, recipe.seed)).permutation(rows)
    return owners


def _note_best(training: _Training, average: Weights) -> float:
    loss = training.validate(average)
    better = loss < float(average["best_loss"])
    average["waited"] = average["waited"] * 0 if better else average["waited"] + 1
    if better:
        average["best_loss"] = average["best_loss"].new_tensor(loss)
        average.update({f"best.{name}": average[name].clone() for name in training.learned.names})
    return round(loss, 5)


def _split(table: SemanticTable, rows: Rows, recipe: Recipe) -> tuple[Rows, Rows]:
    """Rows to learn from and those to stop by, patients whole."""
    if not recipe.patience:
        return rows, rows[:0]
    part = deal_folds(table.patients[rows], table.labels[rows, 0], folds=VALIDATION_PARTS, seed=recipe.seed)
    return rows[part != 0], rows[part == 0]
