"""Searching with tables, places and boxes: who is found, who must not be, what the neighbors say, what is shown."""

from __future__ import annotations

import base64
import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.bundle import MANIFEST
from spicula.core.embedding import Match
from spicula.core.errors import BundleError, GeometryError, InputError, SpiculaError
from spicula.core.finding import Finding
from spicula.core.volume import Acquisition, Volume
from spicula.datasets.phantom import Ball
from spicula.dicom.writer import write_series
from spicula.explain.neighbors import jeffreys
from spicula.formats import read_volume
from spicula.formats.png16 import read_as_volume
from spicula.pipelines.analyze import analyze_findings
from spicula.pipelines.embed_nodules import outline_at, outline_in_box
from spicula.pipelines.index import build_index, open_place, remove_nodules
from spicula.pipelines.models import Models, load_models
from spicula.pipelines.neighbors import neighbors_of_findings, require_index
from spicula.pipelines.search import (
    COLUMNS,
    Answer,
    Query,
    evidence,
    is_itself,
    query_at,
    query_in_box,
    search,
    write_matches,
)
from spicula.pipelines.search_job import Searched, run_search
from spicula.pipelines.usual import usual
from spicula.report.neighbors import phrase
from spicula.report.pictures import Picture
from spicula.retrieval.opening import create_index
from spicula.transforms.regions import box_ellipse

from .search_tiny import PATIENTS, PLACES, Nodule, Tiny, chest_around, tiny, write_table  # noqa: F401

MIDDLE_SLICE = 17
"""Of an image of the table: 4 mm above its middle, through the first nodule's."""


def ask(tiny: Tiny, query: Path, **options: object) -> Searched:  # noqa: F811
    return run_search(query, **{"index": str(tiny.index), "bundle": tiny.bundle, "models": tiny.models, **options})


def names(answer: Answer) -> list[str]:
    return [match.finding_id for match in answer.matches]


def known(tiny: Tiny) -> tuple[dict[str, np.ndarray], dict[str, dict[str, object]]]:  # noqa: F811
    """Vectors and facts of the index by name."""
    with open_place(tiny.index) as index:
        embeddings, facts = index.get(index.ids())
    vectors = dict(zip(embeddings.finding_ids, embeddings.vectors.astype(np.float64), strict=True))
    return vectors, dict(zip(embeddings.finding_ids, map(dict, facts), strict=True))


def nearest_by_hand(tiny: Tiny, name: str, *, among: set[str]) -> list[str]:  # noqa: F811
    vectors, _ = known(tiny)
    return sorted(among, key=lambda other: (np.linalg.norm(vectors[name] - vectors[other]), other))


def box_around(volume: Volume, center: tuple[float, float, float], side_mm: float) -> tuple[int, list[float]]:
    """Slice and box in pixels of a square about a place."""
    z, y, x = volume.geometry.world_to_index(center)
    half = side_mm / 2
    return round(float(z)), [float(x) - half, float(y) - half, float(x) + half, float(y) + half]


@pytest.fixture
def queries(tiny: Tiny, tmp_path: Path) -> tuple[Path, tuple[Nodule, ...]]:  # noqa: F811
    """A table of three nodules of the index."""
    some = (tiny.nodules[7], tiny.nodules[2], tiny.nodules[20])
    return write_table(tmp_path / "queries.csv", [one.row() for one in some]), some


@pytest.mark.parametrize("scope", ["all", "cross-patient", "same-patient"])
def test_a_table_finds_its_nearest_but_never_itself(
    tiny: Tiny,  # noqa: F811
    queries: tuple[Path, tuple[Nodule, ...]],
    scope: str,
) -> None:
    table, some = queries
    found = ask(tiny, table, k=6, scope=scope)
    assert (found.index, found.failed) == (str(tiny.index), ())
    assert [one.answer.query.nodule_id for one in found.answers] == [one.nodule_id for one in some]
    for told, nodule in zip(found.answers, some, strict=True):
        others = {one.name for one in tiny.nodules if one.name != nodule.name}
        if scope != "all":
            own = {name for name in others if name.startswith(f"{nodule.pid}/")}
            others = own if scope == "same-patient" else others - own
        expected = nearest_by_hand(tiny, nodule.name, among=others)[:6]
        assert names(told.answer) == expected
        distances = [match.distance for match in told.answer.matches]
        assert distances == sorted(distances)
        vectors, _ = known(tiny)
        assert distances == pytest.approx(
            [float(np.linalg.norm(vectors[nodule.name] - vectors[name])) for name in expected], abs=1e-4
        )


