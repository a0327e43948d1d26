"""Words to token ids: CLIP's tokenizer and a small one of our own, both as a ``tokenizer.json`` (no torch).

References:
    Radford et al. 2021, arXiv 2103.00020 (lower-case byte-pair encoding, 77 tokens); Sennrich et al. 2016,
    doi:10.18653/v1/P16-1162. Departure: the published code repairs broken Unicode and HTML before it splits words; we,
    like transformers, normalize Unicode only.
"""

from __future__ import annotations

import gzip
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from spicula.core.errors import InputError, SpiculaWarning
from spicula.core.files import written_aside

CONTEXT = 77
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[START]", "[END]"
"""Special tokens of the small tokenizer, ids 0 to 3."""

_CLIP_MERGES = 49152 - 256 - 2
_CLIP_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
_ALPHABET = [chr(code) for code in range(33, 127) if not chr(code).isupper()]


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Texts as ids.

    Args:
        ids: int64 ``[n, context]``: start, words, end, padding.
        cut: For each text whether it was too long and lost its end.
    """

    ids: NDArray[np.int64]
    cut: tuple[bool, ...]


class WordTokenizer:
    """A tokenizer with start and end tokens, a fixed length and a way to shorten texts.

    Args:
        tokenizer: One of :func:`clip_tokenizer`, :func:`train_tokenizer` or a ``tokenizer.json`` of either; its padding
            and truncation say which id fills the rest and how long a text is.

    Raises:
        InputError: It lacks padding or truncation, or start and end tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        padding, truncation = tokenizer.padding, tokenizer.truncation
        if padding is None or truncation is None:
            raise InputError(
                "tokenizer", got="no padding or no truncation", expected="both, to know the length of a text",
                hint="clip_tokenizer makes one of merges.txt",
            )  # fmt: skip
        self._file = tokenizer.to_str()
        self._words = Tokenizer.from_str(self._file)
        self._words.no_padding()
        self._words.no_truncation()
        self._words.encode_special_tokens = True  # words that look like a special token are words
        ends = self._words.encode("").ids
        if len(ends) != 2:
            raise InputError("tokenizer", got=f"{len(ends)} tokens around a text", expected="a start and an end token")
        self.context = int(truncation["max_length"])
        self.start_token, self.end_token = int(ends[0]), int(ends[1])
        self.pad_token = int(padding["pad_id"])

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(self._words.get_vocab_size())

    def to_json(self) -> str:
        """The content of ``tokenizer.json``."""
        return self._file

    def save(self, path: Path) -> None:
        """Write ``tokenizer.json``."""
        with written_aside(path) as aside:
            aside.write_text(self._file, encoding="utf-8")

    def length(self, text: str) -> int:
        """How many tokens a text has, start and end included."""
        return len(self._words.encode(text).ids)

    def words(self, ids: Iterable[int]) -> list[str]:
        """Tokens of a text's ids, its start and end left out."""
        found = []
        for index in map(int, ids):
            if index == self.end_token:
                break
            if index != self.start_token:
                found.append(str(self._words.id_to_token(index)))
        return found

    def encode(self, texts: Sequence[str], *, cut: Literal["sentence", "token"] = "sentence") -> Tokens:
        """Turn texts into ids; texts that are too long are shortened, with a warning.

        Args:
            texts: Any words; whether upper or lower case does not matter.
            cut: Where a text that is too long ends: after the last whole ``sentence`` that fits (after the last token
                that fits if not even one does), or after the last ``token``, as the published code does.

        Returns:
            The ids, and which texts were cut.

        Raises:
            InputError: A text is empty.
        """
        blank = [number for number, text in enumerate(texts) if not text.strip()]
        if blank:
            raise InputError(f"text {blank[0]} of {len(texts)}", got="no words", expected="words to encode")
        ids = np.full((len(texts), self.context), self.pad_token, dtype=np.int64)
        was_cut = []
        for row, text in zip(ids, texts, strict=True):
            found = self._words.encode(text).ids
            was_cut.append(len(found) > self.context)
            if was_cut[-1] and cut == "sentence":
                found = self._words.encode(self.whole_sentences(text)).ids
            if len(found) > self.context:
                found = [*found[: self.context - 1], self.end_token]
            row[: len(found)] = found
        if any(was_cut):
            first = texts[was_cut.index(True)]
            warnings.warn(
                f"{sum(was_cut)} of {len(texts)} texts have more than {self.context} tokens and were cut after a "
                f"{cut}, the first is {first[:60]!r}",
                SpiculaWarning,
                stacklevel=2,
            )
        return Tokens(ids, tuple(was_cut))

    def whole_sentences(self, text: str) -> str:
        """The leading sentences (or lines) of a text that fit together; all of the first if it is too long itself."""
        kept = ""
        for sentence in (part for part in _SENTENCE_END.split(text) if part.strip()):
            longer = f"{kept} {sentence}".strip()
            if kept and self.length(longer) > self.context:
                break
            kept = longer
        return kept


