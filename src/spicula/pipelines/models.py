"""The trained parts that the jobs share, opened once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from spicula.classifiers.risk import RiskModel, load_risk
from spicula.classifiers.semantic import SemanticModel, load_semantic
from spicula.classifiers.ssm import SsmModel, load_ssm
from spicula.core.bundle import MANIFEST, SHIPPED, Bundle, load_bundle
from spicula.core.errors import BundleError
from spicula.retrieval.embedder import Embedder, load_embedder
from spicula.runtime.openvino import Network, load_network

DETECTION, OUTLINE, RISK, SEMANTIC = "nodule-detection", "nodule-outline", "nodule-risk", "nodule-semantic"
SSM, SEARCH = "nodule-ssm", "nodule-search"
"""Names of the shipped bundles."""

LIDC_INDEX = SHIPPED / "lidc-index"
"""The index inside the package: vectors, ratings and sizes of LIDC-IDRI's nodules."""

MalignancyBy: TypeAlias = Literal["risk", "semantic"]

MALIGNANCY_BY: MalignancyBy = "risk"
"""Whose malignancy ``analyze`` and ``score`` give; the one place where this is decided. Traits are the risk bundle's
either way. Change it with the numbers of both on the same folds: ``gain_over_other`` of the semantic bundle's card."""


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """The bundles in use, with their networks compiled on first use.

    Args:
        detection: Filters the detector's candidates.
        outline: Outlines a nodule from its center.
        risk: Malignancy and traits.
        semantic: Compares images with words, and rates malignancy; None for none.
        malignancy_by: Whose malignancy is given.
        ssm: Learned from slices without labels: features and where it looks; None for none.
        search: Turns nodules into vectors that an index is searched with; None for none.
        index: Where past cases are looked up, see :func:`spicula.pipelines.index.open_place`; None for none.

    Raises:
        BundleError: The malignancy is to be the semantic bundle's, and there is none.
    """

    detection: Bundle
    outline: Bundle
    risk: Bundle
    semantic: Bundle | None = None
    malignancy_by: MalignancyBy = MALIGNANCY_BY
    ssm: Bundle | None = None
    search: Bundle | None = None
    index: str | None = None

    def __post_init__(self) -> None:
        if self.malignancy_by == "semantic" and self.semantic is None:
            raise BundleError("malignancy by the semantic bundle", got="no such bundle", hint="spicula bundle list")

    @property
    def outline_network(self) -> Network:
        """The outline bundle's network."""
        return load_network(self.outline)

    @property
    def risk_model(self) -> RiskModel:
        """The risk bundle's model."""
        return _risk_model(self.risk.folder.as_posix(), self.risk.fingerprint)

    @property
    def semantic_model(self) -> SemanticModel | None:
        """The semantic bundle's model; None without one."""
        if self.semantic is None:
            return None
        return _semantic_model(self.semantic.folder.as_posix(), self.semantic.fingerprint)

    @property
    def ssm_model(self) -> SsmModel | None:
        """The model that learned without labels; None without one."""
        return None if self.ssm is None else _ssm_model(self.ssm.folder.as_posix(), self.ssm.fingerprint)

    @property
    def embedder(self) -> Embedder | None:
        """What turns nodules into vectors; None without one."""
        return None if self.search is None else _embedder(self.search.folder.as_posix(), self.search.fingerprint)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Identities of the bundles in use."""
        bundles = (self.detection, self.outline, self.risk, self.semantic, self.ssm, self.search)
        return tuple(bundle.fingerprint for bundle in bundles if bundle is not None)


@lru_cache(maxsize=4)
def _risk_model(folder: str, _fingerprint: str) -> RiskModel:
    return load_risk(load_bundle(folder))


@lru_cache(maxsize=4)
def _semantic_model(folder: str, _fingerprint: str) -> SemanticModel:
    return load_semantic(load_bundle(folder), threads=1)


@lru_cache(maxsize=4)
def _ssm_model(folder: str, _fingerprint: str) -> SsmModel:
    return load_ssm(load_bundle(folder), threads=1)


@lru_cache(maxsize=4)
def _embedder(folder: str, _fingerprint: str) -> Embedder:
    return load_embedder(load_bundle(folder), threads=1)


def load_models(
    *,
    detection: str = DETECTION,
    outline: str = OUTLINE,
    risk: str = RISK,
    semantic: str | None = SEMANTIC,
    malignancy_by: MalignancyBy = MALIGNANCY_BY,
    ssm: str | None = SSM,
    search: str | None = SEARCH,
    index: str | None = None,
) -> Models:
    """Open the bundles by name or folder.

    Args:
        detection: Filters candidates.
        outline: Outlines nodules.
        risk: Malignancy and traits.
        semantic: Images and words. The shipped one may be absent: then there are no words; None leaves it out.
        malignancy_by: Whose malignancy is given.
        ssm: Learned without labels. The shipped one may be absent: then nothing is said of where it looks; None leaves
            it out.
        search: Turns nodules into vectors. The shipped one may be absent: then no past cases are looked up; None leaves
            it out.
        index: Folder or database of past cases; the shipped index of LIDC-IDRI if None.

    Raises:
        BundleError: One is missing, damaged or made for another task.
    """
    found = _optional(search, SEARCH)
    shipped = str(LIDC_INDEX) if found is not None and LIDC_INDEX.is_dir() else None
    return Models(
        load_bundle(detection), load_bundle(outline), load_bundle(risk), _optional(semantic, SEMANTIC), malignancy_by,
        _optional(ssm, SSM), found, index or shipped,
    )  # fmt: skip


def _optional(name: str | None, shipped: str) -> Bundle | None:
    """A bundle; None where none is named, or where it is the shipped one and that is absent."""
    if name is None or (name == shipped and not (SHIPPED / shipped / MANIFEST).is_file()):
        return None
    return load_bundle(name)
