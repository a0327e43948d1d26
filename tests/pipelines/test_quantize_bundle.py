"""An imported ensemble in int8: small random networks and scans made in code."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")
pytest.importorskip("onnxscript", reason="pip install 'spicula[train]'")

from spicula.cli import app  # noqa: E402
from spicula.core.bundle import load_bundle, write_bundle  # noqa: E402
from spicula.core.errors import InputError  # noqa: E402
from spicula.pipelines import quantize_bundle as job  # noqa: E402
from spicula.pipelines.score_compat import load_compat, score_compat  # noqa: E402

PIXELS = 32
PREPROCESSING = {
    "image": {"pixels": PIXELS, "channels": 3},
    "cube": {"mode": "compat", "side_mm": 100.0, "spacing_mm": 1.0, "window_hu": [-1000.0, 500.0]},
    "planes": {"mode": "compat", "pixels": 50, "order": 3},
}
Quiet = {"report": lambda _line: None, "threads": 1}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds of a small tower, with a text side and weights that are only bytes."""
    from spicula.networks.clip import ClipText, ClipVision
    from spicula.networks.export import to_onnx
    from spicula.networks.nodule_clip import ImageExport, NoduleClip

    torch.set_num_threads(1)
    files: dict[str, bytes | Path] = {"tokenizer.json": b"{}"}
    networks = []
    for fold in range(2):
        torch.manual_seed(fold)
        vision = ClipVision(image_size=PIXELS, patch_size=8, width=64, layers=1, heads=2, output_dim=64)
        text = ClipText(vocabulary=60, context=12, width=16, layers=1, heads=1, output_dim=64, end_token=59)
        network = NoduleClip(vision, text, width=64).eval()
        files[f"image_{fold}.onnx"] = to_onnx(ImageExport(network), torch.zeros(2, 9, 3, PIXELS, PIXELS), half=False)
        files |= {f"text_{fold}.onnx": b"words", f"network_{fold}.safetensors": b"weights"}
        names = {"image": f"image_{fold}.onnx", "text": f"text_{fold}.onnx", "weights": f"network_{fold}.safetensors"}
        networks.append({"fold": fold, **names, "embedding": 64})
    manifest = {
        "name": "clip-nodule", "version": "1", "task": "semantic", "preprocessing": PREPROCESSING,
        "outputs": {"kind": "nodule_clip", "networks": networks}, "card": {"licence": "ours", "limits": []},
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("bundle") / "f32"
    write_bundle(folder, manifest, files)
    return folder


@pytest.fixture(scope="module")
def nodules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scans of two balls each, half of the balls malignant, and a row whose image is not there."""
    import nibabel

    root = tmp_path_factory.mktemp("scans")
    rng = np.random.default_rng(0)
    rows: list[list[Any]] = []
    for patient in range(4):
        zyx = np.indices((40, 60, 60))
        hu = -820.0 + 30.0 * rng.normal(size=(40, 60, 60))
        for nodule, x in enumerate((18, 42)):
            radius = rng.uniform(3, 7)
            hu[((zyx - np.array([20, 30, x])[:, None, None, None]) ** 2).sum(0) < radius**2] = 40.0
            rows.append([f"P{patient}", nodule, f"{patient}.nii.gz", x * 1.5, 30 * 1.5, 20 * 2.0, (patient // 2) % 2])
        affine = np.diag([-1.5, -1.5, 2.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(hu.transpose(2, 1, 0).astype(np.int16), affine), root / f"{patient}.nii.gz")
    rows.insert(3, ["P9", 0, "gone.nii.gz", 1, 1, 1, 0])
    with (root / "nodules.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["pid", "nodule_id", "image_path", "coordX", "coordY", "coordZ", "malignant"])
        writer.writerows(rows)
    return root / "nodules.csv"


@pytest.fixture(scope="module")
def quantized(bundle: Path, nodules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quantized") / "int8"
    job.quantize_bundle(bundle, nodules, out, **Quiet)
    return out


def test_the_bundle_is_smaller_whole_and_says_what_it_is(bundle: Path, quantized: Path) -> None:
    before, after = load_bundle(bundle), load_bundle(quantized)
    after.verify()
    assert after.fingerprint != before.fingerprint
    assert after.manifest["outputs"]["precision"] == "int8"
    kept = {name for name in before.manifest["files"] if not name.endswith(".safetensors")}
    assert set(after.manifest["files"]) == kept
    for name in ("text_0.onnx", "tokenizer.json"):
        assert after.manifest["files"][name] == before.manifest["files"][name]
    assert all("weights" not in fold for fold in after.manifest["outputs"]["networks"])
    assert after.file("image_0.onnx").stat().st_size < 0.5 * before.file("image_0.onnx").stat().st_size
    found = after.card["quantization"]
    assert found["of"] == before.fingerprint
    assert found["ranges_from_nodules"] == found["agreement_on_other_patients"]["nodules"] == 4
    assert found["agreement_on_other_patients"]["auroc_before"] is not None
    assert after.card["licence"] == "ours"
    assert not [path for path in quantized.parent.iterdir() if path != quantized]


def test_it_rates_nodules_as_the_original_does(bundle: Path, quantized: Path, nodules: Path) -> None:
    tables = [score_compat(nodules, load_compat(folder, threads=1)) for folder in (bundle, quantized)]
    for before, after in zip(*tables, strict=True):
        assert before["error"] == after["error"]
        if not before["error"]:
            assert float(after["ensemble"]) == pytest.approx(float(before["ensemble"]), abs=0.01)
    assert sum(bool(row["error"]) for row in tables[0]) == 1
    differences = [a["ensemble"] != b["ensemble"] for a, b in zip(*tables, strict=True) if not a["error"]]
    assert all(differences)


def test_the_command(bundle: Path, nodules: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bundle", "quantize", str(bundle), str(nodules), "--out", str(tmp_path / "b")])
    assert done.exit_code == 0, done.output
    assert "4 nodules for the ranges, 4 to compare" in done.output
    assert "largest difference of a probability 0.0" in done.output
    assert "Next: spicula score nodules.csv --compat --bundle" in done.output


def test_what_cannot_be_done_is_refused(bundle: Path, quantized: Path, nodules: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got int8 already, expected the imported bundle"):
        job.quantize_bundle(quantized, nodules, tmp_path / "b", **Quiet)
    with pytest.raises(InputError, match="got the bundle that is quantized, expected another folder"):
        job.quantize_bundle(bundle, nodules, bundle, **Quiet)
    with pytest.raises(InputError, match=r"got 5 nodules of 4 patients that can be read, expected 8 or more.*Hint: "):
        job.quantize_bundle(bundle, nodules, tmp_path / "b", limit=5, **Quiet)
    rows = nodules.read_text(encoding="utf-8").splitlines()
    one = nodules.parent / "one.csv"
    one.write_text("\n".join([rows[0], *[rows[1]] * 9]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="got 9 nodules of 1 patients that can be read"):
        job.quantize_bundle(bundle, one, tmp_path / "b", **Quiet)
    assert not (tmp_path / "b").exists()


def test_agreement_of_two_ensembles() -> None:
    before = np.array([[0.1, 0.3], [0.8, 0.6], [0.4, 0.4]])
    after = before + np.array([[0.0, 0.02], [0.0, 0.0], [-0.04, -0.04]])
    found = job.agreement(before, after, labels=[0, 1, 1])
    assert found.nodules == 3
    assert found.largest_difference == pytest.approx(0.04)
    assert found.mean_difference == pytest.approx(0.05 / 3)
    assert (found.auroc_before, found.auroc_after) == (1.0, 1.0)
    assert job.agreement(before, after).auroc_before is None
    assert job.agreement(before, after, labels=[1, 1, 1]).auroc_after is None
    with pytest.raises(InputError, match=r"probabilities: got \(3, 2\) and \(3,\), expected"):
        job.agreement(before, after[:, 0])
