"""Files that a command will write, looked at before it works for minutes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spicula.cli.optional_value import STDOUT
from spicula.core.errors import InputError
from spicula.core.files import written_aside


def check_outputs(written: Mapping[str, str | Path | None], read: Iterable[Path | None] = ()) -> None:
    """Refuse a folder in place of a file, and one file for two purposes.

    Args:
        written: Option and file to write; None, and ``-`` for printing, are passed over.
        read: Files that the command reads.

    Raises:
        InputError: A file to write is a folder, is read by the command, or is named for two options; names the option.
    """
    taken = {path.resolve(): "is read" for path in read if path is not None}
    for option, name in written.items():
        if name is None or str(name) == STDOUT:
            continue
        path = Path(name)
        if path.is_dir():
            raise InputError(f"{option} {path}", got="a folder", expected="the name of a file to write")
        if path.resolve() in taken:
            raise InputError(f"{option} {path}", got=f"a file that {taken[path.resolve()]}", expected="another name")
        taken[path.resolve()] = f"{option} writes"


def write_json(path: Path, record: Any) -> None:
    """Write a record for programs, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
