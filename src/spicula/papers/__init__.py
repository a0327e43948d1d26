"""Published numbers as typed data: one file a paper, this folder is the list of them.

A file holds ``PAPER`` and no logic. A number is there only where a source prints it, and says where; what a source
lost on its way here is named in :attr:`Paper.absent` and never filled in. Shares and rates are fractions: a printed
93.48 % is 0.9348 with four decimals.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, TypeAlias

from spicula.core.errors import InputError

IntervalKind: TypeAlias = Literal["", "bootstrap", "t over folds", "range", "unknown"]


@dataclass(frozen=True, slots=True)
class Published:
    """One printed number.

    Args:
        where: Table, figure or section that prints it.
        model: What was measured; empty for facts of a data set.
        metric: In the words of :mod:`spicula.metrics`: ``auroc``, ``auprc``, ``false_positive_rate``, ``precision``,
            ``recall``, ``f1``, ``accuracy``, ``sensitivity``, ``cpm``, ``share``, ``p_value`` ...
        value: As printed, a fraction; None where the source has only the interval.
        dataset: On which data.
        split: Which part of it, empty for all.
        target: What is predicted or described; a class follows after `` = `` (``"Necrosis = Present"``).
        at: The operating point: the recall that precision and false-positive rate were read at, or the false positives
            a scan of a sensitivity.
        low: Lower end of the printed interval.
        high: Upper end.
        interval: What the interval is made of.
        sd: Printed standard deviation.
        n: Number of cases behind it, as its table's heading says.
        n_positive: How many of these are positive.
        folds: Number of models or folds behind a mean, an interval or a p-value.
        decimals: Places printed of ``value`` as a fraction.
        note: What a reader must know to compare with it.
    """

    where: str
    model: str
    metric: str
    value: float | None
    dataset: str
    split: str = ""
    target: str = ""
    at: float | None = None
    low: float | None = None
    high: float | None = None
    interval: IntervalKind = ""
    sd: float | None = None
    n: int | None = None
    n_positive: int | None = None
    folds: int | None = None
    decimals: int = 3
    note: str = ""


@dataclass(frozen=True, slots=True)
class Paper:
    """A source with its numbers.

    Args:
        key: Name of its file: first author's family name and year, or what a collection holds.
        title: Its title.
        authors: In order; a collection names none.
        year: Of the first public version.
        numbers: Every printed number.
        arxiv: Identifier, empty if none.
        doi: Empty if none.
        venue: Journal or meeting.
        code: Address of the authors' code.
        code_licence: Its licence.
        absent: What the source prints and what is not here, with the reason.
        caveats: What makes its numbers hard to compare.
    """

    key: str
    title: str
    authors: tuple[str, ...]
    year: int
    numbers: tuple[Published, ...]
    arxiv: str = ""
    doi: str = ""
    venue: str = ""
    code: str = ""
    code_licence: str = ""
    absent: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """Tables and sections that numbers come from, in their order."""
        return tuple(dict.fromkeys(number.where for number in self.numbers))

    def at_place(self, where: str) -> tuple[Published, ...]:
        """The numbers of one table or section."""
        return tuple(number for number in self.numbers if number.where == where)


def paper_keys() -> tuple[str, ...]:
    """Keys of all papers, in alphabetical order."""
    return tuple(sorted(entry.name for entry in pkgutil.iter_modules(__path__)))


def paper(key: str) -> Paper:
    """One paper by its key.

    Args:
        key: As :func:`paper_keys` lists it.

    Returns:
        The paper.

    Raises:
        InputError: There is none of that key.

    Example:
        >>> paper("noreen2025").arxiv
        '2505.15120'
    """
    if key not in paper_keys():
        raise InputError("paper", got=repr(key), expected=f"one of {', '.join(paper_keys())}")
    found: Paper = import_module(f"spicula.papers.{key}").PAPER
    return found


def recall_table(
    where: str,
    cohorts: Mapping[str, tuple[str, int, int]],
    rows: Sequence[tuple[str, str, tuple[float, ...]]],
    *,
    recalls: Sequence[float] = (0.6, 0.7, 0.8, 0.9),
    target: str = "",
) -> tuple[Published, ...]:
    """Lay out a table of false-positive rate and precision at several recalls.

    Args:
        where: The table.
        cohorts: By dataset: its split, number of cases, and of positives.
        rows: Dataset, model, and the printed cells: rate and precision at each recall in turn.
        recalls: Headings of the columns.
        target: What is predicted.

    Returns:
        One number for each cell.
    """
    return tuple(
        Published(
            where, model, metric, value, dataset, cohorts[dataset][0], target, at=recall,
            n=cohorts[dataset][1], n_positive=cohorts[dataset][2],
        )
        for dataset, model, cells in rows
        for (recall, metric), value in zip(
            [(recall, metric) for recall in recalls for metric in ("false_positive_rate", "precision")],
            cells,
            strict=True,
        )
    )  # fmt: skip


def share_table(
    where: str, dataset: str, split: str, n: int | None, rows: Mapping[str, Mapping[str, float]], *, note: str = ""
) -> tuple[Published, ...]:
    """Lay out a table of the share of each class of several features.

    Args:
        where: The table.
        dataset: Of which data.
        split: Which part of it.
        n: Number of cases, None where the source does not say.
        rows: By feature, the printed percent of each class (one decimal).
        note: Of all cells.

    Returns:
        One number for each class, as a fraction.
    """
    return tuple(
        Published(
            where, "", "share", round(percent / 100, 4), dataset, split, f"{feature} = {name}", n=n, note=note
        )
        for feature, classes in rows.items()
        for name, percent in classes.items()
    )  # fmt: skip


def sensitivity_row(
    where: str,
    model: str,
    dataset: str,
    sensitivities: Sequence[float],
    *,
    cpm: float | None = None,
    cpm_decimals: int = 3,
    rates: Sequence[float] = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
    note: str = "",
) -> tuple[Published, ...]:
    """Lay out sensitivities at given false positives a scan, and their mean where it is printed.

    Args:
        where: What prints them.
        model: The detector.
        dataset: Of which data.
        sensitivities: One for each rate; empty where only the mean is printed.
        cpm: The printed mean.
        cpm_decimals: Places printed of it.
        rates: False positives a scan.
        note: Of all cells.

    Returns:
        One number for each.
    """
    at_rates = tuple(
        Published(where, model, "sensitivity", value, dataset, target="nodules found", at=rate, note=note)
        for rate, value in zip(rates, sensitivities, strict=bool(sensitivities))
    )
    if cpm is None:
        return at_rates
    mean = Published(where, model, "cpm", cpm, dataset, target="nodules found", decimals=cpm_decimals, note=note)
    return (*at_rates, mean)
