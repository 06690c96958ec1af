"""Query pooling: each query's mask averages the map over itself and gives the mean back to its pixels."""

from typing import Any

import numpy as np

from xenomask.masks import library
from xenomask.refine.cells import moved, soft_cells, to_cells
from xenomask.refine.definition import Refinement, Seen, register
from xenomask.shapes import Float, Float32

OVERLAP = 0.7  # of UGainS' suppression


def pooling(value: Float[Any, "H W"], seen: Seen, *, up: float = 0.5, down: float = 0.5) -> Any:
    """s + C (p - s), scaled by `up` where that is positive and by `down` where it is negative.

    a_q = sum_x m_q s / sum_x m_q; p = sum_q m_q a_q / sum_q m_q; C = min(1, sum_q m_q): where no mask is, s stays. One
    step of a random walk from pixel to query to pixel; our own, in no paper that we found.
    """
    s, m = to_cells(value, seen.output), soft_cells(seen.output)
    total = m.sum(0)
    a = (m * s).sum((1, 2)) / m.sum((1, 2)).clip(1e-6)
    change = total.clip(max=1) * (library(m).tensordot(a, m, 1) / total.clip(1e-6) - s)
    return moved(value, library(m).where(change > 0, up * change, down * change), seen.output)


def ugains(value: Float32[np.ndarray, "H W"], seen: Seen, *, alpha: float = 1.0) -> np.ndarray:
    """s + alpha P: UGainS' rule (Nekrasov et al. 2023) with the network's own masks m_q > .5, without SAM.

    a_j is the mean of s over mask j; of two masks with IoU >= .7 the one of larger a_j is kept; P sums the kept a_j on
    their masks, and is the map's lower end where none is.
    """
    s, m = (
        to_cells(value, seen.output).ravel(),
        (soft_cells(seen.output) > 0.5).reshape(len(seen.output.mask_logits), -1),
    )
    m = m[m.any(1)].astype(np.float32)
    size = m.sum(1)
    a, common = m @ s / size, m @ m.T
    iou = common / (size[:, None] + size - common)
    kept: list[int] = []
    for j in np.argsort(-a, kind="stable"):
        if not kept or iou[j, kept].max() < OVERLAP:
            kept.append(int(j))
    P = np.where(m[kept].any(0), a[kept] @ m[kept], np.float32(seen.low))
    return moved(value, alpha * P.reshape(soft_cells(seen.output).shape[1:]), seen.output)


SHARE = (0.0, 1.0)
register(Refinement("pooling", "s + min(1, sum_q m_q) (sum_q m_q a_q / sum_q m_q - s)", pooling, "masks",
                    {"up": SHARE, "down": SHARE}, on_tensors=True))  # fmt: skip
register(Refinement("ugains", "s + sum of a_j over kept masks {m_q > .5}", ugains, "masks", {"alpha": SHARE}))
