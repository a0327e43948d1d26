"""Pictures show the right place, the right way round, to scale."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from spicula.core.analysis import Analysis
from spicula.core.volume import Volume
from spicula.report.pictures import Picture, overview_picture, plane_pictures, seen_picture

Make = Callable[..., Analysis]


def pixels(picture: Picture) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(picture.image.split(",")[1])))
    return np.asarray(image, dtype=float)


def points(path: str) -> np.ndarray:
    return np.array([[float(a), float(b)] for a, b in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)])


def bright_center_mm(picture: Picture) -> np.ndarray:
    """(x, y) of what is bright, in the picture's own millimeters."""
    shown = pixels(picture) > 200
    rows, columns = np.nonzero(shown)
    step = (picture.width_mm + 2 * picture.bleed_mm) / shown.shape[1]
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5]) * step - picture.bleed_mm


def test_the_finding_is_in_the_middle_and_round(make_analysis: Make) -> None:
    analysis = make_analysis()
    for picture in plane_pictures(analysis.volume, analysis.findings[0]):
        assert (picture.width_mm, picture.height_mm) == (60.0, 60.0)
        np.testing.assert_allclose(bright_center_mm(picture), 30.0, atol=1.5)
        line = points(picture.outline)
        extent = line.max(axis=0) - line.min(axis=0)
        np.testing.assert_allclose(extent, 16.0, atol=3.2)  # a ball is round on every plane: true aspect
        np.testing.assert_allclose((line.max(axis=0) + line.min(axis=0)) / 2, 30.0, atol=1.6)


@pytest.mark.parametrize(
    ("axis", "plane", "moves"),
    [
        (0, "axial", (1, 0)), (1, "axial", (0, 1)), (0, "coronal", (1, 0)), (2, "coronal", (0, -1)),
        (1, "sagittal", (1, 0)), (2, "sagittal", (0, -1)),
    ],
)  # fmt: skip
def test_left_back_and_head_go_the_right_way(
    make_analysis: Make, axis: int, plane: str, moves: tuple[int, int]
) -> None:
    analysis = make_analysis()
    center = np.array(analysis.findings[0].center_xyz_mm)
    center[axis] -= 6.0  # the ball now lies 6 mm further to the left, the back or the head than the middle
    moved = replace(analysis.findings[1], center_xyz_mm=tuple(map(float, center)))
    picture = {p.name: p for p in plane_pictures(analysis.volume, moved)}[plane]
    shift = bright_center_mm(picture) - 30.0
    np.testing.assert_allclose(shift, 6.0 * np.array(moves), atol=1.6)
    assert picture.letters == {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}[plane]


def test_axes_are_drawn_where_they_were_measured(make_analysis: Make) -> None:
    analysis = make_analysis()
    axial = plane_pictures(analysis.volume, analysis.findings[0])[0]
    np.testing.assert_allclose(axial.axes, [(22, 30, 38, 30), (30, 24, 30, 36)], atol=0.02)


def test_the_overview_marks_the_place(make_analysis: Make) -> None:
    analysis = make_analysis()
    picture = overview_picture(analysis.volume, analysis.findings[0])
    assert picture.mark is not None
    x, y, width, height = picture.mark
    np.testing.assert_allclose([x + width / 2, y + height / 2], bright_center_mm(picture), atol=1.5)
    assert (picture.width_mm, picture.height_mm) == (70 * 1.25, 60.0)


def test_large_findings_get_a_larger_field(make_analysis: Make) -> None:
    analysis = make_analysis()
    large = replace(analysis.findings[1], diameter_mm=70.0)
    picture = plane_pictures(analysis.volume, large)[0]
    assert picture.width_mm == 120.0
    assert picture.scale_mm == 20.0


def test_outside_the_volume_is_black_and_nan_too(make_analysis: Make) -> None:
    analysis = make_analysis()
    far = replace(analysis.findings[1], center_xyz_mm=(500.0, 0.0, 0.0))
    assert all(pixels(p).max() <= 56 for p in plane_pictures(analysis.volume, far))
    array = np.full(analysis.volume.geometry.shape_zyx, np.nan, dtype=np.float32)
    broken = Volume(array, analysis.volume.geometry)
    assert pixels(plane_pictures(broken, analysis.findings[0])[0]).max() <= 56


def test_a_slice_as_a_network_sees_it_lies_where_it_was_cut(looked: Make) -> None:
    analysis = looked()
    reading, finding = analysis.slice_readings[0], analysis.findings[0]
    heat = np.zeros((5, 5))
    heat[1, 3] = 0.5
    picture = seen_picture(reading.hu, reading.geometry, heat=heat, mask=finding.mask)
    assert (picture.width_mm, picture.height_mm) == (49.0, 49.0)
    shown = pixels(picture) > 128
    step = (49.0 + 2 * picture.bleed_mm) / shown.shape[1]
    middle = (np.array([np.nonzero(shown)[1].mean(), np.nonzero(shown)[0].mean()]) + 0.5) * step - picture.bleed_mm
    np.testing.assert_allclose(middle, 24.5, atol=0.5)
    line = points(picture.outline)
    np.testing.assert_allclose((line.max(axis=0) + line.min(axis=0)) / 2, 24.5, atol=0.8)
    np.testing.assert_allclose(line.max(axis=0) - line.min(axis=0), 16.0, atol=2.0)
    assert len(picture.heat) == 25
    (tile,) = [tile for tile in picture.heat if tile[4] > 0]
    assert tile == (29.4, 9.8, 9.8, 9.8, 0.5)  # to the left and to the front
    assert sum(across * down for _, _, across, down, _ in picture.heat) == pytest.approx(49**2)
