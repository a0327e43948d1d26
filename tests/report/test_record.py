"""``report.json`` against its schema, and the rows of ``summary.csv``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest

from spicula.core.analysis import Analysis
from spicula.core.prediction import TRAITS
from spicula.report.explanations import explanations_record
from spicula.report.record import SUMMARY_COLUMNS, report_schema, summary_row, to_record, write_record

Make = Callable[..., Analysis]


def check(record: object) -> None:
    schema = report_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(record)


@pytest.mark.parametrize("full", [True, False])
def test_the_record_keeps_to_its_schema(make_analysis: Make, full: bool) -> None:
    check(to_record(make_analysis(full=full)))
    check(to_record(replace(make_analysis(full=full), findings=())))


def test_facts_of_a_finding(make_analysis: Make) -> None:
    analysis = make_analysis()
    record = to_record(analysis, outputs={"html": "report.html"})
    first, second = record["findings"]
    assert first["center_xyz_mm"] == [12.0, -30.0, -105.0]
    place = analysis.volume.geometry.index_to_world(first["voxel_index_zyx"])
    assert np.abs(place - first["center_xyz_mm"]).max() <= 1.5
    assert first["slice_index"] == first["voxel_index_zyx"][0] == 15
    assert first["sop_instance_uid"] == "1.2.3.15"
    assert (first["diameter_mm"], first["long_axis_mm"], first["short_axis_mm"]) == (14.0, 16.0, 12.0)
    assert (first["volume_mm3"], first["mean_hu"], first["solid_diameter_mm"]) == (2144.66, 100.0, 15.0)
    assert first["measured"] == {"distance_to_pleura_mm": 4.5}
    assert first["malignancy"]["probability"] == 0.9
    assert first["malignancy"]["interval"] == [0.8, 0.96]
    assert list(first["attributes"]) == list(TRAITS)
    assert first["attributes"]["calcification_present"]["interval"] is None
    assert first["lung_rads"]["category"] == "4A"
    assert first["lung_rads"]["lacking"] == ["prior scan"]
    assert first["fleischner"]["system"] == "Fleischner 2017"
    assert second["malignancy"] is None
    assert second["long_axis_ends_xyz_mm"] is None
    assert record["bundles"] == list(analysis.fingerprints)
    assert record["input"]["interpolated_slices"] == [5]
    assert record["input"]["series_uid"] == "1.2.3"
    assert record["outputs"] == {"html": "report.html"}


def test_the_nearest_instance_skips_interpolated_slices(make_analysis: Make) -> None:
    analysis = make_analysis()
    at_five = tuple(float(v) for v in analysis.volume.geometry.index_to_world([5.2, 30, 30]))
    (found,) = to_record(replace(analysis, findings=(replace(analysis.findings[1], center_xyz_mm=at_five),)))[
        "findings"
    ]
    assert found["slice_index"] == 5
    assert found["sop_instance_uid"] == "1.2.3.6"


def test_no_nan_and_no_broken_text(make_analysis: Make, tmp_path: Path) -> None:
    analysis = make_analysis(series_description="a\x00b\x1b[31m \udcff")
    finding = analysis.findings[0]
    size = replace(finding.size, mean_hu=float("nan"), volume_mm3=float("inf"))
    predictions = tuple(replace(p, interval=(float("nan"), 1.0)) for p in analysis.predictions)
    analysis = replace(analysis, findings=(replace(finding, size=size, score=float("nan")),), predictions=predictions)
    path = tmp_path / "report.json"
    write_record(path, analysis)
    text = path.read_text(encoding="utf-8")
    record = json.loads(text)
    check(record)
    assert "NaN" not in text
    assert "Infinity" not in text
    assert record["findings"][0]["mean_hu"] is None
    assert record["findings"][0]["malignancy"]["interval"] is None
    assert record["input"]["series_description"] == "a b [31m ?"


def test_a_failed_write_leaves_the_older_file(
    make_analysis: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    write_record(path, make_analysis())
    before = path.read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_record(path, make_analysis(full=False))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_summary_rows(make_analysis: Make, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    failed = summary_row(path, "x", "scan", "failed", "one\nreason")
    assert tuple(failed) == SUMMARY_COLUMNS
    assert (failed["status"], failed["reason"], failed["findings"]) == ("failed", "one reason", "")
    write_record(path, make_analysis())
    row = summary_row(path, "x", "scan", "done")
    assert tuple(row) == SUMMARY_COLUMNS
    assert (row["findings"], row["top_diameter_mm"], row["top_malignancy"]) == (2, 14.0, 0.9)
    assert (row["top_malignancy_low"], row["top_lung_rads"]) == (0.8, "4A")
    assert row["top_center_z_mm"] == -105.0
    write_record(path, make_analysis(full=False))
    bare = summary_row(path, "x", "scan", "kept")
    assert (bare["findings"], bare["top_malignancy"], bare["top_diameter_mm"]) == (1, "", "")
    write_record(path, replace(make_analysis(), findings=()))
    assert summary_row(path, "x", "scan", "done")["findings"] == 0


def test_words_are_in_the_record_and_keep_to_its_schema(worded: Make) -> None:
    record = to_record(worded())
    check(record)
    json.dumps(record)
    first, second = record["findings"]
    assert "words" not in second
    words = first["words"]
    assert (words["fingerprint"], words["prompts"]) == ("nodule-semantic@0123456789abcdef", "templates")
    assert words["attention"]["axial"] == 0.4
    spiculated, *_, free = words["answers"]
    assert (spiculated["asked"], spiculated["class"], spiculated["disagrees"]) == (None, "Present", True)
    assert (spiculated["trait"], spiculated["trait_probability"]) == ("spiculation_present", 0.82)
    assert (free["asked"], free["question"], free["learned"], free["nearest"]) == (
        "spiculatd",
        None,
        False,
        "spiculated",
    )


def test_the_record_of_an_explanation(worded: Make) -> None:
    images = [SimpleNamespace(path=Path("ct"), analysis=worded(), failed=()),
              SimpleNamespace(path=Path("x"), analysis=None, failed=("nodule 2 of 7: no such file",))]  # fmt: skip
    record = explanations_record(images, words=["part-solid", "spiculatd"], prompts="templates")
    assert record["schema"] == "spicula-explain/1"
    assert record["asked"] == ["part-solid", "spiculatd"]
    (nodule,) = record["nodules"]
    assert (nodule["source"], nodule["id"], nodule["center_xyz_mm"]) == ("ct", "1", [12.0, -30.0, -105.0])
    assert nodule["words"] == to_record(worded())["findings"][0]["words"]
    assert record["failed"] == ["nodule 2 of 7: no such file"]


def test_where_a_network_looks_is_in_the_record_and_keeps_to_its_schema(looked: Make) -> None:
    record = to_record(looked())
    check(record)
    json.dumps(record)
    first, second = record["findings"]
    assert "self_supervised" not in second
    seen = first["self_supervised"]
    assert (seen["fingerprint"], seen["slices"]) == ("nodule-ssm@0123456789abcdef", 5)
    assert (seen["share_of_attention"], seen["share_of_area"]) == (0.4512, 0.0821)
    assert (seen["malignancy"], seen["malignancy_with_diameter"]) == (0.61, None)
    assert seen["center_xyz_mm"] == [12.0, -30.0, -105.0]
    assert (seen["side_mm"], seen["attention"][2]) == (49.0, [0.02, 0.02, 0.4, 0.02, 0.02])
    nan = float("nan")
    odd = to_record(looked(share_of_attention=nan, share_of_area=nan, malignancy=nan))
    check(odd)
    json.dumps(odd, allow_nan=False)
