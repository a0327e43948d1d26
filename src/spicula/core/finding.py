"""A finding is a place in a patient: a nodule, a mass, a lesion, a candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from spicula.core.volume import Mask, Volume

Point = tuple[float, float, float]


def _nothing() -> Mapping[str, float]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Size:
    """Measurements of an outlined finding.

    ``long_axis_mm`` and ``short_axis_mm`` are the longest diameter on any one axial slice and the longest
    perpendicular to it on that slice; the ends of both are LPS points in mm. ``solid_*`` are the same for the part of
    the outline at soft-tissue density (None where it was not measured).
    """

    long_axis_mm: float
    short_axis_mm: float
    long_axis_ends_xyz_mm: tuple[Point, Point]
    short_axis_ends_xyz_mm: tuple[Point, Point]
    volume_mm3: float
    mean_hu: float
    solid_diameter_mm: float | None = None
    solid_volume_mm3: float | None = None

    @property
    def mean_diameter_mm(self) -> float:
        """Mean of the long axis and its perpendicular, in mm."""
        return (self.long_axis_mm + self.short_axis_mm) / 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Args:
        id: Unique within its scan, for example ``"1"`` or a data set's own name.
        center_xyz_mm: LPS position in mm, never an index.
        diameter_mm: Mean axial diameter (long axis and its perpendicular); None before it is measured.
        score: How sure a detector is, 0 to 1; None for a given finding.
        attributes: Named facts that were measured, in stated units.
        truth: Named facts that readers or pathology state (``malignancy``, ``texture``, ``label`` ...).
        mask: Outline with its own grid.
        size: All measurements of the outline.
    """

    id: str
    center_xyz_mm: Point
    diameter_mm: float | None = None
    score: float | None = None
    attributes: Mapping[str, float] = field(default_factory=_nothing)
    truth: Mapping[str, float] = field(default_factory=_nothing)
    mask: Mask | None = None
    size: Size | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One scan of a data set with its findings; the pixels are read on demand.

    Args:
        patient_id: The unit of every split.
        load_volume: Reads the volume (or the small volume around the findings).
        findings: What is known of it.
        case_id: Series UID, file stem or the like; unique in its data set.
        split: Name of the part that the data set itself assigns, empty if none.
    """

    patient_id: str
    load_volume: Callable[[], Volume]
    findings: tuple[Finding, ...] = ()
    case_id: str = ""
    split: str = ""
