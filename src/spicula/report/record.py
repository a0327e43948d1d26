"""The report for programs: ``report.json`` with a published schema, and a row of the batch's summary."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from spicula import __version__
from spicula.core.analysis import Analysis, Assessment
from spicula.core.files import written_aside
from spicula.core.finding import Finding, Size
from spicula.core.prediction import TRAITS, Prediction
from spicula.core.volume import Instance, Volume
from spicula.report.attention import reading_record
from spicula.report.neighbors import neighbors_record
from spicula.report.text import DISCLAIMER, number, plain_text
from spicula.report.words import words_record

SCHEMA = "spicula-report/1"
"""Version of the record; a key that changes its meaning or goes away raises it."""

SUMMARY_COLUMNS = (
    "scan_id", "path", "status", "reason", "series_uid", "findings", "top_center_x_mm", "top_center_y_mm",
    "top_center_z_mm", "top_diameter_mm", "top_volume_mm3", "top_score", "top_malignancy", "top_malignancy_low",
    "top_malignancy_high", "top_lung_rads", "warnings",
)  # fmt: skip
"""Columns of ``summary.csv``; ``top_`` is the first finding."""


def to_record(
    analysis: Analysis,
    *,
    outputs: Mapping[str, str] | None = None,
    created: datetime | None = None,
    job: str = "",
) -> dict[str, Any]:
    """Turn an analysis into the record that ``report.json`` holds (see :func:`report_schema`).

    Args:
        analysis: The result.
        outputs: Names of the files beside it, by kind (``"html"``, ``"sr"``, ``"seg"``).
        created: Time of the record; now if None.
        job: Identity of input and options, kept for a batch that is run again.

    Returns:
        Plain JSON values: no NaN, no patient name; what is not known is None.
    """
    return {
        "schema": SCHEMA,
        "program": "spicula",
        "version": __version__,
        "created": (created or datetime.now(UTC)).isoformat(timespec="seconds"),
        "disclaimer": DISCLAIMER,
        "input": _input(analysis.volume),
        "bundles": [plain_text(fingerprint) for fingerprint in analysis.fingerprints],
        "findings": [_finding(finding, analysis=analysis) for finding in analysis.findings],
        "warnings": [plain_text(warning) for warning in analysis.warnings],
        "outputs": {plain_text(kind): plain_text(name) for kind, name in (outputs or {}).items()},
        "job": job,
    }


def write_record(
    path: Path,
    analysis: Analysis,
    *,
    outputs: Mapping[str, str] | None = None,
    created: datetime | None = None,
    job: str = "",
) -> None:
    """Write ``report.json``, whole or not at all (see :func:`to_record`)."""
    record = to_record(analysis, outputs=outputs, created=created, job=job)
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def report_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``report.json``."""
    path = Path(__file__).with_name("report.schema.json")
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def summary_row(report: Path, scan_id: str, path: str, status: str, reason: str = "") -> dict[str, Any]:
    """One row of the batch's ``summary.csv``.

    Args:
        report: The scan's ``report.json``; the row stays without findings where it cannot be read.
        scan_id: Name of the scan in the batch.
        path: The input.
        status: ``"done"``, ``"kept"`` or ``"failed"``.
        reason: Why it failed.

    Returns:
        A value for each of :data:`SUMMARY_COLUMNS`; empty where nothing is known.
    """
    row: dict[str, Any] = dict.fromkeys(SUMMARY_COLUMNS, "")
    row |= {"scan_id": scan_id, "path": path, "status": status, "reason": " ".join(reason.split())}
    if status == "failed":
        return row
    try:
        record = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return row
    row |= {"series_uid": record["input"]["series_uid"], "findings": len(record["findings"])}
    row["warnings"] = " | ".join(record["warnings"])
    if record["findings"]:
        row |= _top_facts(record["findings"][0])
    return {key: "" if value is None else value for key, value in row.items()}


def _top_facts(top: Mapping[str, Any]) -> dict[str, Any]:
    facts = dict(zip((f"top_center_{axis}_mm" for axis in "xyz"), top["center_xyz_mm"], strict=True))
    facts |= {f"top_{name}": top[name] for name in ("diameter_mm", "volume_mm3", "score")}
    if top["malignancy"] is not None:
        low, high = top["malignancy"]["interval"] or (None, None)
        facts |= {"top_malignancy": top["malignancy"]["probability"]}
        facts |= {"top_malignancy_low": low, "top_malignancy_high": high}
    if top["lung_rads"] is not None:
        facts["top_lung_rads"] = top["lung_rads"]["category"]
    return facts


