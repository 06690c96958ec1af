"""Detector -> one module: uint8 photos in, score maps out, all between inside."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from xenomask.detector import Detector, Member
from xenomask.detector.fuse import has_masks, seen_by
from xenomask.errors import XenomaskError
from xenomask.export.resize import Resize, Smooth
from xenomask.masks import MaskOutput, class_probabilities, outlier_probabilities, row_blocks, soft_masks
from xenomask.models.preprocess import Preprocess, averages, target_size
from xenomask.refine import Refinement
from xenomask.scores import Score
from xenomask.shapes import Float32, UInt8
from xenomask.types import QuerySet, Size


class Fused(nn.Module):
    """A detector's members with their scores and weights, for `batch` photos (None: any number) of one size."""

    def __init__(self, detector: Detector, size: Size, batch: int | None = 1):
        super().__init__()
        self.each = _one if batch == 1 else torch.vmap
        self.members = used_members(detector)
        self.refine, self.low = detector.refine, detector.scale[0]
        self.networks = nn.ModuleList(m.network.module for m in self.members)
        self.size = size
        prepared = [m.network.preprocess for m in self.members]
        self.resizers = nn.ModuleList(
            Resize(size, target_size(p, size), averages(p, size)) if p.resample == "opencv"
            else Smooth(size, target_size(p, size), p.resample)
            for p in prepared
        )  # fmt: skip

    def forward(self, image: UInt8[Tensor, "B H W 3"]) -> Float32[Tensor, "B H W"]:
        """The fused map of each photo, as `Detector.detect` computes it."""
        pixels = image.to(torch.float32).permute(1, 2, 0, 3).flatten(2)  # (H, W, 3 B)
        maps, divided = [], []
        for m, network, resize in zip(self.members, self.networks, self.resizers, strict=True):
            x = _prepared(m.network.preprocess, resize(pixels))
            out = network(pixel_values=x)
            classes, masks = out.class_queries_logits.float(), out.masks_queries_logits.float()
            sizes = (x.shape[2], x.shape[3]), target_size(m.network.preprocess, self.size), self.size
            first = MaskOutput(classes[0], masks[0], *sizes, m.network.outlier_class)
            parts = [self.each(partial(_rows_of, m, first, rows))(classes, masks) for rows in row_blocks(first)]
            maps.append(m.weight * (torch.cat(parts, 1) if len(parts) > 1 else parts[0]))
            if has_masks(m):
                divided.append((m, first, classes, masks))
        value, total = torch.stack(maps).sum(0) if len(maps) > 1 else maps[0], sum(m.weight for m, *_ in divided)
        for r in self.refine:
            own = [m.weight / total * self.each(partial(_refined, r, self.low, m, first))(value, classes, masks)
                   for m, first, classes, masks in divided]  # fmt: skip
            value = torch.stack(own).sum(0) if len(own) > 1 else own[0]
        return value


def _one(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What torch.vmap makes of a function, for a batch of one: its graph holds no further axis."""
    return lambda *parts: function(*(p[0] for p in parts))[None]


def used_members(detector: Detector) -> tuple[Member, ...]:
    """The members that count, in eager torch; XenomaskError where the detector runs in another runtime."""
    if any(m.network.run is not None for m in detector.used):
        raise XenomaskError(f"{detector.name} runs in another runtime already: export the detector folder")
    return detector.used


def _prepared(p: Preprocess, pixels: Float32[Tensor, "h w C"]) -> Float32[Tensor, "B 3 ph pw"]:
    h, w = pixels.shape[:2]
    padding = (0, -w % p.divisor, 0, -h % p.divisor)
    pixels = pixels.unflatten(2, (-1, 3))
    if p.black:
        pixels = nn.functional.pad(pixels, (0, 0, 0, 0, *padding))
    x = ((pixels - torch.tensor(p.mean)) / torch.tensor(p.std)).permute(2, 3, 0, 1)
    return x if p.black else nn.functional.pad(x, padding)


def _rows_of(member: Member, like: MaskOutput, rows: slice, classes: Tensor, masks: Tensor) -> Float32[Tensor, "r W"]:
    output = replace(like, class_logits=classes, mask_logits=masks)
    return score_rows(member.score, output, member.queries, soft_masks(output, rows))


def _refined(
    refinement: Refinement, low: float, member: Member, like: MaskOutput, value: Tensor, classes: Tensor, masks: Tensor
) -> Float32[Tensor, "H W"]:
    output = replace(like, class_logits=classes, mask_logits=masks)
    return refinement.of(value, seen_by(member, output, low))


def score_rows(score: Score, output: MaskOutput, queries: QuerySet, m: Tensor) -> Tensor:
    """The score of the rows that the soft masks m (Q, r, W) cover."""
    outlier = outlier_probabilities(output) if score.outlier_class else None
    return score.rows(class_probabilities(output), m, queries, outlier)
