"""Small ONNX networks for the tests of the runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def bundle_of(tmp_path: Path) -> Callable[[dict[str, bytes]], Any]:
    """Makes a bundle of ONNX files."""
    from spicula.core.bundle import write_bundle

    def make(files: dict[str, bytes]) -> Any:
        manifest = {"name": "t", "version": "1", "task": "semantic", "preprocessing": {}, "outputs": [], "card": {}}
        return write_bundle(tmp_path / "bundle", manifest, files)

    return make


@pytest.fixture
def products() -> Callable[..., bytes]:
    """Makes a layer norm of 64 channels and two layers behind it, the second through a slice of the first two rows.

    Input ``[batch, 6, 64]``; output ``[batch, 6, 96]``. With ``outliers`` some channels of the norm are very large.
    """
    onnx = pytest.importorskip("onnx", reason="pip install 'spicula[train]'")
    from onnx import TensorProto, helper, numpy_helper

    def make(seed: int = 0, *, outliers: float = 1.0, half: bool = False, norm: bool = True) -> bytes:
        rng = np.random.default_rng(seed)
        gain = np.ones(64, dtype=np.float32)
        gain[[3, 40]] = outliers
        weight = {"wide": rng.normal(size=(64, 96)) / 8, "first": rng.normal(size=(64, 96)) / 8}
        weight["wide"][[3, 40]] /= outliers
        weight["first"][[3, 40]] /= outliers
        constants = {
            "gain": gain, "offset": 0.1 * rng.normal(size=64), **weight, "bias": rng.normal(size=96),
        }  # fmt: skip
        stored = [numpy_helper.from_array(np.asarray(v, dtype=np.float32), name=k) for k, v in constants.items()]
        cast = []
        if half:
            stored[2] = numpy_helper.from_array(weight["wide"].astype(np.float16), name="wide.half")
            cast = [helper.make_node("Cast", ["wide.half"], ["wide"], to=TensorProto.FLOAT)]
        for name, value in {"start": [0], "end": [1], "axis": [1]}.items():
            stored.append(numpy_helper.from_array(np.array(value, dtype=np.int64), name=name))
        first = helper.make_node("LayerNormalization", ["image", "gain", "offset"], ["x"], axis=-1)
        nodes = [
            *cast,
            first if norm else helper.make_node("Identity", ["image"], ["x"]),
            helper.make_node("MatMul", ["x", "wide"], ["of_all"]),
            helper.make_node("Slice", ["x", "start", "end", "axis"], ["x_first"]),
            helper.make_node("MatMul", ["x_first", "first"], ["of_first"]),
            helper.make_node("Add", ["of_all", "of_first"], ["sum"]),
            helper.make_node("Add", ["sum", "bias"], ["logits"]),
        ]
        ports = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 6, 64])]
        outs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 6, 96])]
        model = helper.make_model(
            helper.make_graph(nodes, "t", ports, outs, stored), opset_imports=[helper.make_opsetid("", 20)]
        )
        model.ir_version = 10
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())

    return make
