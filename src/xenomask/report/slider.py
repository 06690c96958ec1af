"""Exact curve -> the thresholds of a report's slider; map -> the small picture of levels that the slider works on."""

import io
from collections.abc import Mapping

import cv2
import numpy as np
from PIL import Image

from xenomask.arrays import ImageLike, MapLike, as_image, as_single
from xenomask.metrics.curve_bands import landmarks
from xenomask.metrics.curves import Curve
from xenomask.plots import coloured
from xenomask.plots.heatmap import opacity
from xenomask.report import Levels
from xenomask.shapes import UInt8
from xenomask.types import Size

STEPS = 80
MOST = 255  # levels are stored in 8 bits


def slider_levels(c: Curve, scale: tuple[float, float], points: Mapping[str, float]) -> Levels:
    """At most 255 thresholds of the curve: equal steps of recall, of FPR and of score, and the named ones.

    All are scores of the curve, so that the numbers at each are exact. A named threshold that is no score becomes the
    next larger one that is, which marks the same pixels; one above the largest score is left out.
    """
    rising = c.threshold[::-1]
    last = len(rising) - 1
    named = {k: int(np.searchsorted(rising, t)) for k, t in points.items() if t <= rising[-1]}
    even = np.searchsorted(rising, np.linspace(rising[0], rising[-1], STEPS + 1)).clip(0, last)
    used = np.unique(np.concatenate([last - landmarks(c, STEPS), even, list(named.values())]).astype(np.int64))
    assert len(used) <= MOST
    own = last - used
    # each level's colour is that of the middle of its scores
    ends = np.concatenate([[scale[0]], rising[used], [max(scale[1], rising[-1])]])
    middle = ((ends[:-1] + ends[1:]) / 2).astype(np.float32)
    return Levels(
        rising[used], c.recall[own], c.fpr[own], c.precision[own], c.f1[own], coloured(middle[None], scale)[0],
        opacity(middle, scale).astype(np.float64),
        {k: int(np.searchsorted(used, i)) for k, i in named.items()},
    )  # fmt: skip


def level_map(value: MapLike, levels: Levels, size: Size) -> UInt8[np.ndarray, "_ _"]:
    """How many of the thresholds are at most each pixel's score, of the map (H, W) reduced to `size` by area means.

    Raises XenomaskError for what is no finite map.
    """
    small = as_single(value)
    if small.shape != size:
        small = cv2.resize(small, size[::-1], interpolation=cv2.INTER_AREA)
    return np.searchsorted(levels.threshold, small, side="right").astype(np.uint8)


def png(picture: UInt8[np.ndarray, "..."]) -> bytes:
    """A picture's PNG file, one channel or RGB."""
    with io.BytesIO() as out:
        Image.fromarray(picture).save(out, format="PNG", optimize=True)
        return out.getvalue()


def jpeg(picture: ImageLike, quality: int = 80) -> bytes:
    """A picture's (H, W, 3) JPEG file; XenomaskError for what is none."""
    with io.BytesIO() as out:
        Image.fromarray(as_image(picture)).save(out, format="JPEG", quality=quality)
        return out.getvalue()
