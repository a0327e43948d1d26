"""Malignancy of a nodule from its image, and where the image lies among words; no torch.

An ensemble of networks that were trained to align images of nodules with what readers said of them. Each member is a
pair of towers: the image side takes nine planes of the outlined nodule, the text side any words. A kernel machine on
numbers measured in axial planes joins the members of its fold in the malignancy, where the bundle has one.

References:
    Zhuang et al. 2025, arXiv 2504.21344, sections 3.3 (the pair) and 3.3.2 (calibrated folds, their mean).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from spicula.classifiers.risk import (
    KERNEL_FILE,
    Kernel,
    interval_of,
    load_kernel,
    outline_or_ball,
    score_to_logit,
    sigmoid,
)
from spicula.core.bundle import Bundle
from spicula.core.errors import BundleError
from spicula.core.prediction import Prediction
from spicula.core.volume import Mask, Volume
from spicula.measure.radiomics import describe, feature_vector
from spicula.metrics.calibration import BetaCalibration
from spicula.networks.clip_tokens import WordTokenizer, load_tokenizer
from spicula.runtime.openvino import Network, load_network
from spicula.transforms.nine_planes import plane_points, sample_points
from spicula.transforms.outlined_cube import MIRRORS_ZYX, PIXEL_MM, PIXELS, SIDE, SPACING_MM, outlined_cube
from spicula.transforms.planes import BACKGROUND_HU

TASK, KIND = "semantic", "outlined_clip"
"""Of a bundle of ours; imported ones are of another kind."""

IMAGE_FILE, TEXT_FILE, TOKENIZER_FILE, CALIBRATION_FILE, SENTENCES_FILE = (
    "image.onnx",
    "text.onnx",
    "tokenizer.json",
    "calibration.json",
    "sentences.npz",
)
PLANES = 9

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SemanticModel:
    """A loaded bundle.

    Args:
        fingerprint: Identity of the bundle.
        image: The image sides of all members, ``[n, 9, 3, rows, columns]`` (HU, outline, measures) to
            ``[n, members, width + 2 + 9 + traits]``.
        text: Gives the text sides, ids ``[n, context]`` to ``[n, members, width]``; compiled when first asked.
        sentences: Embeddings ``[members, width]`` of sentences that are always asked, so that they need no text side.
        tokenizer: Of the text sides.
        folds: ``[members]`` the fold that each member has not learned from.
        temperatures: ``[members]`` what cosines are divided by.
        width: Length of an embedding.
        measures: Names of the numbers that join the planes.
        traits: Names of the supervised logits.
        kernel: The kernel machine, a member a fold; None for none.
        kernel_weight: Of the kernel's logit, the network's has the rest.
        calibrations: By fold, the map that is used and then its bootstrap replicates.
    """

    fingerprint: str
    image: Network
    text: Callable[[], Network]
    sentences: Mapping[str, Array]
    tokenizer: WordTokenizer
    folds: tuple[int, ...]
    temperatures: tuple[float, ...]
    width: int
    measures: tuple[str, ...]
    traits: tuple[str, ...]
    kernel: Kernel | None
    kernel_weight: float
    calibrations: tuple[tuple[BetaCalibration, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What the members say of one nodule, the mean over its mirror images.

    Args:
        embedding: float64 ``[members, width]``, of length 1.
        logit: float64 ``[members]`` of malignancy.
        attention: float64 ``[members, 9]`` weights of the planes, in the order of
            :data:`spicula.transforms.nine_planes.NAMES`; each row adds up to 1.
        traits: By name, float64 ``[members]`` logits.
        numbers: By name, what was measured in the outline.
    """

    embedding: Array
    logit: Array
    attention: Array
    traits: Mapping[str, Array]
    numbers: Mapping[str, float]


def load_semantic(bundle: Bundle, *, threads: int | None = None) -> SemanticModel:
    """Load a bundle.

    Args:
        bundle: Of task ``"semantic"`` and our own kind.
        threads: Of inference; OpenVINO chooses if None.

    Raises:
        BundleError: It is damaged or was made for another task.
    """
    outputs = bundle.manifest["outputs"]
    kind = outputs.get("kind") if isinstance(outputs, Mapping) else None
    if bundle.task != TASK or kind != KIND:
        raise BundleError(
            f"bundle {bundle.name}: task and kind", got=f"{bundle.task}, {kind}", expected=f"{TASK}, {KIND}",
            hint="imported CLIP weights serve spicula score --compat",
        )  # fmt: skip
    record = bundle.read_json(CALIBRATION_FILE)
    kernel = None
    if KERNEL_FILE in bundle.manifest["files"]:
        kernel = load_kernel(bundle, record["kernel"]["features"], gamma=float(record["kernel"]["gamma"]))
    return SemanticModel(
        fingerprint=bundle.fingerprint,
        image=load_network(bundle, IMAGE_FILE, threads=threads),
        text=partial(load_network, bundle, TEXT_FILE, threads=threads),
        sentences=_load_sentences(bundle),
        tokenizer=load_tokenizer(bundle.file(TOKENIZER_FILE)),
        folds=tuple(map(int, record["folds"])),
        temperatures=tuple(map(float, record["temperatures"])),
        width=int(outputs["embedding"]),
        measures=tuple(record["measures"]),
        traits=tuple(outputs["traits"]),
        kernel=kernel,
        kernel_weight=float(record["kernel"]["weight"]) if kernel else 0.0,
        calibrations=tuple(tuple(BetaCalibration(*map(float, row)) for row in rows) for rows in record["calibrations"]),
    )


