"""Networks and ensembles through OpenVINO: precisions, batches, networks side by side."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from spicula.core.errors import InputError
from spicula.runtime import openvino as runtime
from spicula.runtime.openvino import load_ensemble, load_network


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, 6, 64)).astype(np.float32)


@pytest.fixture
def four(bundle_of, products):
    return bundle_of({f"{seed}.onnx": products(seed) for seed in range(4)}), [f"{seed}.onnx" for seed in range(4)]


def test_half_precision_is_another_network_that_agrees(bundle_of, products, image) -> None:
    if "BF16" not in runtime._capabilities():
        pytest.skip("a CPU with avx512_bf16 or AMX")
    bundle = bundle_of({"network.onnx": products()})
    single, half = (load_network(bundle, threads=1, precision=p) for p in ("f32", "bf16"))
    assert single is not half
    assert load_network(bundle, threads=1, precision="bf16") is half
    assert load_network(bundle, threads=1) is single
    (exact,), (rounded,) = single(image), half(image)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()


def test_half_precision_is_refused_where_the_cpu_has_none(bundle_of, products, monkeypatch) -> None:
    monkeypatch.setattr(runtime, "_capabilities", lambda: frozenset({"FP32", "INT8"}))
    message = r"precision 'bf16': got a CPU without it, expected avx512_bf16 or AMX\. Hint: use precision 'f32'"
    with pytest.raises(InputError, match=message):
        load_network(bundle_of({"network.onnx": products()}), precision="bf16")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"precision": "int8"},
            "precision: got 'int8', expected 'f32' or 'bf16'. Hint: for int8 load a quantized file",
        ),
        ({"batch": 0}, "batch: got 0, expected 1 or more"),
    ],
)
def test_wrong_arguments_are_named(bundle_of, products, wrong, message) -> None:
    with pytest.raises(InputError) as raised:
        load_network(bundle_of({"network.onnx": products()}), **wrong)
    assert str(raised.value) == message


def test_a_fixed_batch_gives_the_same_numbers(bundle_of, products, image) -> None:
    bundle = bundle_of({"network.onnx": products()})
    (expected,) = load_network(bundle, threads=1)(image)
    fixed = load_network(bundle, threads=1, batch=2)
    assert list(fixed.compiled.inputs[0].shape) == [2, 6, 64]
    np.testing.assert_allclose(fixed(image)[0], expected, atol=1e-5)


@pytest.mark.parametrize(("threads", "abreast"), [(None, 1), (1, 1), (2, 2), (3, 3), (4, 4), (7, 1)])
def test_an_ensemble_gives_each_network_s_numbers_in_order(four, image, threads, abreast) -> None:
    bundle, files = four
    ensemble = load_ensemble(bundle, files, threads=threads)
    assert ensemble.abreast == abreast
    found = ensemble(image)
    assert len(found) == 4
    for (array,), file in zip(found, files, strict=True):
        np.testing.assert_allclose(array, load_network(bundle, file, threads=1)(image)[0], atol=1e-5)


def test_an_ensemble_of_none_or_one(four, image) -> None:
    bundle, files = four
    assert load_ensemble(bundle, [], threads=2)(image) == ()
    (only,) = load_ensemble(bundle, files[:1], threads=2)(image)
    assert only[0].shape == (2, 6, 96)


def test_several_threads_use_an_ensemble_at_once(four) -> None:
    bundle, files = four
    ensemble = load_ensemble(bundle, files, threads=2)
    images = [np.random.default_rng(seed).normal(size=(1, 6, 64)).astype(np.float32) for seed in range(6)]
    expected = [ensemble(image) for image in images]
    found: dict[int, object] = {}

    def run(place: int) -> None:
        for _ in range(5):
            found[place] = ensemble(images[place])

    workers = [threading.Thread(target=run, args=(place,)) for place in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for place, outputs in enumerate(expected):
        np.testing.assert_array_equal(np.stack([o for (o,) in found[place]]), np.stack([o for (o,) in outputs]))


def test_after_an_input_that_does_not_fit_an_ensemble_still_works(four, image) -> None:
    bundle, files = four
    ensemble = load_ensemble(bundle, files, threads=2, batch=2)
    expected = ensemble(image)
    with pytest.raises(RuntimeError):
        ensemble(image[:, :, :5])
    np.testing.assert_array_equal(ensemble(image)[0][0], expected[0][0])
