"""The ablations: the tests on made-up scores, and a whole tiny job that is resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError
from spicula.pipelines.ablations import ARMS, SEMANTIC, Scores, compare_arms, run_ablations
from spicula.pipelines.risk_table import Outlines
from spicula.pipelines.semantic_recipe import recipe_of


def made_up(strength: dict[str, float], *, seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    label = rng.random(400) < 0.4
    by_arm = {arm: how * label + rng.normal(size=400) for arm, how in strength.items()}
    return Scores(label, np.arange(400) % 5, np.arange(400).astype(str), by_arm)


def test_the_better_arm_comes_out_better_and_the_tests_are_those_of_the_folds() -> None:
    strength = {"ft": 3.0, "probe": 0.2, "lora": 1.0, "vision": 1.0, "shuffled": 0.1, "clip": 3.0, SEMANTIC: 2.0}
    found = compare_arms(made_up(strength), {}, resamples=200)
    means = {arm: areas["auroc"]["mean"] for arm, areas in found["arms"].items()}
    assert means["ft"] > means["lora"] > means["probe"]
    assert set(found["arms"]) == {*ARMS, SEMANTIC}
    tuning = found["tests"]["auroc"]["tuning, Friedman and Nemenyi"]
    assert tuning["p_value"] == pytest.approx(0.0067, abs=1e-4)  # chi-square 10 of 2 degrees: the same order five times
    assert tuning["pairs"]["ft against probe"] < 0.05
    assert found["tests"]["auroc"]["vision against clip, Wilcoxon"]["p_value"] == 0.0625
    assert found["paired_differences_of_auroc"]["clip over shuffled"]["low"] > 0


def test_unknown_arms_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="arm"):
        run_ablations(tmp_path, tmp_path / "out", recipe=recipe_of("compact"), only=["half"])


@pytest.mark.shared
@pytest.mark.slow
def test_a_tiny_job_can_be_shared_and_resumed(shared: Path, tmp_path: Path, readers_outlines: Outlines) -> None:
    text = replace(recipe_of("compact").text_pretraining, steps=2, batch=8)
    recipe = replace(recipe_of("compact"), epochs=1, batch=16, width=16, pretraining=None, text_pretraining=text)
    arguments = {"recipe": recipe, "outlines": readers_outlines, "folds": 2, "variants": 1, "limit": 120}
    lines: list[str] = []
    out = tmp_path / "job"
    assert run_ablations(shared, out, only=["probe", "lora"], report=lines.append, **arguments) is None
    assert lines[-1] == "not yet there: ft, vision, shuffled"
    found = run_ablations(shared, out, report=lines.append, **arguments)
    assert found is not None
    stored = json.loads((out / "ablations.json").read_text())
    assert stored["arms"] == found["arms"]
    assert set(found["words"]) == {"ft", "lora", "shuffled"}
    assert (out / "material" / "text" / "0" / "weights.safetensors").is_file()