def _load_sentences(bundle: Bundle) -> Mapping[str, Array]:
    if SENTENCES_FILE not in bundle.manifest["files"]:
        return MappingProxyType({})
    with np.load(io.BytesIO(bundle.file(SENTENCES_FILE).read_bytes()), allow_pickle=False) as stored:
        embeddings = stored["embeddings"].astype(np.float64)
        return MappingProxyType(dict(zip(stored["sentences"].tolist(), embeddings.swapaxes(0, 1), strict=True)))


def see(
    volume: Volume,
    center_xyz_mm: Sequence[float],
    mask: Mask | None,
    *,
    model: SemanticModel,
    numbers: Mapping[str, float] | None = None,
) -> Seen:
    """Look at one nodule.

    Args:
        volume: A scan, or a small volume around the nodule, in HU.
        center_xyz_mm: Its center, LPS mm; only used where there is no outline.
        mask: Its automatic outline; None where it has none.
        model: From :func:`load_semantic`.
        numbers: What :func:`spicula.measure.radiomics.describe` says of it, where that is known; else it is measured.
    """
    outline = outline_or_ball(center_xyz_mm, mask)
    numbers = describe(volume, outline) if numbers is None else numbers
    planes = with_measures(mirrored_planes(outlined_cube(volume, outline)), feature_vector(numbers, model.measures))
    said = model.image(planes)[0].astype(np.float64).mean(axis=0)
    ends = np.cumsum([model.width, 2, PLANES])
    embedding, logits, attention, traits = np.split(said, ends, axis=1)
    embedding = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    by_name = MappingProxyType(dict(zip(model.traits, traits.T, strict=True)))
    return Seen(embedding, logits[:, 1] - logits[:, 0], attention, by_name, MappingProxyType(numbers))


def mirrored_planes(cube: NDArray[np.float32]) -> NDArray[np.float32]:
    """Nine planes through the middle of a cube and of its mirror images.

    Args:
        cube: ``[2, side, side, side]`` HU and outline, as :func:`spicula.transforms.outlined_cube.outlined_cube` gives.

    Returns:
        float32 ``[2, 9, 2, 48, 48]`` in the order of :data:`spicula.transforms.outlined_cube.MIRRORS_ZYX`.
    """
    points = _mirrored_points()
    parts = [
        sample_points(channel, points, order=1, outside=outside)
        for channel, outside in zip(cube, (BACKGROUND_HU, 0.0), strict=True)
    ]
    return np.stack(parts, axis=2)


@lru_cache(maxsize=1)
def _mirrored_points() -> Array:
    points = plane_points(side=SIDE, pixels=PIXELS, pixel=PIXEL_MM / SPACING_MM)
    mirrored = [np.where(flips, SIDE - 1 - points, points) for flips in MIRRORS_ZYX]
    return np.stack(mirrored)


def with_measures(planes: NDArray[np.float32], measures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Planes ``[n, 9, 2, rows, columns]`` with a channel more, whose first values are the measures ``[f]``."""
    n, _, _, rows, columns = planes.shape
    channel = np.zeros((n, PLANES, 1, rows * columns), dtype=np.float32)
    channel[..., : len(measures)] = measures
    return np.concatenate([planes, channel.reshape(n, PLANES, 1, rows, columns)], axis=2)


def read(texts: Sequence[str], *, model: SemanticModel) -> Array:
    """Embeddings of texts by every member, ``[members, n, width]``, of length 1.

    Args:
        texts: Sentences, cleaned as :func:`spicula.explain.report_text.plain_text` does.
        model: From :func:`load_semantic`.

    Raises:
        InputError: A text is empty.
    """
    if all(text in model.sentences for text in texts):
        return np.stack([model.sentences[text] for text in texts], axis=1)
    ids = model.tokenizer.encode(texts).ids
    return np.asarray(model.text()(ids.astype(np.float32))[0].astype(np.float64).swapaxes(0, 1))


def malignancy(seen: Seen, *, model: SemanticModel, finding_id: str) -> Prediction:
    """How likely readers would call the nodule malignant: the mean of the folds' calibrated probabilities.

    Args:
        seen: From :func:`see`.
        model: The same model.
        finding_id: Which finding.

    Returns:
        With a 90 % interval: the 5th to the 95th percentile over the folds, each calibrated by every bootstrap
        replicate of its calibration, widened to hold the probability itself.
    """
    raw = sigmoid(fold_logits(seen, model=model))
    probability = float(np.mean([maps[0](p) for maps, p in zip(model.calibrations, raw, strict=True)]))
    spread = np.concatenate([[one(p) for one in maps] for maps, p in zip(model.calibrations, raw, strict=True)])
    return Prediction(finding_id, "malignancy", probability, interval_of(spread, probability), model.fingerprint)


def fold_logits(seen: Seen, *, model: SemanticModel) -> Array:
    """Logits of malignancy of each fold, before its calibration: its networks' mean, joined by its kernel machine."""
    folds = np.asarray(model.folds)
    network = np.array([seen.logit[folds == fold].mean() for fold in np.unique(folds)])
    if model.kernel is None:
        return network
    row = feature_vector(seen.numbers, model.kernel.features)[None].astype(np.float64)
    kernel = score_to_logit(model.kernel(row)[0][:, 0])
    return np.asarray(model.kernel_weight * kernel + (1.0 - model.kernel_weight) * network)
