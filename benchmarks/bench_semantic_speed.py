"""One nodule through a five-fold CLIP ViT-B/32 ensemble: eager torch against the runtime, in the same run.

    OMP_NUM_THREADS=2 python benchmarks/bench_semantic_speed.py      (needs a quiet machine, 13 GB, SPICULA_SHARED)

Writes ``benchmarks/results/semantic_speed.json``: seconds (median and least of the rounds, the ways taking turns),
their ratios to eager torch in float32, and how far each precision agrees with float32 on nodules of LIDC that set no
range of an activation. The weights are random (seeds 0 to 4): time does not depend on them. Each classifier is scaled
so that the logits of the nodules scatter with a standard deviation of 2, as those of a trained one do.

    python benchmarks/bench_semantic_speed.py --bundle F32 --quantized INT8 --nodules nodules.csv

asks of two bundles (imported, and made of it by ``spicula bundle quantize``) and a table of nodules with the column
``malignant`` whether the AUROC of the ensemble changes by more than 0.002; it prints the answer.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench_planes import timed
from spicula.core.bundle import Bundle, write_bundle
from spicula.core.files import written_aside
from spicula.datasets.nodule_csv import LABEL, read_nodules
from spicula.formats import read_volume
from spicula.networks.clip import ClipText, ClipVision, Transformer
from spicula.networks.export import to_onnx
from spicula.networks.nodule_clip import ImageExport, NoduleClip
from spicula.pipelines.quantize_bundle import agreement, rate_all
from spicula.pipelines.score_compat import compat_planes, load_compat
from spicula.runtime.openvino import Ensemble, load_ensemble
from spicula.runtime.quantize import quantize

RESULTS = Path(__file__).parent / "results" / "semantic_speed.json"
SHARED = Path(os.environ.get("SPICULA_SHARED", "../shared")).resolve() / "data"
FIRST = "LIDC-IDRI-0001"
FOLDS, WIDTH, SPREAD = 5, 256, 2.0
PREPROCESSING = {
    "image": {"pixels": 224},
    "cube": {"mode": "compat", "side_mm": 100.0, "spacing_mm": 1.0, "window_hu": (-1000.0, 500.0)},
    "planes": {"mode": "compat", "pixels": 50, "order": 3},
}
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "avx_vnni")
AUROC_MAY_CHANGE = 0.002


def cpu() -> dict[str, Any]:
    """Model of the CPU and which of the instructions that matter it has."""
    facts = {"model": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        lines = {key.strip(): value.strip() for key, value in lines.items()}
        flags = lines.get("flags", "").split()
        facts["model"] = f"{lines.get('model name')}, family {lines.get('cpu family')}, model {lines.get('model')}"
        facts["has"] = {flag: flag in flags for flag in FLAGS}
    return facts


def lidc_planes(data: Path, count: int) -> list[np.ndarray]:
    """Nine planes each of so many nodules of as many patients, LIDC-IDRI-0001 first."""
    folder = data / "lidc_nodules"
    with (folder / "nodules.csv").open(encoding="utf-8", newline="") as stream:
        of_patient = {row["patient_id"]: row for row in csv.DictReader(stream)}
    others = sorted(set(of_patient) - {FIRST})
    chosen = [FIRST, *(others[place] for place in np.linspace(0, len(others) - 1, count - 1).astype(int))]
    found = []
    for patient in chosen:
        row = of_patient[patient]
        volume = read_volume(folder / "image" / f"{patient}_{row['nodule_id']}.nii.gz")
        center = [float(row[f"{axis}_mm"]) for axis in "xyz"]
        found.append(compat_planes(volume, center, preprocessing=PREPROCESSING)[None])
    return found


def random_network(seed: int, planes: Sequence[np.ndarray]) -> NoduleClip:
    """With a classifier whose logits scatter over the nodules as those of a trained one."""
    torch.manual_seed(seed)
    network = NoduleClip(ClipVision(), ClipText(layers=1, vocabulary=100, end_token=99), width=WIDTH).eval()
    with torch.inference_mode():
        embeddings = torch.cat([network.image_side(torch.from_numpy(one)).embedding for one in planes])
    with torch.no_grad():
        centered = embeddings - embeddings.mean(dim=0)
        toward = torch.linalg.svd(centered, full_matrices=False).Vh[:8].T @ torch.randn(8)
        toward *= SPREAD / (centered @ toward).std()
        network.classifier_image.weight.copy_(torch.stack([-toward, toward]) / 2)
        network.classifier_image.bias.copy_(-network.classifier_image.weight @ embeddings.mean(dim=0))
    return network


@contextmanager
def every_token_to_the_end() -> Iterator[None]:
    """The image tower as published: the last block computes all tokens, of which one is read."""
    ours = Transformer.first
    # the peer is the published tower: only this bench swaps the method, and gives it back
    Transformer.first = lambda self, x: self(x)[:, 0]  # type: ignore[method-assign]
    try:
        yield
    finally:
        Transformer.first = ours  # type: ignore[method-assign]


def eager(networks: Sequence[NoduleClip], planes: np.ndarray) -> list[np.ndarray]:
    """Embedding and logits by each network, in torch."""
    images = torch.from_numpy(planes)
    with torch.inference_mode():
        sides = [network.image_side(images) for network in networks]
    return [torch.cat([side.embedding, side.logits], dim=1).numpy() for side in sides]


def published(networks: Sequence[NoduleClip], planes: np.ndarray) -> list[np.ndarray]:
    with every_token_to_the_end():
        return eager(networks, planes)


def probability(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Of malignancy, by each network."""
    logits = np.array([found[0, WIDTH : WIDTH + 2] for found in outputs], dtype=np.float64)
    return 1.0 / (1.0 + np.exp(logits[:, 0] - logits[:, 1]))


