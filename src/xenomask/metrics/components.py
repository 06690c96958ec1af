"""The component metric of the official SegmentMeIfYouCan code (`SegEval`): label + mask -> sIoU, PPV, F1.

All numbers of a frame come from one contingency table, predicted x true component (Chan et al. 2021, eq. 3 to 5,
as the released code computes them). Written from a description of that code's arithmetic.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from xenomask.arrays import (
    LabelLike,
    MapLike,
    MaskLike,
    NumbersLike,
    as_half,
    as_mask,
    as_numbers,
    as_truth,
    check_same_size,
)
from xenomask.errors import XenomaskError
from xenomask.shapes import Bool, Float64, Int32, Int64
from xenomask.types import VOID

TAUS = np.linspace(0.25, 0.75, 11)
NAMES = [f"{int(t * 100)}" for t in TAUS]  # the official keys


@dataclass(frozen=True)
class Sizes:
    """Smallest components that count, in pixels: smaller predicted ones are dropped, smaller true ones void."""

    predicted: int
    true: int


SIZE_STEPS = (16 * 16, 48 * 48, 112 * 112)  # pixels; ISSU's classes of objects by size (its instance_segmentation.py)
TRACKS = {"anomaly": Sizes(500, 100), "obstacle": Sizes(50, 10), "issu": Sizes(49, 49)}


@dataclass(frozen=True)
class FrameComponents:
    """One frame's components: sIoU of each true one, sIoU and PPV of each predicted one, all in [0, 1]."""

    siou_gt: Float64[np.ndarray, "g"]
    siou_pred: Float64[np.ndarray, "p"]
    ppv: Float64[np.ndarray, "p"]

    def __post_init__(self):
        for name in ("siou_gt", "siou_pred", "ppv"):
            object.__setattr__(self, name, as_numbers(getattr(self, name), name, ndim=1))
        if len(self.siou_pred) != len(self.ppv):
            raise XenomaskError(f"{len(self.siou_pred)} sIoU and {len(self.ppv)} PPV of predicted components")


def binarise(value: MapLike, threshold: float) -> Bool[np.ndarray, "H W"]:
    """Score > threshold, strictly, as the official code asks (its pixel curve counts score >= threshold).

    Both are rounded to float16. Raises XenomaskError for what is no finite map (H, W), and for a threshold of NaN.

    NOTE: under the official code's NumPy 1.x, a float16 map is compared with the threshold rounded to float16;
    NumPy 2 would compare in float64 and differ where a pixel equals the rounded one.
    """
    value = as_half(value)
    if np.isnan(threshold):
        raise XenomaskError("the threshold is NaN")
    with np.errstate(over="ignore"):
        limit = np.float16(threshold) + np.float16(0)  # -0 becomes +0
    # Finite float16 compare as their bits do (signed from 0 up; below it, unsigned and backwards): 40 times faster.
    if limit >= 0:
        return value.view(np.int16) > limit.view(np.int16)
    return value.view(np.uint16) < limit.view(np.uint16)


def label_components(mask: MaskLike):
    """8-connected components as (H, W) numbers from 1, and their sizes; number 0 is the background.

    Raises XenomaskError for what is no mask (H, W).
    """
    mask = as_mask(mask).view(np.uint8)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(mask.shape, np.int32), np.array([mask.size])
    # OpenCV takes 7 ms a megapixel even where nothing is set: it sees the part that holds all components.
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    _, number, stats, _ = cv2.connectedComponentsWithStats(mask[box], connectivity=8, ltype=cv2.CV_32S)
    size = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
    size[0] += mask.size - mask[box].size
    whole = np.zeros(mask.shape, np.int32)
    whole[box] = number
    return whole, size


@dataclass(frozen=True)
class Numbered:
    """A frame's components and where they are: the pixels of value i's component hold truths[i] or preds[i]."""

    values: FrameComponents
    truths: Int64[np.ndarray, "g"]
    preds: Int64[np.ndarray, "p"]
    true: Int32[np.ndarray, "H W"]
    predicted: Int32[np.ndarray, "H W"]


def compare(mask: MaskLike, label: LabelLike, sizes: Sizes) -> FrameComponents:
    """The values of `numbered`."""
    return numbered(mask, label, sizes).values


def numbered(mask: MaskLike, label: LabelLike, sizes: Sizes) -> Numbered:
    """Compares the components of a predicted mask with those of the label (0 / 1 / 255).

    In the official order: the mask is cut off in void, small predicted components are dropped, small true ones
    become void, and only then everything in void is taken out of both. With K(x) the components of the other
    side that touch x, and A the pixels of K(x) that lie on *other* components of x's side:
    sIoU(x) = |x and K(x)| / (|x or K(x)| - A) and PPV(p) = |p and truth| / |p|. Raises XenomaskError for what is no
    mask or no label, and for sizes that differ.
    """
    mask, label = as_mask(mask), as_truth(label)
    check_same_size("mask", mask, "label", label)
    pred, pred_size = label_components(mask & (label != VOID))
    true, true_size = label_components(label == 1)
    kept = pred_size >= sizes.predicted
    kept[0] = False
    # NOTE: the background is size-tested like a true component, as released: where less than `sizes.true` pixels
    # are no anomaly, all of them become void.
    small = true_size < sizes.true
    at = np.flatnonzero(kept[pred])
    p, t = pred.ravel()[at], true.ravel()[at]
    if small.any():
        p, t = p[~small[t]], t[~small[t]]
    size_p = np.bincount(p, minlength=len(pred_size))
    size_t = np.where(small, 0, true_size)
    p, t, overlap = _cells(p[t > 0], t[t > 0], len(pred_size), len(true_size))
    # Of each component, the pixels that lie on some component of the other side (float sums of integers: exact).
    on_truth, in_pred = np.bincount(p, overlap, len(size_p)), np.bincount(t, overlap, len(size_t))
    # |x or K(x)| - A = |x| + the pixels of K(x) that lie on no component of x's side: those on x are in |x|,
    # those on others are A.
    union_t = size_t + np.bincount(t, (size_p - on_truth)[p], len(size_t))
    union_p = size_p + np.bincount(p, (size_t - in_pred)[t], len(size_p))
    size_p[0] = size_t[0] = 0
    truths, preds = np.flatnonzero(size_t), np.flatnonzero(size_p)
    values = FrameComponents(
        in_pred[truths] / union_t[truths], on_truth[preds] / union_p[preds], on_truth[preds] / size_p[preds]
    )
    return Numbered(values, truths, preds, true, pred)


