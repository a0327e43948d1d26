"""What the verification of every data set shares."""

from __future__ import annotations

import pytest

from spicula.core.errors import InputError
from spicula.datasets.verification import count_check, parsed_rows, require_folder, table_or_check


def test_counts():
    assert count_check("scans", 1018, 1018).state == "ok"
    check = count_check("scans", 7, 1018, hint="fetch the rest")
    assert (check.state, check.message) == ("warning", "7, published are 1,018: fetch the rest")


def test_a_table_or_what_is_wrong_with_it(tmp_path):
    path = tmp_path / "a.csv"
    assert [c.state for c in table_or_check(path, name="a.csv", required=("x",))[1]] == ["missing"]
    assert table_or_check(path, name="a.csv", required=("x",), optional=True) == (None, [])
    path.write_text("y\n1\n")
    table, checks = table_or_check(path, name="a.csv", required=("x",))
    assert table is None
    assert [(c.state, c.path) for c in checks] == [("broken", path)]


def test_bad_rows_are_a_check_each_and_the_good_ones_stay(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,2\n3\nfour,5\n6,7\n")
    table, ragged = table_or_check(path, name="a.csv", required=("x", "y"))
    assert [(c.state, c.line, c.message) for c in ragged] == [("broken", 3, "1 cells, expected 2")]
    found: list[float] = []
    broken = list(parsed_rows(table, lambda row: row.number("x"), what="a.csv", found=found))
    assert [(c.state, c.line) for c in broken] == [("broken", 4)]
    assert found == [1, 6]
    assert list(parsed_rows(None, float, what="a.csv", found=[])) == []  # type: ignore[arg-type]


def test_a_folder(tmp_path):
    assert require_folder(str(tmp_path)) == tmp_path
    with pytest.raises(InputError, match="no such folder"):
        require_folder(tmp_path / "absent")
