"""Where voxels are: index (z, y, x) to world (x, y, z) in millimetres, LPS."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.errors import GeometryError

FloatArray = NDArray[np.float64]

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns a RAS affine or point into LPS and back (it is its own inverse)."""

AXIS_NAMES_XYZ = ("x (left)", "y (posterior)", "z (superior)")


@dataclass(frozen=True, slots=True)
class Geometry:
    """The grid of a volume, apart from its pixels.

    Args:
        shape_zyx: Number of voxels along the array's axes.
        affine_lps: ``[4, 4]``; maps ``(z, y, x, 1)``, the index of a voxel's center, to ``(x, y, z, 1)`` in mm LPS
            (x to the patient's left, y to the back, z to the head). It may be permuted, flipped, oblique or sheared.
        frame_of_reference_uid: DICOM Frame of Reference UID, empty where unknown.

    Raises:
        GeometryError: The shape has an empty axis, or the affine is not finite or is singular.
    """

    shape_zyx: tuple[int, int, int]
    affine_lps: FloatArray
    frame_of_reference_uid: str = ""
    inverse_lps: FloatArray = field(init=False, repr=False, compare=False)
    """``[4, 4]``; maps ``(x, y, z, 1)`` in mm LPS to ``(z, y, x, 1)``, an index with fractions."""

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape_zyx)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError("shape_zyx", got=self.shape_zyx, expected="three positive numbers")
        affine = np.array(self.affine_lps, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError("affine_lps", got=affine.tolist(), expected="a finite 4 x 4 matrix")
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-6:
            raise GeometryError(
                "affine_lps", got=affine.tolist(), expected="three independent axes of positive spacing"
            )
        affine.setflags(write=False)
        inverse = np.linalg.inv(affine)
        inverse.setflags(write=False)
        object.__setattr__(self, "shape_zyx", shape)
        object.__setattr__(self, "affine_lps", affine)
        object.__setattr__(self, "inverse_lps", inverse)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Geometry):
            return NotImplemented
        return (
            self.shape_zyx == other.shape_zyx
            and self.frame_of_reference_uid == other.frame_of_reference_uid
            and np.array_equal(self.affine_lps, other.affine_lps)
        )

    def __hash__(self) -> int:
        return hash((self.shape_zyx, self.affine_lps.tobytes(), self.frame_of_reference_uid))

    @classmethod
    def from_axes(
        cls,
        shape_zyx: Sequence[int],
        spacing_zyx_mm: Sequence[float],
        *,
        origin_xyz_mm: Sequence[float] = (0.0, 0.0, 0.0),
        direction_xyz: ArrayLike | None = None,
        frame_of_reference_uid: str = "",
    ) -> Geometry:
        """Build a grid from spacing, origin and direction as ITK keeps them.

        Args:
            shape_zyx: Number of voxels.
            spacing_zyx_mm: Distance between voxel centers along each array axis.
            origin_xyz_mm: LPS position of the center of voxel (0, 0, 0).
            direction_xyz: ``[3, 3]``; its columns are the unit vectors of the x, y and z index axes; identity if
                omitted.
            frame_of_reference_uid: DICOM Frame of Reference UID.

        Returns:
            The grid.
        """
        direction = np.eye(3) if direction_xyz is None else np.asarray(direction_xyz, dtype=np.float64).reshape(3, 3)
        affine = np.eye(4)
        affine[:3, :3] = direction[:, ::-1] * np.asarray(spacing_zyx_mm, dtype=np.float64)
        affine[:3, 3] = origin_xyz_mm
        shape = tuple(int(n) for n in shape_zyx)
        return cls(shape, affine, frame_of_reference_uid)  # type: ignore[arg-type]

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """Distance between neighboring voxel centers along each array axis, in mm."""
        z, y, x = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @property
    def origin_xyz_mm(self) -> tuple[float, float, float]:
        """LPS position of the center of voxel (0, 0, 0), in mm."""
        x, y, z = self.affine_lps[:3, 3]
        return float(x), float(y), float(z)

    @property
    def direction_xyz(self) -> FloatArray:
        """``[3, 3]`` unit vectors of the x, y and z index axes as columns (ITK's direction)."""
        axes: FloatArray = self.affine_lps[:3, :3] / np.asarray(self.spacing_zyx_mm)
        return axes[:, ::-1]

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm3, shear included."""
        return float(abs(np.linalg.det(self.affine_lps[:3, :3])))

    @property
    def center_xyz_mm(self) -> tuple[float, float, float]:
        """LPS position of the middle of the grid, in mm."""
        x, y, z = self.index_to_world((np.asarray(self.shape_zyx) - 1) / 2)
        return float(x), float(y), float(z)

    @property
    def is_sheared(self) -> bool:
        """True where the axes are not perpendicular (gantry tilt), to about 0.03 degrees."""
        axes = self.direction_xyz
        return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 5e-4)

    def index_to_world(self, index_zyx: ArrayLike) -> FloatArray:
        """Turn indices ``[..., 3]`` (z, y, x; fractions allowed) into LPS millimetres ``[..., 3]`` (x, y, z)."""
        index = np.asarray(index_zyx, dtype=np.float64)
        return index @ self.affine_lps[:3, :3].T + self.affine_lps[:3, 3]

    def world_to_index(self, world_xyz_mm: ArrayLike) -> FloatArray:
        """Turn LPS millimetres ``[..., 3]`` (x, y, z) into indices ``[..., 3]`` (z, y, x), with fractions."""
        world = np.asarray(world_xyz_mm, dtype=np.float64)
        return world @ self.inverse_lps[:3, :3].T + self.inverse_lps[:3, 3]

    def contains(self, world_xyz_mm: ArrayLike, *, margin_mm: float = 0.0) -> NDArray[np.bool_]:
        """Tell which points ``[..., 3]`` lie inside the grid's voxels, widened by ``margin_mm``; bool ``[...]``."""
        index = self.world_to_index(world_xyz_mm)
        slack = 0.5 + margin_mm / np.asarray(self.spacing_zyx_mm)
        inside = (index >= -slack) & (index <= np.asarray(self.shape_zyx) - 1 + slack)
        return np.asarray(inside.all(axis=-1))

    def crop(self, start_zyx: Sequence[int], stop_zyx: Sequence[int]) -> Geometry:
        """The grid of ``array[start:stop]``; ``start`` may be negative and ``stop`` beyond the end (padding)."""
        affine = self.affine_lps.copy()
        affine[:3, 3] = self.index_to_world(start_zyx)
        shape = tuple(int(b) - int(a) for a, b in zip(start_zyx, stop_zyx, strict=True))
        return Geometry(shape, affine, self.frame_of_reference_uid)  # type: ignore[arg-type]

    def flips_that_contain(self, world_xyz_mm: Sequence[float]) -> list[str]:
        """Name the axis flips of a point outside the grid that would bring it inside.

        Args:
            world_xyz_mm: A point in LPS mm.

        Returns:
            Descriptions such as ``"x and y (the point looks like RAS)"``; empty if no flip helps.
        """
        found = []
        for bits in sorted(range(1, 8), key=lambda b: (b != 3, b.bit_count())):
            signs = np.array([-1.0 if bits >> axis & 1 else 1.0 for axis in range(3)])
            if self.contains(np.asarray(world_xyz_mm, dtype=np.float64) * signs):
                name = " and ".join("xyz"[axis] for axis in range(3) if bits >> axis & 1)
                found.append(name + (" (the point looks like RAS)" if bits == 3 else ""))
        return found

    def require_inside(self, world_xyz_mm: Sequence[float], *, what: str) -> None:
        """Refuse a point outside the grid, saying which flip of its axes would bring it in.

        Args:
            world_xyz_mm: A point in LPS mm.
            what: What the point is, for the message: ``"nodule 3 of patient 12"``.

        Raises:
            GeometryError: The point is outside.
        """
        if self.contains(world_xyz_mm):
            return
        corners = self.index_to_world(list(itertools.product(*((0, n - 1) for n in self.shape_zyx))))
        spans = " x ".join(f"{axis.min():.1f}..{axis.max():.1f}" for axis in corners.T)
        flips = self.flips_that_contain(world_xyz_mm)
        hint = f"flipping {flips[0]} would bring it in" if flips else "are the coordinates voxels, or of another scan?"
        raise GeometryError(
            f"{what} lies outside the volume",
            got=f"({', '.join(f'{value:.1f}' for value in world_xyz_mm)}) mm",
            expected=f"LPS mm within {spans}",
            hint=hint,
        )
