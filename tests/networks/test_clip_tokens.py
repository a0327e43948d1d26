"""Tokenizers: CLIP's against transformers on the published vocabulary, and the small one's laws."""

from __future__ import annotations

import gzip
import json
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicula.core.bundle import sha256_of
from spicula.core.errors import InputError, OfflineError, SpiculaWarning
from spicula.networks.clip_tokens import (
    WordTokenizer,
    clip_tokenizer,
    load_tokenizer,
    train_tokenizer,
)

WHEEL = "clip_anytorch-2.6.0-py3-none-any.whl"
SHA256 = "ebc0afed243851b9dc7e16ab8afb665237e8a5838986e97cd99f123ae4ce94ce"
"""Of the wheel (MIT), in which OpenAI's list of merges lies; nothing of it is run."""

MEMBER = "clip/bpe_simple_vocab_16e6.txt.gz"

REPORT = (
    "Findings: the nodule in the right upper lobe is part-solid and measures 14.2 mm.\n- Margins are spiculated.\n"
    "- There is pleural retraction; no cavitation.\nImpression: a spiculated part-solid nodule, highly suspicious."
)
TEXTS = [
    "a photo of a cat",
    "A Part-Solid   NODULE, 14.2mm; it's spiculated/serrated (score: 5)!",
    "naïve café — 日本 µm ½ don't we've I'LL",
    REPORT,
    "in\tin\nthe th ththe",
]


@pytest.fixture(scope="module")
def merges(tmp_path_factory) -> Path:
    """OpenAI's list of merges, out of a wheel that is kept in the cache."""
    from spicula.datasets.package_index import fetch_file, pip_settings
    from spicula.datasets.sample import cache_folder

    wheel = cache_folder() / WHEEL
    if not wheel.is_file() or sha256_of(wheel) != SHA256:
        try:
            fetch_file("clip-anytorch", WHEEL, wheel, sha256=SHA256, settings=pip_settings())
        except OfflineError as error:
            if os.environ.get("SPICULA_NO_SKIP"):
                pytest.fail(str(error))
            pytest.skip(str(error))
    target = tmp_path_factory.mktemp("clip") / "bpe_simple_vocab_16e6.txt.gz"
    with zipfile.ZipFile(wheel) as archive:
        target.write_bytes(archive.read(MEMBER))
    return target


@pytest.fixture(scope="module")
def clip(merges) -> WordTokenizer:
    return clip_tokenizer(merges)


@pytest.fixture(scope="module")
def small() -> WordTokenizer:
    return train_tokenizer([REPORT, "An ovoid solid nodule with smooth margins.", "No findings."] * 3, vocabulary=200)


def test_the_published_ids(clip) -> None:
    assert (clip.vocabulary, clip.context) == (49408, 77)
    assert (clip.start_token, clip.end_token, clip.pad_token) == (49406, 49407, 0)
    ids = clip.encode(["a photo of a cat"]).ids
    assert ids.shape == (1, 77)
    assert ids.dtype == np.int64
    assert ids[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0]
    assert not ids[0, 7:].any()


def test_ids_equal_those_of_transformers(clip, merges, tmp_path) -> None:
    transformers = pytest.importorskip("transformers", reason="pip install 'spicula[train]'")
    folder = tmp_path / "hf"
    folder.mkdir()
    lines = gzip.decompress(merges.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n", encoding="utf-8")
    vocabulary = json.loads(clip._file)["model"]["vocab"]
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    theirs = transformers.CLIPTokenizer.from_pretrained(folder)
    for text in TEXTS:
        expected = theirs(text)["input_ids"]
        assert clip.encode([text]).ids[0, : len(expected)].tolist() == expected
    long = " ".join([REPORT] * 3)
    expected = theirs(long, truncation=True, max_length=77)["input_ids"]
    with pytest.warns(SpiculaWarning, match="cut after a token"):
        assert clip.encode([long], cut="token").ids[0].tolist() == expected
    again = clip_tokenizer(folder / "merges.txt")
    assert np.array_equal(again.encode(TEXTS).ids, clip.encode(TEXTS).ids)


def plain_bpe(text: str, merges: Path) -> list[str]:
    """Byte-pair encoding of ASCII words written out: join the pair of the lowest rank until none is left."""
    lines = gzip.decompress(merges.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    rank = {tuple(line.split()): number for number, line in enumerate(lines)}
    found = []
    for word in text.lower().split():
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            best = min(range(len(parts) - 1), key=lambda i: rank.get((parts[i], parts[i + 1]), 1 << 30))
            if (parts[best], parts[best + 1]) not in rank:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        found += parts
    return found


def test_words_are_split_by_the_ranks_of_the_merges(clip, merges) -> None:
    text = "Spiculated juxtapleural subsolid nodule with paracicatricial emphysema qzxj"
    assert clip.words(clip.encode([text]).ids[0]) == plain_bpe(text, merges)


def test_words_that_look_like_special_tokens_end_nothing(clip, small) -> None:
    for tokenizer in (clip, small):
        ids = tokenizer.encode(["before <|endoftext|> [END] [PAD] <|startoftext|> after"]).ids[0]
        assert (ids == tokenizer.end_token).sum() == 1
        assert (ids == tokenizer.start_token).sum() == 1
        assert "".join(tokenizer.words(ids)).removesuffix("</w>").endswith("after")


def test_a_file_of_something_else_is_refused(tmp_path) -> None:
    path = tmp_path / "merges.txt"
    path.write_text("#version: 0.2\ni n\nt h\n")
    with pytest.raises(InputError, match=r"merges.txt: got 2 merges, expected a header and 48,894"):
        clip_tokenizer(path)
    path.write_bytes(b"\x1f\x8b broken")
    with pytest.raises(InputError, match=r"merges\.txt"):
        clip_tokenizer(path)
    with pytest.raises(InputError, match=r"nothing\.gz"):
        clip_tokenizer(tmp_path / "nothing.gz")


def test_what_is_saved_reads_the_same(small, tmp_path) -> None:
    small.save(tmp_path / "tokenizer.json")
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        again = load_tokenizer(place)
        assert np.array_equal(again.encode(TEXTS).ids, small.encode(TEXTS).ids)
        assert (again.context, again.end_token, again.pad_token) == (77, 3, 0)
    from tokenizers import Tokenizer

    alone = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))  # by the library alone
    assert alone.encode(TEXTS[0]).ids == small.encode(TEXTS[:1]).ids[0].tolist()


