"""Find the CT series in a folder, file or zip, and choose one with reasons."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spicula.core.errors import InputError
from spicula.core.volume import Instance
from spicula.dicom.archive import files_in, is_dicom, parse, unreadable
from spicula.dicom.header import HEADER_TAGS, NotASlice, Slice, SliceKind, slices_of
from spicula.dicom.stack import Stack, measure_stack, normal_of

_DICOMDIR = "1.2.840.10008.1.3.10"
"""Lists files and holds no image."""


@dataclass(frozen=True, slots=True)
class Series:
    """Slices that belong together, sorted along their normal, or what was found instead.

    ``refusal`` says why it cannot be read (empty if it can), ``reasons`` what speaks for and against choosing it,
    ``warnings`` what was odd in its files, and ``broken`` which files could not be read and may belong to it. ``kind``
    and ``stack`` are None where there is no image.
    """

    series_uid: str
    study_uid: str = ""
    patient_id: str = ""
    modality: str = ""
    description: str = ""
    kind: SliceKind | None = None
    stack: Stack | None = None
    slices: tuple[Slice, ...] = ()
    refusal: str = ""
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    path: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """The series as messages call it: its UID and description."""
        words = f"series {self.series_uid or '(no UID)'}"
        return words + (f" ({self.description})" if self.description else "")

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The object (and frame) behind each slice, ascending along the normal."""
        return tuple(item.instance for item in self.slices)

    @property
    def positions_mm(self) -> tuple[float, ...]:
        """Distance of each slice along the normal."""
        return self.stack.positions_mm if self.stack else ()

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float] | None:
        """Distances of voxel centers, where there is a stack."""
        return (self.stack.spacing_mm, *self.kind.spacing_yx_mm) if self.stack and self.kind else None

    @property
    def extent_mm(self) -> float:
        """Distance from the first to the last slice along the normal."""
        return self.positions_mm[-1] - self.positions_mm[0] if self.positions_mm else 0.0

    @property
    def frame_of_reference_uid(self) -> str:
        """Frame of Reference UID of the first slice."""
        return self.slices[0].frame_of_reference_uid if self.slices else ""

    @property
    def kernel(self) -> str:
        """Convolution kernel, empty where it is not said."""
        return self.kind.kernel if self.kind else ""

    @property
    def thickness_mm(self) -> float | None:
        """Nominal slice thickness of the first slice (not the spacing)."""
        return self.slices[0].thickness_mm if self.slices else None

    @property
    def image_type(self) -> tuple[str, ...]:
        """DICOM Image Type of the first slice."""
        return self.slices[0].image_type if self.slices else ()

    @property
    def is_multi_frame(self) -> bool:
        """True where the slices are frames of enhanced objects."""
        return bool(self.slices) and self.slices[0].instance.frame is not None

    @property
    def gantry_tilt_degrees(self) -> float:
        """Largest Gantry/Detector Tilt that the headers state; the geometry's own is ``stack.shear_degrees``."""
        return max((item.gantry_tilt_degrees for item in self.slices), key=abs, default=0.0)

    @property
    def transfer_syntax_uids(self) -> tuple[str, ...]:
        """The transfer syntaxes of its files."""
        return tuple(sorted({item.transfer_syntax_uid for item in self.slices}))

    @property
    def plane(self) -> str:
        """``axial``, ``coronal``, ``sagittal`` (normal within 30 degrees of the axis) or ``oblique``."""
        if self.kind is None:
            return ""
        normal = abs(normal_of(self.kind.orientation))
        return ("sagittal", "coronal", "axial")[int(normal.argmax())] if normal.max() > 0.866 else "oblique"


def find_series(root: Path) -> list[Series]:
    """Find every series under a path and say of each whether it can be read.

    Slices are grouped by series, patient, size, orientation, pixel spacing, kernel, image type and frame of reference,
    and by acquisition where acquisitions of one series overlap. File names and instance numbers play no part.

    Args:
        root: A folder of any depth, a zip, or one DICOM file.

    Returns:
        The series, usable ones first; objects that are no image and files that are broken are series with a refusal.

    Raises:
        InputError: Nothing is there, no file in it is DICOM, or the folder or zip is refused as a whole.
    """
    slices: list[Slice] = []
    others: list[NotASlice] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count = 0
        for member in files_in(root):
            count += 1
            found = _look_into(member.path)
            if isinstance(found, NotASlice):
                others.append(found)
            else:
                slices.extend(found)
    if not slices and not others:
        raise InputError(
            str(root), got=f"{count} file{'s' if count > 1 else ''}, none of them DICOM", expected="a CT series"
        )
    series = [_with_broken(item, others) for item in _group(slices)]
    series += _refused(others)
    return sorted(series, key=lambda item: (bool(item.refusal), item.series_uid, -len(item.slices)))


def _look_into(path: str) -> list[Slice] | NotASlice:
    if not is_dicom(path):
        return []
    try:
        found = slices_of(parse(path, pixels=False, tags=HEADER_TAGS), path)
    except InputError as error:
        return NotASlice(path, str(error), broken=True)
    except Exception as error:  # pydicom raises whatever a broken file makes it stumble over
        return NotASlice(path, str(unreadable(path, error)), broken=True)
    if isinstance(found, NotASlice) and found.sop_class_uid == _DICOMDIR:
        return []
    return found


