"""Heads that find nodules in the tokens of a vision transformer, the published one and a dense one (needs torch).

References:
    Noreen, Shaukat 2025, arXiv 2505.15120 (:class:`PublishedDetector`, after its code); Zhou et al. 2019, arXiv
    1904.07850 (:class:`DenseHead`: center heat map, size, offset). Departures from the latter: the size is the
    logarithm of one diameter in mm, the heat map's Gaussian has its middle at the center itself and not at that of
    its cell, and an outline may be learned beside it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from spicula.core.errors import InputError
from spicula.networks.checkpoint import descend
from spicula.networks.vit import VisionTransformer
from spicula.networks.vit_export import FixedVit

UNTRAINED = (-2.19, math.log(8.0), 0.5, 0.5, -4.0)
"""What an untrained head says: the published logit (a chance of one in ten), 8 mm, the middle of each cell, outside."""

LEAST_SIGMA = 0.5
"""Of the heat map's Gaussians, in cells."""


class PublishedDetector(nn.Module):  # type: ignore[misc, unused-ignore]
    """The published head: one class and one box a slice, from the class token.

    Args:
        width: Features of the class token.
        hidden: Features of the layer that class and box share.
        dropout: Behind that layer.
    """

    def __init__(self, width: int, *, hidden: int = 256, dropout: float = 0.3) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.classes = nn.Linear(hidden, 2)
        self.box = nn.Linear(hidden, 4)

    def forward(self, cls: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Judge slices.

        Args:
            cls: ``[n, width]``.

        Returns:
            Logits ``[n, 2]`` of no nodule and nodule; boxes ``[n, 4]``: lowest x, lowest y, width, height, as shares of
            the image's width and height.
        """
        shared = self.shared(cls)
        return self.classes(shared), torch.sigmoid(self.box(shared))


def published_loss(
    classes: torch.Tensor, box: torch.Tensor, positive: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of the classes and, on slices with a nodule alone, squared error of the box.

    Args:
        classes: ``[n, 2]`` logits.
        box: ``[n, 4]``.
        positive: bool ``[n]``: slices with a nodule.
        wanted: ``[n, 4]`` boxes; looked at where ``positive``.

    Returns:
        The loss, a scalar; without a nodule the cross-entropy alone.
    """
    loss = functional.cross_entropy(classes, positive.long())
    return loss + functional.mse_loss(box[positive], wanted[positive]) if bool(positive.any()) else loss


class DenseMaps(NamedTuple):
    """What the dense head says of each cell.

    Args:
        heat: ``[n, rows, columns]`` logits of a center.
        size: ``[n, rows, columns]`` log of the diameter in mm.
        offset: ``[n, 2, rows, columns]`` of the center from the cell's lowest row and column, in cells.
        outline: ``[n, k * rows, k * columns]`` logits; None where none is learned.
    """

    heat: torch.Tensor
    size: torch.Tensor
    offset: torch.Tensor
    outline: torch.Tensor | None


class DenseHead(nn.Module):  # type: ignore[misc, unused-ignore]
    """Center heat map, size, offset and outline on a finer grid; norms see one cell each, so parts look as the whole.

    Args:
        width: Features of a patch token.
        hidden: Features on the grid of the patches.
        fine: Features on the finer grids.
        upsample: Cells along a patch, 2 or 4.
        outline: Cells of the outline along a cell; 0 learns no outline.

    Raises:
        InputError: ``upsample`` or ``outline`` is none of these.
    """

    def __init__(self, width: int, *, hidden: int = 96, fine: int = 48, upsample: int = 4, outline: int = 2) -> None:
        super().__init__()
        if upsample not in (2, 4):
            raise InputError("upsample", got=upsample, expected="2 or 4 cells a patch")
        if outline not in (0, 1, 2):
            raise InputError("outline", got=outline, expected="0, 1 or 2")
        self.upsample, self.outline = upsample, outline
        layers: list[nn.Module] = [*_layer(width, hidden, 1), *_layer(hidden, hidden, 3)]
        before = hidden
        for _ in range(int(math.log2(upsample))):
            layers += [nn.ConvTranspose2d(before, fine, 2, 2), _ChannelNorm(fine), nn.GELU(), *_layer(fine, fine, 3)]
            before = fine
        self.body = nn.Sequential(*layers)
        self.out = nn.Conv2d(fine, 4 + outline**2, 1)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)
        with torch.no_grad():
            self.out.bias.copy_(torch.tensor(UNTRAINED[:4] + UNTRAINED[4:] * outline**2))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Judge each cell.

        Args:
            tokens: ``[n, width, rows, columns]``, patch tokens as an image.

        Returns:
            ``[n, 4 + outline ** 2, rows * upsample, columns * upsample]``, see :func:`split_maps`.
        """
        judged: torch.Tensor = self.out(self.body(tokens))
        return judged


class _ChannelNorm(nn.LayerNorm):  # type: ignore[misc, unused-ignore]
    """Layer norm over the channels of an image, cell by cell."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return, unused-ignore]


