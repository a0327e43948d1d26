"""Experiment folders of small random networks, laid out as the authors' training leaves them, as bundles."""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")
pytest.importorskip("onnxscript", reason="pip install 'spicula[train]'")

from spicula.cli import app  # noqa: E402
from spicula.core.bundle import load_bundle  # noqa: E402
from spicula.core.errors import InputError, SpiculaError, SpiculaWarning  # noqa: E402
from spicula.core.geometry import Geometry  # noqa: E402
from spicula.core.volume import Volume  # noqa: E402
from spicula.metrics.calibration import BetaCalibration  # noqa: E402
from spicula.pipelines import clip_nodule_folder, score_compat  # noqa: E402
from spicula.pipelines.import_clip import import_clip_nodule, import_hf_clip, import_openai_clip  # noqa: E402
from spicula.runtime.openvino import load_network  # noqa: E402

torch.set_num_threads(1)

SCALE = 2**-0.5
ARGS = (
    "Namespace(img_dir='/data/a, b/crops', text_dir=PosixPath('/data/reports, old'), n_splits={folds}, lr=0.0001, "
    "tuning='lora', alpha=1, r=2, models=['a, b', 'c=d'], weighted='diagnosis', augmentation=True, seed=None)"
)
Quiet = {"report": lambda _line: None}


def small_network(seed: int = 0) -> Any:
    from spicula.networks.clip import ClipText, ClipVision
    from spicula.networks.nodule_clip import NoduleClip

    torch.manual_seed(seed)
    vision = ClipVision(image_size=32, patch_size=8, width=128, layers=1, heads=2, output_dim=24)
    text = ClipText(vocabulary=60, context=12, width=64, layers=1, heads=1, output_dim=24, end_token=59)
    network = NoduleClip(vision, text, width=16).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name != "logit_scale":
                value.copy_(0.1 * torch.randn(value.shape) + (1.0 if ".ln_" in name and "weight" in name else 0.0))
    return network


def openai_state(network: Any) -> dict[str, Any]:
    """What CLIP before the training holds: both towers and the scale, OpenAI's names."""
    heads = ("image_projection", "semantic_projection", "classifier_")
    state = network.state_dict()
    return {k.replace("vision_model.", "visual."): v.clone() for k, v in state.items() if not k.startswith(heads)}


def trained_state(network: Any, *, times: int, seed: int = 0) -> dict[str, Any]:
    """The network with adapters of the authors' names, summed in so often already."""
    torch.manual_seed(100 + seed)
    made = {}
    for name, value in network.state_dict().items():
        part = re.fullmatch(r"(.+\.attn\.)(in_proj|out_proj)[._](weight|bias)", name)
        if part is None:
            made[name] = value.clone()
        elif part[2] == "out_proj":
            made[f"{part[1]}proj.{part[3]}"] = value.clone()
        else:
            for letter, third in zip("qkv", value.chunk(3), strict=True):
                made[f"{part[1]}{letter}_proj.{part[3]}"] = third.clone()
    for name in [name for name in made if re.search(r"\.[qkv]_proj\.weight$", name)]:
        width = made[name].shape[1]
        a, b = torch.randn(2, width) * width**-0.5, torch.randn(width, 2)
        made[name] = made[name] + times * SCALE * (b @ a)
        layer = name.removesuffix(".weight")
        made |= {f"{layer}.w_lora_A": a, f"{layer}.w_lora_B": b}
    return made


def with_adapters(network: Any, trained: dict[str, Any], times: int) -> Any:
    """The network that such a checkpoint stands for, by the formula."""
    changed = copy.deepcopy(network)
    with torch.no_grad():
        for name, value in changed.named_parameters():
            if name.endswith("attn.in_proj_weight"):
                attention = name.removeprefix("text_model.").removesuffix("in_proj_weight")
                products = [
                    trained[f"{attention}{x}_proj.w_lora_B"] @ trained[f"{attention}{x}_proj.w_lora_A"] for x in "qkv"
                ]
                value += times * SCALE * torch.cat(products)
    return changed


def write_experiment(folder: Path, states: list[dict[str, Any]], *, args: str = ARGS) -> Path:
    for fold, state in enumerate(states):
        place = folder / f"fold_{fold}"
        place.mkdir(parents=True)
        torch.save({"model": state}, place / "best_both.pt")
    (folder / "args.txt").write_text(args.format(folds=len(states)), encoding="utf-8")
    (folder / "log.txt").write_text("epoch 0\n", encoding="utf-8")
    return folder


