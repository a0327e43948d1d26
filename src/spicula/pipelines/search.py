"""The cases that look like this one: the job behind ``spicula search``, and the neighbors of ``analyze``."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicula.core.embedding import Match, Scope
from spicula.core.errors import InputError
from spicula.core.files import written_aside
from spicula.core.finding import Point
from spicula.core.neighbors import Background, Neighborhood
from spicula.core.volume import Volume
from spicula.explain.neighbors import background_of, neighborhood
from spicula.pipelines.embed_nodules import EmbeddedNodule, finding_id, outline_at, outline_in_box, point_of
from spicula.pipelines.models import Models
from spicula.retrieval.embedder import Embedder
from spicula.retrieval.index import Index

COLUMNS = ("query_pid", "query_nodule_id", "rank", "pid", "nodule_id", "distance")
"""Of a file of matches."""

SAMPLE = 500
"""From so many findings of an index, drawn by chance, is told what is usual in it."""


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A nodule whose like is looked for.

    Args:
        pid: Patient; empty where it is not known.
        nodule_id: Its name, for the answer.
        vector: float32 ``[d]`` of unit length.
        center_xyz_mm: Where it is in its image, LPS mm; None where that is not known.
        image: Its image; None where it is not known.
    """

    pid: str
    nodule_id: str
    vector: NDArray[np.float32]
    center_xyz_mm: Point | None = None
    image: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What was found for one query.

    Args:
        query: The query.
        matches: The nearest first.
    """

    query: Query
    matches: tuple[Match, ...]


def query_of(nodule: EmbeddedNodule) -> Query:
    """A row of a table as a query.

    Raises:
        InputError: It could not be embedded; says why.
    """
    if nodule.vector is None:
        raise InputError(f"nodule {nodule.nodule_id} of {nodule.pid}", got=nodule.error)
    facts = nodule.facts
    center = point_of([float(facts[f"{axis}_mm"]) for axis in "xyz"])
    return Query(nodule.pid, nodule.nodule_id, nodule.vector, center, Path(str(facts["image_path"])))


def query_at(volume: Volume, center_xyz_mm: Sequence[float], *, embedder: Embedder, models: Models) -> Query:
    """What lies at a place of a scan, as a query.

    Args:
        volume: The scan, HU.
        center_xyz_mm: LPS mm.
        embedder: Makes the vector.
        models: Of which the outline network is used.

    Raises:
        GeometryError: The place lies outside the scan; the hint says which flip of axes would bring it in.
        InputError: There is nothing that could be outlined.
    """
    center = point_of(center_xyz_mm)
    name = ",".join(f"{value:.1f}" for value in center)
    mask = outline_at(volume, center, models=models, what=f"place {name} of {volume.name}")
    return Query(volume.acquisition.patient_id, name, embedder(volume, mask), center)


def query_in_box(
    volume: Volume, slice_index: int, box: Sequence[float], *, embedder: Embedder, models: Models
) -> Query:
    """What a box is drawn around on a slice, as a query.

    Args:
        volume: The scan, or a single slice, HU.
        slice_index: Along its first axis, from 0.
        box: x0, y0, x1, y1 in pixels of that slice.
        embedder: Makes the vector.
        models: Of which the outline network is used.

    Raises:
        GeometryError: The box reaches outside the slice or is thinner than two pixels, or there is no such slice.
    """
    mask = outline_in_box(volume, slice_index, box, models=models)
    name = f"slice {slice_index}, box " + ",".join(f"{value:g}" for value in box)
    places = mask.geometry.index_to_world(np.argwhere(mask.array_zyx))
    return Query(volume.acquisition.patient_id, name, embedder(volume, mask), point_of(places.mean(axis=0).tolist()))


def search(
    queries: Sequence[Query], index: Index, *, k: int = 10, fingerprint: str, where: str | None = None,
    scope: Scope = "all",
) -> tuple[Answer, ...]:  # fmt: skip
    """Find the nearest findings of each query; a query that is in the index does not find itself.

    Args:
        queries: Whose like is looked for.
        index: Where.
        k: Most matches of each.
        fingerprint: Of what made the queries' vectors.
        where: A condition on fields of the index, for example ``"diameter_mm > 6"``.
        scope: Which findings a query may find.

    Returns:
        In the order of the queries.

    Raises:
        InputError: There is no query, one lacks a patient that the scope needs, or see
            :meth:`spicula.retrieval.index.Index.search`.
    """
    if not queries:
        raise InputError("queries", got="none", expected="one or more")
    if scope != "all":
        for query in queries:
            if not query.pid:
                hint = "search all, or name the patient with --pid"
                raise InputError(f"patient of {query.nodule_id}", got="none", expected=f"one, for {scope}", hint=hint)
    own = [finding_id(query.pid, query.nodule_id) for query in queries]
    found = index.search(
        np.stack([query.vector for query in queries]), k, where=where, scope=scope,
        pids=[query.pid for query in queries], own=[name if name in index else None for name in own],
        fingerprint=fingerprint,
    )  # fmt: skip
    return tuple(Answer(query, matches) for query, matches in zip(queries, found, strict=True))


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


def evidence(answer: Answer, *, background: Background, fingerprint: str) -> Neighborhood:
    """What the matches of a query say, those of its own patient left out."""
    others = [match for match in answer.matches if match.facts["pid"] != answer.query.pid]
    return neighborhood(answer.query.nodule_id, others, background=background, fingerprint=fingerprint)


def write_matches(path: Path, answers: Iterable[Answer]) -> None:
    """Write a file of matches with :data:`COLUMNS`, whole or not at all."""
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for answer in answers:
            for rank, match in enumerate(answer.matches, start=1):
                facts = match.facts
                named = (answer.query.pid, answer.query.nodule_id, rank, facts["pid"], facts["nodule_id"])
                writer.writerow([*named, f"{match.distance:.6f}"])
