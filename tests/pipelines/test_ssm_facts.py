"""Facts of patients as columns."""

from __future__ import annotations

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.pipelines.ssm_facts import read_facts


def table(tmp_path, text):
    path = tmp_path / "facts.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_words_and_what_is_missing(tmp_path):
    path = table(tmp_path, "patient_id,age,sex\nA,60,F\nB,,M\nC,80,F\n")
    names, values = read_facts(path, ["C", "A", "B", "A", "D"])
    assert names == ("age", "age missing", "sex=F", "sex=M", "sex missing")
    np.testing.assert_array_equal(values[:, 1], [0, 0, 1, 0, 1])
    assert values[0, 0] == 80
    assert values[2, 0] == values[4, 0] == pytest.approx(200 / 3)
    np.testing.assert_array_equal(values[:, 2:], [[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age\n60\n", "patient_id"),
        ("patient_id\nA\n", "one fact or more"),
        ("", "patient_id"),
        ("patient_id,age\nA,60\nA,61\n", "patient A twice"),
        ("patient_id,age\nX,60\n", "none of the patients"),
        ("patient_id,age\nA,\n", "nothing for any"),
        ("patient_id,age\nA,inf\n", "not finite"),
    ],
)
def test_what_is_no_table_of_facts(tmp_path, text, expected):
    with pytest.raises(InputError, match=expected):
        read_facts(table(tmp_path, text), ["A", "B"])


def test_a_column_of_names_is_no_fact(tmp_path):
    rows = "\n".join(f"P{i},name{i}" for i in range(30))
    with pytest.raises(InputError, match="30 different words"):
        read_facts(table(tmp_path, f"patient_id,who\n{rows}\n"), [f"P{i}" for i in range(30)])


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_facts(tmp_path / "none.csv", ["A"])
