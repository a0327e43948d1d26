"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ASIDE = ".spicula-"
"""How the folders begin in which files are written aside; one that is left was left by a process that was killed."""


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Write a file aside and move it into place when the block ends well.

    Args:
        target: Where the file shall be; its folder is made.

    Yields:
        A path in the same folder to write to; it is removed when the block fails.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o644)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def folder_written_aside(folder: Path, *, replaces: Sequence[str] = ()) -> Iterator[Path]:
    """Write several files aside and move each into ``folder`` when the block ends well.

    The last of ``replaces`` is what tells that the others are whole: it is removed first and moved last.

    Args:
        folder: Where the files shall be; other files in it are left alone.
        replaces: Names that belong to the set: older ones that are not written anew are removed.

    Yields:
        An empty folder to write to; it is removed in any case.
    """
    existed = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=folder))
    order = {name: number for number, name in enumerate(replaces)}
    try:
        yield aside
        for name in reversed(replaces):
            (folder / name).unlink(missing_ok=True)
        for path in sorted(aside.iterdir(), key=lambda path: order.get(path.name, -1)):
            os.replace(path, folder / path.name)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        if not existed:
            with suppress(OSError):
                folder.rmdir()
        raise
    aside.rmdir()


def to_disk(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk, so that they outlast a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
