"""The cases that look like this one: the job behind ``spicula search``, and the neighbors of ``analyze``."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicula.core.embedding import Facts, Match, Scope
from spicula.core.errors import InputError
from spicula.core.files import written_aside
from spicula.core.finding import Point
from spicula.core.neighbors import Background, Neighborhood
from spicula.core.volume import Volume
from spicula.explain.neighbors import neighborhood
from spicula.pipelines.embed_nodules import EmbeddedNodule, finding_id, outline_at, outline_in_box, point_of
from spicula.pipelines.models import Models
from spicula.retrieval.embedder import Embedder
from spicula.retrieval.index import Index
from spicula.retrieval.where import parse_condition

COLUMNS = ("query_pid", "query_nodule_id", "rank", "pid", "nodule_id", "distance")
"""Of a file of matches."""

MATCHES = 10
"""Of each query, where nobody says how many."""

SAME_PLACE_MM = 3.0
"""So near a place of the same scan is the same finding, and in any case what lies within half of its diameter."""

SELVES = 8
"""Past cases that are the queried finding itself, at most: an index may have a nodule as several readers drew it."""


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A nodule whose like is looked for.

    Args:
        pid: Patient; empty where it is not known.
        nodule_id: Its name, for the answer.
        vector: float32 ``[d]`` of unit length.
        center_xyz_mm: Where it is in its image, LPS mm; None where that is not known.
        image: Its image; None where it is not known.
        series_uid: Its series; empty where it has none.
    """

    pid: str
    nodule_id: str
    vector: NDArray[np.float32]
    center_xyz_mm: Point | None = None
    image: Path | None = None
    series_uid: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What was found for one query.

    Args:
        query: The query.
        matches: The nearest first.
        patients: Whom the query is of, as it says itself and as the index names the patient of the same scan.
        nearest: Distance to the nearest finding of another patient, whatever was asked; None where there is none.
    """

    query: Query
    matches: tuple[Match, ...]
    patients: frozenset[str] = frozenset()
    nearest: float | None = None


def query_of(nodule: EmbeddedNodule) -> Query:
    """A row of a table as a query.

    Raises:
        InputError: It could not be embedded; says why.
    """
    if nodule.vector is None:
        raise InputError(f"nodule {nodule.nodule_id} of {nodule.pid}", got=nodule.error)
    facts = nodule.facts
    center = point_of([float(facts[f"{axis}_mm"]) for axis in "xyz"])
    image, series_uid = Path(str(facts["image_path"])), str(facts.get("series_uid", ""))
    return Query(nodule.pid, nodule.nodule_id, nodule.vector, center, image, series_uid)


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
    return Query(volume.acquisition.patient_id, name, embedder(volume, mask), center, series_uid=volume.series_uid)


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
    center = point_of(places.mean(axis=0).tolist())
    return Query(volume.acquisition.patient_id, name, embedder(volume, mask), center, series_uid=volume.series_uid)


def checked_question(index: Index, *, k: int | None, where: str | None, fingerprint: str) -> int:
    """Say what an index cannot answer, before anything is embedded for it.

    Args:
        index: Where shall be searched.
        k: Most matches of each query; ten, or all of a smaller index, if None.
        where: A condition on its fields.
        fingerprint: Of what makes the queries' vectors.

    Returns:
        k.

    Raises:
        InputError: The index is empty or made by another bundle, k is above its size, or the condition cannot be read
            or names an unknown field (the known ones are listed).
    """
    findings = len(index)
    if not findings:
        raise InputError(
            "index", got="an empty one", expected="findings to search", hint="spicula index add puts some in"
        )
    if index.fingerprint != fingerprint:
        raise InputError(
            "fingerprint of the index", got=index.fingerprint, expected=fingerprint,
            hint="vectors of different networks cannot be compared: name the index's own bundle, or build it anew",
        )  # fmt: skip
    if where is not None:
        parse_condition(where, index.fields)
    if k is None:
        return min(MATCHES, findings)
    if not 1 <= k <= findings:
        hint = f"without --k it is {MATCHES}, or all of a smaller index"
        raise InputError("k", got=k, expected=f"1 to {findings}, the number of findings in the index", hint=hint)
    return k


def require_patient(pid: str, scope: Scope, *, what: str) -> None:
    """Refuse a scope by patient where nobody knows the patient.

    Raises:
        InputError: The hint names the way out.
    """
    if scope != "all" and not pid:
        hint = "search all, or name the patient with --pid"
        raise InputError(f"patient of {what}", got="none", expected=f"one, for {scope}", hint=hint)


def search(
    queries: Sequence[Query], index: Index, *, k: int | None = None, fingerprint: str, where: str | None = None,
    scope: Scope = "all",
) -> tuple[Answer, ...]:  # fmt: skip
    """Find the nearest findings of each query; none finds itself, see :func:`is_itself`.

    Args:
        queries: Whose like is looked for.
        index: Where.
        k: Most matches of each; ten, or all of a smaller index, if None.
        fingerprint: Of what made the queries' vectors.
        where: A condition on fields of the index, for example ``"diameter_mm > 6"``.
        scope: Which findings a query may find.

    Returns:
        In the order of the queries.

    Raises:
        InputError: There is no query, one lacks a patient that the scope needs, or see :func:`checked_question`.
    """
    if not queries:
        raise InputError("queries", got="none", expected="one or more")
    k = checked_question(index, k=k, where=where, fingerprint=fingerprint)
    for query in queries:
        require_patient(query.pid, scope, what=query.nodule_id)
    wide = min(k + SELVES, len(index))
    found = _ask(queries, index, wide, where=where, scope=scope)
    answers = []
    for query, matches in zip(queries, found, strict=True):
        others = tuple(match for match in matches if not is_itself(query, match))
        patients = patients_of(query, matches)
        nearest = None if where is not None else _nearest_other(others, patients)
        answers.append(Answer(query, others[:k], patients, nearest))
    unknown = [place for place, answer in enumerate(answers) if answer.nearest is None]
    if unknown and (where is not None or scope == "same-patient" or wide < len(index)):
        for place, nearest in zip(unknown, _nearest_others([answers[one] for one in unknown], index), strict=True):
            answers[place] = replace(answers[place], nearest=nearest)
    return tuple(answers)


def _ask(
    queries: Sequence[Query], index: Index, k: int, *, where: str | None = None, scope: Scope
) -> list[tuple[Match, ...]]:
    """The nearest findings of each query; only one that the index has under the query's own name is left out."""
    own = [finding_id(query.pid, query.nodule_id) for query in queries]
    return index.search(
        np.stack([query.vector for query in queries]), k, where=where, scope=scope,
        pids=[query.pid for query in queries], own=[name if name in index else None for name in own],
        fingerprint=index.fingerprint,
    )  # fmt: skip


