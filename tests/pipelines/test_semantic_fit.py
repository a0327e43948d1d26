"""Training images and words: exact resumption, a loss that is not finite, what trains, who is learned from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'spicula[train]'")
pytest.importorskip("accelerate", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError
from spicula.core.finding import Case, Finding
from spicula.datasets.lidc_nodules import TRAITS
from spicula.pipelines import semantic_fit, semantic_views
from spicula.pipelines.semantic_recipe import Recipe, Towers, compact_towers, published_towers, recipe_of
from spicula.pipelines.semantic_table import SemanticTable
from spicula.pipelines.semantic_words import word_tokenizer

COUNT, SIDE = 24, 12
RECIPE = replace(recipe_of("compact"), epochs=3, batch=8, width=16, pretraining=None, text_pretraining=None)


def no_volume() -> Any:
    raise AssertionError("the table has all that is needed")


@pytest.fixture(scope="module")
def table() -> SemanticTable:
    rng = np.random.default_rng(0)
    labels = (rng.random((COUNT, 8)) < 0.5).astype(np.float64)
    cubes = rng.normal(-400, 300, (COUNT, 2, 2, SIDE, SIDE, SIDE)).astype(np.float16)
    cubes[:, :, 1] = cubes[:, :, 1] > -400
    readings = tuple(
        np.array([[rng.integers(1, 5) for _ in TRAITS] for _ in range(3)], dtype=np.int8) for _ in range(COUNT)
    )
    medians = tuple(dict(zip(TRAITS, np.median(one, axis=0).tolist(), strict=True)) for one in readings)
    cases = tuple(Case(f"P{i // 2}", no_volume, (Finding(f"N{i}", (0, 0, 0), 5.0 + i),), f"N{i}") for i in range(COUNT))
    measures = rng.normal(size=(COUNT, 2, 4)) + labels[:, None, :1]
    return SemanticTable(cases, cubes, tuple("abcd"), measures, labels, labels, labels[:, :3], medians, readings)


@pytest.fixture(scope="module")
def towers() -> Towers:
    return compact_towers(RECIPE)


@pytest.fixture(scope="module")
def whole(table: SemanticTable, towers: Towers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return semantic_fit.fit(table, np.arange(16), tmp_path_factory.mktemp("whole"), RECIPE, towers)


@pytest.fixture
def die_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes training stop as if killed when so many epochs are kept."""
    save = semantic_fit.save_checkpoint

    def arm(epochs: int) -> None:
        def save_and_die(folder: Path, epoch: int, *rest: Any) -> None:
            save(folder, epoch, *rest)
            if epoch == epochs:
                raise KeyboardInterrupt

        monkeypatch.setattr(semantic_fit, "save_checkpoint", save_and_die)

    return arm