def _cells(p, t, n_p: int, n_t: int):
    """The non-zero cells (p, t, pixels) of the contingency table of two lists of component numbers."""
    if n_p * n_t <= 1 << 22:  # counting beats sorting while the table fits the cache
        cell = np.bincount(t.astype(np.int64) * n_p + p, minlength=n_p * n_t)
        pair = np.flatnonzero(cell)
        overlap = cell[pair]
    else:
        pair, overlap = np.unique(t.astype(np.int64) * n_p + p, return_counts=True)
    t, p = np.divmod(pair, n_p)
    return p, t, overlap


def tallies(f: FrameComponents) -> Float64[np.ndarray, "39"]:
    """What adds up over frames: TP, FN, FP at each tau, then sum and number of sIoU_gt, sIoU_pred and PPV."""
    # NOTE: a false positive is a predicted component with PPV < tau, not with sIoU < tau.
    tp = (f.siou_gt >= TAUS[:, None]).sum(1)
    fp = (f.ppv < TAUS[:, None]).sum(1)
    sums = [x for part in (f.siou_gt, f.siou_pred, f.ppv) for x in (part.sum(), len(part))]
    return np.concatenate([tp, len(f.siou_gt) - tp, fp, sums]).astype(np.float64)


def numbers(total: NumbersLike) -> dict[str, Any]:
    """The official numbers of summed `tallies` (39,), under the official names; arrays for several rows (r, 39).

    tp_25 .. tp_75, fn_, fp_, f1_ at each tau and their means over tau; sIoU_gt, sIoU_pred and prec_pred (PPV) are
    means over all components of the data set. nan where there is no component to take a mean of.

    >>> one = FrameComponents(np.array([0.5]), np.array([0.4]), np.array([0.9]))
    >>> n = numbers(tallies(one))
    >>> float(n["tp_50"]), float(n["tp_55"]), float(n["sIoU_gt"]), round(float(n["f1_mean"]), 4)
    (1.0, 0.0, 0.5, 0.5455)
    """
    total = as_numbers(total, "tallies of components")
    if total.shape[-1:] != (39,):
        raise XenomaskError(f"tallies of components have 39 numbers a row, not the shape {total.shape}")
    tp, fn, fp, sums = np.split(total, [11, 22, 33], axis=-1)
    found: dict[str, Any] = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for name, x in (("tp", tp), ("fp", fp), ("fn", fn), ("f1", 2 * tp / (2 * tp + fn + fp))):
            found |= {f"{name}_{tau}": x[..., i] for i, tau in enumerate(NAMES)}
            found[f"{name}_mean"] = x.mean(-1)
        for i, name in enumerate(("sIoU_gt", "sIoU_pred", "prec_pred")):
            found[name] = sums[..., 2 * i] / sums[..., 2 * i + 1]
    return found


def recall_by_size(pixels: NumbersLike, siou: NumbersLike) -> dict[str, dict[str, float]]:
    """Recall (mean over tau) and mean sIoU of true components by their size, from pixels (g,) and sIoU (g,) of each.

    ISSU's four ranges of size. NOTE: its code makes all void that is not of the range, background too, and so counts no
    false component; here the components are those of all sizes, and false ones belong to none. nan where there is none.

    >>> recall_by_size([100, 255, 256], [0.5, 0, 1])["0 .. 255"]
    {'objects': 2, 'recall': 0.2727272727272727, 'siou': 0.25}
    """
    pixels, siou = as_numbers(pixels, "pixels of components", ndim=1), as_numbers(siou, "sIoU", ndim=1)
    if len(pixels) != len(siou):
        raise XenomaskError(f"sizes of {len(pixels)} components and sIoU of {len(siou)}")
    at, found = np.searchsorted(SIZE_STEPS, pixels, side="right"), {}
    for i, (low, high) in enumerate(zip((0, *SIZE_STEPS), (*(s - 1 for s in SIZE_STEPS), None), strict=True)):
        own = siou[at == i]
        recall, mean = ((own >= TAUS[:, None]).mean(), own.mean()) if len(own) else (np.nan, np.nan)
        name = f"{low} .. {high}" if high else f"from {low}"
        found[name] = {"objects": len(own), "recall": float(recall), "siou": float(mean)}
    return found
