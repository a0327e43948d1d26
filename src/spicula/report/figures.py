"""Curves as figures: ROC, precision-recall, reliability and free-response, each with its band (needs ``evaluate``)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.core.files import written_aside

FloatArray = NDArray[np.float64]

COLORS = ("#1f5f7a", "#b5651d", "#5b7f3a", "#7a4b8c", "#8c2f39", "#555f68")
"""Colors that stay apart in grey and for color-blind readers."""

SUFFIXES = (".png", ".svg", ".pdf")
"""Kinds of files that :func:`save` writes."""


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One curve.

    Args:
        label: For the legend.
        x: float64 ``[k]``.
        y: float64 ``[k]``.
        low: float64 ``[k]`` lower end of the band; None for none.
        high: float64 ``[k]`` upper end.
        count: ``[k]`` cases behind each point (reliability diagrams); None for none.
    """

    label: str
    x: FloatArray
    y: FloatArray
    low: FloatArray | None = None
    high: FloatArray | None = None
    count: NDArray[np.intp] | None = None


def roc(lines: Sequence[Line]) -> Any:
    """ROC curves with their bands, and the line of chance.

    Args:
        lines: x false positive rate, y sensitivity.

    Returns:
        A matplotlib ``Figure``.
    """
    figure, axes = _square("False positive rate (1 − specificity)", "Sensitivity")
    axes.plot([0, 1], [0, 1], color="#9aa3ab", lw=0.8, ls=(0, (4, 3)), zorder=1)
    for color, line in zip(_colors(lines), lines, strict=True):
        _draw(axes, line, color)
    axes.legend(loc="lower right")
    return figure


def precision_recall(lines: Sequence[Line], *, prevalence: float) -> Any:
    """Precision-recall curves, drawn in steps, and the prevalence.

    Args:
        lines: x recall, y precision.
        prevalence: Precision of calling every case.

    Returns:
        A matplotlib ``Figure``.
    """
    figure, axes = _square("Recall (sensitivity)", "Precision")
    axes.axhline(prevalence, color="#9aa3ab", lw=0.8, ls=(0, (4, 3)), zorder=1)
    axes.annotate(
        f"prevalence {prevalence:.2f}", (0.01, prevalence), (0, 3), textcoords="offset points", color="#6d767e"
    )
    for color, line in zip(_colors(lines), lines, strict=True):
        _draw(axes, line, color, drawstyle="steps-pre", step="pre")
    axes.legend(loc="lower left")
    return figure


def reliability(lines: Sequence[Line]) -> Any:
    """Observed share against predicted probability, with the line of agreement; a point's area tells its cases.

    Args:
        lines: x mean prediction, y observed share, ``low`` and ``high`` its interval, ``count`` cases of each bin.

    Returns:
        A matplotlib ``Figure``.
    """
    figure, axes = _square("Predicted probability", "Observed share")
    axes.plot([0, 1], [0, 1], color="#9aa3ab", lw=0.8, ls=(0, (4, 3)), zorder=1)
    for color, line in zip(_colors(lines), lines, strict=True):
        if line.low is not None and line.high is not None:
            axes.vlines(line.x, line.low, line.high, color=color, lw=1, alpha=0.7)
        share = np.full(line.x.shape, 0.3) if line.count is None else line.count / line.count.max()
        axes.scatter(line.x, line.y, s=14 + 60 * share, color=color, zorder=3, edgecolor="white", lw=0.6)
        axes.plot(line.x, line.y, color=color, lw=1, label=line.label)
    axes.legend(loc="upper left")
    return figure


def decision(lines: Sequence[Line], *, treat_all: Line, prevalence: float) -> Any:
    """Net benefit over threshold probabilities, with those of treating all and none.

    Args:
        lines: x threshold probability, y net benefit.
        treat_all: Of working up everyone.
        prevalence: Net benefit of a perfect model; the upper end of the axis.

    Returns:
        A matplotlib ``Figure``.
    """
    figure, axes = _axes("Threshold probability", "Net benefit", size=(4.6, 4.4))
    axes.set(xlim=(0, 1), ylim=(-0.15 * prevalence, 1.05 * prevalence))
    axes.axhline(0, color="#9aa3ab", lw=0.8, zorder=1)
    axes.plot(treat_all.x, treat_all.y, color="#9aa3ab", lw=1.2, ls=(0, (4, 3)), label=treat_all.label, zorder=1)
    for color, line in zip(_colors(lines), lines, strict=True):
        _draw(axes, line, color)
    axes.legend(loc="upper right")
    return figure


def free_response(lines: Sequence[Line], *, rates: Sequence[float], sensitivity: Sequence[float]) -> Any:
    """Free-response curve on a logarithmic axis of false positives a scan, with the points that are scored.

    Args:
        lines: x false positives a scan, y sensitivity.
        rates: Where the first line is scored.
        sensitivity: Its value there.

    Returns:
        A matplotlib ``Figure``.
    """
    from matplotlib.ticker import NullFormatter, NullLocator

    figure, axes = _axes("False positives a scan", "Sensitivity", size=(5.6, 4.2))
    low, high = min(rates) / 1.25, max(rates) * 1.25
    axes.set_xscale("log", base=2)
    axes.set(xlim=(low, high), ylim=(0, 1))
    axes.set_xticks(list(rates), [f"1/{1 / r:g}" if r < 1 and (1 / r).is_integer() else f"{r:g}" for r in rates])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    for color, line in zip(_colors(lines), lines, strict=True):
        _draw(axes, line, color)
    axes.scatter(rates, sensitivity, s=22, color=COLORS[0], edgecolor="white", lw=0.8, zorder=4)
    axes.legend(loc="lower right")
    return figure


def svg(figure: Any) -> str:
    """A figure as an SVG element for a page: text stays text, the same figure gives the same bytes."""
    matplotlib = require("matplotlib", extra="evaluate")
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "spicula"}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def save(figure: Any, path: Path) -> None:
    """Write a figure to a file that appears whole or not at all.

    Raises:
        InputError: The suffix is none of :data:`SUFFIXES`.
    """
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise InputError(f"{path}: kind of figure", got=kind or "none", expected=f"one of {', '.join(SUFFIXES)}")
    with written_aside(path) as aside:
        figure.savefig(aside, format=kind[1:], dpi=160, facecolor="white")


def _axes(x: str, y: str, *, size: tuple[float, float]) -> tuple[Any, Any]:
    require("matplotlib", extra="evaluate")
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9aa3ab")
    axes.tick_params(color="#9aa3ab", labelsize=9)
    axes.grid(color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _square(x: str, y: str) -> tuple[Any, Any]:
    figure, axes = _axes(x, y, size=(4.6, 4.4))
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    return figure, axes


def _colors(lines: Sequence[Line]) -> list[str]:
    return [COLORS[number % len(COLORS)] for number in range(len(lines))]


def _draw(axes: Any, line: Line, color: str, *, drawstyle: str = "default", step: str | None = None) -> None:
    if line.low is not None and line.high is not None:
        axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.16, lw=0, step=step)
    axes.plot(line.x, line.y, color=color, lw=1.6, drawstyle=drawstyle, label=line.label)
