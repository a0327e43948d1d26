"""One outlined nodule in, all that the models say of it out: malignancy, traits, how the networks of words see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spicula.classifiers import risk, semantic
from spicula.classifiers.semantic import Seen
from spicula.core.errors import InputError
from spicula.core.prediction import Prediction
from spicula.core.volume import Mask, Volume
from spicula.measure.radiomics import describe
from spicula.pipelines.models import Models
from spicula.transforms.crop import crop_box

EMPTY_HU = -750.0
"""No voxel within 4 mm is denser than this where there is no nodule, not even ground glass."""


@dataclass(frozen=True, slots=True, eq=False)
class Rated:
    """What is said of one nodule.

    Args:
        predictions: Malignancy, then the traits.
        seen: By the networks of images and words; None without such a model, or where nobody looked.
    """

    predictions: tuple[Prediction, ...]
    seen: Seen | None


def rate(
    volume: Volume,
    center_xyz_mm: Sequence[float],
    mask: Mask | None,
    *,
    models: Models,
    finding_id: str,
    look: bool = True,
) -> Rated:
    """Rate one nodule.

    Args:
        volume: The scan, or a small volume around the nodule, HU.
        center_xyz_mm: Its center, LPS mm.
        mask: Its automatic outline; None where it has none.
        models: The bundles in use. ``models.malignancy_by`` says whose malignancy is given; it keeps the traits as its
            explanation either way.
        finding_id: Which finding.
        look: Whether the networks of images and words look at the nodule where only words need it.
    """
    numbers = describe(volume, risk.outline_or_ball(center_xyz_mm, mask))
    predictions = risk.predict(
        volume, center_xyz_mm, mask, model=models.risk_model, finding_id=finding_id, numbers=numbers
    )
    by_words = models.malignancy_by == "semantic"
    model = models.semantic_model if look or by_words else None
    if model is None:
        return Rated(tuple(predictions), None)
    seen = semantic.see(volume, center_xyz_mm, mask, model=model, numbers=numbers)
    if by_words:
        other = semantic.malignancy(seen, model=model, finding_id=finding_id)
        predictions = [
            replace(other, explanation=one.explanation) if one.target == other.target else one for one in predictions
        ]
    return Rated(tuple(predictions), seen)


def require_tissue(volume: Volume, center_xyz_mm: Sequence[float], *, what: str) -> None:
    """Refuse a place where no nodule can be.

    Args:
        volume: The scan, HU.
        center_xyz_mm: The place, LPS mm.
        what: What messages call it.

    Raises:
        GeometryError: It lies outside the volume; the hint says which flip of axes would bring it in.
        InputError: There is no tissue at the place.
    """
    volume.geometry.require_inside(center_xyz_mm, what=what)
    densest = float(crop_box(volume, center_xyz_mm, size_mm=8.0, spacing_mm=1.0).max())
    if densest < EMPTY_HU:
        raise InputError(
            f"{what}: nothing but air or empty lung within 4 mm",
            got=f"at most {densest:.0f} HU",
            expected=f"{EMPTY_HU:g} HU or more",
            hint="are the coordinates of another scan, or RAS or voxels?",
        )
