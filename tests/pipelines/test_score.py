"""Tables of known nodules, on small volumes built in code and on real ones."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from spicula.core.geometry import Geometry
from spicula.core.prediction import TRAITS
from spicula.core.volume import Volume
from spicula.formats import write_nifti
from spicula.pipelines.score import COLUMNS, score, score_file


@pytest.fixture(scope="module")
def nodule(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small volume: a solid ball of 12 mm in noisy lung, its center at LPS (30, -40, 100)."""
    grid = Geometry.from_axes((16, 48, 48), (2.0, 0.8, 0.8), origin_xyz_mm=(11, -59, 85))
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape_zyx), indexing="ij"), axis=-1)
    radius = np.linalg.norm(grid.index_to_world(index) - (30, -40, 100), axis=-1)
    hu = -850 + 880 / (1 + np.exp((radius - 6) / 0.5)) + np.random.default_rng(0).normal(0, 20, grid.shape_zyx)
    path = tmp_path_factory.mktemp("nodule") / "ball.nii.gz"
    write_nifti(path, Volume(hu.round().astype(np.int16), grid))
    return path


def table(path: Path, *rows: str, header: str = "pid,nodule_id,image_path,coordX,coordY,coordZ,ward") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_rows_keep_their_order_their_zeros_and_their_further_columns(nodule: Path, tmp_path: Path) -> None:
    source = table(tmp_path / "in.csv", f"007,01,{nodule},30,-40,100,B", f"007,02,{nodule},31,-40,100,C")
    assert score_file(source, tmp_path / "out.csv") == 0
    with (tmp_path / "out.csv").open(newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    assert reader.fieldnames == [*COLUMNS, "ward"]
    assert [(row["pid"], row["nodule_id"], row["ward"]) for row in rows] == [("007", "01", "B"), ("007", "02", "C")]
    for row in rows:
        values = [float(row[name]) for name in ("probability_low", "probability", "probability_high")]
        assert values == sorted(values)
        assert all(0 <= float(row[name]) <= 1 for name in TRAITS)
        assert float(row["texture_solid"]) > 0.5
        assert row["error"] == ""


def test_the_three_ways_to_say_a_place_agree(nodule: Path, tmp_path: Path) -> None:
    lps = score(table(tmp_path / "lps.csv", f"1,1,{nodule},30.2,-39.8,101,"))
    ras = score(table(tmp_path / "ras.csv", f"1,1,{nodule},-30.2,39.8,101,"), coords="ras")
    voxel = score(table(tmp_path / "voxel.csv", f"1,1,{nodule},24,24,8,"), coords="voxel")
    assert lps == ras == voxel


def test_a_failed_row_is_empty_and_says_why_and_the_others_go_on(nodule: Path, tmp_path: Path) -> None:
    source = table(
        tmp_path / "in.csv",
        f"1,flipped,{nodule},-30,40,100,",
        "1,absent,no-such-file.nii.gz,30,-40,100,",
        f"1,nothing,{nodule},14,-56,100,",
        f"1,unnamed,{nodule},30,,100,",
        f"1,good,{nodule},30,-40,100,",
    )
    assert score_file(source, tmp_path / "out.csv") == 4
    with (tmp_path / "out.csv").open(newline="") as stream:
        rows = {row["nodule_id"]: row for row in csv.DictReader(stream)}
    assert "RAS" in rows["flipped"]["error"]
    assert "no-such-file" in rows["absent"]["error"]
    assert "coordY" in rows["unnamed"]["error"]
    assert "air or empty lung" in rows["nothing"]["error"]
    for name in ("flipped", "absent", "unnamed", "nothing"):
        assert not any(rows[name][column] for column in COLUMNS[2:-1])
    assert rows["good"]["probability"]


def test_columns_named_like_ours_are_carried_apart_and_never_stand_for_a_prediction(
    nodule: Path, tmp_path: Path
) -> None:
    header = "pid,nodule_id,image_path,coordX,coordY,coordZ,probability"
    source = table(tmp_path / "in.csv", f"1,1,{nodule},30,-40,100,0.777", "1,2,no.nii,1,2,3,0.777", header=header)
    assert score_file(source, tmp_path / "out.csv") == 1
    with (tmp_path / "out.csv").open(newline="") as stream:
        good, failed = csv.DictReader(stream)
    assert good["input_probability"] == failed["input_probability"] == "0.777"
    assert good["probability"] not in ("", "0.777")
    assert failed["probability"] == ""


@pytest.mark.shared
def test_the_nodule_of_lidc_0001_scores_the_same_in_its_small_volume_and_in_the_whole_series(
    shared: Path, lidc_0001: Path, tmp_path: Path
) -> None:
    small = shared / "lidc_nodules" / "image" / "LIDC-IDRI-0001_1.nii.gz"
    place = "56.20840547,86.34341278,-115.8675792,"
    rows = score(table(tmp_path / "in.csv", f"1,small,{small},{place}", f"1,whole,{lidc_0001},{place}"))
    assert [row["error"] for row in rows] == ["", ""]
    for name in ("probability", *TRAITS):
        assert float(rows[0][name]) == pytest.approx(float(rows[1][name]), abs=0.05), name
