"""CLIP: the shapes of the published weights, in small."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")


pytestmark = pytest.mark.usefixtures("torch_seeded")


def test_the_published_network_has_the_published_names_and_sizes() -> None:
    from spicula.networks.clip import clip_vit_b32

    with torch.device("meta"):
        clip = clip_vit_b32()
    state = clip.state_dict()
    assert sum(value.numel() for value in state.values()) == 151_277_313
    assert len(state) == 302
    for name, shape in {
        "visual.class_embedding": (768,), "visual.positional_embedding": (50, 768), "visual.proj": (768, 512),
        "visual.conv1.weight": (768, 3, 32, 32), "visual.ln_pre.bias": (768,), "visual.ln_post.weight": (768,),
        "visual.transformer.resblocks.11.attn.in_proj_weight": (2304, 768),
        "visual.transformer.resblocks.0.mlp.c_fc.weight": (3072, 768),
        "transformer.resblocks.11.attn.out_proj.bias": (512,), "transformer.resblocks.3.ln_1.weight": (512,),
        "transformer.resblocks.0.mlp.c_proj.weight": (512, 2048), "token_embedding.weight": (49408, 512),
        "positional_embedding": (77, 512), "text_projection": (512, 512), "ln_final.weight": (512,), "logit_scale": (),
    }.items():  # fmt: skip
        assert tuple(state[name].shape) == shape, name
    assert not [name for name in state if name.startswith("text_model.")]


def test_a_text_is_read_at_its_end_and_blind_to_what_follows(small_clip, words) -> None:
    clip, tokens = small_clip, words(4)
    other = tokens.clone()
    for row in other:
        end = int((row == 49).nonzero()[0])
        row[end + 1 :] = 7
    with torch.no_grad():
        torch.testing.assert_close(clip.encode_text(tokens), clip.encode_text(other))
        published = tokens.argmax(dim=-1)  # the published rule: the highest id
        x = clip.text_model.token_embedding(tokens) + clip.text_model.positional_embedding
        x = clip.text_model.ln_final(clip.text_model.transformer(x))[torch.arange(4), published]
        torch.testing.assert_close(x @ clip.text_model.text_projection, clip.encode_text(tokens))


def test_split_attention_computes_the_same() -> None:
    from spicula.networks.clip import Attention, SplitAttention

    attention = Attention(16, 4, causal=True)
    torch.nn.init.normal_(attention.in_proj_bias)
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(SplitAttention(attention)(x), attention(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_last_block_serves_the_first_token_alone_and_says_the_same(layers: int, split: bool, randomize) -> None:
    from spicula.networks.clip import SplitAttention, Transformer

    tower = Transformer(16, layers, 4)
    randomize(tower, std=0.3)
    if split:
        for block in tower.resblocks:
            block.attn = SplitAttention(block.attn)
    x = torch.randn(3, 7, 16, requires_grad=True)
    whole, first = tower(x)[:, 0], tower.first(x)
    assert first.shape == (3, 16)
    torch.testing.assert_close(first, whole, atol=1e-5, rtol=1e-5)
    (of_whole,), (of_first,) = (torch.autograd.grad(found.sum(), x) for found in (whole, first))
    torch.testing.assert_close(of_first, of_whole, atol=1e-5, rtol=1e-4)


def test_attention_equals_the_formula() -> None:
    from spicula.networks.clip import Attention

    attention = Attention(8, 2).double()
    torch.nn.init.normal_(attention.in_proj_bias)
    reference = torch.nn.MultiheadAttention(8, 2, batch_first=True).double()
    reference.load_state_dict(attention.state_dict(), strict=True)
    x = torch.randn(3, 4, 8, dtype=torch.float64)
    torch.testing.assert_close(attention(x), reference(x, x, x, need_weights=False)[0])


def test_an_image_of_another_size_is_refused(small_clip) -> None:
    from spicula.core.errors import InputError

    with pytest.raises(InputError, match=r"images: got \(1, 1, 64, 64\), expected \[n, 3, 32, 32\]"):
        small_clip.encode_image(torch.zeros(1, 1, 64, 64))


def test_gray_planes_are_normalized_as_published() -> None:
    from spicula.networks.clip import clip_pixels

    pixels = clip_pixels(torch.tensor([[[0.0, 1.0]]]))
    assert pixels.shape == (1, 3, 1, 2)
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor([-1.79226, -1.75210, -1.48022]), atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels[0, :, 0, 1], torch.tensor([1.93034, 2.07488, 2.14590]), atol=1e-4, rtol=0)
