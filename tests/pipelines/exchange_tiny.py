"""Tiny CTs, an analysis of them that looks at nothing, and archives around a store: what an exchange needs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spicula.core.analysis import Analysis
from spicula.core.finding import Finding
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.dicom.reader import read_series
from spicula.dicom.seg import write_seg
from spicula.dicom.series import find_series
from spicula.dicom.sr import write_sr
from spicula.dicom.writer import write_series
from spicula.pipelines.exchange import HANDLERS, SEND, send
from spicula.pipelines.worker import ANALYSES_FOLDER, ANALYZE, Handler, Tell, gathered
from spicula.pipelines.workplace import Workplace
from spicula.store.jobs import Job

from ..orthanc_server import Orthanc

SLICES = 4
SECRET = "SECRET^PATIENT"
"""The name of every patient: no message and no log may hold it."""


def write_ct(
    folder: Path, seed: str = "", *, thickness_mm: float = 2.0, description: str = "lung", patient: str = "P1"
) -> list[Path]:
    """A series of noise in a study of its own."""
    noise = np.random.default_rng(0).integers(-1000, 400, (SLICES, 24, 24)).astype(np.int16)
    volume = Volume(noise, Geometry.from_axes(noise.shape, (2.0, 0.7, 0.7)))
    return write_series(
        folder, volume, patient_id=patient, patient_name=SECRET, description=description, seed=seed,
        study_date="20200102", slice_thickness_mm=thickness_mm,
    )  # fmt: skip


def analyze_tiny(place: Workplace, job: Job, tell: Tell) -> Mapping[str, Any]:
    """Says of every study that it has one nodule; keeps it as the real analysis does."""
    study_uid = str(job.task["study_uid"])
    folder, aside = place.folder / ANALYSES_FOLDER / job.id, place.folder / f"aside-{job.id}"
    gathered(place, study_uid, aside)
    volume = read_series(find_series(aside)[0])
    tell(0.5, "looking")
    mask = Mask(np.ones((1, 3, 3), dtype=bool), volume.geometry.crop((1, 3, 4), (2, 6, 7)))
    x, y, z = (float(v) for v in volume.geometry.index_to_world((1, 4, 5)))
    analysis = Analysis(volume, (Finding("1", (x, y, z), 2.0, 0.9, mask=mask),))
    folder.mkdir(parents=True, exist_ok=True)
    write_sr(folder / "sr.dcm", analysis)
    write_seg(folder / "seg.dcm", analysis)
    shutil.rmtree(aside)
    record = {"findings": [{"id": "1", "center_xyz_mm": [x, y, z]}]}
    place.findings.keep_analysis(
        job.id, study_uid=study_uid, series_uid=volume.series_uid, record=record, folder=f"{ANALYSES_FOLDER}/{job.id}"
    )
    return {"findings": 1}


def outputs_again(place: Workplace, study_uid: str, folder: Path, *, pause_s: float = 0.0) -> None:
    """Write SR and SEG anew, under new UIDs each time, as whoever writes them from the findings does."""
    aside = folder / "series"
    gathered(place, study_uid, aside)
    volume = read_series(find_series(aside)[0])
    mask = Mask(np.ones((1, 3, 3), dtype=bool), volume.geometry.crop((1, 3, 4), (2, 6, 7)))
    x, y, z = place.findings.of_study(study_uid)[0].content["center_xyz_mm"]
    analysis = Analysis(volume, (Finding("1", (x, y, z), 2.0, 0.9, mask=mask),))
    write_sr(folder / "sr.dcm", analysis)
    time.sleep(pause_s)
    write_seg(folder / "seg.dcm", analysis)
    shutil.rmtree(aside)


def tiny_handlers(outputs: Callable[..., None] = outputs_again) -> dict[str, Handler]:
    """Real exchange, tiny analysis."""
    return {**HANDLERS, ANALYZE: analyze_tiny, SEND: partial(send, outputs=outputs)}


def write_archives(folder: Path, orthanc: Orthanc) -> Path:
    """``web``, ``dimse`` and ``move`` are one Orthanc, ``closed`` allows nothing."""
    ours = f'host = "127.0.0.1"\nport = {orthanc.dicom_port}\ncalled_aet = "{orthanc.ae_title}"\n'
    file = folder / "archives.toml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f'[web]\nurl = "{orthanc.web}"\npull = true\nsend = true\n[dimse]\n{ours}pull = true\nsend = true\n'
        f'[move]\n{ours}pull = true\nmove_aet = "SPICULA"\nmove_port = {orthanc.move_port}\nmove_host = "127.0.0.1"\n'
        f'[listener]\n{ours}pull = true\nmove_aet = "SPICULA"\n[closed]\nurl = "{orthanc.web}"\n'
    )  # fmt: skip
    return file


def in_orthanc(orthanc: Orthanc, study_uid: str) -> list[str]:
    """The modality of each instance of a study that is really in it, sorted."""
    studies = [one for one in orthanc.ask("studies?expand") if one["MainDicomTags"]["StudyInstanceUID"] == study_uid]
    series = [orthanc.ask(f"series/{name}") for one in studies for name in one["Series"]]
    return sorted(one["MainDicomTags"]["Modality"] for one in series for _ in one["Instances"])
