"""One frame's components, one by one: which were missed, found, or predicted for nothing, where, and how they score.

They are those of `metrics.components`: over all frames, their numbers are its FN, TP and FP.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xenomask.arrays import LabelLike, MapLike, as_half
from xenomask.metrics.components import Sizes, binarise, numbered
from xenomask.shapes import Int32

Kind = Literal["missed", "found", "false"]
TAU = 0.5  # the one that `evaluate` prints the counts of


@dataclass(frozen=True)
class Judged:
    """A true component that was missed or found, or a predicted one that is false."""

    frame: str
    kind: Kind
    # rows from, to, columns from, to
    box: tuple[int, int, int, int]
    pixels: int
    # sIoU of a true component, PPV of a predicted one, in [0, 1]
    agreement: float
    mean_score: float
    largest_score: float


def judge(
    frame: str,
    value: MapLike,
    label: LabelLike,
    threshold: float,
    sizes: Sizes,
    tau: float = TAU,
) -> list[Judged]:
    """A frame's components at the component metric's threshold: found from sIoU >= tau on, false below PPV tau.

    Raises XenomaskError as `components.binarise` and `components.numbered` do.

    >>> value, label = np.zeros((8, 8), np.float16), np.zeros((8, 8), np.uint8)
    >>> value[:2, :2], label[:2, :3], label[6:, 6:] = 1, 1, 1
    >>> [(j.kind, j.box, j.pixels, round(j.agreement, 2)) for j in judge("a", value, label, 0.5, Sizes(2, 2))]
    [('found', (0, 2, 0, 3), 6, 0.67), ('missed', (6, 8, 6, 8), 4, 0.0)]
    """
    value = as_half(value)
    n = numbered(binarise(value, threshold), label, sizes)
    kinds = ["found" if v >= tau else "missed" for v in n.values.siou_gt]
    found = _located(frame, value, n.true, n.truths.tolist(), kinds, n.values.siou_gt.tolist())
    false = n.values.ppv < tau
    ppv = n.values.ppv[false].tolist()
    return found + _located(frame, value, n.predicted, n.preds[false].tolist(), ["false"] * len(ppv), ppv)


def _located(frame: str, value: np.ndarray, picture: Int32[np.ndarray, "H W"], which, kinds, agreement) -> list[Judged]:
    from scipy.ndimage import find_objects

    boxes = find_objects(picture)
    found = []
    for number, kind, v in zip(which, kinds, agreement, strict=True):
        rows, columns = boxes[number - 1]
        # NOTE: a predicted component's pixels on small true ones count as void in the metric, but are shown here
        scores = value[rows, columns][picture[rows, columns] == number].astype(np.float64)
        box = rows.start, rows.stop, columns.start, columns.stop
        found.append(Judged(frame, kind, box, len(scores), v, float(scores.mean()), float(scores.max())))
    return found