def nearest_slice(volume: Volume, center_xyz_mm: Sequence[float]) -> tuple[int, Instance | None]:
    """Index of the slice nearest to a point, and the instance nearest to it.

    Args:
        volume: The scan.
        center_xyz_mm: LPS mm.

    Returns:
        Index along the array's first axis, kept inside the volume; the nearest slice's instance that is not
        interpolated, None for formats other than DICOM.
    """
    along = float(volume.geometry.world_to_index(center_xyz_mm)[0])
    index = min(max(round(along), 0), volume.geometry.shape_zyx[0] - 1)
    present = [(abs(i - along), i) for i, instance in enumerate(volume.acquisition.instances) if instance is not None]
    return index, volume.acquisition.instances[min(present)[1]] if present else None


def _numbers(values: Sequence[float] | Any, digits: int = 4) -> list[float | None]:
    return [number(value, digits) for value in np.asarray(values, dtype=np.float64).ravel().tolist()]


def _input(volume: Volume) -> dict[str, Any]:
    acquisition, geometry = volume.acquisition, volume.geometry
    names = (
        "source", "format", "modality", "patient_id", "study_uid", "study_date", "series_description", "manufacturer",
        "kernel", "transfer_syntax_uid",
    )  # fmt: skip
    return {
        "series_uid": plain_text(volume.series_uid),
        **{name: plain_text(str(getattr(acquisition, name))) for name in names},
        "slice_thickness_mm": number(acquisition.slice_thickness_mm),
        "instances": sum(instance is not None for instance in acquisition.instances),
        "interpolated_slices": [i for i, instance in enumerate(acquisition.instances) if instance is None],
        "geometry": {
            "shape_zyx": list(geometry.shape_zyx),
            "spacing_zyx_mm": _numbers(geometry.spacing_zyx_mm, 6),
            "origin_xyz_mm": _numbers(geometry.origin_xyz_mm, 6),
            "affine_lps": [_numbers(row, 9) for row in geometry.affine_lps],
            "frame_of_reference_uid": plain_text(geometry.frame_of_reference_uid),
        },
    }


def _finding(finding: Finding, *, analysis: Analysis) -> dict[str, Any]:
    volume = analysis.volume
    slice_index, instance = nearest_slice(volume, finding.center_xyz_mm)
    index = np.rint(volume.geometry.world_to_index(finding.center_xyz_mm)).astype(int)
    predictions = analysis.predictions_of(finding.id)
    assessments = analysis.assessments.get(finding.id, ())
    words, reading = analysis.words_of(finding.id), analysis.slice_reading_of(finding.id)
    neighbors = analysis.neighbors_of(finding.id)
    return {
        "id": plain_text(finding.id),
        "center_xyz_mm": _numbers(finding.center_xyz_mm),
        "voxel_index_zyx": [int(i) for i in index],
        "slice_index": slice_index,
        "sop_instance_uid": instance.sop_instance_uid if instance else None,
        "frame": instance.frame if instance else None,
        "score": number(finding.score),
        "diameter_mm": number(finding.diameter_mm),
        **_size(finding.size),
        "outlined": bool(finding.mask is not None and finding.mask.array_zyx.any()),
        "measured": {plain_text(name): number(value) for name, value in finding.attributes.items()},
        "malignancy": _prediction(predictions.get("malignancy")),
        "attributes": {name: _prediction(predictions[name]) for name in TRAITS if name in predictions},
        "lung_rads": _assessment(assessments, "Lung-RADS"),
        "fleischner": _assessment(assessments, "Fleischner"),
        **({"words": words_record(words)} if words else {}),
        **({"self_supervised": reading_record(reading)} if reading else {}),
        **({"neighbors": neighbors_record(neighbors)} if neighbors else {}),
    }


def _size(size: Size | None) -> dict[str, Any]:
    names = ("long_axis_mm", "short_axis_mm", "volume_mm3", "mean_hu", "solid_diameter_mm", "solid_volume_mm3")
    facts: dict[str, Any] = {name: number(getattr(size, name)) if size else None for name in names}
    for name in ("long_axis_ends_xyz_mm", "short_axis_ends_xyz_mm"):
        facts[name] = [_numbers(end) for end in getattr(size, name)] if size else None
    return facts


def _prediction(prediction: Prediction | None) -> dict[str, Any] | None:
    if prediction is None or not math.isfinite(prediction.probability):
        return None
    interval = _numbers(prediction.interval) if prediction.interval is not None else None
    return {
        "probability": number(prediction.probability),
        "interval": None if interval is None or None in interval else interval,
        "fingerprint": plain_text(prediction.fingerprint),
    }


def _assessment(assessments: Sequence[Assessment], system: str) -> dict[str, Any] | None:
    for assessment in assessments:
        if assessment.system.startswith(system):
            return {
                "system": plain_text(assessment.system),
                "category": plain_text(assessment.category),
                "management": plain_text(assessment.management),
                "given": [plain_text(fact) for fact in assessment.given],
                "lacking": [plain_text(fact) for fact in assessment.lacking],
            }
    return None
