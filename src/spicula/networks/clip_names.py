"""Names of CLIP's weights: OpenAI's, CLIP_nodule's and those of transformers; reading them strictly (needs torch)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from spicula.core.errors import InputError

_FACTS = ("input_resolution", "context_length", "vocab_size")
"""Numbers in OpenAI's archives that are no weights."""


def name_flatly(module: nn.Module, *, vision: str, other: str) -> None:
    """Give the state of a module with a ``text_model`` the published names: those of the text tower have no prefix.

    Reading takes the names with the prefix too, the image tower's under either name, and leaves out the three numbers
    of OpenAI's archives that are no weights. ``named_parameters`` is as torch has it.

    Args:
        module: It has ``text_model`` and the child ``vision``.
        vision: Name of the image tower here.
        other: Its name elsewhere.
    """

    def write(owner: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
        for key in [key for key in state if key.startswith(f"{prefix}text_model.")]:
            state[prefix + key.removeprefix(f"{prefix}text_model.")] = state.pop(key)

    def read(owner: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        text = {name.split(".", 1)[0] for name in owner.text_model.state_dict(keep_vars=True)}
        for key in [key for key in state if key.startswith(prefix)]:
            first, _dot, rest = key.removeprefix(prefix).partition(".")
            if first in _FACTS:
                del state[key]
            elif first == other:
                state[f"{prefix}{vision}.{rest}"] = state.pop(key)
            elif first in text:
                state[f"{prefix}text_model.{key.removeprefix(prefix)}"] = state.pop(key)

    module.register_state_dict_post_hook(write)
    module.register_load_state_dict_pre_hook(read)


def load_strictly(module: nn.Module, state: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Load weights of exactly the module's names and shapes, or say what does not fit.

    Args:
        module: A :class:`Clip` or any other.
        state: Weights by name; those names that :func:`name_flatly` reads are taken too.
        source: File or folder that the message names.

    Raises:
        InputError: Keys are missing, foreign or of another shape; nothing is loaded.
    """
    own = {key: tuple(value.shape) for key, value in module.state_dict(keep_vars=True).items()}
    here, there = ("visual", "vision_model") if hasattr(module, "visual") else ("vision_model", "visual")
    flat = hasattr(module, "text_model")
    given = {
        (re.sub(rf"^{there}\.", f"{here}.", key).removeprefix("text_model.") if flat else key): tuple(value.shape)
        for key, value in state.items()
        if not (flat and key in _FACTS)
    }
    problems = {
        "missing": sorted(own.keys() - given.keys()),
        "foreign": sorted(given.keys() - own.keys()),
        "of another shape": [
            f"{key} {given[key]} for {own[key]}" for key in own if key in given and given[key] != own[key]
        ],
    }
    told = "; ".join(f"{len(keys)} {what}: {_some(keys)}" for what, keys in problems.items() if keys)
    if told:
        raise InputError(f"weights of {source}", got=told, expected=f"the {len(own)} keys of {type(module).__name__}")
    module.load_state_dict(dict(state), strict=True)


def _some(keys: list[str], *, most: int = 12) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


_HF = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.proj": "visual_projection.weight",
} | {
    f"{ours}.{part}": f"{theirs}.{part}"
    for ours, theirs in (
        ("ln_final", "text_model.final_layer_norm"),
        ("visual.ln_pre", "vision_model.pre_layrnorm"),
        ("visual.ln_post", "vision_model.post_layernorm"),
    )
    for part in ("weight", "bias")
}
_HF_BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}  # fmt: skip
_TRANSPOSED = ("text_projection", "visual.proj")
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
_LAYER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


def openai_to_hf(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """OpenAI's names to those of ``transformers.CLIPModel``; q, k and v are split, the two projections transposed.

    Raises:
        InputError: A name is not OpenAI's.
    """
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        block = _BLOCK.fullmatch(key)
        if block:
            tower = "vision" if block[1] else "text"
            layer = f"{tower}_model.encoder.layers.{block[2]}"
            part, _dot, kind = block[3].replace("in_proj_", "in_proj.").rpartition(".")
            if part == "attn.in_proj":
                for name, piece in zip("qkv", value.chunk(3), strict=True):
                    found[f"{layer}.self_attn.{name}_proj.{kind}"] = piece.clone()
                continue
            if part in _HF_BLOCK:
                found[f"{layer}.{_HF_BLOCK[part]}.{kind}"] = value
                continue
        if key in _HF:
            found[_HF[key]] = value.T.contiguous() if key in _TRANSPOSED else value
        elif key not in _FACTS:
            raise InputError(f"weight {key}", expected="a name of OpenAI's CLIP (visual.*, transformer.*, ...)")
    return found


def hf_to_openai(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of ``transformers.CLIPModel`` to OpenAI's; the inverse of :func:`openai_to_hf`.

    Raises:
        InputError: A name is not of ``CLIPModel``, or a layer lacks one of q, k and v.
    """
    plain = {theirs: ours for ours, theirs in _HF.items()}
    blocks = {theirs: ours for ours, theirs in _HF_BLOCK.items()}
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        layer = _LAYER.fullmatch(key)
        if layer:
            tower, number, part, kind = layer.groups()
            block = f"{'visual.' if tower == 'vision' else ''}transformer.resblocks.{number}"
            if part in blocks:
                found[f"{block}.{blocks[part]}.{kind}"] = value
                continue
            if part == "self_attn.q_proj":
                names = [key.replace("q_proj", f"{name}_proj") for name in "qkv"]
                absent = [name for name in names if name not in state]
                if absent:
                    raise InputError(f"weights beside {key}", got=f"no {', '.join(absent)}", expected="q, k and v")
                found[f"{block}.attn.in_proj_{kind}"] = torch.cat([state[name] for name in names])
                continue
            if part in ("self_attn.k_proj", "self_attn.v_proj"):
                continue
        if key in plain:
            found[plain[key]] = value.T.contiguous() if plain[key] in _TRANSPOSED else value
        elif not key.endswith("position_ids"):
            raise InputError(f"weight {key}", expected="a name of transformers' CLIPModel (text_model.*, ...)")
    return found
