"""LARS: momentum whose step is measured, layer by layer, by the length of the weights (needs torch).

References:
    You et al. 2017, arXiv 1708.03888, algorithm 1; Chen et al. 2020, arXiv 2002.05709 (SimCLR: biases and norms are
    neither adapted nor decayed). Departure from the first, as in SimCLR: the weights are compared with the length of
    gradient and decay together, not with the sum of both lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from spicula.core.errors import InputError


class Lars(torch.optim.Optimizer):  # type: ignore[misc, unused-ignore]
    """Momentum with layer-wise adaptive rates: ``v = m v + lr * trust * |w| / |g + d w| * (g + d w)``; ``w = w - v``.

    Where a weight or its gradient has no length, the rate is not adapted.

    Args:
        groups: Of parameters, as :func:`lars_groups` makes them; ``adapts`` False turns the adaptation off.
        lr: Learning rate.
        momentum: m, share of the last step that is kept.
        weight_decay: d.
        trust: Length of a step relative to the weights, for a rate of 1.

    Raises:
        InputError: A number is negative, or the momentum 1 and more.
    """

    def __init__(
        self, groups: Iterable[Any], lr: float, *, momentum: float = 0.9, weight_decay: float = 1e-6,
        trust: float = 0.001,
    ) -> None:  # fmt: skip
        if min(lr, momentum, weight_decay, trust) < 0 or momentum >= 1:
            raise InputError(
                "LARS", got=f"lr {lr:g}, momentum {momentum:g}, weight decay {weight_decay:g}, trust {trust:g}",
                expected="none negative, momentum less than 1",
            )  # fmt: skip
        facts = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapts": True}
        super().__init__(groups, facts)

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move all parameters that have a gradient.

        Args:
            closure: Called first, with gradients, if given; its loss is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)
        return loss

    def _move(self, weight: torch.Tensor, group: dict[str, Any]) -> None:
        way = weight.grad.add(weight, alpha=group["weight_decay"])
        if group["adapts"]:
            length, slope = torch.linalg.vector_norm(weight), torch.linalg.vector_norm(way)
            adapted = group["trust"] * length / slope
            way = way * torch.where((length > 0) & (slope > 0), adapted, torch.ones_like(length))
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        weight.sub_(state["momentum"].mul_(group["momentum"]).add_(way, alpha=group["lr"]))


def lars_groups(network: torch.nn.Module, *, weight_decay: float = 1e-6) -> list[dict[str, Any]]:
    """What of a network trains: matrices and kernels are adapted and decay; biases, norms and powers do neither.

    Args:
        network: Any; parameters that need no gradient are left out.
        weight_decay: Of the first group.

    Returns:
        Two groups for :class:`Lars` (``adapts`` and ``weight_decay``).
    """
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": weight_decay, "adapts": True},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0, "adapts": False},
    ]
