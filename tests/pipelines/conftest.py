"""The real scans that the jobs are tried on, analyzed once."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from spicula.core.analysis import Analysis
from spicula.core.finding import Case
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_nodules
from spicula.pipelines.batch import Outcome, analyze_paths
from spicula.pipelines.risk_table import Outlines

Analyzed = tuple[Analysis, Path]


@pytest.fixture(scope="session")
def analyzed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Analyzed]:
    """Analyze a path with all outputs; gives the analysis and the folder of its files."""
    done: dict[Path, Analyzed] = {}

    def run(path: Path) -> Analyzed:
        if path not in done:
            out = tmp_path_factory.mktemp("findings") / "out"
            outcomes: list[Outcome] = analyze_paths([path], out)
            assert outcomes[0].analysis is not None
            done[path] = outcomes[0].analysis, out
        return done[path]

    return run


@pytest.fixture(scope="session")
def lidc_0001(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole LIDC-IDRI-0001 series as DICOM, unpacked."""
    folder = tmp_path_factory.mktemp("LIDC-IDRI-0001")
    with tarfile.open(shared / "scans" / "LIDC-IDRI-0001.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def readers_outlines(shared: Path) -> Outlines:
    """The readers' own outlines, cut as the volume is: for trials that train no outline network."""

    def readers(case: Case, volume: Volume, center_xyz_mm: Sequence[float]) -> Mask:
        mask = lidc_nodules.load_mask(shared / "lidc_nodules", case.case_id)
        start = np.rint(mask.geometry.world_to_index(volume.geometry.index_to_world([0, 0, 0]))).astype(int)
        part = tuple(slice(a, a + n) for a, n in zip(start.tolist(), volume.array_zyx.shape, strict=True))
        return Mask(mask.array_zyx[part], volume.geometry)

    return readers
