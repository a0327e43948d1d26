from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from spicula import __version__
from spicula.core.errors import InputError
from spicula.metrics.froc import LUNA16_RATES, luna16
from spicula.metrics.hits import Points
from spicula.pipelines.evaluate_froc import (
    FrocEvaluation,
    band_arrays,
    evaluate_froc,
    free_response_arrays,
    summary_lines,
    to_record,
)
from spicula.pipelines.run_folder import write_json

KEYS = {
    "schema", "program", "version", "protocol", "cpm", "interval", "rates", "sensitivity", "sensitivity_interval",
    "counts", "divisor", "level", "resamples", "seed", "drawn", "unknown", "inputs", "notes", "variants",
}  # fmt: skip


@pytest.fixture(scope="module")
def golden(shared: Path) -> FrocEvaluation:
    root = shared / "luna16" / "oracle"
    return evaluate_froc(
        root / "dpn26bs32.csv.gz",
        root / "newannotations.csv.gz",
        root / "newseriesuids.csv.gz",
        excluded=root / "newannotations_excluded.csv.gz",
        pad_ids=5,
        variants=True,
    )


@pytest.mark.shared
def test_golden_oracle_through_files(golden: FrocEvaluation, shared: Path) -> None:
    record = to_record(golden)
    assert set(record) == KEYS
    assert round(record["cpm"], 5) == 0.84197
    assert [round(v, 4) for v in record["sensitivity"]] == [0.6922, 0.7690, 0.8238, 0.8651, 0.8929, 0.9174, 0.9334]
    assert record["counts"] == {
        "true_positives": 1136, "false_negatives": 50, "false_positives": 46078, "irrelevant": 5308, "double": 186,
        "marks": 52708, "ignored": 0, "scans": 888,
    }  # fmt: skip
    assert (record["divisor"], record["protocol"], record["resamples"], record["seed"]) == (888, "LUNA16", 1000, 0)
    low, high = record["interval"]
    assert low == pytest.approx(0.8116, abs=0.004)
    assert high == pytest.approx(0.8678, abs=0.004)
    published = [(0.639, 0.737), (0.729, 0.808), (0.791, 0.854), (0.835, 0.889), (0.870, 0.915), (0.894, 0.937),
                 (0.912, 0.952)]  # fmt: skip
    assert np.array(record["sensitivity_interval"]) == pytest.approx(np.array(published), abs=0.004)
    assert {n: f["rows"] for n, f in record["inputs"].items()} == {
        "detections": 55677, "annotations": 1186, "excluded": 35192, "series": 888,
    }  # fmt: skip
    series = shared / "luna16" / "oracle" / "newseriesuids.csv.gz"
    assert record["inputs"]["series"]["sha256"] == hashlib.sha256(series.read_bytes()).hexdigest()
    assert [round(v["cpm"], 4) for v in record["variants"]] == [0.8420, 0.7422, 0.9047, 0.8331, 0.8583, 0.8429, 0.8420]
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@pytest.mark.shared
def test_golden_curve_and_band(golden: FrocEvaluation) -> None:
    false, true = free_response_arrays(golden)
    assert (false[0], true[0]) == (0, 0)
    assert false[-1] == pytest.approx(46078 / 888)
    assert true[-1] == pytest.approx(1136 / 1186)
    band = band_arrays(golden)
    assert band is not None
    assert (band.low <= band.sensitivity).all()
    assert (band.sensitivity <= band.high).all()
    ends = [(band.low[i], band.high[i]) for i in np.searchsorted(band.rates, np.array(LUNA16_RATES) - 1e-9)]
    assert golden.sensitivity_interval is not None
    assert np.array(ends) == pytest.approx(np.array(golden.sensitivity_interval))


@pytest.mark.shared
def test_unpadded_ids_of_the_oracle_are_an_error_that_says_how(shared: Path) -> None:
    root = shared / "luna16" / "oracle"
    with pytest.raises(InputError, match=r"dpn26bs32.csv.gz, line 2: scan 1: .*--pad-ids 5"):
        evaluate_froc(root / "dpn26bs32.csv.gz", root / "newannotations.csv.gz", root / "newseriesuids.csv.gz")


