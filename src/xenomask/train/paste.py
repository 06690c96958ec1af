"""Outlier exposure as an augmentation: cut-out objects pasted into the scene, labelled void.

The set-prediction loss counts a void pixel as outside of every class's mask, so that masks learn to leave strangers
out. Nothing else of the recipe changes; no network output learns what a stranger looks like.
"""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from xenomask.errors import XenomaskError
from xenomask.types import VOID, Sample

HEIGHT = (0.08, 0.6)  # of the photo's height, drawn evenly in its logarithm
FOOT = (0.45, 1.0)  # where the object's lower edge stands, of the photo's height
MOST = 3  # objects a photo


def list_cutouts(folder: Path) -> tuple[Path, ...]:
    """The RGBA files of a folder, sorted; raises XenomaskError if there are none."""
    files = tuple(sorted(p for p in folder.glob("*") if p.suffix.lower() in (".webp", ".png")))
    if not files:
        raise XenomaskError(f"no cut-out (RGBA .webp or .png) in {folder}")
    return files


def _place(
    image: UInt8[np.ndarray, "H W 3"], label: UInt8[np.ndarray, "H W"], cutout: UInt8[np.ndarray, "_ _ 4"], rng
) -> None:
    """Pastes one object into the two arrays at a random size and place, its edge blended by its alpha."""
    H, W = label.shape
    tall = H * np.exp(rng.uniform(*np.log(HEIGHT)))
    h, w = max(4, round(tall)), max(4, round(tall * cutout.shape[1] / cutout.shape[0]))
    small = cv2.resize(cutout, (w, h), interpolation=cv2.INTER_AREA if h < cutout.shape[0] else cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        small = small[:, ::-1]
    top, left = round(H * rng.uniform(*FOOT)) - h, round(rng.uniform(-w / 2, W - w / 2))
    y0, y1, x0, x1 = max(top, 0), min(top + h, H), max(left, 0), min(left + w, W)
    part = small[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = part[..., 3:].astype(np.float32) / 255
    box = (slice(y0, y1), slice(x0, x1))
    image[box] = (image[box] * (1 - alpha) + part[..., :3] * alpha + 0.5).astype(np.uint8)
    label[box][alpha[..., 0] > 0.5] = VOID


def paste(sample: Sample, cutouts: tuple[Path, ...], seed: int) -> Sample:
    """The sample with one to three objects pasted; the same seed gives the same picture."""
    assert sample.label is not None
    rng = np.random.default_rng(seed)
    image, label = sample.image.copy(), sample.label.copy()
    for i in rng.integers(len(cutouts), size=rng.integers(1, MOST + 1)):
        with Image.open(cutouts[i]) as cutout:
            _place(image, label, np.asarray(cutout.convert("RGBA")), rng)
    return Sample(image, label, sample.id, sample.dataset)
