"""``spicula train``: what does not fit is told before anything is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tokenizers", reason="pip install spicula")


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--clip", "weights"], "none with the compact towers"), (["--config", "paper"], "--clip BUNDLE")],
)
def test_recipes_that_do_not_fit_are_told(tmp_path: Path, options: list[str], told: str) -> None:
    pytest.importorskip("torch", reason="pip install 'spicula[train]'")
    command = ["train", "semantic", "--data", str(tmp_path), "--out", str(tmp_path / "run"), *options]
    done = subprocess.run([sys.executable, "-m", "spicula.cli", *command], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert told in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
