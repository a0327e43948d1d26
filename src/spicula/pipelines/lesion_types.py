"""Which type a lesion is of, told by frozen and by tuned encoders: the lesion search's classification as one job.

Its open questions stand beside: what Frangi's response is worth and with which parameters, what GeM is worth against
average and maximum, and whether a network that is supervised from random weights does as well.

References:
    arXiv 2311.11014: accuracy 0.8073 and F1 0.7783 on DeepLesion. Departures: it does not say which classifier and
    which mean of F1 it means; here a linear head on frozen features, five neighbors, and tuning end to end; macro F1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.extras import require
from spicula.metrics.bootstrap import bootstrap_difference, bootstrap_intervals, group_codes
from spicula.metrics.multiclass import confusion
from spicula.papers import Paper
from spicula.pipelines.lesion_calls import (
    BALANCED,
    FILTERS,
    GRAY,
    LINEAR,
    SCRATCH,
    TUNED,
    Called,
    TeachingRecipe,
    calls_of_arm,
    calls_of_filter,
)
from spicula.pipelines.lesion_regions import Lesions, Rows, deeplesion_lesions, lidc_lesions
from spicula.pipelines.lesion_retrieval import evaluate_lesion_retrieval
from spicula.pipelines.paper_rows import Compared, Ours, Ran
from spicula.pipelines.risk_evaluation import difference, rounded
from spicula.pipelines.run_folder import RUN, as_json, write_json
from spicula.pipelines.search_arms import MAIN, ON_PAIRS, SearchRecipe, recipe_of
from spicula.pipelines.train_retrieval import EVALUATION

RESULT, KEPT = "lesion-types.json", "calls"
LIDC, DEEPLESION = "lesion-types", "deeplesion"
"""Folders in a run of ``train retrieval`` where its results go."""

TYPE = "lesion type"
SCOPE_WORDS = {"all": "all patients", "same-patient": "same patient", "cross-patient": "other patients"}
"""Scopes as the paper's numbers are named."""

STANDARD = ", standard form"
"""Beside the form of mean average precision that the paper's code computes."""

DEEPLESION_TEACHING = TeachingRecipe(steps=1500, scratch_steps=4500)
PUBLISHED = recipe_of(published=True)

RESAMPLES = 1000
METRICS = ("accuracy", "macro_f1", "balanced_accuracy", "weighted_f1")
CONTRASTS: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = MappingProxyType({
    "Frangi's response, with GeM": ((MAIN, BALANCED), ("simclr + gem", BALANCED)),
    "Frangi's response, with the average": (("simclr + frangi", BALANCED), ("simclr", BALANCED)),
    "GeM over the average": ((MAIN, BALANCED), ("simclr + frangi", BALANCED)),
    "GeM over the maximum": ((MAIN, BALANCED), ("simclr + frangi + max", BALANCED)),
    "SimCLR over VAE": (("simclr", BALANCED), ("vae", BALANCED)),
    "tuning over frozen features": ((MAIN, TUNED), (MAIN, LINEAR)),
    "pretrained over random weights": ((MAIN, TUNED), (MAIN, SCRATCH)),
})  # fmt: skip
"""What is compared lesion by lesion: arm and way, less another arm and way."""


Report = Callable[[str], None]


def evaluate_lesion_types(
    root: Path, out: Path, *, run: Path | None = None, recipe: SearchRecipe | None = None,
    teaching: TeachingRecipe | None = None, arms: Sequence[str] = (), threads: int = 1, report: Report = print,
) -> dict[str, Any]:  # fmt: skip
    """Classify lesions by every encoder in every way, and by the filter with other parameters; resumes after a kill.

    Args:
        root: Development data with ``lidc_nodules`` where there is a run, else DeepLesion as published.
        out: Where what is done is kept; on DeepLesion the encoders too.
        run: Of ``train retrieval``: LIDC's nodules, told by its folds' encoders, which have not seen their patients.
        recipe: Of the pretrainings on DeepLesion; as published if None.
        teaching: How networks are tuned; longer on DeepLesion, which has more lesions, if None.
        arms: Names in :data:`spicula.pipelines.search_arms.ARMS`; all (that the run has) if empty.
        threads: Of torch.
        report: Takes one line of progress.

    Returns:
        Plain JSON values: ``data``, ``inputs`` (SHA-256 of the encoders) and ``questions``, each with its classes,
        numbers of lesions, scores of each arm and way with 95 % intervals over patients, paired differences, scores of
        the filters, and those of always saying the most frequent class.

    Raises:
        InputError: See :func:`spicula.pipelines.lesion_regions.lidc_lesions` and
            :func:`spicula.pipelines.lesion_regions.deeplesion_lesions`; or fewer than ten patients are tested.
    """
    require("torch", extra="train").set_num_threads(threads)
    if run is not None:
        teaching = teaching or TeachingRecipe()
        lesions = lidc_lesions(root, run, arms=arms)
    else:
        teaching = teaching or DEEPLESION_TEACHING
        recipe = recipe or PUBLISHED
        lesions = deeplesion_lesions(root, out, recipe=recipe, arms=arms, threads=threads, report=report)
    return judge_types(lesions, out, teaching=teaching, report=report)


