"""The cards of bundles made of published CLIP weights: where they came from, their licence, their limits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spicula.core.bundle import sha256_of
from spicula.pipelines.clip_nodule_folder import Experiment

OPENAI_SHA256 = {"40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "ViT-B/32"}
"""Files that OpenAI published, by the hash in their address."""

_UNKNOWN = "not stated: ask those who gave you the weights before you pass them on"
_LIMITS = ["Not a medical device.", "Imported weights: Spicula did not train them and has not evaluated them."]


def of_clip_nodule(experiment: Experiment, *, base: Path | None, compat: str, licence: str | None) -> dict[str, Any]:
    """Card of an experiment folder of CLIP_nodule.

    Args:
        experiment: The folder.
        base: CLIP's weights that were given.
        compat: ``"once"`` or ``"paper"``.
        licence: Of the weights.

    Returns:
        The card.
    """
    files = [experiment.folder / "args.txt", *experiment.checkpoints.values()]
    files += [path.parent / f"cal_{fold}.json" for fold, path in experiment.checkpoints.items()]
    limits = [*_LIMITS, "Of the authors' patients, which ones were in a fold's training is not known here."]
    if compat == "paper":
        limits.append("Adapters are in fold 0 twice, as the authors' evaluation runs it; elsewhere once.")
    source = {
        "name": "CLIP_nodule, an experiment folder",
        "folder": experiment.folder.resolve().name,
        "files": _hashes(files, experiment.folder),
        "arguments": {k: v for k, v in experiment.arguments.items() if _tells_no_path(v)},
        "paper": "arXiv 2504.21344",
    }
    if base is not None:
        source["base"] = _hashes([base], base.parent) if base.is_file() else base.resolve().name
    unknown = f"{_UNKNOWN}; the authors' code is AGPL-3.0, CLIP's own weights MIT"
    return {
        "data": [source], "licence": licence or unknown,
        "metrics": {"what": "none measured here; the paper reports AUROC 0.901 on its NLST test set"},
        "intended_use": "Research: comparison with the published biomarker.", "limits": limits,
    }  # fmt: skip


def of_openai(file: Path, *, licence: str | None) -> dict[str, Any]:
    """Card of a file of OpenAI's CLIP.

    Args:
        file: The file.
        licence: Of the weights.

    Returns:
        The card.
    """
    digest = sha256_of(file)
    known = OPENAI_SHA256.get(digest)
    source = {"name": f"OpenAI CLIP {known}" if known else "CLIP weights", "files": {file.name: digest}}
    source["told_by"] = "the published hash" if known else "the user: the hash is not one that OpenAI published"
    return _towers(source, licence or ("MIT" if known else _UNKNOWN))


def of_hf(folder: Path, *, licence: str | None) -> dict[str, Any]:
    """Card of a Hugging Face folder.

    Args:
        folder: The folder; the head of its ``README.md`` may state a licence.
        licence: Of the weights.

    Returns:
        The card.
    """
    names = ("config.json", "model.safetensors", "pytorch_model.bin", "merges.txt")
    files = _hashes((folder / name for name in names), folder)
    source = {"name": "CLIPModel of a Hugging Face folder", "folder": folder.resolve().name, "files": files}
    return _towers(source, licence or _stated_licence(folder / "README.md") or _UNKNOWN)


def _towers(source: dict[str, Any], licence: str) -> dict[str, Any]:
    return {
        "data": [{**source, "paper": "arXiv 2103.00020"}], "licence": licence,
        "metrics": {"what": "none measured here"},
        "intended_use": "Research: to begin a training with, and to tell merged adapters from others.",
        "limits": [*_LIMITS, "Trained on pictures of the web, not on CT: it knows nothing of nodules."],
    }  # fmt: skip


def _hashes(files: Iterable[Path], root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): sha256_of(path) for path in files if path.is_file()}


def _tells_no_path(value: Any) -> bool:
    """Whether an argument can be told to others: folders of another machine cannot."""
    if isinstance(value, str):
        return "/" not in value and "\\" not in value
    return value is None or isinstance(value, bool | int | float)


def _stated_licence(readme: Path) -> str | None:
    try:
        text = readme.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    head = re.match(r"---\n(.*?)\n---", text, flags=re.DOTALL)
    found = re.search(r"^license:\s*(\S.*)$", head[1], flags=re.MULTILINE) if head else None
    return f"{found[1].strip()}, as its README says" if found else None