def test_files_that_are_no_tokenizer_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(InputError, match="of the tokenizers library"):
        load_tokenizer(path)
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(path))
    with pytest.raises(InputError, match="no padding"):
        load_tokenizer(path)


def test_training_is_repeatable_and_learns_whole_words(small) -> None:
    texts = [REPORT, "An ovoid solid nodule with smooth margins.", "No findings."] * 3
    assert train_tokenizer(texts, vocabulary=200)._file == small._file
    assert small.vocabulary <= 200
    assert small.words(small.encode(["Spiculated  nodule"]).ids[0]) == ["▁spiculated", "▁nodule"]
    assert small.words(small.encode(["14.2"]).ids[0]) == ["▁", "1", "4", ".", "2"]
    assert (small.start_token, small.end_token, small.pad_token) == (2, 3, 0)


def test_case_accents_and_white_space_do_not_matter(small) -> None:
    ids = small.encode(["naive  Nodule\n", "Naïve nodule", "NAIVE\tNODULE"]).ids
    assert np.array_equal(ids[0], ids[1])
    assert np.array_equal(ids[0], ids[2])


@given(st.text(min_size=1, max_size=60).filter(str.strip))
@settings(max_examples=80, deadline=None)
def test_any_words_encode(small, text) -> None:
    ids = small.encode([text]).ids[0]
    assert ids[0] == small.start_token
    end = int((ids == small.end_token).argmax())
    assert ids[end] == small.end_token
    assert not ids[end + 1 :].any()
    assert ids.max() < small.vocabulary


@given(st.text(alphabet=[chr(code) for code in range(33, 127)], min_size=1, max_size=40))
@settings(max_examples=80, deadline=None)
def test_ascii_is_spelled_without_unknowns(small, text) -> None:
    assert "[UNK]" not in small.words(small.encode([text]).ids[0])
    assert "".join(small.words(small.encode([text]).ids[0])) == "▁" + text.lower()


def test_a_long_report_is_cut_after_a_sentence_and_says_so(small) -> None:
    sentence = "There is a spiculated nodule with pleural retraction."
    long = " ".join([sentence] * 20)
    with pytest.warns(SpiculaWarning, match=r"1 of 2 texts have more than 77 tokens and were cut after a sentence"):
        tokens = small.encode([sentence, long])
    assert tokens.cut == (False, True)
    kept = small.words(tokens.ids[1])
    assert kept[-1] == "."
    assert len(kept) <= 75
    count = kept.count(".")
    assert small.length(" ".join([sentence] * count)) <= 77 < small.length(" ".join([sentence] * (count + 1)))
    assert kept == small.words(small.encode([" ".join([sentence] * count)]).ids[0])


def test_a_sentence_that_is_too_long_itself_is_cut_after_a_token(small) -> None:
    with pytest.warns(SpiculaWarning):
        tokens = small.encode(["nodule " * 100])
    assert tokens.cut == (True,)
    assert tokens.ids[0, -1] == small.end_token
    assert tokens.ids[0, 1:-1].all()


def test_texts_that_fit_exactly_are_not_cut(small) -> None:
    text = ("nodule " * 75).strip()
    assert small.length(text) == 77
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert small.encode([text]).cut == (False,)


def test_empty_texts_and_impossible_vocabularies_are_refused(small) -> None:
    with pytest.raises(InputError, match="text 1 of 2: got no words"):
        small.encode(["a", " \n"])
    with pytest.raises(InputError, match="vocabulary"):
        train_tokenizer(["a"], vocabulary=20)
    with pytest.raises(InputError, match="none"):
        train_tokenizer([" "])
