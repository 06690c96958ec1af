"""Map + label -> counters: how many anomalous and how many inlier pixels hold each float16 value.

A stored map has at most 63,488 finite values, so counts by value lose nothing: every pixel metric computed
from them is exact, in constant memory, whatever the order of frames, and counters of parts add up.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Int64, UInt8, UInt16

from xenomask.errors import XenomaskError
from xenomask.types import VOID

BINS = 1 << 16


@dataclass(frozen=True)
class Counters:
    """Pixels by ordered float16 key; `merge` joins those of two sets of frames."""

    positive: Int64[np.ndarray, "65536"]
    negative: Int64[np.ndarray, "65536"]

    def merge(self, other: "Counters") -> "Counters":
        """The counters of both together."""
        return Counters(self.positive + other.positive, self.negative + other.negative)


def empty() -> Counters:
    """No pixels."""
    return Counters(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))


def keys(value: Float16[np.ndarray, "..."]) -> UInt16[np.ndarray, "..."]:
    """float16 -> uint16 in the same order, -0 and +0 alike.

    The bits of positive floats grow with the value and those of negative ones against it: flip the sign bit of
    the former and all bits of the latter.

    >>> keys(np.array([-np.inf, -1, -0.0, 0.0, 6e-8, 1], np.float16)).tolist()
    [1023, 17407, 32768, 32768, 32769, 48128]
    """
    bits = (value + np.float16(0)).view(np.uint16)  # -0 + 0 is +0
    return np.where(bits & 0x8000, ~bits, bits | np.uint16(0x8000))


def values(key: UInt16[np.ndarray, "n"]) -> Float16[np.ndarray, "n"]:
    """The inverse of `keys`."""
    return np.where(key & 0x8000, key & 0x7FFF, ~key).astype(np.uint16).view(np.float16)


def count(value: Float16[np.ndarray, "H W"], label: UInt8[np.ndarray, "_ _"]) -> Counters:
    """Counts one frame; void (255) is left out. Raises XenomaskError for other sizes or labels."""
    if value.shape != label.shape:
        raise XenomaskError(f"map is {value.shape[1]}x{value.shape[0]}, its label {label.shape[1]}x{label.shape[0]}")
    if not np.isfinite(value).all():
        raise XenomaskError("map holds NaN or infinity")
    if ((label > 1) & (label != VOID)).any():
        raise XenomaskError("label holds values other than 0 inlier, 1 anomaly, 255 void")
    key = keys(value)
    positive = np.bincount(key[label == 1], minlength=BINS)
    negative = np.bincount(key[label == 0], minlength=BINS)
    return Counters(positive, negative)
