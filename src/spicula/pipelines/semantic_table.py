"""What the network of images and words learns from: cubes, measures and readings of every nodule, made once and kept.

As for the risk model there are disturbed variants beside each nodule as it is, and the last variant has the readers'
own outline, which only training sees: the network must not see where a small volume ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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
from spicula.pipelines.risk_table import LEFT_OUT, RULES, STEPS, Outlines, disturbed
from spicula.transforms.outlined_cube import SIDE, SPACING_MM, outlined_cube

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SemanticTable:
    """All nodules, ready to learn from.

    Args:
        cases: In the order of the rows.
        cubes: float16 ``[n, variants, 2, 64, 64, 64]``, HU faded away from the outline, then the outline, 0 to 1;
            memory-mapped. Variant 0 is the nodule as it is.
        names: Of the measures.
        measures: ``[n, variants, f]`` of the outline and the density in it.
        labels: ``[n, targets]`` 0 or 1, from the table's votes.
        shares: ``[n, targets]`` share of the readers who gave a positive rating.
        steps: ``[n, k]`` share of the readers at or above each further threshold.
        medians: Of each row, the median rating of each trait.
        readings: Of each row, the ratings of its readers, ``[readers, 9]``.
    """

    cases: tuple[Case, ...]
    cubes: NDArray[np.float16]
    names: tuple[str, ...]
    measures: Array
    labels: Array
    shares: Array
    steps: Array
    medians: tuple[Mapping[str, float], ...]
    readings: tuple[NDArray[np.int8], ...]

    @property
    def patients(self) -> NDArray[np.str_]:
        """Patient of each row."""
        return np.array([case.patient_id for case in self.cases])

    @property
    def diameter_mm(self) -> Array:
        """LUNA16's diameter of each row."""
        return np.array([case.findings[0].diameter_mm for case in self.cases], dtype=np.float64)


def make_semantic_table(
    data: Path,
    folder: Path,
    *,
    outlines: Outlines,
    identity: str,
    variants: int = 4,
    seed: int = 0,
    limit: int | None = None,
) -> SemanticTable:
    """Cut and measure all nodules, or go on with what an earlier run with the same arguments has made.

    Args:
        data: Development data with ``lidc_nodules`` and ``lidc_xml``.
        folder: Where the arrays are kept.
        outlines: Outlines a nodule, see :data:`spicula.pipelines.risk_table.Outlines`.
        identity: Of the outlines; others make a new table.
        variants: Of each nodule: the undisturbed one, disturbed ones, and the one in the readers' outline.
        seed: Decides the disturbances.
        limit: Only the first nodules, for a trial.

    Returns:
        The table; patient LIDC-IDRI-0001 is not in it.
    """
    cases = tuple(lidc_nodules.load_cases(data / "lidc_nodules")[:limit])
    archive = data / "lidc_xml" / "tcia-lidc-xml.tar.xz"
    ratings = load_ratings(data / "lidc_nodules", archive, case_ids={case.case_id for case in cases})
    readings = tuple(ratings[case.case_id] for case in cases)
    facts = {"cases": [c.case_id for c in cases], "outlines": identity, "variants": variants, "seed": seed}

    def readers(case: Case) -> Mask:
        return lidc_nodules.load_mask(data / "lidc_nodules", case.case_id)

    cubes, measures, names = _made(cases, folder, facts, outlines=outlines, readers=readers)
    return SemanticTable(cases, cubes, names, measures, *targets(cases, readings), medians_of(cases), readings)


def medians_of(cases: Sequence[Case]) -> tuple[Mapping[str, float], ...]:
    """The median rating of each trait, as the table of nodules has it."""
    return tuple({name: case.findings[0].truth[name] for name in lidc_nodules.TRAITS} for case in cases)


def targets(cases: Sequence[Case], readings: Sequence[NDArray[np.int8]]) -> tuple[Array, Array, Array]:
    """Labels, shares and steps of the readings, as the risk model learns them."""
    column = {name: index for index, name in enumerate(lidc_nodules.TRAITS)}
    labels, shares, steps = [], [], []
    for case, votes in zip(cases, readings, strict=True):
        truth = case.findings[0].truth
        binary = {target: float(RULES[target][1](np.array(truth[RULES[target][0]]))) for target in TARGETS}
        binary["malignancy"] = truth["label"]
        labels.append([binary[target] for target in TARGETS])
        shares.append([RULES[t][1](votes[:, column[RULES[t][0]]].astype(np.float64)).mean() for t in TARGETS])
        steps.append([(votes[:, column[name]] >= step).mean() for name, some in STEPS.items() for step in some])
    return np.array(labels), np.array(shares), np.array(steps)


def measured(volume: Volume, mask: Mask) -> dict[str, float]:
    """The measures that go into the network: of the axial planes only, none of the outline's height."""
    return {name: value for name, value in describe(volume, mask).items() if name not in LEFT_OUT}


def _made(
    cases: Sequence[Case],
    folder: Path,
    facts: dict[str, object],
    *,
    outlines: Outlines,
    readers: Callable[[Case], Mask],
) -> tuple[NDArray[np.float16], Array, tuple[str, ...]]:
    variants, seed = int(str(facts["variants"])), int(str(facts["seed"]))
    volume = cases[0].load_volume()
    names = tuple(measured(volume, outlines(cases[0], volume, cases[0].findings[0].center_xyz_mm)))
    facts = {**facts, "names": list(names), "side": SIDE, "spacing_mm": SPACING_MM}
    progress = folder / "table.json"
    stored = json.loads(progress.read_text(encoding="utf-8")) if progress.is_file() else {}
    first = int(stored.get("done", 0)) if stored.get("facts") == facts else 0
    folder.mkdir(parents=True, exist_ok=True)
    mode, size = "r+" if first else "w+", (len(cases), variants)
    cubes = np.lib.format.open_memmap(
        folder / "cubes.npy", mode=mode, dtype=np.float16, shape=(*size, 2, SIDE, SIDE, SIDE)
    )
    measures = np.lib.format.open_memmap(
        folder / "measures.npy", mode=mode, dtype=np.float64, shape=(*size, len(names))
    )
    for row in range(first, len(cases)):
        for column, seen in enumerate(_variants(cases[row], outlines, readers, seed=(seed, row), count=variants)):
            cubes[row, column] = outlined_cube(*seen)
            measures[row, column] = feature_vector(measured(*seen), names)
        if row % 50 == 49 or row == len(cases) - 1:
            cubes.flush()
            measures.flush()
            progress.write_text(json.dumps({"facts": facts, "done": row + 1}), encoding="utf-8")
    return np.load(folder / "cubes.npy", mmap_mode="r"), np.load(folder / "measures.npy"), names


def _variants(
    case: Case, outlines: Outlines, readers: Callable[[Case], Mask], *, seed: tuple[int, int], count: int
) -> list[tuple[Volume, Mask]]:
    """The nodule as it is, as other cuts and pointers might have shown it, and in the readers' outline."""
    volume, center = case.load_volume(), case.findings[0].center_xyz_mm
    mask = outlines(case, volume, center)
    seen = [(volume, mask)]
    for column in range(1, count - 1):
        other, point = disturbed(volume, center, mask, np.random.default_rng((*seed, column)))
        try:
            seen.append((other, outlines(case, other, point)))
        except InputError:  # the outline wandered out of the cut volume
            seen.append((other, mask))
    return [*seen, (volume, readers(case))][:count]
