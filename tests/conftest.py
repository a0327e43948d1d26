"""Fixtures of all tests: one thread, the development data, the fetched sample."""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the development data (SPICULA_SHARED, default ../shared); skips where it is absent."""
    root = Path(os.environ.get("SPICULA_SHARED", "../shared")).resolve()
    if not (root / "data").is_dir():
        message = f"no development data at {root}: set SPICULA_SHARED to its folder"
        if os.environ.get("SPICULA_NO_SKIP"):
            pytest.fail(message)
        pytest.skip(message)
    return root / "data"
