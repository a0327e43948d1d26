"""NLST: tables in the columns and codes of the trial's deliveries, nodules in those of the published training table."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.core.semantics import SemanticFeatures
from spicula.datasets import nlst
from spicula.datasets.nlst_tables import COLUMNS, Outcome, find_tables, stream
from spicula.datasets.phantom import Ball, thorax, thorax_grid
from spicula.dicom.writer import write_series
from spicula.formats import write_nifti

ABNORMALITIES = """"dataset_version","pid","sct_ab_desc","sct_ab_num","sct_ab_source","sct_epi_loc",\
"sct_found_after_comp","sct_long_dia","sct_margins","sct_perp_dia","sct_pre_att","sct_slice_num","study_yr"
"v",100012,51,1,1,1,0,8,2,5,1,38,0
"v",100012,64,2,1,,0,,,,,,0
"v",100012,51,1,1,1,0,15,1,10,2,39,1
"v",100080,51,1,1,1,0,,9,,3,999,0
"v",100005,51,2,1,6,0,4,.N,4,.M,50,2
"v",100005,51,1,1,3,0,11,2,8,1,57,2
"""
PARTICIPANTS = """pid,age,candx_days,fup_days,scr_days0,scr_days1,scr_days2
100012,60,420,2100,10,400,.E
100080,61,.N,300,20,,
100005,62,,2500,1,370,740
100099,62,100,2500,200,,
"""
CANCERS = "pid,candx_days,lc_order,first_lc\n100012,420,1,1\n100012,900,2,0\n100099,100,1,1\n"
NODULES = """pid,nodule_id,image_path,coordX,coordY,coordZ,malignant,longest_axial_diameter_(mm),short_diameter_(mm),\
nodule_margin_conspicuity,nodule_margins,additional_nodule_margins,nodule_shape,nodule_consistency,necrosis,\
airway_cut-off,level_of_suspicion_of_lung_cancer
121389,0,a.nii.gz,70,20,30,1.0,14,10,Well marginated,Spiculated/Serrated,Lobulated,Complex/Irregular,Part-solid,\
Absent,,High
121389,1,a.nii.gz,-70,0,0,0.0,,,Poorly marginated,Smooth,,Round,Solid,,,Moderately Low
"""


def tables(root: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (root / f"{name}.csv").write_text(text)
    return root


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    return tables(
        tmp_path, sct_abnormalities_d040722=ABNORMALITIES, participant_d040722=PARTICIPANTS, lung_cancer=CANCERS
    )


def test_screens_have_noted_nodules_without_a_place(trial):
    cases = {case.case_id: case for case in nlst.load_cases(trial)}
    assert sorted(cases) == ["100005_T2", "100012_T0", "100012_T1", "100080_T0"]
    first = cases["100012_T0"].findings[0]
    assert np.isnan(first.center_xyz_mm).all()
    assert (first.id, first.diameter_mm, dict(first.attributes)) == ("1", 6.5, {"slice_number": 38.0})
    assert dict(first.truth) == {
        "location": 1, "margins": 2, "attenuation": 1, "longest_diameter_mm": 8, "short_diameter_mm": 5,
        "participant_cancer_1y": 0, "participant_days_to_cancer": 410,
    }  # fmt: skip
    assert cases["100012_T1"].findings[0].truth["participant_cancer_1y"] == 1
    vague = cases["100080_T0"].findings[0]
    assert vague.diameter_mm is None
    assert dict(vague.truth) == {"location": 1, "attenuation": 3}
    assert dict(vague.attributes) == {}
    assert [f.id for f in cases["100005_T2"].findings] == ["1", "2"]
    assert "margins" not in cases["100005_T2"].findings[1].truth
    with pytest.raises(InputError, match=r"participant 100012, round 0.*get-nlst"):
        cases["100012_T0"].load_volume()


def test_outcomes_are_counted_from_each_screen(trial):
    found = {(o.pid, o.year): o for o in nlst.load_outcomes(trial)}
    assert found["100012", 0] == Outcome("100012", 0, 410, 2090)
    assert set(found) == {("100012", 0), ("100012", 1), ("100080", 0), ("100005", 0), ("100005", 1), ("100005", 2),
                          ("100099", 0)}  # fmt: skip
    assert [found[key].cancer_within(365) for key in (("100012", 0), ("100012", 1))] == [False, True]
    assert found["100080", 0].cancer_within(365) is None  # followed for 280 days
    assert found["100080", 0].cancer_within(280) is False
    assert found["100005", 2].cancer_within() is False
    assert found["100099", 0].cancer_within() is None  # diagnosed before the screen


def test_images_of_a_round_are_found_by_participant_and_fictitious_year(trial):
    folder = trial / "NLST" / "100012" / "01-02-2000-NLST-LSS-87028" / "1.000000-0OPAGELSPLUS-40846"
    write_series(folder, thorax(thorax_grid((8, 8, 8))), patient_id="100012", description="chest")
    cases = {case.case_id: case for case in nlst.load_cases(trial)}
    assert cases["100012_T1"].load_volume().acquisition.patient_id == "100012"
    with pytest.raises(InputError, match="no DICOM"):
        cases["100012_T0"].load_volume()
    assert any("1 studies of 1 participants" in check.message for check in nlst.verify(trial))


def test_a_sound_delivery_is_verified(trial):
    checks = list(nlst.verify(trial))
    assert {check.state for check in checks} == {"ok"}
    messages = " | ".join(check.message for check in checks)
    assert "6, of these 5 nodules" in messages
    assert "4, 2 with lung cancer" in messages
    assert "2 participants, as in their table" in messages


@pytest.mark.parametrize(
    ("name", "text", "words", "line"),
    [
        ("sct_abnormalities_d040722", ABNORMALITIES.replace(",8,2,5,1,38,0", ",8,7,5,1,38,0"), "sct_margins: got 7", 2),
        ("sct_abnormalities_d040722", ABNORMALITIES.replace(",8,2,5,1,38,0", ",-8,2,5,1,38,0"), "sct_long_dia", 2),
        ("sct_abnormalities_d040722", ABNORMALITIES.replace(",39,1", ",39,5"), "study_yr: got 5", 4),
        ("participant_d040722", PARTICIPANTS.replace("420,2100", "soon,2100"), "candx_days", 2),
    ],
)
def test_a_value_outside_the_dictionary_is_named(trial, name, text, words, line):
    tables(trial, **{name: text})
    with pytest.raises(InputError, match=words):
        list(nlst.load_cases(trial))
    assert [check.line for check in nlst.verify(trial) if words in check.message] == [line]


def test_rows_that_are_there_twice_and_other_days_are_found(trial):
    doubled = ABNORMALITIES + '"v",100012,51,1,1,1,0,8,2,5,1,38,0\n'
    tables(trial, sct_abnormalities_d040722=doubled, lung_cancer=CANCERS.replace("420", "421"),
           participant_d040722=PARTICIPANTS + "100005,62,,2500,1,370,740\n")  # fmt: skip
    broken = {check.what for check in nlst.verify(trial) if check.state == "broken"}
    assert broken == {"abnormalities", "cancers", "participants"}


def test_two_tables_of_a_kind_and_none(trial, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "nlst_780_prsn_idc_20210527.csv").write_text(PARTICIPANTS)
    with pytest.raises(InputError, match="two tables of participants"):
        nlst.load_cases(trial)
    assert [check.state for check in nlst.verify(trial)] == ["broken"]
    empty = tmp_path / "empty" / "below"
    empty.mkdir(parents=True)
    with pytest.raises(InputError, match="no table of abnormalities"):
        nlst.load_cases(empty)
    assert [check.state for check in nlst.verify(empty)] == ["missing"]


def test_a_gzipped_table_is_streamed_flat(tmp_path):
    filler = ",".join("x" * 20 for _ in range(60))
    header = ",".join(COLUMNS["participants"]) + "," + ",".join(f"c{n}" for n in range(60))
    path = tmp_path / "nlst_780_prsn_idc_20210527.csv.gz"
    with gzip.open(path, "wt") as text:
        text.write(header + "\n")
        text.writelines(f"{100000 + n},,900,1,2,3,{filler}\n" for n in range(4000))
    assert find_tables(tmp_path) == {"participants": path}
    tracemalloc.start()
    assert sum(1 for _ in stream(path, COLUMNS["participants"])) == 4000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6  # the table is 5 MB


def test_a_cut_table_is_one_check(trial):
    path = trial / "participant_d040722.csv"
    packed = gzip.compress(PARTICIPANTS.encode() * 200)
    path.unlink()
    (trial / "participant_d040722.csv.gz").write_bytes(packed[: len(packed) // 2])
    found = [check for check in nlst.verify(trial) if check.state == "broken"]
    assert ("participants", str(trial / "participant_d040722.csv.gz")) in {(c.what, str(c.path)) for c in found}


def test_located_nodules_speak_the_vocabulary(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", thorax(thorax_grid((5, 4, 4)), balls=[Ball((70.0, 20.0, 30.0), 12.0)]))
    tables(tmp_path, nodules=NODULES)
    (case,) = nlst.load_cases(tmp_path)
    first, second = case.findings
    assert (case.patient_id, first.center_xyz_mm, first.diameter_mm) == ("121389", (70.0, 20.0, 30.0), 12.0)
    assert (first.truth["label"], second.truth["label"]) == (1.0, 0.0)
    words = SemanticFeatures.from_truth(first.truth)
    assert words.margin_words == ("Lobulated", "Spiculated")
    assert (words.shape, words.consistency, words.suspicion) == ("Irregular", "Part-solid", "High")
    assert (words.necrosis, words.airway_cutoff) == (False, None)
    assert SemanticFeatures.from_truth(second.truth).necrosis is None
    assert second.diameter_mm is None
    assert not any("(mm)" in name or name.startswith("nodule_") for name in first.truth)
    states = {(check.what, check.state) for check in nlst.verify(tmp_path, deep=True)}
    assert ("words", "ok") in states
    assert ("tissue", "ok") in states or ("tissue", "warning") in states


def test_an_unknown_word_is_an_error_with_its_column_and_line(tmp_path):
    tables(tmp_path, nodules=NODULES.replace("Complex/Irregular", "Lumpy"))
    with pytest.raises(InputError, match=r"line 2: column nodule_shape: nodule shape: got 'Lumpy', expected one of"):
        list(nlst.load_cases(tmp_path))
    broken = [check for check in nlst.verify(tmp_path) if check.what == "words" and check.state == "broken"]
    assert [check.line for check in broken] == [2]


def test_the_source_can_be_chosen(trial):
    tables(trial, nodules=NODULES)
    assert next(nlst.load_cases(trial)).patient_id == "121389"
    assert next(nlst.load_cases(trial, source="screens")).case_id == "100005_T2"
    (trial / "nodules.csv").unlink()
    with pytest.raises(InputError, match="no table of nodules"):
        nlst.load_cases(trial, source="nodules")
