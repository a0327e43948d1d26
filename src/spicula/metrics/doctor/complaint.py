"""What the doctor says: one complaint, with numbers and the edit that would mend it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning", "note"]
Evidence: TypeAlias = str | int | float | Sequence[str]

_RANK = {"error": 0, "warning": 1, "note": 2}
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong with an evaluation's files.

    Args:
        code: Short name, ``"ids.leading-zeros"``; ``docs/how-to/evaluation-doctor.md`` lists all.
        severity: ``error`` (the score is wrong or means something else), ``warning`` (it probably does) or ``note``
            (worth knowing, the score stands).
        problem: What is wrong, in one sentence with its numbers.
        mend: What to edit, or which option to give; empty for a note that needs nothing.
        evidence: The numbers and names behind it, for programs.
    """

    code: str
    severity: Severity
    problem: str
    mend: str
    evidence: Mapping[str, Evidence] = field(default_factory=lambda: MappingProxyType({}))

    def to_json(self) -> dict[str, object]:
        """The complaint as plain data."""
        evidence = {name: value if isinstance(value, str | int | float) else list(value) for name, value in
                    self.evidence.items()}  # fmt: skip
        return {
            "code": self.code, "severity": self.severity, "problem": self.problem, "mend": self.mend,
            "evidence": evidence,
        }  # fmt: skip


def worst_first(complaints: Iterable[Complaint]) -> tuple[Complaint, ...]:
    """Errors, then warnings, then notes; otherwise in the order of the examination."""
    return tuple(sorted(complaints, key=lambda complaint: _RANK[complaint.severity]))


def some_of(names: Iterable[object]) -> str:
    """The first few of some names, for a sentence: ``"'1', '2', '3' and 5 more"``."""
    listed = [str(name) for name in names]
    shown = ", ".join(repr(name) for name in listed[:_NAMED])
    return shown + (f" and {len(listed) - _NAMED:,} more" if len(listed) > _NAMED else "")


def counted(number: int, noun: str) -> str:
    """A number with its noun, for a sentence: ``"1 scan"``, ``"96 scans"``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
