"""Regions take one level: what the network calls a vehicle, its own masks, or segments that were given."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from xenomask.arrays import NumbersLike, as_array, check_same_size
from xenomask.errors import XenomaskError
from xenomask.masks import library
from xenomask.refine.cells import class_cells, moved, soft_cells, to_cells
from xenomask.refine.definition import Refinement, Seen, register
from xenomask.shapes import Float, Float32, Int32, UInt8

# of Cityscapes; of Mapillary Vistas and IDD what is called otherwise there
VEHICLES = ("car", "truck", "bus", "train", "trailer", "caravan", "on rails", "other vehicle", "autorickshaw")
STEP = 24  # pixels between superpixels' centres


def vehicles(value: Float[Any, "H W"], seen: Seen, *, quantile: float = 0.75, blend: float = 1.0) -> Any:
    """Raise each connected region of a vehicle class, argmax_k L_k, to its own `quantile` of s; nothing is lowered.

    A vehicle is one object: where a quarter of it looks anomalous, so is the rest. Large anomalies that are built like
    vehicles are taken for one in part; roads and buildings are left alone, as small obstacles stand before them. Our
    own. Raises XenomaskError for a network without a vehicle class.
    """
    known = [k for k, name in enumerate(seen.names) if name.lower() in VEHICLES]
    if not known:
        raise XenomaskError(f"refinement vehicles: none of the network's classes is one of {', '.join(VEHICLES)}")
    s = to_cells(value, seen.output)
    classes: Any = class_cells(seen.output).argmax(0)
    if isinstance(s, np.ndarray):
        level, ids = s.copy(), class_regions(classes, known)
        level[ids > 0] = quantiles(s[ids > 0], ids[ids > 0], quantile)
    else:
        from xenomask.refine.traced import region_quantiles  # torch

        level = region_quantiles(s, classes, known, quantile)
    return moved(value, blend * (library(s).maximum(level, s) - s), seen.output)


def class_regions(classes: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    """The connected regions (4-connected) of each wanted class in (H, W), numbered from 1; 0 elsewhere.

    >>> class_regions(np.array([[3, 3, 0, 3], [5, 0, 5, 0]]), [3, 5]).tolist()
    [[1, 1, 0, 2], [3, 0, 4, 0]]
    """
    found = np.zeros(classes.shape, np.int32)
    for k in wanted:
        count, own = cv2.connectedComponents((classes == k).astype(np.uint8), connectivity=4)
        found[own > 0] = own[own > 0] + found.max()
    return found


def masks(value: Float32[np.ndarray, "H W"], seen: Seen, *, blend: float = 0.3, trim: float = 0.1) -> np.ndarray:
    """Blend s towards the trimmed mean of each of the network's own masks {m_q > .5}.

    As Objectomaly and RAAS do with SAM's. NOTE: where masks overlap the smallest decides: Objectomaly averages them in
    ascending order of area, so that the largest has the last word.
    """
    s = to_cells(value, seen.output)
    level = s.copy()
    for m in sorted(soft_cells(seen.output) > 0.5, key=lambda m: -m.sum()):
        if m.any():
            level[m] = trimmed_means(s[m][None], np.zeros((1, int(m.sum())), int), trim)[0]
    return moved(value, blend * (level - s), seen.output)


def segments(
    value: Float32[np.ndarray, "H W"], ids: NumbersLike, *, blend: float = 0.6, trim: float = 0.1
) -> np.ndarray:
    """Blend s towards each segment's trimmed mean: without its `trim` lowest and highest share; 0 is no segment.

    `ids` (H, W) are whole numbers, such as those of superpixels or of SAM's masks, one a pixel. Raises XenomaskError
    for other sizes and for what are no whole numbers.
    """
    ids = as_array(ids, "segments")
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise XenomaskError(f"the segments are {ids.dtype} {ids.shape}, not whole numbers (H, W)")
    check_same_size("map", value, "segments", ids)
    return np.where(ids == 0, value, value + blend * (trimmed_means(value, ids, trim) - value))


def superpixels(image: UInt8[np.ndarray, "H W 3"]) -> Int32[np.ndarray, "H W"]:
    """A photo's superpixels, numbered from 1; 0 on the lines between them.

    Watershed of the photo at half size from a grid of markers every STEP pixels ("waterpixels", Machairas et al. 2015).
    """
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    marks = np.zeros(small.shape[:2], np.int32)
    grid = marks[STEP // 4 :: STEP // 2, STEP // 4 :: STEP // 2]
    grid[:] = np.arange(1, grid.size + 1).reshape(grid.shape)
    ids = cv2.watershed(small, marks).clip(0)
    return cv2.resize(ids.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_NEAREST).astype(np.int32)


def quantiles(value: np.ndarray, ids: np.ndarray, quantile: float) -> np.ndarray:
    """For each pixel the value of its region at place floor(quantile (n - 1)) of the region's n, in rising order.

    >>> quantiles(np.array([[1.0, 5, 3, 9]]), np.array([[7, 7, 7, 2]]), 0.5).tolist()
    [[3.0, 3.0, 3.0, 9.0]]
    """
    rising, inverse, start, size = _grouped(value, ids)
    return rising[start + (quantile * (size - 1)).astype(int)][inverse]


def trimmed_means(value: np.ndarray, ids: np.ndarray, trim: float) -> np.ndarray:
    """For each pixel the mean of its region without the floor(trim n) lowest and highest of the region's n.

    >>> trimmed_means(np.array([[1.0, 5, 3, 9, 100]]), np.array([[7, 7, 7, 7, 2]]), 0.25).tolist()
    [[4.0, 4.0, 4.0, 4.0, 100.0]]
    """
    rising, inverse, start, size = _grouped(value, ids)
    sums, cut = np.concatenate([[0], rising.cumsum(dtype=np.float64)]), (trim * size).astype(int)
    return ((sums[start + size - cut] - sums[start + cut]) / (size - 2 * cut))[inverse].astype(value.dtype)


def _grouped(value: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, ...]:
    """Values in rising order within each region, each pixel's region, and each region's first place and size."""
    _, inverse, size = np.unique(ids, return_inverse=True, return_counts=True)
    rising = value.ravel()[np.lexsort((value.ravel(), inverse.ravel()))]
    return rising, inverse.reshape(ids.shape), size.cumsum() - size, size


SHARE, TRIM = (0.0, 1.0), (0.0, 0.49)
register(Refinement("vehicles", "max(s, the upper quartile of s in the same region of a vehicle class)", vehicles,
                    "masks", {"quantile": SHARE, "blend": SHARE}, on_tensors=True))  # fmt: skip
register(Refinement("masks", "s + .3 (trimmed mean over the smallest mask {m_q > .5} - s)", masks, "masks",
                    {"blend": SHARE, "trim": TRIM}))  # fmt: skip
register(Refinement("segments", "s + .6 (trimmed mean over the given segment - s)", segments, "segments",
                    {"blend": SHARE, "trim": TRIM}))  # fmt: skip
