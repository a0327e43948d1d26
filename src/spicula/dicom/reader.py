"""Read a CT series into a volume in HU, refusing or repairing aloud what is odd about it."""

from __future__ import annotations

import os
import warnings as python_warnings
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from spicula.core.errors import GeometryError, InputError, SpiculaError
from spicula.core.geometry import Geometry
from spicula.core.volume import Acquisition, Instance, Volume
from spicula.dicom.archive import SEPARATOR, parse, unreadable
from spicula.dicom.gaps import Gaps, plan_grid
from spicula.dicom.header import Slice, SliceKind
from spicula.dicom.pixels import PIXEL_TAGS, stored_values, why_undecodable, within_bits_stored
from spicula.dicom.series import Series
from spicula.dicom.stack import Stack
from spicula.dicom.upright import upright

AIR_HU = -1024
"""What pixels outside the scanner's field become."""
MAX_VOXELS = 2**31
TILT_TAG_DEGREES = 0.1
"""Gantry/Detector Tilt below this is taken for none."""

Tilt = Literal["error", "resample", "keep"]


def read_series(series: Series, *, gaps: Gaps = "error", tilt: Tilt = "error") -> Volume:
    """Read the pixels of a series.

    Args:
        series: As from ``find_series``.
        gaps: What to do about missing, duplicate or irregular slices, and about broken files that may belong to the
            series: refuse; ``warn`` (do without them: the nearest slice for each place of the regular grid, the first
            of duplicates); or ``interpolate`` (linear between neighbors).
        tilt: What to do about slices not stacked along their normal: refuse; ``resample`` onto an upright grid
            (trilinear); or ``keep`` them with a sheared affine.

    Returns:
        The volume: int16 where every HU is a whole number in range, else float32. ``acquisition.instances`` has None
        for slices that are at no instance's place.

    Raises:
        InputError: The series cannot be read, or a file in it is broken.
        GeometryError: Its slices are missing, duplicate, irregular or tilted, and the policy is to refuse.
    """
    if series.refusal:
        raise InputError(f"{series.name}: {series.refusal}")
    stack, kind = series.stack, series.kind
    if stack is None or kind is None:
        raise InputError(series.name, got="no stack of slices", expected="a series from find_series")
    notes = list(series.warnings)
    _check_broken(series, gaps, notes)
    _check_tilt(series, stack, tilt, notes)
    plan = plan_grid(series, stack, gaps, notes)
    array, pixel_notes = _pixels(series, kind, plan.sources)
    notes += pixel_notes
    array = plan.fill(array)
    geometry = series_grid(series)
    instances = plan.instances
    if stack.is_sheared and tilt == "resample":
        array, geometry = upright(array, geometry, outside_hu=AIR_HU)
        instances = (None,) * array.shape[0]
    return Volume(array, geometry, series.series_uid, _acquisition(series, instances), tuple(notes))


def series_grid(series: Series) -> Geometry:
    """The grid that a series' slices fill, from its headers alone; sheared where they are.

    Args:
        series: As from ``find_series``.

    Returns:
        The grid of the volume that :func:`read_series` gives, unless it resamples a tilted one.

    Raises:
        InputError: The series has no stack of slices.
    """
    stack, kind = series.stack, series.kind
    if stack is None or kind is None:
        raise InputError(series.name, got="no stack of slices", expected="a series from find_series")
    return Geometry((stack.grid_size, kind.rows, kind.cols), _affine(kind, stack), series.frame_of_reference_uid)


def _check_broken(series: Series, gaps: Gaps, notes: list[str]) -> None:
    """A file that cannot be read may be a missing slice, at the ends even unseen."""
    if series.broken:
        what = f"{series.name}: {len(series.broken)} file(s) that may belong to it cannot be used: {series.broken[0]}"
        if gaps == "error":
            raise InputError(what, hint="--gaps warn does without them")
        notes.append(what)


def _check_tilt(series: Series, stack: Stack, tilt: Tilt, notes: list[str]) -> None:
    angle, stated = stack.shear_degrees, series.gantry_tilt_degrees
    if not stack.is_sheared:
        if abs(stated) <= TILT_TAG_DEGREES:
            return
        what = (
            f"{series.name}: Gantry/Detector Tilt (0018,1120) is {stated:.1f} degrees, "
            "but the slice positions show no tilt"
        )
        if tilt == "error":
            raise GeometryError(what, hint="--tilt keep trusts the positions")
        notes.append(what + "; the positions were trusted")
        return
    what = f"{series.name}: the slices are sheared by {angle:.1f} degrees (gantry tilt)"
    if tilt == "error":
        raise GeometryError(what, hint="--tilt resample makes the volume upright, --tilt keep keeps a sheared grid")
    notes.append(what + ("; resampled onto an upright grid" if tilt == "resample" else "; kept as a sheared grid"))


def _affine(kind: SliceKind, stack: Stack) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, 0] = stack.step_xyz_mm
    affine[:3, 1] = np.asarray(kind.orientation[3:]) * kind.spacing_yx_mm[0]
    affine[:3, 2] = np.asarray(kind.orientation[:3]) * kind.spacing_yx_mm[1]
    affine[:3, 3] = stack.first_xyz_mm
    return affine


