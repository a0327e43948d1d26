"""Lesions whose types are known, and encoders that have not seen the patients they are tested on.

LIDC's nodules come from a run of ``train retrieval``, DeepLesion's lesions from its key slices and its official parts:
encoders learn without labels from the training part, types from the validation part, and the test part is told.

References:
    arXiv 2311.11014; Yan et al. 2018, doi:10.1117/1.JMI.5.3.036501 (the parts).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.bundle import sha256_of
from spicula.core.errors import InputError
from spicula.datasets import deeplesion, lidc_nodules
from spicula.datasets.deeplesion_table import LESION_TYPES, Lesion
from spicula.networks.checkpoint import WEIGHTS
from spicula.pipelines.pretrain_regions import load_encoder, pretrain_regions
from spicula.pipelines.run_folder import RUN, as_json, open_run
from spicula.pipelines.search_arms import ARMS, MAIN, SearchRecipe, middle_of, pretraining_of, shape_of
from spicula.pipelines.search_nodules import TOLD, Pieces, slices_of
from spicula.pipelines.slice_table import SliceTable
from spicula.pipelines.train_retrieval import encoder_folder, texture_of
from spicula.transforms.regions import REGION_PIXELS, box_region

PARTS = ("train", "validation", "test")
"""Of DeepLesion: for encoders, for their types, and for the test."""

Rows = NDArray[np.intp]
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """One encoder of each arm, and what it is used for.

    Args:
        learn: Rows whose types are learned from.
        test: Rows that are told, of other patients; no encoder of the round has seen them.
    """

    learn: Rows
    test: Rows


@dataclass(frozen=True, slots=True, eq=False)
class Lesions:
    """Lesions and the encoders that are asked about them.

    Args:
        data: Where they are from.
        pieces: Their regions in HU.
        patients: ``[n]``.
        labels: By question, ``[n]`` class from 0; -1 where it is not known.
        classes: By question, names of the classes.
        rounds: Together they test each lesion once at most.
        encoders: By arm, the folder of each round's pretraining.
        middle: Side of what encoders see, as a share of a region's.
        latent: Numbers of a VAE's code.
    """

    data: str
    pieces: Pieces
    patients: NDArray[np.str_]
    labels: Mapping[str, Rows]
    classes: Mapping[str, tuple[str, ...]]
    rounds: tuple[Round, ...]
    encoders: Mapping[str, tuple[Path, ...]]
    middle: float
    latent: int

    def encoder(self, arm: str, number: int) -> Any:
        """The encoder of an arm in a round."""
        return load_encoder(self.encoders[arm][number], method=ARMS[arm].method, latent=self.latent)

    def known(self, question: str, rows: Rows) -> Rows:
        """Those of some rows whose class is known."""
        return np.asarray(rows[self.labels[question][rows] >= 0])

    def inputs(self, arm: str) -> list[str]:
        """SHA-256 of the weights of each round."""
        return [sha256_of(folder / WEIGHTS) for folder in self.encoders[arm]]


def pieces_of(pieces: Pieces, rows: Rows) -> Pieces:
    """Slices of some lesions alone, which are numbered in the order of ``rows``."""
    parts = slices_of(pieces)
    return Pieces(
        pieces.hu[np.concatenate([parts[row] for row in rows])],
        np.repeat(np.arange(len(rows)), [len(parts[row]) for row in rows]),
    )


def lidc_lesions(data: Path, run: Path, *, arms: Sequence[str] = ()) -> Lesions:
    """LIDC's nodules: are they solid, and do readers take them for malignant?

    Args:
        data: Development data with ``lidc_nodules``.
        run: Of ``train retrieval``.
        arms: Only these; all that the run has if empty. The main one is always among them.

    Raises:
        InputError: The run is not finished, lacks an arm that is asked for, or is of other nodules.
    """
    told, pieces = run / RUN, run / "pieces" / TOLD
    lacking = [path for path in (told, pieces) if not path.is_file()]
    if lacking:
        raise InputError(f"{run}", got=f"no {lacking[0].name}", expected="a finished run of 'spicula train retrieval'")
    arguments = json.loads(told.read_text(encoding="utf-8"))["arguments"]
    recipe, folds, limit = SearchRecipe(**arguments["recipe"]), int(arguments["folds"]), arguments["limit"]
    cases = lidc_nodules.load_cases(data / "lidc_nodules")
    fold_of = lidc_nodules.patient_folds(cases, folds=folds)[:limit]
    cases, stored = cases[:limit], json.loads(pieces.read_text(encoding="utf-8"))
    if stored["facts"]["cases"] != [case.case_id for case in cases]:
        raise InputError(f"{pieces}", got="other nodules than lidc_nodules has", expected="those of the run's data")
    truth = [case.findings[0].truth for case in cases]
    return Lesions(
        data="LIDC-IDRI",
        pieces=Pieces(np.load(pieces.with_name("hu.npy"), mmap_mode="r"), np.array(stored["of_nodule"], dtype=np.intp)),
        patients=np.array([case.patient_id for case in cases]),
        labels={
            "texture": np.array([texture_of(one) for one in truth], dtype=np.intp),
            "malignancy": np.array([one["label"] > 0 for one in truth], dtype=np.intp),
        },
        classes={"texture": ("ground glass", "part-solid", "solid"), "malignancy": ("benign", "malignant")},
        rounds=tuple(Round(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(folds)),
        encoders=_finished(run, [str(fold) for fold in range(folds)], arms),
        middle=middle_of(recipe),
        latent=recipe.latent,
    )


def _finished(run: Path, names: Sequence[str], arms: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """Folders of the arms that a run has finished."""
    found = {arm: tuple(encoder_folder(run, arm, name) for name in names) for arm in ARMS}
    done = {arm: some for arm, some in found.items() if all((folder / WEIGHTS).is_file() for folder in some)}
    lacking = [arm for arm in (MAIN, *arms) if arm not in done]
    if lacking:
        raise InputError(
            f"{run}: encoders", got=f"none of {lacking[0]!r} for each of the folds", expected=f"of {', '.join(ARMS)}",
            hint="run 'spicula train retrieval' to its end",
        )  # fmt: skip
    return {arm: some for arm, some in done.items() if not arms or arm == MAIN or arm in arms}


def deeplesion_lesions(
    root: Path, out: Path, *, recipe: SearchRecipe, arms: Sequence[str] = (), threads: int = 1, report: Report = print
) -> Lesions:
    """DeepLesion's lesions of eight types, with encoders pretrained on its training part; resumes after a kill.

    Args:
        root: DeepLesion as published, pixels and all.
        out: Where regions and encoders are kept.
        recipe: Of the pretrainings.
        arms: Only these; all if empty. The main one is always among them.
        threads: Of torch.
        report: Takes one line of progress.

    Raises:
        InputError: ``out`` was made otherwise, a slice is not there, a part has no lesion, an unknown arm, or what a
            pretraining raises.
    """
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        raise InputError("arms", got=repr(unknown[0]), expected=f"of {', '.join(ARMS)}")
    lesions = _of_search(root)
    part_of = np.array([lesion.split for lesion in lesions])
    empty = [part for part in PARTS if part not in part_of]
    if empty:
        raise InputError(
            f"{root}: lesions of the {empty[0]} part", got="none", expected="the whole table",
            hint="DL_info_test_split.csv is the test part alone: give DL_info.csv",
        )  # fmt: skip
    open_run(out, "evaluate lesion types", as_json({"recipe": asdict(recipe)}))
    hu = _regions(root, lesions, out / "regions", report=report)
    chosen = [MAIN, *(arm for arm in arms or ARMS if arm != MAIN)]
    for arm in chosen:
        _pretrain(hu, lesions, out, arm, recipe, threads=threads, report=report)
    some = np.flatnonzero(part_of != "train")
    label = np.array([(lesions[row].lesion_type or 0) - 1 for row in some], dtype=np.intp)
    return Lesions(
        data="DeepLesion", pieces=Pieces(hu[some], np.arange(len(some))),
        patients=np.array([f"{lesions[row].patient:06d}" for row in some]),
        labels={"lesion type": label}, classes={"lesion type": LESION_TYPES},
        rounds=(Round(*(np.flatnonzero(part_of[some] == part) for part in PARTS[1:])),),
        encoders={arm: (encoder_folder(out, arm, "train"),) for arm in chosen}, middle=1.0, latent=recipe.latent,
    )  # fmt: skip


def _of_search(root: Path) -> list[Lesion]:
    """All lesions but the nine that the lesion search skips, which can be named where the table is whole."""
    lesions = deeplesion.read_lesions(root)
    whole = len(lesions) == deeplesion.DESCRIPTION.findings
    skipped = set(deeplesion.lesion_search_skips(root)) if whole else set()
    return [lesion for lesion in lesions if lesion.id not in skipped]


def _regions(root: Path, lesions: Sequence[Lesion], folder: Path, *, report: Report) -> NDArray[np.int16]:
    """Regions ``[n, 64, 64]`` of all lesions in HU, cut once and kept."""
    names = hashlib.sha256("\n".join(f"{lesion.id} {lesion.box_px}" for lesion in lesions).encode()).hexdigest()
    told, facts = folder / "regions.json", {"lesions": names, "pixels": REGION_PIXELS}
    if not told.is_file() or json.loads(told.read_text(encoding="utf-8")) != facts:
        report(f"cutting regions of {len(lesions)} lesions")
        folder.mkdir(parents=True, exist_ok=True)
        hu = np.empty((len(lesions), REGION_PIXELS, REGION_PIXELS), dtype=np.int16)
        name, image = "", np.empty((0, 0), dtype=np.int16)
        for row, lesion in enumerate(lesions):
            if lesion.file_name != name:
                name, image = lesion.file_name, deeplesion.read_key_slice(root, lesion)
            rows, columns = image.shape
            edges = np.clip(lesion.box_px, 0.0, [columns - 1.0, rows - 1.0] * 2)  # five pixels more may be beyond it
            hu[row] = np.rint(box_region(image, edges.tolist()))
        np.save(folder / "hu.npy", hu)
        told.write_text(json.dumps(facts), encoding="utf-8")
    return np.asarray(np.load(folder / "hu.npy", mmap_mode="r"))


def _pretrain(
    hu: NDArray[np.int16], lesions: Sequence[Lesion], out: Path, arm: str, recipe: SearchRecipe, *, threads: int,
    report: Report,
) -> None:  # fmt: skip
    rows = np.array([row for row, lesion in enumerate(lesions) if lesion.split == "train"], dtype=np.intp)
    report(f"pretraining {arm}: {len(rows)} regions of the training part")
    none = np.full(len(hu), "", dtype=np.str_)
    patients = np.array([f"{lesion.patient:06d}" for lesion in lesions])
    table = SliceTable(hu, np.broadcast_to(np.uint8(255), hu.shape), patients, none, none)
    pretrain_regions(
        table, rows, encoder_folder(out, arm, "train"), method=ARMS[arm].method, shape=shape_of(ARMS[arm], recipe),
        recipe=_of_whole_regions(pretraining_of(ARMS[arm], recipe)), threads=threads, report=report,
    )  # fmt: skip


def _of_whole_regions(pretraining: Any) -> Any:
    """With views of the whole region, which a box fills: LIDC's pieces show more about a nodule than is used."""
    from spicula.pretraining.region_views import compact_views

    views = pretraining.views
    if views.middle == 1.0:
        return pretraining
    return replace(pretraining, views=replace(views, middle=1.0, area=compact_views(middle=1.0).area))
