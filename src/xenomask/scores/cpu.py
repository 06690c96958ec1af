"""The fused kernel of a plan on the CPU: what `kernels.run` is given."""

import itertools

import numpy as np

from xenomask.arrays import as_array, check_onto
from xenomask.errors import XenomaskError
from xenomask.jit import in_threads, thread_count
from xenomask.masks import DAMAGED, MaskOutput, row_groups, source
from xenomask.scores import kernels
from xenomask.scores.plan import Plan
from xenomask.shapes import Float32

BANDS = 4  # parts of the image's height that may go to different threads


def add_scores(
    output: MaskOutput, todo: Plan, weight: float, onto: Float32[np.ndarray, "t H W"], threads: int | None = None
) -> None:
    """Adds weight x each score of the plan to `onto`; the same bits for any number of threads (default: torch's).

    Beside the logits themselves (copied if they are not float32 and contiguous) it takes two numbers for each strip of
    each mask row, and some 2 MB a thread. Raises XenomaskError for NaN among the mask logits, before anything is added.
    """
    check_onto(onto, (len(todo.steps), *output.image_size))
    (H, W), (ph, pw), (uh, uw) = output.image_size, output.padded_size, output.input_size
    logits = np.ascontiguousarray(as_array(output.mask_logits, "mask logits"), np.float32)
    _, h, w = logits.shape
    r0, r1, lower = source(H, h, ph, uh)
    c0, c1, share = source(W, w, pw, uw)
    groups = row_groups(r0, r1, kernels.ROWS)
    bands = np.linspace(0, len(groups), min(BANDS, len(groups)) + 1).astype(int)
    starts = np.arange(0, W, kernels.COLUMNS)
    items = np.array([(s, a, b) for s in range(len(starts)) for a, b in itertools.pairwise(bands)], np.int64)
    cells = np.stack([c0[starts], c1[np.minimum(starts + kernels.COLUMNS, W) - 1] + 1], 1)
    place = np.stack([c0, c1]), share, groups, lower, items
    gather = todo.peaks, todo.crowds, todo.sums, todo.classes, todo.steps, todo.mixes, np.float32(weight)
    threads = threads or thread_count()
    high, low = np.empty((2, h, len(starts), len(logits)), np.float32)
    damaged = np.zeros(len(logits), np.bool_)
    in_threads(kernels.extremes, threads, len(logits), (logits, cells), (high, low, damaged))
    # not by masks.refuse_nan: torch's threads would then spin for milliseconds on the cores that the pass is to have
    if damaged.any():
        raise XenomaskError(DAMAGED)
    in_threads(kernels.run, threads, len(items), (logits, high, low, *place, *gather), (onto,))
