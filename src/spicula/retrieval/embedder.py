"""From a nodule to its embedding, by a bundle and without torch.

A network looks at square regions of axial slices through the nodule's outline; the mean of its features over the slices
goes, with numbers that are measured in the outline, through a small head to a vector of unit length.

References:
    arXiv 2311.11014 (SimCLR features of regions, compared at unit length). The measured numbers are our addition: how
    wide a nodule is says much of what it turns out to be, and a region that is scaled or blurred tells it badly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicula.core.bundle import Bundle
from spicula.core.embedding import Embeddings
from spicula.core.errors import BundleError
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.measure.radiomics import describe, feature_vector
from spicula.runtime.openvino import Network, load_network
from spicula.transforms.nodule_slices import nodule_slices
from spicula.transforms.regions import near_outline, region_input

TASK, KIND = "search", "nodule_regions"
NETWORK_FILE, HEAD_FILE = "network.onnx", "head.onnx"


@dataclass(frozen=True, slots=True, eq=False)
class Embedder:
    """A loaded bundle.

    Args:
        fingerprint: Identity of the bundle.
        network: Regions ``[n, channels, pixels, pixels]``, 0 to 1, to features ``[n, f]``.
        head: Features and measured numbers ``[n, f + m]`` to unit vectors ``[n, d]``.
        middle: Side of what the network sees, as a share of the 56 mm that are cut.
        pixels: Rows and columns that it sees.
        with_frangi: Whether it sees Frangi's response too.
        slices: Of a nodule, at most.
        measured: Names of the measured numbers, in order.
        dimensions: Of a vector.
    """

    fingerprint: str
    network: Network
    head: Network
    middle: float
    pixels: int
    with_frangi: bool
    slices: int
    measured: tuple[str, ...]
    dimensions: int

    def __call__(self, volume: Volume, mask: Mask) -> NDArray[np.float32]:
        """Embed one nodule.

        Args:
            volume: The scan, or a small volume around the nodule, HU.
            mask: Its outline.

        Returns:
            float32 ``[d]`` of length 1.

        Raises:
            GeometryError: The outline is empty.
        """
        slices, _ = nodule_slices(volume, mask, most=self.slices)
        cut = near_outline(np.stack([one.hu for one in slices]), np.stack([one.near for one in slices]))
        regions = region_input(cut, middle=self.middle, pixels=self.pixels, with_frangi=self.with_frangi)
        features = self.network(regions)[0].mean(axis=0)
        numbers = feature_vector(describe(volume, mask), self.measured) if self.measured else np.empty(0)
        row = np.concatenate([features, np.asarray(numbers, dtype=np.float32)])[None].astype(np.float32)
        vector = self.head(row)[0][0].astype(np.float64)
        return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)

    def embed(self, volume: Volume, mask: Mask, *, finding_id: str) -> Embeddings:
        """The same, with the nodule's id and the identity of the bundle."""
        return Embeddings(self(volume, mask)[None], (finding_id,), self.fingerprint)


def load_embedder(bundle: Bundle, *, threads: int | None = None) -> Embedder:
    """Load a bundle.

    Args:
        bundle: Of task ``"search"``.
        threads: Of inference; OpenVINO chooses if None.

    Raises:
        BundleError: It is damaged or was made for another task.
    """
    outputs, seen = (
        part if isinstance(part, dict) else {} for part in (bundle.manifest["outputs"], bundle.preprocessing)
    )
    kind = outputs.get("kind")
    if bundle.task != TASK or kind != KIND:
        raise BundleError(
            f"bundle {bundle.name}: task and kind", got=f"{bundle.task}, {kind}", expected=f"{TASK}, {KIND}"
        )
    middle, frangi = seen.get("middle"), seen.get("frangi")
    pixels, slices, dimensions = (
        value if isinstance(value, int) else 0
        for value in (seen.get("pixels"), seen.get("slices_at_most"), outputs.get("dimensions"))
    )
    counted = min(pixels, slices, dimensions) > 0
    if not (counted and isinstance(middle, float) and 0 < middle <= 1 and isinstance(frangi, bool)):
        raise BundleError(
            f"bundle {bundle.name}: what it sees and gives",
            got=f"middle {middle}, frangi {frangi}, {pixels} pixels, {slices} slices, {dimensions} dimensions",
            expected="a share, yes or no, and numbers above 0",
            hint="install the bundle again, or update Spicula",
        )
    network, head = (load_network(bundle, name, threads=threads) for name in (NETWORK_FILE, HEAD_FILE))
    measured = tuple(str(name) for name in seen.get("measured", ()))
    loaded = Embedder(bundle.fingerprint, network, head, middle, pixels, frangi, slices, measured, dimensions)
    _try(loaded, bundle)
    return loaded


def _try(embedder: Embedder, bundle: Bundle) -> None:
    """Embed a made-up nodule: what a manifest says and what its networks take may differ, and both be undamaged."""
    inside = np.zeros((12, 12, 12), dtype=np.bool_)
    inside[3:9, 3:9, 3:9] = True
    grid = Geometry.from_axes(inside.shape, (1.0, 1.0, 1.0))
    try:
        got = str(len(embedder(Volume(np.where(inside, 0, -850).astype(np.int16), grid), Mask(inside, grid))))
    except (KeyError, ValueError, RuntimeError) as error:  # a name, a shape, what OpenVINO says of shapes
        got = (str(error).strip().splitlines() or ["nothing"])[-1]
    if got != str(embedder.dimensions):
        raise BundleError(
            f"bundle {bundle.name}: networks that do not fit the manifest", got=got,
            expected=f"{embedder.dimensions} numbers", hint="install the bundle again, or update Spicula",
        )  # fmt: skip
