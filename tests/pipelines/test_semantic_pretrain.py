"""What the towers learn before they are aligned: crops as planes, exact resumption, what a denial says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'spicula[train]'")

import torch

from spicula.core.errors import InputError
from spicula.core.volume import Mask, Volume
from spicula.datasets.lidc_crops import PIXEL_MM, Crop
from spicula.datasets.lidc_nodules import TRAITS
from spicula.networks import checkpoint
from spicula.pipelines import semantic_crops, semantic_pretrain, semantic_pretrain_text
from spicula.pipelines.semantic_crops import CropTable, turned_about_middle
from spicula.pipelines.semantic_pretrain import PretrainRecipe, chances, pretrain
from spicula.pipelines.semantic_pretrain_text import CLASSES, TextRecipe, answers_of, made_up, pretrain_text
from spicula.pipelines.semantic_recipe import compact_towers, recipe_of

TOWERS = compact_towers(recipe_of("compact"))


def crop(patient: str, nodule: str = "0", readers: int = 4) -> Crop:
    return Crop(Path(f"{patient}.webp"), patient, nodule, readers, MappingProxyType(dict.fromkeys(TRAITS, 3.0)))


@pytest.fixture
def table() -> CropTable:
    rng = np.random.default_rng(0)
    planes = np.full((12, 2, 64, 64), -850, dtype=np.float16)
    planes[:, 0, 24:40, 24:40] = rng.normal(0, 50, (12, 16, 16))
    planes[:, 1] = planes[:, 0] > -400
    ratings = rng.integers(1, 6, (12, len(TRAITS))).astype(np.float32)
    return CropTable(tuple(crop(f"P{i // 2}") for i in range(12)), planes, ratings)


def make_vision() -> object:
    torch.manual_seed(0)
    return TOWERS.make().vision_model


def test_a_turned_slice_is_its_own_middle_and_alike_in_every_direction() -> None:
    y, x = np.mgrid[-63.5:64, -63.5:64]
    hu = np.where(np.hypot(y, x) < 10, 40, -850).astype(np.float32)
    volume = turned_about_middle(hu)
    middle = volume.geometry.shape_zyx[0] // 2
    radius = np.linalg.norm(np.moveaxis(np.indices(volume.array_zyx.shape), 0, -1) - middle, axis=-1)
    assert np.all(volume.array_zyx[radius < 9] > 0)
    assert np.all(volume.array_zyx[radius > 11] < -800)
    assert volume.geometry.spacing_zyx_mm == (PIXEL_MM,) * 3


def test_a_crop_becomes_a_plane_about_its_outline(monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = np.mgrid[-63.5:64, -63.5:64]
    gray = np.where(np.hypot(y - 4, x) < 10, 118, 20).astype(np.uint8)
    monkeypatch.setattr(semantic_crops.lidc_crops, "read_gray", lambda _: gray)

    def dense(_: Crop, volume: Volume, center_xyz_mm: Sequence[float]) -> Mask:
        assert np.allclose(center_xyz_mm, 0.0)
        return Mask(volume.array_zyx > -400, volume.geometry)

    plane = semantic_crops.plane_of(crop("P1"), dense)
    assert plane.shape == (2, 64, 64)
    rows, columns = np.nonzero(plane[1] > 0.5)
    assert np.allclose([rows.mean(), columns.mean()], 31.5, atol=0.6)
    assert plane[0, 0, 0] == pytest.approx(-850)
    wandered = semantic_crops.plane_of(crop("P1"), _wandered)
    assert 4 < np.sqrt((wandered[1] > 0.5).sum() * 0.64 / np.pi) * 2 < 6  # a disk of 5 mm


def _wandered(_: Crop, __: Volume, center_xyz_mm: Sequence[float]) -> Mask:
    raise InputError("outline")


def test_nodules_are_drawn_by_their_readers_not_by_their_crops() -> None:
    crops = (*[crop("A")] * 4, crop("B"), crop("C", readers=1))
    some = CropTable(crops, np.empty(0, np.float16), np.empty(0, np.float32))
    chance = chances(some, np.arange(6))
    assert chance.sum() == pytest.approx(1.0)
    assert chance[:4].sum() == pytest.approx(2 * chance[4])
    assert chance[4] == pytest.approx(4 * chance[5])


def _dies(after: int, monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    count = {"saved": 0}

    def save(*arguments: object) -> None:
        checkpoint.save_checkpoint(*arguments)  # type: ignore[arg-type]
        count["saved"] += 1
        if count["saved"] == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_checkpoint", save)


def test_the_image_tower_goes_on_bit_equal_after_a_kill(
    table: CropTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, rows = PretrainRecipe(epochs=3, batch=4), np.arange(10)
    whole = pretrain(table, rows, tmp_path / "whole", recipe, make_vision=make_vision)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        _dies(1, patch, semantic_pretrain)
        pretrain(table, rows, tmp_path / "killed", recipe, make_vision=make_vision)
    resumed = pretrain(table, rows, tmp_path / "killed", recipe, make_vision=make_vision)
    assert set(whole) == set(make_vision().state_dict())  # type: ignore[attr-defined]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    again = pretrain(table, rows, tmp_path / "whole", recipe, make_vision=make_vision)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_loss_that_is_not_finite_names_the_crop_and_keeps_the_last_good_epoch(
    table: CropTable, tmp_path: Path
) -> None:
    recipe = PretrainRecipe(epochs=2, batch=4)
    spoiled = replace(table, ratings=np.where(np.arange(12)[:, None] >= 0, np.nan, table.ratings))
    with pytest.raises(InputError, match=r"P\d\.webp"):
        pretrain(spoiled, np.arange(12), tmp_path, recipe, make_vision=make_vision)
    assert not (tmp_path / "weights.safetensors").is_file()


def test_the_text_tower_goes_on_bit_equal_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = TextRecipe(steps=6, batch=8, checkpoint_every=2)

    def make_text() -> object:
        return TOWERS.make().text_model

    arguments = {"make_text": make_text, "tokenizer": TOWERS.tokenizer}
    whole = pretrain_text(tmp_path / "whole", recipe, **arguments)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        _dies(2, patch, semantic_pretrain_text)
        pretrain_text(tmp_path / "killed", recipe, **arguments)
    resumed = pretrain_text(tmp_path / "killed", recipe, **arguments)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_made_up_texts_say_what_they_are_taken_to_say() -> None:
    rng = np.random.default_rng(0)
    statements = [made_up(rng) for _ in range(200)]
    answers = answers_of(statements)
    assert answers.shape == (200, 9)
    assert set(np.unique(answers)) <= {*range(CLASSES + 1)}
    place = semantic_pretrain_text.QUESTIONS.index("calcification")
    for statement, answer in zip(statements, answers[:, place], strict=True):
        if statement.cut == "score":  # the other cut asks for eccentric calcification as well
            assert ("calcif" in statement.text.lower()) <= (answer != CLASSES), statement.text
    assert 0.2 < (answers[:, place] != CLASSES).mean() < 0.9
