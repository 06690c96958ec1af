"""What the networks take an object, or a pixel, for: their most probable inlier class."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from xenomask.arrays import MaskLike, TensorLike, as_array, as_mask
from xenomask.errors import XenomaskError
from xenomask.masks import MaskOutput, PixelOutput, class_probabilities, source
from xenomask.shapes import Float32

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
        ys, xs = np.divmod(np.flatnonzero(mask), size[1])  # five times as fast as in two dimensions
        mean = sum(w * _mean(p, rows[ys], columns[xs]) for w, p, rows, columns in alike())
        mean = np.asarray(mean) / sum(w for w, *_ in alike())
        return names[int(mean.argmax())], float(mean.max())

    return nearest


def _mean(p: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The mean (K,) of p (K, h, w) over the cells (rows[i], columns[i]), each as often as it is named."""
    count = np.bincount(rows * p.shape[2] + columns, minlength=p[0].size)
    return p.reshape(len(p), -1) @ count.astype(np.float32) / np.float32(len(rows))


def _probabilities(output: Output) -> Float32[np.ndarray, "k h w"]:
    if isinstance(output, PixelOutput):
        e = _array(output.class_map_logits).clip(-1e30, 1e30)  # infinite ones are certainty
        e = np.exp(e - e.max(0))
        return e / e.sum(0)
    with np.errstate(over="ignore"):  # e^1000 is infinite, its mask 0
        masks = 1 / (1 + np.exp(-_array(output.mask_logits)))
    return np.tensordot(_array(class_probabilities(output))[:, :-1].T, masks, 1).clip(max=1)


def _array(x: TensorLike) -> Float32[np.ndarray, "..."]:
    return as_array(x, "logits").astype(np.float32, copy=False)


def _cells(output: Output) -> tuple[np.ndarray, np.ndarray]:
    """Which row and which column of the network's maps each of the photo's rows (H) and columns (W) lies in."""
    logits = output.class_map_logits if isinstance(output, PixelOutput) else output.mask_logits
    (H, W), (ph, pw), (uh, uw) = output.image_size, output.padded_size, output.input_size
    h, w = logits.shape[-2:]
    (y, _, fy), (x, _, fx) = source(H, h, ph, uh), source(W, w, pw, uw)
    rows, columns = np.minimum(y + (fy >= 0.5), h - 1), np.minimum(x + (fx >= 0.5), w - 1)
    return rows, columns[::-1] if output.mirrored else columns
