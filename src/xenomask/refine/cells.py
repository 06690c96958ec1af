"""Between a photo's pixels and a network's mask cells: refinements work on the latter, sixteen times fewer."""

import cv2
import numpy as np
from jaxtyping import Float32

from xenomask.arrays import as_array
from xenomask.masks import MaskOutput, class_probabilities, source
from xenomask.types import Size

Cells = Float32[np.ndarray, "a b"]


def shown(output: MaskOutput) -> Size:
    """How many of the mask's rows and columns show the photo: the others lie in the padding."""
    (ph, pw), (uh, uw) = output.padded_size, output.input_size
    h, w = output.mask_logits.shape[1:]
    return -(-uh * h // ph), -(-uw * w // pw)


def soft_cells(output: MaskOutput) -> Float32[np.ndarray, "q a b"]:
    """m_q of the cells that show the photo, in [0, 1], as the photo lies."""
    a, b = shown(output)
    logits = as_array(output.mask_logits, "mask logits")[:, :a, :b].astype(np.float32)
    with np.errstate(over="ignore"):  # e^1000 is infinite, its mask 0
        m = 1 / (1 + np.exp(-logits))
    return m[:, :, ::-1] if output.mirrored else m


def class_cells(output: MaskOutput) -> Float32[np.ndarray, "k a b"]:
    """L_k(x) = sum_q P_q(k) m_q(x) of the cells; see `masks.semantic`."""
    p = as_array(class_probabilities(output), "class probabilities")
    return np.tensordot(p[:, :-1].T, soft_cells(output), 1)


def to_cells(value: Float32[np.ndarray, "H W"], output: MaskOutput) -> Cells:
    """The map's mean over each cell.

    NOTE: where the photo ends inside a cell, its last row or column counts as a whole cell.
    """
    a, b = shown(output)
    return cv2.resize(value, (b, a), interpolation=cv2.INTER_AREA)


def to_pixels(cells: Cells, output: MaskOutput) -> Float32[np.ndarray, "H W"]:
    """Cells at the photo's size, bilinearly, as `masks.resized_logits` has mask logits."""
    (H, W), (ph, pw), (uh, uw) = output.image_size, output.padded_size, output.input_size
    h, w = output.mask_logits.shape[1:]
    (y0, y1, fy), (x0, x1, fx) = source(H, h, ph, uh), source(W, w, pw, uw)
    stored = cells[:, ::-1] if output.mirrored else cells
    columns = stored[:, x0] + (stored[:, x1] - stored[:, x0]) * fx
    found = columns[y0] + (columns[y1] - columns[y0]) * fy[:, None]
    return found[:, ::-1] if output.mirrored else found


def moved(value: Float32[np.ndarray, "H W"], change: Cells, output: MaskOutput) -> Float32[np.ndarray, "H W"]:
    """The map with a change a cell added; what the map resolves finer than a cell stays."""
    return value + to_pixels(change.astype(np.float32), output)
