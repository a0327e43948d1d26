"""The vision transformer of DINOv2, under the published key names (needs torch).

References:
    Dosovitskiy et al. 2021, arXiv 2010.11929; Oquab et al. 2023, arXiv 2304.07193 (DINOv2); Darcet et al. 2023, arXiv
    2309.16588 (registers); Huang et al. 2016, arXiv 1603.09382 (stochastic depth). Attention runs through
    ``scaled_dot_product_attention``. Departure: global and local crops go through as two batches instead of nested
    tensors; the numbers are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from spicula.core.errors import InputError

FEW_TOKENS = 128
"""Fewer tokens than this are trained on a CPU by plain matrix products."""

FeedForward: TypeAlias = Literal["mlp", "swiglu"]
Positions: TypeAlias = Literal["offset", "antialias"]


@dataclass(frozen=True, slots=True)
class VitShape:
    """What a vision transformer is made of.

    Args:
        width: Features of a token.
        depth: Blocks.
        heads: Of the attention; they divide the width.
        patch: Side of a patch in pixels.
        image: Side in pixels of the images whose grid of patches the positions were learned on.
        registers: Tokens between the class token and the patches that stand for nothing.
        ffn: ``"mlp"`` with GELU, or ``"swiglu"`` as in ViT-g.
        positions: How the grid of positions is brought to another size: ``"offset"`` scales by ``(n + 0.1) / n0``
            (published models without registers), ``"antialias"`` to the size itself, low-passed (with registers).
        layer_scale: First value of what each half of a block is multiplied by.
        position_std: Standard deviation of the positions before any training. As published, 0.02, a short training
            from random weights never learns where to look: the patches drown the positions.
    """

    width: int
    depth: int
    heads: int
    patch: int = 14
    image: int = 518
    registers: int = 0
    ffn: FeedForward = "mlp"
    positions: Positions = "offset"
    layer_scale: float = 1e-5
    position_std: float = 0.02

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads, self.patch) < 1 or self.registers < 0:
            raise InputError("vision transformer", got=f"{self}", expected="positive sizes")
        if self.width % self.heads:
            raise InputError("heads", got=self.heads, expected=f"a divisor of the width {self.width}")
        if self.image % self.patch:
            raise InputError("image", got=self.image, expected=f"a multiple of the patch {self.patch}")

    @property
    def hidden(self) -> int:
        """Features inside the feed-forward half: four times the width, or what costs as much with SwiGLU."""
        return 4 * self.width if self.ffn == "mlp" else (int(4 * self.width * 2 / 3) + 7) // 8 * 8

    def with_registers(self, count: int = 4) -> VitShape:
        """The same with registers, positions interpolated as in the published models that have them."""
        return replace(self, registers=count, positions="antialias" if count else "offset")


SHAPES: Mapping[str, VitShape] = {
    "vit-mini": VitShape(192, 6, 3, image=70, layer_scale=1.0, position_std=1.0),
    "vit-tiny": VitShape(192, 12, 3),
    "vit-small": VitShape(384, 12, 6),
    "vit-base": VitShape(768, 12, 12),
    "vit-large": VitShape(1024, 24, 16),
    "vit-giant": VitShape(1536, 40, 24, ffn="swiglu"),
}
"""Published architectures of DINOv2 by name, and two small ones for CPUs; all at patch 14, without registers."""


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """What a vision transformer says of images, normalized by its last layer norm.

    Args:
        cls: ``[n, width]``, of the whole image.
        registers: ``[n, registers, width]``.
        patches: ``[n, rows * columns, width]``, row by row.
        grid: Rows and columns of patches.
        raw: ``[n, tokens, width]`` before the last layer norm: class token, registers, patches.
        attention: ``[n, heads, rows * columns]``: share of the class token's attention in the last block that each
            patch has, if asked for; the rest goes to the class token and the registers.
    """

    cls: torch.Tensor
    registers: torch.Tensor
    patches: torch.Tensor
    grid: tuple[int, int]
    raw: torch.Tensor
    attention: torch.Tensor | None = None

    @property
    def map(self) -> torch.Tensor:
        """The patches as an image ``[n, width, rows, columns]``."""
        return self.patches.transpose(1, 2).unflatten(2, self.grid)


class PatchEmbed(nn.Module):  # type: ignore[misc, unused-ignore]
    """Cut an image into patches and bring each to the width.

    Args:
        patch: Side in pixels.
        width: Features of a token.
    """

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``[n, 3, height, width]`` to ``[n, patches, width]``; as one matrix product, faster than a convolution."""
        n, channels, height, width = images.shape
        side = self.patch
        cut = images.reshape(n, channels, height // side, side, width // side, side)
        cut = cut.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, channels * side * side)
        return functional.linear(cut, self.proj.weight.flatten(1), self.proj.bias)


