"""The plan of max_logit on the CPU by NumPy: for one photo, which is done before the fused kernel is loaded."""

import numpy as np

from xenomask.arrays import as_array, check_onto
from xenomask.masks import MaskOutput, refuse_nan, row_groups, source
from xenomask.scores.codes import TOO_LITTLE
from xenomask.scores.plan import Plan
from xenomask.shapes import Bool, Float32, Int64

# of a tile: image rows at most, so that 100 queries' masks stay in the processor's cache, and columns
ROWS, COLUMNS = 8, 128


def add_scores(output: MaskOutput, todo: Plan, weight: float, onto: Float32[np.ndarray, "1 H W"]) -> None:
    """Adds weight x -max_k L_k, L_k = sum_q classes[q, k] m_q, to `onto`; XenomaskError for NaN among the logits."""
    check_onto(onto, (1, *output.image_size))
    (H, W), (ph, pw), (uh, uw) = output.image_size, output.padded_size, output.input_size
    logits = as_array(output.mask_logits, "mask logits").astype(np.float32)
    refuse_nan(logits)
    logits = -logits.clip(-1e30, 1e30)  # as masks.bounded; negative, as the sigmoid reads them
    r0, r1, lower = source(H, logits.shape[1], ph, uh)
    c0, c1, share = source(W, logits.shape[2], pw, uw)
    groups, strips = row_groups(r0, r1, ROWS), [np.s_[x : x + COLUMNS] for x in range(0, W, COLUMNS)]
    seen = [np.s_[c0[s][0] : c1[s][-1] + 1] for s in strips]  # the mask columns that a strip reads
    widen = [_widening(c0[s] - at.start, c1[s] - at.start, share[s]) for s, at in zip(strips, seen, strict=True)]
    by_column = np.ascontiguousarray(logits.transpose(2, 0, 1))  # whose extremes NumPy finds ten times as fast
    with np.errstate(over="ignore"):  # e^1000 is infinite, its mask 0
        wanted, used = _bounds(todo.classes, *(
            1 / (1 + np.exp(pick(end[:, groups[:, 2]], end[:, groups[:, 3]])))
            for pick, end in ((np.minimum, np.stack([by_column[at].min(0) for at in seen], 2)),
                              (np.maximum, np.stack([by_column[at].max(0) for at in seen], 2)))
        ))  # fmt: skip
        for g, (y0, y1, above, below) in enumerate(groups):
            for s, strip in enumerate(strips):
                q, k = used[:, g, s].nonzero()[0], wanted[:, g, s].nonzero()[0]
                if not len(q):  # L = 0
                    continue
                read = logits[q, above : below + 1, seen[s]].reshape(-1, len(widen[s]))
                ends = (read @ widen[s]).reshape(len(q), below + 1 - above, -1)  # the mask rows at the image's columns
                upper, under = ends[:, :1], ends[:, -1:]
                m = lower[y0:y1, None] * (under - upper)
                m += upper
                np.exp(m, out=m)
                m += 1
                L = todo.classes[q[:, None], k].T @ np.reciprocal(m, out=m).reshape(len(q), -1)
                onto[0, y0:y1, strip] -= np.float32(weight) * L.max(0).reshape(y1 - y0, -1)


def _widening(
    left: Int64[np.ndarray, " n"], right: Int64[np.ndarray, " n"], share: Float32[np.ndarray, " n"]
) -> Float32[np.ndarray, "cells n"]:
    """What each of n image columns takes of each mask column: 1 - share of `left`, share of `right`."""
    cells = np.arange(right[-1] + 1)[:, None]
    return np.where(cells == left, 1 - share, np.float32(0)) + np.where(cells == right, share, np.float32(0))


def _bounds(
    classes: Float32[np.ndarray, "q k"], most: Float32[np.ndarray, "q g s"], fewest: Float32[np.ndarray, "q g s"]
) -> tuple[Bool[np.ndarray, "k g s"], Bool[np.ndarray, "q g s"]]:
    """The classes that can be the largest in each tile (g, s), and the queries that add something to one of those.

    All masks of a tile lie between `fewest` and `most`: a class that even `most` does not lift above what another has
    by `fewest` is nowhere the largest.
    """
    least = np.tensordot(classes.T, fewest, 1).max(0)
    wanted = np.tensordot(classes.T, most, 1) >= (1 - 1e-5) * least  # sums of 100 are rounded to some 1e-6
    adds = np.max([classes[:, k, None, None] * wanted[k] for k in range(classes.shape[1])], 0)
    return wanted, adds * most > TOO_LITTLE
