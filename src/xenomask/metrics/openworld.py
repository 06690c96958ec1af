"""Open-world IoU: the training classes and the anomalies of a scene in one confusion matrix.

Where the score exceeds a threshold, the predicted class is replaced by "anomaly" (Laskar et al. 2025, "A Dataset for
Semantic Segmentation in the Presence of Unknowns", ISSU; Grcic et al. 2023 call it open-mIoU). The thresholds are those
of TPR 95 % and of FPR 5 % of the pixels' curve. Written from a description of vojirt/benchmark_issu.
"""

from collections.abc import Callable, Sequence

import numpy as np

from xenomask.arrays import LabelLike, MapLike, NumbersLike, as_label, as_numbers, check_same_size
from xenomask.errors import XenomaskError
from xenomask.metrics.components import binarise
from xenomask.metrics.curves import Curve
from xenomask.metrics.segmentation import confusion
from xenomask.metrics.table import first_at_fpr5, first_at_tpr95
from xenomask.shapes import Float64, Int64
from xenomask.types import CITYSCAPES_CLASSES, VOID

ANOMALY = 254  # in a label that names classes and anomalies
CLASSES = len(CITYSCAPES_CLASSES)
# keys of the table of numbers, each with its point of the curve
AT: dict[str, Callable[[Curve], int]] = {"oiou_tpr95": first_at_tpr95, "oiou_fpr5": first_at_fpr5}
CLOSED = "closed_iou"


def thresholds(curves: Sequence[Curve]) -> list[float]:
    """Of each curve the thresholds of AT, one after the other."""
    return [float(c.threshold[at(c)]) for c in curves for at in AT.values()]


def frame_confusions(
    value: MapLike, predicted: LabelLike, label: LabelLike, at: Sequence[float], classes: int = CLASSES
) -> Int64[np.ndarray, "t k1 k1"]:
    """Confusion matrices (true, predicted) of one frame: of the closed set, then one a threshold; the last is 254.

    `value` (H, W) scores, `predicted` (H, W) classes 0..K-1, `label` (H, W) classes, 254 anomaly, 255 void, which is
    left out; the closed set leaves anomalies out, too. A pixel is predicted an anomaly where score > threshold. Raises
    XenomaskError for other sizes, and for classes that are not there.

    >>> frame_confusions([[0.9, 0.1]], [[0, 1]], [[254, 1]], [0.5], classes=2)[1].tolist()
    [[0, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    predicted, label = as_label(predicted, "predicted classes"), as_label(label)
    check_same_size("predicted classes", predicted, "label", label)
    for what, own, marks in (("predicted classes", predicted, ()), ("label", label, (ANOMALY, VOID))):
        held = np.flatnonzero(np.bincount(own[label != VOID], minlength=256))
        if foreign := [int(v) for v in held if v >= classes and v not in marks]:
            raise XenomaskError(f"{what}: the values {foreign[:8]}, and there are {classes} classes, from 0 on")
    known = np.where(label == VOID, 0, predicted)  # void pixels may hold any class
    true = np.where(label == ANOMALY, np.uint8(classes), label)
    closed = np.where(label == ANOMALY, np.uint8(VOID), label)
    found = [confusion(closed, known, classes + 1)]
    for t in at:
        mask = binarise(value, t)
        check_same_size("map", mask, "label", label, "maps are stored at the photo's native size")
        found.append(confusion(true, np.where(mask, np.uint8(classes), known), classes + 1))
    return np.stack(found)


def class_iou(matrix: NumbersLike) -> Float64[np.ndarray, "..."]:
    """Sum over the K training classes of TP / (TP + FP + FN), divided by K, in [0, 1]; matrices (..., K + 1, K + 1).

    NOTE: as in the benchmark, a class that occurs neither in labels nor in predictions counts as 0, not as left out.

    >>> float(class_iou([[1, 0, 0], [0, 0, 0], [1, 0, 5]]))
    0.25
    """
    matrix = as_numbers(matrix, "confusion matrix")
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or not (matrix >= 0).all():
        raise XenomaskError(f"confusion matrix: {matrix.shape}, not (..., k, k) counts from 0 on")
    tp = np.diagonal(matrix, axis1=-2, axis2=-1)
    union = matrix.sum(-1) + matrix.sum(-2) - tp
    return np.asarray((tp / np.where(union > 0, union, 1))[..., :-1].mean(-1))


def numbers(matrices: NumbersLike, conventions: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """{convention: {number: value}} of `frame_confusions` (..., 1 + 2 conventions, K + 1, K + 1), added over frames."""
    found = class_iou(matrices)
    return {
        c: {**{k: found[..., 1 + i * len(AT) + j] for j, k in enumerate(AT)}, CLOSED: found[..., 0]}
        for i, c in enumerate(conventions)
    }
