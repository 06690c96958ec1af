"""Detector -> one module: uint8 photo in, score map out, all between inside."""

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from xenomask.detector import Detector, Member
from xenomask.errors import XenomaskError
from xenomask.export.resize import Resize, Smooth
from xenomask.masks import MaskOutput, class_probabilities, outlier_probabilities, row_blocks, soft_masks
from xenomask.models.preprocess import averages, target_size
from xenomask.scores import Score
from xenomask.types import QuerySet, Size


class Fused(nn.Module):
    """A detector's members with their scores and weights, for photos of one size."""

    def __init__(self, detector: Detector, size: Size):
        super().__init__()
        self.members = used_members(detector)
        self.networks = nn.ModuleList(m.network.module for m in self.members)
        self.size = size
        prepared = [m.network.preprocess for m in self.members]
        self.resizers = nn.ModuleList(
            Resize(size, target_size(p, size), averages(p, size)) if p.resample == "opencv"
            else Smooth(size, target_size(p, size), p.resample)
            for p in prepared
        )  # fmt: skip

    def forward(self, image: UInt8[Tensor, "1 H W 3"]) -> Float32[Tensor, "1 H W"]:
        """The fused map of one photo, as `Detector.detect` computes it."""
        pixels = image[0].to(torch.float32)
        maps = [
            member.weight * _member_map(member, network, resize(pixels), self.size)
            for member, network, resize in zip(self.members, self.networks, self.resizers, strict=True)
        ]
        return torch.stack(maps).sum(0)[None] if len(maps) > 1 else maps[0][None]


def used_members(detector: Detector) -> tuple[Member, ...]:
    """The members that count, in eager torch; XenomaskError where the detector runs in another runtime."""
    if any(m.network.run is not None for m in detector.used):
        raise XenomaskError(f"{detector.name} runs in another runtime already: export the detector folder")
    return detector.used


def _member_map(member: Member, network: nn.Module, pixels: Tensor, size: Size) -> Tensor:
    p = member.network.preprocess
    h, w = pixels.shape[:2]
    padding = (0, -w % p.divisor, 0, -h % p.divisor)
    if p.black:
        pixels = nn.functional.pad(pixels, (0, 0, *padding))
    x = ((pixels - torch.tensor(p.mean)) / torch.tensor(p.std)).permute(2, 0, 1)[None]
    if not p.black:
        x = nn.functional.pad(x, padding)
    out = network(pixel_values=x)
    output = MaskOutput(
        class_logits=out.class_queries_logits[0].float(),
        mask_logits=out.masks_queries_logits[0].float(),
        padded_size=(x.shape[2], x.shape[3]),
        input_size=(h, w),
        image_size=size,
        outlier_class=member.network.outlier_class,
    )
    return score_map(member.score, output, member.queries)


def score_map(score: Score, output: MaskOutput, queries: QuerySet) -> Float32[Tensor, "H W"]:
    """A score's map as `scores.score_all` computes it, but as a tensor; in blocks of rows never (Q, H, W) at once."""
    parts = [score_rows(score, output, queries, soft_masks(output, rows)) for rows in row_blocks(output)]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def score_rows(score: Score, output: MaskOutput, queries: QuerySet, m: Tensor) -> Tensor:
    """The score of the rows that the soft masks m (Q, r, W) cover."""
    outlier = outlier_probabilities(output) if score.outlier_class else None
    return score.rows(class_probabilities(output), m, queries, outlier)
