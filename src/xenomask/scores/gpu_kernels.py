"""The one pass over masks, compiled by Triton: the same function as `kernels.run`, one program a tile of pixels.

A tile is COLUMNS pixels in up to ROWS image rows that read the same two mask rows. A program visits the queries once
and keeps all that the scores need of them in registers; masks of the image's size (Q, H, W) exist nowhere, and each
map is written once. One warp runs a tile, so that a thread holds all rows of its columns: what is read of the mask is
interpolated along its rows once for ROWS pixels, and nothing passes through shared memory.

Queries whose weights are all zero are never visited (see `gpu.run`). Beyond that nothing is left out where a mask is
small, as the CPU's pass does: a query that still counts would have to be negligible in a whole tile, finding that out
takes a reduction over its cells, and what it would save on a GPU has not been measured.

Letters: as in `kernels`. T scores.
"""

from typing import no_type_check

import triton
import triton.language as tl

from xenomask.scores.codes import (
    ENERGY,
    ENTROPY,
    ENTROPY_SOFTMAX,
    MASKOMALY,
    MAX_LOGIT,
    MAX_SHARE,
    MSP,
    NOT_COVERED,
    RBA,
    SUM,
)

# What a kernel reads of its module has to be constexpr.
MASKOMALY, SUM, RBA, NOT_COVERED = map(tl.constexpr, (MASKOMALY, SUM, RBA, NOT_COVERED))
MAX_LOGIT, MAX_SHARE, MSP, ENERGY = map(tl.constexpr, (MAX_LOGIT, MAX_SHARE, MSP, ENERGY))
ENTROPY, ENTROPY_SOFTMAX = map(tl.constexpr, (ENTROPY, ENTROPY_SOFTMAX))
UNCOVERED = tl.constexpr(1e-8)  # as in scores/semantic.py
CERTAIN = tl.constexpr(1e30)  # as masks.bounded


# no_type_check: jaxtyping's test hook would otherwise wrap what Triton is to compile.
@triton.jit
@no_type_check
def _copies(zero, n: tl.constexpr):
    """A tuple of n tiles."""
    tiles = ()
    for _ in tl.static_range(n):
        tiles = tiles + (zero,)
    return tiles


@triton.jit
@no_type_check
def _raised(peaks, weights, m, n: tl.constexpr):
    tiles = ()
    for i in tl.static_range(n):
        tiles = tiles + (tl.maximum(peaks[i], tl.load(weights + i) * m),)
    return tiles


@triton.jit
@no_type_check
def _counted(crowds, edges, z, n: tl.constexpr):
    tiles = ()
    for i in tl.static_range(n):
        tiles = tiles + (crowds[i] + tl.where(z > tl.load(edges + i), 1.0, 0.0),)
    return tiles


@triton.jit
@no_type_check
def _added(sums, weights, m, n: tl.constexpr):
    tiles = ()
    for i in tl.static_range(n):
        tiles = tiles + (sums[i] + tl.load(weights + i) * m,)
    return tiles


@triton.jit
@no_type_check
def _cells(row, at):
    return tl.minimum(tl.maximum(tl.load(row + at).to(tl.float32), -CERTAIN), CERTAIN)


@triton.jit
@no_type_check
def _tanh(x):
    """For x >= 0; off by some 1e-7, whatever x, which is what a sum of tanh needs."""
    e = tl.exp(-2.0 * x)
    return (1.0 - e) / (1.0 + e)


