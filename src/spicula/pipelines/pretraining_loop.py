"""What every pretraining does alike: where it runs, epoch after epoch, each logged and kept before the next."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.networks.checkpoint import append_log, finished_weights
from spicula.pipelines.slice_table import SliceTable

SHAPE = "shape.json"
"""Beside the weights: what they are of."""

FLATTEST_HU = 1.0
"""Images whose values spread less than this show nothing."""

Rows = NDArray[np.intp]
Probe = Callable[[Any], Mapping[str, float]]
"""Takes what is trained and tells how good its features are."""

Report = Callable[[str], None]


def begun(table: SliceTable, rows: Rows, out: Path, *, shape: Any, recipe: Any) -> dict[str, Any] | None:
    """Make ready for a pretraining, unless it is done.

    Args:
        table: Slices.
        rows: Those to learn from.
        out: Its folder; ``shape.json`` is written there.
        shape: Of the network.
        recipe: Of the pretraining.

    Returns:
        The weights where it is done; None where it is to run.

    Raises:
        InputError: See :func:`check_slices`.
        MissingExtraError: A package of the extra ``train`` is not installed.
    """
    for module in ("torch", "accelerate", "safetensors"):
        require(module, extra="train")
    done = finished_weights(out)
    if done is None:
        check_slices(table, rows, recipe)
        out.mkdir(parents=True, exist_ok=True)
        (out / SHAPE).write_text(json.dumps(asdict(shape), indent=1), encoding="utf-8")
    return done


def check_slices(table: SliceTable, rows: Rows, recipe: Any) -> None:
    """Refuse what nothing can be learned from.

    Raises:
        InputError: Fewer images than a batch, or images without any structure.
    """
    if len(rows) < recipe.batch:
        raise InputError(
            "images to pretrain on", got=len(rows), expected=f"at least a batch of {recipe.batch}",
            hint="lower --batch, or give more scans",
        )  # fmt: skip
    flat = [int(row) for row in rows if float(np.asarray(table.hu[row], dtype=np.float32).std()) < FLATTEST_HU]
    if flat:
        raise InputError(
            f"{len(flat)} of {len(rows)} images, the first of patient {table.patients[flat[0]]}",
            got=f"a single value, {int(table.hu[flat[0]].flat[0])} HU", expected="slices through a chest",
            hint="leave slices of air or padding out",
        )  # fmt: skip


def others_of(table: SliceTable, rows: Rows) -> Mapping[int, Rows]:
    """Of each row those that show the same nodule, itself among them; of lung itself alone."""
    names = table.nodules[rows]
    together = {name: rows[names == name] for name in np.unique(names).tolist() if name}
    return {int(row): together.get(name, np.array([row])) for row, name in zip(rows, names.tolist(), strict=True)}


def accelerator_of(*, seed: int, threads: int) -> Any:
    """Where a pretraining runs: one device or many, in bfloat16 where that is fast.

    Args:
        seed: Of torch's chance until the first step.
        threads: Of torch.
    """
    torch, accelerate = (require(name, extra="train") for name in ("torch", "accelerate"))
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    mixed = "bf16" if bfloat16_is_fast() else "no"
    return accelerate.Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=mixed)


def bfloat16_is_fast() -> bool:
    """Whether products in bfloat16 are worth it where trainings run."""
    torch = require("torch", extra="train")
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.backends.cpu.get_cpu_capability() == "AVX512")


def device_of_training() -> Any:
    """Where small trainings run that need no accelerate: the GPU where there is one."""
    torch = require("torch", extra="train")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def shuffled(rows: NDArray[np.intp], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """So many rows: each as often as any other, give or take one, in an order by chance."""
    return np.concatenate([rng.permutation(rows) for _ in range(-(-count // len(rows)))])[:count]


def chance_of_step(seed: int, epoch: int, step: int, process: int) -> np.random.Generator:
    """The chance of one step of one process; torch's own, for dropout and sampling, is set alike."""
    torch, key = require("torch", extra="train"), (seed, epoch, step, process)
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
    return np.random.default_rng((1, *key))


def run_epochs(
    out: Path, first: int, *, epochs: int, epoch: Callable[[int], Mapping[str, float]], save: Callable[[int], None],
    images: int, accelerator: Any, probe: Callable[[], Mapping[str, float]] | None, probe_every: int, report: Report,
) -> None:  # fmt: skip
    """Run the epochs that are left, each logged, kept and told.

    Args:
        out: Folder of the log.
        first: Epoch to begin with.
        epochs: Of the whole pretraining.
        epoch: Runs one; the mean parts of its loss by name.
        save: Keeps what has been done after so many epochs.
        images: Of an epoch, over all processes.
        accelerator: From :func:`accelerator_of`.
        probe: How good the features are; told every few epochs and at the end.
        probe_every: Epochs.
        report: Takes one line of progress.
    """
    for number in range(first, epochs):
        started = time.perf_counter()
        facts: dict[str, Any] = {"epoch": number, **epoch(number)}
        if probe is not None and (number % probe_every == probe_every - 1 or number == epochs - 1):
            facts |= probe()
        facts["seconds"] = round(time.perf_counter() - started, 2)
        facts["images_per_second"] = round(images / facts["seconds"], 2)
        if accelerator.is_main_process:
            append_log(out, facts)
            save(number + 1)
            report(" ".join(f"{name} {value}" for name, value in facts.items()))
