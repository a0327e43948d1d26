"""Pieces of slices to pretrain on."""

from __future__ import annotations

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.core.volume import Mask, Volume
from spicula.pipelines.slice_table import Source, kept, lung_pieces, make_slice_table
from spicula.transforms.crop import box_geometry
from spicula.transforms.nodule_slices import PIXEL_MM, PIXELS, slice_about


def slice_with_disk(radius=8.0, spacing=0.7, side=128):
    grid = box_geometry((0.0, 0.0, 0.0), shape_zyx=(1, side, side), spacing_zyx_mm=(1.0, spacing, spacing))
    index = np.moveaxis(np.indices(grid.shape_zyx), 0, -1).reshape(-1, 3)
    away = np.linalg.norm(grid.index_to_world(index) - (4.0, 0.0, 0.0), axis=1).reshape(grid.shape_zyx)
    hu = np.where(away <= radius, 40.0, -860.0).astype(np.float32)
    return Volume(hu, grid), Mask(away <= radius, grid)


def test_a_piece_lies_about_the_outline_in_true_size():
    hu, near = kept(slice_about(*slice_with_disk()))
    inside = hu > -400
    assert inside.sum() * PIXEL_MM**2 == pytest.approx(np.pi * 64, rel=0.03)
    np.testing.assert_allclose(np.argwhere(inside).mean(axis=0), (PIXELS - 1) / 2, atol=0.5)
    assert (near[inside] == 255).all()
    assert near[0].max() == near[:, 0].max() == 0
    assert (near > 0).sum() * PIXEL_MM**2 == pytest.approx(np.pi * (8 + 2.5) ** 2, rel=0.1)


def scan():
    rng = np.random.default_rng(0)
    hu = np.full((3, 160, 160), 30.0, dtype=np.float32)
    hu[1:, 40:120, 40:120] = rng.normal(-850, 30, (2, 80, 80))
    return Volume(hu, box_geometry((0, 0, 0), shape_zyx=hu.shape, spacing_zyx_mm=(5.0, 0.7, 0.7)))


def test_lung_pieces_have_lung_in_their_middle_and_slices_without_give_none():
    pieces = list(lung_pieces(scan(), np.random.default_rng(0), count=4))
    assert len(pieces) == 8
    middle = PIXELS // 2
    assert all(-1000 < piece[middle - 1 : middle + 1, middle - 1 : middle + 1].mean() < -500 for piece in pieces)


def test_scans_alone_make_a_table_and_it_is_kept(tmp_path):
    table = make_slice_table(tmp_path, tmp_path / "run", outline=None, identity="none", pieces=2,
                             scans=[Source("S", "1.2.3", scan)], report=lambda _: None)  # fmt: skip
    assert table.hu.shape == (4, PIXELS, PIXELS)
    assert (table.near == 255).all()
    assert not table.marked.any()
    again = make_slice_table(
        tmp_path, tmp_path / "run", outline=None, identity="none", scans=[Source("S", "1.2.3", scan)], pieces=2
    )
    assert (again.hu == table.hu).all()


def test_what_is_cut_already_is_not_read_again(tmp_path):
    def call(load):
        return make_slice_table(tmp_path, tmp_path / "run", outline=None, identity="none",
                                scans=[Source("S", "1.2.3", load)], report=lambda _: None)  # fmt: skip

    first = call(scan)
    assert (call(None).hu == first.hu).all()


def test_a_scan_that_cannot_be_read_is_left_out_and_said(tmp_path):
    def broken():
        raise InputError("scan", got="damage")

    lines = []
    table = make_slice_table(tmp_path, tmp_path / "run", outline=None, identity="none",
                             scans=[Source("A", "1", broken), Source("B", "2", scan)], report=lines.append)  # fmt: skip
    assert set(table.patients) == {"B"}
    assert any("left out: scan" in line for line in lines)


def test_nothing_to_learn_from(tmp_path):
    with pytest.raises(InputError, match="no slice to pretrain on"):
        make_slice_table(tmp_path, tmp_path / "run", outline=None, identity="none", report=lambda _: None)
