"""Two small towers for few data and CPUs, with the interface of the published ones.

References:
    He et al. 2016, doi:10.1109/CVPR.2016.90 (residual blocks); Radford et al. 2021, arXiv 2103.00020 (the pair).
    Departures: the image tower is a convolutional network on single planes that sees them in three windows; the text
    tower sees all words at once and is read as the mean over them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from spicula.core.errors import InputError
from spicula.networks.clip import Transformer, at_end

INPUT_HU = (-1000.0, 500.0)
"""What 0 and 1 of a plane mean."""

WINDOWS_HU = ((-1000.0, 500.0), (-160.0, 240.0), (100.0, 500.0))
"""All of it, soft tissue and calcium: the image tower looks at a plane in each, scaled to -1 to 1."""


class _Residual(nn.Module):  # type: ignore[misc, unused-ignore]
    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.skip = nn.Sequential(
                nn.AvgPool2d(stride), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.skip(x) + self.second(self.first(x)))


class CompactVision(nn.Module):  # type: ignore[misc, unused-ignore]
    """A small residual network on one plane; its weights serve all planes.

    Args:
        widths: Features at full, half, quarter and eighth resolution.
        blocks: Residual blocks at the last three of them.
        output_dim: Length of an embedding.
        dropout: Of the pooled features, in training.
    """

    channels = 1
    image_size = 64

    def __init__(
        self,
        *,
        widths: Sequence[int] = (16, 24, 48, 96),
        blocks: Sequence[int] = (1, 1, 2),
        output_dim: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.output_dim = output_dim
        low, high = INPUT_HU
        of_unit = [((high - low) * 2 / (b - a), (low - a) * 2 / (b - a) - 1) for a, b in WINDOWS_HU]
        self.gains, self.offsets = zip(*of_unit, strict=True)
        self.stem = nn.Sequential(
            nn.Conv2d(len(WINDOWS_HU), widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        levels: list[nn.Module] = []
        for before, after, count in zip(widths, widths[1:], blocks, strict=False):
            levels += [_Residual(before if not i else after, after, stride=1 if i else 2) for i in range(count)]
        self.levels = nn.Sequential(*levels)
        self.dropout = nn.Dropout(dropout)
        self.proj = nn.Linear(2 * widths[-1], output_dim)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Planes ``[n, 1, rows, columns]``, 0 to 1 over :data:`INPUT_HU`, to ``[n, output_dim]``."""
        if planes.ndim != 4 or planes.shape[1] != 1:
            raise InputError("planes", got=tuple(planes.shape), expected="[n, 1, rows, columns]")
        windows = [(planes * a + b).clamp(-1.0, 1.0) for a, b in zip(self.gains, self.offsets, strict=True)]
        features = self.levels(self.stem(torch.cat(windows, dim=1)))
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        embedding: torch.Tensor = self.proj(self.dropout(pooled))
        return embedding


class CompactText(nn.Module):  # type: ignore[misc, unused-ignore]
    """A small transformer over its own vocabulary, blind to padding.

    Args:
        vocabulary: Number of tokens.
        end_token: Id of the token that ends a text.
        pad_token: Id that fills the rest.
        context: Tokens of a text.
        width: Features.
        layers: Number of blocks.
        heads: Of each attention.
        output_dim: Length of an embedding.
        dropout: In training.
        pool: ``"mean"`` over the text's tokens, or at its ``"end"`` token.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        end_token: int,
        pad_token: int = 0,
        context: int = 77,
        width: int = 128,
        layers: int = 3,
        heads: int = 4,
        output_dim: int = 256,
        dropout: float = 0.1,
        pool: str = "mean",
    ) -> None:
        super().__init__()
        if pool not in ("mean", "end"):
            raise InputError("pool", got=repr(pool), expected="'mean' or 'end'")
        self.context, self.output_dim, self.pool = context, output_dim, pool
        self.end_token, self.pad_token = end_token, pad_token
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(context, width))
        self.dropout = nn.Dropout(dropout)
        self.transformer = Transformer(width, layers, heads, dropout=dropout)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, output_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids ``[n, context]`` to ``[n, output_dim]``."""
        words = tokens != self.pad_token
        x = self.dropout(self.token_embedding(tokens) + self.positional_embedding)
        x = self.ln_final(self.transformer(x, words[:, None, None, :]))
        if self.pool == "end":
            pooled = at_end(x, tokens, self.end_token)
        else:
            weights = words[..., None].to(x.dtype)
            pooled = (x * weights).sum(dim=1) / weights.sum(dim=1)
        return pooled @ self.text_projection
