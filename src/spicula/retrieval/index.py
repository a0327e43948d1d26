"""What every index can do, wherever it keeps its vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spicula.core.embedding import Embeddings, Facts, Match, Scope

Kind: TypeAlias = Literal["text", "number"]
"""What a field of an index holds. Dates are text, ``YYYY-MM-DD``: they order as they read."""


@dataclass(frozen=True, slots=True)
class IndexStats:
    """What an index holds.

    Args:
        backend: ``"exact"``, ``"faiss-flat"``, ``"faiss-hnsw"``, ``"faiss-ivfpq"``, ``"pgvector"`` or
            ``"pgvector-hnsw"``.
        findings: How many are there.
        patients: Of how many patients.
        dimensions: Of a vector.
        fingerprint: Of what made the vectors.
        fields: Name and kind of everything that is known of findings.
        bytes_on_disk: Of all its files or tables.
        unindexed: Findings that are not in the approximate structure yet and are searched one by one.
    """

    backend: str
    findings: int
    patients: int
    dimensions: int
    fingerprint: str
    fields: Mapping[str, Kind]
    bytes_on_disk: int
    unindexed: int = 0


class Index(Protocol):
    """An index of embeddings with facts. Changes are whole or not at all, and last once the call has returned.

    All calls raise :class:`~spicula.core.errors.InputError` with the way back for what cannot be done.
    """

    @property
    def fingerprint(self) -> str:
        """What made the vectors; others are refused."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fields(self) -> Mapping[str, Kind]:
        """Name and kind of everything that is known of its findings, ``pid`` and ``nodule_id`` first."""
        ...

    @property
    def generation(self) -> str:
        """Another text after every add, update and remove, whoever made it: what was worked out before is stale then.

        It costs no more than a number read, and means nothing but that it is the same or another one.
        """
        ...

    def __len__(self) -> int:
        """Number of findings."""
        ...

    def __contains__(self, finding_id: object) -> bool:
        """Whether a finding is there."""
        ...

    def add(self, embeddings: Embeddings, facts: Sequence[Facts]) -> None:
        """Add findings; new fields are made as they come.

        Raises:
            InputError: Another fingerprint or length, facts without ``pid`` or ``nodule_id``, a fact of another kind
                than its field, or an id that is there already (nothing is added then).
        """
        ...

    def update(self, embeddings: Embeddings, facts: Sequence[Facts]) -> None:
        """Put other vectors and facts in the place of those that are there.

        Raises:
            InputError: As for :meth:`add`, or an id that is not there (nothing is changed then).
        """
        ...

    def remove(self, finding_ids: Sequence[str]) -> None:
        """Take findings out.

        Raises:
            InputError: An id that is not there (nothing is removed then).
        """
        ...

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        *,
        where: str | None = None,
        scope: Scope = "all",
        pids: Sequence[str] | None = None,
        own: Sequence[str | None] | None = None,
        fingerprint: str,
    ) -> list[tuple[Match, ...]]:
        """Find the nearest findings of each query.

        Args:
            vectors: float32 ``[q, d]`` of unit length.
            k: Places, not above the number of findings in the index.
            where: A condition on fields, for example ``"diameter_mm > 6 and type = 'lung'"``.
            scope: Which findings a query may find; scopes by patient need ``pids``.
            pids: Patient of each query.
            own: Id of each query that is in the index itself and shall not find itself.
            fingerprint: Of what made the queries.

        Returns:
            For each query at most k matches, the nearest first, equally near ones by their id; fewer where fewer fit.

        Raises:
            InputError: Another fingerprint or length, an empty index, k below 1 or above the index's size, an unknown
                field in the condition (the known ones are listed), patients missing for a scope.
        """
        ...

    def get(self, finding_ids: Sequence[str]) -> tuple[Embeddings, tuple[Facts, ...]]:
        """Vectors and facts of findings, in the order asked.

        Raises:
            InputError: An id that is not there.
        """
        ...

    def ids(self, where: str | None = None) -> tuple[str, ...]:
        """Ids of all findings that meet a condition, sorted."""
        ...

    def stats(self) -> IndexStats:
        """What it holds."""
        ...

    def check(self) -> Iterator[str]:
        """Read everything again; one sentence for each thing that is wrong, none for a sound index."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...

    def __enter__(self) -> Self:
        """Itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...
