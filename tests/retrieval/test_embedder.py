"""From a nodule to its vector: the same wherever and however it is stored, and only by a sound bundle for this."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.bundle import MANIFEST, load_bundle
from spicula.core.errors import BundleError, GeometryError
from spicula.core.volume import Mask, Volume
from spicula.datasets.phantom import Ball
from spicula.formats import write_nifti
from spicula.pipelines.embed_nodules import outline_at
from spicula.retrieval.embedder import HEAD_FILE, NETWORK_FILE, load_embedder

from ..pipelines.search_tiny import (  # noqa: F401
    DIMENSIONS,
    MEASURED,
    MEMBERS,
    Tiny,
    ball_mask,
    chest_around,
    tiny,
)

CENTER = (-75.0, 20.0, 10.0)


def nodule(shape_zyx: tuple[int, int, int] = (28, 44, 44), *, diameter_mm: float = 11.0, hu: float = 40.0) -> Volume:
    return chest_around(CENTER, shape_zyx, balls=[Ball(CENTER, diameter_mm, hu)])


def middle_of(volume: Volume, shape_zyx: tuple[int, int, int]) -> Volume:
    start = [(whole - part) // 2 for whole, part in zip(volume.geometry.shape_zyx, shape_zyx, strict=True)]
    stop = [first + part for first, part in zip(start, shape_zyx, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return Volume(volume.array_zyx[box], volume.geometry.crop(start, stop))


def stored_anew(volume: Volume, axes: list[int], flips: tuple[bool, ...]) -> Volume:
    """The same voxels at the same places, their axes in another order and direction."""
    array, affine = volume.array_zyx.transpose(axes), volume.geometry.affine_lps[:, [*axes, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            array = np.flip(array, axis)
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
    geometry = replace(volume.geometry, shape_zyx=array.shape, affine_lps=affine)
    return Volume(np.ascontiguousarray(array), geometry)


@pytest.mark.parametrize(("diameter", "hu"), [(5.0, 40.0), (11.0, -450.0), (24.0, 90.0)])
def test_a_vector_has_length_1_and_its_identity(tiny: Tiny, diameter: float, hu: float) -> None:  # noqa: F811
    embedder, volume = tiny.embedder, nodule(diameter_mm=diameter, hu=hu)
    found = embedder.embed(volume, ball_mask(volume, CENTER, diameter), finding_id="a/1")
    assert found.vectors.dtype == np.float32
    assert found.vectors.shape == (1, MEMBERS * DIMENSIONS) == (1, embedder.dimensions)
    assert np.linalg.norm(found.vectors.astype(np.float64)) == pytest.approx(1, abs=1e-6)
    assert (found.finding_ids, found.fingerprint) == (("a/1",), load_bundle(tiny.bundle).fingerprint)


def test_other_sizes_and_densities_are_told_apart(tiny: Tiny) -> None:  # noqa: F811
    vectors = []
    for diameter, hu in ((6.0, 40.0), (12.0, 40.0), (12.0, -450.0)):
        volume = nodule(diameter_mm=diameter, hu=hu)
        vectors.append(tiny.embedder(volume, ball_mask(volume, CENTER, diameter)))
    apart = np.linalg.norm(np.stack(vectors)[:, None] - np.stack(vectors), axis=-1)
    assert (apart[~np.eye(3, dtype=bool)] > 0.1).all()


def test_a_small_volume_and_the_scan_around_it_give_the_same_vector(tiny: Tiny) -> None:  # noqa: F811
    """What lies 8 mm beside the outline does not count: there the scan has another nodule, the small volume nothing."""
    beside = Ball((CENTER[0] - 40.0, CENTER[1], CENTER[2]), 20.0, 90.0)
    scan = chest_around(CENTER, (48, 100, 110), balls=[Ball(CENTER, 11.0), beside])
    small = middle_of(scan, (22, 36, 36))
    mask = ball_mask(small, CENTER, 11.0)
    np.testing.assert_allclose(tiny.embedder(small, mask), tiny.embedder(scan, mask), atol=1e-5)
    masks = [outline_at(volume, CENTER, models=tiny.models, what="nodule") for volume in (small, scan)]
    one, two = (tiny.embedder(volume, mask) for volume, mask in zip((small, scan), masks, strict=True))
    assert np.linalg.norm(one - two) < 0.02
    other = tiny.embedder(scan, ball_mask(scan, beside.center_xyz_mm, 20.0))
    assert np.linalg.norm(one - other) > 0.2


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations([0, 1, 2]), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_the_order_of_storage_does_not_matter(
    tiny: Tiny,  # noqa: F811
    axes: list[int],
    flips: tuple[bool, bool, bool],
) -> None:
    volume = nodule()
    mask = ball_mask(volume, CENTER, 11.0)
    turned = stored_anew(volume, axes, flips)
    index = np.argwhere(mask.array_zyx)
    at = np.rint(turned.geometry.world_to_index(volume.geometry.index_to_world(index))).astype(int)
    inside = np.zeros(turned.geometry.shape_zyx, dtype=bool)
    inside[tuple(at.T)] = True
    expected = tiny.embedder(volume, mask)
    np.testing.assert_allclose(tiny.embedder(turned, mask), expected, atol=1e-4)
    np.testing.assert_allclose(tiny.embedder(turned, Mask(inside, turned.geometry)), expected, atol=1e-4)


def test_the_runtime_gives_what_the_networks_give_in_torch(tiny: Tiny) -> None:  # noqa: F811
    """The ONNX files in use against the modules that were exported, on the same regions and numbers."""
    import torch

    from spicula.networks.resnet import RegionEncoder
    from spicula.pipelines.pretrain_regions import load_encoder

    encoder = load_encoder(tiny.bundle.parent / "encoder")
    assert isinstance(encoder, RegionEncoder)
    regions = np.random.default_rng(0).uniform(0, 1, (3, 2, 64, 64)).astype(np.float32)
    with torch.inference_mode():
        expected = encoder.features(torch.from_numpy(regions)).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(tiny.embedder.network(regions)[0], expected, atol=5e-3 * scale)


def test_an_empty_outline_is_refused(tiny: Tiny) -> None:  # noqa: F811
    volume = nodule()
    with pytest.raises(GeometryError, match="an empty outline"):
        tiny.embedder(volume, Mask(np.zeros(volume.geometry.shape_zyx, dtype=bool), volume.geometry))


@pytest.mark.parametrize("name", ["nodule-risk", "nodule-outline", "nodule-detection"])
def test_bundles_for_other_tasks_are_refused(name: str) -> None:
    with pytest.raises(BundleError, match=r"expected search, nodule_regions"):
        load_embedder(load_bundle(name))


Change = Callable[[dict[str, Any]], object]

DAMAGE: dict[str, Change] = {
    "another kind": lambda manifest: manifest["outputs"].update(kind="patches"),
    "no outputs": lambda manifest: manifest.update(outputs=None),
    "no dimensions": lambda manifest: manifest["outputs"].pop("dimensions"),
    "a wrong number of dimensions": lambda manifest: manifest["outputs"].update(dimensions=7),
    "no preprocessing": lambda manifest: manifest.update(preprocessing=None),
    "no middle": lambda manifest: manifest["preprocessing"].pop("middle"),
    "a middle beyond the piece": lambda manifest: manifest["preprocessing"].update(middle=1.5),
    "a middle that is text": lambda manifest: manifest["preprocessing"].update(middle="0.6"),
    "no pixels": lambda manifest: manifest["preprocessing"].update(pixels=0),
    "pixels that are text": lambda manifest: manifest["preprocessing"].update(pixels="64"),
    "no slices": lambda manifest: manifest["preprocessing"].update(slices_at_most=-1),
    "Frangi's response or not": lambda manifest: manifest["preprocessing"].update(frangi="yes"),
    "Frangi's response left out": lambda manifest: manifest["preprocessing"].update(frangi=False),
    "a number that nobody measures": lambda manifest: manifest["preprocessing"]["measured"].append("shape_odor"),
    "one number too few": lambda manifest: manifest["preprocessing"]["measured"].pop(),
    "a text for numbers": lambda manifest: manifest["preprocessing"].update(measured="size_long"),
    "no head": lambda manifest: manifest["files"].pop(HEAD_FILE),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_manifest_is_refused_as_it_is_opened(tiny: Tiny, tmp_path: Path, damage: str) -> None:  # noqa: F811
    folder = Path(shutil.copytree(tiny.bundle, tmp_path / "bundle"))
    manifest = json.loads((folder / MANIFEST).read_text())
    DAMAGE[damage](manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="bundle nodule-search"):
        load_embedder(load_bundle(folder))


@pytest.mark.parametrize("name", [NETWORK_FILE, HEAD_FILE])
def test_changed_weights_are_refused(tiny: Tiny, tmp_path: Path, name: str) -> None:  # noqa: F811
    folder = Path(shutil.copytree(tiny.bundle, tmp_path / "bundle"))
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match="does not match its hash"):
        load_embedder(load_bundle(folder))
    (folder / name).unlink()
    with pytest.raises(BundleError, match="is missing"):
        load_embedder(load_bundle(folder))


def test_other_preprocessing_is_another_identity(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    folder = Path(shutil.copytree(tiny.bundle, tmp_path / "bundle"))
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["preprocessing"]["measured"] == list(MEASURED)
    manifest["preprocessing"]["middle"] /= 2
    (folder / MANIFEST).write_text(json.dumps(manifest))
    other = load_embedder(load_bundle(folder))
    assert other.fingerprint != tiny.embedder.fingerprint
    volume = nodule()
    mask = ball_mask(volume, CENTER, 11.0)
    assert np.linalg.norm(other(volume, mask) - tiny.embedder(volume, mask)) > 1e-3


def test_embedding_and_searching_need_no_torch(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    write_nifti(tmp_path / "nodule.nii.gz", nodule())
    program = f"""
import sys
from pathlib import Path
from spicula.pipelines.models import load_models
from spicula.pipelines.search_job import run_search
models = load_models(semantic=None, ssm=None)
found = run_search(Path({str(tmp_path / "nodule.nii.gz")!r}), index={str(tiny.index)!r}, k=3, at=[{CENTER}],
                   bundle=Path({str(tiny.bundle)!r}), models=models)
print(len(found.answers[0].answer.matches))
print(*sorted({{name.split(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    count, loaded = done.stdout.splitlines()
    assert count == "3"
    assert not set(loaded.split()) & {"torch", "sklearn", "skimage", "pandas", "matplotlib", "faiss", "psycopg"}
