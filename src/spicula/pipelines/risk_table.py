"""What the risk model learns from: features, planes and the readers' votes of every nodule, made once and kept.

A small volume tells by its ends where the readers' outline ends. So beside each nodule as it is there are disturbed
variants: cut off at random in all three axes, outlined again from a center that is a little off. The last variant has
the readers' own outline, which only training sees.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicula.classifiers.risk import TARGETS
from spicula.core.errors import InputError
from spicula.core.finding import Case
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_nodules
from spicula.datasets.lidc_readings import load_ratings
from spicula.measure.radiomics import describe, feature_vector
from spicula.transforms.planes import PLANES, axial_planes

FIELD_PIXELS = 72
"""Planes are kept wider than the network's, so that they can be turned and shifted."""

RULES: dict[str, tuple[str, Callable[[NDArray[np.float64]], NDArray[np.bool_]]]] = {
    "malignancy": ("malignancy", lambda r: r >= 4),
    "subtlety_obvious": ("subtlety", lambda r: r >= 4),
    "calcification_present": ("calcification", lambda r: r < 6),
    "sphericity_round": ("sphericity", lambda r: r >= 4),
    "margin_sharp": ("margin", lambda r: r >= 4),
    "lobulation_present": ("lobulation", lambda r: r >= 3),
    "spiculation_present": ("spiculation", lambda r: r >= 3),
    "texture_solid": ("texture", lambda r: r >= 5),
}
"""Which rating makes each target, and which of its values count as positive."""

STEPS = {
    "malignancy": (2, 3, 5),
    "subtlety": (3, 5),
    "sphericity": (3, 5),
    "margin": (3, 5),
    "lobulation": (2, 4),
    "spiculation": (2, 4),
    "texture": (3, 4),
}
"""Further thresholds of the ratings that the network learns beside the targets."""

LEFT_OUT = (
    "size_volume",
    "size_height",
    "size_mass",
    "size_area_mean",
    "shape_flatness",
    "shape_fill",
    "volume_above_-300",
)
"""Features that say how high the outline is, which in a small volume is where the volume ends."""

Outlines = Callable[[Case, Volume, Sequence[float]], Mask]
"""Outline of a case's nodule in a volume from a point (LPS mm), by a network that has not learned from its patient."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """All nodules, ready to learn from.

    Args:
        cases: In the order of the rows.
        names: Of the features.
        features: ``[n, variants, f]``; variant 0 is the nodule as it is.
        planes: int16 ``[n, variants, 6, 72, 72]``, HU and then the outline in thousandths; memory-mapped.
        labels: ``[n, targets]`` 0 or 1, from the table's votes.
        shares: ``[n, targets]`` share of the readers who gave a positive rating.
        steps: ``[n, k]`` share of the readers at or above each further threshold.
    """

    cases: tuple[Case, ...]
    names: tuple[str, ...]
    features: NDArray[np.float64]
    planes: NDArray[np.int16]
    labels: NDArray[np.float64]
    shares: NDArray[np.float64]
    steps: NDArray[np.float64]

    @property
    def patients(self) -> NDArray[np.str_]:
        """Patient of each row."""
        return np.array([case.patient_id for case in self.cases])

    @property
    def diameter_mm(self) -> NDArray[np.float64]:
        """LUNA16's diameter of each row."""
        return np.array([case.findings[0].diameter_mm for case in self.cases], dtype=np.float64)


def make_table(
    data: Path, folder: Path, *, outlines: Outlines, identity: str, variants: int, seed: int, limit: int | None = None
) -> Table:
    """Measure all nodules, or go on with what an earlier run with the same arguments has measured.

    Args:
        data: Development data with ``lidc_nodules`` and ``lidc_xml``.
        folder: Where the arrays are kept.
        outlines: Outlines a nodule, see :data:`Outlines`.
        identity: Of the outlines; others make a new table.
        variants: Of each nodule: the undisturbed one, disturbed ones, and the one in the readers' outline.
        seed: Decides the disturbances.
        limit: Only the first nodules, for a trial.

    Returns:
        The table.
    """
    cases = tuple(lidc_nodules.load_cases(data / "lidc_nodules")[:limit])
    archive = data / "lidc_xml" / "tcia-lidc-xml.tar.xz"
    ratings = load_ratings(data / "lidc_nodules", archive, case_ids={case.case_id for case in cases})
    labels, shares, steps = _targets(cases, [ratings[case.case_id] for case in cases])
    facts = {"cases": [c.case_id for c in cases], "outlines": identity, "variants": variants, "seed": seed}
    names = _feature_names(cases[0], outlines)

    def readers(case: Case) -> Mask:
        return lidc_nodules.load_mask(data / "lidc_nodules", case.case_id)

    features, planes = _measured(cases, folder, facts, outlines=outlines, readers=readers, names=names)
    return Table(cases, names, features, planes, labels, shares, steps)


def _feature_names(case: Case, outlines: Outlines) -> tuple[str, ...]:
    volume = case.load_volume()
    mask = outlines(case, volume, case.findings[0].center_xyz_mm)
    return tuple(name for name in describe(volume, mask) if name not in LEFT_OUT)


