"""A compact image tower for outlined nodules, and a NoduleClip that is also told measures of them (needs torch).

References:
    Zhuang et al. 2025, arXiv 2504.21344, section 3.3 (the pair of towers); He et al. 2016, doi:10.1109/CVPR.2016.90.
    Departures: the tower sees a plane in three windows and the nodule's outline beside it; numbers measured in the
    outline join the pooled planes before both become an embedding; traits are learned beside the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from spicula.core.errors import InputError
from spicula.networks.nodule_clip import ImageSide, NoduleClip, TextSide
from spicula.networks.planes import WINDOWS_HU

MOST = 4.0
"""Standardized measures are held within plus and minus this, so that an odd image cannot leave what was learned."""


class _Residual(nn.Module):  # type: ignore[misc, unused-ignore]
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.skip = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.skip(x) + self.second(self.first(x)))


class OutlinedVision(nn.Module):  # type: ignore[misc, unused-ignore]
    """A small residual network on one plane and the outline on it; its weights serve all planes.

    Args:
        width: Features at half resolution; twice and four times as many at a quarter and an eighth.
        output_dim: Length of an embedding.
    """

    channels = 2

    def __init__(self, *, width: int = 20, output_dim: int = 128) -> None:
        super().__init__()
        self.output_dim = output_dim
        self.stem = nn.Sequential(
            nn.Conv2d(len(WINDOWS_HU) + 1, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.levels = nn.Sequential(_Residual(width, 2 * width), _Residual(2 * width, 4 * width))
        self.proj = nn.Linear(8 * width, output_dim)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Planes ``[n, 2, rows, columns]``, HU and the outline from 0 to 1, to ``[n, output_dim]``."""
        if planes.ndim != 4 or planes.shape[1] != self.channels:
            raise InputError("planes", got=tuple(planes.shape), expected="[n, 2, rows, columns]: HU, then the outline")
        hu, part = planes[:, :1], planes[:, 1:]
        windows = [((hu - low) * (2.0 / (high - low)) - 1.0).clamp(-1.0, 1.0) for low, high in WINDOWS_HU]
        features = self.levels(self.stem(torch.cat([*windows, part], dim=1)))
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        embedding: torch.Tensor = self.proj(pooled)
        return embedding


class MeasureSide(nn.Module):  # type: ignore[misc, unused-ignore]
    """Measures of an outlined nodule, standardized, joined with the pooled planes.

    Args:
        inputs: How many.
        width: Length of the embedding.
        hidden: Features that the measures become.
    """

    def __init__(self, inputs: int, width: int, *, hidden: int = 48) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.joint_width = width + hidden
        self.layers = nn.Sequential(nn.Dropout(0.2), nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(0.3))
        self.project = nn.Linear(width + hidden, width)

    def standardize_by(self, center: torch.Tensor, scale: torch.Tensor) -> None:
        """Set what is subtracted and divided by, ``[inputs]`` each, of the training nodules."""
        self.center.copy_(center)
        self.scale.copy_(scale)

    def forward(self, pooled: torch.Tensor, measures: torch.Tensor) -> torch.Tensor:
        """``[n, width]`` and ``[n, inputs]`` to ``[n, joint_width]``."""
        numbers = self.layers(((measures - self.center) / self.scale).clamp(-MOST, MOST))
        return torch.cat([pooled, numbers], dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What one batch comes to.

    Args:
        image: What the images say.
        traits: Logits ``[n, outputs]`` of what is learned beside the words.
        text: What the words say; None without words.
    """

    image: ImageSide
    traits: torch.Tensor
    text: TextSide | None


class SemanticNetwork(nn.Module):  # type: ignore[misc, unused-ignore]
    """A NoduleClip, measures of the nodule, and traits.

    Args:
        clip: Both towers and their heads.
        measures: How many numbers are measured of a nodule; 0 for none.
        outputs: Number of trait logits.
    """

    def __init__(self, clip: NoduleClip, *, measures: int, outputs: int) -> None:
        super().__init__()
        width = clip.classifier_image.in_features
        self.clip = clip
        self.measures = MeasureSide(measures, width) if measures else None
        self.dropout = nn.Dropout(0.3 if measures else 0.0)
        self.traits = nn.Linear(width if self.measures is None else self.measures.joint_width, outputs)

    def image_side(self, planes: torch.Tensor, measures: torch.Tensor) -> tuple[ImageSide, torch.Tensor]:
        """What the images say, and the logits of the traits.

        Args:
            planes: ``[n, planes, channels, rows, columns]``, as the image tower takes them.
            measures: ``[n, measures]``; passed over where the network takes none.
        """
        of_planes = self.clip.vision_model(planes.flatten(0, 1)).unflatten(0, (-1, planes.shape[1]))
        pooled, attention = self.clip.image_projection(of_planes)
        joint = pooled if self.measures is None else self.measures(pooled, measures)
        joint = self.dropout(joint)
        embedding = functional.normalize(joint if self.measures is None else self.measures.project(joint), dim=-1)
        return ImageSide(embedding, self.clip.classifier_image(embedding), attention), self.traits(joint)

    def forward(self, planes: torch.Tensor, measures: torch.Tensor, tokens: torch.Tensor | None) -> Seen:
        """Images and, where there are tokens ``[n, context]``, words of the same nodules."""
        image, traits = self.image_side(planes, measures)
        return Seen(image, traits, None if tokens is None else self.clip.text_side(tokens))


class SemanticExport(nn.Module):  # type: ignore[misc, unused-ignore]
    """The image side with one input, for :func:`spicula.networks.export.to_onnx`.

    The measures come as the first values of an image channel that is added behind the others of the first plane.

    Args:
        network: Whose image side.
        inputs: How many measures.
    """

    def __init__(self, network: SemanticNetwork, inputs: int) -> None:
        super().__init__()
        self.network, self.inputs = network, inputs

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """``[n, planes, channels + 1, rows, columns]`` to ``[n, width + 2 + planes + outputs]``."""
        measures = planes[:, 0, -1].flatten(1)[:, : self.inputs]
        side, traits = self.network.image_side(planes[:, :, :-1], measures)
        return torch.cat([side.embedding, side.logits, side.attention, traits], dim=1)


class ImageCommittee(nn.Module):  # type: ignore[misc, unused-ignore]
    """The image sides of several networks with one input, for :func:`spicula.networks.export.to_onnx`.

    Args:
        networks: Of one shape.
        inputs: How many measures.
    """

    def __init__(self, networks: Sequence[SemanticNetwork], inputs: int) -> None:
        super().__init__()
        self.members = nn.ModuleList([SemanticExport(network, inputs) for network in networks])

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """As :class:`SemanticExport`, ``[n, members, width + 2 + planes + outputs]``."""
        return torch.stack([member(planes) for member in self.members], dim=1)


class TextCommittee(nn.Module):  # type: ignore[misc, unused-ignore]
    """The text sides of several networks with one input, for :func:`spicula.networks.export.to_onnx`.

    Args:
        networks: With one tokenizer.
    """

    def __init__(self, networks: Sequence[SemanticNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList([network.clip for network in networks])

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Ids ``[n, context]``, which may come as float32, to embeddings ``[n, members, width]`` of length 1."""
        ids = tokens.to(torch.int64)
        return torch.stack([clip.text_side(ids).embedding for clip in self.members], dim=1)
