"""What a path holds, in words: the job behind ``spicula info``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from spicula.core.errors import InputError
from spicula.core.volume import Volume
from spicula.dicom.describe import describe
from spicula.dicom.series import Series, find_series, select_series
from spicula.formats import find_scans

WOULD_TAKE, WOULD_REFUSE = "analyze would take", "analyze would refuse"


def describe_path(path: Path) -> list[str]:
    """Describe every series or image under a path, and which one ``analyze`` would take.

    Args:
        path: Anything that ``spicula analyze`` takes.

    Returns:
        Lines of text.

    Raises:
        InputError: Nothing there can be read at all.
    """
    lines = list(_dicom_lines(path))
    try:
        files = [scan.path for scan in find_scans(path) if scan.series is None]
    except InputError:
        if not lines:
            raise
        files = []
    for file in files:
        lines += [*_blank(lines), *_volume_lines(file)]
    return lines


def _blank(lines: list[str]) -> list[str]:
    return [""] if lines else []


def _dicom_lines(path: Path) -> Iterator[str]:
    try:
        found = find_series(path)
    except InputError:
        return
    chosen, conclusion = _choice(found)
    for series in found:
        is_chosen = chosen is not None and series.instances == chosen.instances and not series.refusal
        yield from _rows(describe(chosen if is_chosen and chosen else series))
        yield ""
    yield f"{WOULD_TAKE if chosen else WOULD_REFUSE}  {conclusion}"


def _choice(found: Sequence[Series]) -> tuple[Series | None, str]:
    """The series that would be taken, and why; None and why not."""
    try:
        chosen = select_series(found)
    except InputError as error:
        return None, str(error)
    stopped = dict(describe(chosen)).get("refused")
    if stopped:
        return None, f"series {chosen.series_uid}: {stopped}"
    return chosen, f"series {chosen.series_uid}: " + "; ".join(chosen.reasons)


def _volume_lines(path: Path) -> Iterator[str]:
    try:
        volume = find_scans(path)[0].load(tilt="keep")
    except InputError as error:
        yield from _rows([("file", str(path)), (WOULD_REFUSE, str(error))])
        return
    yield from _rows(_volume_rows(path, volume))


def _volume_rows(path: Path, volume: Volume) -> list[tuple[str, str]]:
    grid = volume.geometry
    z, y, x = grid.spacing_zyx_mm
    low, high = volume.array_zyx.min(), volume.array_zyx.max()
    corner, middle = (
        ", ".join(f"{value:.1f}" for value in place) for place in (grid.origin_xyz_mm, grid.center_xyz_mm)
    )
    return [
        ("file", str(path)),
        ("format", volume.acquisition.format),
        ("voxels", " x ".join(map(str, grid.shape_zyx)) + f" (z, y, x), {volume.array_zyx.dtype}"),
        ("spacing", f"{z:.4g} x {y:.4g} x {x:.4g} mm (z, y, x)"),
        ("first voxel", f"{corner} mm LPS"),
        ("middle", f"{middle} mm LPS"),
        ("values", f"{low:.0f} to {high:.0f} HU"),
        ("axes", "not perpendicular" if grid.is_sheared else "perpendicular"),
        *(("warning", warning) for warning in volume.warnings),
    ]


def _rows(rows: list[tuple[str, str]]) -> Iterator[str]:
    for name, value in rows:
        yield f"{name:24}  {value}"
