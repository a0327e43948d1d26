"""One study with all that is shown beside its images, and what can be had of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spicula.core.errors import InputError
from spicula.pipelines.current_outputs import OUTPUTS, current_outputs, outputs_there
from spicula.pipelines.worklist import summaries, worklist
from spicula.pipelines.workplace import Workplace


def study_sheet(place: Workplace, study_uid: str) -> dict[str, Any]:
    """A study with its series, the grid of the analyzed one, warnings and the patient's other studies.

    Raises:
        InputError: There is no such study.
    """
    study = place.studies.get(study_uid)
    series = place.studies.series(study_uid)
    analyses = place.findings.analyses(study_uid)
    record: Mapping[str, Any] = analyses[0]["record"] if analyses else {}
    analyzed = str(analyses[0]["series_uid"]) if analyses else _largest_ct(series)
    others, _ = worklist(place, patient_id=study["patient_id"], limit=100) if study["patient_id"] else ([], 0)
    geometry = record.get("input", {}).get("geometry")
    return {
        **summaries(place, [study])[0],
        "all_series": [{name: value for name, value in one.items() if name != "study_uid"} for one in series],
        "analyzed_series_uid": analyzed,
        "geometry": None if geometry is None else {
            name: geometry[name] for name in ("shape_zyx", "spacing_zyx_mm", "affine_lps", "frame_of_reference_uid")
        },
        "warnings": list(record.get("warnings", ())),
        "priors": sorted(
            (one for one in others if one["study_uid"] != study_uid), key=lambda one: one["study_date"], reverse=True
        ),
        "exports": list(OUTPUTS) if analyses or place.findings.of_study(study_uid) else [],
    }  # fmt: skip


def _largest_ct(series: Any) -> str | None:
    """The CT series with the most images; None without CT."""
    images = [(one["instances"], one["series_uid"]) for one in series if one["modality"] == "CT"]
    return str(max(images)[1]) if images else None


def export(place: Workplace, study_uid: str, name: str) -> Path:
    """A file of a study as its readers left it; written anew only where a finding changed since.

    Args:
        place: The store.
        study_uid: The study.
        name: One of :data:`spicula.pipelines.current_outputs.OUTPUTS`.

    Raises:
        InputError: There is no such study or file, or the study was not analyzed.
        Busy: Others have been writing its files for too long.
    """
    return _file(current_outputs(place, _checked(place, study_uid, name)), study_uid, name)


def export_there(place: Workplace, study_uid: str, name: str) -> Path | None:
    """The same where nothing is to be written and nobody to be waited for; None else."""
    folder = outputs_there(place, _checked(place, study_uid, name))
    return None if folder is None else _file(folder, study_uid, name)


def _checked(place: Workplace, study_uid: str, name: str) -> str:
    place.studies.get(study_uid)
    if name not in OUTPUTS:
        raise InputError("export", got=repr(name[:40]), expected=f"one of {', '.join(OUTPUTS)}")
    return study_uid


def _file(folder: Path, study_uid: str, name: str) -> Path:
    file = folder / name
    if not file.is_file():
        raise InputError(f"{name} of study {study_uid}", got="none of this name", hint="see the report's warnings")
    return file
