"""From a torch network to the bytes of an ONNX file with weights stored in half precision."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from spicula.networks.clip import Attention, SplitAttention


def to_onnx(
    network: torch.nn.Module, example: torch.Tensor, *, half: bool = True, outputs: Sequence[str] = ("logits",)
) -> bytes:
    """Export a network with one input, the first axis of it and of the outputs being a batch of any size.

    Packed attentions are exported with q, k and v apart: the same numbers without cutting a product in three.

    Args:
        network: Set to evaluation by this function.
        example: An input, of a batch of two or more.
        half: Store large weights as float16 (computed in float32 nevertheless).
        outputs: Names of what the network returns.

    Returns:
        The ONNX file; its input is ``image``.
    """
    network = _split(network.float().eval().to(memory_format=torch.contiguous_format))
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own deprecated calls
        logger.setLevel(logging.ERROR)
        path = Path(folder) / "network.onnx"
        try:
            torch.onnx.export(
                network,
                (example.contiguous(),),
                path,
                input_names=["image"],
                output_names=list(outputs),
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        finally:
            logger.setLevel(level)
        model = onnx.load(path)
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    if half:
        _store_half(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _split(network: torch.nn.Module) -> torch.nn.Module:
    """A copy that shares its weights, its packed attentions split; the network itself where it has none."""
    if not any(isinstance(module, Attention) for module in network.modules()):
        return network
    shared = [*network.parameters(), *network.buffers()]
    network = copy.deepcopy(network, {id(value): value for value in shared})
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Attention):
                setattr(parent, name, SplitAttention(child).train(child.training))
    return network


def _store_half(model: onnx.ModelProto, *, least: int = 256) -> None:
    """Turn large float32 initializers into float16 ones, each followed by a cast back."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < least:
            continue
        name = tensor.name
        stored = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name=f"{name}.half")
        tensor.CopyFrom(stored)
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    for position, cast in enumerate(casts):
        model.graph.node.insert(position, cast)
