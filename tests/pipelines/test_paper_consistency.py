"""What cannot be in published tables, and that true tables pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon
from sklearn.metrics import f1_score, precision_recall_curve, roc_auc_score, roc_curve

from spicula.papers import Paper, Published, paper, paper_keys
from spicula.pipelines import paper_arithmetic as arithmetic
from spicula.pipelines.paper_consistency import Verdict, check_paper, lines, summary

ROOT = Path(__file__).resolve().parents[2]


def verdicts(*numbers: Published) -> list[Verdict]:
    return check_paper(Paper("t", "t", (), 2025, numbers))


@given(st.integers(1, 2000), st.data())
@settings(max_examples=200, deadline=None)
def test_a_rounded_share_gives_its_count_back(n: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, n))
    assert count in arithmetic.counts_of(round(count / n, 3), n)


@given(st.lists(st.booleans(), min_size=30, max_size=60), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_tables_read_at_one_threshold_always_fit(positives: list[bool], seed: int) -> None:
    y = np.array(positives)
    if not 5 < y.sum() < len(y) - 5:
        return
    score = np.random.default_rng(seed).permutation(len(y)) + 10.0 * y
    cells = []
    for recall in (0.6, 0.8):
        threshold = np.sort(score[y])[::-1][round(recall * int(y.sum())) - 1]
        called = score >= threshold
        rate, precision = (called & ~y).sum() / (~y).sum(), (called & y).sum() / called.sum()
        for metric, value in (("false_positive_rate", rate), ("precision", precision)):
            cell = Published(
                "T", "m", metric, round(float(value), 3), "A", at=recall, n=len(y), n_positive=int(y.sum())
            )
            cells.append(cell)
    assert {v.state for v in verdicts(*cells)} == {"fits"}


def test_reading_two_curves_at_the_nearest_recall_is_caught_and_told() -> None:
    rng = np.random.default_rng(3)
    y = np.arange(120) < 40
    score = rng.normal(size=120) + 1.2 * y
    false, true, _ = roc_curve(y, score)
    precision, recall, _ = precision_recall_curve(y, score)
    cells = []
    for aim in (0.6, 0.7, 0.8, 0.9):
        rate = float(false[np.argmin(np.abs(true - aim))])
        value = float(precision[np.argmin(np.abs(recall - aim))])
        facts = {"dataset": "A", "at": aim, "n": 120, "n_positive": 40}
        cells.append(Published("T", "m", "false_positive_rate", round(rate, 3), **facts))
        cells.append(Published("T", "m", "precision", round(value, 3), **facts))
    found = verdicts(*cells)
    assert [v.state for v in found if v.check == "one threshold"].count("cannot be") >= 2
    told = [v.why for v in found if v.check == "reading"]
    assert len(told) == 1
    assert "and 0 fewer" in told[0]


def test_the_number_of_negatives_is_found_where_the_heading_is_wrong() -> None:
    facts = {"dataset": "A", "n": 186, "n_positive": 43}
    cells = [
        Published("T", "m", metric, value, at=at, **facts)
        for at, rate, precision in ((0.6, 0.035, 0.839), (0.7, 0.092, 0.698))
        for metric, value in (("false_positive_rate", rate), ("precision", precision))
    ]
    found = [v for v in verdicts(*cells) if v.check == "whole number"]
    assert [v.state for v in found] == ["fits", "cannot be"]
    assert "142" in found[1].why


def test_the_published_tables() -> None:
    found = check_paper(paper("zhuang2025"))
    by_name = {(v.where, v.check, v.what): v for v in found}
    cannot = [v for v in found if v.state == "cannot be"]
    rates = [v for v in cannot if v.check == "whole number" and "false-positive rate" in v.what]
    assert sum(v.where == "Table 3" for v in rates) == 10
    assert sum(v.where == "Table A4" for v in rates) == 6
    assert all("DeepLungIPN" in v.what for v in rates if v.where == "Table 3")
    assert all("142 negatives" in v.why for v in rates if "NLST" in v.what)
    assert all("34 negatives" in v.why for v in rates if "LUNGx" in v.what)
    assert all("744" in v.why for v in rates if "DLCS" in v.what)
    pairs = [v for v in cannot if v.check == "one threshold"]
    assert (sum(v.where == "Table 3" for v in pairs), sum(v.where == "Table A4" for v in pairs)) == (23, 28)
    reading = [v.why for v in found if v.check == "reading"]
    assert ["22 have more" in reading[0], "28 have more" in reading[1]] == [True, True]
    share = by_name["Table 4", "whole number", "NLST: Nodule Consistency = Pure ground glass"]
    assert (share.state, "251" in share.why) == ("cannot be", True)
    assert sum(v.state == "cannot be" for v in found if v.where in {"Table 4", "Table A1", "Table A5"}) == 1
    interval = [v for v in cannot if v.check == "interval"]
    assert [(v.printed, "0.7835" in v.why) for v in interval] == [("0.780 [0.772, 0.795]", True)]
    assert len(cannot) == 10 + 6 + 23 + 28 + 1 + 1
    airway = by_name["Table 4", "whole number", "CLIP, zero-shot, NLST: AUROC of Airway Cutoff"]
    assert (airway.state, "N/A counted as absent" in airway.why) == ("odd", True)


def test_the_other_papers() -> None:
    f1 = [v for v in check_paper(paper("noreen2025")) if v.check == "F1"]
    assert [v.state for v in f1] == ["cannot be", "fits"]
    assert "0.9646" in f1[0].why
    assert "23.8%" in f1[1].why
    odd = check_paper(paper("qi2023"))
    assert [(v.state, "4,927" in v.why) for v in odd] == [("odd", True)]
    means = {v.what: v.state for v in check_paper(paper("luna16_peers"))}
    assert means.pop("concept-to-clinic, ten folds, LUNA16: CPM") == "cannot be"
    assert set(means.values()) == {"fits"}
    assert [v.state for v in check_paper(paper("zhu2018"))] == ["fits"]


@pytest.mark.parametrize("key", paper_keys())
def test_every_paper_can_be_checked_and_told(key: str) -> None:
    found = check_paper(paper(key))
    told = summary(key, found)
    assert told["checks"] == told["fits"] + told["odd"] + told["cannot be"] == len(found)
    text = lines(key, found)
    assert text[0].startswith(key)
    assert len(text) >= 1 + told["odd"] + told["cannot be"]


def test_f1_against_scikit_learn() -> None:
    y, called = np.array([1, 1, 1, 0, 0, 1, 0, 1]), np.array([1, 0, 1, 1, 0, 1, 0, 1])
    low, high = arithmetic.f1_range(0.8, 0.8, decimals=4)
    assert low <= f1_score(y, called) <= high
    assert arithmetic.positive_share(6 / 8, 0.8, 0.8) == pytest.approx(5 / 8)


def test_areas_of_few_pairs_are_whole_numbers_of_half_pairs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        y = np.arange(12) < 3
        score = rng.integers(0, 6, size=12)
        assert arithmetic.area_can_be(round(float(roc_auc_score(y, score)), 3), 3, 9)
    assert not arithmetic.area_can_be(0.51, 3, 9)


def test_signed_rank_p_values_against_scipy() -> None:
    rng = np.random.default_rng(1)
    can = arithmetic.signed_rank_p_values(5)
    assert can[0] == 0.0625
    for _ in range(40):
        p = float(wilcoxon(rng.normal(size=5), method="exact").pvalue)
        assert min(abs(p - each) for each in can) < 1e-12


def test_three_models_that_cannot_be_ranked_so() -> None:
    def cell(pair: str, value: float) -> Published:
        return Published("T", pair, "p_value", value, "A", target="auroc", folds=5, note="Nemenyi after Friedman")

    good = verdicts(cell("a vs b", 0.609), cell("a vs c", 0.012), cell("b vs c", 0.139))
    bad = verdicts(cell("a vs b", 0.609), cell("a vs c", 0.012), cell("b vs c", 0.254))
    none = verdicts(cell("a vs b", 0.500), cell("a vs c", 0.012), cell("b vs c", 0.139))
    assert [v.state for v in (*good, *bad, *none)] == ["fits", "cannot be", "cannot be"]


def test_a_value_outside_its_interval_cannot_be() -> None:
    cell = Published("T", "m", "auroc", 0.9, "A", low=0.7, high=0.8, interval="bootstrap")
    assert [v.state for v in verdicts(cell)] == ["cannot be"]


def test_the_document_tells_what_the_record_says() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "paper-zhuang2025-check.json").read_text(encoding="utf-8"))
    found = check_paper(paper("zhuang2025"))
    assert record == json.loads(json.dumps(summary("zhuang2025", found))), "write the record again"
    told = (ROOT / "docs" / "concepts" / "published-numbers.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines() if line.startswith("| ")]
    counts = {row[0]: tuple(map(int, row[1:4])) for row in rows if row[0].startswith(("Table ", "Section "))}
    assert len(counts) == 9
    for where, (checks, cannot, odd) in counts.items():
        states = [v.state for v in found if v.where == where]
        assert (len(states), states.count("cannot be"), states.count("odd")) == (checks, cannot, odd), where
    assert sum(cannot for _, cannot, _ in counts.values()) == record["cannot be"]
