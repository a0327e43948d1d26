"""A tiny lesion search: a bundle that learned nothing, round nodules of twelve patients in a table, and their index.

Import the fixture ``tiny``; it is made once in a process of tests.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from spicula.core.bundle import load_bundle
from spicula.core.finding import Case, Finding, Point
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets.phantom import Ball, thorax
from spicula.formats import write_nifti
from spicula.pipelines.index import build_index
from spicula.pipelines.models import Models, load_models
from spicula.retrieval.embedder import Embedder, load_embedder

MEASURED = ("size_long", "shape_roundness", "hu_core", "hu_mean", "edge_median")
MEMBERS, DIMENSIONS = 2, 5
COLUMNS = ("pid", "nodule_id", "image_path", "coordX", "coordY", "coordZ", "malignant", "spiculation_present", "type",
           "study_date", "ward")  # fmt: skip
PATIENTS = 12
PLACES: tuple[Point, Point] = ((-92.0, 6.0, 4.0), (-60.0, -4.0, -3.0))
"""Of both nodules of every patient, LPS mm."""


@dataclass(frozen=True)
class Nodule:
    """A row of the table."""

    pid: str
    nodule_id: str
    image: Path
    center: Point
    diameter: float
    hu: float
    malignant: str
    spiculated: str
    kind: str
    date: str
    ward: str

    @property
    def name(self) -> str:
        return f"{self.pid}/{self.nodule_id}"

    def row(self, **changes: object) -> dict[str, object]:
        place = dict(zip(("coordX", "coordY", "coordZ"), self.center, strict=True))
        facts = {"malignant": self.malignant, "spiculation_present": self.spiculated, "type": self.kind}
        own = {"pid": self.pid, "nodule_id": self.nodule_id, "image_path": self.image, "ward": self.ward}
        return {**own, **place, **facts, "study_date": self.date, **changes}


@dataclass(frozen=True)
class Tiny:
    """All of it; ``table`` and ``index`` hold all nodules."""

    bundle: Path
    table: Path
    index: Path
    nodules: tuple[Nodule, ...]

    @property
    def embedder(self) -> Embedder:
        return load_embedder(load_bundle(self.bundle), threads=1)

    @property
    def models(self) -> Models:
        """The shipped outline network, and nothing of words."""
        return load_models(semantic=None, ssm=None, search=None)


def chest_around(center: Point, shape_zyx: Sequence[int], *, balls: Sequence[Ball], seed: int = 0) -> Volume:
    """A piece of a noisy lung about a place, voxels of 1.5 x 1 x 1 mm."""
    spacing = np.array([1.5, 1.0, 1.0])
    origin = np.array(center) - ((np.array(shape_zyx) - 1) * spacing / 2)[::-1]
    volume = thorax(Geometry.from_axes(shape_zyx, spacing, origin_xyz_mm=origin.tolist()), balls=balls, vessels=0)
    noise = np.random.default_rng(seed).normal(0, 15, volume.geometry.shape_zyx)
    return replace(volume, array_zyx=np.rint(volume.array_zyx + noise).astype(np.int16))


def write_table(path: Path, rows: Sequence[dict[str, object]], columns: Sequence[str] = COLUMNS) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_nodules(folder: Path) -> tuple[Nodule, ...]:
    """Images of all patients: sizes and densities differ, the large ones are malignant."""
    (folder / "images").mkdir(parents=True)
    made = []
    for patient in range(PATIENTS):
        pid, image = f"{patient:03d}", folder / "images" / f"{patient:03d}.nii.gz"
        balls = [
            Ball(place, 6.0 + (5 * patient + 7 * number) % 13, (40.0, 90.0, -350.0)[(patient + number) % 3])
            for number, place in enumerate(PLACES)
        ]
        write_nifti(image, chest_around((-76.0, 1.0, 0.0), (30, 52, 84), balls=balls, seed=patient))
        for number, ball in enumerate(balls, start=1):
            large = ball.diameter_mm > 11
            made.append(
                Nodule(
                    pid, str(number), image, ball.center_xyz_mm, ball.diameter_mm, ball.hu, str(int(large)),
                    "" if patient == 0 else str(int(large and number == 1)), "lung" if patient % 2 else "pleura",
                    f"20{patient:02d}-02-03" if number == 1 else "", f"ward {patient % 4}",
                )
            )  # fmt: skip
    return tuple(made)


def ball_mask(volume: Volume, center: Point, diameter_mm: float) -> Mask:
    """The true outline of a round nodule, on the volume's own grid."""
    index = np.stack(np.meshgrid(*map(np.arange, volume.geometry.shape_zyx), indexing="ij"), axis=-1)
    inside = np.linalg.norm(volume.geometry.index_to_world(index) - center, axis=-1) <= diameter_mm / 2
    return Mask(inside, volume.geometry)


