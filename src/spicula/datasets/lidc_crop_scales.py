"""What the 8-bit crops of LIDC-IDRI say in HU and millimetres, found by laying the small volumes over them.

Most nodules of ``lidc_nodules`` are in ``lidc_crops`` too. Where a slice of the one lies on a crop of the other to the
last gray value, the line from gray to HU follows exactly, and so does the pixel; a patient's other crops share it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from spicula.core.files import written_aside
from spicula.core.finding import Case
from spicula.datasets import lidc_crops
from spicula.datasets.lidc_crops import Crop
from spicula.transforms.resample import to_lps_axes

LEAST_CORRELATION = 0.99
"""Between a slice and the crop it lies on; true pairs have more than 0.999, others rarely more than 0.8."""

_HALF = 14
"""Rows and columns of the small volume on each side of the nodule's center that are looked for."""
_FEWEST, _FLATTEST_HU = 12, 5.0


@dataclass(frozen=True, slots=True)
class CropScale:
    """What a crop's gray values and pixels stand for.

    Args:
        pixel_mm: Distance between pixels.
        slope: HU of one gray value; None where it is not known.
        intercept: HU of gray 0; None where it is not known.
        case_id: Nodule of ``lidc_nodules`` that the crop shows; None if none was found.
    """

    pixel_mm: float = lidc_crops.PIXEL_MM
    slope: float | None = None
    intercept: float | None = None
    case_id: str | None = None

    def hu(self, gray: NDArray[np.uint8]) -> NDArray[np.float32]:
        """HU of a crop: exact where the line is known, else by :func:`spicula.datasets.lidc_crops.hu_of_gray`."""
        if self.slope is None or self.intercept is None:
            return lidc_crops.hu_of_gray(gray)
        hu = self.intercept + self.slope * gray.astype(np.float32)
        return np.asarray(np.clip(hu, -1024.0, 1500.0), dtype=np.float32)


def scales_of(crops: Sequence[Crop], cases: Sequence[Case], kept: Path | None = None) -> dict[str, CropScale]:
    """The scale of every crop.

    Args:
        crops: The crops.
        cases: Small volumes of the same patients.
        kept: File in which the answer is kept for the next time.

    Returns:
        By the crop's file name.
    """
    names = [crop.path.name for crop in crops]
    facts = {"crops": len(names), "cases": [case.case_id for case in cases]}
    if kept is not None and kept.is_file():
        stored = json.loads(kept.read_text(encoding="utf-8"))
        if stored["facts"] == facts and set(names) <= set(stored["scales"]):
            return {name: CropScale(**stored["scales"][name]) for name in names}
    found = _aligned(crops, cases)
    pixel_of = {crop.patient_id: found[crop.path.name].pixel_mm for crop in crops if crop.path.name in found}
    scales = {
        crop.path.name: found.get(crop.path.name, CropScale(pixel_of.get(crop.patient_id, lidc_crops.PIXEL_MM)))
        for crop in crops
    }
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(kept) as path:
            path.write_text(json.dumps({"facts": facts, "scales": {n: asdict(s) for n, s in scales.items()}}))
    return scales


def _aligned(crops: Sequence[Crop], cases: Sequence[Case]) -> dict[str, CropScale]:
    """The crops on which a slice of a small volume lies."""
    of_patient: Mapping[str, list[Case]] = defaultdict(list)
    for case in cases:
        of_patient[case.patient_id].append(case)
    slices = {patient: [piece for case in some for piece in _pieces(case)] for patient, some in of_patient.items()}
    found = {}
    for crop in crops:
        gray = lidc_crops.read_gray(crop) if crop.patient_id in slices else None
        best, least = None, LEAST_CORRELATION
        for case_id, pixel_mm, piece in slices.get(crop.patient_id, ()):
            correlation, part = laid_over(gray, piece)
            if correlation > least:
                best, least = (case_id, pixel_mm, piece, part), correlation
        if best is not None:
            case_id, pixel_mm, piece, part = best
            seen = (part > 0) & (part < 255)  # what was cut off lies on no line
            slope, intercept = np.polyfit(part[seen].astype(np.float64), piece[seen], 1)
            found[crop.path.name] = CropScale(pixel_mm, float(slope), float(intercept), case_id)
    return found


def _pieces(case: Case) -> list[tuple[str, float, NDArray[np.float32]]]:
    """Nodule, pixel and middle part of each slice of a small volume that has something to see."""
    volume = to_lps_axes(case.load_volume())
    spacing = volume.geometry.spacing_zyx_mm
    _, y, x = np.rint(volume.geometry.world_to_index(np.asarray(case.findings[0].center_xyz_mm))).astype(int)
    rows, columns = slice(max(y - _HALF, 0), y + _HALF), slice(max(x - _HALF, 0), x + _HALF)
    pieces = np.asarray(volume.array_zyx[:, rows, columns], dtype=np.float32)
    return [
        (case.case_id, spacing[1], piece)
        for piece in pieces
        if min(piece.shape) >= _FEWEST and float(piece.std()) > _FLATTEST_HU
    ]


def laid_over(gray: NDArray[np.uint8] | None, piece: NDArray[np.float32]) -> tuple[float, NDArray[np.uint8]]:
    """Where a piece lies best on a larger image, whatever line leads from the one's values to the other's.

    Args:
        gray: The image ``[rows, columns]``.
        piece: ``[fewer rows, fewer columns]``.

    Returns:
        Pearson's correlation there, and that part of the image.

    Example:
        >>> image = np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8)
        >>> correlation, part = laid_over(image, image[5:20, 9:30] * np.float32(11.0) - 1024)
        >>> round(correlation, 6), bool((part == image[5:20, 9:30]).all())
        (1.0, True)
    """
    if gray is None or any(n < m for n, m in zip(gray.shape, piece.shape, strict=True)):
        return -1.0, np.empty((0, 0), dtype=np.uint8)
    image = gray.astype(np.float64)
    pattern = (piece - piece.mean()).astype(np.float64)
    ones = np.ones(piece.shape)
    total, squares = (signal.fftconvolve(values, ones, mode="valid") for values in (image, image**2))
    spread = np.sqrt(np.maximum(squares - total**2 / ones.size, 1e-6))
    match = signal.fftconvolve(image, pattern[::-1, ::-1], mode="valid")
    correlation = match / (spread * np.sqrt((pattern**2).sum()))
    row, column = np.unravel_index(int(correlation.argmax()), correlation.shape)
    part = gray[row : row + piece.shape[0], column : column + piece.shape[1]]
    return float(correlation[row, column]), part
