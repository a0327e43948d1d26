"""Reports of other programs in the store: what they found becomes proposals beside our own."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spicula.core.errors import InputError, SpiculaWarning
from spicula.core.files import ASIDE
from spicula.core.finding import Point
from spicula.core.geometry import Geometry
from spicula.dicom.reader import series_grid
from spicula.dicom.series import Series, find_series
from spicula.dicom.sr_reading import ReportedFinding, in_space, is_own_sr, read_sr
from spicula.pipelines.finding_view import REPORTED
from spicula.pipelines.worker import gathered
from spicula.pipelines.workplace import Workplace
from spicula.report.text import number, plain_text

NAMELESS = "another program"
"""Who a finding is by where the report names nobody."""


def take_in_reports(place: Workplace, study_uid: str) -> int:
    """Make the findings of a study's structured reports that are not ours findings of the store: proposals.

    Their content is as ``report.json`` holds a finding, with ``reported_uid`` (the tracking UID, or the report's and
    the place of the item in it) and a ``note`` of what the report calls it; ``changed_by`` is the program. One whose
    ``reported_uid`` the study has already, whatever became of it, is not taken again. Reports that cannot be read and
    findings without a place in a CT of the study are left out, each with a warning.

    Args:
        place: The store.
        study_uid: The study.

    Returns:
        How many findings are new.

    Raises:
        InputError: There is no such study, or it has findings of others but no CT.

    Warns:
        SpiculaWarning: For each report or finding that was left out.
    """
    place.studies.get(study_uid)
    reports = [
        place.studies.path(row)
        for series in place.studies.series(study_uid)
        if series["modality"] == "SR"
        for row in place.studies.instances(str(series["series_uid"]))
    ]
    found = [one for path in reports for one in _read(path)]
    known = {one.content.get(REPORTED) for one in place.findings.of_study(study_uid)}
    fresh = {one.uid: one for one in found if one.uid not in known}
    if not fresh:
        return 0
    scans = _series_of(place, study_uid)
    rows = [row for one in fresh.values() if (row := _row(one, scans)) is not None]
    return place.findings.propose(study_uid, rows, known_by=REPORTED)


def _read(path: Path) -> Sequence[ReportedFinding]:
    try:
        return () if is_own_sr(path) else read_sr(path)
    except InputError as error:
        warnings.warn(f"a report was left out: {error}", SpiculaWarning, stacklevel=3)
        return ()


def _series_of(place: Workplace, study_uid: str) -> tuple[Series, ...]:
    """The CT series of a study that have a grid, by their headers; those that can be read first."""
    with tempfile.TemporaryDirectory(prefix=ASIDE, dir=place.folder) as aside:
        folder = Path(aside) / "ct"
        gathered(place, study_uid, folder)
        return tuple(one for one in find_series(folder) if one.stack is not None and one.kind is not None)


def _row(one: ReportedFinding, scans: Sequence[Series]) -> tuple[str, str, dict[str, Any]] | None:
    """Series, program and content of a finding; None, with a warning, where it has no place in a series."""
    try:
        series, center, width = _placed(one, scans)
        return series.series_uid, _program(one.made_by), _content(one, series, center, width)
    except InputError as error:
        what = f"finding {one.uid} of a report by {_program(one.made_by)} was left out: {error}"
        warnings.warn(what, SpiculaWarning, stacklevel=4)
        return None


def _program(name: str) -> str:
    return plain_text(name)[:64].strip() or NAMELESS


def _placed(one: ReportedFinding, scans: Sequence[Series]) -> tuple[Series, Point, float | None]:
    """The series that a finding is in, its place in LPS mm and the width of what was drawn on an image."""
    center, width = one.center_xyz_mm, None
    image = one.image_place
    holder = next((series for series in scans if image and _holds(series, [image.sop_instance_uid])), None)
    if image is not None and (holder is not None or center is None):
        on_image, width = in_space(image, [item for series in scans for item in series.slices])
        center = on_image if center is None else center
    fitting = [*([holder] if holder is not None else []), *_by_uid(one, scans), *_by_frame(one, scans)]
    if center is None or not fitting:
        raise InputError("its series", got=one.series_uid or "none named", expected="a CT series of the study")
    return fitting[0], center, width


def _holds(series: Series, uids: Iterable[str]) -> bool:
    return bool({instance.sop_instance_uid for instance in series.instances} & set(uids))


def _by_uid(one: ReportedFinding, scans: Sequence[Series]) -> Iterator[Series]:
    return (series for series in scans if series.series_uid == one.series_uid)


def _by_frame(one: ReportedFinding, scans: Sequence[Series]) -> Iterator[Series]:
    """Series in the frame of reference of a place in space."""
    frame = one.frame_of_reference_uid
    return (series for series in scans if frame and frame in {item.frame_of_reference_uid for item in series.slices})


def _content(one: ReportedFinding, series: Series, center: Point, width: float | None) -> dict[str, Any]:
    """What the store holds of it: a finding of ``report.json`` of which little is known."""
    grid = series_grid(series)
    grid.require_inside(center, what="its center")
    index = np.clip(np.rint(grid.world_to_index(center)).astype(int), 0, np.array(grid.shape_zyx) - 1)
    nearest = min(series.slices, key=lambda item: _from_plane(grid, item.position_xyz_mm, index[0]))
    diameter = one.diameter_mm if one.diameter_mm is not None else width
    unknown = (
        "score", "long_axis_mm", "short_axis_mm", "mean_hu", "solid_diameter_mm", "solid_volume_mm3",
        "long_axis_ends_xyz_mm", "short_axis_ends_xyz_mm", "malignancy", "lung_rads", "fleischner",
    )  # fmt: skip
    return {
        "id": f"sr-{hashlib.sha256(one.uid.encode()).hexdigest()[:8]}",
        "center_xyz_mm": [number(value) for value in center],
        "voxel_index_zyx": index.tolist(),
        "slice_index": int(index[0]),
        "sop_instance_uid": nearest.instance.sop_instance_uid,
        "frame": nearest.instance.frame,
        "diameter_mm": number(diameter),
        "volume_mm3": number(one.volume_mm3),
        **dict.fromkeys(unknown),
        "outlined": False,
        "measured": {},
        "attributes": {},
        REPORTED: one.uid,
        "note": plain_text(", ".join(filter(None, (one.label, f"by {one.observer}" if one.observer else "")))),
    }


def _from_plane(grid: Geometry, position_xyz_mm: Point, index: int) -> float:
    return float(abs(grid.world_to_index(position_xyz_mm)[0] - index))
