"""cv2's and torchvision's resizing of uint8 photos as a graph: the same numbers, bit by bit."""

import numpy as np
import torch
from torch import Tensor, nn

from xenomask.masks import area_taps
from xenomask.shapes import Float, Float32
from xenomask.types import Size

BITS = 11  # of cv2's fixed-point weights (INTER_RESIZE_COEF_BITS)


class Resize(nn.Module):
    """uint8 values as float32 (H, W, C) -> the same at another size, as cv2.resize with INTER_LINEAR or INTER_AREA.

    All values are whole numbers below 2^24, so float32 computes them exactly, in every runtime.
    """

    def __init__(self, size: Size, target: Size, area: bool):
        super().__init__()
        self.same, self.area = size == target, area
        self.halves = area and size == (2 * target[0], 2 * target[1])
        if self.same:
            return
        if self.halves:
            ys, xs = ([(np.arange(t) * 2 + i, np.ones(t)) for i in (0, 1)] for t in target)
        elif area:
            ys, xs = (area_taps(n, m) for n, m in zip(size, target, strict=True))
        else:
            ys, xs = (linear_taps(n, m, i == 1) for i, (n, m) in enumerate(zip(size, target, strict=True)))
        self.counts = len(ys), len(xs)
        for axis, taps in (("y", ys), ("x", xs)):
            for i, (index, weight) in enumerate(taps):
                self.register_buffer(f"{axis}{i}", torch.from_numpy(np.asarray(index, np.int64)))
                self.register_buffer(f"{axis}w{i}", torch.from_numpy(np.asarray(weight, np.float32))[:, None])

    def forward(self, x: Float32[Tensor, "H W C"]) -> Float32[Tensor, "h w C"]:
        """The resized photo, still whole numbers in 0..255."""
        if self.same:
            return x
        wide = self._sum(x, "x", 1)
        if self.halves:
            return torch.floor((self._sum(wide, "y", 0) + 2) / 4)
        if self.area:
            return torch.round(self._sum(wide, "y", 0))
        # cv2: ((wide >> 4) * weight >> 16 of both rows + 2) >> 2, the products in two halves of 8 bits
        wide = torch.floor(wide / 16)
        total = torch.full((), 2.0)
        for i in range(2):
            row, weight = wide.index_select(0, self.get_buffer(f"y{i}")), self.get_buffer(f"yw{i}")[:, None]
            high = torch.floor(row / 256)
            low = row - 256 * high
            total = total + torch.floor((high * weight + torch.floor(low * weight / 256)) / 256)
        return torch.floor(total / 4).clamp(0, 255)

    def _sum(self, x: Float[Tensor, "a b C"], axis: str, dim: int) -> Float[Tensor, "c d C"]:
        """The weighted sum of the taps, in cv2's order."""
        total = None
        for i in range(self.counts[dim]):
            weight = self.get_buffer(f"{axis}w{i}")
            part = x.index_select(dim, self.get_buffer(f"{axis}{i}")) * (weight if dim == 1 else weight[:, None])
            if self.area:  # changes none, but keeps OpenVINO from one rounding for both product and sum, unlike cv2
                part = part.relu()
            total = part if total is None else total + part
        assert total is not None
        return total


