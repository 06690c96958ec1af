"""Deformable attention's loops, compiled by numba: one pass over queries, no tensor of sampled values in between.

Each call does the (image, head) pairs `first` to `last` and writes to nothing of the others', so that any number of
threads gives the same bits. Letters: B images, S cells of all levels, Q queries, H heads, D width of a head, L levels,
P points. `value` (B, S, H, D); `sizes` (L, 2) rows and columns; `reference` (B, Q, L, 2) x, y in [0, 1]; `offsets`
(B, Q, H, L, P, 2) x, y in cells; `weights` (B, Q, H, L, P); all of one floating type.
"""

from typing import no_type_check

import numpy as np

from xenomask.jit import compiled

# Sums over a head's width may be taken in any order, which lets them run in vector registers.
ORDER = {"reassoc", "contract"}


# no_type_check: jaxtyping's test hook would otherwise wrap what numba is to compile.
@compiled(
    "real B S H D",
    "int64 L 2",
    "real B Q L 2",
    "real B Q H L P 2",
    "real B Q H L P",
    "",
    "",
    "real B Q H D",
    fastmath=ORDER,
)
@no_type_check
def forward(value, sizes, reference, offsets, weights, first, last, out):
    """out (B, Q, H, D) = sum over levels and points of weights x value, sampled bilinearly, zeros outside."""
    heads, width = value.shape[2], value.shape[3]
    levels, points = weights.shape[3], weights.shape[4]
    f = value.dtype.type  # keeps float32 arithmetic float32
    half, one = f(0.5), f(1)
    for pair in range(first, last):
        b, h = np.uintp(pair // heads), np.uintp(pair % heads)
        for q in range(reference.shape[1]):
            for d in range(width):
                out[b, q, h, d] = 0
            start = 0
            for level in range(levels):
                rows, columns = sizes[level, 0], sizes[level, 1]
                cx = reference[b, q, level, 0] * f(columns) - half
                cy = reference[b, q, level, 1] * f(rows) - half
                for p in range(points):
                    x, y = cx + offsets[b, q, h, level, p, 0], cy + offsets[b, q, h, level, p, 1]
                    if not (x > -1 and y > -1 and x < columns and y < rows):  # so put, NaN stays outside too
                        continue
                    x0, y0 = int(np.floor(x)), int(np.floor(y))
                    fx, fy = x - f(x0), y - f(y0)
                    w = weights[b, q, h, level, p]
                    # a corner outside gets weight 0 and the address of one inside
                    left, right = (one - fx) * f(x0 >= 0), fx * f(x0 + 1 < columns)
                    top, low = w * (one - fy) * f(y0 >= 0), w * fy * f(y0 + 1 < rows)
                    r0, r1 = start + max(y0, 0) * columns, start + min(y0 + 1, rows - 1) * columns
                    c0, c1 = max(x0, 0), min(x0 + 1, columns - 1)
                    # unsigned: numba then makes no code for negative indices
                    s00, s01, s10, s11 = np.uintp(r0 + c0), np.uintp(r0 + c1), np.uintp(r1 + c0), np.uintp(r1 + c1)
                    a00, a01, a10, a11 = top * left, top * right, low * left, low * right
                    for d in range(width):
                        out[b, q, h, d] += (
                            a00 * value[b, s00, h, d]
                            + a01 * value[b, s01, h, d]
                            + a10 * value[b, s10, h, d]
                            + a11 * value[b, s11, h, d]
                        )
                start += rows * columns


@compiled(
    "real B S H D", "int64 L 2", "real B Q L 2", "real B Q H L P 2", "real B Q H L P",
    "real B Q H D", "", "", "real B S H D", "real B Q H L P 2", "real B Q H L P", fastmath=ORDER,
)  # fmt: skip
@no_type_check
def backward(value, sizes, reference, offsets, weights, grad, first, last, grad_value, grad_offsets, grad_weights):
    """Gradients of `forward` for `grad` (B, Q, H, D), into three arrays of zeros in the shapes of their inputs."""
    heads, width = value.shape[2], value.shape[3]
    levels, points = weights.shape[3], weights.shape[4]
    f = value.dtype.type  # keeps float32 arithmetic float32
    half, one = f(0.5), f(1)
    for pair in range(first, last):
        b, h = np.uintp(pair // heads), np.uintp(pair % heads)
        for q in range(reference.shape[1]):
            start = 0
            for level in range(levels):
                rows, columns = sizes[level, 0], sizes[level, 1]
                cx = reference[b, q, level, 0] * f(columns) - half
                cy = reference[b, q, level, 1] * f(rows) - half
                for p in range(points):
                    x, y = cx + offsets[b, q, h, level, p, 0], cy + offsets[b, q, h, level, p, 1]
                    if not (x > -1 and y > -1 and x < columns and y < rows):
                        continue
                    x0, y0 = int(np.floor(x)), int(np.floor(y))
                    fx, fy = x - f(x0), y - f(y0)
                    w = weights[b, q, h, level, p]
                    ml, mr, mt, mb = f(x0 >= 0), f(x0 + 1 < columns), f(y0 >= 0), f(y0 + 1 < rows)
                    left, right = (one - fx) * ml, fx * mr
                    top, low = (one - fy) * mt, fy * mb
                    r0, r1 = start + max(y0, 0) * columns, start + min(y0 + 1, rows - 1) * columns
                    c0, c1 = max(x0, 0), min(x0 + 1, columns - 1)
                    s00, s01, s10, s11 = np.uintp(r0 + c0), np.uintp(r0 + c1), np.uintp(r1 + c0), np.uintp(r1 + c1)
                    d00 = d01 = d10 = d11 = f(0)
                    for d in range(width):
                        g = grad[b, q, h, d]
                        d00 += g * value[b, s00, h, d]
                        d01 += g * value[b, s01, h, d]
                        d10 += g * value[b, s10, h, d]
                        d11 += g * value[b, s11, h, d]
                    a00, a01, a10, a11 = w * top * left, w * top * right, w * low * left, w * low * right
                    for d in range(width):
                        grad_value[b, s00, h, d] += a00 * grad[b, q, h, d]
                    for d in range(width):
                        grad_value[b, s01, h, d] += a01 * grad[b, q, h, d]
                    for d in range(width):
                        grad_value[b, s10, h, d] += a10 * grad[b, q, h, d]
                    for d in range(width):
                        grad_value[b, s11, h, d] += a11 * grad[b, q, h, d]
                    grad_weights[b, q, h, level, p] = top * (left * d00 + right * d01) + low * (
                        left * d10 + right * d11
                    )
                    grad_offsets[b, q, h, level, p, 0] = w * (top * (mr * d01 - ml * d00) + low * (mr * d11 - ml * d10))
                    grad_offsets[b, q, h, level, p, 1] = w * (
                        left * (mb * d10 - mt * d00) + right * (mb * d11 - mt * d01)
                    )
                start += rows * columns
