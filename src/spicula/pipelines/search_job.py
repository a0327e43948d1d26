"""From what a user asks to matches with evidence and pictures: the job behind ``spicula search``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from spicula.core.embedding import Scope
from spicula.core.errors import InputError, SpiculaWarning
from spicula.core.neighbors import Neighborhood
from spicula.core.volume import Volume
from spicula.datasets.nodule_csv import Coords
from spicula.dicom.gaps import Gaps
from spicula.dicom.reader import Tilt
from spicula.formats import png16, read_volume
from spicula.pipelines.embed_nodules import embed_table
from spicula.pipelines.explain import is_table
from spicula.pipelines.index import embedder_of, open_place
from spicula.pipelines.models import LIDC_INDEX, Models, load_models
from spicula.pipelines.search import (
    Answer,
    Query,
    checked_question,
    evidence,
    query_at,
    query_in_box,
    query_of,
    require_patient,
    search,
)
from spicula.pipelines.search_pictures import Gallery
from spicula.pipelines.usual import usual_in
from spicula.report.pictures import Picture
from spicula.retrieval.embedder import Embedder
from spicula.retrieval.index import Index
from spicula.retrieval.opening import Backend


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """One query with what was found.

    Args:
        answer: The matches.
        evidence: What they say.
        picture: Of the query; None where none was asked for or its image is not at hand.
        pictures: Of each match, likewise.
    """

    answer: Answer
    evidence: Neighborhood
    picture: Picture | None = None
    pictures: tuple[Picture | None, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """What became of all queries.

    Args:
        index: Where was searched.
        answers: In the order of the queries.
        failed: A sentence for each row of a table that could not be asked.
        warnings: What was odd about the index and the images of the queries, each a sentence.
    """

    index: str
    answers: tuple[Told, ...]
    failed: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """The queries that a user's input gives; the rest is as :class:`Searched` has it."""

    queries: tuple[Query, ...]
    failed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def run_search(
    query: Path, *, index: str | None = None, k: int | None = None, scope: Scope = "all", where: str | None = None,
    at: Sequence[Sequence[float]] = (), box: Sequence[float] | None = None, slice_index: int | None = None,
    pid: str | None = None, backend: Backend | None = None, ef_search: int | None = None, bundle: Path | None = None,
    models: Models | None = None, coords: Coords = "lps", gaps: Gaps = "error", tilt: Tilt = "error",
    pictures: bool = False, images: Path | None = None,
) -> Searched:  # fmt: skip
    """Search with all nodules of a table, with places in a scan, or with a box on one of its slices.

    Args:
        query: A table of nodules, or a scan.
        index: Folder or database; the shipped index of LIDC-IDRI if None.
        k: Most matches of each query; ten, or all of a smaller index, if None.
        scope: Which findings a query may find.
        where: A condition on fields of the index.
        at: Places in the scan, LPS mm.
        box: x0, y0, x1, y1 in pixels of a slice of the scan.
        slice_index: Which slice, from 0 along the scan as it is read: of DICOM, the lowest first. None where the image
            is a single slice.
        pid: Patient of the scan, where its header does not tell.
        backend: How a folder is searched; as it says itself if None.
        ef_search: Candidates that a graph keeps while it is searched; its own if None.
        bundle: Makes the vectors; the shipped one if None.
        models: Of which the outline network is used.
        coords: What the coordinates of a table are.
        gaps: What to do about missing or irregular slices of DICOM images.
        tilt: What to do about a tilted gantry.
        pictures: Whether query and matches are shown.
        images: Folder of the indexed scans, for the pictures of an index that keeps no paths.

    Raises:
        InputError: A scan without a place or box, a table with one, or whatever the reading and the index refuse.
    """
    _check_asked(query, at, box, slice_index)
    if index is None and not LIDC_INDEX.is_dir():
        hint = "name one with --index; 'spicula index build' makes it, with a bundle of 'spicula train retrieval'"
        raise InputError("index of past cases", got="none in this version", hint=hint)
    place = str(LIDC_INDEX) if index is None else index
    read = partial(read_image, gaps=gaps, tilt=tilt)
    opened, odd = _opened(place, backend, ef_search)
    with opened:
        embedder = embedder_of(bundle)
        k = checked_question(opened, k=k, where=where, fingerprint=embedder.fingerprint)
        models = models or load_models()
        if is_table(query):
            asked = _of_table(query, embedder=embedder, models=models, coords=coords, gaps=gaps, tilt=tilt)
        else:
            volume = read(query)
            pid = volume.acquisition.patient_id if pid is None else pid
            require_patient(pid, scope, what=volume.name)
            found = _of_scan(volume, at, box, slice_index, embedder=embedder, models=models)
            queries = tuple(replace(one, pid=pid, image=query) for one in found)
            asked = _Asked(queries, warnings=volume.warnings)
        answers = search(asked.queries, opened, k=k, fingerprint=embedder.fingerprint, where=where, scope=scope)
        background = usual_in(place, opened)
    said = partial(evidence, background=background, fingerprint=embedder.fingerprint, where=where)
    told = [Told(one, said(one)) for one in answers]
    if pictures:
        gallery = Gallery(images, read=read)
        told = [
            replace(one, picture=gallery.of_query(one.answer.query), pictures=gallery.of_matches(one.answer.matches))
            for one in told
        ]
    return Searched(place, tuple(told), asked.failed, (*odd, *asked.warnings))


