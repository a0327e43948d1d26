"""What ``spicula explain`` says of the nodules of one or many images, for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from spicula import __version__
from spicula.core.analysis import Analysis
from spicula.core.words import Words
from spicula.report.text import DISCLAIMER, plain_text
from spicula.report.words import words_record

SCHEMA = "spicula-explain/1"
"""Version of the record; a key that changes its meaning or goes away raises it."""


class Image(Protocol):
    """An image whose nodules were asked about."""

    @property
    def path(self) -> Path:
        """As it was named."""

    @property
    def analysis(self) -> Analysis | None:
        """What was said of it; None where nothing could be."""

    @property
    def failed(self) -> tuple[str, ...]:
        """A sentence for each nodule that could not be asked about."""


def explanations_record(
    images: Iterable[Image], *, words: Sequence[str], prompts: str, created: datetime | None = None
) -> dict[str, Any]:
    """The record of an explanation.

    Args:
        images: With their analyses; gone through once, and none is kept.
        words: As they were asked.
        prompts: Style of the sentences.
        created: Time of the record; now if None.

    Returns:
        Plain JSON values; each nodule holds ``words`` as ``report.json`` does.
    """
    nodules: list[dict[str, Any]] = []
    failed: list[str] = []
    for image in images:
        if image.analysis is not None:
            nodules += [_nodule(image.path, image.analysis, one) for one in image.analysis.words]
        failed += map(plain_text, image.failed)
    return {
        "schema": SCHEMA,
        "program": "spicula",
        "version": __version__,
        "created": (created or datetime.now(UTC)).isoformat(timespec="seconds"),
        "disclaimer": DISCLAIMER,
        "asked": list(dict.fromkeys(words)),
        "prompts": prompts,
        "nodules": nodules,
        "failed": failed,
    }


def _nodule(path: Path, analysis: Analysis, words: Words) -> dict[str, Any]:
    finding = next(finding for finding in analysis.findings if finding.id == words.finding_id)
    return {
        "source": plain_text(str(path)),
        "series_uid": plain_text(analysis.volume.series_uid),
        "id": plain_text(finding.id),
        "center_xyz_mm": [round(float(value), 4) for value in finding.center_xyz_mm],
        "words": words_record(words),
    }
