"""The table of known nodules, tidy and untidy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spicula.core.errors import GeometryError, InputError
from spicula.core.finding import Case, Finding
from spicula.core.geometry import Geometry
from spicula.datasets.nodule_csv import COLUMNS, NoduleTable, load_cases, read_nodules, verify
from spicula.datasets.nodule_csv_writer import write_nodules
from spicula.datasets.phantom import Ball, thorax, thorax_grid
from spicula.formats import read_volume, write_nifti, write_nrrd

HEADER = "pid,nodule_id,image_path,coordX,coordY,coordZ"
GRID = Geometry.from_axes((10, 20, 30), (2.0, 0.5, 0.5), origin_xyz_mm=(-5, -6, -7))


def table(tmp: Path, text: str | bytes, **options: str) -> NoduleTable:
    path = tmp / "nodules.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_nodules(path, **options)  # type: ignore[arg-type]


def test_a_tidy_table(tmp_path):
    (tmp_path / "ct.nii.gz").touch()
    found = table(tmp_path, f'{HEADER},sex,note\n0012,007,ct.nii.gz,1.5,-2,3e1,F,"a, b"\n9,8,/x/ct.mha,0,0,0,,\n')
    first, second = found.rows
    assert (first.pid, first.nodule_id, first.line, first.error) == ("0012", "007", 2, "")
    assert first.image_path == tmp_path / "ct.nii.gz"
    assert first.center_xyz_mm(GRID) == (1.5, -2.0, 30.0)
    assert dict(first.extra) == {"sex": "F", "note": "a, b"}
    assert second.image_path == Path("/x/ct.mha")
    assert found.extra_columns == ("sex", "note")


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_marks_and_line_ends(tmp_path, start, delimiter, end):
    lines = [HEADER.replace(",", delimiter), delimiter.join(["1", "2", "a.mha", "1.5", "2.5", "3.5"]), "", ""]
    found = table(tmp_path, start + end.join(lines).encode())
    assert [row.position for row in found.rows] == [(1.5, 2.5, 3.5)]


def test_decimal_commas_with_semicolons(tmp_path):
    found = table(tmp_path, HEADER.replace(",", ";") + "\n1;2;a.mha;1,5;-2,5;3\n")
    assert found.rows[0].position == (1.5, -2.5, 3.0)


def test_columns_in_any_order_and_case(tmp_path):
    found = table(tmp_path, "COORDZ,coordy,CoordX,Image_Path,extra,nodule_id,PID\n3,2,1,a.mha,x,n,p\n")
    assert found.rows[0].position == (1.0, 2.0, 3.0)
    assert (found.rows[0].pid, found.rows[0].nodule_id) == ("p", "n")
    assert found.extra_columns == ("extra",)


def test_relative_paths_beside_the_table_then_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "work").mkdir()
    for name in ("in/both", "work/both", "work/here"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "work")
    found = table(
        tmp_path / "in", HEADER + "".join(f"\n1,{n},{name},0,0,0" for n, name in enumerate(["both", "here", "no"]))
    )
    assert [row.image_path for row in found.rows] == [tmp_path / "in" / "both", Path("here"), tmp_path / "in" / "no"]


def test_places_in_every_convention(tmp_path):
    point = (1.5, -2.0, 3.0)
    index = GRID.world_to_index(point)[::-1]
    for coords, numbers in (("lps", point), ("ras", (-1.5, 2.0, 3.0)), ("voxel", index)):
        text = f"{HEADER}\np,n,a.mha,{','.join(repr(float(x)) for x in numbers)}\n"
        row = table(tmp_path, text, coords=coords).rows[0]
        np.testing.assert_allclose(row.center_xyz_mm(GRID), point)
    outside = table(tmp_path, f"{HEADER}\np,n,a.mha,-100,0,0\n", coords="voxel").rows[0]
    with pytest.raises(GeometryError, match="if the numbers are millimetres"):
        outside.center_xyz_mm(GRID)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("p,n,a.mha,one,2,3", "line 2: coordX is 'one', not a number"),
        ("p,n,a.mha,1,,3", "coordY is empty"),
        ("p,n,a.mha,1,nan,3", "coordY is 'nan', not a number"),
        ("p,n,a.mha,1,inf,3", "coordY is 'inf'"),
        (",n,a.mha,1,2,3", "pid is empty"),
        ("p,n,,1,2,3", "image_path is empty"),
        ("p,n,a.mha,1,2", "5 cells in place of 6; coordZ is empty"),
        ("p,n,a.mha,1,2,3,4", "7 cells in place of 6"),
    ],
)
def test_a_bad_row_says_why_and_stops_no_other(tmp_path, row, words):
    bad, good = table(tmp_path, f"{HEADER}\n{row}\np,n,a.mha,1,2,3\n").rows
    assert words in bad.error
    assert good.error == ""
    if bad.position is None:
        with pytest.raises(InputError, match="three numbers"):
            bad.center_xyz_mm(GRID)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("pid,nodule_id,image_path,coordX,coordY\n1,2,3,4,5\n", "column coordZ missing"),
        ("1,2,a.mha,1,2,3\n", "the first line must name the columns"),
        (f"{HEADER},pid\n", "named twice"),
        (f"{HEADER}\n", "holds no row"),
        (b"\xff\xfe\x00", "UTF-16"),
        (f'{HEADER}\n"p,n,a.mha,1,2,3\n', "not a table"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        table(tmp_path, text)


def test_an_absent_table_and_unknown_coordinates_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_nodules(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="lps, ras or voxel"):
        table(tmp_path, HEADER, coords="xyz")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.booleans())
def test_noise_is_a_table_or_an_input_error(tmp_path, noise, headed):
    path = tmp_path / "noise.csv"
    path.write_bytes((",".join(COLUMNS).encode() + b"\n" if headed else b"") + noise)
    try:
        rows = read_nodules(path).rows
    except InputError:
        return
    assert all(row.error or row.position for row in rows)


def image(path: Path, *, balls=()) -> Path:
    return write_nifti(path, thorax(thorax_grid((5, 4, 4)), balls=balls))


BALL = Ball((70.0, 20.0, 30.0), 12.0)


def test_images_become_cases_with_what_is_known(tmp_path):
    image(tmp_path / "a.nii.gz", balls=[BALL])
    text = f"{HEADER},malignant,diameter_mm,split,texture,sex,truth_score,attribute_lobe\n"
    text += "p1,1,a.nii.gz,70,20,30,1,12,train,4.5,F,0.25,3\np1,2,a.nii.gz,-70,0,0,,,train,,F,,\n"
    (tmp_path / "nodules.csv").write_text(text)
    (case,) = load_cases(tmp_path)
    assert (case.patient_id, case.case_id, case.split) == ("p1", "a.nii.gz", "train")
    first, second = case.findings
    assert (first.center_xyz_mm, first.diameter_mm, first.score) == ((70.0, 20.0, 30.0), 12.0, None)
    assert dict(first.truth) == {"label": 1.0, "texture": 4.5, "score": 0.25}
    assert dict(first.attributes) == {"lobe": 3.0}
    assert dict(second.truth) == {}
    assert case.load_volume().geometry.contains(first.center_xyz_mm)


def test_voxel_tables_become_millimetres(tmp_path):
    grid = read_volume(image(tmp_path / "a.nii.gz")).geometry
    x, y, z = grid.world_to_index((70, 20, 30))[::-1]
    (tmp_path / "t.csv").write_text(f"{HEADER}\np,1,a.nii.gz,{x},{y},{z}\n")
    (case,) = load_cases(tmp_path, coords="voxel")
    np.testing.assert_allclose(case.findings[0].center_xyz_mm, (70, 20, 30))


numbers = st.floats(-500, 500)
names = st.sampled_from(["texture", "score", "pid", "split", "attribute_x", "truth_y", "margins=Smooth"])


facts_of_one = st.tuples(st.dictionaries(names, numbers), st.sampled_from([{}, {"label": 0.0}, {"label": 1.0}])).map(
    lambda parts: parts[0] | parts[1]
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.tuples(numbers, numbers, numbers), st.none() | st.floats(1, 50), facts_of_one),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_is_read_again(tmp_path, facts):
    findings = tuple(
        Finding(str(n), place, size, attributes=truth, truth=truth) for n, (place, size, truth) in enumerate(facts)
    )
    case = Case("0007", lambda: pytest.fail("no pixels needed"), findings, "a.nii.gz", "test")
    path = tmp_path / "out.csv"
    assert write_nodules([case], path, image_of=lambda case: case.case_id) == len(findings)
    (again,) = load_cases(path)
    assert (again.patient_id, again.case_id, again.split) == ("0007", "a.nii.gz", "test")
    for old, new in zip(findings, again.findings, strict=True):
        assert (new.id, new.center_xyz_mm, new.diameter_mm) == (old.id, old.center_xyz_mm, old.diameter_mm)
        assert (dict(new.truth), dict(new.attributes)) == (dict(old.truth), dict(old.attributes))


def test_the_image_is_where_the_volume_came_from_and_unknown_places_are_left_out(tmp_path):
    path = image(tmp_path / "a.nii.gz")
    findings = (Finding("1", (1.0, 2.0, 3.0)), Finding("2", (np.nan, 2.0, 3.0)))
    case = Case("p", lambda: read_volume(path), findings)
    assert write_nodules([case, Case("q", lambda: pytest.fail("nothing to write"))], tmp_path / "out.csv") == 1
    (row,) = read_nodules(tmp_path / "out.csv").rows
    assert (row.image_path, row.nodule_id) == (path.resolve(), "1")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("p,1,a.mha,1,2\n", "line 2: 5 cells"),
        ("p,1,a.mha,1,2,3\np,1,a.mha,1,2,3\n", "line 3: nodule 1 of p is there twice"),
        ("p,1,a.mha,1,2,3\nq,2,a.mha,1,2,3\n", "patients p and q"),
    ],
)
def test_cases_need_a_sound_table(tmp_path, rows, words):
    (tmp_path / "nodules.csv").write_text(f"{HEADER}\n{rows}")
    with pytest.raises(InputError, match=words):
        list(load_cases(tmp_path))
    assert any(check.state == "broken" and words[:6] in check.message for check in verify(tmp_path))


def test_rows_that_clash_do_not_hide_the_other_images(tmp_path):
    image(tmp_path / "a.nii.gz")
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:400])
    rows = [
        "p,1,a.nii.gz,1,2,3",
        "p,1,a.nii.gz,1,2,3",
        "q,1,a.nii.gz,1,2,3",
        "r,1,cut.nii.gz,1,2,3",
        "s,1,gone.nii.gz,1,2,3",
    ]
    (tmp_path / "nodules.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    found = list(verify(tmp_path, deep=True))
    assert [(check.what, check.line) for check in found if check.what == "row"] == [("row", 3), ("row", 4)]
    assert any("3 can be used" in check.message for check in found)
    assert {(check.state, check.path.name) for check in found if check.what == "image"} == {
        ("broken", "cut.nii.gz"), ("missing", "gone.nii.gz"),
    }  # fmt: skip


def test_a_folder_needs_one_table(tmp_path):
    with pytest.raises(InputError, match="got none"):
        load_cases(tmp_path)
    assert [check.state for check in verify(tmp_path)] == ["broken"]
    with pytest.raises(InputError, match="no such folder"):
        verify(tmp_path / "absent")


def test_verify_tells_ras_from_lps(tmp_path):
    image(tmp_path / "a.nii.gz", balls=[BALL])
    table = tmp_path / "nodules.csv"
    table.write_text(f"{HEADER}\np,1,a.nii.gz,70,20,30\np,2,b.nii.gz,0,0,0\n")
    states = {(check.state, check.what) for check in verify(tmp_path, deep=True)}
    assert states == {("ok", "rows"), ("missing", "image"), ("ok", "places"), ("ok", "tissue")}
    table.write_text(f"{HEADER}\np,1,a.nii.gz,-70,-20,30\np,2,a.nii.gz,999,0,0\n")
    checks = list(verify(tmp_path, deep=True))
    assert ("broken", "tissue") in {(check.state, check.what) for check in checks}
    assert any("outside the volume" in check.message for check in checks)
    table.write_text(f"{HEADER}\np,1,a.nii.gz,-70,-20,30\n")
    assert {check.state for check in verify(tmp_path, coords="ras", deep=True)} == {"ok"}


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("malignant", "yes", "line 2: malignant: got 'yes', expected 0 to 1 or nothing"),
        ("malignant", "3", "expected 0 to 1 or nothing"),
        ("diameter_mm", "big", "line 2: diameter_mm: got 'big'"),
        ("diameter_mm", "-8", "line 2: diameter_mm: got '-8', expected a number above 0 or nothing"),
        ("diameter_mm", "0", "line 2: diameter_mm: got '0'"),
        ("score", "inf", "line 2: score"),
    ],
)
def test_a_word_where_a_number_is_meant_is_no_missing_value(tmp_path, column, cell, words):
    (tmp_path / "nodules.csv").write_text(f"{HEADER},{column}\np,1,a.mha,1,2,3,{cell}\np,2,a.mha,1,2,3,N/A\n")
    with pytest.raises(InputError, match=words):
        load_cases(tmp_path)
    assert [check.line for check in verify(tmp_path) if check.what == "row"] == [2]


def test_images_that_are_not_opened_are_told(tmp_path):
    write_nrrd(tmp_path / "a.nrrd", thorax(thorax_grid((5, 4, 4)), balls=[BALL]))
    (tmp_path / "nodules.csv").write_text(f"{HEADER}\np,1,a.nrrd,70,20,30\n")
    assert [check.message for check in verify(tmp_path) if check.state == "warning"] == [
        "1 images (DICOM, NRRD) were not opened; verify(..., deep=True) reads them"
    ]
    assert {check.state for check in verify(tmp_path, deep=True)} == {"ok"}
