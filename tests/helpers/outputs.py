"""Small outputs of networks: random logits, or those of given probabilities."""

import numpy as np
import torch

from xenomask.masks import MaskOutput, PixelOutput


def make_output(
    q=6, n=5, h=5, w=7, padded=(20, 28), used=(18, 25), image=(13, 31), seed=0, dtype=torch.float32,
    outlier_class=False,
):  # fmt: skip
    """Random logits of a network whose input was padded."""
    g = torch.Generator().manual_seed(seed)
    return MaskOutput(
        class_logits=3 * torch.randn(q, n, generator=g).to(dtype),
        mask_logits=3 * torch.randn(q, h, w, generator=g).to(dtype),
        padded_size=padded,
        input_size=used,
        image_size=image,
        outlier_class=outlier_class,
    )


def make_pixel_output(k=5, h=5, w=7, padded=(20, 28), used=(18, 25), image=(13, 31), seed=0):
    """Random logits, of both signs, of a per-pixel network whose input was padded."""
    g = torch.Generator().manual_seed(seed)
    return PixelOutput(4 * torch.randn(k, h, w, generator=g), padded, used, image)


def from_probabilities(p, m) -> MaskOutput:
    """The MaskOutput whose P and soft masks (at the image's size) are the given ones."""
    p, m = torch.as_tensor(np.asarray(p)).double(), torch.as_tensor(np.asarray(m)).double()
    size = (m.shape[1], m.shape[2])
    return MaskOutput(p.log(), torch.logit(m), size, size, size)
