"""Many scans: folders by scan, a summary, failures as rows, and a second run that redoes nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from spicula.datasets.sample import SampleScan
from spicula.pipelines.batch import Outcome, analyze_paths


@pytest.mark.sample
def test_a_second_run_keeps_what_is_done_and_does_what_is_not(sample_ct: list[SampleScan], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    paths = [sample_ct[0].dicom, tmp_path / "empty"]
    seen: list[tuple[int, int, str]] = []

    def watch(done: int, total: int, outcome: Outcome) -> None:
        seen.append((done, total, outcome.status))

    first = analyze_paths(paths, tmp_path / "out", progress=watch)
    assert seen == [(1, 2, "done"), (2, 2, "failed")]
    report = first[0].folder / "report.json"
    stamp = report.stat().st_mtime_ns
    again = analyze_paths(paths, tmp_path / "out")
    assert [outcome.status for outcome in again] == ["kept", "failed"]
    assert report.stat().st_mtime_ns == stamp
    with (tmp_path / "out" / "summary.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["status"] for row in rows] == ["kept", "failed"]
    assert rows[0]["findings"] == str(len(json.loads(report.read_text())["findings"]))
    assert "empty" in rows[1]["reason"]
    assert first[0].folder.name == json.loads(report.read_text())["input"]["series_uid"]
