"""8-bit crops of slices through LIDC-IDRI nodules with the readers' ratings (development data, ``lidc_crops/``).

Source: LIDC-IDRI (doi:10.7937/K9/TCIA.2015.LO9QL9SX), CC BY 3.0. Each slice was scaled from its own minimum to its
maximum, so that the HU are lost; :func:`hu_of_gray` brings them back roughly, from the two gray values that a slice
through a lung has most of. The nodule is in the middle of its crop.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spicula.core.errors import InputError
from spicula.datasets.lidc_nodules import TEST_PATIENT
from spicula.datasets.lidc_xml import TRAITS

PIXEL_MM = 0.7
"""Usual pixel of a chest CT: the crops do not say theirs."""

LUNG_HU, TISSUE_HU = -870.0, 40.0
"""What the commonest dark and the commonest bright gray value stand for."""

_BROADEST = 3.0
"""Gray values over which the histogram is smoothed (standard deviation)."""
_APART = 25
"""Lung and soft tissue are at least this many gray values apart."""
_TABLE = "crops.csv"


@dataclass(frozen=True, slots=True)
class Crop:
    """One slice through a nodule.

    Args:
        path: The image.
        patient_id: The unit of every split.
        nodule: Number of the nodule within its patient.
        readers: How many readers rated it.
        medians: Median rating of each trait of :data:`spicula.datasets.lidc_xml.TRAITS`.
    """

    path: Path
    patient_id: str
    nodule: str
    readers: int
    medians: Mapping[str, float]

    @property
    def nodule_id(self) -> str:
        """Patient and nodule: all crops of a nodule share it."""
        return f"{self.patient_id}_{self.nodule}"


def load_crops(root: Path, *, with_test_patient: bool = False, least_readers: int = 1) -> list[Crop]:
    """List the crops that have ratings, in the order of ``crops.csv``.

    Args:
        root: Folder with ``crops.csv`` and ``image/``.
        with_test_patient: Include patient LIDC-IDRI-0001.
        least_readers: Crops rated by fewer are left out.

    Returns:
        The crops; those that lack a rating are left out.

    Raises:
        InputError: There is no ``crops.csv``, or a row is damaged.
    """
    table = root / _TABLE
    if not table.is_file():
        raise InputError(f"{root}: no {_TABLE}", hint="name the folder lidc_crops of the development data")
    crops = []
    with table.open(newline="", encoding="utf-8") as stream:
        for number, row in enumerate(csv.DictReader(stream), start=2):
            try:
                rated = all(row[name] for name in TRAITS)
                readers = int(row["readers"] or 0)
                medians = {name: float(row[name]) for name in TRAITS} if rated else {}
            except (KeyError, ValueError) as error:
                raise InputError(f"{table}, line {number}: {error}", expected="ratings as numbers") from error
            if not rated or readers < least_readers:
                continue
            if row["patient_id"] == TEST_PATIENT and not with_test_patient:
                continue
            path = root / "image" / row["file"]
            crops.append(Crop(path, row["patient_id"], row["nodule"], readers, MappingProxyType(medians)))
    return crops


def read_gray(crop: Crop) -> NDArray[np.uint8]:
    """The crop's gray values ``[rows, columns]``.

    Raises:
        InputError: The image is missing or cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(crop.path) as image:
            return np.asarray(image.convert("L"))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{crop.path}: {error}", expected="a WebP image") from error


def hu_of_gray(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
    """HU, roughly: lung and soft tissue are told by their peaks in the histogram, all else lies on their line.

    Args:
        gray: ``[rows, columns]``.

    Returns:
        float32 of the same shape, cut to -1024 to 1500 HU. Where a crop shows lung alone, the bright half of its
        histogram stands for soft tissue: then dense nodules come out at about the right place, not exactly.

    Example:
        >>> two = np.repeat(np.array([[20, 118]], dtype=np.uint8), 8, axis=0)
        >>> hu_of_gray(two)[0].tolist()
        [-870.0, 40.0]
    """
    counts = np.bincount(gray.ravel(), minlength=256).astype(np.float64)
    counts[[0, 255]] = 0.0  # padding and clipping
    smooth = ndimage.gaussian_filter1d(counts, _BROADEST)
    between = _two_classes(counts)
    lung = float(np.argmax(smooth[: between + 1]))
    bright = smooth.copy()
    bright[: max(between + 1, int(lung) + _APART)] = -1.0
    tissue = float(np.argmax(bright))
    slope = (TISSUE_HU - LUNG_HU) / (tissue - lung)
    return np.asarray(np.clip(LUNG_HU + slope * (gray - lung), -1024.0, 1500.0), dtype=np.float32)


def _two_classes(counts: NDArray[np.float64]) -> int:
    """The gray value that parts a histogram best into dark and bright (Otsu 1979, doi:10.1109/TSMC.1979.4310076)."""
    value = np.arange(len(counts))
    below, total = np.cumsum(counts), counts.sum()
    first, whole = np.cumsum(counts * value), (counts * value).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (whole * below - total * first) ** 2 / (below * (total - below))
    return int(np.nanargmax(np.where(np.isfinite(spread), spread, -1.0)))
