"""Deformable attention's forward pass for CUDA, by Triton: each sample is added to its sum where it is read.

One program does QUERIES queries of one head of one image. Letters as in `kernels`: B images, S cells of all levels,
Q queries, H heads, D width of a head, L levels, P points.
"""

from functools import cache
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from xenomask.shapes import Float

QUERIES = 16  # a program's, on four warps: 96 registers on an H100 (Triton 3.8); 32 take 168


# no_type_check: jaxtyping's test hook would otherwise wrap what Triton is to compile.
@triton.jit
@no_type_check
def _run(
    value, sizes, reference, offsets, weights, out, S, Q, D,
    H: tl.constexpr, L: tl.constexpr, P: tl.constexpr, QUERIES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(1).to(tl.int64)
    b, h = pair // H, pair % H
    q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)[:, None]
    d = tl.arange(0, WIDTH)[None, :]
    at = b * Q + tl.minimum(q, Q - 1)
    base = value + (b * S * H + h) * D + d
    total = tl.zeros((QUERIES, WIDTH), tl.float32)
    start = 0
    for level in range(L):
        rows, columns = tl.load(sizes + 2 * level), tl.load(sizes + 2 * level + 1)
        place = reference + 2 * (at * L + level)
        cx = tl.load(place).to(tl.float32) * columns - 0.5
        cy = tl.load(place + 1).to(tl.float32) * rows - 0.5
        for p in range(P):
            i = ((at * H + h) * L + level) * P + p
            x, y = cx + tl.load(offsets + 2 * i).to(tl.float32), cy + tl.load(offsets + 2 * i + 1).to(tl.float32)
            inside = (x > -1) & (y > -1) & (x < columns) & (y < rows)  # so put, NaN stays outside too
            x, y = tl.where(inside, x, 0.0), tl.where(inside, y, 0.0)
            w = tl.where(inside, tl.load(weights + i).to(tl.float32), 0.0)
            fx, fy = x - tl.floor(x), y - tl.floor(y)
            x0, y0 = tl.floor(x).to(tl.int32), tl.floor(y).to(tl.int32)
            # a corner outside gets weight 0 and the address of one inside
            left, right = tl.where(x0 >= 0, 1 - fx, 0.0), tl.where(x0 + 1 < columns, fx, 0.0)
            top, low = w * tl.where(y0 >= 0, 1 - fy, 0.0), w * tl.where(y0 + 1 < rows, fy, 0.0)
            r0, r1 = start + tl.maximum(y0, 0) * columns, start + tl.minimum(y0 + 1, rows - 1) * columns
            c0, c1 = tl.maximum(x0, 0), tl.minimum(x0 + 1, columns - 1)
            step = tl.cast(H, tl.int64) * D
            total += top * left * tl.load(base + (r0 + c0) * step, d < D, 0.0).to(tl.float32)
            total += top * right * tl.load(base + (r0 + c1) * step, d < D, 0.0).to(tl.float32)
            total += low * left * tl.load(base + (r1 + c0) * step, d < D, 0.0).to(tl.float32)
            total += low * right * tl.load(base + (r1 + c1) * step, d < D, 0.0).to(tl.float32)
        start += rows * columns
    tl.store(out + (at * H + h) * D + d, total.to(out.dtype.element_ty), (q < Q) & (d < D))


@cache  # some bytes each, and CUDA graphs read them by address: never freed
def _sizes(sizes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    return torch.tensor(sizes, dtype=torch.int32, device=device)


def attention(
    value: Float[Tensor, "b s heads d"],
    sizes: list[tuple[int, int]],
    reference: Float[Tensor, "b q levels 2"],
    offsets: Float[Tensor, "b q heads levels points 2"],
    weights: Float[Tensor, "b q heads levels points"],
) -> Float[Tensor, "b q heads_d"]:
    """As `deformable.attention`, of `value`'s type, float16, bfloat16 or float32; summed in float32. No gradients."""
    assert sum(h * w for h, w in sizes) == value.shape[1]  # the kernel would read beyond its end
    value, reference, offsets, weights = (t.contiguous() for t in (value, reference, offsets, weights))
    B, S, H, D = value.shape
    Q, L, P = offsets.shape[1], offsets.shape[3], offsets.shape[4]
    out = value.new_empty(B, Q, H, D)
    with torch.cuda.device_of(value):
        _run[triton.cdiv(Q, QUERIES), B * H](
            value, _sizes(tuple(map(tuple, sizes)), value.device), reference, offsets, weights, out, S, Q, D,
            H, L, P, QUERIES, triton.next_power_of_2(D),
        )  # fmt: skip
    return out.flatten(2)
