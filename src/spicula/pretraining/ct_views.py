"""Views of CT slices for self-supervised learning: crops and flips, window, gamma, noise and blur, in HU (needs torch).

No colour: what the published recipe does with it (jitter, gray, solarization) has no meaning in CT. In its place the
window moves, and where a nodule's outline is known, a view may show the nodule alone or in other surroundings (after
background augmentations, Ryali et al. 2021, arXiv 2103.12719), so that its surroundings do not stand for it.

References:
    Oquab et al. 2023, arXiv 2304.07193; Caron et al. 2020, arXiv 2006.09882 (multi-crop).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from spicula.core.errors import InputError
from spicula.transforms.imagenet import MEAN, STD
from spicula.transforms.nodule_cube import WINDOW_HU
from spicula.transforms.planes import BACKGROUND_HU

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ViewRecipe:
    """How views are made. Areas are shares of the image.

    Args:
        global_pixels: Side of a global view.
        local_pixels: Side of a local view.
        locals: Local views of an image.
        global_area: Least and largest area of a global view.
        local_area: The same of a local view.
        aspect: Least and largest ratio of a view's width to its height.
        shift: How far from the middle a view may lie, as a share of the way to the image's border.
        flip_up_down: Whether views are flipped up and down too, not only left and right.
        turn: Whether views are turned by any angle.
        window: Share of the views whose window moves.
        window_shift_hu: How far each end of the window moves at most.
        gamma: The power to which the gray values are raised is ``exp`` of at most this, either way.
        noise_hu: Largest standard deviation of the noise.
        blur: Share of blurred views: of the first global one, the second, the local ones.
        blur_pixels: Least and largest standard deviation of the blur.
        alone: Share of views that show the nodule alone, where its outline is known: first global, second, local.
        elsewhere: Share of views that show it in the surroundings of another image of the batch, alike.
    """

    global_pixels: int = 224
    local_pixels: int = 98
    locals: int = 8
    global_area: Range = (0.32, 1.0)
    local_area: Range = (0.05, 0.32)
    aspect: Range = (3 / 4, 4 / 3)
    shift: float = 1.0
    flip_up_down: bool = False
    turn: bool = False
    window: float = 0.8
    window_shift_hu: float = 250.0
    gamma: float = 0.3
    noise_hu: float = 30.0
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    blur_pixels: Range = (0.1, 2.0)
    alone: tuple[float, float, float] = (0.0, 0.0, 0.0)
    elsewhere: tuple[float, float, float] = (0.0, 0.0, 0.0)


def as_input(gray: torch.Tensor) -> torch.Tensor:
    """Gray values 0 to 1, ``[n, rows, columns]``, as the network sees them: ``[n, 3, rows, columns]``."""
    mean, std = (gray.new_tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return (gray[:, None] - mean) / std


def undisturbed(hu: torch.Tensor) -> torch.Tensor:
    """Slices in HU ``[n, rows, columns]`` as the network sees them in use: ``[n, 3, rows, columns]``."""
    low, high = WINDOW_HU
    return as_input(((hu.float() - low) / (high - low)).clamp(0.0, 1.0))


def make_views(
    hu: torch.Tensor, near: torch.Tensor, recipe: ViewRecipe, rng: np.random.Generator, *,
    mates: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Two global and some local views of each image.

    Args:
        hu: ``[n, side, side]`` in HU.
        near: ``[n, side, side]`` 0 to 1: what remains where a nodule is shown alone; 1 where none is known.
        recipe: How.
        rng: Source of all chance.
        mates: HU and what remains, alike, of what the second global view and every second local one are made of: for
            example another slice of the same nodule; of the images themselves if None.

    Returns:
        Global views ``[2 n, 3, ...]``, first of all images, then second; local views ``[locals * n, 3, ...]`` alike.

    Raises:
        InputError: The images are all of one value, or not square.
    """
    if hu.ndim != 3 or hu.shape[1] != hu.shape[2]:
        raise InputError("images", got=tuple(hu.shape), expected="[n, side, side]")
    source = torch.stack((hu.float(), near.float()), dim=1)
    sources = (source, source if mates is None else torch.stack((mates[0].float(), mates[1].float()), dim=1))
    globals_ = [
        _view(sources[kind], recipe.global_pixels, recipe.global_area, recipe, rng, kind=kind) for kind in (0, 1)
    ]
    locals_ = [
        _view(sources[number % 2], recipe.local_pixels, recipe.local_area, recipe, rng, kind=2)
        for number in range(recipe.locals)
    ]
    side = recipe.local_pixels
    return torch.cat(globals_), torch.cat(locals_) if locals_ else hu.new_zeros((0, 3, side, side), dtype=torch.float32)