def image_of(network: Any, planes: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        side = network.image_side(torch.from_numpy(planes))
        return torch.cat([side.embedding, side.logits, side.attention], dim=1).numpy()


@pytest.fixture(scope="module")
def planes() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 9, 3, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan with a bright ball, as NIfTI."""
    import nibabel

    zyx = np.indices((40, 60, 60))
    hu = np.where(((zyx - np.array([20, 30, 34])[:, None, None, None]) ** 2).sum(0) < 36, 60.0, -820.0)
    affine = np.diag([-1.5, -1.5, 2.0, 1.0])
    path = tmp_path_factory.mktemp("scan") / "ct.nii.gz"
    nibabel.save(nibabel.Nifti1Image(hu.transpose(2, 1, 0).astype(np.int16), affine), path)
    return path


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two folds: unmerged and merged twice; a calibrator each; told apart by the base."""
    root = tmp_path_factory.mktemp("ensemble")
    network = small_network()
    states = [trained_state(network, times=times, seed=times) for times in (0, 2)]
    folder = write_experiment(root / "experiment_20250101_120000", states)
    for fold in range(2):
        (folder / f"fold_{fold}" / f"cal_{fold}.json").write_text(json.dumps({"a": 1.5 + fold, "b": 0.5, "c": -0.25}))
    torch.save(openai_state(network), root / "base.pt")
    tokenizer = small_tokenizer(root / "tokenizer.json")
    bundle = import_clip_nodule(folder, root / "bundle", base=root / "base.pt", tokenizer=tokenizer, **Quiet)
    return {"network": network, "states": states, "folder": folder, "bundle": bundle, "root": root}


def small_tokenizer(path: Path, *, size: int = 60) -> Path:
    """Letters and no merges, the end token the highest id, as in CLIP's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    letters = [chr(code) for code in range(97, 123)]
    tokens = [*letters, *(f"{x}</w>" for x in letters), *(f"<{i}>" for i in range(size - 54)), "<start>", "<end>"]
    words = Tokenizer(
        models.BPE({token: i for i, token in enumerate(tokens)}, [], unk_token="<end>", end_of_word_suffix="</w>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<start>", size - 2), ("<end>", size - 1)]
    words.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    words.enable_truncation(12)
    words.enable_padding(length=12, pad_id=0, pad_token="a")
    words.save(str(path))
    return path


def test_each_fold_is_the_network_with_its_adapters_in_once(ensemble, planes) -> None:
    bundle = ensemble["bundle"]
    networks = bundle.manifest["outputs"]["networks"]
    assert [n["adapters"] for n in networks] == ["unmerged", "merged twice"]
    assert bundle.task == "semantic"
    assert bundle.preprocessing["cube"]["mode"] == "compat"
    tokens = np.zeros((2, 12), dtype=np.int64)
    tokens[:, :4] = [[58, 3, 9, 59], [58, 1, 59, 0]]
    for fold, state in enumerate(ensemble["states"]):
        network = with_adapters(ensemble["network"], state, 1)
        (found,) = load_network(bundle, networks[fold]["image"], threads=1)(planes)
        assert np.abs(found - image_of(network, planes)).max() < 1e-4
        assert np.abs(found - image_of(ensemble["network"], planes)).max() > 1e-3  # the adapters matter
        (words,) = load_network(bundle, networks[fold]["text"], threads=1)(tokens)
        with torch.no_grad():
            side = network.text_side(torch.from_numpy(tokens))
        assert np.abs(words - torch.cat([side.embedding, side.logits], dim=1).numpy()).max() < 1e-4
        assert networks[fold]["temperature"] == pytest.approx(0.03, rel=1e-5)


def test_the_weights_in_the_bundle_load_strictly(ensemble) -> None:
    from safetensors.torch import load_file

    from spicula.networks.clip_names import load_strictly

    network = small_network(7)
    load_strictly(network, load_file(ensemble["bundle"].file("network_1.safetensors")), source="bundle")
    expected = with_adapters(ensemble["network"], ensemble["states"][1], 1).state_dict()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=2e-6, rtol=0)


def test_the_card_tells_hashes_and_no_folders_of_others(ensemble) -> None:
    card = ensemble["bundle"].card
    (source,) = card["data"]
    assert source["folder"] == "experiment_20250101_120000"
    assert set(source["files"]) == {
        "args.txt", *(f"fold_{k}/best_both.pt" for k in range(2)), *(f"fold_{k}/cal_{k}.json" for k in range(2)),
    }  # fmt: skip
    assert source["arguments"] == {
        "n_splits": 2, "lr": 0.0001, "tuning": "lora", "alpha": 1, "r": 2, "weighted": "diagnosis",
        "augmentation": True, "seed": None,
    }  # fmt: skip
    assert "AGPL-3.0" in card["licence"]
    assert set(card) >= {"data", "licence", "metrics", "intended_use", "limits"}


def test_score_compat_writes_the_authors_columns(ensemble, scan, tmp_path: Path) -> None:
    table = tmp_path / "nodules.csv"
    table.write_text(
        "pid,nodule_id,image_path,coordX,coordY,coordZ,malignant\n"
        f"007,0,{scan},51,45,40,1.0\n"
        f"007,1,{scan},45,45,40,0.0\n",
        encoding="utf-8",
    )
    done = CliRunner().invoke(
        app,
        ["score", str(table), "--compat", "--bundle", str(ensemble["root"] / "bundle"), "--out", str(tmp_path / "o")],
    )
    assert done.exit_code == 0, done.output
    with (tmp_path / "o").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert ",".join(rows[0]) == ("pid,nodule_id,raw_0,raw_1,ensemble,calibrated_0,calibrated_1,calibrated_ensemble")
    assert [(row["pid"], row["nodule_id"]) for row in rows] == [("007", "0"), ("007", "1")]
    volume = score_compat.read_volume(scan)
    for row, center in zip(rows, ((51.0, 45.0, 40.0), (45.0, 45.0, 40.0)), strict=True):
        planes = published_planes(volume, center)
        raw = []
        for state in ensemble["states"]:
            logits = image_of(with_adapters(ensemble["network"], state, 1), planes[None])[0, 16:18]
            raw.append(float(torch.softmax(torch.tensor(logits), dim=0)[1]))
        assert [float(row[f"raw_{k}"]) for k in range(2)] == pytest.approx(raw, abs=1e-4)
        assert float(row["ensemble"]) == pytest.approx(np.mean([float(row[f"raw_{k}"]) for k in range(2)]), abs=1e-12)
        calibrated = [float(BetaCalibration(1.5 + k, 0.5, -0.25)(float(row[f"raw_{k}"]))) for k in range(2)]
        assert [float(row[f"calibrated_{k}"]) for k in range(2)] == pytest.approx(calibrated, abs=1e-12)
        assert float(row["calibrated_ensemble"]) == pytest.approx(np.mean(calibrated), abs=1e-12)
    assert rows[0]["raw_0"] != rows[1]["raw_0"]


def published_planes(volume: Volume, center: tuple[float, float, float]) -> np.ndarray:
    """The published steps with scipy: rotate the windowed cube, slice, zoom, normalize."""
    from scipy import ndimage

    from spicula.transforms.nodule_cube import nodule_cube

    cube = np.clip((nodule_cube(volume, center, mode="compat") + 1000) / 1500, 0, 1)
    turned = [ndimage.rotate(cube, 45, axes=axes, reshape=False) for axes in ((0, 2), (0, 1), (1, 2))]
    slices = [
        cube[50],
        cube[:, 50],
        cube[:, :, 50],
        turned[0][50],
        turned[0][:, :, 50],
        turned[1][50],
        turned[1][:, 50],
    ]
    slices += [turned[2][:, 50], turned[2][:, :, 50]]
    small = [ndimage.zoom(plane[25:75, 25:75], 32 / 50, order=1) for plane in slices]
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    return np.stack([[(plane - m) / s for m, s in zip(mean, std, strict=True)] for plane in small]).astype(np.float32)


def test_rows_that_fail_are_told_and_stay_empty(ensemble, scan, tmp_path: Path) -> None:
    table = tmp_path / "nodules.csv"
    table.write_text(
        "pid,nodule_id,image_path,coordX,coordY,coordZ\n"
        f"a,0,{scan},-51,-45,40\na,1,{scan},51,45,40\nb,0,nowhere.nii,1,2,3\nb,1,nowhere.nii,1,2,3\n",
        encoding="utf-8",
    )
    out = tmp_path / "o.csv"
    reasons = score_compat.score_compat_file(table, out, bundle=ensemble["root"] / "bundle")
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert "error" not in rows[0]
    assert [bool(row["ensemble"]) for row in rows] == [False, True, False, False]
    assert [reason.partition(":")[0] for reason in reasons] == ["a 0", "b 0", "b 1"]
    assert "outside" in reasons[0]
    assert "nowhere.nii" in reasons[2]


def test_a_bundle_that_rates_no_nodules_and_half_the_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpiculaError, match="bundle import clip-nodule"):
        score_compat.load_compat("nodule-risk")
    done = CliRunner().invoke(app, ["score", "x.csv", "--compat", "--out", str(tmp_path / "o.csv")])
    assert isinstance(done.exception, InputError)
    assert "both or none" in str(done.exception)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Networks that would be exported, in place of their files: the export itself is slow and tested elsewhere."""
    from spicula.pipelines import import_clip

    found: list[Any] = []
    monkeypatch.setattr(import_clip, "_export", lambda network, *_, **__: found.append(network) or {})
    return found


def test_without_the_base_best_files_are_taken_as_merged(exported, tmp_path: Path) -> None:
    network = small_network(3)
    state = trained_state(network, times=1)
    folder = write_experiment(tmp_path / "e", [state])
    command = ["bundle", "import", "clip-nodule", str(folder), "--compat", "paper", "--licence", "ours", "--fold", "0"]
    with pytest.warns(SpiculaWarning, match="taken to hold merged weights"):
        done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "b")])
    assert done.exit_code == 0, done.output
    assert "fold 0: adapters merged, told by the file's name" in done.output
    assert "spicula score nodules.csv --compat --bundle" in done.output
    bundle = load_bundle(tmp_path / "b")
    (facts,) = bundle.manifest["outputs"]["networks"]
    assert facts["adapters_summed_in"] == 2
    assert facts["told_by"] == "the file's name"
    assert bundle.card["licence"] == "ours"
    assert any("twice" in limit for limit in bundle.card["limits"])
    assert "calibration.json" not in bundle.manifest["files"]
    wanted = with_adapters(network, state, 2).state_dict()
    assert all(torch.allclose(value, wanted[name], atol=2e-6) for name, value in exported[0].state_dict().items())


