"""Slices of ``spicula train ssm`` or ``train retrieval`` packed into one small file, and weights that came back.

    python train/packed.py pack RUN FILE --data DATA      (needs the package with the extra 'train')
    python train/packed.py put OUT RUN

Packing keeps for each fold which patients it leaves out, so that nothing but this file is needed to pretrain. HU of
``train ssm`` are rounded to steps of 8, far less than the noise that is added in training. Slices of ``train
retrieval`` are packed as they are in use, faded away from the outline, to the last HU: little is left of them.
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

SSM, RETRIEVAL = "train ssm", "train retrieval"
LOWEST_HU, STEP_HU = -1024, {SSM: 8, RETRIEVAL: 1}
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
    held_out: Mapping[str, Sequence[str]], *, task: str = SSM, nodules: str = "", step_hu: int | None = None,
) -> None:  # fmt: skip
    """Write one file.

    Args:
        target: The file.
        hu: ``[n, side, side]``.
        near: ``[n, side, side]``.
        rows: Patient, crop and nodule of each image, as in ``slices.json``.
        held_out: Patients that each pretraining leaves out, by its fold.
        task: Whose slices they are.
        nodules: Content of ``nodules.csv``, for the labels that watch.
        step_hu: HU are rounded to steps of this; what is usual for the task if None.
    """
    step_hu = step_hu or STEP_HU[task]
    whole = np.rint((np.asarray(hu, dtype=np.float32) - LOWEST_HU) / step_hu).astype(np.int32)
    facts = {
        "rows": [list(row) for row in rows], "held_out": {name: list(who) for name, who in held_out.items()},
        "task": task, "nodules": nodules, "step_hu": step_hu, "shape": list(hu.shape),
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


def pack(run: Path, target: Path, *, data: Path, folds: int = 5, step_hu: int | None = None) -> int:
    """Pack the slices of a run folder; the size of the file in bytes."""
    from spicula.core.errors import InputError
    from spicula.pipelines.run_folder import RUN
    from spicula.pipelines.search_nodules import as_in_use
    from spicula.pipelines.slice_table import load_slice_table

    table = load_slice_table(run / "slices" if (run / "slices").is_dir() else run)
    task = json.loads((run / RUN).read_text(encoding="utf-8"))["task"] if (run / RUN).is_file() else SSM
    if task not in STEP_HU:
        raise InputError(f"{run}", got=f"a run of '{task}'", expected=f"of '{SSM}' or '{RETRIEVAL}'")
    patients, fold_of = dealt(table, data, task, folds=folds)
    held_out = {str(fold): sorted(set(patients[fold_of == fold].tolist())) for fold in range(folds)}
    rows = [[str(cell) for cell in row] for row in zip(table.patients, table.crops, table.case_ids, strict=True)]
    labels = (data / "lidc_nodules" / "nodules.csv").read_text(encoding="utf-8")
    hu = as_in_use(table).hu if task == RETRIEVAL else table.hu
    write_packed(
        target, hu, table.near, rows, {**held_out, "all": []}, task=task, nodules=labels, step_hu=step_hu
    )  # fmt: skip
    size = target.stat().st_size
    if size > MOST_BYTES:
        raise InputError(f"{target}", got=f"{size} bytes", expected=f"{MOST_BYTES}", hint="round to a larger --step-hu")
    return size


def dealt(table: Any, data: Path, task: str, *, folds: int) -> tuple[NDArray[np.str_], NDArray[np.intp]]:
    """Patient and fold of every nodule that is judged: one that has slices, or, in the search, any."""
    from spicula.datasets import lidc_nodules
    from spicula.pipelines.ssm_nodules import nodules_of

    if task == RETRIEVAL:
        cases = lidc_nodules.load_cases(data / "lidc_nodules")
        return np.array([case.patient_id for case in cases]), lidc_nodules.patient_folds(cases, folds=folds)
    nodules = nodules_of(table, data, folds=folds)
    return nodules.patients, nodules.fold_of


def put(out: Path, run: Path) -> list[str]:
    """Put finished weights into a run folder of the command they are for, in float32; their pretrainings' names."""
    import torch
    from safetensors.torch import load_file

    from spicula.networks.checkpoint import LOG, save_weights
    from spicula.pipelines.pretraining_loop import SHAPE
    from spicula.pipelines.run_folder import open_run, write_json

    told = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    open_run(run, told["task"], told["arguments"])
    given = {key: value for file in told["files"] for key, value in load_file(out / file).items()}
    whole = {key: value.float() if value.dtype == torch.float16 else value for key, value in given.items()}
    done = {name: facts for name, facts in told["pretrainings"].items() if facts["finished"]}
    for name, facts in done.items():
        folder, start = run / facts["folder"], f"{name}/"
        write_json(folder / SHAPE, facts["shape"])
        (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in facts["log"]), encoding="utf-8")
        save_weights(folder, {key.removeprefix(start): whole[key] for key in whole if key.startswith(start)})
    return list(done)


def main() -> None:
    """The two commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument(
        "run", type=Path, help="run folder of 'spicula train ssm' or 'retrieval', or the first's slices/"
    )
    packing.add_argument("file", type=Path)
    packing.add_argument("--data", type=Path, required=True, help="folder of the development data")
    packing.add_argument("--step-hu", type=int, help=f"to which HU are rounded, if not to {STEP_HU}")
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
