"""The pixel curve of the official SegmentMeIfYouCan code (`PixBinaryClass`), from counters instead of pixels.

Per frame, 384 quantiles of the anomalous and 384 of the inlier scores bin both; a bin's threshold is its lower
edge; the frames' bins are pooled and sorted. Written from a description of that code's arithmetic.

NOTE: the official code keeps the first of the sorted points whatever its threshold. Where several frames share the
largest one (scores that saturate at 1, say), that point is one frame's share of it, so that the order of frames
decides: on saturated float16 maps its AUPR-trapz moved between .601 and .662. AUPR and AUROC feel it first; FPR95 does
where that share alone reaches TPR .95; best F1, its threshold and so the components do where it is the best point. We
leave that point out: one value, whatever the order. `order_range` says what the official code would print over all
orders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from xenomask.metrics.counters import FrameCounters, values
from xenomask.metrics.curves import Curve, check_both, check_points
from xenomask.metrics.table import numbers, pixel_numbers
from xenomask.shapes import Float16, Float64, Int64

QUANTILES = 384


@dataclass(frozen=True)
class FrameBins:
    """One frame's bins: lower edges, rising, and how many anomalous and inlier pixels lie in each."""

    threshold: Float64[np.ndarray, "n"]
    tp: Int64[np.ndarray, "n"]
    fp: Int64[np.ndarray, "n"]

    def __post_init__(self):
        check_points(self, "bins")


def _quantiles(value: Float16[np.ndarray, "n"], counts: Int64[np.ndarray, "n"]) -> Float64[np.ndarray, "m"]:
    """np.quantile(pixels, linspace(0, 1, min(384, pixels))), the pixels given as rising values with counts."""
    below = counts.cumsum()
    total = int(below[-1])
    at = (total - 1) * np.linspace(0, 1, min(QUANTILES, total))
    low = np.minimum(np.floor(at), total - 1).astype(np.int64)
    high = np.minimum(low + 1, total - 1)
    a, b = (value[np.searchsorted(below, i, side="right")] for i in (low, high))
    # NumPy's own order of operations: the step in float16, the rest in float64, from the nearer end.
    with np.errstate(over="ignore"):
        t, step = at - low, (b - a).astype(np.float64)
    # NOTE: a step beyond 65504 is infinite in float16 and the official code's edges become NaN; ours do not.
    step = np.where(np.isfinite(step), step, b.astype(np.float64) - a)
    return np.where(t >= 0.5, b - step * (1 - t), a + step * t)


def frame_bins(frame: FrameCounters) -> FrameBins:
    """One frame's bins; empty for a frame without a valid pixel."""
    # NOTE: the official code stops at a wholly void frame (np.min of nothing); it adds nothing here.
    if not len(frame.key):
        return FrameBins(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
    value = values(frame.key)
    with np.errstate(over="ignore"):
        margin = max((value[-1] - value[0]) * np.float16(0.01), np.float16(0.01))
        ends = np.array([value[0] - margin, value[-1] + margin], np.float64)
    parts = [ends]
    for counts in (frame.positive, frame.negative):
        used = np.flatnonzero(counts)
        if len(used):
            parts.append(_quantiles(value[used], counts[used].astype(np.int64)))
    edges = np.unique(np.concatenate(parts))
    if len(edges) == 1:
        # NOTE: a constant map so large that the margin vanishes in float16: the official code has no bin for it
        # and adds its pixels as one last point; they stay at their value here.
        edges = np.append(edges, edges + 1)
    start = np.searchsorted(value, edges)
    start[-1] = len(value)  # the last bin is closed
    tp, fp = (np.diff(np.append(0, c.cumsum(dtype=np.int64))[start]) for c in (frame.positive, frame.negative))
    return FrameBins(edges[:-1], tp, fp)


def _sorted(frames: Sequence[FrameBins]):
    threshold, tp, fp = (np.concatenate([getattr(f, k) for f in frames]) for k in ("threshold", "tp", "fp"))
    order = np.argsort(-threshold, kind="stable")
    return threshold[order], tp[order].cumsum(), fp[order].cumsum()


def curve(frames: Sequence[FrameBins]) -> Curve:
    """The pooled curve; raises XenomaskError without an anomalous or without an inlier pixel."""
    check_both(int(sum(f.tp.sum() for f in frames)), int(sum(f.fp.sum() for f in frames)))
    threshold, tp, fp = _sorted(frames)
    last = np.append(np.diff(threshold) != 0, True)
    return Curve(threshold[last], tp[last], fp[last])


def orders(frames: Sequence[FrameBins]) -> list[Curve]:
    """The curves that the official code may have, over all orders of the frames: its first point is one frame's share.

    That point is any one frame's part of the largest threshold. Raises XenomaskError as `curve` does.
    """
    c = curve(frames)
    top = c.threshold[0]
    firsts = sorted({(int(f.tp[-1]), int(f.fp[-1])) for f in frames if len(f.threshold) and f.threshold[-1] == top})
    if firsts == [(c.tp[0], c.fp[0])]:
        return [c]
    return [Curve(np.append(top, c.threshold), np.append(tp, c.tp), np.append(fp, c.fp)) for tp, fp in firsts]


def order_range(frames: Sequence[FrameBins]) -> dict[str, tuple[float, float]]:
    """(smallest, largest) of each number that the official code prints over all orders of the frames."""
    return spans([{p.key: n[p.key] for p in pixel_numbers()} for n in map(numbers, orders(frames))])


def spans(found: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """(smallest, largest) of each number; nan where any of them is."""
    return {k: (float(np.min([n[k] for n in found])), float(np.max([n[k] for n in found]))) for k in found[0]}