def test_columns_without_calibrators(ensemble) -> None:
    model = score_compat.load_compat(ensemble["root"] / "bundle", threads=1)
    assert dataclasses.replace(model, calibrations=()).columns == ("pid", "nodule_id", "raw_0", "raw_1", "ensemble")


@pytest.mark.parametrize(("compat", "expected"), [("once", [1, 1, 1]), ("paper", [2, 1, 1])])
def test_only_fold_0_of_the_paper_is_summed_in_twice(compat, expected, exported, tmp_path: Path) -> None:
    network = small_network()
    states = [trained_state(network, times=1, seed=fold) for fold in range(3)]
    torch.save(openai_state(network), tmp_path / "base.pt")
    folder = write_experiment(tmp_path / "e", states)
    bundle = import_clip_nodule(folder, tmp_path / "b", base=tmp_path / "base.pt", compat=compat, **Quiet)
    assert [n["adapters_summed_in"] for n in bundle.manifest["outputs"]["networks"]] == expected
    for found, state, times in zip(exported, states, expected, strict=True):
        wanted = with_adapters(network, state, times).state_dict()
        assert all(torch.allclose(value, wanted[name], atol=2e-6) for name, value in found.state_dict().items())


def test_a_fully_tuned_fold_and_one_with_a_plain_text_tower_are_read(tmp_path: Path) -> None:
    from spicula.pipelines.import_clip import _read_fold

    network = small_network()
    plain = network.state_dict()
    state = trained_state(network, times=1)
    mixed = {k: v for k, v in state.items() if k.startswith("vision_model.") or ".attn." not in k}
    mixed |= {k: v for k, v in plain.items() if not k.startswith("vision_model.") and ".attn." in k}
    torch.save({"model": plain}, tmp_path / "best_both.pt")
    found, _shape, how = _read_fold(tmp_path / "best_both.pt", base=None, alpha=1.0, times=2)
    assert how == {"adapters": "none"}
    assert all(torch.equal(value, plain[name]) for name, value in found.state_dict().items())
    torch.save({"model": mixed}, tmp_path / "best_both.pt")
    found, _shape, how = _read_fold(tmp_path / "best_both.pt", base=openai_state(network), alpha=1.0, times=1)
    assert how["adapters"] == "merged"
    for name, value in found.state_dict().items():
        wanted = with_adapters(network, state, 1).state_dict() if name.startswith("vision_model.") else plain
        assert torch.allclose(value, wanted[name], atol=2e-6), name


