"""Curves as figures."""

import numpy as np
import pytest

from spicula.core.errors import InputError, MissingExtraError
from spicula.report import figures
from spicula.report.evaluation import EvaluationPage, PageFigure, PageTable, render_evaluation
from spicula.report.figures import Line

X = np.linspace(0, 1, 11)


@pytest.fixture
def lines():
    return [
        Line("first", X, np.sqrt(X), np.sqrt(X) * 0.9, np.minimum(1, np.sqrt(X) * 1.1), np.full(11, 7)),
        Line("second & last", X, X),
    ]


@pytest.mark.parametrize(
    "draw",
    [
        figures.roc,
        figures.reliability,
        lambda lines: figures.precision_recall(lines, prevalence=0.3),
        lambda lines: figures.decision(lines, treat_all=Line("all", X, 0.3 - X), prevalence=0.3),
        lambda lines: figures.free_response(lines, rates=(0.125, 1, 8), sensitivity=(0.2, 0.5, 0.9)),
    ],
)
def test_text_stays_text_and_the_same_figure_gives_the_same_bytes(draw, lines):
    text = figures.svg(draw(lines))
    assert text.startswith("<svg")
    assert "second &amp; last" in text
    assert text == figures.svg(draw(lines))


@pytest.mark.parametrize("suffix", figures.SUFFIXES)
def test_files_are_written_whole(tmp_path, suffix, lines):
    figures.save(figures.roc(lines), tmp_path / f"roc{suffix}")
    assert (tmp_path / f"roc{suffix}").stat().st_size > 2000
    assert [path.name for path in tmp_path.iterdir()] == [f"roc{suffix}"]


def test_an_unknown_kind_is_refused(tmp_path, lines):
    with pytest.raises(InputError, match=r"got \.docx, expected one of \.png"):
        figures.save(figures.roc(lines), tmp_path / "roc.docx")
    assert not list(tmp_path.iterdir())


def test_the_extra_is_named_where_it_is_absent(monkeypatch, lines):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'spicula\[evaluate\]'"):
        figures.roc(lines)


def test_the_page_escapes_what_it_is_given(lines):
    page = EvaluationPage(
        "<i>t</i>", "lead", (PageTable("t", ("", "n"), (("<script>", "1"),), "note"),),
        (PageFigure("ROC", figures.roc(lines), "caption"),), ("a < b",), (("seed", "0"),),
    )  # fmt: skip
    text = render_evaluation(page)
    assert "<script" not in text
    assert "<i>" not in text
    assert "a &lt; b" in text
    assert text.count("<svg") == 1
