"""Mask2Former's slowest steps as graphs compute them best: the same sums as transformers', in another order.

Only while a network is traced (`graph_form`). Of nano-l's graph at 704x384 they save a sixth of the time and half of
the first run's memory (docs/log.md, 2026-11-29).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.mask2former.modeling_mask2former import Mask2FormerMaskPredictor

from xenomask.models.deformable import Layer, forward_by, plain
from xenomask.shapes import Float


@contextmanager
def graph_form(module: nn.Module) -> Iterator[nn.Module]:
    """While it is open, the module's deformable attention and mask predictors run by the functions below."""
    forms = {Layer: partial(forward_by, attention), Mask2FormerMaskPredictor: _predict}
    with plain(module):
        changed = [(m, form) for m in module.modules() for kind, form in forms.items() if isinstance(m, kind)]
        before = [vars(m).get("forward") for m, _ in changed]
        try:
            for m, form in changed:
                m.forward = partial(form, m)  # pyright: ignore
            yield module
        finally:
            for (m, _), own in zip(changed, before, strict=True):
                del m.forward
                if own is not None:
                    m.forward = own


def attention(
    value: Float[Tensor, "b s heads d"],
    sizes: list[tuple[int, int]],
    reference: Float[Tensor, "b q levels 2"],
    offsets: Float[Tensor, "b q heads levels points 2"],
    weights: Float[Tensor, "b q heads levels points"],
) -> Float[Tensor, "b q heads_d"]:
    """`deformable.attention` by grid_sample, level by level, queries innermost.

    NOTE: transformers stacks all levels' samples, then weighs and adds them; OpenVINO and ONNX Runtime write that
    stack (46 MB in each layer of nano-l) and read it twice.
    """
    B, _, H, d = value.shape
    levels = value.split([h * w for h, w in sizes], dim=1)
    found = []
    for i, (own, (h, w)) in enumerate(zip(levels, sizes, strict=True)):
        image = own.flatten(2).transpose(1, 2).reshape(B * H, d, h, w)
        places = reference[:, :, None, i, None] + offsets[:, :, :, i] / value.new_tensor([w, h])  # (B, Q, H, points, 2)
        grid = (2 * places - 1).permute(0, 2, 3, 1, 4).flatten(0, 1)
        samples = nn.functional.grid_sample(image, grid, padding_mode="zeros", align_corners=False)
        share = weights[:, :, :, i].permute(0, 2, 3, 1).flatten(0, 1)
        found.append((samples * share[:, None]).sum(2))  # (B H, d, Q)
    return sum(found[1:], found[0]).unflatten(0, (B, H)).flatten(1, 2).transpose(1, 2)


def _predict(predictor: Any, outputs: Tensor, pixel_embeddings: Tensor, attention_mask_target_size: Any = None):
    """Mask2FormerMaskPredictor.forward: mask logits (B, Q, h, w), and (B heads, Q, cells), True where to look away.

    NOTE: transformers resizes the products of queries and pixels; here the pixels are resized, a linear step that may
    come first, so that what lies between two layers is computed at that layer's size only.
    """
    queries = predictor.mask_embedder(outputs.transpose(0, 1))
    masks = torch.einsum("bqc, bchw -> bqhw", queries, pixel_embeddings)
    pixels = nn.functional.interpolate(
        pixel_embeddings, size=attention_mask_target_size, mode="bilinear", align_corners=False
    )
    near = torch.einsum("bqc, bchw -> bqhw", queries, pixels).sigmoid().flatten(2)
    away = near.unsqueeze(1).repeat(1, predictor.num_heads, 1, 1).flatten(0, 1) < 0.5
    return masks, away