class Toy:
    """A small set on the disk; any table can be written anew."""

    def __init__(self, folder: Path, *, scans: int = 12) -> None:
        rng = np.random.default_rng(5)
        self.folder = folder
        self.scans = [f"{number:04d}" for number in range(1, scans + 1)]
        home = rng.choice(self.scans[: scans - 2], 15)
        self.nodules = Points(home, rng.uniform(-150, 150, (15, 3)).round(3), rng.uniform(5, 20, 15).round(3))
        self.excluded = Points(rng.choice(self.scans, 6), rng.uniform(-150, 150, (6, 3)).round(3), np.full(6, -1.0))
        names = np.concatenate([home, self.excluded.scan, rng.choice(self.scans, 200)])
        centers = np.concatenate(
            [
                self.nodules.center_xyz_mm + rng.normal(0, 2, (15, 3)),
                self.excluded.center_xyz_mm + rng.normal(0, 1, (6, 3)),
                rng.uniform(-150, 150, (200, 3)),
            ]
        )
        score = np.concatenate([rng.beta(4, 2, 15), rng.beta(3, 3, 6), rng.beta(2, 4, 200)])
        self.marks = Points(names, centers.round(3), score.round(4))
        self.detections = self.table("detections.csv", self.marks, "probability")
        self.annotations = self.table("annotations.csv", self.nodules, "diameter_mm")
        self.others = self.table("excluded.csv", self.excluded, "diameter_mm")
        self.series = self.write("seriesuids.csv", self.scans)

    def write(self, name: str, lines: Sequence[str]) -> Path:
        path = self.folder / name
        text = "\n".join(lines) + "\n"
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    def table(self, name: str, points: Points, value: str, *, by: str = ",", header: str = "") -> Path:
        lines = [header or by.join(["seriesuid", "coordX", "coordY", "coordZ", value])]
        for scan, center, number in zip(points.scan, points.center_xyz_mm, points.value, strict=True):
            lines.append(by.join([str(scan), *(repr(float(c)) for c in center), repr(float(number))]))
        return self.write(name, lines)

    def evaluate(self, detections: Path | None = None, **options: object) -> FrocEvaluation:
        return evaluate_froc(
            detections or self.detections,
            options.pop("annotations", self.annotations),  # type: ignore[arg-type]
            options.pop("series", self.series),  # type: ignore[arg-type]
            **{"excluded": self.others, "resamples": 50, **options},  # type: ignore[arg-type]
        )


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


def test_the_job_is_the_metric_on_the_tables(toy: Toy) -> None:
    found = toy.evaluate(seed=3)
    expected = luna16(toy.marks, toy.nodules, toy.excluded, toy.scans, resamples=50, seed=3)
    assert found.cpm == expected.mean.value
    assert found.interval == (expected.mean.low, expected.mean.high)
    assert found.counts == expected.counts
    assert found.counts.irrelevant > 0
    assert (found.drawn, found.resamples, found.seed) == ("scans", 50, 3)
    assert found.protocol == "LUNA16"


def test_tables_may_be_written_in_many_ways(toy: Toy) -> None:
    expected = to_record(toy.evaluate())
    tabs = toy.table("detections.tsv.gz", toy.marks, "probability", by="\t")
    other = toy.table("other.csv", toy.marks, "", header="SeriesUID,X,Y,Z,Score")
    headed = toy.write("headed.csv", ["SeriesInstanceUID", *toy.scans])
    crlf = toy.folder / "crlf.csv"
    crlf.write_bytes(toy.annotations.read_bytes().replace(b"\n", b"\r\n"))
    for found in (toy.evaluate(tabs), toy.evaluate(other), toy.evaluate(series=headed), toy.evaluate(annotations=crlf)):
        record = to_record(found)
        assert {k: v for k, v in record.items() if k != "inputs"} == {
            k: v for k, v in expected.items() if k != "inputs"
        }


