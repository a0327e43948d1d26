from __future__ import annotations

import math

import pytest

from spicula.core.errors import InputError
from spicula.measure.rounding import checked_size, half_up


def test_a_half_goes_up() -> None:
    assert [half_up(v, decimals=1) for v in (5.94, 5.95, 5.949999, 7.95, 0.05)] == [5.9, 6.0, 5.9, 8.0, 0.1]
    assert [half_up(v, decimals=0) for v in (5.4999, 5.5, 8.5, 8.49)] == [5, 6, 9, 8]


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_a_size_is_a_number(bad: float) -> None:
    checked_size("x", None)
    checked_size("x", 0.0)
    with pytest.raises(InputError, match="diameter"):
        checked_size("diameter", bad)