def write_bundle(folder: Path) -> Path:
    """The bundle as ``spicula train retrieval`` ships it: an encoder and a head, both as they are drawn by chance."""
    import torch
    from safetensors.torch import save_file

    from spicula.measure.radiomics import describe, feature_vector
    from spicula.networks.checkpoint import WEIGHTS
    from spicula.networks.resnet import RegionEncoder, RegionShape
    from spicula.pipelines.pretrain_dinov2 import SHAPE
    from spicula.pipelines.risk_table import Table
    from spicula.pipelines.search_arms import SearchRecipe
    from spicula.pipelines.search_bundle import ship
    from spicula.pipelines.search_head_fit import HeadRecipe
    from spicula.pipelines.search_nodules import cut_pieces

    center = PLACES[0]
    balls = [Ball(center, diameter, hu) for diameter, hu in ((6.0, 40.0), (10.0, -400.0), (14.0, 60.0), (18.0, 40.0))]
    cases = tuple(
        Case(
            f"P{row}", lambda ball=ball: chest_around(center, (24, 44, 44), balls=[ball]),
            (Finding("1", center, ball.diameter_mm),), f"P{row}_1",
        )
        for row, ball in enumerate(balls)
    )  # fmt: skip

    def outlines(case: Case, volume: Volume, center_xyz_mm: Sequence[float]) -> Mask:
        return ball_mask(volume, center, float(case.findings[0].diameter_mm or 0))

    numbers = [
        feature_vector(describe(case.load_volume(), outlines(case, case.load_volume(), center)), MEASURED)
        for case in cases
    ]
    labels = np.array([[row // 2, row % 2] for row in range(len(cases))], dtype=np.float64)
    table = Table(
        cases, MEASURED, np.array(numbers, dtype=np.float64)[:, None], np.empty(0, np.int16), labels, labels, labels
    )
    torch.manual_seed(0)
    shape = RegionShape(channels=2, width=4, further=1, dimensions=8)
    encoder = folder / "encoder"
    encoder.mkdir(parents=True)
    save_file(RegionEncoder(shape).state_dict(), encoder / WEIGHTS)
    (encoder / SHAPE).write_text(json.dumps(asdict(shape)))
    pieces = cut_pieces(cases, folder / "pieces", outlines=outlines, identity="balls", report=lambda line: None)
    evaluation = {"nodules": 4, "patients": 4, "embeddings": {}}
    bundle = ship(
        folder, encoder, table, pieces, evaluation, recipe=SearchRecipe(width=4, epochs=1),
        head=HeadRecipe(members=MEMBERS, hidden=8, dimensions=DIMENSIONS, epochs=1),
    )  # fmt: skip
    return bundle.folder


def make_tiny(folder: Path) -> Tiny:
    bundle, nodules = write_bundle(folder / "run"), write_nodules(folder)
    table = write_table(folder / "nodules.csv", [one.row() for one in nodules])
    made = Tiny(bundle, table, folder / "index", nodules)
    told = build_index(table, str(made.index), bundle=bundle, models=made.models)
    assert (told.added, told.failed) == (len(nodules), ())
    return made


_MADE: list[Tiny] = []


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Shared by all modules that import it; nobody changes what is in it."""
    if not _MADE:
        _MADE.append(make_tiny(tmp_path_factory.mktemp("search") / "tiny"))
    return _MADE[0]
