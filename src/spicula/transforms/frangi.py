"""Frangi's filter: how much each place of an image looks like a line (2-D) or a tube (3-D), from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations, combinations_with_replacement
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from spicula.core.errors import InputError
from spicula.transforms.nodule_cube import WINDOW_HU, window

Floats = NDArray[Any]
Mode = Literal["reflect", "nearest", "mirror", "wrap", "constant"]
_PADDING: dict[str, Literal["symmetric", "edge", "reflect", "wrap", "constant"]] = {
    "reflect": "symmetric", "nearest": "edge", "mirror": "reflect", "wrap": "wrap", "constant": "constant",
}  # fmt: skip

SIGMAS = (2.0, 3.0)
"""Scales in pixels: those of the authors' code, the paper names none."""
ALPHA, BETA, GAMMA = 1.0, 0.6, 0.0444
"""The paper's constants, for images from 0 to 1."""

_PAIRS = {n: tuple(combinations_with_replacement(range(n), 2)) for n in (2, 3)}
"""The axes of each component of the Hessian: its upper triangle, row by row."""
_AT_ONCE, _LEAST_ROWS, _BLOCK = 1 << 16, 8, 64
"""Pixels worked on at once, which a processor's cache holds; rows of an image, and of a matrix, taken together."""


def frangi(
    image: ArrayLike, sigmas: Sequence[float] = SIGMAS, *, spacing_mm: Sequence[float] | None = None,
    alpha: float = ALPHA, beta: float = BETA, gamma: float | None = GAMMA, bright: bool = True, normalized: bool = True,
    batched: bool = False, mode: Mode = "reflect", cval: float = 0.0, dtype: DTypeLike = np.float32,
) -> Floats:  # fmt: skip
    """Find lines and tubes, by the eigenvalues ``|l1| <= |l2| <= |l3|`` of the Hessian at some scales.

    With ``S² = Σ l²`` the response at a scale is ``exp(-R_B²/2β²) (1 - exp(-S²/2γ²))``, ``R_B = l1/l2``, in 2-D. In
    3-D it is that with ``R_B = |l1|/√(l2 l3)``, times ``1 - exp(-R_A²/2α²)`` with ``R_A = l2/l3``: up to 0.39 with the
    paper's α. It is 0 where l2 or l3 has the wrong sign. The largest response of all scales is kept.

    Args:
        image: ``[rows, columns]`` or ``[z, y, x]``, or a stack of these. The paper's γ is for values from 0 to 1.
        sigmas: Standard deviations of the Gaussians: pixels, or mm if ``spacing_mm`` is given.
        spacing_mm: Distance between pixels along each axis of the image, mm.
        alpha: Scale of the plate term, 3-D only.
        beta: Scale of the blob term.
        gamma: Scale of the structure term, in the unit of S; None for half of each image's largest S at the first
            sigma, as scikit-image has it.
        bright: Find bright structures, or dark ones.
        normalized: Multiply second derivatives by σ², which gives S the image's unit. Without it S is per square
            pixel, or per mm² if ``spacing_mm`` is given.
        batched: A first axis counts images.
        mode: How the image goes on beyond its border, in the words of ``scipy.ndimage``.
        cval: Value beyond the border in mode ``constant``.
        dtype: Working precision: float32, or float64 where γ is tiny.

    Returns:
        The response from 0 to 1, of the image's shape and of ``dtype``.

    Raises:
        InputError: Not 2-D or 3-D, fewer than two pixels along an axis, values not finite, an argument out of range.

    References:
        Frangi et al., MICCAI 1998, doi:10.1007/BFb0056195, equations 10 to 15; arXiv 2311.11014 for the constants.
        The Hessian is that of scikit-image's ``frangi``: each derivative is two Gaussian passes of σ/√2. Departures
        from it: σ² (Frangi's equation 2; off with ``normalized``); 0 where a sign is wrong, even if l1 is 0 too; not
        ``cval`` but 0 for derivatives beyond a border. As there, axes in another order differ beside a border.

    Example:
        >>> line = np.zeros((32, 32))
        >>> line[16] = 1.0
        >>> int(frangi(line)[:, 9].argmax()), bool(frangi(line, bright=False)[16, 9] > 0)
        (16, False)
    """
    stack, kind = _images(image, batched), np.dtype(dtype)
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise InputError("dtype", got=kind, expected="float32 or float64")
    if not (1e-9 <= alpha <= 1e9 and 1e-9 <= beta <= 1e9 and (gamma is None or 0 < gamma < math.inf)):
        raise InputError("alpha, beta, gamma", got=(alpha, beta, gamma), expected="positive numbers (γ: or None)")
    work, unit = _prepared(stack, kind, mode=mode, cval=cval)
    if bright:
        np.negative(work, out=work)
    scales = _scales(sigmas, work.shape[1:], spacing_mm, normalized=normalized)
    operators = [[_operator(*axis, mode, kind.str) for axis in scale] for scale in scales]
    if gamma is None:
        rates = _rates_of_largest(work, operators[0])
    else:
        rates = np.full(len(work), 0.5 * min(unit / float(gamma), 1e12) ** 2, dtype=kind)
    result = np.zeros(work.shape, dtype=kind)
    for axes in operators:
        for images, rows in _parts(work.shape):
            best = result[images, rows].reshape(len(work[images]), -1)  # a view: parts are contiguous
            components = [c.reshape(best.shape) for c in _hessian(work[images], axes, rows)]
            for start in range(0, best.shape[1], _AT_ONCE):
                some = np.s_[:, start : start + _AT_ONCE]
                values = _response([c[some] for c in components], rates[images, None], alpha=alpha, beta=beta)
                np.maximum(best[some], values, out=best[some])
    return result.reshape(np.shape(image))


