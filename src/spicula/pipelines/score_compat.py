"""Known nodules in, the columns of CLIP_nodule's evaluation out: the job behind ``spicula score --compat``."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.bundle import Bundle, load_bundle
from spicula.core.errors import BundleError, InputError, SpiculaError
from spicula.core.files import written_aside
from spicula.core.volume import Volume
from spicula.datasets.nodule_csv import Coords, NoduleRow, read_nodules
from spicula.dicom.gaps import Gaps
from spicula.dicom.reader import Tilt
from spicula.formats import read_volume
from spicula.metrics.calibration import BetaCalibration
from spicula.runtime.openvino import Ensemble, Precision, load_ensemble
from spicula.transforms.nine_planes import clip_normalized, nine_planes, zoom_planes
from spicula.transforms.nodule_cube import nodule_cube, window

Reader = Callable[[Path], Volume]
CALIBRATION = "calibration.json"


@dataclass(frozen=True, slots=True, eq=False)
class CompatModel:
    """An imported ensemble.

    Args:
        bundle: Of ``spicula bundle import clip-nodule``.
        folds: Number of each fold, in order.
        networks: Its image side, compiled.
        calibrations: Of each fold; empty where the bundle has none.
        width: Length of the embedding.
    """

    bundle: Bundle
    folds: tuple[int, ...]
    networks: Ensemble
    calibrations: tuple[BetaCalibration, ...]
    width: int

    @property
    def columns(self) -> tuple[str, ...]:
        """The authors' columns: ``pid,nodule_id,raw_0,...,ensemble``, and the same calibrated where that can be."""
        raw = (*(f"raw_{fold}" for fold in self.folds), "ensemble")
        calibrated = (*(f"calibrated_{fold}" for fold in self.folds), "calibrated_ensemble")
        return ("pid", "nodule_id", *raw, *(calibrated if self.calibrations else ()))

    def probabilities(self, volume: Volume, center_xyz_mm: Sequence[float]) -> NDArray[np.float64]:
        """Probability of malignancy by each fold.

        Args:
            volume: The scan, HU.
            center_xyz_mm: The nodule's center, LPS mm.

        Returns:
            ``[folds]``, not calibrated.

        Raises:
            GeometryError: The center lies outside the scan.
        """
        return self.rate(compat_planes(volume, center_xyz_mm, preprocessing=self.bundle.preprocessing))

    def rate(self, planes: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability of malignancy by each fold.

        Args:
            planes: Of one nodule, by :func:`compat_planes`.

        Returns:
            ``[folds]``, not calibrated.
        """
        logits = np.stack([found[0, self.width : self.width + 2] for (found,) in self.networks(planes[None])])
        return np.asarray(1.0 / (1.0 + np.exp(np.float64(logits[:, 0]) - logits[:, 1])), dtype=np.float64)


def load_compat(bundle: str | Path, *, threads: int | None = None, precision: Precision = "f32") -> CompatModel:
    """Open an imported ensemble.

    Args:
        bundle: Folder of the bundle.
        threads: Of inference; OpenVINO chooses if None.
        precision: What is computed in, see :func:`spicula.runtime.openvino.load_network`.

    Returns:
        The model.

    Raises:
        BundleError: There is no such bundle, it is damaged, or it rates no nodules.
        InputError: The CPU has none of the precision.
    """
    found = load_bundle(bundle)
    outputs = found.manifest["outputs"]
    if found.task != "semantic" or not isinstance(outputs, Mapping) or outputs.get("kind") != "nodule_clip":
        raise BundleError(
            f"bundle {found.name}: cannot rate nodules as CLIP_nodule does", got=f"task {found.task}",
            expected="an imported experiment folder", hint="spicula bundle import clip-nodule CKPT_DIR --out DIR",
        )  # fmt: skip
    folds = outputs["networks"]
    images = [fold["image"] for fold in folds]
    networks = load_ensemble(found, images, threads=threads, precision=precision, batch=1)
    return CompatModel(found, tuple(fold["fold"] for fold in folds), networks, _calibrations(found, folds),
                       int(folds[0]["embedding"]))  # fmt: skip


def _calibrations(bundle: Bundle, folds: Sequence[Mapping[str, Any]]) -> tuple[BetaCalibration, ...]:
    if CALIBRATION not in bundle.manifest["files"]:
        return ()
    of_fold = {record["fold"]: BetaCalibration.from_json(record) for record in bundle.read_json(CALIBRATION)["folds"]}
    return tuple(of_fold[fold["fold"]] for fold in folds)


def compat_planes(
    volume: Volume, center_xyz_mm: Sequence[float], *, preprocessing: Mapping[str, Any]
) -> NDArray[np.float32]:
    """Nine planes of a nodule as the published code makes them, for the published tower.

    Args:
        volume: The scan, HU.
        center_xyz_mm: The nodule's center, LPS mm.
        preprocessing: Of the bundle: ``cube``, ``planes`` and ``image``.

    Returns:
        float32 ``[9, 3, pixels, pixels]``, normalized for CLIP.

    Raises:
        GeometryError: The center lies outside the scan.

    References:
        arXiv 2504.21344, section 3.2.
    """
    cube, planes, image = (preprocessing[name] for name in ("cube", "planes", "image"))
    hu = nodule_cube(volume, center_xyz_mm, side_mm=cube["side_mm"], spacing_mm=cube["spacing_mm"], mode=cube["mode"])
    gray = nine_planes(
        window(hu, *cube["window_hu"]), mode=planes["mode"], pixels=planes["pixels"], order=planes["order"]
    )
    return clip_normalized(zoom_planes(gray, image["pixels"]))


def score_compat(
    nodules: str | Path,
    bundle: str | Path | CompatModel,
    *,
    coords: Coords = "lps",
    gaps: Gaps = "error",
    tilt: Tilt = "error",
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, str]]:
    """Rate the nodules of a CSV file by an imported ensemble.

    Args:
        nodules: CSV file with ``pid,nodule_id,image_path,coordX,coordY,coordZ``.
        bundle: Folder of the bundle, or the opened model.
        coords: What the coordinates are.
        gaps: What to do about missing or irregular slices of DICOM images.
        tilt: What to do about a tilted gantry.
        progress: Called after each row with how many are done and how many there are.

    Returns:
        One row a nodule: :attr:`CompatModel.columns` and ``error``, which says why a row has no numbers.

    Raises:
        InputError: The file cannot be read or lacks a column.
        BundleError: The bundle cannot be used.
    """
    model = bundle if isinstance(bundle, CompatModel) else load_compat(bundle)
    table = read_nodules(nodules, coords=coords)
    rows = []
    for row in _rated(table.rows, model, partial(read_volume, gaps=gaps, tilt=tilt)):
        rows.append(row)
        if progress:
            progress(len(rows), len(table.rows))
    return rows


def score_compat_file(
    nodules: Path,
    out: Path,
    *,
    bundle: Path,
    coords: Coords = "lps",
    gaps: Gaps = "error",
    tilt: Tilt = "error",
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Rate a CSV file into another, with the authors' columns and no other; it appears whole or not at all.

    Args:
        nodules: Input, see :func:`score_compat`.
        out: Output CSV.
        bundle: Folder of the bundle.
        coords: What the coordinates are.
        gaps: What to do about missing or irregular slices of DICOM images.
        tilt: What to do about a tilted gantry.
        progress: As in :func:`score_compat`.

    Returns:
        Why rows have no numbers: ``"pid nodule_id: reason"``, one for each that failed.
    """
    if out.is_dir():
        raise InputError(f"--out {out}", got="a folder", expected="the name of a CSV file")
    model = load_compat(bundle)
    rows = score_compat(nodules, model, coords=coords, gaps=gaps, tilt=tilt, progress=progress)
    with written_aside(out) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=model.columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return [f"{row['pid']} {row['nodule_id']}: {row['error']}" for row in rows if row["error"]]


def _rated(rows: Sequence[NoduleRow], model: CompatModel, read: Reader) -> Iterator[dict[str, str]]:
    for path, group in groupby(rows, key=lambda row: row.image_path):
        volume: Volume | None = None
        failure = ""
        for row in group:
            cells = dict.fromkeys(model.columns, "")
            cells |= {"pid": row.pid, "nodule_id": row.nodule_id, "error": row.error or failure}
            try:
                if not cells["error"]:
                    volume = _read(path, read) if volume is None else volume
                    cells |= _cells(model, volume, row)
            except SpiculaError as error:
                cells["error"] = str(error)
                failure = "" if volume else str(error)
            yield cells


def _read(path: Path, read: Reader) -> Volume:
    try:
        return read(path)
    except OSError as error:
        raise InputError(f"{path}: {error}") from error


def _cells(model: CompatModel, volume: Volume, row: NoduleRow) -> dict[str, str]:
    raw = model.probabilities(volume, row.center_xyz_mm(volume.geometry))
    values = [*raw, raw.mean()]
    if model.calibrations:
        calibrated = [float(calibrate(p)) for calibrate, p in zip(model.calibrations, raw, strict=True)]
        values += [*calibrated, float(np.mean(calibrated))]
    return {name: repr(float(value)) for name, value in zip(model.columns[2:], values, strict=True)}
