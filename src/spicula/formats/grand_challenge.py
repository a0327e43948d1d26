"""Points in the JSON of grand-challenge.org (``"type": "Multiple points"``), with or without a probability each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from spicula.core.errors import InputError
from spicula.core.files import written_aside
from spicula.core.finding import Finding

KIND = "Multiple points"

_MOST = 10**9


def read_json(path: str | Path) -> Mapping[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        InputError: The file cannot be read, is not JSON (named with line and column) or not an object.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not JSON text: {error}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}, column {error.colno} is not JSON: {error.msg}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}", got=f"JSON of type {type(content).__name__}", expected="an object in braces")
    return content


def read_points(path: str | Path, *, probabilities: bool = False) -> tuple[Finding, ...]:
    """Read the points of a file.

    Args:
        path: For example ``nodule-locations.json`` or ``lung-nodule-malginancy-likelihoods.json``.
        probabilities: Whether each point must have one; it becomes ``Finding.score``.

    Returns:
        A Finding for each point: its name as id, its place in LPS mm; nothing where the list is empty.

    Raises:
        InputError: Not such a file; a point without three finite numbers or without a name of its own; a probability
            that is missing or not within 0 to 1.

    References:
        World coordinates of the platform are those of ITK: LPS mm.
    """
    content = read_json(path)
    if content.get("type") != KIND:
        raise InputError(f"{path}: type", got=repr(content.get("type")), expected=repr(KIND))
    points = content.get("points")
    if not isinstance(points, list):
        raise InputError(f"{path}: points", got=f"type {type(points).__name__}", expected="a list")
    findings = tuple(
        _finding(f"{path}: point {number}", point, probabilities) for number, point in enumerate(points, start=1)
    )
    _check_names(str(path), findings)
    return findings


def write_points(path: str | Path, findings: Sequence[Finding], probabilities: Sequence[float] | None = None) -> None:
    """Write points; the file appears whole or not at all.

    Args:
        path: The file.
        findings: Their ids become names.
        probabilities: One for each finding, 0 to 1; none are written if None.

    Raises:
        InputError: Ids that are empty or given twice, places or probabilities that are not finite numbers in range, or
            another number of probabilities than of findings.
    """
    path = Path(path)
    if probabilities is not None and len(probabilities) != len(findings):
        raise InputError(f"{path}: probabilities", got=len(probabilities), expected=f"{len(findings)}, one a finding")
    points: list[dict[str, Any]] = [{"name": f.id, "point": [float(v) for v in f.center_xyz_mm]} for f in findings]
    for point, probability in zip(points, probabilities or (), strict=False):
        point["probability"] = float(probability)
    for number, point in enumerate(points, start=1):
        _finding(f"{path}: point {number}", point, probabilities is not None)
    _check_names(str(path), findings)
    content = {
        "name": "Points of interest", "type": KIND, "points": points, "version": {"major": 1, "minor": 0}
    }  # fmt: skip
    with written_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _finding(where: str, point: object, probabilities: bool) -> Finding:
    """One point, checked."""
    if not isinstance(point, dict):
        raise InputError(where, got=f"type {type(point).__name__}", expected="an object with name and point")
    name, place, score = point.get("name"), point.get("point"), point.get("probability")
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{where}: name", got=repr(name), expected="a text that is not empty")
    if not isinstance(place, list) or len(place) != 3 or not all(map(_is_number, place)):
        raise InputError(f"{where} ({name}): point", got=repr(place), expected="three finite numbers in LPS mm")
    if probabilities and not (_is_number(score) and 0 <= score <= 1):
        hint = "logits must be turned into probabilities" if _is_number(score) else None
        raise InputError(f"{where} ({name}): probability", got=repr(score), expected="a number from 0 to 1", hint=hint)
    x, y, z = (float(value) for value in place)
    return Finding(name, (x, y, z), score=float(score) if probabilities and _is_number(score) else None)


def _is_number(value: object) -> TypeGuard[float]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < _MOST


def _check_names(where: str, findings: Sequence[Finding]) -> None:
    names = [finding.id for finding in findings]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{where}: names", got=f"{twice[0]!r} twice", expected="a name of its own for each point")
