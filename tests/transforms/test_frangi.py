"""Frangi's filter: scikit-image's where the definitions are the same, lines and tubes of known shape, and laws."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.feature import hessian_matrix, hessian_matrix_eigvals
from skimage.filters import frangi as skimage_frangi

from spicula.core.errors import InputError
from spicula.transforms import frangi as module
from spicula.transforms.frangi import eigenvalues, frangi, frangi_channel, frangi_of_the_code

MODES = ("reflect", "nearest", "mirror", "wrap", "constant")
SHAPES = ((23, 31), (70, 150), (13, 19, 16), (5, 140, 6), (2, 2), (2, 3, 2))
PLAIN: dict[str, Any] = {"alpha": 0.5, "beta": 0.5, "normalized": False, "dtype": np.float64}


def textured(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.0)


def right_signs(image: np.ndarray, sigma: float, *, bright: bool, mode: str) -> np.ndarray:
    """Where scikit-image's own Hessian has the signs of the structure that is looked for."""
    values = hessian_matrix_eigvals(hessian_matrix(image, sigma, mode=mode, use_gaussian_derivatives=True))
    values = np.take_along_axis(values, np.abs(values).argsort(axis=0), axis=0)[1:]
    return np.asarray(np.all((-values if bright else values) > 0, axis=0))


def peer(image: np.ndarray, sigmas: tuple[float, ...], *, bright: bool, mode: str, **constants: float) -> np.ndarray:
    """scikit-image's response, 0 where its signs are wrong: it takes their eigenvalue for 1e-10 there."""
    responses = []
    for sigma in sigmas:
        one = skimage_frangi(image, [sigma], black_ridges=not bright, mode=mode, **constants)
        responses.append(np.where(right_signs(image, sigma, bright=bright, mode=mode), one, 0.0))
    return np.max(responses, axis=0)


def offsets(shape: tuple[int, ...]) -> list[np.ndarray]:
    return [axis - (n - 1) / 2 for axis, n in zip(np.indices(shape), shape, strict=True)]


def tube(direction: tuple[float, ...], width: float, *, side: int = 41) -> np.ndarray:
    """A bright Gaussian line or tube through the middle, of height 1."""
    place = np.stack(offsets((side,) * len(direction)))
    unit = np.asarray(direction) / np.linalg.norm(direction)
    along = np.tensordot(unit, place, axes=1)
    return np.exp(-((place**2).sum(axis=0) - along**2) / (2 * width**2))


