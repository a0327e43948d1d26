"""Making and keeping an index of nodules: what gets in, what does not and why, and what is left behind."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.bundle import MANIFEST, load_bundle
from spicula.core.errors import BundleError, InputError, MissingExtraError
from spicula.formats import read_volume
from spicula.pipelines.embed_nodules import embed_table, outline_at
from spicula.pipelines.index import (
    add_nodules,
    build_index,
    check_place,
    compact_place,
    create_place,
    embedder_of,
    open_place,
    rebuild_index,
    remove_nodules,
)
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
    add_nodules(more, str(place), bundle=tiny.bundle, models=tiny.models)
    remove_nodules(str(place), [tiny.nodules[1].name])
    assert_alike(place, tiny, unindexed=3)
    rebuild_index(str(place))
    assert_alike(place, tiny, unindexed=0)
    for backend in ("exact", "faiss-flat"):
        with pytest.raises(InputError, match=rf"none for {backend}.*faiss-hnsw"):
            rebuild_index(str(place), backend=backend)
    with pytest.raises(InputError, match=r"faiss-ivfpq: got 8 findings, expected 16\. Hint: until there are more"):
        rebuild_index(str(place), backend="faiss-ivfpq")
    with open_place(place) as opened:
        assert (opened.stats().backend, opened.uses_structure) == ("faiss-hnsw", True)
    remove_nodules(str(place), [], where="diameter_mm > 0")
    with pytest.raises(InputError, match=r"an empty index, expected findings\. Hint: `spicula index add`"):
        rebuild_index(str(place))


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


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("malignant", "3", r"malignant: got 3.0, expected a number from 0 to 1. Hint: 1 for malignant, 0 for benign"),
        ("malignant", "-0.5", "malignant: got -0.5"),
        ("malignant", "yes", "malignant: got 'yes', expected a number from 0 to 1"),
        ("spiculation_present", "4", r"spiculation_present: got 4.0.*Hint: 1 where it is so, .* rating_spiculation"),
        ("spiculation_present", "marked", "spiculation_present: got 'marked'"),
    ],
)
def test_a_row_that_no_evidence_can_be_made_of_is_told_and_left_out(
    tiny: Tiny,  # noqa: F811
    build: Callable[..., object],
    tmp_path: Path,
    column: str,
    cell: str,
    message: str,
) -> None:
    """The others keep their numbers, and the wrong one costs no reading of its image."""
    one, wrong, other = tiny.nodules[2], tiny.nodules[4], tiny.nodules[6]
    told = build(one.row(), wrong.row(image_path="absent.nii", **{column: cell}), other.row(malignant="0.5"))
    assert told.added == 2
    (failure,) = told.failed
    assert failure.startswith(f"nodule {wrong.nodule_id} of {wrong.pid}: {column}: got ")
    assert re.search(message, failure)
    facts = {name: known for name, (_, known) in contents(tmp_path / "new").items()}
    assert facts[one.name][column] == float(one.row()[column])
    assert facts[other.name]["malignant"] == 0.5
    table = write_table(tmp_path / "more.csv", [wrong.row(**{column: cell}), wrong.row(nodule_id="9", **{column: ""})])
    told = add_nodules(table, str(tmp_path / "new"), bundle=tiny.bundle, models=tiny.models)
    assert (told.added, len(told.failed)) == (1, 1)
    assert column not in contents(tmp_path / "new")[f"{wrong.pid}/9"][1]


def test_check_tells_of_evidence_that_an_older_version_let_in(tiny: Tiny, index: Path, tmp_path: Path) -> None:  # noqa: F811
    assert check_place(str(index)) == ()
    names = [one.name for one in tiny.nodules[:5]]
    with open_place(index) as opened:
        embeddings, facts = opened.get(names)
        opened.update(embeddings, [{**known, "malignant": 3.0, "texture_solid": "yes"} for known in facts])
    outcome, texture = check_place(str(index))
    assert outcome.startswith("malignant of 000/1, 000/2, 001/1 and 2 more: got number that is no share")
    assert "`spicula index add --replace`" in outcome
    assert texture.startswith("texture_solid of 000/1")
    assert "build the index anew" in texture


def test_nodules_that_are_there_are_passed_over_before_anything_is_read(
    tiny: Tiny,  # noqa: F811
    index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    real = type(tiny.embedder).__call__
    monkeypatch.setattr(type(tiny.embedder), "__call__", lambda *given: seen.append("embedded") or real(*given))
    rows = [one.row(image_path=tmp_path / "moved away" / one.image.name) for one in tiny.nodules[:6]]
    rows += [tiny.nodules[7].row(nodule_id="new"), tiny.nodules[8].row(malignant="9")]
    table, before = write_table(tmp_path / "rows.csv", rows), contents(index)
    seen.clear()
    told = add_nodules(table, str(index), bundle=tiny.bundle, models=tiny.models)
    assert (told.added, told.kept, told.failed) == (1, 7, ())
    assert len(seen) <= 2, "the new one, and the one that a bundle is tried with"
    assert contents(index).keys() == before.keys() | {f"{tiny.nodules[7].pid}/new"}


def test_what_another_process_added_meanwhile_is_kept(
    tiny: Tiny,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = str(tmp_path / "new")
    create_place(place, fingerprint=tiny.embedder.fingerprint, dimensions=MEMBERS * DIMENSIONS)
    first, both = (
        write_table(
            tmp_path / f"{number}.csv", [one.row(ward=f"ward {number}") for one in tiny.nodules[2 - number : 4]]
        )
        for number in (1, 2)
    )

    def meanwhile(done: int, failed: int) -> None:
        if done == 4:  # all of them wait to be added together
            add_nodules(first, place, bundle=tiny.bundle, models=tiny.models)

    told = add_nodules(both, place, bundle=tiny.bundle, models=tiny.models, progress=meanwhile)
    assert (told.added, told.kept) == (1, 3)
    assert [known["ward"] for _, known in contents(place).values()] == ["ward 2", "ward 1", "ward 1", "ward 1"]


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores it
import spicula.cli.searching as searching
import spicula.pipelines.index as index
index.TOGETHER = 2
last = int(sys.argv.pop(1))
def progress(done, failed):
    if done == last:
        print("waits", file=sys.stderr, flush=True)
        signal.pause()
searching._progress = progress
sys.argv = ["spicula", *sys.argv[1:]]
from spicula.cli import main
main()
"""


