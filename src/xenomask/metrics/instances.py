"""Average precision of anomaly instances, by the rule of Cityscapes' instance benchmark, as OoDIS evaluates.

A predicted instance matches a true one where their IoU exceeds a threshold; AP is the mean over thresholds .50 to .95,
in steps of .05, of the area under precision and recall over all images (Cordts et al. 2016, section 4.2; Nekrasov et
al. 2024, "OoDIS", section 4). Written from a description of the released arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xenomask.arrays import LabelLike, MaskLike, NumbersLike, as_mask, as_numbers, as_truth, check_same_size
from xenomask.errors import XenomaskError
from xenomask.metrics.components import label_components
from xenomask.shapes import Float64, Int64
from xenomask.types import VOID

OVERLAPS = np.round(np.arange(0.50, 0.96, 0.05), 2)
SMALLEST = 10  # pixels: smaller true instances are neither found nor missed


@dataclass(frozen=True)
class FrameInstances:
    """One frame's predicted instances against its true ones, all in pixels.

    `scores` (p,), `sizes` (p,), `true` (g,) the sizes of true ones, `common` (p, g) their intersections, `void` (p,)
    the predicted ones' void pixels.
    """

    scores: Float64[np.ndarray, "p"]
    sizes: Int64[np.ndarray, "p"]
    true: Int64[np.ndarray, "g"]
    common: Int64[np.ndarray, "p g"]
    void: Int64[np.ndarray, "p"]


def frame_instances(masks: Sequence[MaskLike], scores: NumbersLike, label: LabelLike) -> FrameInstances:
    """Predicted masks (H, W), each with a score, higher = more confident, against a label (0, 1 anomaly, 255 void).

    NOTE: a label without instance numbers has one instance a connected component, 8-connected; masks may overlap.
    Raises XenomaskError for what is no mask, label or finite score, for another number of scores, and other sizes.
    """
    label = as_truth(label)
    found = [as_mask(m) for m in masks]
    for m in found:
        check_same_size("mask", m, "label", label)
    numbers = as_numbers(scores, "scores", ndim=1).astype(np.float64)
    if len(numbers) != len(found):
        raise XenomaskError(f"{len(found)} masks and {len(numbers)} scores")
    if not np.isfinite(numbers).all():
        raise XenomaskError("a score of an instance is infinite")
    parts, true = label_components(label == 1)
    common = [np.bincount(parts[m], minlength=len(true))[1:] for m in found]
    return FrameInstances(
        numbers,
        np.array([m.sum() for m in found], np.int64),
        np.asarray(true[1:], np.int64),
        np.array(common, np.int64).reshape(len(found), len(true) - 1),
        np.array([(m & (label == VOID)).sum() for m in found], np.int64),
    )


def average_precision(frames: Sequence[FrameInstances], overlap: float, smallest: int = SMALLEST) -> float:
    """AP at one IoU threshold, in [0, 1]; nan where no true instance of `smallest` pixels or more is there.

    A true instance is found by the most confident of the predictions that match it; its others are false. A prediction
    that matches none is false, unless more than `overlap` of it is void or on smaller true instances.

    >>> one = np.zeros((8, 8), np.uint8); one[:4, :4] = 1
    >>> average_precision([frame_instances([one == 1], [0.9], one)], 0.5)
    1.0
    """
    scores: list[float] = []
    right: list[bool] = []
    missed = counted = 0
    for f in frames:
        with np.errstate(divide="ignore", invalid="ignore"):
            iou = f.common / (f.sizes[:, None] + f.true - f.common)
        large = f.true >= smallest
        matches = (iou > overlap) & large
        counted += int(large.sum())
        for g in np.flatnonzero(large):
            own = np.flatnonzero(matches[:, g])
            missed += not len(own)
            best = f.scores[own].max() if len(own) else None
            taken = False
            for p in own:
                first = f.scores[p] == best and not taken
                taken |= bool(first)
                scores.append(float(f.scores[p]))
                right.append(bool(first))
        for p in np.flatnonzero(~matches.any(1) & (f.sizes > 0)):
            unseen = f.void[p] + f.common[p, ~large].sum()
            if unseen / f.sizes[p] <= overlap:
                scores.append(float(f.scores[p]))
                right.append(False)
    if not counted:
        return float("nan")
    return _area(np.array(scores), np.array(right, bool), missed) if scores else 0.0


def _area(scores: Float64[np.ndarray, "n"], right: Any, missed: int) -> float:
    """The area under precision over recall, one point a distinct score and one at recall 0 with precision 1."""
    order = np.argsort(scores, kind="stable")
    scores, right = scores[order], right[order]
    starts = np.unique(scores, return_index=True)[1]
    below = np.concatenate([[0], np.cumsum(right)])
    found = below[-1] - below[starts]
    precision = np.append(found / (len(scores) - starts), 1.0)
    recall = np.append(found / (below[-1] + missed), 0.0)
    # each point stands for half of the way to both neighbours, the first and the last for what is left
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ ((padded[:-2] - padded[2:]) / 2))


def instance_numbers(frames: Sequence[FrameInstances], smallest: int = SMALLEST) -> dict[str, float]:
    """`ap`, the mean over the ten thresholds, and `ap50`; nan where there is no true instance."""
    by_overlap = [average_precision(frames, float(t), smallest) for t in OVERLAPS]
    return {"ap": float(np.mean(by_overlap)), "ap50": by_overlap[0]}
