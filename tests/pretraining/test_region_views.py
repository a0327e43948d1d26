"""Views of regions."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402
from spicula.pretraining.region_views import (  # noqa: E402
    RegionViewRecipe,
    compact_views,
    frangi_of_tensor,
    region_views,
    undisturbed,
)
from spicula.transforms.frangi import frangi  # noqa: E402

STILL = RegionViewRecipe(pixels=28, area=(1.0, 1.0), aspect=(1.0, 1.0), shift=0.0, window=0.0)


def regions(n=4, side=56):
    return torch.from_numpy(np.random.default_rng(0).uniform(-900, 300, (n, side, side)).astype(np.float32))


def chance(seed=0):
    return np.random.default_rng(seed)


def test_shapes_values_and_chance():
    for recipe in (RegionViewRecipe(pixels=28, views=3), replace(compact_views(), pixels=28, views=3)):
        one, two = (region_views(regions(), recipe, chance(5)) for _ in range(2))
        assert [view.shape for view in one] == [(4, 1, 28, 28)] * 3
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert not torch.equal(one[0], one[1])
        assert all(float(view.min()) >= 0 and float(view.max()) <= 1 for view in one)
        assert all(view.dtype == torch.float32 for view in one)


def test_without_any_disturbance_a_view_is_the_region_or_its_mirror():
    hu = torch.linspace(-900, 300, 28).expand(6, 28, 28).contiguous()
    views = torch.cat(region_views(hu, STILL, chance()))[:, 0]
    plain = undisturbed(hu, STILL)[0, 0]
    same = [torch.allclose(v, plain, atol=1e-4) for v in views]
    mirrored = [torch.allclose(v, plain.flip(-1), atol=1e-4) for v in views]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert any(same)
    assert any(mirrored)


def test_up_and_down_only_where_wanted():
    hu = torch.linspace(-900, 300, 28)[:, None].expand(16, 28, 28).contiguous()
    first, _ = region_views(hu, STILL, chance())
    torch.testing.assert_close(first, first[:1].expand_as(first))
    first, _ = region_views(hu, replace(STILL, flip_up_down=True), chance())
    assert {bool(view[0, 0, 0] < view[0, -1, 0]) for view in first} == {True, False}


def test_in_use_gray_values_are_those_of_the_window():
    hu = torch.tensor([-2000.0, -1000.0, -250.0, 500.0, 900.0])
    side = hu.repeat(5, 1)[None]
    found = undisturbed(side, replace(STILL, pixels=5))
    torch.testing.assert_close(found[0, 0, 0], torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
    narrow = undisturbed(side, replace(STILL, pixels=5, window_hu=(-250.0, 900.0)))
    torch.testing.assert_close(narrow[0, 0, 0], torch.tensor([0.0, 0.0, 0.0, 750 / 1150, 1.0]))


def test_in_use_the_middle_is_shown():
    hu = torch.full((2, 56, 56), -1000.0)
    hu[:, 14:42, 14:42] = 500.0
    assert float(undisturbed(hu, replace(STILL, middle=0.5)).min()) == 1.0
    assert float(undisturbed(hu, STILL).mean()) == pytest.approx(0.25, abs=0.02)
    column = torch.arange(56.0).expand(1, 56, 56)
    shown = undisturbed(column, replace(STILL, middle=0.5, window_hu=(0.0, 100.0)))[0, 0] * 100
    torch.testing.assert_close(shown[3], torch.arange(14.0, 42.0), atol=1e-3, rtol=0)


def test_the_second_channel_is_what_the_filter_says_of_the_view():
    asked = []

    def filter_of(gray):
        asked.append(gray)
        return 1.0 - gray

    views = region_views(regions(), replace(STILL, noise_hu=50.0), chance(), filter_of=filter_of)
    for view, gray in zip(views, asked, strict=True):
        assert view.shape == (4, 2, 28, 28)
        assert view.dtype == torch.float32
        np.testing.assert_array_equal(view[:, 0].numpy(), gray)
        torch.testing.assert_close(view[:, 1], 1 - view[:, 0])
    assert undisturbed(regions(), STILL, filter_of=filter_of).shape == (4, 2, 28, 28)
    with pytest.raises(InputError, match="filter"):
        undisturbed(regions(), STILL, filter_of=lambda gray: gray[:1])


@pytest.mark.parametrize("shape", [(6, 64, 64), (3, 40, 56), (1, 9, 12)])
def test_frangis_filter_where_the_images_lie_is_that_of_numpy(shape):
    y, x = np.indices(shape[1:])
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, (shape[0], 1, 1))
    away = (x - shape[2] / 2) * np.sin(angle) - (y - shape[1] / 2) * np.cos(angle)
    gray = np.clip(np.exp(-(away**2) / 18) + rng.normal(0, 0.05, shape), 1e-4, 1).astype(np.float32)
    gray[0] = 0.3  # flat
    found, expected = frangi_of_tensor(torch.from_numpy(gray)).numpy(), frangi(gray, batched=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert not found[0].any()
    assert shape[0] == 1 or expected[1:].max() > 0.5


def test_on_another_device_frangis_filter_stays_there():
    there = regions().to("meta")  # what were to leave it would raise
    for view in region_views(
        there, replace(compact_views(), pixels=28), chance(), filter_of=partial(frangi, batched=True)
    ):
        assert view.shape == (4, 2, 28, 28)
        assert view.device.type == "meta"
    with pytest.raises(NotImplementedError, match="meta"):
        undisturbed(there, STILL, filter_of=lambda gray: gray)


@pytest.mark.parametrize(
    "changed",
    [{"noise_hu": 40.0}, {"blur": 1.0, "blur_pixels": (1.0, 2.0)}, {"window": 1.0}, {"turn": True}, {"shift": 1.0}],
)
def test_each_disturbance_changes_something(changed):
    recipe = replace(STILL, area=(0.5, 0.5))
    plain, _ = region_views(regions(), recipe, chance())
    other, _ = region_views(regions(), replace(recipe, **changed), chance())
    assert not torch.allclose(plain, other, atol=1e-3)


def test_gamma_only_bends():
    recipe = replace(STILL, window=1.0, window_shift_hu=0.0, gamma=0.5)
    plain, bent = (torch.cat(region_views(regions(), r, chance())) for r in (replace(recipe, gamma=0.0), recipe))
    power = torch.log(bent) / torch.log(plain)
    middle = (plain > 0.1) & (plain < 0.9)
    for view, inside in zip(power, middle, strict=True):
        assert float(view[inside].std()) < 1e-3
    assert len({round(float(view[inside].mean()), 2) for view, inside in zip(power, middle, strict=True)}) > 4


def test_every_second_view_is_made_of_the_mates():
    dark, bright = torch.full((3, 56, 56), -1000.0), torch.full((3, 56, 56), 500.0)
    views = region_views(dark, replace(STILL, views=3), chance(), mates=bright)
    assert [round(float(view.mean()), 3) for view in views] == [0.0, 1.0, 0.0]
    with pytest.raises(InputError, match="mates"):
        region_views(dark, STILL, chance(), mates=bright[:2])


def test_regions_must_be_square():
    with pytest.raises(InputError, match="side, side"):
        region_views(torch.zeros(2, 8, 9), STILL, chance())
    with pytest.raises(InputError, match="side, side"):
        undisturbed(torch.zeros(8, 8))