class Smooth(nn.Module):
    """uint8 values as float32 (H, W, C) -> the same at another size, as torchvision resizes for transformers.

    NOTE: as it does on CPUs with AVX2, in whole numbers; without, it computes in float32, where a level may differ.
    """

    # Weights are whole numbers of 2^-bits. A sum of their products with 0..255 is more than float32 can hold, so it is
    # made of two: of the weights' multiples of 256, and of what is left of them.

    def __init__(self, size: Size, target: Size, how: str):
        super().__init__()
        self.bits: dict[str, int] = {}
        for axis, n, m in zip("yx", size, target, strict=True):
            if n == m:
                continue
            index, weights = near_taps(n, m) if how == "nearest" else smooth_taps(n, m, how == "bicubic")
            whole, self.bits[axis] = whole_weights(weights)
            self.register_buffer(f"{axis}", torch.from_numpy(index))
            self.register_buffer(f"{axis}high", torch.from_numpy(np.floor(whole / 256).astype(np.float32))[..., None])
            self.register_buffer(f"{axis}low", torch.from_numpy((whole % 256).astype(np.float32))[..., None])

    def forward(self, x: Float32[Tensor, "H W C"]) -> Float32[Tensor, "h w C"]:
        """The resized photo, still whole numbers in 0..255."""
        return self._along("y", self._along("x", x.transpose(0, 1)).transpose(0, 1))

    def _along(self, axis: str, x: Tensor) -> Tensor:
        if axis not in self.bits:
            return x
        index, bits = self.get_buffer(axis), self.bits[axis]
        high = low = torch.zeros(())
        for k in range(len(index)):
            row = x.index_select(0, index[k])
            high = high + row * self.get_buffer(f"{axis}high")[k][:, None]
            low = low + row * self.get_buffer(f"{axis}low")[k][:, None]
        # (256 high + low + half) >> bits
        half = 2.0 ** (bits - 9)
        return torch.floor((high + torch.floor(low / 256) + half) / 2.0 ** (bits - 8)).clamp(0, 255)


def near_taps(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The one source pixel of each of m target pixels (1, m), as PyTorch's "nearest-exact" has it, and its weight 1.

    >>> near_taps(6, 3)[0].tolist()
    [[1, 3, 5]]
    """
    found = nn.functional.interpolate(torch.arange(n, dtype=torch.float32)[None, None], size=m, mode="nearest-exact")
    return found[0].numpy().astype(np.int64), np.ones((1, m))


def smooth_taps(n: int, m: int, cubic: bool) -> tuple[np.ndarray, np.ndarray]:
    """The source pixels (t, m) of each of m target pixels and their weights, as in PyTorch's antialiased resizing.

    >>> [x.tolist() for x in smooth_taps(2, 1, False)]
    [[[0], [1]], [[0.5], [0.5]]]
    """
    scale = n / m
    reach = (2 if cubic else 1) * max(scale, 1.0)
    centre = (np.arange(m) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + reach + 0.5).astype(np.int64), n) - first
    k = np.arange(count.max())[:, None]
    at = np.abs((k + first - centre + 0.5) / max(scale, 1.0))
    if cubic:  # Catmull and Rom's
        near, far = (1.5 * at - 2.5) * at * at + 1, ((-0.5 * at + 2.5) * at - 4) * at + 2
        weights = np.where(at < 1, near, np.where(at < 2, far, 0))
    else:
        weights = np.maximum(1 - at, 0)
    weights = np.where(k < count, weights, 0)
    return (k + first).clip(0, n - 1), weights / weights.sum(0)


def whole_weights(weights: np.ndarray) -> tuple[np.ndarray, int]:
    """The weights in whole numbers of 2^-bits, and the bits: as many as let the largest fit into 16, at most 22."""
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    return np.trunc(weights * (1 << bits) + np.where(weights < 0, -0.5, 0.5)), bits


def linear_taps(n: int, m: int, columns: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two source pixels of each of m target pixels and their weights in 1/2048, as cv2 rounds them.

    At the border a column's weight goes to the one pixel that is there, a row's pixel stands in for the missing one.

    >>> [(i.tolist(), w.tolist()) for i, w in linear_taps(2, 3, True)]
    [([0, 0, 1], [2048.0, 1024.0, 2048.0]), ([1, 1, 1], [0.0, 1024.0, 0.0])]
    """
    x = ((np.arange(m) + 0.5) * (n / m) - 0.5).astype(np.float32)
    low = np.floor(x).astype(np.int64)
    part = x - low.astype(np.float32)
    if columns:
        outside = (low < 0) | (low >= n - 1)
        part[outside] = 0
        low = low.clip(0, n - 1)
    one = np.float32(1 << BITS)
    weights = np.rint((np.float32(1) - part) * one), np.rint(part * one)
    return [(low.clip(0, n - 1), weights[0]), ((low + 1).clip(0, n - 1), weights[1])]
