"""ResNet-18 and the encoder of regions made of it: a region of a slice to a unit vector (needs torch).

Weights have the names of the usual ResNet (``conv1``, ``bn1``, ``layer1.0.conv1``, ``layer2.0.downsample.0`` ...).

References:
    He et al. 2015, arXiv 1512.03385, table 1 (18 layers); Radenovic et al. 2018, arXiv 1711.02512 (GeM); "Lesion Search
    with Self-supervised Learning" 2023, arXiv 2311.11014 (two more convolutions, GeM, length 1). Departures: the first
    convolution may be of 3 x 3 with stride 1, as in the authors' code, and the width may be less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from spicula.core.errors import InputError
from spicula.networks.pooling import Pool, pooling_of
from spicula.networks.vit_weights import load_strictly

Stem: TypeAlias = Literal["small", "large"]

CENTER, SPREAD = 0.5, 0.25
"""Of gray values 0 to 1: taken off and divided by before the first convolution."""


@dataclass(frozen=True, slots=True)
class RegionShape:
    """What an encoder of regions is made of.

    Args:
        channels: Of a region.
        width: Features of the first convolution; the last have 8 times as many.
        stem: First convolution: ``"small"``, 3 x 3 with stride 1, or ``"large"``, 7 x 7 with stride 2.
        max_pool: Whether a 3 x 3 maximum with stride 2 follows it.
        further: 3 x 3 convolutions after the ResNet, each with norm and ReLU.
        pool: How the feature map becomes one vector.
        dimensions: Of the embedding, through a linear layer; None: without one, 8 times the width.
        drop: Share of the features that are left out before the linear layer, in training.
        pixels: Side of a region.
    """

    channels: int = 1
    width: int = 64
    stem: Stem = "small"
    max_pool: bool = True
    further: int = 2
    pool: Pool = "gem"
    dimensions: int | None = None
    drop: float = 0.0
    pixels: int = 64

    @property
    def features(self) -> int:
        """Of the last convolution."""
        return 8 * self.width

    @property
    def embedding(self) -> int:
        """Numbers of an embedding."""
        return self.dimensions or self.features


def published_shape(*, channels: int = 1) -> RegionShape:
    """The published encoder: 64 wide, 3 x 3 stem with stride 1, then the usual max-pool.

    The authors' code replaces the first convolution alone, and leaves the max-pool of its ResNet.
    """
    return RegionShape(channels=channels)


def compact_shape(*, channels: int = 1, width: int = 24) -> RegionShape:
    """For CPUs: narrow, one further convolution, 128 numbers."""
    return RegionShape(channels=channels, width=width, further=1, dimensions=128)


class BasicBlock(nn.Module):  # type: ignore[misc, unused-ignore]
    """Two 3 x 3 convolutions with norms, added to what came in.

    Args:
        inputs: Features that come in.
        outputs: That go out.
        stride: Of the first convolution, and of the 1 x 1 one on the way past where the sizes differ.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, inputs, rows, columns]`` to ``[n, outputs, rows / stride, columns / stride]``."""
        past = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + past)


class ResNet18(nn.Module):  # type: ignore[misc, unused-ignore]
    """The 18-layer ResNet without its classifier.

    Args:
        channels: Of an image.
        width: Features of the first convolution.
        stem: See :class:`RegionShape`.
        max_pool: See :class:`RegionShape`.
    """

    def __init__(self, channels: int = 3, width: int = 64, *, stem: Stem = "large", max_pool: bool = True) -> None:
        super().__init__()
        side, stride = (7, 2) if stem == "large" else (3, 1)
        self.conv1 = nn.Conv2d(channels, width, side, stride=stride, padding=side // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if max_pool else nn.Identity()
        self.layer1 = _layer(width, width, stride=1)
        self.layer2 = _layer(width, 2 * width, stride=2)
        self.layer3 = _layer(2 * width, 4 * width, stride=2)
        self.layer4 = _layer(4 * width, 8 * width, stride=2)
        he_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, channels, rows, columns]`` to ``[n, 8 width, ...]``, 8 to 32 times as coarse."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        found: torch.Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return found


class RegionEncoder(nn.Module):  # type: ignore[misc, unused-ignore]
    """A region of a slice to an embedding of length 1: ResNet-18, further convolutions, pooling, a linear layer.

    Args:
        shape: What it is made of.
    """

    def __init__(self, shape: RegionShape) -> None:
        super().__init__()
        self.shape = shape
        self.backbone = ResNet18(shape.channels, shape.width, stem=shape.stem, max_pool=shape.max_pool)
        wide = shape.features
        steps: list[nn.Module] = []
        for _ in range(shape.further):
            steps += [nn.Conv2d(wide, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        self.further = he_weights(nn.Sequential(*steps))
        self.pool = pooling_of(shape.pool)
        self.drop = nn.Dropout(shape.drop)
        self.linear = nn.Identity() if shape.dimensions is None else nn.Linear(wide, shape.dimensions)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Regions ``[n, channels, pixels, pixels]``, gray values 0 to 1, to vectors ``[n, embedding]`` of any length.

        Raises:
            InputError: They have another number of channels.
        """
        if x.ndim != 4 or x.shape[1] != self.shape.channels:
            raise InputError("regions", got=tuple(x.shape), expected=f"[n, {self.shape.channels}, rows, columns]")
        pooled = self.pool(self.further(self.backbone((x - CENTER) / SPREAD)))
        found: torch.Tensor = self.linear(self.drop(pooled))
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same, of length 1, in float32."""
        return functional.normalize(self.features(x).float(), dim=1)


def _layer(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride=stride), BasicBlock(outputs, outputs))


def he_weights(network: nn.Module) -> nn.Module:
    """Draw the convolutions of a network after He et al. 2015, arXiv 1502.01852, for ReLU, and give it back."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def load_resnet18(
    network: ResNet18, state: Mapping[str, torch.Tensor], *, prefix: str = "", source: str = "the weights"
) -> None:
    """Load a published ResNet-18 strictly, its classifier left out.

    A first convolution of three channels is summed over them and shared out alike among those of the network: a gray
    image gives what it gave when it was copied to red, green and blue. Counters of batches, which old files lack, begin
    at 0.

    Args:
        network: Of the same width and stem.
        state: Weights by their usual names.
        prefix: Before the names that are read; all others are left out, for example those of a projection.
        source: File that a message names.

    Raises:
        InputError: Keys are missing, unexpected or of another shape; nothing is loaded.
    """
    own = network.state_dict(keep_vars=True)
    found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    found = {name: value for name, value in found.items() if name not in ("fc.weight", "fc.bias")}
    found |= {n: torch.zeros_like(v) for n, v in own.items() if n.endswith("num_batches_tracked") and n not in found}
    first, channels = found.get("conv1.weight"), network.conv1.in_channels
    if first is not None and first.ndim == 4 and first.shape[1] == 3 != channels:
        found["conv1.weight"] = first.sum(dim=1, keepdim=True).repeat(1, channels, 1, 1) / channels
    try:
        load_strictly(network, found, source=source)
    except InputError as error:
        hint = "the width, the stem ('large' in files made on ImageNet) and the prefix must be the file's"
        raise InputError(error.what, got=error.got, expected=error.expected, hint=hint) from None
