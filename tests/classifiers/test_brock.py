from __future__ import annotations

import math

import pytest

from spicula.classifiers.brock import brock, mayo
from spicula.core.errors import InputError

ALL = {
    "density": "solid",
    "spiculation": False,
    "upper_lobe": False,
    "nodule_count": 4,
    "age_years": 62,
    "female": False,
    "family_history": False,
    "emphysema": False,
}


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_brock_at_its_center() -> None:
    # The size is centered on 4 mm: (4 / 10) ^ -0.5 = 1.58113883.
    assert _logit(brock(4.0, **ALL).probability) == pytest.approx(-6.7892, abs=1e-7)


@pytest.mark.parametrize(
    ("fact", "weight"),
    [
        ({"age_years": 72}, 0.287),
        ({"female": True}, 0.6011),
        ({"family_history": True}, 0.2961),
        ({"emphysema": True}, 0.2953),
        ({"density": "ground-glass"}, -0.1276),
        ({"density": "part-solid"}, 0.3770),
        ({"upper_lobe": True}, 0.6581),
        ({"nodule_count": 7}, -0.2472),
        ({"spiculation": True}, 0.7729),
    ],
)
def test_brock_published_weights(fact: dict, weight: float) -> None:
    less = _logit(brock(10.0, **ALL).probability)
    assert _logit(brock(10.0, **{**ALL, **fact}).probability) - less == pytest.approx(weight, abs=1e-9)


def test_brock_with_the_centering_multiplied_out() -> None:
    # The constant 0.2761: age 70, woman, upper lobe, part-solid, 15 mm, 1 nodule, spiculated.
    x = 0.2761 + 0.0287 * 70 + 0.6011 + 0.6581 + 0.3770 - 5.3854 * 1.5**-0.5 - 0.0824 + 0.7729
    # In that form age, count and size stand as they are; -6.7892 - 0.0287 * 62 + 0.0824 * 4 + 5.3854 * 1.5811 = 0.2760.
    got = brock(
        15.0,
        density="part-solid",
        spiculation=True,
        upper_lobe=True,
        nodule_count=1,
        age_years=70,
        female=True,
        family_history=False,
        emphysema=False,
    )
    assert _logit(got.probability) == pytest.approx(x, abs=2e-4)
    assert got.lacking == ()


def test_brock_says_what_it_lacked() -> None:
    bare = brock(10.0)
    assert bare.probability == pytest.approx(brock(10.0, **ALL).probability)
    assert len(bare.lacking) == 8
    assert "age (taken as 62.0)" in bare.lacking
    assert "spiculation (taken as no)" in bare.lacking
    assert bare.given == ("size 10 mm",)
    assert brock(10.0, **ALL).lacking == ()


def test_brock_rises_with_size() -> None:
    p = [brock(size, **ALL).probability for size in (3, 5, 8, 15, 30)]
    assert p == sorted(p)


def test_mayo_published_weights() -> None:
    full = {
        "spiculation": False,
        "upper_lobe": False,
        "age_years": 60,
        "ever_smoker": False,
        "extrathoracic_cancer": False,
    }
    base = _logit(mayo(10.0, **full).probability)
    assert base == pytest.approx(-6.8272 + 0.0391 * 60 + 1.274)
    for fact, weight in {
        "spiculation": 1.0407,
        "upper_lobe": 0.7838,
        "ever_smoker": 0.7917,
        "extrathoracic_cancer": 1.3388,
    }.items():
        assert _logit(mayo(10.0, **{**full, fact: True}).probability) - base == pytest.approx(weight)
    assert len(mayo(10.0).lacking) == 5


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_bad_input_is_named(bad: float) -> None:
    with pytest.raises(InputError, match="size"):
        brock(bad)
    with pytest.raises(InputError, match="diameter"):
        mayo(bad)
    with pytest.raises(InputError, match="nodule count"):
        brock(8.0, nodule_count=0)
