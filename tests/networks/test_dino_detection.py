from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spicula.core.bundle import write_bundle
from spicula.core.errors import InputError
from spicula.detectors.dino import TASK, View, load_detector, split_channels

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.networks.dino_detection import (  # noqa: E402
    DenseHead,
    DenseTargets,
    DinoDetector,
    FixedDetector,
    PublishedDetector,
    TorchHeads,
    dense_loss,
    detector_to_onnx,
    draw_targets,
    focal_loss,
    published_loss,
    split_maps,
    train_published,
)
from spicula.networks.vit import VisionTransformer, VitShape  # noqa: E402

CELL_MM = 2.45


@pytest.fixture(autouse=True)
def _seeded(torch_seeded: Any) -> None:
    """One thread, one seed."""


def small_detector(*, registers: int = 0, depth: int = 2) -> DinoDetector:
    backbone = VisionTransformer(VitShape(32, depth, 2, image=112).with_registers(registers))
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return DinoDetector(backbone, DenseHead(32, hidden=16, fine=8)).eval()


def targets_of(*slices: list[tuple[float, float, float]], shape: tuple[int, int] = (12, 16)) -> DenseTargets:
    drawn = [draw_targets(nodules, [], shape, cell_mm=CELL_MM) for nodules in slices]
    outline = torch.zeros(len(slices), 2 * shape[0], 2 * shape[1])
    return DenseTargets(*(torch.from_numpy(np.stack(each)) for each in zip(*drawn, strict=True)), outline)


def perfect(targets: DenseTargets) -> Any:
    """What a head would say that knows the targets."""
    sure = torch.where(targets.heat == 1, 20.0, -20.0)
    outline = torch.nn.functional.pixel_unshuffle(torch.where(targets.outline > 0.5, 20.0, -20.0)[:, None], 2)
    return torch.cat([sure[:, None], targets.size[:, None], targets.offset, outline], dim=1)


def test_perfect_answers_cost_nothing_and_wrong_ones_do() -> None:
    targets = targets_of([(3.2, 4.7, 8.0), (9.5, 12.1, 20.0)], [])
    loss, parts = dense_loss(perfect(targets), targets)
    assert float(loss) < 1e-5
    assert set(parts) == {"heat", "size", "offset", "outline"}
    for channel in range(4):
        wrong = perfect(targets)
        wrong[:, channel] = -wrong[:, channel] + 0.3
        assert float(dense_loss(wrong, targets)[0]) > 0.05


def test_a_slice_without_nodules_teaches_not_to_see_any() -> None:
    targets = targets_of([])
    heat = torch.zeros(1, 12, 16, requires_grad=True)
    focal_loss(heat, targets.heat, targets.counted).backward()
    assert (heat.grad > 0).all()


def test_the_focal_loss_is_the_papers() -> None:
    target = torch.from_numpy(draw_targets([(3.2, 4.7, 18.0)], [], (12, 16), cell_mm=CELL_MM)[0])[None]
    logits = torch.randn(1, 12, 16)
    chance = torch.sigmoid(logits).double()
    at = ((1 - chance) ** 2 * torch.log(chance))[target == 1].sum()
    beside = ((1 - target.double()) ** 4 * chance**2 * torch.log(1 - chance))[target != 1].sum()
    assert float(focal_loss(logits, target, torch.ones_like(target))) == pytest.approx(-float(at + beside), rel=1e-4)


def test_targets_lie_where_nodules_are() -> None:
    heat, size, offset, counted = draw_targets(
        [(3.25, 4.75, 8.0), (3.4, 4.6, 12.0), (-1.0, 3.0, 9.0)], [(9.0, 9.0, 5.0)], (12, 16), cell_mm=CELL_MM
    )
    assert np.argwhere(heat == 1).tolist() == [[3, 4]]  # two in one cell: the larger counts; one outside: none
    assert size[3, 4] == pytest.approx(np.log(12.0))
    np.testing.assert_allclose(offset[:, 3, 4], [0.4, 0.6], atol=1e-6)
    assert heat[3, 5] > heat[3, 8]
    assert heat[heat < 1].max() <= 0.99
    assert counted[9, 9] == counted[8, 8] == 0
    assert counted[3, 4] == counted[0, 0] == 1


def test_nothing_is_learned_where_it_is_ignored() -> None:
    drawn = draw_targets([], [(6.0, 6.0, 6.0)], (12, 16), cell_mm=CELL_MM)
    targets = DenseTargets(*(torch.from_numpy(each[None]) for each in drawn), torch.zeros(1, 24, 32))
    output = torch.zeros(1, 8, 12, 16, requires_grad=True)
    dense_loss(output, targets)[0].backward()
    assert (output.grad[0, 0][drawn[3] == 0] == 0).all()
    assert (output.grad[0, 4:].abs().sum(dim=0)[drawn[3] == 0] == 0).all()
    assert (output.grad[0, 0][drawn[3] == 1] != 0).all()


