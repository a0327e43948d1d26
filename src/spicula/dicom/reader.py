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
from spicula.dicom.header import Slice, SliceKind
from spicula.dicom.pixels import stored_values, why_undecodable, within_bits_stored
from spicula.dicom.series import Series
from spicula.dicom.stack import Stack
from spicula.dicom.upright import upright

AIR_HU = -1024
"""What pixels outside the scanner's field become."""
MAX_VOXELS = 2**31
TILT_TAG_DEGREES = 0.1
"""Gantry/Detector Tilt below this is taken for none."""

Gaps = Literal["error", "warn", "interpolate"]
Tilt = Literal["error", "resample", "keep"]


def read_series(series: Series, *, gaps: Gaps = "error", tilt: Tilt = "error") -> Volume:
    """Read the pixels of a series.

    Args:
        series: As from ``find_series``.
        gaps: What to do about missing, duplicate or irregular slices: refuse; ``warn`` (the nearest slice for each
            place of the regular grid, the first of duplicates); or ``interpolate`` (linear between neighbors).
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
    _check_tilt(series, stack, tilt, notes)
    plan = _plan(series, stack, gaps, notes)
    array, pixel_notes = _pixels(series, kind, [item for item in plan.sources if item is not None])
    notes += pixel_notes
    array = _fill(array, plan)
    affine = _affine(kind, stack)
    geometry = Geometry(array.shape, affine, series.frame_of_reference_uid)  # type: ignore[arg-type]
    instances = plan.instances
    if stack.is_sheared and tilt == "resample":
        array, geometry = upright(array, geometry, outside_hu=AIR_HU)
        instances = (None,) * array.shape[0]
    return Volume(array, geometry, series.series_uid, _acquisition(series, instances), tuple(notes))


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
            raise GeometryError(what, hint="tilt='keep' trusts the positions")
        notes.append(what + "; the positions were trusted")
        return
    what = f"{series.name}: the slices are sheared by {angle:.1f} degrees (gantry tilt)"
    if tilt == "error":
        raise GeometryError(what, hint="tilt='resample' makes the volume upright, tilt='keep' keeps a sheared grid")
    notes.append(what + ("; resampled onto an upright grid" if tilt == "resample" else "; kept as a sheared grid"))


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which slices are read (``sources``) and from which of them, with which weight, each slice of the volume is made."""

    sources: tuple[Slice, ...]
    lower: tuple[int, ...]
    upper: tuple[int, ...]
    weight_of_upper: tuple[float, ...]
    instances: tuple[Instance | None, ...]


def _plan(series: Series, stack: Stack, gaps: Gaps, notes: list[str]) -> _Plan:
    if stack.is_regular:
        count = len(series.slices)
        places = tuple(range(count))
        return _Plan(series.slices, places, places, (0.0,) * count, series.instances)
    problem = f"{series.name}: {_problems(stack)}"
    if gaps == "error":
        raise GeometryError(problem, hint="gaps='warn' takes the nearest slices, gaps='interpolate' fills in between")
    if stack.grid_size > 2 * len(series.slices) + 1:
        raise GeometryError(
            problem,
            got=f"{len(series.slices)} slices for {stack.grid_size} places",
            expected="at least every second slice",
        )
    kept = [0] + [
        index
        for index in range(1, len(series.slices))
        if stack.positions_mm[index] - stack.positions_mm[index - 1] > 0.01
    ]
    sources = tuple(series.slices[index] for index in kept)
    at = np.asarray([stack.positions_mm[index] for index in kept])
    wanted = np.linspace(at[0], at[-1], stack.grid_size)
    upper = np.clip(np.searchsorted(at, wanted), 1, len(at) - 1)
    lower = upper - 1
    weight = np.clip((wanted - at[lower]) / (at[upper] - at[lower]), 0, 1)
    distance = np.minimum(np.abs(wanted - at[lower]), np.abs(wanted - at[upper]))
    nearest = np.where(weight < 0.5, lower, upper)
    snap = distance <= stack.tolerance_mm if gaps == "interpolate" else np.ones(len(wanted), bool)
    own = distance <= stack.tolerance_mm
    if gaps == "warn":
        own = distance < (at[-1] - at[0]) / (stack.grid_size - 1) / 2 - 1e-6
    lower, upper = np.where(snap, nearest, lower), np.where(snap, nearest, upper)
    weight = np.where(snap, 0.0, weight)
    instances = tuple(
        sources[int(index)].instance if is_own else None for index, is_own in zip(nearest, own, strict=True)
    )
    filled = sum(1 for item in instances if item is None)
    how = "the nearest slices were taken" if gaps == "warn" else "slices were interpolated"
    notes.append(f"{problem}; {how}, {filled} of {stack.grid_size} are at no acquired place")
    return _Plan(sources, tuple(lower.tolist()), tuple(upper.tolist()), tuple(weight.tolist()), instances)


def _problems(stack: Stack) -> str:
    """Name the gaps, duplicates and irregular places of a stack in mm along its normal."""
    parts = []
    for places, word in (
        (stack.missing_mm, "missing"),
        (stack.duplicate_mm, "duplicate"),
        (stack.irregular_mm, "irregular"),
    ):
        if places:
            shown = ", ".join(f"{place:.2f}" for place in places[:10])
            more = f" and {len(places) - 10} more" if len(places) > 10 else ""
            parts.append(f"{len(places)} {word} slice position{'s' if len(places) > 1 else ''} at {shown}{more} mm")
    return f"{'; '.join(parts)} (step {stack.spacing_mm:.3f} mm, tolerance {stack.tolerance_mm:.2f} mm)"


def _fill(array: NDArray[Any], plan: _Plan) -> NDArray[Any]:
    """Make the volume's slices from those that were read; the array itself where each is one of them."""
    if len(plan.lower) == array.shape[0] and plan.lower == tuple(range(array.shape[0])):
        return array
    filled = np.empty((len(plan.lower), *array.shape[1:]), array.dtype)
    for place, (low, high, weight) in enumerate(zip(plan.lower, plan.upper, plan.weight_of_upper, strict=True)):
        if weight == 0:
            filled[place] = array[low]
        else:
            mixed = array[low] * np.float32(1 - weight) + array[high] * np.float32(weight)
            filled[place] = np.rint(mixed) if array.dtype == np.int16 else mixed
    return filled


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
        notes.append(
            f"Pixel Padding Value (0028,0120): {share:.1f} % of the voxels lie outside the image and were set to {AIR_HU} HU"
        )
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
    """Decode one file's slices into their places; returns how many pixels are padding and whether int16 was too small."""
    try:
        dataset = parse(path, pixels=True)
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
