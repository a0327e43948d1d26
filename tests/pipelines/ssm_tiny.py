"""A tiny table of slices: fifteen patients of one nodule, large ones malignant, two slices each; a piece of lung."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np

from spicula.core.finding import Finding
from spicula.networks.vit import VitShape
from spicula.pipelines.slice_table import TABLE, SliceTable
from spicula.transforms.nodule_slices import PIXELS

SHAPE = VitShape(16, 1, 2, image=70, layer_scale=1.0)
PATIENTS, SLICES, FOLDS = 15, 2, 3


def picture(radius, rng):
    y, x = np.indices((PIXELS, PIXELS)) - (PIXELS - 1) / 2
    inside = np.hypot(y, x) <= radius
    hu = np.where(inside, 40, -850) + rng.normal(0, 30, (PIXELS, PIXELS))
    return hu.astype(np.int16), np.where(inside, 255, 0).astype(np.uint8)


def radius_of(number):
    return 4 + 20 * (number % 2)


def tiny_table():
    rng, made, who = np.random.default_rng(0), [], []
    for number in range(PATIENTS):
        for part in range(SLICES):
            made.append(picture(radius_of(number) / (1 + part), rng))
            who.append((f"LIDC-IDRI-{number}", f"P{number}_0_0{part}", f"P{number}_1"))
    made.append((rng.normal(-850, 50, (PIXELS, PIXELS)).astype(np.int16), np.full((PIXELS, PIXELS), 255, np.uint8)))
    who.append(("LungFCP-1", "", ""))
    columns = (np.array(column) for column in zip(*who, strict=True))
    return SliceTable(np.stack([a for a, _ in made]), np.stack([b for _, b in made]), *columns)


def tiny_cases():
    """Their nodules, and three of which no slice is there."""
    return [
        SimpleNamespace(case_id=f"P{n}_1", patient_id=f"LIDC-IDRI-{n}", findings=(
            Finding(id=f"P{n}_1", center_xyz_mm=(0, 0, 0), diameter_mm=4.0 + n, truth={"label": float(n % 2)}),
        )) for n in range(PATIENTS + 3)
    ]  # fmt: skip


def keep(table, folder):
    """Write a table as it is kept."""
    folder.mkdir(parents=True)
    np.save(folder / "hu.npy", table.hu)
    np.save(folder / "near.npy", table.near)
    rows = np.stack([table.patients, table.crops, table.case_ids], axis=1).tolist()
    (folder / TABLE).write_text(json.dumps({"facts": {"outlines": "tiny"}, "rows": rows}))


def tiny_volumes():
    """Balls in cubes, as the table of small volumes holds them."""
    cubes = np.full((PATIENTS, 1, 2, 64, 64, 64), -850.0, dtype=np.float16)
    cubes[:, :, 1] = 0.0
    index = np.indices((64, 64, 64)) - 31.5
    for number in range(PATIENTS):
        inside = np.sqrt((index**2).sum(axis=0)) * 0.7 <= radius_of(number) / 2
        cubes[number, 0, 0][inside] = 40.0
        cubes[number, 0, 1][inside] = 1.0
    return SimpleNamespace(cases=tiny_cases()[:PATIENTS], cubes=cubes)
