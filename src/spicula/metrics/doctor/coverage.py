"""Which scans were looked at, and which are counted: one fold against all scans, the divisor, the folds."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from spicula.metrics.doctor.complaint import Complaint, some_of
from spicula.metrics.hits import Points

LUNA16_SCANS, LUNA16_NODULES, LUNA16_EXCLUDED, LUNA16_WITH_NODULES = 888, 1186, 35192, 601

_PART = 0.6  # of the scans: fewer is a part of the set
_FEW = 0.98  # of the scans: fewer is said
_SAME_SCORES = 0.5  # of a fold's scores that another has too

_LIDC_UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001."


def is_luna16(scans: Sequence[str], nodules: Points) -> bool:
    """Whether the number of nodules is LUNA16's, or the number of scans of LIDC-IDRI is."""
    of_lidc = any(_LIDC_UID in scan for scan in scans[:5])
    many = len(scans) in (LUNA16_SCANS, LUNA16_WITH_NODULES)
    return nodules.scan.size == LUNA16_NODULES or (many and of_lidc)


def list_complaints(scans: Sequence[str], nodules: Points, marks: Points) -> tuple[Complaint, ...]:
    """What is wrong with the list of scans itself.

    Args:
        scans: The list, as given.
        nodules: What is to be found, ids matched to the list where they can be.
        marks: Detections, ids matched likewise.

    Returns:
        Scans listed twice, findings outside the list, a list of nothing but scans with findings.
    """
    found = []
    twice = [name for name, count in Counter(scans).items() if count > 1]
    if twice:
        found.append(Complaint(
            "series.duplicated", "error",
            f"{len(twice):,} scans are listed twice ({some_of(twice)}), which makes the divisor {len(scans):,} in "
            f"place of {len(set(scans)):,}", "list each scan once", {"twice": len(twice), "examples": twice[:5]},
        ))  # fmt: skip
    listed = set(scans)
    outside = [name for name in dict.fromkeys(map(str, nodules.scan)) if name not in listed]
    if outside:
        lost = int(np.isin(nodules.scan, outside).sum())
        marked = len(set(outside) & set(map(str, marks.scan)))
        found.append(Complaint(
            "annotations.outside", "warning" if marked else "note",
            f"{lost:,} of {nodules.scan.size:,} annotated findings lie in {len(outside):,} scans that are not in the "
            f"series list, {marked:,} of which have detections; they are not counted",
            "give the series list of all scans that were detected on" if marked else "",
            {"findings": lost, "scans": len(outside), "scans_with_detections": marked, "examples": outside[:5]},
        ))  # fmt: skip
    of_list = int(np.isin(nodules.scan, scans).sum())
    if len(listed) == LUNA16_SCANS and of_list not in (LUNA16_NODULES, 0):
        found.append(Complaint(
            "annotations.not-luna16", "warning",
            f"the {LUNA16_SCANS} scans are as many as LUNA16's, whose annotations are {LUNA16_NODULES:,} findings; "
            f"these are {of_list:,}: a score on them is not LUNA16's",
            "give LUNA16's annotations.csv, or say that the set is another", {"findings": of_list},
        ))  # fmt: skip
    return (*found, *_only_with_findings(listed, nodules))


def _only_with_findings(listed: set[str], nodules: Points) -> list[Complaint]:
    with_findings = listed & set(map(str, nodules.scan))
    if len(listed) < 20 or len(with_findings) < len(listed):
        return []
    luna16 = len(listed) == LUNA16_WITH_NODULES or nodules.scan.size == LUNA16_NODULES
    return [Complaint(
        "series.only-with-findings", "error" if luna16 else "warning",
        f"all {len(listed):,} scans of the series list hold a finding: false positives are counted on scans with "
        "findings only" + (f", LUNA16's divisor is {LUNA16_SCANS} ({LUNA16_WITH_NODULES} hold nodules)" * luna16),
        f"detect on the scans without findings too and list them (LUNA16: all {LUNA16_SCANS} of seriesuids.csv, or "
        "all scans of the fold)", {"scans": len(listed)},
    )]  # fmt: skip


