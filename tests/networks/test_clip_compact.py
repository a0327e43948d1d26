"""The compact towers: their size, what they see, and their ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402

pytestmark = pytest.mark.usefixtures("torch_seeded")


def test_sizes() -> None:
    from spicula.networks.clip_compact import CompactText, CompactVision

    vision, text = CompactVision(), CompactText(vocabulary=600, end_token=3)
    assert 300_000 < sum(parameter.numel() for parameter in vision.parameters()) < 800_000
    assert sum(parameter.numel() for parameter in text.parameters()) < 1_000_000
    assert vision(torch.rand(2, 1, 64, 64)).shape == text(torch.ones(2, 77, dtype=torch.int64)).shape == (2, 256)


def test_the_windows_are_of_hu() -> None:
    from spicula.networks.clip_compact import CompactVision

    vision = CompactVision(widths=(4, 4, 4, 4)).eval()
    seen = []
    vision.stem.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    hu = torch.tensor([-1000.0, -160.0, 40.0, 100.0, 300.0, 500.0])
    vision(((hu + 1000) / 1500).expand(1, 1, 8, 6))
    expected = [[-1, 0.12, 0.3867, 0.4667, 0.7333, 1], [-1, -1, 0, 0.3, 1, 1], [-1, -1, -1, -1, 0, 1]]
    torch.testing.assert_close(seen[0][0, :, 0], torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("pool", ["mean", "end"])
def test_padding_is_not_seen_and_a_text_stands_alone(pool, randomize) -> None:
    from spicula.networks.clip_compact import CompactText

    text = CompactText(
        vocabulary=20, end_token=3, context=8, width=16, layers=2, heads=2, output_dim=8, pool=pool
    ).eval()
    randomize(text, std=0.3)
    tokens = torch.tensor([[2, 7, 8, 3, 0, 0, 0, 0], [2, 9, 10, 11, 12, 13, 14, 3]])
    with torch.no_grad():
        both = text(tokens)
        torch.testing.assert_close(text(tokens[:1]), both[:1])
        text.token_embedding.weight[0] = 100.0
        text.positional_embedding[4:] = 100.0
        torch.testing.assert_close(text(tokens)[:1], both[:1])


def test_wrong_arguments_are_refused() -> None:
    from spicula.networks.clip_compact import CompactText, CompactVision

    with pytest.raises(InputError, match="planes"):
        CompactVision(widths=(4, 4, 4, 4))(torch.zeros(1, 3, 64, 64))
    with pytest.raises(InputError, match="pool"):
        CompactText(vocabulary=20, end_token=3, pool="start")


def test_both_sides_run_the_same_as_onnx_for_any_batch(tmp_path: Path, randomize) -> None:
    pytest.importorskip("onnxscript", reason="pip install 'spicula[train]'")
    from spicula.core.bundle import write_bundle
    from spicula.networks.clip_compact import CompactText, CompactVision
    from spicula.networks.export import to_onnx
    from spicula.networks.nodule_clip import ImageExport, NoduleClip, TextExport
    from spicula.runtime.openvino import load_network

    vision = CompactVision()
    network = NoduleClip(vision, CompactText(vocabulary=600, end_token=3, layers=1)).train()
    planes = torch.rand(3, 9, 1, 64, 64)
    tokens = torch.zeros(3, 77, dtype=torch.int64)
    tokens[:, :4] = torch.tensor([[2, 599, 8, 3], [2, 4, 3, 0], [2, 5, 6, 3]])
    network(planes, tokens)  # moves the running statistics
    sides = {"image": (ImageExport(network), planes), "text": (TextExport(network), tokens)}
    content = {f"{name}.onnx": to_onnx(side, example, half=False) for name, (side, example) in sides.items()}
    manifest = {"name": "t", "version": "1", "task": "semantic", "preprocessing": {}, "outputs": [], "card": {}}
    bundle = write_bundle(tmp_path / "t", manifest, content)
    for name, (side, example) in sides.items():
        with torch.no_grad():
            expected = side.eval()(example).numpy()
        assert expected.shape == (3, 256 + 2 + (9 if name == "image" else 0))
        compiled = load_network(bundle, f"{name}.onnx", threads=1)
        (found,) = compiled(example.numpy())
        assert np.abs(found - expected).max() < 1e-4
        (one,) = compiled(example.numpy()[1:2])
        assert np.abs(one - expected[1:2]).max() < 1e-4
