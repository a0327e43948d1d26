from __future__ import annotations

import gzip
import json
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spicula.cli import app
from spicula.core.errors import InputError
from spicula.core.geometry import Geometry
from spicula.metrics.doctor.ids import _STEPS
from spicula.metrics.doctor.split import UNITS
from spicula.metrics.hits import Points
from spicula.pipelines.evaluate_doctor import SCHEMA, Examination, examine
from spicula.pipelines.predictions_table import PATIENT

SCANS = [f"{n:04d}" for n in range(3, 43)]
WITH_FINDINGS = SCANS[:30]


def write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    lines = [",".join(map(str, row)) for row in ([header] if header else []) + list(rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def points(path: Path, value: str, table: Points) -> Path:
    rows = [(n, *c, v) for n, c, v in zip(table.scan, table.center_xyz_mm.round(4).tolist(), table.value, strict=True)]
    return write(path, ("seriesuid", "coordX", "coordY", "coordZ", value), rows)


class Files:
    """A small sound set on the disk, to be broken."""

    def __init__(self, root: Path) -> None:
        rng = np.random.default_rng(0)
        self.root = root
        names = np.repeat(WITH_FINDINGS, 3)
        self.truth = Points(names, rng.uniform(-150, 150, (90, 3)), rng.uniform(5, 15, 90))
        hit = rng.random(90) < 0.9
        false = rng.uniform(-180, 180, (len(SCANS) * 15, 3))
        places = np.vstack([self.truth.center_xyz_mm[hit] + rng.normal(0, 0.5, (int(hit.sum()), 3)), false])
        scores = np.append(rng.beta(5, 2, int(hit.sum())), rng.beta(2, 5, len(false)))
        self.marks = Points(np.append(names[hit], np.repeat(SCANS, 15)), places, scores)
        self.given = {
            "detections": points(root / "detections.csv", "probability", self.marks),
            "annotations": points(root / "annotations.csv", "diameter_mm", self.truth),
            "series": write(root / "series.csv", (), [(name,) for name in SCANS]),
        }

    def examined(self, **more: Path) -> Examination:
        return examine(**{**self.given, **more})  # type: ignore[arg-type]

    def detections(self, scan: np.ndarray | None = None, places: np.ndarray | None = None) -> Path:
        table = Points(
            self.marks.scan if scan is None else scan, self.marks.center_xyz_mm if places is None else places,
            self.marks.value,
        )  # fmt: skip
        return points(self.root / "broken.csv", "probability", table)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def codes(found: Examination, severity: str = "error") -> set[str]:
    return {c.code for c in found.complaints if c.severity == severity}


def test_a_sound_set_is_told_the_next_command(files: Files) -> None:
    found = files.examined()
    assert found.complaints == ()
    assert not found.failed
    assert found.facts["divisor"] == 40
    assert len(str(found.facts["series_hash"])) == 16
    lines = found.lines()
    assert lines[-2] == "0 errors, 0 warnings, 0 notes."
    assert lines[-1].startswith("Next: spicula evaluate froc --detections ")


def test_ids_places_and_scores_are_seen_through_each_other(files: Files) -> None:
    bare = np.array([str(int(name)) for name in files.marks.scan])
    found = files.examined(detections=files.detections(bare, files.marks.center_xyz_mm[:, ::-1]))
    assert codes(found) == {"ids.leading-zeros", "places.order"}
    assert found.failed
    assert found.facts["cpm_as_given"] == 0.0
    assert found.facts["cpm_as_mended"] == files.examined().facts["cpm_as_given"]
    text = "\n".join(found.lines())
    assert "mend: write coordX, coordY, coordZ = coordZ, coordY, coordX" in text
    assert "2 errors" in text
    assert "Next:" not in text


def test_the_record_is_plain_json(files: Files) -> None:
    bare = np.array([str(int(name)) for name in files.marks.scan])
    record = json.loads(json.dumps(files.examined(detections=files.detections(bare)).to_json()))
    assert record["schema"] == SCHEMA
    assert record["failed"] is True
    assert record["counts"] == {"error": 1, "warning": 0, "note": 0}
    assert record["complaints"][0]["code"] == "ids.leading-zeros"
    assert record["complaints"][0]["evidence"]["matched_after"] == 40
    assert set(record["files"]) == {"detections", "annotations", "series"}


def test_rows_that_are_no_numbers_are_named_by_line(files: Files) -> None:
    lines = files.given["detections"].read_text().splitlines()
    lines[4] = lines[4].rpartition(",")[0] + ",nan"
    lines[9] = "0003,1,2"
    path = files.root / "nan.csv"
    path.write_text("\n".join(lines))
    found = files.examined(detections=path)
    assert codes(found) == {"rows.not-numbers", "rows.cells"}
    complaint = next(c for c in found.complaints if c.code == "rows.not-numbers")
    assert list(complaint.evidence["lines"]) == ["5"]  # type: ignore[arg-type]
    assert "nan.csv, line 5" in complaint.problem
    assert "'nan'" in complaint.problem
    assert found.facts["detections"] == files.marks.scan.size - 2


def rewritten(files: Files, name: str, change: Callable[[str], str]) -> Path:
    """The detections, each line below the header changed."""
    header, *lines = files.given["detections"].read_text().splitlines()
    path = files.root / name
    path.write_text("\n".join([header, *map(change, lines)]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("separator", [",", ", "])
def test_decimal_commas_in_a_table_with_commas(files: Files, separator: str) -> None:
    path = rewritten(files, "commas.csv", lambda line: line.replace(".", ",").replace(",", separator))
    found = files.examined(detections=path)
    assert [c.code for c in found.complaints] == ["rows.cells"]
    assert "commas.csv, lines 2, 3, 4, 5, 6 and more" in found.complaints[0].problem
    assert "9 (line 2): numbers with a decimal comma" in found.complaints[0].problem
    assert "semicolons" in found.complaints[0].mend
    assert "points" in found.complaints[0].mend
    assert found.facts["detections"] == 0
    assert found.next_commands == ()


def test_a_row_with_a_cell_too_many_is_kept_out_of_the_rest(files: Files) -> None:
    lines = iter(range(2, 10_000))
    path = rewritten(files, "more.csv", lambda line: f"{line},x" if next(lines) in (3, 8) else line)
    for option in ("detections", "annotations"):
        if option == "annotations":
            text = files.given["annotations"].read_text().splitlines()
            text[2], text[7] = text[2] + ",", text[7] + ",5"
            path.write_text("\n".join(text), encoding="utf-8")
        found = files.examined(**{option: path})
        assert codes(found) == {"rows.cells"}
        assert list(found.complaints[0].evidence["lines"]) == ["3", "8"]  # type: ignore[arg-type]
        assert f"rows of the {option} (more.csv, lines 3, 8)" in found.complaints[0].problem
        assert "5 cells" in found.complaints[0].mend
        assert found.next_commands == ()
    series = write(files.root / "two.csv", (), [(name, 0) for name in SCANS])
    assert codes(files.examined(series=series)) == {"rows.cells"}


def test_a_place_a_kilometre_away_is_named_by_line(files: Files) -> None:
    path = rewritten(files, "far.csv", lambda line: line.replace("0007,", "0007,1000", 1))
    found = files.examined(detections=path)
    assert codes(found) >= {"rows.not-numbers"}
    whole = rewritten(files, "whole.csv", lambda line: re.sub(r"\.", "", line))
    found = files.examined(detections=whole)
    assert "whole.csv, lines 2, 3" in next(c.problem for c in found.complaints if c.code == "rows.not-numbers")
    assert "in millimetres" in next(c.mend for c in found.complaints if c.code == "rows.not-numbers")


@pytest.mark.parametrize("option", ["detections", "annotations", "excluded"])
def test_a_table_without_a_header_is_refused_and_examined_all_the_same(files: Files, option: str) -> None:
    source = files.given["annotations" if option == "excluded" else option].read_text()
    path = files.root / "bare.csv"
    path.write_text("\n" * (option == "annotations") + source.partition("\n")[2], encoding="utf-8")
    found = files.examined(**{option: path})
    assert codes(found) - {"excluded.is-annotations"} == {"table.no-header"}
    complaint = next(c for c in found.complaints if c.code == "table.no-header")
    assert complaint.mend.startswith("write the line seriesuid,coordX,coordY,coordZ,")
    assert found.facts["cpm_as_given"] == files.examined(excluded=path).facts["cpm_as_given"] or option != "excluded"
    assert found.facts["detections"] == files.marks.scan.size
    assert found.next_commands == ()


def run_next(found: Examination) -> str:
    """Run the one next command as it is printed."""
    (command,) = found.next_commands
    program, *arguments = shlex.split(command)
    assert program == "spicula"
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, f"{command}\n{done.output}"
    assert found.lines()[-1] == f"Next: {command}"
    return command


def test_the_next_command_has_the_options_that_make_it_run(files: Files) -> None:
    options = {"detections": "d'é 1.csv", "annotations": "annotations.csv", "series": "series.csv"}
    files.given["detections"] = files.given["detections"].rename(files.root / options["detections"])
    assert not re.search("ignore|pad|coords", run_next(files.examined()))
    more = Points(np.append(files.marks.scan, "0999"), np.vstack([files.marks.center_xyz_mm, [1.0, 2, 3]]),
                  np.append(files.marks.value, 0.5))  # fmt: skip
    found = files.examined(detections=points(files.root / "more.csv", "probability", more))
    assert {c.code for c in found.complaints} == {"ids.unknown"}
    assert run_next(found).endswith("--ignore-unknown")
    ras = files.marks.center_xyz_mm * (-1, -1, 1)
    found = files.examined(detections=files.detections(places=ras))
    assert (codes(found), found.failed) == ({"places.ras"}, True)
    assert run_next(found).endswith("--coords ras")
    bare = np.array([str(int(name)) for name in files.marks.scan])
    found = files.examined(detections=files.detections(bare, ras))
    assert codes(found) == {"places.ras", "ids.leading-zeros"}
    assert run_next(found).endswith("--coords ras --pad-ids 4")
    record = json.loads(json.dumps(found.to_json()))
    assert record["next"] == list(found.next_commands)


@pytest.mark.parametrize("width", [0, 6])
def test_the_scan_list_without_zeros_or_with_more_is_padded_too(files: Files, width: int) -> None:
    series = write(files.root / "s.csv", ("seriesuid",), [(str(int(name)).zfill(width),) for name in SCANS])
    found = files.examined(series=series)
    assert codes(found) == {"ids.leading-zeros"}
    assert run_next(found).endswith(f"--pad-ids {max(width, 4)}")
    ending = np.array([f"{int(name)}.mhd" for name in files.marks.scan])
    found = files.examined(detections=files.detections(ending))
    assert found.next_commands == ()  # padding would not mend them
    assert "--pad-ids" not in found.complaints[0].mend


def test_diameters_of_zero_do_not_look_like_places_that_are_wrong(files: Files) -> None:
    zero = points(files.root / "zero.csv", "diameter_mm", Points(files.truth.scan, files.truth.center_xyz_mm,
                  np.zeros(90)))  # fmt: skip
    found = files.examined(annotations=zero)
    assert {c.code for c in found.complaints} == {"diameters.missing"}
    assert "negative" not in found.complaints[0].problem
    assert float(found.facts["cpm_as_mended"]) > 0.5
    unknown = points(files.root / "unknown.csv", "diameter_mm", Points(files.truth.scan, files.truth.center_xyz_mm,
                     np.full(90, -1.0)))  # fmt: skip
    found = files.examined(annotations=unknown)
    assert [(c.code, c.severity) for c in found.complaints] == [("diameters.missing", "warning")]
    flipped = files.examined(annotations=zero, detections=files.detections(places=files.marks.center_xyz_mm[:, ::-1]))
    assert codes(flipped) == {"diameters.missing", "places.order"}
    found = files.examined(excluded=zero)
    assert codes(found) >= {"diameters.missing"}


def test_no_detections_at_all(files: Files) -> None:
    path = write(files.root / "none.csv", ("seriesuid", "coordX", "coordY", "coordZ", "probability"), [])
    assert codes(files.examined(detections=path)) == {"detections.empty"}


def test_excluded_files_that_are_something_else(files: Files) -> None:
    blacklist = write(files.root / "blacklist.csv", (), [("0007",), ("0009",), ("0011",)])
    assert codes(files.examined(excluded=blacklist)) == {"excluded.not-findings"}
    other = write(files.root / "other.csv", ("id", "reason"), [("0007", "blurred")])
    found = files.examined(excluded=other)
    assert codes(found) == {"excluded.not-findings"}
    assert "blacklist" in found.complaints[0].problem
    header = write(files.root / "header.csv", ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"), [])
    assert codes(files.examined(excluded=header)) == {"excluded.empty"}
    empty = files.root / "empty.csv"
    empty.touch()
    assert codes(files.examined(excluded=empty)) == {"excluded.empty"}
    same = files.examined(excluded=files.given["annotations"])
    assert codes(same) == {"excluded.is-annotations"}


def test_one_fold_is_named_from_the_file_of_folds(files: Files) -> None:
    folds = write(files.root / "folds.csv", ("seriesuid", "subset"), [(n, i // 10) for i, n in enumerate(SCANS)])
    assert files.examined(folds=folds).complaints == ()
    keep = np.isin(files.marks.scan, SCANS[10:20])
    marks = Points(files.marks.scan[keep], files.marks.center_xyz_mm[keep], files.marks.value[keep])
    found = files.examined(folds=folds, detections=points(files.root / "one.csv", "probability", marks))
    assert codes(found) == {"series.one-fold"}
    assert list(found.complaints[0].evidence["folds"]) == ["1"]  # type: ignore[arg-type]
    assert found.facts["divisor_as_mended"] == 10
    assert "folds_hash" in found.facts


def write_scan(folder: Path, name: str, grid: Geometry) -> None:
    """A MetaImage header with data beside it that are never read."""
    shape, spacing = grid.shape_zyx[::-1], grid.spacing_zyx_mm[::-1]
    (folder / f"{name}.mhd").write_text(
        f"ObjectType = Image\nNDims = 3\nDimSize = {' '.join(map(str, shape))}\nElementType = MET_CHAR\n"
        f"ElementSpacing = {' '.join(map(str, spacing))}\nOffset = {' '.join(map(str, grid.origin_xyz_mm))}\n"
        f"TransformMatrix = 1 0 0 0 1 0 0 0 1\nElementDataFile = {name}.raw\n"
    )
    (folder / f"{name}.raw").write_bytes(b"\0" * int(np.prod(shape)))


def test_voxels_are_read_by_the_grids_of_the_scans(files: Files) -> None:
    folder = files.root / "scans" / "subset0"
    folder.mkdir(parents=True)
    grids = {
        name: Geometry.from_axes((9, 20, 20), (40.0 + n % 3, 20.0, 20.0), origin_xyz_mm=(-190.0, -185.0 + n, -170.0))
        for n, name in enumerate(SCANS)
    }
    for name, grid in grids.items():
        write_scan(folder, name, grid)
    index = [grids[str(n)].world_to_index(c) for n, c in zip(files.marks.scan, files.marks.center_xyz_mm, strict=True)]
    path = files.detections(places=np.array(index))
    found = files.examined(detections=path, scans=files.root / "scans")
    assert codes(found) == {"places.voxels"}
    assert found.complaints[0].evidence["order"] == "zyx"
    assert found.facts["cpm_as_mended"] == pytest.approx(files.examined().facts["cpm_as_given"], abs=0.01)  # type: ignore[arg-type]
    assert files.examined(scans=files.root / "scans").complaints == ()


def test_scans_that_cannot_be_found_or_read_are_said(files: Files) -> None:
    (files.root / "0003.mhd").write_text("NDims = 3\n")
    found = files.examined(scans=files.root)
    assert codes(found, "warning") == {"scans.unreadable", "scans.not-found"}
    with pytest.raises(InputError, match="is no folder"):
        files.examined(scans=files.root / "nowhere")


# Classification.


def some_rows(n: int = 60) -> list[tuple[str, str, float, int]]:
    rng = np.random.default_rng(1)
    label = (rng.random(n) < 0.4).astype(int)
    p = 1 / (1 + np.exp(-(-0.4 + 2 * (label - 0.4) + rng.normal(0, 1, n))))
    return [
        (f"{i // 2:03d}", str(i % 2), round(float(v), 6), int(k)) for i, (v, k) in enumerate(zip(p, label, strict=True))
    ]


HEADER = ("pid", "nodule_id", "probability", "label")


def predicted(tmp_path: Path, rows: Iterable[Sequence[object]], header: Sequence[str] = HEADER) -> Examination:
    return examine(predictions=write(tmp_path / "predictions.csv", header, rows))


def test_sound_predictions(tmp_path: Path) -> None:
    found = predicted(tmp_path, some_rows())
    assert found.complaints == ()
    assert (found.facts["rows_with_label"], found.facts["patients"]) == (60, 30)
    assert float(found.facts["auroc"]) > 0.8


def test_predictions_that_are_wrong(tmp_path: Path) -> None:
    rows = some_rows()
    assert codes(predicted(tmp_path, [(a, b, p, 1 - y) for a, b, p, y in rows])) == {"labels.inverted"}
    assert codes(predicted(tmp_path, [(a, b, round(p), y) for a, b, p, y in rows])) == {"probabilities.labels"}
    assert codes(predicted(tmp_path, [(a, b, 100 * p, y) for a, b, p, y in rows])) == {"probabilities.percent"}
    assert codes(predicted(tmp_path, [(a, b, p, 1) for a, b, p, y in rows])) == {"labels.one-class"}
    assert codes(predicted(tmp_path, [*rows, rows[0]])) == {"nodules.duplicated"}
    assert codes(predicted(tmp_path, rows[:12])) == {"patients.few"}
    bare = predicted(tmp_path, [row[:3] for row in rows], HEADER[:3])
    assert codes(bare, "note") == {"labels.none"}
    bad = predicted(tmp_path, [(a, b, p if n != 7 else "", y) for n, (a, b, p, y) in enumerate(rows)])
    assert codes(bad) == {"rows.not-numbers"}
    assert list(bad.complaints[0].evidence["lines"]) == ["9"]  # type: ignore[arg-type]


def test_predictions_with_decimal_commas(tmp_path: Path) -> None:
    rows = [(a, b, str(p).replace(".", ","), y) for a, b, p, y in some_rows()]
    found = predicted(tmp_path, rows)
    assert [c.code for c in found.complaints] == ["rows.cells"]
    assert "5 (line 2): numbers with a decimal comma" in found.complaints[0].problem
    short = predicted(tmp_path, [*some_rows(), ("900", "1", "0.5")])
    assert codes(short) == {"rows.cells"}
    assert short.facts["rows_with_label"] == 60
    truth = write(tmp_path / "truth.csv", ("pid", "nodule_id", "label"), [(a, b, y, 0) for a, b, _, y in some_rows()])
    path = write(tmp_path / "p.csv", HEADER[:3], [row[:3] for row in some_rows()])
    found = examine(predictions=path, truth=truth)
    assert codes(found) == {"rows.cells"}
    assert "rows of the truth" in found.complaints[0].problem


def test_predictions_without_a_patient_repeat_no_nodule(tmp_path: Path) -> None:
    rows = some_rows()
    found = predicted(tmp_path, [(b, p, y) for _, b, p, y in rows], HEADER[1:])
    assert codes(found) == {"patients.no-column"}
    assert all(name in found.complaints[0].problem for name in PATIENT)
    assert "patients" not in found.facts
    assert found.facts["auroc"] == predicted(tmp_path, rows).facts["auroc"]
    assert found.next_commands == ()
    found = predicted(tmp_path, [(a, p, y) for a, _, p, y in rows], ("pid", *HEADER[2:]))
    assert codes(found) == {"nodules.no-column"}
    assert found.facts["patients"] == 30


def test_labels_are_found_by_nodule_where_only_one_table_tells_the_patient(tmp_path: Path) -> None:
    rows = [(a, f"{a}-{b}", p, y) for a, b, p, y in some_rows()]
    path = write(tmp_path / "p.csv", HEADER[1:3], [row[1:3] for row in rows])
    truth = write(tmp_path / "t.csv", ("pid", "nodule_id", "label"), [(a, b, y) for a, b, _, y in rows])
    found = examine(predictions=path, truth=truth)
    assert codes(found) == {"patients.no-column"}
    assert found.facts["rows_with_label"] == 60
    truth = write(tmp_path / "t.csv", ("pid", "nodule_id", "label"), [(a, b, y) for a, b, _, y in some_rows()])
    path = write(tmp_path / "p.csv", HEADER[1:3], [row[1:3] for row in some_rows()])
    found = examine(predictions=path, truth=truth)
    assert codes(found) == {"patients.no-column"}
    assert found.facts["rows_with_label"] == 0


def test_sound_predictions_are_told_the_next_command(tmp_path: Path) -> None:
    found = predicted(tmp_path, some_rows())
    assert run_next(found).startswith("spicula evaluate classification --predictions ")
    truth = write(tmp_path / "truth.csv", ("patient_id", "nodule", "label"), [(a, b, y) for a, b, _, y in some_rows()])
    path = write(tmp_path / "p.csv", HEADER[:3], [row[:3] for row in some_rows()])
    assert "--truth" in run_next(examine(predictions=path, truth=truth))
    assert examine(predictions=path).next_commands == ()


# Whatever passes is accepted by the command that is named.


_SPOILT = ("", "nan", "x", "1e7", "1,5", "0", "-1", "0007", "7", "new", '"', "1.5")


def spoilt(rng: np.random.Generator, path: Path) -> Path:
    """The table with nothing, or up to two things, done to it that happen to tables."""
    lines = [line.split(",") for line in path.read_text().splitlines()]
    headed = lines[0] != [lines[0][0]] or not lines[0][0].isdigit()
    for _ in range(rng.integers(0, 3)):
        at = int(rng.integers(headed, len(lines)))
        row = lines[at]
        match int(rng.integers(0, 10)):
            case 0 | 1:
                row[int(rng.integers(0, len(row)))] = str(rng.choice(_SPOILT))
            case 2:
                row.append(str(rng.choice(_SPOILT)))
            case 3:
                row.pop()
            case 4 | 5:
                lines.append([str(rng.choice(_SPOILT)), *row[1:]])
            case 6:
                lines.append(list(row))
            case 7:
                lines = lines[headed:] if rng.random() < 0.5 else lines[: int(rng.integers(1, len(lines)))]
                headed = False
            case 8:
                lines = [[cell.replace(".", ",") for cell in each] for each in lines]
            case 9:
                column = int(rng.integers(0, len(lines[0])))
                lines = [[*each[:column], *each[column + 1 :]] for each in lines] if len(lines[0]) > 1 else lines
        if len(lines) <= headed:
            break
    separator = str(rng.choice([",", ",", ";", "\t"]))
    out = path.with_name(f"spoilt {path.name}")
    out.write_text("\n".join(separator.join(row) for row in lines) + "\n", encoding="utf-8")
    return out


@pytest.mark.parametrize("seed", range(4))
def test_what_passes_is_accepted_by_the_next_command(files: Files, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    excluded = Points(files.truth.scan[:9], files.truth.center_xyz_mm[:9] + 40, np.full(9, -1.0))
    sound = {**files.given, "excluded": points(tmp_path / "excluded.csv", "diameter_mm", excluded)}
    rows = some_rows()
    predictions = write(tmp_path / "predictions.csv", HEADER, rows)
    truth = write(tmp_path / "truth.csv", ("pid", "nodule_id", "label"), [(a, b, y) for a, b, _, y in rows])
    passed = failed = 0
    for turn in range(30):
        given = {name: spoilt(rng, path) if rng.random() < 0.5 else path for name, path in sound.items()}
        if turn % 2:
            given = {"predictions": spoilt(rng, predictions)}
            given |= {"truth": spoilt(rng, truth)} if rng.random() < 0.5 else {}
        try:
            found = examine(**given)  # type: ignore[arg-type]
        except InputError:
            continue
        if found.next_commands:
            run_next(found)
        assert found.failed or found.next_commands or "labels.none" in codes(found, "note")
        passed, failed = passed + (not found.failed), failed + found.failed
    assert passed > 3
    assert failed > 3


def test_folds_of_predictions_share_no_patient(tmp_path: Path) -> None:
    header = (*HEADER, "fold")
    sound = [(*row, int(row[0]) % 5) for row in some_rows()]
    assert predicted(tmp_path, sound, header).complaints == ()
    found = predicted(tmp_path, [(*row, n % 5) for n, row in enumerate(some_rows())], header)
    assert codes(found) == {"split.patient"}
    assert "made by nodule" in found.complaints[0].problem


def test_a_truth_of_other_ids(tmp_path: Path) -> None:
    rows = some_rows()
    truth = write(tmp_path / "truth.csv", ("patient_id", "nodule", "label"), [(a, b, y) for a, b, _, y in rows])

    def seen(ours: Iterable[Sequence[object]]) -> Examination:
        path = write(tmp_path / "predictions.csv", HEADER[:3], ours)
        return examine(predictions=path, truth=truth)

    assert seen([row[:3] for row in rows]).complaints == ()
    short = seen([(str(int(a)), b, p) for a, b, p, _ in rows])
    assert codes(short) == {"ids.leading-zeros"}
    assert short.facts["rows_with_label"] == 60
    named = seen([(a, f"n{b}", p) for a, b, p, _ in rows])
    assert codes(named) == {"ids.affix"}
    part = seen([row[:3] for row in rows[:40]])
    assert (codes(part), codes(part, "warning")) == (set(), {"predictions.missing"})
    letters = [chr(97 + n % 26) + chr(97 + n // 26) for n in range(60)]
    assert codes(seen([(x, b, p) for x, (_, b, p, _) in zip(letters, rows, strict=True)])) == {"ids.unknown"}


# Splits.


def test_splits_in_one_table(tmp_path: Path) -> None:
    rows = [(f"p{n // 3}", f"1.2.{n // 2}", "train" if n < 30 else "test") for n in range(60)]
    header = ("PatientID", "StudyInstanceUID", "split")
    assert examine(split=write(tmp_path / "sound.csv", header, rows)).complaints == ()
    rows[0] = ("p0", "1.2.0", "test")
    found = examine(split=write(tmp_path / "leak.csv", header, rows))
    assert codes(found) == {"split.patient", "split.study"}
    assert found.facts["rows_test"] == 31


def test_splits_in_two_files(tmp_path: Path) -> None:
    train = write(tmp_path / "train.txt", (), [(f"crops/LIDC-IDRI-{n:04d}_1.npy",) for n in range(1, 30)])
    test = write(tmp_path / "test.txt", (), [(f"crops/LIDC-IDRI-{n:04d}_2.npy",) for n in range(25, 40)])
    found = examine(train=train, test=test)
    assert codes(found) == {"split.file-name"}
    assert found.complaints[0].evidence["shared"] == 5
    assert "LIDC-IDRI-0025" in found.complaints[0].problem
    sound = write(tmp_path / "test.txt", (), [(f"crops/LIDC-IDRI-{n:04d}_2.npy",) for n in range(30, 40)])
    assert examine(train=train, test=sound).complaints == ()


def test_series_on_both_sides_without_a_patient(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", ("seriesuid",), [(f"1.2.{n}",) for n in range(20)])
    test = write(tmp_path / "test.csv", ("SeriesInstanceUID",), [(f"1.2.{n}",) for n in range(19, 30)])
    found = examine(train=train, test=test)
    assert codes(found) == {"split.series"}
    assert codes(found, "warning") == {"split.no-patient"}


# What cannot be examined.


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_in_the_cells_nothing_but_clear_errors_come_out(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = ["1", "2", "01", "002", "s1", "s1.mhd", "a/s1", "1.0", "1e+30", "1.2.3", ""]
    numbers = ["0", "1", "0.5", "-3", "12.25", "7", "1e300", "nan", "inf", "", "abc"]

    def table(name: str, *header: str) -> Path:
        rows = [[str(rng.choice(ids if c in ("seriesuid", "pid", "nodule_id", "file") else numbers)) for c in header]
                for _ in range(rng.integers(0, 14))]  # fmt: skip
        return write(tmp_path / name, header, rows)

    place = ("seriesuid", "coordX", "coordY", "coordZ")
    answered, refused = 0, set()
    for _ in range(40):
        given = [
            {"detections": table("d.csv", *place, "probability"), "annotations": table("a.csv", *place, "diameter_mm"),
             "series": table("s.csv", "seriesuid"), "excluded": table("e.csv", *place, "diameter_mm")},
            {"predictions": table("p.csv", "pid", "nodule_id", "probability", "label")},
            {"train": table("r.csv", "pid", "nodule_id"), "test": table("t.csv", "pid", "file")},
        ]  # fmt: skip
        for options in given:
            try:
                found = examine(**options)  # type: ignore[arg-type]
            except InputError as error:
                refused.add(str(error).partition(": ")[0].rpartition(" ")[2])
                continue
            json.dumps(found.to_json(), allow_nan=False)
            answered += 1
    assert answered > 60
    assert refused == {"row"}  # "FILE holds no row: ..."


def test_the_page_names_every_complaint() -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "how-to" / "evaluation-doctor.md").read_text(encoding="utf-8")
    sources = [
        *(root / "src/spicula/metrics/doctor").glob("*.py"),
        *(root / "src/spicula/pipelines").glob("doctor_*.py"),
    ]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    known = set(re.findall(r'Complaint\(\s*"([a-z0-9.-]+)"', text))
    known |= {f"split.{kind}" for kind in UNITS} | {f"ids.{step.code}" for step in _STEPS} | {"ids.affix", "ids.cut"}
    known |= {f"places.{code}" for code in ("flipped", "ras", "order", "voxels", "no-origin", "no-spacing")}
    known |= {"probabilities.percent", "probabilities.logits", "detections.empty", "annotations.empty"}
    named = set(re.findall(r"`([a-z]+\.[a-z0-9-]+)`", page))
    assert len(known) > 60
    assert named == known


def test_what_is_missing_is_named(files: Files, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to examine"):
        examine()
    with pytest.raises(InputError, match="detections without series"):
        examine(detections=files.given["detections"], annotations=files.given["annotations"])
    with pytest.raises(InputError, match="without detections"):
        examine(annotations=files.given["annotations"])
    with pytest.raises(InputError, match="truth without predictions"):
        examine(truth=files.given["annotations"])
    with pytest.raises(InputError, match="one side"):
        examine(train=files.given["annotations"])
    with pytest.raises(InputError, match=r"column probability missing|coordX"):
        files.examined(detections=files.given["annotations"])
    with pytest.raises(InputError, match="column with the probability"):
        predicted(tmp_path, [("1", "2")], ("pid", "nodule_id"))
    with pytest.raises(InputError, match="side of the split"):
        examine(split=files.given["series"])
    with pytest.raises(InputError, match="cannot be read"):
        files.examined(series=files.root / "absent.csv")


@pytest.mark.shared
def test_a_split_of_lidc_by_nodule_is_told(shared: Path, tmp_path: Path) -> None:
    """TotalSegmentator#592 and the slice-level 98 %: LIDC's patients on both sides."""
    lines = (shared / "lidc_nodules" / "nodules.csv").read_text().splitlines()
    header, rows = lines[0].split(","), [line.split(",") for line in lines[1:]]
    side = np.where(np.random.default_rng(0).random(len(rows)) < 0.8, "train", "test")
    by_nodule = write(tmp_path / "n.csv", [*header, "split"], [(*r, s) for r, s in zip(rows, side, strict=True)])
    found = examine(split=by_nodule)
    assert codes(found) == {"split.patient", "split.series"}
    assert "made by nodule" in found.complaints[0].problem
    assert int(found.complaints[0].evidence["shared"]) == 82  # type: ignore[call-overload]
    patient = {r[0]: s for r, s in zip(rows, side, strict=True)}
    by_patient = write(tmp_path / "p.csv", [*header, "split"], [(*r, patient[r[0]]) for r in rows])
    assert examine(split=by_patient).complaints == ()


@pytest.mark.shared
def test_the_published_detections_as_they_are_shipped(shared: Path) -> None:
    """Their ids lack leading zeros; with them the score is the published one."""
    oracle = shared / "luna16" / "oracle"
    found = examine(
        detections=oracle / "dpn26bs32.csv.gz", annotations=oracle / "newannotations.csv.gz",
        excluded=oracle / "newannotations_excluded.csv.gz", series=oracle / "newseriesuids.csv.gz",
    )  # fmt: skip
    assert codes(found) == {"ids.leading-zeros"}
    assert "--pad-ids 5" in found.complaints[0].mend
    assert found.facts["cpm_as_mended"] == 0.84197


@pytest.mark.shared
def test_the_annotations_of_luna16_under_their_own_uids(shared: Path, tmp_path: Path) -> None:
    """Real series UIDs with a file ending, as many write them."""
    root = shared / "luna16"
    lines = (root / "annotations.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    marks = [(f"{uid}.mhd", x, y, z, 0.5 + n / 1e4) for n, (uid, x, y, z, _) in enumerate(rows)]
    path = write(tmp_path / "d.csv", ("seriesuid", "coordX", "coordY", "coordZ", "probability"), marks)
    found = examine(
        detections=path, annotations=root / "annotations.csv", series=root / "seriesuids.csv",
        excluded=root / "annotations_excluded.csv.gz",
    )  # fmt: skip
    assert codes(found) == {"ids.ending", "divisor.only-with-findings"}
    with gzip.open(root / "annotations_excluded.csv.gz", "rt") as stream:
        assert found.facts["excluded_findings"] == sum(1 for _ in stream) - 1
