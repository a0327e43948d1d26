"""How rates, decays, momenta and temperatures go over a pretraining."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cosine:
    """A linear way up, then a cosine from one value to another.

    Args:
        first: Value at the top (after the warm-up).
        last: Value at the end.
        steps: Of the whole training.
        warm: Steps of the warm-up.
        start: Value at its beginning.
        frozen: Steps at the very beginning with the value 0.

    Example:
        >>> rate = Cosine(1.0, 0.0, steps=30, warm=10)
        >>> [round(rate(step), 2) for step in (0, 5, 10, 20, 29)]
        [0.0, 0.5, 1.0, 0.5, 0.01]
    """

    first: float
    last: float
    steps: int
    warm: int = 0
    start: float = 0.0
    frozen: int = 0

    def __call__(self, step: int) -> float:
        """The value at a step."""
        step = min(step, self.steps)
        if step < self.frozen:
            return 0.0
        if step < self.frozen + self.warm:
            return self.start + (self.first - self.start) * (step - self.frozen) / self.warm
        done = self.frozen + self.warm
        part = (step - done) / max(1, self.steps - done)
        return self.last + 0.5 * (self.first - self.last) * (1 + math.cos(math.pi * part))


@dataclass(frozen=True, slots=True)
class Ramp:
    """A linear way from one value to another, then constant.

    Args:
        first: At the beginning.
        last: From ``steps`` on.
        steps: Of the way.
    """

    first: float
    last: float
    steps: int

    def __call__(self, step: int) -> float:
        """The value at a step."""
        return self.first + (self.last - self.first) * min(1.0, step / max(1, self.steps))
