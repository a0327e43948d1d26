"""CLIP's weights from the files that others publish, read without running what is in them (needs torch)."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.networks.clip import Clip, ClipText, ClipVision
from spicula.networks.clip_names import hf_to_openai

_LAYERS = {"vision": {768: 12, 1024: 24}, "text": {512: 12, 768: 12}}
"""Blocks of the published towers by their width, so that a file cannot lack the last ones unseen."""
_HEAD = 64
"""Features of one head in all published towers."""
_HF_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class ClipShape:
    """What both towers are made of; see :class:`~spicula.networks.clip.ClipVision` and ``ClipText``.

    Args:
        vision: Keyword arguments of the image tower.
        text: Keyword arguments of the text tower.
    """

    vision: Mapping[str, int]
    text: Mapping[str, int]

    def towers(self) -> tuple[ClipVision, ClipText]:
        """Both, with random weights."""
        return ClipVision(**self.vision), ClipText(**self.text)


def read_archive(path: Path) -> dict[str, Any]:
    """Read a file of ``torch.save`` or a TorchScript archive; objects other than tensors and plain data are refused.

    Args:
        path: The file.

    Returns:
        What was saved, or the weights of the archive by name.

    Raises:
        InputError: There is no such file, it is damaged, or it holds pickled objects.
    """
    if not path.is_file():
        raise InputError(f"{path}", got="a folder" if path.is_dir() else "no file", expected="a file of weights")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated
            if _is_torchscript(path):
                return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle's errors, its own and those of the system
        first = str(error).strip().partition("\n")[0][:160]
        told = first if isinstance(error, RuntimeError | OSError) and first else "another or a damaged file"
        pickled = "weights only" in str(error).lower() or "unsupported" in str(error).lower()
        hint = "pickled objects can run any code when they are read: save the weights alone, {'model': state_dict}"
        raise InputError(
            f"{path}", got="pickled objects beside weights" if pickled else told,
            expected="a whole file of weights", hint=hint if pickled else "copy it again",
        ) from error  # fmt: skip
    if not isinstance(content, Mapping):
        raise InputError(f"{path}", got=f"a {type(content).__name__}", expected="weights by name")
    return dict(content)


def _is_torchscript(path: Path) -> bool:
    """Whether an archive holds code beside its weights."""
    import zipfile

    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def checked_state(content: Mapping[str, Any], *, source: str) -> dict[str, torch.Tensor]:
    """Weights in float32, every one a finite tensor.

    Args:
        content: By name.
        source: File that the message names.

    Raises:
        InputError: A value is no tensor, is not finite, or there are none.
    """
    if not content:
        raise InputError(f"{source}", got="no weights", expected="weights by name")
    state = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(f"{source}: {name!r}", got=f"a {type(value).__name__}", expected="a tensor")
        if value.dtype.is_floating_point:
            value = value.to(torch.float32)
            if not bool(torch.isfinite(value).all()):
                raise InputError(f"{source}: {name}", got="numbers that are not finite", expected="finite weights")
        state[name] = value.detach().contiguous()
    return state


def read_openai(path: Path) -> dict[str, torch.Tensor]:
    """Weights of OpenAI's ``ViT-B-32.pt`` or a state dict of the same names.

    Args:
        path: The file.

    Returns:
        float32 under OpenAI's names.

    Raises:
        InputError: It cannot be read or is no vision transformer.
    """
    content = read_archive(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(content.get(wrapper), Mapping):
            content = dict(content[wrapper])
            break
    state = checked_state(content, source=str(path))
    if any(name.startswith("visual.layer1.") for name in state):
        raise InputError(f"{path}", got="a residual network", expected="a vision transformer", hint="take ViT-B-32.pt")
    return state


def read_hf(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights of a folder of ``transformers.CLIPModel``, in OpenAI's names, and its configuration.

    Args:
        folder: With ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``.

    Returns:
        float32 weights, and the content of ``config.json``.

    Raises:
        InputError: A file is missing or damaged, or it is another model.
    """
    config_path = folder / "config.json"
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{config_path}", got=str(error), expected="the configuration of a CLIPModel") from error
    kind = config.get("model_type") if isinstance(config, dict) else type(config).__name__
    if kind != "clip":
        raise InputError(f"{config_path}: model_type", got=repr(kind), expected="'clip'")
    for tower in ("vision_config", "text_config"):
        part = config.setdefault(tower, {})
        if not isinstance(part, dict):
            raise InputError(f"{config_path}: {tower}", got=repr(part), expected="a table of settings")
        for name, needed in (("hidden_act", "quick_gelu"), ("layer_norm_eps", 1e-5)):
            if part.get(name, needed) != needed:
                raise InputError(f"{config_path}: {tower}.{name}", got=part[name], expected=needed)
    file = next((folder / name for name in _HF_WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise InputError(
            f"{folder}", got="weights in several files" if any(folder.glob("*.index.json")) else "no weights",
            expected=" or ".join(_HF_WEIGHTS), hint="save_pretrained(folder, max_shard_size='100GB') writes one file",
        )  # fmt: skip
    if file.suffix == ".bin":
        content = read_archive(file)
    else:
        safetensors = require("safetensors.torch", extra="train")
        try:
            content = safetensors.load_file(file)
        except Exception as error:  # the library's own class, of no public base
            raise InputError(f"{file}", got=str(error), expected="safetensors", hint="copy it again") from error
    state = checked_state(content, source=str(file))
    try:
        return hf_to_openai(state), config
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def shape_of(
    state: Mapping[str, torch.Tensor], *, config: Mapping[str, Any] | None = None, source: str = "the weights"
) -> ClipShape:
    """Sizes of both towers, from their weights; where weights are missing those of ViT-B/32 are taken.

    Args:
        state: OpenAI's or CLIP_nodule's names, attentions packed.
        config: Of a Hugging Face folder: number of heads and the end token.
        source: File that a message names.

    Returns:
        The sizes; :func:`spicula.networks.clip_names.load_strictly` then tells what does not fit.

    Raises:
        InputError: Sizes make no towers.
    """
    config = config or {}
    tower = "vision_model" if any(name.startswith("vision_model.") for name in state) else "visual"

    def size(name: str, axis: int, default: int) -> int:
        value = state.get(name)
        return int(value.shape[axis]) if value is not None and value.ndim > axis else default

    width = size(f"{tower}.conv1.weight", 0, 768)
    patch = size(f"{tower}.conv1.weight", 3, 32)
    tokens = size(f"{tower}.positional_embedding", 0, 50) - 1
    side = round(max(tokens, 0) ** 0.5)
    if side * side != tokens or side < 1:
        raise InputError(
            f"{source}: {tower}.positional_embedding", got=f"{tokens + 1} places", expected="a square and one"
        )
    words, vocabulary = size("token_embedding.weight", 1, 512), size("token_embedding.weight", 0, 49408)
    end = _setting(config, "text_config", "eos_token_id", vocabulary - 1)
    vision = {
        "image_size": side * patch, "patch_size": patch, "width": width, "output_dim": size(f"{tower}.proj", 1, 512),
        "layers": _setting(config, "vision_config", "num_hidden_layers",
                           _blocks(state, f"{tower}.", _LAYERS["vision"].get(width))),
        "heads": _setting(config, "vision_config", "num_attention_heads", max(1, width // _HEAD)),
    }  # fmt: skip
    text = {
        "vocabulary": vocabulary, "context": size("positional_embedding", 0, 77), "width": words,
        "output_dim": size("text_projection", 1, 512),
        "layers": _setting(config, "text_config", "num_hidden_layers",
                           _blocks(state, "", _LAYERS["text"].get(words))),
        "heads": _setting(config, "text_config", "num_attention_heads", max(1, words // _HEAD)),
        "end_token": vocabulary - 1 if end == 2 else end,  # 2 stands for the highest id in older folders
    }  # fmt: skip
    for name, part in (("image", vision), ("text", text)):
        if part["heads"] < 1 or part["width"] % part["heads"]:
            raise InputError(
                f"{source}: the {name} tower", got=f"{part['heads']} heads of {part['width']} features",
                expected="heads that divide the features",
            )  # fmt: skip
    return ClipShape(vision, text)


def _setting(config: Mapping[str, Any], tower: str, name: str, default: int) -> int:
    value = config.get(tower, {}).get(name, default)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _blocks(state: Mapping[str, torch.Tensor], prefix: str, published: int | None) -> int:
    """How many blocks a tower has: as published for its width, else as many as there are."""
    pattern = re.compile(rf"{re.escape(prefix)}transformer\.resblocks\.(\d+)\.")
    numbers = {int(found[1]) for found in map(pattern.match, state) if found}
    return published or max(numbers, default=11) + 1


def tensors_of(network: Clip | torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights by their published names, ready to be stored: contiguous, on the CPU, none shared."""
    for name, value in network.state_dict().items():
        yield name, value.detach().cpu().clone().contiguous()
