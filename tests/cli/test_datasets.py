"""``spicula dataset`` from the command line."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from spicula.cli import app
from spicula.cli.datasets import SHOWN
from spicula.core.geometry import Geometry
from spicula.core.volume import Volume
from spicula.datasets.catalog import dataset, dataset_names
from spicula.formats import write_nifti

run = CliRunner().invoke
HEAD = "pid,nodule_id,image_path,coordX,coordY,coordZ,diameter_mm\n"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    grid = Geometry.from_axes((6, 8, 10), (2.0, 1.0, 1.0))
    values = np.full((6, 8, 10), -900, dtype=np.int16)
    values[2:4, 3:5, 4:6] = 40
    write_nifti(folder / "a.nii.gz", Volume(values, grid))
    (folder / "nodules.csv").write_text(HEAD + "p,1,a.nii.gz,4,3,4,3\n")
    return folder


def test_all_data_sets_are_listed_with_licence_and_size():
    done = run(app, ["dataset", "list"])
    assert done.exit_code == 0, done.output
    for name in dataset_names():
        assert f"{name:12} {dataset(name).DESCRIPTION.title}" in done.output
        assert dataset(name).DESCRIPTION.licence in done.output


@pytest.mark.parametrize("name", dataset_names())
def test_a_data_set_is_described_without_its_files(name):
    done = run(app, ["dataset", "describe", name])
    assert done.exit_code == 0, done.output
    about = dataset(name).DESCRIPTION
    assert about.citation in done.output
    assert f"  {about.layout[0]}" in done.output
    assert f"Next: spicula dataset verify {name} ROOT" in done.output


def test_what_is_there_is_counted(root):
    done = run(app, ["dataset", "describe", "nodule-csv", str(root)])
    assert done.exit_code == 0, done.output
    assert "  1 scan of 1 patient, 1 finding\n" in done.output


def test_a_whole_set_ends_with_status_0_and_a_broken_one_with_1(root, tmp_path):
    done = run(app, ["dataset", "verify", "nodule-csv", str(root), "--deep"])
    assert done.exit_code == 0, done.output
    assert "1 of 1 places have tissue" in done.output
    assert "Next: spicula dataset describe" in done.output
    more = "".join(f"p,{n},a.nii.gz,900,0,0,3\n" for n in range(2, SHOWN + 7))
    (root / "nodules.csv").write_text(HEAD + "p,1,a.nii.gz,4,3,4,3\n" + more)
    done = run(app, ["dataset", "verify", "nodule-csv", str(root), "--out", str(tmp_path / "report.csv")])
    assert done.exit_code == 1, done.output
    assert done.output.count("outside") == SHOWN
    assert f"place: and 5 more (in {tmp_path / 'report.csv'})" in done.output
    assert len((tmp_path / "report.csv").read_text().splitlines()) > SHOWN + 5


def test_an_export_says_what_it_wrote(root, tmp_path):
    done = run(app, ["dataset", "export", "nodule-csv", str(root), "--to", "coco", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "1 finding of 1 case" in done.output
    assert json.loads((tmp_path / "out" / "export.json").read_text())["layout"] == "coco"
