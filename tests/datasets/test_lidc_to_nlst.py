"""Table A2: LIDC ratings in NLST words."""

from __future__ import annotations

import math

import pytest

from spicula.core.errors import InputError
from spicula.core.semantics import FEATURES, SemanticFeatures
from spicula.datasets.lidc_nodules import load_cases
from spicula.datasets.lidc_to_nlst import TRAITS_USED, nlst_features


@pytest.mark.parametrize(
    ("trait", "rating", "field", "expected"),
    [
        ("internal_structure", 4, "cyst_like_spaces", True),
        ("internal_structure", 3.5, "cyst_like_spaces", False),
        ("internal_structure", 1, "cyst_like_spaces", False),
        ("calcification", 4, "eccentric_calcification", True),
        ("calcification", 6, "eccentric_calcification", False),
        ("sphericity", 3, "shape", "Ovoid"),
        ("sphericity", 3.5, "shape", "Round"),
        ("margin", 3, "conspicuity", "Well marginated"),
        ("margin", 2.5, "conspicuity", "Poorly marginated"),
        ("texture", 1.5, "consistency", "Pure ground glass"),
        ("texture", 2, "consistency", "Part-solid"),
        ("texture", 4, "consistency", "Part-solid"),
        ("texture", 4.5, "consistency", "Solid"),
    ],
)
def test_each_threshold(trait, rating, field, expected):
    found = nlst_features({trait: rating, "malignancy": 5, "subtlety": 3})
    assert getattr(found, field) == expected
    assert {name for name in FEATURES if found.words(name)} == {field}


def test_margins_may_both_hold_and_neither_makes_it_smooth():
    both = nlst_features({"lobulation": 3, "spiculation": 5})
    assert both.margin_words == ("Lobulated", "Spiculated")
    neither = nlst_features({"lobulation": 1, "spiculation": 2.5})
    assert neither.margin_words == ()
    assert dict(neither.margins) == {"Lobulated": False, "Spiculated": False}
    assert neither.as_truth() == {"margins=Lobulated": 0.0, "margins=Spiculated": 0.0}


def test_what_was_not_rated_is_missing():
    assert nlst_features({}) == SemanticFeatures()
    assert nlst_features(dict.fromkeys(TRAITS_USED, math.nan)) == SemanticFeatures()
    assert nlst_features(dict.fromkeys(TRAITS_USED)) == SemanticFeatures()
    full = nlst_features(dict.fromkeys(TRAITS_USED, 4.0), longest_diameter_mm=12.0)
    assert full.suspicion is full.necrosis is full.septal_stretching is None
    assert full.longest_diameter_mm == 12.0


@pytest.mark.parametrize("rating", [0, 5.5, -1, math.inf])
def test_a_rating_off_the_scale_is_refused(rating):
    with pytest.raises(InputError, match="LIDC rating of margin"):
        nlst_features({"margin": rating})


@pytest.mark.shared
def test_real_readings_all_have_words(shared):
    cases = load_cases(shared / "lidc_nodules", with_test_patient=True)
    found = [nlst_features(case.findings[0].truth) for case in cases]
    assert len(found) == 798
    assert all(record.consistency and record.shape and record.conspicuity for record in found)
    assert {record.consistency for record in found} == {"Solid", "Part-solid", "Pure ground glass"}