def _view(
    source: torch.Tensor, pixels: int, area: Range, recipe: ViewRecipe, rng: np.random.Generator, *, kind: int
) -> torch.Tensor:
    """One view of each image; its kind is its place in a recipe's shares: first global, second, local."""
    n = len(source)
    cut = sampled_at(source, view_grid(n, pixels, area, recipe, rng))
    hu, near = cut[:, 0], cut[:, 1]
    alone, elsewhere = recipe.alone[kind], recipe.elsewhere[kind]
    chance = rng.random(n)
    behind = torch.full_like(hu, BACKGROUND_HU)
    if elsewhere:
        other = source[torch.from_numpy(rng.permutation(n)).to(source.device), :1]
        there = sampled_at(other, view_grid(n, pixels, area, replace(recipe, shift=1.0), rng))[:, 0]
        behind = torch.where(column((chance >= alone) & (chance < alone + elsewhere), hu) > 0, there, behind)
    near = torch.where(column(chance < alone + elsewhere, hu) > 0, near, torch.ones_like(near))
    hu = behind + near * (hu - behind)
    spread = column(rng.uniform(0.0, recipe.noise_hu, n), hu)
    noise = torch.from_numpy(rng.standard_normal(tuple(hu.shape), dtype=np.float32)).to(hu)
    hu = blurred(hu + spread * noise, recipe.blur[kind], recipe.blur_pixels, rng)
    return as_input(gray_of(hu, WINDOW_HU, recipe, rng))


class Window(Protocol):
    """How the window of a view moves, see :class:`ViewRecipe`."""

    @property
    def window(self) -> float:
        """Share of the views whose window moves."""

    @property
    def window_shift_hu(self) -> float:
        """How far each end moves at most."""

    @property
    def gamma(self) -> float:
        """Of the power to which gray values are raised, either way."""


def gray_of(hu: torch.Tensor, window_hu: Range, recipe: Window, rng: np.random.Generator) -> torch.Tensor:
    """Gray values 0 to 1 of views in HU ``[n, rows, columns]``: windowed, the window of some moved and their gamma."""
    n, reach = len(hu), recipe.window_shift_hu
    moved = rng.random(n) < recipe.window
    low = column(window_hu[0] + moved * rng.uniform(-reach, reach, n), hu)
    high = column(window_hu[1] + moved * rng.uniform(-reach, reach, n), hu)
    power = column(np.exp(moved * rng.uniform(-recipe.gamma, recipe.gamma, n)), hu)
    return ((hu - low) / (high - low).clamp_min(1.0)).clamp(1e-4, 1.0) ** power


def sampled_at(source: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Images where a grid from :func:`view_grid` says, bilinearly; their border goes on beyond them."""
    return functional.grid_sample(
        source, grid.to(source), mode="bilinear", padding_mode="border", align_corners=False
    )  # fmt: skip


def column(values: NDArray[np.floating | np.bool_], like: torch.Tensor) -> torch.Tensor:
    """A number for each image, ``[n, 1, 1]`` float32, on the device of another tensor."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(like)[:, None, None]


def view_grid(n: int, pixels: int, area: Range, recipe: ViewRecipe, rng: np.random.Generator) -> torch.Tensor:
    """Where each view is sampled, for ``grid_sample``: ``[n, pixels, pixels, 2]``."""
    side = np.sqrt(rng.uniform(*area, n))
    narrow, wide = np.log(recipe.aspect)
    stretch = np.exp(rng.uniform(narrow, wide, n) / 2)
    size = np.minimum(np.stack([side * stretch, side / stretch], axis=1), 1.0)  # x, y
    center = rng.uniform(-1.0, 1.0, (n, 2)) * (1.0 - size) * recipe.shift
    flip = np.where(rng.random((n, 2)) < 0.5, -1.0, 1.0)
    if not recipe.flip_up_down:
        flip[:, 1] = 1.0
    at = (2 * np.arange(pixels) + 1) / pixels - 1
    x, y = at * size[:, :1] * flip[:, :1], at * size[:, 1:] * flip[:, 1:]
    angle = rng.uniform(0.0, 2 * np.pi, n) if recipe.turn else np.zeros(n)
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    across, down = x[:, None, :], y[:, :, None]
    turned = np.stack([cosine * across - sine * down, sine * across + cosine * down], axis=-1)
    return torch.from_numpy((center[:, None, None] + turned).astype(np.float32))


def blurred(hu: torch.Tensor, share: float, widths: Range, rng: np.random.Generator) -> torch.Tensor:
    """Blur some of the images by Gaussians of random width, each image by its own."""
    n = len(hu)
    width = np.where(rng.random(n) < share, rng.uniform(*widths, n), 1e-3)
    reach = int(np.ceil(2.5 * widths[1]))
    offset = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offset / width[:, None]) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    weights = torch.from_numpy(kernel.astype(np.float32)).to(hu)
    padded = functional.pad(hu[None], (reach,) * 4, mode="replicate")
    rows = functional.conv2d(padded, weights[:, None, :, None], groups=n)
    return functional.conv2d(rows, weights[:, None, None, :], groups=n)[0]
