"""Rows of a table on their way into an index: what is there already, or cannot be kept, is not embedded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path

from spicula.core.embedding import Facts
from spicula.core.errors import InputError, SpiculaError
from spicula.core.neighbors import as_share
from spicula.core.volume import Volume
from spicula.datasets.nodule_csv import NoduleTable
from spicula.dicom.gaps import Gaps
from spicula.dicom.reader import Tilt
from spicula.explain.neighbors import OUTCOME, SHARES
from spicula.formats import read_volume
from spicula.pipelines.embed_nodules import (
    MEASURED,
    EmbeddedNodule,
    embedded_row,
    finding_id,
    text_columns,
    written_facts,
)
from spicula.pipelines.models import Models
from spicula.retrieval.embedder import Embedder
from spicula.retrieval.index import Index, Kind

SETTLED: Mapping[str, Kind] = {**MEASURED, **dict.fromkeys(SHARES, "number")}
"""Kinds that a column of these names has, whatever stands in it."""

Refused = Callable[[str, Facts], str | None]
"""Takes a nodule's name and what a table says of it; says why it is not embedded, None where it is to be."""


def embed_rows(
    table: NoduleTable, *, embedder: Embedder, models: Models, fields: Mapping[str, Kind], refused: Refused,
    gaps: Gaps = "error", tilt: Tilt = "error",
) -> Iterator[EmbeddedNodule]:  # fmt: skip
    """Embed the rows of a table that are not refused, in its order; an image without any is not read.

    Args:
        table: The rows.
        embedder: Makes the vectors.
        models: Of which the outline network is used.
        fields: Kinds that are settled by what an index holds.
        refused: Asked about each row that can be read, when its turn comes.
        gaps: What to do about missing or irregular slices of DICOM images.
        tilt: What to do about a tilted gantry.
    """
    texts = text_columns(table, {**fields, **SETTLED})
    read = partial(read_volume, gaps=gaps, tilt=tilt)
    for path, group in groupby(table.rows, key=lambda row: row.image_path):
        image: tuple[Volume | None, str] | None = None
        for row in group:
            written = written_facts(row.extra, decimal_comma=table.decimal_comma, texts=texts)
            why = row.error or refused(finding_id(row.pid, row.nodule_id), written)
            if why:
                named = {"pid": row.pid, "nodule_id": row.nodule_id}
                yield EmbeddedNodule(row.pid, row.nodule_id, None, named, why)
                continue
            if image is None:
                image = _read(read, path)
            yield embedded_row(image[0], row, image[1], embedder, models, written=written)


def _read(read: Callable[[Path], Volume], path: Path) -> tuple[Volume | None, str]:
    try:
        return read(path), ""
    except (SpiculaError, OSError) as error:
        return None, str(error)


def unfit_share(facts: Facts) -> str:
    """Why evidence cannot be made of what is known of a nodule, or nothing.

    Example:
        >>> unfit_share({"malignant": 1.0}), unfit_share({"malignant": 3.0})[:14]
        ('', 'malignant: got')
    """
    for name in SHARES:
        value = facts.get(name)
        if value is not None and as_share(value) is None:
            return str(InputError(name, got=repr(value), expected="a number from 0 to 1", hint=_hint(name)))
    return ""


def unfit_shares(index: Index) -> Iterator[str]:
    """A sentence for each field of an index that evidence cannot be made of, as older versions let in."""
    for name, kind in index.fields.items():
        if name not in SHARES:
            continue
        found = index.ids(f"{name} is not missing" if kind == "text" else f"{name} < 0 or {name} > 1")
        if found:
            some = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
            if kind == "text":
                hint = "build the index anew from a corrected table"
            else:
                hint = "correct their rows and `spicula index add --replace` them"
            yield str(InputError(f"{name} of {some}", got=f"{kind} that is no share", expected="0 to 1", hint=hint))


def _hint(name: str) -> str:
    if name == OUTCOME:
        return "1 for malignant, 0 for benign, nothing where it is not known"
    stem = name.split("_", maxsplit=1)[0]
    return f"1 where it is so, 0 where it is not; readers' ratings belong under another name, such as rating_{stem}"
