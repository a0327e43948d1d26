"""How fast a finding grows between two scans."""

from __future__ import annotations

import math

from spicula.core.errors import InputError


def volume_doubling_time_days(volume_before_mm3: float, volume_after_mm3: float, *, days: float) -> float:
    """Time in which the volume doubles at the growth between two scans: ln 2 * days / ln(after / before).

    Args:
        volume_before_mm3: On the earlier scan.
        volume_after_mm3: On the later scan.
        days: Between the two, more than 0.

    Returns:
        Days; negative where the finding shrank (it halves in that time), infinite where it did not change.

    Raises:
        InputError: A volume or the time between is not a positive finite number.

    References:
        Schwartz 1961, doi:10.1002/1097-0142(196111/12)14:6<1272::AID-CNCR2820140618>3.0.CO;2-H.

    Example:
        >>> volume_doubling_time_days(100, 200, days=90)
        90.0
    """
    for name, value in (("volume before", volume_before_mm3), ("volume after", volume_after_mm3), ("days", days)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(name, got=value, expected="a positive number")
    growth = math.log(volume_after_mm3 / volume_before_mm3)
    return math.log(2) * days / growth if growth else math.inf
