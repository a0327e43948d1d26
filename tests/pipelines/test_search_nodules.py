"""What encoders are judged on: slices as in use, cut once, a nodule's features the mean over its slices."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.finding import Case, Finding  # noqa: E402
from spicula.core.geometry import Geometry  # noqa: E402
from spicula.core.volume import Mask, Volume  # noqa: E402
from spicula.networks.resnet import RegionEncoder, RegionShape  # noqa: E402
from spicula.pipelines.search_nodules import (  # noqa: E402
    TOLD,
    Pieces,
    as_in_use,
    cut_pieces,
    features_of_pieces,
    features_of_regions,
)
from spicula.transforms.nodule_slices import MOST, PIXELS  # noqa: E402
from spicula.transforms.planes import BACKGROUND_HU  # noqa: E402
from spicula.transforms.regions import region_input  # noqa: E402

from .ssm_tiny import tiny_table  # noqa: E402


def test_what_is_far_from_a_nodule_fades_and_unmarked_lung_stays():
    table = tiny_table()
    table.hu[:, 0, :] = 500  # bone, 28 mm from the middle
    seen = as_in_use(table)
    assert seen.hu.dtype == np.int16
    assert (table.hu[:, 0] == 500).all()
    assert (seen.hu[:-1, 0] == BACKGROUND_HU).all()
    np.testing.assert_array_equal(seen.hu[-1], table.hu[-1])
    nodule = table.near > 0
    nodule[-1] = True
    np.testing.assert_array_equal(seen.hu[nodule], table.hu[nodule])
    assert seen.near is table.near


GRID = Geometry.from_axes((14, 60, 60), (1.5, 0.8, 0.8))


def ball(radius_mm):
    z, y, x = (np.indices(GRID.shape_zyx).T - (6.5, 29.5, 29.5)).T * np.array([1.5, 0.8, 0.8])[:, None, None, None]
    return np.sqrt(z**2 + y**2 + x**2) <= radius_mm


def case_of(name, radius_mm, loads):
    def load():
        loads.append(name)
        return Volume(np.where(ball(radius_mm), 30, -850).astype(np.int16), GRID)

    x, y, z = GRID.index_to_world((6.5, 29.5, 29.5)).tolist()
    return Case(f"P-{name}", load, (Finding(name, (x, y, z), 2 * radius_mm),), name)


def outlines(case, volume, center_xyz_mm):
    assert np.allclose(volume.geometry.world_to_index(center_xyz_mm), (6.5, 29.5, 29.5))
    return Mask(ball(case.findings[0].diameter_mm / 2), GRID)


def test_slices_are_cut_once_and_anew_for_other_outlines(tmp_path):
    loads: list[str] = []
    cases = [case_of("small", 1.0, loads), case_of("large", 9.0, loads)]
    call = {"outlines": outlines, "report": lambda line: None}
    pieces = cut_pieces(cases, tmp_path / "pieces", identity="a", **call)
    assert pieces.hu.dtype == np.int16
    assert pieces.hu.shape[1:] == (PIXELS, PIXELS)
    assert np.bincount(pieces.of_nodule).tolist() == [2, MOST]
    assert (pieces.hu[:, 0, 0] == BACKGROUND_HU).all()
    assert (pieces.hu[-3, 50:62, 50:62] > 0).all()
    again = cut_pieces(cases, tmp_path / "pieces", identity="a", **call)
    assert loads == ["small", "large"]
    np.testing.assert_array_equal(again.hu, pieces.hu)
    np.testing.assert_array_equal(again.of_nodule, pieces.of_nodule)
    assert json.loads((tmp_path / "pieces" / TOLD).read_text())["facts"]["cases"] == ["small", "large"]
    cut_pieces(cases, tmp_path / "pieces", identity="b", **call)
    fewer = cut_pieces(cases[:1], tmp_path / "pieces", identity="b", **call)
    assert loads == ["small", "large"] * 2 + ["small"]
    assert len(fewer.hu) == 2


@pytest.mark.parametrize("channels", [1, 2])
def test_features(channels):
    torch.manual_seed(0)
    encoder = RegionEncoder(RegionShape(channels=channels, width=4, further=1, dimensions=8)).eval()
    hu = tiny_table().hu[:7]
    found = features_of_regions(encoder, hu, middle=0.75, batch=3)
    assert found.shape == (7, 8)
    assert found.dtype == np.float32
    seen = region_input(hu.astype(np.float32), middle=0.75, with_frangi=channels == 2)
    with torch.inference_mode():
        np.testing.assert_allclose(found, encoder.features(torch.from_numpy(seen)).numpy(), atol=1e-5)
    of_nodule = np.array([0, 0, 1, 2, 2, 2, 3])
    means = features_of_pieces(encoder, Pieces(hu, of_nodule), middle=0.75)
    assert means.shape == (4, 8)
    np.testing.assert_allclose(means[2], found[3:6].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(means[3], found[6], atol=1e-5)


def test_what_is_hidden_in_use_changes_no_feature():
    torch.manual_seed(0)
    encoder = RegionEncoder(RegionShape(width=4, further=1)).eval()
    table = tiny_table()
    other = replace(table, hu=np.where(table.near == 0, 0, table.hu).astype(np.int16))
    far = np.hypot(*(np.indices((PIXELS, PIXELS)) - (PIXELS - 1) / 2)) > 50
    hidden = replace(table, hu=np.where(far, 900, table.hu).astype(np.int16))
    small = np.flatnonzero(table.near[:-1].sum(axis=(1, 2)) < 255 * 900)
    whole, same, changed = (
        features_of_regions(encoder, as_in_use(one).hu[small], middle=1.0) for one in (table, hidden, other)
    )
    np.testing.assert_array_equal(whole, same)
    assert np.abs(whole - changed).max() > 1e-3
