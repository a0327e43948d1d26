"""Any words asked of the nodules of a scan or of a table: the job behind ``spicula explain``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spicula.classifiers.semantic import SemanticModel
from spicula.core.analysis import Analysis
from spicula.core.errors import BundleError, InputError, SpiculaError
from spicula.core.finding import Finding, Point
from spicula.core.volume import Volume
from spicula.datasets.nodule_csv import Coords, NoduleRow, read_nodules
from spicula.dicom.gaps import Gaps
from spicula.dicom.reader import Tilt
from spicula.explain.prompts import Style
from spicula.formats import find_scans, read_volume
from spicula.pipelines.analyze import LIMIT, analyze_findings, find_nodules, measure_findings
from spicula.pipelines.answers import Question, questions_of_words
from spicula.pipelines.embed_nodules import point_of
from spicula.pipelines.models import SEMANTIC, Models, load_models
from spicula.pipelines.rate import require_tissue

TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
"""Endings of a table of known nodules; anything else is a scan."""


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """What became of one image of a table.

    Args:
        path: The image, as the table names it.
        scan_id: Fit to name a folder; empty of a scan that is no table's, or that cannot be read.
        analysis: Its nodules that could be rated, named by their ``nodule_id``; None where none could.
        failed: A sentence for each row that could not.
    """

    path: Path
    scan_id: str
    analysis: Analysis | None
    failed: tuple[str, ...] = ()


def explain(
    scan: Volume | str | Path,
    words: Sequence[str],
    *,
    at: Sequence[Sequence[float]] = (),
    gaps: Gaps = "error",
    tilt: Tilt = "error",
    prompts: Style = "templates",
    models: Models | None = None,
    limit: int = LIMIT,
) -> Analysis:
    """Ask any words of the nodules of one chest CT.

    Args:
        scan: A volume, or the path of anything that :func:`spicula.read_volume` takes.
        words: Each a word or a short phrase: ``"part-solid"``, ``"no spiculation"``, free text.
        at: Centers of the nodules, LPS mm; those that :func:`spicula.analyze` finds if empty.
        gaps: What to do about missing or irregular slices of a path's DICOM images.
        tilt: What to do about a tilted gantry of a path.
        prompts: ``"templates"``, or ``"compat"`` for the sentences of arXiv 2504.21344.
        models: The bundles to use; the shipped ones if None.
        limit: Most findings to report where none are named.

    Returns:
        The analysis with the answers in ``words``; see :attr:`spicula.core.words.Words.requested`.

    Raises:
        InputError: There is no word, one is empty, there is no nodule, or the image cannot be read.
        GeometryError: A point lies outside the scan.
        BundleError: There is no bundle that compares images with words, or it is of another kind.

    Example:
        >>> analysis = explain("chest-ct/", ["part-solid", "spiculated"])  # doctest: +SKIP
        >>> [(a.asked, round(a.probability, 2)) for a in analysis.words[0].requested]  # doctest: +SKIP
        [('part-solid', 0.12), ('spiculated', 0.91)]
    """
    models = models or load_models()
    points = [point_of(place) for place in at]
    asked = questions(words, models=models, style=prompts)
    volume = scan if isinstance(scan, Volume) else read_volume(scan, gaps=gaps, tilt=tilt)
    if points:
        found, notes = given_nodules(volume, points, models=models), list[str]()
    else:
        found, notes = find_nodules(volume, models=models, limit=limit)
    if not found:
        raise InputError(
            f"{volume.name}: nodules to ask about", got="none found", hint="name the place of one with --at X,Y,Z"
        )
    return analyze_findings(volume, found, models=models, notes=notes, asked=asked, style=prompts)


def questions(words: Sequence[str], *, models: Models, style: Style) -> tuple[Question, ...]:
    """Turn words into questions; told before anything is read.

    Raises:
        InputError: There is no word, or one that cannot be asked.
        BundleError: There is no bundle for it, or it is of another kind.
    """
    if isinstance(words, str) or not words:
        raise InputError("words to ask", got=repr(words), expected="one or more", hint='--words "part-solid"')
    return questions_of_words(words, model=semantic_model(models), style=style)


def semantic_model(models: Models) -> SemanticModel:
    """The model that compares images with words.

    Raises:
        BundleError: There is none, or the bundle is of another kind.
    """
    model = models.semantic_model
    if model is None:
        raise BundleError(
            f"bundle {SEMANTIC}", got="none", expected="a bundle that compares images with words",
            hint="name one with --bundle DIR; spicula train semantic makes it",
        )  # fmt: skip
    return model


def given_nodules(volume: Volume, centers_xyz_mm: Sequence[Point], *, models: Models) -> tuple[Finding, ...]:
    """Outline and measure nodules at known places, numbered in their order.

    Raises:
        GeometryError: A place lies outside the scan.
        InputError: There is nothing but air at a place.
    """
    for number, center in enumerate(centers_xyz_mm, start=1):
        require_tissue(volume, center, what=f"nodule {number} of {volume.name}")
    given = [Finding(str(number), center) for number, center in enumerate(centers_xyz_mm, start=1)]
    return measure_findings(volume, given, models=models)


def explain_table(
    nodules: str | Path,
    words: Sequence[str],
    *,
    coords: Coords = "lps",
    gaps: Gaps = "error",
    tilt: Tilt = "error",
    prompts: Style = "templates",
    models: Models | None = None,
) -> Iterator[Explained]:
    """Ask any words of the nodules of a CSV file, image after image.

    Args:
        nodules: CSV file with ``pid,nodule_id,image_path,coordX,coordY,coordZ``.
        words: As for :func:`explain`.
        coords: What the coordinates are.
        gaps: What to do about missing or irregular slices of DICOM images.
        tilt: What to do about a tilted gantry.
        prompts: As for :func:`explain`.
        models: The bundles to use; the shipped ones if None.

    Returns:
        One result an image, in the order in which the images first come in the file.

    Raises:
        InputError: The file cannot be read or lacks a column, or a word cannot be asked.
        BundleError: As for :func:`explain`.
    """
    models = models or load_models()
    asked = questions(words, models=models, style=prompts)
    images: dict[Path, list[NoduleRow]] = {}
    for row in read_nodules(nodules, coords=coords).rows:
        images.setdefault(row.image_path, []).append(row)

    names: list[str] = []

    def of_image(path: Path, rows: Sequence[NoduleRow]) -> Explained:
        try:
            volume, scan_id = read_volume(path, gaps=gaps, tilt=tilt), find_scans(path)[0].scan_id
            names.append(scan_id)
        except (SpiculaError, OSError) as error:
            return Explained(path, "", None, tuple(_failure(row, row.error or error) for row in rows))
        if names.count(scan_id) > 1:  # one series at two places
            scan_id += f"-{names.count(scan_id)}"
        given, failed = _given_rows(volume, rows)
        if not given:
            return Explained(path, scan_id, None, failed)
        found = measure_findings(volume, given, models=models)
        return Explained(
            path, scan_id, analyze_findings(volume, found, models=models, asked=asked, style=prompts), failed
        )

    return (of_image(path, rows) for path, rows in images.items())


def _given_rows(volume: Volume, rows: Sequence[NoduleRow]) -> tuple[list[Finding], tuple[str, ...]]:
    """The nodules that can be rated, and why the others cannot; an id that comes again gets a number."""
    given: list[Finding] = []
    failed: list[str] = []
    for row in rows:
        try:
            if row.error:
                raise InputError(row.error)
            center = row.center_xyz_mm(volume.geometry)
            require_tissue(volume, center, what=f"nodule {row.nodule_id} of {row.pid}")
        except SpiculaError as error:
            failed.append(_failure(row, error))
            continue
        given.append(Finding(row.nodule_id, center))
    counts: dict[str, int] = {}
    for place, finding in enumerate(given):
        counts[finding.id] = counts.get(finding.id, 0) + 1
        if counts[finding.id] > 1:
            given[place] = replace(finding, id=f"{finding.id} ({counts[finding.id]})")
    return given, tuple(failed)


def _failure(row: NoduleRow, error: object) -> str:
    name = f"nodule {row.nodule_id} of {row.pid}"
    return str(error) if str(error).startswith(name) else f"{name}: {error}"


def is_table(path: Path) -> bool:
    """Whether a path is taken for a table of known nodules, by its ending."""
    return path.name.lower().endswith(TABLES) and not path.is_dir()