# --- against scikit-image ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bright", [True, False])
def test_it_is_scikit_images_filter_where_signs_are_right(shape: tuple[int, ...], mode: str, bright: bool) -> None:
    image = textured(shape)
    sigmas = (0.7, 2.0, 3.5)
    ours = frangi(image, sigmas, gamma=0.02, bright=bright, mode=mode, **PLAIN)
    theirs = peer(image, sigmas, bright=bright, mode=mode, alpha=0.5, beta=0.5, gamma=0.02)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-8)
    np.testing.assert_allclose(
        frangi(image, sigmas, gamma=0.02, bright=bright, mode=mode, **{**PLAIN, "dtype": np.float32}),
        theirs, rtol=0, atol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("bright", [True, False])
def test_it_is_scikit_images_filter_as_it_stands(bright: bool) -> None:
    image = textured((70, 90), 1)
    ours = frangi(image, (1.0, 2.0, 5.0), gamma=None, bright=bright, **PLAIN)
    np.testing.assert_allclose(
        ours, skimage_frangi(image, (1.0, 2.0, 5.0), black_ridges=not bright), rtol=0, atol=1e-12
    )


def test_half_of_the_largest_structure_is_that_of_the_first_scale_in_space_too() -> None:
    image = textured((12, 20, 14), 2)
    components = hessian_matrix(image, 1.5, mode="reflect", use_gaussian_derivatives=True)
    half = float(np.sqrt((hessian_matrix_eigvals(components) ** 2).sum(axis=0)).max()) / 2
    given_half = frangi(image, (1.5, 3.0), gamma=half, **PLAIN)
    np.testing.assert_allclose(frangi(image, (1.5, 3.0), gamma=None, **PLAIN), given_half, rtol=0, atol=1e-12)
    theirs = peer(image, (1.5, 3.0), bright=True, mode="reflect", alpha=0.5, beta=0.5, gamma=half)
    np.testing.assert_allclose(given_half, theirs, rtol=0, atol=1e-8)


def test_the_codes_setting_is_scikit_images_with_its_arguments() -> None:
    image = np.rint(255 * textured((64, 64), 3)) / 255
    theirs = skimage_frangi(image, sigmas=(2, 3), beta=5, gamma=2e-8, black_ridges=True)
    np.testing.assert_allclose(frangi_of_the_code(image), theirs, rtol=0, atol=1e-9)
    assert frangi_of_the_code(image).dtype == np.float64


def test_where_every_column_is_the_same_only_one_kind_of_line_is_found() -> None:
    """scikit-image finds the other kind as well, since l1 is 0 there: what keeps this filter from being equal."""
    bright = np.tile(np.exp(-((np.arange(41) - 20.0) ** 2) / 8)[:, None], (1, 30))
    for mode in ("reflect", "mirror", "nearest"):
        assert frangi(bright, (2.0,), mode=mode)[20].min() > 0.9
        assert frangi(bright, (2.0,), bright=False, mode=mode)[20].max() == 0
    assert skimage_frangi(bright, [2.0], gamma=0.0111, black_ridges=True)[20, 15] > 0.9


def test_sigma_squared_only_scales_the_structure_term() -> None:
    image = textured((40, 40), 4)
    scaled = frangi(image, (3.0,), gamma=0.09, dtype=np.float64)
    np.testing.assert_allclose(
        scaled, frangi(image, (3.0,), gamma=0.01, normalized=False, dtype=np.float64), atol=1e-12
    )


def test_sigmas_in_mm_are_scikit_images_sigmas_along_each_axis() -> None:
    image = textured((12, 18, 20), 5)
    spacing = (2.5, 0.7, 0.9)
    pixels = [2.0 / s for s in spacing]
    components = hessian_matrix(image, pixels, mode="reflect", use_gaussian_derivatives=True)  # type: ignore[arg-type]
    pairs = itertools.combinations_with_replacement(range(3), 2)
    scaled = [c * pixels[i] * pixels[j] for c, (i, j) in zip(components, pairs, strict=True)]
    values = eigenvalues(np.stack(scaled))
    l1, l2, l3 = -values
    s = np.sqrt((values**2).sum(axis=0))
    with np.errstate(all="ignore"):
        response = np.exp(-(l1**2) / (l2 * l3) / 0.72) * (1 - np.exp(-((l2 / l3) ** 2) / 2))
    expected = np.where((l2 > 0) & (l3 > 0), response * (1 - np.exp(-(s**2) / (2 * 0.0444**2))), 0.0)
    np.testing.assert_allclose(frangi(image, (2.0,), spacing_mm=spacing, dtype=np.float64), expected, atol=1e-9)
    plain = frangi(image, (2.0,), spacing_mm=spacing, normalized=False, gamma=0.0444 / 4, dtype=np.float64)
    np.testing.assert_allclose(plain, expected, atol=1e-9)


def test_a_constant_border_is_the_image_in_a_large_constant_one() -> None:
    image = textured((20, 24), 6)
    large = np.pad(image, 40, constant_values=0.3)
    inside = frangi(image, (2.0,), mode="constant", cval=0.3, dtype=np.float64)
    np.testing.assert_allclose(frangi(image - 0.3, (2.0,), mode="constant", dtype=np.float64), inside, atol=1e-12)
    middle = frangi(large, (2.0,), dtype=np.float64)[40:-40, 40:-40]
    np.testing.assert_allclose(inside[10:12, 10:12], middle[10:12, 10:12], atol=1e-4)


# --- eigenvalues ------------------------------------------------------------------------------------------------------


def matrices(components: np.ndarray) -> np.ndarray:
    side = 2 if len(components) == 3 else 3
    result = np.empty((*components.shape[1:], side, side))
    for c, (i, j) in zip(components, itertools.combinations_with_replacement(range(side), 2), strict=True):
        result[..., i, j] = result[..., j, i] = c
    return result


def check_eigenvalues(components: np.ndarray, *, ulps: float = 16.0) -> None:
    found = eigenvalues(components)
    assert found.dtype == components.dtype
    assert np.all(np.diff(np.abs(found), axis=0) >= 0)
    expected = np.moveaxis(np.linalg.eigvalsh(matrices(components)), -1, 0)
    largest = np.abs(expected).max(axis=0)
    error = np.abs(np.sort(found.astype(np.float64), axis=0) - expected)
    assert np.all(error <= ulps * np.finfo(components.dtype).eps * largest)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("count", [3, 6])
def test_eigenvalues_are_lapacks(count: int, dtype: type) -> None:
    check_eigenvalues(np.random.default_rng(0).normal(size=(count, 40, 500)).astype(dtype))


@pytest.mark.parametrize("gap", [0.0, 1e-15, 1e-12, 1e-8, 1e-4])
@pytest.mark.parametrize(
    "double", [(1.0, 1.0, 0.0), (1.0, 1.0, -3.0), (0.0, 0.0, 2.0), (1.0, 1.0, 1.0), (1.0, -1.0, 0.0)]
)
def test_nearly_equal_eigenvalues_keep_their_digits(double: tuple[float, ...], gap: float) -> None:
    rng = np.random.default_rng(1)
    turns, _ = np.linalg.qr(rng.normal(size=(300, 3, 3)))
    values = np.asarray(double) + gap * np.array([1.0, -1.0, 0.5])
    full = (turns * values) @ turns.transpose(0, 2, 1)
    components = np.stack([full[:, i, j] for i, j in itertools.combinations_with_replacement(range(3), 2)])
    check_eigenvalues(components)
    check_eigenvalues(components.astype(np.float32))


def test_eigenvalues_of_plain_matrices() -> None:
    np.testing.assert_array_equal(eigenvalues(np.zeros((6, 4))), np.zeros((3, 4)))
    np.testing.assert_array_equal(eigenvalues([3, 0, 0, 3, 0, 3]), [3.0, 3.0, 3.0])
    np.testing.assert_allclose(eigenvalues([5, 0, 0, -2, 0, 1]), [1, -2, 5], atol=1e-14)
    np.testing.assert_array_equal(eigenvalues([0.0, 1.0, 0.0])[..., None] ** 2, [[1.0], [1.0]])
    assert eigenvalues(np.zeros((6, 0, 2))).shape == (3, 0, 2)


@given(
    hnp.arrays(np.float64, (6, 3), elements=st.floats(-1, 1, width=32)),
    st.sampled_from([1e-300, 1e-30, 1.0, 1e30, 1e300]),
)
@settings(max_examples=60, deadline=None)
def test_eigenvalues_of_any_size(components: np.ndarray, scale: float) -> None:
    found = eigenvalues(components * scale)
    expected = np.moveaxis(np.linalg.eigvalsh(matrices(components)), -1, 0) * scale
    np.testing.assert_allclose(np.sort(found, axis=0), expected, rtol=0, atol=1e-14 * scale)
    np.testing.assert_allclose(found.sum(axis=0), components[[0, 3, 5]].sum(axis=0) * scale, atol=1e-14 * scale)


@pytest.mark.parametrize("wrong", [np.zeros(()), np.zeros((4, 2)), np.full((3, 2), np.nan), np.zeros((6, 1), complex)])
def test_what_has_no_eigenvalues_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match="components"):
        eigenvalues(wrong)


