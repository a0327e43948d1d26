"""What every command does alike."""

import pytest

from spicula import cli


def test_an_interrupt_is_told_and_has_its_status(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("spicula.datasets.catalog.dataset_names", interrupted)
    monkeypatch.setattr("sys.argv", ["spicula", "dataset", "list"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130
    assert capsys.readouterr().err == "error: interrupted; nothing half-written was left\n"


def test_other_statuses_are_left_alone(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["spicula", "dataset", "nothing-of-the-kind"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "interrupted" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "way"),
    [
        (FileNotFoundError(2, "No such file or directory", "patients.txt"), "see that the name is right"),
        (OSError(28, "No space left on device", "out"), "choose another place"),
    ],
)
def test_a_file_that_is_not_there_is_no_matter_of_another_place(monkeypatch, capsys, error, way):
    def failing():
        raise error

    monkeypatch.setattr("spicula.datasets.catalog.dataset_names", failing)
    monkeypatch.setattr("sys.argv", ["spicula", "dataset", "list"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr().err
    assert (end.value.code, said.count("\n"), way in said) == (1, 1, True)
