"""Our numbers beside published ones: what a job of ``spicula evaluate paper`` brings back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from spicula.papers import IntervalKind, Paper, Published
from spicula.pipelines.evaluate_froc import FrocEvaluation
from spicula.pipelines.evaluation_figures import Scored


@dataclass(frozen=True, slots=True)
class Ours:
    """One of our numbers.

    Args:
        value: The number.
        low: Lower end of its 95 % interval; None where it has none.
        high: Upper end.
        interval: What the interval is made of.
        sd: Standard deviation over folds.
        n: Cases behind it.
        n_positive: Positives among them.
    """

    value: float
    low: float | None = None
    high: float | None = None
    interval: IntervalKind = ""
    sd: float | None = None
    n: int | None = None
    n_positive: int | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """A published number and ours.

    Args:
        part: Heading that rows are shown under.
        what: What ours is.
        published: The printed number; None for one that the paper does not have.
        metric: As :attr:`spicula.papers.Published.metric`.
        ours: Our number.
        same_data: Whether it is from the paper's own data.
        note: What a reader must know of this row.
    """

    part: str
    what: str
    published: Published | None
    metric: str
    ours: Ours
    same_data: bool
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Ours less the published value; None where there is none."""
        if self.published is None or self.published.value is None:
            return None
        return self.ours.value - self.published.value


@dataclass(frozen=True, slots=True)
class Ran:
    """What a job brings back.

    Args:
        rows: In the order they are shown.
        notes: What a reader must know of all of them, the loudest first.
        splits: By name, the hash of which patient was in which fold.
        inputs: By path within the data, the SHA-256 of each file read.
        facts: Whatever else shall be kept, as plain JSON values.
        missing: What could not be run and why.
        scored: Scores behind the rows, for figures.
        response: Free-response score behind the rows, for a figure; None where there is none.
    """

    rows: tuple[Compared, ...] = ()
    notes: tuple[str, ...] = ()
    splits: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    scored: tuple[Scored, ...] = ()
    response: FrocEvaluation | None = None


Job: TypeAlias = Callable[[Paper, Path, int, int], Ran]
"""Runs what it can of a paper: takes the paper, the folder with data sets, a seed and the number of resamples."""
