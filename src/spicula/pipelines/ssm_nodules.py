"""The nodules that have slices in a table, with what heads are taught and judged by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.datasets import lidc_nodules
from spicula.pipelines.slice_table import SliceTable
from spicula.pipelines.ssm_features import Rows

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Nodules:
    """The nodules that have slices in a table.

    Args:
        ids: ``[n]``.
        rows: Rows of the table that show any of them.
        label: bool ``[n]``, malignant by the readers' vote.
        fold_of: ``[n]``.
        patients: ``[n]``.
        diameter_mm: ``[n]``, LUNA16's.
    """

    ids: NDArray[np.str_]
    rows: Rows
    label: NDArray[np.bool_]
    fold_of: NDArray[np.intp]
    patients: NDArray[np.str_]
    diameter_mm: Array


def nodules_of(table: SliceTable, data: Path, *, folds: int = 5) -> Nodules:
    """The nodules of ``lidc_nodules`` that a table shows, dealt to folds as everywhere.

    Raises:
        InputError: There are none.
    """
    cases = lidc_nodules.load_cases(data / "lidc_nodules")
    fold_of = lidc_nodules.patient_folds(cases, folds=folds)
    rows = np.flatnonzero(table.case_ids != "")
    shown = set(table.case_ids[rows].tolist())
    kept = [number for number, case in enumerate(cases) if case.case_id in shown]
    if not kept:
        raise InputError("slices", got="no nodule of lidc_nodules", expected="crops that show some")
    some = [cases[number] for number in kept]
    return Nodules(
        np.array([case.case_id for case in some]), rows,
        np.array([case.findings[0].truth["label"] > 0 for case in some]), fold_of[kept],
        np.array([case.patient_id for case in some]),
        np.array([case.findings[0].diameter_mm for case in some], dtype=np.float64),
    )  # fmt: skip
