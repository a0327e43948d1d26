"""DINOv2's weights from the files that others publish, read strictly (needs torch).

Names that nothing here knows are kept, so that :func:`load_strictly` refuses them; nothing is loaded in part.

References:
    Oquab et al. 2023, arXiv 2304.07193: the published files (``dinov2_vitl14_pretrain.pth``) and the checkpoints that
    the published training writes; ``transformers.Dinov2Model`` and ``Dinov2WithRegistersModel``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.networks.clip_weights import checked_state, read_archive
from spicula.networks.vit import SHAPES, FeedForward, VisionTransformer, VitShape

_Value = TypeVar("_Value")

_PUBLISHED = {shape.width: shape for shape in SHAPES.values()}
"""Architectures by width: a file cannot lack the last blocks unseen, and the heads are known, which no shape tells."""
_ENTRIES = ("teacher", "model", "state_dict")
"""Of a file, that hold weights by name; the first of these that there is."""
_HEADS = ("dino_head.", "ibot_head.")
_CLASSIFIED = ("dinov2.", "dinov2_with_registers.")
"""Before the names of the backbone of a classifier of transformers."""
_TRAINING = ("student.", "dino_loss.", "ibot_patch_loss.", "koleo_loss.")
"""Beside ``teacher.`` in a checkpoint of the training."""
_WRAPPED = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What data-parallel training, compilation and checkpointing put into names."""
_CHUNK = re.compile(r"blocks\.\d+\.(\d+\..+)")
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_FEW = 6

_HF = {
    "embeddings.cls_token": "cls_token", "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed", "embeddings.register_tokens": "register_tokens",
} | {
    f"{theirs}.{part}": f"{ours}.{part}"
    for theirs, ours in (("embeddings.patch_embeddings.projection", "patch_embed.proj"), ("layernorm", "norm"))
    for part in ("weight", "bias")
}  # fmt: skip
_HF_BLOCK = {
    "norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
    "attention.output.dense": "attn.proj", "attention.o_proj": "attn.proj",
    "mlp.weights_in": "mlp.w12", "mlp.weights_out": "mlp.w3", "mlp.down_proj": "mlp.w3",
    "layer_scale1": "ls1", "layer_scale2": "ls2",
}  # fmt: skip
"""In files, and since transformers 5 in memory."""
_HF_PACKED = (
    ("attn.qkv", ("attention.attention.query", "attention.attention.key", "attention.attention.value")),
    ("attn.qkv", ("attention.q_proj", "attention.k_proj", "attention.v_proj")),
    ("mlp.w12", ("mlp.gate_proj", "mlp.up_proj")),
)
_HF_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias|lambda1)")


def read_dinov2(path: Path) -> dict[str, torch.Tensor]:
    """The backbone of a file of DINOv2, under the published names.

    These are read: the published files, bare or under ``model``; the teacher of the training's
    ``teacher_checkpoint.pth`` and of its full checkpoints, blocks in chunks or not; files of transformers with and
    without registers, with or without a classifier; all as ``torch.save`` or safetensors. Heads are left out.

    Args:
        path: The file.

    Returns:
        float32 weights by name, for :func:`load_strictly`.

    Raises:
        InputError: It cannot be read, holds pickled objects, is sharded, has a student alone, a name twice, or a value
            that is no finite tensor.
    """
    named = _teacher(path)
    if any(name.startswith("backbone.") for name in named):
        named = _unique(
            ((name.removeprefix("backbone."), value) for name, value in named.items() if not name.startswith(_HEADS)),
            source=path,
        )
    prefix = next((p for p in _CLASSIFIED if any(name.startswith(p) for name in named)), None)
    if prefix:
        bare = (
            (name.removeprefix(prefix), value) for name, value in named.items() if not name.startswith("classifier.")
        )
        named = _unique(bare, source=path)
    state = checked_state(named, source=str(path))
    if any(name.startswith("embeddings.") for name in state):
        state = hf_to_dinov2(state)
    chunks = ((_CHUNK.fullmatch(name), name, value) for name, value in state.items())
    return _unique(((f"blocks.{chunk[1]}" if chunk else name, value) for chunk, name, value in chunks), source=path)


