"""Spreadsheets as tables of text."""

import openpyxl
import pytest

from spicula.core.errors import InputError
from spicula.formats.spreadsheet import read_sheet


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "nodules.xlsx"
    made = openpyxl.Workbook()
    sheet = made.active
    sheet.append([None, None, None])
    sheet.append(["Scan\nNumber", "Diagnosis", None])
    sheet.append(["007", 3.0, None])
    sheet.append([None, None, None])
    sheet.append(["008", 2.5, None])
    made.create_sheet("empty")
    made.save(path)
    return path


def test_cells_rows_and_names(book):
    table = read_sheet(book, required=("scan number",))
    assert table.columns == ("scan number", "Diagnosis")
    assert [(row.line, row["scan number"], row["Diagnosis"]) for row in table] == [(3, "007", "3"), (5, "008", "2.5")]


def test_refusals(book, tmp_path):
    with pytest.raises(InputError, match="is empty"):
        read_sheet(book, sheet="empty")
    with pytest.raises(InputError, match="expected one of Sheet, empty"):
        read_sheet(book, sheet="other")
    with pytest.raises(InputError, match="no such file"):
        read_sheet(tmp_path / "absent.xlsx")
    for name in ("text.xlsx", "text.xls"):
        (tmp_path / name).write_text("not a spreadsheet")
        with pytest.raises(InputError, match="is not an"):
            read_sheet(tmp_path / name)


@pytest.mark.shared
def test_the_published_sheets(shared):
    test = read_sheet(shared / "lungx" / "TestSet_NoduleData_PublicRelease_wTruth.xlsx", required=("Final Diagnosis",))
    assert sum(bool(row["Final Diagnosis"]) for row in test) == 73
    diagnosis = read_sheet(shared / "lidc_xml" / "tcia-diagnosis-data-2012-04-20.xls")
    assert len(diagnosis) == 157
    assert diagnosis.rows[0][diagnosis.columns[0]] == "LIDC-IDRI-0068"
