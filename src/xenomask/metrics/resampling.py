"""Per-frame counters -> confidence intervals: frames are drawn with replacement, no pixel is read again.

The percentile bootstrap over frames (Efron & Tibshirani 1993, ch. 13): a resample is a list of weights, how often
each frame was drawn. All resamples walk along their curves together, a block of thresholds at a time.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from xenomask.arrays import NumbersLike, as_array, as_counts, as_numbers, check_same_length
from xenomask.errors import XenomaskError
from xenomask.metrics.counters import BINS, FrameCounters
from xenomask.metrics.official import FrameBins
from xenomask.shapes import Float64, Integer

BLOCK = 512  # thresholds at a time: 1000 frames and resamples take 20 MB, and larger blocks are no faster
LEVEL = 0.95
CURVE_NUMBERS = ("aupr_sum", "aupr_trapz", "auroc", "fpr95", "best_f1")


@dataclass(frozen=True)
class Steps:
    """One frame's part of a pooled curve: at which of the common thresholds (rising) how many pixels lie."""

    at: Integer[np.ndarray, "n"]
    tp: Integer[np.ndarray, "n"]
    fp: Integer[np.ndarray, "n"]

    def __post_init__(self):
        if getattr(self.at, "dtype", None) != np.uint16:  # keys of float16, of which there are many
            object.__setattr__(self, "at", as_counts(self.at, "steps: at"))
        for name in ("tp", "fp"):
            object.__setattr__(self, name, as_counts(getattr(self, name), f"steps: {name}"))
        check_same_length("steps", at=self.at, tp=self.tp, fp=self.fp)
        if (self.at[1:] <= self.at[:-1]).any():
            raise XenomaskError("steps: thresholds must rise, none twice")


def exact_steps(frames: Sequence[FrameCounters]) -> tuple[list[Steps], int]:
    """Steps of the exact curve, and how many thresholds there are: every float16."""
    return [Steps(f.key, f.positive, f.negative) for f in frames], BINS


def official_steps(frames: Sequence[FrameBins]) -> tuple[list[Steps], int]:
    """Steps of the official curve, and how many thresholds there are: every edge of any frame."""
    thresholds = np.unique(np.concatenate([f.threshold for f in frames]))
    return [Steps(np.searchsorted(thresholds, f.threshold), f.tp, f.fp) for f in frames], len(thresholds)


def draw(frames: int, resamples: int, seed: int) -> Float64[np.ndarray, "r f"]:
    """How often each frame is drawn in each resample; rows sum to the number of frames."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(frames, np.full(frames, 1 / frames), size=resamples).astype(np.float64)


def as_weights(weights: NumbersLike, frames: int) -> Float64[np.ndarray, "r f"]:
    """How often each frame is drawn in each resample, as `draw` gives it; XenomaskError for what cannot be that."""
    found = as_numbers(weights, "weights of resamples", ndim=2)
    if found.shape[1] != frames or not (np.isfinite(found) & (found >= 0)).all():
        raise XenomaskError(f"weights of resamples: {found.shape}, not (resamples, {frames} frames) numbers from 0 on")
    return found


def curve_numbers(
    frames: Sequence[Steps], thresholds: int, weights: NumbersLike, threads: int = 2
) -> dict[str, Float64[np.ndarray, "r"]]:
    """AUPR-sum, AUPR-trapz, AUROC, FPR95 and best F1 of each resample; nan where it drew one kind of pixel only.

    `weights` (R, frames) are those of `draw`. Takes time O(resamples x frames x thresholds) of matrix products, memory
    of one block and the steps. Raises XenomaskError for weights of another number of frames.
    """
    from xenomask.metrics.kernels import advance  # numba

    weights = as_weights(weights, len(frames))
    P = weights @ np.array([f.tp.sum() for f in frames], np.float64)
    N = weights @ np.array([f.fp.sum() for f in frames], np.float64)
    state = np.zeros((len(weights), 10))
    state[:, 3], state[:, 8] = 1, np.nan  # precision where nothing is predicted; FPR95 not reached
    parts = np.array_split(np.arange(len(weights)), max(1, threads))
    parts = [slice(p[0], p[-1] + 1) for p in parts if len(p)]
    with ThreadPoolExecutor(len(parts)) as pool:
        for low in range((thresholds - 1) // BLOCK * BLOCK, -1, -BLOCK):
            block = _block(frames, low, min(BLOCK, thresholds - low))
            if block is not None:
                tp, fp = (weights @ part[:, ::-1] for part in block)
                list(pool.map(lambda s: advance(tp[s], fp[s], P[s], N[s], state[s]), parts))  # noqa: B023
    found = dict(zip(CURVE_NUMBERS, state[:, 5:].T, strict=True))
    return {k: np.where((P > 0) & (N > 0), v, np.nan) for k, v in found.items()}


def _block(frames: Sequence[Steps], low: int, width: int):
    """Dense (frames, width) counts of the thresholds from `low`; None where no frame has any there."""
    tp, fp = np.zeros((len(frames), width)), np.zeros((len(frames), width))
    touched = False
    for i, f in enumerate(frames):
        a, b = np.searchsorted(f.at, (low, low + width))
        if a < b:
            touched = True
            tp[i, f.at[a:b] - low], fp[i, f.at[a:b] - low] = f.tp[a:b], f.fp[a:b]
    return (tp, fp) if touched else None


def interval(values: NumbersLike) -> tuple[float, float]:
    """The central 95 % of the resamples (r,) that have the number (are not NaN); (nan, nan) where none has.

    Raises XenomaskError for another shape.
    """
    values = as_array(values, "resamples").astype(np.float64, copy=False)
    if values.ndim != 1:
        raise XenomaskError(f"resamples: the shape {values.shape}, not (r,)")
    usable = values[~np.isnan(values)]
    if not len(usable):
        return float("nan"), float("nan")
    low, high = np.quantile(usable, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)
