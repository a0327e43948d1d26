"""The past cases that look like the findings of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from spicula.core.embedding import Scope
from spicula.core.errors import BundleError
from spicula.core.finding import Finding
from spicula.core.neighbors import Background, Neighborhood
from spicula.core.volume import Volume
from spicula.pipelines.index import open_place
from spicula.pipelines.models import Models
from spicula.pipelines.search import Query, evidence, search, usual

NEIGHBORS = 10
"""Of each finding."""


def neighbors_of_findings(
    volume: Volume, findings: Sequence[Finding], *, models: Models, k: int = NEIGHBORS
) -> tuple[Neighborhood, ...]:
    """Look up the past cases, of other patients, that look like each outlined finding.

    Args:
        volume: The scan.
        findings: Those without an outline are passed over.
        models: The bundles and the index in use; nothing is found without either.
        k: Past cases of each finding, at most.

    Raises:
        BundleError: The index was made by another bundle.
    """
    embedder, place = models.embedder, models.index
    outlined = [(one, one.mask) for one in findings if one.mask is not None and one.mask.array_zyx.any()]
    if embedder is None or place is None or not outlined:
        return ()
    with open_place(place) as index:
        if index.fingerprint != embedder.fingerprint:
            raise BundleError(
                f"index {place}", got=f"vectors of {index.fingerprint}", expected=embedder.fingerprint,
                hint="build it anew with 'spicula index build', or name its bundle",
            )  # fmt: skip
        if not len(index):
            return ()
        pid = volume.acquisition.patient_id
        queries = [Query(pid, one.id, embedder(volume, mask)) for one, mask in outlined]
        scope: Scope = "cross-patient" if pid else "all"
        answers = search(queries, index, k=min(k, len(index)), fingerprint=embedder.fingerprint, scope=scope)
        background = _usual(place, embedder.fingerprint, len(index))
    return tuple(evidence(answer, background=background, fingerprint=embedder.fingerprint) for answer in answers)


@lru_cache(maxsize=8)
def _usual(place: str, _fingerprint: str, _findings: int) -> Background:
    """What is usual in an index, told once as long as it does not change."""
    with open_place(place) as index:
        return usual(index)