@triton.jit
@no_type_check
def _finished_classes(code: tl.constexpr, L, K: tl.constexpr):
    """One score of the class masses L, a tuple of K tiles."""
    best, total = L[0], L[0]
    for k in tl.static_range(1, K):
        best = tl.maximum(best, L[k])
        total = total + L[k]
    log_k = tl.log(tl.full((1, 1), K, tl.float32))
    value = -best
    if code == MAX_SHARE:
        value = 1.0 - (best + UNCOVERED) / (total + K * UNCOVERED)
    elif code == NOT_COVERED:
        value = 1.0 - tl.minimum(total, 1.0)
    elif code == RBA:
        value = -_tanh(L[0])
        for k in tl.static_range(1, K):
            value -= _tanh(L[k])
    elif code == ENTROPY:
        value = best * 0.0
        for k in tl.static_range(K):
            s = (L[k] + UNCOVERED) / (total + K * UNCOVERED)
            value -= s * tl.log(s)
        value = value / log_k
    elif code == MSP or code == ENERGY or code == ENTROPY_SOFTMAX:
        powers, moments = best * 0.0, best * 0.0
        for k in tl.static_range(K):
            e = tl.exp(L[k] - best)
            powers += e
            moments += e * (L[k] - best)
        if code == MSP:
            value = 1.0 - 1.0 / powers
        elif code == ENERGY:
            value = -(best + tl.log(powers))
        else:  # -sum s log s, s = e^d / T: log T - sum e^d d / T
            value = (tl.log(powers) - moments / powers) / log_k
    return value


@triton.jit
@no_type_check
def run(
    logits, table, mixes, columns, share, groups, lower, out, weight, visits, stride_q, stride_y, stride_x, H, W,
    A: tl.constexpr, C: tl.constexpr, S: tl.constexpr, K: tl.constexpr, STEPS: tl.constexpr, ADD: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Writes weight x scores to out (T, H, W), or adds them (ADD).

    `table` (visits, 1 + A + C + S + K): a query's number and its weights in peaks, crowds, sums and classes. `columns`
    (2, W): the two mask columns that a pixel reads, `share` (W,) the second one's part. `groups` (G, 4): image rows
    from, to (at most ROWS), and the two mask rows that they read; `lower` (H,): the second one's part. STEPS: the
    plan's steps, `mixes` (T,).
    """
    group = groups + 4 * tl.program_id(1)
    x = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    y = tl.load(group) + tl.arange(0, ROWS)[:, None]
    inside = (y < tl.load(group + 1)) & (x < W)
    at = tl.minimum(x, W - 1)  # past the image's edge: its last column again
    left, right = tl.load(columns + at) * stride_x, tl.load(columns + W + at) * stride_x
    part, f = tl.load(share + at), tl.load(lower + tl.minimum(y, H - 1))
    row0, row1 = tl.load(group + 2) * stride_y, tl.load(group + 3) * stride_y
    zero = tl.zeros((ROWS, COLUMNS), tl.float32)
    peaks, crowds, sums, L = _copies(zero, A), _copies(zero, C), _copies(zero, S), _copies(zero, K)
    for i in range(visits):
        weights = table + i * (1 + A + C + S + K)
        # int64: the logits of many queries of a large image have more than 2^31 elements
        masks = logits + tl.load(weights).to(tl.int64) * stride_q
        a, b = _cells(masks + row0, left), _cells(masks + row0, right)
        upper = a + part * (b - a)
        a, b = _cells(masks + row1, left), _cells(masks + row1, right)
        under = a + part * (b - a)
        z = upper + f * (under - upper)
        m = 1.0 / (1.0 + tl.exp(-z))
        peaks = _raised(peaks, weights + 1, m, A)
        crowds = _counted(crowds, weights + 1 + A, z, C)
        sums = _added(sums, weights + 1 + A + C, m, S)
        L = _added(L, weights + 1 + A + C + S, m, K)
    to, plane = out + y.to(tl.int64) * W + x, tl.cast(H, tl.int64) * W
    for t in tl.static_range(len(STEPS)):
        if STEPS[t][0] == MASKOMALY:
            mix = tl.load(mixes + t)
            value = 1.0 - peaks[STEPS[t][1]]
            if STEPS[t][3] >= 0:
                value = tl.where(crowds[STEPS[t][3]] < 2.0, value, 0.0)
            value = mix * value
            if STEPS[t][2] >= 0:
                value += (1.0 - mix) * peaks[STEPS[t][2]]
        elif STEPS[t][0] == SUM:
            value = tl.load(mixes + t) + sums[STEPS[t][1]]
        else:
            value = _finished_classes(STEPS[t][0], L, K)
        value = weight * value
        if ADD:
            value += tl.load(to + t * plane, inside, 0.0)
        tl.store(to + t * plane, value, inside)
