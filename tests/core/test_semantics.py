"""The vocabulary of the NLST readings against the published table, and records in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.core.errors import InputError
from spicula.core.semantics import FEATURES, PRESENCE, SemanticFeatures
from spicula.papers.zhuang2025 import PAPER


def test_the_nineteen_features_and_their_classes_are_those_of_table_a1():
    printed: dict[str, set[str]] = {}
    for number in PAPER.at_place("Table A1"):
        feature, _, name = number.target.partition(" = ")
        printed.setdefault(feature.lower(), set()).add(name)
    assert {feature.title for feature in FEATURES.values()} == set(printed)
    assert len(FEATURES) == 19
    for feature in FEATURES.values():
        if feature.kind != "length":
            assert set(feature.classes) == printed[feature.title] - {"N/A"}
    assert [sum(f.group == g for f in FEATURES.values()) for g in ("general", "internal", "external")] == [6, 7, 5]


def test_columns_are_those_of_the_training_table():
    semantic = [
        "nodule_margin_conspicuity",
        "nodule_margins",
        "additional_nodule_margins",
        "nodule_shape",
        "nodule_consistency",
        "nodule_reticulation",
        "cyst-like_spaces",
        "intra-nodular_bronchiectasis",
        "necrosis",
        "cavitation",
        "eccentric_calcification",
        "airway_cut-off",
        "pleural_attachment",
        "pleural_retraction",
        "vascular_convergence",
        "septal_stretching",
        "paracicatricial_emphysema",
    ]
    columns = {column for feature in FEATURES.values() for column in feature.columns}
    others = {"longest_axial_diameter_(mm)", "short_diameter_(mm)", "level_of_suspicion_of_lung_cancer"}
    assert len(semantic) == 17
    assert columns == set(semantic) | others


def test_a_row_of_the_published_table():
    found = SemanticFeatures.from_cells(
        {
            "longest_axial_diameter_(mm)": "12.5",
            "Nodule_Margins": "Spiculated/Serrated",
            "additional_nodule_margins": "Lobulated, ill-defined",
            "nodule_shape": "Complex/Irregular",
            "nodule_consistency": "part-solid",
            "necrosis": "Absent",
            "airway_cut-off": "N/A",
            "pleural_retraction": "Obvious dimpling",
            "level_of_suspicion_of_lung_cancer": "Moderately High",
        }
    )
    assert found.margin_words == ("Lobulated", "Spiculated", "Ill-defined")
    assert found.margins["Smooth"] is False
    assert (found.shape, found.consistency, found.longest_diameter_mm) == ("Irregular", "Part-solid", 12.5)
    assert (found.necrosis, found.pleural_retraction, found.airway_cutoff) == (False, True, None)
    assert found.as_truth()["suspicion"] == 4.0
    assert found.words("suspicion") == ("Moderately High",)
    assert found.words("necrosis") == ("Absent",)
    assert found.words("airway_cutoff") == found.words("longest_diameter_mm") == ()


def test_nothing_read_is_missing_and_not_absent():
    nothing = SemanticFeatures.from_cells({"necrosis": "", "nodule_margins": "nan", "pid": "7"})
    assert nothing == SemanticFeatures()
    assert nothing.as_truth() == {}
    assert SemanticFeatures.from_truth({"label": 1.0}) == nothing


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("nodule_shape", "Square", "column nodule_shape: nodule shape: got 'Square', expected one of Round"),
        ("nodule_margins", "Smooth, fuzzy", "column nodule_margins"),
        ("necrosis", "yes", "column necrosis"),
        ("short_diameter_(mm)", "long", "column short_diameter"),
        ("short_diameter_(mm)", "-3", "a length in mm"),
    ],
)
def test_an_unknown_word_is_refused_with_its_column(column, cell, words):
    with pytest.raises(InputError) as caught:
        SemanticFeatures.from_cells({column: cell})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "written", "nearest"),
    [
        ("consistency", "Partially solid", "Part-solid"),
        ("consistency", "ground-glas", "Pure ground glass"),
        ("margins", "spiculate", "Spiculated"),
        ("margins", "serated", "Spiculated"),
        ("shape", "ovale", "Ovoid"),
        ("conspicuity", "poor margination", "Poorly marginated"),
        ("necrosis", "presnt", "Present"),
        ("suspicion", "moderate high", "Moderately High"),
        ("suspicion", "", "High"),
    ],
)
def test_the_nearest_legal_word_is_named(name, written, nearest):
    feature = FEATURES[name]
    if written:
        assert feature.nearest(written) == nearest
    with pytest.raises(InputError, match="Hint: the nearest is '") as caught:
        feature.word(written)
    assert caught.value.hint.removeprefix("the nearest is '")[:-1] in feature.classes
    assert not written or nearest in caught.value.hint


def test_a_record_names_the_nearest_word_too_and_a_length_has_none():
    with pytest.raises(InputError, match="the nearest is 'Ovoid'"):
        SemanticFeatures(shape="Oval")
    with pytest.raises(InputError, match=r"column nodule_margins: .*the nearest is 'Lobulated'"):
        SemanticFeatures.from_cells({"nodule_margins": "smooth, lobular"})
    assert FEATURES["short_diameter_mm"].nearest("round") is None


def test_a_record_holds_no_unknown_word():
    with pytest.raises(InputError, match="nodule shape"):
        SemanticFeatures(shape="Oval")
    with pytest.raises(InputError, match="nodule margin"):
        SemanticFeatures(margins={"Fuzzy": True})


def values(name: str) -> st.SearchStrategy[object]:
    feature = FEATURES[name]
    if feature.kind == "several":
        return st.dictionaries(st.sampled_from(feature.classes), st.booleans())
    if feature.kind == "length":
        return st.none() | st.floats(0.5, 90)
    return st.none() | (st.booleans() if feature.classes == PRESENCE else st.sampled_from(feature.classes))


@given(st.fixed_dictionaries({name: values(name) for name in FEATURES}))
def test_a_record_survives_as_numbers(fields):
    record = SemanticFeatures(**fields)
    numbers = record.as_truth()
    assert all(isinstance(value, float) for value in numbers.values())
    assert SemanticFeatures.from_truth(numbers | {"label": 1.0}) == record


COLUMNS = [column for feature in FEATURES.values() for column in feature.columns]


@given(st.dictionaries(st.sampled_from(COLUMNS), st.text(max_size=12)))
def test_noise_is_a_record_or_an_input_error(cells):
    try:
        record = SemanticFeatures.from_cells(cells)
    except InputError:
        return
    assert SemanticFeatures.from_truth(record.as_truth()) == record
