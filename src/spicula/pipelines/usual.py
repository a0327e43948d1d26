"""What is usual in an index, worked out once: in a large one that takes longer than a search."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np

from spicula.core.files import written_aside
from spicula.core.neighbors import Background
from spicula.explain.neighbors import background_of
from spicula.retrieval.index import Index

SAMPLE = 500
"""From so many findings of an index, drawn by chance, is told what is usual in it."""

LARGE = 5000
"""An index of so many findings keeps the answer beside its vectors, where its folder can be written."""

KEPT = "usual.json"
"""Name of that file; it is made anew when it does not fit the index."""

_FORMAT, _MOST = 1, 8
_known: OrderedDict[tuple[str, str, str], Background] = OrderedDict()
_lock = threading.Lock()


def usual(index: Index, *, sample: int = SAMPLE, seed: int = 0) -> Background:
    """What is usual in an index: how near its findings are to those of other patients, and the means of their facts.

    Args:
        index: With findings of two patients or more; else nothing is usual in it.
        sample: Findings to look at, at most.
        seed: Of the choice.
    """
    names = index.ids()
    if not names:
        return Background((), {})
    chosen = np.random.default_rng(seed).permutation(len(names))[:sample]
    embeddings, facts = index.get([names[place] for place in sorted(chosen.tolist())])
    nearest = index.search(
        embeddings.vectors, 1, scope="cross-patient", pids=[str(known["pid"]) for known in facts],
        own=list(embeddings.finding_ids), fingerprint=index.fingerprint,
    )  # fmt: skip
    return background_of([found[0].distance for found in nearest if found], facts)


def usual_in(place: str, index: Index) -> Background:
    """The same, told once as long as the index does not change.

    Args:
        place: Folder or database of the index.
        index: The same, opened.
    """
    generation = index.generation
    key = place, index.fingerprint, generation
    with _lock:
        if key in _known:
            _known.move_to_end(key)
            return _known[key]
    kept = Path(place) / KEPT if Path(place).is_dir() and len(index) >= LARGE else None
    found = None if kept is None else _read(kept, index.fingerprint, generation)
    if found is None:
        found = usual(index)
        if kept is not None and index.generation == generation:
            _write(kept, found, index.fingerprint, generation)
    with _lock:
        _known[key] = found
        while len(_known) > _MOST:
            _known.popitem(last=False)
    return found


def _read(path: Path, fingerprint: str, generation: str) -> Background | None:
    """What was kept; None where it is of another state of the index, damaged or not there."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if [record["format"], record["fingerprint"], record["generation"]] != [_FORMAT, fingerprint, generation]:
            return None
        distances = [float(value) for value in record["nearest"]]
        means = {str(name): float(value) for name, value in record["means"].items()}
        return Background(background_of(distances, ()).nearest, means)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # InputError is a ValueError
        return None


def _write(path: Path, found: Background, fingerprint: str, generation: str) -> None:
    """Keep it where that can be done: it is quickly worked out again."""
    named = {"format": _FORMAT, "fingerprint": fingerprint, "generation": generation}
    with suppress(OSError), written_aside(path) as aside:
        aside.write_text(json.dumps({**named, "nearest": found.nearest, "means": dict(found.means)}), encoding="utf-8")
