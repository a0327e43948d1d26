"""A real server on a free port."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.dicom.writer import write_series
from spicula.pipelines.workplace import open_workplace
from spicula.web.app import make_app
from spicula.web.limits import Limits


@pytest.fixture(scope="session")
def series(tmp_path_factory) -> Path:
    """Twelve slices of noise."""
    folder = tmp_path_factory.mktemp("series")
    noise = np.random.default_rng(0).integers(-1000, 400, (12, 32, 40)).astype(np.int16)
    volume = Volume(noise, Geometry.from_axes(noise.shape, (2.0, 0.7, 0.7)))
    write_series(folder, volume, patient_id="P1", description="noise", patient_name="Doe^Jane", study_date="20200102")
    return folder


@pytest.fixture
def workplace(tmp_path):
    with open_workplace(tmp_path / "store") as place:
        yield place


@pytest.fixture
def server(workplace) -> Iterator[str]:
    """Address of a server over an empty store; uploads of 4 MB at most."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = make_app(workplace, limits=Limits(upload_bytes=4_000_000, instance_bytes=1_000_000))
    running = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started and thread.is_alive():
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    running.should_exit = True
    thread.join()
