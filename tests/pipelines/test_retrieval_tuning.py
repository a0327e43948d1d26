"""Tuning on pairs: every loss draws classes apart, a kill changes nothing, nodules that are left out stay unseen."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402
from spicula.networks.checkpoint import save_weights  # noqa: E402
from spicula.networks.resnet import RegionEncoder, RegionShape  # noqa: E402
from spicula.pipelines import retrieval_tuning  # noqa: E402
from spicula.pipelines.pretraining_loop import SHAPE  # noqa: E402
from spicula.pipelines.retrieval_tuning import TuningRecipe, tune  # noqa: E402
from spicula.pipelines.search_nodules import Pieces, features_of_pieces  # noqa: E402

NODULES, MIDDLE = 24, 0.75
LABEL = np.arange(NODULES) % 2
PATIENTS = np.array([f"P{n // 2}" for n in range(NODULES)])
LEARN = np.arange(16)
RECIPE = TuningRecipe(epochs=2, pairs=16, per_class=8, negatives=2, batch=8)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """An encoder that learned nothing."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    encoder = RegionEncoder(RegionShape(width=4, further=1, dimensions=8, drop=0.1))
    (folder / SHAPE).write_text(json.dumps(asdict(encoder.shape)))
    save_weights(folder, encoder.state_dict())
    return folder


@pytest.fixture
def pieces():
    """Small and large nodules, one or two slices each."""
    rng = np.random.default_rng(0)
    of_nodule = np.repeat(np.arange(NODULES), 1 + np.arange(NODULES) % 2)
    y, x = np.indices((48, 48)) - 23.5
    radius = 5 + 7 * LABEL[of_nodule][:, None, None]
    hu = np.where(np.hypot(y, x) <= radius, 0, -850) + rng.normal(0, 60, (len(of_nodule), 48, 48))
    return Pieces(hu.astype(np.int16), of_nodule)


def run(pretrained, out, pieces, recipe=RECIPE, **more):
    return tune(pretrained, out, pieces, LABEL, PATIENTS, LEARN, recipe, **{"middle": MIDDLE, **more})


def apart(encoder, pieces):
    """How much nearer unseen nodules are to those of their class than to the others, in cosines."""
    vectors = features_of_pieces(encoder, pieces, middle=MIDDLE)[len(LEARN) :]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    label = LABEL[len(LEARN) :]
    cosine, same = vectors @ vectors.T, label[:, None] == label[None]
    return cosine[same & ~np.eye(len(label), dtype=bool)].mean() - cosine[~same].mean()


def weights_of(encoder):
    return {name: value.clone() for name, value in encoder.state_dict().items()}


@pytest.mark.parametrize("loss", ["contrastive", "triplet", "supervised"])
def test_classes_come_apart(pretrained, tmp_path, pieces, loss):
    before = apart(retrieval_tuning.load_encoder(pretrained), pieces)
    recipe = replace(RECIPE, loss=loss, epochs=5, pairs=40, rate=0.03)
    assert apart(run(pretrained, tmp_path, pieces, recipe), pieces) > before + 0.3
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(5))
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_killed_and_resumed_is_bit_equal(pretrained, tmp_path, pieces, monkeypatch):
    whole = weights_of(run(pretrained, tmp_path / "whole", pieces))
    save = retrieval_tuning.save_checkpoint

    def save_and_die(*args):
        save(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(retrieval_tuning, "save_checkpoint", save_and_die)
        run(pretrained, tmp_path / "cut", pieces)
    again = weights_of(run(pretrained, tmp_path / "cut", pieces))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert not torch.equal(whole["linear.weight"], retrieval_tuning.load_encoder(pretrained).linear.weight)
    assert len((tmp_path / "cut" / "log.jsonl").read_text().splitlines()) == RECIPE.epochs
    pieces.hu[:] = 0  # a finished one is not looked at again
    assert torch.equal(run(pretrained, tmp_path / "cut", pieces).linear.weight, whole["linear.weight"])


def test_nodules_that_are_not_given_are_never_seen(pretrained, tmp_path, pieces):
    one = weights_of(run(pretrained, tmp_path / "one", pieces))
    pieces.hu[pieces.of_nodule >= len(LEARN)] = 300
    other = weights_of(run(pretrained, tmp_path / "other", pieces))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_each_vector_is_of_its_own_nodule(pretrained, tmp_path, pieces, monkeypatch):
    pieces.hu[:] = 10 * pieces.of_nodule[:, None, None]
    shown, labels = [], []
    monkeypatch.setattr(
        retrieval_tuning, "_seen", lambda encoder, hu, rng, middle: shown.append(hu[:, 0, 0] // 10)
        or encoder.linear.weight.sum() * torch.ones(len(hu), 8),
    )  # fmt: skip
    true = retrieval_tuning._loss
    monkeypatch.setattr(
        retrieval_tuning, "_loss", lambda vectors, label, recipe: labels.append(label) or true(vectors, label, recipe)
    )
    run(pretrained, tmp_path, pieces)
    for nodules, label in zip(shown, labels, strict=True):
        told = label.numpy()
        np.testing.assert_array_equal(LABEL[nodules].reshape(told.shape), told)
        assert (told[:, 0] == told[:, 1]).all()
        assert (told[:, 2:] != told[:, :1]).all()
        assert (nodules.reshape(told.shape)[:, 0] != nodules.reshape(told.shape)[:, 1]).all()


def test_what_cannot_be_tuned(pretrained, tmp_path, pieces):
    with pytest.raises(InputError, match="no finished pretraining"):
        run(tmp_path / "absent", tmp_path / "out", pieces)
    with pytest.raises(InputError, match="classes of the nodules: got one"):
        tune(pretrained, tmp_path / "out", pieces, LABEL, PATIENTS, LEARN[::2], RECIPE, middle=MIDDLE)
