"""CLIP_nodule's checkpoints with low-rank adapters: told whether they are merged, and made plain CLIP weights.

The authors store ``attn.{q_proj,k_proj,v_proj}.{weight,bias,w_lora_A,w_lora_B}`` and ``attn.proj``. Their training
saves after the adapters were summed into ``weight`` and keeps the adapters beside it; their evaluation sums them once
more in its first fold only. Pure functions of state dicts (they need torch).

References:
    Zhuang et al. 2025, arXiv 2504.21344; the names and the double sum as found in the authors' published code.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, TypeAlias

import torch

from spicula.core.errors import InputError, SpiculaWarning
from spicula.networks.lora import PROJECTIONS, Scaling, scaling_of

Status: TypeAlias = Literal["unmerged", "merged", "merged twice"]

_EQUAL = 1e-6
_PRODUCT = 5e-3  # of the product of the adapters, which some devices round to ten bits
_LORA = re.compile(r"(.+\.attn\.)(q_proj|k_proj|v_proj)\.(weight|bias|w_lora_A|w_lora_B)")


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """Weights whose adapters are summed in as often as they should be.

    Args:
        state: Weights under the packed names (``attn.in_proj_weight``, ``attn.out_proj``), no adapters.
        status: How the checkpoint was.
        assumed: Whether the status was assumed of the file's name, for want of the first weights.
    """

    state: dict[str, torch.Tensor]
    status: Status
    assumed: bool


def has_adapters(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether a checkpoint has adapters under CLIP_nodule's names."""
    return any(key.endswith(".w_lora_A") for key in state)


