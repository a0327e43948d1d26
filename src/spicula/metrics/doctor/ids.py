"""Ids of two tables that should be the same and are not: leading zeros, endings, folders, prefixes, numbers."""

from __future__ import annotations

import bisect
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from spicula.metrics.doctor.complaint import Complaint, Evidence, Severity, some_of

_ENDINGS = re.compile(r"(\.(mhd|mha|raw|nii|gz|nrrd|nhdr|npy|npz|dcm|zip|csv|png|xml|json)|_(clean|pbb|lbb))+$", re.I)
PAD_IDS = "pad_ids"
"""Key of the evidence: the length up to which padding with zeros mends the ids, where that alone does."""

_SCIENTIFIC = re.compile(r"\d(\.\d+)?[eE][+]?\d+$")
_MANY_STEPS = 3
_LEARN_FROM = 40  # ids that a prefix or suffix is learned from
_LEAST_ALONE = 4  # characters that a single id must share with another to be told by them
_LEAST_CUT = 8  # characters that a cut id must still have


@dataclass(frozen=True, slots=True)
class _Step:
    """One way in which an id may have been changed: its normal form forgets the change."""

    code: str
    words: str
    normal: Callable[[str], str]


_STEPS = (
    _Step("quotes", "spaces, quotes or brackets around them", lambda id_: id_.strip(" \t'\"[](){}<>")),
    _Step("folder", "a folder before them", lambda id_: re.split(r"[/\\]", id_)[-1]),
    _Step("ending", "a file ending behind them", lambda id_: _ENDINGS.sub("", id_)),
    _Step("decimal", "read as numbers ('783.0')", lambda id_: re.sub(r"^(\d+)\.0+$", r"\1", id_)),
    _Step("leading-zeros", "leading zeros", lambda id_: (id_.lstrip("0") or "0") if id_.isdigit() else id_),
    _Step("case", "capital and small letters", str.casefold),
    _Step("separators", "dots, dashes and underscores", lambda id_: re.sub(r"[._\- ]+", ".", id_)),
)


@dataclass(frozen=True, slots=True)
class IdMatch:
    """Ids of one table found in another.

    Args:
        found: From an id as given to the id that is meant, for those that were found.
        complaints: What is wrong; none where all match as they are.
    """

    found: Mapping[str, str]
    complaints: tuple[Complaint, ...] = ()


def match_ids(given: Iterable[str], wanted: Iterable[str], *, what: str, of: str, rows: str = "rows") -> IdMatch:
    """Find each id of a table among those of another, also where it was changed on the way.

    Tried are all sets of up to three changes (leading zeros, quotes, folder, file ending, '.0' of a number, case,
    separators), then a prefix and a suffix that are learned, then ids that were cut. The smallest set of changes that
    brings the most ids together is named.

    Args:
        given: Ids of the table that is examined.
        wanted: Ids that it should use.
        what: The first table, for the messages: ``"detections"``.
        of: The second: ``"series list"``.
        rows: What an id stands for in the first table: ``"scans"``.

    Returns:
        What was found, under which change, and the complaints.
    """
    names, targets = dict.fromkeys(given), dict.fromkeys(wanted)
    found = {name: name for name in names if name in targets}
    left = [name for name in names if name not in targets]
    if not left:
        return IdMatch(found)
    steps, rewritten = _best_steps(left, list(targets))
    counts = {"ids": len(names), "matched": len(found), "matched_after": len(found) + len(rewritten)}
    if rewritten:
        complaint = _changed(steps, rewritten, counts=counts, what=what, of=of, rows=rows)
        still = [name for name in left if name not in rewritten]
        rest = _unknown(still, len(targets), found | rewritten, counts=counts, what=what, of=of, rows=rows)
        return IdMatch(found | rewritten, (complaint, *rest))
    return IdMatch(found, _unknown(left, len(targets), found, counts=counts, what=what, of=of, rows=rows))


def _best_steps(left: list[str], targets: list[str]) -> tuple[tuple[_Step, ...], dict[str, str]]:
    """The fewest changes that match the most ids; a prefix and a suffix, or a cut, where no change does."""
    best: tuple[tuple[_Step, ...], dict[str, str]] = ((), {})
    for size in range(_MANY_STEPS + 1):
        for steps in itertools.combinations(_STEPS, size):
            rewritten = _under(steps, left, targets)
            if len(rewritten) > len(best[1]):
                best = steps, rewritten
        if len(best[1]) == len(left):
            return best
    for size in range(_MANY_STEPS):
        for steps in itertools.combinations(_STEPS[:6], size):
            learned = _affix(_normal(left, steps), _normal(targets, steps))
            if learned is not None:
                rewritten = _under((*steps, learned), left, targets)
                if len(rewritten) > len(best[1]):
                    best = (*steps, learned), rewritten
    cut = _cut(left, targets)
    if len(cut) > len(best[1]):
        return (_Step("cut", "what was cut from their end", str),), cut
    return best


def _normal(names: list[str], steps: Iterable[_Step]) -> list[str]:
    for step in steps:
        names = [step.normal(name) for name in names]
    return names


def _under(steps: tuple[_Step, ...], left: list[str], targets: list[str]) -> dict[str, str]:
    """Ids that equal exactly one target in their normal form."""
    if not steps:
        return {}
    forms = Counter(_normal(targets, steps))
    by_form = {form: target for form, target in zip(_normal(targets, steps), targets, strict=True) if forms[form] == 1}
    return {
        name: by_form[form]
        for name, form in zip(left, _normal(left, steps), strict=True)
        if form and form in by_form
    }  # fmt: skip


