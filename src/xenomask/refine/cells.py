"""Between a photo's pixels and a network's mask cells: refinements work on the latter, sixteen times fewer."""

import cv2
import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from xenomask.masks import MaskOutput, PixelOutput, bounded, class_probabilities, resized_logits
from xenomask.types import Size

Cells = Float32[np.ndarray, "a b"]


def shown(output: MaskOutput) -> Size:
    """How many of the mask's rows and columns show the photo: the others lie in the padding."""
    (ph, pw), (uh, uw) = output.padded_size, output.input_size
    h, w = output.mask_logits.shape[1:]
    return -(-uh * h // ph), -(-uw * w // pw)


def soft_cells(output: MaskOutput) -> Float32[Tensor, "q a b"]:
    """m_q of the cells that show the photo, in [0, 1], as the photo lies."""
    a, b = shown(output)
    m = bounded(output.mask_logits[:, :a, :b].float()).sigmoid().cpu()
    return m.flip(2) if output.mirrored else m


def class_cells(output: MaskOutput) -> Float32[Tensor, "k a b"]:
    """L_k(x) = sum_q P_q(k) m_q(x) of the cells; see `masks.semantic`."""
    return torch.einsum("qk,qab->kab", class_probabilities(output)[:, :-1].cpu(), soft_cells(output))


def to_cells(value: Float32[np.ndarray, "H W"], output: MaskOutput) -> Cells:
    """The map's mean over each cell.

    NOTE: where the photo ends inside a cell, its last row or column counts as a whole cell.
    """
    a, b = shown(output)
    return cv2.resize(value, (b, a), interpolation=cv2.INTER_AREA)


def to_pixels(cells: Cells, output: MaskOutput) -> Float32[np.ndarray, "H W"]:
    """Cells at the photo's size, bilinearly, exactly as mask logits are resized."""
    h, w = output.mask_logits.shape[1:]
    (a, b), whole = cells.shape, np.zeros((1, h, w), np.float32)
    whole[0, :a, :b] = cells[:, ::-1] if output.mirrored else cells
    sizes = output.padded_size, output.input_size, output.image_size
    return resized_logits(PixelOutput(torch.from_numpy(whole), *sizes, mirrored=output.mirrored))[0].numpy()


def moved(value: Float32[np.ndarray, "H W"], change: Cells, output: MaskOutput) -> Float32[np.ndarray, "H W"]:
    """The map with a change a cell added; what the map resolves finer than a cell stays."""
    return value + to_pixels(change.astype(np.float32), output)
