"""Small volumes around LIDC-IDRI nodules with the readers' masks and ratings (development data, ``lidc_nodules/``).

Source: LIDC-IDRI (doi:10.7937/K9/TCIA.2015.LO9QL9SX), CC BY 3.0. The small volumes end where the readers' outline
ends: nothing that uses them may depend on where a volume ends.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.finding import Case, Finding
from spicula.core.volume import Mask
from spicula.datasets.lidc_xml import TRAITS as TRAITS
from spicula.formats import nifti
from spicula.metrics.patients import deal_folds

TEST_PATIENT = "LIDC-IDRI-0001"
"""Its whole scan is a test: its nodule stays out of everything that is trained or indexed."""


def load_cases(root: Path, *, with_test_patient: bool = False) -> list[Case]:
    """List the nodules, one Case for each small volume, in the order of ``nodules.csv``.

    Args:
        root: Folder with ``nodules.csv``, ``image/`` and ``mask/``.
        with_test_patient: Include patient LIDC-IDRI-0001.

    Returns:
        Cases of one Finding each; ``case_id`` is ``PATIENT_NODULE``; ``diameter_mm`` is LUNA16's own; ``truth`` has the
        readers' ratings (:data:`TRAITS`), ``label`` (1 malignant, by the source's vote) and ``readers``.

    Raises:
        InputError: There is no ``nodules.csv``.
    """
    table = root / "nodules.csv"
    if not table.is_file():
        raise InputError(f"{root}: no nodules.csv", hint="name the folder lidc_nodules of the development data")
    cases = []
    with table.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["patient_id"] == TEST_PATIENT and not with_test_patient:
                continue
            case_id = f"{row['patient_id']}_{row['nodule_id']}"
            finding = Finding(
                id=case_id,
                center_xyz_mm=(float(row["x_mm"]), float(row["y_mm"]), float(row["z_mm"])),
                diameter_mm=float(row["diameter_mm"]),
                truth={name: float(row[name]) for name in (*TRAITS, "label", "readers")},
            )
            load = partial(nifti.read, root / "image" / f"{case_id}.nii.gz")
            cases.append(Case(row["patient_id"], load, (finding,), case_id))
    return cases


def load_mask(root: Path, case_id: str) -> Mask:
    """Read the readers' mask of one nodule, on the grid of its small volume."""
    volume = nifti.read(root / "mask" / f"{case_id}.nii.gz")
    return Mask(np.asarray(volume.array_zyx > 0), volume.geometry)


def patient_folds(cases: Sequence[Case], *, folds: int = 5, seed: int = 0) -> NDArray[np.intp]:
    """Assign each case to a fold, as :func:`spicula.metrics.patients.deal_folds` deals patients.

    Args:
        cases: Cases of one finding each, with ``truth["label"]``.
        folds: Number of folds.
        seed: Changes the order of ties.

    Returns:
        Fold of each case, 0 to ``folds - 1``.

    Raises:
        InputError: Fewer patients than folds.
    """
    labels = [case.findings[0].truth["label"] for case in cases]
    return deal_folds([case.patient_id for case in cases], labels, folds=folds, seed=seed)
