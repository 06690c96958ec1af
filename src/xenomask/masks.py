"""A network's output for one image, at that image's size: the one place where masks and class maps are resized."""

import itertools
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xenomask.arrays import Tensor, TensorLike, as_array, is_tensor
from xenomask.errors import XenomaskError
from xenomask.shapes import Float
from xenomask.types import Size

# Rows of the output computed at a time: 100 queries x 64 rows x 2048 pixels of float32 are 52 MB.
BLOCK_PIXELS = 64 * 2048


DAMAGED = (
    "the network's logits hold NaN, or infinity among a query's classes: its weights are damaged, or its precision is "
    "too low"
)


@dataclass(frozen=True)
class MaskOutput:
    """A mask transformer's output for one image; class index N - 1 is "no object".

    `mask_logits` cover `padded_size`, the network's whole input, of which only the top left `input_size`
    shows the image: the rest is cut off before anything is resized. `outlier_class`: whether the class before
    "no object" stands for outliers (UNO), so that K = N - 2 classes are known. `mirrored`: the network saw the image's
    mirror image, so that the mask logits' columns count from the image's right edge. Logits are tensors, or
    float32 arrays as a runtime without torch gives them. Raises XenomaskError for logits of other shapes, and for sizes
    that do not hold each other.
    """

    class_logits: Float[Tensor, "q n"]
    mask_logits: Float[Tensor, "q h w"]
    padded_size: Size
    input_size: Size
    image_size: Size
    outlier_class: bool = False
    mirrored: bool = False

    def __post_init__(self):
        object.__setattr__(self, "class_logits", _held(self.class_logits, 2, "class logits (Q, N)"))
        object.__setattr__(self, "mask_logits", _held(self.mask_logits, 3, "mask logits (Q, h, w)"))
        (q, n), found = self.class_logits.shape, self.mask_logits.shape
        if q != found[0] or n < 2 + self.outlier_class:
            raise XenomaskError(
                f"class logits {(q, n)} and mask logits {tuple(found)} do not belong together: both have a row a "
                "query, and the former a column for each class and one for no object"
            )
        _check_sizes(self)


@dataclass(frozen=True)
class PixelOutput:
    """The output of a per-pixel network (SegFormer, UPerNet) for one image: a logit a class and pixel, no queries.

    The sizes and `mirrored` are those of a MaskOutput, and so are the errors.
    """

    class_map_logits: Float[Tensor, "k h w"]
    padded_size: Size
    input_size: Size
    image_size: Size
    mirrored: bool = False

    def __post_init__(self):
        object.__setattr__(self, "class_map_logits", _held(self.class_map_logits, 3, "class logits (K, h, w)"))
        _check_sizes(self)


def class_count(output: MaskOutput | PixelOutput) -> int:
    """K, the number of the network's inlier classes."""
    if isinstance(output, PixelOutput):
        return len(output.class_map_logits)
    return output.class_logits.shape[1] - 1 - output.outlier_class


def as_logits(x: TensorLike, ndim: int, what: str) -> Tensor:
    """Logits as a tensor of floats: what is one is handed on as it is, other arrays of real numbers are converted.

    Raises XenomaskError for another number of axes, none at all, and complex numbers.
    """
    if not is_tensor(x):
        import torch

        x = torch.from_numpy(np.array(as_array(x, what), np.float32, order="C"))
    if x.is_complex() or x.ndim != ndim or not x.numel():
        raise XenomaskError(f"{what}: {x.dtype} {tuple(x.shape)}")
    return x if x.is_floating_point() else x.float()


def _held(x: TensorLike, ndim: int, what: str) -> Any:
    """`as_logits`, but an array that fits stays an array."""
    fits = isinstance(x, np.ndarray) and x.dtype == np.float32 and x.ndim == ndim and x.size > 0
    return x if fits else as_logits(x, ndim, what)


def in_torch(output: Any) -> Any:
    """The MaskOutput or PixelOutput with its logits as tensors."""
    names = ("class_map_logits",) if isinstance(output, PixelOutput) else ("class_logits", "mask_logits")
    found = {n: getattr(output, n) for n in names}
    made = {n: as_logits(x, x.ndim, n) for n, x in found.items() if isinstance(x, np.ndarray)}
    return replace(output, **made) if made else output


def in_arrays(output: MaskOutput) -> MaskOutput:
    """The MaskOutput with its logits as float32 arrays."""
    made = {n: as_array(getattr(output, n), n).astype(np.float32) for n in ("class_logits", "mask_logits")}
    return replace(output, **made)