@pytest.mark.usefixtures("exported")
def test_a_fold_of_another_size_is_refused(tmp_path: Path) -> None:
    other = {k: v for k, v in small_network().state_dict().items() if not k.startswith("token_embedding")}
    other["token_embedding.weight"] = torch.zeros(61, 64)
    folder = write_experiment(tmp_path / "e", [small_network().state_dict(), other])
    with pytest.raises(InputError, match=r"fold_1.*expected the sizes of the other folds"):
        import_clip_nodule(folder, tmp_path / "b", **Quiet)


def lacking(state: dict[str, Any]) -> None:
    del state["vision_model.transformer.resblocks.0.ln_1.weight"], state["classifier_image.bias"]


def foreign(state: dict[str, Any]) -> None:
    state["module.extra"] = torch.zeros(2)


def misshapen(state: dict[str, Any]) -> None:
    state["classifier_text.weight"] = torch.zeros(3, 16)


def not_finite(state: dict[str, Any]) -> None:
    state["ln_final.bias"][0] = float("nan")


def no_tensor(state: dict[str, Any]) -> None:
    state["ln_final.bias"] = [1.0]


def half_an_adapter(state: dict[str, Any]) -> None:
    del state["transformer.resblocks.0.attn.k_proj.w_lora_B"]


def half_an_attention(state: dict[str, Any]) -> None:
    for name in [name for name in state if "resblocks.0.attn.v_proj" in name]:
        del state[name]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lacking, r"fold_0.*2 missing: classifier_image.bias, vision_model.transformer.resblocks.0.ln_1.weight"),
        (foreign, "fold_0.*1 foreign: module.extra"),
        (misshapen, r"of another shape: classifier_text.weight \(3, 16\)"),
        (not_finite, "best_both.pt: ln_final.bias: got numbers that are not finite"),
        (no_tensor, "ln_final.bias.*got a list"),
        (half_an_adapter, r"fold_0.*no transformer.resblocks.0.attn.k_proj.w_lora_B"),
        (half_an_attention, r"no .*v_proj.weight"),
    ],
)
def test_weights_that_do_not_fit_are_listed_and_refused(spoil, told, tmp_path: Path) -> None:
    network = small_network()
    state = trained_state(network, times=1)
    spoil(state)
    torch.save(openai_state(network), tmp_path / "base.pt")
    folder = write_experiment(tmp_path / "e", [state])
    with pytest.raises(InputError, match=told):
        import_clip_nodule(folder, tmp_path / "b", base=tmp_path / "base.pt", **Quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.pt", "e"]  # nothing is left


def test_another_base_and_another_alpha_are_refused(tmp_path: Path) -> None:
    network = small_network()
    folder = write_experiment(tmp_path / "e", [trained_state(network, times=1)])
    torch.save(openai_state(small_network(1)), tmp_path / "other.pt")
    torch.save(openai_state(network), tmp_path / "base.pt")
    for base, alpha in (("other.pt", None), ("base.pt", 16.0)):
        with pytest.raises(InputError, match=r"best_both.pt: .*neither the first weights nor"):
            import_clip_nodule(folder, tmp_path / "b", base=tmp_path / base, alpha=alpha, **Quiet)
    narrow = {name: value[..., :8] for name, value in openai_state(network).items() if value.ndim}
    torch.save(narrow, tmp_path / "narrow.pt")
    with pytest.raises(InputError, match="is --base the model"):
        import_clip_nodule(folder, tmp_path / "b", base=tmp_path / "narrow.pt", **Quiet)


class EarlyStopping:
    """What the authors' ckpt.pt holds beside the weights."""

    best = np.float64(0.5)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_that_is_pickled_is_run(tmp_path: Path) -> None:
    import pickle

    from spicula.networks.clip_weights import read_archive

    torch.save({"model": {"a": Trap(tmp_path / "sprung")}}, tmp_path / "new.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"model": Trap(tmp_path / "sprung")}))
    for name in ("new.pt", "plain.pt"):
        with pytest.raises(InputError, match=rf"{name}: got pickled objects"):
            read_archive(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_pickled_objects_damage_and_other_files_are_refused(tmp_path: Path) -> None:
    from spicula.networks.clip_weights import read_archive

    torch.save({"model": {}, "stopping": EarlyStopping()}, tmp_path / "ckpt.pt")
    with pytest.raises(InputError, match=r"ckpt.pt: got pickled objects beside weights"):
        read_archive(tmp_path / "ckpt.pt")
    whole = tmp_path / "whole.pt"
    torch.save({"model": {"a": torch.zeros(100)}}, whole)
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:-200])
    (tmp_path / "page.pt").write_text("<html>not found</html>")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    for name in ("cut.pt", "page.pt", "empty.pt", "tensor.pt", "nowhere.pt"):
        with pytest.raises(InputError, match=name):
            read_archive(tmp_path / name)
    folder = write_experiment(tmp_path / "e", [{}])
    shutil.copy(tmp_path / "ckpt.pt", folder / "fold_0" / "best_both.pt")
    with pytest.raises(InputError, match="pickled objects"):
        import_clip_nodule(folder, tmp_path / "b", **Quiet)
    torch.save({"weights": {}}, folder / "fold_0" / "best_both.pt")
    with pytest.raises(InputError, match=r"got keys weights, expected 'model'"):
        import_clip_nodule(folder, tmp_path / "b", **Quiet)


def test_arguments_are_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "args.txt"
    path.write_text(ARGS.format(folds=5))
    found = clip_nodule_folder.read_arguments(path)
    assert found["img_dir"] == "/data/a, b/crops"
    assert found["text_dir"] == "PosixPath('/data/reports, old')"
    assert found["models"] == ["a, b", "c=d"]
    assert found["n_splits"] == 5
    path.write_text("Namespace(a=-1, **{'b-c': (1, 2)}, d=__import__('os').system('touch bad'))")
    assert clip_nodule_folder.read_arguments(path) == {
        "a": -1, "b-c": (1, 2), "d": "__import__('os').system('touch bad')",
    }  # fmt: skip
    for bad in ("", "lr=1", "Namespace(a=1", "Other(a=1)", "Namespace(1)", "(" * 5000, "{'a': 1}"):
        path.write_text(bad)
        with pytest.raises(InputError, match=r"args.txt"):
            clip_nodule_folder.read_arguments(path)
    path.unlink()
    with pytest.warns(SpiculaWarning, match="is missing"):
        assert clip_nodule_folder.read_arguments(path) == {}


def test_folds_and_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    read = clip_nodule_folder.read_experiment
    folder = write_experiment(tmp_path / "e", [{}, {}, {}])
    assert list(read(folder).checkpoints) == [0, 1, 2]
    assert list(read(folder, folds=[2, 0]).checkpoints) == [0, 2]
    with pytest.raises(InputError, match=r"best_pred.pt: got best_both.pt"):
        read(folder, best="pred")
    with pytest.raises(InputError, match=r"got folds 0, 1, 2, expected folds 7"):
        read(folder, folds=[7])
    (folder / "args.txt").write_text("Namespace(n_splits=5)")
    with pytest.raises(InputError, match=r"expected folds 0, 1, 2, 3, 4 \(n_splits=5 in args.txt\)"):
        read(folder)
    (folder / "args.txt").write_text("Namespace(n_splits=2)")
    with pytest.raises(InputError, match="expected folds 0, 1 "):
        read(folder)
    (folder / "args.txt").write_text("Namespace()")
    shutil.rmtree(folder / "fold_1")
    with pytest.raises(InputError, match="got folds 0, 2, expected folds 0, 1, 2"):
        read(folder)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "args.txt").write_text("Namespace()")
    for bad in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(InputError, match="fold_0"):
            read(bad)


