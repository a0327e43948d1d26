"""Pretrain DINOv2 on slices, step by step; a killed pretraining goes on exactly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.core.files import written_aside
from spicula.networks.checkpoint import (
    finished_weights,
    resume_checkpoint,
    save_checkpoint,
    save_weights,
)
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
from spicula.pipelines.ssm_features import features_of


def pretrain_dinov2(
    table: SliceTable,
    rows: Rows,
    out: Path,
    *,
    shape: Any,
    recipe: Any,
    initial: Mapping[str, Any] | None = None,
    probe: Probe | None = None,
    probe_every: int = 5,
    threads: int = 1,
    report: Report = print,
) -> dict[str, Any]:
    """Pretrain a vision transformer, going on from its checkpoint if there is one.

    Args:
        table: Slices.
        rows: Those to learn from.
        out: Where ``checkpoint.safetensors``, ``weights.safetensors`` (the teacher's backbone under the published
            names), ``shape.json`` and ``log.jsonl`` go.
        shape: A :class:`spicula.networks.vit.VitShape`.
        recipe: A :class:`spicula.pretraining.dinov2.DinoRecipe`.
        initial: Weights of the backbone to begin with; random ones if None.
        probe: Told in the log every few epochs.
        probe_every: Epochs.
        threads: Of torch.
        report: Takes one line of progress.

    Returns:
        The teacher's backbone, by name.

    Raises:
        InputError: Fewer images than a batch, images that show nothing, a loss that is not finite, or features that
            collapsed; the checkpoint holds the last good epoch.
        MissingExtraError: A package of the extra ``train`` is not installed.
    """
    done = begun(table, rows, out, shape=shape, recipe=recipe)
    if done is not None:
        return done
    training = _Training(table, rows, shape, recipe, initial, threads)
    state = training.teacher.state_dict()
    first = resume_checkpoint(out, training.student, training.optimizer, state)
    training.teacher.load_state_dict(state)
    teacher = training.teacher.network.backbone
    run_epochs(
        out, first, epochs=recipe.epochs, epoch=training.epoch, images=training.steps * training.images,
        save=lambda done: save_checkpoint(
            out, done, training.student, training.optimizer, training.teacher.state_dict()
        ),
        accelerator=training.accelerator, probe=None if probe is None else lambda: probe(teacher),
        probe_every=probe_every, report=report,
    )  # fmt: skip
    weights = {name: value.cpu() for name, value in teacher.state_dict().items()}
    if training.accelerator.is_main_process:
        save_weights(out, weights)
    return weights


class _Training:
    """A pretraining: everything that stays the same from epoch to epoch."""

    def __init__(
        self, table: SliceTable, rows: Rows, shape: Any, recipe: Any, initial: Mapping[str, Any] | None, threads: int
    ) -> None:
        torch = require("torch", extra="train")
        from spicula.pretraining.dinov2 import Schedules, Student, Teacher, parameter_groups

        self.accelerator = accelerator_of(seed=recipe.seed, threads=threads)
        self.device, self.table, self.rows, self.recipe = self.accelerator.device, table, rows, recipe
        self.student = Student(shape, recipe)
        if initial is not None:
            self.student.backbone.load_state_dict(dict(initial))
        self.student.to(self.device).train()
        many = self.accelerator.num_processes > 1
        reduce = {"reduce": lambda x: self.accelerator.reduce(x, reduction="sum")} if many else {}
        self.teacher = Teacher(self.student, recipe, **reduce)
        self.wrapped = self.accelerator.prepare_model(self.student)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.student, recipe), lr=0.0, betas=(0.9, 0.999))
        self.images = recipe.batch * self.accelerator.num_processes
        self.steps = recipe.steps_per_epoch or max(1, len(rows) // self.images)
        self.schedules = Schedules(recipe, self.steps, self.images)
        self.slices_of = others_of(table, rows)

    def epoch(self, epoch: int) -> dict[str, float]:
        """One pass; the mean of each part of the loss and of the teacher's health."""
        from spicula.pretraining.dinov2 import require_no_collapse

        totals: dict[str, float] = {}
        need = self.steps * self.images
        rng = np.random.default_rng((self.recipe.seed, epoch))
        order = shuffled(self.rows, need, rng)
        for step in range(self.steps):
            at = step * self.images + self.accelerator.process_index * self.recipe.batch
            for name, value in self._step(order[at : at + self.recipe.batch], epoch, step).items():
                totals[name] = totals.get(name, 0.0) + float(value) / self.steps
        require_no_collapse(totals, where=f"epoch {epoch}")
        return {name: round(value, 5) for name, value in totals.items()}

    def _read(self, rows: Rows) -> tuple[Any, Any]:
        torch = require("torch", extra="train")
        hu, near = (torch.from_numpy(values).to(self.device) for values in self.table.read(rows))
        return hu, near

    def _mates(self, rows: Rows, rng: np.random.Generator) -> tuple[Any, Any] | None:
        """Other slices of the same nodules, for some of the rows."""
        share = self.recipe.other_slice
        if share == 0:
            return None
        others = [rng.choice(self.slices_of[int(row)]) if rng.random() < share else row for row in rows]
        return self._read(np.array(others, dtype=np.intp))

    def _step(self, rows: Rows, epoch: int, step: int) -> Mapping[str, Any]:
        torch, recipe = require("torch", extra="train"), self.recipe
        from spicula.networks.clip_losses import require_finite
        from spicula.pretraining.ct_views import make_views
        from spicula.pretraining.dinov2 import losses_of
        from spicula.pretraining.dinov2_masks import batch_masks

        number = epoch * self.steps + step
        rng = chance_of_step(recipe.seed, epoch, step, self.accelerator.process_index)
        images, small = make_views(*self._read(rows), recipe.views, rng, mates=self._mates(rows, rng))
        grid = self.student.backbone.grid_of(*images.shape[-2:])
        masks = batch_masks(len(images), grid, rng, masked=recipe.masked, ratios=recipe.mask_ratios)
        self.schedules.apply(self.optimizer, number)
        with self.accelerator.autocast():
            losses = losses_of(
                self.wrapped, self.teacher, images, small, torch.from_numpy(masks).to(self.device), recipe,
                temperature=self.schedules.temperature(number),
            )  # fmt: skip
        require_finite(losses.total, [f"{step} of epoch {epoch}: {self.table.patients[rows[0]]}"])
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(losses.total)
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), recipe.clip)
        self.optimizer.step()
        self.teacher.follow(self.student, self.schedules.momentum(number))
        return losses.parts


