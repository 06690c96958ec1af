"""The same maps under the conventions of other people's evaluators: for comparison, never for a table of ours.

Each is written from a description of that code (docs/conventions.md says what differs and by how much). All but one
read the frames' counters; `rba_720x1280` resizes maps and labels and so needs the pixels again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from xenomask.arrays import LabelLike, MapLike, as_half, as_truth, check_same_size
from xenomask.metrics import official
from xenomask.metrics.counters import FrameCounters, count, pool, values
from xenomask.metrics.curves import Curve, curve
from xenomask.metrics.table import numbers
from xenomask.shapes import Float64

Numbers = dict[str, float]  # "aupr", "fpr" and, where the code prints one, "f1"
UNDEFINED = {"aupr": float("nan"), "fpr": float("nan")}


@dataclass(frozen=True)
class Convention:
    """One evaluator: whose, what it does differently, and the arithmetic on the frames' counters."""

    name: str
    used_by: str
    text: str
    numbers: Callable[[Sequence[FrameCounters]], Numbers]


def roc_points(c: Curve) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """(fpr, tpr) as scikit-learn's `roc_curve` gives them by default: collinear points dropped, from (0, 0)."""
    bend = np.ones(len(c.tp), bool)
    if len(c.tp) > 2:
        bend[1:-1] = (np.diff(c.tp, 2) != 0) | (np.diff(c.fp, 2) != 0)
    return np.append(0.0, c.fpr[bend]), np.append(0.0, c.recall[bend])


def fpr_above(c: Curve, tpr: float) -> float:
    """FPR at the first point of scikit-learn's curve whose TPR is strictly above (RbA's .95, Maskomaly's .90)."""
    fpr, recall = roc_points(c)
    return float(fpr[np.argmax(recall > tpr)])


def fpr_interpolated(c: Curve, tpr: float = 0.95) -> float:
    """FPR linearly interpolated at a TPR (the `ood_metrics` package)."""
    fpr, recall = roc_points(c)
    return float(np.interp(tpr, recall, fpr))


def fpr_nearest(c: Curve, tpr: float = 0.95) -> float:
    """FPR at the threshold whose recall is nearest to the TPR; the larger threshold of two (Hendrycks' rule)."""
    return float(c.fpr[np.argmin(np.abs(c.recall - tpr))])


def _pooled(frames: Sequence[FrameCounters]) -> Curve:
    return curve(pool(frames))


def _exact(frames: Sequence[FrameCounters]) -> Numbers:
    n = numbers(_pooled(frames))
    return {"aupr": n["aupr_sum"], "fpr": n["fpr95"], "f1": n["best_f1"]}


def _official(frames: Sequence[FrameCounters], aupr: str = "aupr_sum") -> Numbers:
    n = numbers(official.curve([official.frame_bins(f) for f in frames]))
    return {"aupr": n[aupr], "fpr": n["fpr95"], "f1": n["best_f1"]}


def _binned(frames: Sequence[FrameCounters], edges: Float64[np.ndarray, "m"]) -> Curve:
    """The pooled curve with the given bins' lower edges as thresholds."""
    total = pool(frames)
    used = np.flatnonzero(total.positive + total.negative)
    at = np.searchsorted(edges, values(used.astype(np.uint16)).astype(np.float64), side="right") - 1
    tp, fp = (np.bincount(at, c[used], len(edges)).astype(np.int64) for c in (total.positive, total.negative))
    filled = np.flatnonzero(tp + fp)[::-1]
    return Curve(edges[filled], tp[filled].cumsum(), fp[filled].cumsum())


def _in_unit_range(frames: Sequence[FrameCounters]) -> bool:
    ends = [float(v) for f in frames if len(f.key) for v in values(f.key[[0, -1]])]
    return min(ends) >= 0 and max(ends) <= 1


def _uniform(frames: Sequence[FrameCounters]) -> Numbers:
    if not _in_unit_range(frames):
        return dict(UNDEFINED)
    n = numbers(_binned(frames, np.linspace(-0.01, 1.01, 4097)[:-1]))
    return {"aupr": n["aupr_sum"], "fpr": n["fpr95"], "f1": n["best_f1"]}


def _trapezoid(frames: Sequence[FrameCounters]) -> Numbers:
    n = numbers(_pooled(frames))
    return {"aupr": n["aupr_trapz"], "fpr": n["fpr95"]}


def with_anomaly(frames: Sequence[FrameCounters]) -> list[FrameCounters]:
    """The frames that have both kinds of pixel: those with numbers of their own."""
    return [f for f in frames if f.positive.any() and f.negative.any()]


def _mean(each: Sequence[Numbers]) -> Numbers:
    return {k: float(np.mean([n[k] for n in each])) for k in each[0]} if each else dict(UNDEFINED)


def _per_image(frames: Sequence[FrameCounters]) -> Numbers:
    own = [numbers(curve(f)) for f in with_anomaly(frames)]
    return _mean([{"aupr": n["aupr_trapz"], "fpr": n["fpr95"]} for n in own])


def _per_image_nearest(frames: Sequence[FrameCounters]) -> Numbers:
    own = [curve(f) for f in with_anomaly(frames)]
    return _mean([{"aupr": numbers(c)["aupr_sum"], "fpr": fpr_nearest(c)} for c in own])


