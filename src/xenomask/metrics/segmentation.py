"""mIoU of the ordinary segmentation, from one confusion matrix over all pixels."""

import numpy as np
from jaxtyping import Int64, Integer

from xenomask.types import VOID


def confusion(
    label: Integer[np.ndarray, "H W"], predicted: Integer[np.ndarray, "H W"], classes: int
) -> Int64[np.ndarray, "k k"]:
    """Counts of (true, predicted) class pairs, void left out.

    >>> confusion(np.array([[0, 1, 255]]), np.array([[0, 0, 1]]), 2).tolist()
    [[1, 0], [1, 0]]
    """
    valid = label != VOID
    pair = label[valid].astype(np.int64) * classes + predicted[valid]
    return np.bincount(pair, minlength=classes**2).reshape(classes, classes)


def miou(matrix: Int64[np.ndarray, "k k"]) -> float:
    """Mean over the classes that occur (in label or prediction) of TP / (TP + FP + FN), in [0, 1].

    >>> miou(np.array([[1, 0], [1, 0]]))
    0.25
    """
    tp = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - tp
    return float((tp[union > 0] / union[union > 0]).mean())
