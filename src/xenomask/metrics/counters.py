"""Map + label -> counters: how many anomalous and how many inlier pixels hold each float16 value.

A stored map has at most 63,488 finite values, so counts by value lose nothing: every pixel metric computed
from them is exact, in constant memory, whatever the order of frames, and counters of parts add up.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Int64, Integer, UInt8, UInt16

from xenomask.errors import XenomaskError
from xenomask.metrics.kernels import histogram
from xenomask.types import VOID

BINS = 1 << 16
# What a label's value counts as: inlier, anomaly, void, anything else.
KIND = np.full(256, 3, np.uint8)
KIND[[0, 1, VOID]] = 0, 1, 2


@dataclass(frozen=True)
class Counters:
    """Pixels by ordered float16 key; `merge` joins those of two sets of frames."""

    positive: Int64[np.ndarray, "65536"]
    negative: Int64[np.ndarray, "65536"]

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
    """Only the values that occur, in rising order: what is kept of one frame, and what a bootstrap draws from."""

    key: UInt16[np.ndarray, "n"]
    positive: Integer[np.ndarray, "n"]  # uint32 from `count`
    negative: Integer[np.ndarray, "n"]

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


def keys(value: Float16[np.ndarray, "..."]) -> UInt16[np.ndarray, "..."]:
    """float16 -> uint16 in the same order, -0 and +0 alike.

    The bits of positive floats grow with the value and those of negative ones against it: flip the sign bit of
    the former and all bits of the latter.

    >>> keys(np.array([-np.inf, -1, -0.0, 0.0, 6e-8, 1], np.float16)).tolist()
    [1023, 17407, 32768, 32768, 32769, 48128]
    """
    bits = value.view(np.uint16)
    bits = np.where(bits == 0x8000, np.uint16(0), bits)  # -0 is +0
    return np.where(bits & 0x8000, ~bits, bits | np.uint16(0x8000))


def values(key: UInt16[np.ndarray, "n"]) -> Float16[np.ndarray, "n"]:
    """The inverse of `keys`."""
    return np.where(key & 0x8000, key & 0x7FFF, ~key).astype(np.uint16).view(np.float16)


_EVERY = np.arange(BINS, dtype=np.uint16)
# The bit pattern of each finite key in rising order; -0 is counted apart and added to +0.
_FINITE = keys(_EVERY.view(np.float16)).argsort(kind="stable").astype(np.uint16)
_FINITE = _FINITE[np.isfinite(_FINITE.view(np.float16)) & (_FINITE != 0x8000)]
_FINITE_KEYS = keys(_FINITE.view(np.float16))
_NOT_FINITE = _EVERY[~np.isfinite(_EVERY.view(np.float16))]


def count(value: Float16[np.ndarray, "H W"], label: UInt8[np.ndarray, "_ _"]) -> FrameCounters:
    """Counts one frame; void (255) is left out.

    Raises XenomaskError for other sizes or labels, NaN and infinity.
    """
    if value.shape != label.shape:
        raise XenomaskError(
            f"map is {value.shape[1]}x{value.shape[0]}, its label {label.shape[1]}x{label.shape[0]}: maps are stored "
            "at the photo's native size"
        )
    by_bits = np.zeros((4, BINS), np.uint32)
    histogram(np.ascontiguousarray(value).view(np.uint16).ravel(), np.ascontiguousarray(label).ravel(), KIND, by_bits)
    if by_bits[:, _NOT_FINITE].any():
        raise XenomaskError("map holds NaN or infinity")
    if by_bits[3].any():
        found = np.setdiff1d(label, [0, 1, VOID]).tolist()
        raise XenomaskError(f"label holds values other than 0 inlier, 1 anomaly, 255 void: {found[:8]}")
    by_bits[:, 0] += by_bits[:, 0x8000]
    negative, positive = by_bits[0, _FINITE], by_bits[1, _FINITE]
    used = np.flatnonzero(positive | negative)
    return FrameCounters(_FINITE_KEYS[used], positive[used], negative[used])
