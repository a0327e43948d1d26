"""Rounding as the guidelines mean it: a half goes up."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal

from spicula.core.errors import InputError


def half_up(value: float, *, decimals: int) -> float:
    """Round a decimal number as it is written, a half up (5.95 -> 6.0, where binary rounding may give 5.9).

    Args:
        value: Finite.
        decimals: Places to keep, 0 or more.

    Returns:
        The rounded number.

    Example:
        >>> half_up(5.95, decimals=1), half_up(8.5, decimals=0)
        (6.0, 9.0)
    """
    return float(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_UP))


def checked_size(name: str, value: float | None) -> None:
    """Refuse a size that is not a finite number of 0 or more; None (not measured) passes.

    Raises:
        InputError: It is negative, NaN or infinite.
    """
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise InputError(name, got=value, expected="a finite number, 0 or more")
