"""Ours beside a paper's numbers, on the data that is there: the job behind ``spicula evaluate paper``.

What can be run is run, whatever the data; where it is not the paper's data, the row says so. What cannot be run is
listed with what it would take. The record holds all that is needed to get the same numbers again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.papers import Paper, Published, paper
from spicula.pipelines import paper_consistency
from spicula.pipelines.paper_jobs import JOBS, needs
from spicula.pipelines.paper_rows import Compared, Job, Ran
from spicula.pipelines.run_folder import versions, write_json

SCHEMA = "spicula-paper/1"
"""Version of the record; a key that changes its meaning or goes away raises it."""

RESAMPLES = 10_000
"""Of the bootstrap over patients, as the first of the papers draws."""

RESULTS = Path("benchmarks/results")
"""Where a record goes if this folder is there."""


@dataclass(frozen=True, slots=True)
class NotRun:
    """Published numbers that nothing was run for.

    Args:
        where: Tables and sections.
        model: Of whom.
        dataset: On what.
        numbers: How many.
        reason: Why not.
        would_take: What would make them run.
    """

    where: tuple[str, ...]
    model: str
    dataset: str
    numbers: int
    reason: str
    would_take: str


@dataclass(frozen=True, slots=True)
class PaperEvaluation:
    """Ours beside a paper's numbers.

    Args:
        paper: The paper.
        ran: What was run.
        not_run: The other numbers.
        seed: Of all that is drawn.
        resamples: Of the bootstrap over patients.
        versions: Of the packages, and the commit.
    """

    paper: Paper
    ran: Ran
    not_run: tuple[NotRun, ...]
    seed: int
    resamples: int
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Trained:
    """A training of ours that a paper's checks are run on.

    Args:
        run: Its folder.
        outline_run: Run of ``train outline`` whose networks have not learned from the nodule's patient.
        facts: CSV of facts of patients, for late fusion.
        deeplesion: DeepLesion as published, for ``qi2023``: its encoders are pretrained in the run's folder.
    """

    run: Path
    outline_run: Path | None = None
    facts: Path | None = None
    deeplesion: Path | None = None


def evaluate_paper(
    key: str, data: Path, *, seed: int = 0, resamples: int = RESAMPLES, trained: Trained | None = None
) -> PaperEvaluation:
    """Run what can be run of a paper on the data that is there.

    Args:
        key: As :func:`spicula.papers.paper_keys` lists it.
        data: Folder with data sets in it (``lidc_xml``, ``lungx``, ``luna16`` ...), or one of these.
        seed: Of splits and draws.
        resamples: Of the bootstrap over patients.
        trained: A training of ours, for the papers whose checks take one (``noreen2025``: ``train ssm``).

    Returns:
        The comparison. A paper that nothing can be run of has no rows and says what each would take.

    Raises:
        InputError: No such paper or folder, or a file of a data set that is there is broken.
        MissingExtraError: A row needs an extra that is not installed.
    """
    found = paper(key)
    if not data.is_dir():
        raise InputError(f"{data}: no such folder", hint="name the folder that holds the data sets with --data")
    jobs: Sequence[Job] = JOBS.get(key, ())
    ran = _joined([job(found, data, seed, resamples) for job in jobs] + _on_training(found, data, trained))
    done = {id(row.published) for row in ran.rows if row.published is not None}
    groups: dict[tuple[str, str], list[Published]] = {}
    for number in found.numbers:
        if id(number) not in done:
            groups.setdefault((number.model, number.dataset), []).append(number)
    not_run = []
    for (model, dataset), numbers in groups.items():
        reason, would_take = needs(key, model, dataset)
        where = tuple(dict.fromkeys(number.where for number in numbers))
        not_run.append(NotRun(where, model, dataset, len(numbers), reason, would_take))
    return PaperEvaluation(found, ran, tuple(not_run), seed, resamples, versions())


_TAKES_RUN = {"noreen2025": "train ssm", "qi2023": "train retrieval"}
"""What trains the run that a paper's checks are made on."""


def _on_training(about: Paper, data: Path, trained: Trained | None) -> list[Ran]:
    if about.key not in _TAKES_RUN:
        if trained is not None:
            raise InputError("run", got=f"{trained.run} for {about.key}", expected=" or ".join(_TAKES_RUN),
                             hint="leave --run out")  # fmt: skip
        return []
    if trained is None:
        what = _TAKES_RUN[about.key]
        return [Ran(missing=(f"its checks: name a finished run of 'spicula {what}' with --run",))]
    require("torch", extra="train")
    if about.key == "qi2023":
        from spicula.pipelines.lesion_types import qi_rows

        return [qi_rows(about, data, trained.run, deeplesion=trained.deeplesion)]
    from spicula.pipelines.ssm_paper import noreen_rows

    return [noreen_rows(about, data, trained.run, outline_run=trained.outline_run, facts=trained.facts)]


@dataclass(frozen=True, slots=True)
class PaperReport:
    """What ``spicula evaluate paper`` shows and keeps.

    Args:
        lines: To be read.
        record: The same and more, as plain JSON values.
        path: File that the record was written to.
        evaluation: What was run; None where the tables were only checked.
    """

    lines: tuple[str, ...]
    record: dict[str, Any]
    path: Path
    evaluation: PaperEvaluation | None = None


