"""Damaged files of every format: a volume or an InputError that names the file, never anything else."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.core.volume import Volume
from spicula.formats import read_volume

ANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
KINDS = ["a.nii", "a.nii.gz", "raw.nrrd", "packed.nrrd", "raw.mha", "packed.mha"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    made = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 300, (4, 8, 8)).astype(np.int16))
    made.SetSpacing((0.7, 0.7, 2.5))
    for kind in KINDS:
        sitk.WriteImage(made, folder / kind, useCompression=kind.startswith("packed") or kind.endswith("gz"))
    return {kind: (folder / kind).read_bytes() for kind in KINDS}


def survives(path: Path) -> None:
    outcome: Volume | InputError
    try:
        outcome = read_volume(path)
    except InputError as error:
        outcome = error
    assert path.name in str(outcome) or (isinstance(outcome, Volume) and outcome.array_zyx.size < 1 << 24)


@pytest.mark.parametrize("kind", KINDS)
@ANY
@given(data=st.data())
def test_truncated_and_flipped(kind, data, originals, tmp_path):
    raw = bytearray(originals[kind])
    head = min(len(raw), 600)
    for place in data.draw(st.lists(st.one_of(st.integers(0, head - 1), st.integers(0, len(raw) - 1)), max_size=4)):
        raw[place] ^= 1 << data.draw(st.integers(0, 7))
    length = data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))
    path = tmp_path / kind
    path.write_bytes(raw[:length])
    survives(path)


@ANY
@given(data=st.data())
def test_flipped_headers_inside_gzip(data, originals, tmp_path):
    raw = bytearray(originals["a.nii"])
    for place in data.draw(st.lists(st.integers(0, 351), min_size=1, max_size=6)):
        raw[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(bytes(raw), 1))
    survives(path)


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
@ANY
@given(data=st.data())
def test_numbers_of_text_headers_replaced(kind, data, originals, tmp_path):
    lines = originals[f"raw.{kind}"].split(b"\n")
    end = next(n for n, line in enumerate(lines) if line == b"" or line.startswith(b"ElementDataFile"))
    number = data.draw(st.integers(1, end))
    words = ["0", "-1", "1e400", "nan", "99999999999999999999", "none", "(", ")", ",", "%s", "LIST", "raw", "\x00", "½"]
    separator = b": " if kind == "nrrd" else b" = "
    name, _, _ = lines[number].partition(separator)
    value = " ".join(data.draw(st.lists(st.one_of(st.sampled_from(words), st.text(max_size=8)), max_size=5)))
    lines[number] = name + separator + value.encode("utf-8", "replace")
    path = tmp_path / f"a.{kind}"
    path.write_bytes(b"\n".join(lines))
    survives(path)


@ANY
@given(
    st.binary(max_size=400), st.sampled_from(["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd", "a", "a.dcm", "a.zip"])
)
def test_noise(tmp_path, noise, name):
    path = tmp_path / name
    path.write_bytes(noise)
    survives(path)
