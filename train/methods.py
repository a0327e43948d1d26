"""What is pretrained: transformers for ``spicula train ssm`` (DINOv2) or encoders for ``spicula train retrieval``.

Both tell alike which pretrainings there are, what each learns from and how, where a run keeps it, and what the run's
``run.json`` says. The environment gives the arguments, as ``on_device.sh`` exports them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

Report = Callable[[str], None]


class Method(Protocol):
    """What :mod:`pretrain_folds` asks of a method; a ``name`` is one of ``names``."""

    task: ClassVar[str]
    """Which run the pretrainings belong to."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the pretrainings."""

    @property
    def epochs(self) -> int:
        """Of each pretraining."""

    def lasting(self, epochs: int) -> Method:
        """The same with other epochs."""

    def fold_of(self, name: str) -> str:
        """Which patients a pretraining leaves out."""

    def rows(self, table: Any, held_out: Any) -> Any:
        """Rows of a table that one learns from which leaves out some patients."""

    def folder(self, run: Path, name: str) -> Path:
        """Where a run keeps a pretraining."""

    def kept(self, name: str) -> str:
        """How the names of those weights begin in a checkpoint that a run would keep at the end."""

    def arguments(self, folds: int) -> dict[str, Any]:
        """Of the run."""

    def training(self, table: Any, name: str) -> Any:
        """A pretraining at its first step, on all rows."""

    def pretrain(self, table: Any, rows: Any, run: Path, name: str, *, data: Path | None, report: Report) -> None:
        """Run one to its end; ``data`` has the labels that watch, if there are any."""


def given() -> Method:
    """What the environment asks for."""
    method = os.environ.get("METHOD") or Dinov2.method
    if method == Dinov2.method:
        return Dinov2.given()
    if method in Regions.first:
        return Regions.given(method)
    sys.exit(f"error: METHOD: got {method}, expected {', '.join((Dinov2.method, *Regions.first))}")


def _folds() -> tuple[str, ...]:
    return tuple(os.environ.get("FOLDS", "0 1 2 3 4 all").split())