def nearest_neighbors_probe(
    table: SliceTable, data: Path, rows: Rows, *, neighbors: int = 20,
    features: Callable[[Any, Rows], NDArray[np.float32]] | None = None,
) -> Probe | None:  # fmt: skip
    """How well the neighbors of a slice, of other patients, tell whether its nodule is malignant.

    Args:
        table: Slices.
        data: Development data, for the labels; they only watch.
        rows: Those learned from.
        neighbors: How many vote.
        features: Takes what is trained and rows, gives ``[n, f]``; the class token of a transformer if None.

    Returns:
        A probe that gives ``knn_auroc``; None where no labels are at hand.
    """
    from spicula.datasets import lidc_nodules
    from spicula.metrics.classification import auroc

    known = [row for row in rows.tolist() if table.case_ids[row]]
    if not known:
        return None
    label_of = {c.case_id: c.findings[0].truth["label"] for c in lidc_nodules.load_cases(data / "lidc_nodules")}
    chosen = np.array(known, dtype=np.intp)
    labels = np.array([label_of[table.case_ids[row]] for row in known])
    same_patient = table.patients[chosen][:, None] == table.patients[chosen][None]
    votes = min(neighbors, int((~same_patient).sum(axis=1).min()))
    if votes == 0 or len(np.unique(labels)) < 2:
        return None

    def probe(backbone: Any) -> dict[str, float]:
        seen = features_of(backbone, table, chosen)["cls"] if features is None else features(backbone, chosen)
        seen = seen / np.linalg.norm(seen, axis=1, keepdims=True)
        cosine = seen @ seen.T
        cosine[same_patient] = -2.0
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :votes]
        return {"knn_auroc": round(float(auroc(labels > 0, labels[nearest].mean(axis=1))), 4)}

    return probe


def load_backbone(folder: Path) -> Any:
    """The pretrained transformer of a folder, ready for use.

    Raises:
        InputError: There are no finished weights.
    """
    from spicula.networks.vit import VisionTransformer, VitShape

    weights = finished_weights(folder)
    if weights is None or not (folder / SHAPE).is_file():
        raise InputError(f"{folder}", got="no finished pretraining", hint="run 'spicula pretrain dinov2' to its end")
    network = VisionTransformer(VitShape(**json.loads((folder / SHAPE).read_text(encoding="utf-8"))))
    network.load_state_dict(weights)
    return network.eval()


def save_backbone(folder: Path, network: Any) -> None:
    """Write a transformer as :func:`load_backbone` reads it."""
    with written_aside(folder / SHAPE) as path:
        path.write_text(json.dumps(asdict(network.shape), indent=1), encoding="utf-8")
    save_weights(folder, network.state_dict())
