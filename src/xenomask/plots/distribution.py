"""Counts by score -> histogram of anomalous and inlier pixels; bins of a reliability -> its diagram."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer
from matplotlib.figure import Figure

from xenomask.plots.vector import COLOURS, frame, legend, style

BINS = 80


def histogram(
    value: Float[np.ndarray, "n"],
    positive: Integer[np.ndarray, "n"],
    negative: Integer[np.ndarray, "n"],
    *,
    title: str,
    marks: Mapping[str, float],
) -> Figure:
    """Share of the anomalous and of the inlier pixels in each of 80 equal bins of the score, on a logarithmic axis.

    `positive` and `negative` say how many pixels hold each value; `marks` are named thresholds.
    """
    value = np.asarray(value, np.float64)
    edges = np.linspace(value.min(), max(value.max(), value.min() + 1e-6), BINS + 1)
    fig = Figure(figsize=(5.4, 3.4), layout="constrained")
    ax = fig.subplots()
    handles = []
    for i, counts in enumerate((negative, positive)):
        share = np.histogram(value, edges, weights=counts / max(1, counts.sum()))[0]
        ax.stairs(share, edges, fill=True, color=COLOURS[i], alpha=0.2, linewidth=0)
        handles.append(ax.stairs(share, edges, linewidth=1.3, **style(i)))
    lines = [ax.axvline(t, linewidth=1.2, **style(i + 2)) for i, t in enumerate(marks.values())]
    ax.set(xlabel="score", ylabel="share of these pixels", yscale="log")
    names = ["inlier", "anomaly", *(f"{n} ({t:.4g})" for n, t in marks.items())]
    legend(ax, [*handles, *lines], names)
    ax.set_title(title, fontsize=10, parse_math=False)
    return fig


def reliability_diagram(
    sides: Mapping[str, tuple[Float64[np.ndarray, "_"], Float64[np.ndarray, "_"], Int64[np.ndarray, "_"]]],
) -> Figure:
    """Share of anomalies over the mean probability of each bin; what lies on the diagonal is calibrated.

    `sides` holds (mean probability, share of anomalies, pixels) by name; areas of points grow with the pixels.
    """
    fig = Figure(figsize=(5.4, 4.2), layout="constrained")
    ax = fig.subplots()
    frame(ax, "mean score, read as p(anomaly)", "share of anomalies")
    ax.plot([0, 1], [0, 1], color="#666666", linewidth=0.8, linestyle=":")
    handles = []
    for i, (p, observed, pixels) in enumerate(sides.values()):
        handles += ax.plot(p, observed, linewidth=1.2, **style(i))
        ax.scatter(p, observed, 6 + 60 * pixels / pixels.max(), color=style(i)["color"], alpha=0.7)
    legend(ax, handles, list(sides))
    return fig
