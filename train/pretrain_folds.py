"""Pretrain folds side by side, within some minutes; started by ``on_device.sh``, what is pretrained: :mod:`methods`.

Needs torch, numpy, safetensors and accelerate; other packages of the house, which read scans, may be absent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bare_machine import prepare
from methods import Method, given

MOST_BYTES = 16 * 2**20 - 2**16
"""Of one file that is given back."""

NAMED_BYTES = 256
"""What a tensor's name, shape and place take there, at most."""

LAST_SECONDS = 25.0
"""Kept free for writing what was learned."""

LEAST_EPOCHS = 10


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for, from the environment.

    Args:
        data: The packed slices.
        out: Where weights and the summary go.
        work: Where checkpoints lie.
        minutes: Of everything.
        method: What is pretrained.
        jobs: So many at a time.
        small: Tiny, to see that it runs.
    """

    data: Path
    out: Path
    work: Path
    minutes: float
    method: Method
    jobs: int
    small: bool

    @classmethod
    def given(cls) -> Order:
        """As ``on_device.sh`` exported it."""
        env, small, method = os.environ, bool(os.environ.get("SMALL")), given()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jobs = int(env.get("JOBS") or (1 if small else min(len(method.names), max(1, cores // 2))))
        minutes = float(env.get("MINUTES", "12"))
        return cls(Path(env["DATA"]), Path(env["OUT"]), Path(env["WORK"]), minutes, method, jobs, small)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the pretrainings."""
        return self.method.names

    @property
    def steps_measured(self) -> int:
        """Of a measurement."""
        return 2 if self.small else 40

    def slices(self) -> tuple[Any, dict[str, Any]]:
        """The table and what is known of it."""
        import numpy as np
        from packed import unpack

        from spicula.pipelines.slice_table import load_slice_table

        facts = unpack(self.data, self.work / "slices")
        table = load_slice_table(self.work / "slices")
        if self.small and len(table.hu) > 64:
            some = np.linspace(0, len(table.hu) - 1, 64).astype(int)
            columns = ("hu", "near", "patients", "crops", "case_ids")
            table = replace(table, **{name: getattr(table, name)[some] for name in columns})
        return table, facts

    def rows(self, table: Any, facts: dict[str, Any], name: str) -> Any:
        """Rows that a pretraining learns from."""
        return self.method.rows(table, facts["held_out"][self.method.fold_of(name)])

    def lasting(self, epochs: int) -> Order:
        """The same, with other epochs."""
        return replace(self, method=self.method.lasting(epochs))

    def begun(self) -> Order | None:
        """The same, with the epochs that an earlier call has settled on; None if there was none."""
        run = self.work / "run.json"
        if not run.is_file():
            return None
        return self.lasting(json.loads(run.read_text(encoding="utf-8"))["arguments"]["recipe"]["epochs"])


def synchronized(run: Callable[[], Any], times: int) -> float:
    """Seconds of a call, on the device to its end; mean of some after one that does not count."""
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    run()
    wait()
    started = time.perf_counter()
    for _ in range(times):
        run()
    wait()
    return (time.perf_counter() - started) / times


def peak_flops(precision: str) -> float:
    """Operations a second of one large matrix product, measured."""
    import torch

    cuda = torch.cuda.is_available()
    side = 8192 if cuda else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device="cuda" if cuda else "cpu").to(dtype) for _ in "ab")
    return float(2 * side**3 / synchronized(lambda: a @ b, 20 if cuda else 3))


def measured(order: Order, name: str) -> dict[str, float]:
    """Images a second of one pretraining, the operations of an image, and the peak of matrix products."""
    import numpy as np
    from torch.utils.flop_counter import FlopCounterMode

    table, _ = order.slices()
    training = order.method.training(table, name)
    batch = training.recipe.batch
    rows = np.arange(batch) % len(table.patients)

    def step() -> None:
        training._step(rows, 0, 0)

    with FlopCounterMode(display=False) as counter:
        step()
    seconds = synchronized(step, order.steps_measured)
    return {
        "images_per_second": batch / seconds, "flop_an_image": counter.get_total_flops() / batch, "batch": batch,
        "peak_flops": peak_flops(training.accelerator.mixed_precision),
    }  # fmt: skip


