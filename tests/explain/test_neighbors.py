"""Evidence from neighbors: shares by patient, intervals, and a query unlike anything."""

import pytest
from scipy.stats import beta

from spicula.core.embedding import Match
from spicula.core.errors import InputError
from spicula.core.neighbors import UNLIKE
from spicula.explain.neighbors import background_of, jeffreys, neighborhood, share_of


def match(name: str, distance: float, **facts: float | str) -> Match:
    return Match(name, distance, {"pid": name.partition("/")[0], "nodule_id": name.partition("/")[2], **facts})


def test_a_patient_with_many_nodules_counts_once() -> None:
    found = [match(f"a/{n}", 0.1, malignant=1.0) for n in range(8)] + [match("b/1", 0.3, malignant=0.0)]
    share = share_of(found, "malignant")
    assert share is not None
    assert (share.value, share.patients) == (0.5, 2)
    assert share.interval == jeffreys(1.0, 2)


def test_unknown_outcomes_are_left_out_and_none_at_all_gives_nothing() -> None:
    found = [match("a/1", 0.1), match("b/1", 0.2, malignant=1.0)]
    share = share_of(found, "malignant")
    assert share is not None
    assert share.patients == 1
    assert share_of(found[:1], "malignant") is None


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (3, 7), (2.5, 4)])
def test_jeffreys_interval_is_the_posterior_of_scipy(hits: float, n: int) -> None:
    low, high = jeffreys(hits, n)
    expected = beta(hits + 0.5, n - hits + 0.5).ppf([0.025, 0.975])
    assert low == pytest.approx(0.0 if hits == 0 else expected[0])
    assert high == pytest.approx(1.0 if hits == n else expected[1])


def test_a_query_far_from_everything_says_so() -> None:
    usual = background_of([0.01 * n for n in range(1, 101)], [])
    near = neighborhood("1", [match("a/1", 0.5, malignant=1.0)], background=usual, fingerprint="net@0")
    far = neighborhood("1", [match("a/1", 1.5, malignant=1.0)], background=usual, fingerprint="net@0")
    assert near.farther_than == pytest.approx(0.49)
    assert not near.is_unlike_all
    assert far.farther_than == 1.0 >= UNLIKE


def test_a_small_index_does_not_judge_distances() -> None:
    usual = background_of([0.1] * 19, [])
    assert neighborhood("1", [match("a/1", 1.9)], background=usual, fingerprint="net@0").farther_than is None


def test_traits_are_told_against_what_is_usual() -> None:
    everyone = [{"pid": str(n), "nodule_id": "1", "spiculation_present": float(n < 2)} for n in range(10)]
    usual = background_of([0.1] * 30, everyone)
    assert usual.means == {"spiculation_present": 0.2}
    found = [match(f"{n}/1", 0.1, spiculation_present=1.0) for n in range(8)]
    told = neighborhood("1", found, background=usual, fingerprint="net@0")
    assert [trait.trait for trait in told.traits] == ["spiculation_present"]
    assert told.traits[0].is_shared
    mixed = neighborhood(
        "1", [*found[:1], match("x/1", 0.2, spiculation_present=0.0)], background=usual, fingerprint="n"
    )
    assert not mixed.traits[0].is_shared


def test_the_distance_is_that_to_the_nearest_of_all_whatever_the_matches_met() -> None:
    usual = background_of([0.01 * n for n in range(1, 101)], [])
    far = [match("a/1", 1.5, malignant=1.0)]
    told = neighborhood("1", far, background=usual, fingerprint="n", nearest=0.5, where="malignant = 1")
    assert (told.farther_than, told.is_unlike_all, told.where) == (pytest.approx(0.49), False, "malignant = 1")
    assert neighborhood("1", [], background=usual, fingerprint="n", nearest=1.5, where="k = 1").is_unlike_all
    assert neighborhood("1", [], background=usual, fingerprint="n").farther_than is None


def test_an_outcome_that_is_no_share_is_passed_over() -> None:
    odd = [match("a/1", 0.1, malignant="yes"), match("b/1", 0.1, malignant=3.0), match("c/1", 0.1, malignant=-0.5)]
    assert share_of(odd, "malignant") is None
    share = share_of([*odd, match("d/1", 0.2, malignant=1.0)], "malignant")
    assert share is not None
    assert (share.value, share.patients) == (1.0, 1)
    facts = [{"malignant": 3.0, "texture_solid": 5.0, "age": 60.0}, {"malignant": 1.0, "texture_solid": 0.0}]
    assert background_of([], facts).means == {"malignant": 1.0, "texture_solid": 0.0, "age": 60.0}
    with pytest.raises(InputError, match="no distance"):
        background_of([float("nan")], [])
