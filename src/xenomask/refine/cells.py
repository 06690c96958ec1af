"""Between a photo's pixels and a network's mask cells: refinements work on the latter, sixteen times fewer.

Arrays stay arrays; tensors, which an exported graph is traced with, stay tensors.
"""

from typing import Any

import cv2
import numpy as np

from xenomask.arrays import is_tensor
from xenomask.errors import XenomaskError
from xenomask.masks import (
    MaskOutput,
    PixelOutput,
    area_taps,
    class_probabilities,
    library,
    resized_logits,
    row_groups,
    source,
)
from xenomask.shapes import Float
from xenomask.types import Size

Cells = Float[Any, "a b"]


def shown(output: MaskOutput) -> Size:
    """How many of the mask's rows and columns show the photo: the others lie in the padding."""
    (ph, pw), (uh, uw) = output.padded_size, output.input_size
    h, w = output.mask_logits.shape[1:]
    return -(-uh * h // ph), -(-uw * w // pw)


def soft_cells(output: MaskOutput) -> Float[Any, "q a b"]:
    """m_q of the cells that show the photo, in [0, 1], as the photo lies."""
    a, b = shown(output)
    logits: Any = output.mask_logits[:, :a, :b]
    if is_tensor(logits):
        m: Any = logits.sigmoid()
        return m.flip(2) if output.mirrored else m
    with np.errstate(over="ignore"):  # e^1000 is infinite, its mask 0
        m = 1 / (1 + np.exp(-logits))
    return m[:, :, ::-1] if output.mirrored else m


def class_cells(output: MaskOutput) -> Float[Any, "k a b"]:
    """L_k(x) = sum_q P_q(k) m_q(x) of the cells; see `masks.semantic`."""
    p = class_probabilities(output)
    return library(p).tensordot(p[:, :-1].T, soft_cells(output), 1)


def to_cells(value: Float[Any, "H W"], output: MaskOutput) -> Cells:
    """The map's mean over each cell.

    NOTE: where the photo ends inside a cell, its last row or column counts as a whole cell. Raises XenomaskError for
    the tensor of a photo smaller than its masks.
    """
    a, b = shown(output)
    if isinstance(value, np.ndarray):
        return cv2.resize(value, (b, a), interpolation=cv2.INTER_AREA)
    import torch

    (H, W), found = value.shape, value
    if H < a or W < b:
        raise XenomaskError(
            f"photos of {W}x{H} are smaller than the network's masks, {b}x{a}: no graph refines them; export larger "
            "ones, or with --refine none"
        )
    for size, cells in ((H, a), (W, b)):
        index, share = (torch.from_numpy(np.stack(x, 1)) for x in zip(*area_taps(size, cells), strict=True))
        found = (found.index_select(0, index.flatten()).unflatten(0, index.shape) * share[..., None]).sum(1).T
    return found


def to_pixels(cells: Cells, output: MaskOutput) -> Float[Any, "H W"]:
    """Cells at the photo's size, bilinearly, as `masks.resized_logits` has mask logits."""
    if isinstance(cells, np.ndarray):
        return moved(np.zeros(output.image_size, np.float32), cells, output)
    from torch.nn.functional import pad

    h, w = output.mask_logits.shape[1:]
    stored = pad(cells.flip(1) if output.mirrored else cells, (0, w - cells.shape[1], 0, h - cells.shape[0]))
    sizes = output.padded_size, output.input_size, output.image_size
    return resized_logits(PixelOutput(stored[None], *sizes, output.mirrored))[0]


def moved(value: Float[Any, "H W"], change: Cells, output: MaskOutput) -> Float[Any, "H W"]:
    """The map with a change a cell added; what the map resolves finer than a cell stays."""
    if not isinstance(change, np.ndarray):
        return value + to_pixels(change, output)
    (H, W), (ph, pw), (uh, uw) = output.image_size, output.padded_size, output.input_size
    h, w = output.mask_logits.shape[1:]
    (y0, y1, fy), (x0, x1, fx) = source(H, h, ph, uh), source(W, w, pw, uw)
    found, stored = value.copy(), change.astype(np.float32)
    target = found[:, ::-1] if output.mirrored else found
    stored = stored[:, ::-1] if output.mirrored else stored
    columns = stored[:, x0] + (stored[:, x1] - stored[:, x0]) * fx
    changed: Any = columns.any(1)
    for top, bottom, above, below in row_groups(y0, y1, H):  # rows that read two rows of cells: they stay in the cache
        if changed[above] or changed[below]:
            target[top:bottom] += columns[above] + (columns[below] - columns[above]) * fy[top:bottom, None]
    return found
