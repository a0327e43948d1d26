"""The names that others give CLIP's weights, with transformers as the oracle, and reading them strictly."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402

pytestmark = pytest.mark.usefixtures("torch_seeded")

SMALL_VISION = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
SMALL_TEXT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 50,
    "max_position_embeddings": 12, "bos_token_id": 48, "eos_token_id": 49, "pad_token_id": 0,
}  # fmt: skip


def of_transformers(state, vision, text, dim):
    """Their model, made without weights, given ours under their names."""
    transformers = pytest.importorskip("transformers", reason="pip install 'spicula[train]'")
    with torch.device("meta"):
        model = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=dim)
        ).eval()
    model.load_state_dict(state, strict=True, assign=True)
    for tower in (model.text_model, model.vision_model):
        count = tower.embeddings.position_embedding.weight.shape[0]
        tower.embeddings.register_buffer("position_ids", torch.arange(count)[None], persistent=False)
    return model


def assert_equal_outputs(clip, model, images, tokens) -> None:
    with torch.no_grad():
        theirs = model(input_ids=tokens, pixel_values=images)
        image, text = clip.encode_image(images), clip.encode_text(tokens)
        unit = torch.nn.functional.normalize
        torch.testing.assert_close(unit(image, dim=-1), theirs.image_embeds, atol=1e-5, rtol=0)
        torch.testing.assert_close(unit(text, dim=-1), theirs.text_embeds, atol=1e-5, rtol=0)
        torch.testing.assert_close(clip(images, tokens), theirs.logits_per_image, atol=1e-5, rtol=1e-5)


def test_outputs_equal_those_of_transformers_on_the_same_weights(small_clip, words, randomize) -> None:
    from spicula.networks.clip_names import hf_to_openai, openai_to_hf

    randomize(small_clip)
    model = of_transformers(openai_to_hf(small_clip.state_dict()), SMALL_VISION, SMALL_TEXT, 24)
    images, tokens = torch.randn(3, 3, 32, 32), words(5)
    assert_equal_outputs(small_clip, model, images, tokens)
    back = hf_to_openai(model.state_dict())
    assert back.keys() == small_clip.state_dict().keys()
    for name, value in small_clip.state_dict().items():
        assert torch.equal(back[name], value), name


@pytest.mark.slow
def test_the_full_network_equals_that_of_transformers(words) -> None:
    from spicula.networks.clip import clip_vit_b32
    from spicula.networks.clip_names import openai_to_hf

    clip = clip_vit_b32().eval()
    model = of_transformers(
        openai_to_hf(clip.state_dict()), {}, {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 0}, 512
    )
    assert_equal_outputs(clip, model, torch.randn(2, 3, 224, 224), words(2, context=77, vocabulary=49408))


def test_weights_of_transformers_load_into_ours(small_clip, words) -> None:
    transformers = pytest.importorskip("transformers", reason="pip install 'spicula[train]'")
    from spicula.networks.clip_names import hf_to_openai, load_strictly

    config = transformers.CLIPConfig(text_config=SMALL_TEXT, vision_config=SMALL_VISION, projection_dim=24)
    model = transformers.CLIPModel(config).eval()
    state = model.state_dict()
    state["text_model.embeddings.position_ids"] = torch.arange(12)[None]  # of older files
    load_strictly(small_clip, hf_to_openai(state), source="a folder")
    assert_equal_outputs(small_clip, model, torch.randn(2, 3, 32, 32), words(3))


def test_published_names_load_strictly_in_both_layouts(small_clip, small_network, randomize) -> None:
    randomize(small_clip)
    published = {name: value.clone() for name, value in small_clip.state_dict().items()}
    facts = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(12), "vocab_size": torch.tensor(50)}
    renamed = {name.replace("visual.", "vision_model."): value for name, value in published.items()}
    for given in (published | facts, renamed):
        randomize(small_clip)
        small_clip.load_state_dict(given, strict=True)
        assert all(torch.equal(value, published[name]) for name, value in small_clip.state_dict().items())
    names = small_network.state_dict().keys()
    assert names >= renamed.keys()
    heads = {
        "image_projection.projector.0", "image_projection.attention.0", "image_projection.attention.2",
        "semantic_projection.projection", "semantic_projection.fc", "semantic_projection.layer_norm",
        "classifier_image", "classifier_text",
    }  # fmt: skip
    assert names - renamed.keys() == {f"{head}.{part}" for head in heads for part in ("weight", "bias")}
    whole = {name: torch.randn(value.shape) for name, value in small_network.state_dict().items()}
    under_openai = {name.replace("vision_model.", "visual."): value for name, value in whole.items()}
    for given in (whole, under_openai):
        randomize(small_network)
        small_network.load_state_dict(given, strict=True)
        assert all(torch.equal(value, whole[name]) for name, value in small_network.state_dict().items())


def test_half_precision_weights_are_read(small_clip) -> None:
    half = {name: value.half() for name, value in small_clip.state_dict().items()}
    small_clip.load_state_dict(half, strict=True)
    assert all(value.dtype == torch.float32 for value in small_clip.state_dict().values())


def test_the_names_hold_inside_another_module(small_clip) -> None:
    outer = torch.nn.ModuleDict({"module": small_clip})
    state = outer.state_dict()
    assert "module.token_embedding.weight" in state
    outer.load_state_dict(state, strict=True)


def test_missing_and_foreign_keys_are_listed_and_nothing_is_loaded(small_network) -> None:
    from spicula.networks.clip_names import load_strictly

    before = {name: value.clone() for name, value in small_network.state_dict().items()}
    state = {name: value + 1 for name, value in before.items()}
    del state["classifier_text.bias"]
    state["logit_bias"] = torch.zeros(())
    state["ln_final.weight"] = torch.zeros(3)
    with pytest.raises(InputError) as error:
        load_strictly(small_network, state, source="fold_0/best_both.pt")
    assert "fold_0/best_both.pt" in str(error.value)
    assert "1 missing: classifier_text.bias" in str(error.value)
    assert "1 foreign: logit_bias" in str(error.value)
    assert "1 of another shape: ln_final.weight (3,) for (16,)" in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in small_network.state_dict().items())


@pytest.mark.parametrize("name", ["visual.pos", "visual.transformer.resblocks.0.attn.what.weight"])
def test_foreign_names_are_not_converted(name) -> None:
    from spicula.networks.clip_names import hf_to_openai, openai_to_hf

    with pytest.raises(InputError, match=name):
        openai_to_hf({name: torch.zeros(3)})
    with pytest.raises(InputError, match=name):
        hf_to_openai({name: torch.zeros(3)})


def test_half_an_attention_is_refused() -> None:
    from spicula.networks.clip_names import hf_to_openai

    with pytest.raises(InputError, match="k_proj"):
        hf_to_openai({"text_model.encoder.layers.0.self_attn.q_proj.weight": torch.zeros(4, 4)})
