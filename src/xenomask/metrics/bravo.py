"""The numbers of the BRAVO challenge: predicted classes and their confidence against labels, and one index of all.

Counters of the 65,536 levels of confidence give every number exactly (Vu et al. 2024, "The BRAVO Semantic Segmentation
Challenge Results in UNCV2024", section 3; written from a description of valeoai/bravo_challenge). NOTE: all pixels are
counted; the challenge's server counts 100,000 that it drew of each image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from xenomask.arrays import LabelLike, NumbersLike, as_array, as_label, as_truth, check_same_size
from xenomask.errors import XenomaskError
from xenomask.metrics.curves import Curve
from xenomask.metrics.segmentation import confusion, miou
from xenomask.metrics.table import aupr_sum, auroc, fpr95
from xenomask.shapes import Int64
from xenomask.types import CITYSCAPES_CLASSES, VOID

LEVELS = 1 << 16
ECE_BINS = 15
CLASSES = len(CITYSCAPES_CLASSES)
LOWER = ("ece", "fpr95")  # enter the means as 1 - x


@dataclass(frozen=True)
class Counts:
    """Pixels of a subset: by (true, predicted) class, and by level of confidence, 0 to 65,535; `+` adds two.

    `right` and `wrong` are valid pixels by whether their class is; `invalid` and `valid` those of the anomaly label.
    """

    classes: Int64[np.ndarray, "k k"]
    right: Int64[np.ndarray, "65536"]
    wrong: Int64[np.ndarray, "65536"]
    invalid: Int64[np.ndarray, "65536"]
    valid: Int64[np.ndarray, "65536"]

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def frame_counts(
    predicted: LabelLike, confidence: NumbersLike, label: LabelLike | None = None, truth: LabelLike | None = None
) -> Counts:
    """Counts of one image: `predicted` (H, W) train ids 0..18, `confidence` (H, W) 0..65535, higher = surer.

    `label` (H, W) holds train ids and 255 void; `truth` (H, W) 0 valid, 1 invalid (an anomaly), 255 void, whose
    invalid pixels count for no class. Either may be missing. Raises XenomaskError for other values and sizes.
    """
    predicted, level = as_label(predicted, "predicted classes"), as_array(confidence, "confidence")
    check_same_size("predicted classes", predicted, "confidence", level)
    if level.ndim != 2:
        raise XenomaskError(f"confidence: the shape {level.shape}, not (H, W)")
    if level.dtype.kind not in "iu" or level.min() < 0 or level.max() >= LEVELS:
        raise XenomaskError(f"confidence: {level.dtype} {level.min()} .. {level.max()}, not whole numbers in 0..65535")
    classes, none = np.zeros((CLASSES, CLASSES), np.int64), np.zeros(0, np.int64)
    right = wrong = invalid = valid = none
    if truth is not None:
        truth = as_truth(truth)
        check_same_size("predicted classes", predicted, "label", truth)
        invalid, valid = level[truth == 1], level[truth == 0]
    if label is not None:
        label = as_label(label)
        check_same_size("predicted classes", predicted, "label", label)
        label = label if truth is None else np.where(truth == 1, np.uint8(VOID), label)
        classes = confusion(label, predicted, CLASSES)
        true = label != VOID
        right, wrong = level[true & (label == predicted)], level[true & (label != predicted)]
    return Counts(classes, *(np.bincount(x, minlength=LEVELS) for x in (right, wrong, invalid, valid)))


def numbers(c: Counts) -> dict[str, float]:
    """The numbers of a subset, in [0, 1]: those of classes ("..._valid") and of anomalies ("..._ood") where counted.

    Raises XenomaskError where every pixel is right, wrong, valid or invalid: no curve can be drawn.
    """
    found = {}
    if c.classes.any():
        success, error = (_curve(*x, "is right") for x in ((c.right, c.wrong), (c.wrong[::-1], c.right[::-1])))
        found |= {
            "miou_valid": miou(c.classes), "ece_valid": ece(c.right, c.right + c.wrong),
            "auroc_valid": auroc(success), "auprc_success_valid": aupr_sum(success),
            "auprc_error_valid": aupr_sum(error), "fpr95_valid": fpr95(success),
        }  # fmt: skip
    if c.invalid.any() or c.valid.any():
        doubt = _curve(c.invalid[::-1], c.valid[::-1], "is an anomaly")
        found |= {"auroc_ood": auroc(doubt), "auprc_ood": aupr_sum(doubt), "fpr95_ood": fpr95(doubt)}
    return found


def _curve(positive: Int64[np.ndarray, "65536"], negative: Int64[np.ndarray, "65536"], what: str) -> Curve:
    """The curve over levels; positives score high."""
    if not (positive.any() and negative.any()):
        raise XenomaskError(f"bravo: every pixel {what}, or none: no curve can be drawn; are the labels this split's?")
    used = np.flatnonzero(positive + negative)[::-1]
    return Curve(used.astype(np.float64), positive[used].cumsum(), negative[used].cumsum())


def ece(right: NumbersLike, pixels: NumbersLike) -> float:
    """Expected calibration error: over 15 equal ranges of confidence, by their pixels, |mean confidence - share right|.

    `right` and `pixels` (65536,) count by level; a level stands for the confidence (level + .5) / 65536.
    """
    right, pixels = np.asarray(right, np.float64), np.asarray(pixels, np.float64)
    starts = np.round(np.linspace(0, LEVELS, ECE_BINS + 1)).astype(int)[:-1]
    said = (np.arange(LEVELS) + 0.5) / LEVELS * pixels
    gap = np.add.reduceat(said, starts) - np.add.reduceat(right, starts)
    return float(np.abs(gap).sum() / pixels.sum())


def index(subsets: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The summaries of {subset: `numbers`}: `<subset>_hmean`, over all `semantic_hmean`, `ood_hmean`, `bravo_index`.

    Harmonic means, into which ECE and FPR95 enter as 1 - x; the index is that of the two. Those that nothing was
    counted for are left out, and so is the index then.

    >>> index({"a": {"miou_valid": 0.5, "fpr95_valid": 0.5}, "b": {"auroc_ood": 1.0}})["bravo_index"]
    0.6666666666666666
    """
    good = {s: {k: 1 - v if k.startswith(LOWER) else v for k, v in n.items()} for s, n in subsets.items() if n}
    kinds = {"semantic_hmean": "_valid", "ood_hmean": "_ood"}
    of = {k: [v for n in good.values() for key, v in n.items() if key.endswith(end)] for k, end in kinds.items()}
    found = {f"{s}_hmean": _harmonic(list(n.values())) for s, n in good.items()}
    found |= {k: _harmonic(v) for k, v in of.items() if v}
    return found | ({"bravo_index": _harmonic([found[k] for k in kinds])} if all(of.values()) else {})


def _harmonic(values: list[float]) -> float:
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / v for v in values)
