"""Map + label -> counters: how many anomalous and how many inlier pixels hold each float16 value.

A stored map has at most 63,488 finite values, so counts by value lose nothing: every pixel metric computed
from them is exact, in constant memory, whatever the order of frames, and counters of parts add up.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from xenomask.arrays import (
    LabelLike,
    MapLike,
    NumbersLike,
    as_counts,
    as_half,
    as_keys,
    as_label,
    as_numbers,
    check_same_length,
    check_same_size,
    foreign_values,
)
from xenomask.errors import XenomaskError
from xenomask.shapes import Float16, Int64, Integer, UInt16
from xenomask.types import VOID

BINS = 1 << 16
# What a label's value counts as: inlier, anomaly, void, anything else.
KIND = np.full(256, 3, np.uint8)
KIND[[0, 1, VOID]] = 0, 1, 2


@dataclass(frozen=True)
class Counters:
    """Pixels by ordered float16 key; `merge` joins those of two sets of frames.

    Raises XenomaskError for arrays that are no 65,536 counts.
    """

    positive: Int64[np.ndarray, "65536"]
    negative: Int64[np.ndarray, "65536"]

    def __post_init__(self):
        for name in ("positive", "negative"):
            counts = as_counts(getattr(self, name), f"counters: {name}").astype(np.int64, copy=False)
            if len(counts) != BINS:
                raise XenomaskError(f"counters: {name}: {len(counts)} counts, not {BINS}, one for each float16 value")
            object.__setattr__(self, name, counts)

    def merge(self, other: "Counters | FrameCounters") -> "Counters":
        """The counters of both together."""
        if isinstance(other, FrameCounters):
            other = other.dense()
        return Counters(self.positive + other.positive, self.negative + other.negative)

    def used(self) -> "FrameCounters":
        """The same as `FrameCounters`."""
        at = np.flatnonzero(self.positive + self.negative)
        return FrameCounters(at.astype(np.uint16), self.positive[at], self.negative[at])


@dataclass(frozen=True)
class FrameCounters:
    """Only the values that occur, in rising order: what is kept of one frame, and what a bootstrap draws from.

    Raises XenomaskError for keys that do not rise, and for negative counts, or not one a key.
    """

    key: UInt16[np.ndarray, "n"]
    positive: Integer[np.ndarray, "n"]  # uint32 from `count`
    negative: Integer[np.ndarray, "n"]

    def __post_init__(self):
        object.__setattr__(self, "key", as_keys(self.key, "counters: key"))
        for name in ("positive", "negative"):
            object.__setattr__(self, name, as_counts(getattr(self, name), f"counters: {name}"))
        check_same_length("counters", key=self.key, positive=self.positive, negative=self.negative)
        if (self.key[1:] <= self.key[:-1]).any():
            raise XenomaskError("counters: keys of float16 values must rise, none twice")

    def dense(self) -> Counters:
        """The same as `Counters`."""
        full = empty()
        full.positive[self.key], full.negative[self.key] = self.positive, self.negative
        return full


def empty() -> Counters:
    """No pixels."""
    return Counters(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))


def pool(frames: Iterable[FrameCounters]) -> Counters:
    """All frames' pixels together."""
    total = empty()
    for f in frames:
        total.positive[f.key] += f.positive
        total.negative[f.key] += f.negative
    return total


def keys(value: NumbersLike) -> UInt16[np.ndarray, "..."]:
    """Real numbers, rounded to float16 -> uint16 in the same order, -0 and +0 alike; XenomaskError for NaN.

    The bits of positive floats grow with the value and those of negative ones against it: flip the sign bit of
    the former and all bits of the latter.

    >>> keys(np.array([-np.inf, -1, -0.0, 0.0, 6e-8, 1], np.float16)).tolist()
    [1023, 17407, 32768, 32768, 32769, 48128]
    """
    with np.errstate(over="ignore"):
        return _keys(as_numbers(value, "scores").astype(np.float16))


def _keys(value: Float16[np.ndarray, "..."]) -> UInt16[np.ndarray, "..."]:
    bits = value.view(np.uint16)
    bits = np.where(bits == 0x8000, np.uint16(0), bits)  # -0 is +0
    return np.where(bits & 0x8000, ~bits, bits | np.uint16(0x8000))


def values(key: NumbersLike) -> Float16[np.ndarray, "n"]:
    """The inverse of `keys`; XenomaskError for what are no keys (n,)."""
    key = as_keys(key, "keys")
    return np.where(key & 0x8000, key & 0x7FFF, ~key).astype(np.uint16).view(np.float16)


_EVERY = np.arange(BINS, dtype=np.uint16)
# The bit pattern of each finite key in rising order; -0 is counted apart and added to +0.
_FINITE = _keys(_EVERY.view(np.float16)).argsort(kind="stable").astype(np.uint16)
_FINITE = _FINITE[np.isfinite(_FINITE.view(np.float16)) & (_FINITE != 0x8000)]
_FINITE_KEYS = _keys(_FINITE.view(np.float16))
_NOT_FINITE = _EVERY[~np.isfinite(_EVERY.view(np.float16))]


def count(value: MapLike, label: LabelLike) -> FrameCounters:
    """Counts one frame's map (H, W), rounded to float16, by its label (H, W) of 0, 1 and 255; void (255) is left out.

    Raises XenomaskError for other sizes or labels, NaN and infinity.
    """
    value, label = as_half(value, check=False), as_label(label)
    check_same_size("map", value, "label", label, "maps are stored at the photo's native size")
    from xenomask.metrics.kernels import histogram  # numba, which `detect` of one photo does without

    by_bits = np.zeros((4, BINS), np.uint32)
    histogram(np.ascontiguousarray(value).view(np.uint16).ravel(), np.ascontiguousarray(label).ravel(), KIND, by_bits)
    if by_bits[:, _NOT_FINITE].any():
        raise XenomaskError("map holds NaN or infinity")
    if by_bits[3].any():
        raise foreign_values(label)
    by_bits[:, 0] += by_bits[:, 0x8000]
    negative, positive = by_bits[0, _FINITE], by_bits[1, _FINITE]
    used = np.flatnonzero(positive | negative)
    return FrameCounters(_FINITE_KEYS[used], positive[used], negative[used])
