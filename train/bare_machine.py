"""A machine that has torch but not what reads scans: what must be there, and how to do without the rest."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NEEDED = ("torch", "numpy", "safetensors", "accelerate")
NOT_NEEDED = (
    "SimpleITK", "scipy", "nibabel", "pydicom", "gdcm", "highdicom", "jpeg_ls", "pylibjpeg", "openjpeg", "PIL",
    "requests", "urllib3", "platformdirs", "openvino", "sklearn", "onnx", "tokenizers",
)  # fmt: skip


class _Absent(ModuleType):
    """Stands for a package that is not there and is not used: all that is asked of it is as absent."""

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **more: Any) -> Any:
        raise ModuleNotFoundError(f"{self.__name__} is not on this machine")


class _Absence(MetaPathFinder, Loader):
    """Gives :class:`_Absent` for some packages and what lies in them."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = frozenset(packages)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Of a package in the list only."""
        return ModuleSpec(fullname, self, is_package=True) if fullname.split(".")[0] in self.packages else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty one."""
        return _Absent(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def is_there(package: str) -> bool:
    """Whether a package can be imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def prepare() -> list[str]:
    """Stop where a needed package is lacking, and do without those that are not needed; their names."""
    lacking = [package for package in NEEDED if not is_there(package)]
    if lacking:
        sys.exit(f"error: {sys.executable} lacks {', '.join(lacking)}. Hint: PYTHON=/path/to/another/python")
    absent = [package for package in NOT_NEEDED if not is_there(package)]
    sys.meta_path.insert(0, _Absence(absent))
    return absent
