"""What a network that learned from slices without any label makes of a finding: features, and where it looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicula.core.geometry import Geometry


@dataclass(frozen=True, slots=True, eq=False)
class SliceReading:
    """A finding as a self-supervised transformer sees it on axial slices.

    The attention tells where the class token takes its features from in the last block. It is a check that these are
    the nodule's and not of what is beside it; it does not explain a risk.

    Args:
        finding_id: Which finding.
        fingerprint: Identity of the model.
        features: float32 ``[f]``, mean over the slices.
        slices: How many were looked at.
        attention: float32 ``[rows, columns]``, share of the class token's attention that each patch of the slice with
            most of the nodule has, mean over the heads; the rest goes to the class token itself.
        hu: float32 ``[side, side]``, that slice as the network sees it, HU.
        geometry: Its grid, of one slice.
        share_of_attention: Of the attention on patches, what falls on the nodule's outline, 0 to 1; a patch that the
            outline covers in part gives that part.
        share_of_area: Of the slice's area, what lies in the outline, 0 to 1: what an even look would give.
        malignancy: That readers would call it malignant, by a forest on the features; not calibrated, None without one.
        malignancy_with_diameter: The same by a linear model on the features and the diameter; None without one.
    """

    finding_id: str
    fingerprint: str
    features: NDArray[np.float32]
    slices: int
    attention: NDArray[np.float32]
    hu: NDArray[np.float32]
    geometry: Geometry
    share_of_attention: float
    share_of_area: float
    malignancy: float | None = None
    malignancy_with_diameter: float | None = None

    @property
    def on_patches(self) -> float:
        """Share of the class token's attention that goes to patches at all, 0 to 1."""
        return float(self.attention.sum(dtype=np.float64))


def share_inside(attention: NDArray[np.float32], inside: NDArray[np.bool_]) -> tuple[float, float]:
    """How much of a look falls on a region.

    Args:
        attention: ``[rows, columns]`` by patch, of any sum.
        inside: bool ``[rows * p, columns * p]`` by pixel.

    Returns:
        Shares of the attention and of the area, 0 to 1.

    Example:
        >>> share_inside(np.float32([[3, 1]]), np.array([[1, 0, 0, 0], [1, 0, 0, 0]], dtype=bool))
        (0.375, 0.25)
    """
    rows, columns = attention.shape
    covered = inside.reshape(rows, inside.shape[0] // rows, columns, inside.shape[1] // columns).mean(axis=(1, 3))
    shares = np.asarray(attention, dtype=np.float64)
    total = float(shares.sum())
    area = float(covered.mean())
    return (float((shares * covered).sum()) / total if total > 0 else area), area