def frangi_of_the_code(image: ArrayLike, *, batched: bool = False) -> Floats:
    """Filter as the code of arXiv 2311.11014 does: scikit-image's ``frangi``, dark lines, β 5 and γ 2e-8.

    So small a γ makes the structure term 1 wherever the image is not quite flat: this works in float64.

    Args:
        image: As for :func:`frangi`, values from 0 to 1.
        batched: A first axis counts images.

    Returns:
        float64 response from 0 to 1, of the image's shape.

    References:
        https://github.com/openhcimed/flask_search at cf040bd; what it leaves to scikit-image is α 0.5 and no σ².
    """
    constants: dict[str, Any] = {"alpha": 0.5, "beta": 5.0, "gamma": 2e-8, "bright": False, "normalized": False}
    return frangi(image, (2.0, 3.0), **constants, batched=batched, dtype=np.float64)


def frangi_channel(
    regions_hu: ArrayLike, window_hu: tuple[float, float] = WINDOW_HU, *, setting: Literal["paper", "code"] = "paper",
    bright: bool = True,
) -> NDArray[np.float32]:  # fmt: skip
    """Make a network's input channel: the 2-D response of regions that are windowed to 0 to 1 first.

    Args:
        regions_hu: HU ``[n, rows, columns]``; n may be 0.
        window_hu: HU that become 0 and 1; values beyond are cut.
        setting: ``"paper"``: :func:`frangi`; ``"code"``: :func:`frangi_of_the_code` of the 256 grays of a PNG file.
        bright: Find bright or dark lines; the code's are always dark.

    Returns:
        float32 response ``[n, rows, columns]`` from 0 to 1.

    Raises:
        InputError: Not three axes, values that are not finite, an unknown setting or an empty window.

    Example:
        >>> vessels = np.full((2, 64, 64), -850.0)
        >>> vessels[:, 30:34] = 40.0
        >>> frangi_channel(vessels).shape, bool(frangi_channel(vessels)[0, 31, 32] > 0.9)
        ((2, 64, 64), True)
    """
    if setting not in ("paper", "code"):
        raise InputError("setting", got=repr(setting), expected="'paper' or 'code'")
    if np.ndim(regions_hu) != 3:
        raise InputError("regions_hu", got=f"{np.ndim(regions_hu)} axes", expected="three: [n, rows, columns]")
    gray = window(_images(regions_hu, True), *window_hu)
    if setting == "paper":
        return frangi(gray, bright=bright, batched=True)
    return frangi_of_the_code(np.rint(gray * 255.0) / np.float64(255.0), batched=True).astype(np.float32)


def hessian_operators(length: int, sigma: float) -> NDArray[np.float32]:
    """What :func:`frangi` multiplies an axis by, ``[4, length, length]``: smooth, slope then smooth, reverse, curve."""
    return _operator(length, sigma, sigma, "reflect", np.dtype(np.float32).str)[0]


