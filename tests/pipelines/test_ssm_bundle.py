"""The bundle of the self-supervised transformer: its card, and what analyze says with it and without it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from spicula.classifiers.ssm import load_ssm  # noqa: E402
from spicula.core.bundle import Bundle, load_bundle  # noqa: E402
from spicula.core.errors import BundleError, InputError  # noqa: E402
from spicula.core.finding import Finding  # noqa: E402
from spicula.core.volume import Volume  # noqa: E402
from spicula.datasets.phantom import Ball, thorax, thorax_grid  # noqa: E402
from spicula.networks.vit import VisionTransformer, VitShape  # noqa: E402
from spicula.pipelines import ssm_card  # noqa: E402
from spicula.pipelines.analyze import analyze, analyze_findings, measure_findings  # noqa: E402
from spicula.pipelines.batch import write_outputs  # noqa: E402
from spicula.pipelines.models import Models, load_models  # noqa: E402
from spicula.pipelines.slice_table import SliceTable  # noqa: E402
from spicula.pipelines.ssm_bundle import linear_of_sklearn, make_bundle  # noqa: E402
from spicula.pipelines.ssm_card import Pretraining, pretraining_of  # noqa: E402
from spicula.report.html import render_html  # noqa: E402
from spicula.report.record import report_schema, to_record  # noqa: E402

PLACE = (-75.0, 20.0, 10.0)
SOURCES = Pretraining({"LIDC-IDRI": (40, 20)}, epochs=2)


@pytest.fixture(scope="module")
def chest() -> Volume:
    return thorax(thorax_grid((2.5, 1.5, 1.5)), balls=[Ball(PLACE, 14.0), Ball((70.0, -10.0, -20.0), 10.0)], vessels=4)


@pytest.fixture(scope="module")
def models(ssm_bundle: Path) -> Models:
    return load_models(semantic=None, ssm=str(ssm_bundle))


def test_the_manifest_and_its_card(ssm_bundle: Path) -> None:
    bundle = load_bundle(ssm_bundle)
    assert (bundle.name, bundle.task) == ("nodule-ssm", "features")
    assert set(bundle.manifest["files"]) == {"network.onnx", "forest.npz", "linear.npz"}
    assert (bundle.preprocessing["side_pixels"], bundle.preprocessing["outlines_in_training_views"]) == (
        70,
        "nodule-outline@0",
    )
    assert bundle.manifest["outputs"]["heads"].keys() == {"forest", "linear"}
    card = bundle.card
    for key in ("data", "licence", "metrics", "intended_use", "limits"):
        assert card[key]
    assert [(one["name"], one["licence"], one["what"]) for one in card["data"]] == [
        ("LIDC-IDRI", "CC BY 3.0", "40 slices through nodules of 20 patients"),
        ("Lung-Fused-CT-Pathology", "CC BY 3.0", "8 pieces of lung of 1 patient"),
    ]
    assert "48 CT slices of 21 patients, 3 epochs" in card["method"]
    assert card["metrics"]["shipped"] == "honest / slice / cls, all"
    assert card["metrics"]["honest"]["slice"]["cls, all"]["gain_over_untrained"]["value"] == 0.1
    assert "tells more from its features than from those of the same network untrained: AUROC +0.1000" in card["role"]
    limits = " ".join(card["limits"])
    assert "add nothing clear to what that tells alone: AUROC +0.1000 (-0.0100 to +0.1500), paired" in limits
    assert "not compared with nodule-risk" in limits
    assert "tells more from its features" not in limits
    assert "outlines were" in limits
    assert "7.0 mm" in limits


def test_a_gain_over_the_supervised_model_is_told() -> None:
    gain = {"value": -0.02, "low": -0.05, "high": 0.01}
    ((good, sentence),) = ssm_card.worth_of({"gain_over_risk": gain})
    assert not good
    assert sentence.startswith("Not better in the malignancy than nodule-risk")
    ((good, sentence),) = ssm_card.worth_of({"gain_over_risk": {**gain, "low": 0.001}})
    assert good
    assert sentence.startswith("Better")


def test_what_was_pretrained_on_is_counted() -> None:
    names = np.array(["LIDC-IDRI-0002", "LIDC-IDRI-0002", "LIDC-IDRI-0003", "LungFCP-01-0001"])
    table = SliceTable(np.zeros((4, 2, 2), np.int16), np.zeros((4, 2, 2), np.uint8), names, names, names)
    found = pretraining_of(table, epochs=7, outlines="o")
    assert found.sources == {"LIDC-IDRI": (3, 2), "LungFCP": (1, 1)}
    assert (found.slices, found.patients, found.epochs, found.outlines) == (4, 3, 7, "o")
    with pytest.raises(InputError, match="'lung1', expected of LIDC-IDRI and LungFCP"):
        pretraining_of(replace(table, patients=np.array([*names[:3], "lung1"])), epochs=7)
    with pytest.raises(InputError, match="got none"):
        Pretraining({}, epochs=1)


@pytest.mark.parametrize(("read", "width"), [("cls", 16), ("both", 32)])
def test_heads_are_optional_and_must_fit(tmp_path: Path, read: str, width: int) -> None:
    backbone = VisionTransformer(VitShape(16, 1, 2, image=70, layer_scale=1.0))
    call = {"evaluation": {"honest": {"alone": {f"{read}, middle": {}}}}, "pretraining": SOURCES, "view": "alone",
            "read": read, "slices": 1}  # fmt: skip
    bundle = make_bundle(tmp_path / "b", backbone, **call)
    assert list(bundle.manifest["files"]) == ["network.onnx"]
    model = load_ssm(bundle, threads=1)
    assert (model.forest, model.linear, model.view, model.slices) == (None, None, "alone", 1)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)), np.arange(40) % 2
    with pytest.raises(InputError, match=f"features of the forest: got 5, expected {width}"):
        make_bundle(tmp_path / "c", backbone, RandomForestClassifier(2).fit(x, y), **call)
    linear = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    with pytest.raises(InputError, match=f"features of the linear model: got 5, expected {width + 1}"):
        make_bundle(tmp_path / "c", backbone, None, linear, **call)
    with pytest.raises(InputError, match="no probes of what ships"):
        make_bundle(tmp_path / "c", backbone, **{**call, "slices": 5})
    assert not (tmp_path / "c").exists()


def test_the_linear_model_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, size=(80, 4))
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, x[:, 0] + rng.normal(size=80) > 3)
    linear = linear_of_sklearn(pipeline)
    told = [linear(row[:3].astype(np.float64), float(np.exp(row[3]))) for row in x]
    np.testing.assert_allclose(told, pipeline.predict_proba(x)[:, 1], atol=1e-9)
    for other in (LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression()), None):
        with pytest.raises(InputError, match="StandardScaler and LogisticRegression"):
            linear_of_sklearn(other)


def test_every_finding_is_looked_at(chest: Volume, models: Models, tmp_path: Path) -> None:
    analysis = analyze(chest, models=models, limit=2)
    assert analysis.findings
    assert [one.finding_id for one in analysis.slice_readings] == [finding.id for finding in analysis.findings]
    assert models.ssm_model.fingerprint == models.ssm.fingerprint
    assert models.ssm.fingerprint in analysis.fingerprints
    for finding in analysis.findings:
        seen = analysis.slice_reading_of(finding.id)
        assert seen is not None
        assert seen.malignancy is not None
        assert seen.malignancy_with_diameter is not None
        np.testing.assert_allclose(seen.geometry.center_xyz_mm[:2], finding.center_xyz_mm[:2], atol=4)
    assert analysis.slice_reading_of("nobody") is None
    write_outputs(analysis, tmp_path)
    record = json.loads((tmp_path / "report.json").read_text())
    jsonschema.Draft202012Validator(report_schema()).validate(record)
    told = record["findings"][0]["self_supervised"]
    first = analysis.slice_readings[0]
    assert told["share_of_attention"] == pytest.approx(first.share_of_attention, abs=1e-4)
    assert (np.shape(told["attention"]), told["side_mm"]) == ((5, 5), 35.0)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count('class="heat"') == 25 * len(analysis.findings)


def test_without_the_bundle_all_is_as_before(chest: Volume, models: Models) -> None:
    bare = load_models(semantic=None, ssm=None, search=None)
    assert (bare.ssm, bare.ssm_model, len(bare.fingerprints)) == (None, None, 3)
    assert bare.fingerprints == models.fingerprints[:3]
    findings = measure_findings(chest, [Finding("1", PLACE)], models=bare)
    without, withal = (analyze_findings(chest, findings, models=one) for one in (bare, models))
    assert without.slice_readings == ()
    assert without.predictions == withal.predictions
    assert without.assessments == withal.assessments
    assert "self_supervised" not in to_record(without)["findings"][0]
    page = render_html(without)
    assert 'class="look"' not in page
    assert 'class="heat"' not in page
    assert analyze_findings(chest, [], models=models).slice_readings == ()


def test_the_shipped_bundle_may_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = [load_bundle(name) for name in ("nodule-detection", "nodule-outline", "nodule-risk")]
    monkeypatch.setattr("spicula.pipelines.models.SHIPPED", tmp_path)
    monkeypatch.setattr(
        "spicula.pipelines.models.load_bundle", lambda name: next(one for one in shipped if one.name == name)
    )
    models = load_models()
    assert (models.semantic, models.ssm) == (None, None)


def test_a_named_bundle_must_be_there_and_of_its_kind(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="was not found"):
        load_models(ssm=str(tmp_path / "none"))
    models = load_models(semantic=None, ssm="nodule-risk")
    assert isinstance(models.ssm, Bundle)
    with pytest.raises(BundleError, match="task and kind"):
        _ = models.ssm_model
