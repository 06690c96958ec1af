"""Curve -> operating point: the threshold for a wanted FPR, TPR, precision or F1, and what it costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from xenomask.arrays import HALF_MAX
from xenomask.errors import XenomaskError, unknown
from xenomask.metrics.counters import Counters, FrameCounters, keys, pool
from xenomask.metrics.curves import Curve, curve

# How targets are spelt; "f1" takes no number.
TARGETS = {"fpr": "FPR <=", "tpr": "TPR >=", "precision": "precision >=", "f1": "best F1"}


@dataclass(frozen=True)
class Point:
    """A threshold (anomaly: score >= it) and the pooled pixel numbers there; nan where one has no denominator."""

    threshold: float
    tpr: float
    fpr: float
    precision: float
    f1: float


def target_text(target: str, x: float | None = None) -> str:
    """The target as it is printed and stored.

    >>> target_text("fpr", 0.05), target_text("f1")
    ('FPR <= 0.05', 'best F1')
    """
    return TARGETS[target] if x is None else f"{TARGETS[target]} {x:g}"


def operating_point(c: Curve, target: str, x: float | None = None) -> Point:
    """The point of the exact curve that grants a target best; among equally good ones the one that costs least.

    fpr: largest recall with FPR <= x. tpr: smallest FPR with recall >= x (its FPR at .95 is FPR95). precision: largest
    recall with precision >= x. f1: the first best F1 from the largest threshold down. A point that finds no anomaly
    grants nothing. Raises XenomaskError for an unknown target, an x outside its range, and a target that no threshold
    grants, which says what is reachable.

    >>> c = Curve(np.array([0.9, 0.5, 0.1]), np.array([1, 2, 2]), np.array([0, 1, 4]))
    >>> operating_point(c, "tpr", 0.6)
    Point(threshold=0.5, tpr=1.0, fpr=0.25, precision=0.6666666666666666, f1=0.8)
    """
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    if target == "f1":
        return _point(c, int(c.f1.argmax()))
    if x is None or not 0 <= x <= 1 or (x == 0 and target != "fpr"):
        raise XenomaskError(
            f"{TARGETS[target]} {x}: this must be {'at least 0' if target == 'fpr' else 'above 0'}, at most 1"
        )
    if target == "tpr":
        first = int(np.argmax(c.recall >= x))
        return _point(c, int(np.flatnonzero(c.fp == c.fp[first])[-1]))
    granted = (c.fpr <= x if target == "fpr" else c.precision >= x) & (c.tp > 0)
    if not granted.any():
        raise _unreachable(c, target, x)
    last = int(np.flatnonzero(granted)[-1])
    return _point(c, int(np.argmax(c.tp == c.tp[last])))


def _unreachable(c: Curve, target: str, x: float) -> XenomaskError:
    if target == "fpr":
        best = int(np.argmax(c.tp > 0))
        reach = f"the highest-scored anomaly pixels (TPR {c.recall[best]:.3g}) come with FPR {c.fpr[best]:.3g}"
    else:
        best = int(np.argmax(np.where(c.tp > 0, c.precision, -1)))
        reach = f"the best precision is {c.precision[best]:.3g}, with TPR {c.recall[best]:.3g}"
    return XenomaskError(f"no threshold has {target_text(target, x)}: {reach}, at threshold {c.threshold[best]:g}")


def _point(c: Curve, i: int) -> Point:
    return Point(*(float(x[i]) for x in (c.threshold, c.recall, c.fpr, c.precision, c.f1)))


def _ratio(a: int, b: int) -> float:
    return a / b if b else float("nan")


def _rates(tp: int, fp: int, positives: int, negatives: int) -> tuple[float, float, float, float]:
    """TPR, FPR, precision, F1; precision is 1 where nothing is predicted, as on the curve."""
    precision = tp / (tp + fp) if tp + fp else 1.0
    return _ratio(tp, positives), _ratio(fp, negatives), precision, _ratio(2 * tp, tp + fp + positives)


def at_threshold(c: Curve, threshold: float) -> Point:
    """The numbers at any threshold, also one that is no score of the curve.

    >>> c = Curve(np.array([0.9, 0.5]), np.array([1, 2]), np.array([0, 1]))
    >>> at_threshold(c, 0.6).tpr, at_threshold(c, 2.0).tpr
    (0.5, 0.0)
    """
    n = int((c.threshold >= threshold).sum())
    tp, fp = (int(c.tp[n - 1]), int(c.fp[n - 1])) if n else (0, 0)
    return Point(threshold, *_rates(tp, fp, int(c.tp[-1]), int(c.fp[-1])))


def folds(frames: int, k: int | None = None) -> list[list[int]]:
    """The frames (by number) that each fold leaves out: one each up to 20 frames, else 10 folds.

    Folds are runs of neighbours, so that frames of one sequence are left out together. Raises XenomaskError for less
    than two folds and for more folds than frames.

    >>> folds(5, 2)
    [[0, 1, 2], [3, 4]]
    """
    if k is None:
        k = frames if frames <= 20 else 10
    if not 2 <= k <= frames:
        raise XenomaskError(
            f"{frames} frames cannot be split into {k} folds: it takes 2 or more, one frame each at least"
        )
    return [part.tolist() for part in np.array_split(np.arange(frames), k)]


@dataclass(frozen=True)
class HeldOut:
    """The numbers pooled over frames that were each judged at the threshold that the other folds' frames gave."""

    # one a fold
    thresholds: tuple[float, ...]
    tpr: float
    fpr: float
    precision: float
    f1: float


def held_out(frames: Sequence[FrameCounters], choose: Callable[[Curve], Point], k: int | None = None) -> HeldOut:
    """What a way to choose a threshold comes to on frames that it has not seen.

    Raises XenomaskError where the target is out of reach without some fold, or a fold leaves one kind of pixel only.
    """
    total, thresholds, tp, fp = pool(frames), [], 0, 0
    for fold in folds(len(frames), k):
        own = pool(frames[i] for i in fold)
        rest = Counters(total.positive - own.positive, total.negative - own.negative)
        thresholds.append(choose(curve(rest)).threshold)
        at = int(keys(np.array(thresholds[-1:], np.float16))[0])
        tp, fp = tp + int(own.positive[at:].sum()), fp + int(own.negative[at:].sum())
    return HeldOut(tuple(thresholds), *_rates(tp, fp, int(total.positive.sum()), int(total.negative.sum())))


def boundary(threshold: float) -> float:
    """The smallest float32 that is stored as this float16 threshold or more.

    Compared with it, a raw float32 map and its stored float16 copy say the same of every pixel, which they do not when
    compared with the threshold itself: 0.4779 is stored as 0.478.

    >>> t = float(np.float16(0.478))
    >>> b = boundary(t)
    >>> b < t, float(np.float16(b)) == t, float(np.float16(np.nextafter(np.float32(b), np.float32(-1)))) < t
    (True, True, True)
    """
    t = np.float16(threshold)
    if t == -HALF_MAX:
        return float(t)
    below = np.nextafter(t, np.float16(-np.inf))
    middle = np.float32((np.float64(t) + np.float64(below)) / 2)  # exact: float16 steps are coarse
    if np.float16(middle) < t:  # the tie went to the even neighbour below
        middle = np.nextafter(middle, np.float32(np.inf))
    return float(middle)
