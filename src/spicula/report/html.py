"""The report for people: one HTML file with everything in it, no network and no script."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spicula import __version__
from spicula.core.analysis import Analysis, Assessment
from spicula.core.files import written_aside
from spicula.core.finding import Finding, Size
from spicula.core.neighbors import Neighborhood
from spicula.core.prediction import TRAITS, Prediction
from spicula.core.volume import Volume
from spicula.core.words import CLEAR, Words
from spicula.measure.rounding import half_up
from spicula.report.attention import FULL, Look, look_of
from spicula.report.matches import cells, sentences
from spicula.report.pictures import Picture, overview_picture, plane_pictures
from spicula.report.record import nearest_slice
from spicula.report.text import plain_text, rendered
from spicula.report.words import TRAIT_WORDS, WordRow, by_words_alone, difference, looked_most, word_rows

UNKNOWN = "–"


@dataclass(frozen=True, slots=True)
class Bar:
    """A probability as a bar: percentages of its width, and words.

    Args:
        at: Where the probability is, 0 to 100.
        low: Lower end of its interval, 0 to 100.
        high: Upper end of its interval.
        text: The probability in words.
        interval: The interval in words, empty where none is given.
        against: Word for a low probability.
        favor: Word for a high probability.
        leans: ``"against"``, ``"favor"`` or, where the interval spans one half, ``"neither"``.
        words: Share that words give to the same, 0 to 100; None where they were not asked.
        differs: How both disagree; empty where they do not.
    """

    at: float
    low: float
    high: float
    text: str
    interval: str = ""
    against: str = ""
    favor: str = ""
    leans: str = "neither"
    words: float | None = None
    differs: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """All that the page shows of one finding, in words and pictures."""

    number: int
    title: str
    score: str
    size: str
    axes: str
    volume: str
    risk: Bar | None
    category: str
    facts: tuple[tuple[str, str, str], ...]
    traits: tuple[Bar, ...]
    asked: tuple[WordRow, ...]
    alone: tuple[str, ...]
    looked: str
    look: Look | None
    past: PastCases | None
    assessments: tuple[Assessment, ...]
    planes: tuple[Picture, ...]
    overview: Picture
    outlined: bool
    instance: str


@dataclass(frozen=True, slots=True)
class PastCases:
    """What the page shows of the past cases that look like a finding.

    Args:
        said: What they say, sentence by sentence.
        unlike: Whether the finding is unlike anything in the index.
        rows: Each case in words, see :func:`spicula.report.matches.cells`.
    """

    said: tuple[str, ...]
    unlike: bool
    rows: tuple[dict[str, str], ...]


def write_html(path: Path, analysis: Analysis, *, created: datetime | None = None) -> None:
    """Write ``report.html``: self-contained, for dark and light screens and for print.

    Args:
        path: The file to write; it appears whole or not at all.
        analysis: The result; predictions, outlines, sizes and assessments may be absent.
        created: Time of the report; now if None.
    """
    with written_aside(path) as aside:
        aside.write_text(render_html(analysis, created=created), encoding="utf-8")


def render_html(analysis: Analysis, *, created: datetime | None = None) -> str:
    """The page that :func:`write_html` writes; all text from the scan's header is escaped."""
    return rendered(
        "report.html.j2",
        version=__version__,
        created=(created or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M %Z").strip(),
        title=_headline(analysis),
        scan=_scan_facts(analysis.volume),
        cards=[
            _card(finding, number=number, analysis=analysis)
            for number, finding in enumerate(analysis.findings, start=1)
        ],
        words=_words_facts(analysis),
        full=f"{FULL:g}",
        warnings=[plain_text(warning) for warning in analysis.warnings],
        fingerprints=[plain_text(fingerprint) for fingerprint in analysis.fingerprints],
    )


def _headline(analysis: Analysis) -> str:
    count = len(analysis.findings)
    return "No nodule found" if not count else f"{count} possible nodule{'s' if count > 1 else ''}"


def _scan_facts(volume: Volume) -> list[tuple[str, str]]:
    acquisition, geometry = volume.acquisition, volume.geometry
    slices, rows, columns = geometry.shape_zyx
    dz, dy, dx = geometry.spacing_zyx_mm
    facts = [
        ("Patient ID", acquisition.patient_id),
        ("Study date", _date(acquisition.study_date)),
        ("Series", acquisition.series_description),
        ("Scanner", acquisition.manufacturer),
        ("Kernel", acquisition.kernel),
        ("Slice thickness", _with_unit(acquisition.slice_thickness_mm, "mm", 2).removesuffix(UNKNOWN)),
        ("Grid", f"{columns} × {rows} × {slices}"),
        ("Voxel", f"{dx:.3g} × {dy:.3g} × {dz:.3g} mm"),
        ("Format", acquisition.format),
        ("Series UID", volume.series_uid),
        ("Source", "" if volume.series_uid else acquisition.source),
    ]
    return [(name, plain_text(value)) for name, value in facts if plain_text(value)]


def _date(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdigit() else text


def _card(finding: Finding, *, number: int, analysis: Analysis) -> Card:
    predictions = analysis.predictions_of(finding.id)
    assessments = tuple(_readable(assessment) for assessment in analysis.assessments.get(finding.id, ()))
    _, instance = nearest_slice(analysis.volume, finding.center_xyz_mm)
    size = finding.size
    mean = _mean_diameter_mm(size) if size else finding.diameter_mm
    category = next((a.category for a in assessments if a.system.startswith("Lung-RADS")), "")
    words = analysis.words_of(finding.id)
    return Card(
        number=number,
        title=f"Finding {plain_text(finding.id)}",
        score=_decimal(finding.score),
        size=_with_unit(mean, "mm", 1),
        axes=f"{_decimal(size.long_axis_mm, 1)} × {_decimal(size.short_axis_mm, 1)} mm" if size else UNKNOWN,
        volume=_with_unit(size.volume_mm3 if size else None, "mm³", 0),
        risk=_bar(predictions["malignancy"], "", "") if "malignancy" in predictions else None,
        category=category,
        facts=tuple(_facts(finding, size, volume=analysis.volume)),
        traits=tuple(_traits(predictions, words)),
        asked=tuple(replace(row, word=plain_text(row.word)) for row in word_rows(words, predictions)),
        alone=by_words_alone(words),
        looked=looked_most(words),
        look=look_of(analysis.slice_reading_of(finding.id), finding),
        past=_past_cases(analysis.neighbors_of(finding.id)),
        assessments=assessments,
        planes=plane_pictures(analysis.volume, finding),
        overview=overview_picture(analysis.volume, finding),
        outlined=finding.mask is not None and bool(finding.mask.array_zyx.any()),
        instance=instance.sop_instance_uid if instance else "",
    )


def _past_cases(found: Neighborhood | None) -> PastCases | None:
    if found is None:
        return None
    return PastCases(tuple(sentences(found)), found.is_unlike_all, tuple(map(cells, found.matches)))


def _traits(predictions: dict[str, Prediction], words: Words | None) -> Iterator[Bar]:
    """A bar for each trait, with what words say of the same."""
    answers = {answer.trait: answer for answer in (words.standard if words else ()) if answer.trait_class is not None}
    for name in TRAITS:
        bar = _bar(predictions[name], *TRAIT_WORDS[name]) if name in predictions else None
        if bar is None:
            continue
        answer = answers.get(name)
        if answer is not None and answer.trait_class is not None:
            share = round(100 * answer.of(answer.trait_class), 1)
            bar = replace(bar, words=share, differs=difference(answer))
        yield bar


def _words_facts(analysis: Analysis) -> dict[str, Any] | None:
    """What the page says of how words are asked; None where none were."""
    if not analysis.words:
        return None
    requested = any(words.requested for words in analysis.words)
    return {"requested": requested, "edge": CLEAR, "compat": analysis.words[0].prompts == "compat"}


def _readable(assessment: Assessment) -> Assessment:
    return Assessment(
        plain_text(assessment.system),
        plain_text(assessment.category),
        plain_text(assessment.management),
        tuple(map(plain_text, assessment.given)),
        tuple(map(plain_text, assessment.lacking)),
    )


def _facts(finding: Finding, size: Size | None, *, volume: Volume) -> list[tuple[str, str, str]]:
    """Name, value and remark of each measurement that is known."""
    index, _ = nearest_slice(volume, finding.center_xyz_mm)
    facts: list[tuple[str, str, str]] = []
    if size is not None:
        facts += [
            ("Mean diameter", _with_unit(_mean_diameter_mm(size), "mm", 1), ""),
            ("Long axis", _with_unit(size.long_axis_mm, "mm", 1), ""),
            ("Short axis", _with_unit(size.short_axis_mm, "mm", 1), ""),
            ("Volume", _with_unit(size.volume_mm3, "mm³", 0), ""),
            ("Mean density", _with_unit(size.mean_hu, "HU", 0), ""),
            ("Solid part", _with_unit(size.solid_diameter_mm, "mm", 1), ""),
            ("Solid volume", _with_unit(size.solid_volume_mm3, "mm³", 0), ""),
        ]
    else:
        remark = "" if finding.mask is not None and finding.mask.array_zyx.any() else "not outlined"
        facts.append(("Mean diameter", _with_unit(finding.diameter_mm, "mm", 1), remark))
    facts += [
        ("Detector score", _decimal(finding.score), ""),
        ("Center", ", ".join(_decimal(value, 1) for value in finding.center_xyz_mm), ""),
        ("Slice", f"{index + 1} of {volume.geometry.shape_zyx[0]}", ""),
    ]
    return [fact for fact in facts if not fact[1].startswith(UNKNOWN)]


def _mean_diameter_mm(size: Size) -> float:
    """Mean of the axes as it is written: each axis and the mean to one decimal, a half up, as Lung-RADS counts."""
    axes = (size.long_axis_mm, size.short_axis_mm)
    if not all(map(math.isfinite, axes)):
        return math.nan
    long_axis, short_axis = (half_up(axis, decimals=1) for axis in axes)
    return half_up(round((long_axis + short_axis) / 2, 6), decimals=1)


def _bar(prediction: Prediction, against: str, favor: str) -> Bar | None:
    """A prediction as a bar; None where it is not a number."""
    if not math.isfinite(prediction.probability):
        return None
    at = 100 * min(max(prediction.probability, 0.0), 1.0)
    low, high, interval = at, at, ""
    if prediction.interval is not None and all(map(math.isfinite, prediction.interval)):
        low, high = (100 * min(max(bound, 0.0), 1.0) for bound in prediction.interval)
        interval = f"{low:.0f} to {high:.0f} %"
    leans = "neither" if low <= 50 <= high else "favor" if at > 50 else "against"
    return Bar(round(at, 1), round(low, 1), round(high, 1), f"{at:.0f} %", interval, against, favor, leans)


def _with_unit(value: float | None, unit: str, digits: int) -> str:
    text = _decimal(value, digits, grouped=True)
    return text if text == UNKNOWN else f"{text} {unit}"


def _decimal(value: float | None, digits: int = 2, *, grouped: bool = False) -> str:
    if value is None or not math.isfinite(value):
        return UNKNOWN
    rounded = half_up(value, decimals=digits)
    text = f"{rounded:,.{digits}f}" if grouped else f"{rounded:.{digits}f}"
    return text.replace("-", "−").replace(",", " ")
