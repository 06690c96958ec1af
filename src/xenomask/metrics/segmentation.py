"""mIoU of the ordinary segmentation, from one confusion matrix over all pixels."""

import numpy as np

from xenomask.arrays import LabelLike, NumbersLike, as_label, as_numbers, check_same_size
from xenomask.errors import XenomaskError
from xenomask.shapes import Int64
from xenomask.types import VOID


def confusion(label: LabelLike, predicted: LabelLike, classes: int) -> Int64[np.ndarray, "k k"]:
    """Counts of (true, predicted) class pairs of two pictures (H, W), void left out.

    Raises XenomaskError for what is no label, for sizes that differ, and for a class beyond `classes`.

    >>> confusion(np.array([[0, 1, 255]]), np.array([[0, 0, 1]]), 2).tolist()
    [[1, 0], [1, 0]]
    """
    label, predicted = as_label(label), as_label(predicted, "prediction")
    check_same_size("label", label, "prediction", predicted)
    valid = label != VOID
    pairs = label[valid].astype(np.int64), predicted[valid].astype(np.int64)
    for what, own in zip(("label", "prediction"), pairs, strict=True):
        if own.max(initial=0) >= classes:
            raise XenomaskError(f"the {what} holds class {own.max()}, and there are {classes} classes, from 0 on")
    return np.bincount(pairs[0] * classes + pairs[1], minlength=classes**2).reshape(classes, classes)


def miou(matrix: NumbersLike) -> float:
    """Mean over the classes that occur (in label or prediction) of TP / (TP + FP + FN), in [0, 1].

    Raises XenomaskError for what is no square matrix (k, k) of counts, and where no class occurs.

    >>> miou(np.array([[1, 0], [1, 0]]))
    0.25
    """
    matrix = as_numbers(matrix, "confusion matrix", ndim=2)
    if matrix.shape[0] != matrix.shape[1] or not (matrix >= 0).all() or not np.isfinite(matrix.sum()):
        raise XenomaskError(f"confusion matrix: {matrix.shape}, not (k, k) counts from 0 on")
    tp = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - tp
    if not union.any():
        raise XenomaskError("confusion matrix: no pixel was counted, so there is no mIoU")
    return float((tp[union > 0] / union[union > 0]).mean())
