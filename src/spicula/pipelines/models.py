"""The trained parts that the jobs share, opened once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from spicula.classifiers.risk import RiskModel, load_risk
from spicula.core.bundle import Bundle, load_bundle
from spicula.runtime.openvino import Network, load_network

DETECTION, OUTLINE, RISK = "nodule-detection", "nodule-outline", "nodule-risk"
"""Names of the shipped bundles."""


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """The bundles in use, with their networks compiled on first use.

    Args:
        detection: Filters the detector's candidates.
        outline: Outlines a nodule from its center.
        risk: Malignancy and traits.
    """

    detection: Bundle
    outline: Bundle
    risk: Bundle

    @property
    def outline_network(self) -> Network:
        """The outline bundle's network."""
        return load_network(self.outline)

    @property
    def risk_model(self) -> RiskModel:
        """The risk bundle's model."""
        return _risk_model(self.risk.folder.as_posix(), self.risk.fingerprint)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Identities of the bundles in use."""
        return self.detection.fingerprint, self.outline.fingerprint, self.risk.fingerprint


@lru_cache(maxsize=4)
def _risk_model(folder: str, _fingerprint: str) -> RiskModel:
    return load_risk(load_bundle(folder))


def load_models(*, detection: str = DETECTION, outline: str = OUTLINE, risk: str = RISK) -> Models:
    """Open the bundles by name or folder.

    Raises:
        BundleError: One is missing, damaged or made for another task.
    """
    return Models(load_bundle(detection), load_bundle(outline), load_bundle(risk))
