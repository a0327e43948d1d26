"""The index of faiss: a structure beside the truth says which findings are worth measuring.

Distances are always measured on the vectors of the truth, in float64. Findings that were added since the structure was
built are searched one by one, removed ones are left out, and where only few findings are allowed, or the structure
brings too few, all that are allowed are measured. What is approximate is only which findings are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.retrieval.faiss_building import Progress, build_structure
from spicula.retrieval.faiss_file import Built, Opened, faiss_module, read_built, remove_built
from spicula.retrieval.folder import FolderIndex
from spicula.retrieval.nearest import Near, measured, merged, nearest_rows, slack
from spicula.retrieval.selection import Allowed
from spicula.retrieval.vectors import RowNumbers, Vectors
from spicula.retrieval.verification import View

FaissKind: TypeAlias = Literal["flat", "hnsw", "ivfpq"]
"""``flat`` is exact and needs no structure: faiss reads the vectors where they are."""

_FEW_WITHOUT = 64
_REMEASURED = {"flat": 1, "hnsw": 4, "ivfpq": 20}


@dataclass(frozen=True, slots=True, eq=False)
class _Bits:
    """The rows of a structure that may be found: one bit a row, the lowest first, and how many are set."""

    bits: NDArray[np.uint8]
    number: int


class FaissIndex(FolderIndex):
    """An index in a folder that is searched by faiss; see :class:`~spicula.retrieval.folder.FolderIndex`.

    Args:
        folder: Made by :func:`spicula.retrieval.opening.create_index`.
        kind: What faiss searches.
        ef_search: Of ``hnsw``: candidates that are kept on the way; more is slower and misses less.
        nprobe: Of ``ivfpq``: lists that are read; more is slower and misses less.
        remeasured: Findings that are measured for each of the k places; None for 4 (hnsw) or 20 (ivfpq).
        exact_below: Where so many findings or fewer are allowed, each is measured.
        exact_share: The same as a share of all findings.
        threads: That faiss uses; None for its own choice.
        wait_s: Seconds to wait for another process that changes the index.

    Raises:
        InputError: No index, a damaged one, or a damaged structure, which
            :func:`spicula.retrieval.faiss_file.remove_built` takes away.
        MissingExtraError: faiss is not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: FaissKind = "hnsw",
        ef_search: int = 96,
        nprobe: int = 64,
        remeasured: int | None = None,
        exact_below: int = 10_000,
        exact_share: float = 0.05,
        threads: int | None = None,
        wait_s: float = 30.0,
    ) -> None:
        if kind not in _REMEASURED:
            raise InputError("kind of the faiss index", got=repr(kind), expected=", ".join(_REMEASURED))
        numbers = [ef_search, nprobe, 1 if remeasured is None else remeasured, 1 if threads is None else threads]
        if min(numbers) < 1:
            raise InputError("ef_search, nprobe, remeasured and threads", got=min(numbers), expected="1 or more")
        self._faiss = faiss_module()
        self._kind, self.backend = kind, f"faiss-{kind}"
        self._ef_search, self._nprobe, self._threads = ef_search, nprobe, threads
        self._remeasured = _REMEASURED[kind] if remeasured is None else remeasured
        self._exact_below, self._exact_share = exact_below, exact_share
        self._opened = None if kind == "flat" else Opened(Path(folder), kind)
        self._live: tuple[int, int, _Bits] | None = None
        super().__init__(folder, wait_s=wait_s)
        try:
            with self._view() as view:
                self._structure(view)
        except BaseException:
            self.close()
            raise

    def build(
        self,
        *,
        m: int = 32,
        ef_construction: int = 200,
        lists: int | None = None,
        parts: int | None = None,
        anew: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Make the structure of all vectors, or put those into it that came since. Others read and write meanwhile.

        Args:
            m: Of ``hnsw``: links of a finding, 2 to 512; more is larger and misses less.
            ef_construction: Of ``hnsw``: candidates that are weighed for them; more is slower to build.
            lists: Of ``ivfpq``: how many; None for four times the root of the number of vectors.
            parts: Of ``ivfpq``: bytes of a finding, a divisor of the length; None for a fourth of it or less.
            anew: Make it from nothing even where it could grow.
            progress: Told how many vectors are done.

        Raises:
            InputError: Numbers that do not fit, another process is building, or the folder cannot be written.
        """
        if self._kind == "flat":
            return
        with self._view() as view:
            vectors, generation = view.vectors, view.state.generation
        with self._threads_set():
            build_structure(
                self._folder, self._kind, vectors, generation, m=m, ef_construction=ef_construction, lists=lists,
                parts=parts, anew=anew, progress=progress,
            )  # fmt: skip

    def compact(self) -> None:
        """Write the vectors anew without gaps, and the structure with the numbers it was built with.

        Raises:
            InputError: The folder cannot be written.
        """
        super().compact()
        if self._kind != "flat" and read_built(self._folder, self._kind) is not None and not self.uses_structure:
            self.build_again()

    def build_again(self, *, progress: Progress | None = None) -> None:
        """Make the structure anew with the numbers it was built with; take it away where there is too little for it.

        Args:
            progress: Told how many vectors are done.

        Raises:
            InputError: It cannot be understood, another process is building, or the folder cannot be written.
        """
        before = None if self._kind == "flat" else read_built(self._folder, self._kind)
        if self._kind == "flat" or before is None:
            return
        made = before.settings
        self.build(
            m=made.get("m", 32), ef_construction=made.get("ef_construction", 200), parts=made.get("parts"), anew=True,
            progress=progress,
        )  # fmt: skip
        if read_built(self._folder, self._kind) == before and not self.uses_structure:
            remove_built(self._folder, self._kind)

    @property
    def uses_structure(self) -> bool:
        """Whether a structure of these vectors is there."""
        with self._view() as view:
            return self._structure(view) is not None

    def close(self) -> None:
        """Let go of files and connections."""
        self._live = None
        if self._opened is not None:
            self._opened.close()
        super().close()

    def _nearest(self, view: View, queries: Vectors, k: int, allowed: Allowed) -> list[Near]:
        with self._threads_set():
            if self._kind == "flat":
                return self._flat(view, queries, k, allowed)
            opened = self._structure(view)
            number = view.state.findings if allowed.rows is None else allowed.rows.size
            if opened is None or number <= max(self._exact_below, self._exact_share * view.state.findings):
                return self._exact(view, queries, k, allowed)
            return self._approximate(view, opened, queries, k, allowed)

    def _flat(self, view: View, queries: Vectors, k: int, allowed: Allowed) -> list[Near]:
        """Let faiss estimate all distances; more and more are asked for until rounding leaves nothing in doubt."""
        rows, most = len(view.vectors), view.gaps.size + _most(allowed.without)
        if allowed.rows is not None or most > _FEW_WITHOUT:
            return self._exact(view, queries, k, allowed)
        without = [np.union1d(view.gaps, given) for given in allowed.without]
        wanted = k + most + 16
        while True:
            squares, found = self._faiss.knn(queries, view.vectors, min(wanted, rows))
            near = _measured(view.vectors, queries, found, without, k)
            sure = squares[:, -1].astype(np.float64) - slack(view.vectors.shape[1])
            pairs = zip(near, sure, strict=True)
            if wanted >= rows or all(one.rows.size >= k and one.distances[-1] ** 2 < limit for one, limit in pairs):
                return near
            wanted *= 4

    def _approximate(
        self, view: View, opened: tuple[Built, Any], queries: Vectors, k: int, allowed: Allowed
    ) -> list[Near]:
        """Measure what the structure brings and what it does not know yet; all that is allowed where that is not k."""
        built, structure = opened
        found = self._candidates(structure, queries, k, self._bits(view, built.rows, allowed.rows), allowed.without)
        near = _measured(view.vectors, queries, found, allowed.without, k)
        later = _later_rows(view, built.rows, allowed.rows)
        if later.size:
            more = nearest_rows(view.vectors, queries, k, rows=later, without=allowed.without)
            near = [merged(one, other, k) for one, other in zip(near, more, strict=True)]
        few = np.array([query for query, one in enumerate(near) if one.rows.size < k], dtype=np.int64)
        if few.size:
            again = Allowed(few, allowed.rows, [allowed.without[query] for query in few])
            for query, one in zip(few, self._exact(view, queries[few], k, again), strict=True):
                near[query] = one
        return near

    def _candidates(
        self, structure: Any, queries: Vectors, k: int, bits: _Bits | None, without: Sequence[RowNumbers]
    ) -> RowNumbers:
        """Rows ``[q, c]`` that the structure brings, -1 where it has no more.

        A few rows that a query must not find are asked for in addition, to be dropped; many are kept from being found.
        """
        most, rows = _most(without), int(structure.ntotal)
        wanted = min(rows, k * self._remeasured + min(most, _FEW_WITHOUT))
        if most <= _FEW_WITHOUT:
            return self._asked(structure, queries, wanted, bits)
        found = [
            self._asked(structure, queries[query : query + 1], wanted, _cleared(bits, rows, given))
            for query, given in enumerate(without)
        ]
        return np.concatenate(found)

    def _asked(self, structure: Any, queries: Vectors, wanted: int, bits: _Bits | None) -> RowNumbers:
        """One call of faiss; the fewer rows may be found, the longer it looks."""
        selector = None if bits is None else self._faiss.IDSelectorBitmap(bits.bits)
        share = 1.0 if bits is None else max(1, bits.number) / structure.ntotal
        if self._kind == "hnsw":
            effort = min(math.ceil(max(self._ef_search, wanted) / share), structure.ntotal)
            numbers = self._faiss.SearchParametersHNSW(sel=selector, efSearch=effort)
        else:
            effort = min(math.ceil(self._nprobe / share), structure.nlist)
            numbers = self._faiss.SearchParametersIVF(sel=selector, nprobe=effort)
        _, found = structure.search(queries, wanted, params=numbers)
        return np.asarray(found, dtype=np.int64)

    def _bits(self, view: View, rows: int, allowed: RowNumbers | None) -> _Bits | None:
        """The first rows that may be found; None if all may."""
        if allowed is not None:
            chosen = allowed[: np.searchsorted(allowed, rows)]
            return _bits_of(rows, chosen, others=False)
        if view.gaps.size == 0 or view.gaps[0] >= rows:
            return None
        live = self._live
        if live is None or live[:2] != (view.state.changes, rows):
            gaps = view.gaps[: np.searchsorted(view.gaps, rows)]
            live = self._live = view.state.changes, rows, _bits_of(rows, gaps, others=True)
        return live[2]

    def _structure(self, view: View) -> tuple[Built, Any] | None:
        return None if self._opened is None else self._opened.of(view.vectors, view.state.generation)

    def _unindexed(self, view: View) -> int:
        if self._kind == "flat":
            return 0
        opened = self._structure(view)
        if opened is None:
            return view.state.findings
        counted = view.connection.execute("SELECT COUNT(*) FROM findings WHERE _row >= ?", (opened[0].rows,))
        return int(counted.fetchone()[0])

    @contextmanager
    def _threads_set(self) -> Iterator[None]:
        if self._threads is None:
            yield
            return
        before = self._faiss.omp_get_max_threads()
        self._faiss.omp_set_num_threads(self._threads)
        try:
            yield
        finally:
            self._faiss.omp_set_num_threads(before)


def _most(without: Sequence[RowNumbers]) -> int:
    """The largest number of rows that any query must not find."""
    return max((given.size for given in without), default=0)


def _measured(
    vectors: Vectors, queries: Vectors, found: RowNumbers, without: Sequence[RowNumbers], k: int
) -> list[Near]:
    """Measure candidates ``[q, c]``, without places that are empty and rows that a query must not find."""
    near = []
    for query, rows, given in zip(queries, found, without, strict=True):
        kept = rows[rows >= 0]
        if given.size:
            kept = kept[~np.isin(kept, given)]
        near.append(measured(vectors, query, kept, k))
    return near


def _later_rows(view: View, rows: int, allowed: RowNumbers | None) -> RowNumbers:
    """Rows that came after a structure was built."""
    if allowed is not None:
        return allowed[np.searchsorted(allowed, rows) :]
    later = np.arange(rows, view.state.rows, dtype=np.int64)
    return np.setdiff1d(later, view.gaps, assume_unique=True) if later.size else later


def _bits_of(rows: int, chosen: RowNumbers, *, others: bool) -> _Bits:
    """Bits of the chosen rows, or of the others."""
    mask = np.full(rows, others, dtype=np.bool_)
    mask[chosen] = not others
    return _Bits(np.packbits(mask, bitorder="little"), rows - chosen.size if others else chosen.size)


def _cleared(bits: _Bits | None, rows: int, given: RowNumbers) -> _Bits:
    """The same bits but for some rows."""
    given = given[given < rows]
    if bits is None:
        return _bits_of(rows, given, others=True)
    mask = np.unpackbits(bits.bits, count=rows, bitorder="little").astype(np.bool_)
    mask[given] = False
    return _Bits(np.packbits(mask, bitorder="little"), int(mask.sum()))
