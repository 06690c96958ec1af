"""What spoiled published tables, recognised: each guard is one line that says what is wrong and what to do."""

from collections.abc import Mapping

import numpy as np

from xenomask.arrays import NumbersLike, as_array, is_finite
from xenomask.errors import XenomaskError
from xenomask.metrics.counters import Counters, FrameCounters, values
from xenomask.metrics.curves import curve
from xenomask.metrics.table import first_at_fpr5

# The share of valid pixels on a map's largest value from which the top of the ranking is lost.
SATURATED = 0.01
# Distinct values of all maps together up to which they are a mask rather than a score.
FEW_VALUES = 16
# FPR of the point that stands for 5 %, from which its TPR is no longer that of 5 %.
FAR_ABOVE = 0.1
# AUROC below this is no weak detector but one upside down.
UPSIDE_DOWN = 0.4


def saturation(counters: Counters) -> float:
    """The share of pixels that hold the largest value of all."""
    both = counters.positive + counters.negative
    used = np.flatnonzero(both)
    return float(both[used[-1]] / both.sum()) if len(used) else 0.0


def float16_loss(value: NumbersLike) -> float:
    """The share of a map's distinct values that rounding to float16 merges with others; XenomaskError for NaN.

    >>> float16_loss(np.array([0.9, 0.99999, 1.0, 0.5]))
    0.25
    """
    value = as_array(value, "map")
    if not value.size or not is_finite(value):
        raise XenomaskError("the map is empty, or holds NaN or infinity")
    distinct = np.unique(value).astype(np.float64)
    return 1 - len(np.unique(distinct.astype(np.float16))) / len(distinct)


def warnings(
    frames: Mapping[str, FrameCounters],
    pooled: Counters,
    numbers: Mapping[str, Mapping[str, float]],
) -> tuple[str, ...]:
    """What a reader of these numbers must know, loudest first; empty where nothing is suspicious."""
    found = []
    exact, official = numbers["exact"], numbers["official"]
    if exact["auroc"] < UPSIDE_DOWN:
        found.append(
            f"AUROC is {exact['auroc']:.3f}, well below .5: the maps are probably upside down; higher must mean "
            f"more anomalous (negated maps would reach {1 - exact['auroc']:.3f})"
        )
    used = np.flatnonzero(pooled.positive + pooled.negative)
    top = float(values(used[-1:].astype(np.uint16))[0])
    if len(used) == 1:
        found.append(
            f"every map holds the single value {top:g} as float16, which is what is compared, so nothing is ranked: if "
            "they hold several, scale them"
        )
    elif official["best_f1_threshold"] >= top:
        found.append(
            f"the best-F1 threshold is the largest score ({top:g}): the official component mask, score > threshold, "
            "is empty and every component number is 0; store raw scores, not masks or clipped ones"
        )
    elif (share := saturation(pooled)) > SATURATED:
        found.append(
            f"{100 * share:.1f} % of all pixels hold the largest score, {top:g}: the top of the ranking is lost in "
            "float16 or was clipped, and AUPR-trapz depends on how ties are drawn; store e.g. log-odds instead"
        )
    if 1 < len(used) <= FEW_VALUES:
        found.append(
            f"all maps together hold {len(used)} distinct values: they are masks rather than scores, of which AUPR, "
            "AUROC and FPR95 say little, for no threshold lies between these values; store raw scores"
        )
    points = curve(pooled)
    if FAR_ABOVE < (reached := points.fpr[first_at_fpr5(points)]) and len(used) > 1:
        found.append(
            f"the first threshold with FPR >= 5 % has FPR {100 * reached:.1f} %: too few distinct values lie there, so "
            "TPR at FPR 5 % is too good"
        )
    if void := [i for i, f in frames.items() if not len(f.key)]:
        found.append(f"{len(void)} frames are wholly void and count for nothing, the first is {void[0]}")
    alone = [i for i, f in frames.items() if f.positive.any()]
    if len(alone) == 1 and len(frames) > 1:
        found.append(f"only frame {alone[0]} has an anomaly: all numbers rest on one scene")
    return tuple(found)