def test_a_condition_keeps_others_out(tiny: Tiny, queries: tuple[Path, tuple[Nodule, ...]]) -> None:  # noqa: F811
    table, some = queries
    fit = {one.name for one in tiny.nodules if one.malignant == "1" and one.kind == "lung"}
    found = ask(tiny, table, k=24, where="malignant = 1 and type = 'lung'")
    for told, nodule in zip(found.answers, some, strict=True):
        assert names(told.answer) == nearest_by_hand(tiny, nodule.name, among=fit - {nodule.name})
    with pytest.raises(InputError, match=r"a field, one of pid, nodule_id, diameter_mm.*did you mean malignant"):
        ask(tiny, table, where="malignat = 1")


def test_more_than_the_index_holds_and_an_empty_index_are_refused(
    tiny: Tiny,  # noqa: F811
    queries: tuple[Path, tuple[Nodule, ...]],
    tmp_path: Path,
) -> None:
    table, _ = queries
    whole = 2 * PATIENTS
    for k in (whole + 1, 0):
        with pytest.raises(InputError, match=rf"got {k}, expected 1 to {whole}.*Hint: without --k"):
            ask(tiny, table, k=k)
    assert len(ask(tiny, table, k=whole).answers[0].answer.matches) == whole - 1
    create_index(tmp_path / "empty", fingerprint=tiny.embedder.fingerprint, dimensions=tiny.embedder.dimensions)
    for k in (1, None):
        with pytest.raises(InputError, match=r"index: got an empty one.*spicula index add"):
            ask(tiny, table, index=str(tmp_path / "empty"), k=k)
    with open_place(tmp_path / "empty") as index:
        assert usual(index).nearest == ()
        with pytest.raises(InputError, match="queries: got none"):
            search([], index, fingerprint=tiny.embedder.fingerprint)