def _opened(place: str, backend: Backend | None, ef_search: int | None) -> tuple[Index, list[str]]:
    """The index, and what is odd about it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SpiculaWarning)
        opened = open_place(place, backend=backend, ef_search=ef_search)
    return opened, [str(one.message) for one in caught if issubclass(one.category, SpiculaWarning)]


def _check_asked(
    query: Path, at: Sequence[Sequence[float]], box: Sequence[float] | None, slice_index: int | None
) -> None:
    """Refuse what cannot be meant before anything is opened."""
    if is_table(query):
        if at or box is not None or slice_index is not None:
            hint = "the table says where"
            raise InputError("place, box or slice", got="with a table", expected="a scan", hint=hint)
        return
    if not at and box is None:
        raise InputError(
            f"{query}: what to look for", got="no place and no box", expected="--at X,Y,Z or --box and --slice",
        )  # fmt: skip
    if slice_index is not None and box is None:
        hint = "a place in mm says itself on which slice it lies"
        raise InputError(f"slice {slice_index}", got="no box on it", expected="--slice with --box", hint=hint)


def read_image(path: Path, *, gaps: Gaps = "error", tilt: Tilt = "error") -> Volume:
    """A scan, or a single slice as a 16-bit gray PNG with HU = value - 32768 (DeepLesion's), taken for 0.8 mm a pixel.

    Raises:
        InputError: It cannot be read; a PNG of 8 bits has lost its HU and is refused.
    """
    if path.suffix.lower() != ".png":
        return read_volume(path, gaps=gaps, tilt=tilt)
    return png16.read_as_volume(path)


def _of_table(
    table: Path, *, embedder: Embedder, models: Models, coords: Coords, gaps: Gaps, tilt: Tilt
) -> _Asked:  # fmt: skip
    rows = list(embed_table(table, embedder=embedder, models=models, coords=coords, gaps=gaps, tilt=tilt))
    failed = tuple(f"nodule {one.nodule_id} of {one.pid}: {one.error}" for one in rows if one.error)
    if len(failed) == len(rows):
        raise InputError(f"{table}: nodules", got="none that could be embedded", hint=failed[0])
    odd = tuple(dict.fromkeys(warning for one in rows for warning in one.warnings))
    return _Asked(tuple(query_of(one) for one in rows if not one.error), failed, odd)


def _of_scan(
    volume: Volume, at: Sequence[Sequence[float]], box: Sequence[float] | None, slice_index: int | None, *,
    embedder: Embedder, models: Models,
) -> Iterator[Query]:  # fmt: skip
    slices = volume.geometry.shape_zyx[0]
    if box is not None and slice_index is None and slices > 1:
        raise InputError("slice of the box", got="none", expected=f"0 to {slices - 1}", hint="name it with --slice")
    for place in at:
        yield query_at(volume, place, embedder=embedder, models=models)
    if box is not None:
        yield query_in_box(volume, slice_index or 0, box, embedder=embedder, models=models)
