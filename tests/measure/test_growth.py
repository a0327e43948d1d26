from __future__ import annotations

import math

import pytest

from spicula.core.errors import InputError
from spicula.measure.growth import volume_doubling_time_days


def test_doubling_time() -> None:
    assert volume_doubling_time_days(100, 200, days=365) == pytest.approx(365)
    assert volume_doubling_time_days(100, 800, days=300) == pytest.approx(100)
    assert volume_doubling_time_days(200, 100, days=365) == pytest.approx(-365)
    assert volume_doubling_time_days(100, 100, days=365) == math.inf
    # Diameter 8 to 10 mm in 180 days: ln 2 * 180 / (3 ln 1.25).
    assert volume_doubling_time_days(8**3, 10**3, days=180) == pytest.approx(186.38, abs=0.01)


@pytest.mark.parametrize("bad", [(0, 1, 1), (1, -1, 1), (1, 1, 0), (1, math.nan, 1), (math.inf, 1, 1)])
def test_bad_input_is_named(bad: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="positive"):
        volume_doubling_time_days(bad[0], bad[1], days=bad[2])
