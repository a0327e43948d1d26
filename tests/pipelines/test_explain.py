"""Words for findings: on a ball built in code and on the real scan of LIDC-IDRI-0001."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spicula.classifiers import semantic
from spicula.cli import app
from spicula.core.errors import BundleError, GeometryError, InputError
from spicula.core.geometry import Geometry
from spicula.core.prediction import TRAITS, Prediction
from spicula.core.volume import Volume
from spicula.formats import read_volume, write_nifti
from spicula.pipelines.explain import analyze_places, explain_scan
from spicula.pipelines.models import load_models
from spicula.pipelines.rate import rate_nodule
from spicula.pipelines.words import disagree, words_of_user

CENTER = (10.0, -12.0, 60.0)


@pytest.fixture(scope="module")
def chest() -> Volume:
    """A block of noisy lung with a solid ball of 14 mm."""
    grid = Geometry.from_axes((40, 72, 72), (1.5, 0.8, 0.8), origin_xyz_mm=(-18.0, -40.0, 30.0))
    index = np.moveaxis(np.indices(grid.shape_zyx), 0, -1)
    radius = np.linalg.norm(grid.index_to_world(index) - CENTER, axis=-1)
    hu = -850 + 880 / (1 + np.exp((radius - 7) / 0.5)) + np.random.default_rng(0).normal(0, 20, grid.shape_zyx)
    return Volume(hu.round().astype(np.int16), grid)


def test_every_finding_gets_the_words_of_the_traits_and_of_the_user(chest: Volume) -> None:
    told = explain_scan(chest, ["part-solid", "no calcification", "hairy"], at=[CENTER])
    answers = told.answers_of("1")
    assert [answer.asked for answer in answers] == [
        "subtlety_obvious", "calcification_present", "sphericity_round", "margin_sharp", "lobulation_present",
        "spiculation_present", "texture_solid", "part-solid", "no calcification", "hairy",
    ]  # fmt: skip
    assert [answer.trait for answer in answers[: len(TRAITS)]] == list(TRAITS)
    for answer in answers:
        assert sum(answer.probabilities) == pytest.approx(1.0)
        assert all(-1 <= value <= 1 for value in answer.similarities)
        assert answer.fingerprint == load_models().semantic.fingerprint
    part, calcium, hairy = answers[len(TRAITS) :]
    assert part.learned
    assert set(part.classes) == {"Pure ground glass", "Part-solid", "Solid"}
    assert calcium.name == "Absent"
    assert calcium.trait == "calcification_present"
    of_trait = told.predictions_of("1")["calcification_present"].probability
    assert calcium.trait_probability == pytest.approx(1 - of_trait)
    present = answers[1]
    assert calcium.probability == pytest.approx(1 - present.probability)
    assert not hairy.learned
    assert hairy.question is None


def test_the_order_of_words_does_not_matter(chest: Volume) -> None:
    words = ["spiculated", "solid", "smooth"]
    one = {a.asked: a for a in explain_scan(chest, words, at=[CENTER]).answers}
    other = {a.asked: a for a in explain_scan(chest, words[::-1], at=[CENTER]).answers}
    assert one == other


def test_storage_order_does_not_matter(chest: Volume) -> None:
    flipped = Geometry.from_axes(
        chest.geometry.shape_zyx, (1.5, 0.8, 0.8),
        origin_xyz_mm=tuple(chest.geometry.index_to_world(np.asarray(chest.geometry.shape_zyx) - 1)),
        direction_xyz=-np.eye(3),
    )  # fmt: skip
    other = Volume(np.ascontiguousarray(chest.array_zyx[::-1, ::-1, ::-1]), flipped)
    one = [a.probability for a in explain_scan(chest, ["spiculated"], at=[CENTER]).answers]
    assert [a.probability for a in explain_scan(other, ["spiculated"], at=[CENTER]).answers] == pytest.approx(
        one, abs=5e-3
    )


@pytest.mark.parametrize(
    ("interval", "words", "clash"),
    [((0.6, 0.9), 0.25, True), ((0.6, 0.9), 0.26, False), ((0.4, 0.9), 0.0, False), ((0.1, 0.4), 0.75, True)],
)
def test_words_disagree_with_a_trait_that_is_sure(interval: tuple[float, float], words: float, clash: bool) -> None:
    assert disagree(Prediction("1", "margin_sharp", sum(interval) / 2, interval, ""), words) is clash


def test_malignancy_is_given_by_the_model_that_is_asked_for(chest: Volume) -> None:
    by = {who: load_models(malignancy_by=who) for who in ("risk", "semantic")}
    found = {
        who: {p.target: p for p in rate_nodule(chest, CENTER, None, models=models, finding_id="1")}
        for who, models in by.items()
    }
    assert found["risk"]["malignancy"].fingerprint.startswith("nodule-risk@")
    assert found["semantic"]["malignancy"].fingerprint.startswith("nodule-semantic@")
    assert found["semantic"]["malignancy"].explanation == found["risk"]["malignancy"].explanation
    assert {t: p for t, p in found["risk"].items() if t in TRAITS} == {
        t: p for t, p in found["semantic"].items() if t in TRAITS
    }
    low, high = found["semantic"]["malignancy"].interval
    assert 0 <= low <= found["semantic"]["malignancy"].probability <= high <= 1


def test_a_place_outside_the_scan_names_the_flip(chest: Volume) -> None:
    with pytest.raises(GeometryError, match="place 1"):
        explain_scan(chest, ["solid"], at=[(500.0, 0.0, 0.0)])


@pytest.mark.parametrize("words", [[], [""], ["  ."], ["x" * 201]])
def test_words_that_are_none_are_refused_before_anything_is_done(words: list[str]) -> None:
    with pytest.raises(InputError, match="word"):
        words_of_user(words)


def test_imported_weights_are_told_from_ours() -> None:
    with pytest.raises(BundleError, match="task and kind"):
        semantic.load_semantic(load_models().risk)


def test_the_command_prints_and_writes(chest: Volume, tmp_path: Path) -> None:
    scan = tmp_path / "chest.nii.gz"
    write_nifti(scan, chest)
    at = "--at=10,-12,60"
    out = tmp_path / "told"
    run = CliRunner().invoke(
        app, ["explain", str(scan), "--words", "part-solid", "--words", "pleural tag", at, "--out", str(out)]
    )
    assert run.exit_code == 0, run.output
    assert "part-solid" in run.output
    assert "not among the words it learned" in run.output
    record = json.loads((out / "report.json").read_text())
    assert [word["asked"] for word in record["findings"][0]["words"]][-2:] == ["part-solid", "pleural tag"]
    page = (out / "report.html").read_text()
    assert "Words asked for" in page
    assert "pleural tag" in page


@pytest.mark.parametrize("place", ["1,2", "a,b,c", "1;2;3"])
def test_a_place_that_is_none_is_an_error_with_a_hint(place: str, tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["explain", str(tmp_path), "--words", "solid", f"--at={place}"])
    assert isinstance(run.exception, InputError)
    assert "--at" in str(run.exception)


@pytest.mark.shared
def test_a_whole_scan_and_its_small_volume_are_told_alike(lidc_0001: Path, shared: Path) -> None:
    """The check of where volumes end: the same nodule, cut out and whole."""
    models, place = load_models(), (56.21, 86.34, -115.87)
    whole = analyze_places(read_volume(lidc_0001), [place], models=models)
    small = read_volume(shared / "lidc_nodules" / "image" / "LIDC-IDRI-0001_1.nii.gz")
    found = []
    for volume in (whole.volume, small):
        mask = whole.findings[0].mask
        seen = semantic.see(volume, place, mask, model=models.semantic_model)
        found.append(semantic.malignancy(seen, model=models.semantic_model, finding_id="1").probability)
    assert abs(found[0] - found[1]) < 0.05
