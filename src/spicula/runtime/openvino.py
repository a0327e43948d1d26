"""Run a bundle's ONNX network on a CPU through OpenVINO; no torch."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.bundle import Bundle


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A compiled network: call it with float32 arrays in the order of its inputs, get its outputs in order.

    Several threads may call it at once; each has an inference request of its own.
    """

    compiled: Any
    _own: threading.local = field(default_factory=threading.local, repr=False)

    def __call__(self, *inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Run one batch.

        Args:
            inputs: One float32 array for each input; the first axis is the batch.

        Returns:
            One float32 array for each output.
        """
        if not hasattr(self._own, "request"):
            self._own.request = self.compiled.create_infer_request()
        results = self._own.request.infer([np.ascontiguousarray(array, dtype=np.float32) for array in inputs])
        return tuple(np.array(results[output], dtype=np.float32) for output in self.compiled.outputs)


def load_network(bundle: Bundle, file: str = "network.onnx", *, threads: int | None = None) -> Network:
    """Compile a bundle's network for the CPU, in float32; a network is compiled once in a process.

    Args:
        bundle: The bundle.
        file: Which of its ONNX files.
        threads: Number of inference threads; OpenVINO chooses if None.

    Returns:
        The network.

    Raises:
        BundleError: The file is missing or does not match its hash.
    """
    return _compile(str(bundle.file(file)), bundle.manifest["files"][file], threads)


@lru_cache(maxsize=16)
def _compile(path: str, _sha256: str, threads: int | None) -> Network:
    import openvino

    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    return Network(openvino.Core().compile_model(path, "CPU", config))