def test_calibrators_are_taken_as_json_only(tmp_path: Path) -> None:
    read = clip_nodule_folder.read_experiment
    folder = write_experiment(tmp_path / "e", [{}, {}])
    (folder / "fold_0" / "cal_0.pkl").write_bytes(b"cos\nsystem\n.")
    with pytest.raises(InputError, match=r"cal_0.pkl: got a pickled calibrator.*import-clip.md"):
        read(folder)
    cal = folder / "fold_0" / "cal_0.json"
    for bad in ("{", "[1]", '{"a": 1, "b": 1}', '{"a": -1, "b": -1, "c": 0}', '{"a": "1", "b": 1, "c": 0}'):
        cal.write_text(bad)
        with pytest.raises(InputError, match=r"cal_0.json"):
            read(folder)
    cal.write_text('{"a": 1, "b": 2, "c": 0}')
    with pytest.raises(InputError, match=r"none at .*cal_1.json"):
        read(folder)
    shutil.copy(cal, folder / "fold_1" / "cal_1.json")
    assert read(folder).calibrations == {0: BetaCalibration(1, 2, 0), 1: BetaCalibration(1, 2, 0)}


def test_the_documented_command_converts_the_authors_calibrators(tmp_path: Path) -> None:
    import pickle
    import warnings

    betacal = pytest.importorskip("betacal")
    rng = np.random.default_rng(0)
    p = rng.uniform(size=500)
    y = (rng.uniform(size=500) < p**2).astype(int)
    grid = np.linspace(0.01, 0.99, 25)
    expected = []
    with warnings.catch_warnings():  # betacal sets filters of its own
        warnings.simplefilter("ignore")
        for fold, parameters in enumerate(("abm", "am", "ab")):
            fitted = betacal.BetaCalibration(parameters=parameters).fit(p.reshape(-1, 1), y)
            (tmp_path / f"fold_{fold}").mkdir()
            (tmp_path / f"fold_{fold}" / f"cal_{fold}.pkl").write_bytes(pickle.dumps(fitted))
            expected.append(fitted.predict(grid.reshape(-1, 1)))
    code = re.fullmatch(r'python -c "(.*)" CKPT_DIR', clip_nodule_folder.CONVERT, flags=re.DOTALL)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code[1], str(tmp_path)], check=True)
    for fold, values in enumerate(expected):
        calibration = clip_nodule_folder.read_calibration(tmp_path / f"fold_{fold}", fold)
        assert np.abs(calibration(grid) - values).max() < 1e-9


