"""Pooled curves with operating points and bootstrap bands -> PR and ROC diagrams."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from xenomask.arrays import as_numbers, check_same_length
from xenomask.errors import XenomaskError
from xenomask.plots.vector import frame, legend, style
from xenomask.shapes import Float64

SIZE = (5.4, 4.2)  # inches
MARKERS = "osD^v"


@dataclass(frozen=True)
class Mark:
    """An operating point and what it is called."""

    name: str
    recall: float
    precision: float
    fpr: float


@dataclass(frozen=True)
class Line:
    """One method's curve, thresholds falling, and its bands: [low, high] at the abscissae `at`, or None.

    Raises XenomaskError for columns that are no numbers or of different lengths; bands alone may hold NaN.
    """

    name: str
    recall: Float64[np.ndarray, "n"]
    precision: Float64[np.ndarray, "n"]
    fpr: Float64[np.ndarray, "n"]
    marks: Sequence[Mark] = ()
    at: Float64[np.ndarray, "g"] | None = None
    precision_band: Float64[np.ndarray, "2 g"] | None = None
    recall_band: Float64[np.ndarray, "2 g"] | None = None

    def __post_init__(self):
        columns = {k: as_numbers(getattr(self, k), f"curve: {k}", ndim=1) for k in ("recall", "precision", "fpr")}
        check_same_length("curve", **columns)
        if self.at is not None:
            columns["at"] = as_numbers(self.at, "curve: at", ndim=1)
        for name in ("precision_band", "recall_band"):
            band = getattr(self, name)
            if band is not None and (self.at is None or np.shape(band) != (2, len(columns["at"]))):
                raise XenomaskError(f"curve: {name} has the shape {np.shape(band)}, not (2, points of `at`)")
        for name, column in columns.items():
            object.__setattr__(self, name, column)


def precision_recall(lines: Sequence[Line], prevalence: float | None = None) -> Figure:
    """Precision over recall, step-wise as AUPR-sum reads it; `prevalence` is what chance reaches."""
    fig, ax = _axes("recall (TPR)", "precision")
    if prevalence is not None:
        ax.axhline(prevalence, color="#666666", linewidth=0.8, linestyle=":")
    handles = []
    for i, line in enumerate(lines):
        # from recall 0 on at the first point's precision: the step that AUPR-sum adds first
        recall, precision = np.append(0.0, line.recall), np.append(line.precision[:1], line.precision)
        handles += ax.step(recall, precision, where="pre", linewidth=1.4, **style(i))
        _band(ax, i, line.at, line.precision_band)
        for j, m in enumerate(line.marks):
            ax.plot(m.recall, m.precision, MARKERS[j % len(MARKERS)], **_marker(i))
    _finish(ax, handles, lines)
    return fig


def roc(lines: Sequence[Line]) -> Figure:
    """TPR over FPR."""
    fig, ax = _axes("false-positive rate", "true-positive rate (recall)")
    ax.plot([0, 1], [0, 1], color="#666666", linewidth=0.8, linestyle=":")
    handles = []
    for i, line in enumerate(lines):
        handles += ax.plot(np.append(0.0, line.fpr), np.append(0.0, line.recall), linewidth=1.4, **style(i))
        _band(ax, i, line.at, line.recall_band)
        for j, m in enumerate(line.marks):
            ax.plot(m.fpr, m.recall, MARKERS[j % len(MARKERS)], **_marker(i))
    _finish(ax, handles, lines)
    return fig


def _axes(x: str, y: str):
    fig = Figure(figsize=SIZE, layout="constrained")
    ax = fig.subplots()
    frame(ax, x, y)
    return fig, ax


def _marker(i: int) -> dict:
    return {"markersize": 6, "color": style(i)["color"], "markeredgecolor": "black", "markeredgewidth": 0.7}


def _band(ax, i: int, at, band) -> None:
    if at is not None and band is not None:
        ax.fill_between(at, *band, color=style(i)["color"], alpha=0.15, linewidth=0)


def _finish(ax, handles, lines: Sequence[Line]) -> None:
    names = [line.name for line in lines]
    for j, m in enumerate(lines[0].marks if lines else ()):
        handles += ax.plot([], [], MARKERS[j % len(MARKERS)], color="white", markeredgecolor="black", markersize=6)
        names.append(m.name)
    legend(ax, handles, names)
