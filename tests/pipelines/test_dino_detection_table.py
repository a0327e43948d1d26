from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.core.finding import Finding
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.datasets import lidc_nodules
from spicula.datasets.phantom import Ball, thorax, thorax_grid
from spicula.detectors.dino import View, cut_slices
from spicula.formats import nifti
from spicula.measure.lungs import segment_lungs
from spicula.metrics.segmentation import dice
from spicula.pipelines import detection_crops
from spicula.pipelines import dino_detection_table as tables
from spicula.pipelines.detection_crops import Host
from spicula.pipelines.dino_detection_table import FREE, DetectionTable, Stacked, outline_at, slice_labels
from spicula.pipelines.evaluate_detection import copies

VIEW = View(pixel_mm=2.8, rows=6, columns=8)
KNOWN = Ball((-80.0, 20.0, 30.0), 12.0)


def some_nodules(root: Path, *, patients: int = 6) -> None:
    """Balls in lung as small volumes, two of each patient."""
    rows = []
    for number in range(2 * patients):
        patient, nodule, radius = f"P{number // 2}", number % 2 + 1, 3.5 + 0.3 * number
        side = 2 * int(radius + 5) + 1
        axes = np.meshgrid(*(np.arange(side) - side // 2,) * 3, indexing="ij")
        inside = sum(a.astype(float) ** 2 for a in axes) < radius**2
        grid = Geometry.from_axes((side,) * 3, (1.0, 1.0, 1.0), origin_xyz_mm=(-(side // 2),) * 3)
        (root / "image").mkdir(parents=True, exist_ok=True)
        (root / "mask").mkdir(exist_ok=True)
        name = f"{patient}_{nodule}.nii.gz"
        nifti.write(root / "image" / name, Volume(np.where(inside, 30, -860).astype(np.int16), grid))
        nifti.write(root / "mask" / name, Volume(inside.astype(np.int16), grid))
        traits = dict.fromkeys(lidc_nodules.TRAITS, 5) | {"label": 0, "readers": 4}
        places = {"x_mm": 0, "y_mm": 0, "z_mm": 0, "diameter_mm": 2 * radius}
        rows.append({"patient_id": patient, "nodule_id": nodule, **places, **traits})
    with (root / "nodules.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@functools.cache
def phantom_host(name: str = "lung1") -> Host:
    volume = thorax(thorax_grid((4.0, 2.8, 2.8)), balls=(KNOWN,), vessels=6)
    return Host(name, volume, segment_lungs(volume), (Finding("1", KNOWN.center_xyz_mm, KNOWN.diameter_mm),))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Development data of balls and one phantom."""
    some_nodules(tmp_path / "data" / "lidc_nodules")
    (tmp_path / "work" / "scans" / detection_crops.TEST_SCAN).mkdir(parents=True)
    monkeypatch.setattr(tables, "TRAINING_SCANS", ("lung1",))
    monkeypatch.setattr(detection_crops, "load_host", lambda data, name, work: phantom_host(name))
    return tmp_path / "data"


def gray(table: DetectionTable, row: int) -> np.ndarray:
    return table.images[row][len(table.images[row]) // 2].astype(float)


def test_nodules_show_where_the_table_says(data: Path, tmp_path: Path) -> None:
    table = tables.load_or_cut(data, tmp_path / "work", view=VIEW, report=lambda line: None)
    cases = lidc_nodules.load_cases(data / "lidc_nodules")
    folds = lidc_nodules.patient_folds(cases)
    assert set(table.fold.tolist()) == {FREE, *folds.tolist()}
    assert len(table.images) == len(table.scan) == len(table.outlines)
    assert len(np.unique(table.nodules[:, 4])) == len(cases)
    bright, covered = [], []
    for record, row, column, diameter, _ in table.nodules:
        assert table.fold[int(record)] != FREE
        r, c = round(row), round(column)
        bright.append(gray(table, int(record))[r, c])
        covered.append(table.outline(int(record))[r, c])
        near = np.hypot(
            *np.meshgrid(*(np.arange(n) - at for n, at in zip(VIEW.shape, (row, column), strict=True)), indexing="ij")
        )
        assert not table.outline(int(record))[(near * VIEW.pixel_mm > diameter / 2 + 6) & (near < 8)].any()
    assert np.median(bright) > 140  # tissue; lung is 24
    assert np.mean(covered) > 0.9
    free = np.flatnonzero(table.fold == FREE)
    assert not np.isin(table.nodules[:, 0], free).any()
    assert not any(table.outline(int(row)).any() for row in free)
    known = table.ignored[np.isin(table.ignored[:, 0], free)]
    assert set(known[:, 3].tolist()) == {KNOWN.diameter_mm / 2 + tables.KNOWN_MARGIN_MM}
    assert np.median([gray(table, int(n))[round(r), round(c)] for n, r, c, _ in known]) > 100


def test_a_second_call_cuts_nothing_and_other_arguments_are_refused(data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    first = tables.load_or_cut(data, tmp_path / "work", view=VIEW, limit=1, report=lines.append)
    count = len(lines)
    again = tables.load_or_cut(data, tmp_path / "work", view=VIEW, limit=1, report=lines.append)
    assert count == len(lines) == 6
    np.testing.assert_array_equal(first.nodules, again.nodules)
    np.testing.assert_array_equal(first.images[3], again.images[3])
    with pytest.raises(InputError, match="arguments"):
        tables.load_or_cut(data, tmp_path / "work", view=View(pixel_mm=3.0, rows=6, columns=8), limit=1)


def test_each_nodule_is_set_in_once_and_apart(data: Path) -> None:
    root = data / "lidc_nodules"
    cases, host = lidc_nodules.load_cases(root), phantom_host()
    made = list(copies(host, cases, root, seed=0, per_copy=5))
    names = [truth.case_id for copy in made for truth, _ in copy.placed]
    assert sorted(names) == sorted(case.case_id for case in cases)
    assert max(len(copy.placed) for copy in made) <= 5
    for copy in made:
        places = np.array([truth.center_xyz_mm for truth, _ in copy.placed] + [KNOWN.center_xyz_mm])
        gaps = np.linalg.norm(places[:, None] - places, axis=-1) + 99 * np.eye(len(places))
        assert gaps.min() > 15
        assert not np.array_equal(copy.volume.array_zyx, host.volume.array_zyx)


def test_an_outline_comes_back_from_its_logits() -> None:
    volume = thorax(thorax_grid((4.0, 2.8, 2.8)), vessels=0)
    slices = cut_slices(volume, VIEW)
    center, radius = (-70.0, 10.0, 20.0), 14.0
    cell = 14 / 8
    index = [(np.arange(n) + 0.5) * cell - 0.5 + corner for n, corner in zip((48, 64), slices.corners[0], strict=True)]
    places = slices.volume.geometry.index_to_world(np.stack(np.meshgrid(slices.shown, *index, indexing="ij"), axis=-1))
    logits = (radius - np.linalg.norm(places - center, axis=-1)).astype(np.float32)
    found = outline_at(slices, logits[None], center, 28.0)
    grid = found.geometry
    truth = np.linalg.norm(grid.index_to_world(np.argwhere(np.ones(grid.shape_zyx))) - center, axis=1) < radius
    assert dice(found.array_zyx, truth.reshape(grid.shape_zyx)) > 0.95
    assert not outline_at(slices, -np.abs(logits)[None] - 1, center, 28.0).array_zyx.any()


def test_what_the_published_head_learns(data: Path, tmp_path: Path) -> None:
    table = tables.load_or_cut(data, tmp_path / "work", view=VIEW, limit=1, report=lambda line: None)
    positive, usable, boxes = slice_labels(table)
    np.testing.assert_array_equal(np.flatnonzero(positive), np.unique(table.nodules[:, 0]))
    assert not usable[table.ignored[:, 0].astype(int)][~positive[table.ignored[:, 0].astype(int)]].any()
    record, row, column, diameter, _ = table.nodules[0]
    x, y, width, height = boxes[int(record)] * np.tile(VIEW.shape[::-1], 2)
    assert (x + width / 2, y + height / 2) == pytest.approx((column + 0.5, row + 0.5), abs=0.1)
    assert width == pytest.approx(height, rel=1e-3)
    assert width == pytest.approx(diameter / VIEW.pixel_mm, rel=1e-3)


def test_arrays_are_read_as_one() -> None:
    parts = [np.arange(n * 2).reshape(n, 2) + 100 * n for n in (3, 1, 2)]
    stacked = Stacked(parts)
    assert len(stacked) == 6
    np.testing.assert_array_equal([stacked[n] for n in range(6)], np.concatenate(parts))


def test_tokens_are_those_of_the_backbone_and_made_once(data: Path, tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch", reason="pip install 'spicula[train]'")
    from spicula.detectors.dino import as_images
    from spicula.networks.vit import VisionTransformer, VitShape

    torch.set_num_threads(1)
    table = tables.load_or_cut(data, tmp_path / "work", view=VIEW, limit=1, report=lambda line: None)
    network = VisionTransformer(VitShape(32, 1, 2, image=112)).eval()
    lines: list[str] = []
    for _ in range(2):
        patches, classes = tables.load_or_make_tokens(table, network, tmp_path / "tokens", report=lines.append)
    assert len(lines) == len(table.images.arrays)
    row = len(table.images) - 2
    with torch.inference_mode():
        tokens = network(torch.from_numpy(as_images(table.images[row][None] / np.float32(255))))
    np.testing.assert_allclose(patches[row], tokens.map[0].permute(1, 2, 0), atol=5e-3)
    np.testing.assert_allclose(classes[row], tokens.cls[0], atol=1e-5)
    assert patches[row].dtype == np.float16


def test_no_data_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nodules\.csv"):
        tables.load_or_cut(tmp_path, tmp_path / "work", view=VIEW)
    some_nodules(tmp_path / "lidc_nodules")
    with pytest.raises(InputError, match=r"scans/.*no such file"):
        tables.load_or_cut(tmp_path, tmp_path / "work", view=VIEW)
