"""Published CLIP weights as bundles: the job behind ``spicula bundle import`` (needs the extra ``train``)."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spicula.core.bundle import MANIFEST, Bundle, write_bundle
from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.pipelines import clip_nodule_folder, import_card
from spicula.pipelines.clip_nodule_folder import Best, Experiment

TASK = "semantic"
TOKENIZER, CALIBRATION = "tokenizer.json", "calibration.json"

Report = Callable[[str], None]


def import_clip_nodule(
    folder: Path,
    out: Path,
    *,
    base: Path | None = None,
    tokenizer: Path | None = None,
    best: Best = "both",
    folds: Sequence[int] | None = None,
    alpha: float | None = None,
    compat: str = "once",
    licence: str | None = None,
    report: Report = print,
) -> Bundle:
    """Make a bundle of an experiment folder of CLIP_nodule.

    Args:
        folder: ``experiment_YYYYMMDD_HHMMSS`` with ``args.txt`` and ``fold_k/best_*.pt``.
        out: Folder of the bundle; an older bundle there is replaced.
        base: CLIP's weights that training began with (OpenAI's file or a Hugging Face folder): they tell whether
            adapters are in the weights already.
        tokenizer: ``tokenizer.json``, ``bpe_simple_vocab_16e6.txt.gz`` or ``merges.txt``.
        best: Which of a fold's three files.
        folds: Numbers of the folds wanted; all if None.
        alpha: The adapters' scale factor; that of ``args.txt``, else 1, if None.
        compat: ``"once"`` sums adapters in once in every fold; ``"paper"`` twice in fold 0, as the authors' evaluation.
        licence: Of the weights, for the card.
        report: Takes one line of progress.

    Returns:
        The bundle, of task ``"semantic"``: for each fold an ONNX file of both sides and the weights.

    Raises:
        InputError: A file is missing, pickled, damaged, or its weights are not those of the network.
        MissingExtraError: torch, safetensors or onnx is not installed.
    """
    _require_all()
    _check_out(out, folder)
    if compat not in ("once", "paper"):
        raise InputError("compat", got=repr(compat), expected="'once' or 'paper'")
    experiment = clip_nodule_folder.read_experiment(folder, best=best, folds=folds)
    first = _base_weights(base)
    scale = alpha if alpha is not None else experiment.alpha or 1.0
    networks: list[dict[str, Any]] = []
    shapes: list[Any] = []
    words: bytes | None = None
    with _room_beside(out) as room:
        files: dict[str, bytes | Path] = {}
        for fold, path in experiment.checkpoints.items():
            report(f"fold {fold}: {path}")
            times = 2 if compat == "paper" and fold == 0 else 1
            network, shape, how = _read_fold(path, base=first, alpha=scale, times=times)
            if shapes and shape != shapes[0]:
                raise InputError(f"{path}", got=f"{shape}", expected=f"the sizes of the other folds, {shapes[0]}")
            if not shapes:
                words = _tokenizer(tokenizer, shape.text)
            shapes.append(shape)
            files |= _export(network, shape, room, suffix=f"_{fold}")
            width = int(network.classifier_image.weight.shape[1])
            networks.append({"fold": fold, **how, **_facts(network, f"_{fold}"), "embedding": width})
            del network  # before the next one is read
        files |= _extra_files(experiment, words)
        outputs = {
            "kind": "nodule_clip", "networks": networks,
            "image": "embedding, then logits of benign and malignant, then attention of nine planes",
            "text": "embedding, then logits of benign and malignant", "ensemble": "mean of the folds' probabilities",
        }  # fmt: skip
        manifest = {
            "name": "clip-nodule", "version": "1", "task": TASK, "outputs": outputs,
            "preprocessing": _preprocessing(shapes[0], words, nodules=True),
            "card": import_card.of_clip_nodule(experiment, base=base, compat=compat, licence=licence),
        }  # fmt: skip
        return write_bundle(out, manifest, files)


def import_openai_clip(
    file: Path, out: Path, *, tokenizer: Path | None = None, licence: str | None = None, report: Report = print
) -> Bundle:
    """Make a bundle of OpenAI's ``ViT-B-32.pt`` or a state dict of its names.

    Args:
        file: The TorchScript archive, or a state dict.
        out: Folder of the bundle; an older bundle there is replaced.
        tokenizer: ``tokenizer.json``, ``bpe_simple_vocab_16e6.txt.gz`` or ``merges.txt``.
        licence: Of the weights, for the card; MIT for files that OpenAI published.
        report: Takes one line of progress.

    Returns:
        The bundle, of task ``"semantic"``: both towers as ONNX files, and the weights.

    Raises:
        InputError: The file is missing, pickled, damaged, or its weights are not those of the network.
        MissingExtraError: torch, safetensors or onnx is not installed.
    """
    _require_all()
    _check_out(out, file)
    from spicula.networks.clip_weights import read_openai

    state = read_openai(file)
    card = import_card.of_openai(file, licence=licence)
    return _import_towers(
        "openai-clip", state, out, config=None, source=file, tokenizer=tokenizer, card=card, report=report
    )


def import_hf_clip(
    folder: Path, out: Path, *, tokenizer: Path | None = None, licence: str | None = None, report: Report = print
) -> Bundle:
    """Make a bundle of a Hugging Face folder of a ``CLIPModel``.

    Args:
        folder: With ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``.
        out: Folder of the bundle; an older bundle there is replaced.
        tokenizer: As for :func:`import_openai_clip`; ``merges.txt`` of the folder if None.
        licence: Of the weights, for the card; that of the folder's ``README.md`` if None.
        report: Takes one line of progress.

    Returns:
        As :func:`import_openai_clip`.

    Raises:
        InputError: A file is missing, pickled, damaged, or its weights are not those of the network.
        MissingExtraError: torch, safetensors or onnx is not installed.
    """
    _require_all()
    _check_out(out, folder)
    from spicula.networks.clip_weights import read_hf

    state, config = read_hf(folder)
    if tokenizer is None and (folder / "merges.txt").is_file():
        tokenizer = folder / "merges.txt"
    card = import_card.of_hf(folder, licence=licence)
    return _import_towers(
        "hf-clip", state, out, config=config, source=folder, tokenizer=tokenizer, card=card, report=report
    )


def _import_towers(
    name: str,
    state: Mapping[str, Any],
    out: Path,
    *,
    config: Mapping[str, Any] | None,
    source: Path,
    tokenizer: Path | None,
    card: Mapping[str, Any],
    report: Report,
) -> Bundle:
    from spicula.networks.clip import Clip
    from spicula.networks.clip_names import load_strictly
    from spicula.networks.clip_weights import shape_of

    report(f"{source}")
    shape = shape_of(state, config=config, source=str(source))
    words = _tokenizer(tokenizer, shape.text)
    network = Clip(*shape.towers())
    load_strictly(network, state, source=str(source))
    with _room_beside(out) as room:
        files = _export(network, shape, room, suffix="")
        files |= {} if words is None else {TOKENIZER: words}
        facts = {**_facts(network, ""), "embedding": shape.vision["output_dim"]}
        outputs = {
            "kind": "clip", "networks": [facts], "image": "embedding, not normalized",
            "text": "embedding, not normalized",
        }  # fmt: skip
        manifest = {
            "name": name, "version": "1", "task": TASK, "outputs": outputs,
            "preprocessing": _preprocessing(shape, words, nodules=False), "card": card,
        }  # fmt: skip
        return write_bundle(out, manifest, files)


def _require_all() -> None:
    for module in ("torch", "safetensors", "onnx", "onnxscript"):
        require(module, extra="train")


def _check_out(out: Path, source: Path) -> None:
    """A bundle replaces a bundle, but never a folder of something else."""
    if out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"--out {out}", got="something that is no bundle", expected="a new folder or an older bundle")
    if source.exists() and out.resolve() in (source.resolve(), *source.resolve().parents):
        raise InputError(f"--out {out}", got="the folder of what is imported", expected="another folder")


@contextmanager
def _room_beside(out: Path) -> Iterator[Path]:
    """A folder for large files on the disk where the bundle will be; it is removed in any case."""
    out.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _base_weights(base: Path | None) -> Mapping[str, Any] | None:
    from spicula.networks.clip_weights import read_hf, read_openai

    if base is None:
        return None
    return read_hf(base)[0] if base.is_dir() else read_openai(base)


def _read_fold(
    path: Path, *, base: Mapping[str, Any] | None, alpha: float, times: int
) -> tuple[Any, Any, dict[str, Any]]:
    """The network of one fold, its sizes, and what was found about its adapters."""
    from spicula.networks.clip_names import load_strictly
    from spicula.networks.clip_weights import shape_of
    from spicula.networks.nodule_clip import NoduleClip

    state, how = _settled_fold(path, base=base, alpha=alpha, times=times)
    shape = shape_of(state, source=str(path))
    classifier = state.get("classifier_image.weight")
    width = int(classifier.shape[1]) if classifier is not None and classifier.ndim == 2 else 256
    network = NoduleClip(*shape.towers(), width=width)
    load_strictly(network, state, source=str(path))
    return network.eval(), shape, how


def _settled_fold(
    path: Path, *, base: Mapping[str, Any] | None, alpha: float, times: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights of one fold with their adapters summed in, and what was found."""
    from spicula.networks.clip_weights import checked_state, read_archive
    from spicula.networks.loralib_weights import has_adapters, settle_adapters

    content = read_archive(path)
    if not isinstance(content.get("model"), Mapping):
        names = ", ".join(map(str, list(content)[:6]))
        raise InputError(f"{path}", got=f"keys {names}", expected="'model' with the weights")
    state = checked_state(content["model"], source=str(path))
    if not has_adapters(state):
        return state, {"adapters": "none"}
    try:
        settled = settle_adapters(state, base=base, file_name=str(path), alpha=alpha, times=times)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except RuntimeError as error:  # torch's, where matrices do not fit each other
        raise InputError(
            f"{path}", got=str(error), expected="adapters and first weights of the same sizes",
            hint="is --base the model that training began with?",
        ) from error  # fmt: skip
    return settled.state, {
        "adapters": settled.status, "told_by": "the file's name" if settled.assumed else "CLIP's weights",
        "adapters_summed_in": times,
    }  # fmt: skip


