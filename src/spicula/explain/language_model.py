"""The report of one nodule by a language model behind any OpenAI-compatible endpoint; nothing is called unless asked.

Only the features of the nodule leave the machine, and only where a URL was given. Answers are kept on disk under a
hash of the whole request, so that the same question is paid for once. The key is in no message, file or cache entry.

References:
    arXiv 2504.21344, sections 3.2.1 and A.2 (there Gemini 1.5 Flash; the wording of the prompt is our own).
    https://platform.openai.com/docs/api-reference/chat (chat completions).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spicula.core.errors import InputError
from spicula.core.files import written_aside
from spicula.core.semantics import FEATURES, SemanticFeatures
from spicula.explain.chat import Endpoint, Reply, post_chat
from spicula.explain.report_text import ReportText

INSTRUCTIONS = (
    "You are a thoracic radiologist. Turn the features of one lung nodule, given as JSON, into a short report with "
    "two sections, 'Findings:' and 'Impression:'. Findings: one bullet a feature, in the order given; merge all nodule "
    "margins into one bullet. Impression: one sentence that sums up what is present, then one sentence with the level "
    "of suspicion of lung cancer if it is given. Mention absent features in Findings only. Use nothing that is not in "
    "the data: no location, no comparison, no advice, no diagnosis."
)
"""What the model is told."""


@dataclass(frozen=True, slots=True)
class Written:
    """A report that a language model wrote.

    Args:
        report: Its two parts.
        model: Which model was asked.
        from_cache: Whether it was asked before.
        tokens_in: Tokens of the request that were paid for now; 0 from the cache or where the endpoint does not say.
        tokens_out: Tokens of the answer, likewise.
    """

    report: ReportText
    model: str
    from_cache: bool
    tokens_in: int = 0
    tokens_out: int = 0


def report_by_model(features: SemanticFeatures, *, endpoint: Endpoint, cache: Path | None, seed: int = 0) -> Written:
    """Have the report of one nodule written; the same contract as :func:`spicula.explain.report_text.write_report`.

    Args:
        features: What was read of this nodule; what is missing is not sent.
        endpoint: Where to ask.
        cache: Folder of answers; None to keep none.
        seed: The order of the features in the request follows from it.

    Returns:
        The report.

    Raises:
        InputError: No feature was read, the endpoint refuses, or the answer lacks a part.
        OfflineError: The endpoint cannot be reached, or does not answer after all tries.
    """
    body = request_body(features, model=endpoint.model, temperature=endpoint.temperature, seed=seed)
    entry = None if cache is None else cache / f"{request_hash(body)}.json"
    kept = _kept(entry)
    if kept is not None:
        return Written(parse_report(kept, model=endpoint.model), endpoint.model, from_cache=True)
    reply = post_chat(body, endpoint=endpoint)
    report = parse_report(reply.text, model=endpoint.model)
    if entry is not None:
        _keep(entry, reply, endpoint.model)
    return Written(report, endpoint.model, False, reply.tokens_in, reply.tokens_out)


def request_body(features: SemanticFeatures, *, model: str, temperature: float, seed: int) -> dict[str, object]:
    """What is sent; the order of the features is drawn with ``seed``.

    Raises:
        InputError: No feature was read.
    """
    values = _values(features)
    if not values:
        raise InputError("features of the nodule", got="none that was read", expected="at least one")
    names = list(values)
    order = np.random.default_rng(seed).permutation(len(names))
    shuffled = {names[int(i)]: values[names[int(i)]] for i in order}
    return {
        "model": model,
        "temperature": temperature,
        "messages": [
            {"role": "system", "content": INSTRUCTIONS},
            {"role": "user", "content": json.dumps(shuffled, ensure_ascii=True)},
        ],
    }


def request_hash(body: dict[str, object]) -> str:
    """SHA-256 of a request: model, prompt and temperature, nothing else."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def parse_report(text: str, *, model: str) -> ReportText:
    r"""Read the two parts of an answer, whatever marks surround its headings.

    Args:
        text: The answer.
        model: Named in messages.

    Raises:
        InputError: A heading or what should follow it is missing.

    Example:
        >>> parse_report("**Findings:**\n* Smooth margin.\n\n## Impression\nA smooth nodule.", model="m")
        ReportText(findings='- Smooth margin.', impression='A smooth nodule.')
    """
    found = {match[1].lower(): match for match in reversed(list(_HEADING.finditer(text)))}
    if "findings" not in found or "impression" not in found:
        missing = "Findings" if "findings" not in found else "Impression"
        hint = "another model may follow the form; write_report needs none"
        raise InputError(f"answer of {model}", got=f"no part {missing}", expected="Findings and Impression", hint=hint)
    first, second = sorted(found.values(), key=lambda match: match.start())
    parts = {
        first[1].lower(): text[first.end() : second.start()],
        second[1].lower(): text[second.end() :],
    }
    lines = [_MARKS.sub("", line).replace("**", "").strip() for line in parts["findings"].splitlines()]
    findings = "\n".join(f"- {line}" for line in lines if line)
    impression = " ".join(_MARKS.sub("", line).replace("**", "") for line in parts["impression"].splitlines()).split()
    if not findings or not impression:
        empty = "Findings" if not findings else "Impression"
        raise InputError(f"answer of {model}", got=f"nothing under {empty}", expected="both parts filled")
    return ReportText(findings, " ".join(impression))