def _acquisition(series: Series, instances: tuple[Instance | None, ...]) -> Acquisition:
    first = series.slices[0]
    paths = {item.instance.path.partition(SEPARATOR)[0] for item in series.slices}
    source = paths.pop() if len(paths) == 1 else os.path.commonpath(list(paths))
    return Acquisition(
        source=source,
        format="DICOM",
        modality=series.modality,
        patient_id=series.patient_id,
        study_uid=series.study_uid,
        study_date=first.study_date,
        series_description=series.description,
        manufacturer=first.manufacturer,
        kernel=series.kernel,
        slice_thickness_mm=first.thickness_mm,
        transfer_syntax_uid=first.transfer_syntax_uid,
        instances=instances,
    )


@dataclass
class _Target:
    """The array being filled, and what was found on the way."""

    array: NDArray[Any]
    padded: int = 0
    beyond_int16: bool = False
    notes: set[str] = field(default_factory=set)


def _pixels(series: Series, kind: SliceKind, slices: Sequence[Slice]) -> tuple[NDArray[Any], list[str]]:
    """Decode slices to HU ``[n, rows, cols]``, file by file in threads."""
    shape = (len(slices), kind.rows, kind.cols)
    if np.prod(shape, dtype=np.float64) > MAX_VOXELS:
        raise InputError(series.name, got=f"{shape} voxels", expected=f"at most {MAX_VOXELS}")
    for uid in series.transfer_syntax_uids:
        if reason := why_undecodable(uid):
            raise InputError(f"{series.name}: {reason}")
    whole = all(float(item.slope).is_integer() and float(item.intercept).is_integer() for item in slices)
    target = _read_files(slices, _Target(np.empty(shape, np.int16 if whole else np.float32)))
    if target.beyond_int16:
        target = _read_files(slices, _Target(np.empty(shape, np.float32)))
    notes = sorted(target.notes)
    if target.padded:
        share = 100 * target.padded / target.array.size
        notes.append(f"Pixel Padding Value (0028,0120): {share:.1f} % of the voxels were set to {AIR_HU} HU")
    return target.array, notes


def _read_files(slices: Sequence[Slice], target: _Target) -> _Target:
    by_path: dict[str, list[tuple[int, Slice]]] = defaultdict(list)
    for index, item in enumerate(slices):
        by_path[item.instance.path].append((index, item))
    with python_warnings.catch_warnings(record=True) as caught:
        python_warnings.simplefilter("always")
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for padded, beyond in pool.map(lambda job: _read_file(job[0], job[1], target.array), by_path.items()):
                target.padded += padded
                target.beyond_int16 |= beyond
    target.notes |= {" ".join(str(warning.message).split()) for warning in caught}
    return target


def _read_file(path: str, jobs: list[tuple[int, Slice]], out: NDArray[Any]) -> tuple[int, bool]:
    """Decode one file's slices into their places; the number of padding pixels and whether int16 was too small."""
    try:
        dataset = parse(path, pixels=True, tags=PIXEL_TAGS)
        padded, beyond = 0, False
        frames = [item.instance.frame or 1 for _, item in jobs]
        for (index, item), stored in zip(jobs, stored_values(dataset, path, frames=frames), strict=True):
            if stored.shape != out.shape[1:]:
                raise InputError(f"{path}: pixels", got=stored.shape, expected=out.shape[1:])
            slice_padded, slice_beyond = _to_hu(stored, item, dataset, out[index])
            padded, beyond = padded + slice_padded, beyond or slice_beyond
        return padded, beyond
    except SpiculaError:
        raise
    except Exception as error:  # decoders raise whatever a broken stream makes them stumble over
        raise unreadable(path, error) from error


def _to_hu(stored: NDArray[Any], item: Slice, dataset: Dataset, out: NDArray[Any]) -> tuple[int, bool]:
    """Turn stored values into HU in ``out``; returns the number of padding pixels and whether int16 was too small."""
    padding = _padding_mask(stored, item)
    values = within_bits_stored(stored, dataset)
    if out.dtype == np.int16:
        low, high = (int(values.min()), int(values.max())) if padding is None else _range_of(values, ~padding)
        ends = [edge * item.slope + item.intercept for edge in (low, high)]
        if min(ends) < -32768 or max(ends) > 32767:
            return 0, True
        if item.slope == 1:
            np.add(values, int(item.intercept), out=out, casting="unsafe", dtype=np.int32)
        else:
            out[...] = values.astype(np.int64) * int(item.slope) + int(item.intercept)
    else:
        out[...] = values * np.float64(item.slope) + item.intercept
    if padding is None:
        return 0, False
    out[padding] = AIR_HU
    return int(np.count_nonzero(padding)), False


def _range_of(values: NDArray[Any], inside: NDArray[np.bool_]) -> tuple[int, int]:
    kept = values[inside]
    return (int(kept.min()), int(kept.max())) if kept.size else (0, 0)


def _padding_mask(stored: NDArray[Any], item: Slice) -> NDArray[np.bool_] | None:
    """Pixels that are padding, None where there are none; a padding value that tissue has too is not believed."""
    if item.padding is None:
        return None
    low, high = item.padding
    hu = [edge * item.slope + item.intercept for edge in (low, high)]
    if max(hu) > -900 and min(hu) < 3000:
        return None
    mask = stored == low if low == high else (stored >= low) & (stored <= high)
    return mask if mask.any() else None