def _export(network: Any, shape: Any, room: Path, *, suffix: str) -> dict[str, bytes | Path]:
    """Both sides as ONNX files in single precision and the weights, in files of their own."""
    torch = require("torch", extra="train")
    safetensors = require("safetensors.torch", extra="train")
    from spicula.networks.clip_weights import tensors_of
    from spicula.networks.export import to_onnx
    from spicula.networks.nodule_clip import ImageExport, NoduleClip, TextExport

    side, tokens = shape.vision["image_size"], torch.zeros(2, shape.text["context"], dtype=torch.int64)
    tokens[:, 1] = shape.text["end_token"]
    if isinstance(network, NoduleClip):
        parts = {
            "image": (ImageExport(network), torch.zeros(2, 9, 3, side, side)),
            "text": (TextExport(network), tokens),
        }
    else:
        parts = {"image": (network.visual, torch.zeros(2, 3, side, side)), "text": (network.text_model, tokens)}
    files: dict[str, bytes | Path] = {}
    for name, (part, example) in parts.items():
        path = room / f"{name}{suffix}.onnx"
        path.write_bytes(to_onnx(part, example, half=False))
        files[path.name] = path
    weights = room / f"network{suffix}.safetensors"
    safetensors.save_file(dict(tensors_of(network)), weights)
    return files | {weights.name: weights}


