"""Images with instance masks, in the layout of nnDetection (and, with its exporter, of nnU-Net).

Instances count from 1; where two overlap, the smaller is on top. Where a finding has no outline its voxels are those
of a ball of its diameter; ``cases.csv`` says how many of a case are, and which patient a case is of: nnDetection draws
its folds by case, so that scans of one patient must be kept together by a split file made from that list.

References:
    Baumgartner et al., arXiv 2106.00817; section "Adding New Data sets" of nnDetection's own description.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from spicula.core.errors import InputError
from spicula.core.finding import Case
from spicula.core.volume import Mask, Volume
from spicula.datasets.export_coco import CATEGORY, Export, file_stem
from spicula.datasets.instance_masks import MaskSource, corner_of, instance_mask
from spicula.formats import nifti

COLUMNS = ("case", "case_id", "patient_id", "split", "part", "instances", "balls")
"""Columns of ``cases.csv``."""


def write_nndetection(
    cases: Iterable[Case], folder: Path, *, task: str, number: int = 100, test_splits: Collection[str] = ("test",)
) -> Export:
    """Write cases one after the other; one volume is in memory at a time.

    Args:
        cases: With a diameter or an outline for each finding; those without findings are written with an empty mask.
        folder: An empty folder; ``TaskNNN_NAME/`` goes there.
        task: Name of the task.
        number: Of the task; nnDetection asks for 100 or more.
        test_splits: Cases of these splits go to ``imagesTs`` and ``labelsTs``.

    Returns:
        The counts, and what was left out: a volume that cannot be read, a finding without place, outline and diameter.
        A case whose findings are all left out is left out too, for its mask would say that there is none.
    """
    if not 0 <= number <= 999 or not task.isidentifier():
        raise InputError("task", got=f"{number} {task!r}", expected="a number up to 999 and a plain name")
    name = f"Task{number:03d}_{task}"
    root = folder / name / "raw_splitted"
    done = Export()
    tested = False
    (folder / name).mkdir(parents=True)
    with (folder / name / "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(COLUMNS)
        for case in cases:
            part = "Ts" if case.split in test_splits else "Tr"
            row = _write_case(case, root, part, done)
            if row is not None:
                tested |= part == "Ts"
                table.writerow(row)
    facts = {
        "task": name,
        "name": task,
        "dim": 3,
        "target_class": 0,
        "test_labels": tested,
        "labels": {"0": CATEGORY},
        "modalities": {"0": "CT"},
    }
    (folder / name / "dataset.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return done


def _write_case(case: Case, root: Path, part: str, done: Export) -> tuple[object, ...] | None:
    try:
        volume = case.load_volume()
    except (InputError, OSError) as error:
        done.skipped.append((case.case_id, "", str(error)))
        return None
    drawn: list[tuple[str, Mask, MaskSource]] = []
    for finding in case.findings:
        try:
            drawn.append((finding.id, *instance_mask(finding, volume.geometry)))
        except InputError as error:
            done.skipped.append((case.case_id, finding.id, str(error)))
    if case.findings and not drawn:
        done.skipped.append((case.case_id, "", "none of its findings can be drawn"))
        return None
    labels, hidden = _instances([mask for _, mask, _ in drawn], volume)
    done.skipped += [(case.case_id, drawn[n][0], "another finding covers it whole") for n in hidden]
    seen = [source for n, (_, _, source) in enumerate(drawn) if n not in hidden]
    balls = seen.count("ball")
    done.cases, done.findings, done.balls = done.cases + 1, done.findings + len(seen), done.balls + balls
    stem = file_stem(case.case_id, number=done.cases)
    nifti.write(root / f"images{part}" / f"{stem}_0000.nii.gz", volume)
    nifti.write(root / f"labels{part}" / f"{stem}.nii.gz", labels)
    done.images += 1
    known = {str(number): 0 for number in range(1, len(seen) + 1)}
    text = json.dumps({"instances": known}, indent=2)
    (root / f"labels{part}" / f"{stem}.json").write_text(text + "\n", encoding="utf-8")
    return stem, case.case_id, case.patient_id, case.split, part, len(seen), balls


def _instances(masks: Sequence[Mask], volume: Volume) -> tuple[Volume, frozenset[int]]:
    """Numbered masks on the grid of the image, drawn from large to small, and which ones others cover whole."""
    order = sorted(range(len(masks)), key=lambda n: -int(masks[n].array_zyx.sum()))
    hidden: set[int] = set()
    while True:
        kept = [n for n in range(len(masks)) if n not in hidden]
        labels = np.zeros(volume.array_zyx.shape, dtype=np.int16)
        for n in order:
            if n not in hidden:
                corner = corner_of(masks[n], volume.geometry)
                box = tuple(slice(a, a + size) for a, size in zip(corner, masks[n].array_zyx.shape, strict=True))
                labels[box][masks[n].array_zyx] = kept.index(n) + 1
        present = set(np.unique(labels).tolist())
        covered = {n for n in kept if kept.index(n) + 1 not in present}
        if not covered:
            return Volume(labels, volume.geometry), frozenset(hidden)
        hidden |= covered
