"""Outlines: right in shape and place on every grid, the same whatever the axes, steady under shifts of the point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spicula.core.bundle import load_bundle
from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets import lidc_nodules
from spicula.measure import segment
from spicula.measure.segment import outline
from spicula.metrics.segmentation import dice
from spicula.runtime.openvino import Network, load_network

CENTER = np.array([31.0, -42.5, 105.25])


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network(load_bundle("nodule-outline"), threads=1)


def rotation(axis: int, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(3)
    a, b = (k for k in range(3) if k != axis)
    turn[a, a] = turn[b, b] = c
    turn[a, b], turn[b, a] = -s, s
    return turn


def grid_around(spacing_zyx: tuple[float, float, float], direction: np.ndarray, *, size_mm: float = 60.0) -> Geometry:
    shape = [int(np.ceil(size_mm / s)) for s in spacing_zyx]
    middle = direction[:, ::-1] * np.asarray(spacing_zyx) @ ((np.asarray(shape) - 1) / 2)
    return Geometry.from_axes(shape, spacing_zyx, origin_xyz_mm=(CENTER - middle).tolist(), direction_xyz=direction)


def phantom(grid: Geometry, semi_axes_xyz: tuple[float, float, float], *, seed: int = 0) -> tuple[Volume, Mask]:
    """An ellipsoid of soft tissue with a soft border in noisy lung, and its ideal outline."""
    points = grid.index_to_world(np.moveaxis(np.indices(grid.shape_zyx), 0, -1)) - CENTER
    scale = np.asarray(semi_axes_xyz)
    depth = (1.0 - np.linalg.norm(points / scale, axis=-1)) * float(scale.mean())
    noise = np.random.default_rng(seed).normal(0, 20, grid.shape_zyx)
    hu = -860 + 890 / (1 + np.exp(-4 * depth)) + noise
    return Volume(np.rint(hu).astype(np.int16), grid), Mask(depth > 0, grid)


GRIDS = {
    "isotropic": ((1.0, 1.0, 1.0), np.eye(3)),
    "thick slices": ((2.5, 0.7, 0.7), np.eye(3)),
    "flipped x and y": ((1.25, 0.7, 0.7), np.diag([-1.0, -1.0, 1.0])),
    "sagittal": ((0.8, 1.0, 0.7), np.eye(3)[:, [1, 2, 0]]),
    "oblique": ((1.5, 0.8, 0.8), rotation(0, 20) @ rotation(2, 30)),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("semi_axes", [(3.5, 3.5, 3.5), (8.0, 6.0, 7.0)])
def test_an_ellipsoid_is_found_on_every_grid(
    name: str, semi_axes: tuple[float, float, float], network: Network
) -> None:
    spacing, direction = GRIDS[name]
    volume, truth = phantom(grid_around(spacing, direction), semi_axes)
    found = outline(volume, CENTER.tolist(), network=network)
    # readers draw around the blurred border of what they see: of small nodules that is a good part of the volume
    assert dice(found, truth) > (0.65 if max(semi_axes) < 5 else 0.8)
    middle = found.geometry.index_to_world(np.argwhere(found.array_zyx)).mean(axis=0)
    assert np.linalg.norm(middle - CENTER) < 1.0


def test_a_mass_wider_than_the_first_box_is_outlined(network: Network) -> None:
    volume, truth = phantom(grid_around((2.0, 1.5, 1.5), np.eye(3), size_mm=130.0), (30.0, 26.0, 28.0))
    found = outline(volume, (CENTER + np.array([4.0, -3.0, 4.0])).tolist(), network=network)
    assert dice(found, truth) > 0.85


def test_axes_and_dtype_do_not_matter(network: Network) -> None:
    volume, _ = phantom(grid_around((1.25, 0.7, 0.7), np.eye(3)), (6.0, 4.0, 5.0))
    found = outline(volume, CENTER.tolist(), network=network)
    for order, flips in (((2, 0, 1), (0,)), ((1, 2, 0), (1, 2)), ((0, 1, 2), (0, 1, 2))):
        affine = volume.geometry.affine_lps.copy()
        for axis in flips:
            affine[:3, 3] += affine[:3, axis] * (volume.array_zyx.shape[axis] - 1)
            affine[:3, axis] *= -1
        array = np.ascontiguousarray(np.flip(volume.array_zyx, flips).transpose(order)).astype(np.float32)
        turned = Volume(array, Geometry(array.shape, affine[:, [*order, 3]]))
        again = outline(turned, CENTER.tolist(), network=network)
        assert again.array_zyx.sum() == pytest.approx(found.array_zyx.sum(), rel=0.01)
        points = found.geometry.index_to_world(np.argwhere(found.array_zyx))
        index = np.rint(again.geometry.world_to_index(points)).astype(int)
        inside = (index >= 0).all(axis=1) & (index < again.array_zyx.shape).all(axis=1)
        assert again.array_zyx[tuple(index[inside].T)].sum() > 0.99 * len(points)


def test_the_outline_lies_on_the_volumes_own_voxels(network: Network) -> None:
    volume, _ = phantom(grid_around((1.5, 0.8, 0.8), rotation(1, 15)), (5.0, 5.0, 5.0))
    found = outline(volume, CENTER.tolist(), network=network)
    assert np.array_equal(found.geometry.affine_lps[:3, :3], volume.geometry.affine_lps[:3, :3])
    start = volume.geometry.world_to_index(found.geometry.origin_xyz_mm)
    assert np.allclose(start, np.rint(start), atol=1e-6)
    assert (np.rint(start) >= 0).all()
    assert (np.rint(start) + found.array_zyx.shape <= volume.array_zyx.shape).all()
    assert found.array_zyx.dtype == np.bool_
    border = found.array_zyx.copy()
    border[1:-1, 1:-1, 1:-1] = False
    assert not border.any()


@pytest.mark.parametrize("radius", [4.0, 9.0])
def test_a_point_some_millimeters_off_gives_the_same_outline(radius: float, network: Network) -> None:
    volume, _ = phantom(grid_around((1.25, 0.7, 0.7), np.eye(3)), (radius,) * 3)
    found = outline(volume, CENTER.tolist(), network=network)
    for direction in np.random.default_rng(3).normal(size=(3, 3)):
        point = CENTER + 0.5 * radius * direction / np.linalg.norm(direction)
        assert dice(outline(volume, point.tolist(), network=network), found) > 0.93


def test_where_a_volume_ends_does_not_shape_the_outline_elsewhere(network: Network) -> None:
    volume, truth = phantom(grid_around((2.0, 0.8, 0.8), np.eye(3)), (6.0, 6.0, 6.0))
    whole = outline(volume, CENTER.tolist(), network=network)
    middle = round(float(volume.geometry.world_to_index(CENTER)[0]))
    start, stop = (middle - 2, 0, 0), (middle + 3, *volume.array_zyx.shape[1:])
    short = Volume(volume.array_zyx[start[0] : stop[0]], volume.geometry.crop(start, stop))
    found = outline(short, CENTER.tolist(), network=network)
    kept = Mask(truth.array_zyx[start[0] : stop[0]], short.geometry)
    assert dice(found, kept) > 0.85
    offset = round(float(volume.geometry.world_to_index(whole.geometry.origin_xyz_mm)[0]))
    in_whole = whole.array_zyx[start[0] - offset : stop[0] - offset].sum()
    assert found.array_zyx.sum() == pytest.approx(in_whole, rel=0.15)


def test_a_point_outside_is_refused_with_the_flip_that_helps(network: Network) -> None:
    volume, _ = phantom(grid_around((1.5, 1.5, 1.5), np.eye(3)), (5.0, 5.0, 5.0))
    with pytest.raises(InputError, match=r"outside the volume.*flip x and y"):
        outline(volume, (-CENTER[0], -CENTER[1], CENTER[2]), network=network)


def test_even_a_silent_network_gives_one_region() -> None:
    volume, _ = phantom(grid_around((1.5, 1.5, 1.5), np.eye(3)), (5.0, 5.0, 5.0))
    silent = outline(volume, CENTER.tolist(), network=lambda batch: (batch[:, 3:4] * 0 - 5 - batch[:, 2:3],))
    assert silent.array_zyx.any()


def test_coarse_boxes_are_smoothed_not_subsampled() -> None:
    grid = grid_around((0.5, 0.5, 0.5), np.eye(3), size_mm=40.0)
    stripes = np.where(np.indices(grid.shape_zyx).sum(axis=0) % 2, 0, -1000).astype(np.int16)
    volume = Volume(stripes, grid)
    box = segment.box_around(CENTER.tolist(), 1.0)
    hu = segment.resample_block(segment.cut(volume, *segment.covering(grid, box)), box)
    assert hu[5:-5, 8:-8, 8:-8].std() < 60


def test_the_bundle_is_whole_and_describes_this_code() -> None:
    bundle = load_bundle("nodule-outline")
    bundle.verify()
    assert bundle.task == "outline"
    assert tuple(bundle.preprocessing["box_shape_zyx"]) == segment.BOX_SHAPE_ZYX
    assert bundle.preprocessing["slice_ratio"] == segment.SLICE_RATIO
    assert tuple(bundle.preprocessing["first_spacings_mm"]) == segment.FIRST_SPACINGS_MM
    assert sum(bundle.file(name).stat().st_size for name in bundle.manifest["files"]) < 2_500_000
    assert "CC BY 3.0" in str(bundle.card["data"])


@pytest.mark.shared
def test_the_test_patients_nodule_has_the_readers_size(shared: Path, network: Network) -> None:
    root = shared / "lidc_nodules"
    (case,) = (c for c in lidc_nodules.load_cases(root, with_test_patient=True) if c.patient_id == "LIDC-IDRI-0001")
    truth = lidc_nodules.load_mask(root, case.case_id)
    for shift in ((0.0, 0.0, 0.0), (3.0, -3.0, 2.0)):
        point = (np.asarray(case.findings[0].center_xyz_mm) + shift).tolist()
        found = outline(case.load_volume(), point, network=network)
        assert dice(found, truth) > 0.85
        assert found.volume_mm3 == pytest.approx(7500, rel=0.25)


@pytest.mark.parametrize("slices", [1, 2])
def test_a_volume_of_hardly_any_slice_is_outlined_without_wandering_out(slices: int) -> None:
    rng = np.random.default_rng(slices)
    grid = Geometry.from_axes((slices, 40, 40), (1.0, 0.7, 0.7))
    array = rng.normal(-600, 300, grid.shape_zyx).astype(np.int16)
    for network in (_everything_above, _everything_below):
        mask = outline(Volume(array, grid), grid.center_xyz_mm, network=network)
        assert mask.array_zyx.any()
        assert set(mask.geometry.shape_zyx) <= set(range(1, 41))


def _everything_above(boxes: np.ndarray) -> tuple[np.ndarray, ...]:
    """A network that sees a small nodule high up in its box."""
    logits = np.full((len(boxes), 1, *boxes.shape[2:]), -9.0, np.float32)
    logits[:, :, -3:-1, 14:18, 14:18] = 9.0
    return (logits,)


def _everything_below(boxes: np.ndarray) -> tuple[np.ndarray, ...]:
    return (np.flip(_everything_above(boxes)[0], axis=2).copy(),)
