"""Which queries are specialised on a class: counts over the class predictions of many ordinary images."""

from dataclasses import dataclass

import numpy as np

from xenomask.arrays import TensorLike
from xenomask.masks import as_logits
from xenomask.shapes import Int64


@dataclass(frozen=True)
class InlierCounts:
    """Per query and class (index K: no object): how often predicted, and how often with high confidence."""

    times_predicted: Int64[np.ndarray, "q n"]
    high_conf: Int64[np.ndarray, "q n"]


def count_predictions(p: TensorLike, confidence: float) -> InlierCounts:
    """One image's counts of class probabilities (Q, N): each query predicts its most probable class of all N.

    Raises XenomaskError for another shape.
    """
    p = as_logits(p, 2, "class probabilities (Q, N)")
    best = p.detach().max(1)
    top, argmax = best.values.float().cpu().numpy(), best.indices.cpu().numpy()
    one_hot = np.zeros(tuple(p.shape), np.int64)
    one_hot[np.arange(len(argmax)), argmax] = 1
    return InlierCounts(one_hot, one_hot * (top >= confidence)[:, None])


def merge(a: InlierCounts, b: InlierCounts) -> InlierCounts:
    """The counts of both sets of images."""
    return InlierCounts(a.times_predicted + b.times_predicted, a.high_conf + b.high_conf)


def specialised(counts: InlierCounts, ratio: float, min_predictions: int = 1) -> dict[int, int]:
    """Query -> class, where confident predictions of that class are at least `ratio` of the query's predictions.

    One of them is confident at least. A query predicts in an image where its most probable class is not "no object";
    queries that did so less than `min_predictions` times are left out.

    >>> n = np.array([[9, 1, 5], [0, 0, 15]])
    >>> specialised(InlierCounts(n, n), ratio=0.9)
    {0: 0}
    """
    predictions = counts.times_predicted[:, :-1].sum(1)
    found = {}
    for q in np.flatnonzero(predictions >= max(1, min_predictions)):
        c = int(counts.high_conf[q, :-1].argmax())
        confident = int(counts.high_conf[q, c])
        if confident and confident / predictions[q] >= ratio:  # .55 * 100 is more than 55
            found[int(q)] = c
    return found
