"""An analysis as readers left it: put together again from the volume and what the store holds of its findings."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spicula.core.analysis import Analysis, Assessment
from spicula.core.embedding import Match
from spicula.core.errors import GeometryError, InputError
from spicula.core.files import ASIDE
from spicula.core.finding import Finding, Point, Size
from spicula.core.geometry import Geometry
from spicula.core.neighbors import Neighborhood, Share, SharedTrait
from spicula.core.prediction import TRAITS, Prediction
from spicula.core.volume import Volume
from spicula.core.words import Answer, Words
from spicula.formats.scans import find_scans
from spicula.pipelines.analyze import beyond_training
from spicula.pipelines.overtaken import overtaken
from spicula.pipelines.worker import gathered
from spicula.pipelines.workplace import Workplace
from spicula.store.findings import StoredFinding
from spicula.transforms.runs import mask_of

SAME_PLACE_MM = 0.1
"""How far the corners of two grids may lie apart to be the same: records are rounded."""

_ABOUT_FINDINGS = re.compile(r"Findings? \S+(, \S+)* (is|are) ")
"""Warnings that name findings by the numbers they had."""


@dataclass(frozen=True, slots=True, eq=False)
class Left:
    """A study as its readers left it.

    Args:
        study_uid: The study.
        series_uid: The series that was read.
        analyses: As the store holds them, the latest first; none where people alone found something.
        findings: Those that stand, by their number in the study from 1.
        rejected: How many were rejected.
        elsewhere: How many are in other series.
        all: Every finding of the study, whatever became of it.
    """

    study_uid: str
    series_uid: str
    analyses: tuple[Mapping[str, Any], ...]
    findings: Mapping[int, StoredFinding]
    rejected: int
    elsewhere: int
    all: tuple[StoredFinding, ...]

    @property
    def record(self) -> Mapping[str, Any]:
        """``report.json`` of the latest analysis; empty without one."""
        return self.analyses[0]["record"] if self.analyses else {}


def left_by_readers(place: Workplace, study_uid: str) -> Left:
    """What of a study stands: every finding that was accepted, and the proposals that nothing has overtaken.

    Overtaken are proposals of earlier analyses, and those of the latest at the place of a finding that was accepted
    before it.

    Args:
        place: The store.
        study_uid: The study.

    Raises:
        InputError: There is no such study, or nobody looked at it yet.
    """
    place.studies.get(study_uid)
    stored = place.findings.of_study(study_uid)
    analyses = place.findings.analyses(study_uid)
    if not analyses and not stored:
        hint = "analyze it first, or add a finding"
        raise InputError(f"study {study_uid}", got="neither an analysis nor findings", hint=hint)
    series_uid = str(analyses[0]["series_uid"]) if analyses else stored[0].series_uid
    gone = overtaken(stored, analyses[0]["id"] if analyses else None)
    here: dict[int, StoredFinding] = {}
    rejected = elsewhere = 0
    for number, one in enumerate(stored, start=1):
        if one.state == "rejected":
            rejected += 1
        elif one.id in gone:
            continue
        elif one.series_uid != series_uid:
            elsewhere += 1
        else:
            here[number] = one
    return Left(study_uid, series_uid, analyses, here, rejected, elsewhere, stored)


def stored_volume(place: Workplace, study_uid: str, series_uid: str) -> Volume:
    """Read a series of the store; its slices name the store's own files.

    Args:
        place: The store.
        study_uid: Its study.
        series_uid: The series.

    Raises:
        InputError: It is not there, or cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix=ASIDE, dir=place.folder) as aside:
        folder = Path(aside) / "ct"
        gathered(place, study_uid, folder, series_uid=series_uid)
        scans = [scan for scan in find_scans(folder, all_series=True) if scan.series is not None]
        chosen = next((scan for scan in scans if scan.series and scan.series.series_uid == series_uid), None)
        if chosen is None:
            raise InputError(f"series {series_uid}", got="no image that can be read", expected="a chest CT")
        volume = chosen.load()
    return with_stored_files(place, volume)


def with_stored_files(place: Workplace, volume: Volume) -> Volume:
    """The same volume, whose slices name the store's own files rather than where they were read from.

    Raises:
        InputError: A slice is not in the store.
    """
    files = {
        str(row["sop_instance_uid"]): place.studies.path(row) for row in place.studies.instances(volume.series_uid)
    }
    instances = []
    for instance in volume.acquisition.instances:
        if instance is not None and instance.sop_instance_uid not in files:
            raise InputError(f"instance {instance.sop_instance_uid}", got="none of this UID in the store")
        instances.append(instance and replace(instance, path=str(files[instance.sop_instance_uid])))
    source = f"series {volume.series_uid}"
    return replace(volume, acquisition=replace(volume.acquisition, instances=tuple(instances), source=source))


def restored(left: Left, volume: Volume) -> Analysis:
    """The analysis that the findings as they stand make; what the store does not hold is left out.

    Args:
        left: What stands.
        volume: The series.

    Returns:
        Findings by their number in the study, with outlines, sizes, predictions, categories, words and past cases.

    Raises:
        InputError: The volume is another one, or a finding has no place or an outline beyond the volume.
    """
    _require_same(left, volume)
    numbered = [(str(number), one.content) for number, one in left.findings.items()]
    findings = tuple(finding_of(content, volume.geometry, id=id) for id, content in numbered)
    record = left.record
    notes = [str(note) for note in record.get("warnings", volume.warnings) if not _ABOUT_FINDINGS.match(str(note))]
    return Analysis(
        volume,
        findings,
        tuple(prediction for id, content in numbered for prediction in _predictions(content, id)),
        {id: tuple(_assessments(content)) for id, content in numbered},
        tuple(record.get("bundles", ())),
        (*notes, *beyond_training(findings)),
        tuple(_words(content["words"], id) for id, content in numbered if content.get("words")),
        neighbors=tuple(_neighbors(content["neighbors"], id) for id, content in numbered if content.get("neighbors")),
    )


