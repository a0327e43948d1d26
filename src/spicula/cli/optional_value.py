"""Options that may be given without a value: ``--json`` prints, ``--json FILE`` writes."""

from __future__ import annotations

from typing import Any, ClassVar

from typer.core import TyperCommand

STDOUT = "-"
"""Value of ``--json`` that stands for printing."""


class OptionalValues(TyperCommand):
    """A command whose options named in :attr:`bare` take a value of their own where none follows."""

    bare: ClassVar[dict[str, str]] = {"--json": STDOUT, "--plot": "froc.png", "--html": "evaluation.html"}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Fill in the values that are left out, then parse as usual."""
        filled: list[str] = []
        for place, word in enumerate(args):
            filled.append(word)
            following = args[place + 1] if place + 1 < len(args) else "--"
            if word in self.bare and following.startswith("-") and following != STDOUT:
                filled.append(self.bare[word])
        return super().parse_args(ctx, filled)
