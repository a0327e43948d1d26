"""A series in words, for ``spicula info``."""

from __future__ import annotations

from spicula.dicom.pixels import syntax_name, why_undecodable
from spicula.dicom.series import Series


def describe(series: Series) -> list[tuple[str, str]]:
    """Say what a series is, how its slices lie, and why it would be chosen or refused.

    Args:
        series: As from ``find_series`` or ``select_series``.

    Returns:
        Rows of a name and its value; facts that the files do not hold are left out.
    """
    rows = [
        ("series", series.series_uid),
        ("description", series.description),
        ("patient", series.patient_id),
        ("study", series.study_uid),
        ("study date", series.slices[0].study_date if series.slices else ""),
        ("modality", series.modality),
        ("manufacturer", series.slices[0].manufacturer if series.slices else ""),
        ("image type", "/".join(series.image_type)),
        ("kernel", series.kernel),
        *_geometry(series),
        ("transfer syntax", ", ".join(syntax_name(uid) for uid in series.transfer_syntax_uids)),
        ("warnings", "; ".join([*series.warnings, *(f"cannot be used: {item}" for item in series.broken)])),
        ("refused", series.refusal or "; ".join(_reading_problems(series))),
        ("speaks for or against it", "; ".join(series.reasons)),
    ]
    return [(name, value) for name, value in rows if value]


def _geometry(series: Series) -> list[tuple[str, str]]:
    stack, kind = series.stack, series.kind
    if kind is None:
        return []
    y, x = kind.spacing_yx_mm
    rows = [("slices", f"{len(series.slices)} of {kind.rows} x {kind.cols} pixels, {series.plane}")]
    rows.append(("objects", "frames of enhanced CT" if series.is_multi_frame else "one a slice"))
    if series.thickness_mm:
        rows.append(("slice thickness", f"{series.thickness_mm:g} mm"))
    if stack is None:
        return [*rows, ("pixel spacing", f"{y:.4g} x {x:.4g} mm")]
    first, last = stack.positions_mm[0], stack.positions_mm[-1]
    rows.append(("spacing", f"{stack.spacing_mm:.4g} x {y:.4g} x {x:.4g} mm (between slices, rows, columns)"))
    rows.append(("positions", f"{first:.2f} to {last:.2f} mm along the normal"))
    rows.append(("gaps", stack.problems or "none"))
    stated = series.gantry_tilt_degrees
    tilt = f"{stack.shear_degrees:.1f} degrees" if stack.is_sheared else "none"
    rows.append(("gantry tilt", tilt + (f" (the header says {stated:.1f} degrees)" if abs(stated) > 0.05 else "")))
    return rows


def _reading_problems(series: Series) -> list[str]:
    """What would stop the default reading of a series that is not refused outright."""
    found = [reason for uid in series.transfer_syntax_uids if (reason := why_undecodable(uid))]
    if series.broken:
        found.append("files that may belong to it cannot be used (--gaps warn does without them)")
    if series.stack and not series.stack.is_regular:
        found.append(f"{series.stack.problems} (--gaps warn or --gaps interpolate reads it)")
    if series.stack and series.stack.is_sheared:
        found.append("gantry tilt (--tilt resample or --tilt keep reads it)")
    return found
