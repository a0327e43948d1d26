"""What ``spicula pretrain`` learns from: the development data, or any folder of chest CTs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from spicula.core.errors import InputError
from spicula.core.volume import Mask, Volume
from spicula.datasets.lidc_crops import Crop
from spicula.formats.scans import find_scans
from spicula.pipelines.slice_table import SliceTable, Source, make_slice_table
from spicula.pipelines.train_risk import patient_outlines

Report = Callable[[str], None]


def read_slices(
    data: Path,
    folder: Path,
    *,
    scans: Sequence[Path] = (),
    outline_run: Path | None = None,
    folds: int = 5,
    seed: int = 0,
    limit: int | None = None,
    report: Report = print,
) -> SliceTable:
    """The slices of a folder, cut once and kept.

    Args:
        data: Development data with ``lidc_crops``, or a folder of scans in any format that is read: every series.
        folder: Where the cut pieces are kept.
        scans: Further scans, whose lung is added.
        outline_run: Run folder of ``train outline``: each crop is then outlined by a network that has not learned from
            its patient; by the shipped one if None.
        folds: Of that run.
        seed: Decides where pieces of scans lie.
        limit: Only the first crops or scans, for a trial.
        report: Takes one line of progress.

    Raises:
        InputError: There is nothing to read.
    """
    crops = (data / "lidc_crops").is_dir()
    sources = [source for path in ([] if crops else [data]) for source in _sources(path)][:limit]
    sources += [source for path in scans for source in _sources(path)]
    outline, identity = _outlines(outline_run, folds) if crops else (_none, "none")
    return make_slice_table(
        data, folder, outline=outline, identity=identity, scans=sources, seed=seed, limit=limit, report=report
    )


def _sources(path: Path) -> list[Source]:
    """Every series and file under a path; a file that tells no patient is one of its own."""
    return [
        Source((scan.series.patient_id if scan.series else "") or scan.scan_id, scan.scan_id, scan.load)
        for scan in find_scans(path, all_series=True)
    ]


def rows_without(table: SliceTable, patients: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Rows of all patients but these."""
    return np.flatnonzero(~np.isin(table.patients, list(patients)))


def _outlines(run: Path | None, folds: int) -> tuple[Callable[[Crop, Volume, Sequence[float]], Mask], str]:
    of_patient, identity = patient_outlines(run, folds=folds)
    return lambda crop, volume, center: of_patient(crop.patient_id, volume, center), identity


def _none(crop: Crop, volume: Volume, center_xyz_mm: Sequence[float]) -> Mask:
    raise InputError("outline", got="no crop", expected="crops")
