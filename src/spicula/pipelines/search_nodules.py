"""What encoders of regions learn from and are judged on: crops and small volumes, seen as in use."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.extras import require
from spicula.core.finding import Case
from spicula.core.volume import Mask, Volume
from spicula.pipelines.pretrain_regions import filter_of
from spicula.pipelines.slice_table import SliceTable
from spicula.transforms.nodule_slices import nodule_slices
from spicula.transforms.regions import near_outline, region_input

Features = NDArray[np.float32]
Rows = NDArray[np.intp]
Report = Callable[[str], None]

TOLD = "pieces.json"


def as_in_use(table: SliceTable) -> SliceTable:
    """A table whose slices show only what lies near the outline, as an index sees nodules; unmarked lung stays."""
    hu = np.array(table.hu)
    for row in np.flatnonzero(table.marked).tolist():
        image, near = table.read(np.array([row]))
        hu[row] = np.rint(near_outline(image, near)[0])
    return replace(table, hu=hu)


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Slices through nodules of small volumes.

    Args:
        hu: int16 ``[m, 112, 112]`` in HU, faded as in use.
        of_nodule: ``[m]`` row of the nodule that each shows.
    """

    hu: NDArray[np.int16]
    of_nodule: Rows


def cut_pieces(
    cases: Sequence[Case], folder: Path, *, outlines: Callable[[Case, Volume, Sequence[float]], Mask], identity: str,
    report: Report = print,
) -> Pieces:  # fmt: skip
    """Cut slices through every nodule's automatic outline, or take those of an earlier call with the same arguments.

    Args:
        cases: Of one finding each.
        folder: Where they are kept.
        outlines: By a network that has not learned from the nodule's patient.
        identity: Of the outlines; others are cut anew.
        report: Takes one line of progress.
    """
    facts = {"cases": [case.case_id for case in cases], "outlines": identity}
    told = folder / TOLD
    stored = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
    if stored.get("facts") != facts:
        report(f"cutting slices of {len(cases)} nodules")
        folder.mkdir(parents=True, exist_ok=True)
        found: list[NDArray[np.int16]] = []
        of_nodule: list[int] = []
        for row, case in enumerate(cases):
            volume = case.load_volume()
            slices, _ = nodule_slices(volume, outlines(case, volume, case.findings[0].center_xyz_mm))
            faded = near_outline(np.stack([one.hu for one in slices]), np.stack([one.near for one in slices]))
            found += list(np.rint(faded).astype(np.int16))
            of_nodule += [row] * len(slices)
        np.save(folder / "hu.npy", np.stack(found))
        told.write_text(json.dumps({"facts": facts, "of_nodule": of_nodule}), encoding="utf-8")
        stored = {"of_nodule": of_nodule}
    return Pieces(np.load(folder / "hu.npy", mmap_mode="r"), np.array(stored["of_nodule"], dtype=np.intp))


def features_of_pieces(encoder: Any, pieces: Pieces, *, middle: float, batch: int = 128) -> Features:
    """Features of each nodule: the mean over its slices, before they get length 1.

    Args:
        encoder: A :class:`spicula.networks.resnet.RegionEncoder`.
        pieces: Of the nodules.
        middle: As for :func:`spicula.transforms.regions.region_input`.
        batch: Slices at a time.

    Returns:
        float32 ``[nodules, f]``.
    """
    return mean_of_slices(features_of_regions(encoder, pieces.hu, middle=middle, batch=batch), pieces)


def slices_of(pieces: Pieces) -> list[Rows]:
    """Slices of each nodule."""
    order = np.argsort(pieces.of_nodule, kind="stable")
    return np.split(order, np.cumsum(np.bincount(pieces.of_nodule))[:-1])


def mean_of_slices(values: Features, pieces: Pieces) -> Features:
    """Mean of values ``[m, f]`` over each nodule's slices, ``[n, f]``."""
    return np.stack([values[slices].mean(axis=0) for slices in slices_of(pieces)])


def unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Vectors along the last axis at length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def features_of_regions(
    encoder: Any, hu: NDArray[np.int16], *, middle: float, batch: int = 128
) -> Features:  # fmt: skip
    """Features ``[m, f]`` of regions ``[m, side, side]`` in HU, computed where the encoder lies."""
    torch = require("torch", extra="train")
    device = next(encoder.parameters()).device
    with_frangi, pixels = filter_of(encoder.shape) is not None, encoder.shape.pixels
    found = []
    with torch.inference_mode():
        for at in range(0, len(hu), batch):
            some = np.asarray(hu[at : at + batch], dtype=np.float32)
            seen = region_input(some, middle=middle, pixels=pixels, with_frangi=with_frangi)
            found.append(encoder.features(torch.from_numpy(seen).to(device)).float().cpu().numpy())
    return np.concatenate(found)