def compared(exact: Sequence[Sequence[np.ndarray]], found: Sequence[Sequence[np.ndarray]]) -> dict[str, float]:
    """The largest differences over nodules (and networks)."""
    p, q = (np.stack([probability(outputs) for outputs in of_nodules]) for of_nodules in (exact, found))
    e, f = (np.array([[o[0, :WIDTH] for o in outputs] for outputs in n], dtype=np.float64) for n in (exact, found))
    cosines = (e * f).sum(axis=-1) / np.linalg.norm(e, axis=-1) / np.linalg.norm(f, axis=-1)
    return {
        "largest_difference_of_the_ensemble_s_probability": float(np.abs(p.mean(axis=1) - q.mean(axis=1)).max()),
        "largest_difference_of_a_network_s_probability": float(np.abs(p - q).max()),
        "largest_loss_of_an_embedding_s_cosine": float((1.0 - cosines).max()),
    }


def bundle_of(folder: Path, networks: Sequence[NoduleClip], ranges: Sequence[np.ndarray], *, threads: int) -> Bundle:
    """The image sides in float32 and in int8."""
    files: dict[str, bytes | Path] = {}
    for fold, network in enumerate(networks):
        content = to_onnx(ImageExport(network), torch.zeros(2, 9, 3, 224, 224), half=False)
        for name, made in (("float", content), ("int8", quantize(content, ranges, threads=threads))):
            path = folder / f"{name}_{fold}.onnx"
            path.write_bytes(made)
            files[path.name] = path
        print(f"fold {fold} exported", file=sys.stderr)
    manifest = {"name": "speed", "version": "1", "task": "semantic", "preprocessing": {}, "outputs": {}, "card": {}}
    return write_bundle(folder / "bundle", manifest, files)


def ensembles(bundle: Bundle, *, threads: int, bf16: bool) -> dict[str, Ensemble]:
    """Ours, by precision."""
    loaded = {}
    for way, name, precision in (("f32", "float", "f32"), ("bf16", "float", "bf16"), ("int8", "int8", "f32"),
                                 ("int8_and_bf16", "int8", "bf16")):  # fmt: skip
        if bf16 or precision == "f32":
            files = [f"{name}_{fold}.onnx" for fold in range(FOLDS)]
            loaded[way] = load_ensemble(bundle, files, threads=threads, precision=precision, batch=1)
    return loaded


