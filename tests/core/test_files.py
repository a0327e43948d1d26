from pathlib import Path

import pytest

from spicula.core.files import folder_written_aside, written_aside


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    with written_aside(target) as aside:
        aside.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), written_aside(target) as aside:
        aside.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_gets_all_files_or_none(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with folder_written_aside(tmp_path / "out") as aside:
        (aside / "report.json").write_text("{}")
        (aside / "sr.dcm").write_text("sr")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["mine.txt", "report.json", "sr.dcm"]
    with folder_written_aside(tmp_path / "out", replaces=("sr.dcm", "report.json")) as aside:
        (aside / "report.json").write_text("new")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["mine.txt", "report.json"]
    with pytest.raises(OSError, match="disk"), folder_written_aside(tmp_path / "other") as aside:
        (aside / "sr.dcm").write_text("sr")
        raise OSError("disk full")
    assert not (tmp_path / "other").exists()
