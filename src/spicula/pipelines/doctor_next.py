"""The command that follows an examination, tried before it is named: with the options that make it run, or refused."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from spicula.core.errors import InputError, SpiculaError
from spicula.metrics.doctor.complaint import Complaint
from spicula.metrics.doctor.ids import PAD_IDS
from spicula.pipelines.evaluate_classification import evaluate_predictions
from spicula.pipelines.evaluate_froc import evaluate_froc
from spicula.pipelines.predictions_table import read_predictions

_RESAMPLES = 100  # enough to see that an interval can be had


def froc_next(given: Mapping[str, Path], complaints: Sequence[Complaint]) -> tuple[str, tuple[Complaint, ...]]:
    """The command that scores examined detections.

    Args:
        given: Files by option; ``detections``, ``annotations``, ``series`` and perhaps ``excluded``.
        complaints: What was found in them.

    Returns:
        The command with the options that it needs; ``""`` where an error cannot be mended by an option. A complaint
        where there is no error and the command would refuse the files all the same.
    """
    errors = [complaint for complaint in complaints if complaint.severity == "error"]
    if not all(_has_option(complaint) for complaint in errors):
        return "", ()
    width = max((int(str(c.evidence[PAD_IDS])) for c in errors if PAD_IDS in c.evidence), default=0)
    coords: Literal["lps", "ras"] = "ras" if any(c.code == "places.ras" for c in errors) else "lps"
    refused: InputError | None = None
    for ignore in (False, True):
        try:
            evaluate_froc(
                given["detections"], given["annotations"], given["series"], excluded=given.get("excluded"),
                coords=coords, pad_ids=width, ignore_unknown=ignore, resamples=0,
            )  # fmt: skip
        except InputError as error:
            refused = error
            continue
        options = ["--coords", coords] * (coords != "lps") + ["--pad-ids", str(width)] * bool(width)
        names = ("detections", "annotations", "series", "excluded")
        return _command("froc", given, names, [*options, *["--ignore-unknown"] * ignore]), ()
    return "", () if errors or refused is None else (_refused("froc", refused),)


def classification_next(
    given: Mapping[str, Path], complaints: Sequence[Complaint]
) -> tuple[str, tuple[Complaint, ...]]:
    """The command that scores examined predictions of a classifier.

    Args:
        given: Files by option; ``predictions`` and perhaps ``truth``.
        complaints: What was found in them.

    Returns:
        As :func:`froc_next`; ``""`` also where there are no labels.
    """
    if any(complaint.severity == "error" or complaint.code == "labels.none" for complaint in complaints):
        return "", ()
    try:
        predictions = read_predictions(given["predictions"], truth=given.get("truth"))
        evaluate_predictions(predictions, resamples=_RESAMPLES)
    except InputError as error:
        return "", (_refused("classification", error),)
    return _command("classification", given, ("predictions", "truth"), []), ()


def _has_option(complaint: Complaint) -> bool:
    """Whether an option of the command mends it."""
    return complaint.code == "places.ras" or (complaint.code == "ids.leading-zeros" and PAD_IDS in complaint.evidence)


def _command(name: str, given: Mapping[str, Path], files: Sequence[str], options: Sequence[str]) -> str:
    named = [part for file in files if file in given for part in (f"--{file}", str(given[file]))]
    return shlex.join(["spicula", "evaluate", name, *named, *options])


def _refused(name: str, error: InputError) -> Complaint:
    said = SpiculaError(error.what, got=error.got, expected=error.expected)
    return Complaint(
        "table.refused", "error", f"evaluate {name} refuses these files: {said}",
        error.hint or "mend it in the file", {"what": error.what},
    )  # fmt: skip
