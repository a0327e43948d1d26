"""Conditions on the facts of findings: ``diameter_mm > 6 and (type = 'lung' or not malignancy >= 4)``.

A test is a field, a sign and a value: ``= == != <> < <= > >=``, ``in ('a', 'b')``, ``not in (...)``, ``is missing`` or
``is not missing``; tests are joined by ``and``, ``or``, ``not`` and parentheses. Values are numbers or quoted text (a
quote within is doubled); a field whose name is no plain word is written in quotes too, and stands on the left.

There are two truth values. **A test of a missing fact is false, ``!=`` included; its ``not`` is true.** So
``malignancy != 5`` finds what was rated and not with 5; ``not malignancy = 5`` finds what was never rated as well. Text
is compared by code point, so dates ``YYYY-MM-DD`` order as they read.

The text is parsed here and nothing of it but values, as bound parameters, reaches a data base.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from spicula.core.embedding import Fact
from spicula.core.errors import InputError
from spicula.retrieval.index import Kind

Sign: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">="]
Placeholder: TypeAlias = Literal["?", "%s"]
"""How a data base writes a bound parameter: SQLite ``?``, PostgreSQL (psycopg) ``%s``."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A fact against a value; false where the fact is missing."""

    field: str
    sign: Sign
    value: Fact


@dataclass(frozen=True, slots=True)
class OneOf:
    """A fact is one of some values; false where it is missing."""

    field: str
    values: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """A fact is not known."""

    field: str


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: Condition


@dataclass(frozen=True, slots=True)
class AllOf:
    """Joined by ``and``."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Joined by ``or``."""

    parts: tuple[Condition, ...]


Condition: TypeAlias = Comparison | OneOf | Missing | Not | AllOf | AnyOf

_SIGNS: dict[str, Sign] = {
    "=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=",
}  # fmt: skip
_KEYWORDS = frozenset({"and", "or", "not", "in", "is", "missing"})
_TOKEN = re.compile(
    r"""(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
    |(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |(?P<word>[^\W\d]\w*)
    |(?P<sign>==|!=|<>|<=|>=|[=<>(),])""",
    re.VERBOSE,
)
_LONGEST, _MOST_TESTS, _DEEPEST = 20_000, 200, 50


def parse_condition(text: str, fields: Mapping[str, Kind]) -> Condition:
    """Read a condition.

    Args:
        text: As described at the top of this module.
        fields: Name and kind of all known fields.

    Returns:
        What it says.

    Raises:
        InputError: It cannot be read (the place is named), names an unknown field, compares text with a number, or is
            longer than a data base takes: 20,000 characters, 200 tests, 50 parentheses within each other.

    Example:
        >>> parse_condition("age >= 60 and pid is not missing", {"pid": "text", "age": "number"})
        AllOf(parts=(Comparison(field='age', sign='>=', value=60.0), Not(part=Missing(field='pid'))))
    """
    if len(text) > _LONGEST:
        raise InputError("condition", got=f"{len(text)} characters", expected=f"at most {_LONGEST}")
    return _Parser(text, fields).whole()


def to_sql(condition: Condition, *, placeholder: Placeholder = "?") -> tuple[str, list[Fact]]:
    """Write a condition as an SQL expression that is true or false, never NULL.

    Args:
        condition: From :func:`parse_condition`: its fields are columns of their own name, NULL where a fact is missing.
        placeholder: Of a bound parameter; ``%s`` is written for PostgreSQL, where text is compared as in SQLite, by
            code point (``COLLATE "C"``).

    Returns:
        The expression, and the values of its parameters in order.

    Example:
        >>> to_sql(Comparison("age", ">=", 60.0))
        ('("age" IS NOT NULL AND "age" >= ?)', [60.0])
    """
    match condition:
        case Comparison(field, sign, value):
            column = quoted_name(field, placeholder=placeholder)
            compared = column + _collation(value, placeholder)
            return f"({column} IS NOT NULL AND {compared} {'<>' if sign == '!=' else sign} {placeholder})", [value]
        case OneOf(field, values):
            column = quoted_name(field, placeholder=placeholder)
            places = ", ".join([placeholder] * len(values))
            return f"({column} IS NOT NULL AND {column} IN ({places}))", list(values)
        case Missing(field):
            return f"({quoted_name(field, placeholder=placeholder)} IS NULL)", []
        case Not(part):
            sql, values_of_part = to_sql(part, placeholder=placeholder)
            return f"(NOT {sql})", values_of_part
    joined = [to_sql(part, placeholder=placeholder) for part in condition.parts]
    word = " AND " if isinstance(condition, AllOf) else " OR "
    return f"({word.join(sql for sql, _ in joined)})", [value for _, values in joined for value in values]


def quoted_name(field: str, *, placeholder: Placeholder = "?") -> str:
    """Name of a column in SQL, in quotes; ``%`` is doubled for drivers that read ``%s``."""
    name = field.replace('"', '""')
    return '"' + (name.replace("%", "%%") if placeholder == "%s" else name) + '"'


