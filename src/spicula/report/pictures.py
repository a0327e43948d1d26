"""Pictures of a finding for the HTML report: planes through it with outline, letters and scale, all in mm."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicula.core.finding import Finding
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.transforms.crop import sample
from spicula.transforms.nodule_cube import WINDOW_HU
from spicula.transforms.outline import outlines

LUNG_WINDOW_HU = (-1350.0, 150.0)
FIELD_MM = 60.0
"""Side of a plane's picture; larger findings get more."""
STEP_MM = 0.25
OVERVIEW_PIXELS = 320
AIR_HU = -1024.0

LEFT, POSTERIOR, SUPERIOR = np.eye(3)
PLANES = {
    "axial": (SUPERIOR, POSTERIOR, LEFT, "RLAP"),
    "coronal": (POSTERIOR, -SUPERIOR, LEFT, "RLSI"),
    "sagittal": (LEFT, -SUPERIOR, POSTERIOR, "APSI"),
}
"""Normal, direction down and direction right of each plane (LPS), and the letters left, right, above, below."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture whose unit is the millimeter, 0 at its upper left corner.

    Args:
        name: ``"axial"``, ``"coronal"``, ``"sagittal"`` or ``"overview"``.
        image: The pixels as a PNG data URI.
        width_mm: Width.
        height_mm: Height.
        letters: Orientation at the left, right, upper and lower edge.
        outline: SVG path of the outline, empty where there is none.
        axes: Measured axes ``(x1, y1, x2, y2)``.
        scale_mm: Length of the scale bar.
        bleed_mm: How far the pixels reach beyond each edge, so that no edge shows.
        mark: Place to show ``(x, y, width, height)``, on the overview.
        heat: Tinted tiles ``(x, y, width, height, opacity)``, where a network looks.
    """

    name: str
    image: str
    width_mm: float
    height_mm: float
    letters: str
    outline: str = ""
    axes: tuple[tuple[float, float, float, float], ...] = ()
    scale_mm: float = 10.0
    bleed_mm: float = 0.0
    mark: tuple[float, float, float, float] | None = None
    heat: tuple[tuple[float, float, float, float, float], ...] = ()


def plane_pictures(volume: Volume, finding: Finding) -> tuple[Picture, ...]:
    """The finding on an axial, a coronal and a sagittal plane through its center.

    Args:
        volume: The scan, HU, in any orientation.
        finding: Where; its outline and axes are drawn where they are known. The axial plane is the slice on which
            the axes were measured.

    Returns:
        Three pictures in the lung window, 60 mm wide or more, isotropic.
    """
    field = _field_mm(finding)
    center = np.array(finding.center_xyz_mm)
    pictures = []
    for name in PLANES:
        middle = center.copy()
        if name == "axial" and finding.size is not None:
            measured = float(np.mean([end[2] for end in finding.size.long_axis_ends_xyz_mm]))
            middle[2] = measured if math.isfinite(measured) else middle[2]
        grid = _plane(name, middle, width_mm=field, height_mm=field, step_mm=STEP_MM)
        picture = Picture(
            name,
            _png(sample(_near(volume, grid), grid, outside=AIR_HU)[0]),
            field,
            field,
            PLANES[name][3],
            outline=_outline_path(finding.mask, grid) if finding.mask is not None else "",
            axes=_axes(finding, grid, volume=volume) if name == "axial" else (),
            scale_mm=10.0 if field <= 80 else 20.0,
            bleed_mm=STEP_MM,
        )
        pictures.append(picture)
    return tuple(pictures)


def overview_picture(volume: Volume, finding: Finding) -> Picture:
    """The whole axial slice through a finding, with the field of the plane pictures marked."""
    geometry = volume.geometry
    corners = np.array(np.meshgrid(*([-0.5, n - 0.5] for n in geometry.shape_zyx), indexing="ij")).reshape(3, -1).T
    low, high = (getattr(geometry.index_to_world(corners), end)(axis=0) for end in ("min", "max"))
    width, height = float(high[0] - low[0]), float(high[1] - low[1])
    step = max(width, height) / OVERVIEW_PIXELS
    middle = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, finding.center_xyz_mm[2]])
    grid = _plane("axial", middle, width_mm=width, height_mm=height, step_mm=step)
    field = _field_mm(finding)
    x, y = finding.center_xyz_mm[0] - low[0] - field / 2, finding.center_xyz_mm[1] - low[1] - field / 2
    image = _png(sample(_near(volume, grid), grid, outside=AIR_HU)[0])
    return Picture(
        "overview",
        image,
        width,
        height,
        "RLAP",
        scale_mm=50.0,
        bleed_mm=step,
        mark=(round(float(x), 1), round(float(y), 1), field, field),
    )


