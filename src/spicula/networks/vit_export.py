"""From a vision transformer to the bytes of an ONNX file for images of one size (needs the extra ``train``)."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn
from torch.nn import functional

from spicula.core.errors import InputError
from spicula.networks.export import to_onnx
from spicula.networks.vit import Attention, Block, VisionTransformer

OUTPUTS = ("cls", "patches", "attention")
"""Names of the outputs of an exported network, in order."""

_MOST_BYTES = 2**31 - 2**20
"""What one ONNX file can hold, less its graph: protobuf counts to 2 GiB."""


def vit_to_onnx(network: VisionTransformer, size: int | tuple[int, int], *, half: bool = True) -> bytes:
    """Export a vision transformer for images of one size, any number at a time.

    The positions of that size are stored instead of the learned grid, and each attention's q, k and v stand apart as
    matrices of their own, so that :func:`spicula.runtime.quantize.quantize` finds them. The mask token is left out.

    Args:
        network: It is not changed, and may be in half precision or in training.
        size: Side of a square image or its height and width, in pixels; multiples of the patch.
        half: Store large weights as float16 (computed in float32 nevertheless).

    Returns:
        The ONNX file. Its input is ``image``, float32 ``[batch, 3, height, width]``; its outputs are float32 and, as in
        :class:`~spicula.networks.vit.Tokens`, ``cls`` ``[batch, width]``, ``patches`` ``[batch, patches, width]`` and
        ``attention`` ``[batch, heads, patches]``, all without the registers.

    Raises:
        InputError: The size is no multiple of the patch, or the weights are too many for one ONNX file.
    """
    height, width = (size, size) if isinstance(size, int) else size
    network.grid_of(height, width)
    needed = 4 * sum(parameter.numel() for parameter in network.parameters())
    if needed > _MOST_BYTES:
        raise InputError(
            "vision transformer", got=f"{needed / 2**30:.1f} GiB of weights in float32",
            expected="less than 2 GiB, which is what one ONNX file holds",
        )  # fmt: skip
    with torch.no_grad():
        fixed = FixedVit(_copied(network), height, width)
    return to_onnx(fixed, torch.zeros(2, 3, height, width), half=half, outputs=OUTPUTS)


class FixedVit(nn.Module):  # type: ignore[misc, unused-ignore]
    """A vision transformer for one size of images; the outputs are a plain tuple.

    Args:
        network: Its parts are taken over, not copied.
        height: Of the images in pixels.
        width: Of the images in pixels.
    """

    def __init__(self, network: VisionTransformer, height: int, width: int) -> None:
        super().__init__()
        positions = network.positions_of(*network.grid_of(height, width))
        start = network.cls_token + positions[:, :1]
        if network.shape.registers:
            start = torch.cat((start, network.register_tokens), dim=1)
        self.register_buffer("start", start.detach().clone())
        self.register_buffer("places", positions[:, 1:].detach().clone())
        self.grid = network.grid_of(height, width)
        self.cut, self.norm = network.patch_embed.proj, network.norm
        self.blocks = nn.ModuleList(_SplitBlock(block) for block in network.blocks)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``[n, 3, height, width]`` to the class token, the patches and where the class token looks."""
        *earlier, last = self.blocks
        x = self._embed(images)
        for block in earlier:
            x = block(x)
        first = self.start.shape[1]
        x, shares = last.with_shares(x)
        x = self.norm(x)
        return x[:, 0], x[:, first:], shares[:, :, first:]

    def map(self, images: torch.Tensor) -> torch.Tensor:
        """The patches as an image, ``[n, width, rows, columns]``."""
        x = self._embed(images)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)[:, self.start.shape[1] :]
        return x.transpose(1, 2).unflatten(2, self.grid)

    def _embed(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.cut(images).flatten(2).transpose(1, 2) + self.places
        return torch.cat((self.start.expand(images.shape[0], -1, -1), patches), dim=1)


class _SplitBlock(nn.Module):  # type: ignore[misc, unused-ignore]
    """A block in evaluation, its attention split.

    Args:
        block: Its parts are taken over, the packed weights copied.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1, self.ls1, self.norm2, self.mlp, self.ls2 = block.norm1, block.ls1, block.norm2, block.mlp, block.ls2
        self.attn = SplitAttention(block.attn)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))

    def with_shares(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        added, shares = self.attn.with_shares(self.norm1(x))
        x = x + self.ls1(added)
        return x + self.ls2(self.mlp(self.norm2(x))), shares


class SplitAttention(nn.Module):  # type: ignore[misc, unused-ignore]
    """The same as :class:`~spicula.networks.vit.Attention` with ``q_proj``, ``k_proj`` and ``v_proj`` apart.

    Args:
        packed: Whose weights are copied; the layer after the attention is taken over.
    """

    def __init__(self, packed: Attention) -> None:
        super().__init__()
        self.heads = packed.heads
        width = packed.proj.in_features
        weights, biases = packed.qkv.weight.detach().chunk(3), packed.qkv.bias.detach().chunk(3)
        for name, weight, bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases, strict=True):
            linear = nn.Linear(width, width, device="meta")
            linear.weight, linear.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
            self.add_module(name, linear)
        self.proj = packed.proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, tokens, width]`` to the same shape."""
        return self._mixed(*self._parts(x))

    def with_shares(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and how the first token's attention is shared out: ``[n, heads, tokens]``."""
        q, k, v = self._parts(x)
        logits = q[:, :, :1] @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        return self._mixed(q, k, v), logits.softmax(dim=-1)[:, :, 0]

    def _parts(self, x: torch.Tensor) -> list[torch.Tensor]:
        parts = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        return [part.unflatten(-1, (self.heads, part.shape[-1] // self.heads)).transpose(1, 2) for part in parts]

    def _mixed(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


def _copied(network: VisionTransformer) -> VisionTransformer:
    """A copy in float32 that shares what is in float32 already and can be changed without changing the network."""
    own = {id(value): nn.Parameter(value.detach().cpu().float(), requires_grad=False) for value in network.parameters()}
    copied = copy.deepcopy(network, own)
    copied.eval()
    return copied
