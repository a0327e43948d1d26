"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
def folder_written_aside(folder: Path) -> Iterator[Path]:
    """Write several files aside and move each into ``folder`` when the block ends well.

    The files are moved in the order of their names but for ``report.json``, which comes last: where it is, the
    others are.

    Args:
        folder: Where the files shall be; other files in it are left alone.

    Yields:
        An empty folder to write to; it is removed in any case.
    """
    existed = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".spicula-", dir=folder))
    try:
        yield aside
        for path in sorted(aside.iterdir(), key=lambda path: (path.name == "report.json", path.name)):
            os.replace(path, folder / path.name)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        if not existed:
            with suppress(OSError):
                folder.rmdir()
        raise
    aside.rmdir()
