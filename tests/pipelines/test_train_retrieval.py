"""Lesion search whole, tiny: nobody is judged by a network that has seen him; evaluation, bundle and index agree."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.bundle import load_bundle
from spicula.core.errors import InputError
from spicula.datasets import lidc_nodules
from spicula.pipelines import train_retrieval as job
from spicula.pipelines.embed_nodules import finding_id
from spicula.pipelines.retrieval_tuning import TuningRecipe
from spicula.pipelines.search import Query, search
from spicula.pipelines.search_arms import HEAD_ALONE, MAIN, ON_PAIRS, WITH_HEAD, SearchRecipe
from spicula.pipelines.search_card import BESIDE
from spicula.pipelines.search_head_fit import HeadRecipe
from spicula.retrieval.embedder import load_embedder
from spicula.retrieval.opening import open_index

from .ssm_tiny import PATIENTS, tiny_cases, tiny_table

RECIPE = SearchRecipe(width=4, epochs=1, latent=8)


def small_batches(arm, recipe, true=job.pretraining_of):
    return replace(true(arm, recipe), batch=16)


def test_pretraining_of_a_fold_never_sees_its_patients(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(job, "read_slices", lambda *args, **more: tiny_table())
    monkeypatch.setattr(lidc_nodules, "load_cases", lambda root: tiny_cases())
    monkeypatch.setattr(
        job, "pretrain_regions",
        lambda table, rows, out, **more: seen.update({(out.parent.name, out.name): set(table.patients[rows])}),
    )  # fmt: skip
    call = {"recipe": RECIPE, "folds": 3, "arms": ["vae"], "report": lambda line: None}
    assert job.train_retrieval(tmp_path, tmp_path / "run", **call) is None
    assert set(seen) == {(arm, str(n)) for arm in ("simclr-frangi-gem", "vae") for n in range(3)} | {
        ("simclr-frangi-gem", "all")
    }
    fold_of = lidc_nodules.patient_folds(tiny_cases(), folds=3)
    for (_, name), patients in seen.items():
        held_out = {c.patient_id for c, f in zip(tiny_cases(), fold_of, strict=True) if str(f) == name}
        assert not patients & held_out
        assert "LungFCP-1" not in patients
        assert len(patients | held_out) >= PATIENTS
    with pytest.raises(InputError, match="arguments"):
        job.train_retrieval(tmp_path, tmp_path / "run", **{**call, "folds": 4})


def test_unknown_names(tmp_path):
    with pytest.raises(InputError, match="only: got '5'"):
        job.train_retrieval(tmp_path, tmp_path / "run", only=["5"])
    with pytest.raises(InputError, match="arms: got 'dino'"):
        job.train_retrieval(tmp_path, tmp_path / "run", arms=["dino"])
    assert not (tmp_path / "run").exists()


@pytest.mark.shared
@pytest.mark.slow
def test_evaluation_bundle_and_index_agree(shared, tmp_path, monkeypatch, readers_outlines):
    monkeypatch.setattr(job, "pretraining_of", small_batches)
    call = {
        "recipe": RECIPE, "head": HeadRecipe(members=2, hidden=16, dimensions=6, epochs=5, batch=32),
        "tuning": TuningRecipe(epochs=1, pairs=16, batch=8, negatives=2), "outlines": readers_outlines,
        "arms": ["vae"], "folds": 2, "limit": 48, "report": lambda line: None,
    }  # fmt: skip
    monkeypatch.setattr(job, "VARIANTS", 1)
    run = tmp_path / "run"
    assert job.train_retrieval(shared, run, only=["0"], **call) is None
    told = job.train_retrieval(shared, run, **call)
    assert told is not None
    assert told == json.loads((run / job.EVALUATION).read_text())
    assert told["nodules"] == 48
    assert set(told["embeddings"]) >= {"diameter", MAIN, "vae", ON_PAIRS, WITH_HEAD, HEAD_ALONE}
    for name, found in told["embeddings"].items():
        assert set(found) == {"malignancy", "texture"}
        for scope in ("all", "cross-patient", "unseen"):
            one = found["malignancy"][scope]["precision"]
            assert 0 <= one["low"] <= one["value"] <= one["high"] <= 1
            assert set(one["over"]) == {"diameter", "vae", MAIN} - {name}
    table = (run / "retrieval.csv").read_text().splitlines()
    assert len(table) > len(told["embeddings"]) * 2 * 3 * 4
    bundle = load_bundle(run / "nodule-search")
    bundle.verify()
    metrics = bundle.card["metrics"]
    assert metrics["nodules"] == 48
    assert set(metrics["embeddings"]) == {WITH_HEAD, *BESIDE}
    for name, judged in metrics["embeddings"].items():  # the same numbers; who is compared with whom only of what ships
        of_card, of_run = (one["texture"]["all"]["precision"] for one in (judged, told["embeddings"][name]))
        assert of_card == {key: of_run[key] for key in of_card}
        assert ("over" in of_card) == (name == WITH_HEAD)
    embedder = load_embedder(bundle, threads=1)
    cases = lidc_nodules.load_cases(shared / "lidc_nodules")[:48]
    ids = {finding_id(case.patient_id, case.case_id.rpartition("_")[2]) for case in cases}
    with open_index(run / "lidc-index") as index:
        assert index.fingerprint == bundle.fingerprint == embedder.fingerprint
        assert set(index.ids()) == ids
        assert lidc_nodules.TEST_PATIENT not in {str(known["pid"]) for known in index.get(sorted(ids))[1]}
        volume = cases[5].load_volume()
        vector = embedder(volume, readers_outlines(cases[5], volume, cases[5].findings[0].center_xyz_mm))
        own = finding_id(cases[5].patient_id, cases[5].case_id.rpartition("_")[2])
        np.testing.assert_allclose(index.get([own])[0].vectors[0], vector, atol=1e-5)
        query = Query(cases[5].patient_id, cases[5].case_id.rpartition("_")[2], vector)
        (answer,) = search([query], index, k=5, fingerprint=bundle.fingerprint, scope="cross-patient")
        assert len(answer.matches) == 5
        assert {str(match.facts["pid"]) for match in answer.matches}.isdisjoint({cases[5].patient_id})
        assert [m.distance for m in answer.matches] == sorted(m.distance for m in answer.matches)
