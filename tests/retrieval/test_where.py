"""Conditions: what they mean in SQLite is what they mean in Python, and nothing of the text is run."""

from __future__ import annotations

import operator
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.retrieval.where import (
    AllOf,
    AnyOf,
    Comparison,
    Missing,
    Not,
    OneOf,
    parse_condition,
    quoted_name,
    to_sql,
)

FIELDS = {"pid": "text", "diameter_mm": "number", "type": "text", "odd \"name\" % or 'so'": "text", "in": "number"}
SIGNS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def holds(condition, facts):
    """Plain evaluation, the meaning of a condition."""
    match condition:
        case Comparison(field, sign, value):
            return field in facts and SIGNS[sign](facts[field], value)
        case OneOf(field, values):
            return field in facts and facts[field] in values
        case Missing(field):
            return field not in facts
        case Not(part):
            return not holds(part, facts)
        case AllOf(parts):
            return all(holds(part, facts) for part in parts)
        case AnyOf(parts):
            return any(holds(part, facts) for part in parts)


def in_sqlite(condition, table):
    connection = sqlite3.connect(":memory:")
    columns = ", ".join(
        f"{quoted_name(name)} {'REAL' if kind == 'number' else 'TEXT'}" for name, kind in FIELDS.items()
    )
    connection.execute(f"CREATE TABLE facts ({columns})")
    marks = ", ".join("?" * len(FIELDS))
    connection.executemany(
        f"INSERT INTO facts VALUES ({marks})", [[facts.get(name) for name in FIELDS] for facts in table]
    )
    sql, values = to_sql(condition)
    found = [row[0] for row in connection.execute(f"SELECT rowid FROM facts WHERE {sql} ORDER BY rowid", values)]
    truth = {row[0] for row in connection.execute(f"SELECT {sql} FROM facts", values)}
    connection.close()
    assert truth <= {0, 1}
    return [number - 1 for number in found]