def _collation(value: Fact, placeholder: Placeholder) -> str:
    return ' COLLATE "C"' if placeholder == "%s" and isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    """All tokens and an empty one at the end."""
    tokens: list[_Token] = []
    at = _end_of_space(text, 0)
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            hint = "close the quotes; a quote within is doubled" if text[at] in "'\"" else None
            raise _error(text, at, expected="a field, a sign, a number or text in quotes", hint=hint)
        kind, written = found.lastgroup, found.group()
        if kind == "word" and written.lower() in _KEYWORDS:
            kind, written = "keyword", written.lower()
        tokens.append(_Token(kind, written, at))
        at = _end_of_space(text, found.end())
    return [*tokens, _Token("end", "", at)]


def _end_of_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _error(text: str, at: int, *, expected: str, hint: str | None = None) -> InputError:
    rest = text[at:]
    got = f"{rest[:30]!r}{' ...' if len(rest) > 30 else ''} at character {at + 1}" if rest else "its end"
    return InputError(f"condition {_short(text)}", got=got, expected=expected, hint=hint)


def _short(text: str) -> str:
    return repr(text) if len(text) <= 200 else f"{text[:200]!r} ..."


class _Parser:
    """Reads tokens from left to right; one method a rule of the grammar."""

    def __init__(self, text: str, fields: Mapping[str, Kind]) -> None:
        self._text, self._fields = text, fields
        self._tokens = _tokens(text)
        self._next = self._tests = self._depth = 0

    def whole(self) -> Condition:
        condition = self._either()
        if self._token.kind != "end":
            hint = "text and dates go in quotes" if self._token.kind in ("number", "word") else None
            raise self._wrong("'and', 'or' or the end", hint=hint)
        return condition

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *texts: str, kind: str) -> _Token | None:
        """The next token if it is one of these."""
        token = self._token
        if token.kind != kind or (texts and token.text not in texts):
            return None
        self._next += 1
        return token

    def _wrong(self, expected: str, *, at: int | None = None, hint: str | None = None) -> InputError:
        return _error(self._text, self._token.at if at is None else at, expected=expected, hint=hint)

    def _either(self) -> Condition:
        parts = [self._both()]
        while self._take("or", kind="keyword"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _both(self) -> Condition:
        parts = [self._single()]
        while self._take("and", kind="keyword"):
            parts.append(self._single())
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _single(self) -> Condition:
        at, inverted = self._token.at, self._take("not", kind="keyword")
        if not inverted and not self._take("(", kind="sign"):
            return self._test()
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._wrong(f"at most {_DEEPEST} parentheses and 'not' within each other", at=at)
        condition: Condition
        if inverted:
            condition = Not(self._single())
        else:
            condition = self._either()
            if not self._take(")", kind="sign"):
                raise self._wrong("'and', 'or' or ')'")
        self._depth -= 1
        return condition

    def _test(self) -> Condition:
        self._tests += 1
        if self._tests > _MOST_TESTS:
            raise self._wrong(f"at most {_MOST_TESTS} tests")
        field = self._field()
        if self._take("is", kind="keyword"):
            inverted = self._take("not", kind="keyword")
            if not self._take("missing", kind="keyword"):
                raise self._wrong("'missing' or 'not missing'")
            return Not(Missing(field)) if inverted else Missing(field)
        inverted = self._take("not", kind="keyword")
        if self._take("in", kind="keyword"):
            one_of = OneOf(field, self._values(field))
            return Not(one_of) if inverted else one_of
        if inverted:
            raise self._wrong("'in'")
        sign = self._take(*_SIGNS, kind="sign")
        if sign is None:
            raise self._wrong("a comparison: = != < <= > >=, 'in' or 'is missing'")
        return Comparison(field, _SIGNS[sign.text], self._value(field))

    def _field(self) -> str:
        token = self._take(kind="word") or self._take(kind="quoted")
        if token is None:
            raise self._wrong(f"a field, one of {', '.join(self._fields)}")
        name = token.text if token.kind == "word" else _unquoted(token.text)
        if name not in self._fields:
            close = difflib.get_close_matches(name.lower(), [field.lower() for field in self._fields], n=1, cutoff=0.6)
            meant = next((field for field in self._fields if close and field.lower() == close[0]), None)
            hint = f"did you mean {meant}?" if meant is not None else None
            raise self._wrong(f"a field, one of {', '.join(self._fields)}", at=token.at, hint=hint)
        return name

    def _values(self, field: str) -> tuple[Fact, ...]:
        if not self._take("(", kind="sign"):
            raise self._wrong("'(' and values")
        values = [self._value(field)]
        while self._take(",", kind="sign"):
            values.append(self._value(field))
        if not self._take(")", kind="sign"):
            raise self._wrong("',' or ')'")
        return tuple(values)

    def _value(self, field: str) -> Fact:
        token = self._take(kind="number") or self._take(kind="quoted")
        kind = self._fields[field]
        expected = f"a number, as {field} is one" if kind == "number" else f"text in quotes, as {field} is text"
        if token is None or (token.kind == "number") != (kind == "number"):
            raise self._wrong(expected, at=token.at if token else None)
        if token.kind == "quoted":
            value = _unquoted(token.text)
            if not storable(value):
                raise self._wrong("text that can be written as UTF-8, without NUL", at=token.at)
            return value
        if not math.isfinite(number := float(token.text)):
            raise self._wrong("a finite number", at=token.at)
        return number


def _unquoted(text: str) -> str:
    return text[1:-1].replace(text[0] * 2, text[0])


def storable(text: str) -> bool:
    """Whether every data base can keep a text: UTF-8 without NUL."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
