"""Vision transformers: pretraining against its bare matrix products, and ViT-S/14 at 504 x 504 against eager torch.

    python benchmarks/bench_vit.py      (needs a quiet machine; SPICULA_SHARED for slices of a real scan)

Writes ``benchmarks/results/vit.json``. All ways of one comparison take turns in the same run.

Training: images a second on one thread, and ``share_of_matmul``: the time that the matrix products of a step take
alone, over the time of the step. The products are those that the step was seen to compute (forward and back, student,
teacher and heads; of a fused attention its two products, four on the way back), in the same shapes, layouts and types.

Inference: seconds an image on two threads, one image at a time and two side by side, the ratios to eager torch in
float32 on the same threads, and how far each precision strays from float32. The weights are random (time does not
depend on them): as they begin (every token looks at nearly all others), and with q and k longer, so that the attention
is sharper. ``spicula.runtime.quantize_attention`` puts an attention into int8 only where it bears that.
"""

from __future__ import annotations

import argparse
import json
import os
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch.utils._python_dispatch import TorchDispatchMode

from bench_planes import timed
from bench_semantic_speed import cpu
from spicula.core.bundle import Bundle, write_bundle
from spicula.core.files import written_aside
from spicula.formats import read_volume
from spicula.networks.vit import SHAPES, VisionTransformer, VitShape
from spicula.networks.vit_export import vit_to_onnx
from spicula.pipelines.pretrain_dinov2 import _Training
from spicula.pipelines.slice_table import SliceTable
from spicula.pretraining import ct_views, dinov2, dinov2_masks
from spicula.pretraining.ct_views import ViewRecipe, undisturbed
from spicula.pretraining.dinov2 import DinoRecipe, HeadRecipe, compact_recipe
from spicula.runtime.openvino import Network, load_network
from spicula.runtime.quantize import quantize
from spicula.runtime.quantize_attention import quantize_attention
from spicula.transforms.nodule_slices import PIXELS

RESULTS = Path(__file__).parent / "results" / "vit.json"
SHARED = Path(os.environ.get("SPICULA_SHARED", "../shared")).resolve() / "data"
SCAN = "LIDC-IDRI-0001"
SMALL_BATCH = 4
"""Images of a step of ViT-S/14; 64 are published."""

SHARPER = 4.0
"""q and k are so many times longer in the second network that is compared."""

SIDE, LARGE = 504, 2048
WAYS = {
    "f32": ("float", "f32"), "bf16": ("float", "bf16"), "int8": ("int8", "f32"), "int8_and_bf16": ("int8", "bf16"),
    "int8_attention_too": ("whole", "f32"), "int8_attention_too_and_bf16": ("whole", "bf16"),
}  # fmt: skip
TARGETS = {"share_of_matmul": 0.40, "times_faster_than_eager": 4.0}
FUSED = "_scaled_dot_product_flash_attention_for_cpu"
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", FUSED, f"{FUSED}_backward")


@dataclass(frozen=True, slots=True)
class Product:
    """One matrix product: sizes and strides of both sides, and the type of their numbers."""

    a: tuple[int, ...]
    a_strides: tuple[int, ...]
    b: tuple[int, ...]
    b_strides: tuple[int, ...]
    dtype: torch.dtype

    @property
    def flop(self) -> int:
        return 2 * int(np.prod(self.a)) * self.b[-1]


