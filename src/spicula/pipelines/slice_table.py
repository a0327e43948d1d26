"""The slices that DINOv2 is pretrained on: nodules in their surroundings, and lung without any mark, in HU."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError, SpiculaError
from spicula.core.volume import Volume
from spicula.datasets import lidc_crops, lidc_nodules
from spicula.datasets.lidc_crop_scales import CropScale, scales_of
from spicula.datasets.lidc_crops import Crop
from spicula.pipelines.semantic_crops import OutlineCrop, outlined_slice
from spicula.transforms.crop import box_geometry, sample
from spicula.transforms.nodule_slices import PIXEL_MM, PIXELS, NoduleSlice, slice_about
from spicula.transforms.resample import to_lps_axes

TABLE = "slices.json"
"""What a folder of slices says of its rows."""

LUNG_HU = (-990.0, -500.0)
"""Between these a coarse pixel is lung."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Source:
    """A scan whose lung is added without marks.

    Args:
        patient_id: The unit of every split.
        identity: Of its pixels, for example a series UID; another one makes a new table.
        load: Reads it.
    """

    patient_id: str
    identity: str
    load: Callable[[], Volume]


@dataclass(frozen=True, slots=True, eq=False)
class SliceTable:
    """Pieces of slices, all of the same size in millimetres.

    Args:
        hu: int16 ``[n, 112, 112]`` in HU, pixels of 0.5 mm; memory-mapped.
        near: uint8 ``[n, 112, 112]``: 255 within 1 mm of the nodule's outline, 0 from 2.5 mm on; all 255 where no
            nodule is known.
        patients: Patient of each row.
        crops: File name of the crop that a row was made of; empty for lung of a whole scan.
        case_ids: Nodule of ``lidc_nodules`` that a row shows; empty where none is known.
    """

    hu: NDArray[np.int16]
    near: NDArray[np.uint8]
    patients: NDArray[np.str_]
    crops: NDArray[np.str_]
    case_ids: NDArray[np.str_]

    @property
    def marked(self) -> NDArray[np.bool_]:
        """Whether a row shows a nodule in its middle."""
        return np.asarray(self.crops != "")

    def read(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """HU and what remains near the nodule, 0 to 1, of some rows: float32 ``[n, 112, 112]`` each."""
        return self.hu[rows].astype(np.float32), self.near[rows].astype(np.float32) / np.float32(255)

    @property
    def nodules(self) -> NDArray[np.str_]:
        """Nodule of each row, by its crop's name without the slice; empty for lung of a whole scan."""
        return np.array([crop.rpartition("_")[0] for crop in self.crops.tolist()], dtype=np.str_)


def make_slice_table(
    data: Path,
    folder: Path,
    *,
    outline: OutlineCrop,
    identity: str,
    scans: Sequence[Source] = (),
    pieces: int = 2,
    seed: int = 0,
    limit: int | None = None,
    report: Report = print,
) -> SliceTable:
    """Cut all pieces, or take those of an earlier call with the same arguments.

    Args:
        data: Development data with ``lidc_crops`` and ``lidc_nodules``.
        folder: Where the arrays are kept.
        outline: Outlines the nodule of a crop.
        identity: Of the outlines; others make a new table.
        scans: Scans whose lung is added without marks; read one by one, and only where they are not cut yet. One that
            cannot be read is left out, and said so.
        pieces: Of each of their slices.
        seed: Decides where they lie.
        limit: Only the first crops, for a trial.
        report: Takes one line of progress.

    Returns:
        The table; patient LIDC-IDRI-0001 is not in it.

    Raises:
        InputError: The data are not there.
    """
    crops = lidc_crops.load_crops(data / "lidc_crops")[:limit] if (data / "lidc_crops").is_dir() else []
    cases = lidc_nodules.load_cases(data / "lidc_nodules") if (data / "lidc_nodules").is_dir() else []
    names = hashlib.sha256("\n".join(crop.path.name for crop in crops).encode()).hexdigest()[:16]
    known = [[scan.patient_id, scan.identity] for scan in scans]
    facts = {"crops": names, "outlines": identity, "cases": len(cases), "scans": known, "pieces": pieces, "seed": seed}
    facts["pixel_mm"] = PIXEL_MM
    told = folder / TABLE
    stored = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
    if stored.get("facts") != facts:
        folder.mkdir(parents=True, exist_ok=True)
        if crops:
            report(f"outlining {len(crops)} crops")
        scales = scales_of(crops, cases, folder / "scales.json")
        rows = [_of_crop(crop, outline, scales[crop.path.name]) for crop in crops]
        who = [(crop.patient_id, crop.path.name, scales[crop.path.name].case_id or "") for crop in crops]
        for number, scan in enumerate(scans):
            lung = _lung_of(scan, np.random.default_rng((seed, number)), pieces, report)
            rows += [(hu, np.full((PIXELS, PIXELS), 255, dtype=np.uint8)) for hu in lung]
            who += [(scan.patient_id, "", "")] * len(lung)
        if not rows:
            raise InputError(f"{data}: no slice to pretrain on", hint="name the folder of the development data")
        np.save(folder / "hu.npy", np.stack([hu for hu, _ in rows]))
        np.save(folder / "near.npy", np.stack([near for _, near in rows]))
        stored = {"facts": facts, "rows": who}
        told.write_text(json.dumps(stored), encoding="utf-8")
    return load_slice_table(folder)


def load_slice_table(folder: Path) -> SliceTable:
    """The pieces that an earlier call of :func:`make_slice_table` has cut.

    Raises:
        InputError: There are none.
    """
    told = folder / TABLE
    if not told.is_file():
        raise InputError(f"{folder}", got="no slices", expected="those of a 'spicula train ssm'")
    stored = json.loads(told.read_text(encoding="utf-8"))
    patients, files, case_ids = (np.array(column, dtype=np.str_) for column in zip(*stored["rows"], strict=True))
    hu, near = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("hu", "near"))
    return SliceTable(hu, near, patients, files, case_ids)