def report_paper(
    key: str, data: Path | None = None, *, out: Path | None = None, check: bool = False, seed: int = 0,
    resamples: int = RESAMPLES, trained: Trained | None = None,
) -> PaperReport:  # fmt: skip
    """Compare with a paper, or check its tables against themselves, and keep the record.

    Args:
        key: As :func:`spicula.papers.paper_keys` lists it.
        data: Folder with data sets in it; not needed to check.
        out: File for the record; ``paper-KEY.json`` (``paper-KEY-check.json``) in ``benchmarks/results`` where that
            folder is there, else in the current folder, if None.
        check: Check the published tables against themselves and run nothing.
        seed: Of splits and draws.
        resamples: Of the bootstrap over patients.
        trained: See :func:`evaluate_paper`.

    Returns:
        What was found, and where it was written.

    Raises:
        InputError: No such paper, no folder of data where it is needed, or broken data.
        MissingExtraError: A row needs an extra that is not installed.
    """
    published = paper(key)
    evaluation = None
    if check:
        verdicts = paper_consistency.check_paper(published)
        text, record = paper_consistency.lines(key, verdicts), paper_consistency.summary(key, verdicts)
    elif data is None:
        raise InputError("data", got="no folder", expected="--data ROOT", hint="--check alone needs no data")
    else:
        evaluation = evaluate_paper(key, data, seed=seed, resamples=resamples, trained=trained)
        text, record = lines(evaluation), to_record(evaluation)
    path = out or record_path(key, check=check)
    write_json(path, record, finite=True)
    return PaperReport(tuple(text), record, path, evaluation)


def record_path(key: str, *, check: bool = False) -> Path:
    """Where the record of a paper goes unless another file is named."""
    return (RESULTS if RESULTS.is_dir() else Path()) / f"paper-{key}{'-check' if check else ''}.json"


def to_record(evaluation: PaperEvaluation) -> dict[str, Any]:
    """The comparison as plain JSON values."""
    ran, about = evaluation.ran, evaluation.paper
    rows = [{**asdict(row), "difference": _rounded(row.difference)} for row in ran.rows]
    for row in rows:
        row["ours"] = {name: _rounded(value) for name, value in row["ours"].items()}
    return {
        "schema": SCHEMA,
        "paper": {"key": about.key, "title": about.title, "arxiv": about.arxiv, "doi": about.doi},
        "rows": rows,
        "notes": list(ran.notes),
        "missing": list(ran.missing),
        "not_run": [asdict(group) for group in evaluation.not_run],
        "absent": list(about.absent),
        "caveats": list(about.caveats),
        "seed": evaluation.seed,
        "resamples": evaluation.resamples,
        "splits": ran.splits,
        "inputs": ran.inputs,
        "facts": ran.facts,
        "versions": evaluation.versions,
    }


def lines(evaluation: PaperEvaluation) -> list[str]:
    """The comparison as text: the notes, a table under each heading, and what was not run."""
    about, ran = evaluation.paper, evaluation.ran
    text = [f"{about.title} ({about.key})"]
    loud = "Note:" if all(row.same_data for row in ran.rows) else "!!"
    text += [f"{loud} {note}" for note in ran.notes]
    for part in dict.fromkeys(row.part for row in ran.rows):
        head = ("", "metric", "ours", "published", "difference")
        body = _table([head, *(cells(row) for row in ran.rows if row.part == part)])
        text += ["", part, *(f"  {line}" for line in body)]
    if ran.missing:
        text += ["", "Not run for what is missing here:", *(f"  {what}" for what in ran.missing)]
    if evaluation.not_run:
        text += ["", f"Not run: {sum(group.numbers for group in evaluation.not_run)} published numbers"]
        for reason, would_take in dict.fromkeys((group.reason, group.would_take) for group in evaluation.not_run):
            groups = [group for group in evaluation.not_run if (group.reason, group.would_take) == (reason, would_take)]
            datasets = ", ".join(dict.fromkeys(group.dataset for group in groups))
            models = "; ".join(dict.fromkeys(group.model or "the data" for group in groups))
            text += [f"  {datasets}, {sum(group.numbers for group in groups)} numbers ({models})", f"    {reason}"]
            text += [f"    It would take: {would_take}"] if would_take else []
    return text


def _joined(parts: Sequence[Ran]) -> Ran:
    return Ran(
        tuple(row for part in parts for row in part.rows),
        tuple(note for part in parts for note in part.notes),
        {name: value for part in parts for name, value in part.splits.items()},
        {name: value for part in parts for name, value in part.inputs.items()},
        {name: value for part in parts for name, value in part.facts.items()},
        tuple(what for part in parts for what in part.missing),
        tuple(scored for part in parts for scored in part.scored),
        next((part.response for part in parts if part.response is not None), None),
    )


def cells(row: Compared) -> tuple[str, ...]:
    """What ours is, metric, ours, published and difference, as they are read."""
    published = row.published
    count = row.metric in {"cases", "nodules"}
    theirs = "" if published is None else _number(published.value, published.low, published.high, count=count)
    ours = _number(row.ours.value, row.ours.low, row.ours.high, count=count)
    apart = row.difference
    difference = "" if apart is None else f"{apart:+.0f}" if count else f"{round(apart, 3) + 0.0:+.3f}"
    mark = "" if row.same_data or published is None else "  (other data)"
    return row.what, row.metric, ours, theirs, difference + mark


def _number(value: float | None, low: float | None, high: float | None, *, count: bool) -> str:
    if value is None:
        return f"[{low:.3f}, {high:.3f}]"
    text = f"{value:,.0f}" if count else f"{value:.3f}"
    return text if low is None or high is None else f"{text} [{low:.3f}, {high:.3f}]"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _rounded(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) and math.isfinite(value) else value