def judge_types(lesions: Lesions, out: Path, *, teaching: TeachingRecipe, report: Report = print) -> dict[str, Any]:
    """The same of lesions that are gathered.

    Args:
        lesions: With their encoders.
        out: Where what is done is kept.
        teaching: How networks are tuned.
        report: Takes one line of progress.
    """
    for question in lesions.labels:  # before hours of work: are there patients enough?
        group_codes(lesions.patients[tested_rows(lesions, question)], [tested_rows(lesions, question)])
    inputs, about = {arm: lesions.inputs(arm) for arm in lesions.encoders}, _facts(lesions)
    called: dict[str, Called] = {}
    for arm in lesions.encoders:
        report(f"types by {arm}")
        facts = {"teaching": asdict(teaching), "encoders": inputs[arm], **about}
        path = out / KEPT / f"{arm.replace(' + ', '-')}.json"
        called[arm] = _kept(path, facts, partial(calls_of_arm, lesions, arm, teaching))
    filters = {}
    for number, name in enumerate((GRAY, *FILTERS)):
        report(f"types by the filter, {name}")
        facts = {"filter": name, "encoders": inputs[MAIN], **about}
        filters[name] = _kept(out / KEPT / f"filter-{number}.json", facts, partial(calls_of_filter, lesions, name))
    told = {
        "data": lesions.data, "inputs": inputs, "teaching": asdict(teaching),
        "questions": {question: _judged(lesions, question, called, filters) for question in lesions.labels},
    }  # fmt: skip
    write_json(out / RESULT, told, finite=True)
    return told


def _facts(lesions: Lesions) -> dict[str, Any]:
    """What a kept call depends on beside encoders: who is there, how it looks, of which class, dealt how."""
    return {
        "regions": hashlib.sha256(lesions.pieces.hu.tobytes()).hexdigest(),
        "patients": lesions.patients.tolist(),
        "labels": {question: label.tolist() for question, label in lesions.labels.items()},
        "tested": [one.test.tolist() for one in lesions.rounds],
    }


def _kept(path: Path, facts: Mapping[str, Any], make: Callable[[], Called]) -> Called:
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if stored.get("facts") != as_json(dict(facts)):
        stored = {"facts": facts, "called": make()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, stored, finite=True)
    found: Called = stored["called"]
    return found


def scores_of(label: Rows, called: Rows, patients: NDArray[np.str_], *, classes: int) -> dict[str, Any]:
    """:data:`METRICS` with 95 % intervals over patients."""

    def all_of(y: Rows, calls: Rows) -> NDArray[np.float64]:
        table = confusion(y, calls, classes=range(classes))
        return np.array([getattr(table, metric) for metric in METRICS])

    found = bootstrap_intervals(all_of, (label, called), patients, resamples=RESAMPLES)
    return {metric: rounded(one) for metric, one in zip(METRICS, found, strict=True)}


def tested_rows(lesions: Lesions, question: str) -> Rows:
    """Lesions of known class that any round tells."""
    return np.concatenate([lesions.known(question, one.test) for one in lesions.rounds])


def _judged(
    lesions: Lesions, question: str, called: Mapping[str, Called], filters: Mapping[str, Called]
) -> dict[str, Any]:
    label, names = lesions.labels[question], lesions.classes[question]
    tested = tested_rows(lesions, question)
    learned = np.unique(np.concatenate([lesions.known(question, one.learn) for one in lesions.rounds]))
    most = np.full(len(label), np.bincount(label[learned]).argmax())
    patients = lesions.patients[tested]

    def scored(calls: Sequence[int] | Rows) -> dict[str, Any]:
        return scores_of(label[tested], np.asarray(calls)[tested], patients, classes=len(names))

    def gain(first: tuple[str, str], second: tuple[str, str]) -> dict[str, Any]:
        a, b = (np.asarray(called[arm][question][way])[tested] for arm, way in (first, second))
        found = bootstrap_difference(
            lambda y, calls: confusion(y, calls, classes=range(len(names))).macro_f1, label[tested], a, b, patients,
            resamples=RESAMPLES,
        )  # fmt: skip
        return difference(found)

    there = {(arm, way) for arm, found in called.items() for way in found[question]}
    return {
        "classes": list(names),
        "lesions": {"learned": len(learned), "tested": len(tested), "patients": len(set(patients.tolist()))},
        "per_class": dict(zip(names, np.bincount(label[tested], minlength=len(names)).tolist(), strict=True)),
        "most_frequent": scored(most),
        "arms": {arm: {way: scored(c) for way, c in found[question].items()} for arm, found in called.items()},
        "macro_f1_gains": {name: gain(*pair) for name, pair in CONTRASTS.items() if set(pair) <= there},
        "filters": {name: {way: scored(c) for way, c in found[question].items()} for name, found in filters.items()},
    }


