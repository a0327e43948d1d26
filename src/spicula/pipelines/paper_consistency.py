"""Published tables checked against themselves: which printed numbers no data can give.

Nothing is run and no data is needed. A rate must be a whole number of patients, a precision and a false-positive rate
of one column must come from one threshold, an interval made of a mean and its error lies evenly around the mean, an F1
follows from precision and recall, a mean from its parts, and a rank test of five folds has few p-values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, product
from typing import Any, Literal, TypeAlias

from spicula.papers import Paper, Published
from spicula.pipelines.paper_arithmetic import (
    area_can_be,
    calls_behind,
    counts_of,
    f1_range,
    half_unit,
    nemenyi_p_values,
    positive_share,
    rank_sums_exist,
    signed_rank_p_values,
    totals_that_fit,
)

State: TypeAlias = Literal["fits", "odd", "cannot be"]

SCHEMA = "spicula-paper-check/1"
"""Version of the record; a key that changes its meaning or goes away raises it."""

OFFICIAL_SIZES = {("DeepLesion", "test"): (4927, "lesions of the official test part")}
"""Number of cases where a source does not say it but the data set does."""

_NEAR = 15  # negatives that a heading may be off
_TIED = 0.06  # recall that equal scores may put a threshold off its column
_FEW_TOTALS = range(100, 501)  # tried for a table that does not say how many cases it is of


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one printed number, or of a few that belong together.

    Args:
        check: Which rule: ``whole number``, ``one threshold``, ``reading``, ``interval``, ``F1``, ``mean`` or
            ``rank test``.
        where: Table or section.
        what: Model, data and metric.
        printed: The numbers.
        state: ``fits``; ``odd`` (possible, but only under something that the source does not say); ``cannot be``.
        why: The reason, with the counts.
    """

    check: str
    where: str
    what: str
    printed: str
    state: State
    why: str


def check_paper(paper: Paper) -> list[Verdict]:
    """Check all numbers of one paper against each other.

    Args:
        paper: From :func:`spicula.papers.paper`.

    Returns:
        A verdict for each check, in the order of the checks.
    """
    numbers = paper.numbers
    checks = (_recall_rows, _shares, _few_pairs, _intervals, _one_class, _means, _rank_tests, _wholes)
    return [verdict for check in checks for verdict in check(numbers)]


