from __future__ import annotations

import csv
import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_nodules
from spicula.datasets.phantom import thorax, thorax_grid
from spicula.detectors.dino import View
from spicula.formats import nifti
from spicula.measure.lungs import segment_lungs
from spicula.networks.checkpoint import cosine_rate
from spicula.pipelines import detection_crops
from spicula.pipelines import dino_detection_table as tables
from spicula.pipelines import train_dino_detection as training
from spicula.pipelines.detection_crops import TEST_SCAN, Host
from spicula.pipelines.dino_detection_fit import Recipe, Sampler, detector_of, fit
from spicula.pipelines.dino_detection_table import FREE, DetectionTable, Stacked
from spicula.pipelines.train_detection import FOLD_OF
from spicula.pipelines.train_dino_detection import open_backbone, rows_to_learn

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.networks.vit import VisionTransformer, VitShape  # noqa: E402

VIEW = View(pixel_mm=2.8, rows=6, columns=8)
SHAPE = VitShape(32, 1, 2, image=112)
SMALL = Recipe(steps=4, batch=4, window=4, hidden=16, fine=8, epochs=2, checkpoint_every=2)


def backbone() -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return VisionTransformer(SHAPE).eval()


def some_table(count: int = 24) -> DetectionTable:
    """Slices of noise; those of even number have a bright disk, of two scans and all folds."""
    rng = np.random.default_rng(0)
    images = rng.integers(10, 40, size=(count, 1, *VIEW.shape)).astype(np.uint8)
    marked, nodules = np.zeros((count, *VIEW.shape), dtype=bool), []
    for n in range(0, count, 2):
        row, column = rng.uniform(14, 70, size=2)
        away = np.hypot(*np.meshgrid(np.arange(84) - row, np.arange(112) - column, indexing="ij"))
        marked[n] = away < 3
        images[n, 0][marked[n]] = 200
        nodules.append([n, row, column, 6 * VIEW.pixel_mm, n // 2])
    scan, fold = np.where(np.arange(count) < count // 2, "lung1", "lung2"), np.arange(count) // 2 % 5
    fold[1::2] = FREE
    view = replace(VIEW, neighbors=False)
    ignored = np.array([[1, 40.0, 40.0, 8.0]])
    return DetectionTable(
        view, Stacked([images]), Stacked([np.packbits(marked, axis=-1)]), scan, fold, np.array(nodules), ignored
    )


def tokens_of(table: DetectionTable, folder: Path) -> Stacked:
    return tables.load_or_make_tokens(table, backbone(), folder, report=lambda line: None)[0]


def test_neither_scan_nor_patient_is_on_both_sides() -> None:
    table = some_table()
    for scan, fold in FOLD_OF.items():
        rows = rows_to_learn(table, scan)
        assert scan not in table.scan[rows]
        assert fold not in table.fold[rows]
        assert (FREE in table.fold[rows]) == bool((table.scan != scan).any())
    hidden = replace(table, scan=np.full(len(table.scan), TEST_SCAN))
    assert all(len(rows_to_learn(hidden, scan)) == 0 for scan in FOLD_OF)


@pytest.mark.parametrize("whole", [False, True])
def test_parts_show_the_nodules_that_their_targets_say(whole: bool, tmp_path: Path) -> None:
    table, recipe = some_table(), replace(SMALL, batch=12)
    sampler = Sampler(table, np.arange(len(table.images)), recipe, whole=whole)
    rng = np.random.default_rng(1)
    records, start, targets = sampler.draw(rng)
    again = sampler.draw(np.random.default_rng(1))
    assert torch.equal(targets.heat, again[2].heat)
    assert (targets.heat[:6].amax(dim=(1, 2)) == 1).all()  # the first half shows nodules
    if whole:
        assert (start == 0).all()
    cell = 14 / recipe.upsample
    for n in range(len(records)):
        image = table.images[int(records[n])][0]
        for r, c in np.argwhere(targets.heat[n].numpy() == 1):
            row, column = (np.array([r, c]) + targets.offset[n, :, r, c].numpy()) * cell - 0.5 + start[n] * 14
            assert image[round(row), round(column)] == 200
            assert float(targets.size[n, r, c]) == pytest.approx(np.log(6 * VIEW.pixel_mm))
            assert float(targets.outline[n, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean()) > 0.3
    assert float(targets.outline.sum()) > 0


def test_inputs_are_the_tokens_of_the_parts(tmp_path: Path) -> None:
    table = some_table()
    patches = tokens_of(table, tmp_path)
    sampler = Sampler(table, np.arange(24), SMALL, whole=False)
    found = sampler.inputs(patches, np.array([3, 7]), np.array([[1, 2], [0, 4]]))
    assert found.shape == (2, 32, 4, 4)
    np.testing.assert_array_equal(found[1, :, 2, 1], patches[7][2, 5].astype(np.float32))
    whole = sampler.inputs(None, np.array([3, 7]), np.zeros((2, 2), int))
    assert whole.shape == (2, 3, *VIEW.shape)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_killed_training_ends_where_an_uninterrupted_one_does(
    frozen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, rows = some_table(), np.arange(24)
    patches = tokens_of(table, tmp_path / "tokens") if frozen else None
    whole = fit(table, patches, rows, tmp_path / "a", SMALL, backbone=backbone())
    assert any(name.startswith("backbone.") for name in whole) == (not frozen)

    class KilledError(Exception):
        pass

    def killed(step: int, steps: int, *, rate: float) -> float:
        if step == 3:
            raise KilledError
        return cosine_rate(step, steps, rate=rate)

    monkeypatch.setattr(training.checkpoint, "cosine_rate", killed)
    with pytest.raises(KilledError):
        fit(table, patches, rows, tmp_path / "b", SMALL, backbone=backbone())
    monkeypatch.undo()
    resumed = fit(table, patches, rows, tmp_path / "b", SMALL, backbone=backbone())
    assert resumed.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name
    stored = fit(table, patches, rows, tmp_path / "b", SMALL, backbone=backbone())  # nothing is learned anew
    assert all(torch.equal(stored[name], value) for name, value in whole.items())


def test_a_trained_head_sees_disks(tmp_path: Path) -> None:
    from spicula.networks.dino_detection import split_maps

    table, rows = some_table(48), np.arange(40)
    patches = tokens_of(table, tmp_path / "tokens")
    recipe = replace(SMALL, steps=120, batch=8, rate=5e-3, hidden=32, fine=16)
    weights = fit(table, patches, rows, tmp_path / "run", recipe, backbone=backbone())
    detector = detector_of(backbone(), recipe, weights)
    sampler = Sampler(table, np.arange(40, 48), replace(recipe, batch=8), whole=True)
    with torch.inference_mode():
        maps = split_maps(detector(sampler.inputs(None, np.arange(40, 48), np.zeros((8, 2), int))))
    best = maps.heat.amax(dim=(1, 2))
    assert best[::2].min() > best[1::2].max()
    for n in range(0, 8, 2):
        r, c = np.unravel_index(int(maps.heat[n].argmax()), maps.heat.shape[1:])
        _, row, column, diameter, _ = table.nodules[20 + n // 2]
        found = (np.array([r, c]) + maps.offset[n, :, r, c].numpy()) * 3.5 - 0.5
        assert np.hypot(*(found - (row, column))) < 4
        assert float(maps.size[n, r, c].exp()) == pytest.approx(diameter, rel=0.3)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = some_table()
    patches = tokens_of(table, tmp_path / "tokens")
    drawn, draw = iter(range(100)), Sampler.inputs

    def broken(self: Any, *given: Any) -> Any:
        return draw(self, *given) * (float("nan") if next(drawn) == 3 else 1.0)

    monkeypatch.setattr(Sampler, "inputs", broken)
    with pytest.raises(InputError, match="loss of step 3"):
        fit(table, patches, np.arange(24), tmp_path / "run", SMALL, backbone=backbone())
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()


def test_bad_input_is_one_clear_error(tmp_path: Path) -> None:
    table = some_table()
    with pytest.raises(InputError, match="none with a nodule"):
        Sampler(table, np.array([1, 3]), SMALL, whole=False)
    with pytest.raises(InputError, match="patch"):
        training._check(replace(VIEW, patch=16), backbone(), (), frozen=True, compat=False)
    with pytest.raises(InputError, match="compat"):
        training._check(VIEW, backbone(), (), frozen=False, compat=True)
    with pytest.raises(InputError, match="left_out"):
        training._check(VIEW, backbone(), ("lung9",), frozen=True, compat=False)
    with pytest.raises(InputError):
        open_backbone(tmp_path)


def test_a_backbone_is_read_from_a_file_or_a_folder_and_strictly(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from spicula.pipelines.pretrain_dinov2 import save_backbone

    network = backbone()
    save_file(network.state_dict(), tmp_path / "one.safetensors")
    save_backbone(tmp_path / "run", network)
    images = torch.randn(1, 3, 28, 42)
    for found in (open_backbone(tmp_path / "one.safetensors", shape=SHAPE), open_backbone(tmp_path / "run")):
        assert torch.equal(found(images).cls, network(images).cls)
        assert not found.training
    with pytest.raises(InputError, match="missing"):
        open_backbone(tmp_path / "one.safetensors", shape=replace(SHAPE, depth=2))


def ball_nodules(root: Path) -> None:
    """One ball of each of ten patients as a small volume."""
    rows = []
    for number in range(10):
        side = 2 * (7 + number // 2) + 1
        axes = np.meshgrid(*(np.arange(side) - side // 2,) * 3, indexing="ij")
        inside = sum(a.astype(float) ** 2 for a in axes) < (4 + number / 2) ** 2
        grid = Geometry.from_axes((side,) * 3, (1.5,) * 3, origin_xyz_mm=(-1.5 * (side // 2),) * 3)
        for folder, array in {"image": np.where(inside, 30, -860), "mask": inside}.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            nifti.write(root / folder / f"P{number}_1.nii.gz", Volume(array.astype(np.int16), grid))
        traits = dict.fromkeys(lidc_nodules.TRAITS, 5) | {"label": 0, "readers": 4}
        where = {"x_mm": 0, "y_mm": 0, "z_mm": 0, "diameter_mm": 3 * (4 + number / 2)}
        rows.append({"patient_id": f"P{number}", "nodule_id": 1, **where, **traits})
    with (root / "nodules.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@functools.cache
def phantom_host(name: str) -> Host:
    volume = thorax(thorax_grid((5.0, 2.8, 2.8)), vessels=4, seed=len(name))
    return Host(name, volume, segment_lungs(volume), ())


def test_the_whole_job_writes_an_evaluation_and_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spicula.networks import dino_detection
    from spicula.pipelines.pretrain_dinov2 import save_backbone

    data, out = tmp_path / "data", tmp_path / "run"
    ball_nodules(data / "lidc_nodules")
    (out / "scans" / TEST_SCAN).mkdir(parents=True)
    monkeypatch.setattr(tables, "TRAINING_SCANS", ("lung1",))
    monkeypatch.setattr(detection_crops, "load_host", lambda data, name, work: phantom_host(name))
    monkeypatch.setattr(training, "load_host", lambda data, name, work: phantom_host(name))
    sphere = Mask(np.ones((2, 4, 4), bool), Geometry.from_axes((2, 4, 4), (5.0, 5.0, 5.0), origin_xyz_mm=(50, 20, 0)))
    own = replace(training.TEST_NODULE, center_xyz_mm=(70.0, 10.0, 5.0))
    monkeypatch.setattr(training, "TEST_NODULE", own)
    load_mask = lidc_nodules.load_mask
    monkeypatch.setattr(
        lidc_nodules, "load_mask", lambda root, case: sphere if case == own.case_id else load_mask(root, case)
    )
    save_backbone(tmp_path / "backbone", backbone())
    exported: list[Any] = []
    monkeypatch.setattr(dino_detection, "detector_to_onnx", lambda *given: exported.append(given) or b"onnx")
    lines: list[str] = []

    def train() -> Any:
        return training.train_dino_detection(
            data, out, backbone=tmp_path / "backbone", compat=True, view=VIEW, recipe=SMALL, left_out=(), tested=2,
            report=lines.append,
        )  # fmt: skip

    bundle = train()
    told = json.loads((out / "evaluation.json").read_text())
    assert {"dense", "published", "test scan as it is", "dice of the outline"} <= set(told)
    assert len(told["dense"]["sensitivity at false a scan"]) == 7
    assert 0 <= told["dense"]["cpm"] <= 1
    assert told["dense"]["all"]["nodules"] == told["published"]["all"]["nodules"] == 2
    assert {"findings", "rank of the nodule"} <= set(told["test scan as it is"]["dense"])
    assert bundle.task == "dino-detection"
    assert bundle.card["metrics"]["dense"] == told["dense"]
    assert exported[0][1:] == VIEW.shape
    weights = training.checkpoint.finished_weights(out / f"without-{TEST_SCAN}")
    assert torch.equal(exported[0][0].head.state_dict()["out.weight"], weights["out.weight"])
    assert View(**bundle.preprocessing["view"]) == VIEW
    count = len(lines)
    again = train()  # all is there: nothing is cut, learned or tested anew
    assert again.fingerprint == bundle.fingerprint
    assert len(lines) == count + 1
    with pytest.raises(InputError, match="arguments"):
        training.train_dino_detection(data, out, backbone=tmp_path / "backbone", view=VIEW, recipe=SMALL, left_out=())
