"""The compact text tower with answers to learn from: what it is pretrained as (needs torch)."""

from __future__ import annotations

import torch
from torch import nn


class TextAnswers(nn.Module):  # type: ignore[misc, unused-ignore]
    """A text tower and, for each question, logits of what the text says.

    Args:
        text: :class:`spicula.networks.clip_compact.CompactText`.
        questions: How many.
        answers: Logits of a question: its classes, and last that the text does not say.
    """

    def __init__(self, text: nn.Module, questions: int, answers: int) -> None:
        super().__init__()
        self.text, self.shape = text, (questions, answers)
        self.answers = nn.Linear(text.output_dim, questions * answers)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Ids ``[n, context]`` to logits ``[n, questions, answers]``."""
        logits: torch.Tensor = self.answers(self.text(tokens)).unflatten(1, self.shape)
        return logits
