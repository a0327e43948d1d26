"""Types of lesions: on LIDC by encoders of folds, on DeepLesion by its parts; nobody is told by who has seen him."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="pip install 'spicula[train]'")

import torch

from spicula.core.errors import InputError
from spicula.core.finding import Case, Finding
from spicula.datasets import deeplesion, lidc_nodules
from spicula.datasets.deeplesion_table import COLUMNS, LESION_TYPES
from spicula.networks.checkpoint import save_weights
from spicula.networks.resnet import RegionEncoder, RegionShape
from spicula.papers import paper
from spicula.pipelines import lesion_calls, lesion_regions, lesion_types
from spicula.pipelines.evaluate_paper import PaperEvaluation, lines
from spicula.pipelines.lesion_calls import (
    ALONE,
    BALANCED,
    FILTERS,
    GRAY,
    LINEAR,
    NEIGHBORS,
    SCRATCH,
    SHOWN,
    TUNED,
    TeachingRecipe,
    calls_of_filter,
    statistics_of,
    taught_calls,
)
from spicula.pipelines.lesion_regions import Lesions, Round, lidc_lesions, pieces_of
from spicula.pipelines.lesion_types import evaluate_lesion_types, qi_rows, scores_of
from spicula.pipelines.pretraining_loop import SHAPE
from spicula.pipelines.search_arms import ARMS, MAIN, ON_PAIRS, SearchRecipe, shape_of
from spicula.pipelines.search_nodules import TOLD, Pieces
from spicula.pipelines.train_retrieval import encoder_folder

RECIPE = SearchRecipe(width=2, epochs=1, latent=4)
TEACHING = TeachingRecipe(steps=2, scratch_steps=2, batch=8)
NODULES, FOLDS = 24, 2
QUIET = {"teaching": TEACHING, "report": lambda line: None}
FEW = {name: FILTERS[name] for name in list(FILTERS)[:2]}


def picture(kind, rng, side=64):
    """A small disc, a large one, or a line."""
    y, x = np.indices((side, side)) - (side - 1) / 2
    inside = np.abs(y) < 4 if kind == 2 else np.hypot(y, x) < 5 + 12 * kind
    return (np.where(inside, 20, -850) + rng.normal(0, 30, (side, side))).astype(np.int16)


def encoder_in(folder, shape=None, seed=0):
    torch.manual_seed(seed)
    encoder = RegionEncoder(shape or RegionShape(channels=2, width=4, further=1, dimensions=8))
    folder.mkdir(parents=True)
    (folder / SHAPE).write_text(json.dumps(asdict(encoder.shape)))
    save_weights(folder, encoder.state_dict())
    return folder


@pytest.fixture
def lesions(tmp_path):
    """Lesions of three types in three quarters to learn from and one to tell; one of no known type in each."""
    rng = np.random.default_rng(0)
    n = 48
    label = np.arange(n) % 3
    of_nodule = np.sort(np.concatenate([np.arange(n), np.arange(0, n, 2)]))
    hu = np.stack([picture(label[row], rng) for row in of_nodule])
    known = label.copy()
    known[[0, 40]] = -1
    folder = encoder_in(tmp_path / "encoder")
    return Lesions(
        "made up", Pieces(hu, of_nodule), np.array([f"P{row // 2}" for row in range(n)]), {"kind": known},
        {"kind": ("small", "large", "line")}, (Round(np.arange(32), np.arange(32, n)),), {MAIN: (folder,)}, 1.0, 4,
    )  # fmt: skip


def test_a_network_taught_end_to_end_learns_types_and_leaves_its_start_alone(lesions):
    torch.set_num_threads(1)
    start = lesions.encoder(MAIN, 0)
    before = {name: value.clone() for name, value in start.state_dict().items()}
    (one,) = lesions.rounds
    learn, test = lesions.known("kind", one.learn), lesions.known("kind", one.test)
    assert (len(learn), len(test)) == (31, 15)
    recipe = TeachingRecipe(steps=30, batch=16, rate=3e-3)
    said = taught_calls(start, lesions, "kind", learn, test, recipe)
    assert (said == lesions.labels["kind"][test]).mean() > 0.9
    assert all(torch.equal(before[name], value) for name, value in start.state_dict().items())
    short = replace(recipe, steps=2)
    calls = [taught_calls(start, other, "kind", learn, test, short) for other in (lesions, hidden(lesions, test))]
    assert calls[0].shape == calls[1].shape == test.shape


def hidden(lesions, rows):
    """The same without what some of them look like."""
    hu = lesions.pieces.hu.copy()
    hu[np.isin(lesions.pieces.of_nodule, rows)] = 0
    return replace(lesions, pieces=Pieces(hu, lesions.pieces.of_nodule))


def test_what_is_tested_is_never_learned_from(lesions, monkeypatch):
    (one,) = lesions.rounds
    learn, test = lesions.known("kind", one.learn), lesions.known("kind", one.test)
    taught = []
    monkeypatch.setattr(
        lesion_calls, "features_of_pieces", lambda network, pieces, middle: taught.append(network) or np.zeros((15, 3))
    )
    for some in (lesions, hidden(lesions, test)):
        taught_calls(lesions.encoder(MAIN, 0), some, "kind", learn, test, TEACHING)
    seen = torch.rand(2, 2, 64, 64)
    with torch.inference_mode():
        assert torch.equal(*(network.features(seen) for network in taught))


def test_pieces_of_some_lesions(lesions):
    some = pieces_of(lesions.pieces, np.array([5, 2]))
    assert some.of_nodule.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(some.hu[0], lesions.pieces.hu[lesions.pieces.of_nodule == 5][0])
    np.testing.assert_array_equal(some.hu[1:], lesions.pieces.hu[lesions.pieces.of_nodule == 2])


def test_a_response_tells_lines_from_discs(lesions):
    called = calls_of_filter(lesions, next(iter(FILTERS)))
    (one,) = lesions.rounds
    test = lesions.known("kind", one.test)
    for way in (ALONE, SHOWN):
        calls = np.array(called["kind"][way])
        assert (np.delete(calls, test) == -1).all()
    assert (np.array(called["kind"][ALONE])[test] == lesions.labels["kind"][test]).mean() > 0.9
    assert set(calls_of_filter(lesions, GRAY)["kind"]) == {ALONE}


def test_every_filter_gives_a_response():
    gray = np.clip(picture(2, np.random.default_rng(0))[None].astype(np.float32) / 2000 + 0.5, 0, 1)
    for name, made in FILTERS.items():
        response = np.asarray(made(gray))
        assert response.shape == gray.shape, name
        assert 0.0 <= response.min() <= response.max() <= 1.0
    found = statistics_of(np.stack([np.zeros((8, 8)), np.eye(8)]))
    assert found.shape == (2, 10)
    assert (found[0] == 0).all()
    assert found[1, 0] == 1 / 8


def test_scores_against_a_hand_count():
    label, called = np.array([0, 0, 1, 1, 2] * 6), np.array([0, 1, 1, 1, 1] * 6)
    found = scores_of(label, called, np.arange(30).astype(str), classes=3)
    assert found["accuracy"]["value"] == 0.6
    assert found["balanced_accuracy"]["value"] == 0.5
    assert found["macro_f1"]["value"] == round((2 / 3 + 2 / 3 + 0) / 3, 4)
    assert all(one["low"] <= one["value"] <= one["high"] for one in found.values())
    with pytest.raises(InputError, match="patients"):
        scores_of(label, called, np.repeat(["A", "B", "C"], 10), classes=3)


def test_too_few_patients_are_refused_before_the_work(lesions, tmp_path, monkeypatch):
    few = replace(lesions, patients=np.full(48, "P1"))
    monkeypatch.setattr(lesion_types, "lidc_lesions", lambda *args, **more: few)
    monkeypatch.setattr(lesion_types, "calls_of_arm", NotImplemented)
    with pytest.raises(InputError, match="patients"):
        evaluate_lesion_types(tmp_path, tmp_path / "out", run=tmp_path)


def test_one_class_alone_cannot_be_learned(lesions):
    alone = replace(lesions, labels={"kind": np.zeros(48, dtype=np.intp)})
    with pytest.raises(InputError, match="kind: got 1 classes to learn"):
        calls_of_filter(alone, GRAY)


def nodules():
    truth = [{"label": n % 2, "texture": (1, 3, 5, 5)[n % 4], "malignancy": 3} for n in range(NODULES)]
    return [
        Case(f"P{n}", NotImplemented, (Finding(f"P{n}_1", (0, 0, 0), 5.0, truth=truth[n]),), f"P{n}_1")
        for n in range(NODULES)
    ]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """What a run of ``train retrieval`` leaves behind that matters here: two arms, two folds."""
    monkeypatch.setattr(lidc_nodules, "load_cases", lambda root: nodules())
    monkeypatch.setattr(lesion_types, "RESAMPLES", 20)
    monkeypatch.setattr(lesion_types, "FILTERS", FEW)
    folder, rng = tmp_path / "run", np.random.default_rng(0)
    for arm in (MAIN, "simclr + gem"):
        for fold in range(FOLDS):
            encoder_in(encoder_folder(folder, arm, str(fold)), shape_of(ARMS[arm], RECIPE), fold)
    (folder / "pieces").mkdir()
    np.save(folder / "pieces" / "hu.npy", np.stack([picture(n % 2, rng) for n in range(NODULES)]))
    facts = {"cases": [case.case_id for case in nodules()], "outlines": "made up"}
    (folder / "pieces" / TOLD).write_text(json.dumps({"facts": facts, "of_nodule": list(range(NODULES))}))
    arguments = {"recipe": asdict(RECIPE), "folds": FOLDS, "limit": None}
    (folder / "run.json").write_text(json.dumps({"task": "train retrieval", "arguments": arguments}))
    return folder


def test_lidc_beside_the_paper_is_kept_and_goes_on(run, tmp_path, monkeypatch):
    about = paper("qi2023")
    ran = qi_rows(about, tmp_path, run, **QUIET)
    assert {row.published.metric: row.published.value for row in ran.rows if row.published} == {
        "accuracy": 0.8073, "f1": 0.7783
    }  # fmt: skip
    assert all(row.what.startswith(MAIN) and not row.same_data for row in ran.rows if row.published)
    assert all("texture" in row.part for row in ran.rows if row.published)
    assert "--deeplesion" in ran.missing[0]
    text = "\n".join(lines(PaperEvaluation(about, ran, (), 0, 100, {})))
    for words in ("Types of lesions: texture", "Frangi's response, with GeM", GRAY, "from random weights", "0.807"):
        assert words in text
    told = ran.facts["lesion-types"]
    assert told == json.loads((run / "lesion-types" / lesion_types.RESULT).read_text())
    assert set(told["questions"]) == {"texture", "malignancy"}
    for question, classes in (("texture", 3), ("malignancy", 2)):
        one = told["questions"][question]
        assert len(one["classes"]) == classes
        assert one["lesions"] == {"learned": NODULES, "tested": NODULES, "patients": NODULES}
        assert set(one["arms"]) == {MAIN, "simclr + gem"}
        assert set(one["arms"][MAIN]) == {LINEAR, BALANCED, NEIGHBORS, TUNED, SCRATCH}
        assert set(one["arms"]["simclr + gem"]) == {LINEAR, BALANCED, NEIGHBORS, TUNED}
        assert set(one["macro_f1_gains"]) == {
            "Frangi's response, with GeM", "tuning over frozen features", "pretrained over random weights"
        }  # fmt: skip
        assert set(one["filters"]) == {GRAY, *FEW}
    texture = told["questions"]["texture"]
    assert texture["per_class"] == {"ground glass": 6, "part-solid": 6, "solid": 12}
    assert texture["most_frequent"]["accuracy"]["value"] == 0.5
    monkeypatch.setattr(lesion_types, "calls_of_filter", NotImplemented)
    done = []
    monkeypatch.setattr(lesion_types, "calls_of_arm", lambda lesions, arm, teaching: done.append(arm))
    (run / "lesion-types" / "calls" / "simclr-gem.json").unlink()
    with pytest.raises(TypeError):
        qi_rows(about, tmp_path, run, **QUIET)
    assert done == ["simclr + gem"]  # the rest was kept


def test_each_fold_is_told_by_encoders_that_have_not_seen_it(run, tmp_path):
    lesions = lidc_lesions(tmp_path, run)
    assert [folder.name for folder in lesions.encoders[MAIN]] == ["0", "1"]
    fold_of = lidc_nodules.patient_folds(nodules(), folds=FOLDS)
    for number, one in enumerate(lesions.rounds):
        assert (fold_of[one.test] == number).all()
        assert not set(lesions.patients[one.test]) & set(lesions.patients[one.learn])
    assert not torch.equal(*(lesions.encoder(MAIN, number).linear.weight for number in range(FOLDS)))
    assert lesions.middle == 0.75


def test_a_run_that_does_not_fit(run, tmp_path):
    with pytest.raises(InputError, match="a finished run of 'spicula train retrieval'"):
        lidc_lesions(tmp_path, tmp_path / "absent")
    with pytest.raises(InputError, match="none of 'vae'"):
        lidc_lesions(tmp_path, run, arms=["vae"])
    told = json.loads((run / "pieces" / TOLD).read_text())
    told["facts"]["cases"][0] = "other"
    (run / "pieces" / TOLD).write_text(json.dumps(told))
    with pytest.raises(InputError, match="other nodules"):
        lidc_lesions(tmp_path, run)


PLACES = {1: 12, 2: 12, 3: 12}
"""Lesions of each part, one a patient."""


@pytest.fixture
def root(tmp_path):
    """DeepLesion in its published layout, with two of its types: lines are bone, discs are lung."""
    rng, rows = np.random.default_rng(0), []
    for part, count in PLACES.items():
        for n in range(count):
            patient, kind = 100 * part + n, n % 2
            box = "-3, 20, 60, 80" if n == 0 else "20, 20, 76, 76"  # a box may reach five pixels beyond its slice
            rows.append({
                "File_name": f"{patient:06d}_01_01_005.png", "Patient_index": patient, "Study_index": 1, "Series_ID": 1,
                "Key_slice_index": 5, "Measurement_coordinates": "25, 48, 71, 48, 48, 40, 48, 56",
                "Bounding_boxes": box, "Lesion_diameters_Pixel_": "46, 16", "Possibly_noisy": 0,
                "Normalized_lesion_location": "0.4, 0.5, 0.45", "Slice_range": "5, 5", "Image_size": "96, 96",
                "Coarse_lesion_type": -1 if part == 1 else (5, 1)[kind], "Spacing_mm_px_": "0.7, 0.7, 5",
                "DICOM_windows": "-1500, 500", "Patient_gender": "M", "Patient_age": 61, "Train_Val_Test": part,
            })  # fmt: skip
            path = tmp_path / "DeepLesion" / "Images_png" / f"{patient:06d}_01_01" / "005.png"
            path.parent.mkdir(parents=True)
            hu = picture(1 + kind, rng, side=96).astype(np.int32)
            Image.fromarray((hu + 32768).astype(np.uint16)).save(path)
    with (tmp_path / "DeepLesion" / "DL_info.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path / "DeepLesion"


@pytest.fixture
def small(monkeypatch):
    true = lesion_regions.pretraining_of
    monkeypatch.setattr(lesion_regions, "pretraining_of", lambda arm, recipe: replace(true(arm, recipe), batch=4))
    monkeypatch.setattr(lesion_types, "RESAMPLES", 20)
    monkeypatch.setattr(lesion_types, "FILTERS", FEW)


def test_deeplesion_as_published(root, small, tmp_path, monkeypatch):
    seen, true = [], lesion_regions.pretrain_regions

    def watched(table, rows, out, **more):
        seen.append((set(table.patients[rows].tolist()), more["recipe"].views.middle))
        return true(table, rows, out, **more)

    monkeypatch.setattr(lesion_regions, "pretrain_regions", watched)
    ran = qi_rows(paper("qi2023"), tmp_path, tmp_path / "run", deeplesion=root, recipe=RECIPE, **QUIET)
    train = {f"{100 + n:06d}" for n in range(PLACES[1])}
    assert seen == [(train, 1.0)] * len(ARMS)
    assert ran.missing == ()
    told = ran.facts["deeplesion"]["questions"]["lesion type"]
    assert told["classes"] == list(LESION_TYPES)
    assert told["lesions"] == {"learned": 12, "tested": 12, "patients": 12}
    assert (told["per_class"]["bone"], told["per_class"]["lung"]) == (6, 6)
    assert set(told["arms"]) == set(ARMS)
    assert set(told["arms"]["vae"]) == {LINEAR, BALANCED, NEIGHBORS, TUNED}
    assert told["filters"][next(iter(FEW))][ALONE]["accuracy"]["value"] > 0.9
    assert any(row.published and row.same_data for row in ran.rows)
    assert set(ran.facts["retrieval"]) == {*ARMS, ON_PAIRS}
    beside = {row.published.target: row.published.value for row in ran.rows if row.metric == "map@10" and row.published}
    assert sorted(beside.values()) == [0.465, 0.713, 0.729]
    within = [row for row in ran.rows if row.metric == "map@10" and "same patient" in row.part]
    assert {round(row.ours.value, 4) for row in within} == {0.2929}  # each patient has one lesion: itself, then nothing
    kept = np.load(tmp_path / "run" / "deeplesion" / "regions" / "hu.npy")
    assert kept.shape == (36, 64, 64)
    assert kept[1].max() > -100
    again = evaluate_lesion_types(root, tmp_path / "run" / "deeplesion", recipe=RECIPE, **QUIET)
    assert again == ran.facts["deeplesion"]
    with pytest.raises(InputError, match="arguments"):
        evaluate_lesion_types(root, tmp_path / "run" / "deeplesion", recipe=replace(RECIPE, epochs=2), **QUIET)


def test_deeplesion_that_lacks_something(root, small, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="arms: got 'dino'"):
        evaluate_lesion_types(root, tmp_path / "out", arms=["dino"], **QUIET)
    lesions = deeplesion.read_lesions(root)
    with monkeypatch.context() as patch:
        patch.setattr(deeplesion, "read_lesions", lambda root: lesions[-12:])
        with pytest.raises(InputError, match="lesions of the train part: got none"):
            evaluate_lesion_types(root, tmp_path / "out", **QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(deeplesion, "read_lesions", lambda root: lesions)
        patch.setattr(deeplesion, "DESCRIPTION", replace(deeplesion.DESCRIPTION, findings=36))
        patch.setattr(deeplesion, "SKIPPED_ROWS", (0, 35))
        assert [one.id for one in lesion_regions._of_search(root)] == [one.id for one in lesions[1:35]]
    (root / "Images_png" / "000105_01_01" / "005.png").unlink()
    with pytest.raises(InputError, match=r"005\.png cannot be read"):
        evaluate_lesion_types(root, tmp_path / "out", recipe=RECIPE, **QUIET)
