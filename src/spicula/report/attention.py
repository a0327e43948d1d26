"""Where a network that learned without labels looks, as a record for programs and as a block of the page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from spicula.core.finding import Finding
from spicula.core.slice_reading import SliceReading
from spicula.report.pictures import Picture, seen_picture
from spicula.report.text import number

STRONGEST, FULL = 0.62, 4.0
"""Opacity of the fullest tint, and of how many times an even share a patch has it."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the page shows of where a network looks.

    Args:
        picture: The slice with the attention over it.
        on_nodule: Share of the attention that falls on the nodule, in words.
        of_area: Share of the picture's area that the nodule has, in words.
        ratio: How many times as much as an even look would give, in words; empty where it cannot be told.
        slices: On how many slices it looked.
        outlined: Whether there is an outline; else a ball stands for the nodule.
    """

    picture: Picture
    on_nodule: str
    of_area: str
    ratio: str
    slices: int
    outlined: bool


def look_of(reading: SliceReading | None, finding: Finding) -> Look | None:
    """What the page shows of a finding; None where no network looked.

    Args:
        reading: Of the finding.
        finding: The finding, for its outline.
    """
    if reading is None or not math.isfinite(reading.share_of_attention):
        return None
    even = reading.share_of_area
    return Look(
        seen_picture(reading.hu, reading.geometry, heat=opacities(reading), mask=finding.mask),
        _percent(reading.share_of_attention),
        _percent(even),
        f"{reading.share_of_attention / even:.1f} times" if even > 0 else "",
        reading.slices,
        finding.mask is not None and bool(finding.mask.array_zyx.any()),
    )


def opacities(reading: SliceReading) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """How strongly each patch is tinted, ``[rows, columns]``: by its share of the attention, up to :data:`FULL`."""
    shares = np.nan_to_num(np.asarray(reading.attention, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    even = max(float(shares.mean()), 1e-12)
    return np.asarray(STRONGEST * np.minimum(shares / even / FULL, 1.0))


def reading_record(reading: SliceReading) -> dict[str, Any]:
    """What ``report.json`` holds of one finding's reading: plain JSON values."""
    side_mm = len(reading.hu) * reading.geometry.spacing_zyx_mm[1]
    return {
        "fingerprint": reading.fingerprint,
        "slices": reading.slices,
        "share_of_attention": number(reading.share_of_attention),
        "share_of_area": number(reading.share_of_area),
        "attention": [[number(share) for share in row] for row in reading.attention.tolist()],
        "center_xyz_mm": [number(value) for value in reading.geometry.center_xyz_mm],
        "side_mm": number(side_mm),
        "malignancy": number(reading.malignancy),
        "malignancy_with_diameter": number(reading.malignancy_with_diameter),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.1f} %"
