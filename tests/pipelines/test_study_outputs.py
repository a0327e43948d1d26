"""What is written of a study after its readers: all formats say the same, each set of versions under its own UIDs."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import highdicom as hd
import jsonschema
import numpy as np
import pydicom
import pytest

from spicula.core.analysis import Analysis, Assessment
from spicula.core.embedding import Match
from spicula.core.errors import InputError
from spicula.core.finding import Finding
from spicula.core.geometry import Geometry
from spicula.core.neighbors import Neighborhood, Share, SharedTrait
from spicula.core.prediction import TRAITS, Prediction
from spicula.core.volume import Mask, Volume
from spicula.core.words import Answer, Words
from spicula.dicom.source import tracking_uid
from spicula.dicom.sr_reading import read_sr
from spicula.dicom.writer import write_series
from spicula.measure.size import measure_size
from spicula.pipelines.ingest import ingest
from spicula.pipelines.stored_analysis import stored_volume
from spicula.pipelines.study_outputs import COLUMNS, OUTPUTS, safe_cell, write_study_outputs
from spicula.pipelines.workplace import Workplace, open_workplace
from spicula.report.record import report_schema, to_record
from spicula.store.findings import StoredFinding
from spicula.transforms.runs import mask_of, runs_of

GRID = Geometry.from_axes((14, 48, 56), (2.5, 0.8, 0.7), origin_xyz_mm=(-20.0, 14.25, -300.0))
MADE_BY = "nodule-risk@0123456789abcdef"


def ball(volume: Volume, index_zyx: tuple[int, int, int], radius_mm: float, id: str) -> Finding:
    grid = volume.geometry
    center = grid.index_to_world(index_zyx)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape_zyx), indexing="ij"), axis=-1)
    inside = np.linalg.norm(grid.index_to_world(index) - center, axis=-1) <= radius_mm
    mask = Mask(inside, grid)
    size = measure_size(volume, mask)
    return Finding(id, tuple(map(float, center)), size.mean_diameter_mm, 0.8, {"edge_mm": 4.5}, mask=mask, size=size)  # type: ignore[arg-type]


def analysis_of(volume: Volume) -> Analysis:
    """Three findings, two of them outlined, the first with all that models say."""
    findings = (
        ball(volume, (6, 20, 20), 6.0, "1"), ball(volume, (7, 30, 40), 5.0, "2"),
        Finding("3", tuple(map(float, volume.geometry.index_to_world((3, 8, 10)))), score=0.2),  # type: ignore[arg-type]
    )  # fmt: skip
    predictions = [Prediction("1", "malignancy", 0.8125, (0.6, 0.95), MADE_BY)]
    predictions += [Prediction("1", trait, 0.25, (0.125, 0.5), MADE_BY) for trait in TRAITS]
    predictions.append(Prediction("2", "malignancy", 0.1, None, MADE_BY))
    assessments = {
        "1": (Assessment("Lung-RADS 2022", "4A", "3-month LDCT", ("solid",), ("prior scan",)),
              Assessment("Fleischner 2017", "solid, single", "CT", ("12 mm",), ("risk factors",)))
    }  # fmt: skip
    answer = Answer("", "consistency", "Solid", ("Part-solid", "Solid"), (0.3, 0.7), (0.1, 0.4), (0.6, 0.8), True, None,
                    "texture_solid", "Solid", 0.25, False)  # fmt: skip
    share = Share(0.5, (0.2237, 0.7763), 10)
    match = Match("P9/1", 0.25, {"pid": "P9", "nodule_id": "1", "malignant": 1.0})
    past = Neighborhood("1", "search@0", (match,), share, 0.5, (SharedTrait("spiculation_present", share, 0.1),))
    warned = ("A warning.", "Finding 1 is wider than 3 mm, the largest that the risk model learned from.")
    return Analysis(volume, findings, tuple(predictions), assessments, (MADE_BY,), warned,
                    (Words("1", "words@0", (answer,), {"axial": 1.0}),), neighbors=(past,))  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """A store with one study, its analysis, and the findings that were kept of it."""

    place: Workplace
    study: str
    analysis: Analysis
    findings: tuple[StoredFinding, ...]

    def now(self, number: int) -> StoredFinding:
        return self.place.findings.get(self.findings[number - 1].id)

    def change(self, number: int, *, by: str = "ada", state: Any = None, **content: Any) -> None:
        seen = self.now(number)
        new = {**seen.content, **content} if content else None
        self.place.findings.change(seen.id, seen=seen.version, by=by, state=state, content=new)


def keep(place: Workplace, study: str, analysis: Analysis, name: str) -> tuple[StoredFinding, ...]:
    record = to_record(analysis)
    for told, finding in zip(record["findings"], analysis.findings, strict=True):
        if finding.mask is not None:
            told["outline"] = runs_of(finding.mask, analysis.volume.geometry)
    record = json.loads(json.dumps(record, allow_nan=False))
    return place.findings.keep_analysis(
        name, study_uid=study, series_uid=analysis.volume.series_uid, record=record, folder=f"analyses/{name}"
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct")
    noise = np.random.default_rng(0).integers(-1000, 400, GRID.shape_zyx).astype(np.int16)
    write_series(folder, Volume(noise, GRID), patient_id="P1", description="noise")
    return folder


@pytest.fixture
def kept(tmp_path: Path, source: Path) -> Iterator[Kept]:
    with open_workplace(tmp_path / "store") as place:
        (study,) = ingest(source, place.studies, origin="upload").studies
        (series,) = place.studies.series(study)
        analysis = analysis_of(stored_volume(place, study, series["series_uid"]))
        yield Kept(place, study, analysis, keep(place, study, analysis, "a" * 32))


def validated(path: Path) -> list[str]:
    """Errors that dciodvfy (Debian's dicom3tools) finds; skips where it is not installed."""
    program = shutil.which("dciodvfy")
    if program is None:
        message = "no dciodvfy: apt-get install dicom3tools"
        if os.environ.get("SPICULA_NO_SKIP"):
            pytest.fail(message)
        pytest.skip(message)
    done = subprocess.run([program, "-new", str(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert any(line.strip() in ("Comprehensive3DSR", "Segmentation") for line in lines)
    return [line for line in lines if line.startswith(("Error", "Abort"))]


def report_in(folder: Path) -> dict[str, Any]:
    record = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    checker = jsonschema.FormatChecker()
    jsonschema.Draft202012Validator(report_schema(), format_checker=checker).validate(record)
    return record  # type: ignore[no-any-return]


def rows_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "findings.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def code(item: pydicom.Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def groups_in(folder: Path) -> list[pydicom.Dataset]:
    root = pydicom.dcmread(folder / "sr.dcm")
    return list(next(item for item in root.ContentSequence if code(item) == "126010").ContentSequence)


def test_an_untouched_analysis_is_told_as_it_was(kept: Kept, tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = write_study_outputs(kept.place, kept.study, out)
    assert tuple(files) == OUTPUTS
    assert sorted(path.name for path in out.iterdir()) == sorted(OUTPUTS)
    assert [path for path in kept.place.folder.iterdir() if path.name.startswith(".spicula")] == []
    record, before = report_in(out), to_record(kept.analysis)
    for told in record["findings"]:
        del told["outlined"]
    for told in before["findings"]:
        del told["outlined"]
    assert record["findings"] == json.loads(json.dumps(before["findings"]))
    assert record["bundles"] == [MADE_BY]
    assert record["warnings"] == ["A warning."]  # what names findings by number is said anew
    assert str(kept.place.folder) not in json.dumps(record)
    ds = pydicom.dcmread(files["sr.dcm"])
    assert (ds.CompletionFlag, ds.PreliminaryFlag, ds.VerificationFlag) == ("PARTIAL", "PRELIMINARY", "UNVERIFIED")
    assert "REVIEW" not in ds.to_json()
    assert validated(files["sr.dcm"]) == validated(files["seg.dcm"]) == []
    found = read_sr(files["sr.dcm"])
    assert [one.uid for one in found] == [tracking_uid(kept.analysis, finding) for finding in kept.analysis.findings]
    for one, finding in zip(found, kept.analysis.findings, strict=True):
        np.testing.assert_allclose(one.center_xyz_mm, finding.center_xyz_mm, atol=0.01)  # type: ignore[arg-type]


def test_what_readers_said_is_in_every_file(kept: Kept, tmp_path: Path) -> None:
    first = kept.analysis.findings[0]
    moved = [first.center_xyz_mm[0] + 1.4, *first.center_xyz_mm[1:]]
    kept.change(
        1, by="Ada L.", center_xyz_mm=moved, diameter_mm=9.5, measured_by="Ada L.", note="=HYPERLINK(1)\nstable"
    )
    kept.change(2, state="rejected")
    there = kept.analysis.volume.geometry.index_to_world((9, 30, 12)).tolist()
    by_hand = {**kept.findings[2].content, "id": "x", "note": "here too", "center_xyz_mm": there}
    by_hand["outline"] = {"start_zyx": [8, 29, 11], "shape_zyx": [2, 3, 3], "runs": [0, 18]}
    kept.place.findings.add(study_uid=kept.study, series_uid=kept.findings[0].series_uid, content=by_hand, by="bob^x")
    out = tmp_path / "out"
    write_study_outputs(kept.place, kept.study, out)
    rows = rows_in(out)
    assert tuple(rows[0]) == COLUMNS
    assert [(row["number"], row["state"], row["reader"]) for row in rows] == [
        ("1", "accepted", "Ada L."), ("3", "proposed", "spicula"), ("4", "accepted", "bob^x"),
    ]  # fmt: skip
    assert (rows[0]["diameter_mm"], rows[0]["measured_by"], rows[0]["long_axis_mm"]) == ("9.5", "Ada L.", "")
    assert rows[0]["note"] == "'=HYPERLINK(1) stable"
    assert float(rows[0]["volume_mm3"]) == pytest.approx(first.size.volume_mm3, abs=0.01)  # type: ignore[union-attr]
    assert (rows[0]["malignancy"], rows[0]["malignancy_low"], rows[0]["lung_rads"]) == ("0.8125", "0.6", "4A")
    assert (rows[0]["spiculation_present"], rows[1]["malignancy"]) == ("0.25", "")
    assert float(rows[0]["center_x_mm"]) == pytest.approx(moved[0])
    assert rows[0]["changed_at"] == kept.now(1).changed_at
    record = report_in(out)
    assert [told["id"] for told in record["findings"]] == ["1", "3", "4"]
    assert record["findings"][0]["diameter_mm"] == 9.5
    said = "\n".join(record["warnings"])
    assert "Finding 1: accepted by Ada L. on 2" in said
    assert "Diameter as measured by Ada L. Note: =HYPERLINK(1) stable" in said.replace("L..", "L.")
    assert "Finding 4: added by bob^x" in said
    assert "1 finding was rejected by readers and left out." in said
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "accepted by Ada L." in page
    assert "2 possible" not in page
    check_reviewed_objects(kept, out, moved)


def check_reviewed_objects(kept: Kept, out: Path, moved: list[float]) -> None:
    """SR and SEG name the readers of accepted findings, keep tracking UIDs, and are sound."""
    first, third, fourth = groups_in(out)
    names = {code(item): item for item in first.ContentSequence}
    assert (str(names["121008"].PersonName), names["121005"].ConceptCodeSequence[0].CodeValue) == ("Ada L.", "121006")
    assert names["REVIEW"].ConceptCodeSequence[0].CodeValue == "ACCEPTED"
    began = tracking_uid(kept.analysis, kept.analysis.findings[0])
    tracked = names["112040"].UID
    assert tracked == began  # although it was moved
    assert "121008" not in {code(item) for item in third.ContentSequence}
    review = next(item for item in third.ContentSequence if code(item) == "REVIEW")
    assert review.ConceptCodeSequence[0].CodeValue == "PROPOSED"
    person = next(item for item in fourth.ContentSequence if code(item) == "121008")
    assert str(person.PersonName) == "bob x"
    ds = pydicom.dcmread(out / "sr.dcm")
    assert (ds.PreliminaryFlag, ds.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    groups = hd.sr.srread(out / "sr.dcm").content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["Nodule 1", "Nodule 4"]
    seg = hd.seg.segread(out / "seg.dcm")
    assert [item.TrackingUID for item in seg.SegmentSequence] == [group.tracking_uid for group in groups]
    assert [item.SegmentAlgorithmType for item in seg.SegmentSequence] == ["AUTOMATIC", "SEMIAUTOMATIC"]
    assert seg.number_of_segments == 2
    outlined = mask_of(kept.findings[0].content["outline"], kept.analysis.volume.geometry)
    frames = [f for f in seg.PerFrameFunctionalGroupsSequence
              if f.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1]  # fmt: skip
    assert len(frames) == outlined.array_zyx.shape[0]
    assert int(seg.pixel_array.sum()) == int(outlined.array_zyx.sum()) + 18
    assert validated(out / "sr.dcm") == validated(out / "seg.dcm") == []
    found = read_sr(out / "sr.dcm")
    np.testing.assert_allclose(found[0].center_xyz_mm, moved, atol=0.01)  # type: ignore[arg-type]
    assert found[0].diameter_mm == pytest.approx(9.5)
    assert found[0].observer == "Ada L."


def test_names_and_notes_in_any_script_and_length(kept: Kept, tmp_path: Path) -> None:
    name, note = "Jörg Müller-Lüdenscheidt 山田太郎 " + "x" * 30, 'größer? 山 "é" ' + "y" * 3000
    kept.change(1, by=name, note=note)
    files = write_study_outputs(kept.place, kept.study, tmp_path, volume=kept.analysis.volume)
    assert validated(files["sr.dcm"]) == []
    assert name.startswith(read_sr(files["sr.dcm"])[0].observer)
    (row, *_) = rows_in(tmp_path)
    assert (row["reader"], row["note"]) == (name, note)
    assert note in {item.get("TextValue") for item in groups_in(tmp_path)[0].ContentSequence}


def test_uids_are_new_for_new_versions_and_bytes_the_same_for_the_same(kept: Kept, tmp_path: Path) -> None:
    volume = kept.analysis.volume
    one = write_study_outputs(kept.place, kept.study, tmp_path / "one")
    two = write_study_outputs(kept.place, kept.study, tmp_path / "two", volume=volume)
    for name in OUTPUTS:
        assert one[name].read_bytes() == two[name].read_bytes(), name
    kept.change(3, state="rejected")
    three = write_study_outputs(kept.place, kept.study, tmp_path / "two", volume=volume)
    for name in ("sr.dcm", "seg.dcm"):
        before, after = pydicom.dcmread(one[name]), pydicom.dcmread(three[name])
        assert before.SOPInstanceUID != after.SOPInstanceUID
        assert before.SeriesInstanceUID != after.SeriesInstanceUID
        assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
        assert len(after.SOPInstanceUID) <= 64


def test_a_volume_whose_files_went_away_is_led_to_those_of_the_store(kept: Kept, tmp_path: Path) -> None:
    acquisition = kept.analysis.volume.acquisition
    gone = tuple(replace(one, path="/nowhere/a.dcm") for one in acquisition.instances if one is not None)
    volume = replace(kept.analysis.volume, acquisition=replace(acquisition, instances=gone))
    assert set(write_study_outputs(kept.place, kept.study, tmp_path / "out", volume=volume)) == set(OUTPUTS)


def test_all_rejected_is_a_report_too_and_old_outlines_go(kept: Kept, tmp_path: Path) -> None:
    volume = kept.analysis.volume
    write_study_outputs(kept.place, kept.study, tmp_path, volume=volume)
    for number in (1, 2, 3):
        kept.change(number, state="rejected")
    files = write_study_outputs(kept.place, kept.study, tmp_path, volume=volume)
    assert set(files) == set(OUTPUTS) - {"seg.dcm"}
    assert not (tmp_path / "seg.dcm").exists()
    assert rows_in(tmp_path) == report_in(tmp_path)["findings"] == []
    assert "3 findings were rejected by readers and left out." in report_in(tmp_path)["warnings"]
    assert validated(files["sr.dcm"]) == []


def test_a_second_analysis_overtakes_proposals_but_not_readers(kept: Kept, tmp_path: Path) -> None:
    kept.change(1, state="accepted")
    again = replace(kept.analysis, findings=kept.analysis.findings[:2])
    keep(kept.place, kept.study, again, "b" * 32)
    write_study_outputs(kept.place, kept.study, tmp_path, volume=kept.analysis.volume)
    rows = rows_in(tmp_path)
    assert [(row["number"], row["state"]) for row in rows] == [("1", "accepted"), ("5", "proposed")]
    uids = [one.uid for one in read_sr(tmp_path / "sr.dcm")]
    assert uids == [tracking_uid(kept.analysis, finding) for finding in kept.analysis.findings[:2]]


def test_findings_of_people_alone_and_of_other_series(kept: Kept, tmp_path: Path, source: Path) -> None:
    with open_workplace(tmp_path / "other") as place:
        (study,) = ingest(source, place.studies, origin="upload").studies
        with pytest.raises(InputError, match="neither an analysis nor findings"):
            write_study_outputs(place, study, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        (series,) = place.studies.series(study)
        content = {"center_xyz_mm": kept.findings[0].content["center_xyz_mm"]}
        place.findings.add(study_uid=study, series_uid=series["series_uid"], content=content, by="bob")
        place.findings.add(study_uid=study, series_uid="1.2.3", content=content, by="bob")
        files = write_study_outputs(place, study, tmp_path / "out")
        assert "1 finding was marked in another series and left out." in report_in(tmp_path / "out")["warnings"]
        assert len(read_sr(files["sr.dcm"])) == len(rows_in(tmp_path / "out")) == 1


def test_refusals_leave_nothing(kept: Kept, tmp_path: Path) -> None:
    out, volume = tmp_path / "out", kept.analysis.volume
    with pytest.raises(InputError, match="none of this UID"):
        write_study_outputs(kept.place, "1.2.99", out)
    with pytest.raises(InputError, match="expected series"):
        write_study_outputs(kept.place, kept.study, out, volume=replace(volume, series_uid="1.2"))
    short = replace(volume, array_zyx=volume.array_zyx[1:], geometry=volume.geometry.crop((1, 0, 0), GRID.shape_zyx),
                    acquisition=replace(volume.acquisition, instances=volume.acquisition.instances[1:]))  # fmt: skip
    with pytest.raises(InputError, match="as was analyzed"):
        write_study_outputs(kept.place, kept.study, out, volume=short)
    kept.change(1, outline={"start_zyx": [0, 0, 0], "shape_zyx": [99, 1, 1], "runs": [99]})
    with pytest.raises(InputError, match="runs of an outline"):
        write_study_outputs(kept.place, kept.study, out, volume=volume)
    kept.change(1, center_xyz_mm=[1, None, 2], outline=None)
    with pytest.raises(InputError, match="center of finding 1"):
        write_study_outputs(kept.place, kept.study, out, volume=volume)
    assert not out.exists()


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", " =1", "＝1", "\n-1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert safe_cell(text)[0] == "'"
    assert safe_cell("a=1") == "a=1"


@pytest.mark.shared
@pytest.mark.slow
def test_a_real_ct_after_its_readers(tmp_path: Path, lidc_0001: Path) -> None:
    from spicula.pipelines.analyze import analyze

    with open_workplace(tmp_path / "store") as place:
        (study,) = ingest(lidc_0001, place.studies, origin="upload").studies
        series = next(row for row in place.studies.series(study) if row["modality"] == "CT")
        volume = stored_volume(place, study, series["series_uid"])
        analysis = analyze(volume)
        findings = keep(place, study, analysis, "a" * 32)
        place.findings.change(findings[0].id, seen=1, by="ada", state="accepted")
        files = write_study_outputs(place, study, tmp_path / "out", volume=volume)
        assert validated(files["sr.dcm"]) == validated(files["seg.dcm"]) == []
        found = read_sr(files["sr.dcm"])
        assert len(found) == len(analysis.findings)
        assert [one.uid for one in found] == [tracking_uid(analysis, finding) for finding in analysis.findings]
        record = report_in(tmp_path / "out")
        assert record["findings"] == json.loads(json.dumps(to_record(analysis)["findings"]))
