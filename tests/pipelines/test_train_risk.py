"""Training the risk model: disturbances, exact resumption after a kill, honest folds."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError
from spicula.core.finding import Case, Finding
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_nodules
from spicula.pipelines import risk_fit, train_risk
from spicula.pipelines.risk_fit import KernelRecipe, NetworkRecipe
from spicula.pipelines.risk_table import FIELD_PIXELS, Table, disturbed

RECIPE = NetworkRecipe(epochs=3, batch=8, width=8)


@pytest.fixture(scope="module")
def table() -> Table:
    rng = np.random.default_rng(0)
    n = 24
    labels = (rng.random((n, 8)) < 0.5).astype(np.float64)
    features = rng.normal(size=(n, 2, 6)) + labels[:, None, :1]
    planes = rng.integers(-1000, 400, (n, 2, 6, FIELD_PIXELS, FIELD_PIXELS)).astype(np.int16)
    cases = tuple(
        Case(
            f"P{i // 2}", lambda: (_ for _ in ()).throw(AssertionError), (Finding(str(i), (0, 0, 0), 5.0 + i),), str(i)
        )
        for i in range(n)
    )
    return Table(cases, tuple("abcdef"), features, planes, labels, labels, rng.random((n, 3)))


def test_a_killed_training_goes_on_exactly(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(16)
    whole = risk_fit.fit_network(table, rows, tmp_path / "whole", RECIPE)
    save = risk_fit.save_checkpoint

    def save_and_die(folder: Path, epoch: int, *rest: object) -> None:
        save(folder, epoch, *rest)  # type: ignore[arg-type]
        if epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(risk_fit, "save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        risk_fit.fit_network(table, rows, tmp_path / "cut", RECIPE)
    monkeypatch.setattr(risk_fit, "save_checkpoint", save)
    resumed = risk_fit.fit_network(table, rows, tmp_path / "cut", RECIPE)
    assert whole.keys() == resumed.keys()
    assert all(np.array_equal(whole[name].numpy(), resumed[name].numpy()) for name in whole)
    log = [json.loads(line)["epoch"] for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert log == [0, 1, 2]


def test_a_member_knows_only_its_rows(table: Table) -> None:
    kernel = risk_fit.fit_kernel(table, [np.arange(12), np.arange(12, 24)], KernelRecipe())
    changed = table.labels.copy()
    changed[12:] = 1 - changed[12:]
    other = Table(table.cases, table.names, table.features, table.planes, changed, changed, table.steps)
    again = risk_fit.fit_kernel(other, [np.arange(12), np.arange(12, 24)], KernelRecipe())
    probe = table.features[:, 0]
    assert np.array_equal(kernel(probe)[:, 0], again(probe)[:, 0])
    assert not np.allclose(kernel(probe)[:, 1], again(probe)[:, 1])


def test_the_kernel_learns_traits_from_the_readers_shares(table: Table) -> None:
    shares = np.random.default_rng(1).random(table.labels.shape)
    other = Table(table.cases, table.names, table.features, table.planes, table.labels, shares, table.steps)
    assert np.allclose(risk_fit.goals(other), (table.labels + shares) / 2)
    recipe = KernelRecipe(gamma=100.0, ridge=1e-6)  # so narrow that it gives back what it learned
    given = risk_fit.fit_kernel(other, [np.arange(24)], recipe)(table.features[:, 0])[:, 0]
    assert np.allclose(given[:, 1:], shares[:, 1:], atol=1e-4)
    assert np.allclose(given[:, 0], (table.labels[:, 0] + shares[:, 0]) / 2, atol=1e-4)


def test_a_fold_is_calibrated_by_the_others() -> None:
    rng = np.random.default_rng(0)
    logits, fold_of = rng.normal(size=(90, 2)), np.arange(90) % 3
    labels = (logits.sum(axis=1) + rng.normal(size=90) > 0).astype(np.float64)
    before = train_risk._cross_fitted(logits, labels, fold_of)
    changed = np.where(fold_of == 1, 1 - labels, labels)
    after = train_risk._cross_fitted(logits, changed, fold_of)
    assert np.array_equal(before[fold_of == 1], after[fold_of == 1])


def test_disturbances_keep_the_nodule() -> None:
    grid = Geometry.from_axes((12, 50, 50), (2.0, 0.7, 0.7))
    array = np.zeros(grid.shape_zyx, dtype=np.bool_)
    array[4:9, 20:30, 20:30] = True
    volume = Volume(np.where(array, 30, -800).astype(np.int16), grid)
    for seed in range(20):
        center = grid.index_to_world([6, 24.5, 24.5])
        cut, point = disturbed(volume, center, Mask(array, grid), np.random.default_rng(seed))
        assert cut.geometry.contains(point)
        assert np.linalg.norm(point - center) < 12
        shares = (cut.array_zyx > 0).sum() / array.sum()
        assert 0.5 < shares <= 1


def readers_outline(shared: Path) -> train_risk.Outlines:
    def outlined(case: Case, volume: Volume, center_xyz_mm: Sequence[float]) -> Mask:
        return lidc_nodules.load_mask(shared / "lidc_nodules", case.case_id)

    return outlined


@pytest.mark.shared
@pytest.mark.slow
def test_a_tiny_run_resumes_and_refuses_other_arguments(shared: Path, tmp_path: Path) -> None:
    arguments = {
        "outlines": readers_outline(shared),
        "folds": 2,
        "variants": 1,
        "epochs": 1,
        "networks": 1,
        "limit": 64,
    }

    def die(line: str) -> None:
        if "fold 2" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_risk.train_risk(shared, tmp_path / "run", report=die, **arguments)
    assert not (tmp_path / "run" / "nodule-risk").exists()
    bundle = train_risk.train_risk(shared, tmp_path / "run", report=lambda line: None, **arguments)
    bundle.verify()
    with (tmp_path / "run" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 64
    assert all(row["patient_id"] != lidc_nodules.TEST_PATIENT for row in rows)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished"]["fingerprint"] == bundle.fingerprint
    with pytest.raises(InputError, match="arguments"):
        train_risk.train_risk(shared, tmp_path / "run", report=lambda line: None, **{**arguments, "seed": 1})
