"""Pictures of queries and matches, where their scans are at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from spicula.core.embedding import Facts, Match
from spicula.core.errors import SpiculaError
from spicula.core.finding import Finding, Point
from spicula.core.volume import Volume
from spicula.formats import read_volume
from spicula.pipelines.search import Query
from spicula.report.pictures import Picture, plane_pictures


class Gallery:
    """Finds scans and shows the axial plane through a place; the scan read last is kept.

    Args:
        images: Folder of the indexed scans, in folders named by patient or not, for matches without a path.
        read: Reads an image by its path.
    """

    def __init__(self, images: Path | None, *, read: Callable[[Path], Volume]) -> None:
        self.images, self.read = images, read
        self._last: tuple[str, Volume | None] = ("", None)

    def of_query(self, query: Query) -> Picture | None:
        """Of a query; None where its image or place is not known or cannot be read."""
        if query.image is None or query.center_xyz_mm is None:
            return None
        image = query.image
        return self._shown(str(image), lambda: self.read(image), query.center_xyz_mm, None)

    def of_matches(self, matches: Sequence[Match]) -> tuple[Picture | None, ...]:
        """Of each match; None likewise."""
        return tuple(self._of_match(match.facts) for match in matches)

    def _of_match(self, facts: Facts) -> Picture | None:
        place = [facts.get(f"{axis}_mm") for axis in "xyz"]
        x, y, z = (value if isinstance(value, float) else None for value in place)
        if x is None or y is None or z is None:
            return None
        size = facts.get("diameter_mm")
        diameter = size if isinstance(size, float) else None
        path, uid = facts.get("image_path"), facts.get("series_uid")
        if isinstance(path, str) and Path(path).exists():
            return self._shown(path, lambda: self.read(Path(path)), (x, y, z), diameter)
        if self.images is None or not isinstance(uid, str):
            return None
        folder = self.images / str(facts["pid"])
        root = folder if folder.exists() else self.images
        return self._shown(uid, lambda: read_volume(root, series_uid=uid), (x, y, z), diameter)

    def _shown(
        self, name: str, load: Callable[[], Volume], center: Point, diameter_mm: float | None
    ) -> Picture | None:  # fmt: skip
        if self._last[0] != name:
            try:
                self._last = (name, load())
            except (SpiculaError, OSError):
                self._last = (name, None)
        volume = self._last[1]
        return None if volume is None else plane_pictures(volume, Finding("", center, diameter_mm))[0]
