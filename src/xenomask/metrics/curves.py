"""Counters -> curve -> the pixel numbers; "anomaly" is score >= threshold everywhere but in components."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from xenomask.arrays import as_counts, as_numbers, check_same_length
from xenomask.errors import XenomaskError
from xenomask.metrics.counters import Counters, FrameCounters, values
from xenomask.shapes import Float64, Int64


def check_points(points: Any, what: str) -> None:
    """Makes the threshold, tp and fp of a frozen dataclass float64, int64 and int64 (n,).

    Raises XenomaskError for columns of different lengths or no numbers.
    """
    object.__setattr__(points, "threshold", as_numbers(points.threshold, f"{what}: threshold", ndim=1))
    for name in ("tp", "fp"):
        counts = as_counts(getattr(points, name), f"{what}: {name}").astype(np.int64, copy=False)
        object.__setattr__(points, name, counts)
    check_same_length(what, threshold=points.threshold, tp=points.tp, fp=points.fp)


@dataclass(frozen=True)
class Curve:
    """Cumulated counts at distinct thresholds, from the largest down; the last point holds every pixel.

    Raises XenomaskError for columns that are empty, of different lengths or no numbers.
    """

    threshold: Float64[np.ndarray, "n"]
    tp: Int64[np.ndarray, "n"]
    fp: Int64[np.ndarray, "n"]

    def __post_init__(self):
        check_points(self, "curve")
        if not len(self.tp):
            raise XenomaskError("curve: no point at all")

    @cached_property
    def recall(self) -> Float64[np.ndarray, "n"]:
        """TP / P, also called TPR."""
        return self.tp / self.tp[-1]

    @cached_property
    def fpr(self) -> Float64[np.ndarray, "n"]:
        """FP / N."""
        return self.fp / self.fp[-1]

    @cached_property
    def precision(self) -> Float64[np.ndarray, "n"]:
        """TP / (TP + FP); 1 where nothing is predicted."""
        predicted = self.tp + self.fp
        return np.where(predicted > 0, self.tp / np.maximum(predicted, 1), 1.0)

    @cached_property
    def f1(self) -> Float64[np.ndarray, "n"]:
        """2 TP / (2 TP + FP + FN)."""
        return 2 * self.tp / (self.tp + self.fp + self.tp[-1])


def check_both(positives: int, negatives: int) -> None:
    """Raises XenomaskError without an anomalous or without an inlier pixel."""
    if not positives:
        raise XenomaskError(
            "no pixel is labelled anomaly (1): no precision, recall or FPR can be computed; is this the right split?"
        )
    if not negatives:
        raise XenomaskError("no pixel is labelled inlier (0): no FPR can be computed; are the labels complete?")


def curve(counters: Counters | FrameCounters) -> Curve:
    """The exact curve: a point at every distinct score; raises XenomaskError without either kind of pixel."""
    check_both(int(counters.positive.sum()), int(counters.negative.sum()))
    if isinstance(counters, Counters):
        counters = counters.used()
    return Curve(
        values(counters.key[::-1]).astype(np.float64),
        counters.positive[::-1].cumsum(dtype=np.int64),
        counters.negative[::-1].cumsum(dtype=np.int64),
    )