def summary(key: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The verdicts as plain values for a JSON file."""
    counts = Counter(verdict.state for verdict in verdicts)
    return {
        "schema": SCHEMA,
        "paper": key,
        "checks": len(verdicts),
        **{state: counts[state] for state in ("fits", "odd", "cannot be")},
        "verdicts": [asdict(verdict) for verdict in verdicts],
    }


def lines(key: str, verdicts: Sequence[Verdict]) -> list[str]:
    """The verdicts that do not fit, as text; the rest is counted."""
    counts = Counter(verdict.state for verdict in verdicts)
    text = [
        f"{key}: {len(verdicts)} checks, {counts['fits']} fit, {counts['cannot be']} cannot be, {counts['odd']} odd"
    ]
    for state in ("cannot be", "odd"):
        for where, group in groupby((v for v in verdicts if v.state == state), key=lambda v: v.where):
            text += ["", f"{state.upper()}: {where}"]
            text += [f"  {v.what}: {v.printed}\n    {v.why}" for v in group]
    return text


def _recall_rows(numbers: Sequence[Published]) -> Iterator[Verdict]:
    """False-positive rate and precision at several recalls."""
    cells = [c for c in numbers if c.at is not None and c.metric in {"false_positive_rate", "precision"}]
    for where, table in groupby(cells, key=lambda c: c.where):
        apart: list[int] = []
        for (dataset, model), row in groupby(table, key=lambda c: (c.dataset, c.model)):
            headings = {c.n - c.n_positive for c in cells if c.dataset == dataset and c.n and c.n_positive}
            yield from _recall_row(list(row), f"{model}, {dataset}", headings, apart)
        if apart:
            more, fewer = sum(a > 0 for a in apart), sum(a < 0 for a in apart)
            why = (
                f"of the pairs that need two thresholds, {more} have more false positives behind the precision than "
                f"behind the rate and {fewer} fewer: as if, of several thresholds with one recall, the rate was "
                "read at the best and the precision at the worst (what the nearest point of a ROC and of a "
                "precision-recall curve gives, whose points run opposite ways)"
            )
            yield Verdict("reading", where, "rates with precisions", f"{len(apart)} pairs", "odd", why)


def _recall_row(cells: Sequence[Published], what: str, headings: set[int], apart: list[int]) -> Iterator[Verdict]:
    """One model on one data set; ``apart`` gets what the counts of two thresholds differ by."""
    rates = {c.at: c for c in cells if c.metric == "false_positive_rate"}
    n, positives = cells[0].n, cells[0].n_positive
    if n is None or positives is None:
        return
    negatives, others = _negatives([_value(c) for c in rates.values()], n - positives, headings)
    for cell in rates.values():
        yield _rate(cell, what, n - positives, others)
    for cell in (c for c in cells if c.metric == "precision"):
        yield _one_threshold(rates[cell.at], cell, what, negatives, positives, apart)


def _negatives(rates: Sequence[float], said: int, headings: set[int]) -> tuple[int, list[int]]:
    """Number of negatives that all rates of a row fit: the heading's if it does; and those that would do instead."""
    if totals_that_fit(rates, [said]):
        return said, []
    near = sorted(range(max(2, said - _NEAR), said + _NEAR + 1), key=lambda n: abs(n - said))
    others = [*totals_that_fit(rates, sorted(headings)), *totals_that_fit(rates, near)]
    return (others[0] if others else said), list(dict.fromkeys(others))


def _rate(cell: Published, what: str, negatives: int, others: Sequence[int]) -> Verdict:
    counts = counts_of(_value(cell), negatives, decimals=cell.decimals)
    name = f"{what}: false-positive rate at recall {cell.at:g}"
    if counts:
        told = f"{_either(counts)} of {negatives} negatives"
        return Verdict("whole number", cell.where, name, _printed(cell), "fits", told)
    instead = f"; all four of the row fit {_either(others[:3])} negatives" if others else ""
    return Verdict(
        "whole number", cell.where, name, _printed(cell), "cannot be",
        f"no whole number of {negatives} negatives ({cell.n} cases, {cell.n_positive} positive){instead}",
    )  # fmt: skip


def _one_threshold(
    rate: Published, precision: Published, what: str, negatives: int, positives: int, apart_by: list[int]
) -> Verdict:
    """Whether a rate and a precision of one column can come from one threshold."""
    recall = float(precision.at or 0)
    name = f"{what}: precision with false-positive rate at recall {recall:g}"
    printed = f"{_printed(precision)} with {_printed(rate)}"
    false = counts_of(_value(rate), negatives, decimals=rate.decimals)
    value, places = _value(precision), precision.decimals

    def said(state: State, why: str) -> Verdict:
        return Verdict(
            "one threshold",
            precision.where,
            name,
            printed,
            state,
            f"{why} (of {positives} positive, {negatives} negative)",
        )

    together = calls_behind(value, false, positives, recall=recall, within=1.0, decimals=places)
    if together:
        return said("fits", f"{together[0][0]} true and {together[0][1]} false positives")
    apart = calls_behind(value, range(negatives + 1), positives, recall=recall, within=1.0, decimals=places)
    needs = " or ".join(f"{true} true and {wrong} false" for true, wrong in apart[:2])
    two = f"the rate is {_either(false)} false positives, the precision {needs or 'no count near this recall'}"
    tied = calls_behind(value, false, positives, recall=recall, within=_TIED * positives, decimals=places)
    if tied:
        true, wrong = tied[0]
        return said(
            "odd", f"one threshold only at recall {true / positives:.3f} ({true} true, {wrong} false); else {two}"
        )
    if apart and false:
        apart_by.append(apart[0][1] - false[0])
    return said("cannot be", f"no one threshold with a recall within {_TIED:g} of the column's: {two}")


def _shares(numbers: Sequence[Published]) -> Iterator[Verdict]:
    """Shares of classes: whole numbers of the cases, and together all of them."""
    shares = [c for c in numbers if c.metric == "share" and " = " in c.target]
    for where, group in groupby(shares, key=lambda c: c.where):
        cells = list(group)
        total = cells[0].n or _likely_total(cells)
        for cell in cells:
            n = cell.n or total
            counts = counts_of(_value(cell), n, decimals=cell.decimals)
            told = cell.n_positive if cell.target == "Cases = positive" else None
            fits = bool(counts) and (told is None or told in counts)
            whole = f"{_either(counts)} of {n}" if counts else f"no whole number of {n}"
            instead = "" if counts else f" (nearest {_nearest(cell, n)}); adjusted so that its classes add to 100 %?"
            said = "" if cell.n else ", the total that fits this table best"
            yield Verdict(
                "whole number", where, f"{cell.dataset}: {cell.target}", _printed(cell),
                "fits" if fits else "cannot be", f"{whole}{instead}{said}",
            )  # fmt: skip


def _nearest(cell: Published, n: int) -> str:
    count = round(_value(cell) * n)
    return f"{count}, which is {count / n:.{cell.decimals + 1}f}"


def _likely_total(cells: Sequence[Published]) -> int:
    """Number of cases that most cells are whole numbers of, for a table that does not say it."""
    return max(_FEW_TOTALS, key=lambda n: sum(bool(counts_of(_value(c), n, decimals=c.decimals)) for c in cells))


def _few_pairs(numbers: Sequence[Published]) -> Iterator[Verdict]:
    """AUROC of features with few cases: a whole number of half pairs."""
    shares = {(c.where, c.target): c for c in numbers if c.metric == "share"}
    for cell in (c for c in numbers if c.metric == "auroc" and (c.where, f"{c.target} = Present") in shares):
        of_table = [c for c in shares.values() if c.where == cell.where]
        total = of_table[0].n or _likely_total(of_table)
        present = round(_value(shares[cell.where, f"{cell.target} = Present"]) * total)
        absent = round(_value(shares[cell.where, f"{cell.target} = Absent"]) * total)
        name, few = f"{cell.model}, {cell.dataset}: AUROC of {cell.target}", ""
        if present < 10:
            few = f"; it rests on {present} nodule{'' if present == 1 else 's'}"
        if area_can_be(_value(cell), present, absent, decimals=cell.decimals):
            state: State = "odd" if present < 2 else "fits"
            yield Verdict(
                "whole number", cell.where, name, _printed(cell), state, f"{present} present, {absent} absent{few}"
            )
            continue
        with_rest = area_can_be(_value(cell), present, total - present, decimals=cell.decimals)
        yield Verdict(
            "whole number", cell.where, name, _printed(cell), "odd" if with_rest else "cannot be",
            f"no number of pairs of {present} present and {absent} absent"
            + (f"; one of the {total - present} not present: N/A counted as absent" if with_rest else "") + few,
        )  # fmt: skip


def _intervals(numbers: Sequence[Published]) -> Iterator[Verdict]:
    """Intervals hold their value; those of a mean over folds lie evenly around it."""
    for cell in (c for c in numbers if c.low is not None and c.high is not None):
        low, high, unit = float(cell.low or 0), float(cell.high or 0), 2 * half_unit(cell.decimals)
        name = f"{cell.model}, {cell.dataset}: {cell.metric}"
        even = cell.interval == "t over folds"
        if cell.value is None:
            if even:
                yield Verdict("interval", cell.where, name, f"[{low:g}, {high:g}]", "fits", _behind(cell))
            continue
        printed, middle = f"{_printed(cell)} [{low:g}, {high:g}]", (low + high) / 2
        if not low <= cell.value <= high:
            yield Verdict("interval", cell.where, name, printed, "cannot be", "the value lies outside its interval")
        elif even and abs(cell.value - middle) > unit:
            why = f"a t-interval lies evenly around its mean: its middle is {middle:.4f}"
            yield Verdict("interval", cell.where, name, printed, "cannot be", why)
        else:
            yield Verdict(
                "interval", cell.where, name, printed, "fits", _behind(cell) if even else "the value lies within"
            )


def _behind(cell: Published) -> str:
    """Mean and standard deviation that a t-interval over folds implies."""
    from scipy.stats import t

    folds, low, high = cell.folds or 5, float(cell.low or 0), float(cell.high or 0)
    sd = (high - low) / 2 * folds**0.5 / float(t.ppf(0.975, folds - 1))
    return f"it follows: mean {(low + high) / 2:.4f}, standard deviation over {folds} models {sd:.4f}"


def _one_class(numbers: Sequence[Published]) -> Iterator[Verdict]:
    """F1 from precision and recall, and the share of positives that the accuracy implies."""
    for (where, model), group in groupby(numbers, key=lambda c: (c.where, c.model)):
        found = {c.metric: c for c in group if c.at is None and c.value is not None}
        if not {"precision", "recall", "f1"} <= found.keys():
            continue
        precision, recall, f1 = (found[name] for name in ("precision", "recall", "f1"))
        low, high = f1_range(_value(precision), _value(recall), decimals=precision.decimals)
        reach = half_unit(f1.decimals)
        fits = low - reach <= _value(f1) <= high + reach
        yield Verdict(
            "F1", where, f"{model}, {f1.dataset}: F1 from precision and recall",
            f"{_printed(f1)} with {_printed(precision)} and {_printed(recall)}", "fits" if fits else "cannot be",
            f"they give {(low + high) / 2:.4f}" + ("" if fits else ": not the F1 of this class (a mean of classes?)"),
        )  # fmt: skip
        if "accuracy" in found:
            share = positive_share(_value(found["accuracy"]), _value(precision), _value(recall))
            name = f"{model}, {f1.dataset}: accuracy with precision and recall"
            told = f"{share:.1%} of the cases are positive: to call none gives an accuracy of {1 - share:.4f}"
            yield Verdict(
                "F1", where, name, _printed(found["accuracy"]), "fits" if 0 < share < 1 else "cannot be", told
            )


def _means(numbers: Sequence[Published]) -> Iterator[Verdict]:
    """A detector's CPM is the mean of its seven sensitivities."""
    for (where, model), group in groupby(numbers, key=lambda c: (c.where, c.model)):
        cells = list(group)
        parts, means = [c for c in cells if c.metric == "sensitivity"], [c for c in cells if c.metric == "cpm"]
        if len(parts) == 7 and means:
            mean, cpm = sum(map(_value, parts)) / 7, means[0]
            reach = half_unit(cpm.decimals) + half_unit(parts[0].decimals)
            state: State = "fits" if abs(mean - _value(cpm)) <= reach else "cannot be"
            why = f"the mean of the seven is {mean:.4f}"
            yield Verdict("mean", where, f"{model}, {cpm.dataset}: CPM", _printed(cpm), state, why)


def _rank_tests(numbers: Sequence[Published]) -> Iterator[Verdict]:
    """P-values over a few folds: only some can be, and those of three models hang together."""
    tests = [c for c in numbers if c.metric == "p_value" and c.folds]
    signed = [c for c in tests if "Wilcoxon" in c.note]
    for cell in signed:
        can = [p for p in signed_rank_p_values(cell.folds or 0) if abs(p - _value(cell)) <= half_unit(cell.decimals)]
        name = f"{cell.model}, {cell.dataset}: p of {cell.target}, {cell.note}"
        why = f"one of its p-values over {cell.folds} folds" if can else f"no p-value over {cell.folds} folds"
        yield Verdict("rank test", cell.where, name, _printed(cell), "fits" if can else "cannot be", why)
    for where, folds in dict.fromkeys((c.where, c.folds) for c in signed):
        least = signed_rank_p_values(folds or 0)[0]
        if least > 0.05:
            why = f"{least:g} is the least p-value of {folds} folds: no data could reach the level of 0.05"
            yield Verdict("rank test", where, "Wilcoxon signed-rank test", f"{folds} folds", "odd", why)
    ranked = [c for c in tests if "Nemenyi" in c.note]
    families: dict[tuple[str, str, str, int], list[Published]] = {}
    for number, cell in enumerate(ranked):
        seen = sum((c.dataset, c.target, c.where) == (cell.dataset, cell.target, cell.where) for c in ranked[:number])
        families.setdefault((cell.where, cell.dataset, cell.target, seen // 3), []).append(cell)
    for (where, dataset, target, _), cells in families.items():
        if len(cells) == 3:
            yield _three_models(where, f"{dataset}: p of {target}, Nemenyi", cells)


def _three_models(where: str, name: str, cells: Sequence[Published]) -> Verdict:
    folds = cells[0].folds or 0
    can = nemenyi_p_values(3, folds)
    steps = [[n for n, p in enumerate(can) if abs(p - _value(c)) <= half_unit(c.decimals)] for c in cells]
    exists = any(rank_sums_exist(choice, folds) for choice in product(*steps))
    printed = ", ".join(f"{c.model} {_printed(c)}" for c in cells)
    why = f"rank sums over {folds} folds {'give' if exists else 'cannot give'} these three"
    return Verdict("rank test", where, name, printed, "fits" if exists else "cannot be", why)


def _wholes(numbers: Sequence[Published]) -> Iterator[Verdict]:
    """An accuracy is a whole number of cases, also where only the data set says how many there are."""
    for cell in (c for c in numbers if c.metric == "accuracy" and (c.dataset, c.split) in OFFICIAL_SIZES):
        n, name = OFFICIAL_SIZES[cell.dataset, cell.split]
        counts = counts_of(_value(cell), n, decimals=cell.decimals)
        others = [k for k in range(n - _NEAR, n + 1) if counts_of(_value(cell), k, decimals=cell.decimals)]
        why = f"{_either(counts)} of the {n:,} {name}"
        if not counts:
            why = (
                f"no whole number of the {n:,} {name}; {_either(others[-3:])} would do, and the source names no number"
            )
        what = f"{cell.model}, {cell.dataset}: accuracy"
        yield Verdict("whole number", cell.where, what, _printed(cell), "fits" if counts else "odd", why)


def _value(cell: Published) -> float:
    return float("nan") if cell.value is None else cell.value


def _printed(cell: Published) -> str:
    return f"{_value(cell):.{cell.decimals}f}"


def _either(counts: Sequence[int]) -> str:
    return " or ".join(map(str, counts)) if counts else "none"