def _measured(
    cases: Sequence[Case],
    folder: Path,
    facts: dict[str, object],
    *,
    outlines: Outlines,
    readers: Callable[[Case], Mask],
    names: Sequence[str],
) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
    variants, seed = int(str(facts["variants"])), int(str(facts["seed"]))
    facts = {**facts, "names": list(names)}
    progress = folder / "table.json"
    stored = json.loads(progress.read_text(encoding="utf-8")) if progress.is_file() else {}
    first = int(stored.get("done", 0)) if stored.get("facts") == facts else 0
    folder.mkdir(parents=True, exist_ok=True)
    size = (len(cases), variants)
    mode = "r+" if first else "w+"
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {
        "features": (np.float64, (*size, len(names))),
        "planes": (np.int16, (*size, 2 * PLANES, FIELD_PIXELS, FIELD_PIXELS)),
    }
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode=mode, dtype=kind, shape=shape)
        for name, (kind, shape) in shapes.items()
    }
    for row in range(first, len(cases)):
        volume, center = cases[row].load_volume(), cases[row].findings[0].center_xyz_mm
        mask = outlines(cases[row], volume, center)
        for column in range(variants):
            rng = np.random.default_rng((seed, row, column))
            seen = (volume, mask)
            if column and column == variants - 1:
                seen = (volume, readers(cases[row]))
            elif column:
                seen = _disturbed_and_outlined(cases[row], volume, mask, outlines, rng)
            arrays["features"][row, column] = feature_vector(describe(*seen), names)
            planes = axial_planes(*seen, pixels=FIELD_PIXELS)
            planes[PLANES:] *= 1000
            arrays["planes"][row, column] = np.rint(planes)
        if row % 50 == 49 or row == len(cases) - 1:
            for array in arrays.values():
                array.flush()
            progress.write_text(json.dumps({"facts": facts, "done": row + 1}), encoding="utf-8")
    return np.load(folder / "features.npy"), np.load(folder / "planes.npy", mmap_mode="r")


def _disturbed_and_outlined(
    case: Case, volume: Volume, mask: Mask, outlines: Outlines, rng: np.random.Generator
) -> tuple[Volume, Mask]:
    other, point = disturbed(volume, case.findings[0].center_xyz_mm, mask, rng)
    try:
        return other, outlines(case, other, point)
    except InputError:  # the outline wandered out of the cut volume
        return other, mask


def _targets(
    cases: Sequence[Case], ratings: Sequence[NDArray[np.int8]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    column = {name: index for index, name in enumerate(lidc_nodules.TRAITS)}
    labels, shares, steps = [], [], []
    for case, votes in zip(cases, ratings, strict=True):
        truth = case.findings[0].truth
        binary = {target: float(RULES[target][1](np.array(truth[RULES[target][0]]))) for target in TARGETS}
        binary["malignancy"] = truth["label"]
        labels.append([binary[target] for target in TARGETS])
        shares.append([RULES[t][1](votes[:, column[RULES[t][0]]].astype(np.float64)).mean() for t in TARGETS])
        steps.append([(votes[:, column[name]] >= step).mean() for name, some in STEPS.items() for step in some])
    return np.array(labels), np.array(shares), np.array(steps)


def disturbed(
    volume: Volume, center_xyz_mm: Sequence[float], mask: Mask, rng: np.random.Generator
) -> tuple[Volume, tuple[float, float, float]]:
    """The nodule as another cut and another pointer might have shown it.

    Args:
        volume: Small volume or scan.
        center_xyz_mm: Of the nodule, LPS mm.
        mask: Its outline, which says how far the cut may go.
        rng: Source of the random choices.

    Returns:
        The volume cut 3 to 20 mm beside the outline in the slices and, along z, from a fifth of the outline's height
        within it to 8 mm beyond; and a center that is off by about 1.5 mm, within the cut.
    """
    grid = volume.geometry
    index = grid.world_to_index(mask.geometry.index_to_world(np.argwhere(mask.array_zyx)))
    spacing = np.asarray(grid.spacing_zyx_mm)
    low, high = index.min(axis=0), index.max(axis=0)
    inner = np.minimum(0.2 * (high - low) * spacing, 5.0)
    vertical = np.abs(grid.affine_lps[2, :3]) > 0.5 * spacing
    margins = np.where(vertical, rng.uniform(-inner, 8, size=(2, 3)), rng.uniform(3, 20, size=(2, 3)))
    shape = np.asarray(volume.array_zyx.shape)
    start = np.clip(np.rint(low - margins[0] / spacing), 0, shape - 1).astype(int)
    stop = np.clip(np.rint(high + margins[1] / spacing) + 1, start + 1, shape).astype(int)
    region = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    cut = Volume(volume.array_zyx[region], grid.crop(start.tolist(), stop.tolist()))
    off = grid.world_to_index(np.asarray(center_xyz_mm) + rng.normal(0, 1.5, size=3))
    x, y, z = grid.index_to_world(np.clip(off, start, stop - 1))
    return cut, (float(x), float(y), float(z))
