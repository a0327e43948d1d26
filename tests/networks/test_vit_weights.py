"""Files of DINOv2 under all the names that there are, with transformers as the oracle, and reading them strictly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402

pytestmark = pytest.mark.usefixtures("torch_seeded")

IMAGES = (2, 3, 42, 70)


def randomized(network: Any) -> Any:
    """All weights by chance; norms and LayerScale around 1, so that each block counts."""
    with torch.no_grad():
        for name, value in network.named_parameters():
            ones = name.endswith(("gamma", "lambda1")) or ("norm" in name and name.endswith("weight"))
            value.copy_(0.1 * torch.randn(value.shape) + float(ones))
    return network.eval()


def small(**changed: Any) -> Any:
    from spicula.networks.vit import VisionTransformer, VitShape

    return randomized(VisionTransformer(VitShape(**{"width": 48, "depth": 4, "heads": 3, "image": 56} | changed)))


def prefixed(state: Any, prefix: str) -> Any:
    return {prefix + name: value for name, value in state.items()}


def chunked(state: Any) -> Any:
    """Two chunks of two blocks, numbered through, as the published training has it."""
    found = {}
    for name, value in state.items():
        first, _dot, rest = name.partition(".")
        number = rest.partition(".")[0]
        found[f"blocks.{int(number) // 2}.{rest}" if first == "blocks" else name] = value
    return found


def heads(width: int = 48) -> Any:
    made = {}
    for head in ("dino_head", "ibot_head"):
        made |= {
            f"{head}.mlp.0.weight": torch.randn(8, width), f"{head}.mlp.0.bias": torch.randn(8),
            f"{head}.last_layer.weight_g": torch.ones(20, 1), f"{head}.last_layer.weight_v": torch.randn(20, 8),
        }  # fmt: skip
    return made


def as_transformers(state: Any, *, memory: bool = False) -> Any:
    """Published names to those of transformers, in files or in memory."""
    qkv = ("q_proj", "k_proj", "v_proj") if memory else tuple(f"attention.{x}" for x in ("query", "key", "value"))
    packed = {"attn.qkv": tuple(f"attention.{x}" for x in qkv)}
    renamed = {
        "attn.proj": "attention.o_proj" if memory else "attention.output.dense",
        "mlp.w12": "mlp.weights_in", "mlp.w3": "mlp.down_proj" if memory else "mlp.weights_out",
        "ls1": "layer_scale1", "ls2": "layer_scale2",
    }  # fmt: skip
    if memory:
        packed["mlp.w12"] = ("mlp.gate_proj", "mlp.up_proj")
    plain = {
        "patch_embed.proj.weight": "patch_embeddings.projection.weight", "pos_embed": "position_embeddings",
        "patch_embed.proj.bias": "patch_embeddings.projection.bias",
    }  # fmt: skip
    found = {}
    for name, value in state.items():
        if name.startswith("norm."):
            found[f"layernorm.{name.removeprefix('norm.')}"] = value
        elif not name.startswith("blocks."):
            found[f"embeddings.{plain.get(name, name)}"] = value
        else:
            _blocks, number, rest = name.split(".", 2)
            part, _dot, kind = rest.rpartition(".")
            layer, kind = f"encoder.layer.{number}", kind.replace("gamma", "lambda1")
            if part in packed:
                pieces = value.chunk(len(packed[part]))
                found |= {f"{layer}.{each}.{kind}": piece for each, piece in zip(packed[part], pieces, strict=True)}
            else:
                found[f"{layer}.{renamed.get(part, part)}.{kind}"] = value
    return found


def training(state: Any) -> Any:
    """A full checkpoint: a student of other weights, losses, the optimizer."""
    student = {name: torch.randn(value.shape) for name, value in state.items()}
    return {
        "model": prefixed(prefixed(chunked(student), "backbone.") | heads(), "student.")
        | prefixed(prefixed(chunked(state), "backbone.") | heads(), "teacher.")
        | {"dino_loss.center": torch.zeros(1, 20), "ibot_patch_loss.center": torch.zeros(1, 1, 20)},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "iteration": 12,
    }


CLASSIFIER = {"classifier.weight": torch.ones(2, 96), "classifier.bias": torch.ones(2)}
FORMATS = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 3},
    "state_dict": lambda state: {"state_dict": state},
    "half": lambda state: state,
    "module": lambda state: prefixed(state, "module."),
    "chunked": chunked,
    "one chunk": lambda state: {name.replace("blocks.", "blocks.0."): value for name, value in state.items()},
    "ema": lambda state: {"teacher": prefixed(chunked(state), "backbone.") | heads()},
    "ema of modules": lambda state: {"teacher": prefixed(prefixed(state, "backbone._orig_mod.") | heads(), "module.")},
    "teacher and student": lambda state: {"student": {}, "teacher": prefixed(state, "backbone."), "epoch": 1},
    "training": training,
    "transformers": as_transformers,
    "transformers, classifier": lambda state: prefixed(as_transformers(state), "dinov2.") | CLASSIFIER,
    "transformers with registers, classifier": lambda state: (
        prefixed(as_transformers(state), "dinov2_with_registers.") | CLASSIFIER
    ),
    "transformers, in memory": lambda state: as_transformers(state, memory=True),
}


def outputs(network: Any, images: Any) -> Any:
    with torch.no_grad():
        return network(images).raw


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
def test_all_files_of_the_same_weights_say_the_same(form, ffn, tmp_path: Path) -> None:
    from spicula.networks.vit_weights import network_of, read_dinov2

    network = small(ffn=ffn, registers=2, positions="antialias")
    state = {name: value.half().float() for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    content = FORMATS[form]({name: value.half() if form == "half" else value for name, value in state.items()})
    torch.save(content, tmp_path / "weights.pth")
    files = [tmp_path / "weights.pth"]
    if all(isinstance(value, torch.Tensor) for value in content.values()):
        from safetensors.torch import save_file

        files.append(tmp_path / "weights.safetensors")
        save_file({name: value.clone().contiguous() for name, value in content.items()}, files[-1])
    images = torch.randn(IMAGES)
    for file in files:
        read = read_dinov2(file)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[name], value) for name, value in state.items())
        found = network_of(file, heads=3)
        assert found.shape == network.shape
        assert not found.training
        assert all(value.requires_grad and value.dtype == torch.float32 for value in found.parameters())
        assert torch.equal(outputs(found, images), outputs(network, images))


@pytest.mark.parametrize(("registers", "swiglu"), [(False, True), (True, False)])
def test_what_transformers_saves_loads(registers, swiglu, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="pip install 'spicula[test]'")
    from spicula.networks.vit_weights import network_of

    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=56, patch_size=14,
        use_swiglu_ffn=swiglu, num_labels=2,
    )  # fmt: skip
    images = torch.randn(2, 3, 56, 56)
    for name in ("Model", "ForImageClassification"):
        model = randomized(getattr(transformers, f"{kind}{name}")(config))
        model.save_pretrained(tmp_path / name)
        torch.save(model.state_dict(), tmp_path / name / "in_memory.pth")
        backbone = getattr(model, "dinov2_with_registers" if registers else "dinov2") if name != "Model" else model
        for file in ("model.safetensors", "in_memory.pth"):
            network = network_of(tmp_path / name / file, heads=3)
            assert (network.shape.registers, network.shape.ffn) == (4 * registers, "swiglu" if swiglu else "mlp")
            with torch.no_grad():
                theirs, ours = backbone(images).last_hidden_state, network(images)
            torch.testing.assert_close(network.norm(ours.raw), theirs, atol=1e-5, rtol=1e-5)


def test_heads_are_read_apart(tmp_path: Path) -> None:
    from spicula.networks.vit_weights import read_heads

    state, own = small().state_dict(), heads()
    for number, content in enumerate(
        ({"teacher": prefixed(state, "backbone.") | own}, {"model": prefixed(own, "teacher.") | {"student.x": own}})
    ):
        torch.save(content, tmp_path / f"{number}.pth")
        found = read_heads(tmp_path / f"{number}.pth")
        assert found.keys() == own.keys()
        assert all(torch.equal(found[name], value) for name, value in own.items())
    torch.save(state, tmp_path / "bare.pth")
    with pytest.raises(InputError, match=r"bare.pth: got no heads, .* published files are backbones alone"):
        read_heads(tmp_path / "bare.pth")


@pytest.mark.parametrize("name", ["vit-tiny", "vit-small", "vit-base", "vit-large", "vit-giant"])
def test_published_shapes_are_told_from_the_tensors(name) -> None:
    from spicula.networks.vit import SHAPES, VisionTransformer
    from spicula.networks.vit_weights import shape_of

    for shape in (SHAPES[name], SHAPES[name].with_registers(), replace(SHAPES[name], patch=16, image=224)):
        with torch.device("meta"):
            state = VisionTransformer(shape).state_dict()
        assert shape_of(state) == shape
        last = f"blocks.{shape.depth - 1}."
        cut = {key: value for key, value in state.items() if not key.startswith(last)}
        assert shape_of(cut) == shape  # so the missing block is told, not left out
        assert shape_of(cut, depth=shape.depth - 1).depth == shape.depth - 1
        assert shape_of(state, heads=1).heads == 1


def test_shapes_of_no_vision_transformer_are_refused() -> None:
    from spicula.networks.vit_weights import shape_of

    state = small().state_dict()
    assert shape_of(state, heads=3).depth == 4
    with pytest.raises(InputError, match=r"a.pth: width: got 48, expected one of 192, 384, .* give heads="):
        shape_of(state, source="a.pth")
    for name, value, told in (
        ("pos_embed", torch.zeros(1, 16, 48), "pos_embed: got 16 places"),
        ("pos_embed", torch.zeros(1, 0, 48), "pos_embed: got 0 places"),
        ("pos_embed", torch.zeros(17, 48), "expected 3 axes"),
        ("patch_embed.proj.weight", None, "patch_embed.proj.weight: got none.*no weights of DINOv2"),
        ("register_tokens", torch.zeros(48), "register_tokens: got shape"),
    ):
        other = {key: each for key, each in (state | {name: value}).items() if each is not None}
        with pytest.raises(InputError, match=told):
            shape_of(other, heads=3)
    with pytest.raises(InputError, match="positive sizes"):
        shape_of({key: value for key, value in state.items() if "blocks" not in key}, heads=3)


def test_all_that_does_not_fit_is_listed_at_once_and_nothing_is_loaded() -> None:
    from spicula.networks.vit_weights import load_strictly

    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {name: value + 1 for name, value in before.items()}
    for name in ("norm.bias", *(f"blocks.{number}.ls{half}.gamma" for number in range(4) for half in (1, 2))):
        del state[name]
    state |= {"head.weight": torch.zeros(2, 48), "norm.weight": torch.zeros(3), "pos_embed": torch.zeros(1, 5, 48)}
    with pytest.raises(InputError) as error:
        load_strictly(network, state, source="a.pth")
    told = str(error.value)
    assert told.startswith("weights of a.pth: got 9 missing: blocks.0.ls1.gamma, blocks.0.ls2.gamma, blocks.1.ls1.gam")
    assert "and 3 more; 1 unexpected: head.weight; 2 of another shape: " in told
    assert "norm.weight (3,) for (48,)" in told
    assert "pos_embed (1, 5, 48) for (1, 17, 48)" in told
    assert "expected the 63 keys of VisionTransformer" in told
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_mask_token_alone_may_be_missing_and_is_zero(tmp_path: Path) -> None:
    from spicula.networks.vit_weights import load_strictly, network_of

    network = small()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    kept = dict(state)
    del state["mask_token"]
    load_strictly(network, state)
    assert not bool(network.mask_token.any())
    assert "mask_token" not in state  # what was given is as it was
    torch.save(state, tmp_path / "a.pth")
    assert not bool(network_of(tmp_path / "a.pth", heads=3).mask_token.any())
    for name in kept.keys() - {"mask_token"}:
        with pytest.raises(InputError, match=f"1 missing: {name}"):
            load_strictly(network, {key: value for key, value in kept.items() if key != name})


@pytest.mark.parametrize(
    ("of_file", "of_network", "hint"),
    [
        ({"ffn": "swiglu"}, {}, "the file has the feed-forward 'swiglu', the network 'mlp'.*The published ViT-L"),
        ({}, {"ffn": "swiglu"}, "the file has the feed-forward 'mlp', the network 'swiglu'"),
        ({"depth": 3}, {}, "blocks 3 are not in the file: it is not whole, or of another depth: give depth="),
        ({"depth": 2}, {}, "blocks 2, 3 are not in the file"),
        ({"depth": 5}, {}, "more or other blocks than the network"),
        ({"registers": 4}, {}, "one has registers and the other has none"),
        ({}, {"registers": 4}, "one has registers and the other has none"),
        ({"image": 70}, {}, "build the network of shape_of"),
    ],
)
def test_what_is_likely_behind_it_is_said(of_file, of_network, hint) -> None:
    from spicula.networks.vit_weights import load_strictly

    with pytest.raises(InputError, match=hint):
        load_strictly(small(**of_network), small(**of_file).state_dict())


def test_a_file_without_its_last_block_is_refused(tmp_path: Path) -> None:
    from spicula.networks.vit_weights import network_of

    state = small(width=192, depth=11, heads=3).state_dict()
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a.pth: got 14 missing: .*blocks 11 are not in the file"):
        network_of(tmp_path / "a.pth")
    assert len(network_of(tmp_path / "a.pth", depth=11).blocks) == 11


class Other:
    """Something that torch.save pickles."""


def test_pickled_objects_and_what_is_no_file_of_weights_are_refused(tmp_path: Path) -> None:
    from spicula.networks.vit_weights import read_dinov2

    state = small().state_dict()
    torch.save({"teacher": prefixed(state, "backbone."), "args": Other()}, tmp_path / "objects.pth")
    torch.save(small(), tmp_path / "network.pth")
    for name in ("objects.pth", "network.pth"):
        with pytest.raises(InputError, match=rf"{name}: got pickled objects .* save the weights alone"):
            read_dinov2(tmp_path / name)
    torch.save([state], tmp_path / "list.pth")
    for name in ("damaged.pth", "damaged.safetensors"):
        (tmp_path / name).write_bytes(b"\x01\x02damaged" * 9)
    for name in ("list.pth", "damaged.pth", "damaged.safetensors", "none.pth", "none.safetensors", ""):
        with pytest.raises(InputError, match=str(tmp_path / name)):
            read_dinov2(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state | {"norm.bias": torch.full((48,), torch.nan)}, "norm.bias: got numbers that are not fin"),
        (lambda state: state | {"epoch": 3}, "'epoch': got a int, expected a tensor"),
        (lambda state: state | {"module.norm.bias": state["norm.bias"]}, "norm.bias: got two weights"),
        (lambda state: prefixed(state, "backbone.") | {"norm.bias": state["norm.bias"]}, "norm.bias: got two weights"),
        (lambda state: {name.replace("blocks.2.", "blocks.1.1."): value for name, value in state.items()},
         "blocks.1.norm1.weight: got two weights"),
        (lambda state: {"model": prefixed(state, "student.backbone.")}, "a student alone, expected teacher.backbone"),
        (lambda state: {"model": {"teacher.backbone._fsdp_wrapped_module._flat_param": torch.zeros(9)}},
         "flattened weights.*teacher_checkpoint.pth"),
        (lambda _state: {"teacher": {}}, "got no weights"),
        (lambda state: as_transformers(state) | {"norm.bias": state["norm.bias"]}, "norm.bias: got two weights"),
    ],
)  # fmt: skip
def test_odd_content_is_refused(change, told, tmp_path: Path) -> None:
    from spicula.networks.vit_weights import read_dinov2

    torch.save(change(small().state_dict()), tmp_path / "a.pth")
    with pytest.raises(InputError, match=told):
        read_dinov2(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state | {"head.bias": torch.zeros(2)}, "1 unexpected: head.bias"),
        (lambda state: state | heads(), "8 unexpected: dino_head.last_layer.weight_g, .* and 2 more"),
        (lambda state: {"teacher": prefixed(state, "backbone.") | {"other.x": torch.zeros(1)}}, "unexpected: other.x"),
        (lambda state: {"model": prefixed(state, "teacher.backbone.") | {"ema.x": torch.zeros(1)}}, "pected: ema.x"),
        (lambda state: as_transformers(state) | {"pooler.weight": torch.zeros(1)}, "1 unexpected: pooler.weight"),
        (lambda state: as_transformers(state) | CLASSIFIER, "2 unexpected: classifier.bias, classifier.weight"),
        (lambda state: {key: value for key, value in as_transformers(state).items() if "0.attention.attention.key.w"
                        not in key}, "1 missing: blocks.0.attn.qkv.weight; 2 unexpected: encoder.layer.0.attention.at"),
        (lambda state: as_transformers(state) | {"encoder.layer.0.attention.attention.key.bias": torch.zeros(3)},
         "1 missing: blocks.0.attn.qkv.bias; 3 unexpected: encoder.layer.0"),
    ],
)  # fmt: skip
def test_names_that_nothing_knows_are_not_dropped(change, told, tmp_path: Path) -> None:
    from spicula.networks.vit_weights import network_of

    torch.save(change(small().state_dict()), tmp_path / "a.pth")
    with pytest.raises(InputError, match=told):
        network_of(tmp_path / "a.pth", heads=3)