def rename_adapters(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CLIP_nodule's names to those of a network after :func:`spicula.networks.lora.add_lora`; values are untouched.

    To be used on checkpoints that :func:`merge_status` calls unmerged.

    Example:
        >>> list(rename_adapters({"a.attn.q_proj.w_lora_A": torch.ones(2, 4), "a.attn.q_proj.bias": torch.ones(4)}))
        ['a.attn.q_proj.lora_A.default.weight', 'a.attn.q_proj.base_layer.bias']
    """
    names = {
        "weight": "base_layer.weight", "bias": "base_layer.bias",
        "w_lora_A": "lora_A.default.weight", "w_lora_B": "lora_B.default.weight",
    }  # fmt: skip
    found = {}
    for key, value in state.items():
        match = _LORA.fullmatch(key)
        found[f"{match[1]}{match[2]}.{names[match[3]]}" if match else key] = value
    return found


def merge_status(
    state: Mapping[str, torch.Tensor],
    base: Mapping[str, torch.Tensor],
    *,
    alpha: float = 1.0,
    rule: Scaling = "alpha/sqrt(r)",
) -> Status:
    """Compare a checkpoint with the weights that it was trained from.

    With ``d = W - W0`` and the scaled product ``P`` of the adapters: unmerged if ``d`` vanishes beside ``W0`` (1e-6 of
    its norm), else merged if ``d - P`` does, merged twice if ``d - 2 P`` does.

    Args:
        state: The checkpoint, CLIP_nodule's names with adapters.
        base: CLIP's weights before training, OpenAI's names (``visual.*`` or ``vision_model.*``).
        alpha: Scale factor of the training.
        rule: Scaling rule of the training.

    Returns:
        What holds in all layers; ``"unmerged"`` if the adapters are all zero.

    Raises:
        InputError: A layer is none of these, layers differ, or ``base`` lacks one.
    """
    found: dict[Status, list[str]] = {}
    for name, weight, product in _products(state, alpha=alpha, rule=rule):
        first = _base_weight(base, name).to(weight)
        size, change = float(first.norm()), float(product.norm())
        if change < _EQUAL * size and float((weight - first).norm()) < 2 * _EQUAL * size:
            continue  # an adapter of nearly nothing tells nothing
        options: dict[Status, float] = {
            "unmerged": float((weight - first).norm()),
            "merged": float((weight - first - product).norm()),
            "merged twice": float((weight - first - 2 * product).norm()),
        }
        for status, rest in options.items():
            if rest < _EQUAL * size + (0.0 if status == "unmerged" else _PRODUCT * change):
                found.setdefault(status, []).append(name)
                break
        else:
            raise InputError(
                f"{name}.weight of the checkpoint", got="neither the first weights nor these with the adapters",
                expected="one of them", hint="give the weights that training began with, its alpha and scaling rule",
            )  # fmt: skip
    if len(found) > 1:
        told = "; ".join(f"{len(names)} layers {status}, as {names[0]}" for status, names in found.items())
        raise InputError("adapters of the checkpoint", got=told, expected="all layers alike")
    return next(iter(found), "unmerged")


def settle_adapters(
    state: Mapping[str, torch.Tensor],
    *,
    base: Mapping[str, torch.Tensor] | None = None,
    file_name: str = "",
    alpha: float = 1.0,
    rule: Scaling = "alpha/sqrt(r)",
    times: int = 1,
) -> Settled:
    """Sum the adapters in exactly once, whatever the checkpoint holds, and pack the attentions.

    Args:
        state: The checkpoint, CLIP_nodule's names with adapters.
        base: CLIP's weights before training; without them ``best_*`` files are assumed to be merged, with a warning.
        file_name: The checkpoint's.
        alpha: Scale factor of the training.
        rule: Scaling rule of the training.
        times: How often the adapters shall be in: 2 for fold 0 as the authors' evaluation runs it, else 1.

    Returns:
        The weights and what was found.

    Raises:
        InputError: There are no adapters, names are missing, or the status cannot be known.
    """
    if not has_adapters(state):
        raise InputError(f"checkpoint {file_name}".rstrip(), got="no adapters", expected="keys ending in w_lora_A")
    if base is not None:
        status, assumed = merge_status(state, base, alpha=alpha, rule=rule), False
    elif PurePath(file_name).name.startswith("best_"):
        status, assumed = "merged", True
        warnings.warn(
            f"{file_name}: taken to hold merged weights, as the authors' best_* files do; CLIP's weights would tell",
            SpiculaWarning,
            stacklevel=2,
        )
    else:
        raise InputError(
            f"checkpoint {file_name}".rstrip(), got="adapters that may or may not be in the weights already",
            expected="CLIP's weights before training to tell", hint="import them first, or give a best_* file",
        )  # fmt: skip
    there = {"unmerged": 0, "merged": 1, "merged twice": 2}[status]
    summed = dict(state)
    for name, weight, product in _products(state, alpha=alpha, rule=rule):
        if base is not None and there != times:
            weight, there_now = _base_weight(base, name).to(weight), 0
        else:
            there_now = there
        summed[f"{name}.weight"] = (weight + (times - there_now) * product).to(state[f"{name}.weight"].dtype)
    return Settled(pack_attentions(summed), status, assumed)


def pack_attentions(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Join q, k and v in this order to ``in_proj``, call ``attn.proj`` ``attn.out_proj`` and leave adapters out.

    Raises:
        InputError: An attention lacks one of q, k and v.
    """
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        match = _LORA.fullmatch(key)
        if match is None:
            found[re.sub(r"\.attn\.proj\.(weight|bias)$", r".attn.out_proj.\1", key)] = value
        elif match[3] in ("weight", "bias") and f"{match[1]}in_proj_{match[3]}" not in found:
            names = [f"{match[1]}{name}.{match[3]}" for name in PROJECTIONS]
            absent = [name for name in names if name not in state]
            if absent:
                raise InputError(f"weights beside {key}", got=f"no {', '.join(absent)}", expected="q, k and v")
            found[f"{match[1]}in_proj_{match[3]}"] = torch.cat([state[name] for name in names])
    return found


def _products(
    state: Mapping[str, torch.Tensor], *, alpha: float, rule: Scaling
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Each layer with an adapter: its name, its weight and the scaled product, in float64."""
    for key, a in state.items():
        if not key.endswith(".w_lora_A"):
            continue
        name = key.removesuffix(".w_lora_A")
        absent = [other for other in (f"{name}.w_lora_B", f"{name}.weight") if other not in state]
        if absent:
            raise InputError(
                f"weights beside {key}", got=f"no {', '.join(absent)}", expected="both factors and the weight"
            )
        b, weight = state[f"{name}.w_lora_B"], state[f"{name}.weight"]
        product = scaling_of(a.shape[0], alpha=alpha, rule=rule) * (b.double() @ a.double())
        yield name, weight.double(), product


def _base_weight(base: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """The first weight of a projection (``...attn.q_proj``): a third of the packed one."""
    attention, _dot, projection = name.rpartition(".")
    packed = f"{attention}.in_proj_weight"
    for key in (packed, re.sub(r"^vision_model\.", "visual.", packed), re.sub(r"^visual\.", "vision_model.", packed)):
        if key in base:
            return base[key].chunk(3)[PROJECTIONS.index(projection)]
    raise InputError("CLIP's weights before training", got=f"no {packed}", expected="OpenAI's names")