SOME = 12
"""Nodules of a table that is not embedded to its end."""


def some_of(tiny: Tiny, folder: Path) -> Path:  # noqa: F811
    return write_table(folder / "some.csv", [one.row() for one in tiny.nodules[:SOME]])


def stopped(after: int, how: signal.Signals, *arguments: object) -> tuple[int, list[str]]:
    """Run a command and stop it after so many nodules; gives its status and what it said."""
    command = [sys.executable, "-c", INTERRUPTED, str(after), *map(str, arguments)]
    said = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stderr is not None
        for line in worker.stderr:
            if line == "waits\n":
                worker.send_signal(how)
            else:
                said.append(line.rstrip("\n"))
    return worker.returncode, said


@pytest.mark.parametrize("where", ["folder", "database"])
def test_what_an_interrupt_leaves_is_told_with_the_way_on(
    tiny: Tiny,  # noqa: F811
    tmp_path: Path,
    where: str,
    request: pytest.FixtureRequest,
) -> None:
    place = str(tmp_path / "new") if where == "folder" else f"{request.getfixturevalue('postgres_url')}#nodules"
    table, options = some_of(tiny, tmp_path), ("--bundle", tiny.bundle)
    status, said = stopped(3, signal.SIGINT, "index", "build", table, "--out", place, *options)
    there = contents(place)
    assert (status, len(said)) == (1, 1), said
    assert len(there) == 3, "what was embedded by then, and not only what was added together"
    assert said[0].startswith(f"error: interrupted: got {len(there)} nodules in {place}. Hint: go on with ")
    assert f"`spicula index add {place} {table}`" in said[0]
    assert "nothing half-written" not in said[0]
    with pytest.raises(InputError, match=r"Hint: open it, put more into it with `spicula index add`"):
        build_index(table, place, bundle=tiny.bundle, models=tiny.models)
    assert contents(place) == there
    told = add_nodules(table, place, bundle=tiny.bundle, models=tiny.models)
    assert (told.added, told.kept) == (SOME - len(there), len(there))
    assert contents(place) == {name: known for name, known in contents(tiny.index).items() if name in contents(place)}


