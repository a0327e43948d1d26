"""Random views of regions of slices for contrastive learning: crops, flips, turns, window, gamma, noise, blur, in HU.

Needs torch. No color; a second channel may hold what a filter says of the view (the paper's is Frangi's).

References:
    Chen et al. 2020, arXiv 2002.05709, appendix A; "Lesion Search with Self-supervised Learning" 2023, arXiv
    2311.11014: the text has Gaussian blur, the authors' code none. Departure: the window moves in HU, in place of the
    brightness and the contrast of 8-bit pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.pretraining.ct_views import Range, ViewRecipe, blurred, column, gray_of, sampled_at, view_grid
from spicula.transforms.frangi import BETA, GAMMA, SIGMAS, frangi, hessian_operators
from spicula.transforms.nodule_cube import WINDOW_HU

Filter: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.floating]]
"""Takes gray values 0 to 1, ``[n, rows, columns]``, and gives as many, 0 to 1 too.

In the place of :func:`spicula.transforms.frangi.frangi` as it is, ``batched``, a GPU takes :func:`frangi_of_tensor`:
numpy would keep it waiting.
"""


@dataclass(frozen=True, slots=True)
class RegionViewRecipe:
    """How views of regions are made. Areas are shares of the region.

    Args:
        pixels: Side of a view.
        views: Of a region.
        middle: Side of what is shown in use, as a share of the region's: its middle.
        window_hu: Gray values go from 0 to 1 between these.
        area: Least and largest area of a view.
        aspect: Least and largest ratio of its width to its height.
        shift: How far from the middle a view may lie, as a share of the way to the region's border.
        flip_up_down: Whether views are flipped up and down too, not only left and right.
        turn: Whether views are turned by any angle.
        window: Share of the views whose window moves.
        window_shift_hu: How far each end of the window moves at most.
        gamma: The power to which the gray values are raised is ``exp`` of at most this, either way.
        noise_hu: Largest standard deviation of the noise.
        blur: Share of blurred views.
        blur_pixels: Least and largest standard deviation of the blur.
    """

    pixels: int = 64
    views: int = 2
    middle: float = 1.0
    window_hu: Range = WINDOW_HU
    area: Range = (0.08, 1.0)
    aspect: Range = (3 / 4, 4 / 3)
    shift: float = 1.0
    flip_up_down: bool = False
    turn: bool = False
    window: float = 0.8
    window_shift_hu: float = 250.0
    gamma: float = 0.0
    noise_hu: float = 0.0
    blur: float = 0.0
    blur_pixels: Range = (0.1, 2.0)


def compact_views(*, middle: float = 0.75) -> RegionViewRecipe:
    """For nodules in the middle of regions that show more than is used: they stay in sight and about their size."""
    return RegionViewRecipe(
        middle=middle, area=(0.8 * middle**2, 1.2 * middle**2), aspect=(0.9, 1.1), shift=0.3, flip_up_down=True,
        turn=True, window_shift_hu=120.0, gamma=0.15, noise_hu=20.0, blur=0.3, blur_pixels=(0.1, 1.0),
    )  # fmt: skip


def region_views(
    hu: torch.Tensor, recipe: RegionViewRecipe, rng: np.random.Generator, *, filter_of: Filter | None = None,
    mates: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Views of each region.

    Args:
        hu: ``[n, side, side]`` in HU.
        recipe: How.
        rng: Source of all chance.
        filter_of: What the second channel is made by, of each view; one channel if None.
        mates: HU, alike, of what every second view is made of: for example another slice of the same nodule; of the
            regions themselves if None.

    Returns:
        As many as the recipe says, each ``[n, channels, pixels, pixels]`` float32, gray values 0 to 1.

    Raises:
        InputError: The regions are not square, or mates or filter have another shape.
    """
    mates = hu if mates is None else mates
    if mates.shape != hu.shape:
        raise InputError("mates", got=tuple(mates.shape), expected=f"{tuple(hu.shape)} as the regions")
    sources = [_square(regions) for regions in (hu, mates)]
    return tuple(_with_filter(_view(sources[k % 2], recipe, rng), filter_of) for k in range(recipe.views))