def _layer(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), _ChannelNorm(outputs), nn.GELU()]


def split_maps(output: torch.Tensor) -> DenseMaps:
    """Tell the maps of a dense head's output ``[n, 4 + k * k, rows, columns]`` apart."""
    parts = output.shape[1] - 4
    outline = functional.pixel_shuffle(output[:, 4:], math.isqrt(parts))[:, 0] if parts else None
    return DenseMaps(output[:, 0], output[:, 1], output[:, 2:4], outline)


class DinoDetector(nn.Module):  # type: ignore[misc, unused-ignore]
    """A vision transformer with the dense head on its patch tokens.

    Args:
        backbone: The transformer.
        head: The head.
    """

    def __init__(self, backbone: VisionTransformer, head: DenseHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``[n, 3, height, width]`` to the maps, see :meth:`DenseHead.forward`."""
        judged: torch.Tensor = self.head(self.backbone(images).map)
        return judged


class FixedDetector(nn.Module):  # type: ignore[misc, unused-ignore]
    """A detector for images of one size, to be exported: positions are stored, q, k and v stand apart.

    Args:
        detector: It is not changed.
        height: Of the images in pixels, a multiple of the patch.
        width: Likewise.
    """

    def __init__(self, detector: DinoDetector, height: int, width: int) -> None:
        super().__init__()
        self.backbone = FixedVit(copy.deepcopy(detector.backbone).float().eval(), height, width)
        self.head = copy.deepcopy(detector.head).float().eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """As :meth:`DinoDetector.forward`."""
        judged: torch.Tensor = self.head(self.backbone.map(images))
        return judged


def detector_to_onnx(detector: DinoDetector, height: int, width: int) -> bytes:
    """The ONNX file of a detector for images of one size: input ``image``, all maps as channels of one output."""
    from spicula.networks.export import to_onnx

    with torch.no_grad():
        fixed = FixedDetector(detector, height, width)
    return to_onnx(fixed, torch.zeros(2, 3, height, width))


@dataclass(frozen=True, slots=True, eq=False)
class DenseTargets:
    """What the dense head should say.

    Args:
        heat: ``[n, rows, columns]``, 0 to 1; exactly 1 in the cells of centers and nowhere else.
        size: ``[n, rows, columns]`` log of the diameter in mm, in those cells.
        offset: ``[n, 2, rows, columns]``, in those cells.
        counted: ``[n, rows, columns]``, 0 where nothing may be learned.
        outline: ``[n, k * rows, k * columns]`` share of each cell within an outline, None without outlines.
    """

    heat: torch.Tensor
    size: torch.Tensor
    offset: torch.Tensor
    counted: torch.Tensor
    outline: torch.Tensor | None = None


Drawn = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def draw_targets(
    nodules: Sequence[tuple[float, float, float]],
    ignored: Sequence[tuple[float, float, float]],
    shape: tuple[int, int],
    *,
    cell_mm: float,
) -> Drawn:
    """Draw the targets of one slice.

    Args:
        nodules: Row and column of each center in cells (0 is the edge of the first cell) and diameter in mm; those
            outside the slice are left out, of two in one cell the larger is learned.
        ignored: Row and column in cells and radius in mm of what counts neither way.
        shape: Rows and columns of cells.
        cell_mm: Side of a cell.

    Returns:
        ``heat``, ``size``, ``offset`` and ``counted`` of one slice, see :class:`DenseTargets`.
    """
    heat, size, counted = (np.zeros(shape, dtype=np.float32) for _ in range(3))
    offset = np.zeros((2, *shape), dtype=np.float32)
    counted[:] = 1
    rows, columns = np.arange(shape[0])[:, None] + 0.5, np.arange(shape[1]) + 0.5
    for row, column, radius in ignored:
        counted[np.hypot(rows - row, columns - column) * cell_mm < radius] = 0
    inside = [n for n in nodules if 0 <= n[0] < shape[0] and 0 <= n[1] < shape[1]]
    for row, column, diameter in inside:
        sigma = max(LEAST_SIGMA, diameter / (6 * cell_mm))
        bell = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * sigma**2))
        np.maximum(heat, np.minimum(bell, 0.99), out=heat)
    for row, column, diameter in sorted(inside, key=lambda n: n[2]):
        r, c = int(row), int(column)
        heat[r, c], size[r, c], counted[r, c] = 1, math.log(diameter), 1
        offset[:, r, c] = row - r, column - c
    return heat, size, offset, counted


def focal_loss(logits: torch.Tensor, target: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """CenterNet's focal loss, its penalty reduced near centers, over the number of centers.

    Args:
        logits: ``[n, rows, columns]``.
        target: 0 to 1, 1 at centers.
        counted: Weight of each cell.

    Returns:
        A scalar; slices without nodules are told by their false heat alone.

    References:
        Zhou et al. 2019, arXiv 1904.07850, equation 1 with alpha 2 and beta 4.
    """
    chance = torch.sigmoid(logits)
    center = (target == 1).to(logits.dtype)
    at = (1 - chance) ** 2 * functional.logsigmoid(logits) * center
    beside = (1 - target) ** 4 * chance**2 * functional.logsigmoid(-logits) * (1 - center)
    return -((at + beside) * counted).sum() / center.sum().clamp(min=1)


def dense_loss(
    output: torch.Tensor, targets: DenseTargets, *, size_weight: float = 0.5, outline_weight: float = 1.0
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss of the dense head: focal, and L1 of size and offset at the centers, and cross-entropy of the outline.

    Args:
        output: Of :class:`DenseHead`.
        targets: What it should say.
        size_weight: Factor of the L1 of the log-diameter.
        outline_weight: Factor of the outline's cross-entropy.

    Returns:
        The loss, and each part of it as a number.
    """
    maps = split_maps(output)
    center = (targets.heat == 1).to(output.dtype)
    count = center.sum().clamp(min=1)
    parts = {
        "heat": focal_loss(maps.heat, targets.heat, targets.counted),
        "size": size_weight * ((maps.size - targets.size).abs() * center).sum() / count,
        "offset": ((maps.offset - targets.offset).abs() * center[:, None]).sum() / count,
    }
    if maps.outline is not None and targets.outline is not None:
        each = functional.binary_cross_entropy_with_logits(maps.outline, targets.outline, reduction="none")
        within = targets.outline.sum().clamp(min=1)
        scale = targets.outline.shape[-1] // targets.heat.shape[-1]
        fine = targets.counted.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        parts["outline"] = outline_weight * (each * fine).sum() / (4 * within)
    total = torch.stack(list(parts.values())).sum()
    return total, {name: float(value.detach()) for name, value in parts.items()}


class TorchHeads:
    """A detector, and the published head beside it, as the callables on numpy arrays that the detectors ask.

    The backbone looks once at each image: :meth:`boxes` answers for the images that :meth:`dense` saw, in their order.

    Args:
        detector: Its backbone and dense head, set to evaluation here.
        published: The other head on the same backbone, None if there is none.
        bf16: Let the backbone compute in bfloat16.
    """

    def __init__(
        self, detector: DinoDetector, published: PublishedDetector | None = None, *, bf16: bool = False
    ) -> None:
        self.detector, self.published, self.bf16 = detector.eval(), published.eval() if published else None, bf16
        self.classes: list[torch.Tensor] = []
        self.outlines: list[NDArray[np.float32]] = []

    def dense(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Heat, size and offset of images; the outline's logits are added to ``outlines`` where they were learned."""
        with torch.inference_mode():
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
                tokens = self.detector.backbone(torch.from_numpy(images))
            self.classes.append(tokens.cls.float())
            maps = split_maps(self.detector.head(tokens.map.float()))
        if maps.outline is not None:
            self.outlines.append(maps.outline.numpy())
        return maps.heat.numpy(), maps.size.numpy(), maps.offset.numpy()

    def boxes(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Class logits and boxes of the next images that :meth:`dense` saw.

        Raises:
            InputError: There is no published head, or these are not so many images as were seen.
        """
        if self.published is None or not self.classes or len(self.classes[0]) != len(images):
            raise InputError("boxes", got=f"{len(images)} images", expected="a published head, and images seen before")
        with torch.inference_mode():
            classes, box = self.published(self.classes.pop(0))
        return classes.numpy(), box.numpy()


def train_published(
    classes: NDArray[np.float32], positive: NDArray[np.bool_], boxes: NDArray[np.float32], *, epochs: int, seed: int
) -> PublishedDetector:
    """Train the published head as published: Adam, rate 1e-4, decay 0.01, batches of 32.

    Args:
        classes: Class tokens of the slices, ``[n, width]``.
        positive: ``[n]``, which of them have a nodule.
        boxes: ``[n, 4]``, looked at where ``positive``.
        epochs: How often all are seen; 100 as published.
        seed: Decides all that is random.

    Returns:
        The head.
    """
    torch.manual_seed(seed)
    network = PublishedDetector(classes.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-2)
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(classes))
        for chosen in np.array_split(order, max(1, len(order) // 32)):
            seen, truth, wanted = (torch.from_numpy(each[chosen]) for each in (classes, positive, boxes))
            said, box = network(seen)
            descend(published_loss(said, box, truth, wanted), network, optimizer, longest=math.inf)
    return network
