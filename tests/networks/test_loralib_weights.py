"""Made checkpoints under CLIP_nodule's names: unmerged, merged, merged twice."""

from __future__ import annotations

import copy
import re

import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError, SpiculaWarning  # noqa: E402

pytestmark = pytest.mark.usefixtures("torch_seeded")

SCALE = 2**-0.5


def checkpoint(network, *, times: int, std: float = 0.05, scale: float = SCALE):
    """A state as the authors' training writes it, with the adapters summed in so often."""
    made = {}
    for name, value in network.state_dict().items():
        part = re.fullmatch(r"(.+\.attn\.)(in_proj|out_proj)[._](weight|bias)", name)
        if part is None:
            made[name] = value.clone()
        elif part[2] == "out_proj":
            made[f"{part[1]}proj.{part[3]}"] = value.clone()
        else:
            for projection, third in zip("qkv", value.chunk(3), strict=True):
                made[f"{part[1]}{projection}_proj.{part[3]}"] = third.clone()
    for name in [name for name in made if re.search(r"\.[qkv]_proj\.weight$", name)]:
        width = made[name].shape[1]
        a, b = torch.randn(2, width) * width**-0.5, torch.randn(width, 2) * std
        made[name] = made[name] + times * scale * (b @ a)
        layer = name.removesuffix(".weight")
        made |= {f"{layer}.w_lora_A": a, f"{layer}.w_lora_B": b}
    return made


def base_of(network):
    """What OpenAI's file would hold."""
    state = network.state_dict()
    return {name.replace("vision_model.", "visual."): value.clone() for name, value in state.items()}


def expected_weights(made, base, times: float = 1.0):
    """Packed weights with the adapters in, by the formula."""
    found = {}
    for name in made:
        if name.endswith("q_proj.w_lora_A"):
            attention = name.removesuffix("q_proj.w_lora_A")
            first = base[f"{attention.replace('vision_model.', 'visual.')}in_proj_weight"].chunk(3)
            found[f"{attention}in_proj_weight"] = torch.cat(
                [
                    weight
                    + times * SCALE * made[f"{attention}{x}_proj.w_lora_B"] @ made[f"{attention}{x}_proj.w_lora_A"]
                    for x, weight in zip("qkv", first, strict=True)
                ]
            )
    return found


@pytest.mark.parametrize(("times", "status"), [(0, "unmerged"), (1, "merged"), (2, "merged twice")])
def test_each_state_is_told_and_summed_in_once(small_network, times, status) -> None:
    from spicula.networks.clip_names import load_strictly
    from spicula.networks.loralib_weights import has_adapters, merge_status, settle_adapters

    base = base_of(small_network)
    made = checkpoint(small_network, times=times)
    assert has_adapters(made)
    assert not has_adapters(base)
    before = {name: value.clone() for name, value in made.items()}
    assert merge_status(made, base) == status
    settled = settle_adapters(made, base=base, file_name="best_both.pt")
    assert (settled.status, settled.assumed) == (status, False)
    for name, value in expected_weights(made, base).items():
        torch.testing.assert_close(settled.state[name], value, atol=1e-6, rtol=0)
        assert settled.state[name].dtype == torch.float32
    load_strictly(small_network, settled.state, source="best_both.pt")
    assert all(torch.equal(value, made[name]) for name, value in before.items())  # pure


@pytest.mark.parametrize("times", [0, 1, 2])
def test_the_published_ensemble_has_fold_0_summed_in_twice(small_network, times) -> None:
    from spicula.networks.loralib_weights import settle_adapters

    base, made = base_of(small_network), checkpoint(small_network, times=times)
    settled = settle_adapters(made, base=base, times=2)
    for name, value in expected_weights(made, base, 2.0).items():
        torch.testing.assert_close(settled.state[name], value, atol=1e-6, rtol=0)
    if times == 1:
        with pytest.warns(SpiculaWarning):
            blind = settle_adapters(made, file_name="fold_0/best_both.pt", times=2)
        for name, value in expected_weights(made, base, 2.0).items():
            torch.testing.assert_close(blind.state[name], value, atol=1e-6, rtol=0)