class Seen(TorchDispatchMode):
    """Counts the matrix products that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in ("mm", "addmm", "bmm", "baddbmm"):
            a, b = args[-2:]
            self.products[Product(tuple(a.shape), a.stride(), tuple(b.shape), b.stride(), a.dtype)] += 1
        elif name in (FUSED, f"{FUSED}_backward"):
            q, k = args[:2] if name == FUSED else args[1:3]
            n, rows, columns, width = q.shape[0] * q.shape[1], q.shape[2], k.shape[2], q.shape[3]
            back = name != FUSED
            self.add((n, rows, width), (n, width, columns), q.dtype, 1 + back)  # logits; on the way back dP and dV
            self.add((n, rows, columns), (n, columns, width), q.dtype, 1 + back)  # mixing; on the way back dQ and dK
        return function(*args, **(kwargs or {}))

    def add(self, a: tuple[int, int, int], b: tuple[int, int, int], dtype: torch.dtype, times: int) -> None:
        strides = ((a[1] * a[2], a[2], 1), (b[1] * b[2], b[2], 1))
        self.products[Product(a, strides[0], b, strides[1], dtype)] += times


def bare(products: Counter[Product]) -> Callable[[], None]:
    """Computes these products, and nothing else."""

    def filled(size: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty_strided(size, strides, dtype=dtype).normal_()

    ready = []
    for one, times in products.items():
        out = torch.empty(*one.a[:-1], one.b[-1], dtype=one.dtype)
        a, b = filled(one.a, one.a_strides, one.dtype), filled(one.b, one.b_strides, one.dtype)
        ready.append((torch.mm if len(one.a) == 2 else torch.bmm, a, b, out, times))

    def run() -> None:
        for function, a, b, out, times in ready:
            for _ in range(times):
                function(a, b, out=out)

    return run


@contextmanager
def watched(training: Any) -> Iterator[dict[str, float]]:
    """The seconds that the parts of a step take; their functions are wrapped, and given back."""
    parts: dict[str, float] = {}
    places = {
        "views": (ct_views, "make_views"), "masks": (dinov2_masks, "batch_masks"),
        "teacher": (training.teacher.network, "forward"), "student": (training.wrapped, "forward"),
        "losses": (dinov2, "losses_of"), "back": (training.accelerator, "backward"),
        "clip": (torch.nn.utils, "clip_grad_norm_"), "optimizer": (training.optimizer, "step"),
        "average": (training.teacher, "follow"),
    }  # fmt: skip

    def wrapped(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            started = perf_counter()
            try:
                return function(*args, **more)
            finally:
                parts[part] = parts.get(part, 0.0) + perf_counter() - started

        return call

    own = {part: vars(owner).get(name) for part, (owner, name) in places.items()}
    try:
        for part, (owner, name) in places.items():
            setattr(owner, name, wrapped(part, getattr(owner, name)))
        yield parts
    finally:
        for part, (owner, name) in places.items():
            delattr(owner, name) if own[part] is None else setattr(owner, name, own[part])


def parts_of(training: Any, step: Callable[[], Any], steps: int) -> dict[str, float]:
    """Milliseconds of the parts of a step."""
    with watched(training) as parts:
        started = perf_counter()
        for _ in range(steps):
            step()
        whole = perf_counter() - started
    parts["targets_and_losses"] = parts.pop("losses") - parts["teacher"] - parts["student"]
    parts["rest"] = whole - sum(parts.values())
    return {name: round(1000 * seconds / steps, 1) for name, seconds in parts.items()}


def operators_of(step: Callable[[], Any], *, most: int = 12) -> dict[str, float]:
    """Shares of the operators in a profiled step: the products together, then those that take the most."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    times = {one.key.removeprefix("aten::"): one.self_cpu_time_total for one in profile.key_averages()}
    whole = sum(times.values())
    products = sum(times.pop(name, 0.0) for name in PRODUCTS)
    others = sorted(times.items(), key=lambda one: -one[1])[:most]
    return {name: round(time / whole, 4) for name, time in [("matrix products", products), *others]}


def synthetic_table(rows: int) -> SliceTable:
    """Noise in place of slices: time does not depend on them."""
    hu = np.random.default_rng(0).normal(-500, 300, (rows, PIXELS, PIXELS)).astype(np.int16)
    names = np.array([f"P{row}" for row in range(rows)])
    return SliceTable(hu, np.full(hu.shape, 255, dtype=np.uint8), names, np.array([""] * rows), np.array([""] * rows))


