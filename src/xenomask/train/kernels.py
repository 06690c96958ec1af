"""The loss's loops, compiled by numba: masks and label maps read at points.

Points are x, y in [0, 1] of the map; values are bilinear between the cells' centres and 0 beyond the map, as
grid_sample(align_corners=False, padding_mode="zeros") has them. Each call does the masks `first` to `last`.
"""

from typing import no_type_check

import numpy as np

from xenomask.jit import compiled


# no_type_check: jaxtyping's test hook would otherwise wrap what numba is to compile.
@compiled(inline="always")
@no_type_check
def corners(point, rows, columns):
    """(first row, first column, weight of the second row, of the second column) of a point's four cells."""
    f = point.dtype.type
    x, y = point[0] * f(columns) - f(0.5), point[1] * f(rows) - f(0.5)
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    return y0, x0, y - f(y0), x - f(x0)


@compiled()
@no_type_check
def value_at(mask, point):
    """The mask (h, w) at one point."""
    rows, columns = mask.shape
    y0, x0, fy, fx = corners(point, rows, columns)
    f = mask.dtype.type
    one, total = f(1), f(0)
    if y0 >= 0:
        if x0 >= 0:
            total += (one - fy) * (one - fx) * mask[y0, x0]
        if x0 + 1 < columns:
            total += (one - fy) * fx * mask[y0, x0 + 1]
    if y0 + 1 < rows:
        if x0 >= 0:
            total += fy * (one - fx) * mask[y0 + 1, x0]
        if x0 + 1 < columns:
            total += fy * fx * mask[y0 + 1, x0 + 1]
    return total


@compiled()
@no_type_check
def sample(masks, index, points, group, first, last, out):
    """out (M, P) = masks (n, h, w)[index[m]] at points (G, P, 2)[group[m]]."""
    for m in range(first, last):
        mask = masks[index[m]]
        for p in range(points.shape[1]):
            out[m, p] = value_at(mask, points[group[m], p])


@compiled()
@no_type_check
def spread(points, index, group, grad, first, last, grad_masks):
    """The gradient of `sample`: adds grad (M, P) to the four cells of every point; no index twice."""
    rows, columns = grad_masks.shape[1:]
    one = grad.dtype.type(1)
    for m in range(first, last):
        mask = grad_masks[index[m]]
        for p in range(points.shape[1]):
            y0, x0, fy, fx = corners(points[group[m], p], rows, columns)
            g = grad[m, p]
            if y0 >= 0:
                if x0 >= 0:
                    mask[y0, x0] += (one - fy) * (one - fx) * g
                if x0 + 1 < columns:
                    mask[y0, x0 + 1] += (one - fy) * fx * g
            if y0 + 1 < rows:
                if x0 >= 0:
                    mask[y0 + 1, x0] += fy * (one - fx) * g
                if x0 + 1 < columns:
                    mask[y0 + 1, x0 + 1] += fy * fx * g


@compiled()
@no_type_check
def sample_labels(labels, image, klass, points, group, first, last, out):
    """out (M, P) = the mask labels (B, H, W)[image[m]] == klass[m] at points (G, P, 2)[group[m]]."""
    rows, columns = labels.shape[1:]
    one = out.dtype.type(1)
    for m in range(first, last):
        label, k = labels[image[m]], klass[m]
        for p in range(points.shape[1]):
            y0, x0, fy, fx = corners(points[group[m], p], rows, columns)
            total = out.dtype.type(0)
            if y0 >= 0:
                if x0 >= 0 and label[y0, x0] == k:
                    total += (one - fy) * (one - fx)
                if x0 + 1 < columns and label[y0, x0 + 1] == k:
                    total += (one - fy) * fx
            if y0 + 1 < rows:
                if x0 >= 0 and label[y0 + 1, x0] == k:
                    total += fy * (one - fx)
                if x0 + 1 < columns and label[y0 + 1, x0 + 1] == k:
                    total += fy * fx
            out[m, p] = total


@compiled()
@no_type_check
def uncertain(masks, index, points, first, last, out):
    """out (M, k, 2) = the k of points (M, P, 2) where masks[index[m]] is nearest to 0; of equals the first."""
    count = points.shape[1]
    wanted = out.shape[1]
    size = np.empty(count, masks.dtype)
    for m in range(first, last):
        mask = masks[index[m]]
        for p in range(count):
            size[p] = abs(value_at(mask, points[m, p]))
        limit = np.partition(size, wanted - 1)[wanted - 1]
        below = 0
        for p in range(count):
            below += size[p] < limit
        equals, i = wanted - below, 0
        for p in range(count):
            at = size[p] == limit
            if i < wanted and (size[p] < limit or (at and equals > 0)):
                equals -= at
                out[m, i] = points[m, p]
                i += 1
