"""Outlines enclose what they outline."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import find_contours

from spicula.transforms.outline import enclosed_area, outlines


def test_a_disk_has_its_area_and_place() -> None:
    rows, columns = np.mgrid[:40, :50]
    disk = (rows - 17.0) ** 2 + (columns - 22.0) ** 2 <= 10.0**2
    (line,) = outlines(disk)
    np.testing.assert_array_equal(line[0], line[-1])
    assert abs(enclosed_area(line)) == pytest.approx(disk.sum(), rel=0.03)
    np.testing.assert_allclose(line[:-1].mean(axis=0), [17, 22], atol=0.2)


def test_regions_that_touch_the_edge_are_closed() -> None:
    (line,) = outlines(np.ones((3, 4)))
    np.testing.assert_array_equal(line[0], line[-1])
    np.testing.assert_allclose([line.min(axis=0), line.max(axis=0)], [[-0.5, -0.5], [2.5, 3.5]])


def test_holes_and_parts_are_lines_of_their_own_the_largest_first() -> None:
    plane = np.zeros((30, 30))
    plane[2:20, 2:20] = 1
    plane[8:12, 8:12] = 0
    plane[24:27, 24:27] = 1
    areas = [abs(enclosed_area(line)) for line in outlines(plane)]
    assert len(areas) == 3
    assert areas == sorted(areas, reverse=True)


def test_nothing_has_no_outline() -> None:
    assert outlines(np.zeros((5, 5))) == []


def test_soft_masks_agree_with_an_independent_library() -> None:
    rows, columns = np.mgrid[:32, :32]
    soft = np.clip(1.2 - np.hypot(rows - 15.3, (columns - 14.1) / 1.4) / 8, 0, 1)
    (line,) = outlines(soft)
    (other,) = find_contours(soft, 0.5)
    assert abs(enclosed_area(line)) == pytest.approx(abs(enclosed_area(other)), rel=1e-6)
