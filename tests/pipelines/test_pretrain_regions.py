"""Encoders of regions: they learn, go on bit-equal after a kill, refuse what tells nothing, see Frangi's response."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402
from spicula.networks.resnet import RegionEncoder, RegionShape  # noqa: E402
from spicula.networks.vae import RegionVae  # noqa: E402
from spicula.pipelines.pretrain_regions import filter_of, load_encoder, pretrain_regions  # noqa: E402
from spicula.pipelines.slice_table import SliceTable  # noqa: E402
from spicula.pretraining import region_views, simclr, vae  # noqa: E402
from spicula.transforms.frangi import frangi  # noqa: E402

SHAPE = RegionShape(width=2, further=1, dimensions=8, drop=0.2)
ROWS = np.arange(16)
RECIPES = {
    "simclr": replace(simclr.compact_recipe(epochs=2), batch=8, hidden=16, projection=8),
    "vae": replace(vae.compact_recipe(epochs=2), batch=8, latent=4),
}
MODULES = {"simclr": simclr, "vae": vae}
methods = pytest.mark.parametrize("method", list(RECIPES))


def tiny():
    """Eight nodules of two slices, each as wide and as dense as no other."""
    rng = np.random.default_rng(0)
    y, x = np.indices((40, 40)) - 19.5
    hu = np.stack([
        np.where(np.hypot(y, x * (1 + row // 2 % 3)) <= 4 + row // 2 * 2, 100 * (row // 2) - 300, -850) for row in ROWS
    ])  # fmt: skip
    hu = (hu + rng.normal(0, 20, hu.shape)).astype(np.int16)
    crops = np.array([f"P{row // 2}_0_{row % 2:02d}.webp" for row in ROWS])
    patients = np.array([f"P{row // 2}" for row in ROWS])
    return SliceTable(hu, np.full(hu.shape, 255, np.uint8), patients, crops, np.array([""] * len(ROWS)))


@pytest.fixture
def table():
    return tiny()


def run(table, out, method, recipe=None, rows=ROWS, **more):
    call = {"shape": SHAPE, "report": lambda line: None, **more}
    return pretrain_regions(table, rows, out, method=method, recipe=recipe or RECIPES[method], **call)


def logged(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@methods
def test_the_loss_falls(table, tmp_path, method):
    recipe = replace(RECIPES[method], epochs=8, warm=1, rate=5e-3)
    run(table, tmp_path, method, recipe, shape=replace(SHAPE, drop=0.0))
    lines = logged(tmp_path)
    first, last = (np.mean([line["loss"] for line in some]) for some in (lines[:2], lines[-2:]))
    assert last < 0.9 * first
    assert lines[0].keys() >= {"simclr": {"found", "alike", "spread"}, "vae": {"error", "in_use", "divergence"}}[method]


@pytest.mark.parametrize(("method", "more"), [("simclr", {}), ("simclr", {"optimizer": "lars"}), ("vae", {})])
def test_killed_and_resumed_is_bit_equal(table, tmp_path, method, more):
    recipe = replace(RECIPES[method], **more)
    whole = run(table, tmp_path / "whole", method, recipe)

    def killed(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(table, tmp_path / "cut", method, recipe, report=killed)
    with pytest.raises(InputError, match="no finished pretraining"):
        load_encoder(tmp_path / "cut", method=method)
    assert same(run(table, tmp_path / "cut", method, recipe), whole)
    assert [line["epoch"] for line in logged(tmp_path / "cut")] == [0, 1]


@methods
def test_a_loss_that_is_not_finite_keeps_the_last_good_state(table, tmp_path, method, monkeypatch):
    true, calls = MODULES[method].losses_of, []

    def spoiled(*args, **more):
        calls.append(1)
        losses = true(*args, **more)
        return replace(losses, total=losses.total * float("nan")) if len(calls) > 3 else losses

    with monkeypatch.context() as patch:
        patch.setattr(MODULES[method], "losses_of", spoiled)
        with pytest.raises(InputError, match="finite"):
            run(table, tmp_path / "run", method)
    assert same(run(table, tmp_path / "run", method), run(table, tmp_path / "whole", method))


def test_regions_that_all_look_alike_to_simclr(table, tmp_path):
    y, x = np.indices((40, 40)) - 19.5
    still = region_views.RegionViewRecipe(area=(1.0, 1.0), aspect=(1.0, 1.0), shift=0.0, window=0.0)
    alike = replace(table, hu=np.broadcast_to(np.where(np.hypot(y, x) < 9, 0, -800), table.hu.shape).astype(np.int16))
    shape = replace(SHAPE, drop=0.0)
    with pytest.raises(InputError, match="epoch 0: the features collapsed"):
        run(alike, tmp_path, "simclr", replace(RECIPES["simclr"], views=still), shape=shape)


def test_codes_that_tell_nothing(table, tmp_path):
    recipe = replace(RECIPES["vae"], beta=1e5, epochs=30, warm=0, rate=1e-2)
    with pytest.raises(InputError, match="the codes collapsed"):
        run(table, tmp_path, "vae", recipe)


@methods
def test_too_few_and_flat_images(table, tmp_path, method):
    with pytest.raises(InputError, match="at least a batch of 8"):
        run(table, tmp_path, method, rows=ROWS[:7])
    table.hu[3] = -1000
    with pytest.raises(InputError, match=r"patient P1.*-1000 HU"):
        run(table, tmp_path, method)
    assert not (tmp_path / "weights.safetensors").exists()


@methods
def test_a_finished_one_is_loaded(table, tmp_path, method):
    weights = run(table, tmp_path, method)
    encoder = load_encoder(tmp_path, method=method, latent=4)
    assert isinstance(encoder, RegionEncoder if method == "simclr" else RegionVae)
    assert not encoder.training
    assert encoder.shape == SHAPE
    assert same(dict(encoder.state_dict()), weights)
    assert encoder.features(torch.rand(2, 1, 64, 64)).shape == (2, 8 if method == "simclr" else 4)
    table.hu[:] = 0  # a finished one is not looked at again
    assert same(run(table, tmp_path, method), weights)


def test_rows_that_are_not_given_are_never_seen(table, tmp_path):
    one = run(table, tmp_path / "one", "simclr", rows=ROWS[:10])
    table.hu[10:] = 77
    assert same(run(table, tmp_path / "other", "simclr", rows=ROWS[:10]), one)


def test_the_probe_is_told_in_the_log(table, tmp_path):
    seen = []
    run(table, tmp_path, "vae", probe=lambda encoder: seen.append(type(encoder)) or {"knn_auroc": 0.5}, probe_every=2)
    assert ["knn_auroc" in line for line in logged(tmp_path)] == [False, True]
    assert seen == [RegionVae]


def test_second_views_show_another_slice_of_the_nodule_which_is_no_negative(table, tmp_path, monkeypatch):
    table.hu[:, 0, 0] = ROWS
    pairs, groups = [], []
    made, lost = region_views.region_views, simclr.losses_of

    def watched(hu, recipe, rng, *, filter_of, mates):
        pairs.append(torch.stack([hu[:, 0, 0], mates[:, 0, 0]]).int().numpy())
        return made(hu, recipe, rng, filter_of=filter_of, mates=mates)

    monkeypatch.setattr(region_views, "region_views", watched)
    monkeypatch.setattr(
        simclr, "losses_of", lambda *args, groups, **more: told.append(groups) or lost(*args, groups=groups, **more)
    )
    told = groups
    run(table, tmp_path, "simclr", replace(RECIPES["simclr"], other_slice=1.0))
    own, mates = np.concatenate(pairs, axis=1)
    assert (own // 2 == mates // 2).all()
    assert (own != mates).any()
    number = torch.cat(groups).numpy()
    assert {(a, b) for a, b in zip((own // 2).tolist(), number.tolist(), strict=True)} == {(n, n) for n in range(8)}


def test_the_second_channel_is_frangis_response(table, tmp_path, monkeypatch):
    assert filter_of(SHAPE) is None
    with pytest.raises(InputError, match="Frangi"):
        filter_of(replace(SHAPE, channels=3))
    seen, lost = [], simclr.losses_of
    monkeypatch.setattr(
        simclr,
        "losses_of",
        lambda network, views, *args, **more: seen.append(views) or lost(network, views, *args, **more),
    )
    run(table, tmp_path, "simclr", replace(RECIPES["simclr"], epochs=1), shape=replace(SHAPE, channels=2))
    for view in seen[0]:
        gray, response = view.numpy().transpose(1, 0, 2, 3)
        np.testing.assert_allclose(response, frangi(gray, batched=True), atol=1e-6)
        assert response.max() > 0.1
    assert load_encoder(tmp_path).shape.channels == 2
