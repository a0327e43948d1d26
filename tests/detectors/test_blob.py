from __future__ import annotations

import functools
import tarfile
from pathlib import Path

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.core.finding import Finding
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.datasets.phantom import Ball, thorax, thorax_grid
from spicula.detectors.blob import SIDE, boxes, detect, strongest
from spicula.formats import read_volume
from spicula.measure.blobs import Candidate
from spicula.transforms.crop import crop_box

BALL = Ball((-80.0, 20.0, 30.0), 12.0)
MASS = Ball((75.0, 40.0, 10.0), 50.0)


@functools.cache
def scan() -> Volume:
    return thorax(thorax_grid((2.0, 1.5, 1.5)), balls=(BALL, MASS), vessels=8)


@functools.cache
def findings() -> tuple[Finding, ...]:
    return tuple(detect(scan()))


def gap(finding: Finding, ball: Ball) -> float:
    return float(np.linalg.norm(np.subtract(finding.center_xyz_mm, ball.center_xyz_mm)))


def test_nodule_and_mass_are_among_the_first_findings() -> None:
    assert min(gap(f, BALL) for f in findings()[:3]) < 2
    assert min(gap(f, MASS) for f in findings()[:3]) < 8


def test_findings_are_sorted_apart_and_scored() -> None:
    scores = [f.score for f in findings()]
    assert scores == sorted(scores, reverse=True)
    assert all(s is not None and 0 <= s <= 1 for s in scores)
    assert [f.id for f in findings()] == [str(n + 1) for n in range(len(findings()))]
    centers = np.array([f.center_xyz_mm for f in findings()])
    gaps = np.linalg.norm(centers[:, None] - centers, axis=-1) + 99 * np.eye(len(centers))
    assert gaps.min() > 5
    assert len(detect(scan(), limit=1)) == 1


def test_a_permuted_flipped_and_moved_scan_gives_the_same_findings() -> None:
    volume = scan()
    array = np.flip(volume.array_zyx.transpose(2, 0, 1), 1)
    affine = volume.geometry.affine_lps.copy()
    affine[:3, :3] = affine[:3, (2, 0, 1)]
    affine[:3, 3] += affine[:3, 1] * (array.shape[1] - 1) + (100, -50, 300)
    affine[:3, 1] *= -1
    other = detect(Volume(np.ascontiguousarray(array), Geometry(array.shape, affine)))
    assert len(other) == len(findings())
    for ours, theirs in zip(findings(), other, strict=True):
        np.testing.assert_allclose(np.subtract(theirs.center_xyz_mm, (100, -50, 300)), ours.center_xyz_mm, atol=1e-4)
        assert theirs.score == pytest.approx(ours.score, abs=1e-4)


def test_no_lungs_is_an_error() -> None:
    with pytest.raises(InputError, match="no lungs"):
        detect(thorax(thorax_grid((4, 4, 4)), lungs=False))


@pytest.mark.parametrize("turned", [False, True])
def test_boxes_are_the_cubes_of_an_independent_cut(turned: bool) -> None:
    direction = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]]) if turned else None
    shape = (30, 40, 50)
    grid = Geometry.from_axes(shape, (2.0, 1.1, 0.9), origin_xyz_mm=(3, 2, 1), direction_xyz=direction)
    volume = Volume(np.random.default_rng(0).integers(-1000, 400, shape).astype(np.int16), grid)
    for center in (grid.center_xyz_mm, grid.origin_xyz_mm):
        found = boxes(volume, [center])[0, 0]
        expected = (crop_box(volume, center, size_mm=SIDE, spacing_mm=1.0) + 1000) / 1400
        np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=2e-5)


def test_masses_are_always_asked_about() -> None:
    small = [Candidate((0, 0, 10.0 * n), 2, 0.5, 0.9, False) for n in range(20)]
    mass = Candidate((50, 0, 0), 20, 0.2, 0.1, True)
    kept = strongest([*small, mass], most=5)
    assert len(kept) == 5
    assert mass in kept


@pytest.mark.shared
def test_the_nodule_of_a_real_scan_is_the_first_finding(shared: Path, tmp_path: Path) -> None:
    with tarfile.open(shared / "scans" / "LIDC-IDRI-0001.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    first = detect(read_volume(tmp_path))[0]
    assert np.linalg.norm(np.subtract(first.center_xyz_mm, (56.2, 86.3, -115.9))) < 5