def eigenvalues(components: ArrayLike) -> Floats:
    """Eigenvalues of symmetric 2 x 2 or 3 x 3 matrices in closed form, ordered by magnitude.

    They are within a few units in the last place of the largest, also where they are (nearly) equal.

    Args:
        components: The upper triangle, row by row, along the first axis: 3 or 6 numbers, and any other axes.

    Returns:
        ``[2, ...]`` or ``[3, ...]`` with ``|l1| <= |l2| <= |l3|``; float32 where the components are, else float64.

    Raises:
        InputError: Another number of components, or values that are not finite.

    References:
        O. K. Smith, Commun. ACM 4 (1961) 168, doi:10.1145/355578.366316; the discriminant by Lagrange's identity.

    Example:
        >>> eigenvalues([2.0, 1.0, 2.0]).tolist()
        [1.0, 3.0]
    """
    array = _numbers(components, "components")
    if array.ndim == 0 or len(array) not in (3, 6):
        raise InputError("components", got=f"shape {array.shape}", expected="3 or 6 along the first axis")
    array = array.astype(np.float32 if array.dtype == np.float32 else np.float64)
    _, power = math.frexp(float(np.abs(array).max(initial=0.0)))
    flat = np.ldexp(array, -power).reshape(len(array), math.prod(array.shape[1:]))
    found = np.ldexp(np.stack(_eigenvalues(list(flat))), power)
    return np.asarray(found.reshape(len(found), *array.shape[1:]))


def _eigenvalues(components: Sequence[Floats]) -> tuple[Floats, ...]:
    """Of flat components up to about 1."""
    if len(components) == 6:
        return _of_three(*components)
    rr, rc, cc = components
    middle = 0.5 * (rr + cc)
    reach = np.copysign(np.sqrt((0.5 * (rr - cc)) ** 2 + rc * rc), middle)
    return middle - reach, middle + reach


def _of_three(zz: Floats, zy: Floats, zx: Floats, yy: Floats, yx: Floats, xx: Floats) -> tuple[Floats, ...]:
    """``q + 2p cos(φ + 2πk/3)``; ``part`` is the part without trace in an orthonormal basis of such matrices."""
    q = (zz + yy + xx) * (1.0 / 3.0)
    part = [(zz - yy) * math.sqrt(0.5), (xx - q) * math.sqrt(1.5), *(side * math.sqrt(2.0) for side in (yx, zx, zy))]
    p = np.sqrt(_dot(part, part) * (1.0 / 6.0))
    inverse = 1.0 / np.maximum(p, np.finfo(p.dtype).tiny ** 0.3)  # the angle needs no exact norm, only no overflow
    for x in part:
        x *= inverse
    angle = _third_of_angle(*part)
    cosine, sine = np.cos(angle) * p, np.sin(angle) * (p * math.sqrt(3.0))
    high, low = q + 2.0 * cosine, q - cosine - sine
    middle = np.minimum(q - cosine + sine, high)
    down = -low > high
    largest, other = np.where(down, low, high), np.where(down, high, low)
    swap = np.abs(other) < np.abs(middle)
    return np.where(swap, other, middle), np.where(swap, middle, other), largest


def _third_of_angle(u: Floats, v: Floats, f: Floats, g: Floats, h: Floats) -> Floats:
    """φ, 0 to π/3, of a matrix B without trace: ``tan 3φ = √(B·B C·C - (B·C)²) / B·C``, C the same part of B².

    B·C is 3 det B. What stands under the root, a third of the discriminant, is by Lagrange's identity the sum of the
    squares of the 2 x 2 minors of B and C, so that nothing cancels.
    """
    ff, gg, hh, r, s = f * f, g * g, h * h, math.sqrt(0.5), math.sqrt(1.0 / 6.0)
    b, c = (u, v, f, g, h), (
        (gg - ff) * (0.5 * r) - u * v * (2.0 * s),
        (v * v - u * u + 0.5 * (ff + gg) - hh) * s,
        g * h * r - f * (u * r - v * s),
        f * h * r + g * (u * r + v * s),
        f * g * r - v * h * (2.0 * s),
    )  # fmt: skip
    squares = np.zeros_like(u)
    for i, j in combinations(range(5), 2):
        minor = b[i] * c[j]
        minor -= b[j] * c[i]
        minor *= minor
        squares += minor
    return np.asarray(np.arctan2(np.sqrt(squares, out=squares), _dot(b, c), out=squares) * (1.0 / 3.0))


def _dot(one: Sequence[Floats], other: Sequence[Floats]) -> Floats:
    total = one[0] * other[0]
    for x, y in zip(one[1:], other[1:], strict=True):
        total += x * y
    return total


def _norm_squared(components: Sequence[Floats]) -> Floats:
    """S², the sum of the squared eigenvalues, without these."""
    pairs = _PAIRS[2 if len(components) == 3 else 3]
    return _dot(components, [c if i == j else 2.0 * c for c, (i, j) in zip(components, pairs, strict=True)])


