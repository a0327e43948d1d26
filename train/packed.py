"""Slices of ``spicula train ssm`` packed into one small file, and weights that came back put into a run folder.

    python train/packed.py pack RUN FILE --data DATA      (needs the package with the extra 'train')
    python train/packed.py put OUT RUN

Packing rounds HU to steps of 8, far less than the noise that is added in training, and keeps for each fold which
patients it leaves out, so that nothing but this file is needed to pretrain.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOWEST_HU, STEP_HU = -1024, 8
MOST_BYTES = 64 * 2**20
TABLE, FACTS = "slices.json", "facts.json"
SUMMARY = "summary.json"


def squeezed(values: NDArray[np.integer[Any]]) -> bytes:
    """Images ``[n, rows, columns]`` of small whole numbers: second differences, low bytes, high bytes, LZMA."""
    steps = np.diff(np.diff(values.astype(np.int32), axis=1, prepend=0), axis=2, prepend=0)
    folded = np.where(steps >= 0, 2 * steps, -2 * steps - 1).astype(np.uint16)
    raw = (folded & 255).astype(np.uint8).tobytes() + (folded >> 8).astype(np.uint8).tobytes()
    return lzma.compress(raw, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 4, "lp": 0, "pb": 0}])


def unsqueezed(content: bytes, shape: Sequence[int]) -> NDArray[np.int32]:
    """The opposite of :func:`squeezed`."""
    low, high = np.frombuffer(lzma.decompress(content), dtype=np.uint8).reshape(2, *shape).astype(np.int32)
    folded = low + 256 * high
    steps = np.where(folded % 2 == 0, folded // 2, -(folded // 2) - 1)
    return np.asarray(steps.cumsum(axis=2, dtype=np.int32).cumsum(axis=1, dtype=np.int32))


def write_packed(
    target: Path, hu: NDArray[np.int16], near: NDArray[np.uint8], rows: Sequence[Sequence[str]],
    held_out: Mapping[str, Sequence[str]], *, nodules: str = "", step_hu: int = STEP_HU,
) -> None:  # fmt: skip
    """Write one file.

    Args:
        target: The file.
        hu: ``[n, side, side]``.
        near: ``[n, side, side]``.
        rows: Patient, crop and nodule of each image, as in ``slices.json``.
        held_out: Patients that each pretraining leaves out, by its name.
        nodules: Content of ``nodules.csv``, for the labels that watch.
        step_hu: HU are rounded to steps of this.
    """
    whole = np.rint((np.asarray(hu, dtype=np.float32) - LOWEST_HU) / step_hu).astype(np.int32)
    facts = {
        "rows": [list(row) for row in rows], "held_out": {name: list(who) for name, who in held_out.items()},
        "nodules": nodules, "step_hu": step_hu, "shape": list(hu.shape),
    }  # fmt: skip
    arrays = {"hu": squeezed(whole), "near": squeezed(near), "facts": lzma.compress(json.dumps(facts).encode())}
    with target.open("wb") as stream:
        np.savez(stream, **{name: np.frombuffer(content, dtype=np.uint8) for name, content in arrays.items()})


def unpack(packed: Path, folder: Path) -> dict[str, Any]:
    """Write what :func:`spicula.pipelines.slice_table.load_slice_table` reads, unless it is there; the facts."""
    if not (folder / FACTS).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with np.load(packed, allow_pickle=False) as stored:
            content = {name: stored[name].tobytes() for name in ("hu", "near", "facts")}
        told: dict[str, Any] = json.loads(lzma.decompress(content["facts"]))
        hu = unsqueezed(content["hu"], told["shape"]) * told["step_hu"] + LOWEST_HU
        np.save(folder / "hu.npy", hu.astype(np.int16))
        np.save(folder / "near.npy", unsqueezed(content["near"], told["shape"]).astype(np.uint8))
        labels = folder / "lidc_nodules"
        labels.mkdir(exist_ok=True)
        (labels / "nodules.csv").write_text(told["nodules"], encoding="utf-8")
        (folder / TABLE).write_text(json.dumps({"facts": {}, "rows": told["rows"]}), encoding="utf-8")
        (folder / FACTS).write_text(json.dumps(told), encoding="utf-8")
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    return facts


def pack(run: Path, target: Path, *, data: Path, folds: int = 5, step_hu: int = STEP_HU) -> int:
    """Pack the slices of a run folder; the size of the file in bytes."""
    from spicula.core.errors import InputError
    from spicula.pipelines.slice_table import load_slice_table
    from spicula.pipelines.train_ssm import ALL, nodules_of

    table = load_slice_table(run / "slices" if (run / "slices").is_dir() else run)
    rows = [[str(cell) for cell in row] for row in zip(table.patients, table.crops, table.case_ids, strict=True)]
    nodules = nodules_of(table, data, folds=folds)
    held_out = {str(fold): sorted(set(nodules.patients[nodules.fold_of == fold].tolist())) for fold in range(folds)}
    labels = (data / "lidc_nodules" / "nodules.csv").read_text(encoding="utf-8")
    write_packed(target, table.hu, table.near, rows, {**held_out, ALL: []}, nodules=labels, step_hu=step_hu)
    size = target.stat().st_size
    if size > MOST_BYTES:
        raise InputError(f"{target}", got=f"{size} bytes", expected=f"{MOST_BYTES}", hint="round to a larger --step-hu")
    return size


def put(out: Path, run: Path) -> list[str]:
    """Put finished weights into a run folder of ``spicula train ssm``, in float32; the names of the pretrainings."""
    import torch
    from safetensors.torch import load_file

    from spicula.networks.checkpoint import LOG, save_weights
    from spicula.pipelines.pretrain_dinov2 import SHAPE
    from spicula.pipelines.run_folder import open_run, write_json

    told = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    open_run(run, "train ssm", told["arguments"])
    done = []
    for name, facts in told["pretrainings"].items():
        if not facts["finished"]:
            continue
        folder = run / "backbones" / name
        weights: dict[str, Any] = {}
        for file in facts["files"]:
            weights |= load_file(out / file)
        write_json(folder / SHAPE, told["arguments"]["shape"])
        (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in facts["log"]), encoding="utf-8")
        save_weights(folder, {key: value.to(torch.float32) for key, value in weights.items()})
        done.append(name)
    return done


def main() -> None:
    """The two commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("run", type=Path, help="run folder of 'spicula train ssm', or its slices/")
    packing.add_argument("file", type=Path)
    packing.add_argument("--data", type=Path, required=True, help="folder of the development data")
    packing.add_argument("--step-hu", type=int, default=STEP_HU)
    putting = commands.add_parser("put")
    putting.add_argument("out", type=Path)
    putting.add_argument("run", type=Path)
    given = parser.parse_args()
    if given.command == "pack":
        size = pack(given.run, given.file, data=given.data, step_hu=given.step_hu)
        print(f"{given.file}: {size / 2**20:.1f} MiB")
    else:
        print(f"{given.run}: {', '.join(put(given.out, given.run)) or 'nothing was finished'}")


if __name__ == "__main__":
    main()