def abreast(command: str, names: Sequence[str]) -> list[subprocess.Popen[str]]:
    """This script again, once for each name."""
    script = [sys.executable, __file__, command]
    pipe = subprocess.PIPE if command == "measure" else None
    return [subprocess.Popen([*script, name], stdout=pipe, text=True) for name in names]


def epochs_in_time(wanted: int, images_of_an_epoch: int, rate: float, seconds: float) -> int:
    """As many as asked for, or as there is time for."""
    most = int(0.9 * seconds * rate / images_of_an_epoch)
    if most >= wanted:
        return wanted
    print(f"WARNING: {wanted} epochs do not fit into {seconds:.0f} s at {rate:.0f} images/s: {most} do")
    return max(LEAST_EPOCHS, most)


def pretrain(order: Order, name: str) -> None:
    """One pretraining, from its checkpoint on."""
    table, facts = order.slices()
    order.method.pretrain(
        table, order.rows(table, facts, name), order.work, name,
        data=order.work / "slices" if facts["nodules"] else None, report=lambda line: print(f"{name}: {line}"),
    )  # fmt: skip


def run_all(order: Order, until: float) -> None:
    """Pretrainings side by side; those that are not done in time are stopped, their checkpoints stay."""
    from spicula.networks.checkpoint import WEIGHTS

    waiting = [name for name in order.names if not (order.method.folder(order.work, name) / WEIGHTS).is_file()]
    running: dict[str, subprocess.Popen[str]] = {}
    while (waiting or running) and time.monotonic() < until:
        while waiting and len(running) < order.jobs:
            running[waiting[0]] = abreast("pretrain", waiting[:1])[0]
            waiting.pop(0)
        time.sleep(0.2)
        for name, process in list(running.items()):
            if process.poll() is not None:
                print(f"{name}: ended with {process.returncode}")
                running.pop(name)
    for name, process in running.items():
        print(f"{name}: out of time")
        process.terminate()
    for process in running.values():
        process.wait()


