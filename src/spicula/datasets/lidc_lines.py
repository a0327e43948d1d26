"""The line of a reading file of LIDC-IDRI that holds something which is no rating and no place."""

from __future__ import annotations

import math
from xml.parsers import expat

MAX_RATING = 6
"""The largest number of any trait's scale."""

RATING_TAGS = (
    "subtlety", "internalStructure", "calcification", "sphericity", "margin", "lobulation", "spiculation", "texture",
    "malignancy",
)  # fmt: skip
"""Elements with the nine ratings, as the files order them."""

_MARKS = ("unblindedReadNodule", "nonNodule")


def line_of_fault(content: bytes) -> int | None:
    """Look for the first rating, height or pixel that cannot be read; slow, for files known to be faulty.

    Args:
        content: A well-formed reading file without a document type.

    Returns:
        Its line, from 1; None where every value can be read, so that something else is wrong.
    """
    parser = expat.ParserCreate()
    inside: list[str] = []
    text: list[str] = []
    started: list[int] = []
    found: list[int] = []

    def start(tag: str, _: dict[str, str]) -> None:
        inside.append(tag)
        text.clear()
        started.append(parser.CurrentLineNumber)

    def end(tag: str) -> None:
        line = started.pop()
        if any(mark in inside for mark in _MARKS) and not _is_right(tag, "".join(text).strip()):
            found.append(line)
        inside.pop()
        text.clear()

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text.append
    try:
        parser.Parse(content, True)
    except expat.ExpatError:
        return None
    return found[0] if found else None


def _is_right(tag: str, text: str) -> bool:
    """Whether the text of an element is what its tag promises; always, for other tags."""
    try:
        if tag in RATING_TAGS:
            return 0 <= int(text or 0) <= MAX_RATING
        if tag == "imageZposition":
            return math.isfinite(float(text))
        if tag in ("xCoord", "yCoord"):
            return -(2**31) <= int(text) < 2**31
    except ValueError:
        return False
    return True