def undisturbed(
    hu: torch.Tensor, recipe: RegionViewRecipe | None = None, *, filter_of: Filter | None = None
) -> torch.Tensor:
    """Regions in HU ``[n, side, side]`` as a network sees them in use: their middle.

    Args:
        hu: ``[n, side, side]``.
        recipe: Of the views it was taught with: window, pixels and middle.
        filter_of: What the second channel is made by.

    Returns:
        ``[n, channels, pixels, pixels]`` float32, gray values 0 to 1.

    Raises:
        InputError: As :func:`region_views`.
    """
    recipe = recipe or RegionViewRecipe()
    source, (low, high) = _square(hu), recipe.window_hu
    if recipe.middle != 1.0 or source.shape[-1] != recipe.pixels:
        at = torch.from_numpy((2 * np.arange(recipe.pixels) + 1) / recipe.pixels - 1).float() * recipe.middle
        grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1).expand(len(source), -1, -1, -1)
        source = sampled_at(source, grid)
    return _with_filter(((source[:, 0] - low) / (high - low)).clamp(0.0, 1.0), filter_of)


def frangi_of_tensor(gray: torch.Tensor) -> torch.Tensor:
    """Frangi's filter where the images lie: :func:`spicula.transforms.frangi.frangi` in 2-D with what it takes usually.

    Args:
        gray: float32 ``[n, rows, columns]``, 0 to 1.

    Returns:
        The response, alike; within 1e-5 of numpy's.
    """
    work, best = gray[:, :1, :1] - gray, torch.zeros_like(gray)
    for sigma in SIGMAS:
        down, across = (_operators(length, sigma, gray.device) for length in gray.shape[1:])
        rr, rc, cc = (down[i] @ work @ across[j].T for i, j in ((3, 0), (1, 2), (0, 3)))
        middle, reach = (rr + cc) / 2, (((rr - cc) / 2).square() + rc.square()).sqrt()
        structure = 1 - torch.exp((rr.square() + 2 * rc.square() + cc.square()) * (-0.5 / GAMMA**2))
        blob = torch.exp(((middle - reach) / (middle + reach)).square() * (-0.5 / BETA**2))
        best = torch.where(middle > 0, torch.maximum(best, structure * blob), best)
    return best


@lru_cache(maxsize=8)
def _operators(length: int, sigma: float, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(hessian_operators(length, sigma)).to(device)


def _square(hu: torch.Tensor) -> torch.Tensor:
    if hu.ndim != 3 or hu.shape[1] != hu.shape[2]:
        raise InputError("regions", got=tuple(hu.shape), expected="[n, side, side]")
    return hu.float()[:, None]


def _view(source: torch.Tensor, recipe: RegionViewRecipe, rng: np.random.Generator) -> torch.Tensor:
    """One view of each region ``[n, 1, side, side]``, one channel of gray values ``[n, pixels, pixels]``."""
    n = len(source)
    place = ViewRecipe(
        aspect=recipe.aspect, shift=recipe.shift, flip_up_down=recipe.flip_up_down, turn=recipe.turn
    )  # fmt: skip
    hu = sampled_at(source, view_grid(n, recipe.pixels, recipe.area, place, rng))[:, 0]
    if recipe.noise_hu:
        spread = column(rng.uniform(0.0, recipe.noise_hu, n), hu)
        hu = hu + spread * torch.from_numpy(rng.standard_normal(tuple(hu.shape), dtype=np.float32)).to(hu)
    if recipe.blur:
        hu = blurred(hu, recipe.blur, recipe.blur_pixels, rng)
    return gray_of(hu, recipe.window_hu, recipe, rng)


def _with_filter(gray: torch.Tensor, filter_of: Filter | None) -> torch.Tensor:
    if filter_of is None:
        return gray[:, None]
    plain = isinstance(filter_of, partial) and filter_of.func is frangi and filter_of.keywords == {"batched": True}
    if plain and gray.device.type != "cpu":
        return torch.stack((gray, frangi_of_tensor(gray)), dim=1)
    found = np.asarray(filter_of(gray.cpu().numpy()), dtype=np.float32)
    if found.shape != tuple(gray.shape):
        raise InputError("what the filter gave", got=found.shape, expected=tuple(gray.shape))
    return torch.stack((gray, torch.from_numpy(found).to(gray)), dim=1)
