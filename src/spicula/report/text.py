"""What every page and record does alike: text made fit to be shown, numbers that JSON knows, templates filled in."""

from __future__ import annotations

import math
from pathlib import Path

DISCLAIMER = "Research software, not a medical device. Not for diagnosis, treatment or triage."
"""Of every page and record."""


def plain_text(text: str) -> str:
    """Text without control characters and half characters, which headers may hold and JSON and HTML may not."""
    readable = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(" " if ord(c) < 32 or 127 <= ord(c) < 160 else c for c in readable).strip()


def number(value: float | None, digits: int = 4) -> float | None:
    """A number as a record holds it: rounded; None where it is not known or not finite."""
    return round(float(value), digits) if value is not None and math.isfinite(value) else None


def rendered(template: str, **facts: object) -> str:
    """A page of this folder, filled in; all text is escaped, and a fact that the page lacks is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**facts)
