"""Views of CT slices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from spicula.core.errors import InputError  # noqa: E402
from spicula.pretraining.ct_views import ViewRecipe, make_views, undisturbed  # noqa: E402
from spicula.transforms.imagenet import MEAN, STD  # noqa: E402

STILL = ViewRecipe(
    global_pixels=28, local_pixels=14, locals=3, global_area=(1.0, 1.0), local_area=(0.25, 0.25), aspect=(1.0, 1.0),
    shift=0.0, window=0.0, noise_hu=0.0, blur=(0.0, 0.0, 0.0),
)  # fmt: skip


def pictures(n=4, side=56):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.uniform(-900, 300, (n, side, side)).astype(np.float32)), torch.ones(n, side, side)


def gray(views):
    return views[:, 0] * STD[0] + MEAN[0]


def test_shapes_and_order():
    hu, near = pictures()
    globals_, locals_ = make_views(hu, near, ViewRecipe(global_pixels=28, local_pixels=14, locals=3),
                                   np.random.default_rng(0))  # fmt: skip
    assert globals_.shape == (8, 3, 28, 28)
    assert locals_.shape == (12, 3, 14, 14)


def test_all_chance_comes_from_the_generator():
    hu, near = pictures()
    one, two = (make_views(hu, near, ViewRecipe(28, 14, 2), np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0][:4], one[0][4:])


def test_without_any_disturbance_a_view_is_the_image_or_its_mirror():
    hu = torch.linspace(-900, 300, 28)[None, None, :].expand(6, 28, 28).contiguous()
    globals_, _ = make_views(hu, torch.ones_like(hu), STILL, np.random.default_rng(0))
    plain = gray(undisturbed(hu))
    same = [torch.allclose(v, plain[0], atol=1e-4) for v in gray(globals_)]
    mirrored = [torch.allclose(v, plain[0].flip(-1), atol=1e-4) for v in gray(globals_)]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert any(same)
    assert any(mirrored)


def test_local_views_show_the_middle_quarter_where_nothing_is_shifted():
    hu = torch.full((2, 56, 56), -800.0)
    hu[:, 14:42, 14:42] = 0.0
    _, locals_ = make_views(hu, torch.ones_like(hu), STILL, np.random.default_rng(0))
    assert float(gray(locals_)[:, 1:-1, 1:-1].min()) == pytest.approx(1000 / 1500, abs=1e-4)


def test_a_nodule_alone_hides_its_surroundings():
    hu, near = pictures()
    near[:] = 0.0
    near[:, 20:36, 20:36] = 1.0
    recipe = replace(STILL, alone=(0.0, 1.0, 0.0))
    globals_, _ = make_views(hu, near, recipe, np.random.default_rng(0))
    background = (-850 + 1000) / 1500
    first, second = gray(globals_[:4]), gray(globals_[4:])
    assert torch.allclose(second[:, :8], torch.full_like(second[:, :8], background), atol=1e-4)
    assert float((first[:, :8] - background).abs().max()) > 0.1
    assert float((second[:, 12:16, 12:16] - background).abs().max()) > 0.1


def test_where_no_nodule_is_known_alone_changes_nothing():
    hu, near = pictures()
    plain = make_views(hu, near, STILL, np.random.default_rng(3))[0]
    alone = make_views(hu, near, replace(STILL, alone=(1.0, 1.0, 1.0)), np.random.default_rng(3))[0]
    torch.testing.assert_close(plain, alone)


def test_blur_keeps_the_mean_and_takes_the_noise():
    hu, near = pictures(side=64)
    sharp = make_views(hu, near, STILL, np.random.default_rng(0))[0]
    soft = make_views(hu, near, replace(STILL, blur=(1.0, 1.0, 1.0), blur_pixels=(1.5, 1.6)), np.random.default_rng(0))[
        0
    ]
    assert float(soft.std()) < 0.7 * float(sharp.std())
    assert float(soft.mean()) == pytest.approx(float(sharp.mean()), abs=0.05)


def test_images_must_be_square():
    with pytest.raises(InputError, match="side, side"):
        make_views(torch.zeros(2, 8, 9), torch.zeros(2, 8, 9), STILL, np.random.default_rng(0))


def test_a_nodule_elsewhere_stands_in_the_surroundings_of_another_image():
    hu = torch.stack([torch.full((56, 56), float(value)) for value in (-900, -700, -500, -300)])
    near = torch.zeros_like(hu)
    hu[:, 20:36, 20:36] = 100.0
    near[:, 20:36, 20:36] = 1.0
    recipe = replace(STILL, elsewhere=(1.0, 0.0, 0.0))
    globals_, _ = make_views(hu, near, recipe, np.random.default_rng(1))
    corners = [round(float(v)) for v in gray(globals_[:4])[:, 0, 0] * 1500 - 1000]
    assert sorted(corners) == [-900, -700, -500, -300]
    assert corners != [-900, -700, -500, -300]
    assert torch.allclose(gray(globals_[:4])[:, 12:16, 12:16], torch.full((4, 4, 4), 1100 / 1500), atol=1e-4)


def test_turned_views_keep_what_is_round():
    y, x = torch.meshgrid(torch.arange(56.0), torch.arange(56.0), indexing="ij")
    disk = torch.where((y - 27.5) ** 2 + (x - 27.5) ** 2 < 15**2, 50.0, -900.0)
    bar = torch.where((y - 27.5).abs() < 4, 50.0, -900.0)
    hu = torch.stack([disk, bar] * 4)
    recipe = replace(STILL, global_area=(0.5, 0.5), turn=True)
    globals_, _ = make_views(hu, torch.ones_like(hu), recipe, np.random.default_rng(0))
    seen = gray(globals_)
    disks, bars = seen[0::2], seen[1::2]
    assert float(disks.std(dim=0).max()) < 0.2
    assert float(bars.std(dim=0).max()) > 0.3


def test_second_views_are_made_of_the_mates():
    dark, bright = torch.full((3, 56, 56), -900.0), torch.full((3, 56, 56), 200.0)
    ones = torch.ones_like(dark)
    globals_, locals_ = make_views(dark, ones, STILL, np.random.default_rng(0), mates=(bright, ones))
    levels = [round(float(v) * 1500 - 1000) for v in gray(torch.cat([globals_[:, :, :14, :14], locals_]))[:, 5, 5]]
    assert levels == [-900] * 3 + [200] * 3 + [-900] * 3 + [200] * 3 + [-900] * 3
