"""Predicted risks against what turned out."""

import csv
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from spicula import __version__
from spicula.core.errors import InputError
from spicula.pipelines.evaluate_classification import SCHEMA, evaluate_predictions, summary_lines, to_json
from spicula.pipelines.evaluation_pages import classification_page
from spicula.pipelines.predictions_table import read_predictions
from spicula.report.evaluation import render_evaluation


def rows(*, patients=40, seed=0, shift=1.5):
    rng = np.random.default_rng(seed)
    for number in range(2 * patients):
        label = int(rng.random() < 0.3)
        p = 1 / (1 + np.exp(-rng.normal() - shift * label + 1))
        yield {"pid": f"{number // 2:03d}", "nodule_id": str(number), "probability": f"{p:.6f}", "malignant": label}


def written(path, content, **more):
    content = [{**row, **more} for row in content]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(content[0]))
        writer.writeheader()
        writer.writerows(content)
    return path


def test_values_are_those_of_scikit_learn(tmp_path):
    predictions = read_predictions(written(tmp_path / "p.csv", rows()))
    result = evaluate_predictions(predictions, resamples=200)
    y, p = predictions.label, predictions.score
    assert result.nodule.auroc.value == pytest.approx(roc_auc_score(y, p))
    assert result.nodule.auprc.value == pytest.approx(average_precision_score(y, p))
    assert result.nodule.at_threshold.f1 == pytest.approx(f1_score(y, p >= 0.5))
    assert result.nodule.calibration.brier == pytest.approx(np.mean((p - y) ** 2))
    of = [predictions.patient == pid for pid in set(predictions.patient)]
    by_patient = [(y[nodules].max(), p[nodules].max()) for nodules in of]
    assert result.patient.rows == 40
    assert result.patient.auroc.value == pytest.approx(roc_auc_score(*zip(*by_patient, strict=True)))
    assert result.nodule.auroc.low < result.nodule.auroc.value < result.nodule.auroc.high
    json.dumps(to_json(result, predictions), allow_nan=False)


def test_the_record_says_what_it_was_made_from_and_names_no_folder(tmp_path):
    own = list(rows())
    truth = written(tmp_path / "t.csv", own)
    first = read_predictions(written(tmp_path / "a.csv", own), truth=truth)
    second = read_predictions(written(tmp_path / "b.csv", rows(shift=0.5)), truth=truth)
    other = replace(second, label=first.label)
    record = to_json(evaluate_predictions(first, other=other, resamples=150, seed=3), first)
    assert (record["schema"], record["program"], record["version"]) == (SCHEMA, "spicula", __version__)
    assert (record["level"], record["resamples"], record["seed"]) == (0.95, 150, 3)
    assert record["columns"] == {"score": "probability", "label": "malignant"}
    for name, path in (("predictions", "a.csv"), ("truth", "t.csv"), ("other", "b.csv")):
        content = (tmp_path / path).read_bytes()
        assert record["inputs"][name] == {"name": path, "sha256": hashlib.sha256(content).hexdigest(), "rows": 80}
    assert record["comparison"]["predictions"] == "b.csv"
    assert str(tmp_path) not in json.dumps(record)
    alone = to_json(evaluate_predictions(read_predictions(tmp_path / "a.csv"), resamples=100), first)
    assert set(alone) == set(record)


def test_labels_from_another_file_and_leading_zeros(tmp_path):
    own = list(rows())
    truth = written(tmp_path / "t.csv", [{k: r[k] for k in ("pid", "nodule_id", "malignant")} for r in reversed(own)])
    bare = written(tmp_path / "p.csv", [{k: r[k] for k in ("pid", "nodule_id", "probability")} for r in own])
    np.testing.assert_array_equal(
        read_predictions(bare, truth=truth).label, read_predictions(written(tmp_path / "q.csv", own)).label
    )
    lost = written(tmp_path / "l.csv", [{**r, "pid": str(int(r["pid"]))} for r in own])
    with pytest.raises(InputError, match=r"line 2: pid '0'.*leading zeros"):
        read_predictions(lost, truth=truth)