def _facts(network: Any, suffix: str) -> dict[str, Any]:
    scale = math.exp(float(network.logit_scale.detach()))
    names = {"image": f"image{suffix}.onnx", "text": f"text{suffix}.onnx", "weights": f"network{suffix}.safetensors"}
    return {**names, "temperature": 1.0 / scale}


def _tokenizer(path: Path | None, text: Mapping[str, int]) -> bytes | None:
    """The tokenizer's file, which must be of the text tower's size."""
    from spicula.networks.clip_tokens import clip_tokenizer, load_tokenizer

    if path is None:
        return None
    ready = path.is_dir() or path.suffix == ".json"
    words = load_tokenizer(path) if ready else clip_tokenizer(path)
    got = (words.vocabulary, words.context, words.end_token)
    if got != (text["vocabulary"], text["context"], text["end_token"]):
        raise InputError(
            f"{path}", got="{:,} tokens, {} a text, end {}".format(*got),
            expected=f"{text['vocabulary']:,} tokens, {text['context']} a text, end {text['end_token']}",
            hint="is it the tokenizer of other weights?",
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        words.save(Path(folder) / TOKENIZER)
        return (Path(folder) / TOKENIZER).read_bytes()


def _extra_files(experiment: Experiment, words: bytes | None) -> dict[str, bytes | Path]:
    files: dict[str, bytes | Path] = {} if words is None else {TOKENIZER: words}
    if experiment.calibrations:
        folds = [{"fold": fold, **found.to_json()} for fold, found in experiment.calibrations.items()]
        files[CALIBRATION] = (json.dumps({"method": "beta", "folds": folds}, indent=2) + "\n").encode()
    return files


def _preprocessing(shape: Any, words: bytes | None, *, nodules: bool) -> dict[str, Any]:
    from spicula.transforms import nine_planes, nodule_cube

    image = {
        "pixels": shape.vision["image_size"], "channels": 3, "mean": list(nine_planes.CLIP_MEAN),
        "std": list(nine_planes.CLIP_STD),
    }  # fmt: skip
    text = {name: shape.text[name] for name in ("context", "vocabulary", "end_token")}
    found: dict[str, Any] = {"image": image, "text": {**text, "tokenizer": TOKENIZER if words else None}}
    if nodules:
        found["cube"] = {"mode": "compat", "side_mm": 100.0, "spacing_mm": 1.0, "window_hu": nodule_cube.WINDOW_HU}
        found["planes"] = {"mode": "compat", "pixels": nine_planes.PIXELS, "order": 3, "enlarged": "linearly"}
    found["towers"] = {"vision": dict(shape.vision), "text": dict(shape.text)}
    return found