def qi_rows(
    paper: Paper, data: Path, run: Path, *, deeplesion: Path | None = None, recipe: SearchRecipe | None = None,
    teaching: TeachingRecipe | None = None, threads: int = 1, report: Report = print,
) -> Ran:  # fmt: skip
    """The classification of types beside the published numbers.

    Args:
        paper: ``qi2023``.
        data: Development data.
        run: Of ``train retrieval``, or a folder for DeepLesion's encoders alone; results are kept in it.
        deeplesion: DeepLesion as published; left out if None.
        recipe: Of the pretrainings on it.
        teaching: How networks are tuned.
        threads: Of torch.
        report: Takes one line of progress.

    Raises:
        InputError: See :func:`evaluate_lesion_types`.
    """
    require("torch", extra="train").set_num_threads(threads)
    found, missing = {}, []
    retrieved: dict[str, Any] = {}
    if deeplesion is not None:
        folder = run / DEEPLESION
        lesions = deeplesion_lesions(deeplesion, folder, recipe=recipe or PUBLISHED, threads=threads, report=report)
        found[DEEPLESION] = judge_types(lesions, folder, teaching=teaching or DEEPLESION_TEACHING, report=report)
        retrieved = evaluate_lesion_retrieval(lesions, folder / "tuned", question=TYPE, report=report)
    else:
        missing.append("lesion types on DeepLesion: name the folder of its images with --deeplesion")
    if deeplesion is None or (run / RUN).is_file():
        found[LIDC] = evaluate_lesion_types(
            data, run / LIDC, run=run, teaching=teaching, threads=threads, report=report
        )
    on_lidc: dict[str, Any] = {}
    if (run / EVALUATION).is_file():
        on_lidc = json.loads((run / EVALUATION).read_text(encoding="utf-8"))["embeddings"]
    notes = (
        "the paper tells eight types of lesions on DeepLesion; on LIDC these are other classes of other lesions, and a "
        "difference to its numbers says nothing",
        "f1 is the macro mean; the paper does not say which mean and which classifier it means",
    )
    rows = [row for told in found.values() for question in told["questions"] for row in _rows(paper, told, question)]
    rows += _retrieval_rows(paper, retrieved, TYPE, "DeepLesion")
    for agree in next(iter(on_lidc.values()), {}):
        rows += _retrieval_rows(paper, on_lidc, agree, "LIDC")
    inputs = {
        f"{told['data']}: {arm}, {number}": sha
        for told in found.values() for arm, some in told["inputs"].items() for number, sha in enumerate(some)
    }  # fmt: skip
    return Ran(
        tuple(rows),
        notes,
        inputs=inputs,
        facts={**found, "retrieval": retrieved, "retrieval on LIDC": on_lidc},
        missing=tuple(missing),
    )


def _retrieval_rows(paper: Paper, retrieved: Mapping[str, Any], agree: str, data: str) -> Iterator[Compared]:
    """Both forms of mAP at 10, of every embedding in every scope; the tuned one beside the paper's numbers."""
    printed = [number for number in paper.numbers if number.metric == "map@10"]
    for scope, words in SCOPE_WORDS.items():
        number = next(one for one in printed if one.target.endswith(words))
        for name, judged in retrieved.items():
            for form in ("published", "average_precision"):
                told = judged[agree][scope][form]
                if "value" not in told:  # no query has a like in this scope
                    continue
                ours = Ours(told["value"], told["low"], told["high"], "bootstrap")
                beside = number if name == ON_PAIRS and form == "published" else None
                part = f"Retrieval by {agree}, {data}, {words}{STANDARD if form != 'published' else ''}"
                yield Compared(part, name, beside, "map@10", ours, same_data=data == "DeepLesion")


def _rows(paper: Paper, told: Mapping[str, Any], question: str) -> Iterator[Compared]:
    judged, same = told["questions"][question], told["data"] == "DeepLesion"
    published = {number.metric: number for number in paper.numbers if number.metric in ("accuracy", "f1")}
    name = f"{question}, {told['data']}, {len(judged['classes'])} classes"

    def row(part: str, what: str, scores: Mapping[str, Any], metric: str, *, beside: bool = False) -> Compared:
        one = scores["macro_f1" if metric == "f1" else metric]
        ours = Ours(one["value"], one["low"], one["high"], "bootstrap", n=judged["lesions"]["tested"])
        return Compared(f"{part}: {name}", what, published[metric] if beside else None, metric, ours, same_data=same)

    for metric in ("accuracy", "f1"):
        part = "Types of lesions"
        yield row(part, "the most frequent class", judged["most_frequent"], metric)
        for arm, ways in judged["arms"].items():
            beside = (LINEAR, TUNED) if arm == MAIN and question != "malignancy" else ()  # which is no type
            for way, scores in ways.items():
                yield row(part, f"{arm}, {way}", scores, metric, beside=way in beside)
    for what, gain in judged["macro_f1_gains"].items():
        yield row("Gains in macro F1, lesion by lesion", what, {"macro_f1": gain}, "f1")
    for what, ways in judged["filters"].items():
        for way, scores in ways.items():
            yield row("The filter's parameters", f"{what}; {way}", scores, "f1")