def test_a_kill_while_building_loses_little_and_can_be_gone_on_from(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    place, table, options = tmp_path / "new", some_of(tiny, tmp_path), ("--bundle", tiny.bundle)
    status, _ = stopped(5, signal.SIGKILL, "index", "build", table, "--out", place, *options)
    assert status == -signal.SIGKILL
    assert len(contents(place)) == 4, "what was added together"
    status, said = stopped(7, signal.SIGINT, "index", "add", place, table, *options)
    assert (status, said[0].startswith("error: interrupted: got ")) == (1, True)
    assert len(contents(place)) == 7
    told = add_nodules(table, str(place), bundle=tiny.bundle, models=tiny.models)
    assert (told.added, told.kept, len(contents(place))) == (SOME - 7, 7, SOME)


def test_a_kill_before_the_first_nodule_is_in_can_be_built_over(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    place, table = tmp_path / "new", write_table(tmp_path / "rows.csv", [one.row() for one in tiny.nodules[:2]])
    command = ["index", "build", str(tiny.table), "--out", str(place), "--bundle", str(tiny.bundle)]
    worker = subprocess.Popen([sys.executable, "-c", INTERRUPTED, "0", *command], stderr=subprocess.DEVNULL)
    while not place.exists() and worker.poll() is None:
        threading.Event().wait(0.001)
    worker.send_signal(signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    assert contents(place) == {}
    with pytest.raises(InputError, match="taken"):
        build_index(table, str(place), bundle=other_bundle(tiny, tmp_path / "other"), models=tiny.models)
    with pytest.raises(InputError, match="none that could be embedded"):
        build_index(
            write_table(tmp_path / "air.csv", [tiny.nodules[0].row(**AIR)]), str(place), bundle=tiny.bundle,
            models=tiny.models,
        )  # fmt: skip
    assert contents(place) == {}, "it was there before"
    assert build_index(table, str(place), bundle=tiny.bundle, models=tiny.models).added == 2


def test_what_was_removed_is_compacted_away(tiny: Tiny, index: Path, postgres_url: str) -> None:  # noqa: F811
    pytest.importorskip("faiss", reason="pip install 'spicula[search]'")
    rebuild_index(str(index))
    names = [one.name for one in tiny.nodules[:8]]
    gone = [contents(index)[name][0] for name in names]
    remove_nodules(str(index), names)
    right = contents(index)
    assert any(vector in path.read_bytes() for path in index.iterdir() for vector in gone)
    before, after = compact_place(str(index))
    assert after < before
    assert not any(vector in path.read_bytes() for path in index.iterdir() for vector in gone)
    assert contents(index) == right
    with open_place(index) as opened:
        assert (opened.stats().backend, opened.stats().unindexed) == ("faiss-hnsw", 0)
    with pytest.raises(InputError, match=r"got one in a database, expected a folder. Hint: .*VACUUM"):
        compact_place(f"{postgres_url}#nodules")


def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, str]:
    """Run ``spicula index``; gives its status and all it said."""
    from spicula.cli import main

    monkeypatch.setattr("sys.argv", ["spicula", "index", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), "".join(capsys.readouterr())


def test_the_commands_use_what_was_built_and_check_it(
    index: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss", reason="pip install 'spicula[search]'")

    def run(*arguments: object) -> tuple[int, str]:
        return command(capsys, monkeypatch, *arguments)

    assert "backend        exact\n" in run("stats", index)[1]
    assert run("rebuild", index) == (0, f"{index}: built\n")
    assert "backend        faiss-hnsw\n" in run("stats", index)[1]
    assert "backend        exact\n" in run("stats", index, "--backend", "exact")[1]
    assert run("check", index) == (0, f"{index}: sound\n")
    (structure,) = index.glob("hnsw-*.faiss")
    structure.write_bytes(structure.read_bytes()[:-1])
    status, said = run("check", index)
    assert (status, f"{structure.name}: damaged" in said) == (1, True)
    status, said = run("stats", index)
    assert (status, said.count("warning: "), "backend        exact\n" in said) == (0, 1, True)
    assert "searched one by one, not by faiss-hnsw" in said
    assert run("rebuild", index)[0] == 0
    assert run("remove", index, "--id", "000/1")[1] == "1 removed\n"
    status, said = run("compact", index)
    assert (status, said.endswith(" now\n")) == (0, True)
    assert run("check", index) == (0, f"{index}: sound\n")
    assert "unindexed      0\n" in run("stats", index)[1]


def test_a_backend_that_is_not_installed_is_told_before_anything_is_done(
    tiny: Tiny,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"spicula\[search\]"):
        build_index(tiny.table, str(tmp_path / "new"), backend="faiss-hnsw", bundle=tiny.bundle, models=tiny.models)
    assert not (tmp_path / "new").exists()


def test_a_database_is_searched_by_what_was_built_there(
    tiny: Tiny,  # noqa: F811
    postgres_url: str,
) -> None:
    place = f"{postgres_url}#nodules"
    create_place(place, fingerprint=tiny.embedder.fingerprint, dimensions=MEMBERS * DIMENSIONS)
    with pytest.raises(InputError, match="an empty index"):
        rebuild_index(place)
    with open_index(tiny.index) as source, open_place(place) as opened:
        opened.add(*source.get(source.ids()))
        query = source.get(["003/1"])[0].vectors
        assert opened.stats().backend == "pgvector"
    with pytest.raises(InputError, match="no graph that is whole"), open_place(place, ef_search=50) as opened:
        opened.search(query, 1, fingerprint=opened.fingerprint)
    for backend in ("faiss-hnsw", "faiss-flat"):
        for refused in (
            lambda backend=backend: open_place(place, backend=backend),
            lambda backend=backend: rebuild_index(place, backend=backend),
            lambda backend=backend: build_index(tiny.table, place, backend=backend, bundle=tiny.bundle),
        ):
            with pytest.raises(InputError, match=rf"in a database: got {backend}, expected none, or exact"):
                refused()
    with pytest.raises(InputError, match="ef_search: got 5, expected none for exact"):
        open_place(place, backend="exact", ef_search=5)
    rebuild_index(place)
    for options, backend in (
        ({}, "pgvector-hnsw"),
        ({"ef_search": 50}, "pgvector-hnsw"),
        ({"backend": "exact"}, "pgvector"),
    ):
        with open_place(place, **options) as opened:  # type: ignore[arg-type]
            assert opened.search(query, 1, fingerprint=opened.fingerprint)[0][0].finding_id == "003/1"
            assert opened.stats().backend == backend
    assert check_place(place) == ()


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
