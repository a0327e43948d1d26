"""A training's folder: ``run.json`` says with what it was made, and the same command goes on where it stopped."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spicula.core.errors import InputError
from spicula.core.files import written_aside

RUN = "run.json"
PACKAGES = (
    "spicula",
    "numpy",
    "scipy",
    "torch",
    "scikit-learn",
    "onnx",
    "onnxscript",
    "openvino",
    "SimpleITK",
    "accelerate",
    "peft",
    "tokenizers",
)


def open_run(out: Path, task: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Start ``run.json``, or go on with the one that is there if its arguments are the same.

    Args:
        out: The run folder.
        task: For example ``"train risk"``.
        arguments: All that decides the result, as plain JSON values.

    Returns:
        The content of ``run.json``.

    Raises:
        InputError: The folder is a run with other arguments.
    """
    path = out / RUN
    if path.is_file():
        run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if run["arguments"] != arguments:
            raise InputError(
                f"{path}: arguments",
                got=dict(arguments),
                expected=run["arguments"],
                hint="name another folder with --out",
            )
        return run
    run = {"task": task, "arguments": dict(arguments), "started": time.time(), "versions": versions()}
    write_json(path, run)
    return run


def versions() -> dict[str, str]:
    """Versions of Python, of the packages that matter, and the commit of this checkout where it is one."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found["commit"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        found["commit"] = "unknown"
    return found


def write_json(path: Path, content: Mapping[str, Any], *, finite: bool = False) -> None:
    """Write JSON aside and move it into place.

    Args:
        path: The file.
        content: Plain JSON values.
        finite: Refuse NaN and infinity, which are no JSON; for records that other programs read.

    Raises:
        ValueError: A number is not finite where that is asked for.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=not finite) + "\n"
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def as_json(value: Any) -> Any:
    """As JSON gives it back: lists for tuples.

    Example:
        >>> as_json({"sizes": (1, 2)})
        {'sizes': [1, 2]}
    """
    if isinstance(value, dict):
        return {name: as_json(one) for name, one in value.items()}
    return [as_json(one) for one in value] if isinstance(value, tuple | list) else value
