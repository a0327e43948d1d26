"""Which words an image is most like, without having been trained for them: cosines of embeddings, and their softmax.

References:
    arXiv 2504.21344, section 3.4. Departure: a class may have several sentences, whose unit embeddings are averaged;
    the similarities are divided by the learned temperature before the softmax, as in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.errors import InputError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ZeroShot:
    """What the words of one question come to for some images.

    Args:
        classes: ``[k]`` in the order of the columns.
        similarity: float64 ``[n, k]`` cosines of image and mean text, -1 to 1.
        probability: float64 ``[n, k]``, each row adds up to 1.
    """

    classes: tuple[str, ...]
    similarity: FloatArray
    probability: FloatArray

    @property
    def best(self) -> tuple[str, ...]:
        """``[n]`` the likeliest class of each image; the first of equals."""
        return tuple(self.classes[int(index)] for index in self.probability.argmax(axis=1))

    def of(self, name: str) -> FloatArray:
        """``[n]`` probabilities of one class.

        Raises:
            InputError: There is no such class.
        """
        if name not in self.classes:
            raise InputError("class", got=repr(name), expected=f"one of {', '.join(self.classes)}")
        return self.probability[:, self.classes.index(name)]


def zero_shot(image_embedding: ArrayLike, text_embeddings: Mapping[str, ArrayLike], *, temperature: float) -> ZeroShot:
    """Compare images with the words of each class.

    Args:
        image_embedding: ``[d]`` or ``[n, d]``; need not be of unit length.
        text_embeddings: Class to ``[t, d]`` or ``[d]`` embeddings of its sentences; need not be of unit length.
        temperature: What cosines are divided by, the inverse of the learned scale ``exp(logit_scale)``.

    Returns:
        Similarities and probabilities; one row for ``[d]``.

    Raises:
        InputError: Fewer than two classes, other shapes, an embedding that is not finite or of length zero, sentences
            that cancel out, or a temperature that is not above 0.

    Example:
        >>> found = zero_shot([1.0, 0.2], {"Solid": [[2.0, 0.0]], "Part-solid": [[0.0, 1.0]]}, temperature=0.1)
        >>> found.best, found.of("Solid").round(4).tolist()
        (('Solid',), [0.9996])
    """
    if len(text_embeddings) < 2:
        raise InputError("classes to compare", got=len(text_embeddings), expected="two or more")
    if not (np.isfinite(temperature) and temperature > 0):
        raise InputError("temperature", got=temperature, expected="a number above 0")
    images = _unit(image_embedding, "image embedding")
    means = np.concatenate([class_embedding(rows, name=name)[None] for name, rows in text_embeddings.items()])
    if means.shape[1] != images.shape[1]:
        raise InputError("text embeddings", got=f"length {means.shape[1]}", expected=f"{images.shape[1]} as the image")
    similarity = np.clip(images @ means.T, -1.0, 1.0)
    return ZeroShot(tuple(text_embeddings), similarity, _softmax(similarity / temperature))


def class_embedding(text_embeddings: ArrayLike, *, name: str = "class") -> FloatArray:
    """The unit vector ``[d]`` of a class: the mean of its sentences' unit vectors, made a unit vector again.

    Args:
        text_embeddings: ``[t, d]`` or ``[d]``.
        name: For messages.

    Raises:
        InputError: As for :func:`zero_shot`.
    """
    mean = _unit(text_embeddings, f"text embeddings of {name}").mean(axis=0)
    length = float(np.linalg.norm(mean))
    if length < 1e-9:
        raise InputError(f"text embeddings of {name}", got="vectors that cancel out", expected="sentences of one class")
    unit: FloatArray = mean / length
    return unit


def mean_zero_shot(parts: Sequence[ZeroShot]) -> ZeroShot:
    """The mean over the members of an ensemble, each with its own embeddings and temperature.

    Raises:
        InputError: None, or members that were asked different things.
    """
    if not parts:
        raise InputError("members of the ensemble", got="none", expected="one or more")
    asked = {(part.classes, part.probability.shape) for part in parts}
    if len(asked) > 1:
        raise InputError("members of the ensemble", got=f"{len(asked)} different questions or numbers of images")
    return ZeroShot(
        parts[0].classes,
        np.mean([part.similarity for part in parts], axis=0),
        np.mean([part.probability for part in parts], axis=0),
    )


def _unit(rows: ArrayLike, what: str) -> FloatArray:
    array = np.atleast_2d(np.asarray(rows, dtype=np.float64))
    if array.ndim != 2 or array.size == 0:
        raise InputError(what, got=f"shape {np.shape(rows)}", expected="[d] or [n, d]")
    length = np.linalg.norm(array, axis=1, keepdims=True)
    if not np.isfinite(length).all() or not (length > 0).all():
        raise InputError(what, got="a vector of length zero or that is not finite", expected="finite vectors")
    unit: FloatArray = array / length
    return unit


def _softmax(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return shares
