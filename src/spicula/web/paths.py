"""Places on the server's disk, which no answer tells."""

from __future__ import annotations

import re

_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/:'\"]+/)+")


def without_folders(text: str) -> str:
    """A message in which absolute paths are cut to the name of the file.

    Example:
        >>> without_folders("/srv/store/uploads/3f/000000.zip: got a broken zip")
        '000000.zip: got a broken zip'
    """
    return _FOLDERS.sub("", text)