@pytest.mark.parametrize("patience", [0, 2])
def test_a_killed_training_goes_on_exactly(
    table: SemanticTable, towers: Towers, whole: dict[str, Any], tmp_path: Path, die_after: Any, patience: int
) -> None:
    recipe = replace(RECIPE, patience=patience)
    rows = np.arange(16)
    unbroken = semantic_fit.fit(table, rows, tmp_path / "whole", recipe, towers) if patience else whole
    die_after(2)
    with pytest.raises(KeyboardInterrupt):
        semantic_fit.fit(table, rows, tmp_path / "cut", recipe, towers)
    die_after(99)
    resumed = semantic_fit.fit(table, rows, tmp_path / "cut", recipe, towers)
    assert unbroken.keys() == resumed.keys()
    assert all(np.array_equal(unbroken[name].numpy(), resumed[name].numpy()) for name in unbroken)
    log = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [0, 1, 2]
    assert all(math.isfinite(line["contrastive"]) for line in log)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(
    table: SemanticTable, towers: Towers, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spicula.networks import statement_losses

    real, calls = statement_losses.soft_cross_entropy, []

    def broken(*arguments: Any, **others: Any) -> Any:
        calls.append(1)
        return real(*arguments, **others) * (math.nan if len(calls) == 7 else 1.0)  # image and text, two steps

    monkeypatch.setattr(statement_losses, "soft_cross_entropy", broken)
    with pytest.raises(InputError, match=r"batch 1 of epoch 1: N\d+"):
        semantic_fit.fit(table, np.arange(16), tmp_path, RECIPE, towers)
    monkeypatch.setattr(statement_losses, "soft_cross_entropy", real)
    assert (tmp_path / "checkpoint.safetensors").is_file()
    again = semantic_fit.fit(table, np.arange(16), tmp_path, RECIPE, towers)
    assert all(np.array_equal(whole[name].numpy(), again[name].numpy()) for name in whole)


def test_a_network_knows_only_its_rows(
    table: SemanticTable, towers: Towers, whole: dict[str, Any], tmp_path: Path
) -> None:
    changed = table.labels.copy()
    changed[16:] = 1 - changed[16:]
    cubes, measures = table.cubes.copy(), table.measures.copy()
    cubes[16:], measures[16:] = 0, 0
    other = replace(table, labels=changed, shares=changed, steps=changed[:, :3], cubes=cubes, measures=measures)
    again = semantic_fit.fit(other, np.arange(16), tmp_path, RECIPE, towers)
    assert all(np.array_equal(whole[name].numpy(), again[name].numpy()) for name in whole)


def test_what_it_says_does_not_depend_on_the_company(
    table: SemanticTable, towers: Towers, whole: dict[str, Any]
) -> None:
    all_of, one = (semantic_views.see(table, np.array(rows), whole, RECIPE, towers) for rows in (range(24), [20]))
    assert np.allclose(all_of.logit[20], one.logit[0], atol=1e-5)
    assert np.allclose(np.linalg.norm(all_of.embedding, axis=1), 1)
    assert np.allclose(all_of.attention.sum(axis=1), 1, atol=1e-6)
    reader = semantic_views.reader(table, whole, RECIPE, towers)
    assert np.allclose(np.linalg.norm(reader.read(["Solid nodule.", "Round."]), axis=1), 1, atol=1e-6)
    assert 0.01 <= reader.temperature <= 1


def test_shuffled_texts_are_those_of_others_in_training(table: SemanticTable) -> None:
    rows = np.arange(4, 20)
    owners = semantic_fit.words_of(table, rows, replace(RECIPE, shuffle_texts=True))
    assert sorted(owners[rows]) == rows.tolist()
    assert (owners[rows] != rows).mean() > 0.7
    assert owners[:4].tolist() == [0, 1, 2, 3]


def test_without_words_the_text_side_is_left_alone(table: SemanticTable, towers: Towers, tmp_path: Path) -> None:
    recipe = replace(RECIPE, modality="vision", epochs=1)
    weights = semantic_fit.fit(table, np.arange(16), tmp_path, recipe, towers)
    assert not any("token_embedding" in name or "logit_scale" in name for name in weights)


@pytest.fixture
def tiny_clip(tmp_path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    from spicula.networks.clip import Clip, ClipText, ClipVision

    torch.manual_seed(0)
    words = word_tokenizer()
    vision = ClipVision(image_size=32, patch_size=16, width=64, layers=2, heads=1, output_dim=24)
    text = ClipText(vocabulary=words.vocabulary, width=64, layers=2, heads=1, output_dim=24, end_token=words.end_token)
    folder = tmp_path / "clip"
    words.save(folder / "tokenizer.json")
    save_file(
        {name: value.contiguous() for name, value in Clip(vision, text).state_dict().items()},
        folder / "clip.safetensors",
    )
    return folder


@pytest.mark.parametrize(("tuning", "trained"), [("lora", "lora_"), ("probe", "classifier_image"), ("ft", "conv1")])
def test_the_papers_recipe_on_published_weights(
    table: SemanticTable, tiny_clip: Path, tmp_path: Path, tuning: Any, trained: str
) -> None:
    if tuning == "lora":
        pytest.importorskip("peft", reason="pip install 'spicula[train]'")
    recipe = replace(recipe_of("paper", tuning=tuning), epochs=1, batch=4, width=16)
    towers = published_towers(tiny_clip, recipe)
    weights = semantic_fit.fit(table, np.arange(16), tmp_path / "run", recipe, towers)
    assert any(trained in name for name in weights)
    assert any("mlp" in name for name in weights) == (tuning == "ft")
    views = semantic_views.see(table, np.arange(16, 20), weights, recipe, towers)
    assert np.isfinite(views.logit).all()


def test_wrong_recipes_and_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tuning"):
        recipe_of("compact", tuning="half")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="config"):
        recipe_of("large")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="safetensors"):
        published_towers(tmp_path, Recipe())