def test_rows_that_cannot_be_asked_are_told(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    good, bad = tiny.nodules[:2]
    rows = [bad.row(coordZ="high"), good.row(), good.row(nodule_id="9", image_path="no-such.nii.gz")]
    found = ask(tiny, write_table(tmp_path / "rows.csv", rows), k=3)
    assert [one.answer.query.nodule_id for one in found.answers] == [good.nodule_id]
    first, second = found.failed
    assert first.startswith(f"nodule {bad.nodule_id} of {bad.pid}: ")
    assert "coordZ" in first
    assert "no-such.nii.gz" in second
    with pytest.raises(InputError, match=r"none that could be embedded.*no-such"):
        ask(tiny, write_table(tmp_path / "rows.csv", rows[2:]), k=3)
    with pytest.raises(InputError, match="the table says where"):
        ask(tiny, write_table(tmp_path / "rows.csv", rows[1:2]), at=[good.center])
    with pytest.raises(InputError, match="the table says where"):
        ask(tiny, write_table(tmp_path / "rows.csv", rows[1:2]), box=[1, 1, 9, 9])


def another_bundle(tiny: Tiny, folder: Path) -> Path:  # noqa: F811
    shutil.copytree(tiny.bundle, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["preprocessing"]["middle"] /= 2
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def test_vectors_of_another_bundle_are_refused(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    other = another_bundle(tiny, tmp_path / "other")
    one = tiny.nodules[0]
    with pytest.raises(InputError, match="fingerprint"):
        ask(tiny, one.image, at=[one.center], k=1, bundle=other)
    models = load_models(semantic=None, ssm=None, search=str(other), index=str(tiny.index))
    volume = read_volume(one.image)
    mask = outline_at(volume, one.center, models=models, what="nodule")
    with pytest.raises(BundleError, match="expected nodule-search@"):
        neighbors_of_findings(volume, [Finding("1", one.center, mask=mask)], models=models)


def test_places_in_a_scan_are_asked_in_their_order(tiny: Tiny) -> None:  # noqa: F811
    first, second = tiny.nodules[6:8]
    found = ask(tiny, first.image, at=[second.center, first.center], k=5)
    for told, nodule in zip(found.answers, (second, first), strict=True):
        query = told.answer.query
        assert (query.pid, query.center_xyz_mm, query.image) == ("", nodule.center, nodule.image)
        assert query.nodule_id == ",".join(f"{value:.1f}" for value in nodule.center)
        assert names(told.answer) == nearest_by_hand(tiny, nodule.name, among=others_than(tiny, nodule))[:5]
        assert told.picture is None
        assert told.pictures == ()


@pytest.mark.parametrize("pid", [None, "003", "somebody"])
@pytest.mark.parametrize("by_box", [False, True])
def test_a_place_or_box_never_finds_what_lies_there(tiny: Tiny, pid: str | None, by_box: bool) -> None:  # noqa: F811
    """The same file, at the same place: not among the matches, not in the share, not the nearest."""
    one = tiny.nodules[6]
    asked: dict[str, object] = {"at": [(one.center[0] + 2.0, one.center[1], one.center[2])], "pid": pid, "k": 24}
    if by_box:
        at, box = box_around(read_volume(one.image), one.center, one.diameter + 1)
        asked |= {"at": (), "box": box, "slice_index": at}
    (told,) = ask(tiny, one.image, **asked).answers
    assert set(names(told.answer)) == others_than(tiny, one)
    assert {match.facts["pid"] for match in told.evidence.matches} == {f"{n:03d}" for n in range(PATIENTS)} - {one.pid}
    assert told.evidence.malignant.patients == PATIENTS - 1
    strangers = [match.distance for match in told.answer.matches if match.facts["pid"] != one.pid]
    assert told.answer.nearest == strangers[0] > 0
    with open_place(tiny.index) as index:
        nearest = usual(index).nearest
    assert told.evidence.farther_than == pytest.approx(np.mean(np.array(nearest) < strangers[0]))


def others_than(tiny: Tiny, nodule: Nodule) -> set[str]:  # noqa: F811
    return {one.name for one in tiny.nodules} - {nodule.name}


def test_who_is_itself() -> None:
    vector = np.array([1.0, 0.0], np.float32)
    place = {"x_mm": 1.0, "y_mm": 2.0, "z_mm": 3.0}

    def itself(facts: dict[str, str | float], **query: object) -> bool:
        asked = Query(**{"pid": "", "nodule_id": "q", "vector": vector, "center_xyz_mm": (1.0, 2.0, 3.0), **query})
        return is_itself(asked, Match("A/1", 0.0, {"pid": "A", "nodule_id": "1", **place, **facts}))

    assert itself({"series_uid": "1.2"}, series_uid="1.2")
    assert not itself({"series_uid": "1.3"}, series_uid="1.2", pid="A"), "another series of the same patient"
    assert itself({"image_path": "/x/../x/a.nii"}, image=Path("/x/a.nii"))
    assert not itself({"image_path": "/x/b.nii"}, image=Path("/x/a.nii"))
    assert itself({"series_uid": "1.3"}, pid="A"), "nobody knows the series of the query"
    assert not itself({}, pid="B")
    assert not itself({})
    away = {"center_xyz_mm": (1.0, 2.0, 8.0)}
    assert not itself({"series_uid": "1.2"}, series_uid="1.2", **away)
    assert itself({"series_uid": "1.2", "diameter_mm": 12.0}, series_uid="1.2", **away), "within the nodule"
    assert not itself({"diameter_mm": 12.0}, pid="A", **away), "perhaps another scan"
    assert not itself({"series_uid": "1.2", "z_mm": "deep"}, series_uid="1.2")
    assert not itself({"series_uid": "1.2"}, series_uid="1.2", center_xyz_mm=None)


def test_scopes_by_patient_need_a_patient(tiny: Tiny) -> None:  # noqa: F811
    one = tiny.nodules[6]
    for scope in ("cross-patient", "same-patient"):
        with pytest.raises(InputError, match=rf"got none, expected one, for {scope}.*--pid"):
            ask(tiny, one.image, at=[one.center], scope=scope)
    (cross,) = ask(tiny, one.image, at=[one.center], scope="cross-patient", pid=one.pid, k=24).answers
    assert {match.facts["pid"] for match in cross.answer.matches} == {f"{n:03d}" for n in range(PATIENTS)} - {one.pid}
    (same,) = ask(tiny, one.image, at=[one.center], scope="same-patient", pid=one.pid, k=24).answers
    assert {match.facts["pid"] for match in same.answer.matches} == {one.pid}
    assert cross.answer.query.pid == one.pid


@pytest.mark.parametrize(
    ("place", "kind", "told"),
    [
        ((92.0, -6.0, 4.0), GeometryError, "flipping"),
        ((-76.0, 22.0, 0.0), InputError, "nothing but air or empty lung"),
        ((np.nan, 0.0, 0.0), InputError, "x, y, z in mm LPS"),
        ((1.0, 2.0), InputError, "x, y, z in mm LPS"),
    ],
)
def test_places_where_nothing_is_are_refused(
    tiny: Tiny,  # noqa: F811
    place: tuple[float, ...],
    kind: type[Exception],
    told: str,
) -> None:
    with pytest.raises(kind, match=told):
        ask(tiny, tiny.nodules[0].image, at=[place])


def test_a_scan_alone_is_no_question(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(InputError, match=r"no place and no box.*--at X,Y,Z or --box"):
        ask(tiny, tiny.nodules[0].image)
    with pytest.raises(InputError, match="does not exist"):
        ask(tiny, tmp_path / "no-such.nii.gz", at=[(0, 0, 0)])


def test_a_box_stands_for_what_it_is_drawn_around(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    one = tiny.nodules[4]
    volume = read_volume(one.image)
    at, box = box_around(volume, one.center, one.diameter + 1)
    mask = outline_in_box(volume, at, box, models=tiny.models)
    assert mask.array_zyx.any(axis=(1, 2)).sum() > 5, "an outline in three dimensions"
    asked = query_in_box(volume, at, [box[2], box[3], box[0], box[1]], embedder=tiny.embedder, models=tiny.models)
    there = query_at(volume, one.center, embedder=tiny.embedder, models=tiny.models)
    assert np.linalg.norm(asked.vector - there.vector) < 0.1
    assert np.linalg.norm(np.subtract(asked.center_xyz_mm, one.center)) < 1.5
    copy = Path(shutil.copy(one.image, tmp_path))
    (told,) = ask(tiny, copy, box=box, slice_index=at, k=3).answers
    assert names(told.answer)[0] == one.name, "nobody knows whose scan the copy is"
    assert told.answer.query.nodule_id.startswith(f"slice {at}, box ")


def test_a_box_whose_outline_is_something_else_stands_for_its_ellipse(tiny: Tiny) -> None:  # noqa: F811
    one = tiny.nodules[4]
    volume = read_volume(one.image)
    at, around = box_around(volume, one.center, one.diameter)
    wide = [around[0] - 12, around[1] - 12, around[2] + 12, around[3] + 12]
    beside = [around[2] - 1.5, around[1], around[2] + 14.0, around[3]]
    for box in (wide, beside):
        mask, ellipse = outline_in_box(volume, at, box, models=tiny.models), box_ellipse(volume.geometry, at, box)
        np.testing.assert_array_equal(mask.array_zyx, ellipse.array_zyx)
        np.testing.assert_allclose(mask.geometry.affine_lps, ellipse.geometry.affine_lps)
    (told,) = ask(tiny, one.image, box=beside, slice_index=at, k=3).answers
    assert len(told.answer.matches) == 3


def test_a_box_around_nothing_is_refused(tiny: Tiny) -> None:  # noqa: F811
    one = tiny.nodules[4]
    at, _ = box_around(read_volume(one.image), one.center, one.diameter)
    with pytest.raises(InputError, match=r"nothing but air or empty lung: got at most -8\d\d HU.*from the lowest"):
        ask(tiny, one.image, box=[2.0, 2.0, 14.0, 10.0], slice_index=at)


def test_a_small_faint_nodule_in_a_box_is_no_empty_lung(tiny: Tiny) -> None:  # noqa: F811
    volume = chest_around(PLACES[0], (24, 44, 44), balls=[Ball(PLACES[0], 4.0, -600.0)])
    at, box = box_around(volume, PLACES[0], 5.0)
    assert outline_in_box(volume, at, box, models=tiny.models).array_zyx.any()


@pytest.mark.parametrize(
    ("box", "at", "told"),
    [
        ([-3, 4, 10, 20], MIDDLE_SLICE, "within 84 columns and 52 rows"),
        ([4, 4, 90, 20], MIDDLE_SLICE, "within 84 columns and 52 rows"),
        ([4, 4, 10, 60], MIDDLE_SLICE, "within 84 columns and 52 rows"),
        ([4, 4, 5.5, 20], MIDDLE_SLICE, r"1.5 x 16 pixels.*Hint: draw it around the whole nodule"),
        ([4, 4, 20, 20], None, "slice of the box: got none, expected 0 to 29.*--slice"),
        ([4, 9, 20, 9], MIDDLE_SLICE, "16 x 0 pixels"),
        ([4, 4, 20, 20], 30, "slice: got 30, expected 0 to 29"),
        ([4, 4, 20, 20], -1, "slice: got -1, expected 0 to 29"),
        ([4, 4, 20], MIDDLE_SLICE, "four finite numbers"),
    ],
)
def test_boxes_that_cannot_be_meant_are_refused(
    tiny: Tiny,  # noqa: F811
    box: list[float],
    at: int | None,
    told: str,
) -> None:
    with pytest.raises(InputError, match=told):
        ask(tiny, tiny.nodules[0].image, box=box, slice_index=at)


def png_of(hu: np.ndarray, path: Path) -> Path:
    """A slice as DeepLesion stores it."""
    Image.fromarray((hu.astype(np.int32) + 32768).astype(np.uint16)).save(path)
    return path


def test_a_slice_of_deeplesion_is_asked_by_a_box(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    one = tiny.nodules[4]
    volume = read_volume(one.image)
    at, box = box_around(volume, one.center, one.diameter + 1)
    path = png_of(volume.array_zyx[at], tmp_path / "slice.png")
    np.testing.assert_array_equal(read_as_volume(path).array_zyx[0], volume.array_zyx[at])
    found = ask(tiny, path, box=box, k=4, pictures=True)
    assert found.warnings == read_as_volume(path).warnings
    assert "taken for 0.8 mm" in found.warnings[0]
    (told,) = found.answers
    assert told.answer.query.pid == ""
    assert len(told.answer.matches) == 4
    assert isinstance(told.picture, Picture)
    with pytest.raises(InputError, match="no place and no box"):
        ask(tiny, path)
    with pytest.raises(GeometryError, match="slice: got 1, expected 0 to 0"):
        ask(tiny, path, box=box, slice_index=1)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "eight.png")
    with pytest.raises(InputError, match=r"eight\.png: image: got 8-bit gray, expected 16-bit gray"):
        ask(tiny, tmp_path / "eight.png", box=[4, 4, 20, 20])


def test_the_file_of_matches_has_these_columns_and_no_other(
    tiny: Tiny,  # noqa: F811
    queries: tuple[Path, tuple[Nodule, ...]],
    tmp_path: Path,
) -> None:
    table, some = queries
    found = ask(tiny, table, k=3)
    write_matches(tmp_path / "matches.csv", [one.answer for one in found.answers])
    with (tmp_path / "matches.csv").open(newline="", encoding="utf-8") as stream:
        header, *rows = list(csv.reader(stream))
    assert header == ["query_pid", "query_nodule_id", "rank", "pid", "nodule_id", "distance"] == list(COLUMNS)
    expected = [
        [nodule.pid, nodule.nodule_id, str(rank), *match.finding_id.split("/"), f"{match.distance:.6f}"]
        for nodule, one in zip(some, found.answers, strict=True)
        for rank, match in enumerate(one.answer.matches, start=1)
    ]
    assert rows == expected
    assert len(rows) == 9


def test_what_is_usual_in_an_index(tiny: Tiny) -> None:  # noqa: F811
    vectors, facts = known(tiny)
    expected = sorted(
        min(np.linalg.norm(vectors[one] - vectors[other]) for other in vectors if other[:3] != one[:3])
        for one in vectors
    )
    with open_place(tiny.index) as index:
        whole, some, again = usual(index), usual(index, sample=7), usual(index, sample=7)
        other = usual(index, sample=7, seed=1)
    np.testing.assert_allclose(whole.nearest, expected, atol=1e-4)
    assert whole.means["malignant"] == pytest.approx(np.mean([one["malignant"] for one in facts.values()]))
    rated = [one["spiculation_present"] for one in facts.values() if "spiculation_present" in one]
    assert len(rated) == 2 * PATIENTS - 2
    assert whole.means["spiculation_present"] == pytest.approx(np.mean(rated))
    assert "type" not in whole.means
    assert len(some.nearest) == 7
    assert set(some.nearest) <= set(whole.nearest)
    assert (some, other != some) == (again, True)


def test_evidence_counts_no_match_of_the_own_patient(tiny: Tiny) -> None:  # noqa: F811
    one = tiny.nodules[6]
    (told,) = ask(tiny, one.image, at=[one.center], pid=one.pid, k=24).answers
    assert one.pid in {match.facts["pid"] for match in told.answer.matches}
    said = told.evidence
    assert [match.finding_id for match in said.matches] == [
        match.finding_id for match in told.answer.matches if match.facts["pid"] != one.pid
    ]
    _, facts = known(tiny)
    of_patient = [
        np.mean([facts[f"{pid:03d}/{number}"]["malignant"] for number in (1, 2)])
        for pid in range(PATIENTS) if f"{pid:03d}" != one.pid
    ]  # fmt: skip
    assert said.malignant.patients == PATIENTS - 1
    assert said.malignant.value == pytest.approx(np.mean(of_patient))
    assert said.malignant.interval == pytest.approx(jeffreys(sum(of_patient), PATIENTS - 1))
    assert [shared.trait for shared in said.traits] == ["spiculation_present"]
    assert said.traits[0].share.patients == PATIENTS - 2, "of one patient nobody said"
    assert said.fingerprint == tiny.embedder.fingerprint


def test_what_is_far_from_everything_is_unlike_all(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    vectors, _ = known(tiny)
    middle = np.mean(list(vectors.values()), axis=0)
    far = Query("x", "far", (-middle / np.linalg.norm(middle)).astype(np.float32))
    near = Query("000", "1", vectors["000/1"].astype(np.float32))
    fingerprint = tiny.embedder.fingerprint

    def said(place: Path, query: Query) -> object:
        with open_place(place) as index:
            (answer,) = search([query], index, k=5, fingerprint=fingerprint)
            return evidence(answer, background=usual(index), fingerprint=fingerprint)

    assert said(tiny.index, far).farther_than == 1.0
    assert said(tiny.index, far).is_unlike_all
    assert said(tiny.index, near).farther_than < 1.0
    assert not said(tiny.index, near).is_unlike_all
    few = Path(shutil.copytree(tiny.index, tmp_path / "few"))
    remove_nodules(str(few), [one.name for one in tiny.nodules[:6]])
    assert said(few, far).farther_than is None, "of 18 nobody can tell"
    assert not said(few, far).is_unlike_all


def test_a_query_without_neighbors_of_others_says_so(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    alone = Path(shutil.copytree(tiny.index, tmp_path / "alone"))
    remove_nodules(str(alone), [], where="pid != '003'")
    one, other = tiny.nodules[6:8]
    (told,) = ask(tiny, one.image, index=str(alone), at=[one.center], pid=one.pid).answers
    assert names(told.answer) == [other.name], "without --k all of a small index, itself left out"
    assert (told.evidence.matches, told.evidence.malignant, told.evidence.farther_than) == ((), None, None)
    assert phrase(told.evidence) == "No past case of another patient is at hand."


def test_a_filter_does_not_make_a_query_unlike_everything(tiny: Tiny) -> None:  # noqa: F811
    """Distances are judged against all of the index, whatever the condition leaves; it is told."""
    one = tiny.nodules[6]
    (plain,) = ask(tiny, one.image, at=[one.center], pid=one.pid).answers
    farthest = nearest_by_hand(tiny, one.name, among=others_than(tiny, one))[-1].partition("/")[0]
    (told,) = ask(tiny, one.image, at=[one.center], pid=one.pid, where=f"pid = '{farthest}'").answers
    assert {match.facts["pid"] for match in told.answer.matches} == {farthest}
    assert told.answer.matches[0].distance > plain.answer.nearest
    assert told.answer.nearest == pytest.approx(plain.answer.nearest)
    assert told.evidence.farther_than == plain.evidence.farther_than < 1.0
    assert told.evidence.where == f"pid = '{farthest}'"
    assert phrase(told.evidence).endswith(f"Only cases that meet the condition pid = '{farthest}' were looked at.")
    assert plain.evidence.where == ""
    (same,) = ask(tiny, one.image, at=[one.center], pid=one.pid, scope="same-patient").answers
    assert same.answer.nearest == pytest.approx(plain.answer.nearest)


def test_a_filter_that_leaves_none_is_what_is_told(tiny: Tiny) -> None:  # noqa: F811
    one = tiny.nodules[6]
    (told,) = ask(tiny, one.image, at=[one.center], where="diameter_mm > 500").answers
    assert told.answer.matches == ()
    assert phrase(told.evidence) == (
        "No past case of another patient was found that meets the condition diameter_mm > 500."
    )
    assert told.evidence.farther_than is not None


def test_rows_whose_outcome_is_no_outcome_are_left_out_and_told(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    """An index may have been made by other hands, or before such rows were refused."""
    place = Path(shutil.copytree(tiny.index, tmp_path / "index"))
    with open_place(place) as index:
        for number, (name, outcome) in enumerate({"000/1": 3.0, "001/2": -1.0}.items()):
            embeddings, (facts,) = index.get((name,))
            index.update(embeddings, [{**facts, "malignant": outcome, "spiculation_present": 7.0 + number}])
    one = tiny.nodules[6]
    (told,) = ask(tiny, one.image, index=str(place), at=[one.center], pid=one.pid, k=24).answers
    assert told.evidence.malignant.patients == PATIENTS - 1, "both have another nodule"
    assert "The outcome of 2 of them does not count: it is no number from 0 to 1" in phrase(told.evidence)
    assert "000/1" in phrase(told.evidence)
    assert 0 <= told.evidence.traits[0].everywhere <= 1
    models = load_models(semantic=None, ssm=None, search=str(tiny.bundle), index=str(place))
    volume = replace(read_volume(one.image), acquisition=Acquisition(patient_id=one.pid))
    (near,) = neighbors_of_findings(volume, [outlined(volume, one, models)], models=models, k=24)
    assert near.malignant == told.evidence.malignant


NEVER = pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"where": "malignat = 1"}, "did you mean malignant"),
        ({"k": 99}, "got 99, expected 1 to 24"),
        ({"bundle": "other"}, "fingerprint of the index"),
        ({"slice_index": 3}, "with a table"),
    ],
)


@NEVER
def test_what_cannot_be_answered_is_refused_before_rows_are_embedded(
    tiny: Tiny,  # noqa: F811
    queries: tuple[Path, tuple[Nodule, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
    told: str,
) -> None:
    if "bundle" in options:
        options = {"bundle": another_bundle(tiny, tmp_path / "other")}

    def never(*_: object, **__: object) -> None:
        pytest.fail("it was embedded")

    monkeypatch.setattr("spicula.pipelines.search_job.embed_table", never)
    with pytest.raises(InputError, match=told):
        ask(tiny, queries[0], **options)


def test_a_scan_is_not_embedded_for_what_cannot_be_answered(
    tiny: Tiny,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = tiny.nodules[6]

    def never(*_: object, **__: object) -> None:
        pytest.fail("it was embedded")

    monkeypatch.setattr("spicula.pipelines.search_job.query_at", never)
    for options, told in (
        ({"where": "lobe = 'upper'"}, "a field, one of pid"),
        ({"k": 25}, "got 25, expected 1 to 24"),
        ({"scope": "cross-patient"}, "name the patient with --pid"),
        ({"slice_index": 4}, "slice 4: got no box on it, expected --slice with --box"),
    ):
        with pytest.raises(InputError, match=told):
            ask(tiny, one.image, at=[one.center], **options)


def test_what_the_reader_warned_of_is_told(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    """Of a scan with gaps, asked by a place and as the image of two rows of a table."""
    volume = chest_around(PLACES[0], (24, 44, 44), balls=[Ball(PLACES[0], 9.0)])
    slices = write_series(tmp_path / "ct", volume, patient_id="A", description="chest", study_date="20200102")
    slices[4].unlink()
    found = ask(tiny, tmp_path / "ct", at=[PLACES[0]], gaps="interpolate")
    assert found.warnings == read_volume(tmp_path / "ct", gaps="interpolate").warnings
    assert any("interpolated" in warning for warning in found.warnings)
    rows = [replace(tiny.nodules[0], pid="A", nodule_id=n, image=tmp_path / "ct").row() for n in ("1", "2")]
    table = write_table(tmp_path / "rows.csv", rows)
    assert ask(tiny, table, gaps="interpolate").warnings == found.warnings
    assert ask(tiny, table, gaps="warn").warnings != found.warnings


def gray(picture: Picture) -> np.ndarray:
    data = base64.b64decode(picture.image.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("L")).astype(float)


def shows_a_nodule(picture: Picture | None) -> bool:
    """Bright in its middle, lung around."""
    if picture is None:
        return False
    pixels = gray(picture)
    rows, columns = pixels.shape
    middle = pixels[rows // 2 - 4 : rows // 2 + 4, columns // 2 - 4 : columns // 2 + 4].mean()
    return bool(middle > np.median(pixels) + 40)


def test_pictures_are_found_by_the_path_of_the_image(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    images = tmp_path / "images"
    images.mkdir()
    rows = []
    for one in tiny.nodules[2:6]:
        rows.append(one.row(image_path=shutil.copy(one.image, images)))
    place = tmp_path / "index"
    build_index(write_table(tmp_path / "rows.csv", rows), str(place), bundle=tiny.bundle, models=tiny.models)
    one = tiny.nodules[0]
    options = {"index": str(place), "at": [one.center], "k": 4}
    (told,) = ask(tiny, one.image, pictures=True, **options).answers
    assert shows_a_nodule(told.picture)
    assert [shows_a_nodule(picture) for picture in told.pictures] == [True] * 4
    (images / "001.nii.gz").unlink()
    (images / "002.nii.gz").write_bytes(b"no image any more")
    (told,) = ask(tiny, one.image, pictures=True, **options).answers
    assert shows_a_nodule(told.picture)
    assert told.pictures == (None,) * 4


def test_pictures_are_found_by_series_in_a_folder_of_scans(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    scans = tmp_path / "scans"
    rows = []
    for number, (pid, diameter) in enumerate((("A", 9.0), ("B", 12.0), ("C", 15.0))):
        volume = chest_around(PLACES[0], (24, 44, 44), balls=[Ball(PLACES[0], diameter)], seed=number)
        write_series(scans / pid / "ct", volume, patient_id=pid, description="chest", study_date="20200102")
        rows.append(replace(tiny.nodules[0], pid=pid, image=scans / pid / "ct", date="").row())
    place = tmp_path / "index"
    told = build_index(write_table(tmp_path / "rows.csv", rows), str(place), bundle=tiny.bundle, models=tiny.models)
    assert told.failed == ()
    with open_place(place) as index:
        facts = index.get(("B/1",))[1][0]
    assert facts["study_date"] == "2020-01-02"
    assert facts["series_uid"] == read_volume(scans / "B").series_uid
    moved = scans.rename(tmp_path / "moved")
    (moved / "C").rename(moved / "of somebody")  # found in all scans where no folder has the patient's name
    shutil.rmtree(moved / "B")
    query = tmp_path / "query"
    asked = chest_around(PLACES[0], (24, 44, 44), balls=[Ball(PLACES[0], 10.0)], seed=9)
    write_series(query, asked, patient_id="Q", description="chest", study_date="20200102")

    def shown(**options: object) -> dict[str, bool]:
        (one,) = ask(tiny, query, index=str(place), at=[PLACES[0]], k=3, pictures=True, **options).answers
        assert (one.answer.query.pid, shows_a_nodule(one.picture)) == ("Q", True)
        return {
            str(match.facts["pid"]): shows_a_nodule(picture)
            for match, picture in zip(one.answer.matches, one.pictures, strict=True)
        }

    assert shown(images=moved) == {"A": True, "B": False, "C": True}
    assert shown() == {"A": False, "B": False, "C": False}
    assert shown(images=tmp_path / "nowhere") == {"A": False, "B": False, "C": False}


@pytest.fixture
def with_index(tiny: Tiny) -> Models:  # noqa: F811
    return load_models(semantic=None, ssm=None, search=str(tiny.bundle), index=str(tiny.index))


def outlined(volume: Volume, one: Nodule, models: Models) -> Finding:
    mask = outline_at(volume, one.center, models=models, what="nodule")
    return Finding(one.nodule_id, one.center, one.diameter, mask=mask)


def test_findings_of_a_scan_have_neighbors_of_other_patients(tiny: Tiny, with_index: Models) -> None:  # noqa: F811
    one, other = tiny.nodules[6:8]
    volume = replace(read_volume(one.image), acquisition=Acquisition(patient_id=one.pid))
    findings = [
        outlined(volume, one, with_index),
        Finding("bare", other.center, 5.0),
        outlined(volume, other, with_index),
    ]
    found = neighbors_of_findings(volume, findings, models=with_index, k=2 * PATIENTS - 2)
    assert [near.finding_id for near in found] == [one.nodule_id, other.nodule_id]
    strangers = {name.name for name in tiny.nodules if name.pid != one.pid}
    for near, nodule in zip(found, (one, other), strict=True):
        assert [match.finding_id for match in near.matches] == nearest_by_hand(tiny, nodule.name, among=strangers)
        assert near.fingerprint == tiny.embedder.fingerprint
        assert near.farther_than is not None
    assert neighbors_of_findings(volume, findings[1:2], models=with_index) == ()
    assert neighbors_of_findings(volume, findings, models=tiny.models) == ()
    nobody = replace(volume, acquisition=Acquisition())
    (near,) = neighbors_of_findings(nobody, findings[:1], models=with_index, k=3)
    assert near.matches[0].finding_id == one.name, "nobody knows whose scan it is"


def test_analyze_has_them_beside_what_it_had(tiny: Tiny, with_index: Models) -> None:  # noqa: F811
    one = tiny.nodules[6]
    volume = replace(read_volume(one.image), acquisition=Acquisition(patient_id=one.pid))
    finding = outlined(volume, one, with_index)
    withal, without = (analyze_findings(volume, [finding], models=models) for models in (with_index, tiny.models))
    assert without.neighbors == ()
    assert without.neighbors_of(one.nodule_id) is None
    assert withal.predictions == without.predictions
    near = withal.neighbors_of(one.nodule_id)
    assert near is not None
    assert len(near.matches) == 10
    assert isinstance(near.matches[0], Match)
    assert one.pid not in {match.facts["pid"] for match in near.matches}
    assert tiny.embedder.fingerprint in withal.fingerprints


def test_an_index_that_is_away_damaged_or_foreign_costs_the_past_cases_alone(
    tiny: Tiny,  # noqa: F811
    with_index: Models,
    tmp_path: Path,
) -> None:
    one = tiny.nodules[6]
    volume = replace(read_volume(one.image), acquisition=Acquisition(patient_id=one.pid))
    finding = outlined(volume, one, with_index)
    damaged = Path(shutil.copytree(tiny.index, tmp_path / "damaged"))
    (damaged / "index.sqlite").write_bytes(b"no data base any more")
    foreign = load_models(
        semantic=None, ssm=None, search=str(another_bundle(tiny, tmp_path / "other")), index=str(tiny.index)
    )
    expected = analyze_findings(volume, [finding], models=tiny.models)
    for models, told in (
        (replace(with_index, index=str(tmp_path / "away")), "away: no such folder"),
        (replace(with_index, index=str(damaged)), "damaged"),
        (foreign, "got vectors of"),
    ):
        found = analyze_findings(volume, [finding], models=models)
        assert found.neighbors == ()
        assert found.predictions == expected.predictions
        *others, last = found.warnings
        assert tuple(others) == expected.warnings
        assert last.startswith("No past cases were looked up: ")
        assert told in last
        with pytest.raises(SpiculaError, match=told):
            require_index(models)
    require_index(with_index)
    with pytest.raises(InputError, match="--search-bundle"):
        require_index(tiny.models)
    with pytest.raises(InputError, match="name one with --index"):
        require_index(replace(with_index, index=None))


def test_findings_do_not_find_themselves_where_nobody_knows_the_patient(tiny: Tiny, with_index: Models) -> None:  # noqa: F811
    one = tiny.nodules[6]
    volume = read_volume(one.image)
    assert (volume.acquisition.patient_id, Path(volume.acquisition.source)) == ("", one.image)
    (near,) = neighbors_of_findings(volume, [outlined(volume, one, with_index)], models=with_index, k=24)
    assert one.pid not in {match.facts["pid"] for match in near.matches}


def test_without_a_shipped_index_one_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spicula.pipelines import search_job

    monkeypatch.setattr(search_job, "LIDC_INDEX", tmp_path / "none")
    with pytest.raises(InputError, match="name one with --index"):
        search_job.run_search(tmp_path / "nodules.csv")
