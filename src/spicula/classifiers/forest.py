"""A random forest as plain arrays: taught by scikit-learn, used without it; no pickle."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicula.core.errors import BundleError, InputError

LEAF = -1
"""Stands for the feature of a leaf and for its children."""

_KINDS = {"feature": "iu", "threshold": "f", "left": "iu", "right": "iu", "probability": "f", "starts": "iu"}
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Trees that say how likely a row is of the second of two classes, one after the other in shared arrays.

    A node sends a row to the left where ``float32(row[feature]) <= threshold``, as scikit-learn does. Children come
    after their parent, in the same tree.

    Args:
        feature: int ``[nodes]``; :data:`LEAF` for a leaf.
        threshold: float64 ``[nodes]``.
        left: int ``[nodes]``, index of a node; :data:`LEAF` for a leaf.
        right: int ``[nodes]``, alike.
        probability: float64 ``[nodes]``, 0 to 1; used of leaves.
        starts: int ``[trees]``, index of each tree's first node.
        width: Features of a row.

    Raises:
        BundleError: The arrays make no forest.
    """

    feature: NDArray[np.intp]
    threshold: NDArray[np.float64]
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    probability: NDArray[np.float64]
    starts: NDArray[np.intp]
    width: int

    def __post_init__(self) -> None:
        fault = _fault(self)
        if fault:
            raise BundleError("forest", got=fault, expected="whole trees", hint="install the bundle again")

    def __call__(self, rows: ArrayLike) -> NDArray[np.float64]:
        """Probabilities ``[n]`` of rows ``[n, width]``: the mean over the trees.

        Raises:
            InputError: The rows are of another width, or hold something that is no number.
        """
        x = np.asarray(rows, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != self.width:
            raise InputError("features", got=x.shape, expected=f"[n, {self.width}]")
        if not np.isfinite(x).all():
            raise InputError("features", got="values that are not finite", expected="numbers")
        parts = [self._of(x[at : at + _ROWS_AT_ONCE]) for at in range(0, len(x), _ROWS_AT_ONCE)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _of(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """All rows step down all trees together; a row that has reached a leaf stays."""
        leaf = self.feature == LEAF
        itself = np.arange(len(self.feature))
        left, right = np.where(leaf, itself, self.left), np.where(leaf, itself, self.right)
        feature = np.where(leaf, 0, self.feature)
        row = np.arange(len(x))[:, None]
        at = np.broadcast_to(self.starts, (len(x), len(self.starts)))
        while not leaf[at].all():
            at = np.where(x[row, feature[at]] <= self.threshold[at], left[at], right[at])
        return np.asarray(self.probability[at].mean(axis=1))

    def to_bytes(self) -> bytes:
        """A compressed ``.npz`` file."""
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            feature=self.feature.astype(np.int32), threshold=self.threshold, left=self.left.astype(np.int32),
            right=self.right.astype(np.int32), probability=self.probability, starts=self.starts.astype(np.int32),
            width=np.int32(self.width),
        )  # fmt: skip
        return stream.getvalue()


def forest_of_bytes(content: bytes) -> Forest:
    """Read what :meth:`Forest.to_bytes` wrote.

    Raises:
        BundleError: The content is damaged or makes no forest.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: np.asarray(stored[name]) for name in (*_KINDS, "width")}
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(
            "forest", got=f"a damaged file ({error})", expected=f"arrays {', '.join(_KINDS)}, width",
            hint="install the bundle again",
        ) from error  # fmt: skip
    odd = [name for name, kinds in _KINDS.items() if arrays[name].dtype.kind not in kinds]
    if odd or arrays["width"].shape != () or arrays["width"].dtype.kind not in "iu":
        raise BundleError(
            "forest", got=f"{(odd or ['width'])[0]} of an odd kind", expected="numbers", hint="install the bundle again"
        )
    width = int(arrays.pop("width"))
    whole: dict[str, Any] = {n: a.astype(np.float64 if _KINDS[n] == "f" else np.intp) for n, a in arrays.items()}
    return Forest(**whole, width=width)


def forest_of_sklearn(model: Any) -> Forest:
    """Take over a fitted ``RandomForestClassifier`` or ``ExtraTreesClassifier`` of two classes.

    Args:
        model: The second of its classes is what the forest tells.

    Raises:
        InputError: It is not fitted, or has another number of classes or outputs.
    """
    trees = [one.tree_ for one in getattr(model, "estimators_", ())]
    classes = getattr(model, "classes_", ())
    if not trees or np.shape(classes) != (2,):
        got = f"{len(trees)} trees, classes {np.asarray(classes).tolist()}"
        raise InputError("forest", got=got, expected="a fitted forest of two classes")
    starts = np.cumsum([0, *(tree.node_count for tree in trees)], dtype=np.intp)
    leaf = np.concatenate([tree.children_left for tree in trees]) < 0
    value = np.concatenate([tree.value[:, 0] for tree in trees])

    def children(name: str) -> NDArray[np.intp]:
        own = [getattr(tree, name) + start for tree, start in zip(trees, starts[:-1], strict=True)]
        return np.where(leaf, LEAF, np.concatenate(own))

    return Forest(
        np.where(leaf, LEAF, np.concatenate([tree.feature for tree in trees])),
        np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in trees])),
        children("children_left"),
        children("children_right"),
        np.asarray(value[:, 1] / value.sum(axis=1), dtype=np.float64),
        starts[:-1],
        int(model.n_features_in_),
    )


def _fault(forest: Forest) -> str:
    """What is wrong with the arrays of a forest; empty where nothing is."""
    arrays = {name: getattr(forest, name) for name in _KINDS}
    nodes, starts = len(forest.feature), forest.starts
    if any(array.ndim != 1 for array in arrays.values()):
        return "arrays that are no rows"
    if nodes == 0 or any(len(array) != nodes for name, array in arrays.items() if name != "starts"):
        return f"{', '.join(f'{name} {len(array)}' for name, array in arrays.items())} long"
    if len(starts) == 0 or starts[0] != 0 or (np.diff(starts) <= 0).any() or starts[-1] >= nodes:
        return "trees that do not follow each other"
    leaf = forest.feature == LEAF
    if ((forest.left == LEAF) != leaf).any() or ((forest.right == LEAF) != leaf).any():
        return "a node with one child"
    if (forest.feature[~leaf] < 0).any() or (forest.feature >= forest.width).any():
        return f"a feature outside 0 to {forest.width - 1}"
    tree = np.repeat(np.arange(len(starts)), np.diff([*starts, nodes]))
    parent = np.flatnonzero(~leaf)
    for child in (forest.left[parent], forest.right[parent]):
        if (child <= parent).any() or (child >= nodes).any() or (tree[child] != tree[parent]).any():
            return "a child that is not after its parent in the same tree"
    if not np.isfinite(forest.threshold).all():
        return "a threshold that is no number"
    if not ((forest.probability >= 0) & (forest.probability <= 1)).all():
        return "a probability outside 0 to 1"
    return ""
