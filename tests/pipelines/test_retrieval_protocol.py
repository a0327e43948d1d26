"""The retrieval protocol on vectors whose answers are known."""

import csv

import numpy as np
import pytest

from spicula.pipelines.retrieval_protocol import MEASURES, Queries, judge_retrieval
from spicula.pipelines.retrieval_table import COLUMNS, lines, write_table


@pytest.fixture(scope="module")
def queries() -> Queries:
    n = 120
    malignant = np.arange(n) % 2
    patients = np.array([f"p{row // 3}" for row in range(n)])
    ratings = np.repeat(1.0 + 4 * malignant[:, None], 7, axis=1)
    return Queries(patients, (np.arange(n) // 3) % 5, {"malignancy": malignant}, ratings)


def unit(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_vectors_that_know_the_label_find_it_everywhere_and_chance_does_not(queries: Queries) -> None:
    label = queries.labels["malignancy"]
    rng = np.random.default_rng(0)
    knows = unit(label + 0.1 * rng.random(len(queries)))
    guesses = unit(rng.random(len(queries)))
    found = judge_retrieval({"knows": knows, "guesses": guesses}, queries, against=["guesses"])
    across = found["knows"]["malignancy"]["cross-patient"]
    assert across["precision"]["value"] == across["average_precision"]["value"] == across["ndcg"]["value"] == 1.0
    assert across["precision"]["over"]["guesses"]["low"] > 0.3
    assert found["knows"]["malignancy"]["unseen"]["precision"]["value"] == 1.0
    assert found["guesses"]["malignancy"]["cross-patient"]["precision"]["value"] == pytest.approx(0.5, abs=0.1)
    same = found["knows"]["malignancy"]["same-patient"]
    assert same["precision"]["value"] < 0.2  # a patient has two others, one of them alike at most
    assert same["average_precision"]["skipped"] == 40  # the middle nodule of a patient has no like


def test_each_fold_is_looked_up_in_its_own_vectors(queries: Queries) -> None:
    label = queries.labels["malignancy"]
    right, wrong = unit(label.astype(float)), unit(np.zeros(len(queries)))
    by_fold = np.stack([right if fold == 3 else wrong for fold in range(5)])
    found = judge_retrieval({"one": by_fold, "none": np.stack([wrong] * 5)}, queries, against=["none", "one"])
    gained = found["one"]["malignancy"]["unseen"]["precision"]
    assert set(gained["over"]) == {"none"}
    assert gained["over"]["none"]["value"] > 0
    assert gained["value"] < 1.0


def test_the_table_has_every_number_and_a_row_for_each_comparison(queries: Queries, tmp_path) -> None:
    label = queries.labels["malignancy"].astype(float)
    vectors = {"knows": unit(label), "guesses": unit(np.random.default_rng(1).random(len(queries)))}
    found = judge_retrieval({**vectors, "third": unit(-label)}, queries, against=["knows", "guesses"])
    write_table(tmp_path / "retrieval.csv", found)
    with (tmp_path / "retrieval.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == (1 + 1 + 2) * 4 * len(MEASURES)
    (one,) = [
        row for row in rows
        if (row["embedding"], row["scope"], row["measure"], row["less"]) == ("third", "all", "precision", "guesses")
    ]  # fmt: skip
    told = found["third"]["malignancy"]["all"]["precision"]
    assert float(one["value"]) == told["value"]
    assert float(one["difference_low"]) == told["over"]["guesses"]["low"]
    printed = lines(found)
    assert printed[0].split()[:4] == ["precision", "at", "10,", "malignancy"]
    assert len(printed) == 4
    assert f"{told['value']:.3f} ({told['low']:.3f} to {told['high']:.3f})" in printed[3]
