"""The loss's loops, compiled by numba: masks and label maps read at points.

Points are x, y in [0, 1] of the map; values are bilinear between the cells' centres and 0 beyond the map, as
grid_sample(align_corners=False, padding_mode="zeros") has them. Each call does the masks `first` to `last`.
"""

from typing import no_type_check

import numpy as np

from xenomask.jit import compiled


# no_type_check: jaxtyping's test hook would otherwise wrap what numba is to compile.
@compiled()
@no_type_check
def locate(points, rows, columns, cells, weights):
    """`cells` and `weights` (4, P) of points (P, 2): flat indices into a (rows, columns) map, bilinear weights.

    A cell beyond the map has weight 0 and a valid index.
    """
    f = points.dtype.type
    half, one = f(0.5), f(1)
    for p in range(points.shape[0]):
        x, y = points[p, 0] * f(columns) - half, points[p, 1] * f(rows) - half
        x0, y0 = int(np.floor(x)), int(np.floor(y))
        fx, fy = x - f(x0), y - f(y0)
        left, right = (one - fx) * f(0 <= x0 < columns), fx * f(0 <= x0 + 1 < columns)
        top, low = (one - fy) * f(0 <= y0 < rows), fy * f(0 <= y0 + 1 < rows)
        # in range also for a point from nowhere: nothing else keeps the reads inside the map
        c0, c1 = min(max(x0, 0), columns - 1), min(max(x0 + 1, 0), columns - 1)
        r0, r1 = columns * min(max(y0, 0), rows - 1), columns * min(max(y0 + 1, 0), rows - 1)
        cells[0, p], cells[1, p], cells[2, p], cells[3, p] = r0 + c0, r0 + c1, r1 + c0, r1 + c1
        weights[0, p], weights[1, p], weights[2, p], weights[3, p] = top * left, top * right, low * left, low * right


@compiled("real n h w", "int m", "real g p 2", "int m", "", "", "real m p")
@no_type_check
def sample(masks, index, points, group, first, last, out):
    """out (M, P) = masks (n, h, w)[index[m]] at points (G, P, 2)[group[m]]."""
    rows, columns = masks.shape[1:]
    flat = masks.reshape(masks.shape[0], rows * columns)
    count = points.shape[1]
    cells, weights = np.empty((4, count), np.uint32), np.empty((4, count), points.dtype)
    known = -1
    for m in range(first, last):
        if group[m] != known:  # neighbours often share their points
            known = group[m]
            locate(points[known], rows, columns, cells, weights)
        mask, row = flat[index[m]], out[m]
        for p in range(count):
            row[p] = (
                weights[0, p] * mask[cells[0, p]]
                + weights[1, p] * mask[cells[1, p]]
                + weights[2, p] * mask[cells[2, p]]
                + weights[3, p] * mask[cells[3, p]]
            )


@compiled("real g p 2", "int m", "int m", "real m p", "", "", "real n h w")
@no_type_check
def spread(points, index, group, grad, first, last, grad_masks):
    """The gradient of `sample`: adds grad (M, P) to the four cells of every point; no index twice."""
    rows, columns = grad_masks.shape[1:]
    flat = grad_masks.reshape(grad_masks.shape[0], rows * columns)
    count = points.shape[1]
    cells, weights = np.empty((4, count), np.uint32), np.empty((4, count), points.dtype)
    for m in range(first, last):
        locate(points[group[m]], rows, columns, cells, weights)
        mask, row = flat[index[m]], grad[m]
        for p in range(count):
            for corner in range(4):
                mask[cells[corner, p]] += weights[corner, p] * row[p]


@compiled("int b h w", "int m", "int m", "real g p 2", "int m", "", "", "real m p")
@no_type_check
def sample_labels(labels, image, klass, points, group, first, last, out):
    """out (M, P) = the mask labels (B, H, W)[image[m]] == klass[m] at points (G, P, 2)[group[m]]."""
    rows, columns = labels.shape[1:]
    flat = labels.reshape(labels.shape[0], rows * columns)
    count = points.shape[1]
    cells, weights = np.empty((4, count), np.uint32), np.empty((4, count), points.dtype)
    known = -1
    for m in range(first, last):
        if group[m] != known:
            known = group[m]
            locate(points[known], rows, columns, cells, weights)
        label, k, row = flat[image[m]], klass[m], out[m]
        for p in range(count):
            total = weights.dtype.type(0)
            for corner in range(4):
                total += weights[corner, p] * weights.dtype.type(label[cells[corner, p]] == k)
            row[p] = total


@compiled()
@no_type_check
def smallest(values, k, counts):
    """The k-th smallest (from 1) of non-negative values; NaN counts as the largest. `counts` (bins,) is scratch.

    Most values are only counted into bins: np.partition over all of them takes three times as long.
    """
    bins = len(counts)
    top = values.dtype.type(0)
    for v in values:
        if v > top and v < np.inf:
            top = v
    scale = (bins - 1) / top if top > 0 else 0.0
    counts[:] = 0
    for v in values:
        counts[int(v * scale) if v <= top else bins - 1] += 1
    place, b = k, 0
    while place > counts[b]:
        place -= counts[b]
        b += 1
    inside, n = np.empty(counts[b], values.dtype), 0
    for v in values:
        if (int(v * scale) if v <= top else bins - 1) == b:
            inside[n] = v
            n += 1
    return np.sort(inside)[place - 1]


@compiled("real n h w", "int m", "real m p 2", "", "", "real m k 2")
@no_type_check
def uncertain(masks, index, points, first, last, out):
    """out (M, k, 2) = the k of points (M, P, 2) where masks[index[m]] is nearest to 0; of equals the first."""
    rows, columns = masks.shape[1:]
    flat = masks.reshape(masks.shape[0], rows * columns)
    count, wanted = points.shape[1], out.shape[1]
    cells, weights = np.empty((4, count), np.uint32), np.empty((4, count), points.dtype)
    size, counts = np.empty(count, masks.dtype), np.empty(1024, np.int64)
    for m in range(first, last):
        locate(points[m], rows, columns, cells, weights)
        mask = flat[index[m]]
        for p in range(count):
            size[p] = abs(
                weights[0, p] * mask[cells[0, p]]
                + weights[1, p] * mask[cells[1, p]]
                + weights[2, p] * mask[cells[2, p]]
                + weights[3, p] * mask[cells[3, p]]
            )
        limit = smallest(size, wanted, counts)
        equals, i = wanted, 0
        for p in range(count):
            equals -= size[p] < limit
        for p in range(count):
            at = size[p] == limit
            if size[p] < limit or (at and equals > 0):
                equals -= at
                out[m, i, 0], out[m, i, 1] = points[m, p, 0], points[m, p, 1]
                i += 1
