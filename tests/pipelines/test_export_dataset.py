"""A data set written as table, as COCO and as nnDetection task, and read again by independent means."""

from __future__ import annotations

import csv
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image
from typer.testing import CliRunner

from spicula.cli import app
from spicula.core.errors import InputError
from spicula.core.finding import Case, Finding
from spicula.core.geometry import Geometry
from spicula.core.volume import Mask, Volume
from spicula.datasets.catalog import Description
from spicula.datasets.export_coco import WINDOW_HU, run_lengths, write_coco
from spicula.datasets.export_nndetection import write_nndetection
from spicula.datasets.nodule_csv import load_cases, read_nodules
from spicula.datasets.phantom import Ball, thorax, thorax_grid
from spicula.dicom.writer import write_series
from spicula.formats import read_volume, write_nifti
from spicula.pipelines.export_dataset import export

BALLS = (Ball((70.0, 20.0, 30.0), 16.0), Ball((-70.0, -10.0, -20.0), 12.0))
GRID = thorax_grid((4, 2, 2))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images, one of them DICOM, as a nodule CSV; the second row has no diameter."""
    folder = tmp_path_factory.mktemp("set")
    volume = thorax(GRID, balls=BALLS)
    write_nifti(folder / "a.nii.gz", volume)
    write_series(folder / "b", volume, patient_id="q", description="chest")
    lines = ["pid,nodule_id,image_path,coordX,coordY,coordZ,malignant,diameter_mm,split,texture"]
    lines += [f"p,{n},a.nii.gz,{x},{y},{z},{n},{ball.diameter_mm},train,{4 + n}"
              for n, ball in enumerate(BALLS) for x, y, z in [ball.center_xyz_mm]]  # fmt: skip
    lines += ["q,0,b,70,20,30,1,16,test,", "q,1,b,-70,-10,-20,,,test,"]
    (folder / "nodules.csv").write_text("\n".join(lines) + "\n")
    return folder


def skipped(out: Path) -> list[dict[str, str]]:
    with (out / "skipped.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_table_that_scores_from_where_the_images_are(root, tmp_path):
    lines = export("nodule-csv", root, layout="nodule-csv", out=tmp_path / "out")
    assert lines[0] == "4 findings of 2 cases"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["export.json", "nodules.csv", "skipped.csv"]
    table = read_nodules(tmp_path / "out" / "nodules.csv")
    header = (tmp_path / "out" / "nodules.csv").read_text().splitlines()[0]
    assert header == "pid,nodule_id,image_path,coordX,coordY,coordZ,malignant,diameter_mm,split,texture"
    assert [row.image_path for row in table.rows] == [root / "a.nii.gz"] * 2 + [root / "b"] * 2
    for row in table.rows:
        assert read_volume(row.image_path).geometry.contains(row.position)
    before, after = list(load_cases(root)), list(load_cases(tmp_path / "out"))
    assert [[replace(f) for f in case.findings] for case in before] == [list(case.findings) for case in after]
    assert [(c.patient_id, c.split) for c in before] == [(c.patient_id, c.split) for c in after]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11, numpy 2
def test_coco_is_read_by_pycocotools(root, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    lines = export("nodule-csv", root, layout="coco", out=tmp_path / "out")
    assert "3 findings of 2 cases" in lines[0]
    assert [row["reason"] for row in skipped(tmp_path / "out")] == [
        "finding 1: neither an outline nor a diameter is known"
    ]
    data = coco.COCO(str(tmp_path / "out" / "annotations.json"))
    assert [category["name"] for category in data.loadCats(data.getCatIds())] == ["nodule"]
    assert len(data.imgs) == len({image["file_name"] for image in data.imgs.values()})
    volume = read_volume(root / "a.nii.gz")
    for image in data.imgs.values():
        pixels = np.asarray(Image.open(tmp_path / "out" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"])
        np.testing.assert_array_equal(pixels.astype(int) - 32768, volume.array_zyx[image["slice"]])
        assert (image["patient_id"], image["split"]) in {("p", "train"), ("q", "test")}
    total = 0
    for annotation in data.anns.values():
        mask = data.annToMask(annotation)
        rows, columns = np.nonzero(mask)
        x, y, width, height = annotation["bbox"]
        assert (columns.min(), rows.min()) == (x, y)
        assert (columns.max() + 1 - x, rows.max() + 1 - y) == (width, height)
        assert mask.sum() == annotation["area"]
        assert annotation["mask_source"] == "ball"
        total += annotation["area"]
    points = GRID.index_to_world(np.moveaxis(np.indices(GRID.shape_zyx), 0, -1))
    voxels = [(np.linalg.norm(points - b.center_xyz_mm, axis=-1) <= b.diameter_mm / 2).sum() for b in BALLS]
    assert total == 2 * voxels[0] + voxels[1]
    middle = volume.geometry.world_to_index(BALLS[0].center_xyz_mm)
    of_ball = [
        a for a in data.anns.values() if a["finding_id"] == "0" and data.imgs[a["image_id"]]["patient_id"] == "p"
    ]
    x, y, width, height = max(of_ball, key=lambda a: a["area"])["bbox"]
    np.testing.assert_allclose([y + (height - 1) / 2, x + (width - 1) / 2], middle[1:], atol=0.6)
    assert all(a["truth"] == {"label": 0.0, "texture": 4.0} for a in of_ball)


def test_eight_bits_are_a_window_that_is_recorded(root, tmp_path):
    export("nodule-csv", root, layout="coco", out=tmp_path / "out", bits=8)
    whole = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert whole["info"]["pixels"] == {"bits": 8, "window_hu": list(WINDOW_HU)}
    image = whole["images"][0]
    pixels = np.asarray(Image.open(tmp_path / "out" / image["file_name"]))
    assert pixels.dtype == np.uint8
    hu = read_volume(root / "a.nii.gz").array_zyx[image["slice"]]
    expected = (np.clip(hu.astype(float), *WINDOW_HU) - WINDOW_HU[0]) / (WINDOW_HU[1] - WINDOW_HU[0]) * 255
    np.testing.assert_allclose(pixels, expected, atol=0.51)


def test_slices_of_a_flipped_file_are_upright(tmp_path):
    volume = thorax(GRID, balls=BALLS)
    array = volume.array_zyx[::-1, ::-1, ::-1].transpose(2, 0, 1)
    affine = volume.geometry.affine_lps.copy()
    affine[:3, 3] = volume.geometry.index_to_world(np.subtract(GRID.shape_zyx, 1))
    affine[:3, :3] = -affine[:3, [2, 0, 1]]
    turned = Volume(array, Geometry(array.shape, affine))
    finding = Finding("1", BALLS[0].center_xyz_mm, 16.0)
    written = []
    for name, source in (("plain", volume), ("turned", turned)):
        case = Case("p", lambda source=source: source, (finding,), name)
        write_coco([case], tmp_path / name, description="", licence="")
        whole = json.loads((tmp_path / name / "annotations.json").read_text())
        written.append([(i["slice"], a["bbox"]) for i, a in zip(whole["images"], whole["annotations"], strict=True)])
    assert written[0] == written[1]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11, numpy 2
def test_run_lengths_are_those_of_pycocotools():
    mask = pytest.importorskip("pycocotools.mask")
    for seed in range(20):
        plane = np.random.default_rng(seed).random((5, 7)) > 0.5
        packed = mask.frPyObjects({"size": [5, 7], "counts": run_lengths(plane)}, 5, 7)
        np.testing.assert_array_equal(mask.decode(packed), plane)


def test_an_nndetection_task(root, tmp_path):
    lines = export("nodule-csv", root, layout="nndetection", out=tmp_path / "out")
    assert lines[1] == "without an outline, so balls of their diameter: 3"
    task = tmp_path / "out" / "Task100_NoduleCsv"
    facts = json.loads((task / "dataset.json").read_text())
    assert facts["task"] == "Task100_NoduleCsv"
    assert (facts["dim"], facts["labels"], facts["modalities"], facts["test_labels"]) == (
        3, {"0": "nodule"}, {"0": "CT"}, True,
    )  # fmt: skip
    raw = task / "raw_splitted"
    for part, balls in (("Tr", 2), ("Ts", 1)):
        (image_path,) = (raw / f"images{part}").iterdir()
        stem = image_path.name.removesuffix("_0000.nii.gz")
        assert "." not in stem
        image, label = nibabel.load(image_path), nibabel.load(raw / f"labels{part}" / f"{stem}.nii.gz")
        np.testing.assert_array_equal(image.affine, label.affine)
        found = np.asarray(label.dataobj)
        instances = json.loads((raw / f"labels{part}" / f"{stem}.json").read_text())["instances"]
        assert instances == {str(n): 0 for n in range(1, balls + 1)}
        assert set(np.unique(found)) == {0, *map(int, instances)}
        for n in range(balls):
            ras = nibabel.affines.apply_affine(label.affine, np.argwhere(found == n + 1)).mean(axis=0)
            np.testing.assert_allclose(ras * (-1, -1, 1), BALLS[n].center_xyz_mm, atol=0.6)
    with (task / "cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["patient_id"], row["part"], row["instances"]) for row in rows] == [("p", "Tr", "2"), ("q", "Ts", "1")]


def test_outlines_are_drawn_and_the_smaller_is_on_top(tmp_path):
    volume = thorax(GRID)
    large, small = np.zeros((2, *GRID.shape_zyx), dtype=bool)
    large[10:16, 30:50, 30:50] = True
    small[12:14, 35:40, 35:40] = True
    masks = [Mask(array, GRID) for array in (small, large, small)]
    findings = tuple(Finding(str(n), (0, 0, 0), mask=mask) for n, mask in enumerate(masks))
    done = write_nndetection([Case("p", lambda: volume, findings, "c")], tmp_path, task="T")
    (label,) = (tmp_path / "Task100_T" / "raw_splitted" / "labelsTr").glob("*.nii.gz")
    found = np.asarray(nibabel.load(label).dataobj).T
    assert (done.findings, done.balls, len(done.skipped)) == (2, 0, 1)
    assert set(np.unique(found)) == {0, 1, 2}
    np.testing.assert_array_equal(found > 0, large)
    assert small.sum() in {(found == 1).sum(), (found == 2).sum()}


def test_a_scan_without_nodules_is_a_negative_and_a_broken_one_is_told(tmp_path):
    def broken():
        raise InputError("scan: cut short")

    volume = thorax(thorax_grid((8, 8, 8)))
    cases = [Case("p", lambda: volume, (), "empty"), Case("q", broken, (), "cut"),
             Case("r", lambda: volume, (Finding("1", (0, 0, 0)),), "unsized")]  # fmt: skip
    done = write_nndetection(cases, tmp_path, task="T")
    (label,) = (tmp_path / "Task100_T" / "raw_splitted" / "labelsTr").glob("*.json")
    assert json.loads(label.read_text()) == {"instances": {}}
    assert done.cases == 1
    assert [entry[0] for entry in done.skipped] == ["cut", "unsized", "unsized"]


def test_nothing_is_left_where_nothing_can_be_written(root, tmp_path):
    (tmp_path / "nodules.csv").write_text("pid,nodule_id,image_path,coordX,coordY,coordZ\np,1,absent.nii.gz,1,2,3\n")
    for layout in ("nodule-csv", "coco", "nndetection"):
        with pytest.raises(InputError, match="nothing could be written"):
            export("nodule-csv", tmp_path, layout=layout, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="a new or empty folder"):
        export("nodule-csv", root, layout="coco", out=tmp_path)
    with pytest.raises(InputError, match="one of nodule-csv, coco"):
        export("nodule-csv", root, layout="yolo", out=tmp_path / "out")


def test_scans_in_files_of_their_own_are_not_copied(tmp_path):
    root, uid = tmp_path / "luna16", "1.2.840.1"
    volume = thorax(thorax_grid((8, 8, 8)), balls=BALLS)
    image = SimpleITK.GetImageFromArray(volume.array_zyx)
    image.SetSpacing(volume.geometry.spacing_zyx_mm[::-1])
    image.SetOrigin(volume.geometry.origin_xyz_mm)
    (root / "subset3").mkdir(parents=True)
    SimpleITK.WriteImage(image, str(root / "subset3" / f"{uid}.mhd"))
    (root / "seriesuids.csv").write_text(f"{uid}\n")
    (root / "annotations.csv").write_text(f"seriesuid,coordX,coordY,coordZ,diameter_mm\n{uid},70,20,30,16\n")
    export("luna16", root, layout="nodule-csv", out=tmp_path / "out")
    assert not (tmp_path / "out" / "images").exists()
    (row,) = read_nodules(tmp_path / "out" / "nodules.csv").rows
    assert row.image_path == root / "subset3" / f"{uid}.mhd"
    np.testing.assert_array_equal(read_volume(row.image_path).array_zyx, volume.array_zyx)


def test_scans_with_gaps_are_exported_where_that_is_asked_for(tmp_path):
    root = tmp_path / "set"
    write_series(root / "b", thorax(thorax_grid((4, 8, 8)), balls=BALLS), patient_id="q", description="chest")
    slices = sorted((root / "b").iterdir())
    slices[len(slices) // 2].unlink()
    (root / "nodules.csv").write_text("pid,nodule_id,image_path,coordX,coordY,coordZ,diameter_mm\nq,0,b,70,20,30,16\n")
    with pytest.raises(InputError, match=r"nothing could be written.*--gaps warn") as caught:
        export("nodule-csv", root, layout="nndetection", out=tmp_path / "out")
    assert str(caught.value).count("Hint: ") == 1
    done = CliRunner().invoke(
        app,
        ["dataset", "export", "nodule-csv", str(root), "--to", "nndetection", "--out", str(tmp_path / "out"),
         "--gaps", "interpolate"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "export.json").read_text())["findings"] == 1
    with pytest.raises(InputError, match=r"--gaps: got data set luna16, which has no DICOM"):
        export("luna16", root, layout="coco", out=tmp_path / "more", gaps="warn")


def test_what_a_killed_export_left_is_in_nobodys_way(root, tmp_path):
    out = tmp_path / "out"
    left = out / ".spicula-x1y2z3"
    (left / "images").mkdir(parents=True)
    (left / "images" / "half.nii.gz").write_bytes(b"half")
    export("nodule-csv", root, layout="nodule-csv", out=out)
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "nodules.csv", "skipped.csv"]
    left.mkdir()
    with pytest.raises(InputError, match="something that is there"):
        export("nodule-csv", root, layout="nodule-csv", out=out)
    assert left.is_dir()


def test_eight_bits_are_for_pictures_only(root, tmp_path):
    with pytest.raises(InputError, match="8 bits"):
        export("nodule-csv", root, layout="nodule-csv", out=tmp_path / "out", bits=8)
    assert not (tmp_path / "out").exists()


def test_volumes_that_no_path_gives_are_written_beside_the_table(tmp_path, monkeypatch):
    from spicula.datasets import nodule_csv

    volume = thorax(thorax_grid((8, 8, 8)))
    case = Case("p", lambda: volume, (Finding("1", (70.0, 20.0, 30.0), 9.0),), "1.2.840.1")

    class Made:
        DESCRIPTION = Description("made", "made", "", "", "", "", "", ())

        @staticmethod
        def load_cases(root):
            return iter([case])

    monkeypatch.setattr("spicula.pipelines.export_dataset.dataset", lambda name: Made)
    export("made", tmp_path, layout="nodule-csv", out=tmp_path / "out")
    (again,) = nodule_csv.load_cases(tmp_path / "out")
    np.testing.assert_array_equal(again.load_volume().array_zyx, volume.array_zyx)
    assert again.case_id == "images/00001-1-2-840-1.nii.gz"


def test_one_volume_is_in_memory_at_a_time(tmp_path):
    shape = (32, 128, 128)
    grid = thorax_grid((6, 2, 2)).crop((0, 0, 0), shape)

    def make():
        return Volume(np.full(shape, -800, dtype=np.int16), grid)

    center = tuple(grid.center_xyz_mm)
    cases = (Case(str(n), make, (Finding("1", center, 6.0),), str(n)) for n in range(12))
    tracemalloc.start()
    write_nndetection(cases, tmp_path, task="T")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2 * np.prod(shape)


@pytest.mark.shared
def test_real_outlines_survive(shared, tmp_path):
    from spicula.datasets import lidc_nodules

    root = shared / "lidc_nodules"
    some = lidc_nodules.load_cases(root)[::200]
    cases = [
        replace(case, findings=(replace(case.findings[0], mask=lidc_nodules.load_mask(root, case.case_id)),))
        for case in some
    ]
    done = write_nndetection(cases, tmp_path / "nn", task="T")
    assert (done.cases, done.balls, done.skipped) == (len(some), 0, [])
    coco = write_coco(cases, tmp_path / "coco", description="", licence="CC BY 3.0")
    whole = json.loads((tmp_path / "coco" / "annotations.json").read_text())
    assert coco.findings == len(some)
    labels = sorted((tmp_path / "nn" / "Task100_T" / "raw_splitted" / "labelsTr").glob("*.nii.gz"))
    for case, path in zip(cases, labels, strict=True):
        mask = case.findings[0].mask
        found = nibabel.load(path)
        assert (np.asarray(found.dataobj) > 0).sum() == mask.array_zyx.sum()
        ras = nibabel.affines.apply_affine(found.affine, np.argwhere(np.asarray(found.dataobj) > 0)).mean(axis=0)
        expected = mask.geometry.index_to_world(np.argwhere(mask.array_zyx)).mean(axis=0)
        np.testing.assert_allclose(ras * (-1, -1, 1), expected, atol=1e-3)
        images = {image["id"] for image in whole["images"] if image["case_id"] == case.case_id}
        areas = [a["area"] for a in whole["annotations"] if a["image_id"] in images]
        assert sum(areas) == mask.array_zyx.sum()


def test_the_command(root, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(
        app, ["dataset", "export", "nodule-csv", str(root), "--to", "nodule-csv", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert f"Next: spicula score {out}/nodules.csv" in done.output
    assert json.loads((out / "export.json").read_text())["findings"] == 4
