"""Average precision of boxes, by COCO's rule: greedy matching, the most confident first, 101 points of recall.

Lin et al. 2014 and the released COCOeval, for one category without crowds or size ranges; OoDIS' detection track takes
it for anomalies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects

from xenomask.arrays import LabelLike, NumbersLike, as_numbers, as_truth
from xenomask.errors import XenomaskError
from xenomask.metrics.components import label_components
from xenomask.metrics.instances import SMALLEST
from xenomask.shapes import Bool, Float64

OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100  # boxes of an image that count, the most confident


@dataclass(frozen=True)
class FrameBoxes:
    """One image's predicted boxes, the most confident first, against its true ones: `scores` (p,) and `iou` (p, g)."""

    scores: Float64[np.ndarray, "p"]
    iou: Float64[np.ndarray, "p g"]


def frame_boxes(boxes: NumbersLike, scores: NumbersLike, true: NumbersLike) -> FrameBoxes:
    """Predicted boxes (p, 4), each with a score (p,), and true ones (g, 4): x, y, width, height in pixels.

    Raises XenomaskError for other shapes, negative widths or heights, and NaN.
    """
    p, g = (_boxes(b, what) for b, what in ((boxes, "predicted boxes"), (true, "true boxes")))
    s = as_numbers(scores, "scores", ndim=1)
    if len(s) != len(p):
        raise XenomaskError(f"{len(p)} boxes and {len(s)} scores")
    order = np.argsort(-s, kind="stable")[:MOST]
    p = p[order]
    ends = [b[:, :2] + b[:, 2:] for b in (p, g)]
    sides = np.minimum(ends[0][:, None], ends[1][None]) - np.maximum(p[:, None, :2], g[None, :, :2])
    common = sides.clip(0).prod(-1)
    both = p[:, 2:].prod(-1)[:, None] + g[:, 2:].prod(-1)[None] - common
    return FrameBoxes(s[order], np.divide(common, both, out=np.zeros_like(common), where=both > 0))


def true_boxes(label: LabelLike, smallest: int = SMALLEST) -> Float64[np.ndarray, "g 4"]:
    """The boxes (x, y, width, height) of a label's (0, 1, 255) anomalous regions, from `smallest` pixels on.

    >>> true_boxes([[0, 1, 1], [0, 0, 1]], smallest=1).tolist()
    [[1.0, 0.0, 2.0, 2.0]]
    """
    numbered, sizes = label_components(as_truth(label) == 1)
    found = zip(find_objects(numbered), sizes[1:], strict=True)
    boxes = [(x.start, y.start, x.stop - x.start, y.stop - y.start) for (y, x), n in found if n >= smallest]
    return np.array(boxes, float).reshape(-1, 4)


def _boxes(boxes: NumbersLike, what: str) -> Float64[np.ndarray, "n 4"]:
    found = as_numbers(boxes, what)
    found = found.reshape(0, 4) if not found.size else found
    if found.ndim != 2 or found.shape[1] != 4 or (found[:, 2:] < 0).any():
        raise XenomaskError(f"{what}: {found.shape}, not (n, 4) of x, y, width and height from 0 on")
    return found


def box_precision(frames: Sequence[FrameBoxes], overlap: float) -> float:
    """AP at one IoU threshold, in [0, 1]; nan where no true box is there.

    A predicted box takes the free true box that it overlaps most, from `overlap` on. Precision at a recall is the best
    of this and every higher recall, read at 0, .01, ..., 1.

    >>> box_precision([frame_boxes([[0, 0, 4, 4], [9, 9, 2, 2]], [0.9, 0.8], [[0, 0, 4, 3]])], 0.5)
    1.0
    """
    total = sum(f.iou.shape[1] for f in frames)
    if not total:
        return float("nan")
    scores = np.concatenate([f.scores for f in frames])
    right = np.concatenate([_matched(f, overlap) for f in frames])[np.argsort(-scores, kind="stable")]
    if not len(right):
        return 0.0
    tp = right.cumsum()
    precision = np.maximum.accumulate((tp / np.arange(1, len(tp) + 1))[::-1])[::-1]
    at = np.searchsorted(tp / total, RECALLS)
    return float(np.append(precision, 0.0)[at].mean())


def _matched(f: FrameBoxes, overlap: float) -> Bool[np.ndarray, "p"]:
    """Which predicted boxes found a true one of their own; of equal overlaps the last, as COCOeval has it."""
    free, found = f.iou.copy(), np.zeros(len(f.scores), bool)
    for p, row in enumerate(free):
        if row.size and (best := row.max()) >= min(overlap, 1 - 1e-10):
            found[p] = True
            free[p + 1 :, np.flatnonzero(row == best)[-1]] = -1
    return found


def box_numbers(frames: Sequence[FrameBoxes]) -> dict[str, float]:
    """`box_ap`, the mean over IoU .50, .55, ..., .95, and `box_ap50`; nan where there is no true box."""
    by_overlap = [box_precision(frames, float(t)) for t in OVERLAPS]
    return {"box_ap": float(np.mean(by_overlap)), "box_ap50": by_overlap[0]}
