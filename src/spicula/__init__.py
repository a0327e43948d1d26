"""Spicula: from a chest CT to its lung nodules. Research software, not a medical device."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    explain: Any  # a type checker would take the package of this name

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
    "explain": "spicula.pipelines.explain",
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


class _Package(ModuleType):
    """Keeps ``spicula.explain`` the job although there is a package of that name.

    Python sets a package as an attribute of the one it lies in when it is first imported, so that what
    ``from spicula import explain`` gives would depend on what was imported before.
    ``from spicula.explain.prompts import ...`` is not touched by this.
    """

    @property
    def explain(self) -> Any:
        """The job :func:`spicula.pipelines.explain.explain`."""
        return __getattr__("explain")

    @explain.setter
    def explain(self, package: ModuleType) -> None:
        """Python's import of the package of that name."""


sys.modules[__name__].__class__ = _Package
