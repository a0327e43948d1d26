"""The pretraining for a bare machine: packing, running without most packages, giving back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")
pytest.importorskip("accelerate", reason="pip install 'spicula[train]'")

ROOT = Path(__file__).resolve().parents[2]
PATIENTS = 12
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="apt-get install bash")


@pytest.fixture
def train(monkeypatch):
    """The two modules of the folder ``train``."""
    monkeypatch.syspath_prepend(str(ROOT / "train"))
    import packed
    import pretrain_folds

    return SimpleNamespace(packed=packed, folds=pretrain_folds)


@pytest.fixture
def file(train, tmp_path):
    """Packed slices of twelve patients, each of whom is left out once."""
    rng = np.random.default_rng(0)
    hu = rng.integers(-1024, 1500, (2 * PATIENTS, 112, 112)).astype(np.int16)
    near = rng.integers(0, 256, hu.shape).astype(np.uint8)
    rows = [(f"P{n // 2}", f"P{n // 2}_{n % 2}", "") for n in range(2 * PATIENTS)]
    held_out = {str(fold): [f"P{n}" for n in range(PATIENTS) if n % 3 == fold] for fold in range(3)}
    train.packed.write_packed(tmp_path / "slices.npz", hu, near, rows, {**held_out, "all": []})
    return tmp_path / "slices.npz", hu, near


def run(data: Path, folder: Path, *, without: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    """The script, tiny, on a machine without some packages."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(
        "import sys\n"
        "class Lacking:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {without!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Lacking())\n",
        encoding="utf-8",
    )
    given = {
        "SMALL": "1", "DATA": str(data), "OUT": str(folder / "out"), "WORK": str(folder / "work"), "JOBS": "1",
        "PYTHON": sys.executable, "PYTHONPATH": str(folder / "site"), "FOLDS": "1", "MINUTES": "5",
    }  # fmt: skip
    script = ["bash", str(ROOT / "train" / "on_device.sh")]
    return subprocess.run(script, env={**os.environ, **given, **env}, capture_output=True, text=True, check=False)


def test_packing_keeps_all_but_small_steps_of_hu(train, file, tmp_path):
    packed, hu, near = file
    facts = train.packed.unpack(packed, tmp_path / "slices")
    assert np.abs(np.load(tmp_path / "slices" / "hu.npy").astype(int) - hu).max() <= train.packed.STEP_HU / 2
    np.testing.assert_array_equal(np.load(tmp_path / "slices" / "near.npy"), near)
    assert facts["held_out"]["1"] == ["P1", "P4", "P7", "P10"]
    packed.unlink()
    assert train.packed.unpack(packed, tmp_path / "slices") == facts  # once is enough


def test_each_fold_leaves_out_the_patients_it_is_tested_on(train, tmp_path, monkeypatch):
    from spicula.core.finding import Finding
    from spicula.datasets import lidc_nodules

    cases = [
        SimpleNamespace(case_id=f"P{n}_1", patient_id=f"P{n}", findings=(
            Finding(id=f"P{n}_1", center_xyz_mm=(0, 0, 0), diameter_mm=6.0, truth={"label": float(n % 2)}),
        )) for n in range(PATIENTS)
    ]  # fmt: skip
    monkeypatch.setattr(lidc_nodules, "load_cases", lambda root: cases)
    folder = tmp_path / "run" / "slices"
    folder.mkdir(parents=True)
    for name, dtype in (("hu", np.int16), ("near", np.uint8)):
        np.save(folder / f"{name}.npy", np.zeros((PATIENTS + 1, 112, 112), dtype=dtype))
    rows = [*((f"P{n}", "a.png", f"P{n}_1") for n in range(PATIENTS)), ("S", "", "")]
    (folder / "slices.json").write_text(json.dumps({"facts": {}, "rows": rows}), encoding="utf-8")
    (tmp_path / "lidc_nodules").mkdir()
    (tmp_path / "lidc_nodules" / "nodules.csv").write_text("patient_id\n", encoding="utf-8")
    size = train.packed.pack(tmp_path / "run", tmp_path / "slices.npz", data=tmp_path, folds=3)
    assert size == (tmp_path / "slices.npz").stat().st_size
    facts = train.packed.unpack(tmp_path / "slices.npz", tmp_path / "there")
    left = [facts["held_out"][str(fold)] for fold in range(3)]
    assert sorted(name for names in left for name in names) == sorted(f"P{n}" for n in range(PATIENTS))
    assert facts["held_out"]["all"] == []
    assert facts["nodules"] == "patient_id\n"


