"""Detector -> one module for photos of any size: the networks see a fixed size, all around them is free.

A photo is scaled to fit into the network input that a photo of the export's size would have, what is left is padding
(nothing is, where the network squeezes every photo to one size).
Scaling is two matrix products, whose matrices are computed from the photo's height and width inside the graph.
"""

import torch
from torch import Tensor, nn

from xenomask.detector import Detector, Member
from xenomask.export.fused import score_rows, used_members
from xenomask.masks import MaskOutput
from xenomask.models.preprocess import target_size
from xenomask.shapes import Float, Float32, UInt8
from xenomask.types import Size


class Free(nn.Module):
    """A detector's members with their scores and weights, for photos of any size."""

    def __init__(self, detector: Detector, size: Size):
        super().__init__()
        self.members = used_members(detector)
        self.networks = nn.ModuleList(m.network.module for m in self.members)
        self.size = size

    def forward(self, image: UInt8[Tensor, "1 H W 3"]) -> Float32[Tensor, "1 H W"]:
        """The fused map of one photo; `Detector.detect`'s where the photo has the export's size."""
        pixels = image[0].to(torch.float32).permute(2, 0, 1)
        maps = [m.weight * _map(m, net, pixels, self.size) for m, net in zip(self.members, self.networks, strict=True)]
        return torch.stack(maps).sum(0)[None] if len(maps) > 1 else maps[0][None]


def _map(member: Member, network: nn.Module, pixels: Float[Tensor, "3 H W"], size: Size) -> Tensor:
    p = member.network.preprocess
    h, w = target_size(p, size)
    # positions of rows and columns, and their number, without a plain number that a graph could not keep free
    rows, columns = (torch.cumsum(torch.ones_like(x), 0) - 1 for x in (pixels[0, :, 0], pixels[0, 0, :]))
    H, W = rows[-1] + 1, columns[-1] + 1
    scale = torch.minimum(h / H, w / W)
    used_h, used_w = (torch.floor(n * scale + 0.5).clamp(min=1) for n in (H, W))
    if p.policy == "fixed":
        used_h, used_w = torch.tensor(float(h)), torch.tensor(float(w))
    elif p.stretch:
        used_h, used_w = (torch.ceil(n / p.divisor) * p.divisor for n in (used_h, used_w))
    ph, pw = h + -h % p.divisor, w + -w % p.divisor
    if p.resample == "opencv":
        averages = torch.logical_and(used_h < H, torch.tensor(p.antialias))
        down_y, down_x = shrink(ph, used_h, rows, averages), shrink(pw, used_w, columns, averages)
        x = torch.round(down_y @ pixels @ down_x.T).clamp(0, 255)
    else:
        down_y, down_x = smooth(ph, used_h, rows, p.resample), smooth(pw, used_w, columns, p.resample)
        x = torch.round(pixels @ down_x.T).clamp(0, 255)  # torchvision rounds rows, too
        x = torch.round(down_y @ x).clamp(0, 255)
    inside = (torch.arange(ph) < used_h).float()[:, None] * (torch.arange(pw) < used_w).float()
    x = x * inside if p.black else x
    x = (x - torch.tensor(p.mean)[:, None, None]) / torch.tensor(p.std)[:, None, None]
    out = network(pixel_values=(x if p.black else x * inside)[None])
    logits = out.masks_queries_logits[0].float()
    up_y = stretch(rows, H, logits.shape[1], ph, used_h)
    up_x = stretch(columns, W, logits.shape[2], pw, used_w)
    m = (up_y @ logits @ up_x.T).sigmoid()
    output = MaskOutput(
        out.class_queries_logits[0].float(), logits, (ph, pw), (h, w), size, member.network.outlier_class
    )
    return score_rows(member.score, output, member.queries, m)


def shrink(cells: int, used: Tensor, places: Float[Tensor, " n"], averages: Tensor) -> Float[Tensor, "cells n"]:
    """What each of `cells` pixels takes of n source pixels, of which the first `used` show them: cv2's two ways."""
    n = places[-1] + 1
    step, i = n / used, torch.arange(cells, dtype=torch.float32)[:, None]
    area = (torch.minimum((i + 1) * step, places + 1) - torch.maximum(i * step, places)).clamp(min=0)
    source = torch.minimum(((i + 0.5) * step - 0.5).clamp(min=0), n - 1)
    linear = (1 - (source - places).abs()).clamp(min=0)
    return torch.where(averages, area / area.sum(1, keepdim=True).clamp(min=1e-6), linear)


def smooth(cells: int, used: Tensor, places: Float[Tensor, " n"], how: str) -> Float[Tensor, "cells n"]:
    """The same as torchvision resizes for transformers: the nearest pixel, or antialiased, bilinear or bicubic."""
    step = (places[-1] + 1) / used
    centre = (torch.arange(cells, dtype=torch.float32)[:, None] + 0.5) * step
    if how == "nearest":
        return (torch.floor(centre) == places).float()
    at = (places + 0.5 - centre).abs() / step.clamp(min=1)
    if how == "bilinear":
        weights = (1 - at).clamp(min=0)
    else:
        near, far = (1.5 * at - 2.5) * at * at + 1, ((-0.5 * at + 2.5) * at - 4) * at + 2
        weights = torch.where(at < 1, near, torch.where(at < 2, far, 0.0))
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-6)


def stretch(places: Float[Tensor, " n"], n: Tensor, cells: int, padded: int, used: Tensor) -> Float[Tensor, "n cells"]:
    """What each of n photo pixels takes of the mask's cells, bilinearly; cells of the padding give nothing."""
    last = torch.ceil(used * cells / padded) - 1
    source = torch.minimum(((places + 0.5) * (used / padded * cells / n) - 0.5).clamp(min=0), last)
    return (1 - (source[:, None] - torch.arange(cells, dtype=torch.float32)).abs()).clamp(min=0)