# --- known structures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (1, 1), (1, -2), (3, 1)])
def test_a_line_has_its_known_response_on_its_axis(direction: tuple[float, ...]) -> None:
    """σ²τ / (τ² + σ²)^1.5 is the curvature on the axis of a line of width τ."""
    width, sigma, gamma = 2.0, 2.5, 0.5
    curvature = sigma**2 * width / (width**2 + sigma**2) ** 1.5
    response = frangi(tube(direction, width), (sigma,), gamma=gamma, dtype=np.float64)
    assert response[20, 20] == pytest.approx(1 - np.exp(-(curvature**2) / (2 * gamma**2)), abs=1e-6)
    across = np.asarray((-direction[1], direction[0])) / np.hypot(*direction)
    profile = ndimage.map_coordinates(response, [20 + across[k] * np.arange(-6.0, 6.5, 0.5) for k in (0, 1)], order=3)
    assert int(profile.argmax()) == 12
    assert frangi(tube(direction, width), (sigma,), gamma=gamma, bright=False)[20, 20] == 0


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (2, -1, 1)])
def test_a_tube_has_its_known_response_on_its_axis(direction: tuple[float, ...]) -> None:
    """σ²τ² / (τ² + σ²)² is both curvatures on the axis of a tube of width τ."""
    width, sigma, gamma = 2.0, 2.0, 0.5
    curvature = sigma**2 * width**2 / (width**2 + sigma**2) ** 2
    response = frangi(tube(direction, width, side=31), (sigma,), gamma=gamma, dtype=np.float64)
    expected = (1 - np.exp(-0.5)) * (1 - np.exp(-2 * curvature**2 / (2 * gamma**2)))
    assert response[15, 15, 15] == pytest.approx(expected, abs=1e-6)
    unit = np.asarray(direction) / np.linalg.norm(direction)
    along = ndimage.map_coordinates(response, [15 + unit[k] * np.arange(-4.0, 5.0) for k in range(3)], order=3)
    np.testing.assert_allclose(along, expected, atol=5e-3)
    beside = np.cross(unit, (0.3, 0.5, 0.8))
    beside /= np.linalg.norm(beside)
    profile = ndimage.map_coordinates(response, [15 + beside[k] * np.arange(-5.0, 6.0) for k in range(3)], order=3)
    assert int(profile.argmax()) == 5


