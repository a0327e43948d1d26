"""Findings as boxes on axial slices, in the layout of COCO: one image for each slice that a finding touches.

Pixels run to the patient's left and to the back and slices count from the feet, whatever the axes of the file. At 16
bits a pixel is HU + 32768, as in DeepLesion, and nothing is lost but fractions of a HU; at 8 bits it is a window of
HU. ``info`` says which. A box covers whole pixels: x and y are the outer edges of its first column and row. Where a
finding has no outline its pixels are those of a ball of its diameter, and ``mask_source`` says ``ball``.

References:
    https://cocodataset.org/#format-data; Lin et al., arXiv 1405.0312.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spicula.core.errors import InputError
from spicula.core.finding import Case, Finding
from spicula.core.volume import Mask, Volume
from spicula.datasets.instance_masks import MaskSource, corner_of, instance_mask
from spicula.formats import png16
from spicula.transforms.resample import to_lps_axes

Bits: TypeAlias = Literal[8, 16]

WINDOW_HU = (-1350.0, 150.0)
"""What an 8-bit picture shows: black and white."""

CATEGORY = "nodule"

ANNOTATIONS = "annotations.json"


@dataclass(slots=True)
class Export:
    """What was written and what was left out.

    Args:
        cases: Images read.
        findings: Findings written.
        images: Files written.
        balls: Findings without an outline, drawn as balls.
        skipped: Case, finding (empty for a whole case) and reason of what was left out.
    """

    cases: int = 0
    findings: int = 0
    images: int = 0
    balls: int = 0
    skipped: list[tuple[str, str, str]] = field(default_factory=list)


def write_coco(cases: Iterable[Case], folder: Path, *, description: str, licence: str, bits: Bits = 16) -> Export:
    """Write cases one after the other; one volume is in memory at a time.

    Args:
        cases: With a diameter or an outline for each finding.
        folder: An empty folder; ``images/`` and ``annotations.json`` go there.
        description: Of the data, for ``info``.
        licence: Of the data.
        bits: Of the PNG files.

    Returns:
        The counts, and what was left out: a volume that cannot be read, a finding without place, outline and diameter.
    """
    if bits not in (8, 16):
        raise InputError("bits", got=bits, expected="8 or 16")
    (folder / "images").mkdir(parents=True)
    done = Export()
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    for case in cases:
        _write_case(case, folder, bits, done, content)
    whole = {
        "info": {
            "description": description,
            "pixels": _pixels(bits),
            "orientation": "columns to the left, rows to the back",
        },
        "licenses": [{"id": 1, "name": licence, "url": ""}],
        "categories": [{"id": 1, "name": CATEGORY, "supercategory": "lung"}],
        **content,
    }
    (folder / ANNOTATIONS).write_text(json.dumps(whole), encoding="utf-8")
    return done


def _pixels(bits: Bits) -> dict[str, Any]:
    if bits == 16:
        return {"bits": 16, "hu": f"value - {png16.OFFSET}"}
    return {"bits": 8, "window_hu": list(WINDOW_HU)}


def _write_case(
    case: Case, folder: Path, bits: Bits, done: Export, content: Mapping[str, list[dict[str, Any]]]
) -> None:
    if not case.findings:
        done.skipped.append((case.case_id, "", "no finding, so no slice"))
        return
    try:
        volume = to_lps_axes(case.load_volume())
    except (InputError, OSError) as error:
        done.skipped.append((case.case_id, "", str(error)))
        return
    done.cases += 1
    slices: dict[int, list[dict[str, Any]]] = {}
    for finding in case.findings:
        try:
            mask, source = instance_mask(finding, volume.geometry)
        except InputError as error:
            done.skipped.append((case.case_id, finding.id, str(error)))
            continue
        done.findings += 1
        done.balls += source == "ball"
        for z, annotation in _annotations(finding, mask, source, volume):
            slices.setdefault(z, []).append(annotation)
    stem = file_stem(case.case_id, number=done.cases)
    for z in sorted(slices):
        done.images += 1
        name = f"{stem}_{z:04d}.png"
        _write_png(folder / "images" / name, volume.array_zyx[z], bits)
        content["images"].append(_image(case, volume, z, name=name, number=done.images))
        for annotation in slices[z]:
            number = len(content["annotations"]) + 1
            content["annotations"].append({"id": number, "image_id": done.images} | annotation)


def file_stem(case_id: str, *, number: int) -> str:
    """A name for the files of a case: its number, then its id without what file names and tools stumble over."""
    text = re.sub(r"\.(nii|nii\.gz|mha|mhd|nrrd|csv)$", "", case_id)
    words = re.sub(r"[^0-9A-Za-z-]+", "-", text).strip("-")[-60:]
    return f"{number:05d}-{words}" if words else f"{number:05d}"


def _image(case: Case, volume: Volume, z: int, *, name: str, number: int) -> dict[str, Any]:
    rows, columns = volume.array_zyx.shape[1:]
    return {
        "id": number,
        "file_name": f"images/{name}",
        "width": columns,
        "height": rows,
        "license": 1,
        "patient_id": case.patient_id,
        "case_id": case.case_id,
        "split": case.split,
        "slice": z,
        "origin_xyz_mm": [round(float(v), 4) for v in volume.geometry.index_to_world((z, 0, 0))],
        "spacing_yx_mm": list(volume.geometry.spacing_zyx_mm[1:]),
    }


def _annotations(
    finding: Finding, mask: Mask, source: MaskSource, volume: Volume
) -> Iterator[tuple[int, dict[str, Any]]]:
    z0, y0, x0 = corner_of(mask, volume.geometry)
    rows, columns = volume.array_zyx.shape[1:]
    truth = {name: value for name, value in finding.truth.items() if math.isfinite(value)}
    for index, plane in enumerate(mask.array_zyx):
        where = np.argwhere(plane)
        if not where.size:
            continue
        (low_y, low_x), (high_y, high_x) = where.min(axis=0), where.max(axis=0) + 1
        whole = np.zeros((rows, columns), dtype=np.bool_)
        whole[y0 : y0 + plane.shape[0], x0 : x0 + plane.shape[1]] = plane
        yield (
            z0 + index,
            {
                "category_id": 1,
                "bbox": [int(x0 + low_x), int(y0 + low_y), int(high_x - low_x), int(high_y - low_y)],
                "area": int(plane.sum()),
                "iscrowd": 0,
                "segmentation": {"size": [rows, columns], "counts": run_lengths(whole)},
                "finding_id": finding.id,
                "diameter_mm": finding.diameter_mm,
                "mask_source": source,
                "truth": truth,
            },
        )


def run_lengths(plane: NDArray[np.bool_]) -> list[int]:
    """Lengths of runs of 0 and 1 in turn, down each column from the first, beginning with 0 (COCO's plain RLE).

    Example:
        >>> run_lengths(np.array([[0, 1], [1, 1]], dtype=bool))
        [1, 3]
    """
    flat = plane.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    lengths: list[int] = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def _write_png(path: Path, plane: NDArray[Any], bits: Bits) -> None:
    if bits == 16:
        pixels = np.clip(np.rint(plane.astype(np.float64)) + png16.OFFSET, 0, 65535).astype(np.uint16)
    else:
        low, high = WINDOW_HU
        pixels = np.rint(np.clip((plane.astype(np.float64) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, format="PNG")
