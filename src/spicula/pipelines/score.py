"""Known nodules in, probabilities out: the job behind ``spicula score``."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from spicula.core.errors import InputError, SpiculaError
from spicula.core.files import written_aside
from spicula.core.prediction import TRAITS, Prediction
from spicula.core.volume import Volume
from spicula.datasets.nodule_csv import Coords, NoduleRow, read_nodules
from spicula.dicom.gaps import Gaps
from spicula.dicom.reader import Tilt
from spicula.formats import read_volume
from spicula.measure.segment import outline
from spicula.pipelines.models import Models, load_models
from spicula.pipelines.rate import rate, require_tissue

Reader = Callable[[Path], Volume]

COLUMNS = ("pid", "nodule_id", "probability", "probability_low", "probability_high", *TRAITS, "error")
"""Our columns, in order; what else the input holds follows behind them."""


def score(
    nodules: str | Path,
    *,
    coords: Coords = "lps",
    gaps: Gaps = "error",
    tilt: Tilt = "error",
    models: Models | None = None,
) -> list[dict[str, str]]:
    """Predict malignancy and traits of the nodules of a CSV file.

    Args:
        nodules: CSV file with ``pid,nodule_id,image_path,coordX,coordY,coordZ``.
        coords: What the coordinates are: ``"lps"`` or ``"ras"`` in mm, or ``"voxel"`` (x, y, z indices).
        gaps: What to do about missing or irregular slices of DICOM images.
        tilt: What to do about a tilted gantry.
        models: The bundles in use; the shipped ones if None.

    Returns:
        One row for each nodule, in the order of the file: :data:`COLUMNS` and the input's further columns. A row
        that failed has empty probabilities and says why in ``error``.

    Raises:
        InputError: The file cannot be read or lacks a column.
    """
    read = partial(read_volume, gaps=gaps, tilt=tilt)
    return list(_scored(read_nodules(nodules, coords=coords).rows, models or load_models(), read))


def score_file(
    nodules: Path,
    out: Path,
    *,
    coords: Coords = "lps",
    gaps: Gaps = "error",
    tilt: Tilt = "error",
    models: Models | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Score a CSV file into another, which appears whole or not at all.

    Args:
        nodules: Input, see :func:`score`.
        out: Output CSV.
        coords: What the coordinates are.
        gaps: What to do about missing or irregular slices of DICOM images.
        tilt: What to do about a tilted gantry.
        models: The bundles in use.
        progress: Called after each row with how many are done and how many there are.

    Returns:
        How many rows failed.
    """
    table = read_nodules(nodules, coords=coords)
    carried = [_carried(name) for name in table.extra_columns]
    read = partial(read_volume, gaps=gaps, tilt=tilt)
    if out.is_dir():
        raise InputError(f"--out {out}", got="a folder", expected="the name of a CSV file")
    failed = 0
    with written_aside(out) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=[*COLUMNS, *carried], extrasaction="ignore", restval="")
        writer.writeheader()
        for number, row in enumerate(_scored(table.rows, models or load_models(), read), start=1):
            writer.writerow(row)
            failed += bool(row["error"])
            if progress:
                progress(number, len(table.rows))
    return failed


def _carried(name: str) -> str:
    """Name under which a further column is carried along; one that is named like ours gets ``input_`` before it."""
    return f"input_{name}" if name in COLUMNS else name


def _scored(rows: Sequence[NoduleRow], models: Models, read: Reader) -> Iterator[dict[str, str]]:
    for path, group in groupby(rows, key=lambda row: row.image_path):
        yield from _scored_in_one_image(path, group, models, read)


def _scored_in_one_image(
    path: Path, rows: Iterable[NoduleRow], models: Models, read: Reader
) -> Iterator[dict[str, str]]:
    volume: Volume | None = None
    failure = ""
    for row in rows:
        if volume is None and not failure and not row.error:
            try:
                volume = read(path)
            except (SpiculaError, OSError) as error:
                failure = str(error)
        result = dict.fromkeys(COLUMNS, "") | {_carried(name): value for name, value in row.extra.items()}
        result |= {"pid": row.pid, "nodule_id": row.nodule_id, "error": row.error or failure}
        if volume is not None and not result["error"]:
            try:
                result |= _cells(predict_nodule(volume, row, models=models))
            except SpiculaError as error:
                result["error"] = str(error)
        yield result


def predict_nodule(volume: Volume, row: NoduleRow, *, models: Models) -> tuple[Prediction, ...]:
    """Malignancy and traits of one nodule of a table.

    Raises:
        GeometryError: The nodule lies outside the volume; the hint says which flip of axes would bring it in.
        InputError: There is no tissue at the place.
    """
    center = row.center_xyz_mm(volume.geometry)
    require_tissue(volume, center, what=f"nodule {row.nodule_id} of {row.pid}")
    mask = outline(volume, center, network=models.outline_network)
    return rate(volume, center, mask, models=models, finding_id=row.nodule_id, look=False).predictions


def _cells(predictions: Sequence[Prediction]) -> dict[str, str]:
    cells = {p.target: f"{p.probability:.6f}" for p in predictions}
    malignancy = next(p for p in predictions if p.target == "malignancy")
    low, high = malignancy.interval or (malignancy.probability, malignancy.probability)
    cells |= {
        "probability": cells.pop("malignancy"),
        "probability_low": f"{low:.6f}",
        "probability_high": f"{high:.6f}",
    }
    return cells