def _with_broken(series: Series, others: Iterable[NotASlice]) -> Series:
    """Keep with a series the broken files that may belong to it: of its UID, or of none and beside its files."""
    folders = {os.path.dirname(instance.path) for instance in series.instances}
    broken = tuple(
        _with_path(item)
        for item in others
        if item.broken
        and (item.series_uid == series.series_uid or (not item.series_uid and os.path.dirname(item.path) in folders))
    )
    return replace(series, broken=broken)


def _refused(others: Iterable[NotASlice]) -> list[Series]:
    """One refused series for each series and reason among the objects that are no slices."""
    groups: dict[tuple[str, str], list[NotASlice]] = defaultdict(list)
    for other in others:
        groups[other.series_uid, other.refusal.replace(other.path, "")].append(other)
    found = []
    for items in groups.values():
        first = items[0]
        refusal = _with_path(first)
        if len(items) > 1:
            refusal += f" (and so {len(items) - 1} more file{'s' if len(items) > 2 else ''})"
        facts = (first.series_uid, first.study_uid, first.patient_id, first.modality, first.description)
        found.append(Series(*facts, refusal=refusal, path=first.path))
    return found


def _with_path(item: NotASlice) -> str:
    return item.refusal if item.path in item.refusal else f"{item.path}: {item.refusal}"


def _group(slices: Sequence[Slice]) -> list[Series]:
    groups: list[tuple[SliceKind, list[Slice]]] = []
    by_uid: dict[str, list[tuple[SliceKind, list[Slice]]]] = defaultdict(list)
    seen: dict[tuple[str, int | None], Slice] = {}
    copies: dict[str, int] = defaultdict(int)
    for item in slices:
        key = (item.instance.sop_instance_uid, item.instance.frame)
        twin = seen.get(key) if key[0] else None
        if twin is not None and replace(twin, instance=item.instance) == item:
            copies[item.kind.series_uid] += 1
            continue
        seen.setdefault(key, item)
        of_series = by_uid[item.kind.series_uid]
        for kind, members in of_series:
            if kind.fits(item.kind):
                members.append(item)
                break
        else:
            of_series.append((item.kind, [item]))
            groups.append(of_series[-1])
    found = []
    for kind, members in groups:
        notes = []
        if copies[kind.series_uid]:
            notes.append(f"{copies[kind.series_uid]} file(s) that are copies of others were left out")
        notes += _differences([other for other, _ in by_uid[kind.series_uid]])
        found += [_series(kind, part, tuple(notes)) for part in _parts(kind, members)]
    return found


def _differences(kinds: Sequence[SliceKind]) -> list[str]:
    """Say what splits one series into several groups."""
    if len(kinds) < 2:
        return []
    columns = {name: list(dict.fromkeys(kind.facts[name] for kind in kinds)) for name in kinds[0].facts}
    words = [f"{name} {', '.join(values[:4])}" for name, values in columns.items() if len(values) > 1]
    return [f"the series holds {len(kinds)} groups of slices that do not stack: {'; '.join(words)}"]


def _parts(kind: SliceKind, members: list[Slice]) -> list[list[Slice]]:
    """Split by frame of reference and acquisition, but only where the slices make no regular stack together.

    Step-and-shoot scanners number an acquisition for each slice, and some anonymizers draw a frame of reference for
    each file: those slices stay together.
    """
    parts = [members]
    for name in ("frame_of_reference_uid", "acquisition_number"):
        parts = [piece for part in parts for piece in _split(kind, part, name)]
    return parts


def _split(kind: SliceKind, members: list[Slice], name: str) -> list[list[Slice]]:
    pieces: dict[str, list[Slice]] = defaultdict(list)
    for item in members:
        pieces[getattr(item, name)].append(item)
    if len(pieces) == 1 or max(len(piece) for piece in pieces.values()) < 2:
        return [members]
    whole = measure_stack([item.position_xyz_mm for item in members], kind.orientation)
    return [members] if whole is not None and whole.is_regular else list(pieces.values())


def _series(kind: SliceKind, members: list[Slice], notes: tuple[str, ...]) -> Series:
    stack = measure_stack([item.position_xyz_mm for item in members], kind.orientation) if len(members) > 1 else None
    ordered = tuple(members[index] for index in stack.order) if stack else tuple(members)
    first = ordered[0]
    frames = {item.frame_of_reference_uid for item in ordered}
    if len(frames) > 1:
        notes += (
            f"Frame of Reference UID (0020,0052) differs between slices ({len(frames)} values); the first is kept",
        )
    series = Series(
        kind.series_uid,
        kind.study_uid,
        kind.patient_id,
        kind.modality,
        first.description,
        kind,
        stack,
        ordered,
        refusal="",
        warnings=notes,
        path=first.instance.path,
    )
    series = replace(series, refusal=_why_not(series))
    return replace(series, reasons=_merits(series))


