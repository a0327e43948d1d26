"""What a search found: a record for programs, a table for the terminal, a page with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from spicula import __version__
from spicula.core.embedding import Match
from spicula.core.files import written_aside
from spicula.core.neighbors import Neighborhood
from spicula.report.neighbors import (
    facts_record,
    match_record,
    neighbors_record,
    outcome,
    phrase,
    place_of,
    scan_of,
    shared_words,
)
from spicula.report.pictures import Picture
from spicula.report.text import DISCLAIMER, plain_text, rendered

SCHEMA = "spicula-search/1"
"""Version of the record; a key that changes its meaning or goes away raises it."""


class Asked(Protocol):
    """A nodule whose like was looked for."""

    @property
    def pid(self) -> str:
        """Patient; empty where not known."""

    @property
    def nodule_id(self) -> str:
        """Its name."""


class Found(Protocol):
    """The matches of one query."""

    @property
    def query(self) -> Asked:
        """What was asked."""

    @property
    def matches(self) -> tuple[Match, ...]:
        """The nearest first."""


class Told(Protocol):
    """One query with what was found."""

    @property
    def answer(self) -> Found:
        """The matches."""

    @property
    def evidence(self) -> Neighborhood:
        """What they say."""

    @property
    def picture(self) -> Picture | None:
        """Of the query."""

    @property
    def pictures(self) -> tuple[Picture | None, ...]:
        """Of the matches."""


def matches_record(answers: Sequence[Told], *, index: str, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """The record of a search: plain JSON values.

    Args:
        answers: In the order of the queries.
        index: Where was searched.
        warnings: What was odd about the index and the images of the queries, each a sentence.
    """
    return {
        "schema": SCHEMA,
        "program": "spicula",
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "disclaimer": DISCLAIMER,
        "index": plain_text(index),
        "warnings": list(map(plain_text, warnings)),
        "queries": [
            {
                "pid": plain_text(one.answer.query.pid),
                "nodule_id": plain_text(one.answer.query.nodule_id),
                "evidence": {**neighbors_record(one.evidence), "where": plain_text(one.evidence.where)},
                "matches": [{"rank": rank, **row} for rank, row in enumerate(_rows(one), start=1)],
            }
            for one in answers
        ],
    }


def _rows(told: Told) -> list[dict[str, Any]]:
    return [{**match_record(match), "facts": facts_record(match)} for match in told.answer.matches]


def matches_table(told: Told) -> Any:
    """A table for the terminal, with the evidence under it."""
    from rich.markup import escape
    from rich.table import Table

    query = told.answer.query
    named = plain_text(query.nodule_id) + (f" of {plain_text(query.pid)}" if query.pid else "")
    title, under = escape(named), escape(" ".join(sentences(told.evidence)))
    table = Table(title=title, title_justify="left", caption=under, caption_justify="left")
    rows = [cells(match) for match in told.answer.matches]
    shown = [name for name in _COLUMNS if name not in _WHERE or any(row[name] for row in rows)]
    table.add_column("rank", justify="right")
    for name in shown:
        right = name in ("distance", "size")
        table.add_column(_COLUMNS[name], justify="right" if right else "left", overflow="fold", no_wrap=right)
    for rank, row in enumerate(rows, start=1):
        table.add_row(str(rank), *(escape(row[name]) for name in shown))
    return table


def shortened(scan: str) -> str:
    """The end of a series' UID, which tells it from others; the record has all of it.

    Example:
        >>> shortened("series 1.3.6.1.4.1.14519.5.2.1.6279.6001.511347030803753100045216493273")
        'series ...216493273'
    """
    kind, _, uid = scan.partition(" ")
    return f"series ...{uid[-_UID_END:]}" if kind == "series" and len(uid) > 2 * _UID_END else scan


_UID_END = 9
_COLUMNS = {
    "distance": "distance", "pid": "patient", "nodule": "nodule", "size": "mm", "outcome": "outcome",
    "diagnosis": "diagnosis", "place": "x, y, z (mm LPS)", "scan": "scan",
}  # fmt: skip
_WHERE = ("place", "scan")


def cells(match: Match) -> dict[str, str]:
    """What is shown of a match, in words."""
    facts = match.facts
    size = facts.get("diameter_mm")
    return {
        "distance": f"{match.distance:.3f}",
        "pid": plain_text(str(facts.get("pid", ""))),
        "nodule": plain_text(str(facts.get("nodule_id", ""))),
        "size": f"{size:.1f}" if isinstance(size, float | int) else "",
        "outcome": outcome(match),
        "diagnosis": plain_text(str(facts.get("diagnosis", ""))),
        "place": place_of(match),
        "scan": shortened(scan_of(match)),
        "whole_scan": scan_of(match),
    }


def sentences(found: Neighborhood) -> list[str]:
    """What the neighbors say, sentence by sentence."""
    said = [phrase(found)]
    words = shared_words(found)
    if words:
        said.append(f"They have in common: {', '.join(words)}.")
    return said


def write_matches_page(path: Path, answers: Sequence[Told], *, index: str, warnings: Sequence[str] = ()) -> None:
    """Write a page with pictures, whole or not at all: self-contained, no script, no network.

    Args:
        path: The file to write.
        answers: In the order of the queries.
        index: Where was searched.
        warnings: What was odd about the index and the images of the queries, each a sentence.
    """
    page = rendered(
        "matches.html.j2",
        version=__version__,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M %Z").strip(),
        disclaimer=DISCLAIMER,
        index=plain_text(index),
        warnings=list(map(plain_text, warnings)),
        queries=[
            {
                "pid": plain_text(one.answer.query.pid),
                "name": plain_text(one.answer.query.nodule_id),
                "picture": one.picture,
                "said": sentences(one.evidence),
                "unlike": one.evidence.is_unlike_all,
                "shown": any(one.pictures),
                "matches": [
                    {**cells(match), "picture": one.pictures[place] if one.pictures else None}
                    for place, match in enumerate(one.answer.matches)
                ],
            }
            for one in answers
        ],
    )
    with written_aside(path) as aside:
        aside.write_text(page, encoding="utf-8")
