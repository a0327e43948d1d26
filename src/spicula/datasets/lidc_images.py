"""The DICOM series of LIDC-IDRI beside the reading files: which folder holds which, and where an outline lies in it."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spicula.core.errors import InputError
from spicula.core.finding import Point
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets.lidc_nodule_clusters import Nodule
from spicula.datasets.lidc_outlines import consensus
from spicula.datasets.lidc_sqlite import ScanFacts
from spicula.datasets.lidc_xml import Outline
from spicula.dicom.archive import is_dicom, parse
from spicula.dicom.gaps import Gaps
from spicula.dicom.reader import Tilt, read_series, series_grid
from spicula.dicom.series import Series, find_series, select_series
from spicula.formats.pixels import check_plausible

_SERIES_UID, _OBJECT_UID = "SeriesInstanceUID", "SOPInstanceUID"
_TAGS = {_SERIES_UID: 0x0020000E, _OBJECT_UID: 0x00080018}
_NOT_IMAGES = (".xml", ".csv", ".xls", ".xlsx", ".sqlite", ".txt", ".xz", ".gz", ".zip", ".tar")


def find_folders(
    root: Path, wanted: Collection[str], *, again: list[tuple[str, Path]] | None = None
) -> dict[str, Path]:
    """Which folder holds which series.

    TCIA gives each series a folder of its own, so the first, middle and last file of a folder are looked at; where
    series are still missing, every file of the folders that hold none of those wanted, or several, is.

    Args:
        root: Looked through at any depth; file names play no part.
        wanted: Series UIDs.
        again: Series and folder are added to it where a series was found in another folder, not below it, before.

    Returns:
        The folder of each series that was found, wanted or not; the first where there are several.
    """
    found: dict[str, Path] = {}
    unclear: list[tuple[Path, list[str]]] = []
    for folder, names in _folders(root):
        few = {_series_of(folder / names[index]) for index in {0, len(names) // 2, len(names) - 1}} - {""}
        for uid in sorted(few):
            first = found.setdefault(uid, folder)
            if again is not None and not folder.is_relative_to(first):
                again.append((uid, folder))
        if len(few) > 1 or not few & set(wanted):
            unclear.append((folder, names))
    if set(wanted) - set(found):
        for folder, names in unclear:
            for name in names:
                uid = _series_of(folder / name)
                if uid:
                    found.setdefault(uid, folder)
    return found


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        images = sorted(name for name in names if not name.lower().endswith(_NOT_IMAGES))
        if images:
            yield Path(folder), images


def _series_of(path: Path) -> str:
    """Series UID of a file, empty where it is not DICOM or cannot be read."""
    return _uid_of(path, _SERIES_UID)


def _uid_of(path: Path, name: str) -> str:
    try:
        if not is_dicom(str(path)):
            return ""
        return str(parse(str(path), pixels=False, tags=[_TAGS[name]]).get(name, ""))
    except Exception:  # pydicom raises whatever a broken file makes it stumble over; such a file is of no series
        return ""


def broken_files(root: Path) -> Iterator[tuple[Path, str]]:
    """The files under a folder whose name ends in ``.dcm`` and that do not start like DICOM, with what is wrong."""
    for folder, names in _folders(root):
        for path in (folder / name for name in names if name.lower().endswith(".dcm")):
            try:
                if not is_dicom(str(path)):
                    yield path, f"not a DICOM file ({path.stat().st_size:,} bytes)"
            except (InputError, OSError) as error:
                yield path, str(error)


def copies(folder: Path, series: Series) -> Iterator[Path]:
    """The files of a folder that repeat an object of a series; the one whose slice is used is none of them."""
    used = {item.sop_instance_uid: Path(item.path).resolve() for item in series.instances}
    wanted = any("copies" in note for note in series.warnings)
    for path in sorted(folder.rglob("*")) if wanted else ():
        uid = _uid_of(path, _OBJECT_UID) if path.is_file() else ""
        if uid in used and path.resolve() != used[uid]:
            yield path


def read_headers(folder: Path, series_uid: str) -> Series:
    """The headers of one series.

    Raises:
        InputError: It is not in the folder, or cannot be used; the message says why.
    """
    of_series = [series for series in find_series(folder) if series.series_uid == series_uid]
    if not of_series:
        raise InputError(f"{folder}: series {series_uid} is not there")
    return select_series(of_series)


def load_volume(folder: Path, series_uid: str, gaps: Gaps, tilt: Tilt) -> Volume:
    """Read the pixels of one series; headers are read anew, so that a list of Cases holds none.

    Raises:
        InputError: It cannot be read.
        GeometryError: Gaps or tilt, where the policy is to refuse.
    """
    volume = read_series(read_headers(folder, series_uid), gaps=gaps, tilt=tilt)
    check_plausible(volume, path=folder)
    return volume


def no_volume(series_uid: str, root: Path) -> Volume:
    """Say that there is no image.

    Raises:
        InputError: Always.
    """
    raise InputError(
        f"series {series_uid}: no DICOM files of it under {root}",
        hint="download it from TCIA (docs/how-to/get-lidc-idri.md); the folder layout does not matter",
    )


@dataclass(frozen=True, slots=True, eq=False)
class Placer:
    """Where the outlines of one scan lie.

    Args:
        grid: Of the series.
        planes: Index of each slice in the grid (with fractions where slices are irregular) by SOP Instance UID.
        heights_mm: z of each slice, in the order of ``planes``, for outlines without a UID that is known.
    """

    grid: Geometry
    planes: Mapping[str, float]
    heights_mm: tuple[float, ...]

    @classmethod
    def of(cls, series: Series) -> Placer:
        """From the headers of a series.

        Raises:
            InputError: It has no stack of slices.
        """
        grid = series_grid(series)
        corners = np.array([item.position_xyz_mm for item in series.slices])
        index = grid.world_to_index(corners)[:, 0].tolist()
        uids = (item.instance.sop_instance_uid for item in series.slices)
        return cls(grid, dict(zip(uids, index, strict=False)), tuple(corners[:, 2].tolist()))

    def plane(self, outline: Outline) -> float:
        """Index of an outline's slice in the grid."""
        if outline.sop_uid in self.planes:
            return self.planes[outline.sop_uid]
        nearest = int(np.abs(np.asarray(self.heights_mm) - outline.z_mm).argmin())
        return list(self.planes.values())[nearest]

    def to_world(self, outline: Outline) -> tuple[float, float, float]:
        """Mean of an outline's points, LPS mm."""
        x, y = outline.middle_xy
        world: list[float] = self.grid.index_to_world((self.plane(outline), y, x)).tolist()
        return world[0], world[1], world[2]

    def center_xyz_mm(self, nodule: Nodule) -> Point:
        """Mean over the readers of the mean of their outlines, larger ones counting more, LPS mm."""
        centers = []
        for mark in nodule.marks:
            sizes = [len(outline.points_xy) for outline in mark.traced]
            centers.append(np.average([self.to_world(outline) for outline in mark.traced], axis=0, weights=sizes))
        x, y, z = np.mean(centers, axis=0).tolist()
        return x, y, z

    def mask(self, nodule: Nodule, *, share: float = 0.5) -> Mask | None:
        """What a share of the readers outlined, on a box of the scan's grid; None where no voxel is."""
        marks = [
            replace(mark, outlines=tuple(replace(o, z_mm=float(round(self.plane(o)))) for o in mark.traced))
            for mark in nodule.marks
        ]
        array, (start, _) = consensus(marks, np.arange(self.grid.shape_zyx[0]), share=share)
        if not array.any():
            return None
        return Mask(array, self.grid.crop(start, tuple(a + n for a, n in zip(start, array.shape, strict=True))))

    def facts(self, series: Series) -> ScanFacts:
        """Spacing and slices as the headers state them."""
        spacing = self.grid.spacing_zyx_mm
        thickness = series.thickness_mm or spacing[0]
        heights = tuple(sorted(self.heights_mm))
        return ScanFacts(series.patient_id, series.series_uid, series.study_uid, spacing[1], thickness, heights)


def pixel_place(nodule: Nodule) -> Point:
    """Place of a nodule whose image is not there: x and y unknown (NaN), z in LPS mm."""
    return math.nan, math.nan, nodule.middle_xyz[2]
