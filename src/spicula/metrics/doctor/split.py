"""Patients on both sides of a split: by patient id, study, series, file name; splits by nodule or by slice."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from spicula.metrics.doctor.complaint import Complaint, Evidence, some_of

UNITS = ("patient", "study", "series", "file-name")
"""What a patient is told by, surest first."""

_PATIENT = re.compile(
    r"(LIDC-IDRI-\d{4}|LungFCP-\d+-\d+|TCGA-\w{2}-\w{4}|LUNGx-\w+|R01-\d{3}|AMC-\d{3}|LUNG1-\d{3}|DLCS[_-]\d+|CT-Training-\w+"
    r"|CT-Test-\w+)", re.I,
)  # fmt: skip
_NUMBER = re.compile(r"\d")


def patient_of_name(name: str) -> str | None:
    """The patient that a file name or nodule id begins with.

    Args:
        name: A path, a file name or an id: ``"crops/LIDC-IDRI-0001_2.npy"``.

    Returns:
        The id of a known collection anywhere in it, else what stands before the first underscore where that holds a
        digit; None where there is neither.

    Example:
        >>> patient_of_name("crops/LIDC-IDRI-0001_2.npy"), patient_of_name("100012_T0_3.png"), patient_of_name("x.png")
        ('LIDC-IDRI-0001', '100012', None)
    """
    known = _PATIENT.search(name)
    if known:
        return known.group(1).upper()
    base = re.split(r"[/\\]", name)[-1]
    before, underscore, _ = base.partition("_")
    return before if underscore and _NUMBER.search(before) else None


def split_complaints(
    sides: Sequence[str], units: Mapping[str, Sequence[str]], *, nodules: Sequence[str] | None = None
) -> tuple[Complaint, ...]:
    """Look for what lies on more than one side of a split.

    Args:
        sides: ``[n]`` side of each row: ``train``, ``test``, or a fold.
        units: For any of :data:`UNITS` the id of each row, ``""`` where it is not known.
        nodules: ``[n]`` nodule of each row, where it is known.

    Returns:
        One complaint for each kind of unit that is on more than one side; that a patient cannot be told; one side only.
    """
    found = []
    different = sorted(set(sides))
    if len(different) < 2:
        found.append(Complaint(
            "split.one-side", "error", f"all {len(sides):,} rows are on one side ({some_of(different)})",
            "give the rows of both sides", {"sides": different},
        ))  # fmt: skip
        return tuple(found)
    told = [kind for kind in UNITS if any(units.get(kind, ()))]
    for kind in told:
        found += _shared(kind, units[kind], sides, nodules=nodules)
    if not set(told) & {"patient", "file-name"}:
        found.append(Complaint(
            "split.no-patient", "warning",
            "no column tells the patient, so that two studies of one patient on both sides go unseen",
            "add a column patient_id", {"units": told},
        ))  # fmt: skip
    return tuple(found)


def _shared(kind: str, ids: Sequence[str], sides: Sequence[str], *, nodules: Sequence[str] | None) -> list[Complaint]:
    of_id: dict[str, set[str]] = defaultdict(set)
    for id_, side in zip(ids, sides, strict=True):
        if id_:
            of_id[id_].add(side)
    both = [id_ for id_, its in of_id.items() if len(its) > 1]
    if not both:
        return []
    leaked = set(both)
    rows = sum(id_ in leaked for id_ in ids)
    between = sorted(set().union(*(of_id[id_] for id_ in both)))
    words = {"patient": "patients", "study": "studies", "series": "series", "file-name": "patients (by file name)"}[
        kind
    ]
    evidence: dict[str, Evidence] = {
        "shared": len(both),
        "of": len(of_id),
        "rows": rows,
        "sides": between,
        "examples": both[:5],
    }
    reason = _unit_of_split(ids, sides, leaked, nodules)
    return [Complaint(
        f"split.{kind}", "error",
        f"{len(both):,} of {len(of_id):,} {words} are on more than one side ({some_of(both)}), with {rows:,} of "
        f"{len(sides):,} rows{reason}: what is learned on one side is asked on the other",
        "split again so that all rows of a patient are on one side (scikit-learn: GroupKFold with groups=patient_id), "
        "and train again", evidence,
    )]  # fmt: skip


def _unit_of_split(ids: Sequence[str], sides: Sequence[str], leaked: set[str], nodules: Sequence[str] | None) -> str:
    """Whether the split was made by nodule, or by row, in words."""
    if nodules is None or not any(nodules):
        return ""
    of_nodule: dict[tuple[str, str], set[str]] = defaultdict(set)
    for id_, nodule, side in zip(ids, nodules, sides, strict=True):
        if id_ in leaked and nodule:
            of_nodule[id_, nodule].add(side)
    if not of_nodule:
        return ""
    apart = sum(len(its) > 1 for its in of_nodule.values())
    return (
        "; the split was made by nodule"
        if not apart
        else f"; {apart:,} nodules are on both sides too: it was made by row"
    )
