"""Conformal risk control over frames: the threshold whose expected share of missed anomalies stays under alpha.

Angelopoulos, Bates, Fisch, Lei & Schuster, "Conformal Risk Control", ICLR 2024, eq. (4) and theorem 1, with lambda =
-threshold and B = 1. Frames, not pixels, are the exchangeable units: pixels of one scene are no independent draws. Of
each frame only the scores from which its anomalies count as found are needed, so nothing is approximated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from xenomask.arrays import (
    LabelLike,
    MapLike,
    as_counts,
    as_half,
    as_keys,
    as_truth,
    check_same_length,
    check_same_size,
)
from xenomask.errors import XenomaskError
from xenomask.metrics.components import Sizes, label_components
from xenomask.metrics.counters import FrameCounters, keys, values
from xenomask.metrics.operating import folds
from xenomask.shapes import Float64, Int64, UInt16


@dataclass(frozen=True)
class Targets:
    """What is to be found in one frame: how many things are found from which score (ordered key, rising) down."""

    key: UInt16[np.ndarray, "n"]
    count: Int64[np.ndarray, "n"]

    def __post_init__(self):
        object.__setattr__(self, "key", as_keys(self.key, "targets: key"))
        object.__setattr__(self, "count", as_counts(self.count, "targets: count").astype(np.int64, copy=False))
        check_same_length("targets", key=self.key, count=self.count)
        if (self.key[1:] <= self.key[:-1]).any():
            raise XenomaskError("targets: keys of float16 values must rise, none twice")

    @property
    def total(self) -> int:
        """All things to find; 0 in a frame without an anomaly."""
        return int(self.count.sum())


@dataclass(frozen=True)
class Control:
    """The largest threshold whose `bound` is at most alpha, and what that rests on."""

    threshold: float
    alpha: float
    # mean loss of the calibration frames at the threshold
    risk: float
    # n / (n + 1) risk + 1 / (n + 1)
    bound: float
    # calibration frames that have something to find
    n: int


def pixel_targets(frame: FrameCounters) -> Targets:
    """The anomaly pixels of a frame, each found at its own score."""
    used = frame.positive > 0
    return Targets(frame.key[used], frame.positive[used].astype(np.int64))


def component_targets(value: MapLike, label: LabelLike, sizes: Sizes, cover: float = 0.5) -> Targets:
    """The true components (8-connected, at least `sizes.true` pixels), each found once `cover` of its pixels are.

    That happens at the score of its ceil(cover x size)-th highest pixel. Raises XenomaskError for a cover that is no
    share in (0, 1], for what is no map or no label, and for sizes that differ.

    >>> value = np.array([[9, 8, 7, 6, 0, 1]], np.float16)
    >>> label = np.array([[1, 1, 1, 1, 0, 1]], np.uint8)
    >>> values(component_targets(value, label, Sizes(1, 1), cover=0.5).key).tolist()
    [1.0, 8.0]
    """
    if not 0 < cover <= 1:
        raise XenomaskError(f"cover {cover}: a component is found from some share in (0, 1] of its pixels on")
    value, label = as_half(value), as_truth(label)
    check_same_size("map", value, "label", label)
    number, size = label_components(label == 1)
    at = np.flatnonzero(number)
    component, key = number.ravel()[at], keys(value.ravel()[at])
    order = np.lexsort((-key.astype(np.int32), component))  # by component, highest score first
    start = np.append(0, np.bincount(component, minlength=len(size))[1:].cumsum()[:-1]).astype(np.int64)
    kept = np.flatnonzero(size[1:] >= sizes.true)
    share = _decimal(cover)
    nth = np.array([math.ceil(share * int(s)) for s in size[1:][kept]], np.int64)
    return _targets(key[order[start[kept] + nth - 1]])


def _targets(key: UInt16[np.ndarray, "n"]) -> Targets:
    distinct, count = np.unique(key, return_counts=True)
    return Targets(distinct, count.astype(np.int64))


def _decimal(x: float) -> Fraction:
    """The decimal fraction that the user typed: .3 is 3/10, not the double nearest to it."""
    return Fraction(str(float(x)))


def losses(frames: Sequence[Targets], threshold: float) -> Float64[np.ndarray, "f"]:
    """Each frame's share of things missed at score >= threshold; nan for a frame that has none.

    >>> losses([Targets(keys(np.array([1, 2], np.float16)), np.array([3, 1]))], 2.0).tolist()
    [0.75]
    """
    # a threshold between two float16 values acts like the one above it
    with np.errstate(over="ignore"):
        t = np.float16(threshold)
        if float(t) < threshold:
            t = np.nextafter(t, np.float16(np.inf))
    at = keys(np.array([t]))[0]
    found = [int(f.count[: np.searchsorted(f.key, at)].sum()) / f.total if f.total else math.nan for f in frames]
    return np.array(found, np.float64)


def control(frames: Sequence[Targets], alpha: float) -> Control:
    """The largest threshold t with n / (n + 1) mean loss(t) + 1 / (n + 1) <= alpha (eq. 4; B = 1).

    Theorem 1: the expected loss of a new frame, exchangeable with these n, is then at most alpha; and, for scores
    without ties, at least alpha - 2 / (n + 1) (theorem 2). The loss of a frame without an anomaly is not defined: such
    frames are left out, and the guarantee is about frames that have one. Raises XenomaskError for an alpha outside
    (0, 1) and for one below 1 / (n + 1), which n frames cannot give.

    >>> frame = Targets(keys(np.array([1, 2, 3, 4], np.float16)), np.array([1, 1, 1, 1]))
    >>> control([frame] * 3, alpha=0.5)  # 3/4 of 1/4, and 1/4
    Control(threshold=2.0, alpha=0.5, risk=0.25, bound=0.4375, n=3)
    """
    if not 0 < alpha < 1:
        raise XenomaskError(f"alpha {alpha}: the wanted bound on the share of missed anomalies lies between 0 and 1")
    frames = [f for f in frames if f.total]
    n = len(frames)
    if _decimal(alpha) * (n + 1) < 1:
        needed = math.ceil(1 / _decimal(alpha)) - 1
        raise XenomaskError(
            f"alpha {alpha:g} needs at least {needed} frames with an anomaly, there are {n}: 1 / ({n} + 1) = "
            f"{1 / (n + 1):.3g} is the smallest bound that {n} frames can give"
        )
    grid = np.unique(np.concatenate([f.key for f in frames]))
    below = [np.append(0, f.count.cumsum()) for f in frames]
    allowed = _decimal(alpha) * (n + 1) - 1
    low, high = 0, len(grid) - 1  # at grid[0] nothing is missed
    while low < high:
        middle = (low + high + 1) // 2
        if _at_most(_missed(frames, below, grid[middle]), allowed):
            low = middle
        else:
            high = middle - 1
    risk = math.fsum(m / t for m, t in _missed(frames, below, grid[low])) / n
    return Control(float(values(grid[low : low + 1])[0]), alpha, risk, (n * risk + 1) / (n + 1), n)


def _missed(frames: Sequence[Targets], below: Sequence[np.ndarray], key: np.uint16) -> list[tuple[int, int]]:
    """(missed, all) of each frame at a threshold's key."""
    return [(int(b[np.searchsorted(f.key, key)]), int(b[-1])) for f, b in zip(frames, below, strict=True)]


def _at_most(shares: Sequence[tuple[int, int]], limit: Fraction) -> bool:
    """Whether the shares sum to at most the limit, in whole numbers where floats could not tell."""
    total = math.fsum(m / t for m, t in shares)
    if abs(total - limit) > 1e-9 * len(shares):
        return total < limit
    return sum(Fraction(m, t) for m, t in shares) <= limit


def held_out_loss(frames: Sequence[Targets], alpha: float) -> float:
    """The mean loss of frames at thresholds that the other folds' frames give (folds: `operating.folds`).

    nan where those are too few for alpha.
    """
    frames = [f for f in frames if f.total]
    if len(frames) < 2:
        return math.nan
    parts, own = folds(len(frames)), []
    if _decimal(alpha) * (len(frames) - max(map(len, parts)) + 1) < 1:
        return math.nan
    for fold in parts:
        rest = [f for i, f in enumerate(frames) if i not in fold]
        own.append(losses([frames[i] for i in fold], control(rest, alpha).threshold))
    return float(np.concatenate(own).mean())
