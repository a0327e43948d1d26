"""The documents say what is there: commands, files and numbers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_that_the_documents_show_exists() -> None:
    from typer.main import get_command

    from spicula.cli import app

    known = get_command(app).commands  # type: ignore[attr-defined]
    shown = {
        tuple(words)
        for page in PAGES
        for line in page.read_text(encoding="utf-8").splitlines()
        for words in re.findall(r"^(?:\.venv/bin/)?spicula ([a-z]+)(?: ([a-z][a-z0-9]*(?:-[a-z]+)*))?", line.strip())
    }
    assert {first for first, _ in shown} >= {"analyze", "score", "info", "train"}
    for first, second in shown:
        assert first in known, first
        if hasattr(known[first], "commands"):
            assert second in known[first].commands, (first, second)


def test_the_results_in_the_readme_are_those_of_the_files() -> None:
    script = ROOT / "benchmarks" / "readme_results.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_metric_is_on_its_page() -> None:
    import inspect
    import pkgutil
    from importlib import import_module

    import spicula.metrics

    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    for entry in pkgutil.walk_packages(spicula.metrics.__path__, "spicula.metrics."):
        module = import_module(entry.name)
        for name, thing in vars(module).items():
            if inspect.isfunction(thing) and thing.__module__ == entry.name and not name.startswith("_"):
                row = f"| `{entry.name.removeprefix('spicula.metrics.')}` | `{name}` |"
                assert row in page, f"docs/reference/metrics.md lacks {row}"


def test_the_makefile_has_the_two_commands_of_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("demo", "test"):
        assert f"make {command}" in readme
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)
