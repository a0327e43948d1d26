"""``spicula pretrain``: a run goes on with its own arguments and with no others."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spicula.cli import app
from spicula.core.errors import InputError
from spicula.pipelines.search_arms import recipe_of

pytest.importorskip("torch", reason="pip install 'spicula[train]'")


def call(*arguments: str) -> BaseException | None:
    return CliRunner().invoke(app, ["pretrain", *arguments]).exception


@pytest.mark.parametrize(
    "others", [["--width", "8"], ["--epochs", "5"], ["--no-frangi"], ["--pool", "max"], ["--seed", "1"]]
)
def test_a_run_is_not_gone_on_with_otherwise(tmp_path: Path, others: list[str]) -> None:
    (tmp_path / "data").mkdir()
    run = tmp_path / "run"
    assert isinstance(call("simclr", "--data", str(tmp_path / "data"), "--out", str(run)), InputError)  # no scans
    before = (run / "run.json").read_bytes()
    refused = call("simclr", "--data", str(tmp_path / "data"), "--out", str(run), *others)
    assert isinstance(refused, InputError)
    assert "arguments" in str(refused)
    assert (run / "run.json").read_bytes() == before


def test_the_method_is_among_the_arguments(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    call("simclr", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"))
    refused = call("vae", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"))
    assert isinstance(refused, InputError)
    assert "arguments" in str(refused)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [([], (32, 30, 64)), (["--published"], (64, 1000, 256)), (["--published", "--epochs", "9"], (64, 9, 256))],
)
def test_as_published_means_the_sizes_too(tmp_path: Path, options: list[str], sizes: tuple[int, int, int]) -> None:
    (tmp_path / "data").mkdir()
    call("vae", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), *options)
    recipe = json.loads((tmp_path / "run" / "run.json").read_text())["arguments"]["recipe"]
    assert (recipe["width"], recipe["epochs"], recipe["latent"]) == sizes
    assert recipe == asdict(recipe_of(published="--published" in options, epochs=9 if "9" in options else None))