def _kernel(x: torch.Tensor) -> AbstractContextManager[None]:
    """On a CPU the fused kernel's way back takes three times as long as its parts for few tokens."""
    few = x.device.type == "cpu" and x.shape[1] < FEW_TOKENS and x.requires_grad and not torch.compiler.is_compiling()
    return sdpa_kernel(SDPBackend.MATH) if few else nullcontext()


class Attention(nn.Module):  # type: ignore[misc, unused-ignore]
    """Self-attention with q, k and v packed in one matrix.

    Args:
        width: Features.
        heads: They divide the features.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, tokens, width]`` to the same shape."""
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        with _kernel(x):
            seen = functional.scaled_dot_product_attention(q, k, v)
        mixed: torch.Tensor = self.proj(seen.transpose(1, 2).reshape(n, tokens, width))
        return mixed

    def shares(self, x: torch.Tensor) -> torch.Tensor:
        """How the first token's attention is shared out: ``[n, heads, tokens]``, each head's sum is 1."""
        n, tokens, width = x.shape
        part = width // self.heads
        q = functional.linear(x[:, :1], self.qkv.weight[:width], self.qkv.bias[:width])
        k = functional.linear(x, self.qkv.weight[width : 2 * width], self.qkv.bias[width : 2 * width])
        q = q.reshape(n, 1, self.heads, part).transpose(1, 2)
        k = k.reshape(n, tokens, self.heads, part).permute(0, 2, 3, 1)
        return ((q @ k) / math.sqrt(part)).softmax(dim=-1)[:, :, 0]


class Mlp(nn.Module):  # type: ignore[misc, unused-ignore]
    """Two layers with GELU between them.

    Args:
        width: Features in and out.
        hidden: Features between.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it to each token."""
        seen: torch.Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return seen


class SwiGlu(nn.Module):  # type: ignore[misc, unused-ignore]
    """Two parallel layers, one gating the other by SiLU, and a third (Shazeer 2020, arXiv 2002.05202).

    Args:
        width: Features in and out.
        hidden: Features of each of the two.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it to each token."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        seen: torch.Tensor = self.w3(functional.silu(gate) * value)
        return seen


class LayerScale(nn.Module):  # type: ignore[misc, unused-ignore]
    """One learned factor for each feature (Touvron et al. 2021, arXiv 2103.17239).

    Args:
        width: Features.
        first: Value to begin with.
    """

    def __init__(self, width: int, first: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), first))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        return x * self.gamma


class Block(nn.Module):  # type: ignore[misc, unused-ignore]
    """Attention and feed-forward, each after a layer norm, scaled and added.

    Args:
        shape: Of the transformer.
        drop: Share of the images for which a half is left out in training (stochastic depth). The half is then run
            on the other images alone, as in the published training, and its effect scaled up; upstream draws image by
            image up to a share of a tenth.
    """

    def __init__(self, shape: VitShape, *, drop: float = 0.0) -> None:
        super().__init__()
        self.drop = drop
        self.norm1 = nn.LayerNorm(shape.width, eps=1e-6)
        self.attn = Attention(shape.width, shape.heads)
        self.ls1 = LayerScale(shape.width, shape.layer_scale)
        self.norm2 = nn.LayerNorm(shape.width, eps=1e-6)
        self.mlp: nn.Module = (Mlp if shape.ffn == "mlp" else SwiGlu)(shape.width, shape.hidden)
        self.ls2 = LayerScale(shape.width, shape.layer_scale)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """What the attention adds."""
        added: torch.Tensor = self.ls1(self.attn(self.norm1(x)))
        return added

    def feed(self, x: torch.Tensor) -> torch.Tensor:
        """What the feed-forward half adds."""
        added: torch.Tensor = self.ls2(self.mlp(self.norm2(x)))
        return added

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, tokens, width]`` to the same shape."""
        for half in (self.attend, self.feed):
            if not (self.training and self.drop > 0.0):
                x = x + half(x)
                continue
            n = len(x)
            kept = torch.randperm(n, device=x.device)[: max(1, int(n * (1.0 - self.drop)))]
            added = half(x[kept])
            x = x.index_add(0, kept, added.to(x.dtype), alpha=n / len(kept))
        return x


