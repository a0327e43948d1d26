"""Words asked of nodules: answers beside traits, whose malignancy it is, places, tables, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula import explain
from spicula.classifiers import semantic
from spicula.core.errors import BundleError, GeometryError, InputError
from spicula.core.finding import Finding
from spicula.core.prediction import TRAITS, Prediction
from spicula.core.volume import Volume
from spicula.datasets.phantom import Ball, thorax, thorax_grid
from spicula.explain.lidc_classes import ASKED, QUESTION_OF_TRAIT
from spicula.explain.prompts import prompts_of_words
from spicula.formats import write_nifti
from spicula.pipelines import models as opened
from spicula.pipelines.analyze import analyze, analyze_findings, measure_findings
from spicula.pipelines.answers import Question, answer_questions, is_learned, standard_questions
from spicula.pipelines.batch import write_outputs
from spicula.pipelines.explain import explain_table, is_table
from spicula.pipelines.models import Models, load_models
from spicula.pipelines.score import score
from spicula.report.record import report_schema

PLACE = (-75.0, 20.0, 10.0)
ASK = ("part-solid", "spiculated", "no cavitation", "tree-in-bud pattern")


@pytest.fixture(scope="module")
def chest() -> Volume:
    grid = thorax_grid((2.5, 1.5, 1.5))
    return thorax(grid, balls=[Ball(PLACE, 14.0), Ball((70.0, -10.0, -20.0), 10.0)], vessels=4)


@pytest.fixture(scope="module")
def models(semantic_bundle: Path) -> Models:
    return load_models(semantic=str(semantic_bundle), ssm=None)


@pytest.fixture(scope="module")
def nodule(tmp_path_factory: pytest.TempPathFactory, chest: Volume) -> Path:
    path = tmp_path_factory.mktemp("chest") / "chest.nii.gz"
    write_nifti(path, chest)
    return path


def test_every_finding_has_answers_beside_its_traits(chest: Volume, models: Models) -> None:
    analysis = analyze(chest, models=models, limit=2)
    assert analysis.findings
    assert [words.finding_id for words in analysis.words] == [finding.id for finding in analysis.findings]
    assert models.semantic_model.fingerprint in analysis.fingerprints
    for words in analysis.words:
        assert words.requested == ()
        assert {answer.question for answer in words.standard} == set(ASKED)
        assert words.fingerprint == models.semantic_model.fingerprint
        assert sum(words.attention.values()) == pytest.approx(1)
        traits = analysis.predictions_of(words.finding_id)
        beside = {answer.trait: answer for answer in words.standard if answer.trait}
        assert set(beside) == set(TRAITS)
        for trait, answer in beside.items():
            assert (answer.question, answer.trait_class) == QUESTION_OF_TRAIT[trait]
            assert answer.trait_probability == traits[trait].probability
        for answer in words.answers:
            assert sum(answer.probabilities) == pytest.approx(1)
            assert answer.spread[0] - 1e-9 <= answer.probability <= answer.spread[1] + 1e-9
            assert answer.classes == ASKED[answer.question]
            assert answer.learned


def test_without_the_bundle_all_is_as_before(chest: Volume, models: Models) -> None:
    bare = load_models(semantic=None, ssm=None, search=None)
    assert bare.semantic_model is None
    assert len(bare.fingerprints) == 3
    assert bare.fingerprints == models.fingerprints[:3]
    finding = measure_findings(chest, [Finding("1", PLACE)], models=bare)
    without, withal = (analyze_findings(chest, finding, models=one) for one in (bare, models))
    assert without.words == ()
    assert without.predictions == withal.predictions
    assert without.assessments == withal.assessments


def test_the_sentences_are_read_once_in_a_process(
    chest: Volume, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.semantic_model
    assert models.semantic_model is model
    first = standard_questions(model, "templates")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("spicula.pipelines.answers.read", refuse)
    assert standard_questions(model, "templates") is first


def test_one_constant_decides_whose_malignancy_it_is(
    nodule: Path, chest: Volume, semantic_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "in.csv"
    table.write_text(f"pid,nodule_id,image_path,coordX,coordY,coordZ\n1,1,{nodule},{','.join(map(str, PLACE))}\n")
    found = {}
    for by in ("risk", "semantic"):
        models = load_models(semantic=str(semantic_bundle), malignancy_by=by)
        finding = measure_findings(chest, [Finding("1", PLACE)], models=models)
        analysis = analyze_findings(chest, finding, models=models)
        found[by] = analysis.predictions_of("1")
        assert list(found[by]) == ["malignancy", *TRAITS]
        (row,) = score(table, models=models)
        assert float(row["probability"]) == pytest.approx(found[by]["malignancy"].probability, abs=1e-3)
    risk, other = found["risk"], found["semantic"]
    assert {name: risk[name] for name in TRAITS} == {name: other[name] for name in TRAITS}
    assert risk["malignancy"].fingerprint == risk["texture_solid"].fingerprint
    assert other["malignancy"].fingerprint.startswith("nodule-semantic@")
    assert other["malignancy"].probability != risk["malignancy"].probability
    assert other["malignancy"].explanation == risk["malignancy"].explanation
    low, high = other["malignancy"].interval
    assert low <= other["malignancy"].probability <= high
    with pytest.raises(BundleError, match="malignancy by the semantic bundle"):
        load_models(semantic=None, malignancy_by="semantic")
    assert opened.MALIGNANCY_BY in ("risk", "semantic")


def test_words_are_answered_in_their_order_and_their_order_does_not_matter(chest: Volume, models: Models) -> None:
    analysis = explain(chest, ASK, at=[PLACE], models=models)
    turned = explain(chest, [*ASK[::-1], ASK[0]], at=[PLACE], models=models)
    asked = analysis.words[0].requested
    assert [answer.asked for answer in asked] == list(ASK)
    assert len(turned.words[0].requested) == len(ASK), "a word that comes again is asked once"
    for one, two in zip(asked, turned.words[0].requested[::-1], strict=True):
        assert replace(one, probabilities=(), similarities=(), spread=(0, 0)) == replace(
            two, probabilities=(), similarities=(), spread=(0, 0)
        )
        assert np.allclose(one.probabilities, two.probabilities, atol=1e-6)
    assert [answer.learned for answer in asked] == [True, True, False, False]
    assert [answer.trait for answer in asked] == ["texture_solid", "spiculation_present", None, None]
    standard = {answer.question: answer for answer in analysis.words[0].standard}
    for answer in asked[:2]:
        assert answer.classes == standard[answer.question].classes
        assert np.allclose(answer.probabilities, standard[answer.question].probabilities, atol=1e-6)


@pytest.mark.parametrize("style", ["templates", "compat"])
def test_the_style_of_the_sentences_is_kept(chest: Volume, models: Models, style: str) -> None:
    (words,) = explain(chest, ["round"], at=[PLACE], prompts=style, models=models).words
    assert words.prompts == style
    assert words.requested[0].probability == pytest.approx(
        next(a for a in words.standard if a.question == "shape").probability, abs=1e-6
    )


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations([0, 1, 2]), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_the_order_of_storage_does_not_matter(
    chest: Volume, models: Models, axes: list[int], flips: tuple[bool, bool, bool]
) -> None:
    array, affine = chest.array_zyx.transpose(axes), chest.geometry.affine_lps[:, [*axes, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            array = np.flip(array, axis)
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
    geometry = replace(chest.geometry, shape_zyx=array.shape, affine_lps=affine)
    stored = Volume(np.ascontiguousarray(array), geometry)
    finding = measure_findings(chest, [Finding("1", PLACE)], models=models)
    one, two = (analyze_findings(volume, finding, models=models) for volume in (chest, stored))
    for a, b in zip(one.words[0].answers, two.words[0].answers, strict=True):
        assert np.allclose(a.probabilities, b.probabilities, atol=1e-3)


@pytest.mark.parametrize(
    ("word", "classes", "learned"),
    [
        ("round", {"Round", "Ovoid"}, True),
        ("not round", {"Round", "Ovoid"}, True),
        ("irregular", {"Round", "Ovoid", "Polygonal", "Irregular"}, False),
        ("smooth", {"Present", "Absent"}, False),
        ("no spiculation", {"Present", "Absent"}, True),
        ("not solid", {"Solid", "not Solid"}, True),
        ("cyst-like spaces", {"Present", "Absent"}, True),
        ("necrosis", {"Present", "Absent"}, False),
        ("malignant", {"Very Low", "Moderately Low", "Intermediate", "Moderately High", "High"}, False),
        ("halo sign", {"Present", "Absent"}, False),
    ],
)
def test_what_was_learned_is_what_lidc_readers_rate(word: str, classes: set[str], learned: bool) -> None:
    (found,) = prompts_of_words([word], among=ASKED)
    assert set(found.prompts) == classes
    assert is_learned(found) == learned


def test_a_disagreement_is_seen_through_the_whole_way() -> None:
    model = SimpleNamespace(temperatures=(0.1, 0.1), fingerprint="semantic@0")
    embedding = np.array([[1.0, 0.0], [0.9, np.sqrt(1 - 0.81)]])
    here, there = np.array([[[1.0, 0.0]]] * 2), np.array([[[0.0, 1.0]]] * 2)
    seen = semantic.Seen(embedding, np.zeros(2), np.full((2, 9), 1 / 9), {}, {})

    def ask(word: str, texts: dict[str, np.ndarray], prediction: Prediction) -> bool:
        (found,) = prompts_of_words([word], among=ASKED)
        question = Question(found, MappingProxyType(texts))
        words = answer_questions(seen, [question], [prediction], model=model, finding_id="1")
        return words.answers[0].disagrees

    spiculated, smooth = (Prediction("1", "spiculation_present", p, (p - 0.1, p + 0.1), "r") for p in (0.8, 0.2))
    held, missing = {"Present": here, "Absent": there}, {"Present": there, "Absent": here}
    assert ask("spiculated", held, smooth)
    assert ask("no spiculation", held, smooth)
    assert ask("spiculated", missing, spiculated)
    assert not ask("spiculated", held, spiculated)
    assert not ask("spiculated", missing, smooth)
    solid = Prediction("1", "texture_solid", 0.9, (0.8, 0.95), "r")
    three = {"Pure ground glass": there, "Part-solid": here, "Solid": there}
    assert ask("part-solid", three, solid)
    assert not ask("part-solid", {**three, "Part-solid": there, "Solid": here}, solid)


def test_a_table_is_asked_image_by_image(nodule: Path, models: Models, tmp_path: Path) -> None:
    place = ",".join(map(str, PLACE))
    rows = [
        f"7,a,{nodule},{place}", "7,b,no-such.nii.gz,1,2,3", f"7,a,{nodule},{place}", f"7,c,{nodule},0,0,9999",
        f"7,d,{nodule},-75,-30,40",
    ]  # fmt: skip
    table = tmp_path / "in.csv"
    table.write_text("\n".join(["pid,nodule_id,image_path,coordX,coordY,coordZ", *rows]) + "\n")
    assert is_table(table)
    assert not is_table(nodule)
    good, absent = explain_table(table, ["solid"], models=models)
    assert [finding.id for finding in good.analysis.findings] == ["a", "a (2)"]
    assert [words.finding_id for words in good.analysis.words] == ["a", "a (2)"]
    assert good.scan_id.startswith("chest-")
    assert [line.split(":")[0] for line in good.failed] == ["nodule c of 7 lies outside the volume", "nodule d of 7"]
    assert absent.analysis is None
    assert absent.failed[0].startswith("nodule b of 7: ")


def test_the_report_holds_the_words(chest: Volume, models: Models, tmp_path: Path) -> None:
    write_outputs(explain(chest, ASK, at=[PLACE], models=models), tmp_path)
    record = json.loads((tmp_path / "report.json").read_text())
    jsonschema.Draft202012Validator(report_schema()).validate(record)
    answers = record["findings"][0]["words"]["answers"]
    assert [answer["asked"] for answer in answers if answer["asked"]] == list(ASK)
    page = (tmp_path / "report.html").read_text()
    assert "Words asked for" in page
    assert "tree-in-bud pattern" in page
    assert page.count("not among the words it learned") == 2


def refused(**changes: object) -> dict[str, object]:
    return {"words": ["solid"], "at": [PLACE], **changes}


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        (refused(words=[]), InputError, "words to ask"),
        (refused(words="solid"), InputError, "one or more"),
        (refused(words=["solid", " "]), InputError, "word to look for"),
        (refused(words=["a\x1b[31m"]), InputError, "on one line"),
        (refused(words=["x" * 201]), InputError, "1 to 200 characters"),
        (refused(at=[(1.0, 2.0)]), InputError, "x, y, z in mm LPS"),
        (refused(at=[(float("nan"), 0.0, 0.0)]), InputError, "x, y, z in mm LPS"),
        (refused(at=[(0.0, 0.0, 500.0)]), GeometryError, "lies outside the volume"),
        (refused(at=[(-75.0, -30.0, 40.0)]), InputError, "nothing but air"),
        (refused(prompts="other"), InputError, "compat or templates"),
    ],
)
def test_what_cannot_be_asked_is_told(
    chest: Volume, models: Models, changes: dict[str, object], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        explain(chest, models=models, **changes)


def test_a_scan_without_nodules_and_a_wrong_bundle_are_told(
    chest: Volume, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spicula.pipelines.explain.find_nodules", lambda *_, **__: ((), []))
    with pytest.raises(InputError, match="--at X,Y,Z"):
        explain(chest, ["solid"], models=models)
    with pytest.raises(BundleError, match="--bundle DIR"):
        explain(chest, ["solid"], models=load_models(semantic=None))
    with pytest.raises(BundleError, match="expected semantic, outlined_clip"):
        explain(chest, ["solid"], models=load_models(semantic="nodule-risk"))


@pytest.mark.shared
def test_a_real_series_is_asked_where_its_nodule_is(lidc_0001: Path, models: Models) -> None:
    analysis = explain(lidc_0001, ["solid"], at=[(56.21, 86.34, -115.87)], models=models)
    assert analysis.findings[0].diameter_mm == pytest.approx(29.6, rel=0.2)
    assert analysis.words[0].requested[0].trait == "texture_solid"
