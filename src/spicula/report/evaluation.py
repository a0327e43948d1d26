"""The page of an evaluation: tables, figures with their bands, and all that is needed to repeat it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spicula import __version__
from spicula.core.files import written_aside
from spicula.report.figures import svg
from spicula.report.text import rendered


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table of the page.

    Args:
        title: Above it.
        columns: Heads; the first column is text, the others are numbers.
        rows: Cells as they are to be read.
        note: Below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PageFigure:
    """A figure of the page.

    Args:
        title: Above it.
        figure: From :mod:`spicula.report.figures`.
        caption: Below it: what the band is, for one.
    """

    title: str
    figure: Any
    caption: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationPage:
    """All that the page of an evaluation shows.

    Args:
        title: What was evaluated.
        lead: The result in a sentence.
        tables: In their order.
        figures: In their order.
        warnings: What a reader must know before believing a number.
        facts: What repeats it: files with their hashes, the splits' hash, seed, resamples, version.
    """

    title: str
    lead: str
    tables: tuple[PageTable, ...] = ()
    figures: tuple[PageFigure, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = field(default_factory=tuple)


def write_evaluation(path: Path, page: EvaluationPage, *, created: datetime | None = None) -> None:
    """Write the page: one HTML file, no network and no script; it appears whole or not at all.

    Args:
        path: The file to write.
        page: What to show; all text is escaped.
        created: Time of the page; now if None.

    Raises:
        MissingExtraError: There are figures and the extra ``evaluate`` is not installed.
    """
    with written_aside(path) as aside:
        aside.write_text(render_evaluation(page, created=created), encoding="utf-8")


def render_evaluation(page: EvaluationPage, *, created: datetime | None = None) -> str:
    """The page that :func:`write_evaluation` writes."""
    from markupsafe import Markup

    return rendered(
        "evaluation.html.j2",
        version=__version__,
        created=(created or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M %Z").strip(),
        page=page,
        figures=[(figure, Markup(svg(figure.figure))) for figure in page.figures],
    )
