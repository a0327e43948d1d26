"""Tables of text: what is read, and what is refused with its file and line."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.formats.table import read_table


@pytest.fixture
def write(tmp_path):
    def write(content, name="marks.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_delimiters_and_case_of_the_columns(write, mark):
    path = write(f"SeriesUID{mark}CoordX\n007{mark}1.5\n")
    table = read_table(path, required=("seriesuid", "coordX"))
    assert table.columns == ("seriesuid", "coordX")
    assert table.rows[0]["seriesuid"] == "007", "leading zeros stay"
    assert table.rows[0].number("coordX") == 1.5


def test_gzip_byte_order_mark_and_crlf(write):
    path = write(gzip.compress("\ufeffa,b\r\n1,2\r\n\r\n3,4\r\n".encode()), "t.csv.gz")
    table = read_table(path)
    assert [row["a"] for row in table] == ["1", "3"]
    assert [row.line for row in table] == [2, 4]


def test_aliases_do_not_hide_a_column_of_the_right_name(write):
    path = write("seriesuid,score\nx,0.5\n")
    assert read_table(path, required=("probability",), aliases={"score": "probability"}).rows[0]["probability"] == "0.5"


def test_an_alias_gives_way_to_the_column_itself(write):
    table = read_table(write("coordX,x\n1.5,7\n"), required=("coordX",), aliases={"x": "coordX"})
    assert table.columns == ("coordX", "x")


def test_a_list_without_a_header(write):
    assert [row["seriesuid"] for row in read_table(write("007\n008\n"), columns=("seriesuid",))] == ["007", "008"]
    assert [row["seriesuid"] for row in read_table(write("seriesuid\n008\n"), columns=("seriesuid",))] == ["008"]


def test_decimal_comma_only_where_commas_do_not_separate(write):
    assert read_table(write("x;y\n1,5;2\n")).rows[0].number("x") == 1.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("seriesuid,coordX\n", "holds no row"),
        ("seriesuid\nx\n", "column coordX missing"),
        ("seriesuid,coordX,coordX\nx,1,2\n", "columns named twice"),
        ("seriesuid,coordX\nx\n", "line 2: got 1 cells, expected 2"),
        (b"\xff\xfe\x00", "UTF-16"),
        (gzip.compress(b"seriesuid,coordX\nx,1\n" * 50, mtime=0)[:-12], "damaged gzip"),
        ("seriesuid,coordX\n1,2\n".encode("utf-16-le"), "UTF-16"),
        ("seriesuid,coordX\n1,2\né,3\n".encode("latin-1"), "line 3: not UTF-8"),
        ('seriesuid,coordX\n"x,1\n', "line 2: not a table"),
    ],
)
def test_refusals_name_the_file(write, content, message):
    path = write(content)
    with pytest.raises(InputError, match=message) as error:
        read_table(path, required=("seriesuid", "coordX"))
    assert str(path) in str(error.value)


@pytest.mark.parametrize("cell", ["", "nan", "inf", "abc", "1e999"])
def test_a_cell_that_is_no_number_is_named(write, cell):
    row = read_table(write(f"a,x\n1,2\n1,{cell}\n"), required=("x",)).rows[1]
    with pytest.raises(InputError, match=r"marks.csv, line 3: x"):
        row.number("x")


def test_empty_cells_and_whole_numbers(write):
    row = read_table(write("a,b,c\n,3.0,3.5\n")).rows[0]
    assert row.number_or_none("a") is None
    assert row.whole("b") == 3
    with pytest.raises(InputError, match="whole number"):
        row.whole("c")
    with pytest.raises(InputError, match="a is empty"):
        row.text("a")


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "absent.csv")


@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6), min_size=2, max_size=2),
        min_size=1,
        max_size=5,
    )
)
def test_what_csv_writes_is_read_back(tmp_path_factory, rows):
    import csv

    path = tmp_path_factory.mktemp("table") / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["a", "b"])
        writer.writerows(rows)
    kept = [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
    assert [[row["a"], row["b"]] for row in read_table(path, empty=True)] == kept