def _response(components: Sequence[Floats], rates: Floats, *, alpha: float, beta: float) -> Floats:
    """Response ``[images, pixels]`` to dark structures at one scale; ``rates`` are 1/2γ² of each image."""
    squares = _norm_squared(components)
    trace = components[0] + components[-1] + (components[3] if len(components) == 6 else 0.0)
    strength = squares * rates
    wanted = strength > np.finfo(squares.dtype).eps / 4  # with less of it 1 - exp(-strength) is 0
    wanted &= trace > 0  # else l2 or l3 is negative, as in 3-D where S² > 3 trace²
    if len(components) == 6:
        wanted &= squares <= 3.01 * trace * trace
    place = np.flatnonzero(wanted)
    l1, l2, *more = _eigenvalues([np.take(c, place) for c in components])
    if more:
        right = (l2 > 0) & (more[0] > 0)
        place, l1, l2, l3 = place[right], l1[right], l2[right], more[0][right]
    values = 1.0 - np.exp(-np.take(strength, place))
    blob = (l1 / l2) ** 2
    if more:
        plate = l2 / l3
        blob *= plate
        values *= 1.0 - np.exp(plate * plate * (-0.5 / alpha**2))
    values *= np.exp(blob * (-0.5 / beta**2))
    strength.fill(0.0)
    strength.reshape(-1)[place] = values
    return strength


def _rates_of_largest(work: Floats, axes: Sequence[_Operator]) -> Floats:
    """1/2γ² of each image where γ is half of its largest S; 0 where that is 0."""
    largest = np.zeros(len(work), dtype=work.dtype)
    for images, rows in _parts(work.shape):
        squares = _norm_squared(_hessian(work[images], axes, rows)).reshape(len(work[images]), -1)
        np.maximum(largest[images], squares.max(axis=1), out=largest[images])
    least = 2e3 / np.finfo(work.dtype).max
    return np.asarray(np.where(largest > 0, 2.0 / np.maximum(largest, least), 0.0).astype(work.dtype))