def _affix(left: list[str], targets: list[str]) -> _Step | None:
    """A prefix and a suffix that one side has and the other has not, learned from some ids."""
    votes: Counter[tuple[str, str]] = Counter()
    least = 1 if len(left) > 1 else _LEAST_ALONE
    for name in left[:_LEARN_FROM]:
        for target in targets:
            longer, shorter = (name, target) if len(name) > len(target) else (target, name)
            if len(shorter) >= least and len(longer) > len(shorter) and shorter in longer:
                before, _, after = longer.partition(shorter)
                votes[before, after] += 1
    if not votes:
        return None
    (before, after), count = votes.most_common(1)[0]
    if count < min(len(left), _LEARN_FROM) / 3 or (count < 2 and len(left) > 1):
        return None

    def without(name: str) -> str:
        name = name.removeprefix(before)
        return name.removesuffix(after) if after else name

    parts = [f"prefix {before!r}"] * bool(before) + [f"suffix {after!r}"] * bool(after)
    return _Step("affix", "the " + " and the ".join(parts), without)


def _cut(left: list[str], targets: list[str]) -> dict[str, str]:
    """Ids that are the beginning of exactly one target."""
    ranked = sorted(targets)
    found = {}
    for name in left:
        at = bisect.bisect_left(ranked, name)
        longer = [target for target in ranked[at : at + 2] if target.startswith(name)]
        if len(name) >= _LEAST_CUT and len(longer) == 1:
            found[name] = longer[0]
    return found


def _changed(
    steps: tuple[_Step, ...], rewritten: dict[str, str], *, counts: Mapping[str, int], what: str, of: str, rows: str
) -> Complaint:
    name, target = next(iter(rewritten.items()))
    share = f"{counts['matched']:,} of {counts['ids']:,} {rows}"
    words = " and ".join(step.words for step in steps)
    width = _padded(steps, rewritten)
    return Complaint(
        f"ids.{steps[0].code}",
        "error",
        f"the ids of the {what} match the {of} for {share} only; without regard to {words} "
        f"{counts['matched_after']:,} match ({name!r} is {target!r})",
        _mend(steps, rewritten, width=width, what=what, of=of),
        {
            **counts, "change": [step.code for step in steps], "example": [name, target],
            **({PAD_IDS: width} if width else {}),
        },
    )  # fmt: skip


def _padded(steps: tuple[_Step, ...], rewritten: Mapping[str, str]) -> int:
    """Length up to which leading zeros make the ids of both tables the same; 0 where that is not all."""
    if [step.code for step in steps] != ["leading-zeros"]:
        return 0
    width = max(len(id_) for pair in rewritten.items() for id_ in pair)
    return width if all(name.zfill(width) == target.zfill(width) for name, target in rewritten.items()) else 0


def _mend(steps: tuple[_Step, ...], rewritten: dict[str, str], *, width: int, what: str, of: str) -> str:
    codes = [step.code for step in steps]
    name, target = next(iter(rewritten.items()))
    widths = {len(target) for target in rewritten.values()}
    padded = len(widths) == 1 and any(target.startswith("0") for target in rewritten.values())
    bare = padded and not any(re.match(r"0\d", name) for name in rewritten)
    if codes == ["leading-zeros"]:
        option = f"evaluate froc --pad-ids {width}" if width else ""
        if bare:
            zfill = f"read the id of the {what} as text, or pad it: id.zfill({max(widths)})"
            return f"{zfill}, {option}" if option else zfill
        strip = f"write the id of the {what} as the {of} does: id.lstrip('0')" + f".zfill({max(widths)})" * padded
        return f"{strip}; or {option}" if option else strip
    if "leading-zeros" in codes and bare:
        read = f"read the id of the {what} as text, take away what was added, then id.zfill({max(widths)})"
        return f"{read}: {target!r} in place of {name!r}"
    hints = {
        "decimal": "read the column as text (pandas: dtype={'seriesuid': str})",
        "cut": f"the ids have {len(name)} characters in place of {len(target)}: widen the column that cut them",
    }
    for code, hint in hints.items():
        if code in codes:
            return hint
    return f"write the id of the {what} as the {of} does: {target!r} in place of {name!r}"


def _unknown(
    left: list[str], n_wanted: int, found: Mapping[str, str], *,
    counts: Mapping[str, int], what: str, of: str, rows: str,
) -> tuple[Complaint, ...]:  # fmt: skip
    """Ids that no change explains."""
    if not left:
        return ()
    evidence: dict[str, Evidence] = {**counts, "unknown": len(left), "examples": left[:5]}
    numbers = [name for name in left if _SCIENTIFIC.match(name)]
    if len(numbers) > len(left) / 2:
        problem = f"{len(numbers):,} ids of the {what} were read as numbers ({some_of(numbers)}): their digits are lost"
        mend = "export the table again with the id as text (pandas: dtype=str; in a spreadsheet: column format Text)"
        return (Complaint("ids.numbers", "error", problem, mend, evidence),)
    covered = len(set(found.values())) / n_wanted
    severity: Severity = (
        "error" if not found else "note" if covered > 0.9 or len(left) < 0.001 * len(found) else "warning"
    )
    problem = (
        f"{len(left):,} of {counts['ids']:,} {rows} of the {what} are not in the {of} ({some_of(left)}); "
        "they count for nothing"
    )
    mend = f"give the {of} that belongs to the {what}" if severity != "note" else ""
    return (Complaint("ids.unknown", severity, problem, mend, evidence),)