def test_ids_are_padded_in_all_tables(toy: Toy) -> None:
    bare = Points(np.char.lstrip(toy.marks.scan, "0"), toy.marks.center_xyz_mm, toy.marks.value)
    path = toy.table("bare.csv", bare, "probability")
    with pytest.raises(InputError, match="--pad-ids 4"):
        toy.evaluate(path)
    assert toy.evaluate(path, pad_ids=4).cpm == toy.evaluate().cpm
    lists = toy.write("bare_series.csv", [s.lstrip("0") for s in toy.scans])
    with pytest.raises(InputError, match="the other table lacks leading zeros: --pad-ids 4"):
        toy.evaluate(series=lists)
    assert toy.evaluate(series=lists, pad_ids=4).cpm == toy.evaluate().cpm


def test_ras_detections_are_turned(toy: Toy) -> None:
    turned = Points(toy.marks.scan, toy.marks.center_xyz_mm * (-1, -1, 1), toy.marks.value)
    path = toy.table("ras.csv", turned, "probability")
    assert toy.evaluate(path).cpm < toy.evaluate().cpm
    assert toy.evaluate(path, coords="ras").cpm == toy.evaluate().cpm
    with pytest.raises(InputError, match="coords"):
        toy.evaluate(coords="voxel")


def test_unknown_scans_are_refused_or_counted(toy: Toy) -> None:
    fold = toy.write("fold.csv", toy.scans[2:])
    out = int(np.isin(toy.marks.scan, toy.scans[:2]).sum())
    first = 2 + int(np.flatnonzero(np.isin(toy.marks.scan, toy.scans[:2]))[0])
    with pytest.raises(InputError, match=rf"detections.csv, line {first}: .*{out} of 221 rows.*--ignore-unknown"):
        toy.evaluate(series=fold)
    found = toy.evaluate(series=fold, ignore_unknown=True)
    assert found.counts.ignored == found.unknown["detections"] == out
    assert found.unknown["annotations"] == int(np.isin(toy.nodules.scan, toy.scans[:2]).sum())
    assert (found.counts.scans, found.counts.marks) == (10, 221 - out)
    assert any(f"{out} rows of detections.csv" in note for note in found.notes)
    # Nothing in common stays an error.
    strange = toy.write("strange.csv", ["1.2.3", "1.2.4"])
    with pytest.raises(InputError, match="221 of 221 rows"):
        toy.evaluate(series=strange, ignore_unknown=True)
    longer = toy.write("longer.csv", [f"{s}.mhd" for s in toy.scans])
    with pytest.raises(InputError, match="prefix or an ending"):
        toy.evaluate(series=longer)


def test_patients_are_drawn_whole(toy: Toy) -> None:
    alone = toy.write("alone.csv", ["seriesuid,patient_id", *(f"{s},p{s}" for s in toy.scans)])
    assert toy.evaluate(groups=alone).interval == toy.evaluate().interval
    two = toy.write("two.csv", ["SeriesUID,Patient", *(f"{s},p{max(int(s), 2)}" for s in toy.scans)])
    found = toy.evaluate(groups=two)
    assert found.drawn == "patients"
    assert found.interval != toy.evaluate().interval
    assert found.cpm == toy.evaluate().cpm
    few = toy.write("few.csv", ["seriesuid,patient_id", *(f"{s},p{int(s) % 9}" for s in toy.scans)])
    with pytest.raises(InputError, match="9 patients, fewer than 10"):
        toy.evaluate(groups=few)
    missing = toy.write("missing.csv", ["seriesuid,patient_id", *(f"{s},p" for s in toy.scans[1:])])
    with pytest.raises(InputError, match=r"seriesuids.csv, line 1: scan 0001: got no patient in"):
        toy.evaluate(groups=missing)
    torn = toy.write("torn.csv", ["seriesuid,patient_id", "0001,p", "0001,q"])
    with pytest.raises(InputError, match=r"torn.csv, line 3"):
        toy.evaluate(groups=torn)