def test_the_scale_of_the_largest_response_is_the_structures() -> None:
    sigmas = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    in_space = [frangi(tube((1, 0, 0), 3.0), (s,), gamma=0.5)[20, 20, 20] for s in sigmas]
    assert sigmas[int(np.argmax(in_space))] == 3.0  # σ = τ
    in_plane = [frangi(tube((1, 0), np.sqrt(2.0), side=61), (s,), gamma=0.5)[30, 30] for s in sigmas]
    assert sigmas[int(np.argmax(in_plane))] == 2.0  # σ = √2 τ
    assert frangi(tube((1, 0, 0), 3.0), sigmas, gamma=0.5)[20, 20, 20] == max(in_space)


def test_blobs_are_suppressed_by_the_blob_term() -> None:
    for ndim in (2, 3):
        blob = np.exp(-sum(x**2 for x in offsets((25,) * ndim)) / (2 * 2.0**2))
        middle = (12,) * ndim
        plate = 1.0 if ndim == 2 else 1 - np.exp(-0.5)
        assert frangi(blob, (2.0,), dtype=np.float64)[middle] == pytest.approx(np.exp(-1 / 0.72) * plate, rel=1e-3)
        assert frangi(blob, (2.0,), beta=100.0)[middle] == pytest.approx(plate, rel=1e-3)
        assert frangi(blob, (2.0,), beta=0.1)[middle] < 1e-10


def test_plates_are_suppressed_by_the_plate_term() -> None:
    z, _, _ = offsets((25, 25, 25))
    plate = np.exp(-(z**2) / 8)
    assert frangi(plate, (2.0,))[12, 12, 12] < 1e-6
    assert frangi(tube((0, 0, 1), 2.0, side=25), (2.0,))[12, 12, 12] > 0.38
    bent = np.exp(-(z**2) / 8 - offsets((25, 25, 25))[1] ** 2 / 200)
    assert 0 < frangi(bent, (2.0,))[12, 12, 12] < frangi(bent, (2.0,), alpha=0.01)[12, 12, 12]


# --- laws -------------------------------------------------------------------------------------------------------------

IMAGES = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=9), elements=st.floats(0, 1)
)


