"""The shipped transformer without torch says what it says with torch; heads, views and damaged bundles."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.classifiers import ssm  # noqa: E402
from spicula.core.bundle import load_bundle, write_bundle  # noqa: E402
from spicula.core.errors import BundleError  # noqa: E402
from spicula.core.geometry import Geometry  # noqa: E402
from spicula.core.slice_reading import share_inside  # noqa: E402
from spicula.core.volume import Mask, Volume  # noqa: E402
from spicula.networks.vit import VisionTransformer, VitShape  # noqa: E402
from spicula.networks.vit_export import vit_to_onnx  # noqa: E402
from spicula.pipelines.slice_table import SliceTable, kept  # noqa: E402
from spicula.pipelines.ssm_features import features_of  # noqa: E402
from spicula.pretraining.ct_views import undisturbed  # noqa: E402
from spicula.runtime.openvino import load_network  # noqa: E402
from spicula.transforms.nodule_slices import as_input, nodule_slices, slice_about  # noqa: E402

CENTER = (4.0, -3.0, 50.0)


@pytest.fixture(scope="module")
def nodule() -> tuple[Volume, Mask]:
    shape, spacing = (30, 150, 150), (1.5, 0.7, 0.7)
    origin = np.array(CENTER) - (np.array(shape[::-1]) - 1) / 2 * spacing[::-1]
    grid = Geometry.from_axes(shape, spacing, origin_xyz_mm=origin.tolist())
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    away = grid.index_to_world(index) - CENTER
    inside = np.linalg.norm(away / (1.0, 1.0, 1.3), axis=-1) <= 6.0
    hu = np.where(inside, 60, -840) + np.random.default_rng(0).normal(0, 80, shape)
    hu[:, :, :40] = 50  # a wall
    return Volume(hu.astype(np.int16), grid), Mask(inside, grid)


@pytest.fixture(scope="module")
def backbone() -> VisionTransformer:
    torch.manual_seed(1)
    network = VisionTransformer(VitShape(32, 2, 4, image=70, layer_scale=1.0)).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "qkv" in name or "patch_embed" in name:
                parameter.mul_(6.0)
    return network


@pytest.fixture(scope="module")
def exact(backbone: VisionTransformer, tmp_path_factory: pytest.TempPathFactory) -> ssm.SsmModel:
    """The transformer in whole precision, without heads."""
    manifest = {"name": "t", "version": "1", "task": ssm.TASK, "preprocessing": {}, "outputs": {}, "card": {}}
    folder = tmp_path_factory.mktemp("exact") / "t"
    bundle = write_bundle(folder, manifest, {"network.onnx": vit_to_onnx(backbone, 70, half=False)})
    return ssm.SsmModel("t@0", load_network(bundle, threads=1), 70, "slice", "cls", 5, None, None)


def table_of(volume: Volume, mask: Mask) -> SliceTable:
    """Every slice through the nodule as the transformer learns from them."""
    through = np.flatnonzero(mask.array_zyx.any(axis=(1, 2)))
    rows, columns = volume.geometry.shape_zyx[1:]
    rows_kept = []
    for at in through:
        grid = volume.geometry.crop((at, 0, 0), (at + 1, rows, columns))
        flat = Volume(volume.array_zyx[at : at + 1], grid)
        rows_kept.append(kept(slice_about(flat, Mask(mask.array_zyx[at : at + 1], grid))))
    names = np.full(len(through), "P", dtype=np.str_)
    return SliceTable(
        np.stack([hu for hu, _ in rows_kept]), np.stack([near for _, near in rows_kept]), names, names, names
    )


@pytest.mark.parametrize("view", ["slice", "alone"])
def test_images_are_those_of_torch(nodule: tuple[Volume, Mask], view: ssm.View) -> None:
    table = table_of(*nodule)
    slices, _ = nodule_slices(*nodule, most=100)
    hu = table.hu[:, 21:91, 21:91].astype(np.float32)
    if view == "alone":
        hu = -850 + table.near[:, 21:91, 21:91].astype(np.float32) / 255 * (hu + 850)
    found = as_input(np.stack([ssm.seen_of(one.middle(70), view) for one in slices]))
    np.testing.assert_allclose(found, undisturbed(torch.from_numpy(hu)).numpy(), atol=1e-5)


@pytest.mark.parametrize("view", ["slice", "alone"])
@pytest.mark.parametrize("read", ["cls", "patches", "both"])
def test_features_are_those_of_torch(
    nodule: tuple[Volume, Mask], backbone: VisionTransformer, exact: ssm.SsmModel, view: ssm.View, read: ssm.Read
) -> None:
    table = table_of(*nodule)
    told = features_of(backbone, table, np.arange(len(table.hu)), view=view)[read]
    model = replace(exact, view=view, read=read, slices=100)
    seen = ssm.look(nodule[0], CENTER, nodule[1], model=model, finding_id="7")
    assert seen.features.dtype == np.float32
    assert (seen.slices, seen.finding_id, seen.fingerprint) == (len(table.hu), "7", "t@0")
    np.testing.assert_allclose(seen.features, told.mean(axis=0), atol=2e-4)
    assert (seen.malignancy, seen.malignancy_with_diameter) == (None, None)


def test_attention_is_the_mean_over_heads_on_the_slice_with_most_of_the_nodule(
    nodule: tuple[Volume, Mask], backbone: VisionTransformer, exact: ssm.SsmModel
) -> None:
    seen = ssm.look(nodule[0], CENTER, nodule[1], model=exact, finding_id="1")
    assert (seen.attention.shape, seen.hu.shape, seen.geometry.shape_zyx) == ((5, 5), (70, 70), (1, 70, 70))
    with torch.inference_mode():
        tokens = backbone(undisturbed(torch.from_numpy(seen.hu[None])), attention=True)
    np.testing.assert_allclose(seen.attention.ravel(), tokens.attention.mean(dim=1)[0].numpy(), atol=1e-5)
    assert 0.5 < seen.on_patches <= 1
    np.testing.assert_allclose(seen.geometry.center_xyz_mm, CENTER, atol=0.8)
    inside = nodule_slices(*nodule)[0][2].middle(70).inside
    assert inside.sum() * 0.25 == pytest.approx(np.pi * 36, rel=0.05)
    assert (seen.share_of_attention, seen.share_of_area) == share_inside(seen.attention, inside)
    assert seen.share_of_area == pytest.approx(inside.mean())


def test_an_even_look_has_the_share_of_the_area() -> None:
    inside = np.zeros((70, 70), dtype=bool)
    inside[10:45, 20:40] = True
    even = share_inside(np.full((5, 5), 0.03, np.float32), inside)
    assert even[0] == pytest.approx(even[1]) == pytest.approx(700 / 4900)
    one = np.zeros((5, 5), np.float32)
    one[1, 2] = 0.2
    assert share_inside(one, inside)[0] == pytest.approx(inside[14:28, 28:42].mean())
    assert share_inside(np.zeros((5, 5), np.float32), inside) == (even[1], even[1])


def test_one_slice_is_the_one_with_most_of_the_nodule(nodule: tuple[Volume, Mask], exact: ssm.SsmModel) -> None:
    one, five = (
        ssm.look(*nodule[:1], CENTER, nodule[1], model=replace(exact, slices=n), finding_id="1") for n in (1, 5)
    )
    assert (one.slices, five.slices) == (1, 5)
    np.testing.assert_allclose(one.attention, five.attention, atol=1e-5)
    assert np.abs(one.features - five.features).max() > 1e-4


def test_without_an_outline_a_ball_stands_for_the_nodule(nodule: tuple[Volume, Mask], exact: ssm.SsmModel) -> None:
    volume, mask = nodule
    empty = Mask(np.zeros_like(mask.array_zyx), mask.geometry)
    seen = [ssm.look(volume, CENTER, some, model=exact, finding_id="1") for some in (None, empty)]
    np.testing.assert_array_equal(seen[0].features, seen[1].features)
    assert seen[0].share_of_area * 35**2 == pytest.approx(np.pi * 2.5**2, rel=0.25)


def test_heads_of_a_bundle(nodule: tuple[Volume, Mask], ssm_bundle: Path) -> None:
    model = ssm.load_ssm(load_bundle(ssm_bundle), threads=1)
    bare = ssm.look(nodule[0], CENTER, nodule[1], model=model, finding_id="1")
    assert bare.malignancy == float(model.forest(bare.features[None])[0])
    assert 0 <= bare.malignancy <= 1
    assert bare.malignancy_with_diameter is None
    small, large = (
        ssm.look(nodule[0], CENTER, nodule[1], model=model, finding_id="1", diameter_mm=d) for d in (5.0, 25.0)
    )
    weights, logit = model.linear.weights, lambda p: np.log(p / (1 - p))
    change = logit(large.malignancy_with_diameter) - logit(small.malignancy_with_diameter)
    assert change == pytest.approx(weights[-1] * np.log(5), rel=1e-6)
    for unknown in (0.0, float("nan"), float("inf")):
        seen = ssm.look(nodule[0], CENTER, nodule[1], model=model, finding_id="1", diameter_mm=unknown)
        assert seen.malignancy_with_diameter is None


def test_the_file_in_half_precision_hardly_changes_the_features(
    nodule: tuple[Volume, Mask], backbone: VisionTransformer, exact: ssm.SsmModel, tmp_path: Path
) -> None:
    manifest = {"name": "t", "version": "1", "task": ssm.TASK, "preprocessing": {}, "outputs": {}, "card": {}}
    bundle = write_bundle(tmp_path / "t", manifest, {"network.onnx": vit_to_onnx(backbone, 70)})
    half = replace(exact, network=load_network(bundle, threads=1))
    one, two = (ssm.look(nodule[0], CENTER, nodule[1], model=m, finding_id="1") for m in (exact, half))
    assert np.abs(one.features - two.features).max() < 0.02 * np.abs(one.features).max()


def test_a_bundle_of_another_task(ssm_bundle: Path) -> None:
    with pytest.raises(BundleError, match="task and kind: got risk, None, expected features"):
        ssm.load_ssm(load_bundle("nodule-risk"))


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("outputs", "read", "all"), ("outputs", "view", None), ("preprocessing", "side_pixels", 71),
        ("preprocessing", "side_pixels", 140), ("preprocessing", "slices_at_most", 0),
        ("preprocessing", "slices_at_most", "5"), ("outputs", "features", 17),
    ],
)  # fmt: skip
def test_a_manifest_that_makes_no_sense(ssm_bundle: Path, tmp_path: Path, part: str, key: str, value: object) -> None:
    folder = shutil.copytree(ssm_bundle, tmp_path / "b")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest[part][key] = value
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="bundle nodule-ssm"):
        ssm.load_ssm(load_bundle(folder))


@pytest.mark.parametrize("content", [b"", b"no zip", "other", "odd"])
def test_a_damaged_linear_model(ssm_bundle: Path, tmp_path: Path, content: bytes | str) -> None:
    if content == "other":
        content = (ssm_bundle / "forest.npz").read_bytes()
    if content == "odd":
        content = ssm.linear_to_bytes(ssm.Linear(np.array([[np.nan]]), 0.0))
    bundle = load_bundle(ssm_bundle)
    files = {name: (ssm_bundle / name).read_bytes() for name in bundle.manifest["files"]}
    manifest = {key: value for key, value in bundle.manifest.items() if key not in ("files", "format")}
    damaged = write_bundle(tmp_path / "b", manifest, {**files, "linear.npz": content})
    with pytest.raises(BundleError, match="linear model"):
        ssm.load_ssm(damaged)


def test_nothing_of_it_needs_torch_or_sklearn() -> None:
    program = "import spicula.classifiers.ssm, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert not set(loaded.split()) & {"torch", "sklearn", "onnx"}
