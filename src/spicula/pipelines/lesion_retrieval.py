"""Lesions that are alike, found by every encoder: the lesion search's retrieval on lesions of known type.

References:
    arXiv 2311.11014: mAP at 10 on DeepLesion's test part, 0.729 in all, 0.713 within and 0.465 across patients, by its
    released code's measure (see :func:`spicula.metrics.retrieval.published_average_precision_at`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.pipelines.lesion_regions import Lesions, pieces_of
from spicula.pipelines.retrieval_protocol import Queries, judge_retrieval
from spicula.pipelines.retrieval_tuning import TuningRecipe, tune
from spicula.pipelines.search_arms import MAIN, ON_PAIRS
from spicula.pipelines.search_nodules import features_of_pieces, unit

Report = Callable[[str], None]


def evaluate_lesion_retrieval(
    lesions: Lesions, out: Path, *, question: str, tuning: TuningRecipe | None = None, report: Report = print
) -> dict[str, Any]:
    """Look every tested lesion up among the tested ones, by every encoder and by the main one tuned on pairs.

    Args:
        lesions: With one round of encoders.
        out: Where the tuned encoder is kept.
        question: Whose classes are to agree.
        tuning: On pairs of the lesions that are learned from; as published if None.
        report: Takes one line of progress.

    Returns:
        What :func:`spicula.pipelines.retrieval_protocol.judge_retrieval` gives, paired with the VAE where it is there.
    """
    (only,) = lesions.rounds
    rows = lesions.known(question, only.test)
    tested = pieces_of(lesions.pieces, rows)
    vectors: dict[str, NDArray[np.floating]] = {}
    for arm in lesions.encoders:
        report(f"looking up by {arm}")
        vectors[arm] = unit(features_of_pieces(lesions.encoder(arm, 0), tested, middle=lesions.middle))
    report(f"tuning {MAIN}")
    tuned = tune(
        lesions.encoders[MAIN][0], out, lesions.pieces, lesions.labels[question], lesions.patients,
        lesions.known(question, only.learn), tuning or replace(TuningRecipe(), pairs=4096, negatives=16),
        middle=lesions.middle,
    )  # fmt: skip
    vectors[ON_PAIRS] = unit(features_of_pieces(tuned, tested, middle=lesions.middle))
    queries = Queries(
        lesions.patients[rows], np.zeros(len(rows), dtype=np.intp), {question: lesions.labels[question][rows]}
    )
    return judge_retrieval(vectors, queries, against=["vae"] if "vae" in vectors else ())