@given(IMAGES, st.sampled_from(MODES), st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_flipped_images_have_flipped_responses(image: np.ndarray, mode: str, which: int) -> None:
    axes = [axis for axis in range(image.ndim) if which >> axis & 1]
    noisy = image + 0.1 * np.random.default_rng(0).random(image.shape)
    response = frangi(noisy, (0.7, 2.0), mode=mode, dtype=np.float64)
    flipped = frangi(np.flip(noisy, axes), (0.7, 2.0), mode=mode, dtype=np.float64)
    np.testing.assert_allclose(flipped, np.flip(response, axes), rtol=0, atol=1e-8)


@given(IMAGES, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_transposed_images_have_transposed_responses(image: np.ndarray, which: int) -> None:
    """In space without a border; beside one scikit-image's Hessian, and so this one, depends on the axes' order."""
    order = [*itertools.permutations(range(image.ndim))][which % (2 if image.ndim == 2 else 6)]
    noisy = image + 0.1 * np.random.default_rng(0).random(image.shape)
    response = frangi(noisy, (0.7, 2.0), mode="wrap", dtype=np.float64)
    turned = frangi(noisy.transpose(order), (0.7, 2.0), mode="wrap", dtype=np.float64)
    np.testing.assert_allclose(turned, response.transpose(order), rtol=0, atol=1e-8)
    spacing = np.array([1.0, 0.7, 2.0])[: image.ndim]
    response = frangi(noisy, (1.5,), spacing_mm=spacing, mode="wrap", dtype=np.float64)
    turned = frangi(noisy.transpose(order), (1.5,), spacing_mm=spacing[list(order)], mode="wrap", dtype=np.float64)
    np.testing.assert_allclose(turned, response.transpose(order), rtol=0, atol=1e-8)


def test_away_from_the_border_transposes_are_the_same_in_every_mode() -> None:
    image = textured((60, 70), 7)
    for mode in MODES:
        response = frangi(image, (1.5,), mode=mode, dtype=np.float64)
        turned = frangi(image.T, (1.5,), mode=mode, dtype=np.float64).T
        np.testing.assert_allclose(turned[20:-20, 20:-20], response[20:-20, 20:-20], rtol=0, atol=1e-8)


@given(IMAGES, st.sampled_from(MODES), st.booleans())
@settings(max_examples=60, deadline=None)
def test_responses_are_from_0_to_1_and_keep_the_image(image: np.ndarray, mode: str, bright: bool) -> None:
    before = image.copy()
    for gamma in (0.0444, None, 2e-8):
        response = frangi(image, (0.7, 1.5), gamma=gamma, mode=mode, bright=bright)
        assert response.shape == image.shape
        assert response.dtype == np.float32
        assert response.min() >= 0
        assert response.max() <= 1
    np.testing.assert_array_equal(image, before)


@given(IMAGES, st.sampled_from([2.0**-40, 0.125, 8.0, 2.0**60]), st.sampled_from([1.0, -1.0]))
@settings(max_examples=40, deadline=None)
def test_a_scaled_image_with_a_scaled_gamma_is_the_same(image: np.ndarray, factor: float, sign: float) -> None:
    plain = frangi(image, (1.5,), gamma=0.1, dtype=np.float64)
    scaled = frangi(image * factor * sign, (1.5,), gamma=0.1 * factor, bright=sign > 0, dtype=np.float64)
    np.testing.assert_allclose(scaled, plain, rtol=0, atol=1e-9)


def test_a_twice_as_fine_grid_with_a_twice_as_large_sigma_is_the_same() -> None:
    coarse, fine = (tube((0, 0, 1), w, side=n) for w, n in ((2.0, 25), (4.0, 49)))
    response = frangi(fine, (6.0,), dtype=np.float64)[8:-8:2, 8:-8:2, 8:-8:2]
    np.testing.assert_allclose(response, frangi(coarse, (3.0,), dtype=np.float64)[4:-4, 4:-4, 4:-4], atol=1e-4)
    in_mm = frangi(coarse, (6.0,), spacing_mm=(2.0, 2.0, 2.0), dtype=np.float64)
    np.testing.assert_allclose(in_mm, frangi(coarse, (3.0,), dtype=np.float64), atol=1e-12)


def test_the_order_of_scales_does_not_matter_and_more_of_them_find_more() -> None:
    image = textured((30, 30), 8)
    both = frangi(image, (1.0, 3.0))
    np.testing.assert_array_equal(both, frangi(image, (3.0, 1.0)))
    np.testing.assert_array_equal(both, np.maximum(frangi(image, (1.0,)), frangi(image, (3.0,))))


@pytest.mark.parametrize("value", [0.0, 1.0, -1000.3, 1e300, 5e-324, 0.1])
@pytest.mark.parametrize("shape", [(16, 150), (6, 7, 8)])
def test_a_flat_image_has_no_response(shape: tuple[int, ...], value: float) -> None:
    flat = np.full(shape, value)
    for gamma, mode, dtype in itertools.product((0.0444, None, 1e-300), MODES[:4], (np.float32, np.float64)):
        assert not frangi(flat, (1.0, 3.0), gamma=gamma, mode=mode, dtype=dtype).any()
    assert not frangi(flat, (1.0,), mode="constant", cval=value, gamma=None).any()


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.int64, np.float32, np.float16, bool])
def test_any_real_type_is_taken_in_any_memory_order(kind: type) -> None:
    image = (np.random.default_rng(9).random((30, 20, 5)) * 100).astype(kind)
    expected = frangi(image.astype(np.float64), gamma=5.0)
    np.testing.assert_allclose(frangi(image, gamma=5.0), expected, atol=1e-4)
    np.testing.assert_allclose(frangi(np.asfortranarray(image), gamma=5.0), expected, atol=1e-4)
    np.testing.assert_allclose(frangi(np.repeat(image, 2, axis=1)[:, ::2], gamma=5.0), expected, atol=1e-4)


