"""Which weights of a NoduleClip train: low-rank adapters, all, or the heads alone (needs torch; adapters need peft).

References:
    Hu et al. 2021, arXiv 2106.09685 (LoRA); Kalajdzievski 2023, arXiv 2312.03732 (division by the root of the rank);
    Zhuang et al. 2025, arXiv 2504.21344, sections 3.3.1 and 3.5 (the three ways of tuning).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.networks.clip import Attention, SplitAttention
from spicula.networks.nodule_clip import NoduleClip

Scaling: TypeAlias = Literal["alpha/r", "alpha/sqrt(r)"]
"""How the adapter's product is scaled: as LoRA was published, or as CLIP_nodule's code does."""

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def scaling_of(rank: int, *, alpha: float = 1.0, rule: Scaling = "alpha/sqrt(r)") -> float:
    """The factor of an adapter's product.

    Args:
        rank: Of the adapter.
        alpha: The scale factor that was set.
        rule: How the rank enters.

    Raises:
        InputError: The rank is not positive or the rule is unknown.

    Example:
        >>> round(scaling_of(2), 4), scaling_of(2, rule="alpha/r")
        (0.7071, 0.5)
    """
    if rank < 1:
        raise InputError("rank", got=rank, expected="1 or more")
    if rule not in ("alpha/r", "alpha/sqrt(r)"):
        raise InputError("scaling rule", got=repr(rule), expected="'alpha/r' or 'alpha/sqrt(r)'")
    return alpha / rank if rule == "alpha/r" else alpha / float(rank) ** 0.5


def add_lora(
    network: NoduleClip,
    *,
    rank: int = 2,
    alpha: float = 1.0,
    dropout: float = 0.25,
    rule: Scaling = "alpha/sqrt(r)",
) -> tuple[str, ...]:
    """Freeze both towers and put adapters beside q, k and v of all their blocks; they and the heads train.

    A tower without attention, as the compact image towers are, has them beside its convolutions.

    The packed attentions are split in place (``attn.q_proj`` ...); :func:`take_lora_out` packs them again. At first the
    adapters change nothing.

    Args:
        network: Changed in place.
        rank: Of each adapter.
        alpha: Scale factor.
        dropout: Of what enters an adapter, in training.
        rule: How rank and ``alpha`` make the scale.

    Returns:
        Names (of ``named_parameters``) of what trains: adapters, heads, temperature.

    Raises:
        InputError: A tower has neither attention nor convolutions, or has adapters.
    """
    scaling_of(rank, alpha=alpha, rule=rule)
    peft = require("peft", extra="train")
    if next(lora_layers(network), None) is not None:
        raise InputError(
            "network", got="adapters", expected="none yet", hint="take_lora_out sums them into the weights"
        )
    convolutions = []
    for name in ("vision_model", "text_model"):
        modules = dict(getattr(network, name).named_modules())
        if any(isinstance(module, Attention) for module in modules.values()):
            continue
        found = [f"{name}.{path}" for path, module in modules.items() if isinstance(module, nn.Conv2d)]
        if not found:
            raise InputError(
                f"tower {name}", got=f"neither attention nor convolutions in a {type(getattr(network, name)).__name__}",
                expected="one of both", hint="use tune_fully or tune_heads",
            )  # fmt: skip
        convolutions += found
    _replace(network, Attention, SplitAttention)
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        use_rslora=rule == "alpha/sqrt(r)",
        target_modules=[*PROJECTIONS, *convolutions],
    )
    peft.inject_adapter_in_model(config, network)
    network.register_state_dict_pre_hook(_refuse_merged)
    return _train_only(network, lambda name: not _in_tower(name) or ".lora_" in name)


def tune_fully(network: NoduleClip) -> tuple[str, ...]:
    """Let all weights train (fine-tuning).

    Args:
        network: Changed in place.

    Returns:
        Names of what trains: everything.
    """
    return _train_only(network, lambda _name: True)


def tune_heads(network: NoduleClip) -> tuple[str, ...]:
    """Freeze both towers (probe-tuning).

    Args:
        network: Changed in place.

    Returns:
        Names of what trains: projections, classifiers, temperature.
    """
    return _train_only(network, lambda name: not _in_tower(name))


def _in_tower(name: str) -> bool:
    return name.startswith(("vision_model.", "text_model."))


def _train_only(network: NoduleClip, wanted: Any) -> tuple[str, ...]:
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(bool(wanted(name)))
    network.train(network.training)  # frozen towers go to evaluation, others come back from it
    return tuple(name for name, parameter in network.named_parameters() if parameter.requires_grad)


def lora_layers(network: nn.Module) -> Iterator[Any]:
    """The layers of a network that have adapters."""
    for module in network.modules():
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            yield module


def merge_lora(network: nn.Module) -> int:
    """Sum the adapters into the weights, which is faster to run; :func:`unmerge_lora` takes them out again.

    Those already merged are left alone: nothing is summed twice. While merged, the network's state cannot be saved.

    Args:
        network: Changed in place.

    Returns:
        How many layers were merged now.
    """
    layers = [layer for layer in lora_layers(network) if not layer.merged]
    for layer in layers:
        layer.merge()
    return len(layers)


def unmerge_lora(network: nn.Module) -> int:
    """Take merged adapters out of the weights again, to rounding.

    Args:
        network: Changed in place.

    Returns:
        How many layers were unmerged now.
    """
    layers = [layer for layer in lora_layers(network) if layer.merged]
    for layer in layers:
        layer.unmerge()
    return len(layers)


def take_lora_out(network: nn.Module) -> None:
    """Sum the adapters into the weights for good: the attentions are packed and named as published.

    Args:
        network: Changed in place; one without adapters is left as it is, apart from split attentions.
    """
    merge_lora(network)
    _replace(network, SplitAttention, _packed)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "lora_A") and hasattr(child, "base_layer"):
                setattr(parent, name, child.base_layer)


def _packed(split: SplitAttention) -> Attention:
    layers = [getattr(split, name) for name in PROJECTIONS]
    plain = [layer.base_layer if hasattr(layer, "base_layer") else layer for layer in layers]
    with torch.device("meta"):
        attention = Attention(split.proj.weight.shape[0], split.heads, causal=split.causal)
    attention.in_proj_weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in plain]))
    attention.in_proj_bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in plain]))
    attention.out_proj = split.proj
    return attention


def _replace(network: nn.Module, kind: type[nn.Module], make: Any) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, make(child).train(child.training))


def _refuse_merged(network: nn.Module, _prefix: str, _keep_vars: bool) -> None:
    """A state with merged weights beside their adapters would be merged again by whoever reads it."""
    if any(layer.merged for layer in lora_layers(network)):
        raise InputError(
            "state of the network", got="weights with the adapters in them, beside the adapters",
            expected="one of both", hint="call unmerge_lora before saving, or take_lora_out to keep the sum alone",
        )  # fmt: skip