def test_few_scans_have_no_interval(tmp_path: Path) -> None:
    toy = Toy(tmp_path, scans=9)
    found = toy.evaluate(resamples=None)
    record = to_record(found)
    assert (record["interval"], record["sensitivity_interval"], record["resamples"]) == (None, None, 0)
    assert band_arrays(found) is None
    assert any("9 scans, fewer than 10" in note for note in found.notes)
    with pytest.raises(InputError, match="--resamples 0"):
        toy.evaluate(resamples=100)
    assert toy.evaluate(resamples=0).cpm == found.cpm


def test_departures_are_told(toy: Toy) -> None:
    assert toy.evaluate(excluded=None).protocol == "LUNA16, but no list of excluded findings"
    assert toy.evaluate(max_marks=5).protocol == "LUNA16, but at most 5 marks a scan"
    assert toy.evaluate(max_marks=0).protocol == "LUNA16, but no limit of marks"
    assert any("no excluded findings" in note for note in toy.evaluate(excluded=None).notes)
    strict = Points(toy.marks.scan[:5], toy.marks.center_xyz_mm[:5], toy.marks.value[:5])
    notes = toy.evaluate(toy.table("strict.csv", strict, "probability"), resamples=0).notes
    assert any(note.startswith("the curve ends at ") for note in notes)
    assert any("scans have no detection" in note for note in notes)
    with pytest.raises(InputError, match="variants"):
        toy.evaluate(excluded=None, variants=True)


def test_what_the_score_may_not_mean_is_told(toy: Toy) -> None:
    def notes(**options: object) -> str:
        return "; ".join(toy.evaluate(resamples=0, **options).notes)  # type: ignore[arg-type]

    bare = toy.write("bare.csv", [HEAD.replace("probability", "diameter_mm")])
    assert "bare.csv holds no finding of the listed scans" in notes(excluded=bare)
    assert "annotations.csv holds all findings of annotations.csv" in notes(excluded=toy.annotations)
    sized = Points(toy.nodules.scan, toy.nodules.center_xyz_mm, np.where(np.arange(15) < 4, -1.0, toy.nodules.value))
    some = toy.table("sized.csv", sized, "diameter_mm")
    assert "4 of 15 findings have no diameter: 10 mm is taken" in notes(annotations=some)
    equal = Points(toy.marks.scan, toy.marks.center_xyz_mm, np.full(toy.marks.value.size, 0.5))
    assert "all detections have one score" in notes(detections=toy.table("equal.csv", equal, "probability"))
    assert notes() == "; ".join(note for note in toy.evaluate(resamples=0).notes if "scans have no detection" in note)


def test_lines_for_people(toy: Toy) -> None:
    found = toy.evaluate(variants=True)
    text = "\n".join(summary_lines(found))
    assert f"CPM {found.cpm:.4f} (" in text
    assert "official LUNA16's own " in text
    assert "official official" not in text
    assert text.count("MISTAKE") == len(found.variants) - 1
    assert "excluded findings counted as false" in text
    assert "12 scans" in text
    assert "50 resamples of scans, seed 0" in text
    assert "(" not in summary_lines(toy.evaluate(resamples=0))[0]


def test_record_is_written_whole(toy: Toy) -> None:
    found = toy.evaluate()
    path = toy.folder / "out" / "froc.json"
    write_json(path, to_record(found), finite=True)
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record == to_record(found)
    assert set(record) == KEYS
    assert record["version"] == __version__
    assert record["inputs"]["detections"]["sha256"] == hashlib.sha256(toy.detections.read_bytes()).hexdigest()
    assert str(toy.folder) not in path.read_text(encoding="utf-8")


