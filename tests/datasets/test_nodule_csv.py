"""The table of known nodules, tidy and untidy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spicula.core.errors import GeometryError, InputError
from spicula.core.geometry import Geometry
from spicula.datasets.nodule_csv import COLUMNS, NoduleTable, read_nodules

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
        (f"{HEADER}\n", "holds no nodule"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (f'{HEADER}\n"p,n,a.mha,1,2,3\n', "not a CSV file"),
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
