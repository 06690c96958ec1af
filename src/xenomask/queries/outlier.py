"""Which queries fire on anomalies: the IoU of each query's mask with the true anomalies."""

from collections.abc import Mapping

import numpy as np

from xenomask.arrays import LabelLike, NumbersLike, as_numbers, as_truth
from xenomask.errors import XenomaskError
from xenomask.masks import MaskOutput, row_blocks, soft_masks
from xenomask.shapes import Float
from xenomask.types import VOID


def anomaly_iou(output: MaskOutput, label: LabelLike, mask_threshold: float) -> Float[np.ndarray, "q"]:
    """IoU of each mask (m_q > mask_threshold, at the image's size) with the anomaly; classes do not matter.

    Void pixels are left out of both sides. Raises XenomaskError for what is no label (H, W) of 0, 1, 255 in the image's
    size.
    """
    import torch

    label = as_truth(label)
    if label.shape != output.image_size:
        (h, w), (H, W) = label.shape, output.image_size
        raise XenomaskError(f"label is {w}x{h}, the photo {W}x{H}: they must show the same pixels")
    # NOTE: the released analysis subtracts the image's whole void area from every mask's area, also void that
    # the mask does not touch, so that its IoU can be negative or too large. We count inside the masks.
    both = np.zeros(len(output.mask_logits), np.int64)
    either = np.zeros_like(both)
    target = torch.from_numpy(np.require(label, requirements=["C", "W"]))
    for rows in row_blocks(output):
        part = target[rows]
        valid, anomaly = part != VOID, part == 1
        m = (soft_masks(output, rows).cpu() > mask_threshold) & valid
        both += (m & anomaly).sum((1, 2)).numpy()
        either += (m | anomaly).sum((1, 2)).numpy()
    return both / np.maximum(either, 1)


def mean_iou(per_frame: Mapping[str, NumbersLike]) -> Float[np.ndarray, "q"]:
    """The plain mean over frames of the IoUs (q,); XenomaskError for no frame, other shapes and different lengths."""
    found = {i: as_numbers(v, f"IoU of frame {i}", ndim=1) for i, v in per_frame.items()}
    if len({len(v) for v in found.values()}) != 1:
        raise XenomaskError("the mean IoU needs one frame at least, and all frames of as many queries")
    return np.mean(list(found.values()), axis=0)


def choose(mean: NumbersLike, threshold: float, top_k: int | None = None) -> dict[int, float]:
    """The queries whose mean IoU is above the threshold, or the `top_k` best whatever their IoU; best first.

    Raises XenomaskError for what are no IoUs (q,).

    >>> choose(np.array([0.1, 0.5, 0.3]), 0.25)
    {1: 0.5, 2: 0.3}
    """
    mean = as_numbers(mean, "mean IoU", ndim=1)
    order = np.argsort(-mean, kind="stable")
    kept = order[:top_k] if top_k is not None else [q for q in order if mean[q] > threshold]
    return {int(q): float(mean[q]) for q in kept}
