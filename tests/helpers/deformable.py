"""Inputs of deformable attention, and transformers' function for them."""

import torch
from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

SIZES = [
    [(6, 12), (3, 5), (1, 1)],
    [(1, 1)],
    [(1, 7), (7, 1)],
    [(2, 3), (4, 6), (8, 12)],
]


def inputs(sizes, heads, width, points=4, images=2, queries=11, spread=3.0, dtype=torch.float32, seed=0):
    """Random inputs; offsets of some cells, so that many points lie outside and on the edges."""
    g = torch.Generator().manual_seed(seed)
    shape = (images, queries, heads, len(sizes), points)
    value = torch.randn(images, sum(h * w for h, w in sizes), heads, width, generator=g, dtype=dtype)
    reference = torch.rand(images, queries, len(sizes), 2, generator=g, dtype=dtype)
    offsets = spread * torch.randn(*shape, 2, generator=g, dtype=dtype)
    weights = torch.randn(shape, generator=g, dtype=dtype).flatten(3).softmax(-1).view(shape)
    return value, sizes, reference, offsets, weights


def reference_form(value, sizes, reference, offsets, weights):
    """transformers' function, which wants places in [0, 1]."""
    normalizer = torch.tensor([[w, h] for h, w in sizes])
    places = reference[:, :, None, :, None] + offsets / normalizer[:, None]
    return multi_scale_deformable_attention(value, sizes, places, weights)