def measure_training(shape: VitShape, recipe: DinoRecipe, *, rounds: int) -> dict[str, Any]:
    table = synthetic_table(recipe.batch)
    rows, number, views = np.arange(recipe.batch), recipe.epochs // 2, recipe.views
    training = _Training(table, rows, shape, replace(recipe, steps_per_epoch=10), None, 1)

    def step() -> Any:
        return training._step(rows, number, 0)  # the same chance each time: the same masks, the same shapes

    step()
    with Seen() as seen:
        step()
    dtype = torch.bfloat16 if training.accelerator.mixed_precision == "bf16" else torch.float32
    large = torch.randn(LARGE, LARGE).to(dtype)
    out = torch.empty_like(large)
    seconds = timed(
        {"step": step, "products": bare(seen.products), "large": lambda: torch.mm(large, large, out=out)}, rounds
    )
    flop = sum(one.flop * times for one, times in seen.products.items())
    median = {way: found["median_s"] for way, found in seconds.items()}
    peak = 2 * LARGE**3 / median["large"]
    return {
        "width": shape.width, "depth": shape.depth, "batch": recipe.batch, "rounds": rounds,
        "views": f"2 of {views.global_pixels} pixels, {views.locals} of {views.local_pixels}",
        "prototypes": recipe.dino_head.prototypes, "precision": str(dtype).removeprefix("torch."),
        "images_per_second": round(recipe.batch / median["step"], 2),
        "seconds": {way: {name: round(s, 5) for name, s in one.items()} for way, one in seconds.items()},
        "share_of_matmul": round(median["products"] / median["step"], 3),
        "products": {
            "number": sum(seen.products.values()), "shapes": len(seen.products), "gflop": round(flop / 1e9, 3),
            "gflop_per_second": round(flop / median["products"] / 1e9, 1),
        },
        f"gflop_per_second_of_{LARGE}_cubed": round(peak / 1e9, 1),
        "share_of_that_peak": round(flop / median["step"] / peak, 3),
        "milliseconds_of_the_parts_of_a_step": parts_of(training, step, max(1, rounds // 3)),
        "shares_of_operators": operators_of(step),
    }  # fmt: skip


def synthetic_slice(side: int, rng: np.random.Generator) -> np.ndarray:
    """HU of a body, two lungs and what may be vessels."""
    y, x = np.indices((side, side)) / side - 0.5
    body, lung = (x / 0.45) ** 2 + (y / 0.36) ** 2 < 1, ((np.abs(x) - 0.2) / 0.14) ** 2 + (y / 0.25) ** 2 < 1
    hu = np.where(lung, -850.0, np.where(body, 40.0, -1000.0))
    hu[lung & (ndimage.gaussian_filter(rng.normal(size=hu.shape), 1.5) > 0.35)] = 20.0
    return np.asarray(hu + rng.normal(0, 25, hu.shape), dtype=np.float32)


def scan_slices(data: Path, count: int, side: int) -> tuple[list[np.ndarray], str]:
    """Slices of the middle of a real scan, as the network sees them, or made-up ones; and which."""
    packed = data / "scans" / f"{SCAN}.tar.xz"
    if not packed.is_file():
        rng = np.random.default_rng(0)
        planes, source = [synthetic_slice(side, rng) for _ in range(count)], "made up"
    else:
        with tempfile.TemporaryDirectory() as folder:
            with tarfile.open(packed) as tar:
                tar.extractall(folder, filter="data")
            series = {path.parent for path in Path(folder).rglob("*.dcm")}
            scan = read_volume(max(series, key=lambda one: len(list(one.glob("*.dcm")))))
        depth, height, width = scan.array_zyx.shape
        chosen = np.linspace(0.25 * depth, 0.75 * depth, count).astype(int)
        top, left = (height - side) // 2, (width - side) // 2
        planes = list(scan.array_zyx[chosen, top : top + side, left : left + side].astype(np.float32))
        source = SCAN
    return [undisturbed(torch.from_numpy(plane)[None]).numpy() for plane in planes], source


def random_network(shape: VitShape, *, sharper: float = 1.0) -> VisionTransformer:
    """With LayerScale 1, so that every block counts."""
    torch.manual_seed(0)
    network = VisionTransformer(replace(shape, layer_scale=1.0)).eval()
    with torch.no_grad():
        for block in network.blocks:
            block.attn.qkv.weight[: 2 * shape.width] *= sharper
    return network


def export(
    network: VisionTransformer, side: int, ranges: Sequence[np.ndarray], *, threads: int
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The network in float32, with int8 layers, and with int8 attentions too; and which attentions bear that."""
    whole = vit_to_onnx(network, side, half=False)
    attention = quantize_attention(whole, ranges, threads=threads)
    files = {
        "float": whole, "int8": quantize(whole, ranges, threads=threads),
        "whole": quantize(attention.network, ranges, threads=threads),
    }  # fmt: skip
    facts = {
        "attentions_in_int8": f"{sum(attention.changed)} of {len(attention.changed)}",
        "relative_error_of_int8_attentions": {"least": min(attention.errors), "largest": max(attention.errors)},
    }
    return files, facts


def bundle_of(folder: Path, files: dict[str, bytes]) -> Bundle:
    """Two files of each network, so that two can run side by side."""
    manifest = {"name": "speed", "version": "1", "task": "features", "preprocessing": {}, "outputs": {}, "card": {}}
    return write_bundle(folder, manifest, {f"{name}_{n}.onnx": made for name, made in files.items() for n in (0, 1)})


def eager(network: VisionTransformer, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        tokens = network(torch.from_numpy(images))
    return tokens.cls.numpy(), tokens.patches.numpy()


def side_by_side(pool: ThreadPoolExecutor, networks: Sequence[Network], images: Sequence[np.ndarray]) -> None:
    list(pool.map(lambda pair: pair[0](pair[1]), zip(networks, images, strict=True)))


def compared(
    exact: Sequence[tuple[np.ndarray, np.ndarray]], found: Sequence[tuple[np.ndarray, ...]]
) -> dict[str, dict[str, float]]:
    """Of each output over all images: the least cosine of a token, and the largest error over the truth's length."""
    result = {}
    for place, name in enumerate(("class_token", "patches")):
        pairs = [(a[place].astype(np.float64), b[place].astype(np.float64)) for a, b in zip(exact, found, strict=True)]
        cosines = [(a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1) for a, b in pairs]
        errors = [np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in pairs]
        result[name] = {
            "least_cosine": round(float(min(one.min() for one in cosines)), 6),
            "largest_relative_error": float(f"{max(errors):.3g}"),
        }
    return result


def measure_inference(args: argparse.Namespace, shape: VitShape, side: int) -> dict[str, Any]:
    torch.set_num_threads(args.threads)
    images, source = scan_slices(args.data, args.slices + 4, side)
    ranges, seen = images[:4], images[4:]
    ways = {way: of for way, of in WAYS.items() if of[1] == "f32" or bf16(cpu())}
    agree, facts = {}, {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        for name, sharper in (("as_they_begin", 1.0), ("sharper", SHARPER)):
            network = random_network(shape, sharper=sharper)
            files, facts[name] = export(network, side, ranges, threads=args.threads)
            bundle = bundle_of(Path(folder) / name, files)
            load = {
                way: load_network(bundle, f"{file}_0.onnx", threads=args.threads, precision=precision, batch=1)
                for way, (file, precision) in ways.items()
            }
            exact = [eager(network, image) for image in seen]
            agree[name] = {way: compared(exact, [run(image) for image in seen]) for way, run in load.items()}
            if sharper != 1.0:
                continue
            one: dict[str, Callable[[], Any]] = {"eager_f32": partial(eager, network, seen[0])}
            one |= {way: partial(run, seen[0]) for way, run in load.items()}
            pair, both = [seen[0], seen[-1]], np.concatenate([seen[0], seen[-1]])
            two: dict[str, Callable[[], Any]] = {"eager_f32": partial(eager, network, both)}
            for way, (file, precision) in ways.items():
                abreast = [
                    load_network(bundle, f"{file}_{n}.onnx", threads=1, precision=precision, batch=1) for n in (0, 1)
                ]
                two[way] = partial(side_by_side, pool, abreast, pair)
            every = {**one, **{f"{way}, two images": run for way, run in two.items()}}
            seconds = {way: found["median_s"] for way, found in timed(every, args.rounds).items()}
    alone = {way: seconds[way] for way in one}
    abreast_s = {way: seconds[f"{way}, two images"] / 2 for way in two}
    return {
        "what": f"ViT of width {shape.width} and depth {shape.depth} on {side} x {side} pixels, {source}",
        "peer": "eager torch in float32, inference mode; its two images as one batch",
        "rounds": args.rounds, "slices_compared": len(seen), "slices_for_the_ranges": len(ranges),
        "seconds_an_image": {way: round(s, 4) for way, s in alone.items()},
        "times_faster_than_eager": {way: round(alone["eager_f32"] / alone[way], 2) for way in ways},
        "two_images_side_by_side_on_a_thread_each": {
            "seconds_an_image": {way: round(s, 4) for way, s in abreast_s.items()},
            "times_faster_than_eager": {way: round(abreast_s["eager_f32"] / abreast_s[way], 2) for way in ways},
        },
        "quantized": facts, "agreement_with_eager_f32": agree,
    }  # fmt: skip


def bf16(facts: dict[str, Any]) -> bool:
    return any(facts.get("has", {}).get(flag) for flag in ("avx512_bf16", "amx_bf16"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2, help="of inference; training takes one")
    parser.add_argument("--slices", type=int, default=4, help="to compare precisions on")
    parser.add_argument("--quick", action="store_true", help="tiny networks: only to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    mini = (SHAPES["vit-mini"], compact_recipe())
    small = (SHAPES["vit-small"], replace(DinoRecipe(), batch=SMALL_BATCH))
    inference, side = SHAPES["vit-small"], SIDE
    if args.quick:
        head, tiny = HeadRecipe(16, 8, 4), VitShape(16, 1, 2, image=28)
        mini, small = (
            (tiny, replace(recipe, batch=4, views=ViewRecipe(28, 14, 2), dino_head=head, ibot_head=None))
            for _, recipe in (mini, small)
        )
        args.rounds, args.slices, args.data, inference, side = 1, 2, Path(), VitShape(64, 1, 2, image=56), 56
    result = {
        "cpu": cpu(), "torch": torch.__version__, "openvino": version("openvino"), "targets": TARGETS,
        "training_threads": 1, "inference_threads": args.threads,
        "training": {
            "vit-mini, compact": measure_training(*mini, rounds=args.rounds),
            "vit-small, as published": measure_training(*small, rounds=max(1, args.rounds // 4)),
        },
        "inference": measure_inference(args, inference, side),
    }  # fmt: skip
    with written_aside(args.out) as path:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
