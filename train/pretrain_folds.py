"""Pretrain the folds of ``spicula train ssm`` side by side, within some minutes; started by ``on_device.sh``.

Needs torch, numpy, safetensors and accelerate; other packages of the house, which read scans, may be absent.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

NEEDED = ("torch", "numpy", "safetensors", "accelerate")
NOT_NEEDED = (
    "SimpleITK", "scipy", "nibabel", "pydicom", "gdcm", "highdicom", "jpeg_ls", "pylibjpeg", "openjpeg", "PIL",
    "requests", "urllib3", "platformdirs", "openvino", "sklearn", "onnx",
)  # fmt: skip
MOST_BYTES = 16 * 2**20 - 2**16
"""Of one file that is given back."""

LAST_SECONDS = 25.0
"""Kept free for writing what was learned."""

LEAST_EPOCHS = 10


class _Absent(ModuleType):
    """Stands for a package that is not there and is not used: all that is asked of it is as absent."""

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **more: Any) -> Any:
        raise ModuleNotFoundError(f"{self.__name__} is not on this machine")


class _Absence(MetaPathFinder, Loader):
    """Gives :class:`_Absent` for some packages and what lies in them."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = frozenset(packages)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Of a package in the list only."""
        return ModuleSpec(fullname, self, is_package=True) if fullname.split(".")[0] in self.packages else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty one."""
        return _Absent(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def is_there(package: str) -> bool:
    """Whether a package can be imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def prepare() -> list[str]:
    """Stop where a needed package is lacking, and do without those that are not needed; their names."""
    lacking = [package for package in NEEDED if not is_there(package)]
    if lacking:
        sys.exit(f"error: {sys.executable} lacks {', '.join(lacking)}. Hint: PYTHON=/path/to/another/python")
    absent = [package for package in NOT_NEEDED if not is_there(package)]
    sys.meta_path.insert(0, _Absence(absent))
    return absent


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for, from the environment.

    Args:
        data: The packed slices.
        out: Where weights and the summary go.
        work: Where checkpoints lie.
        minutes: Of everything.
        arch: Name of the transformer.
        epochs: Of each pretraining.
        names: Of the pretrainings.
        jobs: So many at a time.
        small: Tiny, to see that it runs.
    """

    data: Path
    out: Path
    work: Path
    minutes: float
    arch: str
    epochs: int
    names: tuple[str, ...]
    jobs: int
    small: bool

    @classmethod
    def given(cls) -> Order:
        """As ``on_device.sh`` exported it."""
        env, small = os.environ, bool(os.environ.get("SMALL"))
        names = tuple(env.get("FOLDS", "0 1 2 3 4 all").split())
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jobs = int(env.get("JOBS") or (1 if small else min(len(names), max(1, cores // 2))))
        return cls(
            Path(env["DATA"]), Path(env["OUT"]), Path(env["WORK"]), float(env.get("MINUTES", "12")),
            env.get("ARCH", "vit-mini"), 1 if small else int(env.get("EPOCHS", "60")), names, jobs, small,
        )  # fmt: skip

    @property
    def steps_measured(self) -> int:
        """Of a measurement."""
        return 2 if self.small else 40

    def shape(self) -> Any:
        """Of the transformer."""
        from spicula.networks.vit import SHAPES, VitShape

        return VitShape(32, 1, 2, image=70, layer_scale=1.0) if self.small else SHAPES[self.arch]

    def recipe(self, epochs: int) -> Any:
        """Of the pretraining, that of ``spicula train ssm``."""
        from spicula.pretraining.dinov2 import compact_recipe

        recipe = compact_recipe(epochs=epochs)
        return replace(recipe, batch=8) if self.small else recipe

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
        import numpy as np

        return np.flatnonzero(~np.isin(table.patients, facts["held_out"][name]))


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


def measured(order: Order) -> dict[str, float]:
    """Images a second of one pretraining, the operations of an image, and the peak of matrix products."""
    import numpy as np
    from torch.utils.flop_counter import FlopCounterMode

    from spicula.pipelines.pretrain_dinov2 import _Training

    table, _ = order.slices()
    recipe = replace(order.recipe(order.epochs), steps_per_epoch=1000)
    rows = np.arange(recipe.batch) % len(table.patients)
    training = _Training(table, np.arange(len(table.patients)), order.shape(), recipe, None, 1)

    def step() -> None:
        training._step(rows, 0, 0)

    with FlopCounterMode(display=False) as counter:
        step()
    seconds = synchronized(step, order.steps_measured)
    return {
        "images_per_second": recipe.batch / seconds, "flop_an_image": counter.get_total_flops() / recipe.batch,
        "peak_flops": peak_flops(training.accelerator.mixed_precision),
    }  # fmt: skip


def abreast(order: Order, command: str, names: Sequence[str]) -> list[subprocess.Popen[str]]:
    """This script again, once for each name."""
    script = [sys.executable, __file__, command]
    pipe = subprocess.PIPE if command == "measure" else None
    return [subprocess.Popen([*script, name], stdout=pipe, text=True) for name in names]


def epochs_in_time(order: Order, images_of_an_epoch: int, rate: float, seconds: float) -> int:
    """As many as asked for, or as there is time for."""
    most = int(0.9 * seconds * rate / images_of_an_epoch)
    if most >= order.epochs or order.small:
        return order.epochs
    print(f"WARNING: {order.epochs} epochs do not fit into {seconds:.0f} s at {rate:.0f} images/s: {most} do")
    return max(LEAST_EPOCHS, most)


def pretrain(order: Order, name: str) -> None:
    """One pretraining, from its checkpoint on."""
    from spicula.pipelines.pretrain_dinov2 import nearest_neighbors_probe, pretrain_dinov2

    table, facts = order.slices()
    arguments = json.loads((order.work / "run.json").read_text(encoding="utf-8"))["arguments"]
    rows = order.rows(table, facts, name)
    probe = nearest_neighbors_probe(table, order.work / "slices", rows) if facts["nodules"] else None
    pretrain_dinov2(
        table, rows, order.work / "backbones" / name, shape=order.shape(),
        recipe=order.recipe(arguments["recipe"]["epochs"]), probe=probe, probe_every=10,
        report=lambda line: print(f"{name}: {line}"),
    )  # fmt: skip


def run_all(order: Order, until: float) -> None:
    """Pretrainings side by side; those that are not done in time are stopped, their checkpoints stay."""
    from spicula.networks.checkpoint import WEIGHTS

    waiting = [name for name in order.names if not (order.work / "backbones" / name / WEIGHTS).is_file()]
    running: dict[str, subprocess.Popen[str]] = {}
    while (waiting or running) and time.monotonic() < until:
        while waiting and len(running) < order.jobs:
            running[waiting[0]] = abreast(order, "pretrain", waiting[:1])[0]
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


def collect(order: Order, name: str) -> dict[str, Any]:
    """Give back the weights of a pretraining in half precision, of its last checkpoint if it has not ended."""
    import torch
    from safetensors.torch import load_file, save_file

    from spicula.networks.checkpoint import CHECKPOINT, LOG, WEIGHTS

    folder = order.work / "backbones" / name
    log = [json.loads(line) for line in (folder / LOG).read_text().splitlines()] if (folder / LOG).is_file() else []
    finished = (folder / WEIGHTS).is_file()
    if not finished and not (folder / CHECKPOINT).is_file():
        return {"finished": False, "epochs": 0, "files": [], "log": log}
    if finished:
        weights = load_file(folder / WEIGHTS)
    else:
        start = "average.backbone."
        stored = load_file(folder / CHECKPOINT)
        weights = {key.removeprefix(start): value for key, value in stored.items() if key.startswith(start)}
    parts: list[dict[str, Any]] = [{}]
    size = 0
    for key, value in weights.items():
        half = value.to(torch.float16)
        if parts[-1] and size + half.nbytes > MOST_BYTES:
            parts.append({})
            size = 0
        parts[-1][key], size = half, size + half.nbytes
    files = []
    for number, part in enumerate(parts):
        files.append(f"{name}{'' if finished else '-unfinished'}{f'-{number}' if len(parts) > 1 else ''}.safetensors")
        save_file(part, order.out / files[-1])
    return {"finished": finished, "epochs": len(log), "files": files, "log": log}


def main() -> int:
    """All of it."""
    until = time.monotonic() + 60 * Order.given().minutes - LAST_SECONDS
    absent, order = prepare(), Order.given()
    import torch
    from packed import SUMMARY

    from spicula.pipelines.run_folder import as_json, open_run, write_json

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    if device == "CPU" and not order.small:
        sys.exit(f"error: torch {torch.__version__} sees no GPU. Hint: SMALL=1 tries it on a CPU")
    print(f"{device}, torch {torch.__version__}; not needed and absent: {', '.join(absent) or 'nothing'}")
    table, facts = order.slices()
    unknown = [name for name in order.names if name not in facts["held_out"]]
    if unknown:
        sys.exit(f"error: FOLDS: got {', '.join(unknown)}, expected some of {', '.join(facts['held_out'])}")
    speed = measured(order)
    alone, peak, flop = speed["images_per_second"], speed["peak_flops"], speed["flop_an_image"]
    print(f"matrix products: {peak / 1e12:.2f} TFLOP/s; an image: {flop / 1e9:.2f} GFLOP")
    print(f"one pretraining alone: {alone:.1f} images/s, {alone * flop / peak:.1%} of that")
    started = (order.work / "run.json").is_file()
    rate, epochs = alone, order.epochs
    if started:
        epochs = json.loads((order.work / "run.json").read_text(encoding="utf-8"))["arguments"]["recipe"]["epochs"]
    elif order.jobs > 1:
        told = [process.communicate()[0] for process in abreast(order, "measure", order.names[: order.jobs])]
        rate = sum(json.loads(line.splitlines()[-1])["images_per_second"] for line in told)
        print(f"{order.jobs} side by side: {rate:.1f} images/s, {rate * flop / peak:.1%}")
    if not started:
        batch = order.recipe(epochs).batch
        images = sum(len(order.rows(table, facts, name)) // batch * batch for name in order.names)
        epochs = epochs_in_time(order, images, rate, until - time.monotonic())
    folds = len(facts["held_out"]) - 1
    recipe = as_json(asdict(order.recipe(epochs)))
    arguments = {"shape": asdict(order.shape()), "recipe": recipe, "folds": folds, "limit": None}
    open_run(order.work, "train ssm", arguments)
    print(f"{len(order.names)} pretrainings of {epochs} epochs, {order.jobs} at a time")
    run_all(order, until)
    done = {name: collect(order, name) for name in order.names}
    seen = [line["images_per_second"] for one in done.values() for line in one["log"][1:] or one["log"]]
    write_json(order.out / SUMMARY, {
        "device": device, "torch": torch.__version__, "jobs": order.jobs, "arguments": arguments,
        "peak_tflop_per_second": peak / 1e12, "gflop_an_image": flop / 1e9,
        "images_per_second": {"alone": alone, "side_by_side": rate, "of_a_pretraining": sum(seen) / max(1, len(seen))},
        "share_of_peak": {"alone": alone * flop / peak, "side_by_side": rate * flop / peak},
        "pretrainings": done,
    })  # fmt: skip
    for name, one in done.items():
        print(f"{name}: {'finished' if one['finished'] else 'NOT finished'}, {one['epochs']} epochs, {one['files']}")
    return 0 if any(one["files"] for one in done.values()) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        prepare()
        print(json.dumps(measured(Order.given())))
    elif sys.argv[1:2] == ["pretrain"]:
        prepare()
        pretrain(Order.given(), sys.argv[2])
    else:
        raise SystemExit(main())