def _parts(shape: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Some whole images, or some rows (along the first axis) of one image."""
    count, rows, *rest = shape
    together = max(1, _AT_ONCE // (rows * math.prod(rest)))
    step = rows if together > 1 else max(_LEAST_ROWS, _AT_ONCE // math.prod(rest))
    for image in range(0, count, together):
        for row in range(0, rows, step):
            yield slice(image, image + together), slice(row, min(row + step, rows))


_Operator = tuple[Floats, NDArray[np.intp], NDArray[np.intp]]
"""Banded matrices ``[4, n, n]``: smooth, slope then smooth, the reverse, curve; where the band starts and stops."""


def _hessian(stack: Floats, axes: Sequence[_Operator], rows: slice) -> list[Floats]:
    """Components for ``[images, ...]`` at some rows; passes that begin alike are made once, 3 + 6 + 6 in 3-D."""
    passes = [tuple((k == i) + 2 * (k == j) for k in range(len(axes))) for i, j in _PAIRS[len(axes)]]
    level: dict[tuple[int, ...], Floats] = {(): stack}
    for k, axis in enumerate(axes):
        part = rows if k == 0 else slice(0, stack.shape[k + 1])
        ways = {way[: k + 1] for way in passes}
        level = {way: _pass(level[way[:-1]], axis, way[-1], axis=k + 1, rows=part) for way in ways}
    return [level[way] for way in passes]


def _pass(array: Floats, operator: _Operator, which: int, *, axis: int, rows: slice) -> Floats:
    """Multiply an axis by some rows of a matrix, block by block of its band."""
    before, length, after = math.prod(array.shape[:axis]), array.shape[axis], math.prod(array.shape[axis + 1 :])
    flat, (matrices, band_start, band_stop) = array.reshape(before, length, after), operator
    out = np.empty((before, rows.stop - rows.start, after), dtype=array.dtype)
    step = _BLOCK if length > 2 * _BLOCK else length
    for start in range(rows.start, rows.stop, step):
        stop = min(start + step, rows.stop)
        low, high = int(band_start[start:stop].min()), int(band_stop[start:stop].max())
        block, here = matrices[which, start:stop, low:high], slice(start - rows.start, stop - rows.start)
        if after == 1:
            np.matmul(flat[:, low:high, 0], block.T, out=out[:, here, 0])
        else:
            np.matmul(block, flat[:, low:high], out=out[:, here])
    return out.reshape(*array.shape[:axis], -1, *array.shape[axis + 1 :])


@lru_cache(maxsize=12)
def _operator(length: int, sigma: float, factor: float, mode: str, dtype: str) -> _Operator:
    """Two Gaussian passes of σ/√2 along an axis; none, one or both of them a derivative times ``factor``."""
    width = sigma / math.sqrt(2.0)
    offset = np.arange(-int(8.0 * width + 0.5), int(8.0 * width + 0.5) + 1, dtype=np.float64)
    gaussian = np.exp(-0.5 * (offset / width) ** 2)
    gaussian /= gaussian.sum()
    kernels = gaussian, gaussian * offset * (factor / width**2)
    firsts = [_correlated(np.eye(length), kernel, mode) for kernel in kernels]
    matrices = np.stack([_correlated(first, kernel, mode) for kernel in kernels for first in firsts])
    hidden = np.abs(matrices).max(axis=(1, 2), keepdims=True) * (np.finfo(dtype).eps / 64)  # by rounding: no band
    band = (np.abs(matrices) > hidden).any(axis=0) | np.eye(length, dtype=bool)
    return matrices.astype(dtype), band.argmax(axis=1), length - band[:, ::-1].argmax(axis=1)


def _correlated(matrix: Floats, kernel: Floats, mode: str) -> Floats:
    """Its columns by an even or odd kernel, in pairs about the middle, so that what is equal cancels exactly."""
    middle, length, sign = len(kernel) // 2, len(matrix), 1.0 if kernel[0] > 0 else -1.0
    padded = np.pad(matrix, ((middle, middle), (0, 0)), mode=_PADDING[mode])
    total = np.asarray(kernel[middle] * matrix)
    for k in range(1, middle + 1):
        total += kernel[middle + k] * (padded[middle + k :][:length] + sign * padded[middle - k :][:length])
    return total


def _prepared(stack: Floats, kind: np.dtype[Any], *, mode: str, cval: float) -> tuple[Floats, float]:
    """The images in the working precision, 0 beyond the border or at the first pixel, at most about 1; their unit."""
    if mode not in get_args(Mode) or not math.isfinite(cval):
        raise InputError("mode, cval", got=(mode, cval), expected=f"one of {get_args(Mode)}, finite")
    wide = np.result_type(stack.dtype, kind)
    ends = float(stack.max(initial=0)), float(stack.min(initial=0)), float(cval) if mode == "constant" else 0.0
    unit = max(map(abs, ends)) or 1.0
    work = stack / wide.type(unit)
    corner = work[(slice(None), *(slice(0, 1),) * (stack.ndim - 1))].copy()
    work -= wide.type(cval / unit) if mode == "constant" else corner
    return work.astype(kind, order="C", copy=False), unit


def _numbers(values: ArrayLike, what: str) -> Floats:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InputError(what, got=f"values of type {array.dtype}", expected="real numbers")
    if not np.isfinite(array).all():
        raise InputError(what, got="values that are not finite", expected="finite numbers")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _images(image: ArrayLike, batched: bool) -> Floats:
    array = _numbers(image, "image")
    stack = array if batched else array[None]  # of [rows, columns] or [z, y, x]
    if stack.ndim not in (3, 4) or min(stack.shape[1:]) < 2:
        wanted = "two or three axes, of two pixels or more" + (", after one that counts images" if batched else "")
        raise InputError("image", got=f"shape {array.shape}", expected=wanted)
    return stack


def _scales(
    sigmas: Sequence[float], shape: Sequence[int], spacing_mm: Sequence[float] | None, *, normalized: bool
) -> list[list[tuple[int, float, float]]]:
    """For each scale and axis: pixels, sigma in pixels, what a first derivative per pixel is multiplied by."""
    spacing = [1.0] * len(shape) if spacing_mm is None else [float(s) for s in spacing_mm]
    if len(spacing) != len(shape) or not all(math.isfinite(s) and s > 0 for s in spacing):
        raise InputError("spacing_mm", got=spacing, expected=f"{len(shape)} positive numbers")
    if len(sigmas) == 0 or not all(0.1 <= sigma / s <= 1000.0 for sigma in sigmas for s in spacing):
        raise InputError("sigmas", got=list(sigmas), expected="one or more, of 0.1 to 1000 pixels along each axis")
    axes = list(zip(shape, spacing, strict=True))
    return [[(n, float(sigma / s), float(sigma if normalized else 1.0) / s) for n, s in axes] for sigma in sigmas]