def _why_not(series: Series) -> str:
    """Why a group of CT slices makes no volume; empty where it does."""
    kind, where = series.kind, series.path
    if kind is None:
        return "no image"
    if kind.flavor == "localizer":
        return f"{where}: a localizer (scout view), not a volume"
    if kind.flavor == "projection":
        return f"{where}: image type {'/'.join(series.image_type)} is a projection or rendering, not HU of a slice"
    if len(series.slices) == 1:
        return f"{where}: a single slice, and a volume needs at least two"
    if series.stack is None:
        return f"{where}: all {len(series.slices)} slices lie at the same position"
    return ""


def select_series(series: Sequence[Series]) -> Series:
    """Choose the series that suits a search for lung nodules best.

    In this order: original over derived pixels, a regular upright stack over one with gaps or tilt, axial over other
    planes, enough of the chest covered, thin slices, a soft or standard kernel over a sharp one, more slices.

    Args:
        series: As from ``find_series``.

    Returns:
        The best one; its ``reasons`` say what spoke for it.

    Raises:
        InputError: None can be used (the first refusals are in the message), or the best mixes patients.
    """
    usable = [item for item in series if not item.refusal]
    if not usable:
        refusals = list(dict.fromkeys(item.refusal for item in series)) or ["there is none"]
        shown = "; ".join(refusals[:3]) + (f"; and {len(refusals) - 3} more" if len(refusals) > 3 else "")
        raise InputError(f"no usable CT series: {shown}", hint="give the folder of one chest CT series")
    best = max(usable, key=_rank)
    patients = {item.patient_id for item in usable if item.series_uid == best.series_uid}
    if len(patients) > 1:
        raise InputError(
            f"{best.name} holds slices of {len(patients)} patients",
            got=", ".join(sorted(map(repr, patients))),
            expected="one patient",
            hint="part the files by patient",
        )
    if len(usable) == 1:
        return replace(best, reasons=("the only usable series", *best.reasons))
    return replace(best, reasons=(f"the best of {len(usable)} usable series", *best.reasons))


_SHARP = ("LUNG", "BONE", "EDGE", "SHARP", "DETAIL", "ULTRA", "CHST", "YA", "YB", "YC", "YD", "FC5", "FC8", "E")
_SOFT = ("SOFT", "STANDARD", "STND", "SMOOTH", "BODY")


def kernel_sharpness(kernel: str) -> int:
    """Rank a convolution kernel: 0 soft or standard, 1 unknown, 2 sharp.

    GE, Philips and Canon name kernels; Siemens numbers them (``B31f``, ``Br40``, ``I70f``): up to 49 is soft.
    """
    word = kernel.strip().upper().split("/")[0].split(" ")[-1]
    digits = "".join(letter for letter in word if letter.isdigit())
    if word[:1] in "BIHTUQ" and len(digits) == 2 and not word.startswith("BONE"):
        return 0 if int(digits) < 50 else 2
    if any(word.startswith(name) for name in _SOFT):
        return 0
    if word in ("A", "B", "C") or word.startswith(("FC0", "FC1")):
        return 0
    if word in ("D", "L") or any(word.startswith(name) for name in _SHARP):
        return 2
    return 1


def _rank(series: Series) -> tuple[float, ...]:
    stack, spacing = series.stack, series.spacing_zyx_mm
    if stack is None or spacing is None or series.kind is None:
        return (-1.0,)
    thickness = max(spacing[0], series.thickness_mm or 0.0)
    return (
        series.kind.flavor == "original",
        stack.is_regular and not stack.is_sheared and not series.broken,
        series.plane == "axial",
        sum(series.extent_mm >= limit for limit in (60, 120, 200)),
        -sum(thickness > limit for limit in (1.6, 2.6, 3.6, 5.1, 7.6)),
        -kernel_sharpness(series.kernel),
        -round(thickness, 2),
        len(series.slices),
    )


def _merits(series: Series) -> tuple[str, ...]:
    """What is good and bad about a usable series, each in a few words."""
    stack, kind = series.stack, series.kind
    if series.refusal or stack is None or kind is None:
        return ()
    words = [
        f"{kind.flavor} image",
        f"{series.plane} plane",
        f"{len(series.slices)} slices over {series.extent_mm:.0f} mm",
    ]
    words.append(
        f"{stack.spacing_mm:.2f} mm apart" + (f", {series.thickness_mm:g} mm thick" if series.thickness_mm else "")
    )
    sharpness = ("soft or standard", "unknown", "sharp")[kernel_sharpness(series.kernel)]
    words.append(f"{sharpness} kernel" + (f" {series.kernel}" if series.kernel else ""))
    for found, what in (
        (stack.missing_mm, "missing"),
        (stack.duplicate_mm, "duplicate"),
        (stack.irregular_mm, "irregular"),
    ):
        if found:
            words.append(f"{len(found)} {what} slice position{'s' if len(found) > 1 else ''}")
    if stack.is_sheared:
        words.append(f"gantry tilt of {stack.shear_degrees:.1f} degrees")
    return tuple(words)