def _rba(frames: Sequence[FrameCounters]) -> Numbers:
    c = _pooled(frames)
    return {"aupr": numbers(c)["aupr_sum"], "fpr": fpr_above(c, 0.95)}


def _mask2anomaly(frames: Sequence[FrameCounters]) -> Numbers:
    kept = [f for f in frames if f.positive.any()]
    if not any(f.negative.any() for f in kept):
        return dict(UNDEFINED)
    c = _pooled(kept)
    return {"aupr": numbers(c)["aupr_sum"], "fpr": fpr_interpolated(c)}


def _maskomaly(frames: Sequence[FrameCounters]) -> Numbers:
    c = _pooled(frames)
    return {"aupr": numbers(c)["aupr_sum"], "fpr": fpr_above(c, 0.90)}


def _bravo(frames: Sequence[FrameCounters], pixels: int = 100_000, seed: int = 0) -> Numbers:
    if not _in_unit_range(frames):
        return dict(UNDEFINED)
    rng = np.random.default_rng(seed)
    sampled = []
    for f in frames:
        both = np.concatenate([f.positive, f.negative]).astype(np.int64)
        if both.sum() > pixels:
            # drawing counts without replacement is drawing pixels without replacement
            both = rng.multivariate_hypergeometric(both, pixels, method="marginals")
        positive, negative = np.split(both.astype(np.uint32), 2)
        sampled.append(FrameCounters(f.key, positive, negative))
    c = _binned(sampled, (np.arange(65536) - 0.5) / 65535)
    if not (c.tp[-1] and c.fp[-1]):  # one kind of pixel was not drawn
        return dict(UNDEFINED)
    n = numbers(c)
    return {"aupr": n["aupr_sum"], "fpr": n["fpr95"]}


_ALL = (
    Convention("exact", "xenomask, scikit-learn, Fishyscapes", "pooled pixels, step-wise AP, TPR >= .95", _exact),
    Convention(
        "official", "SegmentMeIfYouCan, AUPR-sum", "384 + 384 quantile bins a frame, step-wise AP", _official
    ),
    Convention(
        "official_trapz", "SegmentMeIfYouCan, AUPR-trapz", "the same bins, trapezoid",
        lambda f: _official(f, "aupr_trapz"),
    ),
    Convention(
        "official_uniform", "SegmentMeIfYouCan, -uniThr", "4096 uniform bins over [-.01, 1.01]; scores in 0..1 only",
        _uniform,
    ),
    Convention(
        # NOTE: anomalib took the trapezoid up to 2.6; from 2.7 on its AUPR is step-wise, as `exact`
        "trapezoid", "OpenOOD, pytorch-ood, anomalib up to 2.6", "pooled, trapezoid through the PR points", _trapezoid,
    ),
    Convention("per_image", "pytorch-ood, per image", "mean over frames with anomaly, trapezoid", _per_image),
    Convention(
        "per_image_nearest", "anomaly-seg (Hendrycks), torch-uncertainty",
        "mean over frames with anomaly, step-wise AP, FPR at the recall nearest to .95", _per_image_nearest,
    ),
    Convention("rba", "RbA", "pooled, step-wise AP, first TPR strictly > .95", _rba),
    Convention(
        "mask2anomaly", "Mask2Anomaly", "frames without anomaly skipped, FPR interpolated at .95", _mask2anomaly
    ),
    Convention("maskomaly", "Maskomaly's script", "pooled, step-wise AP, 'FPR95' at TPR > .90", _maskomaly),
    Convention(
        "bravo", "BRAVO", "100,000 pixels drawn a frame (ours, not their draw), 65,536 levels; scores in 0..1 only",
        _bravo,
    ),
)  # fmt: skip
CONVENTIONS: dict[str, Convention] = {c.name: c for c in _ALL}
RESIZED = Convention(
    "rba_720x1280",
    "RbA on RoadAnomaly21",
    "maps (bilinear) and labels resized to 1280x720, then as RbA",
    _rba,
)


def resized_counters(value: MapLike, label: LabelLike, size: tuple[int, int] = (720, 1280)) -> FrameCounters:
    """The counters of one frame after both were resized to (height, width), as RbA does with images and labels.

    Raises XenomaskError for what is no map or no label, and for sizes that differ.
    """
    value, label = as_half(value), as_truth(label)
    check_same_size("map", value, "label", label)
    # NOTE: RbA resizes the image, and so looks at other pixels; from stored maps only the map can be resized.
    scores = cv2.resize(value.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float16)
    return count(scores, cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST))


def all_conventions(
    frames: Sequence[FrameCounters], resized: Sequence[FrameCounters] | None = None
) -> Mapping[str, Numbers]:
    """{convention: {"aupr", "fpr", sometimes "f1"}}.

    nan where a convention does not take such scores, or of the pixels that it sees none is anomalous or none inlier.
    """
    found = {name: c.numbers(frames) for name, c in CONVENTIONS.items()}
    if resized is not None:
        both = all(any(getattr(f, kind).any() for f in resized) for kind in ("positive", "negative"))
        found[RESIZED.name] = RESIZED.numbers(resized) if both else dict(UNDEFINED)  # small anomalies may be lost
    return found
