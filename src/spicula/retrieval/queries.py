"""What may be asked of an index and put into it, checked in the same words whatever the backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from spicula.core.embedding import Embeddings, Scope
from spicula.core.errors import InputError
from spicula.retrieval.vectors import Vectors

_SHOWN = 3


def checked_queries(vectors: NDArray[np.float32], dimensions: int, *, fingerprint: str, expected: str) -> Vectors:
    """Return the vectors of queries, contiguous.

    Args:
        vectors: float32 ``[q, d]`` of unit length, to 1e-3.
        dimensions: Of the index.
        fingerprint: Of what made the queries.
        expected: Fingerprint of the index.

    Raises:
        InputError: Another fingerprint, shape or length, or a number that is not finite.
    """
    _check_fingerprint("queries", fingerprint, expected)
    array = np.asarray(vectors)
    if array.ndim != 2 or array.shape[1] != dimensions or array.dtype != np.float32:
        got = f"shape {array.shape} of {array.dtype}"
        raise InputError("vectors of the queries", got=got, expected=f"float32 [q, {dimensions}]")
    length = np.linalg.norm(array.astype(np.float64), axis=1)
    wrong = np.flatnonzero(~(np.abs(length - 1.0) < 1e-3))
    if wrong.size:
        got = f"length {length[wrong[0]]:.6g}"
        raise InputError(f"query {wrong[0]}", got=got, expected="1: divide by the length")
    return np.ascontiguousarray(array)


def checked_embeddings(embeddings: Embeddings, dimensions: int, expected: str) -> Embeddings:
    """Return embeddings that fit an index of some dimensions and fingerprint.

    Raises:
        InputError: They do not.
    """
    _check_fingerprint("embeddings", embeddings.fingerprint, expected)
    if embeddings.dimensions != dimensions:
        raise InputError("length of the embeddings", got=embeddings.dimensions, expected=f"{dimensions}, as the index")
    return embeddings


def check_places(k: int, findings: int, index: Path | str) -> None:
    """Refuse a number of places that an index cannot fill.

    Raises:
        InputError: An empty index, or k below 1 or above the number of findings.
    """
    if findings == 0:
        raise InputError(
            f"{index}: an empty index", expected="findings to search", hint="`spicula index add` puts some in"
        )
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= findings:
        raise InputError("k", got=k, expected=f"1 to {findings}, the number of findings in the index")


def checked_scope(scope: Scope, pids: Sequence[str] | None, queries: int) -> Sequence[str]:
    """Return the patient of each query; nothing where the scope needs none.

    Raises:
        InputError: An unknown scope, or not one patient for each query.
    """
    if scope not in get_args(Scope):
        raise InputError("scope", got=repr(scope), expected=f"one of {', '.join(get_args(Scope))}")
    if scope == "all":
        return ()
    if pids is None or len(pids) != queries or not all(pids):
        got = "none" if pids is None else f"{len([pid for pid in pids if pid])}"
        raise InputError(f"patients for the scope {scope}", got=got, expected=f"{queries}, one for each query")
    return pids


def no_such(absent: Sequence[str], index: Path | str) -> InputError:
    """The error for ids that are not in an index."""
    shown = ", ".join(absent[:_SHOWN]) + (f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else "")
    return InputError(f"{index}: no finding {shown}", expected="ids that are there", hint="ids() lists them")


def _check_fingerprint(what: str, got: str, expected: str) -> None:
    if got != expected:
        hint = "vectors of different networks cannot be compared: embed them with the network of the index"
        raise InputError(f"fingerprint of the {what}", got=repr(got), expected=repr(expected), hint=hint)