@pytest.mark.parametrize(("upsample", "outline"), [(2, 0), (2, 1), (4, 2)])
def test_the_dense_head_is_finer_than_the_patches(upsample: int, outline: int) -> None:
    head = DenseHead(32, hidden=16, fine=8, upsample=upsample, outline=outline)
    with torch.inference_mode():
        maps = split_maps(head(torch.randn(2, 32, 3, 5)))
    grid = (3 * upsample, 5 * upsample)
    assert maps.heat.shape == maps.size.shape == (2, *grid)
    assert maps.offset.shape == (2, 2, *grid)
    assert (maps.outline is None) == (outline == 0)
    if maps.outline is not None:
        assert maps.outline.shape == (2, outline * grid[0], outline * grid[1])
    assert float(maps.size.exp().mean()) == pytest.approx(8.0, rel=0.2)
    assert float(torch.sigmoid(maps.heat).mean()) == pytest.approx(0.1, abs=0.03)


def test_a_part_of_the_tokens_is_judged_as_in_the_whole() -> None:
    head = DenseHead(32, hidden=16, fine=8)
    tokens = torch.randn(1, 32, 9, 9)
    whole, part = head(tokens), head(tokens[:, :, 2:8, 1:7])
    assert torch.allclose(whole[:, :, 16:24, 12:20], part[:, :, 8:16, 8:16], atol=1e-5)


def test_maps_come_apart_alike_in_torch_and_numpy() -> None:
    output = torch.randn(2, 8, 3, 4)
    for ours, theirs in zip(split_maps(output), split_channels(output.numpy()), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)


def test_the_detector_for_one_size_computes_the_same() -> None:
    images = torch.randn(2, 3, 42, 70)
    for registers in (0, 2):
        detector = small_detector(registers=registers)
        with torch.inference_mode():
            expected, found = detector(images), FixedDetector(detector, 42, 70)(images)
        assert torch.allclose(found, expected, atol=1e-4)
        assert detector.backbone.blocks[0].attn.__class__.__name__ == "Attention"  # it is as it was


def test_the_exported_detector_computes_the_same(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="pip install 'spicula[train]'")
    detector = small_detector(depth=1)
    content = detector_to_onnx(detector, 42, 70)
    outputs = {"operating_point": {"least_score": 0.25}}
    manifest = {
        "name": "t", "version": "1", "task": TASK, "outputs": outputs, "card": {},
        "preprocessing": {"view": asdict(View(rows=3, columns=5)), "calibration": None},
    }  # fmt: skip
    finder = load_detector(write_bundle(tmp_path / "t", manifest, {"network.onnx": content}), threads=1)
    assert (finder.keywords["view"], finder.keywords["least_score"]) == (View(rows=3, columns=5), 0.25)
    images = torch.randn(3, 3, 42, 70)
    with torch.inference_mode():
        expected = split_maps(detector(images))
    found = finder.keywords["heads"](images.numpy())
    assert len(found) == 4
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs.numpy()).max() < 0.02 * max(1.0, float(theirs.abs().max()))


def test_torch_heads_look_once_and_answer_in_order() -> None:
    detector, published = small_detector(), PublishedDetector(32)
    heads = TorchHeads(detector, published)
    images = np.random.default_rng(0).normal(size=(5, 3, 42, 70)).astype(np.float32)
    said = [heads.dense(images[:3]), heads.dense(images[3:])]
    boxes = [heads.boxes(images[:3]), heads.boxes(images[3:])]
    with torch.inference_mode():
        maps = split_maps(detector(torch.from_numpy(images)))
        classes, box = published.eval()(detector.backbone(torch.from_numpy(images)).cls)
    np.testing.assert_allclose(np.concatenate([s[0] for s in said]), maps.heat, atol=1e-5)
    np.testing.assert_allclose(np.concatenate(heads.outlines), maps.outline, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([b[0] for b in boxes]), classes, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([b[1] for b in boxes]), box, atol=1e-5)
    with pytest.raises(InputError, match="boxes"):
        heads.boxes(images)


def test_the_published_head_has_the_published_layers_and_loss() -> None:
    head = PublishedDetector(1024)
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    assert shapes == {
        "shared.0.weight": (256, 1024), "shared.0.bias": (256,), "classes.weight": (2, 256), "classes.bias": (2,),
        "box.weight": (4, 256), "box.bias": (4,),
    }  # fmt: skip
    assert head.shared[2].p == 0.3
    positive, wanted = torch.tensor([True, False]), torch.tensor([[0.1, 0.2, 0.3, 0.4], [9.0, 9, 9, 9]])
    sure = torch.tensor([[-20.0, 20.0], [20.0, -20.0]])
    assert float(published_loss(sure, wanted, positive, wanted)) < 1e-6
    assert float(published_loss(sure, wanted + 0.5, positive, wanted)) == pytest.approx(0.25, abs=1e-5)
    none = torch.tensor([False, False])
    assert float(published_loss(sure[[1, 1]], wanted, none, wanted * torch.nan)) < 1e-6


def test_the_published_head_learns_what_can_be_learned() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(96) % 2 == 0
    classes = (rng.normal(size=(96, 8)) * 0.1 + np.where(positive, 1, -1)[:, None]).astype(np.float32)
    boxes = np.tile(np.array([0.2, 0.3, 0.1, 0.1], np.float32), (96, 1))
    head = train_published(classes, positive, boxes, epochs=30, seed=0).eval()
    with torch.inference_mode():
        logits, box = head(torch.from_numpy(classes))
    assert ((logits[:, 1] > logits[:, 0]).numpy() == positive).all()
    assert np.abs(box.numpy()[positive] - boxes[positive]).mean() < 0.3


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="upsample"):
        DenseHead(32, upsample=3)
    with pytest.raises(InputError, match="outline"):
        DenseHead(32, outline=5)
