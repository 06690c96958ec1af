"""Photo + label -> a training crop, with the arithmetic of MMSegmentation 1.2.2's training pipeline.

Its RandomChoiceResize, RandomCrop with a cap on the largest class, RandomFlip and PhotoMetricDistortion (SSD, Liu et
al. 2016), in this order.
"""

import cv2
import numpy as np

from xenomask.shapes import Float32, UInt8
from xenomask.train.config import Augment
from xenomask.types import OUTLIER, VOID

TRIES = 10  # crops drawn before the cap on the largest class is given up

Image = UInt8[np.ndarray, "H W 3"]
Label = UInt8[np.ndarray, "H W"]
Image2 = UInt8[np.ndarray, "h w 3"]  # of another size
Label2 = UInt8[np.ndarray, "h w"]
Soft = Float32[np.ndarray, "H W"]  # a teacher's map
Soft2 = Float32[np.ndarray, "h w"]


def augment(
    image: Image, label: Label, a: Augment, rng: np.random.Generator, soft: Soft | None = None
) -> tuple[Image2, Label2, Soft2 | None]:
    """A random crop of that photo, its label and its soft target; the same generator state gives the same crop."""
    image, label = resize(image, label, int(rng.choice(a.short_edge)), a.longest)
    if soft is not None:
        soft = cv2.resize(soft, label.shape[::-1], interpolation=cv2.INTER_LINEAR)
    image, label, soft = crop(image, label, a.crop, a.crop_cap, rng, soft)
    if rng.random() < a.flip:
        image, label, soft = image[:, ::-1], label[:, ::-1], None if soft is None else soft[:, ::-1]
    soft = None if soft is None else np.ascontiguousarray(soft)
    return photometric(image, a.photometric, rng), np.ascontiguousarray(label), soft


def resize(image: Image, label: Label, short_edge: int, longest: int) -> tuple[Image2, Label2]:
    """Both with that shortest edge, or a smaller one where the longest would exceed `longest`; labels by nearest."""
    H, W = label.shape
    scale = min(short_edge / min(H, W), longest / max(H, W))
    size = max(1, int(W * scale + 0.5)), max(1, int(H * scale + 0.5))
    # NOTE: no averaging when a photo shrinks, as in the recipe; the nearest label is cv2's, not its _EXACT kin
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), cv2.resize(
        label, size, interpolation=cv2.INTER_NEAREST
    )


def crop(
    image: Image, label: Label, size: tuple[int, int], cap: float, rng: np.random.Generator, soft: Soft | None = None
) -> tuple[Image2, Label2, Soft2 | None]:
    """A random window; one in which a class has `cap` or more of the labelled pixels is drawn again, ten times at most.

    What a smaller photo lacks is padded right and bottom: black, void, a soft target of NaN.
    """
    h, w = size
    H, W = label.shape
    top = left = 0
    for _ in range(TRIES):
        top, left = int(rng.integers(max(H - h, 0) + 1)), int(rng.integers(max(W - w, 0) + 1))
        counts = np.bincount(label[top : top + h, left : left + w].ravel(), minlength=256)[:OUTLIER]
        # NOTE: MMSegmentation asks for two classes and a largest share below the cap; a cap of 1 asks for any label,
        # as a crop without one teaches nothing
        wanted = (counts > 0).sum() > 1 and counts.max() < cap * counts.sum() if cap < 1 else counts.any()
        if wanted:
            break
    image, label = image[top : top + h, left : left + w], label[top : top + h, left : left + w]
    soft = None if soft is None else soft[top : top + h, left : left + w]
    pad = ((0, h - label.shape[0]), (0, w - label.shape[1]))
    if any(after for _, after in pad):
        image, label = np.pad(image, (*pad, (0, 0))), np.pad(label, pad, constant_values=VOID)
        soft = None if soft is None else np.pad(soft, pad, constant_values=np.float32(np.nan))
    return image, label, soft


def photometric(image: Image, p: float, rng: np.random.Generator) -> Image:
    """Brightness, contrast (before or after the rest), saturation, hue: each with probability `p`, in SSD's order.

    After each, values are cut to 0..255 and truncated to integers, as MMSegmentation does.
    """
    if p == 0:
        return np.ascontiguousarray(image)
    x = image
    if rng.random() < p:
        x = _linear(x, 1, rng.uniform(-32, 32))
    contrast_first = rng.random() < 0.5
    if contrast_first and rng.random() < p:
        x = _linear(x, rng.uniform(0.5, 1.5), 0)
    if rng.random() < p:
        hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = _linear(hsv[..., 1], rng.uniform(0.5, 1.5), 0)
        x = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if rng.random() < p:
        hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(-18, 18))) % 180  # OpenCV's hues are 0..179
        x = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if not contrast_first and rng.random() < p:
        x = _linear(x, rng.uniform(0.5, 1.5), 0)
    return np.ascontiguousarray(x)


def _linear(x: np.ndarray, scale: float, shift: float) -> np.ndarray:
    return np.clip(x.astype(np.float32) * np.float32(scale) + np.float32(shift), 0, 255).astype(np.uint8)
