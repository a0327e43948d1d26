"""Building the structures of faiss: from nothing, or by putting new vectors into one that is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from spicula.core.errors import InputError
from spicula.retrieval.faiss_file import Approximate, Built, building, faiss_module, open_built, read_built, write_built
from spicula.retrieval.vectors import Vectors

Progress: TypeAlias = Callable[[int, int], None]
"""Takes how many vectors are in the structure, and how many there will be."""

_BLOCK, _SAMPLE, _PER_LIST = 16_384, 65_536, 64
_FEWEST, _FEW = 16, 1024
"""Codes are not learned from fewer vectors, and codes of a whole byte not from fewer than the second."""


def build_structure(
    folder: Path,
    kind: Approximate,
    vectors: Vectors,
    generation: int,
    *,
    m: int,
    ef_construction: int,
    lists: int | None,
    parts: int | None,
    anew: bool,
    progress: Progress | None,
) -> None:
    """Make the structure of some vectors, or let the one that is there grow if it was made with the same numbers.

    Lists and codes are learned anew when there are more than twice as many vectors as they were learned from. Too few
    vectors to learn from leave everything as it is.

    Args:
        folder: Of the index.
        kind: Of structure.
        vectors: float32 ``[n, d]``, all that count.
        generation: Of their file.
        m: See :meth:`spicula.retrieval.faiss.FaissIndex.build`, also for the others.
        ef_construction: See there.
        lists: See there.
        parts: See there.
        anew: See there.
        progress: See there.

    Raises:
        InputError: Numbers that do not fit, another process is building, or the folder cannot be written.
    """
    if len(vectors) == 0 or (kind == "ivfpq" and len(vectors) < _FEWEST):
        return
    asked = _hnsw_settings(m, ef_construction) if kind == "hnsw" else _ivfpq_settings(vectors, lists, parts)
    with building(folder, kind):
        built = None if anew else read_built(folder, kind)
        if built is None or not built.describes(vectors, generation) or not _fits(built, asked, len(vectors), lists):
            structure = (_new_hnsw if kind == "hnsw" else _new_ivfpq)(vectors, asked)
        elif built.rows == len(vectors):
            return
        else:
            structure, asked = open_built(folder, built, mapped=False), dict(built.settings)
        _fill(structure, vectors, progress)
        write_built(folder, kind, structure, vectors, generation=generation, settings=asked)


def _fits(built: Built, asked: Mapping[str, int], rows: int, lists: int | None) -> bool:
    """Whether a structure can grow to what is asked for."""
    if "m" in asked:
        return built.settings == asked
    same = built.settings.get("parts") == asked["parts"] and lists in (None, built.settings.get("lists"))
    return same and rows <= 2 * built.settings.get("learned_from", 0)


def _hnsw_settings(m: int, ef_construction: int) -> dict[str, int]:
    if not 2 <= m <= 512 or ef_construction < 1:
        got = f"{m} and {ef_construction}"
        raise InputError("m and ef_construction", got=got, expected="2 to 512, and 1 or more")
    return {"m": m, "ef_construction": ef_construction}


def _ivfpq_settings(vectors: Vectors, lists: int | None, parts: int | None) -> dict[str, int]:
    rows, dimensions = vectors.shape
    if parts is None:
        parts = next(part for part in range(max(1, dimensions // 4), 0, -1) if dimensions % part == 0)
    if lists is None:
        lists = max(1, min(int(4 * math.sqrt(rows)), rows // 39))
    if parts < 1 or dimensions % parts or not 1 <= lists <= rows:
        expected = f"a divisor of {dimensions}, and 1 to {rows}"
        raise InputError("parts and lists", got=f"{parts} and {lists}", expected=expected)
    return {"lists": lists, "parts": parts, "learned_from": rows}


def _new_hnsw(vectors: Vectors, settings: Mapping[str, int]) -> Any:
    """A graph without vectors, over codes of one byte a number whose ranges fit a sample."""
    faiss = faiss_module()
    structure = faiss.IndexHNSWSQ(vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, settings["m"])
    structure.hnsw.efConstruction = settings["ef_construction"]
    structure.train(_sample(vectors, _SAMPLE))
    return structure


def _new_ivfpq(vectors: Vectors, settings: Mapping[str, int]) -> Any:
    """Lists without vectors, and codes that any list can read: faster, and opened without tables to compute."""
    faiss, dimensions = faiss_module(), vectors.shape[1]
    bits = 8 if len(vectors) >= _FEW else 4
    coarse = faiss.IndexFlatL2(dimensions)
    structure = faiss.IndexIVFPQ(coarse, dimensions, settings["lists"], settings["parts"], bits)
    structure.by_residual = False
    structure.cp.min_points_per_centroid = structure.pq.cp.min_points_per_centroid = 1
    structure.train(_sample(vectors, max(_SAMPLE, _PER_LIST * settings["lists"])))
    return structure


def _fill(structure: Any, vectors: Vectors, progress: Progress | None) -> None:
    """Put those vectors into a structure that are not in it yet, in their order."""
    for start in range(int(structure.ntotal), len(vectors), _BLOCK):
        structure.add(np.ascontiguousarray(vectors[start : start + _BLOCK]))
        if progress is not None:
            progress(int(structure.ntotal), len(vectors))


def _sample(vectors: Vectors, size: int) -> Vectors:
    if len(vectors) <= size:
        return np.ascontiguousarray(vectors)
    rows = np.random.default_rng(0).choice(len(vectors), size, replace=False)
    return np.ascontiguousarray(vectors[np.sort(rows)])
