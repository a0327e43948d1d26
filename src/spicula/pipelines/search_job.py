"""From what a user asks to matches with evidence and pictures: the job behind ``spicula search``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from spicula.core.embedding import Scope
from spicula.core.errors import InputError
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
from spicula.pipelines.search import Answer, Query, evidence, query_at, query_in_box, query_of, search, usual
from spicula.pipelines.search_pictures import Gallery
from spicula.report.pictures import Picture
from spicula.retrieval.embedder import Embedder
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
    """

    index: str
    answers: tuple[Told, ...]
    failed: tuple[str, ...]


def run_search(
    query: Path, *, index: str | None = None, k: int = 10, scope: Scope = "all", where: str | None = None,
    at: Sequence[Sequence[float]] = (), box: Sequence[float] | None = None, slice_index: int = 0,
    pid: str | None = None, backend: Backend = "exact", bundle: Path | None = None, models: Models | None = None,
    coords: Coords = "lps", gaps: Gaps = "error", tilt: Tilt = "error", pictures: bool = False,
    images: Path | None = None,
) -> Searched:  # fmt: skip
    """Search with all nodules of a table, with places in a scan, or with a box on one of its slices.

    Args:
        query: A table of nodules, or a scan.
        index: Folder or database; the shipped index of LIDC-IDRI if None.
        k: Most matches of each query.
        scope: Which findings a query may find.
        where: A condition on fields of the index.
        at: Places in the scan, LPS mm.
        box: x0, y0, x1, y1 in pixels of a slice of the scan.
        slice_index: Which slice, from 0.
        pid: Patient of the scan, where its header does not tell.
        backend: How a folder is searched.
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
    if index is None and not LIDC_INDEX.is_dir():
        hint = "name one with --index; 'spicula index build' makes it, with a bundle of 'spicula train retrieval'"
        raise InputError("index of past cases", got="none in this version", hint=hint)
    place = str(LIDC_INDEX) if index is None else index
    with open_place(place, backend=backend) as opened:
        embedder, models = embedder_of(bundle), models or load_models()
        failed: tuple[str, ...] = ()
        if is_table(query):
            if at or box is not None:
                raise InputError("place or box", got="with a table", expected="a scan", hint="the table says where")
            rows = list(embed_table(query, embedder=embedder, models=models, coords=coords, gaps=gaps, tilt=tilt))
            failed = tuple(f"nodule {one.nodule_id} of {one.pid}: {one.error}" for one in rows if one.error)
            queries = [query_of(one) for one in rows if not one.error]
            if not queries:
                raise InputError(f"{query}: nodules", got="none that could be embedded", hint=failed[0])
        else:
            volume = read_image(query, gaps=gaps, tilt=tilt)
            queries = _of_scan(volume, query, at, box, slice_index, pid, embedder=embedder, models=models)
        answers = search(queries, opened, k=k, fingerprint=embedder.fingerprint, where=where, scope=scope)
        background = usual(opened)
    told = [Told(one, evidence(one, background=background, fingerprint=embedder.fingerprint)) for one in answers]
    if pictures:
        gallery = Gallery(images, read=partial(read_image, gaps=gaps, tilt=tilt))
        told = [
            replace(one, picture=gallery.of_query(one.answer.query), pictures=gallery.of_matches(one.answer.matches))
            for one in told
        ]
    return Searched(place, tuple(told), failed)


def read_image(path: Path, *, gaps: Gaps = "error", tilt: Tilt = "error") -> Volume:
    """A scan, or a single slice as a 16-bit gray PNG with HU = value - 32768 (DeepLesion's), taken for 0.8 mm a pixel.

    Raises:
        InputError: It cannot be read; a PNG of 8 bits has lost its HU and is refused.
    """
    if path.suffix.lower() != ".png":
        return read_volume(path, gaps=gaps, tilt=tilt)
    return png16.read_as_volume(path)


def _of_scan(
    volume: Volume, path: Path, at: Sequence[Sequence[float]], box: Sequence[float] | None, slice_index: int,
    pid: str | None, *, embedder: Embedder, models: Models,
) -> list[Query]:  # fmt: skip
    found = [query_at(volume, place, embedder=embedder, models=models) for place in at]
    if box is not None:
        found.append(query_in_box(volume, slice_index, box, embedder=embedder, models=models))
    if not found:
        raise InputError(
            f"{volume.name}: what to look for", got="no place and no box", expected="--at X,Y,Z or --box and --slice",
        )  # fmt: skip
    return [replace(one, pid=one.pid if pid is None else pid, image=path) for one in found]
