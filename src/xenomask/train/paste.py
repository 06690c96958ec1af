"""Outlier exposure as an augmentation: cut-out objects pasted into the scene, with a label of their own, OUTLIER.

The set-prediction loss counts such a pixel, as a void one, as outside of every class's mask, so that masks learn to
leave anomalous objects out; xenomask.train.exposure has losses that ask for more.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from xenomask.shapes import Float32, UInt8
from xenomask.train.config import Augment
from xenomask.train.cutouts import Cutout
from xenomask.types import OUTLIER, Sample

FOOT = (0.45, 1.0)  # where the object's lower edge stands, of the photo's height
# By depth: what stands on a flat road rises above its foot by (its height / the camera's) x (foot - horizon).
HORIZON = 0.45
TALL = (0.25, 1.5)  # the object's height over the camera's, drawn evenly in its logarithm
STANDING = (0.5, 1.0)  # the foot, as nearer to the horizon nothing is left to see
WIDEST = 4  # an object's width, of the photo's
CONTRAST = (0.5, 2.0)  # a colour match stretches no channel beyond


def paste(sample: Sample, cutouts: Sequence[Cutout], seed: int, a: Augment | None = None) -> Sample:
    """The sample with one to `a.paste_most` objects pasted, labelled OUTLIER; the same seed gives the same picture.

    `a` has the ways of pasting: `paste_depth`, `paste_match`, `paste_soft`, all of them off by default.
    """
    assert sample.label is not None
    rng = np.random.default_rng(seed)
    image, label = sample.image.copy(), sample.label.copy()
    a = a or Augment()
    for i in rng.integers(len(cutouts), size=rng.integers(1, a.paste_most + 1)):
        _place(image, label, cutouts[i].read(), a, rng)
    return Sample(image, label, sample.id, sample.dataset)


def _place(
    image: UInt8[np.ndarray, "H W 3"],
    label: UInt8[np.ndarray, "H W"],
    cutout: UInt8[np.ndarray, "_ _ 4"],
    a: Augment,
    rng: np.random.Generator,
) -> None:
    """Pastes one object into the two arrays at a random size and place, its edge blended by its alpha."""
    H, W = label.shape
    # drawn in this order whatever the options: one seed gives the same objects with each
    size, mirrored, foot, across = rng.uniform(), rng.random() < 0.5, rng.uniform(), rng.uniform()
    if a.paste_depth:
        foot = STANDING[0] + (STANDING[1] - STANDING[0]) * foot
        tall = H * (foot - HORIZON) * _between(TALL, size)
    else:
        foot = FOOT[0] + (FOOT[1] - FOOT[0]) * foot
        tall = H * _between((a.paste_least, a.paste_largest), size)  # evenly in the logarithm
    tall = min(tall, WIDEST * W * cutout.shape[0] / cutout.shape[1])  # a strip would become a picture without end
    h, w = max(4, round(tall)), max(4, round(tall * cutout.shape[1] / cutout.shape[0]))
    small = _resized(cutout, (h, w))
    if mirrored:
        small = small[:, ::-1]
    top, left = round(H * foot) - h, round(-w / 2 + W * across)
    y0, y1, x0, x1 = max(top, 0), min(top + h, H), max(left, 0), min(left + w, W)
    box = (slice(y0, y1), slice(x0, x1))
    alpha = small[..., 3].astype(np.float32) / 255
    if a.paste_soft:
        # inward alone: beyond the object's edge an RGBA file holds no colour; a small one must not fade away
        sigma = min(a.paste_soft, min(h, w) / 12)
        alpha = np.minimum(alpha, cv2.GaussianBlur(alpha, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT))
    own = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    color, alpha = np.ascontiguousarray(small[own][..., :3]), alpha[own]
    if a.paste_match and (alpha > 0.5).any():
        color = matched(color, alpha, image[box], a.paste_match)
    alpha = alpha[..., None]
    image[box] = (image[box] * (1 - alpha) + color * alpha + 0.5).astype(np.uint8)
    label[box][alpha[..., 0] > 0.5] = OUTLIER


def _resized(cutout: UInt8[np.ndarray, "_ _ 4"], size: tuple[int, int]) -> UInt8[np.ndarray, "_ _ 4"]:
    """The cut-out at another (height, width), its colours averaged by alpha.

    What is transparent has colours too, often black, which would else show in the object's edge.
    """
    how = cv2.INTER_AREA if size[0] < cutout.shape[0] else cv2.INTER_LINEAR
    weighted = cv2.multiply(
        cutout, cv2.merge([cutout[..., 3]] * 3 + [np.full_like(cutout[..., 3], 255)]), scale=1 / 255
    )
    small = cv2.resize(weighted, size[::-1], interpolation=how)
    alpha = np.maximum(small[..., 3:], 1).astype(np.float32)
    return np.dstack([np.clip(np.rint(small[..., :3] * (255 / alpha)), 0, 255).astype(np.uint8), small[..., 3]])


def _between(ends: tuple[float, float], share: float) -> float:
    """From the one (share 0) to the other (1), evenly in the logarithm."""
    low, high = np.log(ends)
    return float(np.exp(low + (high - low) * share))


def matched(
    color: UInt8[np.ndarray, "h w 3"],
    alpha: Float32[np.ndarray, "h w"],
    scene: UInt8[np.ndarray, "h w 3"],
    share: float,
) -> UInt8[np.ndarray, "h w 3"]:
    """The object's colours with mean and spread moved, by `share`, to those of the scene that it will cover.

    Channel by channel in CIE LAB (Reinhard et al. 2001); a spread is at most halved or doubled.
    """
    own, other = (cv2.cvtColor(x.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for x in (color, scene))
    inside = own[alpha > 0.5]
    mean, spread = inside.mean(0), inside.std(0) + 1e-3
    stretch = np.clip((other.std((0, 1)) + 1e-3) / spread, *CONTRAST)
    goal = mean + share * (other.mean((0, 1)) - mean)
    moved = (own - mean) * (1 + share * (stretch - 1)) + goal
    rgb = cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2RGB)
    return (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)
