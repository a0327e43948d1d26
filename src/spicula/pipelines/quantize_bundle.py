"""An imported ensemble in int8, and how far it agrees with what it was made of: ``spicula bundle quantize``."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.bundle import Bundle, write_bundle
from spicula.core.errors import InputError, SpiculaError
from spicula.core.extras import require
from spicula.datasets.nodule_csv import LABEL, Coords, read_nodules
from spicula.formats import read_volume
from spicula.metrics.classification import auroc
from spicula.pipelines.score_compat import CompatModel, compat_planes, load_compat
from spicula.runtime.quantize import quantize

LEAST = 8
"""Nodules needed: some set the ranges, the others tell how far the ensembles agree."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two ensembles agree on the same nodules.

    Args:
        nodules: How many.
        largest_difference: Of the ensemble's probability of malignancy.
        mean_difference: The same without sign, on average.
        auroc_before: Of the first ensemble; None where the labels are unknown or all the same.
        auroc_after: Of the second.
    """

    nodules: int
    largest_difference: float
    mean_difference: float
    auroc_before: float | None = None
    auroc_after: float | None = None


def agreement(before: ArrayLike, after: ArrayLike, *, labels: ArrayLike | None = None) -> Agreement:
    """Compare two ensembles by what they say of the same nodules.

    Args:
        before: Probabilities ``[nodules, folds]`` of the first.
        after: Those of the second.
        labels: ``[nodules]``, 1 malignant and 0 benign; None if unknown.

    Returns:
        The agreement of the means over the folds.

    Raises:
        InputError: The shapes differ, or there are no nodules.

    Example:
        >>> agreement([[0.2], [0.9]], [[0.25], [0.9]], labels=[0, 1]).auroc_after
        1.0
    """
    first, second = (np.asarray(p, dtype=np.float64) for p in (before, after))
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise InputError("probabilities", got=f"{first.shape} and {second.shape}", expected="[nodules, folds] twice")
    a, b = first.mean(axis=1), second.mean(axis=1)
    difference = np.abs(a - b)
    found = Agreement(len(a), float(difference.max()), float(difference.mean()))
    if labels is None or len(np.unique(labels)) < 2:
        return found
    return Agreement(found.nodules, found.largest_difference, found.mean_difference, auroc(labels, a), auroc(labels, b))


def rate_all(model: CompatModel, planes: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Probabilities ``[nodules, folds]`` of nodules given as their nine planes."""
    return np.stack([model.rate(one) for one in planes])


def quantize_bundle(
    bundle: str | Path,
    nodules: str | Path,
    out: Path,
    *,
    coords: Coords = "lps",
    limit: int = 64,
    threads: int | None = None,
    report: Callable[[str], None] = print,
) -> Bundle:
    """Make a bundle whose image sides run in int8, of one in float32.

    The nodules of every other patient set the ranges of the activations; on the other patients the two ensembles are
    compared, which is written into the card. The text sides stay as they are. The weights that training resumes from
    are left out.

    Args:
        bundle: Folder of a bundle of ``spicula bundle import clip-nodule``.
        nodules: CSV file of nodules like those that will be rated, see :func:`spicula.pipelines.score.score`; where it
            has a column ``malignant``, the AUROC before and after is found too.
        out: Folder of the new bundle; an older bundle there is replaced.
        coords: What the coordinates are.
        limit: At most so many nodules, spread evenly over the table.
        threads: Of inference; OpenVINO chooses if None.
        report: Takes one line of progress.

    Returns:
        The bundle.

    Raises:
        InputError: Too few nodules can be read, or ``out`` is the bundle itself.
        BundleError: The bundle cannot be used.
        MissingExtraError: onnx is not installed.
    """
    require("onnx", extra="train")
    model = load_compat(bundle, threads=threads)
    if model.bundle.manifest["outputs"].get("precision") == "int8":
        raise InputError(f"bundle {model.bundle.folder}", got="int8 already", expected="the imported bundle")
    if out.resolve() == model.bundle.folder.resolve():
        raise InputError(f"--out {out}", got="the bundle that is quantized", expected="another folder")
    ranges, others = _seen(nodules, model, coords=coords, limit=limit)
    report(f"{len(ranges.planes)} nodules for the ranges, {len(others.planes)} to compare")
    outputs = copy.deepcopy(dict(model.bundle.manifest["outputs"]))
    outputs["precision"] = "int8"
    images = [fold["image"] for fold in outputs["networks"]]
    left_out = {*images, *(fold.pop("weights", None) for fold in outputs["networks"])}
    manifest = {**model.bundle.manifest, "outputs": outputs}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        room = Path(folder)
        made: dict[str, bytes | Path] = {}
        for name in images:
            report(name)
            content = quantize(model.bundle.file(name), (one[None] for one in ranges.planes), threads=threads)
            made[name] = room / name
            (room / name).write_bytes(content)
        trial = load_compat(write_bundle(room / "trial", manifest, made).folder, threads=threads)
        before, after = rate_all(model, others.planes), rate_all(trial, others.planes)
        found = agreement(before, after, labels=others.labels)
        report(f"largest difference of a probability {found.largest_difference:.4f}")
        card = {**model.bundle.card, "quantization": {
            "what": "image sides in int8", "of": model.bundle.fingerprint, "ranges_from_nodules": len(ranges.planes),
            "agreement_on_other_patients": asdict(found),
        }}  # fmt: skip
        files: dict[str, bytes | Path] = {name: room / "trial" / name for name in images}
        for name in sorted({*model.bundle.manifest["files"]} - left_out):
            files[name] = Path(shutil.copyfile(model.bundle.file(name), room / name))
        return write_bundle(out, {**manifest, "card": card}, files)


@dataclass(slots=True)
class _Seen:
    """Planes of nodules, and their labels where all are known."""

    planes: list[NDArray[np.float32]]
    labels: list[float] | None


def _seen(nodules: str | Path, model: CompatModel, *, coords: Coords, limit: int) -> tuple[_Seen, _Seen]:
    """Nodules spread over the table, every other patient on the other side; unreadable ones are passed over."""
    rows = [row for row in read_nodules(nodules, coords=coords).rows if not row.error]
    chosen = [rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, limit).astype(int))] if rows else []
    patients: list[str] = []
    sides: tuple[list[Any], list[Any]] = ([], [])
    failed = ""
    for row in chosen:
        try:
            volume = read_volume(row.image_path)
            center = row.center_xyz_mm(volume.geometry)
            planes = compat_planes(volume, center, preprocessing=model.bundle.preprocessing)
        except (SpiculaError, OSError) as error:
            failed = str(error)
            continue
        if row.pid not in patients:
            patients.append(row.pid)
        sides[patients.index(row.pid) % 2].append((planes, row.extra.get(LABEL, "")))
    if sum(map(len, sides)) < LEAST or len(patients) < 2:
        raise InputError(
            f"{nodules}", got=f"{sum(map(len, sides))} nodules of {len(patients)} patients that can be read",
            expected=f"{LEAST} or more, of two patients or more", hint=failed or "give nodules like those to be rated",
        )  # fmt: skip
    ranges, others = (_Seen([planes for planes, _ in side], _labels([label for _, label in side])) for side in sides)
    return ranges, others


def _labels(cells: Sequence[str]) -> list[float] | None:
    return [float(cell) for cell in cells] if all(cell.strip() in ("0", "1") for cell in cells) else None
