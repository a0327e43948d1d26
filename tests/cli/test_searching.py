"""``spicula search`` and ``spicula index`` through the commands themselves."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.cli import main
from spicula.core.bundle import MANIFEST
from spicula.datasets.phantom import Ball, thorax, thorax_grid
from spicula.formats import read_volume, write_nifti
from spicula.pipelines.search import COLUMNS

from ..pipelines.search_tiny import Tiny, tiny, write_table  # noqa: F401

Run = Callable[..., tuple[int, str, str]]

AIR = {"coordX": -76.0, "coordY": 22.0, "coordZ": 0.0}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``spicula``; gives its exit status and both of its streams."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["spicula", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture
def index(tiny: Tiny, tmp_path: Path) -> Path:  # noqa: F811
    return Path(shutil.copytree(tiny.index, tmp_path / "index"))


def other_bundle(tiny: Tiny, folder: Path) -> Path:  # noqa: F811
    shutil.copytree(tiny.bundle, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["preprocessing"]["middle"] /= 2
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def written(value: object) -> str:
    return ",".join(f"{part:g}" for part in value)  # type: ignore[attr-defined]


def test_an_index_from_its_making_to_its_end(tiny: Tiny, run: Run, tmp_path: Path) -> None:  # noqa: F811
    place, bundle = tmp_path / "cases", ("--bundle", tiny.bundle)
    table = write_table(tmp_path / "rows.csv", [one.row() for one in tiny.nodules[:4]])
    status, said, error = run("index", "build", table, "--out", place, *bundle)
    assert (status, error) == (0, "")
    assert said == f"4 nodules in {place}\n\nNext: spicula search QUERY --index {place}\n"
    more = write_table(tmp_path / "more.csv", [one.row(ward="moved") for one in tiny.nodules[2:6]])
    assert run("index", "add", place, more, *bundle) == (0, "2 added, 2 were there\n", "")
    status, said, _ = run("index", "stats", place)
    lines = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert (status, lines["backend"], lines["findings"], lines["patients"]) == (0, "exact", "6", "3")
    assert lines["fingerprint"] == tiny.embedder.fingerprint
    for field in ("pid (text)", "diameter_mm (number)", "malignant (number)", "ward (text)", "study_date (text)"):
        assert field in lines["fields"]
    assert run("index", "add", place, more, "--replace", *bundle) == (0, "4 added, 0 were there\n", "")
    assert run("index", "check", place) == (0, f"{place}: sound\n", "")
    assert run("index", "remove", place, "--id", "000/1", "--where", "ward = 'moved'") == (0, "5 removed\n", "")
    assert run("index", "remove", place, "--where", "ward = 'moved'") == (0, "0 removed\n", "")
    assert "findings       1\n" in run("index", "stats", place)[1]


def test_an_index_for_faiss(tiny: Tiny, run: Run, index: Path) -> None:  # noqa: F811
    pytest.importorskip("faiss", reason="pip install 'spicula[search]'")
    assert "unindexed      24\n" in run("index", "stats", index, "--backend", "faiss-hnsw")[1]
    assert run("index", "rebuild", index) == (0, f"{index}: built\n", "")
    status, said, _ = run("index", "stats", index, "--backend", "faiss-hnsw")
    assert (status, "backend        faiss-hnsw\n" in said, "unindexed      0\n" in said) == (0, True, True)
    assert run("index", "check", index, "--backend", "faiss-hnsw") == (0, f"{index}: sound\n", "")
    one = tiny.nodules[6]
    asked = ("search", one.image, "--at", written(one.center), "--k", "3", "--bundle", tiny.bundle, "--index", index)
    assert run(*asked, "--backend", "faiss-hnsw") == run(*asked)


def test_a_damaged_index_is_told_of(
    tiny: Tiny,  # noqa: F811
    run: Run,
    index: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (vectors,) = index.glob("vectors-*.f32")
    content = bytearray(vectors.read_bytes())
    for place in (len(content) // 2, len(content) - 1):
        content[place] ^= 0x40
    vectors.write_bytes(content)
    one = tiny.nodules[0]
    asked = ("search", one.image, "--at", written(one.center), "--index", index, "--bundle", tiny.bundle)
    for arguments in (("index", "check", index), ("index", "stats", index), asked):
        status, said, error = run(*arguments)
        assert (status, said, error.count("\n")) == (1, "", 1)
        assert "damaged" in error
    monkeypatch.setattr("spicula.retrieval.verification.WHOLE_BYTES", 0)  # as if it were too large to be read at once
    monkeypatch.setattr("spicula.retrieval.verification._SAMPLE", 1)
    status, said, error = run("index", "check", index)
    assert (status, error, len(said.splitlines())) == (1, "", 2)
    assert all("damaged" in line for line in said.splitlines())


def test_a_table_is_searched_into_a_table_a_record_and_a_page(tiny: Tiny, run: Run, tmp_path: Path) -> None:  # noqa: F811
    some = tiny.nodules[2], tiny.nodules[7]
    table = write_table(tmp_path / "queries.csv", [one.row() for one in some])
    out, record, page = tmp_path / "matches.csv", tmp_path / "matches.json", tmp_path / "matches.html"
    status, said, error = run(
        "search", table, "--index", tiny.index, "--k", 4, "--scope", "cross-patient", "--where", "diameter_mm > 7",
        "--out", out, "--json", record, "--html", page, "--bundle", tiny.bundle,
    )  # fmt: skip
    assert (status, error) == (0, "")
    for words in ("1 of 001", "2 of 003", "rank", "outcome", "similar past nodules", "Research software",
                  f"Matches: {out}", f"Evidence: {record}", f"Page: {page}"):  # fmt: skip
        assert words in said, words
    with out.open(newline="") as stream:
        header, *rows = list(csv.reader(stream))
    assert tuple(header) == COLUMNS
    found = json.loads(record.read_text())
    assert found["index"] == str(tiny.index)
    assert [(one["pid"], one["nodule_id"]) for one in found["queries"]] == [(one.pid, one.nodule_id) for one in some]
    expected = [
        (query["pid"], query["nodule_id"], match["rank"], match["pid"], match["nodule_id"], match["distance"])
        for query in found["queries"]
        for match in query["matches"]
    ]
    assert len(rows) == len(expected) == 8
    for row, (*named, distance) in zip(rows, expected, strict=True):
        assert row[:5] == list(map(str, named))
        assert float(row[5]) == pytest.approx(distance, abs=1e-4)
    for query in found["queries"]:
        assert query["pid"] not in {match["pid"] for match in query["matches"]}
        assert all(match["diameter_mm"] > 7 for match in query["matches"])
        assert query["evidence"]["malignant"]["patients"] >= 2
    text = page.read_text()
    assert text.count("<img ") == 2 + 8
    assert "no picture" not in text


def test_a_place_and_a_box_are_searched(tiny: Tiny, run: Run, tmp_path: Path) -> None:  # noqa: F811
    one, other = tiny.nodules[4:6]
    given = ("--index", tiny.index, "--bundle", tiny.bundle, "--k", 2, "--json", tmp_path / "found.json")
    z, y, x = read_volume(one.image).geometry.world_to_index(one.center)
    box, half = [x, y, x, y], one.diameter / 2
    box = [value + sign * half for value, sign in zip(box, (-1, -1, 1, 1), strict=True)]
    status, _, error = run(
        "search", one.image, "--at", written(other.center), "--at", written(one.center), "--box", written(box),
        "--slice", round(z), "--pid", "me", *given,
    )  # fmt: skip
    assert (status, error) == (0, "")
    queries = json.loads((tmp_path / "found.json").read_text())["queries"]
    nearest = [f"{query['matches'][0]['pid']}/{query['matches'][0]['nodule_id']}" for query in queries]
    assert nearest[1] == nearest[2]
    assert not {one.name, other.name} & set(nearest), "nothing finds itself"
    assert {query["pid"] for query in queries} == {"me"}
    assert queries[2]["nodule_id"].startswith(f"slice {round(z)}, box ")
    status, _, _ = run(
        "search", one.image, "--at", written(one.center), "--scope", "cross-patient", "--pid", one.pid, *given
    )
    (query,) = json.loads((tmp_path / "found.json").read_text())["queries"]
    assert (status, one.pid in {match["pid"] for match in query["matches"]}) == (0, False)


def test_a_small_index_gives_all_it_has(tiny: Tiny, run: Run, index: Path, tmp_path: Path) -> None:  # noqa: F811
    assert run("index", "remove", index, "--where", "pid > '001'")[0] == 0
    one = tiny.nodules[6]
    asked = ("search", one.image, "--at", written(one.center), "--index", index, "--bundle", tiny.bundle)
    status, said, error = run(*asked, "--json", tmp_path / "found.json")
    assert (status, error) == (0, "")
    (query,) = json.loads((tmp_path / "found.json").read_text())["queries"]
    assert len(query["matches"]) == 4
    assert {match["facts"]["ward"] for match in query["matches"]} == {"ward 0", "ward 1"}
    assert all(match["facts"]["volume_mm3"] > 0 for match in query["matches"])
    told = "".join(said.split())
    for place in (one.center for one in tiny.nodules[:4]):
        assert ",".join(f"{value:.1f}" for value in place) in told
    status, said, _ = run(*asked, "--where", "diameter_mm > 500", "--json", tmp_path / "found.json")
    assert (status, "that meets the condition diameter_mm > 500." in " ".join(said.split())) == (0, True)


def test_past_cases_of_an_own_index_in_analyze(tiny: Tiny, run: Run, tmp_path: Path) -> None:  # noqa: F811
    balls = [Ball((-70.0, 0.0, 10.0), 14.0)]
    scan = tmp_path / "scan.nii.gz"
    write_nifti(scan, thorax(thorax_grid((2.0, 1.0, 1.0)), balls=balls, vessels=4))
    given = ("--index", tiny.index, "--search-bundle", tiny.bundle)
    status, said, error = run("analyze", scan, "--out", tmp_path / "out", *given)
    assert (status, error) == (0, "")
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    near = record["findings"][0]["neighbors"]
    assert (len(near["matches"]), near["fingerprint"]) == (10, tiny.embedder.fingerprint)
    assert tiny.embedder.fingerprint in record["bundles"]
    for options, told in (
        (("--index", tmp_path / "away", *given[2:]), "away: no such folder"),
        (("--index", tiny.index, "--search-bundle", other_bundle(tiny, tmp_path / "other")), "name its bundle"),
        (("--index", tiny.index, "--search-bundle", "nodule-risk"), "expected search, nodule_regions"),
    ):
        status, said, error = run("analyze", scan, "--out", tmp_path / "never", *options)
        assert (status, said, error.count("\n")) == (1, "", 1)
        assert told in error
    assert not (tmp_path / "never").exists()


def test_rows_that_failed_are_named_after_all_the_rest(tiny: Tiny, run: Run, tmp_path: Path) -> None:  # noqa: F811
    good, bad = tiny.nodules[:2]
    table = write_table(tmp_path / "rows.csv", [bad.row(**AIR), good.row(), good.row(nodule_id="9", coordX="left")])
    out = tmp_path / "matches.csv"
    status, said, error = run("search", table, "--index", tiny.index, "--k", 3, "--out", out, "--bundle", tiny.bundle)
    assert (status, len(out.read_text().splitlines())) == (1, 4)
    first, second, third = error.splitlines()
    assert first == "2 rows failed"
    assert second.startswith(f"nodule {bad.nodule_id} of {bad.pid}: ")
    assert "coordX is 'left'" in third
    assert "Matches: " in said
    status, said, error = run("index", "build", table, "--out", tmp_path / "new", "--bundle", tiny.bundle)
    assert (status, said.startswith("1 nodules in"), error.splitlines()[0]) == (1, True, "2 rows failed")
    status, said, error = run("index", "add", tmp_path / "new", table, "--bundle", tiny.bundle)
    assert (status, said, error.splitlines()[0]) == (1, "0 added, 1 were there\n", "2 rows failed")


WRONG = {
    "an unknown field": (["--where", "lobe = 'upper'"], "a field, one of pid, nodule_id, diameter_mm, volume_mm3"),
    "a condition that ends too soon": (["--where", "malignant ="], "expected a number, as malignant is one"),
    "more than there is": (["--k", "25"], "in the index. Hint: without --k it is 10"),
    "no such index": (["--index", "no-such-folder"], "no-such-folder: no such folder"),
    "a place of two numbers": (["--at", "1,2"], "--at 1,2: expected 3 numbers"),
    "a place of words": (["--at", "a,b,c"], "--at a,b,c: expected 3 numbers"),
    "a box of three numbers": (["--box", "1,2,3"], "--box 1,2,3: expected 4 numbers"),
    "a place outside": (["--at", "0,0,900"], "lies outside the volume"),
    "a place in air": (["--at", "-76,22,0"], "nothing but air or empty lung"),
    "a box outside": (["--box", "70,10,90,20", "--slice", "9"], "within 84 columns and 52 rows"),
    "a thin box": (["--box", "10,10,11,30", "--slice", "9"], "Hint: draw it around the whole nodule"),
    "a box in empty lung": (["--box", "2,2,14,10", "--slice", "17"], "nothing but air or empty lung"),
    "a box on no slice": (["--box", "10,10,30,30"], "slice of the box: got none, expected 0 to 29"),
    "a slice with a place": (["--at", "-92,6,4", "--slice", "9"], "slice 9: got no box on it"),
    "a slice beyond": (["--box", "10,10,30,30", "--slice", "30"], "slice: got 30, expected 0 to 29"),
    "nobody's other patients": (["--scope", "cross-patient"], "search all, or name the patient with --pid"),
    "a bundle for something else": (["--bundle", "nodule-risk"], "expected search, nodule_regions"),
    "no such bundle": (["--bundle", "no-such-bundle"], "was not found"),
    "a folder to write": (["--out", "."], "--out .: got a folder"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_searched_is_one_line(tiny: Tiny, run: Run, tmp_path: Path, wrong: str) -> None:  # noqa: F811
    one, (options, told) = tiny.nodules[0], WRONG[wrong]
    given = {"--index": tiny.index, "--bundle": tiny.bundle, "--out": tmp_path / "x.csv", "--html": tmp_path / "x.html"}
    if not {"--at", "--box"} & set(options):
        given["--at"] = written(one.center)
    pairs = [part for option, value in given.items() if option not in options for part in (option, value)]
    status, said, error = run("search", one.image, *pairs, *options)
    assert (status, said) == (1, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told in error
    assert list(tmp_path.iterdir()) == []


def test_files_are_not_written_over_what_is_read_or_over_each_other(tiny: Tiny, run: Run, tmp_path: Path) -> None:  # noqa: F811
    table = write_table(tmp_path / "rows.csv", [tiny.nodules[0].row()])
    before = table.read_bytes()
    for options, told in (
        (["--out", table], "a file that is read"),
        (["--json", tmp_path / "x", "--html", tmp_path / "x"], "--json writes"),
    ):
        status, said, error = run("search", table, "--index", tiny.index, "--bundle", tiny.bundle, *options)
        assert (status, said, error.count("\n")) == (1, "", 1)
        assert told in error
    assert table.read_bytes() == before
    assert list(tmp_path.iterdir()) == [table]


def test_a_slice_with_16_bits_is_taken_and_one_with_8_is_not(tiny: Tiny, run: Run, tmp_path: Path) -> None:  # noqa: F811
    hu = read_volume(tiny.nodules[0].image).array_zyx[17]
    Image.fromarray((hu.astype(np.int32) + 32768).astype(np.uint16)).save(tmp_path / "slice.png")
    Image.fromarray(np.clip(hu / 8 + 128, 0, 255).astype(np.uint8)).save(tmp_path / "eight.png")
    given = ("--box", "10,24,24,38", "--index", tiny.index, "--bundle", tiny.bundle, "--k", 3)
    files = ("--json", tmp_path / "found.json", "--html", tmp_path / "found.html")
    status, said, error = run("search", tmp_path / "slice.png", *given, *files)
    assert (status, error, "slice 0, box 10,24,24,38" in said) == (0, "", True)
    warned = "a PNG tells neither the size of its pixels, taken for 0.8 mm, nor its place in the body."
    assert f"warning: {tmp_path / 'slice.png'}: {warned}" in said
    assert warned in json.loads((tmp_path / "found.json").read_text())["warnings"][0]
    assert warned in (tmp_path / "found.html").read_text()
    status, said, error = run("search", tmp_path / "eight.png", *given)
    assert (status, said, error.count("\n")) == (1, "", 1)
    assert "got 8-bit gray, expected 16-bit gray" in error
    grays = np.clip(hu / 8 + 128, 0, 255).astype(np.uint16)
    for stored in (grays, grays * 257):
        Image.fromarray(stored).save(tmp_path / "grays.png")
        status, said, error = run("search", tmp_path / "grays.png", *given)
        assert (status, said, error.count("\n")) == (1, "", 1)
        assert "grays.png: Hounsfield units: got" in error


def test_what_an_index_refuses_is_one_line(tiny: Tiny, run: Run, index: Path, tmp_path: Path) -> None:  # noqa: F811
    other, air = other_bundle(tiny, tmp_path / "other"), write_table(tmp_path / "air.csv", [tiny.nodules[0].row(**AIR)])
    before = {path.name: path.read_bytes() for path in index.iterdir()}
    for arguments, told in (
        (("build", tiny.table, "--out", index, "--bundle", tiny.bundle), "taken"),
        (("build", air, "--out", tmp_path / "new", "--bundle", tiny.bundle), "none that could be embedded"),
        (("build", tmp_path / "no.csv", "--out", tmp_path / "new", "--bundle", tiny.bundle), "no.csv"),
        (("add", index, tiny.table, "--bundle", other), "name its bundle with --bundle"),
        (("add", tmp_path / "nowhere", tiny.table, "--bundle", tiny.bundle), "no such folder"),
        (("remove", index), "--id or --where"),
        (("remove", index, "--id", "000/1", "--id", "999/1"), "no finding 999/1"),
        (("remove", index, "--where", "lobe = 'upper'"), "a field, one of pid, nodule_id"),
        (("rebuild", index, "--backend", "exact"), "none for exact"),
        (("stats", tmp_path / "nowhere"), "no such folder"),
        (("check", tmp_path), "no index"),
    ):
        status, said, error = run("index", *arguments)
        assert (status, said) == (1, ""), arguments
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert told in error
    assert {path.name: path.read_bytes() for path in index.iterdir()} == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "x.nii", "--k", "0"),
        ("search", "x.nii", "--scope", "some"),
        ("search", "x.nii", "--slice", "-1"),
        ("search", "x.nii", "--backend", "faiss"),
        ("index", "build", "x.csv"),
        ("index", "shrink", "x"),
    ],
)
def test_options_that_do_not_exist_have_the_status_of_a_wrong_call(run: Run, arguments: tuple[str, ...]) -> None:
    status, said, error = run(*arguments)
    assert (status, said) == (2, "")
    assert error