texts = st.one_of(
    st.sampled_from(["", "a", "B", "b", "ä", "2005-01-01", "x' OR '1'='1", '"', "%s"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4),
)
numbers = st.one_of(st.sampled_from([0.0, 1.0, 6.0, -2.5]), st.floats(allow_nan=False, allow_infinity=False, width=64))
values = {"text": texts, "number": numbers}
tables = st.lists(st.fixed_dictionaries({}, optional={name: values[kind] for name, kind in FIELDS.items()}), max_size=8)


def leaves_of(name):
    value = values[FIELDS[name]]
    return st.one_of(
        st.builds(Comparison, st.just(name), st.sampled_from(list(SIGNS)), value),
        st.builds(OneOf, st.just(name), st.lists(value, min_size=1, max_size=3).map(tuple)),
        st.just(Missing(name)),
    )


conditions = st.recursive(
    st.sampled_from(list(FIELDS)).flatmap(leaves_of),
    lambda part: st.one_of(
        st.builds(Not, part),
        st.builds(AllOf, st.lists(part, min_size=2, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(part, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)


def quoted(text, mark="'"):
    return mark + text.replace(mark, mark * 2) + mark


def written(condition):
    """A condition as a user would write it."""

    def name(field):
        return field if field.isidentifier() and field != "in" else quoted(field, '"')

    def value(given):
        return quoted(given) if isinstance(given, str) else repr(given)

    match condition:
        case Comparison(field, sign, given):
            return f"{name(field)} {sign} {value(given)}"
        case OneOf(field, given):
            return f"{name(field)} in ({', '.join(map(value, given))})"
        case Missing(field):
            return f"{name(field)} is missing"
        case Not(part):
            return f"not ({written(part)})"
    word = " and " if isinstance(condition, AllOf) else " OR "
    return word.join(f"({written(part)})" for part in condition.parts)


@given(conditions, tables)
@settings(max_examples=150, deadline=None)
def test_sqlite_agrees_with_python(condition, table):
    assert in_sqlite(condition, table) == [n for n, facts in enumerate(table) if holds(condition, facts)]


@given(conditions)
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_back(condition):
    assert parse_condition(written(condition), FIELDS) == condition


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text("()'\"=<>andortinsmg ,.0%-;", max_size=40)
)
@settings(max_examples=150, deadline=None)
def test_any_text_is_read_or_refused(text):
    try:
        condition = parse_condition(text, FIELDS)
    except InputError:
        return
    in_sqlite(condition, [{"pid": "a"}])


def test_the_example_of_the_documents():
    fields = {"diameter_mm": "number", "type": "text", "malignancy": "number", "study_date": "text"}
    text = "diameter_mm > 6 and (type = 'lung' or not malignancy >= 4) and study_date < '2005-01-01'"
    condition = parse_condition(text, fields)
    facts = {"diameter_mm": 7, "type": "liver", "study_date": "2004-12-31"}
    assert holds(condition, facts)
    assert not holds(condition, facts | {"malignancy": 4})
    assert not holds(condition, facts | {"study_date": "2005-01-01"})
    assert to_sql(condition, placeholder="%s")[0] == (
        '(("diameter_mm" IS NOT NULL AND "diameter_mm" > %s)'
        ' AND (("type" IS NOT NULL AND "type" COLLATE "C" = %s)'
        ' OR (NOT ("malignancy" IS NOT NULL AND "malignancy" >= %s)))'
        ' AND ("study_date" IS NOT NULL AND "study_date" COLLATE "C" < %s))'
    )


def test_and_binds_closer_than_or():
    a, b, c = (Comparison("in", "=", float(n)) for n in range(3))
    assert parse_condition('"in" = 0 or "in" = 1 and "in" == 2', FIELDS) == AnyOf((a, AllOf((b, c))))
    assert parse_condition('not "in" = 0 and "in" = 1', FIELDS) == AllOf((Not(a), b))
    assert parse_condition('"in" NOT IN (0) and "in" <> 1', FIELDS) == AllOf(
        (Not(OneOf("in", (0.0,))), Comparison("in", "!=", 1.0))
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got its end, expected a field, one of pid, diameter_mm"),
        ("diameter_mm > > 6", r"got '> 6' at character 15, expected a number, as diameter_mm is one"),
        ("daimeter_mm > 6", r"at character 1, expected a field, one of pid, .* Hint: did you mean diameter_mm\?"),
        ("PID = 'a'", r"did you mean pid\?"),
        ("diameter_mm > 'six'", "expected a number, as diameter_mm is one"),
        ("type = 6", "expected text in quotes, as type is text"),
        ("type = lung", "expected text in quotes"),
        ("type in ('a', 6)", "'6\\)' at character 15"),
        ("type in 'a'", r"expected '\(' and values"),
        ("type in ('a'", r"got its end, expected ',' or '\)'"),
        ("type is 'a'", "expected 'missing' or 'not missing'"),
        ("type not = 'a'", "expected 'in'"),
        ("type", "expected a comparison"),
        ("(type = 'a'", r"expected 'and', 'or' or '\)'"),
        ("type = 'a' type = 'b'", "expected 'and', 'or' or the end"),
        ("pid > '2005' -01", "text and dates go in quotes"),
        ("type = 'a", "close the quotes"),
        ("type = 'a\0'", "without NUL"),
        ("type = '\ud800'", "UTF-8"),
        ("diameter_mm > 1e999", "finite"),
        ("diameter_mm > 0x10", "expected a field, a sign, a number"),
        ("6 < diameter_mm", "at character 1, expected a field"),
        ("(" * 60 + "type = 'a'" + ")" * 60, "at most 50"),
        ("not " * 60 + "type = 'a'", "at most 50"),
        (" or ".join(["type = 'a'"] * 201), "at most 200 tests"),
        ("x" * 20_001, "20001 characters"),
    ],
)
def test_what_cannot_be_read_is_refused_at_its_place(text, message):
    with pytest.raises(InputError, match=message):
        parse_condition(text, FIELDS)


@pytest.mark.parametrize(
    "text",
    [
        "1=1",
        "pid = 'a'; DROP TABLE facts",
        "pid = 'a' --",
        "pid = 'a' UNION SELECT 1",
        "pid LIKE '%'",
        "pid = (SELECT 1)",
        "rowid = 1",
        '"rowid" = 1',
        "pid = 'a' or 1",
        "load_extension('x') = 'a'",
        "pid = __import__('os').name",
        "[pid] = 'a'",
        "`pid` = 'a'",
        "pid = $1",
        "pid = ?",
    ],
)
def test_sql_and_code_are_refused(text):
    with pytest.raises(InputError):
        parse_condition(text, FIELDS)


def test_values_never_become_sql():
    nasty = "a' OR 1=1; DROP TABLE facts; --"
    condition = parse_condition(f"pid = {quoted(nasty)}", FIELDS)
    assert to_sql(condition) == ('("pid" IS NOT NULL AND "pid" = ?)', [nasty])
    assert in_sqlite(condition, [{"pid": "a"}, {"pid": nasty}]) == [1]


def test_two_hundred_tests_fit():
    condition = parse_condition(" and ".join(["not (type = 'a')"] * 200), FIELDS)
    assert in_sqlite(condition, [{"type": "b"}]) == [0]