def load_tokenizer(path: Path) -> WordTokenizer:
    """Read a ``tokenizer.json``.

    Args:
        path: The file, or the folder that it is in.

    Returns:
        The tokenizer.

    Raises:
        InputError: There is none, or it is no tokenizer of this kind.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}", got=str(error), expected="a tokenizer.json") from error
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # the library raises this very class
        raise InputError(f"{file}", got=str(error), expected="a tokenizer.json of the tokenizers library") from error
    return WordTokenizer(tokenizer)


def clip_tokenizer(merges: Path) -> WordTokenizer:
    """CLIP's tokenizer, from the published list of merges.

    Args:
        merges: ``bpe_simple_vocab_16e6.txt.gz`` of OpenAI's code (it lies in several packages), or ``merges.txt`` of
            a Hugging Face folder.

    Returns:
        The tokenizer with 49,408 tokens; 0 fills the rest, as in the published code.

    Raises:
        InputError: The file is no such list.
    """
    pairs = _merges_of(merges)
    byte_tokens = _byte_characters()
    tokens = [*byte_tokens, *(f"{token}</w>" for token in byte_tokens), *("".join(pair) for pair in pairs)]
    vocabulary = {token: number for number, token in enumerate([*tokens, CLIP_START, CLIP_END])}
    model = BPE(
        vocab=vocabulary, merges=pairs, continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False,
        unk_token=CLIP_END,
    )  # fmt: skip
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return _finished(tokenizer, start=CLIP_START, end=CLIP_END, pad=tokens[0])


def _merges_of(path: Path) -> list[tuple[str, str]]:
    try:
        raw = path.read_bytes()
        lines = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}", got=str(error), expected="the merges of CLIP's vocabulary") from error
    lines = lines[1 : _CLIP_MERGES + 1]
    pairs = [tuple(line.split()) for line in lines]
    if len(pairs) != _CLIP_MERGES or any(len(pair) != 2 for pair in pairs) or pairs[0] != ("i", "n"):
        raise InputError(
            f"{path}", got=f"{sum(len(pair) == 2 for pair in pairs)} merges", expected=f"a header and {_CLIP_MERGES:,}",
            hint="bpe_simple_vocab_16e6.txt.gz of OpenAI's CLIP, or merges.txt of a Hugging Face folder",
        )  # fmt: skip
    return [(first, second) for first, second in pairs]


def _byte_characters() -> list[str]:
    """The character that stands for each byte, in the order of CLIP's vocabulary: printable ones first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + number) for number in range(others)]


def train_tokenizer(texts: Iterable[str], *, vocabulary: int = 600, context: int = CONTEXT) -> WordTokenizer:
    """Learn a small tokenizer from texts: byte-pair encoding of lower-case words, digits and punctuation apart.

    Words that the texts do not have are spelled from shorter tokens, down to single characters; characters outside
    ASCII lose their accents, and what is left of them is unknown. Any words can be encoded.

    Args:
        texts: What it is to know best.
        vocabulary: Number of tokens at most; fewer if the texts have no more pairs to merge.
        context: Tokens of a text.

    Returns:
        The tokenizer, the same for the same texts; 0 fills the rest.

    Raises:
        InputError: The vocabulary is too small for the characters, or the texts are empty.
    """
    least = len(_ALPHABET) + 5
    if vocabulary < least:
        raise InputError("vocabulary", got=vocabulary, expected=f"{least} or more, for all characters")
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise InputError("texts to learn a tokenizer from", got="none", expected="at least one with words")
    tokenizer = Tokenizer(BPE(unk_token=UNKNOWN, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
            pre_tokenizers.Punctuation(behavior="isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    trainer = BpeTrainer(
        vocab_size=vocabulary, special_tokens=[PAD, UNKNOWN, START, END], initial_alphabet=["▁", *_ALPHABET],
        limit_alphabet=len(_ALPHABET) + 1, show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return _finished(tokenizer, start=START, end=END, pad=PAD, context=context)


def _finished(tokenizer: Tokenizer, *, start: str, end: str, pad: str, context: int = CONTEXT) -> WordTokenizer:
    """Give a tokenizer its ends, its length and what fills the rest."""
    ids = {token: tokenizer.token_to_id(token) for token in (start, end, pad)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, ids[start]), (end, ids[end])]
    )
    tokenizer.enable_truncation(context)
    tokenizer.enable_padding(length=context, pad_id=ids[pad], pad_token=pad)
    return WordTokenizer(tokenizer)