def coverage_complaints(
    marks: Points, nodules: Points, scans: Sequence[str], *, folds: Mapping[str, str] | None = None
) -> tuple[Complaint, ...]:
    """Whether the detections are those of all scans in the list.

    Args:
        marks: Detections, ids as in the list.
        nodules: What is to be found, ids as in the list.
        scans: All scans.
        folds: Fold of each scan, where it is known.

    Returns:
        One fold scored against all, a fold that is missing, detections on the scans with findings only, scans without
        detections.
    """
    listed = list(dict.fromkeys(scans))
    marked = set(map(str, marks.scan)) & set(listed)
    bare = [name for name in listed if name not in marked]
    if not marked or not bare:
        return ()
    of_list = nodules.scan[np.isin(nodules.scan, listed)]
    most = float(np.isin(of_list, list(marked)).mean()) if of_list.size else 0.0
    evidence = {"scans": len(listed), "scans_with_detections": len(marked), "best_sensitivity": round(most, 4)}
    with_findings = set(map(str, of_list))
    healthy = len(listed) - len(with_findings)
    if healthy > 0.05 * len(listed) and marked <= with_findings and len(marked) > 0.9 * len(with_findings):
        return (_divisor(len(listed), len(marked), evidence),)
    bare_folds = _bare_folds(marked, set(listed), folds or {})
    if bare_folds and len(marked) >= _PART * len(listed):
        return (Complaint(
            "series.fold-missing", "error",
            f"none of the scans of fold {', '.join(bare_folds)} has a detection, {len(bare):,} of {len(listed):,} "
            f"scans in all: no more than {most:.3f} of the findings can be found",
            "join the detections of all folds into one file, or give --series without the scans of these folds",
            {**evidence, "folds": bare_folds},
        ),)  # fmt: skip
    if len(marked) < _PART * len(listed):
        return (_one_fold(marked, listed, folds, most=most, evidence=evidence),)
    if len(marked) < _FEW * len(listed):
        return (Complaint(
            "series.without-detections", "warning",
            f"{len(bare):,} of {len(listed):,} scans have no detection ({some_of(bare)}); if they were not looked at, "
            f"no more than {most:.3f} of the findings can be found",
            "detect on them too, or leave them out of the series list",
            {**evidence, "without": len(bare), "examples": bare[:5]},
        ),)  # fmt: skip
    problem = f"{len(bare):,} of {len(listed):,} scans have no detection ({some_of(bare)}); they count in the divisor"
    return (Complaint("series.without-detections", "note", problem, "", {**evidence, "without": len(bare)}),)


def _divisor(n_listed: int, n_marked: int, evidence: Mapping[str, float]) -> Complaint:
    return Complaint(
        "divisor.only-with-findings", "error",
        f"detections lie in {n_marked:,} scans, all of which hold findings, while the divisor is {n_listed:,}: no "
        "false positive was looked for where there is nothing to find, which raises the score",
        f"detect on the other {n_listed - n_marked:,} scans too; scored on its own scans the divisor is {n_marked:,}",
        evidence,
    )  # fmt: skip


def _one_fold(
    marked: set[str], listed: Sequence[str], folds: Mapping[str, str] | None, *, most: float,
    evidence: Mapping[str, float],
) -> Complaint:  # fmt: skip
    named = _folds_of(marked, folds or {})
    which = f" (fold {', '.join(named)})" if named else ""
    of_all = f"{len(marked):,} of {len(listed):,} scans"
    return Complaint(
        "series.one-fold", "error",
        f"there are detections in {of_all} only{which}: no more than {most:.3f} of the findings can be found",
        f"give --series with these {len(marked):,} scans (and all scans of the fold without detections), or join the "
        "detections of all folds into one file",
        {**evidence, "folds": named},
    )  # fmt: skip


def _bare_folds(marked: set[str], listed: set[str], folds: Mapping[str, str]) -> list[str]:
    """Folds with scans in the list, none of which is marked."""
    there = {fold for name, fold in folds.items() if name in listed}
    return sorted(there - {fold for name, fold in folds.items() if name in marked})


def _folds_of(marked: set[str], folds: Mapping[str, str]) -> list[str]:
    """Folds of which nearly all scans are among some."""
    members: dict[str, set[str]] = defaultdict(set)
    for name, fold in folds.items():
        members[fold].add(name)
    return sorted(fold for fold, names in members.items() if len(names & marked) > 0.8 * len(names))


def fold_complaints(marks: Points, scans: Sequence[str], fold_rows: Sequence[tuple[str, str]]) -> tuple[Complaint, ...]:
    """What is wrong with the folds, or with the detections of one beside those of another.

    Args:
        marks: Detections, ids as in the list.
        scans: All scans.
        fold_rows: Scan and fold, a row each.

    Returns:
        Scans in two folds, scans in none, two folds with the same scores.
    """
    of_scan: dict[str, set[str]] = defaultdict(set)
    for name, fold in fold_rows:
        of_scan[name].add(fold)
    found = []
    twice = [name for name, its in of_scan.items() if len(its) > 1]
    if twice:
        found.append(Complaint(
            "folds.overlap", "error", f"{len(twice):,} scans are in two folds or more ({some_of(twice)})",
            "give each scan one fold", {"scans": len(twice), "examples": twice[:5]},
        ))  # fmt: skip
    none = [name for name in dict.fromkeys(scans) if name not in of_scan]
    if none:
        found.append(Complaint(
            "folds.missing", "warning", f"{len(none):,} scans of the series list are in no fold ({some_of(none)})",
            "add them to the folds", {"scans": len(none), "examples": none[:5]},
        ))  # fmt: skip
    fold_of = np.array([min(of_scan.get(str(name), {""})) for name in marks.scan], dtype=np.str_)
    return (*found, *_same_scores(marks, fold_of))


def _same_scores(marks: Points, fold_of: np.ndarray) -> list[Complaint]:
    scores = {str(fold): set(np.unique(marks.value[fold_of == fold]).tolist()) for fold in np.unique(fold_of) if fold}
    found = []
    for one, other in itertools.combinations(scores, 2):
        fewer = min(len(scores[one]), len(scores[other]))
        same = len(scores[one] & scores[other])
        if fewer >= 50 and same > _SAME_SCORES * fewer:
            found.append(Complaint(
                "folds.same-scores", "error",
                f"folds {one} and {other} share {same:,} of {fewer:,} different scores: one result was written twice",
                f"detect again with the model of fold {other} on its own scans",
                {"folds": [one, other], "same": same, "of": fewer},
            ))  # fmt: skip
    return found
