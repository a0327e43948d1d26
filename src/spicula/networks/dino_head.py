"""The projection heads of DINO and iBOT, under the published key names (needs torch).

References:
    Caron et al. 2021, arXiv 2104.14294, section 3; Oquab et al. 2023, arXiv 2304.07193.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional


class Prototypes(nn.Module):  # type: ignore[misc, unused-ignore]
    """Cosines between a normalized token and prototypes: a weight-normed layer whose lengths stay 1.

    Args:
        width: Features of a token.
        count: Prototypes.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.weight_v = nn.Parameter(torch.empty(count, width))
        self.register_buffer("weight_g", torch.ones(count, 1))
        nn.init.trunc_normal_(self.weight_v, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., width]`` to ``[..., count]``."""
        return functional.linear(x, self.weight_g * functional.normalize(self.weight_v, dim=1))


class DinoHead(nn.Module):  # type: ignore[misc, unused-ignore]
    """Three layers with GELU to a narrow one, normalized, and its cosines to prototypes.

    Args:
        width: Features of a token.
        prototypes: How many.
        hidden: Features of the layers between.
        bottleneck: Features before the prototypes.
        layers: Before the prototypes.
    """

    def __init__(
        self, width: int, prototypes: int, *, hidden: int = 2048, bottleneck: int = 256, layers: int = 3
    ) -> None:
        super().__init__()
        sizes = [width, *[hidden] * (layers - 1), bottleneck]
        steps: list[nn.Module] = []
        for number, (a, b) in enumerate(pairwise(sizes)):
            steps += [nn.Linear(a, b)] if number == layers - 1 else [nn.Linear(a, b), nn.GELU()]
        self.mlp = nn.Sequential(*steps)
        for step in self.mlp:
            if isinstance(step, nn.Linear):
                nn.init.trunc_normal_(step.weight, std=0.02)
                nn.init.zeros_(step.bias)
        self.last_layer = Prototypes(bottleneck, prototypes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., width]`` to logits ``[..., prototypes]``."""
        x = self.mlp(x)
        x = functional.normalize(x, dim=-1, eps=1e-6 if x.dtype == torch.float16 else 1e-12)
        logits: torch.Tensor = self.last_layer(x)
        return logits
