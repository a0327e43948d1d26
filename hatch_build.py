"""Builds the page of ``spicula serve`` from ``viewer/`` into the package, with npm, where it is missing or older."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGE = "src/spicula/web/page"


class PageHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before a wheel, a source distribution or an editable install is made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page and take it along.

        Args:
            version: ``"editable"`` for an editable install.
            build_data: Told which files are taken along although git does not know them.
        """
        root = Path(self.root)
        build_data["artifacts"].append(f"/{PAGE}/**")
        if os.environ.get("SPICULA_NO_PAGE") or not _is_stale(root):
            return
        npm = shutil.which("npm")
        if npm is None:
            self.app.display_warning(
                "The page of 'spicula serve' is not built: npm is not here. Install Node.js 20, then 'make viewer'."
            )
            return
        try:
            for command in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
                subprocess.run([npm, *command], cwd=root / "viewer", check=True)
        except subprocess.CalledProcessError as error:
            if version != "editable":
                raise
            self.app.display_warning(f"The page of 'spicula serve' is not built: {error}. Later: 'make viewer'.")


def _is_stale(root: Path) -> bool:
    """Whether the page is missing or older than what it is made of; never where its sources are not here."""
    viewer, built = root / "viewer", root / PAGE / "index.html"
    if not viewer.is_dir():
        return False
    sources = [path for path in (viewer / "src").rglob("*") if path.is_file()]
    sources += [viewer / name for name in ("index.html", "package-lock.json", "vite.config.ts")]
    return not built.is_file() or max(path.stat().st_mtime for path in sources) > built.stat().st_mtime
