"""The benchmark of vision transformers: what it counts, and that it runs. No times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")
pytest.importorskip("accelerate", reason="pip install 'spicula[train]'")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench_vit

    return bench_vit


def flop(seen) -> int:
    return sum(one.flop * times for one, times in seen.products.items())


def test_every_product_of_a_block_is_seen_forward_and_back(bench):
    from torch.utils.flop_counter import FlopCounterMode

    from spicula.networks.vit import VisionTransformer, VitShape

    network = VisionTransformer(VitShape(16, 2, 2, image=28)).train()

    def step():
        network(torch.ones(3, 3, 28, 28)).cls.sum().backward()

    with FlopCounterMode(display=False) as counter:
        step()
    with bench.Seen() as seen:
        step()
    assert flop(seen) == counter.get_total_flops() > 0


def test_a_fused_attention_counts_as_its_products(bench):
    q, k, v = (torch.rand(2, 3, 200, 8, requires_grad=True) for _ in "qkv")
    product = 2 * 2 * 3 * 200 * 200 * 8
    with bench.Seen() as seen:
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert flop(seen) == 2 * product
    with bench.Seen() as seen:
        mixed.sum().backward()
    assert flop(seen) == 4 * product
    bench.bare(seen.products)()


def test_watched_functions_are_given_back(bench):
    from spicula.networks.vit import VitShape
    from spicula.pretraining import ct_views
    from spicula.pretraining.ct_views import ViewRecipe
    from spicula.pretraining.dinov2 import DinoRecipe, HeadRecipe

    recipe = DinoRecipe(batch=4, steps_per_epoch=1, views=ViewRecipe(28, 14, 2), dino_head=HeadRecipe(16, 8, 4))
    table = bench.synthetic_table(4)
    training = bench._Training(table, bench.np.arange(4), VitShape(16, 1, 2, image=28), recipe, None, 1)
    before = ct_views.make_views, vars(training.teacher.network).get("forward"), training.optimizer.step
    parts = bench.parts_of(training, lambda: training._step(bench.np.arange(4), 0, 0), 1)
    assert before == (ct_views.make_views, vars(training.teacher.network).get("forward"), training.optimizer.step)
    assert {"views", "teacher", "student", "targets_and_losses", "back", "optimizer", "average"} <= parts.keys()
    assert all(milliseconds >= 0 for milliseconds in parts.values())


@pytest.mark.slow
def test_it_runs_and_writes_what_the_documents_read(tmp_path):
    pytest.importorskip("onnxscript", reason="pip install 'spicula[train]'")
    script = [sys.executable, str(BENCHMARKS / "bench_vit.py"), "--quick", "--threads", "1", "--out"]
    done = subprocess.run([*script, str(tmp_path / "vit.json")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "vit.json").read_text(encoding="utf-8"))
    for training in result["training"].values():
        assert training["share_of_matmul"] > 0
        assert training["images_per_second"] > 0
    inference = result["inference"]
    assert inference["agreement_with_eager_f32"]["as_they_begin"]["f32"]["patches"]["least_cosine"] > 0.9999
    for agreement in inference["agreement_with_eager_f32"].values():
        assert all(of["class_token"]["least_cosine"] > 0.99 for of in agreement.values())
    assert inference["times_faster_than_eager"].keys() == agreement.keys()
