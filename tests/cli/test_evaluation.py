"""``spicula evaluate`` from the command line."""

import json

import pytest
from typer.testing import CliRunner

from spicula.cli import app, main

run = CliRunner().invoke


@pytest.fixture
def files(tmp_path):
    scans = [f"{n:03d}" for n in range(12)]
    (tmp_path / "series.csv").write_text("\n".join(scans))
    (tmp_path / "nodules.csv").write_text(
        "seriesuid,coordX,coordY,coordZ,diameter_mm\n" + "".join(f"{s},{n},0,0,10\n" for n, s in enumerate(scans))
    )
    (tmp_path / "excluded.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n000,500,0,0,-1\n")
    (tmp_path / "marks.csv").write_text(
        "seriesuid,coordX,coordY,coordZ,probability\n"
        + "".join(f"{s},{n},1,0,{0.9 - n / 100}\n{s},200,0,0,{0.5 + n / 100}\n" for n, s in enumerate(scans[:9]))
    )
    return tmp_path


def froc(files, *more):
    names = {
        "detections": "marks.csv", "annotations": "nodules.csv", "excluded": "excluded.csv", "series": "series.csv",
    }  # fmt: skip
    options = [word for option, name in names.items() for word in (f"--{option}", str(files / name))]
    return run(app, ["evaluate", "froc", *options, *more])


def test_froc_prints_the_score_and_the_next_command(files):
    done = froc(files)
    assert done.exit_code == 0, done.output
    assert "CPM 0.7500" in done.output
    assert "9 of 12 findings hit" in done.output
    assert "Next: spicula evaluate doctor" in done.output


def test_json_without_a_name_is_all_that_is_printed(files):
    record = json.loads(froc(files, "--json").output)
    assert record["cpm"] == pytest.approx(0.75)
    assert len(record["sensitivity"]) == len(record["rates"]) == 7
    assert record["divisor"] == record["counts"]["scans"] == 12
    assert record["interval"][0] < 0.75 < record["interval"][1]


@pytest.mark.parametrize("order", [("--json", "{}/r.json", "--seed", "3"), ("--seed", "3", "--json", "{}/r.json")])
def test_json_with_a_name_is_a_file(files, order):
    done = froc(files, *(word.format(files) for word in order))
    assert done.exit_code == 0
    assert json.loads((files / "r.json").read_text())["seed"] == 3


def test_figure_and_page(files):
    done = froc(files, "--plot", str(files / "f.svg"), "--html", str(files / "f.html"), "--variants")
    assert done.exit_code == 0, done.output
    assert "<svg" in (files / "f.svg").read_text()
    page = (files / "f.html").read_text()
    assert "CPM 0.7500" in page
    assert "mistake: " in page
    assert "SHA-256" in page


def test_a_figure_of_an_unknown_kind_is_refused_and_nothing_is_left(files, monkeypatch, capsys):
    names = ["detections", "marks", "annotations", "nodules", "series", "series"]
    options = [f"--{a}={files / b}.csv" for a, b in zip(names[::2], names[1::2], strict=True)]
    monkeypatch.setattr("sys.argv", ["spicula", "evaluate", "froc", *options, "--plot", str(files / "f.docx")])
    with pytest.raises(SystemExit):
        main()
    assert "expected one of .png, .svg, .pdf" in capsys.readouterr().err
    assert not (files / "f.docx").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--json", "{}"), "--json {}: got a folder"),
        (("--html", "{}/marks.csv"), "--html {}/marks.csv: got a file that is read"),
        (("--json", "{0}/r", "--html", "{0}/r"), "--html {}/r: got a file that --json writes"),
    ],
)
def test_a_folder_and_a_file_of_two_purposes_are_refused_before_anything_is_done(files, words, message):
    before = (files / "marks.csv").read_text()
    done = froc(files, *(word.format(files) for word in words))
    assert message.format(files) in str(done.exception)
    assert done.output == ""
    assert (files / "marks.csv").read_text() == before


def test_classification_on_the_output_of_score(tmp_path):
    rows = "".join(
        f"{n // 2:03d},{n},{(n * 37 % 100) / 100},{int((n * 37 % 100) + (n * 13 % 50) > 80)},x\n" for n in range(60)
    )
    (tmp_path / "p.csv").write_text("pid,nodule_id,probability,malignant,error\n" + rows)
    options = ["--predictions", str(tmp_path / "p.csv"), "--resamples", "200"]
    done = run(app, ["evaluate", "classification", *options, "--html", str(tmp_path / "p.html")])
    assert done.exit_code == 0, done.output
    assert "60 nodules" in done.output
    assert "30 patients" in done.output
    assert "Risk of 60 nodules" in (tmp_path / "p.html").read_text()
    record = json.loads(run(app, ["evaluate", "classification", *options, "--json"]).output)
    assert record["nodule"]["rows"] == 60


def test_a_threshold_that_calls_nothing_has_no_precision_and_still_a_record(tmp_path):
    rows = "".join(f"p{n},1,{0.1 + n / 100},{int(n % 3 == 0)}\n" for n in range(24))
    (tmp_path / "p.csv").write_text("pid,nodule_id,probability,label\n" + rows)
    options = ["evaluate", "classification", "--predictions", str(tmp_path / "p.csv"), "--resamples", "100"]
    printed = run(app, [*options, "--json"])
    assert printed.exit_code == 0, printed.output
    assert json.loads(printed.output)["nodule"]["precision"] is None
    told = run(app, [*options, "--json", str(tmp_path / "r.json")])
    assert "precision –," in told.output
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(printed.output)


def test_papers_are_listed_where_none_is_named():
    done = run(app, ["evaluate", "paper"])
    assert done.exit_code == 0
    assert "zhuang2025" in done.output
    assert "Next: spicula evaluate paper" in done.output
