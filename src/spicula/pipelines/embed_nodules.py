"""Nodules in, embeddings with facts out: of a table, or of places and boxes in a scan."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from spicula.core.embedding import Embeddings, Fact, Facts
from spicula.core.errors import InputError, SpiculaError
from spicula.core.finding import Point
from spicula.core.semantics import ABSENT_WORDS
from spicula.core.volume import Mask, Volume
from spicula.datasets.nodule_csv import Coords, NoduleRow, NoduleTable, read_nodules
from spicula.dicom.gaps import Gaps
from spicula.dicom.reader import Tilt
from spicula.formats import read_volume
from spicula.measure.segment import outline
from spicula.measure.size import measure_size
from spicula.pipelines.models import Models
from spicula.pipelines.rate import EMPTY_HU, require_tissue
from spicula.retrieval.embedder import Embedder
from spicula.retrieval.index import Kind
from spicula.transforms.regions import box_ellipse

LEAST_OVERLAP = 0.3
"""An outline that overlaps less (Jaccard, on the box's slice) with a drawn box is of something else: the ellipse in the
box stands for the lesion then."""

PLACE = ("x_mm", "y_mm", "z_mm")
"""Facts that no column of a table can change."""

MEASURED: Mapping[str, Kind] = {
    "diameter_mm": "number", "volume_mm3": "number", "x_mm": "number", "y_mm": "number", "z_mm": "number",
    "study_date": "text", "series_uid": "text",
}  # fmt: skip
"""What :func:`measured_facts` tells; a column of the same name is of the same kind."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedNodule:
    """What became of one row of a table.

    Args:
        pid: Patient.
        nodule_id: As written.
        vector: float32 ``[d]``; None where it failed.
        facts: All that an index keeps of it.
        error: Why it failed; empty if it did not.
        warnings: What was odd about its image, each a sentence.
    """

    pid: str
    nodule_id: str
    vector: NDArray[np.float32] | None
    facts: Facts
    error: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def finding_id(self) -> str:
        """Its name in an index."""
        return finding_id(self.pid, self.nodule_id)


def finding_id(pid: str, nodule_id: str) -> str:
    """Name of a finding in an index.

    Example:
        >>> finding_id("LIDC-IDRI-0003", "2")
        'LIDC-IDRI-0003/2'
    """
    return f"{pid}/{nodule_id}"


def embed_table(
    nodules: str | Path,
    *,
    embedder: Embedder,
    models: Models,
    coords: Coords = "lps",
    gaps: Gaps = "error",
    tilt: Tilt = "error",
    fields: Mapping[str, Kind] = MEASURED,
) -> Iterator[EmbeddedNodule]:
    """Embed the nodules of a CSV file, in its order; each image is read once as long as its rows stand together.

    Args:
        nodules: CSV file with ``pid,nodule_id,image_path,coordX,coordY,coordZ`` and whatever is known beside.
        embedder: Makes the vectors.
        models: Of which the outline network is used.
        coords: What the coordinates are.
        gaps: What to do about missing or irregular slices of DICOM images.
        tilt: What to do about a tilted gantry.
        fields: Kinds that are settled, see :func:`text_columns`.

    Raises:
        InputError: The file cannot be read or lacks a column.
    """
    rows = read_nodules(nodules, coords=coords)
    texts = text_columns(rows, fields)
    read = partial(read_volume, gaps=gaps, tilt=tilt)
    for path, group in groupby(rows.rows, key=lambda row: row.image_path):
        volume, failure = None, ""
        try:
            volume = read(path)
        except (SpiculaError, OSError) as error:
            failure = str(error)
        for row in group:
            written = written_facts(row.extra, decimal_comma=rows.decimal_comma, texts=texts)
            yield embedded_row(volume, row, failure, embedder, models, written=written)


def embedded_row(
    volume: Volume | None, row: NoduleRow, failure: str, embedder: Embedder, models: Models, *, written: Facts
) -> EmbeddedNodule:
    """One row of a table: outlined, measured, turned into a vector; what failed is told, not raised.

    Args:
        volume: The row's image; None where it could not be read.
        row: The row.
        failure: Why it could not be read.
        embedder: Makes the vector.
        models: Of which the outline network is used.
        written: What the table says of the nodule beside its place.
    """
    facts = {"pid": row.pid, "nodule_id": row.nodule_id}
    if row.error or volume is None:
        return EmbeddedNodule(row.pid, row.nodule_id, None, facts, row.error or failure)
    try:
        center = row.center_xyz_mm(volume.geometry)
        mask = outline_at(volume, center, models=models, what=f"nodule {row.nodule_id} of {row.pid}")
        measured = measured_facts(volume, mask, center)
        known = {**facts, **measured, **written, **{name: measured[name] for name in PLACE}}
        known["image_path"] = str(row.image_path.absolute())
        return EmbeddedNodule(row.pid, row.nodule_id, embedder(volume, mask), known, warnings=volume.warnings)
    except SpiculaError as error:
        return EmbeddedNodule(row.pid, row.nodule_id, None, facts, str(error))


def outline_at(volume: Volume, center_xyz_mm: Sequence[float], *, models: Models, what: str) -> Mask:
    """Outline what lies at a place.

    Raises:
        GeometryError: It lies outside the volume.
        InputError: There is nothing but air, or nothing that can be outlined.
    """
    require_tissue(volume, center_xyz_mm, what=what)
    mask = outline(volume, center_xyz_mm, network=models.outline_network)
    if not mask.array_zyx.any():
        hint = "move the point into its middle, or draw a box around it"
        raise InputError(f"{what}: outline", got="nothing at this place", expected="a nodule", hint=hint)
    return mask


def outline_in_box(volume: Volume, slice_index: int, box: Sequence[float], *, models: Models) -> Mask:
    """Outline what a box on a slice is drawn around; the ellipse in the box where the outline is of something else.

    Args:
        volume: The scan, or a single slice, HU.
        slice_index: Along its first axis.
        box: x0, y0, x1, y1 in pixels of that slice.
        models: Of which the outline network is used.

    Raises:
        GeometryError: The box reaches outside the slice or is thinner than two pixels, or there is no such slice.
        InputError: There is nothing but air in it.
    """
    ellipse = box_ellipse(volume.geometry, slice_index, box)
    _require_tissue_in(ellipse, volume, slice_index)
    middle = ellipse.geometry.index_to_world(np.argwhere(ellipse.array_zyx)).mean(axis=0)
    mask = outline(volume, middle.tolist(), network=models.outline_network)
    places = np.argwhere(mask.array_zyx)
    if not len(places):
        return ellipse
    index = np.rint(volume.geometry.world_to_index(mask.geometry.index_to_world(places))).astype(np.intp)
    outlined = {(y, x) for z, y, x in index.tolist() if z == slice_index}
    drawn_at = np.rint(
        volume.geometry.world_to_index(ellipse.geometry.index_to_world(np.argwhere(ellipse.array_zyx)))
    ).astype(np.intp)
    drawn = {(y, x) for _, y, x in drawn_at.tolist()}
    overlap = len(outlined & drawn) / len(outlined | drawn)
    return mask if overlap >= LEAST_OVERLAP else ellipse


def _require_tissue_in(ellipse: Mask, volume: Volume, slice_index: int) -> None:
    """Refuse a box in which there is nothing but air or empty lung; noise is smoothed before it is looked at."""
    places = np.argwhere(ellipse.array_zyx)
    _z, y, x = np.rint(volume.geometry.world_to_index(ellipse.geometry.index_to_world(places))).astype(np.intp).T
    densest = float(uniform_filter(volume.array_zyx[slice_index].astype(np.float32), 3, mode="nearest")[y, x].max())
    if densest < EMPTY_HU:
        raise InputError(
            f"box on slice {slice_index} of {volume.name}: nothing but air or empty lung",
            got=f"at most {densest:.0f} HU", expected=f"{EMPTY_HU:g} HU or more",
            hint="is it a box of another slice? They are counted from 0, of DICOM from the lowest, that at the feet: "
            "many viewers count from the head, and from 1",
        )  # fmt: skip


def measured_facts(volume: Volume, mask: Mask, center_xyz_mm: Sequence[float]) -> dict[str, Fact]:
    """Size, place and series of a nodule: what its image tells."""
    size = measure_size(volume, mask)
    x, y, z = (round(float(value), 3) for value in center_xyz_mm)
    facts: dict[str, Fact] = {
        "diameter_mm": round(size.mean_diameter_mm, 2), "volume_mm3": round(size.volume_mm3, 1),
        "x_mm": x, "y_mm": y, "z_mm": z,
    }  # fmt: skip
    date = volume.acquisition.study_date
    if len(date) == 8 and date.isdigit():
        facts["study_date"] = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    if volume.series_uid:
        facts["series_uid"] = volume.series_uid
    return facts


def text_columns(table: NoduleTable, fields: Mapping[str, Kind]) -> frozenset[str]:
    """Columns whose cells are text, also those that look like numbers: what is kept has one kind under one name.

    Args:
        table: Its columns beyond those that every table has.
        fields: Names whose kind is settled; any other column is text if one of its cells is no number.
    """
    found = {name for name, kind in fields.items() if kind == "text"}
    for row in table.rows:
        facts = written_facts(row.extra, decimal_comma=table.decimal_comma)
        found |= {name for name, fact in facts.items() if isinstance(fact, str) and name not in fields}
    return frozenset(found)


def written_facts(
    cells: Mapping[str, str], *, decimal_comma: bool = False, texts: Collection[str] = ()
) -> dict[str, Fact]:
    """What a table says of a nodule beside its place: numbers as numbers, all else as text; empty cells are not known.

    Args:
        cells: By column.
        decimal_comma: Numbers may be written with a comma.
        texts: Columns that are text in any case.

    Example:
        >>> written_facts({"malignant": "1", "type": "lung", "note": "", "study_date": "2001-02-03"})
        {'malignant': 1.0, 'type': 'lung', 'study_date': '2001-02-03'}
    """
    facts: dict[str, Fact] = {}
    for name, cell in cells.items():
        if cell.lower() in ABSENT_WORDS:
            continue
        try:
            value = math.nan if name in texts else float(cell.replace(",", ".") if decimal_comma else cell)
        except ValueError:
            value = math.nan
        facts[name] = value if math.isfinite(value) else cell
    return facts


def embeddings_of(nodules: Sequence[EmbeddedNodule], *, fingerprint: str) -> tuple[Embeddings, tuple[Facts, ...]]:
    """Those that did not fail, as an index takes them.

    Raises:
        InputError: None is left, or one is there twice.
    """
    kept = [(one, one.vector) for one in nodules if one.vector is not None]
    if not kept:
        raise InputError("nodules", got="none that could be embedded", expected="one or more")
    vectors = np.stack([vector for _, vector in kept])
    return Embeddings(vectors, tuple(one.finding_id for one, _ in kept), fingerprint), tuple(
        one.facts for one, _ in kept
    )


def point_of(values: Sequence[float]) -> Point:
    """Three finite numbers, LPS mm.

    Raises:
        InputError: It is something else.
    """
    numbers = [float(value) for value in values]
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise InputError(
            "place of a nodule", got=list(values), expected="x, y, z in mm LPS", hint="--at 56.2,86.3,-115.9"
        )
    return numbers[0], numbers[1], numbers[2]
