"""Adapters and the three ways of tuning."""

from __future__ import annotations

import copy
import math

import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")
pytest.importorskip("peft", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402

pytestmark = pytest.mark.usefixtures("torch_seeded")

HEADS = ("image_projection.", "semantic_projection.", "classifier_image.", "classifier_text.", "logit_scale")


def with_adapters(network, **arguments):
    """Adapters whose product is not zero."""
    from spicula.networks.lora import add_lora, lora_layers

    names = add_lora(network, **arguments)
    for layer in lora_layers(network):
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.2)
    return names


def outputs(network, planes, tokens):
    with torch.no_grad():
        image, text = network(planes, tokens)
    return torch.cat([image.embedding, image.logits, text.embedding, text.logits], dim=1)


@pytest.fixture
def inputs(words):
    return torch.randn(3, 9, 3, 32, 32), words(3)


def test_the_three_ways_say_what_trains(small_network) -> None:
    from spicula.networks.lora import add_lora, tune_fully, tune_heads

    everything = {name for name, _ in small_network.named_parameters()}
    heads = {name for name in everything if name.startswith(HEADS)}
    assert set(tune_fully(small_network)) == everything
    assert set(tune_heads(small_network)) == heads
    assert len(heads) == 17
    names = set(add_lora(small_network))
    adapters = names - heads
    assert names > heads
    assert len(adapters) == 2 * 3 * (2 + 2)  # both factors of q, k and v in two blocks of two towers
    assert all(".lora_A." in name or ".lora_B." in name for name in adapters)
    assert {name for name, value in small_network.named_parameters() if value.requires_grad} == names


def test_only_what_trains_gets_a_gradient(small_network, inputs) -> None:
    names = with_adapters(small_network)
    image, text = small_network.train()(*inputs)
    (image.embedding.sum() + image.logits.sum() + text.embedding.sum() + text.logits.sum()).backward()
    with_gradient = {name for name, value in small_network.named_parameters() if value.grad is not None}
    assert with_gradient == set(names) - {"logit_scale"}


def test_adapters_change_nothing_at_first(small_network, inputs) -> None:
    from spicula.networks.lora import add_lora

    before = outputs(small_network, *inputs)
    add_lora(small_network)
    assert not small_network.training
    torch.testing.assert_close(outputs(small_network, *inputs), before, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rule", ["alpha/r", "alpha/sqrt(r)"])
@pytest.mark.parametrize(("rank", "alpha"), [(2, 1.0), (4, 3.0)])
def test_the_adapter_adds_its_scaled_product(small_network, rule, rank, alpha) -> None:
    with_adapters(small_network, rank=rank, alpha=alpha, rule=rule)
    layer = small_network.vision_model.transformer.resblocks[1].attn.k_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.shape == (rank, 32)
    assert b.shape == (32, rank)
    x = torch.randn(5, 32)
    scale = alpha / (rank if rule == "alpha/r" else math.sqrt(rank))
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer.base_layer(x) + scale * x @ a.T @ b.T, atol=1e-6, rtol=1e-5)


def test_dropout_is_of_the_adapter_alone_and_in_training_only(small_network) -> None:
    with_adapters(small_network, dropout=0.5)
    layer = small_network.vision_model.transformer.resblocks[0].attn.q_proj
    x = torch.randn(1, 32)
    with torch.no_grad():
        assert torch.equal(layer(x), layer(x))
        layer.train()
        assert not torch.equal(layer(x), layer(x))
        torch.nn.init.zeros_(layer.lora_B["default"].weight)
        assert torch.equal(layer(x), layer.base_layer(x))


def test_merged_is_the_same_and_unmerging_gives_the_weights_back(small_network, inputs) -> None:
    from spicula.networks.lora import merge_lora, unmerge_lora

    with_adapters(small_network)
    apart = outputs(small_network, *inputs)
    weights = {name: value.clone() for name, value in small_network.state_dict().items()}
    assert merge_lora(small_network) == 12
    assert merge_lora(small_network) == 0  # nothing is summed twice
    torch.testing.assert_close(outputs(small_network, *inputs), apart, atol=1e-6, rtol=0)
    small_network.train()
    small_network.eval()
    torch.testing.assert_close(outputs(small_network, *inputs), apart, atol=1e-6, rtol=0)
    assert unmerge_lora(small_network) == 12
    assert unmerge_lora(small_network) == 0
    for name, value in small_network.state_dict().items():
        torch.testing.assert_close(value, weights[name], atol=1e-6, rtol=0)


def test_a_merged_state_cannot_be_saved_beside_its_adapters(small_network) -> None:
    from spicula.networks.lora import merge_lora, unmerge_lora

    with_adapters(small_network)
    merge_lora(small_network)
    with pytest.raises(InputError, match="unmerge_lora before saving"):
        small_network.state_dict()
    unmerge_lora(small_network)
    assert any(".lora_A." in name for name in small_network.state_dict())


