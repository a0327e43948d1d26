"""Spicula: from a chest CT to its lung nodules. Research software, not a medical device."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

__version__ = version("spicula")

_PUBLIC = {
    "Bundle": "spicula.core.bundle",
    "Case": "spicula.core.finding",
    "Finding": "spicula.core.finding",
    "Geometry": "spicula.core.geometry",
    "Mask": "spicula.core.volume",
    "Prediction": "spicula.core.prediction",
    "SpiculaError": "spicula.core.errors",
    "Volume": "spicula.core.volume",
    "analyze": "spicula.pipelines.analyze",
    "load_bundle": "spicula.core.bundle",
    "read_volume": "spicula.formats",
    "score": "spicula.pipelines.score",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Resolve a public name on first use, so that ``import spicula`` loads nothing heavy."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'spicula' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
