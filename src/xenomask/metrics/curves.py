"""Counters -> the pixel numbers, exact: a threshold at every distinct value, "anomaly" where score >= threshold."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from xenomask.errors import XenomaskError
from xenomask.metrics.counters import Counters, values


@dataclass(frozen=True)
class Curve:
    """Cumulated counts at the distinct scores, from the largest threshold down."""

    threshold: Float64[np.ndarray, "n"]
    tp: Int64[np.ndarray, "n"]
    fp: Int64[np.ndarray, "n"]


def curve(counters: Counters) -> Curve:
    """The points of the exact curve; raises XenomaskError without an anomalous or without an inlier pixel."""
    if not counters.positive.any():
        raise XenomaskError("no pixel is labelled anomaly (1): no precision, recall or FPR can be computed")
    if not counters.negative.any():
        raise XenomaskError("no pixel is labelled inlier (0): no FPR can be computed")
    used = np.flatnonzero(counters.positive + counters.negative)[::-1]
    return Curve(
        values(used.astype(np.uint16)).astype(np.float64),
        counters.positive[used].cumsum(),
        counters.negative[used].cumsum(),
    )


def numbers(counters: Counters) -> dict[str, float]:
    """AUPR-sum, AUPR-trapz, AUROC, FPR95, best F1 with its threshold, prevalence and counts.

    AUPR-sum is the step-wise average precision, AUPR-trapz the trapezoid over the same points with (recall 0,
    precision 1) before them; FPR95 is the FPR at the first threshold with TPR >= .95, without interpolation;
    F1 = 2 TP / (2 TP + FP + FN). All as scikit-learn computes them on the same values.

    >>> p, n = np.zeros(65536, int), np.zeros(65536, int)
    >>> p[[50000, 49000]], n[[49500, 40000]] = 1, 1
    >>> r = numbers(Counters(p, n))
    >>> round(r["aupr_sum"], 4), r["fpr95"], r["best_f1"], r["auroc"]
    (0.8333, 0.5, 0.8, 0.75)
    """
    c = curve(counters)
    P, N = int(c.tp[-1]), int(c.fp[-1])
    recall, fpr = c.tp / P, c.fp / N
    precision = c.tp / (c.tp + c.fp)
    r0, p0 = np.append(0.0, recall), np.append(1.0, precision)
    f1 = 2 * c.tp / (c.tp + c.fp + P)  # 2 TP + FP + FN, with FN = P - TP
    best = int(f1.argmax())
    return {
        "aupr_sum": float(np.sum(np.diff(r0) * precision)),
        "aupr_trapz": float(np.trapezoid(p0, r0)),
        "auroc": float(np.trapezoid(np.append(0.0, recall), np.append(0.0, fpr))),
        "fpr95": float(fpr[np.argmax(recall >= 0.95)]),
        "best_f1": float(f1[best]),
        "best_f1_threshold": float(c.threshold[best]),
        "prevalence": P / (P + N),
        "pixels": P + N,
        "positives": P,
    }
