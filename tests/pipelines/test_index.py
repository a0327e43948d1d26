"""Making and keeping an index of nodules: what gets in, what does not and why, and what is left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.bundle import MANIFEST, load_bundle
from spicula.core.errors import BundleError, InputError
from spicula.formats import read_volume
from spicula.pipelines.embed_nodules import embed_table, outline_at
from spicula.pipelines.index import add_nodules, build_index, embedder_of, open_place, rebuild_index, remove_nodules
from spicula.retrieval.opening import open_index

from .search_tiny import COLUMNS, DIMENSIONS, MEMBERS, PATIENTS, Nodule, Tiny, tiny, write_table  # noqa: F401

AIR = {"coordX": -76.0, "coordY": 22.0, "coordZ": 0.0}
"""Empty lung in every image."""


@pytest.fixture
def index(tiny: Tiny, tmp_path: Path) -> Path:  # noqa: F811
    """The index of all nodules, to be changed."""
    return Path(shutil.copytree(tiny.index, tmp_path / "index"))


@pytest.fixture
def build(tiny: Tiny, tmp_path: Path) -> Callable[..., object]:  # noqa: F811
    """Make an index of rows, ``new`` by name."""

    def make(*rows: dict[str, object], columns: tuple[str, ...] = COLUMNS, **options: object) -> object:
        table = write_table(tmp_path / "rows.csv", rows, columns)
        return build_index(table, str(tmp_path / "new"), bundle=tiny.bundle, models=tiny.models, **options)

    return make


def contents(place: Path | str) -> dict[str, tuple[bytes, dict[str, object]]]:
    """Vector and facts of everything in an index."""
    with open_place(place) as opened:
        embeddings, facts = opened.get(opened.ids())
        assert list(opened.check()) == []
    return {
        name: (vector.tobytes(), dict(known))
        for name, vector, known in zip(embeddings.finding_ids, embeddings.vectors, facts, strict=True)
    }


def other_bundle(tiny: Tiny, folder: Path) -> Path:  # noqa: F811
    """The same networks that see less of a nodule: another identity."""
    shutil.copytree(tiny.bundle, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["preprocessing"]["middle"] /= 2
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def test_an_index_holds_every_nodule_with_all_that_is_known(tiny: Tiny) -> None:  # noqa: F811
    with open_place(tiny.index) as opened:
        stats = opened.stats()
        assert opened.ids() == tuple(sorted(one.name for one in tiny.nodules))
        assert list(opened.check()) == []
    assert (stats.backend, stats.findings, stats.patients) == ("exact", 2 * PATIENTS, PATIENTS)
    assert (stats.dimensions, stats.fingerprint) == (MEMBERS * DIMENSIONS, load_bundle(tiny.bundle).fingerprint)
    texts = {"pid", "nodule_id", "type", "study_date", "ward", "image_path"}
    numbers = {"diameter_mm", "volume_mm3", "x_mm", "y_mm", "z_mm", "malignant", "spiculation_present"}
    assert {name for name, kind in stats.fields.items() if kind == "text"} == texts
    assert {name for name, kind in stats.fields.items() if kind == "number"} == numbers


def test_facts_are_measured_or_as_written_and_the_vector_is_the_embedders(tiny: Tiny) -> None:  # noqa: F811
    kept, nodule = contents(tiny.index), tiny.nodules[2]
    vector, facts = kept[nodule.name]
    assert facts["diameter_mm"] == pytest.approx(nodule.diameter, abs=1.5)
    assert {name: facts[name] for name in ("pid", "nodule_id", "x_mm", "type", "study_date", "malignant", "ward")} == {
        "pid": "001", "nodule_id": "1", "x_mm": nodule.center[0], "type": nodule.kind, "study_date": nodule.date,
        "malignant": float(nodule.malignant), "ward": nodule.ward,
    }  # fmt: skip
    assert facts["image_path"] == str(nodule.image)
    assert "study_date" not in kept[tiny.nodules[3].name][1], "an empty cell is not known"
    assert "spiculation_present" not in kept[tiny.nodules[0].name][1]
    volume = read_volume(nodule.image)
    mask = outline_at(volume, nodule.center, models=tiny.models, what="nodule")
    np.testing.assert_array_equal(np.frombuffer(vector, np.float32), tiny.embedder(volume, mask))


def test_what_is_there_is_passed_over_or_put_in_place_of(tiny: Tiny, index: Path, tmp_path: Path) -> None:  # noqa: F811
    whole, some = contents(index), tiny.nodules[4:8]
    assert remove_nodules(str(index), [some[0].name, some[3].name]) == 2
    table = write_table(tmp_path / "more.csv", [one.row(ward="moved") for one in some])
    told = add_nodules(table, str(index), bundle=tiny.bundle, models=tiny.models)
    assert (told.added, told.kept, told.failed) == (2, 2, ())
    after = contents(index)
    assert after.keys() == whole.keys()
    assert {name: after[name][0] for name in after} == {name: whole[name][0] for name in whole}
    moved = {name for name, (_, facts) in after.items() if facts["ward"] == "moved"}
    assert moved == {some[0].name, some[3].name}
    told = add_nodules(table, str(index), replace=True, bundle=tiny.bundle, models=tiny.models)
    assert (told.added, told.kept, told.failed) == (4, 0, ())
    moved = {name for name, (_, facts) in contents(index).items() if facts["ward"] == "moved"}
    assert moved == {one.name for one in some}


def test_a_replaced_nodule_has_the_vector_of_its_new_place(tiny: Tiny, index: Path, tmp_path: Path) -> None:  # noqa: F811
    one, other = tiny.nodules[8], tiny.nodules[9]
    before = contents(index)
    place = dict(zip(("coordX", "coordY", "coordZ"), other.center, strict=True))
    table = write_table(tmp_path / "moved.csv", [one.row(**place)])
    add_nodules(table, str(index), replace=True, bundle=tiny.bundle, models=tiny.models)
    after = contents(index)
    assert len(after) == len(before)
    assert after[one.name][0] == before[other.name][0] != before[one.name][0]
    assert after[one.name][1]["x_mm"] == other.center[0]


def test_nodules_are_removed_by_name_and_by_condition(tiny: Tiny, index: Path) -> None:  # noqa: F811
    place, lung = str(index), {one.name for one in tiny.nodules if one.kind == "lung"}
    with pytest.raises(InputError, match="none named"):
        remove_nodules(place, [])
    with pytest.raises(InputError, match="no finding 999/1"):
        remove_nodules(place, ["000/1", "999/1"])
    with pytest.raises(InputError, match="a field, one of pid, nodule_id"):
        remove_nodules(place, [], where="lobe = 'upper'")
    assert len(contents(index)) == len(tiny.nodules)
    assert remove_nodules(place, ["000/1", "001/1", "000/1"], where="type = 'lung'") == 1 + len(lung)
    assert set(contents(index)) == {one.name for one in tiny.nodules} - lung - {"000/1"}
    assert remove_nodules(place, [], where="type = 'lung'") == 0


def test_rows_that_cannot_be_used_are_told_and_all_others_are_there(
    tiny: Tiny,  # noqa: F811
    build: Callable[..., object],
    tmp_path: Path,
) -> None:
    good, flipped, air, bad, twice, last = tiny.nodules[:6]
    x, y, z = flipped.center
    progress: list[tuple[int, int]] = []
    told = build(
        good.row(),
        flipped.row(coordX=-x, coordY=-y, coordZ=z),
        air.row(**AIR),
        bad.row(coordY="left"),
        good.row(nodule_id="absent", image_path=tmp_path / "no-such.nii.gz"),
        good.row(pid=""),
        twice.row(),
        twice.row(ward="other"),
        last.row(),
        progress=lambda done, failed: progress.append((done, failed)),
    )
    assert set(contents(tmp_path / "new")) == {good.name, twice.name, last.name}
    assert told.added == 3
    assert progress[-1] == (9, 6)
    for sentence, (who, why) in zip(
        told.failed,
        [
            (flipped, "flipping"),
            (air, "nothing but air or empty lung"),
            (bad, "coordY is 'left', not a number"),
            (replace(good, nodule_id="absent"), "no-such.nii.gz"),
            (replace(good, pid=""), "pid is empty"),
            (twice, "there twice in the table"),
        ],
        strict=True,
    ):
        assert sentence.startswith(f"nodule {who.nodule_id} of {who.pid}: ")
        assert why in sentence
    assert contents(tmp_path / "new")[twice.name][1]["ward"] == twice.ward, "the first of both counts"


@pytest.mark.parametrize("spoiled", ["places", "columns", "no rows", "no file"])
def test_nothing_is_left_behind_where_nothing_could_be_embedded(
    tiny: Tiny,  # noqa: F811
    tmp_path: Path,
    spoiled: str,
) -> None:
    rows = [one.row(**AIR) for one in tiny.nodules[:2]]
    table = tmp_path / "rows.csv"
    if spoiled != "no file":
        columns = COLUMNS[:2] + COLUMNS[3:] if spoiled == "columns" else COLUMNS
        rows = [{name: row[name] for name in columns} for row in rows]
        write_table(table, [] if spoiled == "no rows" else rows, columns)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"rows\.csv"):
        build_index(table, str(tmp_path / "new"), bundle=tiny.bundle, models=tiny.models)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_is_taken_is_left_alone(tiny: Tiny, tmp_path: Path, index: Path) -> None:  # noqa: F811
    other = tmp_path / "notes"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    before = contents(index)
    for place in (other, index):
        with pytest.raises(InputError, match="taken"):
            build_index(tiny.table, str(place), bundle=tiny.bundle, models=tiny.models)
    assert (other / "notes.txt").read_text() == "mine"
    assert contents(index) == before


def test_the_index_of_another_bundle_is_refused(tiny: Tiny, index: Path, tmp_path: Path) -> None:  # noqa: F811
    other = other_bundle(tiny, tmp_path / "other")
    before = contents(index)
    with pytest.raises(InputError, match=r"made by nodule-search@\w+, expected nodule-search@\w+.*--bundle"):
        add_nodules(tiny.table, str(index), bundle=other, models=tiny.models)
    assert contents(index) == before
    with pytest.raises(BundleError, match="expected search"):
        embedder_of(tiny.models.risk.folder)
    with pytest.raises(InputError, match="no such folder"):
        add_nodules(tiny.table, str(tmp_path / "nowhere"), bundle=tiny.bundle, models=tiny.models)


def test_a_table_with_decimal_commas(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    one, other = tiny.nodules[:2]
    lines = ["pid;nodule_id;image_path;coordX;coordY;coordZ;smoked_years;ward"]
    for nodule in (one, other):
        place = ";".join(f"{value + 0.25:.2f}".replace(".", ",") for value in nodule.center)
        lines.append(f"{nodule.pid};{nodule.nodule_id};{nodule.image};{place};12,5;3,4 B")
    table = tmp_path / "rows.csv"
    table.write_text("\n".join(lines) + "\n")
    told = build_index(table, str(tmp_path / "new"), bundle=tiny.bundle, models=tiny.models)
    assert (told.added, told.failed) == (2, ())
    _, facts = contents(tmp_path / "new")[one.name]
    assert facts["x_mm"] == one.center[0] + 0.25
    assert (facts["smoked_years"], facts["ward"]) == (12.5, "3,4 B")


@pytest.mark.parametrize("coords", ["ras", "voxel"])
def test_the_other_ways_to_say_a_place(tiny: Tiny, tmp_path: Path, coords: str) -> None:  # noqa: F811
    one, (x, y, z) = tiny.nodules[0], tiny.nodules[0].center
    place = (-x, -y, z) if coords == "ras" else read_volume(one.image).geometry.world_to_index((x, y, z))[::-1]
    row = one.row(**dict(zip(("coordX", "coordY", "coordZ"), place, strict=True)))
    table = write_table(tmp_path / "rows.csv", [row])
    build_index(table, str(tmp_path / "new"), bundle=tiny.bundle, models=tiny.models, coords=coords)
    vector, facts = contents(tmp_path / "new")[one.name]
    expected, known = contents(tiny.index)[one.name]
    np.testing.assert_allclose(np.frombuffer(vector, np.float32), np.frombuffer(expected, np.float32), atol=1e-4)
    assert facts["x_mm"] == pytest.approx(known["x_mm"], abs=1e-3)


def test_a_column_is_numbers_or_text_as_a_whole(
    tiny: Tiny,  # noqa: F811
    build: Callable[..., object],
    tmp_path: Path,
) -> None:
    """One cell that is no number makes text of a column, wherever it stands; what means absent does not."""
    rooms, rates = ("12", "13 B", "n/a"), ("1e1", "", "7.5")
    rows = [one.row(room=room, rate=rate) for one, room, rate in zip(tiny.nodules[:3], rooms, rates, strict=True)]
    told = build(*rows, columns=(*COLUMNS, "room", "rate"))
    assert (told.added, told.failed) == (3, ())
    known = [facts for _, facts in contents(tmp_path / "new").values()]
    assert [facts.get("room") for facts in known] == ["12", "13 B", None]
    assert [facts.get("rate") for facts in known] == [10.0, None, 7.5]
    # What is added later follows: digits are text where text is kept, and text does not fit where numbers are.
    more = [tiny.nodules[3].row(room="14", rate="3"), tiny.nodules[4].row(room="15", rate="high")]
    table = write_table(tmp_path / "more.csv", more, (*COLUMNS, "room", "rate"))
    told = add_nodules(table, str(tmp_path / "new"), bundle=tiny.bundle, models=tiny.models)
    assert told.added == 1
    (failure,) = told.failed
    assert failure.startswith(f"nodule {tiny.nodules[4].nodule_id} of {tiny.nodules[4].pid}: ")
    assert "'rate'" in failure
    assert "'high'" in failure
    facts = contents(tmp_path / "new")[tiny.nodules[3].name][1]
    assert (facts["room"], facts["rate"]) == ("14", 3.0)


def test_a_column_cannot_move_a_nodule(tiny: Tiny, build: Callable[..., object], tmp_path: Path) -> None:  # noqa: F811
    one = tiny.nodules[0]
    build(one.row(x_mm="far away", image_path=one.image), columns=(*COLUMNS, "x_mm"))
    assert contents(tmp_path / "new")[one.name][1]["x_mm"] == one.center[0]


def test_a_name_that_no_field_can_have_is_told(tiny: Tiny, build: Callable[..., object], tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(InputError, match="name of a field"):
        build(tiny.nodules[0].row(_hidden="1"), columns=(*COLUMNS, "_hidden"))
    assert not (tmp_path / "new").exists()


def test_an_index_is_built_for_faiss_and_built_anew(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("faiss", reason="pip install 'spicula[search]'")
    table, place = write_table(tmp_path / "rows.csv", [one.row() for one in tiny.nodules[:6]]), tmp_path / "new"
    told = build_index(table, str(place), backend="faiss-hnsw", bundle=tiny.bundle, models=tiny.models)
    assert (told.added, told.failed) == (6, ())
    assert_alike(place, tiny, unindexed=0)
    more = write_table(tmp_path / "more.csv", [one.row() for one in tiny.nodules[6:9]])
    add_nodules(more, str(place), backend="faiss-hnsw", bundle=tiny.bundle, models=tiny.models)
    remove_nodules(str(place), [tiny.nodules[1].name])
    assert_alike(place, tiny, unindexed=3)
    rebuild_index(str(place), backend="faiss-hnsw")
    assert_alike(place, tiny, unindexed=0)
    with pytest.raises(InputError, match=r"none for exact.*faiss-hnsw"):
        rebuild_index(str(place), backend="exact")


def assert_alike(place: Path, tiny: Tiny, *, unindexed: int) -> None:  # noqa: F811
    """Graph and exact search agree on so few, and both are sound."""
    queries = tiny.embedder
    with open_index(place, backend="faiss-hnsw") as graph, open_index(place) as exact:
        assert (graph.stats().backend, graph.stats().unindexed) == ("faiss-hnsw", unindexed)
        assert [*graph.check(), *exact.check()] == []
        vectors = exact.get(exact.ids())[0].vectors
        found = [
            [[(match.finding_id, match.distance) for match in matches] for matches in answers]
            for answers in (
                index.search(vectors, 4, fingerprint=queries.fingerprint) for index in (graph, exact)
            )
        ]  # fmt: skip
    assert found[0] == found[1]


def test_the_order_of_a_table_is_kept_and_an_image_is_read_once_in_a_row(
    tiny: Tiny,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[Path] = []

    def counted(path: Path, **options: str) -> object:
        read.append(path)
        return read_volume(path, **options)

    monkeypatch.setattr("spicula.pipelines.embed_nodules.read_volume", counted)
    first, second, third = tiny.nodules[:3]
    table = write_table(tmp_path / "rows.csv", [second.row(), first.row(), third.row()])
    found = list(embed_table(table, embedder=tiny.embedder, models=tiny.models))
    assert [one.finding_id for one in found] == [second.name, first.name, third.name]
    assert read == [first.image, third.image]


def test_an_index_in_a_database(tiny: Tiny, tmp_path: Path, postgres_url: str) -> None:  # noqa: F811
    place, some = f"{postgres_url}#nodules", tiny.nodules[:4]
    table = write_table(tmp_path / "rows.csv", [one.row() for one in some] + [some[0].row(nodule_id="3", **AIR)])
    told = build_index(table, place, bundle=tiny.bundle, models=tiny.models)
    assert told.added == 4
    assert "nothing but air" in told.failed[0]
    in_folder = contents(tiny.index)
    assert contents(place) == {one.name: in_folder[one.name] for one in some}
    told = add_nodules(table, place, replace=True, bundle=tiny.bundle, models=tiny.models)
    assert (told.added, told.kept) == (4, 0)
    rebuild_index(place)
    assert remove_nodules(place, ["000/1"], where="nodule_id = '2'") == 3
    assert list(contents(place)) == ["001/1"]
    with pytest.raises(InputError, match="exists"):
        build_index(table, place, bundle=tiny.bundle, models=tiny.models)
    with pytest.raises(InputError, match="no name"):
        open_place(postgres_url)
    empty = write_table(tmp_path / "empty.csv", [some[0].row(**AIR)])
    for _ in range(2):
        with pytest.raises(InputError, match="none that could be embedded"):
            build_index(empty, f"{postgres_url}#nothing", bundle=tiny.bundle, models=tiny.models)
