"""Volumetric variants of the features: neighboring slices in three channels, three planes, all slices (needs torch).

They are cut of small volumes, where the slices lie side by side, and so show the nodule alone: these volumes hold
little of its surroundings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spicula.core.extras import require
from spicula.core.finding import Case
from spicula.core.volume import Mask, Volume
from spicula.pipelines.semantic_table import SemanticTable, make_semantic_table
from spicula.pipelines.ssm_features import Features
from spicula.pipelines.train_risk import patient_outlines
from spicula.transforms.nodule_slices import PATCHES, PIXEL_MM
from spicula.transforms.outlined_cube import SPACING_MM

Variant: TypeAlias = Literal["middle", "neighbors", "planes", "slices"]
"""The middle axial slice; it and those beside it as three channels; three planes; all axial slices."""

VARIANTS: tuple[Variant, ...] = ("middle", "neighbors", "planes", "slices")

STEP = 3
"""Voxels of 0.7 mm between neighboring slices, and between all slices: 2.1 mm."""


def read_volumes(data: Path, folder: Path, *, outline_run: Path | None, folds: int = 5) -> SemanticTable:
    """Cubes about the nodules of ``lidc_nodules``, cut once and kept.

    Args:
        data: Development data.
        folder: Where they are kept.
        outline_run: Run of ``train outline`` whose networks have not learned from the nodule's patient; the shipped
            one outlines if None.
        folds: Of that run.
    """
    of_patient, identity = patient_outlines(outline_run, folds=folds)

    def outlines(case: Case, volume: Volume, center: Sequence[float]) -> Mask:
        return of_patient(case.patient_id, volume, center)

    return make_semantic_table(data, folder, outlines=outlines, identity=identity, variants=1)


def images_of(cube: NDArray[np.floating[Any]], inside: NDArray[np.floating[Any]], variant: Variant) -> Features:
    """What a network sees of one nodule.

    Args:
        cube: HU ``[64, 64, 64]``, voxels of 0.7 mm, the nodule in the middle.
        inside: Its outline, 0 to 1, alike.
        variant: Which images.

    Returns:
        float32 HU ``[images, 3, 64, 64]``.
    """
    side = len(cube)
    low = side // 2 - 1  # the middle lies between two voxels
    if variant == "slices":
        height = np.flatnonzero((inside >= 0.5).any(axis=(1, 2)))
        rows = height[np.arange(len(height)) % STEP == (len(height) - 1) % STEP // 2] if len(height) else [low]
        return np.repeat(np.stack([cube[z] for z in rows])[:, None], 3, axis=1).astype(np.float32)

    def between(axis: int, shift: int = 0) -> Features:
        return np.asarray(np.take(cube, [low + shift, low + 1 + shift], axis=axis).astype(np.float32).mean(axis=axis))

    if variant == "neighbors":
        return np.stack([between(0, -STEP), between(0), between(0, STEP)])[None]
    axes = (0, 1, 2) if variant == "planes" else (0,)
    return np.repeat(np.stack([between(axis) for axis in axes])[:, None], 3, axis=1)


def volume_features(
    backbone: Any, table: SemanticTable, variant: Variant, *, batch: int = 64
) -> tuple[Features, list[NDArray[np.intp]]]:
    """Class tokens of each nodule's images.

    Args:
        backbone: A :class:`spicula.networks.vit.VisionTransformer`.
        table: From :func:`read_volumes`.
        variant: Which images.
        batch: At a time.

    Returns:
        ``[images, width]``, and of each nodule the places of its images.
    """
    torch = require("torch", extra="train")
    from spicula.pretraining.ct_views import undisturbed

    side = PATCHES * backbone.shape.patch
    seen: list[Features] = []
    for row in range(len(table.cases)):
        cube, inside = table.cubes[row, 0]
        images = images_of(cube, inside, variant)
        margin = round((images.shape[-1] - side * PIXEL_MM / SPACING_MM) / 2)
        images = images[..., margin:-margin, margin:-margin]
        seen.append(images)
    ends = np.cumsum([len(images) for images in seen])
    places = [np.arange(end - len(images), end) for end, images in zip(ends, seen, strict=True)]
    whole = torch.from_numpy(np.concatenate(seen))
    whole = torch.nn.functional.interpolate(whole, size=(side, side), mode="bilinear", align_corners=False)
    found = []
    with torch.inference_mode():
        for at in range(0, len(whole), batch):
            some = whole[at : at + batch]
            channels = [undisturbed(some[:, channel])[:, channel] for channel in range(3)]
            found.append(backbone(torch.stack(channels, dim=1)).cls.float().numpy())
    return np.concatenate(found), places
