"""The vision transformer of DINOv2 against transformers, and its positions, masks, attention and stochastic depth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402

pytestmark = pytest.mark.usefixtures("torch_seeded")

SIZES = [(56, 56), (84, 84), (42, 70), (28, 112), (14, 14)]
"""The learned grid, larger, smaller; one with as many patches as the learned grid that is not square; one patch."""


def randomized(network: Any) -> Any:
    """All weights by chance; norms and LayerScale around 1, so that each block counts."""
    with torch.no_grad():
        for name, value in network.named_parameters():
            ones = name.endswith(("gamma", "lambda1")) or ("norm" in name and name.endswith("weight"))
            value.copy_(0.1 * torch.randn(value.shape) + float(ones))
    return network.eval()


def small(**changed: Any) -> Any:
    from spicula.networks.vit import VisionTransformer, VitShape

    return randomized(VisionTransformer(VitShape(**{"width": 48, "depth": 2, "heads": 3, "image": 56} | changed)))


def of_transformers(network: Any) -> Any:
    """Their model, whose weights by chance the network gets."""
    transformers = pytest.importorskip("transformers", reason="pip install 'spicula[test]'")
    from spicula.networks.vit_weights import hf_to_dinov2, load_strictly

    shape = network.shape
    settings = {
        "hidden_size": shape.width, "num_hidden_layers": shape.depth, "num_attention_heads": shape.heads,
        "image_size": shape.image, "patch_size": shape.patch, "use_swiglu_ffn": shape.ffn == "swiglu",
        "attn_implementation": "eager",
    }  # fmt: skip
    if shape.registers:
        config = transformers.Dinov2WithRegistersConfig(num_register_tokens=shape.registers, **settings)
        model = randomized(transformers.Dinov2WithRegistersModel(config))
    else:
        model = randomized(transformers.Dinov2Model(transformers.Dinov2Config(**settings)))
    load_strictly(network, hf_to_dinov2(model.state_dict()))
    return model


def positions_by_size(network: Any, rows: int, columns: int) -> Any:
    """As transformers has it without registers: to the size itself, without the published offset."""
    side = network.shape.image // network.shape.patch
    if rows == columns == side:
        return network.pos_embed
    grid = network.pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(rows, columns), mode="bicubic")
    return torch.cat((network.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)


@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
def test_outputs_equal_those_of_transformers(ffn, monkeypatch) -> None:
    network = small(ffn=ffn)
    model = of_transformers(network)
    monkeypatch.setattr(network, "positions_of", lambda rows, columns: positions_by_size(network, rows, columns))
    for size in SIZES:
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            theirs, ours = model(images).last_hidden_state, network(images)
        torch.testing.assert_close(ours.cls, theirs[:, 0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.patches, theirs[:, 1:], atol=1e-5, rtol=1e-5)
        assert ours.registers.shape == (2, 0, 48)
        assert ours.attention is None


@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
def test_with_registers_outputs_equal_those_of_transformers_positions_included(ffn) -> None:
    network = small(ffn=ffn, registers=4, positions="antialias")
    model = of_transformers(network)
    for size in SIZES:
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            theirs, ours = model(images).last_hidden_state, network(images)
        torch.testing.assert_close(ours.cls, theirs[:, 0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.registers, theirs[:, 1:5], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.patches, theirs[:, 5:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("registers", [0, 4])
def test_attention_is_shared_out_as_transformers_says(registers) -> None:
    network = small(registers=registers)
    model = of_transformers(network)
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        whole = model(images, output_attentions=True).attentions[-1]
        ours = network(images, attention=True)
        silent = network(images)
    assert whole.shape == (2, 3, 17 + registers, 17 + registers)
    torch.testing.assert_close(ours.attention, whole[:, :, 0, 1 + registers :], atol=1e-6, rtol=1e-5)
    rest = whole[:, :, 0, : 1 + registers].sum(dim=-1)
    torch.testing.assert_close(ours.attention.sum(dim=-1) + rest, torch.ones(2, 3), atol=1e-5, rtol=0)
    assert bool((ours.attention.sum(dim=-1) < 1).all())
    assert torch.equal(ours.patches, silent.patches)


def test_masked_patches_are_replaced_as_in_transformers() -> None:
    network = small()
    model = of_transformers(network)
    images, masks = torch.randn(2, 3, 56, 56), torch.rand(2, 16) < 0.4
    other = images.clone()
    for image, mask in zip(other, masks, strict=True):
        for place in mask.nonzero()[:, 0].tolist():
            row, column = divmod(place, 4)
            image[:, 14 * row : 14 * row + 14, 14 * column : 14 * column + 14] = 7.0
    with torch.no_grad():
        theirs, ours = model(images, bool_masked_pos=masks).last_hidden_state, network(images, masks)
        torch.testing.assert_close(ours.patches, theirs[:, 1:], atol=1e-5, rtol=1e-5)
        assert torch.equal(network(other, masks).patches, ours.patches)
        assert torch.equal(network(images, torch.zeros_like(masks)).patches, network(images).patches)
        network.mask_token.copy_(torch.randn(1, 48))  # no plain shift: layer norms do not see that
        assert not torch.allclose(network(images, masks).patches, ours.patches, atol=0.01)
        assert torch.equal(network.embed(images, masks)[0, 1:][~masks[0]], network.embed(images)[0, 1:][~masks[0]])


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [("vit-small", 22_056_576, 175), ("vit-base", 86_580_480, 175), ("vit-large", 304_368_640, 343),
     ("vit-giant", 1_136_480_768, 567)],
)  # fmt: skip
def test_published_architectures_have_the_published_names_and_sizes(name, parameters, tensors) -> None:
    from spicula.networks.vit import SHAPES, VisionTransformer

    shape = SHAPES[name]
    with torch.device("meta"):
        state = VisionTransformer(shape).state_dict()
        registers = VisionTransformer(shape.with_registers()).state_dict()
    assert (sum(value.numel() for value in state.values()), len(state)) == (parameters, tensors)
    assert registers.keys() - state.keys() == {"register_tokens"}
    ffn = ("fc1", "fc2") if shape.ffn == "mlp" else ("w12", "w3")
    parts = {f"{part}.{kind}" for part in ("norm1", "norm2", "attn.qkv", "attn.proj", *(f"mlp.{x}" for x in ffn))
             for kind in ("weight", "bias")} | {"ls1.gamma", "ls2.gamma"}  # fmt: skip
    assert state.keys() == {
        "cls_token", "pos_embed", "mask_token", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight",
        "norm.bias", *(f"blocks.{number}.{part}" for number in range(shape.depth) for part in parts),
    }  # fmt: skip
    width = shape.width
    for key, size in {
        "cls_token": (1, 1, width), "pos_embed": (1, 1370, width), "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14), "blocks.0.attn.qkv.weight": (3 * width, width),
        f"blocks.{shape.depth - 1}.mlp.{ffn[0]}.weight": (4 * width if ffn[0] == "fc1" else 8192, width),
    }.items():  # fmt: skip
        assert tuple(state[key].shape) == size, key
    assert tuple(registers["register_tokens"].shape) == (1, 4, width)


def cubic(values: np.ndarray, scale: float, count: int) -> np.ndarray:
    """The first axis brought to another length by cubic convolution (Keys 1981, a = -0.75), edges repeated."""
    found = np.zeros((count, *values.shape[1:]))
    for place in range(count):
        source = (place + 0.5) / scale - 0.5
        first = int(np.floor(source)) - 1
        for near in range(first, first + 4):
            x, a = abs(source - near), -0.75
            weight = (a + 2) * x**3 - (a + 3) * x**2 + 1 if x <= 1 else a * (x**3 - 5 * x**2 + 8 * x - 4)
            found[place] += weight * values[min(max(near, 0), len(values) - 1)]
    return found


@pytest.mark.parametrize("size", [(6, 6), (3, 5), (2, 8), (9, 4), (36, 36)])
def test_positions_are_scaled_with_the_published_offset(size) -> None:
    rows, columns = size
    network = small()
    learned = network.pos_embed.detach()[:, 1:].reshape(4, 4, 48)
    with torch.no_grad():
        found = network.positions_of(rows, columns)
        grid = torch.nn.functional.interpolate(
            learned.permute(2, 0, 1)[None], scale_factor=((rows + 0.1) / 4, (columns + 0.1) / 4), mode="bicubic"
        )
    assert found.shape == (1, 1 + rows * columns, 48)
    assert torch.equal(found[:, 0], network.pos_embed[:, 0])
    assert torch.equal(found[0, 1:].reshape(rows, columns, 48), grid[0].permute(1, 2, 0))
    by_hand = cubic(learned.double().numpy(), (rows + 0.1) / 4, rows)
    by_hand = cubic(by_hand.swapaxes(0, 1), (columns + 0.1) / 4, columns).swapaxes(0, 1)
    assert np.abs(found[0, 1:].detach().numpy().reshape(rows, columns, 48) - by_hand).max() < 1e-5
    assert not torch.allclose(found, positions_by_size(network, rows, columns), atol=1e-4)


def test_positions_of_the_learned_grid_are_the_learned_ones() -> None:
    for positions in ("offset", "antialias"):
        network = small(positions=positions)
        assert network.positions_of(4, 4) is network.pos_embed
        assert not torch.equal(network.positions_of(2, 8)[:, 1:], network.pos_embed[:, 1:])


def test_every_published_grid_gives_as_many_positions_as_patches() -> None:
    from spicula.networks.vit import VisionTransformer, VitShape

    network = VisionTransformer(VitShape(4, 1, 1))
    for count in [*range(1, 41), 64, 73, 128]:
        assert network.positions_of(count, 36).shape == (1, 1 + 36 * count, 4)


def test_patches_are_numbered_row_by_row() -> None:
    network = small(registers=2)
    images = torch.randn(2, 3, 42, 70)
    with torch.no_grad():
        tokens = network(images)
        assert tokens.grid == (3, 5)
        assert tokens.map.shape == (2, 48, 3, 5)
        assert torch.equal(tokens.map[:, :, 1, 3], tokens.patches[:, 8])
        cut = torch.nn.functional.conv2d(images, network.patch_embed.proj.weight, network.patch_embed.proj.bias, 14)
        torch.testing.assert_close(network.patch_embed(images), cut.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)
        assert tokens.raw.shape == (2, 18, 48)
        assert torch.equal(network.norm(tokens.raw)[:, 3:], tokens.patches)
        torch.testing.assert_close(network(images[1:]).cls, tokens.cls[1:], atol=1e-5, rtol=1e-5)


def test_stochastic_depth_keeps_the_expected_sum_and_is_off_in_evaluation() -> None:
    from spicula.networks.vit import Block

    shape = replace(small().shape, depth=1)
    for count, drop, kept in ((4, 0.5, 2), (3, 0.3, 2), (5, 0.4, 3), (1, 0.9, 1), (2, 0.9, 1)):
        block = randomized(Block(shape, drop=drop))
        with torch.no_grad():
            block.ls2.gamma.zero_()
            x = torch.randn(count, 5, 48)
            whole = block.attend(x)
            assert torch.equal(block(x), x + whole)
            block.train()
            times, rounds = torch.zeros(count), 200
            for _ in range(rounds):
                share = (block(x) - x) / whole
                by_image = share.flatten(1).median(dim=1).values
                assert int((by_image > 0.5).sum()) == kept
                assert float(by_image.sum()) == pytest.approx(count, rel=1e-3)  # so its mean is the whole effect
                times += by_image > 0.5
        sigma = (kept / count * (1 - kept / count) / rounds) ** 0.5
        assert (times / rounds - kept / count).abs().max() <= 4.5 * sigma  # each image as often as any


def test_both_halves_are_dropped_each_for_itself() -> None:
    from spicula.networks.vit import Block

    block = randomized(Block(small().shape, drop=0.5)).train()
    x = torch.randn(2, 5, 48)
    with torch.no_grad():
        kinds = set()
        for _ in range(60):
            changed = [not torch.equal(row, first) for row, first in zip(block(x), x, strict=True)]
            kinds.add(tuple(changed))
    assert kinds == {(True, False), (False, True), (True, True)}


def test_all_weights_but_the_mask_token_learn_and_that_one_with_masks() -> None:
    network = small(registers=2).train()
    images = torch.randn(2, 3, 42, 70)
    for masks, silent in ((None, {"mask_token"}), (torch.rand(2, 15) < 0.5, set())):
        network.zero_grad(set_to_none=True)
        tokens = network(images, masks)
        (tokens.cls.square().sum() + tokens.patches.square().sum()).backward()
        assert {name for name, value in network.named_parameters() if value.grad is None} == silent


@pytest.mark.parametrize(("size", "near"), [((56, 50), "56 x 56"), ((8, 14), "14 x 14"), ((512, 512), "518 x 518")])
def test_sizes_that_are_no_multiples_of_the_patch_are_refused(size, near) -> None:
    network = small()
    with pytest.raises(InputError, match=f"image: got {size[0]} x {size[1]} pixels.* of 14. Hint: resize it to {near}"):
        network(torch.zeros(1, 3, *size))


def test_impossible_shapes_are_refused() -> None:
    from spicula.networks.vit import VitShape

    with pytest.raises(InputError, match="heads: got 5, expected a divisor of the width 48"):
        VitShape(48, 2, 5)
    with pytest.raises(InputError, match="multiple of the patch 16"):
        VitShape(48, 2, 3, patch=16)
    for changed in ({"width": 0}, {"depth": 0}, {"heads": 0}, {"patch": 0}, {"registers": -1}):
        with pytest.raises(InputError, match="positive sizes"):
            VitShape(**{"width": 48, "depth": 2, "heads": 3} | changed)
