"""Quantiles of connected regions in operators that an exported graph can hold: no loop of unknown length, no scatter.

Exact but for three limits: a region is followed along at most SWEEPS runs of a row and a column each (others fall into
parts), the REGIONS that reach furthest down are raised, and a quantile is found to a 2^HALVINGS-th of the map's range.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from xenomask.shapes import Bool, Float, Int

# 115 photos of six sets need at most 8 sweeps and have at most 75 regions (docs/refinements/vehicles.md)
SWEEPS, REGIONS, HALVINGS = 12, 96, 20


def region_quantiles(
    s: Float[Tensor, "a b"], classes: Int[Tensor, "a b"], wanted: Sequence[int], quantile: float
) -> Float[Tensor, "a b"]:
    """In each region of a wanted class its `quantile` of s, as `regions.quantiles` of `class_regions`; s elsewhere."""
    flat = s.flatten()
    label = labelled(classes, wanted).flatten()
    own = torch.where(label == torch.arange(1.0, len(label) + 1), label, 0.0)  # one cell a region bears its own number
    named = own.topk(min(REGIONS, len(own))).values[:, None]
    inside = torch.where((label == named) & (named > 0), 1.0, 0.0)  # (R, a b)
    # for each size of a region, the place of the quantile in rising order, from 1
    places = torch.tensor((quantile * (np.arange(len(label) + 1) - 1)).astype(np.int64).clip(0) + 1)
    place = places[inside.sum(1).long()]
    slot = inside.argmax(0)  # of cells in no region: any
    low, high = (end.expand(len(named)) for end in (flat.amin(0), flat.amax(0)))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        enough = inside @ torch.where(flat <= middle.index_select(0, slot), 1.0, 0.0) >= place
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return torch.where(inside.amax(0) > 0, high.index_select(0, slot), flat).reshape(s.shape)


def labelled(classes: Int[Tensor, "a b"], wanted: Sequence[int]) -> Float[Tensor, "a b"]:
    """The highest number of a cell of the same 4-connected region of a wanted class; numbers from 1, 0 elsewhere."""
    inside = torch.stack([classes == k for k in wanted]).any(0)
    label = torch.where(inside.flatten(), torch.arange(1.0, classes.numel() + 1), 0.0)
    runs = [_runs(classes, inside, axis) for axis in (1, 0)]
    for _ in range(SWEEPS):
        for before, end in runs:
            for places in before:  # of all cells from the run's first on
                label = torch.maximum(label, label.index_select(0, places))
            label = label.index_select(0, end)
    return label.reshape(classes.shape)


def _runs(
    classes: Int[Tensor, "a b"], inside: Bool[Tensor, "a b"], axis: int
) -> tuple[list[Int[Tensor, " n"]], Int[Tensor, " n"]]:
    """Each cell's places 1, 2, 4, ... before it along an axis, at most its run's first; and its run's end."""
    n, stride = classes.shape[axis] - 1, 1 if axis == 1 else classes.shape[1]
    same = (classes.narrow(axis, 0, n) == classes.narrow(axis, 1, n)) & inside.narrow(axis, 0, n)
    ends = ((1, 0), (0, 1)) if axis == 1 else ((0, 0, 1, 0), (0, 0, 0, 1))
    back, on = (stride * pad(same.long(), end).flatten() for end in ends)
    places = torch.arange(classes.numel())
    before, last = [places - back], places + on
    for _ in range(n.bit_length() - 1):
        before.append(before[-1].index_select(0, before[-1]))
        last = last.index_select(0, last)
    return before, last.index_select(0, last)
