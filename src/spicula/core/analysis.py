"""What one scan gave: findings, predictions, assessments, and with what it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from spicula.core.finding import Finding
from spicula.core.neighbors import Neighborhood
from spicula.core.prediction import Prediction
from spicula.core.slice_reading import SliceReading
from spicula.core.volume import Volume
from spicula.core.words import Words


@dataclass(frozen=True, slots=True)
class Assessment:
    """A category of a clinical guideline, honest about what it was not given.

    Args:
        system: ``"Lung-RADS 2022"`` or ``"Fleischner 2017"``.
        category: For example ``"4A"``.
        management: What the guideline advises.
        given: The facts it rests on, each a short phrase with its unit.
        lacking: The facts that it would need and did not have (prior scan, risk factors ...).
    """

    system: str
    category: str
    management: str
    given: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """All that Spicula says of one scan.

    Args:
        volume: The scan.
        findings: Ordered, the most suspicious first.
        predictions: Of all findings; find one with :meth:`predictions_of`.
        assessments: By finding id, the guidelines' categories.
        fingerprints: Of the bundles that were used.
        warnings: What a reader of the results must know, each a sentence.
        words: What a model of images and words says, one a finding; empty without such a model. Find one with
            :meth:`words_of`.
        slice_readings: What a network that learned without labels sees, one a finding; empty without such a model. Find
            one with :meth:`slice_reading_of`.
        neighbors: The past cases that look like each finding; empty without an index. Find those of one with
            :meth:`neighbors_of`.
    """

    volume: Volume
    findings: tuple[Finding, ...]
    predictions: tuple[Prediction, ...] = ()
    assessments: Mapping[str, tuple[Assessment, ...]] = field(default_factory=lambda: MappingProxyType({}))
    fingerprints: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    words: tuple[Words, ...] = ()
    slice_readings: tuple[SliceReading, ...] = ()
    neighbors: tuple[Neighborhood, ...] = ()

    def predictions_of(self, finding_id: str) -> dict[str, Prediction]:
        """The predictions of one finding by target (``"malignancy"``, ``"spiculation_present"`` ...)."""
        return {p.target: p for p in self.predictions if p.finding_id == finding_id}

    def words_of(self, finding_id: str) -> Words | None:
        """What a model of images and words says of one finding; None where none was asked."""
        return next((words for words in self.words if words.finding_id == finding_id), None)

    def slice_reading_of(self, finding_id: str) -> SliceReading | None:
        """What a network that learned without labels sees of one finding; None where none looked."""
        return next((one for one in self.slice_readings if one.finding_id == finding_id), None)

    def neighbors_of(self, finding_id: str) -> Neighborhood | None:
        """The past cases that look like one finding; None where nobody searched."""
        return next((one for one in self.neighbors if one.finding_id == finding_id), None)