def test_a_split_through_patients_is_said_loudly(tmp_path):
    content = [{**row, "fold": n % 2} for n, row in enumerate(rows())]
    predictions = read_predictions(written(tmp_path / "p.csv", content))
    result = evaluate_predictions(predictions, resamples=50)
    assert any("40 patients are in more than one fold" in warning for warning in result.warnings)
    assert set(result.folds) == {"0", "1"}
    whole = [{**row, "fold": int(row["pid"]) % 2} for row in rows()]
    other = read_predictions(written(tmp_path / "q.csv", whole))
    assert not evaluate_predictions(other, resamples=50).warnings
    assert other.split_hash != predictions.split_hash


def test_the_better_of_two_models_is_told(tmp_path):
    good = read_predictions(written(tmp_path / "a.csv", rows(shift=3.0)))
    poor = read_predictions(written(tmp_path / "b.csv", reversed(list(rows(shift=0.2)))))
    result = evaluate_predictions(good, other=poor, resamples=500)
    assert result.comparison.auroc.difference.low > 0
    assert result.comparison.delong.p_value < 0.05
    fewer = read_predictions(written(tmp_path / "c.csv", list(rows())[1:]))
    with pytest.raises(InputError, match="other nodules"):
        evaluate_predictions(good, other=fewer)


def test_scores_that_are_no_probabilities_have_no_calibration(tmp_path):
    content = [{**row, "probability": 10 * float(row["probability"]) - 5} for row in rows()]
    result = evaluate_predictions(read_predictions(written(tmp_path / "p.csv", content)), resamples=50)
    assert result.nodule.calibration is None
    assert "no probabilities" in result.warnings[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": "nan"}, r"line 2: probability: got 'nan'"),
        ({"probability": ""}, r"line 2: probability is empty.*--allow-failed"),
        ({"malignant": "2"}, r"line 2: malignant: got 2, expected 0 or 1"),
        ({"pid": ""}, r"line 2: pid is empty"),
        ({"pid": "000", "nodule_id": "1"}, r"line 3: pid '000', nodule '1': got the nodule of line 2 again"),
    ],
)
def test_bad_rows_are_named(tmp_path, change, message):
    content = list(rows())
    content[0] = {**content[0], **change}
    with pytest.raises(InputError, match=message):
        read_predictions(written(tmp_path / "p.csv", content))


def test_failed_rows_are_left_out_only_when_asked_and_counted(tmp_path):
    content = [{**row, "probability": "" if n < 3 else row["probability"]} for n, row in enumerate(rows())]
    predictions = read_predictions(written(tmp_path / "p.csv", content), allow_failed=True)
    assert predictions.failed == 3
    assert any("3 rows without a score" in w for w in evaluate_predictions(predictions, resamples=50).warnings)


def test_nodules_without_a_prediction_are_told(tmp_path):
    own = list(rows())
    predictions = read_predictions(written(tmp_path / "p.csv", own[:-7]), truth=written(tmp_path / "t.csv", own))
    assert predictions.unpredicted == 7
    result = evaluate_predictions(predictions, resamples=50)
    assert any("7 nodules with a label have no prediction" in warning for warning in result.warnings)
    assert to_json(result, predictions)["unpredicted"] == 7


def test_folds_of_one_class_are_told(tmp_path):
    content = [{**row, "fold": "x" if row["pid"] < "004" else int(row["pid"]) % 2} for row in rows()]
    content = [{**row, "malignant": 0} if row["fold"] == "x" else row for row in content]
    result = evaluate_predictions(read_predictions(written(tmp_path / "p.csv", content)), resamples=50)
    assert set(result.folds) == {"0", "1"}
    assert any("1 folds have one class only ('x')" in warning for warning in result.warnings)