def _probe_every(epochs: int) -> int:
    """Epochs after which features are judged: ten, or so many that they are judged ten times."""
    return max(10, epochs // 10)


def _number(name: str) -> int | None:
    return int(os.environ[name]) if os.environ.get(name) else None


@dataclass(frozen=True, slots=True)
class Dinov2:
    """Transformers for ``spicula train ssm``, one for each fold.

    Args:
        arch: Name of the transformer.
        epochs: Of each pretraining.
        names: Folds.
        small: Tiny, to see that it runs.
    """

    arch: str
    epochs: int
    names: tuple[str, ...]
    small: bool

    method: ClassVar[str] = "dinov2"
    task: ClassVar[str] = "train ssm"

    @classmethod
    def given(cls) -> Dinov2:
        """As the environment says."""
        small = bool(os.environ.get("SMALL"))
        epochs = 1 if small else _number("EPOCHS") or 60
        return cls(os.environ.get("ARCH") or "vit-mini", epochs, _folds(), small)

    def lasting(self, epochs: int) -> Dinov2:
        """See :class:`Method`."""
        return replace(self, epochs=epochs)

    def fold_of(self, name: str) -> str:
        """See :class:`Method`."""
        return name

    def rows(self, table: Any, held_out: Any) -> Any:
        """See :class:`Method`."""
        import numpy as np

        return np.flatnonzero(~np.isin(table.patients, held_out))

    def folder(self, run: Path, name: str) -> Path:
        """See :class:`Method`."""
        return run / "backbones" / name

    def kept(self, name: str) -> str:
        """See :class:`Method`."""
        return "average.backbone."

    def shape(self) -> Any:
        """Of the transformer."""
        from spicula.networks.vit import SHAPES, VitShape

        return VitShape(32, 1, 2, image=70, layer_scale=1.0) if self.small else SHAPES[self.arch]

    def recipe(self) -> Any:
        """Of a pretraining, that of ``spicula train ssm``."""
        from spicula.pretraining.dinov2 import compact_recipe

        recipe = compact_recipe(epochs=self.epochs)
        return replace(recipe, batch=8) if self.small else recipe

    def arguments(self, folds: int) -> dict[str, Any]:
        """See :class:`Method`."""
        from spicula.pipelines.run_folder import as_json

        recipe = as_json(asdict(self.recipe()))
        return {"shape": asdict(self.shape()), "recipe": recipe, "folds": folds, "limit": None}

    def training(self, table: Any, name: str) -> Any:
        """See :class:`Method`."""
        import numpy as np

        from spicula.pipelines.pretrain_dinov2 import _Training

        recipe = replace(self.recipe(), steps_per_epoch=1000)
        return _Training(table, np.arange(len(table.patients)), self.shape(), recipe, None, 1)

    def pretrain(self, table: Any, rows: Any, run: Path, name: str, *, data: Path | None, report: Report) -> None:
        """See :class:`Method`."""
        from spicula.pipelines.pretrain_dinov2 import nearest_neighbors_probe, pretrain_dinov2

        probe = None if data is None else nearest_neighbors_probe(table, data, rows)
        pretrain_dinov2(
            table, rows, self.folder(run, name), shape=self.shape(), recipe=self.recipe(), probe=probe,
            probe_every=_probe_every(self.epochs), report=report,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Regions:
    """Encoders for ``spicula train retrieval``: ``ARM FOLD`` of some arms, from slices that are as in use already.

    Args:
        recipe: A :class:`spicula.pipelines.search_arms.SearchRecipe`.
        names: Arm and fold of each.
        small: Tiny, to see that it runs.
    """

    recipe: Any
    names: tuple[str, ...]
    small: bool

    first: ClassVar[dict[str, str]] = {"simclr": "simclr + frangi + gem", "vae": "vae"}
    """The arm that is pretrained where none is named, by method."""
    task: ClassVar[str] = "train retrieval"

    @classmethod
    def given(cls, method: str) -> Regions:
        """As the environment says."""
        from spicula.pipelines.search_arms import ARMS, MAIN, recipe_of
        from spicula.pipelines.train_retrieval import ALL

        small = bool(os.environ.get("SMALL"))
        arms = [arm.strip() for arm in (os.environ.get("ARMS") or cls.first[method]).split(";") if arm.strip()]
        unknown = [arm for arm in arms if arm not in ARMS]
        if unknown:
            sys.exit(f"error: ARMS: got {unknown[0]}, expected some of {'; '.join(ARMS)}")
        names = tuple(f"{arm} {fold}" for arm in arms for fold in _folds() if arm == MAIN or fold != ALL)
        if not names:
            sys.exit(f"error: FOLDS: got {ALL} alone, expected a number. Hint: only {MAIN} learns from all patients")
        width, epochs = _number("WIDTH") or (4 if small else None), 1 if small else _number("EPOCHS")
        return cls(recipe_of(published=bool(os.environ.get("PUBLISHED")), width=width, epochs=epochs), names, small)

    @property
    def epochs(self) -> int:
        """See :class:`Method`."""
        return int(self.recipe.epochs)

    def lasting(self, epochs: int) -> Regions:
        """See :class:`Method`."""
        return replace(self, recipe=replace(self.recipe, epochs=epochs))

    def arm_of(self, name: str) -> Any:
        """The :class:`spicula.pipelines.search_arms.Arm` of a pretraining."""
        from spicula.pipelines.search_arms import ARMS

        return ARMS[name.rpartition(" ")[0]]

    def fold_of(self, name: str) -> str:
        """See :class:`Method`."""
        return name.rpartition(" ")[2]

    def rows(self, table: Any, held_out: Any) -> Any:
        """See :class:`Method`."""
        import numpy as np

        return np.flatnonzero(table.marked & ~np.isin(table.patients, held_out))

    def folder(self, run: Path, name: str) -> Path:
        """See :class:`Method`."""
        from spicula.pipelines.train_retrieval import encoder_folder

        return encoder_folder(run, name.rpartition(" ")[0], self.fold_of(name))

    def kept(self, name: str) -> str:
        """See :class:`Method`."""
        return {"simclr": "network.encoder.", "vae": "network.network."}[self.arm_of(name).method]

    def parts(self, name: str) -> dict[str, Any]:
        """Method, shape and recipe of a pretraining, those of ``spicula train retrieval``."""
        from spicula.pipelines.search_arms import pretraining_of, shape_of

        arm = self.arm_of(name)
        recipe = pretraining_of(arm, self.recipe)
        recipe = replace(recipe, batch=8) if self.small else recipe
        return {"method": arm.method, "shape": shape_of(arm, self.recipe), "recipe": recipe}

    def arguments(self, folds: int) -> dict[str, Any]:
        """See :class:`Method`."""
        from spicula.pipelines.train_retrieval import arguments_of

        return arguments_of(self.recipe, folds=folds)

    def training(self, table: Any, name: str) -> Any:
        """See :class:`Method`."""
        import numpy as np

        from spicula.pipelines.pretrain_regions import _Training

        return _Training(table, np.arange(len(table.patients)), threads=1, **self.parts(name))

    def pretrain(self, table: Any, rows: Any, run: Path, name: str, *, data: Path | None, report: Report) -> None:
        """See :class:`Method`."""
        from spicula.pipelines.pretrain_dinov2 import nearest_neighbors_probe
        from spicula.pipelines.pretrain_regions import pretrain_regions
        from spicula.pipelines.search_nodules import features_of_regions

        parts = self.parts(name)

        def features(encoder: Any, some: Any) -> Any:
            return features_of_regions(encoder, table.hu[some], middle=parts["recipe"].views.middle)

        probe = None if data is None else nearest_neighbors_probe(table, data, rows, features=features)
        pretrain_regions(
            table, rows, self.folder(run, name), **parts, probe=probe, probe_every=_probe_every(self.epochs),
            report=report,
        )  # fmt: skip