@needs_bash
@pytest.mark.slow
def test_it_runs_without_what_reads_scans_and_its_weights_come_back(train, file, tmp_path):
    done = run(file[0], tmp_path, without=train.folds.NOT_NEEDED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "absent: SimpleITK, scipy, nibabel, pydicom" in done.stdout
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"1.safetensors", "summary.json", "log.txt"}
    told = json.loads((out / "summary.json").read_text())
    assert told["gflop_an_image"] > 0
    assert 0 < told["share_of_peak"]["alone"] < 1
    assert all(one["finished"] and one["epochs"] == 1 for one in told["pretrainings"].values())
    again = run(file[0], tmp_path)
    assert again.returncode == 0
    assert "images_per_second" not in again.stdout  # nothing is left to do

    from spicula.pipelines.pretrain_dinov2 import load_backbone

    assert train.packed.put(out, tmp_path / "run") == ["1"]
    ours, theirs = (load_backbone(folder / "backbones" / "1") for folder in (tmp_path / "run", tmp_path / "work"))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, atol=1e-4, rtol=1e-3)


@needs_bash
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"without": ("accelerate", "safetensors")}, "lacks safetensors, accelerate"),
        ({"FOLDS": "0 seven"}, "FOLDS: got seven, expected some of 0, 1, 2, all"),
        ({"DATA": "nowhere.npz"}, "no nowhere.npz. Hint: python train/packed.py pack"),
        ({"PYTHON": "no-python"}, "no no-python"),
        ({"SMALL": "", "PATH": "/bin:/usr/bin"}, "no GPU"),
    ],
)
def test_it_fails_early_and_says_why(file, tmp_path, change, message):
    if "SMALL" in change and (torch.cuda.is_available() or shutil.which("nvidia-smi")):
        pytest.skip("there is a GPU")
    done = run(file[0], tmp_path, **change)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


def test_what_has_not_ended_gives_its_last_checkpoint_back_in_small_files(train, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    from spicula.networks.checkpoint import append_log, save_checkpoint

    network = torch.nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(network.parameters())
    average = {"backbone.a": torch.ones(64), "backbone.b": torch.zeros(64), "dino_head.c": torch.ones(64)}
    folder = tmp_path / "work" / "backbones" / "0"
    folder.mkdir(parents=True)
    append_log(folder, {"epoch": 0})
    save_checkpoint(folder, 1, network, optimizer, average)
    (tmp_path / "out").mkdir()
    order = SimpleNamespace(work=tmp_path / "work", out=tmp_path / "out")
    monkeypatch.setattr(train.folds, "MOST_BYTES", 200)
    found = train.folds.collect(order, "0")
    assert not found["finished"]
    assert found["epochs"] == 1
    assert found["files"] == ["0-unfinished-0.safetensors", "0-unfinished-1.safetensors"]
    whole = {name: value for file in found["files"] for name, value in load_file(tmp_path / "out" / file).items()}
    assert whole.keys() == {"a", "b"}
    assert train.folds.collect(order, "1") == {"finished": False, "epochs": 0, "files": [], "log": []}


def test_fewer_epochs_where_time_is_short(train, capsys):
    order = SimpleNamespace(epochs=60, small=False)
    assert train.folds.epochs_in_time(order, 1000, rate=1000.0, seconds=100.0) == 60
    assert train.folds.epochs_in_time(order, 1000, rate=1000.0, seconds=40.0) == 36
    assert "36 do" in capsys.readouterr().out
    assert train.folds.epochs_in_time(order, 1000, rate=1.0, seconds=1.0) == train.folds.LEAST_EPOCHS


def test_what_is_absent_is_never_used_silently(train):
    absent = train.folds._Absent("scans")
    with pytest.raises(ModuleNotFoundError, match=r"scans\.reader\.read"):
        absent.reader.read("file")
