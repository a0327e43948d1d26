"""Every file of published numbers keeps the contract."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from spicula.core.errors import InputError
from spicula.papers import Paper, Published, paper, paper_keys, recall_table, sensitivity_row, share_table

FOLDER = Path(__file__).resolve().parents[2] / "src" / "spicula" / "papers"
METRICS = {
    "accuracy", "auprc", "auroc", "c_index", "cases", "cpm", "f1", "false_positive_rate", "map@10", "nodules",
    "p_value", "precision", "recall", "sensitivity", "share",
}  # fmt: skip
COUNTS = {"cases", "nodules"}
NUMBERS = [(key, number) for key in paper_keys() for number in paper(key).numbers]


def test_the_three_systems_and_their_peers_are_there() -> None:
    assert {"zhuang2025", "noreen2025", "qi2023", "zhu2018", "luna16_peers"} <= set(paper_keys())
    assert set(paper_keys()) == {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("key", paper_keys())
def test_a_paper_says_what_it_is(key: str) -> None:
    found = paper(key)
    assert isinstance(found, Paper)
    assert found.key == key
    assert found.title
    assert 2015 < found.year < 2030
    assert found.arxiv or found.doi
    assert found.numbers
    assert found.absent, "say what the source prints and what is not here"
    assert all(isinstance(number, Published) for number in found.numbers)
    if found.authors:
        family = found.authors[0].split()[-1].lower()
        assert key == f"{family}{found.year}"


@pytest.mark.parametrize("key", paper_keys())
def test_a_file_holds_numbers_and_no_logic(key: str) -> None:
    tree = ast.parse((FOLDER / f"{key}.py").read_text(encoding="utf-8"))
    logic = (ast.If, ast.For, ast.While, ast.Try, ast.ClassDef, ast.Lambda)
    assert not [node for node in ast.walk(tree) if isinstance(node, logic)]
    sums = [node.op for node in ast.walk(tree) if isinstance(node, ast.BinOp)]
    assert not [op for op in sums if not isinstance(op, ast.BitOr)], "no arithmetic: type what is printed"
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "spicula.papers"}


@pytest.mark.parametrize("key", paper_keys())
def test_no_number_is_there_twice(key: str) -> None:
    cells = [(n.where, n.model, n.metric, n.dataset, n.split, n.target, n.at, n.note) for n in paper(key).numbers]
    assert len(cells) == len(set(cells))


def test_every_number_has_a_place_and_a_known_metric() -> None:
    for key, number in NUMBERS:
        assert number.where, (key, number)
        assert number.metric in METRICS, (key, number)
        assert number.dataset, (key, number)
        assert number.value is not None or (number.low is not None and number.high is not None), (key, number)


def test_every_number_is_possible_and_lies_in_its_interval() -> None:
    for key, number in NUMBERS:
        if number.metric not in COUNTS and number.value is not None:
            assert 0 <= number.value <= 1, (key, number)
            assert round(number.value, number.decimals) == number.value, (key, number)
        assert (number.low is None) == (number.high is None) == (not number.interval), (key, number)
        if number.low is not None and number.high is not None:
            assert number.low < number.high, (key, number)
            if number.value is not None:
                assert number.low <= number.value <= number.high, (key, number)
        if number.n is not None and number.n_positive is not None:
            assert 0 < number.n_positive < number.n, (key, number)


def test_the_headline_numbers() -> None:
    zhuang = paper("zhuang2025")
    best = [n for n in zhuang.numbers if (n.model, n.metric, n.dataset) == ("CLIP", "auroc", "NLST")]
    assert (best[0].value, best[0].low, best[0].high, best[0].n, best[0].n_positive) == (0.901, 0.843, 0.950, 188, 43)
    assert len(zhuang.at_place("Table 3")) == len(zhuang.at_place("Table A4")) == 12 * 8
    assert len([n for n in zhuang.at_place("Table 4") if n.metric == "auroc"]) == 16
    assert len({n.target.split(" = ")[0] for n in zhuang.at_place("Table A1")}) == 19
    assert [n.value for n in paper("zhu2018").numbers if n.metric == "cpm"] == [0.842, 0.834]
    assert {n.metric: n.value for n in paper("noreen2025").numbers}["accuracy"] == 0.9837
    assert paper("qi2023").authors == ("Kristin Qi", "Jiali Cheng", "Daniel Haehn")


def test_places_are_in_the_order_of_the_file() -> None:
    found = paper("zhuang2025")
    assert found.places[0] == "Table 1"
    assert sum(len(found.at_place(where)) for where in found.places) == len(found.numbers)


def test_an_unknown_key_names_those_there_are() -> None:
    with pytest.raises(InputError, match="zhuang2025"):
        paper("no_such_paper")


def test_layouts_put_each_cell_in_its_place() -> None:
    row = recall_table("T", {"A": ("", 10, 4)}, [("A", "m", (0.1, 0.9, 0.2, 0.8))], recalls=(0.5, 1.0))
    assert [(n.at, n.metric, n.value) for n in row] == [
        (0.5, "false_positive_rate", 0.1), (0.5, "precision", 0.9), (1.0, "false_positive_rate", 0.2),
        (1.0, "precision", 0.8),
    ]  # fmt: skip
    shares = share_table("T", "A", "", 3, {"f": {"yes": 33.3, "no": 66.7}})
    assert [(n.target, n.value) for n in shares] == [("f = yes", 0.333), ("f = no", 0.667)]
    assert [n.metric for n in sensitivity_row("T", "m", "A", (), cpm=0.5)] == ["cpm"]
    assert [n.at for n in sensitivity_row("T", "m", "A", (0.5, 0.6), rates=(1.0, 2.0))] == [1.0, 2.0]
    with pytest.raises(ValueError, match="shorter"):
        recall_table("T", {"A": ("", 10, 4)}, [("A", "m", (0.1,))])


def printed(shared: Path) -> str:
    return (shared.parent / "papers" / "clip_nodule_2504.21344_full.txt").read_text(encoding="utf-8")


@pytest.mark.shared
def test_recall_tables_are_typed_as_printed(shared: Path) -> None:
    """The cells of tables 3 and A4, in the order of the text."""
    lines = printed(shared).splitlines()
    heads = [n for n, line in enumerate(lines) if line.startswith("| Models | Recall 0.6")]
    for where, head in zip(("Table 3", "Table A4"), heads, strict=True):
        rows = [line.strip("| ").split(" | ") for line in lines[head + 2 : head + 18]]
        cells = [(row[0].replace("Ours (CLIP)", "CLIP"), float(cell)) for row in rows for cell in row[1:]]
        assert cells == [(n.model, n.value) for n in paper("zhuang2025").at_place(where)]


@pytest.mark.shared
def test_shares_and_zero_shot_are_typed_as_printed(shared: Path) -> None:
    """Every class of tables 4 and A1 with its percent, and the AUROC behind."""
    found = paper("zhuang2025")
    text = printed(shared)
    for where, start, end in (
        ("Table 4", "| Semantic Features | Classes (%) | AUROC |", "4.3 Ablation Studies"),
        ("Table A1", "| Feature | Classes (%) |", "A.2 Text Generation"),
    ):
        rows = [line.strip("| ").split(" | ") for line in text.split(start)[1].split(end)[0].splitlines()]
        rows = [row for row in rows if len(row) > 1]
        percents = [re.findall(r"\(([0-9.]+)\)", row[1]) for row in rows]
        shares = [n for n in found.at_place(where) if n.metric == "share"]
        assert [round(float(p) / 100, 4) for row in percents for p in row] == [n.value for n in shares]
        names = [row[0] for row, row_percents in zip(rows, percents, strict=True) for _ in row_percents]
        assert names == [n.target.split(" = ")[0] for n in shares]
        classes = [re.sub(r"\s", "", row[1]) for row in rows for _ in re.findall(r"\(([0-9.]+)\)", row[1])]
        assert all(n.target.split(" = ")[1].replace(" ", "") in c for n, c in zip(shares, classes, strict=True))
        if where == "Table 4":
            areas = [(n.target, n.value) for n in found.at_place(where) if n.metric == "auroc"]
            assert areas == [(row[0], float(row[2])) for row in rows]


@pytest.mark.shared
def test_intervals_and_p_values_are_typed_as_printed(shared: Path) -> None:
    """The intervals of table 5 row by row, the p-values of table A5."""
    text, found = printed(shared), paper("zhuang2025")
    table = text.split("Training With Different Tuning Methods FT ")[1].split("4.4 Error Analysis")[0]
    rows = re.split(r" (?=PT \[|LoRA \[|S \[|V \[|CLIP \[)", table)
    intervals = {row.split(" ")[0]: re.findall(r"\[([0-9.]+),([0-9.]+)\]", row) for row in rows}
    intervals["FT"] = intervals.pop(rows[0].split(" ")[0])
    for name, pairs in intervals.items():
        typed = [n for n in found.numbers if n.where.startswith("Table 5") and n.model.split(" ")[0] == name]
        assert [(n.low, n.high) for n in typed] == [(float(low), float(high)) for low, high in pairs], name
    lines = text.split("A.5 Result of Ablation Studies")[1].split("A.6 Error")[0].splitlines()
    printed_p = [line.strip("| ").split(" | ") for line in lines if " vs " in line]
    typed_p = [n.value for n in found.at_place("Table A5")]
    assert [float(p.rstrip("*")) for row in printed_p for p in row[1:] if p != "-"] == typed_p


@pytest.mark.shared
def test_numbers_of_the_text_are_typed_as_printed(shared: Path) -> None:
    """Section 4.1 repeats these; the summaries of the other two papers print theirs."""
    text = printed(shared).split("4.1 Lung Cancer Risk Prediction")[1].split("| Models | Recall")[0]
    for number in paper("zhuang2025").at_place("Section 4.1 (of table 2)"):
        assert f"{number.value:.3f}" in text
        if number.low is not None:
            assert f"{number.value:.3f} (95% CI: {number.low:.3f}, {number.high:.3f})" in text
    ssm = (shared.parent / "papers" / "lungnodule_ssm_2505.15120.txt").read_text(encoding="utf-8")
    assert all(f"{100 * (n.value or 0):.2f}%" in ssm for n in paper("noreen2025").numbers)
    search = (shared.parent / "papers" / "lesion_search_2311.11014.txt").read_text(encoding="utf-8")
    shown = {
        n: f"{n.value:.3f}" if n.metric == "map@10" else f"{100 * (n.value or 0):.2f}%" for n in paper("qi2023").numbers
    }
    assert all(value in search for value in shown.values())
