"""Maps of a video's frames -> steadier maps: an exponential mean over time, carried along by optical flow."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from xenomask.arrays import ImageLike, MapLike, as_image, as_single, check_same_size
from xenomask.errors import XenomaskError
from xenomask.shapes import Float32, UInt8

Smooth = Literal["none", "ema", "flow"]
FLOW_SIDE = 480  # the long side at which flow is sought: a seventh of the pixels of 1280x720
SMALLEST = 16  # the short side below which DIS finds no patches


@dataclass(frozen=True)
class Held:
    """What is shown of one frame and carried to the next: the map, and (for flow) the small grey frame."""

    value: Float32[np.ndarray, "H W"]
    grey: UInt8[np.ndarray, "h w"] | None = None


def follow(
    held: Held | None,
    image: ImageLike,
    found: MapLike | None,
    how: Smooth = "none",
    alpha: float = 0.5,
) -> Held:
    """The map to show for `image`: `found` is the detector's map of it, None where it was not run.

    ema: alpha * found + (1 - alpha) * held; flow: the same with held first moved as the picture moved (dense DIS flow,
    Kroeger et al., ECCV 2016), but `found` alone where that comes from outside the picture. Between looks the last map
    is held; with flow it moves along. The first frame must have been processed. Raises XenomaskError where it
    was not, for what is no photo (H, W, 3) or no finite map (H, W), and for sizes that differ.
    """
    image = as_image(image)
    if found is not None:
        found = as_single(found)
        check_same_size("map", found, "frame", image)
    if held is not None:
        check_same_size("map held", held.value, "frame", image)
    elif found is None:
        raise XenomaskError("the first frame of a video must be looked at: there is no map to hold")
    grey = _small_grey(image) if how == "flow" else None
    if held is None:
        assert found is not None
        return Held(found, grey)
    if how == "none":
        return Held(held.value if found is None else found)
    if how == "ema":
        return held if found is None else Held(_mean(found, held.value, alpha))
    assert grey is not None and held.grey is not None
    carried, inside = _carry(held.value, _flow(grey, held.grey))
    if found is None:
        return Held(carried, grey)
    return Held(np.where(inside, _mean(found, carried, alpha), found), grey)


def _mean(new: np.ndarray, old: np.ndarray, alpha: float) -> np.ndarray:
    return cv2.addWeighted(new, alpha, old, 1 - alpha, 0)


def _small_grey(image: np.ndarray) -> np.ndarray:
    h, w = image.shape[:2]
    scale = min(1.0, FLOW_SIDE / max(h, w))
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    return cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


def _flow(now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Where each pixel of `now` was in `before`: (h, w, 2) offsets x, y in pixels; zeros for very small pictures."""
    if min(now.shape) < SMALLEST:
        return np.zeros((*now.shape, 2), np.float32)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    return dis.calc(now, before, np.zeros((*now.shape, 2), np.float32))


def _carry(value: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The map moved along, and where what is shown comes from inside the picture."""
    (h, w), (small_h, small_w) = value.shape, flow.shape[:2]
    offsets = cv2.resize(flow, (w, h), interpolation=cv2.INTER_LINEAR)
    # a pixel of the flow: what it measures is no finer, and a border must not count as outside for a trace of motion
    edge_x, edge_y = w / small_w, h / small_h
    x = offsets[..., 0] * edge_x + np.arange(w, dtype=np.float32)
    y = offsets[..., 1] * edge_y + np.arange(h, dtype=np.float32)[:, None]
    inside = (x >= -edge_x) & (x <= w - 1 + edge_x) & (y >= -edge_y) & (y <= h - 1 + edge_y)
    return cv2.remap(value, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), inside
