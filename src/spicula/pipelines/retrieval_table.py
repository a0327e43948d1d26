"""One table of how well every embedding finds nodules that are alike: a file for others, lines for the terminal."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spicula.core.files import written_aside

TABLE = "retrieval.csv"
COLUMNS = (
    "embedding", "agree", "scope", "measure", "value", "low", "high", "skipped", "less", "difference",
    "difference_low", "difference_high",
)  # fmt: skip
"""One row for each number; where it is compared with several others, one for each of them."""

Judged = Mapping[str, Any]


def write_table(path: Path, judged: Judged) -> None:
    """Write what :func:`spicula.pipelines.retrieval_protocol.judge_retrieval` gives as CSV.

    Args:
        path: The file.
        judged: By embedding, by what is to agree, by scope, by measure.
    """
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(_rows(judged))


def _rows(judged: Judged) -> Iterator[dict[str, Any]]:
    for name, agree, scope, measure, told in _told(judged):
        row = {"embedding": name, "agree": agree, "scope": scope, "measure": measure}
        row |= {key: told[key] for key in ("value", "low", "high", "skipped") if key in told}
        for other, less in told.get("over", {}).items() or [("", {})]:
            apart = {"difference": "value", "difference_low": "low", "difference_high": "high"}
            yield {**row, "less": other, **{column: less[key] for column, key in apart.items() if key in less}}


def _told(judged: Judged) -> Iterator[tuple[str, str, str, str, Mapping[str, Any]]]:
    for name, by_agree in judged.items():
        for agree, by_scope in by_agree.items():
            for scope, by_measure in by_scope.items():
                for measure, told in by_measure.items():
                    yield name, agree, scope, measure, told


def lines(judged: Judged, *, measure: str = "precision") -> list[str]:
    """A table for each thing that is to agree: a line for each embedding, a column with its interval for each scope.

    Args:
        judged: As for :func:`write_table`.
        measure: Which number.
    """
    found: list[str] = []
    for agree in next(iter(judged.values())):
        scopes = list(next(iter(judged.values()))[agree])
        found.append(f"{measure} at 10, {agree}".ljust(38) + "".join(scope.ljust(24) for scope in scopes).rstrip())
        for name, by_agree in judged.items():
            numbers = "".join(_number(by_agree[agree][scope].get(measure, {})).ljust(24) for scope in scopes)
            found.append(f"{name:38}{numbers}".rstrip())
        found.append("")
    return found[:-1]


def _number(told: Mapping[str, Any]) -> str:
    return f"{told['value']:.3f} ({told['low']:.3f} to {told['high']:.3f})" if "value" in told else "no query"