def _of_crop(crop: Crop, outline: OutlineCrop, scale: CropScale) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    return kept(slice_about(*outlined_slice(crop, outline, scale=scale)))


def kept(piece: NoduleSlice) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """HU and what remains of a piece where its nodule is shown alone, as a table holds them."""
    return piece.hu.astype(np.int16), np.rint(255 * piece.near).astype(np.uint8)


def _lung_of(scan: Source, rng: np.random.Generator, count: int, report: Report) -> list[NDArray[np.int16]]:
    report(f"reading {scan.identity} of patient {scan.patient_id}")
    try:
        return list(lung_pieces(scan.load(), rng, count=count))
    except SpiculaError as error:
        report(f"left out: {error}")
        return []


def lung_pieces(scan: Volume, rng: np.random.Generator, *, count: int) -> Iterator[NDArray[np.int16]]:
    """Pieces of the slices of a scan, each with lung in its middle.

    Args:
        scan: A chest CT or a single slice of one, HU.
        rng: Decides where they lie.
        count: Of each slice; slices with little lung give none.

    Yields:
        int16 ``[112, 112]`` in HU at 0.5 mm.
    """
    ordered = to_lps_axes(scan)
    _, height, width = ordered.geometry.shape_zyx
    for index, plane in enumerate(ordered.array_zyx):
        lung = (plane > LUNG_HU[0]) & (plane < LUNG_HU[1])
        lung[: height // 8] = lung[-height // 8 :] = False
        lung[:, : width // 8] = lung[:, -width // 8 :] = False
        places = np.argwhere(lung)
        if len(places) < 0.02 * plane.size:
            continue
        flat = Volume(
            ordered.array_zyx[index : index + 1], ordered.geometry.crop((index, 0, 0), (index + 1, height, width))
        )
        for y, x in places[rng.integers(len(places), size=count)]:
            center = ordered.geometry.index_to_world(np.array([index, y, x], dtype=np.float64))
            grid = box_geometry(
                center.tolist(), shape_zyx=(1, PIXELS, PIXELS), spacing_zyx_mm=(1.0, PIXEL_MM, PIXEL_MM)
            )
            hu = np.clip(sample(flat, grid, outside=-1024.0)[0], -1024.0, 1500.0)
            yield np.rint(hu).astype(np.int16)