def cost_line(written: Iterable[Written], *, dollars_per_million: tuple[float, float] | None = None) -> str:
    """What some reports came to, in one line.

    Args:
        written: Reports.
        dollars_per_million: Price of a million tokens of request and of answer, as the provider has them.

    Example:
        >>> one = Written(ReportText("- a", "b"), "m", False, 300, 90)
        >>> cost_line([one, Written(one.report, "m", True)], dollars_per_million=(0.1, 0.4))
        '2 reports by m: 1 asked, 1 from the cache; 300 tokens in, 90 out; 0.0001 USD'
    """
    reports: Sequence[Written] = list(written)
    models = ", ".join(sorted({each.model for each in reports})) or "no model"
    cached = sum(each.from_cache for each in reports)
    tokens_in, tokens_out = sum(each.tokens_in for each in reports), sum(each.tokens_out for each in reports)
    line = (
        f"{len(reports)} reports by {models}: {len(reports) - cached} asked, {cached} from the cache; "
        f"{tokens_in} tokens in, {tokens_out} out"
    )
    if dollars_per_million is None:
        return line
    return f"{line}; {(tokens_in * dollars_per_million[0] + tokens_out * dollars_per_million[1]) / 1e6:.4f} USD"


def _values(features: SemanticFeatures) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, feature in FEATURES.items():
        value = getattr(features, name)
        if feature.kind == "several":
            if features.margin_words:
                values[feature.title] = list(features.margin_words)
        elif feature.kind == "length":
            if value is not None:
                values[f"{feature.title} (mm)"] = round(float(value), 1)
        elif words := features.words(name):
            values[feature.title] = words[0]
    return values


def _kept(entry: Path | None) -> str | None:
    """The answer of a cache entry; a damaged one is as good as none."""
    if entry is None or not entry.is_file():
        return None
    try:
        text = json.loads(entry.read_text(encoding="utf-8"))["text"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return text if isinstance(text, str) and _is_report(text) else None


def _is_report(text: str) -> bool:
    try:
        parse_report(text, model="cache")
    except InputError:
        return False
    return True


def _keep(entry: Path, reply: Reply, model: str) -> None:
    record = {"model": model, "text": reply.text, "tokens_in": reply.tokens_in, "tokens_out": reply.tokens_out}
    with written_aside(entry) as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


_HEADING = re.compile(r"^[\s#*_>-]*(findings|impression)s?[\s*_]*(?::[*_ ]*|$)", re.IGNORECASE | re.MULTILINE)
_MARKS = re.compile(r"^\s*(?:[-*•#]+|\d+[.)])\s+")