def test_another_label_in_the_other_file_is_refused(tmp_path):
    own = list(rows())
    turned = [{**own[0], "malignant": 1 - own[0]["malignant"]}, *own[1:]]
    first, second = (read_predictions(written(tmp_path / f"{n}.csv", r)) for n, r in enumerate((own, turned)))
    with pytest.raises(InputError, match=r"1\.csv: pid '000', nodule '0': got another label.*1 of 80 nodules"):
        evaluate_predictions(first, other=second, resamples=50)
    fewer = read_predictions(written(tmp_path / "f.csv", own[:-1]))
    with pytest.raises(InputError, match=r"pid '039', nodule '79'"):
        evaluate_predictions(first, other=fewer, resamples=50)


def test_a_threshold_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(InputError, match="threshold"):
        evaluate_predictions(read_predictions(written(tmp_path / "p.csv", rows())), threshold=float("nan"))


def test_the_case_of_columns_does_not_matter(tmp_path):
    path = written(tmp_path / "p.csv", [{**row, "fold": 1} for row in rows()])
    head, body = path.read_text().split("\n", 1)
    path.write_text(head.title().replace("Nodule_Id", "nodule_ID") + "\n" + body)
    predictions = read_predictions(path)
    assert predictions.columns == ("Probability", "Malignant")
    assert predictions.fold is not None
    assert read_predictions(path, score="PROBABILITY").columns == ("Probability", "Malignant")


def test_the_lines_for_people_hold_recalls_and_draws(tmp_path):
    predictions = read_predictions(written(tmp_path / "p.csv", rows()))
    lines = summary_lines(evaluate_predictions(predictions, resamples=50, seed=3))
    assert sum(line.startswith("  at recall ") for line in lines) == 8
    assert lines[-1] == "intervals: 95 %, 50 resamples of patients, seed 3"


def test_one_class_few_patients_and_missing_columns(tmp_path):
    benign = read_predictions(written(tmp_path / "p.csv", rows(), malignant=0))
    with pytest.raises(InputError, match=r"p\.csv: labels of column malignant.*class 0 only.*both classes"):
        evaluate_predictions(benign)
    few = read_predictions(written(tmp_path / "q.csv", rows(patients=6)))
    with pytest.raises(InputError, match=r"q\.csv: patients \(pid\): got 6, expected 10 or more"):
        evaluate_predictions(few)
    with pytest.raises(InputError, match="column with the label missing"):
        read_predictions(
            written(tmp_path / "r.csv", [{k: r[k] for k in ("pid", "nodule_id", "probability")} for r in rows()])
        )
    with pytest.raises(InputError, match="column with the score missing"):
        read_predictions(tmp_path / "p.csv", score="risk")


def test_the_page_holds_every_number_and_escapes_names(tmp_path):
    path = written(tmp_path / "<b>p.csv", [{**row, "fold": int(row["pid"]) % 2} for row in rows()])
    predictions = read_predictions(path)
    result = evaluate_predictions(predictions, other=predictions, resamples=50)
    page = render_evaluation(classification_page(result, predictions, other=predictions))
    assert page.count("<svg") >= 3
    assert "<b>p" not in page
    for text in (f"{result.nodule.auroc.value:.3f}", result.split_hash, "Reliability", "Research software"):
        assert text in page


def test_other_names_of_patient_and_nodule_are_known(tmp_path):
    content = [
        {"patient_id": r["pid"], "lesion": r["nodule_id"], "Score": r["probability"], "label": 1} for r in rows()
    ]
    found = read_predictions(written(tmp_path / "p.csv", content))
    assert found.patient[2] == "001"
    assert found.columns == ("Score", "label")


def test_a_rating_named_malignancy_is_not_taken_for_the_score(tmp_path):
    content = [{("score" if name == "probability" else name): cell for name, cell in row.items()} for row in rows()]
    path = written(tmp_path / "p.csv", content, malignancy=4)
    assert read_predictions(path).columns == ("score", "malignant")
