"""What the networks take an object, or a pixel, for: their most probable inlier class."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from xenomask.arrays import MaskLike, as_mask
from xenomask.errors import XenomaskError
from xenomask.masks import (
    MaskOutput,
    PixelOutput,
    bounded,
    class_probabilities,
    resized_logits,
    row_blocks,
    semantic,
    soft_masks,
    source,
)
from xenomask.types import CITYSCAPES_CLASSES

Output = MaskOutput | PixelOutput
Nearest = Callable[[MaskLike], tuple[str, float]]


def class_reader(seen: Sequence[tuple[float, Sequence[str], Output]]) -> Nearest:
    """A function from a mask (H, W) of one photo to the class that the networks take it for, and how sure they are.

    `seen` is each member's weight, its classes' names, and its network's output of the photo.
    How sure is the class's mean probability over the mask, by the members' weights: of a mask transformer the semantic
    score sum_q P_q(k) m_q (Cheng et al. 2021, "Per-Pixel Classification is Not All You Need", section 3.3), at most 1;
    of a per-pixel network its softmax. It is read at the networks' own resolution. Members whose classes have other
    names than the first one's are left out. The function raises XenomaskError for an empty mask, or of another size.
    """
    _, names, first = seen[0]
    size = first.image_size

    @cache  # most photos have no object: then nothing is computed
    def alike() -> list[tuple[float, np.ndarray, np.ndarray, np.ndarray]]:
        return [(w, _probabilities(o), *_cells(o)) for w, own, o in seen if list(own) == list(names)]

    def nearest(mask: MaskLike) -> tuple[str, float]:
        mask = as_mask(mask)
        if mask.shape != size or not mask.any():
            raise XenomaskError(f"the mask is empty, or {mask.shape} where the photo is {size}")
        ys, xs = np.nonzero(mask)
        mean = sum(w * p[:, rows[ys], columns[xs]].mean(1) for w, p, rows, columns in alike())
        mean = np.asarray(mean) / sum(w for w, *_ in alike())
        return names[int(mean.argmax())], float(mean.max())

    return nearest


@torch.inference_mode()
def predicted_classes(seen: Sequence[tuple[float, Sequence[str], Output]]) -> UInt8[np.ndarray, "H W"]:
    """The most probable class of each pixel, as Cityscapes train ids 0..18, by the members' weights.

    The arguments and class scores are those of `class_reader`, at the photo's size. Members with other classes are left
    out; raises XenomaskError where none is left.
    """
    alike = [(w, o) for w, names, o in seen if tuple(names) == CITYSCAPES_CLASSES]
    if not alike:
        raise XenomaskError(
            "predicted classes are stored as Cityscapes train ids, and no member's network has these 19 classes"
        )
    found = np.empty(alike[0][1].image_size, np.uint8)
    for rows in row_blocks(alike[0][1]):
        total = sum(w * _at_size(o, rows) for w, o in alike)
        found[rows] = torch.as_tensor(total).argmax(0).cpu().numpy()
    return found


def _at_size(output: Output, rows: slice) -> torch.Tensor:
    if isinstance(output, PixelOutput):
        return resized_logits(output, rows).softmax(0)
    return semantic(class_probabilities(output), soft_masks(output, rows))


@torch.inference_mode()
def _probabilities(output: Output) -> Float32[np.ndarray, "k h w"]:
    if isinstance(output, PixelOutput):
        return output.class_map_logits.float().softmax(0).cpu().numpy()
    masks = bounded(output.mask_logits.float()).sigmoid()
    return semantic(class_probabilities(output), masks).clamp(max=1).cpu().numpy()


def _cells(output: Output) -> tuple[np.ndarray, np.ndarray]:
    """Which row and which column of the network's maps each of the photo's rows (H) and columns (W) lies in."""
    logits = output.class_map_logits if isinstance(output, PixelOutput) else output.mask_logits
    (H, W), (ph, pw), (uh, uw) = output.image_size, output.padded_size, output.input_size
    h, w = logits.shape[-2:]
    (y, _, fy), (x, _, fx) = source(H, h, ph, uh), source(W, w, pw, uw)
    rows, columns = np.minimum(y + (fy >= 0.5), h - 1), np.minimum(x + (fx >= 0.5), w - 1)
    return rows, columns[::-1] if output.mirrored else columns
