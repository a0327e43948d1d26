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

from spicula.core.errors import InputError  # noqa: E402
from spicula.core.finding import Finding  # noqa: E402
from spicula.datasets import lidc_nodules  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PATIENTS = 12
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="apt-get install bash")


@pytest.fixture
def train(monkeypatch):
    """The modules of the folder ``train``."""
    monkeypatch.syspath_prepend(str(ROOT / "train"))
    import bare_machine
    import methods
    import packed
    import pretrain_folds

    return SimpleNamespace(machine=bare_machine, methods=methods, packed=packed, folds=pretrain_folds)


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


@pytest.fixture
def search(train, tmp_path):
    """Packed slices for the search: twelve patients of one round nodule, half of them left out once."""
    y, x = np.indices((112, 112)) - 55.5
    radius = np.array([[4 + 12 * (n % 2) + 4 * part for part in range(2)] for n in range(PATIENTS)]).ravel()
    inside = np.hypot(y, x) <= radius[:, None, None]
    hu = np.where(inside, 40, -850) + np.random.default_rng(0).normal(0, 30, inside.shape)
    rows = [(f"P{n // 2}", f"P{n // 2}_0{n % 2}", f"P{n // 2}_1") for n in range(2 * PATIENTS)]
    held_out = {"0": [f"P{n}" for n in range(PATIENTS // 2)], "all": []}
    near = np.where(inside, 255, 0).astype(np.uint8)
    train.packed.write_packed(
        tmp_path / "search.npz", hu.astype(np.int16), near, rows, held_out, task=train.packed.RETRIEVAL
    )  # fmt: skip
    return tmp_path / "search.npz"


def some_cases(patients: int = PATIENTS) -> list[SimpleNamespace]:
    """One nodule of each patient, as ``lidc_nodules`` gives them."""
    return [
        SimpleNamespace(case_id=f"P{n}_1", patient_id=f"P{n}", findings=(
            Finding(id=f"P{n}_1", center_xyz_mm=(0, 0, 0), diameter_mm=6.0, truth={"label": float(n % 2)}),
        )) for n in range(patients)
    ]  # fmt: skip


def keep_slices(folder: Path, hu: np.ndarray, near: np.ndarray, rows: list[tuple[str, str, str]]) -> None:
    """As a run folder keeps them."""
    folder.mkdir(parents=True)
    np.save(folder / "hu.npy", hu)
    np.save(folder / "near.npy", near)
    (folder / "slices.json").write_text(json.dumps({"facts": {}, "rows": rows}), encoding="utf-8")


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
    kept = np.load(tmp_path / "slices" / "hu.npy").astype(int)
    assert np.abs(kept - hu).max() <= train.packed.STEP_HU[train.packed.SSM] / 2
    np.testing.assert_array_equal(np.load(tmp_path / "slices" / "near.npy"), near)
    assert facts["held_out"]["1"] == ["P1", "P4", "P7", "P10"]
    packed.unlink()
    assert train.packed.unpack(packed, tmp_path / "slices") == facts  # once is enough


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Development data of twelve nodules."""
    monkeypatch.setattr(lidc_nodules, "load_cases", lambda root: some_cases())
    (tmp_path / "lidc_nodules").mkdir()
    (tmp_path / "lidc_nodules" / "nodules.csv").write_text("patient_id\n", encoding="utf-8")
    return tmp_path


def test_each_fold_leaves_out_the_patients_it_is_tested_on(train, tmp_path, data):
    flat = np.zeros((PATIENTS + 1, 112, 112))
    rows = [*((f"P{n}", "a.png", f"P{n}_1") for n in range(PATIENTS)), ("S", "", "")]
    keep_slices(tmp_path / "run" / "slices", flat.astype(np.int16), flat.astype(np.uint8), rows)
    size = train.packed.pack(tmp_path / "run", tmp_path / "slices.npz", data=data, folds=3)
    assert size == (tmp_path / "slices.npz").stat().st_size
    facts = train.packed.unpack(tmp_path / "slices.npz", tmp_path / "there")
    left = [facts["held_out"][str(fold)] for fold in range(3)]
    assert sorted(name for names in left for name in names) == sorted(f"P{n}" for n in range(PATIENTS))
    assert facts["held_out"]["all"] == []
    assert facts["nodules"] == "patient_id\n"
    assert facts["task"] == "train ssm"


def test_for_the_search_slices_are_packed_as_in_use_and_each_fold_leaves_out_whoever_is_judged(train, tmp_path, data):
    from spicula.pipelines.search_nodules import as_in_use
    from spicula.pipelines.slice_table import load_slice_table

    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 400, (PATIENTS, 112, 112)).astype(np.int16)
    near = np.zeros(hu.shape, dtype=np.uint8)
    near[:, 50:60, 50:60] = 255
    rows = [(f"P{n}", f"P{n}_00.png", "") for n in range(PATIENTS - 1)] + [("S", "", "")]  # none shows a judged nodule
    keep_slices(tmp_path / "run" / "slices", hu, near, rows)
    told = tmp_path / "run" / "run.json"
    told.write_text(json.dumps({"task": "train retrieval"}), encoding="utf-8")
    train.packed.pack(tmp_path / "run", tmp_path / "slices.npz", data=data, folds=3)
    facts = train.packed.unpack(tmp_path / "slices.npz", tmp_path / "there")
    assert sum(len(facts["held_out"][str(fold)]) for fold in range(3)) == PATIENTS
    used = as_in_use(load_slice_table(tmp_path / "run" / "slices"))
    np.testing.assert_array_equal(load_slice_table(tmp_path / "there").hu, used.hu)
    assert (used.hu[0] != hu[0]).mean() > 0.5
    np.testing.assert_array_equal(used.hu[-1], hu[-1])
    told.write_text(json.dumps({"task": "train risk"}), encoding="utf-8")
    with pytest.raises(InputError, match="got a run of 'train risk'"):
        train.packed.pack(tmp_path / "run", tmp_path / "slices.npz", data=data)


@needs_bash
@pytest.mark.slow
def test_it_runs_without_what_reads_scans_and_its_weights_come_back(train, file, tmp_path):
    done = run(file[0], tmp_path, without=train.machine.NOT_NEEDED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "absent: SimpleITK, scipy, nibabel, pydicom" in done.stdout
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"weights-0.safetensors", "summary.json", "log.txt"}
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
@pytest.mark.slow
def test_encoders_come_back_and_the_training_of_the_search_lacks_nothing(train, search, tmp_path, monkeypatch):
    from spicula.pipelines import train_retrieval as job
    from spicula.pipelines.pretrain_regions import load_encoder
    from spicula.pipelines.search_arms import ARMS, MAIN, recipe_of
    from spicula.pipelines.slice_table import load_slice_table

    out, here = tmp_path / "out", tmp_path / "run"
    for method, names in (("simclr", [f"{MAIN} 0", f"{MAIN} all"]), ("vae", ["vae 0"])):
        done = run(search, tmp_path, without=train.machine.NOT_NEEDED, METHOD=method, FOLDS="0 all")
        assert done.returncode == 0, done.stdout + done.stderr
        assert {path.name for path in out.iterdir()} == {"weights-0.safetensors", "summary.json", "log.txt"}
        told = json.loads((out / "summary.json").read_text())
        assert told["gflop_an_image"] > 0
        assert {name: one["epochs"] for name, one in told["pretrainings"].items()} == dict.fromkeys(names, 1)
        assert train.packed.put(out, here) == names
    for folder in (tmp_path / "work" / "encoders").glob("*/*"):
        arm = next(arm for arm in ARMS if job.encoder_folder(tmp_path / "work", arm, folder.name) == folder)
        ours = load_encoder(job.encoder_folder(here, arm, folder.name), method=ARMS[arm].method).state_dict()
        theirs = load_encoder(folder, method=ARMS[arm].method).state_dict()
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours if "running" in name or "batches" in name)
        assert len((job.encoder_folder(here, arm, folder.name) / "log.jsonl").read_text().splitlines()) == 1

    class Cutting(Exception):
        """All encoders were there."""

    def cut_pieces(*args, **more):
        raise Cutting

    monkeypatch.setattr(job, "read_slices", lambda *args, **more: load_slice_table(tmp_path / "work" / "slices"))
    monkeypatch.setattr(lidc_nodules, "load_cases", lambda root: some_cases())
    monkeypatch.setattr(job, "cut_pieces", cut_pieces)
    with pytest.raises(Cutting):
        job.train_retrieval(
            tmp_path, here, recipe=recipe_of(published=False, width=4, epochs=1), folds=1, arms=["vae"],
            outlines=lambda *args: None, report=lambda line: None,
        )  # fmt: skip


def test_any_arms_of_the_search_with_its_own_arguments(train, monkeypatch):
    from spicula.pipelines.search_arms import MAIN, recipe_of
    from spicula.pipelines.train_retrieval import arguments_of

    given = {"METHOD": "simclr", "ARMS": f"simclr + gem; {MAIN};vae", "FOLDS": "0 all", "WIDTH": "64", "PUBLISHED": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    method = train.methods.given()
    assert method.names == ("simclr + gem 0", f"{MAIN} 0", f"{MAIN} all", "vae 0")
    assert method.epochs == 1000
    shorter = method.lasting(50)
    assert shorter.arguments(5) == arguments_of(recipe_of(published=True, epochs=50))
    parts = [shorter.parts(name) for name in shorter.names]
    assert [one["method"] for one in parts] == ["simclr", "simclr", "simclr", "vae"]
    assert [one["shape"].channels for one in parts] == [1, 2, 2, 1]
    assert {(one["shape"].width, one["recipe"].epochs, one["recipe"].batch) for one in parts} == {(64, 50, 256)}
    assert shorter.folder(Path("run"), f"{MAIN} all") == Path("run/encoders/simclr-frangi-gem/all")


@needs_bash
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"without": ("accelerate", "safetensors")}, "lacks safetensors, accelerate"),
        ({"FOLDS": "0 seven"}, "FOLDS: got seven, expected some of 0, 1, 2, all"),
        ({"DATA": "nowhere.npz"}, "no nowhere.npz. Hint: python train/packed.py pack"),
        ({"METHOD": "moco"}, "METHOD: got moco, expected dinov2, simclr, vae"),
        ({"METHOD": "simclr"}, "got slices of 'train ssm', expected of 'train retrieval'"),
        ({"METHOD": "vae", "ARMS": "vae;unet"}, "ARMS: got unet, expected some of simclr + frangi + gem; vae"),
        ({"METHOD": "vae", "FOLDS": "all"}, "FOLDS: got all alone"),
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


def test_what_has_not_ended_gives_its_last_checkpoint_back(train, tmp_path):
    from spicula.networks.checkpoint import append_log, save_checkpoint

    network = torch.nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(network.parameters())
    average = {"backbone.a": torch.ones(64), "backbone.b": torch.zeros(64), "dino_head.c": torch.ones(64)}
    folder = tmp_path / "backbones" / "0"
    folder.mkdir(parents=True)
    append_log(folder, {"epoch": 0})
    save_checkpoint(folder, 1, network, optimizer, average)
    order = SimpleNamespace(work=tmp_path, method=train.methods.Dinov2("vit-mini", 60, ("0", "1"), small=False))
    told, weights = train.folds.collect(order, "0")
    assert told == {
        "folder": "backbones/0", "finished": False, "epochs": 1, "shape": None, "log": [{"epoch": 0}]
    }  # fmt: skip
    assert weights.keys() == {"a", "b"}
    told, weights = train.folds.collect(order, "1")
    assert (told["finished"], told["epochs"], weights) == (False, 0, {})


def test_weights_go_back_in_small_files_and_counts_and_norms_as_they_are(train, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    weights = {
        "0/matrix": torch.full((4, 16), 1 / 3), "0/variance": torch.full((64,), 1e-9), "1/seen": torch.tensor(70001),
        "1/matrix": torch.ones(4, 16).T,
    }  # fmt: skip
    monkeypatch.setattr(train.folds, "NAMED_BYTES", 0)
    monkeypatch.setattr(train.folds, "MOST_BYTES", 300)
    files = train.folds.give_back(tmp_path, weights)
    assert files == ["weights-0.safetensors", "weights-1.safetensors", "weights-2.safetensors"]
    whole = {name: value for file in files for name, value in load_file(tmp_path / file).items()}
    assert {name: value.dtype for name, value in whole.items()} == {
        "0/matrix": torch.float16, "0/variance": torch.float32, "1/seen": torch.int64, "1/matrix": torch.float16
    }  # fmt: skip
    assert whole["1/seen"] == 70001
    assert train.folds.give_back(tmp_path, {}) == []


def test_fewer_epochs_where_time_is_short(train, capsys):
    assert train.folds.epochs_in_time(60, 1000, rate=1000.0, seconds=100.0) == 60
    assert train.folds.epochs_in_time(60, 1000, rate=1000.0, seconds=40.0) == 36
    assert "36 do" in capsys.readouterr().out
    assert train.folds.epochs_in_time(60, 1000, rate=1.0, seconds=1.0) == train.folds.LEAST_EPOCHS


def test_what_is_absent_is_never_used_silently(train):
    absent = train.machine._Absent("scans")
    with pytest.raises(ModuleNotFoundError, match=r"scans\.reader\.read"):
        absent.reader.read("file")
