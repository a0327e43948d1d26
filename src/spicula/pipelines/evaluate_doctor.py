"""Look at predictions before they are scored, say what is wrong and what would mend it: ``spicula evaluate doctor``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spicula import __version__
from spicula.core.errors import InputError
from spicula.metrics.doctor.complaint import Complaint, counted, worst_first
from spicula.pipelines.doctor_classification import examine_predictions, examine_split
from spicula.pipelines.doctor_detection import Fact, examine_detections
from spicula.pipelines.doctor_next import classification_next, froc_next

SCHEMA = "spicula-doctor/1"
"""Version of the record; a key that changes its meaning or goes away raises it."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What the doctor found.

    Args:
        complaints: Errors first.
        facts: What was looked at: numbers of rows, the divisor, the score as given and as mended, hashes.
        files: The files, by the option that named them.
        next_commands: What to run: where nothing is wrong, or an option of the command mends it.
    """

    complaints: tuple[Complaint, ...]
    facts: Mapping[str, Fact]
    files: Mapping[str, str]
    next_commands: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether there is an error: the score would be wrong or mean something else."""
        return any(complaint.severity == "error" for complaint in self.complaints)

    def count(self, severity: str) -> int:
        """How many complaints of a severity."""
        return sum(complaint.severity == severity for complaint in self.complaints)

    def lines(self) -> list[str]:
        """The examination for people, a line or two a complaint."""
        lines = [f"{name.replace('_', ' ')}: {value}" for name, value in self.facts.items()]
        for complaint in self.complaints:
            lines += ["", f"{complaint.severity}: {complaint.problem} [{complaint.code}]"]
            lines += [f"  mend: {complaint.mend}"] if complaint.mend else []
        said = ", ".join(counted(self.count(severity), severity) for severity in ("error", "warning", "note"))
        return [*lines, "", said + ".", *(f"Next: {command}" for command in self.next_commands)]

    def to_json(self) -> dict[str, object]:
        """The examination for programs."""
        return {
            "schema": SCHEMA, "version": __version__, "failed": self.failed,
            "counts": {severity: self.count(severity) for severity in ("error", "warning", "note")},
            "complaints": [complaint.to_json() for complaint in self.complaints],
            "facts": dict(self.facts), "files": dict(self.files), "next": list(self.next_commands),
        }  # fmt: skip


def examine(
    *, detections: Path | None = None, annotations: Path | None = None, series: Path | None = None,
    excluded: Path | None = None, folds: Path | None = None, scans: Path | None = None,
    predictions: Path | None = None, truth: Path | None = None, split: Path | None = None, train: Path | None = None,
    test: Path | None = None,
) -> Examination:  # fmt: skip
    """Examine detections, predictions of a classifier, or a split; any of them together.

    Args:
        detections: Detections, ``seriesuid,coordX,coordY,coordZ,probability``; with ``annotations`` and ``series``.
        annotations: Findings, ``seriesuid,coordX,coordY,coordZ,diameter_mm``.
        series: Every scan, ``seriesuid``.
        excluded: Findings that count neither way, as annotations.
        folds: ``seriesuid,fold``.
        scans: Folder of the images, for grids: voxels, origins and spacings can then be tried.
        predictions: A row a nodule: patient, nodule, probability, label.
        truth: Patient, nodule and label, where the predictions do not hold it.
        split: A table with a column ``split`` or ``fold``.
        train: A table of one side of a split, in place of ``split``.
        test: Of the other.

    Returns:
        The complaints, errors first; :attr:`Examination.failed` is what an exit status of 1 tells.

    Raises:
        InputError: Nothing to examine, a file missing beside another, a file that cannot be read or lacks a column.
    """
    options = {
        "detections": detections, "annotations": annotations, "series": series, "excluded": excluded, "folds": folds,
        "scans": scans, "predictions": predictions, "truth": truth, "split": split, "train": train, "test": test,
    }  # fmt: skip
    given = {name: path for name, path in options.items() if path is not None}
    told: list[Complaint] = []
    facts: dict[str, Fact] = {}
    commands: list[str] = []
    for found, seen, command in _parts(given):
        told += found
        facts |= seen
        commands += [command] if command else []
    if not given:
        raise InputError("nothing to examine", expected="--detections, --predictions, --split, or --train and --test")
    files = {name: str(path) for name, path in given.items()}
    return Examination(worst_first(told), facts, files, tuple(commands))


def _parts(given: Mapping[str, Path]) -> list[tuple[tuple[Complaint, ...], dict[str, Fact], str]]:
    """Complaints, facts and the next command of each thing that is examined."""
    parts = []
    of_detections = {"annotations", "series", "excluded", "folds", "scans"} & given.keys()
    if "detections" in given:
        missing = [name for name in ("annotations", "series") if name not in given]
        if missing:
            raise InputError(
                f"detections without {' and '.join(missing)}", expected="--detections, --annotations and --series",
                hint="--series lists every scan that was looked at, one id a line",
            )  # fmt: skip
        optional = {name: given.get(name) for name in ("excluded", "folds", "scans")}
        told, facts = examine_detections(given["detections"], given["annotations"], given["series"], **optional)
        command, refused = froc_next(given, told)
        parts.append(((*told, *refused), facts, command))
    elif of_detections:
        raise InputError(f"{', '.join(sorted(of_detections))} without detections", expected="--detections")
    if "predictions" in given:
        told, facts = examine_predictions(given["predictions"], given.get("truth"))
        command, refused = classification_next(given, told)
        parts.append(((*told, *refused), facts, command))
    elif "truth" in given:
        raise InputError("truth without predictions", expected="--predictions")
    if "split" in given and {"train", "test"} & given.keys():
        raise InputError("a split", got="--split and --train or --test", expected="one of the two ways")
    if {"split", "train", "test"} & given.keys():
        told, facts = examine_split(both=given.get("split"), train=given.get("train"), test=given.get("test"))
        parts.append((told, facts, ""))
    return parts