def seen_picture(
    hu: NDArray[np.float32], geometry: Geometry, *, heat: NDArray[np.float64], mask: Mask | None
) -> Picture:
    """A slice as a network sees it, in its own window, tinted where it looks.

    Args:
        hu: ``[rows, columns]``, HU.
        geometry: Its grid, of one slice.
        heat: Opacities ``[tiles down, tiles right]``, 0 to 1.
        mask: The outline to draw; None for none.
    """
    spacing = geometry.spacing_zyx_mm
    height, width = hu.shape[0] * spacing[1], hu.shape[1] * spacing[2]
    rows, columns = round(height / STEP_MM) + 2, round(width / STEP_MM) + 2
    axes = geometry.affine_lps[:3, :3] / np.asarray(spacing)
    affine = np.eye(4)
    affine[:3, :3] = axes * STEP_MM
    affine[:3, 3] = geometry.center_xyz_mm - axes @ (0.0, (rows - 1) / 2, (columns - 1) / 2) * STEP_MM
    grid = Geometry((1, rows, columns), affine)
    down, right = height / heat.shape[0], width / heat.shape[1]
    tiles = [
        (round(x * right, 3), round(y * down, 3), round(right, 3), round(down, 3), round(float(heat[y, x]), 3))
        for y, x in np.ndindex(*heat.shape)
    ]
    return Picture(
        "seen",
        _png(sample(Volume(hu[None], geometry), grid)[0], WINDOW_HU),
        round(width, 3),
        round(height, 3),
        "RLAP",
        outline=_outline_path(mask, grid) if mask is not None else "",
        bleed_mm=STEP_MM,
        heat=tuple(tiles),
    )


def _field_mm(finding: Finding) -> float:
    extent = finding.size.long_axis_mm if finding.size is not None else finding.diameter_mm or 0.0
    return max(FIELD_MM, math.ceil(1.6 * extent / 10) * 10.0) if math.isfinite(extent) else FIELD_MM


def _plane(name: str, middle: NDArray[np.float64], *, width_mm: float, height_mm: float, step_mm: float) -> Geometry:
    """A grid of one slice, square pixels, its middle at a point, one pixel beyond the picture on each side."""
    normal, down, right, _ = PLANES[name]
    rows, columns = round(height_mm / step_mm) + 2, round(width_mm / step_mm) + 2
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([normal, down, right]) * step_mm
    affine[:3, 3] = middle - (down * (rows - 1) + right * (columns - 1)) * step_mm / 2
    return Geometry((1, rows, columns), affine)


def _near(volume: Volume, grid: Geometry) -> Volume:
    """The part of a volume that a plane meets, so that only that is turned into floats."""
    shape = np.array(grid.shape_zyx)
    corners = np.array(np.meshgrid(*([0, n - 1] for n in shape), indexing="ij")).reshape(3, -1).T
    index = volume.geometry.world_to_index(grid.index_to_world(corners))
    top = np.array(volume.geometry.shape_zyx)
    start = np.clip(np.floor(index.min(axis=0)).astype(int) - 1, 0, top - 1)
    stop = np.clip(np.ceil(index.max(axis=0)).astype(int) + 2, start + 1, top)
    box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    return Volume(volume.array_zyx[box], volume.geometry.crop(start.tolist(), stop.tolist()))


def _png(hu: NDArray[np.float32], window_hu: tuple[float, float] = LUNG_WINDOW_HU) -> str:
    from PIL import Image

    low, high = window_hu
    gray = np.nan_to_num((hu - low) / (high - low), nan=0.0).clip(0, 1) * 255
    stream = io.BytesIO()
    Image.fromarray(gray.round().astype(np.uint8)).save(stream, format="PNG", compress_level=4)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _outline_path(mask: Mask, grid: Geometry) -> str:
    """The outline of a mask on a plane as an SVG path in mm."""
    soft = sample(mask.padded(), grid, outside=0.0)[0]
    step = grid.spacing_zyx_mm[1]
    parts = []
    for line in outlines(soft):
        points = [f"{(column - 0.5) * step:.2f} {(row - 0.5) * step:.2f}" for row, column in line[:-1]]
        parts.append("M" + "L".join(points) + "Z")
    return "".join(parts)


def _axes(finding: Finding, grid: Geometry, *, volume: Volume) -> tuple[tuple[float, float, float, float], ...]:
    """Both axes in the picture's mm, where they were measured on this plane."""
    if finding.size is None:
        return ()
    step = grid.spacing_zyx_mm[1]
    half_slice = max(volume.geometry.spacing_zyx_mm) / 2
    found = []
    for ends in (finding.size.long_axis_ends_xyz_mm, finding.size.short_axis_ends_xyz_mm):
        index = grid.world_to_index(np.array(ends, dtype=np.float64))
        if not np.isfinite(index).all() or np.abs(index[:, 0] * step).max() > half_slice:
            return ()
        (_, y1, x1), (_, y2, x2) = ((index - 0.5) * step).tolist()
        found.append((round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)))
    return tuple(found)
