"""Frozen features of slices: what a pretrained transformer says of a nodule without having been told anything of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spicula.classifiers.ssm import Read, View
from spicula.core.extras import require
from spicula.pipelines.slice_table import SliceTable
from spicula.transforms.nodule_slices import PATCHES, PIXELS
from spicula.transforms.planes import BACKGROUND_HU

Depth: TypeAlias = Literal["middle", "all"]
"""The slice through the nodule's middle in three channels, as published; or the mean over its slices."""

Rows = NDArray[np.intp]
Features = NDArray[np.float32]


def features_of(
    backbone: Any, table: SliceTable, rows: Rows, *, view: View = "slice", batch: int = 64
) -> dict[Read, Features]:
    """Features of undisturbed slices.

    Args:
        backbone: A :class:`spicula.networks.vit.VisionTransformer`.
        table: Slices.
        rows: Which.
        view: What of them is seen.
        batch: Slices at a time.

    Returns:
        By what is read, ``[n, width]``, or twice the width for both.
    """
    torch = require("torch", extra="train")
    from spicula.pretraining.ct_views import undisturbed

    side = PATCHES * backbone.shape.patch
    device = next(backbone.parameters()).device
    tokens, patches = [], []
    with torch.inference_mode():
        for at in range(0, len(rows), batch):
            some = rows[at : at + batch]
            hu = middle_slices(table, some, side=side, view=view)
            seen = backbone(undisturbed(torch.from_numpy(hu).to(device)))
            tokens.append(seen.cls.float().cpu().numpy())
            patches.append(seen.patches.float().mean(dim=1).cpu().numpy())
    cls, mean = np.concatenate(tokens), np.concatenate(patches)
    return {"cls": cls, "patches": mean, "both": np.concatenate([cls, mean], axis=1)}


def middle_slices(table: SliceTable, rows: Rows, *, side: int, view: View = "slice") -> Features:
    """The middle of some slices, float32 ``[n, side, side]`` in HU."""
    first = (PIXELS - side) // 2
    middle = slice(first, first + side)
    hu = table.hu[rows, middle, middle].astype(np.float32)
    if view == "slice":
        return hu
    near = table.near[rows, middle, middle].astype(np.float32) / 255
    return np.asarray(BACKGROUND_HU + near * (hu - BACKGROUND_HU), dtype=np.float32)


def slices_of(table: SliceTable, rows: Rows, nodules: NDArray[np.str_], *, depth: Depth = "middle") -> list[Rows]:
    """Which slices stand for each nodule.

    Args:
        table: Slices.
        rows: Which slices.
        nodules: Ids, each of a slice in ``rows``.
        depth: Which of a nodule's slices count. Its middle one is that with the most of it.

    Returns:
        Of each nodule, places in ``rows``.
    """
    names = table.case_ids[rows]
    chosen = [np.flatnonzero(names == name) for name in nodules]
    if depth == "all":
        return chosen
    size = np.array([int(np.count_nonzero(table.near[row])) for row in rows])
    return [some[[size[some].argmax()]] for some in chosen]


def pooled(features: Features, slices: Sequence[Rows]) -> Features:
    """Features ``[nodules, f]``: the mean over each nodule's slices, as :func:`slices_of` chose them."""
    return np.stack([features[some].mean(axis=0) for some in slices])
