"""Optional packages: imported on use, with the exact install line when they are absent."""

from __future__ import annotations

import importlib
from types import ModuleType

from spicula.core.errors import MissingExtraError


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional module or say which extra brings it.

    Args:
        module: Dotted name, for example ``"torch"``.
        extra: Name of the extra in ``pyproject.toml`` that installs it.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: The module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"package {module!r} is not installed", hint=f"pip install 'spicula[{extra}]'"
        ) from error