def test_the_page_shows_the_command_that_converts() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "import-clip.md"
    assert clip_nodule_folder.CONVERT in page.read_text(encoding="utf-8")


def small_clip(folder: Path) -> Any:
    """CLIP as OpenAI's names, ``o.pt``, and as a Hugging Face folder, ``hf``, with a tokenizer beside them."""
    from safetensors.torch import save_file

    from spicula.networks.clip import Clip
    from spicula.networks.clip_names import openai_to_hf

    network = small_network(5)
    clip = Clip(network.vision_model, network.text_model).eval()
    state = {name: value.contiguous() for name, value in clip.state_dict().items()}
    torch.save({**state, "input_resolution": torch.tensor(32), "context_length": torch.tensor(12)}, folder / "o.pt")
    (folder / "hf").mkdir()
    save_file(openai_to_hf(state), folder / "hf" / "model.safetensors")
    (folder / "hf" / "config.json").write_text('{"model_type": "clip", "text_config": {"eos_token_id": 2}}')
    (folder / "hf" / "README.md").write_text("---\ntags: [x]\nlicense: mit\n---\n# CLIP\n")
    small_tokenizer(folder / "tokenizer.json")
    return clip


def test_openai_weights_become_towers_that_run(tmp_path: Path) -> None:
    from spicula.networks.clip_tokens import load_tokenizer

    clip = small_clip(tmp_path)
    options = [f"--out={tmp_path}/b", f"--tokenizer={tmp_path}/tokenizer.json"]
    done = CliRunner().invoke(app, ["bundle", "import", "openai-clip", f"{tmp_path}/o.pt", *options])
    assert done.exit_code == 0, done.output
    bundle = load_bundle(tmp_path / "b")
    assert (bundle.task, bundle.manifest["outputs"]["kind"]) == ("semantic", "clip")
    assert bundle.card["licence"].startswith("not stated")
    images = np.random.default_rng(1).normal(size=(3, 3, 32, 32)).astype(np.float32)
    (found,) = load_network(bundle, "image.onnx", threads=1)(images)
    with torch.no_grad():
        assert np.abs(found - clip.encode_image(torch.from_numpy(images)).numpy()).max() < 1e-4
        ids = load_tokenizer(bundle.file("tokenizer.json")).encode(["solid", "part solid"]).ids
        (words,) = load_network(bundle, "text.onnx", threads=1)(ids)
        assert np.abs(words - clip.encode_text(torch.from_numpy(ids)).numpy()).max() < 1e-4
    with pytest.raises(SpiculaError, match="cannot rate nodules"):
        score_compat.load_compat(tmp_path / "b")


