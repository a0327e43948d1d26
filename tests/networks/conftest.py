"""Small towers and words for the tests of the networks."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def torch_seeded() -> Any:
    """torch on one thread, seeded; skips where it is not installed."""
    torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return torch


@pytest.fixture
def small_clip(torch_seeded: Any) -> Any:
    """CLIP of two blocks a tower: images of 32 pixels, 12 tokens of 50, embeddings of 24."""
    from spicula.networks.clip import Clip, ClipText, ClipVision

    vision = ClipVision(image_size=32, patch_size=8, width=32, layers=2, heads=4, output_dim=24)
    text = ClipText(vocabulary=50, context=12, width=16, layers=2, heads=2, output_dim=24, end_token=49)
    return Clip(vision, text).eval()


@pytest.fixture
def small_network(small_clip: Any) -> Any:
    """A NoduleClip with the towers of ``small_clip`` and an embedding of 16."""
    from spicula.networks.nodule_clip import NoduleClip

    return NoduleClip(small_clip.visual, small_clip.text_model, width=16).eval()


@pytest.fixture
def words(torch_seeded: Any) -> Any:
    """Makes random texts: start, words, end, zeros."""
    torch = torch_seeded

    def make(count: int, *, context: int = 12, vocabulary: int = 50) -> Any:
        tokens = torch.zeros(count, context, dtype=torch.int64)
        for row in tokens:
            end = int(torch.randint(2, context, ()))
            row[0] = vocabulary - 2
            row[1:end] = torch.randint(1, vocabulary - 2, (end - 1,))
            row[end] = vocabulary - 1
        return tokens

    return make


@pytest.fixture
def randomize(torch_seeded: Any) -> Any:
    """Gives a module random weights of every name, layer norms around 1, running variances positive."""
    torch = torch_seeded

    def change(module: Any, *, std: float = 0.1) -> None:
        for name, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                value.copy_(std * torch.randn(value.shape))
                if "ln_" in name and name.endswith("weight"):
                    value.add_(1.0)
                if name.endswith("running_var"):
                    value.abs_().add_(0.5)

    return change
