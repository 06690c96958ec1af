"""Photo + label + mask -> a square crop around one component."""

import cv2
import numpy as np

from xenomask.arrays import ImageLike, LabelLike, MaskLike, as_image, as_mask, as_truth, check_same_size
from xenomask.errors import XenomaskError
from xenomask.shapes import UInt8

SIDE = 240  # pixels of a crop, which pages show smaller: lines are thin there
TRUE, PREDICTED = (25, 211, 162), (255, 255, 255)


def crop(
    image: ImageLike,
    label: LabelLike,
    mask: MaskLike,
    box: tuple[int, int, int, int],
) -> UInt8[np.ndarray, "s s 3"]:
    """The box (rows from, to, columns from, to) with half its size around it; truth green, prediction white.

    Raises XenomaskError for what is no photo, label or mask, for sizes that differ, and a box outside of the photo.
    """
    image, label, mask = as_image(image), as_truth(label), as_mask(mask)
    check_same_size("label", label, "photo", image)
    check_same_size("mask", mask, "photo", image)
    top, bottom, left, right = box
    if not (0 <= top < bottom <= image.shape[0] and 0 <= left < right <= image.shape[1]):
        raise XenomaskError(f"box {box} does not lie in a photo of {image.shape[1]}x{image.shape[0]}")
    side = max(64, 2 * max(bottom - top, right - left))
    side = min(side, *image.shape[:2])
    y = min(max(0, (top + bottom - side) // 2), image.shape[0] - side)
    x = min(max(0, (left + right - side) // 2), image.shape[1] - side)
    part = np.s_[y : y + side, x : x + side]
    out = cv2.resize(image[part], (SIDE, SIDE), interpolation=cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR)
    for area, colour in ((mask[part], PREDICTED), (label[part] == 1, TRUE)):
        small = cv2.resize(area.astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, contours, -1, (0, 0, 0), 4)  # a dark rim: readable on any photo
        cv2.drawContours(out, contours, -1, colour, 2)
    return out
