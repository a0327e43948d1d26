"""``spicula explain`` through the command itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from spicula.cli import main
from spicula.datasets.phantom import Ball, thorax, thorax_grid
from spicula.formats import write_nifti

Run = Callable[..., tuple[int, str, str]]

PLACE = "-75,20,10"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; gives its exit status and both of its streams."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["spicula", "explain", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return int(exit_.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chest") / "chest.nii.gz"
    write_nifti(path, thorax(thorax_grid((2.5, 1.5, 1.5)), balls=[Ball((-75.0, 20.0, 10.0), 14.0)], vessels=4))
    return path


def test_words_are_answered_in_a_table_a_report_and_a_record(
    run: Run, chest: Path, semantic_bundle: Path, tmp_path: Path
) -> None:
    status, said, _ = run(
        chest, "--words", "part-solid", "--words", "tree-in-bud", "--at", PLACE, "--at", "-73,20,10",
        "--out", tmp_path / "out", "--json", tmp_path / "answers.json", "--bundle", semantic_bundle,
    )  # fmt: skip
    assert status == 0
    for words in ("finding 1 at (-75.0, 20.0, 10.0)", "finding 2", "part-solid", "pure ground glass", "its absence",
                  "not among", "not calibrated", "Research software", "report.html"):  # fmt: skip
        assert words in said, words
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "report.html"}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert answers["asked"] == ["part-solid", "tree-in-bud"]
    assert [nodule["words"] for nodule in answers["nodules"]] == [finding["words"] for finding in report["findings"]]


def test_a_table_has_a_report_for_each_image_and_names_rows_that_failed(
    run: Run, chest: Path, semantic_bundle: Path, tmp_path: Path
) -> None:
    table = tmp_path / "in.csv"
    table.write_text(f"pid,nodule_id,image_path,coordX,coordY,coordZ\n7,a,{chest},{PLACE}\n7,b,no-such.nii.gz,1,2,3\n")
    status, said, error = run(
        table, "--words", "solid", "--out", tmp_path / "out", "--json", "--bundle", semantic_bundle
    )
    assert status == 1
    assert "1 row failed" in error
    assert "nodule b of 7: " in error
    record = json.loads(said)
    assert [nodule["id"] for nodule in record["nodules"]] == ["a"]
    (folder,) = (tmp_path / "out").iterdir()
    assert (folder / "report.html").is_file()
    status, _, error = run(table, "--words", "solid", "--at", PLACE, "--bundle", semantic_bundle)
    assert (status, "the table says where they are" in error) == (1, True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--words", ""], "word to look for"),
        (["--words", "solid", "--at", "1,2"], "x, y, z in mm LPS"),
        (["--words", "solid", "--at", "a,b,c"], "--at a,b,c"),
        (["--words", "solid", "--at", "0,0,900"], "lies outside the volume"),
        (["--words", "solid", "--bundle", "nodule-risk"], "expected semantic, outlined_clip"),
        (["--words", "solid", "--bundle", "no-such-bundle"], "was not found"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    run: Run, chest: Path, semantic_bundle: Path, tmp_path: Path, options: list[str], told: str
) -> None:
    given = options if "--bundle" in options else [*options, "--bundle", str(semantic_bundle)]
    status, said, error = run(chest, *given, "--out", tmp_path / "out", "--json", tmp_path / "answers.json")
    assert (status, said) == (1, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told in error
    assert list(tmp_path.iterdir()) == []


def test_analyze_says_what_comes_next_where_there_are_words(
    chest: Path,
    semantic_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from spicula.pipelines.models import load_models

    for semantic, expected in ((str(semantic_bundle), True), (None, False)):
        monkeypatch.setattr(
            "spicula.pipelines.batch.load_models", lambda semantic=semantic: load_models(semantic=semantic)
        )
        monkeypatch.setattr(
            "sys.argv", ["spicula", "analyze", str(chest), "--out", str(tmp_path / "out"), "--limit", "1"]
        )
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        assert (f"Next: spicula explain {chest} --words" in capsys.readouterr().out) == expected
