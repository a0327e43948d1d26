"""The compiled ensemble against the torch networks that it was made of, and the laws of its malignancy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'spicula[train]'")

import torch

from spicula.classifiers import semantic
from spicula.core.bundle import SHIPPED, load_bundle
from spicula.core.errors import BundleError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.measure.radiomics import describe, feature_vector
from spicula.metrics.calibration import BetaCalibration
from spicula.networks.clip_outlined import ImageCommittee
from spicula.networks.cube_planes import plane_grid, sample_planes
from spicula.transforms.augment import Augmentation
from spicula.transforms.outlined_cube import MIRRORS_ZYX, PIXEL_MM, PIXELS, SIDE, SPACING_MM, outlined_cube

CENTER = (24.0, 24.0, 18.0)


@pytest.fixture(scope="module")
def nodule() -> tuple[Volume, Mask]:
    """A ball that leans to one side, so that its mirror image is another one."""
    shape = (30, 64, 64)
    grid = Geometry.from_axes(shape, (1.25, 0.75, 0.75))
    offset = grid.index_to_world(np.moveaxis(np.indices(shape), 0, -1)) - CENTER
    radius = 6.0 + 0.3 * offset[..., 0] + 0.1 * offset[..., 1]
    part = np.clip(radius - np.linalg.norm(offset, axis=-1) + 0.5, 0, 1)
    noise = np.random.default_rng(0).normal(0, 20, shape)
    return Volume((-850 + 880 * part + noise).astype(np.float32), grid), Mask(part >= 0.5, grid)


def test_planes_of_mirror_images_are_those_of_training(nodule: tuple[Volume, Mask]) -> None:
    cube = outlined_cube(*nodule)
    grid = plane_grid(side=SIDE, spacing_mm=SPACING_MM, pixels=PIXELS, pixel_mm=PIXEL_MM)
    found = semantic.mirrored_planes(cube)
    for mirror, planes in zip(MIRRORS_ZYX, found, strict=True):
        change = Augmentation(flips_zyx=mirror)
        trained = sample_planes(torch.from_numpy(cube[None]), grid, change, spacing_mm=SPACING_MM)[0].numpy()
        assert np.allclose(planes[:, 0], trained[:, 0], atol=0.05)  # HU
        assert np.allclose(planes[:, 1], trained[:, 1], atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 50


def test_a_look_is_the_mean_over_mirror_images_of_the_compiled_network(
    nodule: tuple[Volume, Mask], semantic_bundle: Path
) -> None:
    model = semantic.load_semantic(load_bundle(semantic_bundle), threads=1)
    model = replace(model, measures=("size_long", "size_short", "size_area"))
    numbers = describe(*nodule)
    seen = semantic.see(nodule[0], CENTER, nodule[1], model=model)
    again = semantic.see(nodule[0], CENTER, nodule[1], model=model, numbers=numbers)
    assert np.array_equal(seen.embedding, again.embedding)
    assert np.allclose(np.linalg.norm(seen.embedding, axis=1), 1.0)
    assert np.allclose(seen.attention.sum(axis=1), 1.0, atol=1e-5)
    planes = semantic.mirrored_planes(outlined_cube(*nodule))
    packed = semantic.with_measures(planes, feature_vector(numbers, model.measures))
    each = np.stack([model.image(one[None])[0][0] for one in packed]).mean(axis=0)
    assert np.allclose(seen.logit, each[:, model.width + 1] - each[:, model.width], atol=1e-5)


def test_measures_reach_the_network_behind_the_planes() -> None:
    class Told(torch.nn.Module):
        def image_side(self, planes, measures):  # type: ignore[no-untyped-def]
            from spicula.networks.nodule_clip import ImageSide

            assert planes.shape[2] == 2
            return ImageSide(measures, measures[:, :2], measures), measures

    planes = np.zeros((2, 9, 2, 48, 48), dtype=np.float32)
    measures = np.array([3.0, -1.0, 7.5], dtype=np.float32)
    out = ImageCommittee([Told(), Told()], 3)(torch.from_numpy(semantic.with_measures(planes, measures)))
    assert out.shape == (2, 2, 3 + 2 + 3 + 3)
    assert torch.equal(out[0, 1, :3], torch.from_numpy(measures))


def test_the_malignancy_is_the_mean_of_calibrated_folds_and_lies_in_its_interval(semantic_bundle: Path) -> None:
    model = semantic.load_semantic(load_bundle(semantic_bundle), threads=1)
    maps = ((BetaCalibration(1.0, 1.0, 0.0),), (BetaCalibration(2.0, 2.0, 0.0), BetaCalibration(1.0, 1.0, 1.0)))
    model = replace(model, calibrations=maps)
    seen = semantic.Seen(np.ones((2, 16)), np.array([0.0, 1.0]), np.ones((2, 9)) / 9, {}, {})
    found = semantic.malignancy(seen, model=model, finding_id="7")
    assert found.probability == pytest.approx((0.5 + 1 / (1 + np.exp(-2.0))) / 2)
    assert found.interval is not None
    assert found.interval[0] <= found.probability <= found.interval[1]
    assert found.fingerprint == model.fingerprint


def test_other_bundles_are_told() -> None:
    with pytest.raises(BundleError, match="task and kind"):
        semantic.load_semantic(load_bundle("nodule-risk"))


@pytest.mark.shared
def test_the_shipped_bundle_sees_the_test_patient_alike_in_its_small_volume_and_its_series(
    shared: Path, tmp_path: Path
) -> None:
    """The check of where volumes end, on the patient who is in no training."""
    import tarfile

    from spicula.datasets import lidc_nodules
    from spicula.formats import read_volume
    from spicula.measure.segment import outline
    from spicula.runtime.openvino import load_network

    assert (SHIPPED / "nodule-semantic" / "bundle.json").is_file()
    cases = lidc_nodules.load_cases(shared / "lidc_nodules", with_test_patient=True)
    case = next(one for one in cases if one.patient_id == lidc_nodules.TEST_PATIENT)
    with tarfile.open(shared / "scans" / "LIDC-IDRI-0001.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    model = semantic.load_semantic(load_bundle("nodule-semantic"), threads=1)
    network, center = load_network(load_bundle("nodule-outline"), threads=1), case.findings[0].center_xyz_mm
    found = []
    for volume in (case.load_volume(), read_volume(tmp_path)):
        seen = semantic.see(volume, center, outline(volume, center, network=network), model=model)
        found.append(semantic.malignancy(seen, model=model, finding_id="1").probability)
    assert abs(found[0] - found[1]) < 0.05


def test_sentences_that_are_always_asked_need_no_text_side_and_come_out_alike(semantic_bundle: Path) -> None:
    from spicula.pipelines.answers import standard_sentences

    model = semantic.load_semantic(load_bundle(semantic_bundle), threads=1)

    def compiled() -> None:
        raise AssertionError("the text side was compiled")

    sentences = standard_sentences()[:5]
    kept = semantic.read(sentences, model=replace(model, text=compiled))
    anew = semantic.read(sentences, model=replace(model, sentences={}))
    assert kept.shape == (len(model.folds), 5, model.width)
    assert np.allclose(kept, anew, atol=1e-5)
    assert semantic.read([*sentences, "hairy"], model=model).shape[1] == 6
