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
