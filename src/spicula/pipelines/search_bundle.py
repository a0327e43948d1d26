"""The bundle that turns nodules into vectors, and the index of LIDC's nodules made with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spicula.core.bundle import Bundle, write_bundle
from spicula.core.embedding import Embeddings, Fact
from spicula.core.extras import require
from spicula.core.finding import Case
from spicula.core.prediction import TRAITS
from spicula.datasets.lidc_nodules import TRAITS as RATINGS
from spicula.datasets.lidc_tables import DIAGNOSES, METHODS, find_diagnoses, load_diagnoses
from spicula.formats.table import read_table
from spicula.pipelines import search_card
from spicula.pipelines.embed_nodules import finding_id
from spicula.pipelines.pretrain_regions import load_encoder
from spicula.pipelines.risk_table import RULES, Outlines, Table
from spicula.pipelines.search_arms import SearchRecipe, middle_of
from spicula.pipelines.search_head_fit import HeadRecipe, fit_head
from spicula.pipelines.search_nodules import Pieces, features_of_pieces
from spicula.retrieval.embedder import HEAD_FILE, NETWORK_FILE, TASK, Embedder, load_embedder
from spicula.retrieval.opening import create_index, open_index, replace_index

NAME = "nodule-search"
INDEX = "lidc-index"
"""Folder of the index beside the bundle."""

Report = Callable[[str], None]


def ship(
    out: Path, encoder: Path, known: Table, pieces: Pieces, evaluation: Mapping[str, Any], *, recipe: SearchRecipe,
    head: HeadRecipe,
) -> Bundle:  # fmt: skip
    """Write the bundle of an encoder that learned from all patients, with a head taught on all nodules.

    Args:
        out: The run folder; the bundle goes to ``nodule-search`` in it.
        encoder: Folder of the encoder's pretraining.
        known: Measured numbers and labels of all nodules.
        pieces: Slices of the same.
        evaluation: For the card.
        recipe: Of the encoder.
        head: Of the head.

    Returns:
        The bundle, verified and opened once.

    Raises:
        MissingExtraError: A package of the extra ``train`` is not installed.
    """
    torch = require("torch", extra="train")
    from spicula.networks.export import to_onnx

    network, middle = load_encoder(encoder), middle_of(recipe)
    features = features_of_pieces(network, pieces, middle=middle)
    fitted = fit_head(features, known.features, known.labels, np.arange(len(features)), head)
    shape = network.shape
    example = torch.zeros(2, shape.channels, shape.pixels, shape.pixels)
    files: dict[str, bytes | Path] = {
        NETWORK_FILE: to_onnx(_features_module(network), example, outputs=("features",)),
        HEAD_FILE: to_onnx(
            fitted, torch.zeros(2, features.shape[1] + len(known.names)), half=False, outputs=("vector",)
        ),
    }
    manifest = {
        "name": NAME,
        "version": "1",
        "task": TASK,
        "preprocessing": search_card.preprocessing(shape, middle, known.names),
        "outputs": {"kind": "nodule_regions", "dimensions": head.members * head.dimensions, "distance": "euclidean"},
        "card": search_card.card(evaluation, recipe),
    }
    bundle = write_bundle(out / NAME, manifest, files)
    load_embedder(bundle, threads=1)
    return bundle


def _features_module(network: Any) -> Any:
    """The encoder without its last step, which gives vectors length 1: they are averaged over slices first."""
    torch = require("torch", extra="train")

    class Features(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = network

        def forward(self, x: Any) -> Any:
            return self.encoder.features(x)

    return Features()


def index_lidc(
    data: Path, folder: Path, cases: tuple[Case, ...], *, bundle: Bundle, outlines: Outlines, report: Report = print
) -> None:
    """Make the index of LIDC's nodules: vectors, ids, ratings, sizes, outcomes; no pixels, LIDC-IDRI-0001 left out.

    Args:
        data: Development data with ``lidc_nodules`` and ``lidc_xml``.
        folder: Where; an older one is replaced once the new one is whole.
        cases: Nodules to index.
        bundle: Makes the vectors.
        outlines: By networks that have not learned from the nodule's patient: the outlines of new patients are such.
        report: Takes one line of progress.
    """
    embedder: Embedder = load_embedder(bundle, threads=1)
    facts = lidc_facts(data, cases)
    report(f"indexing {len(cases)} nodules")
    vectors = []
    for case in cases:
        volume = case.load_volume()
        vectors.append(embedder(volume, outlines(case, volume, case.findings[0].center_xyz_mm)))
    names = tuple(finding_id(str(known["pid"]), str(known["nodule_id"])) for known in facts)
    aside = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    create_index(aside, fingerprint=bundle.fingerprint, dimensions=embedder.dimensions)
    with open_index(aside) as index:
        index.add(Embeddings(np.stack(vectors), names, bundle.fingerprint), facts)
    replace_index(aside, folder)


def lidc_facts(data: Path, cases: tuple[Case, ...]) -> list[dict[str, Fact]]:
    """What is known of each nodule of ``lidc_nodules``.

    Returns:
        ``pid``, ``nodule_id``, ``type`` (lung), ``diameter_mm`` (LUNA16's), ``malignant`` (by the readers' vote), each
        trait 0 or 1, the rounded ratings ``rating_...``, ``readers``, ``series_uid`` and the place; ``diagnosis`` and
        ``diagnosis_by`` of the patients whose diagnosis is known.
    """
    series = {
        f"{row['patient_id']}_{row['nodule_id']}": row["series_uid"]
        for row in read_table(data / "lidc_nodules" / "nodules.csv")
    }
    table = find_diagnoses(data / "lidc_xml") if (data / "lidc_xml").is_dir() else None
    diagnoses = load_diagnoses(table) if table else {}
    found = []
    for case in cases:
        finding = case.findings[0]
        truth = finding.truth
        known: dict[str, Fact] = {
            "pid": case.patient_id, "nodule_id": case.case_id.rpartition("_")[2], "type": "lung",
            "diameter_mm": round(float(finding.diameter_mm or 0.0), 2), "malignant": float(truth["label"]),
        }  # fmt: skip
        for trait in TRAITS:
            rating, rule = RULES[trait]
            known[trait] = float(rule(np.array(truth[rating])))
        known |= {f"rating_{name}": float(truth[name]) for name in RATINGS}
        known["readers"] = float(truth["readers"])
        diagnosis = diagnoses.get(case.patient_id)
        if diagnosis is not None and diagnosis.patient:
            known |= {"diagnosis": DIAGNOSES[diagnosis.patient], "diagnosis_by": METHODS[diagnosis.method]}
        x, y, z = (round(float(value), 3) for value in finding.center_xyz_mm)
        found.append({**known, "series_uid": series[case.case_id], "x_mm": x, "y_mm": y, "z_mm": z})
    return found
