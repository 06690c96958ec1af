"""Frames' counters -> bootstrap bands of the PR and ROC curves, and the points of a curve that a picture needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xenomask.arrays import NumbersLike
from xenomask.metrics.counters import FrameCounters, keys, pool
from xenomask.metrics.curves import Curve, curve
from xenomask.metrics.resampling import LEVEL, as_weights
from xenomask.shapes import Float64, Int64


@dataclass(frozen=True)
class Bands:
    """Pointwise central 95 % of the resamples: [low, high] precision at each recall, [low, high] TPR at each FPR."""

    # the recalls and FPRs, rising in [0, 1]
    at: Float64[np.ndarray, "g"]
    precision: Float64[np.ndarray, "2 g"]
    recall: Float64[np.ndarray, "2 g"]


def landmarks(c: Curve, steps: int) -> Int64[np.ndarray, "n"]:
    """Which points of a curve draw it: those at `steps` equal steps of recall and of FPR, and its ends.

    >>> landmarks(Curve(np.array([3.0, 2.0, 1.0]), np.array([1, 1, 2]), np.array([0, 5, 9])), 1)
    array([0, 2])
    """
    wanted = np.linspace(0, 1, steps + 1)
    last = len(c.threshold) - 1
    at = [np.minimum(np.searchsorted(x, wanted), last) for x in (c.recall, c.fpr)]
    return np.unique(np.concatenate([*at, [0, last]]))


def bands(frames: Sequence[FrameCounters], weights: NumbersLike, points: int = 201) -> Bands:
    """Bands of the exact pooled curve; `weights` (R, frames) are those of `resampling.draw`.

    Resamples are walked at some 800 thresholds, between which they are straight lines: bands are for looking at.
    Raises XenomaskError without an anomalous or without an inlier pixel in all frames.
    """
    weights = as_weights(weights, len(frames))
    whole = curve(pool(frames))
    used = keys(whole.threshold[landmarks(whole, 400)].astype(np.float16))
    tp, fp = (np.array([_from_above(f.key, getattr(f, k), used) for f in frames]) for k in ("positive", "negative"))
    P = weights @ np.array([f.positive.sum() for f in frames], np.float64)
    N = weights @ np.array([f.negative.sum() for f in frames], np.float64)
    at = np.linspace(0, 1, points)
    precision, recall = [], []
    for w, p, n in zip(weights, P, N, strict=True):
        if p and n:  # a resample of one kind of pixel alone has no curve
            t, f = w @ tp, w @ fp
            some = t + f > 0
            t, f = t[some], f[some]
            precision.append(np.interp(at, t / p, t / (t + f)))
            recall.append(np.interp(at, np.append(0, f / n), np.append(0, t / p)))
    ends = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    if not precision:
        nothing = np.full((2, points), np.nan)
        return Bands(at, nothing, nothing)
    return Bands(at, *(np.quantile(np.array(x), ends, axis=0) for x in (precision, recall)))


def _from_above(key: np.ndarray, count: np.ndarray, thresholds: np.ndarray) -> Float64[np.ndarray, "t"]:
    """How many of a frame's pixels lie at each threshold or above."""
    above = np.append(count[::-1].cumsum(dtype=np.int64)[::-1], 0)
    return above[np.searchsorted(key, thresholds)].astype(np.float64)
