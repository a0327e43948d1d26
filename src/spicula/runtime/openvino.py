"""Run a bundle's ONNX networks on a CPU through OpenVINO; no torch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from spicula.core.bundle import Bundle
from spicula.core.errors import InputError

Precision: TypeAlias = Literal["f32", "bf16"]
"""What is computed in; int8 is a matter of the ONNX file, see :mod:`spicula.runtime.quantize`."""

Outputs: TypeAlias = tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A compiled network: call it with float32 arrays in the order of its inputs, get its outputs in order.

    Several threads may call it at once; each has an inference request of its own.
    """

    compiled: Any
    _own: threading.local = field(default_factory=threading.local, repr=False)

    def __call__(self, *inputs: NDArray[np.float32]) -> Outputs:
        """Run one batch.

        Args:
            inputs: One float32 array for each input; the first axis is the batch.

        Returns:
            One float32 array for each output.
        """
        return self._outputs(self._request().infer(_arrays(inputs)))

    def _request(self) -> Any:
        if not hasattr(self._own, "request"):
            self._own.request = self.compiled.create_infer_request()
        return self._own.request

    def _outputs(self, results: Any) -> Outputs:
        return tuple(np.array(results[output], dtype=np.float32) for output in self.compiled.outputs)


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Networks that all see the same input, see :func:`load_ensemble`.

    Args:
        networks: In order.
        abreast: So many run at a time, each on a thread of its own, as long as there are so many; what is left runs
            one after the other on all threads. With 1 all run one after the other.
    """

    networks: tuple[Network, ...]
    abreast: int = 1

    def __call__(self, *inputs: NDArray[np.float32]) -> tuple[Outputs, ...]:
        """Run one batch through each network.

        Args:
            inputs: As for a :class:`Network`.

        Returns:
            The outputs of each network, in order.
        """
        arrays = _arrays(inputs)
        whole = len(self.networks) - len(self.networks) % self.abreast if self.abreast > 1 else 0
        found: list[Outputs] = []
        for start in range(0, whole, self.abreast):
            found += _side_by_side(self.networks[start : start + self.abreast], arrays)
        return (*found, *(network(*arrays) for network in self.networks[whole:]))


def _arrays(inputs: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    return [np.ascontiguousarray(array, dtype=np.float32) for array in inputs]


def _side_by_side(networks: Sequence[Network], arrays: list[NDArray[np.float32]]) -> list[Outputs]:
    requests = [network._request() for network in networks]
    with ExitStack() as running:
        for request in requests:
            request.start_async(arrays)
            running.callback(request.wait)  # all are waited for, also where one fails
    return [network._outputs(request.results) for network, request in zip(networks, requests, strict=True)]


def load_network(
    bundle: Bundle,
    file: str = "network.onnx",
    *,
    threads: int | None = None,
    precision: Precision = "f32",
    batch: int | None = None,
) -> Network:
    """Compile a bundle's network for the CPU; a network is compiled once in a process.

    Args:
        bundle: The bundle.
        file: Which of its ONNX files.
        threads: Number of inference threads; OpenVINO chooses if None.
        precision: What is computed in. ``"bf16"`` takes half the time where the CPU has it (avx512_bf16, AMX) and gives
            three digits; elsewhere it is refused.
        batch: The only batch that will be run, which is a little faster; any if None.

    Returns:
        The network.

    Raises:
        BundleError: The file is missing or does not match its hash.
        InputError: The precision is unknown or the CPU has none of it, or the batch is not positive.
    """
    _check(precision, batch)
    return _compile(str(bundle.file(file)), bundle.manifest["files"][file], threads, precision, batch)


def load_ensemble(
    bundle: Bundle,
    files: Sequence[str],
    *,
    threads: int | None = None,
    precision: Precision = "f32",
    batch: int | None = None,
) -> Ensemble:
    """Compile networks that all see the same input.

    Networks side by side on a thread each are faster than one after the other on all threads, whose threads wait for
    each other after every layer. So with ``threads`` given as many run abreast; what is left over takes all threads.

    Args:
        bundle: The bundle.
        files: Its ONNX files.
        threads: Number of inference threads in all; None: one network after the other, on as many as OpenVINO chooses.
        precision: As for :func:`load_network`.
        batch: As for :func:`load_network`.

    Returns:
        The ensemble.

    Raises:
        BundleError: A file is missing or does not match its hash.
        InputError: As for :func:`load_network`.
    """
    abreast = threads if threads is not None and 1 < threads <= len(files) else 1
    whole = len(files) - len(files) % abreast if abreast > 1 else 0
    networks = [
        load_network(bundle, file, threads=1 if place < whole else threads, precision=precision, batch=batch)
        for place, file in enumerate(files)
    ]
    return Ensemble(tuple(networks), abreast)


def _check(precision: str, batch: int | None) -> None:
    if precision not in get_args(Precision):
        raise InputError(
            "precision", got=repr(precision), expected=" or ".join(map(repr, get_args(Precision))),
            hint="for int8 load a quantized file",
        )  # fmt: skip
    if precision == "bf16" and "BF16" not in _capabilities():
        raise InputError(
            "precision 'bf16'", got="a CPU without it", expected="avx512_bf16 or AMX", hint="use precision 'f32'"
        )
    if batch is not None and batch < 1:
        raise InputError("batch", got=batch, expected="1 or more")


@lru_cache(maxsize=1)
def _capabilities() -> frozenset[str]:
    """What the CPU computes in, in OpenVINO's words."""
    import openvino

    return frozenset(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@lru_cache(maxsize=16)
def _compile(path: str, _sha256: str, threads: int | None, precision: str, batch: int | None) -> Network:
    import openvino

    core = openvino.Core()
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    if threads == 1:
        config["ENABLE_CPU_PINNING"] = False  # else networks side by side would share the first core
    model = core.read_model(path)
    if batch is not None:
        model.reshape({port: openvino.PartialShape([batch, *list(port.partial_shape)[1:]]) for port in model.inputs})
    return Network(core.compile_model(model, "CPU", config))