def hf_to_dinov2(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of ``transformers.Dinov2Model`` or ``Dinov2WithRegistersModel``, in files or in memory, to published ones.

    Query, key and value, and the two halves of SwiGLU, are packed. What is unknown or lacks a part keeps its name.

    Args:
        state: Without the prefix of a classifier.

    Raises:
        InputError: A weight is there under two names.
    """
    found: list[tuple[str, torch.Tensor]] = []
    packed: set[str] = set()
    for layer in filter(None, map(_HF_LAYER.fullmatch, state)):
        for target, parts in _HF_PACKED:
            names = [f"encoder.layer.{layer[1]}.{part}.{layer[3]}" for part in parts]
            if layer[2] == parts[0] and state.keys() >= {*names}:
                pieces = [state[name] for name in names]
                if pieces[0].ndim and len({piece.shape for piece in pieces}) == 1:
                    packed.update(names)
                    found.append((f"blocks.{layer[1]}.{target}.{layer[3]}", torch.cat(pieces)))
    for name, value in state.items():
        block = _HF_LAYER.fullmatch(name)
        if block and block[2] in _HF_BLOCK:
            kind = "gamma" if block[3] == "lambda1" else block[3]
            found.append((f"blocks.{block[1]}.{_HF_BLOCK[block[2]]}.{kind}", value))
        elif name not in packed:
            found.append((_HF.get(name, name), value))
    return _unique(found, source="weights of transformers")


def read_heads(path: Path) -> dict[str, torch.Tensor]:
    """The heads of the teacher in a checkpoint of DINOv2's training: ``dino_head.*`` and, if apart, ``ibot_head.*``.

    Args:
        path: ``teacher_checkpoint.pth`` or a full checkpoint.

    Returns:
        float32 weights by name.

    Raises:
        InputError: As :func:`read_dinov2`, or there are no heads, as in all published files.
    """
    heads = {name: value for name, value in _teacher(path).items() if name.startswith(_HEADS)}
    if not heads:
        raise InputError(f"{path}", got="no heads", expected="dino_head.*", hint="published files are backbones alone")
    return checked_state(heads, source=str(path))


def shape_of(
    state: Mapping[str, torch.Tensor],
    *,
    depth: int | None = None,
    heads: int | None = None,
    source: str = "the weights",
) -> VitShape:
    """What a vision transformer is made of, from its weights.

    Args:
        state: Of :func:`read_dinov2`.
        depth: Blocks; as published for the width if None, or as many as there are for another width.
        heads: Of each attention; as published for the width if None (64 features each).
        source: File that a message names.

    Returns:
        The sizes; :func:`load_strictly` then tells what does not fit.

    Raises:
        InputError: A tensor to tell it from is missing or makes no sense, or the width is not published and no heads
            are given.
    """
    cut = _found(state, "patch_embed.proj.weight", 4, source=source)
    places = _found(state, "pos_embed", 3, source=source)
    width, patch, tokens = int(cut.shape[0]), int(cut.shape[3]), int(places.shape[1])
    side = math.isqrt(max(tokens - 1, 0))
    if side < 1 or side * side != tokens - 1:
        raise InputError(f"{source}: pos_embed", got=f"{tokens} places", expected="a square and one")
    published = _PUBLISHED.get(width)
    heads = published.heads if heads is None and published else heads
    if heads is None:
        raise InputError(
            f"{source}: width", got=width, expected=f"one of {', '.join(map(str, _PUBLISHED))}",
            hint="no shape of a weight tells the heads: give heads=",
        )  # fmt: skip
    if depth is None:
        blocks = {int(found[1]) for found in map(_BLOCK.match, state) if found}
        depth = published.depth if published else max(blocks, default=-1) + 1
    ffn: FeedForward = "swiglu" if any(".mlp.w12." in name for name in state) else "mlp"
    shape = VitShape(width, depth, heads, patch=patch, image=side * patch, ffn=ffn)
    if "register_tokens" not in state:
        return shape
    return shape.with_registers(int(_found(state, "register_tokens", 3, source=source).shape[1]))


def load_strictly(network: torch.nn.Module, state: Mapping[str, torch.Tensor], *, source: str = "the weights") -> None:
    """Load weights of exactly the network's names and shapes, or say all that does not fit.

    A missing ``mask_token`` alone is forgiven: it stays out of files that are only to be looked through, and is zero.

    Args:
        network: A :class:`~spicula.networks.vit.VisionTransformer`. On the device ``"meta"`` it takes the tensors
            themselves.
        state: Weights by the published names.
        source: File that the message names.

    Raises:
        InputError: Keys are missing, unexpected or of another shape; nothing is loaded.
    """
    own = {name: tuple(value.shape) for name, value in network.state_dict(keep_vars=True).items()}
    if "mask_token" in own and "mask_token" not in state:
        state = {**state, "mask_token": torch.zeros(own["mask_token"])}
    given = {name: tuple(value.shape) for name, value in state.items()}
    missing, unexpected = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    misshapen = [f"{name} {given[name]} for {own[name]}" for name in own if given.get(name, own[name]) != own[name]]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    told = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names)
    if told:
        raise InputError(
            f"weights of {source}", got=told, expected=f"the {len(own)} keys of {type(network).__name__}",
            hint=_hint(missing, unexpected, misshapen),
        )  # fmt: skip
    on_meta = any(value.is_meta for value in network.parameters())
    network.load_state_dict(dict(state), strict=True, assign=on_meta)


def network_of(path: Path, *, depth: int | None = None, heads: int | None = None) -> VisionTransformer:
    """The vision transformer of a file, with its weights, in evaluation.

    Args:
        path: See :func:`read_dinov2`.
        depth: See :func:`shape_of`.
        heads: See :func:`shape_of`.

    Returns:
        In float32 on the CPU.

    Raises:
        InputError: As :func:`read_dinov2`, :func:`shape_of` and :func:`load_strictly`.
    """
    state = read_dinov2(path)
    shape = shape_of(state, depth=depth, heads=heads, source=str(path))
    with torch.device("meta"):
        network = VisionTransformer(shape)
    load_strictly(network, state, source=str(path))
    network.eval()
    return network


def _teacher(path: Path) -> dict[str, Any]:
    """What a file holds by name, wrappers taken off, of a training the teacher alone."""
    content: Mapping[Any, Any] = _read(path)
    for _level in _ENTRIES:
        entry = next((name for name in _ENTRIES if isinstance(content.get(name), Mapping)), None)
        content = content[entry] if entry else content
    if any(isinstance(name, str) and "flat_param" in name for name in content):
        raise InputError(
            f"{path}", got="one process's share of flattened weights", expected="whole weights by name",
            hint="take eval/training_*/teacher_checkpoint.pth of the same run",
        )  # fmt: skip
    named = _unique(((_WRAPPED.sub("", str(name)), value) for name, value in content.items()), source=path)
    if any(name.startswith("teacher.") for name in named):
        return _unique(
            ((name.removeprefix("teacher."), value) for name, value in named.items() if not name.startswith(_TRAINING)),
            source=path,
        )
    if any(name.startswith("student.") for name in named):
        raise InputError(f"{path}", got="a student alone", expected="teacher.backbone.*")
    return named


def _read(path: Path) -> dict[str, Any]:
    if path.suffix != ".safetensors" or not path.is_file():
        return read_archive(path)
    safetensors = require("safetensors.torch", extra="train")
    try:
        return dict(safetensors.load_file(path))
    except Exception as error:  # the library's own class, of no public base
        raise InputError(f"{path}", got=str(error), expected="safetensors", hint="copy it again") from error


def _unique(named: Iterable[tuple[str, _Value]], *, source: Path | str) -> dict[str, _Value]:
    found: dict[str, _Value] = {}
    for name, value in named:
        if name in found:
            raise InputError(f"{source}: {name}", got="two weights", expected="one of each name")
        found[name] = value
    return found


def _found(state: Mapping[str, torch.Tensor], name: str, axes: int, *, source: str) -> torch.Tensor:
    value = state.get(name)
    if value is None or value.ndim != axes:
        raise InputError(
            f"{source}: {name}", got="none" if value is None else f"shape {tuple(value.shape)}",
            expected=f"{axes} axes", hint="these are no weights of DINOv2" if value is None else None,
        )  # fmt: skip
    return value


def _some(names: list[str]) -> str:
    return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")


def _hint(missing: list[str], unexpected: list[str], misshapen: list[str]) -> str | None:
    """What is likely to be behind keys that do not fit."""

    def has(names: list[str], part: str) -> bool:
        return any(part in name for name in names)

    for here, there, own, others in (("fc1", "w12", "mlp", "swiglu"), ("w12", "fc1", "swiglu", "mlp")):
        if has(missing, f".mlp.{here}.") and has(unexpected, f".mlp.{there}."):
            return (
                f"the file has the feed-forward {others!r}, the network {own!r}: build it of shape_of(state). The "
                "published ViT-L has 'mlp', while the published training configuration of a ViT-L makes 'swiglu'"
            )
    whole = [int(found[1]) for found in map(re.compile(r"blocks\.(\d+)\.norm1\.weight").fullmatch, missing) if found]
    if whole:
        numbers = ", ".join(map(str, sorted(whole)))
        return f"blocks {numbers} are not in the file: it is not whole, or of another depth: give depth="
    if has(unexpected, "blocks."):
        return "the file has more or other blocks than the network: give depth= of the file"
    if has([*missing, *unexpected], "register_tokens"):
        return "one has registers and the other has none: build the network of shape_of(state)"
    return "build the network of shape_of(state)" if misshapen else None
