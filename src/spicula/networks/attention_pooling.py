"""Gated attention over a bag of features (needs torch).

References:
    Ilse et al. 2018, arXiv 1802.04712, equation 9.
"""

from __future__ import annotations

import torch
from torch import nn


class AttentionPooling(nn.Module):  # type: ignore[misc, unused-ignore]
    """A logit of a bag: a linear function of the mean of its features, weighed by attention.

    Args:
        width: Features.
        hidden: Of the attention.
        drop: Share of the features that are left out while it is taught.
    """

    def __init__(self, width: int, *, hidden: int = 32, drop: float = 0.0) -> None:
        super().__init__()
        self.drop = nn.Dropout(drop)
        self.value, self.gate = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.weigh, self.tell = nn.Linear(hidden, 1), nn.Linear(width, 1)

    def forward(self, bags: torch.Tensor, there: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tell each bag.

        Args:
            bags: ``[n, most, width]``.
            there: bool ``[n, most]``, which places are filled.

        Returns:
            Logits ``[n]``; weights ``[n, most]``, which sum to 1 over the filled places.
        """
        x = self.drop(bags)
        raw = self.weigh(torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x)))[..., 0]
        weights = torch.softmax(raw.masked_fill(~there, -torch.inf), dim=1)
        return self.tell((weights[..., None] * x).sum(dim=1))[:, 0], weights
