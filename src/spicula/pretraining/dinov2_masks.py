"""Which patches the student does not see: blocks, as in BEiT and iBOT.

References:
    Bao et al. 2021, arXiv 2106.08254, algorithm 1; Zhou et al. 2022, arXiv 2111.07832; DINOv2's spread of mask ratios
    over the batch, arXiv 2304.07193.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

FEWEST, TRIES = 4, 10
"""Patches of the smallest block, and how often a block is tried that adds nothing."""


def block_mask(
    grid: tuple[int, int], count: int, rng: np.random.Generator, *, least_aspect: float = 0.3
) -> NDArray[np.bool_]:
    """Mask ``count`` patches by rectangles, as many as that takes.

    Args:
        grid: Rows and columns of patches.
        count: How many to mask.
        rng: Source of chance.
        least_aspect: Of a block, height to width; at most one over it.

    Returns:
        bool ``[rows, columns]``; at most ``count`` are masked, and rarely a few fewer.

    Example:
        >>> int(block_mask((8, 8), 20, np.random.default_rng(0)).sum()) <= 20
        True
    """
    rows, columns = grid
    mask = np.zeros(grid, dtype=np.bool_)
    left = count
    while left > 0:
        added = _add_block(mask, left, rng, math.log(least_aspect), rows, columns)
        if added == 0:
            break
        left -= added
    return mask


def _add_block(
    mask: NDArray[np.bool_], left: int, rng: np.random.Generator, log_aspect: float, rows: int, columns: int
) -> int:
    for _ in range(TRIES):
        area = rng.uniform(min(FEWEST, left), left)
        aspect = math.exp(rng.uniform(log_aspect, -log_aspect))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < height < rows and 0 < width < columns):
            continue
        top, start = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
        block = mask[top : top + height, start : start + width]
        added = int(block.size - block.sum())
        if 0 < added <= left:
            block[:] = True
            return added
    return 0


def batch_masks(
    images: int,
    grid: tuple[int, int],
    rng: np.random.Generator,
    *,
    masked: float = 0.5,
    ratios: tuple[float, float] = (0.1, 0.5),
) -> NDArray[np.bool_]:
    """Masks for a batch: a share of the images, the ratios spread evenly over these.

    Args:
        images: In the batch.
        grid: Rows and columns of patches.
        rng: Source of chance.
        masked: Share of the images that are masked at all.
        ratios: Least and largest share of patches.

    Returns:
        bool ``[images, rows * columns]``, in random order.
    """
    patches, some = grid[0] * grid[1], int(images * masked)
    edges = np.linspace(*ratios, some + 1)
    masks = [np.zeros(patches, dtype=np.bool_)] * (images - some)
    for low, high in pairwise(edges.tolist()):
        masks.append(block_mask(grid, int(patches * rng.uniform(low, high)), rng).ravel())
    return np.stack([masks[i] for i in rng.permutation(images)])
