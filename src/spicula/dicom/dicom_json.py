"""Answers in DICOM JSON, read with as little trust as possible.

References:
    DICOM PS3.18 annex F (DICOM JSON Model) and annex I (Store Instances Response Module).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from pydicom.datadict import tag_for_keyword

from spicula.core.errors import InputError, SpiculaWarning
from spicula.dicom.remote import Lookup, status_in_words


def tag_of(keyword: str) -> str:
    """The key of an element in DICOM JSON."""
    return f"{tag_for_keyword(keyword):08X}"


def matches_in(body: bytes, url: str) -> list[Lookup]:
    """The matches of a QIDO answer; an empty body is none.

    Raises:
        InputError: It is something else.
    """
    try:
        items = json.loads(body) if body.strip() else []
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InputError(
            f"{url}: answer to a search", got="something else", expected="DICOM JSON", hint="is it DICOMweb?"
        )
    return [lookup_in(item) for item in items]


def lookup_in(item: Mapping[str, Any]) -> Lookup:
    """What gives the values of an object, whatever else it may hold."""

    def values(keyword: str) -> tuple[str, ...]:
        element = item.get(tag_of(keyword))
        found = element.get("Value") if isinstance(element, dict) else None
        if not isinstance(found, list):
            return ()
        return tuple(_text(value) for value in found)

    return values


def _text(value: object) -> str:
    if isinstance(value, dict):  # a person's name
        value = value.get("Alphabetic") or value.get("Ideographic") or value.get("Phonetic")
    return "" if value is None else str(value)


def uid_of(item: Lookup, key: str, *, url: str) -> str:
    """The UID that a match must have.

    Raises:
        InputError: It has none.
    """
    values = item(key)
    if not values or not values[0]:
        raise InputError(f"{url}: a match", got=f"no {key}", expected="one in each match")
    return values[0]


def answer_in(body: bytes) -> dict[str, Any]:
    """A STOW response; empty where it is no DICOM JSON: QIDO decides what was stored."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    answer = answer[0] if isinstance(answer, list) and answer else answer
    return answer if isinstance(answer, dict) else {}


def _sequence(answer: Mapping[str, Any], keyword: str) -> Iterator[Lookup]:
    element = answer.get(tag_of(keyword))
    items = element.get("Value") if isinstance(element, dict) else None
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict):
            yield lookup_in(item)


def failures_in(answer: Mapping[str, Any]) -> dict[str, str]:
    """What FailedSOPSequence names, with reasons; warnings in ReferencedSOPSequence are told."""
    failed = {}
    for item in _sequence(answer, "FailedSOPSequence"):
        uid, reason = item("ReferencedSOPInstanceUID"), item("FailureReason")
        words = status_in_words(int(reason[0])) if reason and reason[0].isdigit() else "no reason given"
        failed[uid[0] if uid else "an instance it does not name"] = words
    for item in _sequence(answer, "ReferencedSOPSequence"):
        warned = item("WarningReason")
        if warned and warned[0].isdigit() and int(warned[0]):
            name = (*item("ReferencedSOPInstanceUID"), "an instance")[0]
            warnings.warn(f"{name}: stored, {status_in_words(int(warned[0]))}", SpiculaWarning, stacklevel=4)
    return failed
