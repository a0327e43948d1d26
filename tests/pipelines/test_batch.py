"""Many scans: folders by scan, a summary, failures as rows, and a second run that redoes nothing."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spicula.core.analysis import Analysis
from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.datasets.sample import SampleScan
from spicula.formats import Scan, write_nifti
from spicula.pipelines.batch import Outcome, analyze_paths, write_outputs


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


@pytest.mark.sample
def test_other_options_or_another_input_are_no_reason_to_keep(sample_ct: list[SampleScan], tmp_path: Path) -> None:
    from spicula.formats import find_scans
    from spicula.pipelines.batch import _identity
    from spicula.pipelines.models import load_models

    models = load_models()
    one, two = (find_scans(scan.dicom)[0] for scan in sample_ct)
    copy = shutil.copytree(sample_ct[0].dicom, tmp_path / "copy")
    options = {"gaps": "error", "tilt": "error", "limit": 10}
    same = _identity(one, options, models)
    assert same == _identity(find_scans(sample_ct[0].dicom)[0], dict(options), models)
    others = [
        _identity(one, {**options, "limit": 1}, models),
        _identity(one, {**options, "gaps": "warn"}, models),
        _identity(two, options, models),
        _identity(find_scans(copy)[0], options, models),
    ]
    sorted(copy.iterdir())[0].unlink()
    others.append(_identity(find_scans(copy)[0], options, models))
    assert len({same, *others}) == 6


@pytest.mark.sample
def test_files_of_an_earlier_scan_do_not_stay_beside_the_new_report(
    analyzed: Callable[[Path], tuple[Analysis, Path]], sample_ct: list[SampleScan], tmp_path: Path
) -> None:
    analysis, _ = analyzed(sample_ct[0].dicom)
    write_outputs(analysis, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    no_instances = replace(analysis.volume.acquisition, instances=())
    resampled = replace(analysis, volume=replace(analysis.volume, acquisition=no_instances))
    noted = write_outputs(resampled, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "report.html", "report.json"]
    assert "no source slices are left" in noted.warnings[-1]
    assert json.loads((tmp_path / "report.json").read_text())["warnings"] == list(noted.warnings)


def test_a_scan_that_fails_in_an_unforeseen_way_is_a_row_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise AttributeError("no such thing")

    monkeypatch.setattr(Scan, "load", broken)
    for name in ("a", "b"):
        volume = Volume(np.zeros((3, 4, 5), np.int16), Geometry.from_axes((3, 4, 5), (1, 1, 1)))
        write_nifti(tmp_path / f"{name}.nii", volume)
    outcomes = analyze_paths([tmp_path / "a.nii", tmp_path / "b.nii"], tmp_path / "out")
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    assert outcomes[0].reason == "unexpected AttributeError: no such thing"


def test_an_output_that_cannot_be_a_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="expected a folder"):
            analyze_paths([tmp_path], out)