def _check_sizes(output: "MaskOutput | PixelOutput") -> None:
    """Makes the sizes plain numbers; XenomaskError for what cannot be."""
    names = ("padded_size", "input_size", "image_size")
    sizes = [tuple(getattr(output, name)) for name in names]
    if any(type(n).__name__ == "SymInt" for size in sizes for n in size):  # a graph for photos of any size is traced
        return
    try:
        (ph, pw), (uh, uw), (H, W) = sizes = [tuple(map(operator.index, size)) for size in sizes]
    except (TypeError, ValueError):
        raise XenomaskError(f"sizes {sizes} are no whole numbers (height, width)") from None
    for name, size in zip(names, sizes, strict=True):  # NumPy's small numbers overflow
        object.__setattr__(output, name, size)
    if not (0 < uh <= ph and 0 < uw <= pw and 0 < H and 0 < W):
        raise XenomaskError(f"input {(uh, uw)} of padded {(ph, pw)} for a photo of {(H, W)}: sizes that cannot be")


def refuse_nan(x: TensorLike) -> None:
    """Raises XenomaskError where a network's numbers hold NaN.

    A maximum of NaN would be the other number: a damaged network would give a clean map.
    """
    if math.prod(x.shape) and math.isnan(float(x.max())):
        raise XenomaskError(DAMAGED)


def with_queries(output: MaskOutput | PixelOutput) -> MaskOutput:
    """The output as it is; raises XenomaskError where it is a per-pixel network's."""
    if isinstance(output, PixelOutput):
        raise XenomaskError(
            "this network has no queries: it classifies pixels. Query analyses are for mask transformers "
            "(Mask2Former, MaskFormer, OneFormer, EoMT); the scores that read classes alone need none"
        )
    return in_torch(output)


def library(x: Any) -> Any:
    """torch of a tensor, else numpy: both have amax, argmax, where, maximum and concatenate, with one meaning."""
    if not is_tensor(x):
        return np
    import torch

    return torch


def class_probabilities(output: MaskOutput) -> Float[Tensor, "q k1"]:
    """P_q(c), the softmax over all N entries, "no object" included (Cheng et al. 2022, eq. 1).

    The first K columns are inlier classes, the last is the rest: "no object", and the outlier class where there is one.
    """
    p = _softmax(output.class_logits)
    if not output.outlier_class:
        return p
    rest = p[:, -2:-1] + p[:, -1:]
    return library(p).concatenate([p[:, :-2], rest], 1)


def outlier_probabilities(output: MaskOutput) -> Float[Tensor, " q"]:
    """P_q(outlier) of the softmax over all N entries; raises XenomaskError for a network without an outlier class."""
    if not output.outlier_class:
        raise XenomaskError(
            "score uno reads a class for outliers, and this network has none: fine-tune it with exposure.loss = "
            '"uno", or choose a score of the known classes (rba, eam, max_logit, maskomaly)'
        )
    return _softmax(output.class_logits)[:, -2]


def _softmax(logits: Any) -> Any:
    """Over the last axis, in float32, of a tensor or an array."""
    if is_tensor(logits):
        return logits.float().softmax(-1)
    with np.errstate(invalid="ignore"):  # of infinite logits, NaN, as torch has it: refused later
        e = np.exp(logits - logits.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)