# --- stacks and regions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 64, 64), (3, 300, 260), (3, 9, 12, 10), (1, 2, 2)])
@pytest.mark.parametrize("gamma", [0.0444, None])
def test_a_stack_is_its_images(shape: tuple[int, ...], gamma: float | None) -> None:
    stack = textured(shape, 10)
    together = frangi(stack, gamma=gamma, batched=True)
    for one, image in zip(together, stack, strict=True):
        np.testing.assert_allclose(one, frangi(image, gamma=gamma), atol=1e-4)
    np.testing.assert_array_equal(frangi_of_the_code(stack, batched=True).shape, shape)


def test_large_images_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    image = textured((30, 140, 9), 11)
    whole = frangi(image, gamma=None, dtype=np.float64)
    monkeypatch.setattr(module, "_AT_ONCE", 500)
    np.testing.assert_allclose(frangi(image, gamma=None, dtype=np.float64), whole, atol=1e-12)


def test_the_channel_is_the_filter_of_windowed_regions() -> None:
    hu = 2000 * textured((5, 64, 64), 12) - 1500
    gray = np.clip((hu + 1000) / 1500, 0, 1)
    channel = frangi_channel(hu)
    assert channel.dtype == np.float32
    np.testing.assert_allclose(channel, frangi(gray, batched=True), atol=1e-4)
    np.testing.assert_allclose(
        frangi_channel(hu, (-1000.0, 500.0), bright=False)[2], frangi(gray[2], bright=False), atol=1e-4
    )
    code = frangi_channel(hu, setting="code")
    assert code.dtype == np.float32
    theirs = skimage_frangi(np.rint(gray[0] * 255) / 255, sigmas=(2, 3), beta=5, gamma=2e-8, black_ridges=True)
    np.testing.assert_allclose(code[0], theirs, atol=1e-4)
    assert frangi_channel(np.zeros((0, 64, 64))).shape == (0, 64, 64)
    assert not frangi_channel(np.full((2, 8, 8), 3000, dtype=np.int16)).any()


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "batched"),
    [
        (np.zeros(5), False),
        (np.zeros((2, 2, 2, 2)), False),
        (np.float64(1.0), False),
        (np.zeros((1, 9)), False),
        (np.zeros((4, 1, 4)), False),
        (np.zeros((0, 4)), False),
        (np.zeros((4, 4)), True),
        (np.float64(1.0), True),
        (np.zeros((3, 1, 4)), True),
        (np.array([[0, np.nan], [0, 1]]), False),
        (np.array([[0, np.inf], [0, 1]]), False),
        (np.zeros((4, 4), dtype=complex), False),
        (np.array([["a", "b"], ["c", "d"]]), False),
    ],
)
def test_images_that_cannot_be_filtered_are_refused(image: np.ndarray, batched: bool) -> None:
    with pytest.raises(InputError, match=r"^image: got"):
        frangi(image, batched=batched)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sigmas": (0.0,)}, {"sigmas": (2.0, -1.0)}, {"sigmas": ()}, {"sigmas": (np.nan,)}, {"sigmas": (1e9,)},
        {"spacing_mm": (1.0,)}, {"spacing_mm": (1.0, 0.0)}, {"spacing_mm": (1.0, 100.0)}, {"spacing_mm": (1.0, np.inf)},
        {"alpha": 0.0}, {"beta": -1.0}, {"beta": np.nan}, {"gamma": 0.0}, {"gamma": np.inf},
        {"mode": "symmetric"}, {"mode": "constant", "cval": np.nan}, {"dtype": np.float16}, {"dtype": np.int32},
    ],
)  # fmt: skip
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"got .*, expected"):
        frangi(np.zeros((8, 8)), **wrong)


def test_regions_that_make_no_channel_are_refused() -> None:
    with pytest.raises(InputError, match="regions_hu"):
        frangi_channel(np.zeros((8, 8)))
    with pytest.raises(InputError, match="setting"):
        frangi_channel(np.zeros((1, 8, 8)), setting="both")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="window"):
        frangi_channel(np.zeros((1, 8, 8)), (100.0, 100.0))
    with pytest.raises(InputError, match="not finite"):
        frangi_channel(np.full((1, 8, 8), np.inf))