def finding_of(content: Mapping[str, Any], geometry: Geometry, *, id: str) -> Finding:
    """A finding from its content in the store.

    Args:
        content: As ``report.json`` holds a finding, and beside it its ``outline`` and what readers said.
        geometry: Of the analyzed volume.
        id: What it is called.

    Returns:
        The finding; where a person measured its diameter (``measured_by``), without the axes of the outline.

    Raises:
        InputError: It has no place, or an outline that does not lie in the volume.
    """
    diameter = content.get("diameter_mm")
    return Finding(
        id,
        _point(content.get("center_xyz_mm"), what=f"center of finding {id}"),
        None if diameter is None else float(diameter),
        content.get("score"),
        {name: value for name, value in (content.get("measured") or {}).items() if value is not None},
        mask=mask_of(content["outline"], geometry) if content.get("outline") else None,
        size=None if content.get("measured_by") else _size(content, id),
    )


def _require_same(left: Left, volume: Volume) -> None:
    if volume.series_uid != left.series_uid:
        raise InputError("volume", got=f"series {volume.series_uid}", expected=f"series {left.series_uid}")
    grid = left.record.get("input", {}).get("geometry")
    if grid is None:
        return
    known = Geometry(tuple(grid["shape_zyx"]), np.array(grid["affine_lps"], dtype=np.float64))
    corners = np.array([[0, 0, 0], np.array(known.shape_zyx) - 1])
    apart = np.abs(known.index_to_world(corners) - volume.geometry.index_to_world(corners)).max()
    if known.shape_zyx != volume.geometry.shape_zyx or apart > SAME_PLACE_MM:
        got, expected = f"a grid of {volume.geometry.shape_zyx}", f"{known.shape_zyx}, as was analyzed"
        raise GeometryError(f"series {left.series_uid}", got=got, expected=expected, hint="analyze the study again")


def _point(value: Any, *, what: str) -> Point:
    try:
        x, y, z = (float(number) for number in value)
    except (TypeError, ValueError):
        raise InputError(what, got=repr(value)[:60], expected="three numbers, LPS mm") from None
    if not all(map(math.isfinite, (x, y, z))):
        raise InputError(what, got=repr(value)[:60], expected="finite numbers")
    return x, y, z


def _size(content: Mapping[str, Any], id: str) -> Size | None:
    """All measurements of the outline; None where the axes are not known."""
    axes = [content.get(name) for name in ("long_axis_mm", "short_axis_mm")]
    ends = [content.get(name) for name in ("long_axis_ends_xyz_mm", "short_axis_ends_xyz_mm")]
    if None in axes or None in ends:
        return None
    points = [tuple(_point(end, what=f"axis of finding {id}") for end in pair or ()) for pair in ends]
    known = [math.nan if content.get(name) is None else content[name] for name in ("volume_mm3", "mean_hu")]
    solid = [content.get(name) for name in ("solid_diameter_mm", "solid_volume_mm3")]
    return Size(*axes, *points, *known, *solid)  # type: ignore[arg-type]


def _predictions(content: Mapping[str, Any], id: str) -> Iterator[Prediction]:
    traits = content.get("attributes") or {}
    for target, told in (("malignancy", content.get("malignancy")), *((name, traits.get(name)) for name in TRAITS)):
        if told:
            interval = None if told.get("interval") is None else _pair(told["interval"])
            yield Prediction(id, target, float(told["probability"]), interval, str(told.get("fingerprint", "")))


def _assessments(content: Mapping[str, Any]) -> Iterator[Assessment]:
    for told in (content.get("lung_rads"), content.get("fleischner")):
        if told:
            given, lacking = (tuple(told.get(name, ())) for name in ("given", "lacking"))
            yield Assessment(told["system"], told["category"], told["management"], given, lacking)


def _words(told: Mapping[str, Any], id: str) -> Words:
    answers = tuple(
        Answer(
            one["asked"] or "", one["question"], one["class"], tuple(one["classes"]), tuple(one["probabilities"]),
            tuple(one["similarities"]), _pair(one["spread"]), one["learned"], one["nearest"], one["trait"],
            one["trait_class"], one["trait_probability"], one["disagrees"],
        )
        for one in told["answers"]
    )  # fmt: skip
    return Words(id, told["fingerprint"], answers, told["attention"], told["prompts"])


def _neighbors(told: Mapping[str, Any], id: str) -> Neighborhood:
    matches = tuple(
        Match(f"{one['pid']}/{one['nodule_id']}", float(one["distance"] or 0.0),
              {name: value for name, value in one.items() if name != "distance" and value is not None})
        for one in told["matches"]
    )  # fmt: skip
    traits = tuple(SharedTrait(one["trait"], _share(one), float(one["everywhere"] or 0.0)) for one in told["traits"])
    malignant = None if told["malignant"] is None else _share(told["malignant"])
    return Neighborhood(id, told["fingerprint"], matches, malignant, told["farther_than"], traits)


def _share(told: Mapping[str, Any]) -> Share:
    value = math.nan if told["share"] is None else float(told["share"])
    return Share(value, _pair(told["interval"]), int(told["patients"]))


def _pair(values: Sequence[Any]) -> tuple[float, float]:
    low, high = (math.nan if value is None else float(value) for value in values)
    return low, high