HEAD = "seriesuid,coordX,coordY,coordZ,probability"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEAD, "0001,1,2,3,nan"], r"detections.csv, line 2: probability: got 'nan'"),
        ([HEAD, "0001,1,2,3,0.5", "0002,1,inf,3,0.5"], r"line 3: coordY: got 'inf'"),
        ([HEAD, "0001,1,2,3,"], r"line 2: probability: got nothing"),
        ([HEAD, "0001,1,2,3,high"], r"line 2: probability: got 'high'"),
        ([HEAD, ",1,2,3,0.5"], r"line 2: seriesuid is empty"),
        ([HEAD, "0001,1,2,3"], r"line 2: got 4 cells, expected 5"),
        (["seriesuid,coordX,coordY,coordZ", "0001,1,2,3"], r"column probability missing"),
        ([HEAD], r"detections.csv holds no row"),
        ([], r"detections.csv is empty"),
        ([HEAD, "77,1,2,3,0.5"], r"line 2: scan 77: .*1 of 1 rows"),
    ],
)
def test_bad_detections_are_named(toy: Toy, lines: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        toy.evaluate(toy.write("detections.csv", lines))


def test_other_bad_tables_are_named(toy: Toy) -> None:
    diameters = HEAD.replace("probability", "diameter_mm")
    with pytest.raises(InputError, match="holds no row"):
        toy.evaluate(annotations=toy.write("none.csv", [diameters]))
    with pytest.raises(InputError, match="line 2: diameter_mm: got 0"):
        toy.evaluate(annotations=toy.write("flat.csv", [diameters, "0001,1,2,3,0"]))
    with pytest.raises(InputError, match=r"twice.csv, line 3: scan 0001: got the same as line 1"):
        toy.evaluate(series=toy.write("twice.csv", ["0001", "0002", "0001"]))
    with pytest.raises(InputError, match=r"named.csv, line 1: got 'identifier'"):
        toy.evaluate(series=toy.write("named.csv", ["identifier", *toy.scans]))
    with pytest.raises(InputError, match=r"absent.csv"):
        toy.evaluate(toy.folder / "absent.csv")
    with pytest.raises(InputError, match="max marks"):
        toy.evaluate(max_marks=-1)
    assert toy.evaluate(excluded=toy.write("no_others.csv", [diameters])).counts.irrelevant == 0


def test_no_finding_in_the_scans_is_an_error(toy: Toy) -> None:
    empty = toy.write("empty.csv", [s for s in toy.scans if s not in set(toy.nodules.scan)])
    with pytest.raises(InputError, match=r"annotations.csv, line 2: .*15 of 15 rows .* for example 0\d+$"):
        toy.evaluate(series=empty, ignore_unknown=True)


def test_no_excluded_finding_in_the_scans_is_fine_where_that_is_allowed(toy: Toy) -> None:
    elsewhere = toy.write("elsewhere.csv", [HEAD.replace("probability", "diameter_mm"), "9999,1,2,3,-1"])
    with pytest.raises(InputError, match=r"elsewhere.csv, line 2: scan 9999"):
        toy.evaluate(excluded=elsewhere)
    found = toy.evaluate(excluded=elsewhere, ignore_unknown=True)
    assert (found.counts.irrelevant, found.unknown["excluded"]) == (0, 1)


@pytest.mark.shared
def test_luna16_own_annotations_are_a_perfect_detector(shared: Path, tmp_path: Path) -> None:
    root = shared / "luna16"
    lines = (root / "annotations.csv").read_text().split()
    marks = tmp_path / "detections.csv"
    marks.write_text("\n".join([HEAD, *(line.rsplit(",", 1)[0] + ",0.5" for line in lines[1:])]) + "\n")
    found = evaluate_froc(
        marks, root / "annotations.csv", root / "seriesuids.csv", excluded=root / "annotations_excluded.csv.gz",
        resamples=20, variants=True,
    )  # fmt: skip
    assert (found.cpm, found.interval) == (1.0, (1.0, 1.0))
    assert (found.counts.true_positives, found.counts.false_positives, found.counts.scans) == (1186, 0, 888)
    assert all(variant.mean == 1.0 for variant in found.variants)
    assert any("the curve ends at 0 false positives" in note for note in found.notes)
    assert any("287 of 888 scans have no detection" in note for note in found.notes)
