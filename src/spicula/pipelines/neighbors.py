"""The past cases that look like the findings of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spicula.core.embedding import Scope
from spicula.core.errors import BundleError, InputError
from spicula.core.finding import Finding
from spicula.core.neighbors import Neighborhood
from spicula.core.volume import Volume
from spicula.pipelines.index import open_place
from spicula.pipelines.models import Models
from spicula.pipelines.search import MATCHES, Query, evidence, search
from spicula.pipelines.usual import usual_in
from spicula.retrieval.embedder import Embedder
from spicula.retrieval.index import Index


def neighbors_of_findings(
    volume: Volume, findings: Sequence[Finding], *, models: Models, k: int = MATCHES
) -> tuple[Neighborhood, ...]:
    """Look up the past cases, of other patients, that look like each outlined finding.

    Args:
        volume: The scan.
        findings: Those without an outline are passed over.
        models: The bundles and the index in use; nothing is found without either.
        k: Past cases of each finding, at most.

    Raises:
        BundleError: The index was made by another bundle.
        InputError: There is no such index, or it is damaged.
    """
    embedder, place = models.embedder, models.index
    outlined = [(one, one.mask) for one in findings if one.mask is not None and one.mask.array_zyx.any()]
    if embedder is None or place is None or not outlined:
        return ()
    with open_place(place) as index:
        _require_fitting(index, place, embedder)
        if not len(index):
            return ()
        pid, image = volume.acquisition.patient_id, Path(volume.acquisition.source)
        queries = [
            Query(pid, one.id, embedder(volume, mask), one.center_xyz_mm, image, volume.series_uid)
            for one, mask in outlined
        ]
        scope: Scope = "cross-patient" if pid else "all"
        answers = search(queries, index, k=min(k, len(index)), fingerprint=embedder.fingerprint, scope=scope)
        background = usual_in(place, index)
    return tuple(evidence(answer, background=background, fingerprint=embedder.fingerprint) for answer in answers)


def require_index(models: Models) -> None:
    """Say at once, rather than after a long analysis, why no past case could be looked up.

    Args:
        models: With an index or a bundle that a user named.

    Raises:
        BundleError: The index was made by another bundle.
        InputError: There is no bundle or no index, or it is damaged.
    """
    embedder, place = models.embedder, models.index
    if embedder is None:
        hint = "name the one that made the index with --search-bundle"
        raise InputError("bundle that makes vectors of nodules", got="none in this version", hint=hint)
    if place is None:
        hint = "name one with --index; 'spicula index build' makes it"
        raise InputError("index of past cases", got="none in this version", hint=hint)
    with open_place(place) as index:
        _require_fitting(index, place, embedder)


def _require_fitting(index: Index, place: str, embedder: Embedder) -> None:
    if index.fingerprint != embedder.fingerprint:
        raise BundleError(
            f"index {place}", got=f"vectors of {index.fingerprint}", expected=embedder.fingerprint,
            hint="build it anew with 'spicula index build', or name its bundle (--search-bundle)",
        )  # fmt: skip
