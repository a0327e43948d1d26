"""What the store keeps of a finding beside the record of ``report.json``: its outline, and where the network looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spicula.core.analysis import Analysis
from spicula.core.finding import Finding
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.report.record import nearest_slice
from spicula.transforms.runs import runs_of

Content = Mapping[str, Any]


def contents(analysis: Analysis, findings: Sequence[Content]) -> list[dict[str, Any]]:
    """Findings of a record with ``outline`` and ``attention``.

    Args:
        analysis: What the record was made of.
        findings: Of the record, in the order of the analysis.

    Returns:
        ``outline`` as :func:`spicula.transforms.runs.runs_of` gives it on the volume's grid, None without one;
        ``attention`` with corners in LPS mm, None without one.
    """
    return [
        {
            **content,
            "outline": _outline(finding, analysis.volume.geometry),
            "attention": _attention(content, analysis.volume),
        }
        for finding, content in zip(analysis.findings, findings, strict=True)
    ]


def _outline(finding: Finding, geometry: Geometry) -> Mapping[str, Any] | None:
    return None if finding.mask is None else runs_of(finding.mask, geometry)


def _attention(content: Content, volume: Volume) -> dict[str, Any] | None:
    """The look of the self-supervised network as shares of its strongest patch, with the corners of its square."""
    seen = content.get("self_supervised")
    if not seen or not seen["attention"] or seen["side_mm"] is None or None in seen["center_xyz_mm"]:
        return None
    strongest = max(share or 0.0 for row in seen["attention"] for share in row) or 1.0
    x, y, z = seen["center_xyz_mm"]
    half = seen["side_mm"] / 2
    return {
        "slice_index": nearest_slice(volume, (x, y, z))[0],
        "grid": [[round((share or 0.0) / strongest, 3) for share in row] for row in seen["attention"]],
        "corner_xyz_mm": [x - half, y - half, z],
        "row_end_xyz_mm": [x + half, y - half, z],
        "column_end_xyz_mm": [x - half, y + half, z],
    }
