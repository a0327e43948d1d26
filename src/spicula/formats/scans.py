"""What scans a path holds, and one call that reads any of them."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from spicula.core.errors import GeometryError, InputError
from spicula.core.volume import Volume
from spicula.dicom.archive import files_in, is_dicom, is_zip
from spicula.dicom.gaps import Gaps
from spicula.dicom.reader import Tilt, read_series
from spicula.dicom.series import Series, find_series, select_series
from spicula.dicom.upright import upright
from spicula.formats import metaimage, nifti, nrrd
from spicula.formats.pixels import DAMAGED, check_finite, check_plausible

Reader = Callable[[Path], Volume]

READERS: dict[str, Reader] = {
    ".nii": nifti.read,
    ".nii.gz": nifti.read,
    ".nrrd": nrrd.read,
    ".nhdr": nrrd.read,
    ".mha": metaimage.read,
    ".mhd": metaimage.read,
}
"""Endings of the image files other than DICOM, with what reads them."""

AIR_HU = -1024.0


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan that can be read.

    Args:
        scan_id: Series Instance UID, or the file's stem and a short hash of its place; fit to name a folder.
        path: The file, folder or zip it was found in.
        series: The DICOM series; None for other formats.
        reasons: Why this one was chosen.
    """

    scan_id: str
    path: Path
    series: Series | None = None
    reasons: tuple[str, ...] = ()

    def load(self, *, gaps: Gaps = "error", tilt: Tilt = "error") -> Volume:
        """Read the pixels.

        Args:
            gaps: For missing, duplicate or irregular DICOM slices: ``"error"``, ``"warn"`` or ``"interpolate"``.
            tilt: For slices that are not stacked along their normal: ``"error"``, ``"resample"`` or ``"keep"``.

        Returns:
            The volume in HU.

        Raises:
            InputError: It cannot be read, holds NaN or infinite voxels, or its values are no Hounsfield units.
            GeometryError: Gaps or tilt, where the policy is to refuse.
        """
        if self.series is not None:
            volume = read_series(self.series, gaps=gaps, tilt=tilt)
            check_finite(self.path, volume.array_zyx, volume.geometry)
        else:
            reader = _reader_of(self.path)
            if reader is None:
                raise _not_an_image(self.path)
            volume = _without_tilt(reader(self.path), path=self.path, tilt=tilt)
        check_plausible(volume, path=self.path)
        return volume


def find_scans(path: str | Path, *, all_series: bool = False) -> list[Scan]:
    """Find the scans under a path.

    Of DICOM, the best series (see :func:`spicula.dicom.series.select_series`); of other formats, each file.

    Args:
        path: A folder of any depth, a zip of DICOM files, or an image file.
        all_series: Give every DICOM series that can be read, not only the best.

    Returns:
        At least one scan; DICOM first, then files by name. Nothing but headers has been read.

    Raises:
        InputError: Nothing is there, or nothing in it is an image that can be read.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist", hint="give a DICOM folder, file or zip, NIfTI, NRRD, MHA or MHD")
    if path.is_dir():
        return _distinct(_scans_in_folder(path, all_series=all_series))
    if _reader_of(path) is not None:
        return [_file_scan(path)]
    try:
        dicom = is_zip(path) or is_dicom(str(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if not dicom:
        raise _not_an_image(path)
    return _distinct(_dicom_scans(path, find_series(path), all_series=all_series))


def read_volume(
    path: str | Path, *, series_uid: str | None = None, gaps: Gaps = "error", tilt: Tilt = "error"
) -> Volume:
    """Read a CT from anything that holds one.

    Args:
        path: A DICOM folder (any depth), file or zip; NIfTI, NRRD, MHA, MHD with its data beside it; or a folder with
            one of these.
        series_uid: Which DICOM series; the best one if None.
        gaps: For missing, duplicate or irregular DICOM slices: ``"error"``, ``"warn"`` or ``"interpolate"``.
        tilt: For slices that are not stacked along their normal: ``"error"``, ``"resample"`` or ``"keep"``.

    Returns:
        The volume in HU, LPS; int16 where that is exact, else float32.

    Raises:
        InputError: It cannot be read, or is not one CT; the message names the file and what to do.
        GeometryError: Gaps or tilt, where the policy is to refuse.

    Example:
        >>> read_volume("no-such-folder")
        Traceback (most recent call last):
        spicula.core.errors.InputError: no-such-folder does not exist. Hint: give a DICOM folder, file or zip, \