class VisionTransformer(nn.Module):  # type: ignore[misc, unused-ignore]
    """DINOv2's vision transformer; any image whose sides are multiples of the patch.

    Args:
        shape: What it is made of.
        drop: Stochastic depth in training, the same in all blocks.

    Example:
        >>> from spicula.networks.vit import SHAPES, VisionTransformer
        >>> network = VisionTransformer(SHAPES["vit-small"])
        >>> sum(p.numel() for p in network.parameters())
        22056576
    """

    def __init__(self, shape: VitShape, *, drop: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        side = shape.image // shape.patch
        self.patch_embed = PatchEmbed(shape.patch, shape.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, shape.width))
        if shape.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, shape.registers, shape.width))
        self.mask_token = nn.Parameter(torch.zeros(1, shape.width))
        self.blocks = nn.ModuleList(Block(shape, drop=drop) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)
        self._begin()

    def _begin(self) -> None:
        std = self.shape.position_std
        nn.init.trunc_normal_(self.pos_embed, std=std, a=-2 * max(1.0, std), b=2 * max(1.0, std))
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.shape.registers:
            nn.init.normal_(self.register_tokens, std=1e-6)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image.

        Raises:
            InputError: A side is no multiple of the patch.
        """
        side = self.shape.patch
        if height < side or width < side or height % side or width % side:
            near = tuple(max(side, round(n / side) * side) for n in (height, width))
            raise InputError(
                "image", got=f"{height} x {width} pixels", expected=f"multiples of the patch of {side}",
                hint=f"resize it to {near[0]} x {near[1]}",
            )  # fmt: skip
        return height // side, width // side

    def positions_of(self, rows: int, columns: int) -> torch.Tensor:
        """Positions for a grid of patches, class token first: ``[1, 1 + rows * columns, width]``."""
        before = self.shape.image // self.shape.patch
        if rows == columns == before:
            return self.pos_embed
        learned = self.pos_embed[:, 1:].float().reshape(1, before, before, -1).permute(0, 3, 1, 2)
        if self.shape.positions == "offset":
            factor = ((rows + 0.1) / before, (columns + 0.1) / before)
            grid = functional.interpolate(learned, scale_factor=factor, mode="bicubic")
        else:
            grid = functional.interpolate(learned, size=(rows, columns), mode="bicubic", antialias=True)
        grid = grid.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat((self.pos_embed[:, :1], grid), dim=1)

    def embed(self, images: torch.Tensor, masks: torch.Tensor | None = None) -> torch.Tensor:
        """Images to the tokens that go into the first block.

        Args:
            images: ``[n, 3, height, width]``.
            masks: bool ``[n, patches]``; those patches are replaced by the mask token.

        Returns:
            ``[n, 1 + registers + patches, width]``.
        """
        rows, columns = self.grid_of(*images.shape[-2:])
        x = self.patch_embed(images)
        if masks is not None:
            x = torch.where(masks.unsqueeze(-1), self.mask_token.to(x.dtype), x)
        positions = self.positions_of(rows, columns)
        x = torch.cat(((self.cls_token + positions[:, :1]).expand(len(x), -1, -1), x + positions[:, 1:]), dim=1)
        if self.shape.registers:
            x = torch.cat((x[:, :1], self.register_tokens.expand(len(x), -1, -1).to(x.dtype), x[:, 1:]), dim=1)
        return x

    def forward(self, images: torch.Tensor, masks: torch.Tensor | None = None, *, attention: bool = False) -> Tokens:
        """Class token, patch tokens and, if asked for, the map of attention.

        Args:
            images: ``[n, 3, height, width]``, sides multiples of the patch.
            masks: See :meth:`embed`.
            attention: Whether to tell where the class token looks in the last block.

        Raises:
            InputError: A side is no multiple of the patch.
        """
        grid = self.grid_of(*images.shape[-2:])
        x = self.embed(images, masks)
        *earlier, last = self.blocks
        for block in earlier:
            x = block(x)
        first = 1 + self.shape.registers
        shares = last.attn.shares(last.norm1(x))[:, :, first:] if attention else None
        x = last(x)
        normed = self.norm(x)
        return Tokens(normed[:, 0], normed[:, 1:first], normed[:, first:], grid, x, shares)