def source(size: int, cells: int, padded: int, used: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each of `size` output pixels reads on an axis of `cells` mask pixels: indices and fraction.

    Pixel centres are aligned (align_corners=False); of the axis only `used / padded` shows the image, and
    cells that lie wholly in the padding are never read.
    """
    scale = used / padded * cells / size
    last = -(-used * cells // padded) - 1
    x = ((np.arange(size) + 0.5) * scale - 0.5).clip(0, last)
    low = np.floor(x).astype(np.int64)
    return low, (low + 1).clip(max=last), (x - low).astype(np.float32)


def row_groups(r0: np.ndarray, r1: np.ndarray, most: int) -> np.ndarray:
    """(G, 4): runs of at most `most` image rows that read the same two mask rows: from, to, and the two.

    >>> row_groups(np.array([0, 0, 0, 1]), np.array([1, 1, 1, 1]), 2).tolist()
    [[0, 2, 0, 1], [2, 3, 0, 1], [3, 4, 1, 1]]
    """
    new = np.flatnonzero(np.diff(r0, prepend=-1) | np.diff(r1, prepend=-1))
    edges = [y for a, b in itertools.pairwise([*new, len(r0)]) for y in range(a, b, most)]
    return np.array([(a, b, r0[a], r1[a]) for a, b in itertools.pairwise([*edges, len(r0)])], np.int64)


def _source(size: int, cells: int, padded: int, used: int, device: Any) -> tuple[Tensor, ...]:
    """The same as tensors. From numpy, and so constants of a traced graph: OpenVINO (2026.4.1) compiles a
    float64 `arange` that is shifted, scaled and shifted again without end."""
    import torch

    return tuple(torch.tensor(part, device=device) for part in source(size, cells, padded, used))


def bounded(logits: Tensor) -> Tensor:
    """Infinite logits mean certainty; between two of them, interpolation would give NaN. So +-1e30 at most."""
    return logits.clamp(-1e30, 1e30)


def _band(rows: slice, size: int, cells: int, padded: int, used: int) -> tuple[int, int]:
    """The mask rows (from, to) that `_source` reads for these rows; plain numbers, so that a graph can be traced."""
    scale = used / padded * cells / size
    last = -(-used * cells // padded) - 1
    first, final = (int(min(max((i + 0.5) * scale - 0.5, 0), last)) for i in (rows.start, rows.stop - 1))
    return first, min(final + 1, last) + 1


def resized_logits(output: MaskOutput | PixelOutput, rows: slice | None = None) -> Float[Tensor, "c r W"]:
    """Mask logits, or a per-pixel network's class logits, of the given image rows: padding cut off, then bilinear.

    Equals torch's `interpolate(..., align_corners=False)` of the cut mask wherever the cut falls between
    two mask pixels, and its limit where it falls inside one.
    """
    import torch

    output = in_torch(output)
    (H, W), (ph, pw), (uh, uw) = output.image_size, output.padded_size, output.input_size
    logits = output.class_map_logits if isinstance(output, PixelOutput) else output.mask_logits
    logits = bounded(logits.float())
    _, h, w = logits.shape
    y0, y1, fy = (t[rows or slice(None)] for t in _source(H, h, ph, uh, logits.device))
    x0, x1, fx = _source(W, w, pw, uw, logits.device)
    if output.mirrored:
        # the columns that are read, not the logits, are turned round: the padding lies at the network's right
        x0, x1, fx = x0.flip(0), x1.flip(0), fx.flip(0)
    # Columns first: only the few mask rows that this block touches.
    top, bottom = (0, h) if rows is None else _band(rows, H, h, ph, uh)
    band = logits[:, top:bottom]
    band = torch.lerp(band[:, :, x0], band[:, :, x1], fx)
    return torch.lerp(band[:, y0 - top], band[:, y1 - top], fy[:, None])


def soft_masks(output: MaskOutput, rows: slice | None = None) -> Float[Tensor, "q r W"]:
    """m_q(x) in [0, 1] at the image's size: logits bilinearly, *then* the sigmoid."""
    return resized_logits(output, rows).sigmoid_()


def row_blocks(output: MaskOutput | PixelOutput) -> Iterator[slice]:
    """Slices of image rows whose masks fit comfortably into memory."""
    H, W = output.image_size
    step = max(1, BLOCK_PIXELS // W)
    for start in range(0, H, step):
        yield slice(start, min(start + step, H))


def semantic(p: Float[Tensor, "q n"], m: Float[Tensor, "q r W"]) -> Float[Tensor, "k r W"]:
    """L_k(x) = sum_q P_q(k) m_q(x), k < K: Mask2Former's semantic "logits" (in [0, Q], not logits at all)."""
    import torch

    return torch.einsum("qk,qrw->krw", p[:, :-1], m)


def area_taps(n: int, m: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The source pixels that each of m <= n target pixels covers, in order, and the shares that they have in it.

    As cv2.resize has them with INTER_AREA.

    >>> [(i.tolist(), (3 * s).round().tolist()) for i, s in area_taps(3, 2)]
    [([0, 1], [2.0, 1.0]), ([1, 2], [1.0, 2.0])]
    """
    scale = n / m
    found: list[list[tuple[int, float]]] = []
    for i in range(m):
        start, end = i * scale, i * scale + scale
        width = min(scale, n - start)
        last = min(int(np.floor(end)), n - 1)
        first = min(int(np.ceil(start)), last)
        taps = [(first - 1, (first - start) / width)] if first - start > 1e-3 else []
        taps += [(s, 1 / width) for s in range(first, last)]
        if end - last > 1e-3:
            taps.append((last, min(end - last, 1.0, width) / width))
        found.append(taps)
    most = max(len(t) for t in found)
    padded = np.array([t + [(0, 0.0)] * (most - len(t)) for t in found])
    return [(padded[:, i, 0].astype(np.int64), padded[:, i, 1].astype(np.float32)) for i in range(most)]