def collect(order: Order, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known of a pretraining, and its weights, of its last checkpoint if it has not ended."""
    from safetensors.torch import load_file

    from spicula.networks.checkpoint import CHECKPOINT, LOG, WEIGHTS
    from spicula.pipelines.pretraining_loop import SHAPE

    folder, start = order.method.folder(order.work, name), order.method.kept(name)
    log = [json.loads(line) for line in (folder / LOG).read_text().splitlines()] if (folder / LOG).is_file() else []
    shape = json.loads((folder / SHAPE).read_text()) if (folder / SHAPE).is_file() else None
    finished, weights = (folder / WEIGHTS).is_file(), {}
    if finished:
        weights = load_file(folder / WEIGHTS)
    elif (folder / CHECKPOINT).is_file():
        stored = load_file(folder / CHECKPOINT)
        weights = {key.removeprefix(start): value for key, value in stored.items() if key.startswith(start)}
    place = folder.relative_to(order.work).as_posix()
    return {"folder": place, "finished": finished, "epochs": len(log), "shape": shape, "log": log}, weights


def give_back(out: Path, weights: Mapping[str, Any]) -> list[str]:
    """Write weights into few small files, matrices in half precision; the names of the files."""
    import torch
    from safetensors.torch import save_file

    parts: list[dict[str, Any]] = [{}]
    size = 0
    for key, value in weights.items():
        kept = value.to(torch.float16) if value.is_floating_point() and value.ndim > 1 else value
        if parts[-1] and size + kept.nbytes + NAMED_BYTES > MOST_BYTES:
            parts.append({})
            size = 0
        parts[-1][key], size = kept.contiguous(), size + kept.nbytes + NAMED_BYTES
    files = [f"weights-{number}.safetensors" for number, part in enumerate(parts) if part]
    for file, part in zip(files, parts, strict=False):
        save_file(part, out / file)
    return files


def checked(order: Order, facts: Mapping[str, Any]) -> None:
    """Stop where the slices are not those that are asked for."""
    wanted, folds = order.method.task, facts["held_out"]
    if facts["task"] != wanted:
        sys.exit(
            f"error: {order.data}: got slices of '{facts['task']}', expected of '{wanted}'. "
            f"Hint: pack a run folder of it, and name another WORK"
        )
    unknown = list(dict.fromkeys(map(order.method.fold_of, order.names)) - folds.keys())
    if unknown:
        sys.exit(f"error: FOLDS: got {', '.join(unknown)}, expected some of {', '.join(folds)}")


def settled(order: Order, table: Any, facts: dict[str, Any], until: float) -> tuple[Order, dict[str, Any]]:
    """Measure, and settle how many epochs there is time for, unless that is done; the order and what was measured."""
    one = measured(order, order.names[0])
    alone, peak, flop = one["images_per_second"], one["peak_flops"], one["flop_an_image"]
    print(f"matrix products: {peak / 1e12:.2f} TFLOP/s; an image: {flop / 1e9:.2f} GFLOP")
    print(f"one pretraining alone: {alone:.1f} images/s, {alone * flop / peak:.1%} of that")
    rate, begun = alone, order.begun()
    speed: dict[str, Any] = {
        "peak_tflop_per_second": peak / 1e12, "gflop_an_image": flop / 1e9,
        "images_per_second": {"alone": alone}, "share_of_peak": {"alone": alone * flop / peak},
    }  # fmt: skip
    if begun is None and order.jobs > 1:
        told = [process.communicate()[0] for process in abreast("measure", order.names[: order.jobs])]
        each = [json.loads(line.splitlines()[-1]) for line in told]
        rate = sum(line["images_per_second"] for line in each)
        share = sum(line["images_per_second"] * line["flop_an_image"] for line in each) / peak
        print(f"{order.jobs} side by side: {rate:.1f} images/s, {share:.1%}")
        speed["images_per_second"]["side_by_side"], speed["share_of_peak"]["side_by_side"] = rate, share
    if begun is None and not order.small:
        batch = int(one["batch"])
        images = sum(len(order.rows(table, facts, name)) // batch * batch for name in order.names)
        order = order.lasting(epochs_in_time(order.method.epochs, images, rate, until - time.monotonic()))
    return begun or order, speed


def main() -> int:
    """All of it."""
    started, absent = time.monotonic(), prepare()
    order = Order.given()
    until = started + 60 * order.minutes - LAST_SECONDS
    import torch
    from packed import SUMMARY

    from spicula.pipelines.run_folder import open_run, write_json

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    if device == "CPU" and not order.small:
        sys.exit(f"error: torch {torch.__version__} sees no GPU. Hint: SMALL=1 tries it on a CPU")
    print(f"{device}, torch {torch.__version__}; not needed and absent: {', '.join(absent) or 'nothing'}")
    table, facts = order.slices()
    checked(order, facts)
    order, speed = settled(order, table, facts, until)
    arguments = order.method.arguments(len(facts["held_out"]) - 1)
    open_run(order.work, order.method.task, arguments)
    print(f"{len(order.names)} pretrainings of {order.method.epochs} epochs, {order.jobs} at a time")
    run_all(order, until)
    found = {name: collect(order, name) for name in order.names}
    weights = {f"{name}/{key}": value for name, (_, one) in found.items() for key, value in one.items()}
    done = {name: one for name, (one, _) in found.items()}
    seen = [line["images_per_second"] for one in done.values() for line in one["log"][1:] or one["log"]]
    speed["images_per_second"]["of_a_pretraining"] = sum(seen) / max(1, len(seen))
    files = give_back(order.out, weights)
    write_json(order.out / SUMMARY, {
        "device": device, "torch": torch.__version__, "jobs": order.jobs, "task": order.method.task,
        "arguments": arguments, **speed, "files": files, "pretrainings": done,
    })  # fmt: skip
    for name, one in done.items():
        print(f"{name}: {'finished' if one['finished'] else 'NOT finished'}, {one['epochs']} epochs")
    print(f"weights: {', '.join(files) or 'none'}")
    return 0 if files else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        prepare()
        print(json.dumps(measured(Order.given(), sys.argv[2])))
    elif sys.argv[1:2] == ["pretrain"]:
        prepare()
        order = Order.given()
        pretrain(order.begun() or order, sys.argv[2])
    else:
        raise SystemExit(main())
