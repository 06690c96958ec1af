"""Counts by score -> histogram of anomalous and inlier pixels; bins of a reliability -> its diagram."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from xenomask.arrays import NumbersLike, as_counts, as_numbers, check_same_length
from xenomask.errors import XenomaskError
from xenomask.plots.vector import COLOURS, frame, legend, short, style

BINS = 80


def histogram(
    value: NumbersLike,
    positive: NumbersLike,
    negative: NumbersLike,
    *,
    title: str,
    marks: Mapping[str, float],
) -> Figure:
    """Share of the anomalous and of the inlier pixels in each of 80 equal bins of the score, on a logarithmic axis.

    `positive` and `negative` (n,) say how many pixels hold each value (n,); `marks` are named thresholds. Raises
    XenomaskError for values that are not finite, negative counts, and lengths that differ.
    """
    value = as_numbers(value, "scores", ndim=1)
    positive, negative = as_counts(positive, "pixels"), as_counts(negative, "pixels")
    check_same_length("histogram", scores=value, positive=positive, negative=negative)
    if not len(value) or not np.isfinite(value).all():
        raise XenomaskError("a histogram needs one score at least, and all of them finite")
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
    ax.set_title(short(title), fontsize=10, parse_math=False)
    return fig


def reliability_diagram(
    sides: Mapping[str, tuple[NumbersLike, NumbersLike, NumbersLike]],
) -> Figure:
    """Share of anomalies over the mean probability of each bin; what lies on the diagonal is calibrated.

    `sides` holds (mean probability, share of anomalies, pixels) by name; areas of points grow with the pixels. Raises
    XenomaskError for what are no numbers or counts, and for lengths that differ.
    """
    sides = {name: _side(*columns) for name, columns in sides.items()}
    fig = Figure(figsize=(5.4, 4.2), layout="constrained")
    ax = fig.subplots()
    frame(ax, "mean score, read as p(anomaly)", "share of anomalies")
    ax.plot([0, 1], [0, 1], color="#666666", linewidth=0.8, linestyle=":")
    handles = []
    for i, (p, observed, pixels) in enumerate(sides.values()):
        handles += ax.plot(p, observed, linewidth=1.2, **style(i))
        ax.scatter(p, observed, 6 + 60 * pixels / max(1, pixels.max(initial=0)), color=style(i)["color"], alpha=0.7)
    legend(ax, handles, list(sides))
    return fig


def _side(p: NumbersLike, observed: NumbersLike, pixels: NumbersLike):
    found = (
        as_numbers(p, "probabilities", 1),
        as_numbers(observed, "shares of anomalies", 1),
        as_counts(pixels, "pixels"),
    )
    check_same_length("reliability", probabilities=found[0], shares=found[1], pixels=found[2])
    return found
