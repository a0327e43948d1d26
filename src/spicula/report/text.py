"""Text from headers and tables, made fit to be shown."""

from __future__ import annotations


def plain_text(text: str) -> str:
    """Text without control characters and half characters, which headers may hold and JSON and HTML may not."""
    readable = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(" " if ord(c) < 32 or 127 <= ord(c) < 160 else c for c in readable).strip()