def outputs_of(ensemble: Ensemble, planes: np.ndarray) -> list[np.ndarray]:
    return [found for (found,) in ensemble(planes)]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(args.threads)
    planes = lidc_planes(args.data, args.nodules_for_ranges + args.nodules_to_compare)
    compare, ranges = planes[: args.nodules_to_compare], planes[args.nodules_to_compare :]
    networks = [random_network(seed, planes) for seed in range(FOLDS)]
    facts = cpu()
    bf16 = any(facts.get("has", {}).get(flag) for flag in ("avx512_bf16", "amx_bf16"))
    with tempfile.TemporaryDirectory() as folder:
        ours = ensembles(
            bundle_of(Path(folder), networks, ranges, threads=args.threads), threads=args.threads, bf16=bf16
        )
        gc.collect()
        exact = [eager(networks, one) for one in compare]
        agree = {way: compared(exact, [outputs_of(run, one) for one in compare]) for way, run in ours.items()}
        ways: dict[str, Callable[[], Any]] = {
            "eager_f32": lambda: published(networks, planes[0]),
            "eager_f32_last_block_for_one_token": lambda: eager(networks, planes[0]),
        }
        ways |= {way: (lambda run=run: run(planes[0])) for way, run in ours.items()}
        seconds = {
            way: {name: round(value, 4) for name, value in one.items()} for way, one in timed(ways, args.rounds).items()
        }
    spread = np.std([np.log(p / (1 - p)) for p in (probability(o) for o in exact)])
    return {
        "what": f"one nodule (nine planes of 3 x 224 x 224) through the image sides of {FOLDS} CLIP ViT-B/32 networks",
        "peer": "eager torch in float32, inference mode, one network after the other; adapters summed in; the tower as "
        "published, and with the last block for the class token alone",
        "weights": "random, a seed for each network",
        "cpu": facts,
        "threads": args.threads,
        "torch": torch.__version__,
        "openvino": version("openvino"),
        "rounds": args.rounds,
        "seconds": seconds,
        "times_faster_than_eager": {
            way: {
                peer: round(seconds[peer]["median_s"] / seconds[way]["median_s"], 2)
                for peer in ("eager_f32", "eager_f32_last_block_for_one_token")
            }
            for way in ours
        },
        "times_faster_than_eager_by_the_least_times": {
            way: round(seconds["eager_f32"]["least_s"] / seconds[way]["least_s"], 2) for way in ours
        },
        "nodules_compared": len(compare),
        "nodules_for_the_ranges": len(ranges),
        "standard_deviation_of_the_logits": round(float(spread), 2),
        "agreement_with_eager_f32": agree,
    }


def check(args: argparse.Namespace) -> int:
    """Whether two bundles have the same AUROC; 1 if not."""
    before, after = (load_compat(folder, threads=args.threads) for folder in (args.bundle, args.quantized))
    planes, labels = [], []
    for row in read_nodules(args.nodules).rows:
        if not row.error and row.extra.get(LABEL, "").strip() in ("0", "1"):
            volume = read_volume(row.image_path)
            center = row.center_xyz_mm(volume.geometry)
            planes.append(compat_planes(volume, center, preprocessing=before.bundle.preprocessing))
            labels.append(int(row.extra[LABEL]))
    found = agreement(rate_all(before, planes), rate_all(after, planes), labels=labels)
    print(json.dumps(asdict(found), indent=1))
    if found.auroc_before is None or found.auroc_after is None:
        raise SystemExit(f"{args.nodules}: got labels of one kind, expected benign and malignant nodules")
    same = abs(found.auroc_before - found.auroc_after) <= AUROC_MAY_CHANGE
    print(f"AUROC {'unchanged' if same else 'CHANGED'}: {found.auroc_before:.4f}, {found.auroc_after:.4f}")
    return 0 if same else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nodules-to-compare", type=int, default=16)
    parser.add_argument("--nodules-for-ranges", type=int, default=16)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--quantized", type=Path)
    parser.add_argument("--nodules", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.bundle:
        return check(args)
    result = measure(args)
    with written_aside(args.out) as path:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
