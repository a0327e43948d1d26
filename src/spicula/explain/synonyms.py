"""Variation of training text: words replaced by their like, and a few words left out, never so that the meaning turns.

References:
    arXiv 2504.21344, section 3.2.1 (synonyms and random crop). As published: each of the two steps with probability
    one half, at most two words replaced out of fourteen groups of synonyms, a tenth of the words left out. The groups
    are our own. Departure: no crop takes a word that turns the meaning ("no", "part-", "poorly"), nor words of two
    sentences.
"""

from __future__ import annotations

import re

import numpy as np

from spicula.explain.phrases import capital, with_article

GROUPS: tuple[tuple[str, ...], ...] = (
    ("spiculated", "serrated", "stellate"),
    ("lobulated", "multilobulated", "lobular"),
    ("smooth", "even"),
    ("ill-defined", "fuzzy"),
    ("notched", "indented"),
    ("part-solid", "partly solid", "semisolid"),
    ("pure ground glass", "ground-glass", "nonsolid"),
    ("round", "rounded", "spherical"),
    ("ovoid", "oval", "egg-shaped"),
    ("irregular", "complex"),
    ("well marginated", "well circumscribed", "well demarcated"),
    ("poorly marginated", "poorly circumscribed", "poorly demarcated"),
    ("pleural retraction", "pleural dimpling", "pleural indentation"),
    ("suspicion of lung cancer", "suspicion for lung cancer", "suspicion of lung malignancy"),
)
"""Fourteen groups of words that mean the same of a nodule; no word is in two groups."""

KEPT = frozenset((
    "no", "not", "without", "absent", "absence", "none", "neither", "nor", "free", "evidence", "non", "nonsolid",
    "pure", "part", "partly", "semisolid", "well", "poorly", "ill", "very", "low", "moderately", "high", "intermediate",
    "wholly", "throughout", "nearly", "mm", "x", "marginated", "circumscribed", "demarcated", "defined", "ground",
    "glass",
))  # fmt: skip
"""Words that no crop takes: without them the sentence says something else."""

_SENTENCE = re.compile(r"[^.\n]*(?:\.(?=\d)[^.\n]*)*(?:\.|\n|$)")
_GROUP_OF = {word: group for group in GROUPS for word in group}


def _pattern(word: str) -> str:
    return re.sub(r"[ -]", "[ -]", word)


_KNOWN = re.compile(
    r"(?<![\w-])(?:(?P<article>an?)\s+)?(?P<word>"
    + "|".join(_pattern(word) for word in sorted(_GROUP_OF, key=len, reverse=True))
    + r")(?![\w-])",
    re.IGNORECASE,
)
_BY_PATTERN = {word.replace("-", " "): group for word, group in _GROUP_OF.items()}


def replace_synonyms(text: str, *, rng: np.random.Generator, most: int = 2) -> str:
    """Replace up to ``most`` words or short phrases by another one of their group.

    A hyphen and a space are alike when words are looked for; a large first letter and ``a`` or ``an`` are kept right.

    Args:
        text: Sentences.
        rng: Source of the choices.
        most: Replacements at most; at least one is made where a word is known.
    """
    found = list(_KNOWN.finditer(text))
    if not found or most < 1:
        return text
    count = int(rng.integers(1, min(most, len(found)) + 1))
    chosen = sorted(int(i) for i in rng.choice(len(found), size=count, replace=False))
    for index in reversed(chosen):
        text = _replaced(text, found[index], rng)
    return text


def _replaced(text: str, match: re.Match[str], rng: np.random.Generator) -> str:
    old, article = match["word"], match["article"]
    key = old.lower().replace("-", " ")
    others = [word for word in _BY_PATTERN[key] if word.replace("-", " ") != key]
    new = others[int(rng.integers(len(others)))]
    if article:
        new = with_article(new)
    if (article or old)[0].isupper():
        new = capital(new)
    return text[: match.start()] + new + text[match.end() :]


def crop_words(text: str, *, rng: np.random.Generator, share: float = 0.1) -> str:
    """Leave out one run of words of one sentence: about ``share`` of all words, at most ten, at least one.

    Args:
        text: Sentences.
        rng: Source of the choice.
        share: Of the words.

    Returns:
        The text without the run; unchanged where no run could be left out.
    """
    wanted = min(max(round(share * len(text.split())), 1), 10)
    runs: list[tuple[int, int]] = []
    for sentence in _SENTENCE.finditer(text):
        words = [m for m in re.finditer(r"[^\s.]+(?:\.\d+)?", sentence[0]) if m[0].strip("-*")]
        length = min(wanted, len(words) - 2)
        for first in range(len(words) - length + 1 if length > 0 else 0):
            run = words[first : first + length]
            if not any(_kept(m[0]) for m in run):
                runs.append((sentence.start() + run[0].start(), sentence.start() + run[-1].end()))
    if not runs:
        return text
    start, stop = runs[int(rng.integers(len(runs)))]
    return re.sub(r" +(?=[.,]|$)", "", re.sub(r" {2,}", " ", text[:start] + text[stop:]), flags=re.MULTILINE)


def _kept(word: str) -> bool:
    parts = re.split(r"[-,;:]", word.lower())
    return any(part in KEPT or part[:1].isdigit() for part in parts)


def varied(text: str, *, rng: np.random.Generator, probability: float = 0.5) -> str:
    """Apply each of the two steps with a probability of its own, as in training.

    Args:
        text: Sentences.
        rng: Source of the choices.
        probability: Of each step.
    """
    if rng.random() < probability:
        text = replace_synonyms(text, rng=rng)
    if rng.random() < probability:
        text = crop_words(text, rng=rng)
    return text
