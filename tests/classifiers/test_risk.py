"""Laws of the risk model; the shipped bundle where it is there."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from spicula.classifiers import risk
from spicula.core.bundle import SHIPPED, Bundle, load_bundle
from spicula.core.errors import BundleError
from spicula.core.geometry import Geometry
from spicula.core.prediction import TRAITS
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_nodules
from spicula.measure.radiomics import describe, feature_vector
from spicula.measure.segment import outline
from spicula.metrics.calibration import BetaCalibration
from spicula.runtime.openvino import load_network

CENTER = (24.0, 24.0, 18.0)


def nodule(radius_mm: float = 6.0, *, seed: int = 0) -> tuple[Volume, Mask]:
    shape = (30, 64, 64)
    grid = Geometry.from_axes(shape, (1.25, 0.75, 0.75))
    offset = grid.index_to_world(np.moveaxis(np.indices(shape), 0, -1)) - CENTER
    part = np.clip((radius_mm - np.linalg.norm(offset, axis=-1)) + 0.5, 0, 1)
    noise = np.random.default_rng(seed).normal(0, 20, shape)
    return Volume((-850 + 880 * part + noise).astype(np.float32), grid), Mask(part >= 0.5, grid)


@pytest.fixture(scope="module")
def small_model() -> risk.RiskModel:
    """A model of two members that was fitted to nothing, without a network."""
    names = tuple(describe(*nodule()))
    rng = np.random.default_rng(1)
    rows = np.array([feature_vector(describe(*nodule(r, seed=i)), names) for i, r in enumerate((3, 5, 7, 9))])
    count = len(risk.TARGETS)
    kernel = risk.Kernel(
        names,
        np.tile(rows.mean(axis=0), (2, 1)).astype(np.float64),
        np.tile(rows.std(axis=0) + 0.1, (2, 1)).astype(np.float64),
        rows.astype(np.float64),
        rng.normal(0, 0.3, (4, 2, count)),
        np.full((2, count), 0.4),
        0.01,
    )
    calibrators = tuple(BetaCalibration(a, a, 0.1) for a in (1.0, 0.9, 1.2))
    combination = risk.Combination((0.8, 0.5), 0.2, calibrators)
    return risk.RiskModel("nodule-risk@test", kernel, None, MappingProxyType(dict.fromkeys(risk.TARGETS, combination)))


def test_targets_come_in_order_with_identity(small_model: risk.RiskModel) -> None:
    found = risk.predict(*nodule()[:1], CENTER, nodule()[1], model=small_model, finding_id="7")
    assert [p.target for p in found] == ["malignancy", *TRAITS]
    assert {p.finding_id for p in found} == {"7"}
    assert {p.fingerprint for p in found} == {"nodule-risk@test"}


def test_probability_lies_in_its_interval(small_model: risk.RiskModel) -> None:
    for radius in (2.0, 4.0, 12.0):
        volume, mask = nodule(radius)
        for one in risk.predict(volume, CENTER, mask, model=small_model, finding_id="1"):
            assert one.interval is not None
            low, high = one.interval
            assert 0 <= low <= one.probability <= high <= 1


def test_malignancy_is_explained_by_the_traits(small_model: risk.RiskModel) -> None:
    volume, mask = nodule()
    first, *rest = risk.predict(volume, CENTER, mask, model=small_model, finding_id="1")
    assert first.explanation is not None
    assert first.explanation.kind == "traits"
    assert dict(first.explanation.values) == {p.target: p.probability for p in rest}
    assert tuple(first.explanation.values) == TRAITS


def test_a_finding_without_outline_is_a_small_ball(small_model: risk.RiskModel) -> None:
    volume, mask = nodule()
    empty = Mask(np.zeros_like(mask.array_zyx), mask.geometry)
    one = risk.predict(volume, CENTER, None, model=small_model, finding_id="1")
    other = risk.predict(volume, CENTER, empty, model=small_model, finding_id="1")
    assert [p.probability for p in one] == [p.probability for p in other]


def test_the_order_of_the_axes_does_not_matter(small_model: risk.RiskModel) -> None:
    volume, mask = nodule()
    turned = []
    for source in (volume, mask):
        array = np.ascontiguousarray(np.flip(source.array_zyx.transpose(2, 0, 1), 0))
        affine = source.geometry.affine_lps[:, [2, 0, 1, 3]].copy()
        affine[:3, 3] += affine[:3, 0] * (array.shape[0] - 1)
        affine[:3, 0] *= -1
        turned.append(type(source)(array, Geometry(array.shape, affine)))
    expected = risk.predict(volume, CENTER, mask, model=small_model, finding_id="1")
    found = risk.predict(turned[0], CENTER, turned[1], model=small_model, finding_id="1")
    for a, b in zip(expected, found, strict=True):
        assert a.probability == pytest.approx(b.probability, abs=2e-3)


def test_a_kernel_member_recovers_what_it_was_solved_for() -> None:
    rng = np.random.default_rng(0)
    rows, wanted = rng.normal(size=(12, 3)), rng.random((12, 2))
    gram = risk.gaussian_kernel(rows, rows, 0.5) + 1e-9 * np.eye(12)
    dual = np.linalg.solve(gram, wanted)[:, None]
    kernel = risk.Kernel(("a", "b", "c"), np.zeros((1, 3)), np.ones((1, 3)), rows, dual, np.zeros((1, 2)), 0.5)
    np.testing.assert_allclose(kernel(rows)[:, 0], wanted, atol=1e-5)


# --- the shipped bundle ---


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    if not (SHIPPED / "nodule-risk" / "bundle.json").is_file():
        pytest.fail("the package lacks the bundle nodule-risk: spicula train risk")
    return load_bundle("nodule-risk")


@pytest.fixture(scope="module")
def model(shipped: Bundle) -> risk.RiskModel:
    return risk.load_risk(shipped)


def test_the_shipped_bundle_is_whole_and_small(shipped: Bundle) -> None:
    shipped.verify()
    assert shipped.task == "risk"
    assert sum(path.stat().st_size for path in shipped.folder.iterdir()) < 5_000_000
    assert {"data", "licence", "metrics", "intended_use", "limits", "interval"} <= set(shipped.card)
    assert [output["name"] for output in shipped.manifest["outputs"]] == list(risk.TARGETS)


def test_another_task_is_refused(shipped: Bundle) -> None:
    with pytest.raises(BundleError, match="task"):
        risk.load_risk(replace(shipped, manifest={**shipped.manifest, "task": "outline"}))


def test_what_is_far_away_does_not_matter(model: risk.RiskModel) -> None:
    volume, mask = nodule()
    index = np.argwhere(mask.array_zyx)
    start = tuple(int(v) for v in np.subtract(index.min(axis=0), (1, 12, 12)))
    stop = tuple(int(v) for v in np.add(index.max(axis=0), (2, 13, 13)))
    region = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    small = Volume(volume.array_zyx[region], volume.geometry.crop(start, stop))
    other = volume.array_zyx.copy()
    other[: start[0]], other[:, : start[1]], other[:, :, stop[2] :] = 60, 300, -1000
    changed = Volume(other, volume.geometry)
    expected = risk.predict(volume, CENTER, mask, model=model, finding_id="1")
    for alternative in (small, changed):
        for a, b in zip(expected, risk.predict(alternative, CENTER, mask, model=model, finding_id="1"), strict=True):
            assert a.probability == pytest.approx(b.probability, abs=2e-3), a.target


def test_predictions_repeat_exactly(model: risk.RiskModel) -> None:
    volume, mask = nodule(8.0)
    one, two = (risk.predict(volume, CENTER, mask, model=model, finding_id="1") for _ in range(2))
    assert [(p.probability, p.interval) for p in one] == [(p.probability, p.interval) for p in two]


def probabilities(volume: Volume, center: tuple[float, float, float], model: risk.RiskModel) -> dict[str, float]:
    mask = outline(volume, center, network=load_network(load_bundle("nodule-outline"), threads=1))
    return {p.target: p.probability for p in risk.predict(volume, center, mask, model=model, finding_id="1")}


@pytest.mark.shared
def test_the_small_volume_and_the_whole_scan_agree(shared: Path, tmp_path: Path, model: risk.RiskModel) -> None:
    import SimpleITK as sitk

    with tarfile.open(shared / "scans" / "LIDC-IDRI-0001.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    folder = max((p.parent for p in tmp_path.rglob("*.dcm")), key=lambda p: len(list(p.glob("*.dcm"))))
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    grid = Geometry.from_axes(
        image.GetSize()[::-1],
        image.GetSpacing()[::-1],
        origin_xyz_mm=image.GetOrigin(),
        direction_xyz=np.reshape(image.GetDirection(), (3, 3)),
    )
    whole = Volume(sitk.GetArrayFromImage(image).astype(np.int16), grid)
    cases = lidc_nodules.load_cases(shared / "lidc_nodules", with_test_patient=True)
    case = next(c for c in cases if c.patient_id == lidc_nodules.TEST_PATIENT)
    center = case.findings[0].center_xyz_mm
    small, large = (probabilities(v, center, model) for v in (case.load_volume(), whole))
    assert small["malignancy"] == pytest.approx(large["malignancy"], abs=0.05)
    assert large["malignancy"] > 0.5
