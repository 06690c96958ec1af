"""The plan of max_logit on the CPU by NumPy: for one photo, which is done before the fused kernel is loaded."""

import numpy as np
from jaxtyping import Float32

from xenomask.arrays import as_array, check_onto
from xenomask.masks import MaskOutput, refuse_nan, row_groups, source
from xenomask.scores.plan import Plan

ROWS = 8  # of the image at most at a time, so that 100 queries' masks stay in the processor's cache
NEGLIGIBLE = 1e-8  # a query that adds less to all classes together is left out: 100 of them change L by 1e-6


def add_scores(output: MaskOutput, todo: Plan, weight: float, onto: Float32[np.ndarray, "1 H W"]) -> None:
    """Adds weight x -max_k L_k, L_k = sum_q classes[q, k] m_q, to `onto`; XenomaskError for NaN among the logits."""
    check_onto(onto, (1, *output.image_size))
    (H, W), (ph, pw), (uh, uw) = output.image_size, output.padded_size, output.input_size
    logits = as_array(output.mask_logits, "mask logits").astype(np.float32)
    refuse_nan(logits)
    logits = -logits.clip(-1e30, 1e30)  # as masks.bounded; negative, as the sigmoid reads them
    r0, r1, lower = source(H, logits.shape[1], ph, uh)
    c0, c1, share = source(W, logits.shape[2], pw, uw)
    with np.errstate(divide="ignore"):
        most = logits.min(2) < np.log(todo.classes.sum(1) / NEGLIGIBLE)[:, None]  # sigmoid(x) < e^x
    few = max(1, 2**18 // todo.classes.size)  # pixels: of larger products OpenBLAS' threads would spin for the next one
    wide: dict[int, np.ndarray] = {}  # the two mask rows that are read, at the image's columns
    for y0, y1, above, below in row_groups(r0, r1, ROWS):
        for r in {above, below} - wide.keys():
            left = logits[:, r].take(c0, 1)
            wide[r] = left + share * (logits[:, r].take(c1, 1) - left)
        wide = {r: wide[r] for r in (above, below)}
        used = most[:, above] | most[:, below]
        upper, under = (wide[r][used, None] for r in (above, below))
        m = lower[y0:y1, None] * (under - upper)
        m += upper
        with np.errstate(over="ignore"):  # e^1000 is infinite, its mask 0
            np.exp(m, out=m)
        m += 1
        m, P = np.reciprocal(m, out=m).reshape(len(m), (y1 - y0) * W), todo.classes[used].T
        L = [(P @ m[:, x : x + few]).max(0) for x in range(0, m.shape[1], few)]
        onto[0, y0:y1] -= np.float32(weight) * np.concatenate(L).reshape(-1, W)