def _nearest_others(answers: Sequence[Answer], index: Index) -> list[float | None]:
    """How far the nearest finding of another patient is from each query, whatever was asked."""
    few, found = min(1 + SELVES, len(index)), dict[int, float | None]()
    for named in (True, False):
        chosen = [place for place, answer in enumerate(answers) if bool(answer.query.pid) == named]
        if not chosen:
            continue
        scope: Scope = "cross-patient" if named else "all"
        near = _ask([answers[place].query for place in chosen], index, few, scope=scope)
        for place, matches in zip(chosen, near, strict=True):
            query = answers[place].query
            others = [match for match in matches if not is_itself(query, match)]
            found[place] = _nearest_other(others, answers[place].patients | patients_of(query, matches))
    return [found[place] for place in range(len(answers))]


def _nearest_other(matches: Sequence[Match], patients: Collection[str]) -> float | None:
    return next((match.distance for match in matches if match.facts["pid"] not in patients), None)


def patients_of(query: Query, matches: Iterable[Match]) -> frozenset[str]:
    """The query's patient, as the query says and as the index calls the patient of the same scan; may be none."""
    named = {str(match.facts["pid"]) for match in matches if _is_of_scan(query, match.facts)}
    return frozenset((named | {query.pid}) - {""})


def is_itself(query: Query, match: Match) -> bool:
    """Whether a past case is the queried finding: at the same place of the same scan.

    Where one of both scans has no series, the same patient will do.
    """
    facts = match.facts
    place = [value for value in (facts.get(f"{axis}_mm") for axis in "xyz") if isinstance(value, float)]
    if query.center_xyz_mm is None or len(place) != 3:
        return False
    distance = math.dist(query.center_xyz_mm, place)
    if _is_of_scan(query, facts):
        diameter = facts.get("diameter_mm")
        return distance <= max(SAME_PLACE_MM, diameter / 2 if isinstance(diameter, float) else 0.0)
    other_series = bool(query.series_uid and facts.get("series_uid"))
    return distance <= SAME_PLACE_MM and bool(query.pid) and facts["pid"] == query.pid and not other_series


def _is_of_scan(query: Query, facts: Facts) -> bool:
    """Whether both are of one series, or of one file where a series is not known."""
    series, path = facts.get("series_uid"), facts.get("image_path")
    if query.series_uid and series:
        return series == query.series_uid
    return query.image is not None and bool(path) and _real_path(str(path)) == _real_path(str(query.image))


@lru_cache(maxsize=4096)
def _real_path(path: str) -> str:
    return os.path.realpath(path)


def evidence(answer: Answer, *, background: Background, fingerprint: str, where: str | None = None) -> Neighborhood:
    """What the matches of a query say, those of its own patient left out.

    Args:
        answer: The query and its matches.
        background: What is usual in the index.
        fingerprint: Of what made the vectors.
        where: The condition that the matches had to meet. The distance is judged without it.
    """
    others = [match for match in answer.matches if match.facts["pid"] not in answer.patients | {answer.query.pid}]
    return neighborhood(
        answer.query.nodule_id, others, background=background, fingerprint=fingerprint, nearest=answer.nearest,
        where=where or "",
    )  # fmt: skip


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