def test_without_first_weights_best_files_are_taken_as_merged_with_a_warning(small_network) -> None:
    from spicula.networks.loralib_weights import settle_adapters

    base, made = base_of(small_network), checkpoint(small_network, times=1)
    with pytest.warns(SpiculaWarning, match=r"fold_3/best_clip.pt: taken to hold merged weights"):
        settled = settle_adapters(made, file_name="fold_3/best_clip.pt")
    assert (settled.status, settled.assumed) == ("merged", True)
    for name, value in expected_weights(made, base).items():
        torch.testing.assert_close(settled.state[name], value, atol=1e-6, rtol=0)
    with pytest.raises(InputError, match=r"checkpoint ckpt.pt: got adapters that may or may not"):
        settle_adapters(made, file_name="ckpt.pt")


def test_adapters_of_zeros_are_unmerged(small_network) -> None:
    from spicula.networks.loralib_weights import merge_status

    assert merge_status(checkpoint(small_network, times=1, std=0.0), base_of(small_network)) == "unmerged"


def test_both_layouts_of_the_first_weights_serve(small_network) -> None:
    from spicula.networks.loralib_weights import merge_status

    made = checkpoint(small_network, times=1)
    assert merge_status(made, small_network.state_dict()) == "merged"
    half = {name: value.half() for name, value in base_of(small_network).items()}
    exact = copy.deepcopy(small_network)
    exact.load_state_dict(half)
    assert merge_status(checkpoint(exact, times=1), half) == "merged"


def test_a_product_that_was_rounded_coarsely_is_still_told(small_network) -> None:
    from spicula.networks.loralib_weights import merge_status

    made, base = checkpoint(small_network, times=0), base_of(small_network)
    for name in [name for name in made if name.endswith("w_lora_A")]:
        layer = name.removesuffix(".w_lora_A")
        product = made[f"{layer}.w_lora_B"].bfloat16().float() @ made[name].bfloat16().float()
        made[f"{layer}.weight"] += SCALE * product
    assert merge_status(made, base) == "merged"


def test_what_is_neither_is_refused(small_network) -> None:
    from spicula.networks.loralib_weights import merge_status, settle_adapters

    base, made = base_of(small_network), checkpoint(small_network, times=1)
    with pytest.raises(InputError, match=r"scaling rule"):
        merge_status(made, base, rule="alpha/r")
    mixed = dict(made)
    name = "transformer.resblocks.0.attn.q_proj.weight"
    mixed[name] = checkpoint(small_network, times=0)[name]
    with pytest.raises(InputError, match="all layers alike"):
        merge_status(mixed, base)
    with pytest.raises(InputError, match="no adapters"):
        settle_adapters(base, base=base)
    lacking = {key: value for key, value in made.items() if not key.endswith("0.attn.v_proj.w_lora_B")}
    with pytest.raises(InputError, match="w_lora_B"):
        settle_adapters(lacking, base=base)
    lacking = {key: value for key, value in made.items() if not key.endswith("1.attn.v_proj.bias")}
    with pytest.raises(InputError, match=r"v_proj\.bias"):
        settle_adapters(lacking, base=base)
    with pytest.raises(InputError, match="in_proj_weight"):
        merge_status(made, {})


def test_unmerged_adapters_go_on_as_ours(small_network, words) -> None:
    pytest.importorskip("peft", reason="pip install 'spicula[train]'")
    from spicula.networks.clip_names import load_strictly
    from spicula.networks.lora import add_lora
    from spicula.networks.loralib_weights import rename_adapters, settle_adapters

    base, made = base_of(small_network), checkpoint(small_network, times=0)
    plain = copy.deepcopy(small_network)
    add_lora(small_network, rank=2, alpha=1.0)
    load_strictly(small_network.eval(), rename_adapters(made), source="made")
    load_strictly(plain, settle_adapters(made, base=base).state, source="made")
    planes, tokens = torch.randn(2, 9, 3, 32, 32), words(2)
    with torch.no_grad():
        for ours, theirs in zip(small_network(planes, tokens), plain(planes, tokens), strict=True):
            torch.testing.assert_close(ours.embedding, theirs.embedding, atol=1e-6, rtol=0)
