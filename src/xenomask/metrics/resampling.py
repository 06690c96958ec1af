"""Per-frame counters -> confidence intervals: frames are drawn with replacement, no pixel is looked at again.

The percentile bootstrap over frames (Efron & Tibshirani 1993, ch. 13): a resample is a list of weights, how often
each frame was drawn. All resamples walk along their curves together, a block of thresholds at a time.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Integer

from xenomask.metrics.counters import BINS, FrameCounters
from xenomask.metrics.kernels import advance
from xenomask.metrics.official import FrameBins

BLOCK = 512  # thresholds at a time: 1000 frames and resamples take 20 MB, and larger blocks are no faster
LEVEL = 0.95
CURVE_NUMBERS = ("aupr_sum", "aupr_trapz", "auroc", "fpr95", "best_f1")


@dataclass(frozen=True)
class Steps:
    """One frame's part of a pooled curve: at which of the common thresholds (rising) how many pixels lie."""

    at: Integer[np.ndarray, "n"]
    tp: Integer[np.ndarray, "n"]
    fp: Integer[np.ndarray, "n"]


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


def curve_numbers(
    frames: Sequence[Steps], thresholds: int, weights: Float64[np.ndarray, "r f"], threads: int = 2
) -> dict[str, Float64[np.ndarray, "r"]]:
    """AUPR-sum, AUPR-trapz, AUROC, FPR95 and best F1 of each resample; nan where it drew one kind of pixel only.

    Takes time O(resamples x frames x thresholds) of matrix products, memory of one block and the steps.
    """
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


def interval(values: Float64[np.ndarray, "r"]) -> tuple[float, float]:
    """The central 95 % of the resamples that have the number; (nan, nan) where none has."""
    usable = values[~np.isnan(values)]
    if not len(usable):
        return float("nan"), float("nan")
    low, high = np.quantile(usable, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)
