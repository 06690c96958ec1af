"""Which queries fire on anomalies: the IoU of each query's mask with the true anomalies."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, UInt8

from xenomask.masks import MaskOutput, row_blocks, soft_masks
from xenomask.types import VOID


@torch.inference_mode()
def anomaly_iou(output: MaskOutput, label: UInt8[np.ndarray, "H W"], mask_threshold: float) -> Float[np.ndarray, "q"]:
    """IoU of each mask (m_q > mask_threshold, at the image's size) with the anomaly; classes do not matter.

    Void pixels are left out of both sides.
    """
    # NOTE: the released analysis subtracts the image's whole void area from every mask's area, also void that
    # the mask does not touch, so that its IoU can be negative or too large. We count inside the masks.
    both = np.zeros(len(output.mask_logits), np.int64)
    either = np.zeros_like(both)
    target = torch.from_numpy(label)
    for rows in row_blocks(output):
        part = target[rows]
        valid, anomaly = part != VOID, part == 1
        m = (soft_masks(output, rows).cpu() > mask_threshold) & valid
        both += (m & anomaly).sum((1, 2)).numpy()
        either += (m | anomaly).sum((1, 2)).numpy()
    return both / np.maximum(either, 1)


def mean_iou(per_frame: Mapping[str, Float[np.ndarray, "q"]]) -> Float[np.ndarray, "q"]:
    """The plain mean over frames."""
    return np.mean(list(per_frame.values()), axis=0)


def choose(mean: Float[np.ndarray, "q"], threshold: float, top_k: int | None = None) -> dict[int, float]:
    """The queries whose mean IoU is above the threshold, or the `top_k` best whatever their IoU; best first.

    >>> choose(np.array([0.1, 0.5, 0.3]), 0.25)
    {1: 0.5, 2: 0.3}
    """
    order = np.argsort(-mean, kind="stable")
    kept = order[:top_k] if top_k is not None else [q for q in order if mean[q] > threshold]
    return {int(q): float(mean[q]) for q in kept}
