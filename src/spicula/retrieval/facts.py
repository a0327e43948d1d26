"""Facts of findings in the one form that every index keeps: which names and values there may be, and a checksum."""

from __future__ import annotations

import json
import math
import numbers
import zlib
from collections.abc import Mapping, Sequence

from spicula.core.embedding import Fact, Facts
from spicula.core.errors import InputError
from spicula.retrieval.index import Kind
from spicula.retrieval.where import storable

ALWAYS: Mapping[str, Kind] = {"pid": "text", "nodule_id": "text"}
"""Fields that every finding has."""

_WRITTEN = json.JSONEncoder(separators=(",", ":")).encode
_NAME_BYTES, _MOST_FIELDS = 60, 500


def checked_facts(
    finding_ids: Sequence[str], facts: Sequence[Facts], fields: Mapping[str, Kind]
) -> tuple[list[dict[str, Fact]], dict[str, Kind]]:
    """Bring facts into the form that is kept, or say what is wrong with them.

    Args:
        finding_ids: ``[n]``, to name what is wrong.
        facts: ``[n]``; a missing fact is left out.
        fields: Name and kind of the fields that are known.

    Returns:
        ``[n]`` facts, numbers as float; and the fields that are new, in the order they come.

    Raises:
        InputError: Another number of facts than ids, no ``pid`` or ``nodule_id``, a fact of another kind than its
            field, a number that is not finite, a text or a name that not every data base can keep.

    Example:
        >>> checked_facts(["a/1"], [{"pid": "a", "nodule_id": "1", "age": 60}], ALWAYS)
        ([{'pid': 'a', 'nodule_id': '1', 'age': 60.0}], {'age': 'number'})
    """
    if len(facts) != len(finding_ids):
        raise InputError("facts", got=len(facts), expected=f"{len(finding_ids)}, one for each finding")
    known, new, kept = dict(fields), dict[str, Kind](), []
    for finding_id, given in zip(finding_ids, facts, strict=True):
        if not storable(finding_id):
            raise InputError("finding id", got=repr(finding_id), expected="UTF-8 without NUL")
        one: dict[str, Fact] = {}
        for name, value in given.items():
            fact = _checked_fact(value, name, finding_id)
            kind: Kind = "text" if isinstance(fact, str) else "number"
            if name not in known:
                known[name] = new[name] = _checked_kind(name, kind, known)
            if kind != known[name]:
                got = f"{value!r}, a {kind}" if kind == "number" else f"{value!r}, text"
                raise InputError(f"fact {name!r} of {finding_id}", got=got, expected=f"a {known[name]}, as before")
            one[name] = fact
        absent = [name for name in ALWAYS if not one.get(name)]
        if absent:
            raise InputError(f"facts of {finding_id}", got=f"no {' and no '.join(absent)}", expected="both, not empty")
        kept.append(one)
    return kept, new


def facts_checksum(finding_id: str, facts: Facts) -> int:
    """CRC-32 of a finding's id and facts, whatever their order."""
    return zlib.crc32(_WRITTEN([finding_id, sorted(facts.items())]).encode("ascii"))


def _checked_fact(value: object, name: str, finding_id: str) -> Fact:
    if isinstance(value, str):
        if not storable(value):
            raise InputError(f"fact {name!r} of {finding_id}", got=repr(value), expected="UTF-8 without NUL")
        return str(value)
    number = None if isinstance(value, bool) or not isinstance(value, numbers.Real) else float(value)
    if number is not None and math.isfinite(number):
        return number + 0.0  # no negative zero
    raise InputError(
        f"fact {name!r} of {finding_id}",
        got=repr(value),
        expected="text or a finite number",
        hint="leave a missing fact out",
    )


def _checked_kind(name: str, kind: Kind, known: Mapping[str, Kind]) -> Kind:
    """The kind of a new field, if its name can be one."""
    if not isinstance(name, str) or not name.isprintable() or not name.strip() or name.startswith("_"):
        raise InputError("name of a field", got=repr(name), expected="printable text that does not begin with _")
    if not storable(name) or len(name.encode()) > _NAME_BYTES:
        raise InputError("name of a field", got=repr(name), expected=f"at most {_NAME_BYTES} bytes of UTF-8")
    alike = next((other for other in known if other.casefold() == name.casefold()), None)
    if alike is not None:
        raise InputError("name of a field", got=repr(name), expected=f"{alike!r}, written as before")
    if len(known) >= _MOST_FIELDS:
        raise InputError("fields of the index", got=f"one more: {name!r}", expected=f"at most {_MOST_FIELDS}")
    return kind