NIfTI, NRRD, MHA or MHD
    """
    scans = find_scans(path, all_series=series_uid is not None)
    if series_uid is not None:
        series = [scan for scan in scans if scan.series is not None]
        scans = [scan for scan in series if scan.series and scan.series.series_uid == series_uid]
        if not scans:
            known = ", ".join(scan.scan_id for scan in series) or "no DICOM series"
            raise InputError(f"{path}: series {series_uid} is not there or cannot be read", got=known)
    if len(scans) > 1:
        raise InputError(
            f"{path}: one scan", got=f"{len(scans)}: " + ", ".join(_label(scan) for scan in scans[:5]),
            expected="a path with one CT", hint="give the file or folder of the one you mean",
        )  # fmt: skip
    return scans[0].load(gaps=gaps, tilt=tilt)


def _label(scan: Scan) -> str:
    return scan.path.name if scan.series is None else f"series {scan.scan_id}"


def _scans_in_folder(path: Path, *, all_series: bool) -> list[Scan]:
    """DICOM first; where there are image files too, DICOM that cannot be used is only told of."""
    images = [Path(member.path) for member in files_in(path) if _reader_by_name(member.path)]
    try:
        found = find_series(path)
    except InputError:
        if not images:
            raise
        found = []
    scans: list[Scan] = []
    note = ""
    if found:
        try:
            scans = _dicom_scans(path, found, all_series=all_series)
        except InputError as error:
            if not images:
                raise
            note = str(error)
    return [*scans, *(_file_scan(image, note) for image in images)]


def _dicom_scans(path: Path, found: list[Series], *, all_series: bool) -> list[Scan]:
    best = select_series(found)
    scans = [_series_scan(path, best)]
    if all_series:
        rest = [item for item in found if not item.refusal and item.instances != best.instances]
        scans += [_series_scan(path, item) for item in rest]
    return scans


def _series_scan(path: Path, series: Series) -> Scan:
    uid = re.sub(r"[^0-9A-Za-z.-]", "_", series.series_uid).strip(".")
    return Scan(uid if uid and uid == series.series_uid else _id_of(path), path, series, series.reasons)


def _file_scan(path: Path, note: str = "") -> Scan:
    reasons = ("an image file", f"no DICOM beside it can be used: {note}") if note else ("an image file",)
    return Scan(_id_of(path), path, None, reasons)


def _id_of(path: Path) -> str:
    """File stem and a short hash of the resolved path."""
    ending = next(
        (ending for ending in (".nii.gz", *READERS, ".zip", ".dcm") if path.name.lower().endswith(ending)), ""
    )
    stem = re.sub(r"[^0-9A-Za-z._-]+", "_", path.name[: len(path.name) - len(ending)]).strip("._") or "scan"
    return f"{stem[:80]}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"


def _distinct(scans: Iterable[Scan]) -> list[Scan]:
    """Number the ids that occur more than once (groups of slices of one series that do not stack)."""
    counts: dict[str, int] = {}
    named = []
    for scan in scans:
        counts[scan.scan_id] = counts.get(scan.scan_id, 0) + 1
        number = counts[scan.scan_id]
        named.append(scan if number == 1 else replace(scan, scan_id=f"{scan.scan_id}-{number}"))
    return named


def _reader_by_name(name: str) -> Reader | None:
    lowered = name.lower()
    return next((reader for ending, reader in READERS.items() if lowered.endswith(ending)), None)


def _reader_of(path: Path) -> Reader | None:
    """What reads a file, by its ending, else by how it starts."""
    by_name = _reader_by_name(path.name)
    if by_name is not None:
        return by_name
    try:
        with path.open("rb") as stream:
            head = stream.read(352)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path) as packed:
                head = packed.read(352)
    except DAMAGED:
        return None
    if head.startswith(b"NRRD000"):
        return nrrd.read
    if head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0":
        return nifti.read
    return metaimage.read if re.match(rb"\s*(ObjectType|NDims)\s*=", head) else None


def _not_an_image(path: Path) -> InputError:
    return InputError(
        f"{path} is not an image that Spicula reads",
        expected="a DICOM folder, file or zip, NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd)",
        hint="pictures (PNG, JPEG) have lost their Hounsfield units; export the CT itself",
    )


def _without_tilt(volume: Volume, *, path: Path, tilt: Tilt) -> Volume:
    """Treat axes that are not perpendicular as a tilted DICOM series is treated."""
    if not volume.geometry.is_sheared or tilt == "keep":
        return volume
    if tilt == "error":
        raise GeometryError(
            f"{path}", got="axes that are not perpendicular (gantry tilt, or a damaged header)",
            expected="perpendicular axes", hint="--tilt resample makes it upright, --tilt keep leaves the grid sheared",
        )  # fmt: skip
    array, geometry = upright(volume.array_zyx, volume.geometry, outside_hu=AIR_HU)
    notes = (*volume.warnings[:-1], f"{path}: the axes are not perpendicular; resampled onto an upright grid.")
    return replace(volume, array_zyx=array, geometry=geometry, warnings=notes)
