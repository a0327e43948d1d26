"""NoduleClip's heads, against formulas written out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402

pytestmark = pytest.mark.usefixtures("torch_seeded")


def test_heads_equal_the_formulas(small_network, words, randomize) -> None:
    network = small_network
    randomize(network, std=0.3)
    planes, tokens = torch.randn(4, 9, 3, 32, 32), words(4)
    weights = network.state_dict()

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    with torch.no_grad():
        image, text = network(planes, tokens)
        each = torch.stack([network.vision_model(planes[:, plane]) for plane in range(9)], dim=1)
        projected = linear(each, "image_projection.projector.0").clamp(min=0)
        score = linear(torch.tanh(linear(projected, "image_projection.attention.0")), "image_projection.attention.2")[
            ..., 0
        ]
        attention = score.exp() / score.exp().sum(dim=1, keepdim=True)
        pooled = torch.einsum("np,npd->nd", attention, projected)
        torch.testing.assert_close(image.attention, attention)
        torch.testing.assert_close(image.embedding, pooled / pooled.norm(dim=1, keepdim=True))
        torch.testing.assert_close(image.logits, linear(image.embedding, "classifier_image"))
        first = linear(network.text_model(tokens), "semantic_projection.projection")
        bent = 0.5 * first * (1 + torch.erf(first / math.sqrt(2)))
        joined = linear(bent, "semantic_projection.fc") + first
        centered = joined - joined.mean(dim=1, keepdim=True)
        normed = centered / (centered.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
        normed = normed * weights["semantic_projection.layer_norm.weight"]
        normed = normed + weights["semantic_projection.layer_norm.bias"]
        torch.testing.assert_close(text.embedding, normed / normed.norm(dim=1, keepdim=True))
        torch.testing.assert_close(text.logits, linear(text.embedding, "classifier_text"))


def test_the_order_of_the_planes_does_not_matter(small_network) -> None:
    planes = torch.randn(2, 9, 3, 32, 32)
    order = torch.randperm(9)
    with torch.no_grad():
        one, other = small_network.image_side(planes), small_network.image_side(planes[:, order])
    torch.testing.assert_close(other.embedding, one.embedding, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(other.attention, one.attention[:, order], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("temperature", "logarithm"), [(0.03, 3.506558), (0.07, 2.659260)])
def test_the_temperature_begins_as_said_and_stays_in_its_bounds(small_clip, temperature, logarithm) -> None:
    from spicula.networks.nodule_clip import NoduleClip

    network = NoduleClip(small_clip.visual, small_clip.text_model, width=16, temperature=temperature)
    assert network.logit_scale.item() == pytest.approx(logarithm, abs=1e-6)
    for value, kept in ((9.0, 4.6052), (-1.0, 0.0), (3.0, 3.0)):
        network.logit_scale.data.fill_(value)
        network.clamp_logit_scale()
        assert network.logit_scale.item() == pytest.approx(kept)
    assert network.logit_scale.requires_grad


def test_published_sizes() -> None:
    from spicula.networks.clip import ClipText, ClipVision
    from spicula.networks.nodule_clip import NoduleClip

    with torch.device("meta"):
        state = NoduleClip(ClipVision(), ClipText()).state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert shapes["image_projection.projector.0.weight"] == (256, 512)
    assert shapes["image_projection.attention.0.weight"] == (128, 256)
    assert shapes["image_projection.attention.2.weight"] == (1, 128)
    assert shapes["semantic_projection.projection.weight"] == (256, 512)
    assert shapes["semantic_projection.fc.weight"] == (256, 256)
    assert shapes["classifier_text.weight"] == shapes["classifier_image.weight"] == (2, 256)
    assert shapes["vision_model.proj"] == (768, 512)
    assert len(shapes) == 302 + 16


def test_arguments_that_make_no_sense_are_refused(small_clip, small_network) -> None:
    from spicula.networks.nodule_clip import NoduleClip

    with pytest.raises(InputError, match="planes"):
        small_network.image_side(torch.zeros(9, 3, 32, 32))
    with pytest.raises(InputError, match="temperature"):
        NoduleClip(small_clip.visual, small_clip.text_model, temperature=0.0)


def test_a_copy_keeps_its_names(small_network) -> None:
    import copy

    twin = copy.deepcopy(small_network)
    assert twin.state_dict().keys() == small_network.state_dict().keys()
    twin.load_state_dict(small_network.state_dict(), strict=True)


def test_the_published_towers_run_the_same_as_onnx_for_any_batch(
    small_network, words, randomize, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="pip install 'spicula[train]'")
    from spicula.core.bundle import write_bundle
    from spicula.networks.export import to_onnx
    from spicula.networks.nodule_clip import ImageExport, TextExport
    from spicula.runtime.openvino import load_network

    randomize(small_network, std=0.2)
    sides = {
        "image": (ImageExport(small_network), torch.randn(3, 9, 3, 32, 32)),
        "text": (TextExport(small_network), words(3)),
    }
    content = {f"{name}.onnx": to_onnx(side, example, half=False) for name, (side, example) in sides.items()}
    manifest = {"name": "t", "version": "1", "task": "semantic", "preprocessing": {}, "outputs": [], "card": {}}
    bundle = write_bundle(tmp_path / "t", manifest, content)
    for name, (side, example) in sides.items():
        with torch.no_grad():
            expected = side(example).numpy()
        compiled = load_network(bundle, f"{name}.onnx", threads=1)
        for rows in (slice(None), slice(1, 2)):
            (found,) = compiled(example.numpy()[rows])
            assert np.abs(found - expected[rows]).max() < 1e-4
