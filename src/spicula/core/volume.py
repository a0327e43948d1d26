"""A CT volume in Hounsfield units, with its grid and where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import GeometryError
from spicula.core.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Instance:
    """One DICOM object behind a slice: the file, its identifiers and, in multi-frame objects, the frame (from 1)."""

    path: str
    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class Acquisition:
    """What is known of how and where an image was made; empty or None where a format does not say.

    ``instances`` are in the order of the array's slices (one for each), empty for formats other than DICOM, and
    ``None`` within it marks a slice that was interpolated.
    """

    source: str = ""
    format: str = ""
    modality: str = ""
    patient_id: str = ""
    study_uid: str = ""
    study_date: str = ""
    series_description: str = ""
    manufacturer: str = ""
    kernel: str = ""
    slice_thickness_mm: float | None = None
    transfer_syntax_uid: str = ""
    instances: tuple[Instance | None, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """Pixels in Hounsfield units on a grid.

    Args:
        array_zyx: int16 or float32, HU.
        geometry: The grid; its shape is the array's.
        series_uid: DICOM Series Instance UID, empty where unknown.
        acquisition: Facts about the source.
        warnings: What was odd and tolerated while reading, each a sentence.

    Raises:
        GeometryError: The array's shape is not the grid's, or its dtype is neither int16 nor float32.
    """

    array_zyx: NDArray[np.int16] | NDArray[np.float32]
    geometry: Geometry
    series_uid: str = ""
    acquisition: Acquisition = field(default_factory=Acquisition)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.array_zyx.shape != self.geometry.shape_zyx:
            raise GeometryError("array_zyx", got=self.array_zyx.shape, expected=self.geometry.shape_zyx)
        if self.array_zyx.dtype not in (np.dtype(np.int16), np.dtype(np.float32)):
            raise GeometryError("array_zyx", got=self.array_zyx.dtype, expected="int16 or float32 in HU")

    @property
    def name(self) -> str:
        """What messages call it: its source, else its series UID, else ``"the volume"``."""
        return self.acquisition.source or self.series_uid or "the volume"


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A region on a grid of its own, often a small box of the volume's grid.

    Args:
        array_zyx: bool.
        geometry: The grid; its shape is the array's.
    """

    array_zyx: NDArray[np.bool_]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array_zyx.shape != self.geometry.shape_zyx:
            raise GeometryError("mask array_zyx", got=self.array_zyx.shape, expected=self.geometry.shape_zyx)

    @property
    def volume_mm3(self) -> float:
        """Volume of the region in mm3 (voxel count times voxel volume)."""
        return float(np.count_nonzero(self.array_zyx) * self.geometry.voxel_volume_mm3)

    def padded(self) -> Mask:
        """The same region with one voxel of nothing around its box: what lies beyond the box is outside."""
        grid = self.geometry.crop((-1, -1, -1), [n + 1 for n in self.array_zyx.shape])
        return Mask(np.pad(self.array_zyx, 1), grid)
