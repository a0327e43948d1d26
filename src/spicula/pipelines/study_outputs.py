"""Files of a study as its readers left it: report, table, SR and SEG of the findings that stand."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from spicula import __version__
from spicula.core.analysis import Analysis
from spicula.core.errors import SpiculaError, SpiculaWarning
from spicula.core.files import folder_written_aside
from spicula.core.prediction import TRAITS
from spicula.core.volume import Volume
from spicula.dicom.reviewed import Review, write_reviewed_seg, write_reviewed_sr
from spicula.dicom.source import derived_uid, tracking_uid
from spicula.pipelines.current_outputs import OUTPUTS, PAGE, REPORT, SEG, SR, TABLE
from spicula.pipelines.stored_analysis import (
    Left,
    finding_of,
    left_by_readers,
    restored,
    stored_volume,
    with_stored_files,
)
from spicula.pipelines.workplace import Workplace
from spicula.report.html import write_html
from spicula.report.record import to_record
from spicula.report.text import plain_text
from spicula.store.findings import PROGRAM, Change, StoredFinding

COLUMNS = (
    "number", "state", "reader", "changed_at", "center_x_mm", "center_y_mm", "center_z_mm", "diameter_mm",
    "measured_by", "long_axis_mm", "short_axis_mm", "volume_mm3", "mean_hu", "malignancy", "malignancy_low",
    "malignancy_high", *TRAITS, "lung_rads", "note",
)  # fmt: skip
"""Columns of ``findings.csv``."""

_OF_OUTLINE = ("volume_mm3", "mean_hu", "solid_diameter_mm", "solid_volume_mm3")
"""What an outline still tells where a person measured the diameter."""

_FORMULA = tuple("=+-@\t\r＝＋－＠")
"""What a spreadsheet takes for the beginning of a formula."""


def write_study_outputs(
    place: Workplace, study_uid: str, folder: Path, *, volume: Volume | None = None
) -> Mapping[str, Path]:
    """Write ``report.html``, ``report.json``, ``findings.csv``, ``sr.dcm`` and ``seg.dcm`` of a study, all or none.

    They hold the findings that were accepted and the proposals of the latest analysis, as corrected. SR and SEG have
    UIDs of their own for each set of versions of the study's findings, and the same bytes when nothing changed.

    Args:
        place: The store.
        study_uid: The study.
        folder: Where the files go; older ones of the same names are replaced or removed.
        volume: The series of the latest analysis, if it is at hand; it is read from the store otherwise.

    Returns:
        The files by name. ``seg.dcm`` is absent where no finding is outlined, and it and ``sr.dcm`` where the source's
        headers do not allow them; the report says so.

    Raises:
        InputError: There is no such study, it has neither an analysis nor findings, or its series cannot be read.
    """
    left = left_by_readers(place, study_uid)
    if volume is None:
        volume = stored_volume(place, study_uid, left.series_uid)
    elif volume.series_uid == left.series_uid:
        volume = with_stored_files(place, volume)
    histories = {number: place.findings.history(one.id) for number, one in left.findings.items()}
    analysis = restored(left, volume)
    said = _said(left, histories)
    analysis = replace(analysis, warnings=(*analysis.warnings, *said))
    created = _last_change(left)
    reviews = {str(n): _review(one, histories[n], analysis, left) for n, one in left.findings.items()}
    outputs = {"html": PAGE, "csv": TABLE}
    with folder_written_aside(folder, replaces=sorted(OUTPUTS, key=REPORT.__eq__)) as aside:  # it comes last
        notes = _write_dicom(aside, analysis, reviews, left, created, outputs)
        analysis = replace(analysis, warnings=(*analysis.warnings, *notes))
        write_html(aside / PAGE, analysis, created=created)
        record = to_record(analysis, outputs=outputs, created=created)
        for told, one in zip(record["findings"], left.findings.values(), strict=True):
            _complete(told, one.content)
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (aside / REPORT).write_text(text, encoding="utf-8")
        _write_table(aside / TABLE, record, left)
        names = [path.name for path in aside.iterdir()]
    return {name: folder / name for name in OUTPUTS if name in names}


def _write_dicom(
    folder: Path, analysis: Analysis, reviews: Mapping[str, Review], left: Left, created: datetime,
    outputs: dict[str, str],
) -> list[str]:  # fmt: skip
    """Write SR and SEG, add them to ``outputs``; what was odd or left out, in words."""
    made_of = [
        __version__, left.study_uid, left.series_uid, left.analyses[0]["id"] if left.analyses else "",
        *(f"{one.id}.{one.version}" for one in left.all),
    ]  # fmt: skip
    local = created.astimezone().replace(tzinfo=None)
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SpiculaWarning)
        for kind, name, write in (("sr", SR, write_reviewed_sr), ("seg", SEG, write_reviewed_seg)):
            try:
                if write(folder / name, analysis, reviews, made_of=made_of, created=local) is not False:
                    outputs[kind] = name
            except SpiculaError as error:
                notes.append(f"{name} was not written: {error}")
    return [*(str(one.message) for one in caught if issubclass(one.category, SpiculaWarning)), *notes]


def _last_change(left: Left) -> datetime:
    """When a finding was last changed, or the study was last analyzed."""
    times = [*(one.changed_at for one in left.all), *(one["created_at"] for one in left.analyses)]
    return datetime.fromisoformat(max(times))


def _said(left: Left, histories: Mapping[int, tuple[Change, ...]]) -> list[str]:
    """A sentence for each finding that people or other programs had to do with, and for what is left out."""
    said = []
    for number, one in left.findings.items():
        first, by = histories[number][0], plain_text(one.changed_by)
        if one.state == "accepted":
            what = "added" if first.what == "added" and one.version == 1 else "accepted"
            said.append(f"Finding {number}: {what} by {by} on {one.changed_at[:10]}.{_remarks(one.content)}")
        elif first.by != PROGRAM or _remarks(one.content):
            said.append(f"Finding {number}: proposed by {plain_text(first.by)}.{_remarks(one.content)}")
    for count, why in ((left.rejected, "rejected by readers"), (left.elsewhere, "marked in another series")):
        if count:
            said.append(f"{count} finding{'s were' if count > 1 else ' was'} {why} and left out.")
    return said


def _remarks(content: Mapping[str, Any]) -> str:
    measured_by, note = plain_text(str(content.get("measured_by") or "")), plain_text(str(content.get("note") or ""))
    return (f" Diameter as measured by {measured_by}." if measured_by else "") + (f" Note: {note}" if note else "")


def _review(one: StoredFinding, history: tuple[Change, ...], analysis: Analysis, left: Left) -> Review:
    """What readers said; the tracking UID is that of the first report on the finding, or its own."""
    first = history[0]
    uid = derived_uid("finding", one.id)
    found_by = next((each for each in left.analyses if each["id"] == one.analysis_id), None)
    if found_by is not None:
        name, center = str(first.content.get("id", "")), {"center_xyz_mm": first.content.get("center_xyz_mm")}
        began = finding_of(center, analysis.volume.geometry, id=name)
        uid = tracking_uid(replace(analysis, fingerprints=tuple(found_by["record"].get("bundles", ()))), began)
    content = one.content
    return Review(
        uid,
        one.state,
        plain_text(one.changed_by) if one.state == "accepted" else "",
        plain_text(str(content.get("measured_by") or "")),
        first.what == "added",
        plain_text(str(content.get("note") or "")),
    )


def _complete(told: dict[str, Any], content: Mapping[str, Any]) -> None:
    """Put into a finding of the record what the store holds and the types of an analysis do not."""
    if content.get("measured_by"):
        told |= {name: content.get(name) for name in _OF_OUTLINE}
    if content.get("self_supervised"):
        told["self_supervised"] = content["self_supervised"]


def _write_table(path: Path, record: Mapping[str, Any], left: Left) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=COLUMNS)
        writer.writeheader()
        for (number, one), told in zip(left.findings.items(), record["findings"], strict=True):
            row = {"number": number, "state": one.state, "changed_at": one.changed_at, **_facts(told)}
            row |= {name: safe_cell(str(one.content.get(name) or "")) for name in ("measured_by", "note")}
            row |= {"reader": safe_cell(one.changed_by)}
            writer.writerow({name: "" if row.get(name) is None else row[name] for name in COLUMNS})


def _facts(told: Mapping[str, Any]) -> dict[str, Any]:
    """Cells of the table that a finding of the record fills."""
    facts = {f"center_{axis}_mm": value for axis, value in zip("xyz", told["center_xyz_mm"], strict=True)}
    facts |= {name: told[name] for name in ("diameter_mm", "long_axis_mm", "short_axis_mm", "volume_mm3", "mean_hu")}
    if told["malignancy"] is not None:
        facts["malignancy"] = told["malignancy"]["probability"]
        facts["malignancy_low"], facts["malignancy_high"] = told["malignancy"]["interval"] or (None, None)
    facts |= {name: share["probability"] for name, share in told["attributes"].items() if share is not None}
    facts["lung_rads"] = safe_cell(told["lung_rads"]["category"]) if told["lung_rads"] is not None else None
    return facts


def safe_cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula: one line, with an apostrophe before what begins like one.

    Example:
        >>> safe_cell("=1+1"), safe_cell("6 mm, stable")
        ("'=1+1", '6 mm, stable')
    """
    line = plain_text(text)
    return f"'{line}" if line.startswith(_FORMULA) else line