def test_a_hugging_face_folder_holds_the_same(exported, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    clip = small_clip(tmp_path)
    done = CliRunner().invoke(app, ["bundle", "import", "hf-clip", f"{tmp_path}/hf", "--out", str(tmp_path / "b")])
    assert done.exit_code == 0, done.output
    assert load_bundle(tmp_path / "b").card["licence"] == "mit, as its README says"
    assert all(torch.equal(value, clip.state_dict()[name]) for name, value in exported[0].state_dict().items())
    weights = tmp_path / "hf" / "model.safetensors"
    torch.save(load_file(weights), tmp_path / "hf" / "pytorch_model.bin")
    weights.unlink()
    config = tmp_path / "hf" / "config.json"
    config.write_text('{"model_type": "clip", "vision_config": {"num_hidden_layers": 2}}')
    with pytest.raises(InputError, match=r"12 missing: visual.transformer.resblocks.1.attn"):
        import_hf_clip(tmp_path / "hf", tmp_path / "b", **Quiet)
    config.write_text('{"model_type": "clip", "vision_config": {"num_attention_heads": 3}}')
    with pytest.raises(InputError, match="the image tower: got 3 heads of 128 features"):
        import_hf_clip(tmp_path / "hf", tmp_path / "b", **Quiet)
    config.write_text('{"model_type": "clip", "vision_config": {"num_attention_heads": 2}}')
    import_hf_clip(tmp_path / "hf", tmp_path / "b", **Quiet)
    assert all(torch.equal(value, clip.state_dict()[name]) for name, value in exported[1].state_dict().items())


def test_a_torchscript_archive_of_half_precision_is_read_without_running_it(tmp_path: Path) -> None:
    from spicula.networks.clip_weights import read_openai

    class Archived(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.visual = torch.nn.Linear(3, 2).half()
            self.register_buffer("input_resolution", torch.tensor(224))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.visual(x)

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Archived()).save(str(tmp_path / "ViT-B-32.pt"))
    state = read_openai(tmp_path / "ViT-B-32.pt")
    assert state["visual.weight"].dtype == torch.float32
    assert set(state) == {"visual.weight", "visual.bias", "input_resolution"}


def test_other_models_and_tokenizers_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network = small_network()
    torch.save({"visual.layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "RN50.pt")
    with pytest.raises(InputError, match="a residual network"):
        import_openai_clip(tmp_path / "RN50.pt", tmp_path / "b", **Quiet)
    torch.save({"visual.proj": torch.zeros(768, 512)}, tmp_path / "part.pt")
    with pytest.raises(InputError, match=r"part.pt: got 3\d\d missing"):
        import_openai_clip(tmp_path / "part.pt", tmp_path / "b", **Quiet)
    torch.save(openai_state(network), tmp_path / "o.pt")
    other = small_tokenizer(tmp_path / "tokenizer.json", size=70)
    with pytest.raises(InputError, match="70 tokens, 12 a text, end 69, expected 60 tokens"):
        import_openai_clip(tmp_path / "o.pt", tmp_path / "b", tokenizer=other, **Quiet)
    folder = tmp_path / "hf"
    folder.mkdir()
    config = folder / "config.json"
    for text, told in (
        (None, r"config.json"),
        ("{", r"config.json"),
        ('{"model_type": "siglip"}', "got 'siglip', expected 'clip'"),
        ('{"model_type": "clip", "vision_config": {"hidden_act": "gelu"}}', "vision_config.hidden_act: got gelu"),
        ('{"model_type": "clip"}', r"expected model.safetensors or pytorch_model.bin"),
    ):
        if text is not None:
            config.write_text(text)
        with pytest.raises(InputError, match=told):
            import_hf_clip(folder, tmp_path / "b", **Quiet)
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{bad")
    with pytest.raises(InputError, match=r"model.safetensors"):
        import_hf_clip(folder, tmp_path / "b", **Quiet)
    save_file({"text_model.strange": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"model.safetensors: weight text_model.strange"):
        import_hf_clip(folder, tmp_path / "b", **Quiet)
    assert not (tmp_path / "b").exists()


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    torch.save(openai_state(small_network()), tmp_path / "o.pt")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="something that is no bundle"):
        import_openai_clip(tmp_path / "o.pt", precious, **Quiet)
    folder = write_experiment(tmp_path / "e", [{}])
    (folder / "bundle.json").write_text("{}")
    for out in (folder, tmp_path):
        with pytest.raises(InputError, match="--out"):
            import_clip_nodule(folder, out, **Quiet)
    assert (precious / "thesis.txt").read_text() == "mine"


def test_a_volume_in_memory_is_rated_too(ensemble) -> None:
    model = score_compat.load_compat(ensemble["root"] / "bundle", threads=1)
    volume = Volume(np.full((30, 40, 40), -800, dtype=np.int16), Geometry.from_axes((30, 40, 40), (2.0, 2.0, 2.0)))
    found = model.probabilities(volume, (40.0, 40.0, 30.0))
    assert found.shape == (2,)
    assert ((found > 0) & (found < 1)).all()
