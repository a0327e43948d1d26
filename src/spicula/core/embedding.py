"""Embeddings of findings, and what a search among them gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError

Fact: TypeAlias = str | float
"""What is known of a finding under one name: text or a number."""

Facts: TypeAlias = Mapping[str, Fact]
"""All that is known of a finding: ``pid``, ``nodule_id`` and whatever else, by name."""

Scope: TypeAlias = Literal["all", "same-patient", "cross-patient"]
"""Which findings a query may find: all, those of its own patient, or those of other patients."""


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Vectors of findings, of unit length, with the identity of what made them.

    Args:
        vectors: float32 ``[n, d]``, finite, each of length 1 (to 1e-3).
        finding_ids: ``[n]`` text, each once; ``PID/NODULE_ID`` where they come from a table.
        fingerprint: Hash of network, weights and preprocessing, see :attr:`spicula.core.bundle.Bundle.fingerprint`.

    Raises:
        InputError: Shapes that do not agree, a vector that is not finite or not of unit length, an id that is empty
            or there twice, or no fingerprint.

    Example:
        >>> Embeddings(np.eye(2, dtype=np.float32), ("a/1", "b/1"), "net@0").dimensions
        2
    """

    vectors: NDArray[np.float32]
    finding_ids: tuple[str, ...]
    fingerprint: str

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.shape[1] == 0 or self.vectors.dtype != np.float32:
            got = f"shape {self.vectors.shape} of {self.vectors.dtype}"
            raise InputError("embeddings", got=got, expected="float32 [n, d]")
        if len(self.finding_ids) != len(self.vectors):
            raise InputError("ids of the embeddings", got=len(self.finding_ids), expected=len(self.vectors))
        if len(set(self.finding_ids)) != len(self.finding_ids) or not all(self.finding_ids):
            raise InputError("ids of the embeddings", got="one that is empty or there twice", expected="each once")
        if not self.fingerprint:
            raise InputError("fingerprint of the embeddings", got="nothing", expected="what made them")
        length = np.linalg.norm(self.vectors.astype(np.float64), axis=1)
        wrong = np.flatnonzero(~(np.abs(length - 1.0) < 1e-3))
        if wrong.size:
            got = f"length {length[wrong[0]]:.6g}"
            raise InputError(f"embedding of {self.finding_ids[wrong[0]]}", got=got, expected="1: divide by the length")

    def __len__(self) -> int:
        """Number of findings."""
        return len(self.finding_ids)

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return int(self.vectors.shape[1])


@dataclass(frozen=True, slots=True)
class Match:
    """A finding of an index that looks like the query.

    Args:
        finding_id: Which finding of the index.
        distance: Euclidean between the unit vectors: 0 for the same direction, 2 for the opposite.
        facts: What is known of it.
    """

    finding_id: str
    distance: float
    facts: Facts