@pytest.mark.parametrize("merged_before", [False, True])
def test_taken_out_the_network_has_its_published_names_again(small_network, inputs, merged_before) -> None:
    from spicula.networks.lora import merge_lora, take_lora_out

    names = list(small_network.state_dict())
    plain = copy.deepcopy(small_network)
    with_adapters(small_network)
    apart = outputs(small_network, *inputs)
    if merged_before:
        merge_lora(small_network)
    take_lora_out(small_network)
    assert sorted(small_network.state_dict()) == sorted(names)
    torch.testing.assert_close(outputs(small_network, *inputs), apart, atol=1e-6, rtol=0)
    plain.load_state_dict(small_network.state_dict(), strict=True)
    torch.testing.assert_close(outputs(plain, *inputs), apart, atol=1e-6, rtol=0)


def test_a_state_with_adapters_loads_into_a_fresh_network(small_network, inputs) -> None:
    from spicula.networks.lora import add_lora

    fresh = copy.deepcopy(small_network)
    with_adapters(small_network)
    add_lora(fresh)
    fresh.load_state_dict(small_network.state_dict(), strict=True)
    assert torch.equal(outputs(fresh, *inputs), outputs(small_network, *inputs))


def test_frozen_towers_stay_in_evaluation() -> None:
    from spicula.networks.clip_compact import CompactText, CompactVision
    from spicula.networks.lora import tune_fully, tune_heads
    from spicula.networks.nodule_clip import NoduleClip

    text = CompactText(vocabulary=20, end_token=3, width=16, layers=1, heads=2, output_dim=8)
    network = NoduleClip(CompactVision(widths=(4, 4, 4, 4), output_dim=8), text, width=8).train()
    tune_heads(network)
    assert not network.vision_model.training
    assert not network.text_model.training
    assert network.semantic_projection.training
    before = network.vision_model.state_dict()["stem.1.running_mean"].clone()
    network.train()(torch.rand(2, 9, 1, 16, 16), torch.ones(2, 77, dtype=torch.int64))
    assert torch.equal(network.vision_model.state_dict()["stem.1.running_mean"], before)
    tune_fully(network)
    assert network.vision_model.training


def test_a_tower_of_convolutions_has_its_adapters_beside_them() -> None:
    from spicula.networks.clip_compact import CompactText, CompactVision
    from spicula.networks.lora import add_lora, lora_layers, take_lora_out
    from spicula.networks.nodule_clip import NoduleClip

    text = CompactText(vocabulary=20, end_token=3, width=16, layers=1, heads=2, output_dim=8)
    network = NoduleClip(CompactVision(widths=(4, 4, 4, 4), output_dim=8), text, width=8).eval()
    names = set(network.state_dict())
    planes, tokens = torch.rand(2, 9, 1, 16, 16), torch.tensor([[1, 5, 3] + [0] * 74] * 2)
    before = network(planes, tokens)[0].embedding
    trained = add_lora(network)
    assert any(name.startswith("vision_model.stem.0.lora_A") for name in trained)
    assert not any(name.startswith("vision_model") and ".lora_" not in name for name in trained)
    assert torch.equal(network.eval()(planes, tokens)[0].embedding, before)
    with torch.no_grad():
        for layer in lora_layers(network):
            layer.lora_B["default"].weight.normal_(std=0.3)
        adapted = network(planes, tokens)[0].embedding
        take_lora_out(network)
        packed = network.eval()(planes, tokens)[0].embedding
    assert not torch.allclose(adapted, before, atol=1e-3)
    assert torch.allclose(packed, adapted, atol=1e-5)
    assert set(network.state_dict()) == names


def test_a_tower_with_no_place_for_adapters_is_told() -> None:
    from torch import nn

    from spicula.networks.clip_compact import CompactText
    from spicula.networks.lora import add_lora
    from spicula.networks.nodule_clip import NoduleClip

    vision = nn.Sequential(nn.Linear(4, 8))
    vision.output_dim = 8
    text = CompactText(vocabulary=20, end_token=3, width=16, layers=1, heads=2, output_dim=8)
    with pytest.raises(InputError, match="neither attention nor convolutions in a Sequential"):
        add_lora(NoduleClip(vision, text, width=8))


def test_wrong_arguments_are_refused(small_network) -> None:
    from spicula.networks.lora import add_lora

    with pytest.raises(InputError, match="rank"):
        add_lora(small_network, rank=0)
    with pytest.raises(InputError, match="rule"):
        add_lora(small_network, rule="alpha")
    add_lora(small_network)
    with pytest.raises(InputError, match="adapters, expected none"):
        add_lora(small_network)


def test_the_share_that_trains_in_the_published_network_is_that_of_the_paper() -> None:
    from spicula.networks.clip import ClipText, ClipVision
    from spicula.networks.lora import add_lora
    from spicula.networks.nodule_clip import NoduleClip

    with torch.device("meta"):
        network = NoduleClip(ClipVision(), ClipText())
        names = set(add_lora(network))
    sizes = {name: value.numel() for name, value in network.named_parameters()}
    trained = sum(sizes[name] for name in names)
    assert trained / sum(sizes.values()) == pytest.approx(0.004, abs=0.001)  # "only 0.4 %"
