"""Images of a nodule and words about it in one space: planes pooled by attention, projections, classifiers.

References:
    Zhuang et al. 2025, arXiv 2504.21344, section 3.3; Ilse et al. 2018, arXiv 1802.04712 (attention pooling).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from spicula.core.errors import InputError
from spicula.networks.clip_names import name_flatly

MAX_LOGIT_SCALE = 4.6052
"""ln 100: similarities are never scaled by more than 100."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageSide:
    """What the image says.

    Args:
        embedding: ``[n, width]``, of length 1.
        logits: ``[n, 2]``, benign and malignant.
        attention: ``[n, planes]``, of sum 1.
    """

    embedding: torch.Tensor
    logits: torch.Tensor
    attention: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TextSide:
    """What the words say.

    Args:
        embedding: ``[n, width]``, of length 1.
        logits: ``[n, 2]``, benign and malignant.
    """

    embedding: torch.Tensor
    logits: torch.Tensor


class ImageProjection(nn.Module):  # type: ignore[misc, unused-ignore]
    """Project each plane and weigh the planes by attention.

    Args:
        inputs: Length of a plane's embedding.
        width: Of the projected one.
        hidden: Of the attention.
    """

    def __init__(self, inputs: int, width: int, *, hidden: int = 128) -> None:
        super().__init__()
        self.projector = nn.Sequential(nn.Linear(inputs, width), nn.ReLU())
        self.attention = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, planes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``[n, planes, inputs]`` to the pooled ``[n, width]`` and the attention ``[n, planes]``."""
        projected = self.projector(planes)
        attention = self.attention(projected).softmax(dim=1)
        return (attention * projected).sum(dim=1), attention[..., 0]


class SemanticProjection(nn.Module):  # type: ignore[misc, unused-ignore]
    """Project a text's embedding, with a residual layer.

    Args:
        inputs: Length of the embedding.
        width: Of the projected one.
        dropout: In training.
    """

    def __init__(self, inputs: int, width: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.projection = nn.Linear(inputs, width)
        self.fc = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, inputs]`` to ``[n, width]``."""
        projected = self.projection(x)
        changed = self.dropout(self.fc(functional.gelu(projected)))
        normed: torch.Tensor = self.layer_norm(changed + projected)
        return normed


class NoduleClip(nn.Module):  # type: ignore[misc, unused-ignore]
    """Both towers with their heads; with the published towers its state has CLIP_nodule's key names.

    Towers whose weights are all frozen stay in evaluation: neither their dropout nor their running statistics move.

    Args:
        vision: :class:`~spicula.networks.clip.ClipVision` or ``CompactVision``: planes to ``vision.output_dim``.
        text: :class:`~spicula.networks.clip.ClipText` or ``CompactText``: tokens to ``text.output_dim``.
        width: Length of the shared embedding.
        temperature: First one; the paper's 0.03, the authors' code has 0.07.
        dropout: Of the text's projection.
    """

    def __init__(
        self,
        vision: nn.Module,
        text: nn.Module,
        *,
        width: int = 256,
        temperature: float = 0.03,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not 0.01 <= temperature <= 1:
            raise InputError("temperature", got=temperature, expected="0.01 to 1")
        self.vision_model, self.text_model = vision, text
        self.image_projection = ImageProjection(vision.output_dim, width)
        self.semantic_projection = SemanticProjection(text.output_dim, width, dropout=dropout)
        self.classifier_image = nn.Linear(width, 2)
        self.classifier_text = nn.Linear(width, 2)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))
        name_flatly(self, vision="vision_model", other="visual")

    def image_side(self, planes: torch.Tensor) -> ImageSide:
        """What the image says.

        Args:
            planes: ``[n, planes, channels, rows, columns]``, as the image tower takes them.
        """
        if planes.ndim != 5:
            raise InputError(
                "planes", got=tuple(planes.shape), expected="[nodules, planes, channels, rows, columns]"
            )  # fmt: skip
        of_planes = self.vision_model(planes.flatten(0, 1)).unflatten(0, (-1, planes.shape[1]))
        pooled, attention = self.image_projection(of_planes)
        embedding = functional.normalize(pooled, dim=-1)
        return ImageSide(embedding, self.classifier_image(embedding), attention)

    def text_side(self, tokens: torch.Tensor) -> TextSide:
        """What the words say.

        Args:
            tokens: Ids ``[n, context]``.
        """
        embedding = functional.normalize(self.semantic_projection(self.text_model(tokens)), dim=-1)
        return TextSide(embedding, self.classifier_text(embedding))

    def forward(self, planes: torch.Tensor, tokens: torch.Tensor) -> tuple[ImageSide, TextSide]:
        """Both sides of the same nodules."""
        return self.image_side(planes), self.text_side(tokens)

    def clamp_logit_scale(self) -> None:
        """Keep the logarithm of the scale in 0 to :data:`MAX_LOGIT_SCALE`; to be called after each step."""
        with torch.no_grad():
            self.logit_scale.clamp_(0.0, MAX_LOGIT_SCALE)

    def train(self, mode: bool = True) -> NoduleClip:
        """As torch's, but frozen towers stay in evaluation."""
        super().train(mode)
        for tower in (self.vision_model, self.text_model):
            if not any(parameter.requires_grad for parameter in tower.parameters()):
                tower.eval()
        return self


class ImageExport(nn.Module):  # type: ignore[misc, unused-ignore]
    """The image side as one array, for :func:`spicula.networks.export.to_onnx`.

    Args:
        network: Whose image side.
    """

    def __init__(self, network: NoduleClip) -> None:
        super().__init__()
        self.network = network

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """``[n, planes, channels, rows, columns]`` to ``[n, width + 2 + planes]``: embedding, logits, attention."""
        side = self.network.image_side(planes)
        return torch.cat([side.embedding, side.logits, side.attention], dim=1)


class TextExport(nn.Module):  # type: ignore[misc, unused-ignore]
    """The text side as one array, for :func:`spicula.networks.export.to_onnx`.

    Args:
        network: Whose text side.
    """

    def __init__(self, network: NoduleClip) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Ids ``[n, context]`` to ``[n, width + 2]``: embedding, logits."""
        side = self.network.text_side(tokens)
        return torch.cat([side.embedding, side.logits], dim=1)
