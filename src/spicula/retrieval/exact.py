"""The exact index: every finding is measured, so it is the truth that others are compared with."""

from __future__ import annotations

from spicula.retrieval.folder import FolderIndex
from spicula.retrieval.nearest import Near
from spicula.retrieval.selection import Allowed
from spicula.retrieval.vectors import Vectors
from spicula.retrieval.verification import View


class ExactIndex(FolderIndex):
    """An index in a folder that is searched one by one; see :class:`~spicula.retrieval.folder.FolderIndex`.

    Exact to the last bit: products in float32 only say which vectors are worth measuring in float64.
    """

    backend = "exact"

    def _nearest(self, view: View, queries: Vectors, k: int, allowed: Allowed) -> list[Near]:
        return self._exact(view, queries, k, allowed)
